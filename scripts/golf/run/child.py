"""Runs the trainer as a child: passes its output on, shows progress, handles signals, leaves no orphan."""

from __future__ import annotations

import ctypes
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.json_io import dig, number, parse_json
from golf.core.paths import REPO
from golf.core.processes import descendants, handle_stops, kill_tree

OUT_OF_MEMORY = 3
STOPPED = 130
TICK_SECONDS = 0.5
ECHO_SECONDS = 0.15  # `timeout` and some shells send a signal twice: closer than this it is one


class Supervisor:
    """Runs trainers one after another; counts the signals that asked to stop.

    The child has a session of its own, so that Ctrl-C reaches us alone and arrives there once.
    """

    def __init__(self):
        self.stops = 0
        self.stopped_at = 0.0
        self.told = False  # whether the child knows
        self.process: subprocess.Popen | None = None
        self.bar: ProgressBar | None = None
        handle_stops(self.on_signal)

    def say(self, text: str) -> None:
        self.write(sys.stderr, f"golf run: {text}\n".encode())

    def print(self, text: str) -> None:
        self.write(sys.stdout, f"{text}\n".encode(errors="backslashreplace"))

    def write(self, stream, data: bytes) -> None:
        """Passes bytes on, around the progress bar; a reader or terminal that is gone ends no run."""
        if self.bar:
            self.bar.clear()
        try:
            stream.flush()
            stream.buffer.write(data)
            stream.flush()
        except OSError:  # a closed pipe or terminal, a full disk: what comes is not shown
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if self.bar:
            self.bar.refresh()

    def run(self, command: list[str], env: dict[str, str], metrics: Path) -> int:
        """Starts the command and waits for its end: its exit code (130: stopped by a signal)."""
        if self.stops:
            return STOPPED
        by_torchrun = "torch.distributed.run" in command
        self.bar, self.told = ProgressBar(metrics), False
        try:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd=REPO,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGTERM if by_torchrun else signal.SIGKILL),
            )
        except OSError as error:  # no memory or no processes left, arguments too long
            self.bar.close()
            raise GolfError(f"the trainer cannot be started: {error.strerror}") from None
        try:
            if self.stops:  # a signal that came while it was started
                self.tell()
            errors = self.pump()
            code = self.process.wait()
        finally:
            kill_tree(self.process.pid)
            self.process.wait()
            self.bar.close()
            self.bar = None
            for pipe in (self.process.stdout, self.process.stderr):
                pipe.close()
        worker_code = re.compile(rf"exitcode\s*:\s*{OUT_OF_MEMORY} ")
        if by_torchrun and code == 1 and any(map(worker_code.search, errors)):
            return OUT_OF_MEMORY  # torchrun answers 1 whatever its workers answered
        if any("Impacting Interactivity" in line for line in errors):  # then Metal aborts
            self.say(
                "macOS ended the GPU's work to keep the screen responsive; let the display sleep "
                "(caffeinate -i keeps the Mac awake), set MICRO_BATCH_TOKENS lower, or set "
                "AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1 for a less responsive screen; RESUME=1 goes on"
            )
        elif code < 0 and not self.stops:
            self.say(f"signal {-code} ended the run; 9 often means that the system's memory ran out")
        return code if code >= 0 else STOPPED if self.stops else 1

    def pump(self) -> list[str]:
        """Passes the child's lines on until it ends. Returns the last lines of its stderr."""
        streams = {self.process.stdout: sys.stdout, self.process.stderr: sys.stderr}
        rest, errors = dict.fromkeys(streams, b""), deque(maxlen=60)
        with selectors.DefaultSelector() as selector:
            for pipe in streams:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(TICK_SECONDS)
                if not ready and self.process.poll() is not None:
                    break  # a grandchild may hold the pipe; what was written is read
                for key, _ in ready:
                    pipe = key.fileobj
                    data = os.read(key.fd, 1 << 16)
                    whole, end, part = (rest[pipe] + data).rpartition(b"\n")
                    rest[pipe] = part
                    if not data:
                        selector.unregister(pipe)
                        whole, end, rest[pipe] = part, b"\n" if part else b"", b""
                    if whole or end:
                        self.write(streams[pipe], for_people(whole + end))
                    if pipe is self.process.stderr:
                        errors.extend(whole.decode("utf-8", "replace").splitlines())
                self.bar.tick()
        return list(errors)

    def on_signal(self, signum, frame) -> None:
        """The first signal asks the run to stop: it saves, packs and scores. A second Ctrl-C or SIGTERM
        kills it. Other repeated signals are ignored: a login that ends may send several.
        """
        now, first = time.monotonic(), not self.stops
        if not first and (
            signum not in (signal.SIGINT, signal.SIGTERM) or now - self.stopped_at < ECHO_SECONDS
        ):
            return
        self.stops, self.stopped_at = self.stops + 1, now
        process = self.process
        if process is None or process.returncode is not None:
            return
        if first:
            self.tell()
        else:
            kill_tree(process.pid)

    def tell(self) -> None:
        """Asks the child, once, to finish its step, save, pack and score."""
        if self.told:
            return
        self.told = True
        with suppress(OSError):  # the terminal may be what went away
            os.write(2, b"golf run: stopping: it packs and scores what it has; again to end it at once\n")
        # torchrun would end its workers 30 seconds after its own signal: they are told themselves.
        command, pid = self.process.args, self.process.pid
        by_torchrun = "torch.distributed.run" in command
        workers = list(descendants(pid, levels=1)) if by_torchrun else []
        for target in workers or [pid]:
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGTERM)


def for_people(text: bytes) -> bytes:
    """Drops lines without information: the memory of no GPU, PyTorch's remark on nvcc without a GPU."""
    noise = re.compile(rb"peak_memory_bytes:0\n|.*No CUDA runtime is found, using CUDA_HOME=.*\n?")
    return b"".join(line for line in text.splitlines(keepends=True) if not noise.fullmatch(line))


def end_with_parent(signum: int):
    """For preexec_fn: the kernel (Linux) sends the child `signum` when we die, however we die."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signum)  # 1: PR_SET_PDEATHSIG


class ProgressBar:
    """A bar on stderr, where that is a terminal, fed by what the run adds to metrics.jsonl."""

    def __init__(self, metrics: Path):
        self.metrics, self.offset = metrics, size(metrics)
        self.budget = self.iterations = self.step = self.seconds = self.seen = 0.0
        self.phase, self.loss, self.tqdm = "setup", "", None
        if sys.stderr.isatty():
            with suppress(ImportError, OSError):  # a bar is nice to have
                from tqdm import tqdm

                shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
                self.tqdm = tqdm(total=1.0, desc=self.phase, bar_format=shape, leave=False)

    def tick(self) -> None:
        if self.tqdm is None:
            return
        for event in self.new_events():
            self.take(event)
        self.tqdm.n = max(self.tqdm.n, self.fraction())
        self.tqdm.set_description_str(self.phase, refresh=False)
        self.tqdm.set_postfix_str(self.loss, refresh=False)
        self.refresh()

    def new_events(self) -> list[dict]:
        """Whole lines added since the last call."""
        try:
            with self.metrics.open("rb") as file:
                file.seek(self.offset)
                whole, end, _ = file.read().rpartition(b"\n")
        except OSError:  # not there yet, or not to be read: the bar stands still
            return []
        self.offset += len(whole) + len(end)
        return [parse_json(line) for line in whole.splitlines()]

    def take(self, event: dict) -> None:
        kind = dig(event, "event")
        if kind == "start":
            self.budget = number(dig(event, "config", "MAX_WALLCLOCK_SECONDS")) or 0.0
            self.iterations = number(dig(event, "config", "ITERATIONS")) or 0.0
        elif kind == "step":
            self.phase, self.seen = "train", time.monotonic()
            self.step = number(dig(event, "step")) or 0.0
            self.seconds = number(dig(event, "train_seconds")) or 0.0
            self.loss = f"step {self.step:.0f} loss {number(dig(event, 'train_loss')) or 0:.3f}"
        self.phase = {"train_end": "pack", "export": "score"}.get(kind, self.phase)

    def fraction(self) -> float:
        """How much of the training is done, 0 to 1: of the time budget or of the steps, the larger."""
        if self.phase in ("setup", "pack", "score"):
            return 0.0 if self.phase == "setup" else 1.0
        seconds = self.seconds + time.monotonic() - self.seen
        parts = [seconds / self.budget] if self.budget else []
        parts += [self.step / self.iterations] if self.iterations else []
        return min(1.0, max(parts, default=0.0))

    def clear(self) -> None:
        self.draw("clear")

    def refresh(self) -> None:
        self.draw("refresh")

    def close(self) -> None:
        self.draw("close")

    def draw(self, how: str) -> None:
        """tqdm's method `how`; where the terminal is gone there is no bar any more."""
        try:
            if self.tqdm:
                getattr(self.tqdm, how)()
        except OSError:
            self.tqdm.disable = True  # nor at exit
            self.tqdm = None


def size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
