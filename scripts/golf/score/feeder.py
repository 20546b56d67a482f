"""A submission as scorer and audit see it, and how it misbehaves."""

from __future__ import annotations

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
