"""The bigram control, and the comparison of two texts with a control as covariate."""

import math
from dataclasses import dataclass

import numpy as np

SIGMAS = 3.5  # standard errors that a gap may be larger on the stream than on held-out text
NO_GAP = 1e-3  # nats: less is none, however small its error beside a reference that is much alike
MIN_DOCUMENTS = 6
PSEUDO_COUNT = 32.0


def bigram_log_probs(inputs: np.ndarray, targets: np.ndarray, vocab: int) -> np.ndarray:
    """The control where a track names none: uint16 [n], what follows each -> float64 [n].

    A bigram model interpolated with a unigram model, counted over all pairs but the one in
    question (leave-one-out). So it favours no part of them, and says how hard each target is.
    """
    inputs, targets = inputs.astype(np.int64), targets.astype(np.int64)
    probability = np.full(len(targets), 1 / vocab)
    for context in (np.zeros_like(inputs), inputs):
        seen = np.bincount(context)[context] - 1
        pairs = np.unique(context * vocab + targets, return_inverse=True)[1].reshape(-1)
        hits = np.bincount(pairs)[pairs] - 1
        probability = (hits + PSEUDO_COUNT * probability) / (seen + PSEUDO_COUNT)
    return np.log(probability)


@dataclass(frozen=True)
class Gap:
    """How much better a model is on one text than on another, nats a target, beside a reference."""

    difference: float  # positive: better on the first text
    error: float  # its standard error
    allowed: float  # so many of them as asked, more where the documents are few, and NO_GAP at least
    documents: tuple[int, int]


def compare_texts(
    model, reference, documents, first: np.ndarray, sigmas: float = SIGMAS, alike: bool = True
) -> Gap | None:
    """A model's log-probabilities on the targets where `first`, against those on the others.

    model, reference: float64 [n]; documents: int64 [n], the number of each target's document;
    first: bool [n]. The reference is a control variate: what it explains of how documents differ,
    by a coefficient fitted over documents, is taken off, so a poor one adds no noise. Errors come
    from leaving out a whole document at a time (jackknife), since targets of one are alike. The
    coefficient, and with `alike` how documents spread, are the second text's: who knows the first by
    heart could gain as much in each of its documents as hides a lead on all. None where either text
    has fewer than MIN_DOCUMENTS.
    """
    sides = [Clusters(model, reference, documents, part) for part in (first, ~first)]
    if min(side.count for side in sides) < MIN_DOCUMENTS:
        return None
    a, b = sides
    slope, slopes = b.slopes()
    ahead = a.means[1] - b.means[1]
    difference = (a.means[0] - b.means[0]) - slope * ahead
    variances = a.variance(slope), b.variance(slope, (slopes - slope) * ahead)
    if alike:
        total, freedom = variances[1] * (1 + b.effective / a.effective), b.effective - 1
    else:
        total = sum(variances)
        parts = sum(v**2 / (side.effective - 1) for v, side in zip(variances, sides))
        freedom = total**2 / parts if parts > 0 else math.inf  # Welch-Satterthwaite
    # Student's t at the probability of so many normal deviations (Cornish-Fisher expansion).
    z = sigmas
    factor = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    error = math.sqrt(total)
    allowed = max(factor * error, NO_GAP)
    return Gap(difference, error, allowed, (a.count, b.count))


class Clusters:
    """One text's documents: each one's sums less what the text's means predict."""

    def __init__(self, model, reference, documents, part):
        number = np.unique(documents[part], return_inverse=True)[1].reshape(-1)
        self.sizes = np.bincount(number)
        self.count, self.targets = len(self.sizes), len(number)
        # as many documents of one size would tell as much
        self.effective = max(self.targets**2 / max(self.sizes @ self.sizes, 1), 1.01)
        sums = [np.bincount(number, values[part]) for values in (model, reference)]
        self.means = [values.sum() / max(self.targets, 1) for values in sums]
        self.model, self.reference = (s - m * self.sizes for s, m in zip(sums, self.means))

    def slopes(self) -> tuple[float, np.ndarray]:
        """By how much the model follows the reference from document to document; the same without each."""
        products, squares = self.model * self.reference, self.reference**2
        rest = np.maximum(squares.sum() - squares, 1e-12)
        return products.sum() / max(squares.sum(), 1e-12), (products.sum() - products) / rest

    def variance(self, slope: float, more=0.0) -> float:
        """Of the mean of model - slope * reference, as it and what is added change without each document."""
        change = (self.model - slope * self.reference) / (self.targets - self.sizes) - more
        return (self.count - 1) / self.count * float(change @ change)
