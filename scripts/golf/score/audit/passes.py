"""Feeds a text to a submission, in calls that end at unpredictable places.

The last row of a call is *blind*: it is handed over before anyone but the scorer knows its target.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from golf.score.feeder import Fault, Feeder
from golf.score.stream import Stream, Vocabulary

SUM_TOLERANCE = 1e-3  # nats: how far a row's log-sum-exp may be from 0


@dataclass(frozen=True)
class Text:
    """What each pass feeds: the stream, or parts of it, and held-out text right after the last."""

    parts: tuple[Stream, ...]  # each is begun in a new process
    held_out: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint16))  # tokens [h + 1], or none
    kin: bool = True  # held-out text is of the stream's kind

    @cached_property
    def inputs(self) -> np.ndarray:
        """uint16 [n]: all that is fed."""
        return np.concatenate([part.tokens[:-1] for part in self.parts] + [self.held_out[:-1]])

    @cached_property
    def targets(self) -> np.ndarray:
        """uint16 [n]: what follows each input."""
        return np.concatenate([part.tokens[1:] for part in self.parts] + [self.held_out[1:]])

    @property
    def vocabulary(self) -> Vocabulary:
        return self.parts[0].vocabulary

    @cached_property
    def scored(self) -> int:
        """The number of targets of the stream; they come first."""
        return sum(map(len, self.parts))

    @cached_property
    def begins(self) -> np.ndarray:
        """int64: where each part begins."""
        return np.cumsum([0, *map(len, self.parts[:-1])])

    @cached_property
    def documents(self) -> np.ndarray:
        """int64 [n]: the number of each target's document."""
        new = self.vocabulary.special[self.inputs]
        new[self.begins] = True
        new[self.scored : self.scored + 1] = True  # held-out text shares none with the stream
        return np.cumsum(new)

    @cached_property
    def nats_of_a_bit(self) -> float:
        """Nats a target that make one bit a byte on the stream."""
        return math.log(2) * sum(int(part.target_bytes.sum()) for part in self.parts) / self.scored

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Pass:
    """The result of feeding a text once."""

    log_probs: np.ndarray  # float64 [n]: natural log of the probability of each target
    blind: np.ndarray  # bool [n]: the last rows of calls
    seconds: float  # that the submission took for the stream, by the parent's clock, load and reset included
    worst_sum: float  # nats: the largest |log-sum-exp| of a row


def feed(feeder: Feeder, text: Text, cuts: Iterable[int] = (), tell: Callable = lambda at: None) -> Pass:
    """Feeds a text. Calls end at the cuts, at the end of the stream, and after feeder.max_tokens.

    tell: called after each call with the number of targets scored so far. Raises Fault.
    """
    log_probs, blind = np.empty(len(text)), np.zeros(len(text), bool)
    seconds, worst, edges = 0.0, 0.0, [*text.begins.tolist(), len(text)]
    cuts = np.append(np.fromiter(cuts, np.int64), text.scored - 1)
    for begin, end in zip(edges, edges[1:]):
        feeder.reset()
        at = begin
        for stop in call_ends(begin, end, feeder.max_tokens, cuts) + 1:
            rows = feeder.log_probs(text.inputs[at:stop])
            log_probs[at:stop], off = target_log_probs(rows, text.targets[at:stop])
            worst, at, blind[stop - 1] = max(worst, off), stop, True
            if stop == text.scored:
                seconds = feeder.seconds
            tell(at)
    return Pass(log_probs, blind, seconds, worst)


def call_ends(begin: int, end: int, longest: int, cuts=()) -> np.ndarray:
    """The index of each call's last row, ascending, in begin .. end - 1."""
    cuts = np.asarray(cuts, np.int64)
    cuts = cuts[(begin <= cuts) & (cuts < end)]
    return np.unique(np.concatenate((np.arange(begin + longest - 1, end, longest), cuts, [end - 1])))


def target_log_probs(rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
    """Each target's log-probability, float64 [n], less its row's log-sum-exp; the largest of these.

    rows: float32 [n, vocab]. Raises Fault where a row does not sum to one.
    """
    with np.errstate(divide="ignore", over="ignore"):
        sums = np.log(np.exp(rows).sum(axis=1, dtype=np.float64))
    worst = float(np.abs(sums).max())
    if not worst <= SUM_TOLERANCE:
        told = f"a row sums to {np.exp(min(sums[np.abs(sums).argmax()], 700.0)):.6g}"
        raise Fault("normalised", f"{told}; every row must sum to 1 within {SUM_TOLERANCE:g} nats")
    return rows[np.arange(len(rows)), targets].astype(np.float64) - sums, worst
