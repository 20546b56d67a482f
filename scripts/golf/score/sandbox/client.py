"""The scorer's side of a sandboxed submission: sends requests, takes rows, trusts nothing."""

import contextlib
import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from golf.core import machine
from golf.core.errors import GolfError
from golf.core.text import last_line
from golf.score.feeder import Fault
from golf.score.sandbox import bwrap as sandbox
from golf.score.sandbox import syscalls, usage, view
from golf.score.sandbox.bwrap import Limits
from golf.score.sandbox.host import DONE, LOAD, NEXT, NOT_ROWS, RAISED, REPLY, REQUEST, RESET, write_all
from golf.score.sandbox.watch import TICK_SECONDS, LimitWatch

# Of one call's rows. A CPU's allocator keeps blocks for calls of 8 MiB; for longer ones it maps memory anew
# each time, which took the starter a quarter of its time. A GPU wants long calls.
ROWS_BYTES = {"cpu": 8 << 20, "cuda": 32 << 20, "mlx": 32 << 20}
LAST_WORDS = 4096
HOST_PY = Path(__file__).with_name("host.py")
SEALS = ("F_SEAL_GROW", "F_SEAL_SHRINK", "F_SEAL_SEAL")
DURING = {LOAD: "loading", RESET: "reset", NEXT: "log_probs"}
IDLE = "nobody waited for it"


@dataclass
class Beside:
    """Processes that run at the same time."""

    count: int = 1  # of those that share the processors
    processes: list[subprocess.Popen] = field(default_factory=list)  # all that were started

    def end(self) -> None:
        for process in list(self.processes):
            usage.end(process)
        time.sleep(TICK_SECONDS)


class Remote:
    """A submission's scorer in a sandboxed process: a Feeder, to be used in a `with` statement.

    `files` are the counted files, path in the submission's folder -> where it lies; they are
    copied. Every misbehaviour raises Fault, with its last words where they may be told, and ends the process
    first. GolfError: no sandbox came up.
    """

    def __init__(
        self,
        files: dict[str, Path],
        script: str,
        artifact: str,
        device: str,
        vocab: int,
        limits: Limits | None = None,
        sandboxed: bool = True,
        beside: Beside | None = None,
        last_words: bool = True,
    ):
        self.files, self.paths, self.device = files, (script, artifact), device
        self.vocab, self.limits, self.sandboxed = vocab, limits or Limits(), sandboxed
        self.beside, self.last_words = beside or Beside(), last_words
        self.max_tokens = max(1, ROWS_BYTES[device] // (4 * vocab))
        self.rows_at = 2 * self.max_tokens  # in the shared memory, after the tokens
        self.seconds = 0.0  # that it took in all: to load and to answer, and at work in between
        self.stream_seconds = 0.0  # the same, for the current stream
        self.load_seconds = 0.0  # of the current process
        self.peak_of_earlier = 0
        self.start()

    def start(self) -> None:
        """A new process in a new sandbox, with the submission loaded."""
        self.number, self.handed_over, self.fresh, self.output = 0, b"", True, b""
        self.stream_seconds, self.idle = 0.0, None
        with contextlib.ExitStack() as stack:
            self.launch(stack)
            with self.exchange():
                self.wait_for_host()
                self.load_seconds = self.ask(LOAD, 0)[1]
            self.stack = stack.pop_all()

    def launch(self, stack) -> None:
        """The process, in a folder of its own with a copy of the submission."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="golf-score-")))
        inner = copy_files(self.files, folder / "submission")
        self.memory, their_memory = shared_memory(self.rows_at + 4 * self.vocab * self.max_tokens)
        stack.callback(os.close, self.memory)
        self.control, theirs = socket.socketpair()
        stack.enter_context(self.control)
        self.control.setblocking(False)
        env = sandbox.environment() if self.sandboxed else sandbox.bare_environment(str(inner))
        env |= machine.thread_settings(self.beside.count)
        with theirs, os.fdopen(their_memory, "rb"), contextlib.ExitStack() as only_now:
            handles = [theirs.fileno(), their_memory]
            if self.sandboxed:
                usage.forbid_dumps()
                calls = only_now.enter_context(syscalls.filter_file(sockets=self.device == "cuda"))
                handles.append(calls.fileno())
            command = list(map(str, self.command(inner, *handles)))
            self.process = subprocess.Popen(command, env=env, cwd=inner, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
                                            pass_fds=handles, start_new_session=True)  # fmt: skip
        self.beside.processes.append(self.process)
        stack.enter_context(self.process.stdout)
        stack.callback(usage.end, self.process)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.watch = LimitWatch(self.process, self.limits)
        stack.callback(self.stop_watching)

    def command(self, folder: Path, control: int, memory: int, filter_fd: int = -1) -> list:
        device = "auto" if self.device == "mlx" else self.device  # MLX chooses by itself
        outer, inside, python, host, uid, tasks = [], folder, [sys.executable, "-B"], HOST_PY, -1, 0
        if self.sandboxed:
            view.forget_names()
            times = view.MOST_USED if self.device == "cuda" else 1
            view.read_ahead(sandbox.READ_AHEAD_BYTES, times)
            outer = sandbox.command(folder, HOST_PY, self.device, filter_fd)
            inside, host = sandbox.FOLDER, sandbox.HOST
            python = [view.view().python, "-B", "-s", "-S"]  # nothing but PYTHONPATH's packages
            uid = sandbox.user().uid or -1
            tasks = 2 * self.limits.tasks  # the watch comes first, and names it
        paths = (f"{inside}/{path}" for path in self.paths)
        return [*outer, *python, host, control, memory, self.rows_at, tasks, uid, *paths, device]

    def wait_for_host(self) -> None:
        """Nothing of the submission has run yet: what goes wrong is no fault of its own."""
        try:
            self.wait("starting", self.limits.load_seconds)
        except Fault as fault:
            raise GolfError(f"the sandbox did not start: {fault.message}", 2) from None

    def stop_watching(self) -> None:
        self.watch.stop()
        self.peak_of_earlier = self.peak_memory_bytes

    @property
    def peak_memory_bytes(self) -> int:
        """The most that any of its processes was seen to use."""
        return max(self.peak_of_earlier, self.watch.peak_memory_bytes)

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_) -> None:
        self.end()

    def end(self) -> None:
        """Ends the process; reset() starts another."""
        self.stack.close()

    def reset(self) -> None:
        """Begins a stream, in a new process: none can remember what it was fed before."""
        if not self.fresh:
            self.end()
            self.start()
        self.fresh = False
        with self.exchange():
            self.ask(RESET, 0)

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """See Feeder. The rows are finite or -inf; whether they sum to one is for the caller."""
        count = len(tokens)
        if not 0 < count <= self.max_tokens:
            raise ValueError(f"{count} tokens in a call; 1 to {self.max_tokens} are possible")
        with self.exchange():
            self.check_quiet()
            write_all(self.memory, np.ascontiguousarray(tokens, np.uint16).tobytes(), 0)
            shape = self.ask(NEXT, count)[0]
            if shape != (count, self.vocab):
                wanted = f"[{count}, {self.vocab}] is the interface"
                self.fail("shape", f"log_probs returned {list(shape)} for {count} tokens; {wanted}")
            # A copy: what the submission does to the shared memory from here on changes no score.
            self.handed_over = os.pread(self.memory, 4 * count * self.vocab, self.rows_at)
        rows = np.frombuffer(self.handed_over, np.float32).reshape(shape)
        if not (rows < np.inf).all():
            bad = int((~(rows < np.inf).all(axis=1)).argmax())
            self.fail("finite", f"row {bad} of a call of {count} tokens holds NaN or infinity")
        return rows

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Whatever goes wrong between the two processes is the submission's doing: a Fault."""
        try:
            yield
        except (OSError, struct.error) as error:
            self.fail("protocol", f"it broke the exchange of tokens and rows: {error}")

    def check_quiet(self) -> None:
        """Between two requests nothing is said, and rows that were handed over stay as they are."""
        if select.select([self.control], [], [], 0)[0] and self.process.poll() is None:
            self.fail("protocol", "it sent a record that nobody had asked for")
        if self.handed_over != os.pread(self.memory, len(self.handed_over), self.rows_at):
            self.fail("rows-changed", "it wrote over its rows after handing them over")

    def ask(self, what: int, count: int) -> tuple[tuple[int, int], float]:
        """One request and its reply: the shape that the reply tells, and the seconds it took."""
        during = DURING[what]
        limit = self.limits.load_seconds if what == LOAD else self.limits.call_seconds
        self.number = (self.number + 1) % (1 << 32)
        self.handed_over = b""
        self.charge(self.worked_unasked())
        if self.stream_seconds > self.limits.stream_seconds:
            self.fail("time", f"a stream took over {self.limits.stream_seconds:g} s")
        began, self.watch.during = time.monotonic(), during
        try:
            self.control.sendall(REQUEST.pack(what, self.number, count))
        except OSError:
            if self.process.poll() is None and not self.watch.fault:
                self.fail("protocol", f"it takes no request: asked for {during} in vain")
        reply = self.wait(during, limit)  # which finds out how it ended
        seconds = time.monotonic() - began
        self.charge(seconds)
        self.watch.during, self.idle = IDLE, (time.monotonic(), usage.cpu_seconds(self.watch.pids))
        return reply, seconds

    def charge(self, seconds: float) -> None:
        self.seconds += seconds
        self.stream_seconds += seconds

    def worked_unasked(self) -> float:
        """CPU seconds since its last answer, at most the time since then."""
        if self.idle is None:
            return 0.0
        since, before = self.idle
        now = usage.cpu_seconds(self.watch.pids)  # one that ended meanwhile takes nothing off
        return min(sum(now[pid] - before.get(pid, 0) for pid in now), time.monotonic() - since)

    def wait(self, during: str, seconds: float) -> tuple[int, int]:
        """The next reply; meanwhile checks the time limit and drains the output."""
        began, reply, output = time.monotonic(), b"", self.process.stdout
        watched, self.watch.during = [self.control, output], during
        while len(reply) < REPLY.size:
            ready = select.select(watched, [], [], TICK_SECONDS)[0]
            if output in ready and not self.drain():
                watched.remove(output)  # closed; the process may live on
            part = self.receive(REPLY.size - len(reply)) if self.control in ready else None
            reply += part or b""
            if self.watch.fault:
                self.fail(self.watch.fault.rule, self.watch.fault.message)
            if part == b"" or not ready and self.process.poll() is not None:
                self.fail("died", f"the process ended while {during}{self.how_it_ended()}")
            if time.monotonic() - began > seconds:
                self.fail("time", f"{during} took over {seconds:g} s")
        return self.judge(reply, during)

    def judge(self, reply: bytes, during: str) -> tuple[int, int]:
        status, number, rows, columns = REPLY.unpack(reply)
        if number != self.number or status not in (DONE, RAISED, NOT_ROWS):
            self.fail("protocol", f"its reply while {during} is not one of the protocol's")
        if status == RAISED:
            self.fail("raised", f"an exception while {during}")
        if status == NOT_ROWS:
            self.fail("shape", f"log_probs returned an array of {rows} dimensions, not of 2")
        return rows, columns

    def receive(self, count: int) -> bytes | None:
        """Up to `count` bytes; none at the end of them; None: nothing there after all."""
        try:
            return self.control.recv(count)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def drain(self) -> bool:
        """Keeps the last words of its output; False at the end of it."""
        part = self.process.stdout.read(1 << 16)  # None: nothing there after all
        self.output = (self.output + (part or b""))[-LAST_WORDS:]
        return part != b""

    def how_it_ended(self) -> str:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return ", its end of the socket closed"
        return f" (exit code {code})" if code >= 0 else f" (signal {-code})"

    def fail(self, rule: str, message: str) -> None:
        """Ends the process, then raises the Fault, with its last lines as escaped text."""
        usage.end(self.process)
        with contextlib.suppress(OSError):
            self.drain()
        said = last_line(self.output.decode("utf-8", "replace"), "") if self.last_words else ""
        raise Fault(rule, message + (f"; its last words: {ascii(said[:200])}" if said else ""))


def copy_files(files: dict[str, Path], folder: Path) -> Path:
    """Copies the submission's files and makes them readable to every user."""
    folder.mkdir()
    for path, source in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / path)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def shared_memory(size: int) -> tuple[int, int]:
    """A file in memory that cannot change its size, opened twice: for us, and for the submission.

    What one does to its own descriptor (its position, O_APPEND) does not reach the other's.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("rows", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, sum(getattr(fcntl, name) for name in SEALS))
        return fd, os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    with tempfile.NamedTemporaryFile() as file:  # macOS, where there is no sandbox either
        file.truncate(size)
        return tuple(os.open(file.name, os.O_RDWR | os.O_CLOEXEC) for _ in range(2))
