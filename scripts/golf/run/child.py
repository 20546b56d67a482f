"""Runs the trainer as a child: passes its output on, shows progress, handles signals, leaves no orphan."""

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
from golf.core.paths import REPO
from golf.core.processes import descendants, handle_stops, kill_tree, start
from golf.run.bar import Progress

OUT_OF_MEMORY = 3
STOPPED = 130
TICK_SECONDS = 0.5
ECHO_SECONDS = 0.15  # `timeout` and some shells send a signal twice: closer than this it is one


class Supervisor:
    """Runs trainers one after another; counts the signals that asked to stop, which arrive here alone."""

    def __init__(self):
        self.stops = 0
        self.stopped_at = 0.0
        self.told = False  # whether the child has been asked to stop
        self.told_why = False  # whether its last line on stderr was an error message
        self.process: subprocess.Popen | None = None
        self.progress: Progress | None = None
        handle_stops(self.on_signal)

    def say(self, text: str) -> None:
        self.write(sys.stderr, f"golf run: {text}\n".encode())

    def print(self, text: str) -> None:
        self.write(sys.stdout, f"{text}\n".encode(errors="backslashreplace"))

    def write(self, stream, data: bytes) -> None:
        """Passes bytes on, around the progress bar; a reader or terminal that is gone ends no run."""
        if self.progress:
            self.progress.bar.draw("clear")
        try:
            stream.flush()
            stream.buffer.write(data)
            stream.flush()
        except OSError:  # a closed pipe or terminal, a full disk: what comes is not shown
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if self.progress:
            self.progress.bar.draw("refresh")

    def run(
        self, command: list[str], env: dict[str, str], metrics: Path, spelt: tuple[str, str] = ("", "")
    ) -> int:
        """Starts the command and waits for its end: its exit code (130: stopped by a signal).

        spelt: a path, and how it is shown in what the command prints.
        """
        if self.stops:
            return STOPPED
        by_torchrun = "torch.distributed.run" in command
        self.progress, self.told = Progress(metrics), False
        try:
            dies_by = signal.SIGTERM if by_torchrun else signal.SIGKILL
            pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
            self.process = start(command, dies_by, env=env, cwd=REPO, **pipes)
        except OSError as error:  # no memory or no processes left, arguments too long
            self.progress.bar.draw("close")
            raise GolfError(f"the trainer cannot be started: {error.strerror}") from None
        try:
            if self.stops:  # a signal that came while it was started
                self.tell()
            errors = self.pump(tuple(map(os.fsencode, spelt)))
            code = self.process.wait()
            self.told_why = bool(errors) and ": error: " in errors[-1]
        finally:
            kill_tree(self.process.pid)
            self.process.wait()
            self.progress.bar.draw("close")
            self.progress = None
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

    def pump(self, spelt: tuple[bytes, bytes]) -> list[str]:
        """Passes the child's lines on until it ends. Returns the last lines of its stderr."""
        streams = {self.process.stdout: sys.stdout, self.process.stderr: sys.stderr}
        rest, errors = dict.fromkeys(streams, b""), deque(maxlen=60)
        with selectors.DefaultSelector() as selector:
            for pipe in streams:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ended = self.process.poll() is not None  # asked first: its last words are there by then
                ready = selector.select(0 if ended else TICK_SECONDS)
                if ended and not ready:
                    break  # a grandchild may hold the pipe; what was written is read
                for key, _ in ready:
                    pipe = key.fileobj
                    data = os.read(key.fd, 1 << 16)
                    whole, end, part = (rest[pipe] + data).rpartition(b"\n")
                    rest[pipe] = part
                    if not data:
                        selector.unregister(pipe)
                        whole, end, rest[pipe] = part, b"\n" if part else b"", b""
                    if shown := self.progress.heard(whole + end):
                        self.write(streams[pipe], shown.replace(*spelt))
                    if pipe is self.process.stderr:
                        errors.extend(whole.decode("utf-8", "replace").splitlines())
                if text := self.progress.tick():
                    self.say(text)
        return list(errors)

    def on_signal(self, signum, frame) -> None:
        """The first signal asks the run to stop: it saves, packs and scores. A second Ctrl-C or SIGTERM
        kills it. Other repeated signals are ignored: a login that ends may send several.
        """
        now, first = time.monotonic(), not self.stops
        ends = signum in (signal.SIGINT, signal.SIGTERM) and now - self.stopped_at >= ECHO_SECONDS
        if not (first or ends):
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
            os.write(2, b"golf run: stopping: packs and scores the model; once more ends the run at once\n")
        # torchrun would end its workers 30 seconds after its own signal: they are told themselves.
        command, pid = self.process.args, self.process.pid
        by_torchrun = "torch.distributed.run" in command
        workers = list(descendants(pid, levels=1)) if by_torchrun else []
        for target in workers or [pid]:
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGTERM)
