"""How far something is: a bar on a terminal, or a line where nothing was said for a while."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

SILENT_SECONDS = 15.0


class Bar:
    """On a terminal a bar on stderr; elsewhere show() returns a line where one is due."""

    def __init__(self, clock=time.monotonic):
        self.clock, self.spoken, self.bar = clock, clock(), None
        if sys.stderr.isatty():
            with suppress(ImportError, OSError):  # a bar is nice to have
                from tqdm import tqdm

                shape = "{desc} {percentage:3.0f}%|{bar}|{postfix}"
                self.bar = tqdm(total=1.0, bar_format=shape, leave=False, dynamic_ncols=True)

    def show(self, title: str, fraction: float, status: str) -> str:
        """Moves the bar; without one, what to say where nothing was said for SILENT_SECONDS."""
        if self.bar is None:
            if self.clock() - self.spoken < SILENT_SECONDS:
                return ""
            self.spoken = self.clock()
            return f"{title} {100 * fraction:.0f}%, {status}"
        self.bar.n = fraction
        self.bar.set_description_str(title, refresh=False)
        self.bar.set_postfix_str(status, refresh=False)
        self.draw("refresh")
        return ""

    def heard(self) -> None:
        """Something else was printed."""
        self.spoken = self.clock()

    def draw(self, how: str) -> None:
        """tqdm's clear, refresh or close; where the terminal is gone there is no bar any more."""
        try:
            if self.bar is not None:
                getattr(self.bar, how)()
        except OSError:
            self.bar.disable = True  # nor at exit
            self.bar = None
