"""A submission as scorer and audit see it, and how it misbehaves."""

import threading
from typing import Protocol

import numpy as np


class Fault(Exception):
    """The submission misbehaved: `rule` is the id of the broken rule, `message` one line."""

    def __init__(self, rule: str, message: str):
        super().__init__(message)
        self.rule = rule
        self.message = message


class Feeder(Protocol):
    """A submission as the scorer sees it: it takes a stream and says what follows each token."""

    max_tokens: int  # of one call; the feeder does not split calls, since cuts are what audits vary

    seconds: float  # that it has taken so far, to load, reset and answer

    def reset(self) -> None:
        """Begins a stream in a new process, which knows nothing of earlier ones. Raises Fault."""

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """The next tokens, uint16 [n], to natural-log probabilities, float32 [n, vocab].

        Row i is about the token that follows tokens[i]. The array is the caller's own. Raises
        Fault.
        """


class InStep:
    """Threads that score the seeds of a submission side by side, each in a sandbox of its own.

    Processes that live at the same time can talk: what the sandbox does not refuse, the load of a core tells,
    or which names the kernel has looked up. So that they have nothing to tell of targets, passes are cut at
    the same places (`seed` is that of every thread's random numbers), and none is given a call before all
    have handed over their rows of the call before. At a blind row, then, no process that lives has seen the
    target. What they could share are weights: three artifacts' instead of one's. No audit finds that, so
    records are scored one seed at a time.
    """

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed
        self.turn, self.brought, self.all = 0, [], []
        self.changed = threading.Condition()

    def meet(self, value=None) -> list:
        """Waits until every thread has called this or left; what they brought."""
        with self.changed:
            turn = self.turn
            self.brought.append(value)
            self.go_on()
            self.changed.wait_for(lambda: self.turn != turn)
            return self.all

    def leave(self) -> None:
        """Nobody waits for this thread any more."""
        with self.changed:
            self.count -= 1
            self.go_on()

    def go_on(self) -> None:
        if len(self.brought) == self.count:
            self.all, self.brought = self.brought, []
            self.turn += 1
            self.changed.notify_all()
