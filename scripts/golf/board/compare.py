"""Compare entries: is A better than B, by how much, and by enough for its track's record rule?

Each is a submission folder, a run's folder, several runs joined by commas, or runs/NAME for the runs
of SEEDS=... (runs/NAME-s<seed>). Two are tested seed by seed; more make a table, best first. Scores
are taken as the folders state them; `check` is what verifies them. What no track scores has no record
rule: then the difference and its interval are all. Exit code 0: A meets the record rule against B, or
none applies, 1: it does not, or there are too few seeds to say, 2: used wrongly or not comparable.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from golf.core import track
from golf.core.errors import GolfError
from golf.core.json_io import dig, number
from golf.core.paths import shown
from golf.core.runlog import read_run, seed_runs
from golf.core.strict_json import StrictError
from golf.core.submission import FIGURE_LIMIT, read_claim

HASHES = ("val_sha256", "tokenizer_sha256")
CONFIDENCE = 0.95  # of the interval where no rule states one
SPREAD_FLOOR = 1e-6  # nats; what seeds differ by below this is rounding, and tests nothing


@dataclass(frozen=True)
class Entry:
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


@dataclass(frozen=True)
class Comparison:
    """What the seeds say; nats a target, and a positive improvement means that A is better."""

    improvement: float  # mean of B less mean of A
    interval: tuple[float, float] | None  # of the improvement; None where no test is possible
    confidence: float  # of the interval: its lower end exceeds the margin just where p is enough
    p: float | None
    record: bool
    verdict: str


def compare(a: list[float], b: list[float], rule: dict) -> Comparison:
    """A one-sided Welch test (B. L. Welch, Biometrika 34, 1947) of H0: improvement <= the margin.

    a, b: val_loss of each seed of the new entry and of the one to beat, nats a target.
    rule: a track's record_rule. GolfError, code 2, where the rule is not one this can apply.
    """
    margin, level, needed = read_rule(rule)
    improvement = statistics.fmean(b) - statistics.fmean(a)
    p = interval = None
    if min(len(a), len(b)) > 1 and max(spread(a), spread(b)) >= SPREAD_FLOOR:
        p, interval = welch(a, b, margin, 1 - 2 * level)
    enough = min(len(a), len(b)) >= needed
    record = enough and p is not None and p < level
    better = in_words(improvement)
    if not enough:
        verdict = f"not decided: {len(a)} and {len(b)} seeds are too few, the rule asks for {needed:g} a side"
        verdict += f"; as they are, {better}"
    elif p is None:
        verdict = f"not decided: {better}, but no two seeds of a side differ, so nothing is tested"
    elif record:
        verdict = f"record rule met: {better}; more than {margin:g} at p = {p:.2g} < {level:g}"
    else:
        verdict = f"record rule not met: {better}; more than {margin:g} only at p = {p:.2g}"
        verdict += f", needed is p < {level:g}"
    return Comparison(improvement, interval, 1 - 2 * level, p, record, verdict)


def in_words(improvement: float) -> str:
    if abs(improvement) < 5e-7:
        return "A scores as B does"
    return f"A is {'better' if improvement > 0 else 'worse'} by {abs(improvement):.6f} nats"


def difference(a: list[float], b: list[float]) -> Comparison:
    """What two sides' seeds say where no record rule applies: the difference, and its interval."""
    improvement = statistics.fmean(b) - statistics.fmean(a)
    p = interval = None
    if min(len(a), len(b)) > 1 and max(spread(a), spread(b)) >= SPREAD_FLOOR:
        p, interval = welch(a, b, 0.0, CONFIDENCE)
    verdict = f"no record rule: {in_words(improvement)}"
    if interval is None:
        verdict += f"; {len(a)} and {len(b)} seeds cannot tell that from chance, run more"
    elif interval[0] <= 0 <= interval[1]:
        verdict += "; the seeds differ by as much, so that may be chance"
    return Comparison(improvement, interval, CONFIDENCE, p, False, verdict)


def spread(losses: list[float]) -> float:
    return max(losses) - min(losses)


def welch(a, b, margin: float, confidence: float) -> tuple[float, tuple[float, float]]:
    """p of H0: mean(b) - mean(a) <= margin, and the two-sided interval of that difference."""
    import warnings

    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one side of equal values: no spread, as it should be
        test = ttest_ind([x - margin for x in b], a, equal_var=False, alternative="greater")
        interval = ttest_ind(b, a, equal_var=False).confidence_interval(confidence)
    return float(test.pvalue), (float(interval.low), float(interval.high))


def read_rule(rule) -> tuple[float, float, float]:
    """improvement_nats, p and min_seeds of a record_rule."""
    values = [number(dig(rule, name)) for name in ("improvement_nats", "p", "min_seeds")]
    margin, level, needed = values
    if dig(rule, "test") != "welch-one-sided" or None in values or not 0 < level < 0.5:
        raise GolfError("the track's record_rule is none that this tool knows; see track.json", 2)
    return margin, level, needed


# ---- Reading entries


def read_entry(place: str) -> Entry:
    """The entry at `place`, see the module's head. GolfError, code 2, where there is none."""
    folder = Path(place)
    if (folder / "submission.json").is_file():
        return read_submission(folder)
    if folder.is_dir():
        return read_runs(place, [folder])
    if "," in place:
        return read_runs(place, [Path(part) for part in place.split(",")])
    family = seed_runs(folder)
    if not family:
        raise GolfError(f"{place}: no submission, no run and no runs of SEEDS=... there", 2)
    return read_runs(place, family)


def read_submission(folder: Path) -> Entry:
    try:
        claim = read_claim(folder)
    except StrictError as error:
        raise GolfError(f"{shown(folder)}: submission.json {error}", 2) from None
    listed = dig(claim, "seeds")
    if not isinstance(listed, list) or not listed:
        raise GolfError(f"{shown(folder)}: submission.json lists no seeds; see golf.sh new", 2)
    name = dig(claim, "track")
    known = isinstance(name, str) and name in track.names()
    rules = track.load(name) if known else track.of_folder(folder)
    if rules is None:
        raise GolfError(f"{shown(folder)}: submission.json names no known track", 2)
    pairs = [(dig(s, "seed"), dig(s, "val_loss"), dig(s, "val_bpb")) for s in listed]
    return entry(
        shown(folder), pairs, dig(claim, "data"), rules["targets"], rules["name"],
        str(dig(claim, "lane")),
    )  # fmt: skip


def read_runs(name: str, folders: list[Path]) -> Entry:
    runs = [(folder, read_run(folder)) for folder in folders]
    for folder, facts in runs:
        if "start" not in facts or "sliding" not in facts:
            raise GolfError(f"{shown(folder)}: no finished run there (metrics.jsonl, a score)", 2)
    measured = [(dig(r, "start", "data"), dig(r, "sliding", "targets")) for _, r in runs]
    if any(one != measured[0] for one in measured):
        raise GolfError(f"{name}: its runs differ in data or targets, so they have no mean", 2)
    scores = [(dig(r, "start", "seed"), dig(r, "sliding")) for _, r in runs]
    pairs = [(seed, dig(score, "val_loss"), dig(score, "val_bpb")) for seed, score in scores]
    return entry(name, pairs, *measured[0])


def entry(name, pairs, data, targets, track_name=None, lane=None) -> Entry:
    """An Entry of what was read from files, where that has what a comparison needs."""
    seeds = {}
    for seed, loss, _ in pairs:
        value = number(loss)
        if not isinstance(seed, int) or isinstance(seed, bool) or value is None:
            raise GolfError(f"{name}: a seed lacks its number or its val_loss", 2)
        if not 0 <= value <= FIGURE_LIMIT:
            raise GolfError(f"{name}: seed {seed} claims a val_loss of {value:g}", 2)
        if seed in seeds:
            raise GolfError(f"{name}: seed {seed} is there twice; give each seed once", 2)
        seeds[seed] = value
    if number(targets) is None or not all(isinstance(dig(data, h), str) for h in HASHES):
        raise GolfError(f"{name}: does not say which data and how many targets it scored", 2)
    bpbs = tuple(number(bpb) for _, _, bpb in pairs)
    return Entry(name, seeds, data, targets, track_name, lane, () if None in bpbs else bpbs)


def refuse_incomparable(a: Entry, b: Entry, names: str = "A and B") -> None:
    for what, values in (
        ("targets", [e.targets for e in (a, b)]),
        ("validation data", [e.data["val_sha256"] for e in (a, b)]),
        ("tokenizer", [e.data["tokenizer_sha256"] for e in (a, b)]),
    ):
        if values[0] != values[1]:
            mine, other = (str(value)[:12] for value in values)
            raise GolfError(f"not comparable: {names} differ in {what} ({mine}, {other})", 2)


# ---- The command


def add_arguments(parser) -> None:
    parser.add_argument("a", metavar="A", help="the new entry")
    parser.add_argument("b", metavar="B", help="the one to beat")
    parser.add_argument("more", nargs="*", metavar="MORE", help="others, for a table of all")
    parser.add_argument(
        "--track", metavar="NAME", help="whose record rule to use; default: the entries' own track's"
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def main(args) -> int:
    entries = [read_entry(place) for place in (args.a, args.b, *args.more)]
    if args.more:
        return show_table(entries, args.json)
    a, b = entries
    refuse_incomparable(a, b)
    rules = find_rules(args.track, a, b)
    found = compare(a.losses, b.losses, rules["record_rule"]) if rules else difference(a.losses, b.losses)
    if args.json:
        named = {"track": rules and rules["name"], "rule": rules and rules["record_rule"]}
        print(json.dumps({"a": asdict(a), "b": asdict(b), **named, **asdict(found)}, indent=1))
    else:
        print("\n".join([*seed_table(a, b), *result(found, rules)]))
    return int(rules is not None and not found.record)


def find_rules(name: str | None, a: Entry, b: Entry) -> dict | None:
    """The named track, the entries' own, or that of such data and targets; None where there is none."""
    name = name or a.track or b.track
    if name:
        return track.load(name)
    try:
        return track.guess(a.data.get("name"), a.targets)
    except GolfError as error:
        if error.code == 1:
            return None
        raise


def show_table(entries: list[Entry], as_json: bool) -> int:
    """All entries, best first, with what each is behind the best."""
    for other in entries[1:]:
        refuse_incomparable(entries[0], other, f"{entries[0].name} and {other.name}")
    entries = sorted(entries, key=lambda e: statistics.fmean(e.losses))
    best = statistics.fmean(entries[0].losses)
    if as_json:
        print(json.dumps([{**asdict(e), "mean": statistics.fmean(e.losses)} for e in entries], indent=1))
        return 0
    width = max(len("entry"), *(len(e.name) for e in entries))
    print(f"{'entry':<{width}} {'seeds':>5} {'val_loss':>10} {'std':>9} {'behind':>9} {'val_bpb':>9}")
    for e in entries:
        mean = statistics.fmean(e.losses)
        spread = f"{statistics.stdev(e.losses):.6f}" if len(e.losses) > 1 else "-"
        bpb = f"{statistics.fmean(e.bpbs):.6f}" if e.bpbs else "-"
        print(f"{e.name:<{width}} {len(e.losses):>5} {mean:>10.6f} {spread:>9} {mean - best:>9.6f} {bpb:>9}")
    print("val_loss in nats a target, lower is better; compare two alone to test their seeds")
    return 0


def seed_table(a: Entry, b: Entry) -> list[str]:
    """val_loss of each seed, a column a side, then mean and standard deviation."""
    lines = [
        f"{side} = {e.name}{f' ({e.track}, {e.lane})' if e.track else ''}" for side, e in (("A", a), ("B", b))
    ]
    rows = [(str(seed), a.seeds.get(seed), b.seeds.get(seed)) for seed in {**a.seeds, **b.seeds}]
    rows.append(("mean", statistics.fmean(a.losses), statistics.fmean(b.losses)))
    spreads = [statistics.stdev(e.losses) if len(e.seeds) > 1 else None for e in (a, b)]
    rows.append(("std", *spreads))
    lines.append(f"{'seed':>12} {'A val_loss':>12} {'B val_loss':>12}")
    for label, *values in rows:
        cells = ["-" if value is None else f"{value:.6f}" for value in values]
        lines.append(f"{label:>12} {cells[0]:>12} {cells[1]:>12}")
    return lines


def result(found: Comparison, rules: dict | None) -> list[str]:
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
