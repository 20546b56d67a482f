"""Compare entries: is A better than B, by how much, and by enough for its track's record rule?

An entry is a submission folder, a run's folder, several runs joined by commas, or runs/NAME for the runs
of SEEDS=... (runs/NAME-s<seed>). Two are tested by their seeds; more make a table, best first. Scores are
taken as stated; `check` verifies them. Runs on data of no track have no record rule: compare then shows the
difference and its interval. Exit code 0: A meets the record rule against B, or none applies; 1: it does
not, or there are too few seeds; 2: wrong usage, or not comparable.
"""

import json
import statistics
from dataclasses import asdict

from golf.core import record_rule, track
from golf.core.errors import GolfError
from golf.core.json_io import dig
from golf.core.paths import path_argument, shown
from golf.core.runlog import read_run, run_folders
from golf.core.text import columns


def add_arguments(parser) -> None:
    parser.add_argument("a", metavar="A", help="the new entry")
    parser.add_argument("b", metavar="B", help="the one to beat")
    parser.add_argument("more", nargs="*", default=[], metavar="MORE", help="others, for a table of all")
    parser.add_argument("--track", metavar="NAME", help="whose record rule to use; default: the entries' own")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def main(args) -> int:
    sides = [read_side(place) for place in (args.a, args.b, *args.more)]
    if args.more:
        return show_table(sides, args.json)
    a, b = sides
    record_rule.refuse_incomparable(a, b)
    rules = find_rules(args.track, a, b)
    found = record_rule.compare(a.losses, b.losses, rules["record_rule"] if rules else None)
    if args.json:
        named = {"track": rules and rules["name"], "rule": rules and rules["record_rule"]}
        print(json.dumps({"a": asdict(a), "b": asdict(b), **named, **asdict(found)}, indent=1))
    else:
        print("\n".join([*record_rule.seed_table(a, b), *record_rule.result_lines(found, rules)]))
    return int(rules is not None and not found.record)


def read_side(place: str) -> record_rule.Side:
    """Reads the entry at `place` (see above). Raises GolfError (code 2) if there is none."""
    path = path_argument(place)
    if (path / "submission.json").is_file():
        return record_rule.side_of_submission(path)
    folders = run_folders(path)
    if folders == [path] and not path.is_dir():
        raise GolfError(f"{place}: no submission, no run and no runs of SEEDS=... there", 2)
    runs = [(folder, read_run(folder)) for folder in folders]
    for folder, facts in runs:
        if "start" not in facts or "sliding" not in facts:
            raise GolfError(f"{shown(folder)}: no finished run there (metrics.jsonl, a score)", 2)
    measured = [(dig(facts, "start", "data"), dig(facts, "sliding", "targets")) for _, facts in runs]
    if any(one != measured[0] for one in measured):
        raise GolfError(f"{place}: its runs differ in data or targets, so they have no mean", 2)
    seeds = [
        (dig(r, "start", "seed"), dig(r, "sliding", "val_loss"), dig(r, "sliding", "val_bpb"))
        for _, r in runs
    ]
    return record_rule.make_side(place, seeds, *measured[0])


def find_rules(name: str | None, a: record_rule.Side, b: record_rule.Side) -> dict | None:
    """The named track, the sides' own, or that of such data and targets; None where there is none."""
    name = name or a.track or b.track
    if name:
        return track.load(name)
    try:
        return track.guess(a.data.get("name"), a.targets)
    except GolfError as error:
        if error.code == 1:
            return None
        raise


def show_table(sides: list[record_rule.Side], as_json: bool) -> int:
    """Prints all sides, best first, with how far each is behind the best."""
    for other in sides[1:]:
        record_rule.refuse_incomparable(sides[0], other, f"{sides[0].name} and {other.name}")
    sides = sorted(sides, key=lambda side: side.mean)
    if as_json:
        print(json.dumps([{**asdict(side), "mean": side.mean} for side in sides], indent=1))
        return 0
    rows = [["entry", "seeds", "val_loss", "std", "behind", "val_bpb"]]
    for side in sides:
        spread = f"{statistics.stdev(side.losses):.6f}" if len(side.losses) > 1 else "-"
        bpb = f"{statistics.fmean(side.bpbs):.6f}" if side.bpbs else "-"
        behind = f"{side.mean - sides[0].mean:.6f}"
        rows.append([side.name, str(len(side.losses)), f"{side.mean:.6f}", spread, behind, bpb])
    print("\n".join(columns(rows, right=range(1, 6))))
    print("val_loss in nats a target, lower is better; compare two alone to test their seeds")
    return 0
