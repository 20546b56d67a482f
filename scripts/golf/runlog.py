"""Reads what a run wrote: metrics.jsonl (for tools) and the final lines of train.log."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

LINE_LIMIT = 1 << 20  # no line of a log is longer; a file without line ends is not read whole
NUMBER = r"([-+0-9.eEnaif]+)"
FINAL_LINES = {
    "roundtrip": (
        "final_int8_zlib_roundtrip_exact ",
        rf"final_int8_zlib_roundtrip_exact val_loss:{NUMBER} val_bpb:{NUMBER}",
        ("val_loss", "val_bpb"),
    ),
    "sliding": (
        "final_sliding_window_exact ",
        rf"final_sliding_window_exact val_loss:{NUMBER} val_bpb:{NUMBER} seq_len:(\d+) stride:(\d+)"
        r" targets:(\d+)(?: note:(\S+))?",
        ("val_loss", "val_bpb", "seq_len", "stride", "targets", "note"),
    ),
    "size": (
        "total_submission_size_quant_zlib:",
        r"total_submission_size_quant_zlib:(\d+) bytes code:(\d+) model:(\d+)"
        r" cap:(\d+) headroom:(-?\d+)",
        ("bytes_total", "bytes_code", "bytes_model", "cap", "headroom"),
    ),
    "train": (
        "train_seconds:",
        rf"train_seconds:{NUMBER} tokens:(\d+) steps:(\d+)",
        ("train_seconds", "tokens", "steps"),
    ),
}


def number(value) -> float | None:
    """`value` as a float where it is a finite number, else None (also for true and false)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def dig(value, *keys):
    """value[k1][k2]... through dicts, None where there is no such thing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def parse_json(text: str | bytes):
    """The JSON value, or None: also for what nests too deep or holds a number too long to read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def lines(path: Path):
    """The lines of a file as bytes, none longer than LINE_LIMIT."""
    with path.open("rb") as file:
        while line := file.readline(LINE_LIMIT):
            yield line


def read_metrics(path: Path) -> list[dict]:
    """The events of a metrics.jsonl; lines that are no event (a torn last one) are left out."""
    events = (parse_json(line) for line in lines(path))
    return [e for e in events if isinstance(e, dict) and isinstance(e.get("event"), str)]


def last_events(events: list[dict]) -> dict[str, dict]:
    """The last event of each kind; scores under their own kind ("sliding", "roundtrip")."""
    found = {}
    for event in events:
        name = event["event"]
        if name == "score" and isinstance(event.get("kind"), str):
            name = event["kind"]
        found[name] = event
    return found


def read_run(run_dir: Path) -> dict[str, dict]:
    """last_events of a run folder; empty where it has no metrics.jsonl."""
    path = run_dir / "metrics.jsonl"
    return last_events(read_metrics(path)) if path.is_file() else {}


def final_lines(path: Path) -> dict[str, list[dict]]:
    """All final lines of a train.log by kind (roundtrip, sliding, size, train), in file order.

    Numbers are floats, `note` a list of words. The script's own source stands at the head of a
    log; its format strings hold no numbers, so they do not match.
    """
    found = {kind: [] for kind in FINAL_LINES}
    starts = {start.encode(): kind for kind, (start, _, _) in FINAL_LINES.items()}
    for line in lines(path):
        if not line.startswith(tuple(starts)):
            continue
        text = line.decode("utf-8", "replace").strip()
        for kind, (_, shape, names) in FINAL_LINES.items():
            match = re.fullmatch(shape, text)
            if match:
                found[kind].append(dict(zip(names, map(parse_field, names, match.groups()))))
    return found


def parse_field(name: str, text: str | None):
    if name == "note":
        return text.split(",") if text else []
    try:
        return float(text)
    except ValueError:
        return math.nan
