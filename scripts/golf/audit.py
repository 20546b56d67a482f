"""Whether a score is honest: the stream is fed again, in ways that nobody could foresee.

The last row of a call is given before its target is known: it is blind. docs/submission_interface.md
has the rules, what each of them finds and how surely, and what none of them sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .audit_reference import compare_texts
from .audit_tokenizer import tokenizer
from .feeder import AuditRule, Fault, Feeder
from .stream import Stream

SUM_TOLERANCE = 1e-3  # nats: how far a row's log-sum-exp may be from 0
MEAN_TOLERANCE = 1e-4  # bits a byte: how far two passes may differ in the mean
ROW_TOLERANCE = 1e-3  # nats: how far two scores of a target may, where arithmetic is not noisy
ROW_CAP = 0.3  # nats: and where it is (bfloat16), at most
NOISE_CAP = 0.03  # nats: root mean square difference of two passes
NOISE_SIGMAS = 4.0  # standard errors of noise that a mean may be off
CONFIDENCE = 0.95
LUCK = math.log(1e6)  # nats: a causal model beats the bound on shuffled tokens so far with 1e-6
SURE_DOCUMENTS = 20  # of fewer, standard errors are too rough to accuse anyone who is not far off
NEAR_ROWS = 128  # before a replaced suffix
LOWEST = -50.0  # nats: what counts for a target of probability 0

Reference = Callable[[np.ndarray, np.ndarray], np.ndarray]  # inputs, targets -> log-probabilities


@dataclass(frozen=True)
class FirstPass:
    """What the official pass found, which the audit puts to the test."""

    log_probs: np.ndarray  # float64 [N]: natural log of the probability of each target
    seconds: float = 0.0  # that the submission took, by the parent's clock
    budget_seconds: float | None = None  # the track's; None: it has none
    same_device: bool = True  # whether it ran on a device of the lane's class
    worst_sum: float = 0.0  # nats: the largest |log-sum-exp| of a row


@dataclass(frozen=True)
class Size:
    """How much is fed again."""

    cuts: int
    targets: int  # of the stream, from its beginning
    held_out: int  # targets
    trials: int  # with a replaced suffix
    trial_targets: int = 1024  # before it, at most; and in it

    def fed(self, stream: Stream, holdout: Stream | None) -> int:
        """How many targets the submission is asked for again, at most."""
        held_out = min(self.held_out, len(holdout)) if holdout else 0
        return min(self.targets, len(stream)) + held_out + 2 * self.trials * self.trial_targets


FULL = Size(cuts=2_100, targets=1 << 40, held_out=1 << 18, trials=8)  # the stream to its end
QUICK = Size(cuts=200, targets=8_192, held_out=8_192, trials=2)


def audit(
    feeder: Feeder,
    stream: Stream,
    first_pass: FirstPass,
    rng: np.random.Generator,
    *,
    reference: Reference,
    holdout: Stream | None = None,
    size: Size = FULL,
    log: Callable[[str], None] = print,
) -> list[AuditRule]:
    """Every rule's outcome. A submission's misbehaviour ends the audit and is a finding too.

    rng: seeded from what the submission cannot know. reference: another model, which says how
    likely each target was, natural logarithms, float64 [n]; it is asked once, for what is fed
    again and held-out text after it. holdout: text of the same kind that no one tuned on.
    """
    case = Case(feeder, stream, first_pass, rng, reference, holdout, size, log)
    rules = [complete(case), in_time(case), tokenizer(stream)]
    try:
        rules += second_pass(case)
        rules += suffix_trials(case)
    except Fault as fault:
        rules.append(AuditRule(fault.rule, False, "the audit ended", fault.message))
    if all(rule.id != "normalised" for rule in rules):
        rules.append(normalised(case))
    return rules


@dataclass
class Case:
    """A submission under audit, and the feeding of it."""

    feeder: Feeder
    stream: Stream
    first_pass: FirstPass
    rng: np.random.Generator
    reference: Reference
    holdout: Stream | None
    size: Size
    log: Callable[[str], None]
    worst_sum: float = 0.0  # nats: the largest |log-sum-exp| of what is fed here
    again: Again | None = None  # once the second pass is over

    def feed(self, tokens: np.ndarray, targets: np.ndarray, cuts=()) -> np.ndarray:
        """The log-probability of each target, float64 [n], where calls end at the cuts, at the end
        and where they must."""
        log_probs, worst = feed(self.feeder, tokens, targets, cuts)
        self.worst_sum = max(self.worst_sum, worst)
        return log_probs


def feed(feeder: Feeder, tokens, targets, cuts=(), tell=lambda at: None) -> tuple[np.ndarray, float]:
    """The log-probability of each target, float64 [n], and the largest |log-sum-exp| of a row.
    tell: is told after each call how many targets are scored."""
    log_probs, at, worst = np.empty(len(targets)), 0, 0.0
    for stop in call_ends(len(targets), feeder.max_tokens, cuts) + 1:
        rows = feeder.log_probs(tokens[at:stop])
        log_probs[at:stop], off = target_log_probs(rows, targets[at:stop])
        worst, at = max(worst, off), stop
        tell(at)
    return log_probs, worst


def call_ends(count: int, longest: int, cuts=()) -> np.ndarray:
    """Ascending places of each call's last row."""
    forced = np.append(np.arange(longest - 1, count, longest), count - 1)
    return np.union1d(forced, np.asarray(cuts, np.int64)) if count else forced[:0]


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


# ---- What the first pass shows by itself


def complete(case: Case) -> AuditRule:
    log_probs, count = case.first_pass.log_probs, len(case.stream)
    scored = int(np.isfinite(log_probs).sum())
    whole = len(log_probs) == count and scored == count
    meaning = "each target is scored once, in order; the scorer holds the stream, not the submission"
    return AuditRule("complete", whole, f"{scored:,} of {count:,} targets fed", meaning)


def in_time(case: Case) -> AuditRule:
    first = case.first_pass
    figure = f"{first.seconds:.1f} s"
    if first.budget_seconds is None:
        return AuditRule("in-time", True, figure, "the track sets no limit")
    within = first.seconds <= first.budget_seconds
    figure += f" of {first.budget_seconds:g} s"
    if first.same_device:
        return AuditRule("in-time", within, figure, "measured from outside, without loading")
    meaning = "not a device of the lane's class: says little of the time on that"
    return AuditRule("in-time", None, figure, meaning)


def normalised(case: Case) -> AuditRule:
    worst = max(case.worst_sum, case.first_pass.worst_sum)
    figure = f"largest |log-sum-exp| {worst:.2g} nats, {SUM_TOLERANCE:g} allowed"
    meaning = "every row of every pass; it is taken off before the target's probability is read"
    return AuditRule("normalised", worst <= SUM_TOLERANCE, figure, meaning)


# ---- The second pass: the stream with other cuts, and held-out text right after it


@dataclass(frozen=True)
class Again:
    """The stream's first targets, fed twice."""

    first: np.ndarray  # float64 [count]: the targets' log-probabilities in the first pass
    second: np.ndarray  # and now
    seen: np.ndarray  # bool [count]: not the last row of a call of the second pass
    uniform: np.ndarray  # places of blind rows, all places alike
    proportional: np.ndarray  # places of blind rows, drawn by the lead over the control
    bpb_nats: float  # nats a target that make one bit a byte

    @property
    def apart(self) -> np.ndarray:
        return difference(self.first, self.second)

    @property
    def noise(self) -> float:
        """Root mean square difference of the passes on rows that are not blind, nats."""
        return float(np.sqrt(np.mean(self.apart[self.seen] ** 2)))

    @property
    def row_allowed(self) -> float:
        """How far a blind row may be off: the contract's, or three times what noise does to others."""
        return float(np.clip(3 * np.abs(self.apart[self.seen]).max(), ROW_TOLERANCE, ROW_CAP))

    def mean_allowed(self, apart: np.ndarray) -> float:
        """How far the mean of these differences may be off, nats."""
        error = min(float(apart.std()), NOISE_CAP) / math.sqrt(len(apart))
        return MEAN_TOLERANCE * self.bpb_nats + NOISE_SIGMAS * error


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b, finite: 0 where both are -inf."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(a - b, nan=0.0, posinf=99.0, neginf=-99.0)


def second_pass(case: Case) -> list[AuditRule]:
    """Feeds the stream's beginning again, with cuts of this moment, then held-out text."""
    part, text = case.stream.part(0, case.size.targets), held_out_tokens(case)
    first = case.first_pass.log_probs[: len(part)]
    inputs = np.concatenate((part.tokens[:-1], text[:-1]))
    targets = np.concatenate((part.tokens[1:], text[1:]))
    reference = np.maximum(case.reference(inputs, targets), LOWEST)
    uniform, proportional = draw_cuts(case.rng, first - reference[: len(part)], case.size.cuts)
    cuts = np.concatenate((uniform, proportional))
    rest = len(targets) - len(part)
    case.log(f"audit: {len(part):,} targets again with {len(cuts):,} cuts, {rest:,} held out")
    case.feeder.reset()
    second = case.feed(part.tokens[:-1], part.tokens[1:], cuts)
    other = case.feed(text[:-1], text[1:])
    seen = np.ones(len(part), bool)
    seen[call_ends(len(part), case.feeder.max_tokens, cuts)] = False
    bpb_nats = math.log(2) * float(part.target_bytes.mean())
    case.again = Again(first, second, seen, uniform, proportional, bpb_nats)
    return [
        deterministic(case.again),
        causal(case.again),
        held_out(part, first, text, other, reference),
    ]


def held_out_tokens(case: Case) -> np.ndarray:
    """uint16 [h + 1] from the first beginning of a document on; empty where there are none."""
    if case.holdout is None:
        return np.zeros(0, np.uint16)
    tokens = case.holdout.tokens
    begins = np.flatnonzero(case.stream.vocabulary.special[tokens])
    start = begins[0] if len(begins) else 0
    return tokens[start : start + case.size.held_out + 1]


def draw_cuts(rng, lead: np.ndarray, cuts: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct places: half uniform, half in proportion to the lead (nats), where there is one."""
    cuts = min(cuts, len(lead) // 2)
    uniform = rng.choice(len(lead), cuts - cuts // 2, replace=False)
    weights = np.where(lead > ROW_TOLERANCE, lead, 1e-9)  # where there is none, uniform too
    weights[uniform] = 1e-30
    # the largest log weights plus Gumbel noise: sampling in proportion without replacement
    keys = np.log(weights) + rng.gumbel(size=len(weights))
    return uniform, np.argsort(-keys)[: cuts // 2]


def deterministic(again: Again) -> AuditRule:
    apart = again.apart[again.seen]
    mean, noise = float(apart.mean()), again.noise
    passed = noise <= NOISE_CAP and abs(mean) <= again.mean_allowed(apart)
    figure = f"mean {mean / again.bpb_nats:+.1e} bits a byte, rms {noise:.1e} nats, {len(apart):,} rows"
    meaning = "two passes in new processes, cut elsewhere, agree"
    if not passed:
        meaning = "two passes disagree: rows depend on chance, or on where calls end"
    return AuditRule("deterministic", bool(passed), figure, meaning)


def causal(again: Again) -> AuditRule:
    cuts = np.concatenate((again.uniform, again.proportional))
    off, allowed = np.abs(again.apart[cuts]), again.row_allowed
    anywhere = again.apart[again.uniform]
    moved, mean = int((off > allowed).sum()), float(anywhere.mean())
    passed = not moved and abs(mean) <= again.mean_allowed(anywhere)
    figure = (
        f"{moved} of {len(cuts):,} blind rows moved, most {off.max():.1e} nats of {allowed:.0e}, mean "
        f"{mean:+.1e}; finds peeking at 1 target in {smallest_share(len(anywhere)):,} anywhere, 1 in "
        f"{smallest_share(len(cuts)):,} where it leads as on average"
    )
    meaning = "rows were as good before the next token was known"
    if not passed:
        better = "better" if mean > 0 else "different"
        meaning = f"the first pass is {better} where it had the next token already: it peeks"
    return AuditRule("causal", bool(passed), figure, meaning)


def smallest_share(draws: int) -> int:
    """n such that peeking at 1 target in n is hit by one of so many draws with CONFIDENCE."""
    return int(1 / (1 - (1 - CONFIDENCE) ** (1 / draws)))


def held_out(part: Stream, first, text, other, reference) -> AuditRule:
    """The stream's beginning, which has been fed no later than the other text: a scorer that learns
    has learnt no less by then. first, other: the log-probabilities of part.tokens[1:] and text[1:];
    reference: of both."""
    meaning = "as far ahead of the control model on other text"
    if len(text) < 2:
        return AuditRule("held-out", None, "no text", "name held-out text with --holdout")
    inputs = np.concatenate((part.tokens[:-1], text[:-1]))
    begins = part.vocabulary.special[inputs]
    on_stream = np.arange(len(inputs)) < len(first)
    model = np.maximum(np.concatenate((first, other)), LOWEST)
    gap = compare_texts(model, reference, np.cumsum(begins), on_stream)
    if gap is None:
        return AuditRule("held-out", None, "too few documents", "needs a longer stream or --holdout")
    figure = (
        f"{gap.difference:+.3f} nats better on the stream, error {gap.error:.3f}, {gap.allowed:.3f} "
        f"allowed; {gap.documents[0]} and {gap.documents[1]} documents"
    )
    passed = gap.difference <= gap.allowed
    if not passed:
        meaning = "better on the stream than on other text of its kind: it holds the stream"
        if min(gap.documents) < SURE_DOCUMENTS and gap.difference < 2 * gap.allowed:
            passed, meaning = None, "perhaps chance, as documents are few: score without --quick"
    return AuditRule("held-out", None if passed is None else bool(passed), figure, meaning)


# ---- The beginning again, with other text after an unforeseen place


def suffix_trials(case: Case) -> list[AuditRule]:
    """Each in a new process and in one call: some of the stream, then its next tokens, shuffled."""
    moved, largest, most, nats, bound, targets = 0, 0.0, 0.0, 0.0, 0.0, 0
    case.log(f"audit: {case.size.trials} beginnings with a replaced suffix")
    for _ in range(case.size.trials):
        first, second, tail, log_probs = suffix_trial(case)
        off = np.abs(difference(first, second))
        allowed = max(case.again.row_allowed, noise_allowed(off[:-NEAR_ROWS]))
        moved, largest = moved + int((off > allowed).sum()), max(largest, off.max())
        most = max(most, allowed)
        nats, targets = nats - log_probs.sum(), targets + len(tail)
        bound += shuffled_bound(tail)
    rows = f"{moved} rows moved, most {largest:.1e} nats of {most:.0e}"
    meaning = "rows do not change when what comes after them in the same call does"
    if moved:
        meaning = "rows change with what comes after them in the same call: it looks ahead"
    suffix = AuditRule("suffix-proof", not moved, f"{case.size.trials} suffixes, {rows}", meaning)
    per_target = f"{nats / targets:.2f} nats a target, at least {bound / targets:.2f} for any model"
    text = f"{-case.again.first.mean():.2f} on the text"
    passed, meaning = nats > bound - LUCK, "shuffled tokens are as hard as they are for any model"
    if not passed:
        meaning = "better on shuffled tokens than any model can be that does not know them"
    return [suffix, AuditRule("shuffled", bool(passed), f"{per_target}; {text}", meaning)]


def noise_allowed(off: np.ndarray) -> float:
    """Nats that a row near the suffix may be off, by what happens to rows far from it: a process may
    compute in another type than the one before. 0 where that is more than noise."""
    noisy = len(off) and math.sqrt(np.mean(off**2)) <= NOISE_CAP
    return min(3 * float(off.max()), ROW_CAP) if noisy else 0.0


def suffix_trial(case: Case):
    """(first pass, now) log-probabilities before the replaced suffix; the suffix's targets and
    their log-probabilities."""
    most, first = case.size.trial_targets, case.again.first
    before = int(case.rng.integers(1, min(most, len(first) // 2)))  # inputs that are the stream's
    stop = min(before + most, len(first))
    tokens = case.stream.tokens[:stop].copy()
    tokens[before:] = case.rng.permutation(tokens[before:])
    targets = np.append(tokens[1:], 0)
    targets[before - 1] = case.stream.tokens[before]  # the true one: this row is the nearest
    case.feeder.reset()
    log_probs = case.feed(tokens, targets)
    return first[:before], log_probs[:before], tokens[before + 1 :], log_probs[before:-1]


def shuffled_bound(tokens: np.ndarray) -> float:
    """Nats that shuffled tokens cost at least, in the mean, whoever does not see what comes: the
    logarithm of the number of orders, known multiset or not."""
    counts = np.bincount(tokens)
    return math.lgamma(len(tokens) + 1) - sum(math.lgamma(n + 1) for n in counts[counts > 1])
