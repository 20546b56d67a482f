"""Progress of golf score, on standard error."""

from __future__ import annotations

import sys
import time

FIRST_CALLS = (512, 1024, 1024)  # short calls at first, to estimate the time soon
PROGRESS_SECONDS = 15.0


def say(text: str) -> None:
    print(f"golf score: {text}", file=sys.stderr, flush=True)


class TimeLeft:
    """Prints how long a pass will take, then the time left every PROGRESS_SECONDS.

    what: the pass; count: its targets; again: targets that the audit will feed after it.
    """

    def __init__(self, what: str, count: int, again: int = 0):
        self.what, self.count, self.again, self.told, self.at = what, count, again, None, 0
        self.began = self.mark = time.monotonic()

    def tell(self, at: int) -> None:
        """After each call: `at` targets are scored."""
        now = time.monotonic()
        left = (now - self.mark) / (at - self.at) * (self.count - at)  # as fast as the last call
        self.at, self.mark = at, now
        if self.told is None and at >= min(self.count, sum(FIRST_CALLS)):
            total = now - self.began + left
            audit = f"; the audit about {spoken(total * self.again / self.count)} more" * bool(self.again)
            say(f"{self.what} takes {spoken(total)}{audit}")
            self.told = now
        elif self.told is not None and now - self.told > PROGRESS_SECONDS and at < self.count:
            say(f"scored {at:,} of {self.count:,} targets, {spoken(left)} left")
            self.told = now


def spoken(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
