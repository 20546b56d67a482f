"""Reads what a run wrote: metrics.jsonl (for tools) and the final lines of train.log."""

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.files import LARGE, plain
from golf.core.json_io import dig, number, parse_json
from golf.core.paths import shown

LINE_LIMIT = 1 << 20  # bytes; longer than any line of a log
EVENT_LIMIT = 10_000  # events that are read; a run has some hundreds besides its steps
STEP = b'"event": "step"'
NUMBER = "[-+0-9.eEnaif]+"
SCORES = rf"val_loss:(?P<val_loss>{NUMBER}) val_bpb:(?P<val_bpb>{NUMBER})"
FINAL_LINES = {
    "roundtrip": rf"final_int8_zlib_roundtrip_exact {SCORES}",
    "sliding": rf"final_sliding_window_exact {SCORES} seq_len:(?P<seq_len>\d+) stride:(?P<stride>\d+)"
    r" targets:(?P<targets>\d+)(?: note:(?P<note>\S+))?",
    "size": r"total_submission_size_quant_zlib:(?P<bytes_total>\d+) bytes code:(?P<bytes_code>\d+)"
    r" model:(?P<bytes_model>\d+) cap:(?P<cap>\d+) headroom:(?P<headroom>-?\d+)",
    "train": rf"train_seconds:(?P<train_seconds>{NUMBER}) tokens:(?P<tokens>\d+) steps:(?P<steps>\d+)",
}
STARTS = (b"final_", b"total_submission_size_quant_zlib:", b"train_seconds:")


def lines(path: Path):
    """The lines of a file as bytes, none longer than LINE_LIMIT."""
    with plain(path, LARGE).open("rb") as file:
        while line := file.readline(LINE_LIMIT):
            yield line


def events(path: Path, steps: bool = False) -> Iterator[tuple[str, dict]]:
    """(kind, event) of each line of a metrics.jsonl; a score has its own kind ("sliding"). Lines that are not
    events (an unfinished last one) are left out, and steps, unless `steps`."""
    for line in lines(path):
        event = parse_json(line) if steps or STEP not in line else None
        kind = dig(event, "event")
        if kind == "score" and isinstance(event.get("kind"), str):
            kind = event["kind"]
        if isinstance(kind, str):
            yield kind, event


def read_metrics(path: Path) -> dict[str, list[dict]]:
    """The events of a metrics.jsonl by kind, in order, without steps; the first EVENT_LIMIT."""
    found: dict[str, list[dict]] = {}
    for kind, event in itertools.islice(events(path), EVENT_LIMIT):
        found.setdefault(kind, []).append(event)
    return found


def read_run(place: Path) -> dict[str, dict]:
    """The last event of each kind, by kind, of a run's folder or a metrics file; empty without one.

    Only those since the run was last started or resumed: until it ends again, it has no score.
    """
    path, facts = place if place.suffix == ".jsonl" else place / "metrics.jsonl", {}
    for kind, event in itertools.islice(events(path), EVENT_LIMIT) if path.is_file() else ():
        facts = {kind: event} if kind == "start" else {**facts, kind: event}
    return facts


def packing(facts: dict[str, dict]) -> tuple[float, float] | None:
    """val_bpb of the final weights, unpacked and packed; None if they were not both measured alike."""
    final = dig(facts, "val", "step") == dig(facts, "train_end", "step")
    alike = dig(facts, "val", "targets") == dig(facts, "roundtrip", "targets")
    figures = [number(dig(facts, event, "val_bpb")) for event in ("val", "roundtrip")]
    return tuple(figures) if final and alike and None not in figures else None


def seed_runs(folder: Path) -> list[Path]:
    """The runs of SEEDS=... with this RUN_ID: the folders <folder>-s<seed>, by the seed's number."""
    name = re.compile(re.escape(folder.name) + r"-s([0-9]{1,20})")
    try:
        near = {path: name.fullmatch(path.name) for path in folder.parent.iterdir()}
    except OSError:  # no such folder
        return []
    return sorted((p for p, m in near.items() if m and p.is_dir()), key=lambda p: int(near[p][1]))


def no_run(place: Path, why: str) -> GolfError:
    """The error where no run is; it names a seed's run where the RUN_ID of SEEDS=... is given."""
    seeds = [] if place.exists() else seed_runs(place)
    return GolfError(f"{shown(place)}: {why}" + (f"; did you mean {shown(seeds[0])}?" if seeds else ""), 2)


def run_folders(place: Path) -> list[Path]:
    """The runs that `place` names: a folder, several joined by commas, or all seeds of a RUN_ID."""
    if place.is_dir():
        return [place]
    if "," in str(place):
        return [Path(part) for part in str(place).split(",") if part] or [place]
    return seed_runs(place) or [place]


def final_lines(path: Path) -> dict[str, list[dict]]:
    """All final lines of a train.log by kind (roundtrip, sliding, size, train), in file order.

    Numbers are floats, `note` a list of words. A log begins with the script's source, whose format strings
    hold no numbers, so they do not match.
    """
    found = {kind: [] for kind in FINAL_LINES}
    for line in lines(path):
        text = line.decode("utf-8", "replace").strip() if line.startswith(STARTS) else ""
        for kind, shape in FINAL_LINES.items():
            match = re.fullmatch(shape, text)
            if match and len(found[kind]) < EVENT_LIMIT:
                found[kind].append({n: parse_field(n, value) for n, value in match.groupdict().items()})
    return found


def trained_steps(path: Path) -> float | None:
    """How many steps the last training of a train.log took; None where it does not say."""
    trained = final_lines(path)["train"] if path.is_file() else []
    return number(trained[-1]["steps"]) if trained else None


def parse_field(name: str, text: str | None):
    if name == "note":
        return text.split(",") if text else []
    try:
        return float(text)
    except ValueError:
        return math.nan
