"""The audit: is the score honest? Feeds the stream and held-out text again, cut at other places.

The last row of a call cannot know its target. Fed again inside a longer call, the same row could.
Honest rows are equal both times. docs/submission_interface.md lists the rules, what each one finds,
with what probability, and what none of them can find.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from golf.core.findings import Finding, judged
from golf.score.audit.passes import SUM_TOLERANCE, Pass, Text, feed
from golf.score.audit.reference import Gap, compare_texts
from golf.score.feeder import Fault, Feeder
from golf.score.stream import Stream

MEAN_TOLERANCE = 1e-4  # bits a byte: how far two passes may differ in the mean
ROW_TOLERANCE = 1e-3  # nats: how far two scores of a target may, where arithmetic is not noisy
ROW_CAP = 0.3  # nats: and where it is (bfloat16), at most
NOISE_QUANTILE = 0.98  # of the rows: what differs in fewer of them is no noise of arithmetic
RARE_CAP = 0.03  # nats: and a person judges it where no row differs by more
RARE = "a few rows are a little off, as in bfloat16 at times, or by jitter: score it in float32"
NOISE_FACTOR = 5.0  # a row of noisy arithmetic is this often the quantile off, at most
NOISE_CAP = 0.01  # nats: root mean square difference of two passes
NOISE_SIGMAS = 4.0  # standard errors of noise that a mean may be off
ROUNDING = 1e-6  # nats: what float32 rows can tell apart
CONFIDENCE = 0.95
SURE_DOCUMENTS = 20  # of fewer, standard errors are too rough to accuse anyone who is not far off
TAILS = (0.99, 0.999)  # quantiles of the lead over the control
TAIL_SIGMAS = 4.5  # as there are several of them
WORST = 4.0  # robust standard deviations below the median that a held-out document's lead may be
MOST_HELD_OUT = 1 << 18
OTHER_KIND = 1.0  # nats a target: what a private text of another kind may explain
LOWEST = -50.0  # nats: what counts for a target of probability 0

Reference = Callable[[Text], np.ndarray]  # -> [k, n] or [n]: log-probabilities of targets, by each control


@dataclass(frozen=True)
class Size:
    """How much an audit feeds. A cut may cost a scorer that keeps nothing its whole window again."""

    cuts: int  # of each of the two passes, at least
    held_out: int  # targets, or a sixteenth of the stream where that is more; as many as it has at most
    targets_a_cut: int  # more cuts where the text is longer
    most_cuts: int

    def held_out_of(self, scored: int) -> int:
        """How many held-out targets go with so many of the stream."""
        return min(max(self.held_out, min(scored // 16, MOST_HELD_OUT)), scored)

    def cuts_of(self, count: int) -> int:
        """How many cuts each pass has, of so many targets."""
        return min(max(self.cuts, min(count // self.targets_a_cut, self.most_cuts)), count // 4)


# Entries of before 2026-11-29 compute a cut window twice, 0.1 s on two cores: a record pays for more cuts.
FULL = Size(cuts=160, held_out=1 << 15, targets_a_cut=1024, most_cuts=4096)
RECORD = Size(cuts=1_050, held_out=MOST_HELD_OUT, targets_a_cut=1024, most_cuts=4096)
QUICK = Size(cuts=64, held_out=8_192, targets_a_cut=2048, most_cuts=128)


def audit(
    feeder: Feeder,
    text: Text,
    first: Pass,
    rng: np.random.Generator,
    *,
    reference: Reference,
    size: Size = FULL,
    log: Callable[[str], None] = print,
    progress: Callable[[], Callable[[int], None]] = lambda: lambda at: None,
    agree: Callable[[np.ndarray], np.ndarray] = lambda cuts: cuts,
) -> list[Finding]:
    """Every rule's outcome. A submission's misbehaviour ends the audit and is a finding too.

    first: the official pass, which was cut at uniform places. rng: seeded from what the submission
    cannot know. reference: the control models. progress: begins to tell how far the pass is, when it is
    called. agree: adds the cuts of seeds that are fed side by side.
    """
    rules = [complete(text, first), *map(tokenizer, text.parts[:1])]
    controls = np.atleast_2d(np.maximum(reference(text), LOWEST))
    control = mixed(controls)
    worst_sum = first.worst_sum
    try:
        cuts = agree(draw_cuts(rng, first, control, size.cuts_of(len(text))))
        log(f"audit: {len(text):,} targets again, {text.scored:,} of them scored; {len(cuts):,} cuts")
        second = feed(feeder, text, cuts, progress())
        worst_sum = max(worst_sum, second.worst_sum)
        pair = Pair(text, first, second, control)
        rules += [deterministic(pair), causal(pair)]
    except Fault as fault:
        rules.append(judged(fault.rule, False, "the audit ended", fault.message))
    rules += [rule(text, first, controls) for rule in (at_first_sight, held_out, tails)]
    if all(rule.rule != "normalised" for rule in rules):
        rules.append(normalised(worst_sum))
    return rules


def mixed(controls: np.ndarray) -> np.ndarray:
    """float64 [k, n] -> [n]: the logarithms of the mean probability."""
    return np.logaddexp.reduce(controls) - math.log(len(controls))


def draw_uniform(rng: np.random.Generator, text: Text, size: Size) -> np.ndarray:
    """Cuts of the official pass: uniform over the text."""
    return rng.choice(len(text), size.cuts_of(len(text)), replace=False)


def draw_cuts(rng: np.random.Generator, first: Pass, control: np.ndarray, cuts: int) -> np.ndarray:
    """Cuts of the second pass, at rows that were not blind in the first. Half are drawn in proportion to
    the squared lead over the control, half in proportion to the suspected gain by peeking."""
    lead = first.log_probs - control
    weights = np.full(len(lead), 1e-12)  # where nothing is suspect, all alike
    for of in (np.maximum(lead, 0) ** 2, suspicion(lead, control)):
        of = np.where(of > ROW_TOLERANCE**2, of, 0)
        weights += of / max(of.sum(), 1e-12)
    weights[first.blind] = 1e-30
    # the largest log weights plus Gumbel noise: sampling in proportion without replacement
    keys = np.log(weights) + rng.gumbel(size=len(weights))
    return np.argsort(-keys)[:cuts]


def suspicion(lead: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Nats that each row may have gained by peeking. Honest models differ from the control more at hard
    targets, so the same lead is less suspicious there; a large lead counts in full."""
    usual = float(np.median(np.abs(lead) / np.maximum(-control, 0.1)))
    scale = usual * np.maximum(-control, 0) + 1e-9
    return scale * np.logaddexp(0, lead / scale)


# ---- What the first pass shows by itself


def complete(text: Text, first: Pass) -> Finding:
    scored = int(np.isfinite(first.log_probs[: text.scored]).sum())
    whole = len(first.log_probs) == len(text) and scored == text.scored
    meaning = "each target is scored once, in order; the scorer holds the stream, not the submission"
    return judged("complete", whole, f"{scored:,} of {text.scored:,} targets fed", meaning)


def in_time(seconds: float, budget: float | None, same_device: bool) -> Finding:
    """budget: the track's, seconds; None: it has none. same_device: as the lane's."""
    figure = f"{seconds:.1f} s"
    if budget is None:
        return judged("in-time", True, figure, "the track sets no limit")
    within = seconds <= budget
    figure += f" of {budget:g} s"
    if same_device:
        return judged("in-time", within, figure, "measured from outside, loading and reset included")
    meaning = "not a device of the lane's class: says little of the time on that"
    return judged("in-time", None, figure, meaning)


def normalised(worst: float) -> Finding:
    figure = f"largest |log-sum-exp| {worst:.2g} nats, {SUM_TOLERANCE:g} allowed"
    meaning = "every row of every pass; it is taken off before the target's probability is read"
    return judged("normalised", worst <= SUM_TOLERANCE, figure, meaning)


def tokenizer(stream: Stream) -> Finding:
    """Whether text and bytes are what the tokenizer says: no <unk>; each whole document survives decoding
    and encoding, and its table bytes are the bytes of its text."""
    vocabulary, tokens = stream.vocabulary, stream.tokens
    unknown = int(vocabulary.unknown[tokens].sum())
    edges = np.flatnonzero(vocabulary.special[tokens])  # the last document is cut off: left out
    documents = [tokens[a + 1 : b].tolist() for a, b in zip(edges, edges[1:])]
    texts = vocabulary.processor.decode(documents)
    again = vocabulary.processor.encode(texts)
    changed = sum(a != b for a, b in zip(documents, again))
    sums = np.concatenate(([0], np.cumsum(stream.target_bytes)))  # of targets before each place
    table = sums[edges[1:] - 1] - sums[edges[:-1]]
    miscounted = sum(len(text.encode()) != n for text, n in zip(texts, table))
    figure = (
        f"{unknown} <unk>; of {len(documents):,} documents {changed} change by decoding and encoding, "
        f"{miscounted} have other bytes than the table says"
    )
    passed = len(documents) > 0 and not (unknown or changed or miscounted)
    meaning = "the score is of the whole text, and its bytes are counted right"
    if not passed:
        meaning = "text was lost, or its bytes are miscounted: not a matter of the submission"
    return judged("tokenizer", passed if len(documents) else None, figure, meaning)


# ---- Two passes, cut at different places


@dataclass(frozen=True)
class Pair:
    """One text, fed twice."""

    text: Text
    first: Pass
    second: Pass
    control: np.ndarray  # float64 [n]

    @cached_property
    def apart(self) -> np.ndarray:
        """First less second where neither was blind, nats."""
        both = ~self.first.blind & ~self.second.blind
        return difference(self.first.log_probs, self.second.log_probs)[both]

    @cached_property
    def noise(self) -> float:
        """Root mean square difference, in nats, of rows that were blind in neither pass."""
        return float(np.sqrt(np.mean(self.apart**2)))

    @cached_property
    def row_allowed(self) -> float:
        """The allowed difference of one row: the contract's, or more if most rows are noisy (bfloat16)."""
        usual = float(np.quantile(np.abs(self.apart), NOISE_QUANTILE))
        return min(max(NOISE_FACTOR * usual, ROW_TOLERANCE), ROW_CAP)

    @cached_property
    def rare(self) -> float:
        """The share of rows that are off by more than allowed; 0 if any of them is by more than RARE_CAP."""
        apart = np.abs(self.apart)
        return float((apart > self.row_allowed).mean()) if apart.max() <= RARE_CAP else 0.0

    def gains(self, blind: Pass, seen: Pass) -> np.ndarray:
        """Nats that rows gained when the call already held their target, against when it did not."""
        where = blind.blind & ~seen.blind
        return difference(seen.log_probs, blind.log_probs)[where]

    def mean_allowed(self, apart: np.ndarray) -> float:
        """The allowed mean of these differences, in nats."""
        error = min(float(apart.std()), NOISE_CAP) / math.sqrt(max(len(apart), 1))
        return MEAN_TOLERANCE * self.text.nats_of_a_bit + NOISE_SIGMAS * error


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b, finite: 0 where both are -inf."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(a - b, nan=0.0, posinf=99.0, neginf=-99.0)


def deterministic(pair: Pair) -> Finding:
    apart, noise, allowed = pair.apart, pair.noise, pair.row_allowed
    mean, off = float(apart.mean()), int((np.abs(apart) > allowed).sum())
    exact = not off or allowed > ROW_TOLERANCE  # noise of all rows has its outliers
    steady = noise <= NOISE_CAP and abs(mean) <= pair.mean_allowed(apart)
    figure = (
        f"{off} of {len(apart):,} rows off, most {np.abs(apart).max():.1e} nats of {allowed:.0e}; "
        f"mean {mean / pair.text.nats_of_a_bit:+.1e} bits a byte, rms {noise:.1e} nats"
    )
    passed, meaning = bool(exact and steady), "two passes in new processes, cut elsewhere, agree"
    if steady and not exact and pair.rare:
        passed, meaning = None, RARE
    elif not passed:
        meaning = "two passes disagree: rows depend on chance, or on where calls end"
    return judged("deterministic", passed, figure, meaning)


def causal(pair: Pair) -> Finding:
    uniform = pair.gains(pair.first, pair.second)
    gains = np.concatenate((uniform, pair.gains(pair.second, pair.first)))
    allowed, mean = pair.row_allowed, float(uniform.mean())
    moved, most = int((np.abs(gains) > allowed).sum()), float(np.abs(gains).max())
    fair = abs(mean) <= pair.mean_allowed(uniform)
    usual = pair.rare * len(gains)  # as many are off that are blind in neither pass
    few = most <= RARE_CAP and moved <= usual + NOISE_SIGMAS * math.sqrt(usual)
    figure = (
        f"{moved} of {len(gains):,} blind rows moved, most {most:.1e} nats of "
        f"{allowed:.0e}, mean {mean:+.1e}; finds 1 peek in {smallest_share(len(uniform)):,} anywhere"
    )
    passed, meaning = bool(not moved and fair), "rows were as good before the next token was known"
    if fair and moved and few:
        passed, meaning = None, RARE
    elif not passed:
        better = "better" if gains.sum() > 0 else "different"
        meaning = f"rows are {better} where the call holds the next token already: it peeks"
    return judged("causal", passed, figure, meaning)


def smallest_share(draws: int) -> int:
    """The n for which so many draws find peeking at 1 target in n, with probability CONFIDENCE."""
    return int(1 / (1 - (1 - CONFIDENCE) ** (1 / max(draws, 1))))


# ---- The first pass beside the control model


def at_first_sight(text: Text, first: Pass, controls: np.ndarray) -> Finding:
    """Compares blind rows of the first pass, whose targets no process had seen, with the other rows.
    Coarse, but communication between processes cannot deceive it."""
    control = mixed(controls)
    lead = without_the_worst(text, first, controls) - slope_of(first, control) * control
    blind, seen = lead[first.blind], lead[~first.blind]
    gap = float(seen.mean() - blind.mean())
    allowed = max(ROUNDING, NOISE_SIGMAS * float(lead.std()) / math.sqrt(len(blind)))
    figure = f"{gap:+.3f} nats better where the call holds the target, {allowed:.3f} allowed"
    meaning = "as good where no process could have seen the target"
    if gap > allowed:
        meaning = "worse where no process could have seen the target: it peeks, and processes talk"
    return judged("first-sight", gap <= allowed, figure, meaning)


def slope_of(first: Pass, control: np.ndarray) -> float:
    """By how much log-probabilities follow the control's."""
    a, b = np.maximum(first.log_probs, LOWEST), control - control.mean()
    return float((a * b).sum() / max((b * b).sum(), 1e-12))


def held_out(text: Text, first: Pass, controls: np.ndarray) -> Finding:
    """Is the lead over the controls [k, n] larger on the stream than on held-out text? The stream is fed
    first, so a scorer that learns has learned less on it, never more."""
    gap = gap_of(text, without_the_worst(text, first, controls), controls)
    meaning = "as far ahead of the control models on other text"
    return gap_rule("held-out", gap, "nats better on the stream", meaning, text.kin)


def without_the_worst(text: Text, first: Pass, controls: np.ndarray) -> np.ndarray:
    """The model's log-probabilities, raised in each held-out document whose mean lead is an outlier below: to
    WORST robust deviations below the median. The lead is that over the control which it follows best. A cheat
    may be bad in one document on purpose, as that makes the documents' spread so large that a lead on the
    whole stream hides behind it."""
    model, number = np.maximum(first.log_probs, LOWEST), text.documents - text.documents[0]
    sums = np.array([np.bincount(number, model - control) for control in controls])
    means = sums / np.maximum(np.bincount(number), 1)  # [k, documents]
    others = means[:, number[text.scored] :] if len(text) > text.scored else means
    middle = np.median(others, axis=1)
    spread = np.median(np.abs(others - middle[:, None]), axis=1)
    best = spread.argmin()
    least = middle[best] - WORST * 1.4826 * spread[best]
    raised = np.maximum(least - means[best], 0)[number]
    return model + np.where(np.arange(len(text)) < text.scored, 0, raised)


def tails(text: Text, first: Pass, controls: np.ndarray) -> Finding:
    """As `held_out`, for the largest leads only: a few memorized targets show there."""
    control = mixed(controls)
    lead = np.maximum(first.log_probs, LOWEST) - control
    worst, which = None, 0.0
    for quantile in TAILS:
        over = np.maximum(lead - np.quantile(lead, quantile), 0)
        hard = np.minimum(control - np.quantile(control, 1 - quantile), 0)
        gap = gap_of(text, over, hard, sigmas=TAIL_SIGMAS, alike=False)
        if gap and (worst is None or gap.difference / gap.allowed > worst.difference / worst.allowed):
            worst, which = gap, quantile
    unit = f"nats more lead over the {100 * which:g} % quantile"
    return gap_rule("tails", worst, unit, "no more large leads than on other text", text.kin)


def gap_of(text: Text, model: np.ndarray, controls: np.ndarray, **options) -> Gap | None:
    on_stream = np.arange(len(text)) < text.scored
    return compare_texts(model, controls, text.documents, on_stream, **options)


def gap_rule(rule: str, gap: Gap | None, unit: str, meaning: str, kin: bool) -> Finding:
    """kin: both texts are of one kind. If not, the lead over the control may differ by kind, so only a gap
    that no such difference explains is FAIL."""
    if gap is None:
        return judged(rule, None, "too few documents", "needs a longer stream, or text by --holdout")
    figure = (
        f"{gap.difference:+.4f} {unit}, error {gap.error:.4f}, {gap.allowed:.4f} "
        f"allowed; {gap.documents[0]} and {gap.documents[1]} documents"
    )
    passed = gap.difference <= gap.allowed
    if not passed:
        meaning = "better on the stream than on other text of its kind: it holds the stream"
        if min(gap.documents) < SURE_DOCUMENTS and gap.difference < 2 * gap.allowed:
            passed, meaning = None, "perhaps chance, as documents are few: score without --quick"
        elif not kin and gap.difference < OTHER_KIND:
            passed, meaning = None, "it holds the stream, or the private text is of another kind: retrain it"
    return judged(rule, None if passed is None else bool(passed), figure, meaning)
