"""How far something is: a bar on a terminal, or a line where nothing was said for a while."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from golf.core.units import duration

SILENT_SECONDS = 15.0
TICK_SECONDS = 0.5


class Bar:
    """On a terminal a bar on stderr; elsewhere show() returns a line where one is due."""

    def __init__(self, clock=time.monotonic):
        self.clock, self.spoken, self.bar = clock, clock(), None
        if sys.stderr.isatty():
            with suppress(ImportError, OSError):  # a bar is nice to have
                from tqdm import tqdm

                shape = "{desc} {percentage:3.0f}%|{bar}| {unit}"  # a postfix would begin with a comma
                self.bar = tqdm(total=1.0, bar_format=shape, unit="", leave=False, dynamic_ncols=True)

    def show(self, title: str, fraction: float, status: str) -> str:
        """Moves the bar; without one, what to say where nothing was said for SILENT_SECONDS."""
        if self.bar is None:
            if self.clock() - self.spoken < SILENT_SECONDS:
                return ""
            self.spoken = self.clock()
            return f"{title} {100 * fraction:.0f}%, {status}" if fraction else f"{title}, {status}"
        self.bar.n = fraction
        self.bar.set_description_str(title, refresh=False)
        self.bar.unit = status
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


class Talker:
    """Says what a long command does, on stderr, and how far it is: by a thread of its own, so that one
    slow call is no silence. To be used in a `with` statement."""

    def __init__(self, name: str, clock=time.monotonic):
        self.name, self.clock, self.bar = name, clock, Bar(clock)
        self.title, self.count, self.at = "", 0, 0
        self.began = self.told = clock()  # of the phase, the last part
        self.lock, self.over = threading.Lock(), threading.Event()

    def __enter__(self) -> "Talker":
        threading.Thread(target=self.keep_on, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        with self.lock:
            self.bar.draw("close")

    def say(self, text: str) -> None:
        with self.lock:
            self.bar.draw("clear")
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)
            self.bar.heard()

    def begin(self, title: str, count: int = 0) -> Callable[[int], None]:
        """A phase of so many parts (0: nobody knows); what to call with how many are done."""
        self.title, self.count, self.at, self.began = title, count, 0, self.clock()
        return self.tell

    def tell(self, at: int) -> None:
        self.at, self.told = at, self.clock()

    def status(self) -> tuple[float, str]:
        """How much of the phase is done, 0 to 1; how long it took and will take."""
        seconds, part = self.clock() - self.began, self.at / self.count if self.count else 0.0
        expected = (self.told - self.began) / part if part else 0.0
        return part, duration(seconds) + (f", {duration(max(0, expected - seconds))} left" if part else "")

    def keep_on(self) -> None:
        while not self.over.wait(TICK_SECONDS):
            with self.lock:
                line = self.title and not self.over.is_set() and self.bar.show(self.title, *self.status())
            if line:
                self.say(line)
