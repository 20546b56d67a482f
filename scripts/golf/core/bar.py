"""Shows how far something is: a bar on a terminal, elsewhere a line after some silence."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from golf.core.units import so_far

SILENT_SECONDS = 15.0
TICK_SECONDS = 0.5


class Bar:
    """A bar on stderr if that is a terminal; if not, show() returns a line when one is due."""

    def __init__(self, clock=time.monotonic):
        self.clock, self.spoken, self.bar = clock, clock(), None
        if sys.stderr.isatty():
            with suppress(ImportError, OSError):  # a bar is nice to have
                from tqdm import tqdm

                shape = "{desc} {percentage:3.0f}%|{bar}| {unit}"  # a postfix would begin with a comma
                self.bar = tqdm(total=1.0, bar_format=shape, unit="", leave=False, dynamic_ncols=True)

    def show(self, title: str, fraction: float, status: str) -> str:
        """Moves the bar and returns "". Without a bar it returns a line after SILENT_SECONDS of silence."""
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

    def say(self, text: str, stream=None) -> None:
        """Prints a line above the bar, on stderr by default."""
        self.draw("clear")
        print(text, file=stream or sys.stderr, flush=True)
        self.heard()

    def heard(self) -> None:
        """To be called after something else was printed."""
        self.spoken = self.clock()

    def draw(self, how: str) -> None:
        """Calls tqdm's clear, refresh or close; drops the bar if the terminal is gone."""
        try:
            if self.bar is not None:
                getattr(self.bar, how)()
        except OSError:
            self.bar.disable = True  # nor at exit
            self.bar = None


class Talker:
    """A context manager that prints on stderr what a long command does and how far it is, from a thread of
    its own, so that one slow call causes no silence."""

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
            self.bar.say(f"{self.name}: {text}")

    def begin(self, title: str, count: int = 0) -> Callable[[int], None]:
        """Begins a phase of `count` parts (0: unknown). Returns a function to call with how many are done."""
        self.title, self.count, self.at, self.began = title, count, 0, self.clock()
        return self.tell

    def tell(self, at: int) -> None:
        self.at, self.told = at, self.clock()

    def status(self) -> tuple[float, str]:
        """How much of the phase is done, 0 to 1; and as text, how long it took and will take."""
        seconds, part = self.clock() - self.began, self.at / self.count if self.count else 0.0
        expected = (self.told - self.began) / part if part else 0.0
        return part, so_far(seconds, min(1.0, seconds / expected) if expected else 0.0)

    def keep_on(self) -> None:
        while not self.over.wait(TICK_SECONDS):
            with self.lock:
                line = self.title and not self.over.is_set() and self.bar.show(self.title, *self.status())
            if line:
                self.say(line)
