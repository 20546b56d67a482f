"""How far a run is, by what it adds to metrics.jsonl and the lines that it prints."""

from __future__ import annotations

import re
import time
from pathlib import Path

from golf.core.bar import Bar
from golf.core.json_io import dig, number, parse_json
from golf.core.units import amount, duration

PHASES = {"setup": "set-up", "train": "training", "pack": "packing", "score": "scoring"}
SCORING = re.compile(rb"scoring:(\d+)/(\d+) ")
OF_OLD = 0.9  # of the smoothed loss, kept at every step that is logged


class Follower:
    """A run's phase, step, smoothed loss and speed; `look` reads what is new."""

    def __init__(self, metrics: Path, clock=time.monotonic):
        self.metrics, self.offset, self.clock = metrics, size(metrics), clock
        self.budget = self.iterations = self.step = self.seconds = self.rate = self.scored = 0.0
        self.phase, self.loss = "setup", None
        self.began = self.seen = clock()  # of the phase, the last step

    def look(self) -> None:
        for event in self.new_events():
            self.take(event)

    def new_events(self) -> list[dict]:
        """Whole lines added since the last call."""
        try:
            with self.metrics.open("rb") as file:
                self.offset = min(self.offset, size(self.metrics))  # a run begun anew
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
            self.seen, self.step = self.clock(), number(dig(event, "step")) or 0.0
            self.seconds = number(dig(event, "train_seconds")) or 0.0
            self.rate = (number(dig(event, "tokens")) or 0.0) / self.seconds if self.seconds else 0.0
            loss = number(dig(event, "train_loss"))
            if loss is not None:
                self.loss = loss if self.loss is None else OF_OLD * self.loss + (1 - OF_OLD) * loss
        phase = {"step": "train", "train_end": "pack", "export": "score"}.get(kind, self.phase)
        if phase != self.phase:
            self.phase, self.began = phase, self.clock()

    def elapsed(self) -> float:
        """Seconds that this phase has taken; of training, by its own clock."""
        if self.phase == "train":
            return self.seconds + self.clock() - self.seen
        return self.clock() - self.began

    def fraction(self) -> float:
        """How much of the phase is done, 0 to 1; of training, by time budget or steps, the larger."""
        if self.phase != "train":
            return min(1.0, self.scored) if self.phase == "score" else 0.0
        parts = [self.elapsed() / self.budget] if self.budget else []
        parts += [self.step / self.iterations] if self.iterations else []
        return min(1.0, max(parts, default=0.0))

    def trained(self) -> float:
        """How much of the training is done, 0 to 1."""
        return self.fraction() if self.phase == "train" else float(self.phase != "setup")

    def title(self) -> str:
        """As `2/4 training`."""
        return f"{list(PHASES).index(self.phase) + 1}/{len(PHASES)} {PHASES[self.phase]}"

    def status(self) -> str:
        """How long it took and will take; of training, step, smoothed loss and speed too."""
        parts, part = [duration(self.elapsed())], self.fraction()
        if part > 0:
            parts.append(f"{duration(self.elapsed() * (1 - part) / part)} left")
        if self.phase == "train":
            parts += [f"step {self.step:,.0f}"] + ([f"loss {self.loss:.3f}"] if self.loss is not None else [])
            parts += [f"{amount(self.rate)} tokens/s"]
        return ", ".join(parts)


class Progress(Follower):
    """Shown as a bar, or as lines that tick() returns."""

    def __init__(self, metrics: Path, clock=time.monotonic):
        super().__init__(metrics, clock)
        self.bar = Bar(clock)

    def tick(self) -> str:
        """Moves the bar; without one, what to say where nothing was said for a while."""
        self.look()
        return self.bar.show(self.title(), self.fraction(), self.status())

    def heard(self, output: bytes) -> None:
        """The run printed this."""
        self.bar.heard()
        for done, count in SCORING.findall(output):
            self.scored = int(done) / max(int(count), 1)


def size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
