"""The bigram control, and the comparison of two texts with controls as covariates."""

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
    model, references, documents, first: np.ndarray, sigmas: float = SIGMAS, alike: bool = True
) -> Gap | None:
    """A model's log-probabilities on the targets where `first`, against those on the others.

    model: float64 [n]; references: [k, n] or [n]; documents: int64 [n], the number of each target's document;
    first: bool [n]. The references are control variates: what they explain of how documents differ,
    by coefficients fitted over documents, is taken off, so a poor one adds little noise. Errors come
    from leaving out a whole document at a time (jackknife), since targets of one are alike. The
    coefficients, and with `alike` how documents spread, are the second text's: who knows the first by
    heart could gain as much in each of its documents as hides a lead on all. None where either text
    has fewer than MIN_DOCUMENTS.
    """
    references = np.atleast_2d(references)
    sides = [Clusters(model, references, documents, part) for part in (first, ~first)]
    if min(side.count for side in sides) < MIN_DOCUMENTS:
        return None
    a, b = sides
    slopes, without_each = b.slopes()
    ahead = a.means[1:] - b.means[1:]
    difference = float(a.means[0] - b.means[0] - slopes @ ahead)
    variances = a.variance(slopes), b.variance(slopes, (without_each - slopes) @ ahead)
    freedoms = [max(side.effective - len(references), 0.01) for side in sides]
    if alike:
        total, freedom = variances[1] * (1 + b.effective / a.effective), freedoms[1]
    else:
        total = sum(variances)
        parts = sum(v**2 / f for v, f in zip(variances, freedoms))
        freedom = total**2 / parts if parts > 0 else math.inf  # Welch-Satterthwaite
    # Student's t at the probability of so many normal deviations (Cornish-Fisher expansion).
    z = sigmas
    factor = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    error = math.sqrt(total)
    allowed = max(factor * error, NO_GAP)
    return Gap(difference, error, allowed, (a.count, b.count))


class Clusters:
    """One text's documents: each one's sums less what the text's means predict."""

    def __init__(self, model, references, documents, part):
        number = np.unique(documents[part], return_inverse=True)[1].reshape(-1)
        self.sizes = np.bincount(number)
        self.count, self.targets = len(self.sizes), len(number)
        # as many documents of one size would tell as much
        self.effective = max(self.targets**2 / max(self.sizes @ self.sizes, 1), 1.01)
        sums = np.array([np.bincount(number, values[part]) for values in (model, *references)])
        self.means = sums.sum(1) / max(self.targets, 1)
        self.model, *references = sums - np.outer(self.means, self.sizes)
        self.references = np.array(references)  # [k, documents]

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """By how much the model follows each reference from document to document, by least squares, [k]; the
        same without each document, [documents, k]."""
        of_each = self.references.T  # [documents, k]
        squares, products = of_each[:, :, None] * of_each[:, None], of_each * self.model[:, None]
        others = np.linalg.pinv(squares.sum(0) - squares) @ (products.sum(0) - products)[:, :, None]
        return np.linalg.pinv(squares.sum(0)) @ products.sum(0), others[:, :, 0]

    def variance(self, slopes: np.ndarray, more=0.0) -> float:
        """Of the mean of model - slopes @ references, as it and `more` change without each document."""
        change = (self.model - slopes @ self.references) / (self.targets - self.sizes) - more
        return (self.count - 1) / self.count * float(change @ change)
