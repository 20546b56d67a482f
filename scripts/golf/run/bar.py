"""How far a run is, from what it adds to metrics.jsonl and from the lines that it prints."""

import os
import re
import time
from pathlib import Path

from golf.core.bar import Bar
from golf.core.json_io import dig, number, parse_json
from golf.core.runlog import read_run
from golf.core.units import amount, so_far

PHASES = {"setup": "set-up", "train": "training", "pack": "packing", "plain": "scoring",
          "sliding": "scoring, sliding windows"}  # fmt: skip
NEXT = {"step": "train", "train_end": "pack", "export": "plain", "score": "sliding"}  # after an event
# What a trainer prints after some seconds of silence; the bar shows it instead.
SIGN_OF_LIFE = re.compile(rb"(?:setup|after:\w+|scoring:(\d+)/(\d+)(?: left:\d+s)?) seconds:\d+\n")
# Lines without information: the memory of no GPU, PyTorch's remark on nvcc without a GPU.
NOISE = re.compile(rb"peak_memory_bytes:0\n|.*No CUDA runtime is found, using CUDA_HOME=.*\n?")
PACKING = {"zlib": 3e-7, "brotli": 5e-6}  # seconds a weight, on a 2-core x86 CPU, if the step is searched for
GUESSED = 0.95  # a phase other than training is never shown as more than this part done
OF_OLD = 0.95  # the part of the smoothed loss that is kept at every step


class Follower:
    """A run's phase, step, smoothed loss and speed; `look` reads what its metrics.jsonl has since gained."""

    def __init__(self, metrics: Path, clock=time.monotonic):
        self.metrics, self.offset, self.clock = metrics, status(metrics).st_size, clock
        self.budget = self.iterations = self.step = self.seconds = self.rate = 0.0
        self.expected: dict[str, float] = {}  # seconds of a phase, but for training
        self.phase, self.loss = "setup", None
        self.validated: float | None = None  # part of the targets, of a validation while it trains
        self.began = self.seen = clock()  # when the phase began; when the last step was seen

    def look(self) -> None:
        for event in self.new_events():
            self.take(event)

    def new_events(self) -> list[dict]:
        """Whole lines added since the last call."""
        try:
            with self.metrics.open("rb") as file:
                self.offset = min(self.offset, status(self.metrics).st_size)  # a run begun anew
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
            each = PACKING.get(str(dig(event, "config", "COMPRESSOR")), 0.0)
            self.expected["pack"] = each * (number(dig(event, "params")) or 0.0)
        elif kind == "step":
            self.take_step(event)
        elif kind == "val":
            self.seen, self.validated = self.clock(), None
        self.enter(NEXT.get(kind, self.phase))

    def take_step(self, event: dict) -> None:
        step, loss = number(dig(event, "step")) or 0.0, number(dig(event, "train_loss"))
        if loss is not None:
            old = 0.0 if self.loss is None else OF_OLD ** max(step - self.step, 1.0)
            self.loss = old * (self.loss or 0.0) + (1 - old) * loss
        self.seen, self.step, self.validated = self.clock(), step, None
        self.seconds = number(dig(event, "train_seconds")) or 0.0
        self.rate = (number(dig(event, "tokens")) or 0.0) / self.seconds if self.seconds else 0.0

    def enter(self, phase: str) -> None:
        if phase != self.phase:
            self.phase, self.began = phase, self.clock()

    def scored(self, part: float) -> None:
        """Takes the part of the targets, 0 to 1, that are scored: of the artifact, or in a validation."""
        if self.phase == "setup":  # EVAL_ONLY writes no metrics
            self.enter("plain")
        if self.phase == "train":
            self.seconds, self.validated = self.elapsed(), part
        elif part:
            self.expected[self.phase] = self.elapsed() / part

    def elapsed(self) -> float:
        """Seconds that this phase has taken; of training, by its own clock, which validation stops."""
        if self.phase != "train":
            return self.clock() - self.began
        return self.seconds + (self.clock() - self.seen if self.validated is None else 0.0)

    def fraction(self) -> float:
        """How much of the phase is done, 0 to 1; of training by budget or steps, whichever is more."""
        if self.phase != "train":
            expected = self.expected.get(self.phase)
            return min(GUESSED, self.elapsed() / expected) if expected else 0.0
        parts = [self.elapsed() / self.budget] if self.budget else []
        parts += [self.step / self.iterations] if self.iterations else []
        return min(1.0, max(parts, default=0.0))

    def trained(self) -> float:
        """How much of the training is done, 0 to 1."""
        return self.fraction() if self.phase == "train" else float(self.phase != "setup")

    def title(self) -> str:
        """As `2/5 training`."""
        return f"{list(PHASES).index(self.phase) + 1}/{len(PHASES)} {PHASES[self.phase]}"

    def status(self) -> str:
        """As text: how long the phase took and will take; of training also step, smoothed loss and speed."""
        part = self.fraction()
        parts = [so_far(self.elapsed(), 0.0 if part == GUESSED else part)]
        if self.phase == "train":
            parts += [f"step {self.step:,.0f}"] + ([f"loss {self.loss:.3f}"] if self.loss is not None else [])
            parts += [f"{amount(self.rate)} tokens/s"]
            parts += [f"validation {100 * self.validated:.0f}%"] if self.validated is not None else []
        return ", ".join(parts)


class Progress(Follower):
    """A Follower that is shown as a bar, or as lines that tick() returns."""

    def __init__(self, metrics: Path, clock=time.monotonic):
        super().__init__(metrics, clock)
        self.expected["setup"] = last_setup(metrics.parent) or 0.0
        self.bar = Bar(clock)

    def tick(self) -> str:
        """Moves the bar; without one it returns a line after a while of silence, else ""."""
        self.look()
        return self.bar.show(self.title(), self.fraction(), self.status())

    def heard(self, output: bytes) -> bytes:
        """The lines that the run printed, without noise and its signs of life, which the bar shows."""
        for done, count in SIGN_OF_LIFE.findall(output):
            if count:
                self.scored(int(done) / max(int(count), 1))
        lines = output.splitlines(keepends=True)
        lines = [line for line in lines if not (SIGN_OF_LIFE.fullmatch(line) or NOISE.fullmatch(line))]
        if shown := b"".join(lines):
            self.bar.heard()
        return shown


def last_setup(folder: Path) -> float | None:
    """Set-up seconds of the newest finished run beside this one; None if there is none."""
    others = [path for path in folder.parent.glob("*/metrics.jsonl") if path.parent != folder]
    in_order = sorted(others, key=lambda path: status(path).st_mtime)
    times = [dig(read_run(path.parent), "end", "setup_seconds") for path in in_order[-3:]]
    return next((seconds for seconds in map(number, reversed(times)) if seconds), None)


def status(path: Path) -> os.stat_result:
    """Of a file; all 0 where there is none."""
    try:
        return path.stat()
    except OSError:
        return os.stat_result([0] * 10)
