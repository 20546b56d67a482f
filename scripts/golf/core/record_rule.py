"""The record rule: is one entry better than another, by more than their seeds differ?"""

import statistics
import warnings
from dataclasses import dataclass
from pathlib import Path

from golf.core import submission, track
from golf.core.errors import GolfError
from golf.core.json_io import dig, number
from golf.core.paths import shown
from golf.core.text import columns

HASHES = ("val_sha256", "tokenizer_sha256")
CONFIDENCE = 0.95  # of the interval where no rule states one
SPREAD_FLOOR = 1e-6  # nats; seeds that differ by less differ by rounding alone


@dataclass(frozen=True)
class Side:
    """One side of a comparison: val_loss (nats a target) by seed, and what it was measured on."""

    name: str
    seeds: dict[int, float]
    data: dict
    targets: float
    track: str | None = None  # runs belong to none
    lane: str | None = None
    bpbs: tuple[float, ...] = ()  # val_bpb of each seed, where all state it

    @property
    def losses(self) -> list[float]:
        return list(self.seeds.values())

    @property
    def mean(self) -> float:
        return statistics.fmean(self.losses)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison, in nats a target. A positive improvement means that A is better."""

    improvement: float  # mean of B less mean of A
    interval: tuple[float, float] | None  # of the improvement; None where no test is possible
    confidence: float  # of the interval: its lower end exceeds the margin just where p is small enough
    p: float | None
    record: bool
    verdict: str


def compare(a: list[float], b: list[float], rule: dict | None = None) -> Comparison:
    """A one-sided Welch test (B. L. Welch, Biometrika 34, 1947) of H0: improvement <= the margin.

    a, b: val_loss of each seed of the new entry and of the one to beat, nats a target.
    rule: a track's record_rule; None: only the improvement and its interval, nothing is a record.
    """
    margin, level, needed = 0.0, (1 - CONFIDENCE) / 2, 2
    if rule is not None:
        margin, level, needed = rule["improvement_nats"], rule["p"], rule["min_seeds"]
    improvement = statistics.fmean(b) - statistics.fmean(a)
    p = interval = None
    if min(len(a), len(b)) > 1 and max(max(a) - min(a), max(b) - min(b)) >= SPREAD_FLOOR:
        p, interval = welch(a, b, margin, 1 - 2 * level)
    if rule is None:
        told = without_rule(improvement, interval, a, b)
        return Comparison(improvement, interval, CONFIDENCE, p, False, told)
    enough, better = min(len(a), len(b)) >= needed, in_words(improvement)
    record = enough and p is not None and p < level
    if not enough:
        verdict = f"not decided: {len(a)} and {len(b)} seeds are too few, the rule asks for {needed:g} a side"
        verdict += f"; as they are, {better}"
    elif p is None:
        verdict = f"not decided: {better}, but no two seeds of a side differ, so nothing is tested"
    elif record:
        verdict = f"record rule met: {better}; more than {margin:g} at p = {p:.2g} < {level:g}"
    else:
        needs = f"better by more than {margin:g}"
        if improvement > margin:
            needs = f"more than {margin:g} only at p = {p:.2g}, p < {level:g}"
        verdict = f"record rule not met: {better}; {needs} is needed"
    return Comparison(improvement, interval, 1 - 2 * level, p, record, verdict)


def in_words(improvement: float) -> str:
    if abs(improvement) < 5e-7:
        return "A scores as B does"
    return f"A is {'better' if improvement > 0 else 'worse'} by {abs(improvement):.6f} nats"


def without_rule(improvement: float, interval, a: list[float], b: list[float]) -> str:
    verdict = f"no record rule: {in_words(improvement)}"
    if interval is None:
        verdict += f"; {len(a)} and {len(b)} seeds cannot tell that from chance, run more"
    elif interval[0] <= 0 <= interval[1]:
        verdict += "; seeds differ by as much, so that may be chance"
    return verdict


def welch(a, b, margin: float, confidence: float) -> tuple[float, tuple[float, float]]:
    """p of H0: mean(b) - mean(a) <= margin, and the two-sided interval of that difference."""
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one side of equal values: no spread, as it should be
        test = ttest_ind([x - margin for x in b], a, equal_var=False, alternative="greater")
        interval = ttest_ind(b, a, equal_var=False).confidence_interval(confidence)
    return float(test.pvalue), (float(interval.low), float(interval.high))


# ---- Sides


def side_of_submission(folder: Path) -> Side:
    """A submission's seeds as it claims them. GolfError, code 2, if it lacks what a comparison needs."""
    try:
        claim = submission.read_claim(folder)
    except submission.ClaimError as error:
        raise GolfError(str(error), 2) from None
    listed = claim.get("seeds")
    if not isinstance(listed, list) or not listed:
        raise GolfError(f"{shown(folder)}: submission.json lists no seeds; see golf.sh new", 2)
    rules = track.of_submission(folder, claim)
    seeds = [(dig(s, "seed"), dig(s, "val_loss"), dig(s, "val_bpb")) for s in listed]
    measured = claim.get("data"), rules["targets"]
    return make_side(shown(folder), seeds, *measured, rules["name"], str(claim.get("lane")))


def make_side(name, seeds, data, targets, track_name=None, lane=None) -> Side:
    """A checked Side of untrusted values. seeds: (seed, val_loss, val_bpb) of each. GolfError, code 2."""
    losses = {}
    for seed, loss, _ in seeds:
        value = number(loss)
        if not isinstance(seed, int) or isinstance(seed, bool) or value is None:
            raise GolfError(f"{name}: a seed lacks its number or its val_loss", 2)
        if not 0 <= value <= submission.FIGURE_LIMIT:
            raise GolfError(f"{name}: seed {seed} claims a val_loss of {value:g}", 2)
        if seed in losses:
            raise GolfError(f"{name}: seed {seed} is there twice; give each seed once", 2)
        losses[seed] = value
    if number(targets) is None or not all(isinstance(dig(data, h), str) for h in HASHES):
        raise GolfError(f"{name}: does not say which data and how many targets it scored", 2)
    bpbs = tuple(number(bpb) for _, _, bpb in seeds)
    return Side(name, losses, data, targets, track_name, lane, () if None in bpbs else bpbs)


def refuse_incomparable(a: Side, b: Side, names: str = "A and B") -> None:
    for what, mine, other in (
        ("targets", a.targets, b.targets),
        ("validation data", a.data["val_sha256"], b.data["val_sha256"]),
        ("tokenizer", a.data["tokenizer_sha256"], b.data["tokenizer_sha256"]),
    ):
        if mine != other:
            values = f"{str(mine)[:12]}, {str(other)[:12]}"
            raise GolfError(f"not comparable: {names} differ in {what} ({values})", 2)


# ---- For people


def seed_table(a: Side, b: Side) -> list[str]:
    """val_loss of each seed, a column a side, then mean and standard deviation."""
    names = [
        f"{letter} = {side.name}" + f" ({side.track}, {side.lane})" * bool(side.track)
        for letter, side in (("A", a), ("B", b))
    ]
    rows = [(str(seed), a.seeds.get(seed), b.seeds.get(seed)) for seed in {**a.seeds, **b.seeds}]
    rows.append(("mean", a.mean, b.mean))
    rows.append(("std", *(statistics.stdev(s.losses) if len(s.seeds) > 1 else None for s in (a, b))))
    cells = [[label, *("-" if v is None else f"{v:.6f}" for v in values)] for label, *values in rows]
    return [*names, *columns([["seed", "A val_loss", "B val_loss"], *cells], right=range(3))]


def result_lines(found: Comparison, rules: dict | None) -> list[str]:
    """What the test says; rules: track.json, where one applies."""
    lines = [f"improvement {found.improvement:.6f} nats a target"]
    if found.p is not None:
        low, high = found.interval
        lines[0] += f", {found.confidence:.0%} confidence interval {low:.6f} to {high:.6f}"
    if found.p is not None and rules:
        rule = rules["record_rule"]
        lines.append(
            f"Welch test, H0: improvement <= {rule['improvement_nats']:g} nats: p = {found.p:.3g} "
            f"({rules['name']}: p < {rule['p']:g}, {rule['min_seeds']} seeds a side)"
        )
    return [*lines, found.verdict]
