"""List the runs in runs/: settings, score, bytes, time, and whether they are still going.

One line per run: its folder, config, training tokens, val_bpb, counted bytes, training time, state, and how
its settings differ from the config. Exit code 1 if a run is damaged: its metrics.jsonl cannot be read.
"""

import math
import os
import sys
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.json_io import dig, number
from golf.core.paths import REPO, path_argument, shown
from golf.core.text import columns, plain
from golf.core.units import amount, duration
from golf.see import history
from golf.see.history import History

LOST, FORBIDDEN = "put the file back, or delete that folder", "its owner can let you: chmod -R a+rX"
HEAD = ("name", "config", "tokens", "val_bpb", "bytes", "time", "state", "differs from its config")
KEYS = {
    "name": lambda h: h.place.absolute().name,
    "score": lambda h: math.inf if h.val_bpb is None else h.val_bpb,
    "bytes": lambda h: number(dig(h.facts, "export", "bytes_total")) or math.inf,
    "tokens": lambda h: -(h.last("tokens") or 0),
    "time": lambda h: -(h.last("train_seconds") or 0),
    "date": lambda h: -h.written,
}


def add_arguments(parser) -> None:
    parser.add_argument("folder", nargs="?", type=path_argument, default=REPO / "runs", metavar="FOLDER",
                        help="the folder that holds the runs; default: runs/")  # fmt: skip
    parser.add_argument("--sort", choices=list(KEYS), default="date", help="default: date, newest first")


def main(args) -> int:
    found, code = [], 0
    for folder in history.all_runs(args.folder):
        try:
            h = history.read(folder)
        except GolfError as error:
            h = History(folder, written=(folder / "metrics.jsonl").stat().st_mtime)
            if h.state() == "damaged":  # else it has not written anything yet
                readable = all(os.access(path, os.R_OK) for path in (folder, folder / "metrics.jsonl"))
                advice = LOST if readable else FORBIDDEN
                print(f"golf runs: {error}; {advice}", file=sys.stderr)
                code = 1
        found.append(h)
    for folder in (path for path in args.folder.glob("*/") if not os.access(path, os.X_OK)):
        print(f"golf runs: {shown(folder)}: may not be looked into; {FORBIDDEN}", file=sys.stderr)
        code = 1
    if not found:
        print(f"no runs in {shown(args.folder)} yet; bash scripts/quickstart.sh makes one")
        return code
    found.sort(key=KEYS[args.sort])
    print("\n".join(columns([HEAD, *map(row, found)], right=(2, 3, 4, 5))))
    return code


def row(h: History) -> tuple[str, ...]:
    size = number(dig(h.facts, "export", "bytes_total"))
    seconds, tokens = h.last("train_seconds"), h.last("tokens")
    config, state = h.origin.get("config"), h.state()
    return (
        plain(h.place.absolute().name, 40),
        plain(Path(config).stem, 24) if isinstance(config, str) else "-",
        "-" if tokens is None else amount(tokens),
        "-" if h.val_bpb is None else f"{h.val_bpb:.4f}",
        "-" if size is None else f"{size:,.0f}",
        "-" if seconds is None else duration(seconds),
        state if state != "running" else f"running {100 * h.fraction():.0f}%",
        plain(history.changes(h), 100),
    )
