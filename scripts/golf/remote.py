"""The scorer's side of a sandboxed submission: requests out, rows in, and nothing believed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from . import sandbox
from .feeder import Fault
from .sandbox import Limits
from .scorer_host import DONE, LOAD, NEXT, NOT_ROWS, RAISED, REPLY, REQUEST, RESET

ROWS_BYTES = 32 << 20  # of one call
TICK_SECONDS = 0.05
LAST_WORDS = 4096
HOST_PY = Path(__file__).with_name("scorer_host.py")
SEALS = ("F_SEAL_GROW", "F_SEAL_SHRINK", "F_SEAL_SEAL")


class Remote:
    """A submission's scorer in a sandboxed process: a Feeder, to be used in a `with` statement.

    `files` are the counted files, path in the submission's folder -> where it lies; they are
    copied. Every misbehaviour raises Fault and ends the process first.
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
    ):
        self.files, self.paths, self.device = files, (script, artifact), device
        self.vocab, self.limits, self.sandboxed = vocab, limits or Limits(), sandboxed
        self.max_tokens = max(1, ROWS_BYTES // (4 * vocab))
        self.rows_at = 2 * self.max_tokens  # in the shared memory, after the tokens
        self.seconds = 0.0  # that the submission took to answer, loading apart
        self.load_seconds = 0.0
        self.peak_memory_bytes = 0
        self.start()

    def start(self) -> None:
        """A new process in a new sandbox, with the submission loaded."""
        self.number, self.handed_over, self.fresh, self.output = 0, b"", True, b""
        with contextlib.ExitStack() as stack:
            self.launch(stack)
            self.wait("starting", self.limits.load_seconds)
            self.load_seconds = self.ask(LOAD, 0)[1]
            self.stack = stack.pop_all()

    def launch(self, stack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="golf-score-")))
        for path, source in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / path)
        self.memory = shared_memory(self.rows_at + 4 * self.vocab * self.max_tokens)
        stack.callback(os.close, self.memory)
        self.control, theirs = socket.socketpair()
        stack.enter_context(self.control)
        outer = sandbox.command(folder, HOST_PY, self.device) if self.sandboxed else []
        inside, host = (sandbox.FOLDER, sandbox.HOST) if self.sandboxed else (folder, HOST_PY)
        handles = [theirs.fileno(), self.memory, self.rows_at]
        tasks = 2 * self.limits.tasks if self.sandboxed else 0  # the watch comes first, and names it
        paths = (f"{inside}/{path}" for path in self.paths)
        device = "auto" if self.device == "mlx" else self.device  # MLX chooses by itself
        command = [*outer, sys.executable, "-B", host, *handles, tasks, *paths, device]
        with theirs:
            self.process = subprocess.Popen(
                list(map(str, command)),
                env=sandbox.environment() if self.sandboxed else sandbox.environment(str(folder)),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                pass_fds=handles[:2],
                start_new_session=True,
            )
        stack.enter_context(self.process.stdout)
        stack.callback(sandbox.end, self.process)
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_) -> None:
        self.stack.close()

    def reset(self) -> None:
        """Begins a stream, in a new process: none can remember what it was fed before."""
        if not self.fresh:
            self.stack.close()
            self.start()
        self.fresh = False
        self.seconds += self.ask(RESET, 0)[1]

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """See Feeder. The rows are finite or -inf; whether they sum to one is for the caller."""
        count = len(tokens)
        if not 0 < count <= self.max_tokens:
            raise ValueError(f"{count} tokens in a call; 1 to {self.max_tokens} are possible")
        self.check_quiet()
        write_all(self.memory, np.ascontiguousarray(tokens, np.uint16).tobytes(), 0)
        shape, seconds = self.ask(NEXT, count)
        self.seconds += seconds
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

    def check_quiet(self) -> None:
        """Between two requests nothing is said, and rows that were handed over stay as they are."""
        if select.select([self.control], [], [], 0)[0] and self.process.poll() is None:
            self.fail("protocol", "it sent a record that nobody had asked for")
        if self.handed_over != os.pread(self.memory, len(self.handed_over), self.rows_at):
            self.fail("rows-changed", "it wrote over its rows after handing them over")

    def ask(self, what: int, count: int) -> tuple[tuple[int, int], float]:
        """One request and its reply: the shape that the reply tells, and the seconds it took."""
        during = {LOAD: "loading", RESET: "reset", NEXT: "log_probs"}[what]
        limit = self.limits.load_seconds if what == LOAD else self.limits.call_seconds
        self.number = (self.number + 1) % (1 << 32)
        self.handed_over = b""
        began = time.monotonic()
        with contextlib.suppress(OSError):  # it has ended, which wait() finds out
            self.control.sendall(REQUEST.pack(what, self.number, count))
        return self.wait(during, limit), time.monotonic() - began

    def wait(self, during: str, seconds: float) -> tuple[int, int]:
        """The next reply, while limits are watched and output is drained."""
        began = looked = time.monotonic()
        tick, reply, output = TICK_SECONDS, b"", self.process.stdout
        watched = [self.control, output]
        while len(reply) < REPLY.size:
            ready = select.select(watched, [], [], tick)[0]
            if output in ready and not self.drain():
                watched.remove(output)  # closed; the process may live on
            if self.control in ready:
                part = self.receive(REPLY.size - len(reply))
                reply += part
            if self.control in ready and not part or not ready and self.process.poll() is not None:
                self.fail("died", f"the process ended while {during}{self.how_it_ended()}")
            now = time.monotonic()
            if now - began > seconds:
                self.fail("time", f"{during} took over {seconds:g} s")
            if now - looked > tick:
                self.check_usage(during)
                looked = time.monotonic()
                tick = max(TICK_SECONDS, 20 * (looked - now))  # watching stays cheap
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

    def receive(self, count: int) -> bytes:
        try:
            return self.control.recv(count)
        except ConnectionError:
            return b""

    def drain(self) -> bool:
        """Keeps the last words of its output; False at the end of it."""
        part = self.process.stdout.read(1 << 16)  # None: nothing there after all
        self.output = (self.output + (part or b""))[-LAST_WORDS:]
        return part != b""

    def check_usage(self, during: str) -> None:
        used, most = sandbox.usage(self.process.pid)[0], self.limits
        self.peak_memory_bytes = max(self.peak_memory_bytes, used.memory_bytes)
        if used.tasks > most.tasks:
            self.fail("tasks", f"over {most.tasks} processes and threads while {during}")
        if used.memory_bytes > most.memory_bytes:
            self.fail("memory", f"over {most.memory_bytes:,} bytes of memory while {during}")
        if sandbox.memory_left() < 0.03:
            self.fail("memory", f"the machine's memory ran out while {during}")

    def how_it_ended(self) -> str:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return ", its end of the socket closed"
        return f" (exit code {code})" if code >= 0 else f" (signal {-code})"

    def fail(self, rule: str, message: str) -> None:
        """Ends the process, then raises the Fault, with its last lines as escaped text."""
        sandbox.end(self.process)
        self.drain()
        lines = self.output.decode("utf-8", "replace").strip().splitlines()[-1:]
        said = f"; its last words: {ascii(lines[0][:200])}" if lines else ""
        raise Fault(rule, message + said)


def shared_memory(size: int) -> int:
    """A file in memory that cannot change its size, as a file descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("rows", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        seals = sum(getattr(fcntl, name) for name in SEALS)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd
    with tempfile.TemporaryFile() as file:  # macOS, where there is no sandbox either
        file.truncate(size)
        return os.dup(file.fileno())


def write_all(fd: int, data: bytes, at: int) -> None:
    while data:
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done
