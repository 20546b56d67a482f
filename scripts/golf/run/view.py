"""Hides the validation shards from a run's trainer.

A script that trains on `fineweb_*.bin` of its DATA_PATH would train on what it is scored on. So during a run
DATA_PATH is a folder with only the train shards, and validation has its own path, VAL_DATA_PATH. This stops
accidents, not intent: a script can read VAL_DATA_PATH. `golf.sh verify` trains without any validation data.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.files import replace_file
from golf.core.lock import refuse_used
from golf.core.trainers import find_path

FOLDER = ".train_data"  # in the run's folder
LOGS = ("train.log", "metrics.jsonl", "config.json")


@contextmanager
def train_shards_alone(given: dict[str, str], trainer: Path, run_dir: Path) -> Iterator[dict[str, str]]:
    """Yields the variables to add to the trainer's. given: its knobs' values, defaults included.

    There are none if the trainer has no VAL_DATA_PATH, does not train, or has no validation shards in its
    DATA_PATH. At the end the links are removed, and the run's logs name the data's own folder. First those go
    that runs beside this one left because they were killed.
    """
    for left in run_dir.parent.glob(f"*/{FOLDER}"):
        with suppress(GolfError):  # a run that goes on holds its lock
            if left.parent == run_dir or refuse_used(left.parent):
                shutil.rmtree(left, ignore_errors=True)
    data = find_path(given["DATA_PATH"], trainer) if given.get("DATA_PATH") else None
    mixed = data and any(data.glob("fineweb_val_*.bin")) and any(data.glob("fineweb_train_*.bin"))
    if "VAL_DATA_PATH" not in given or given.get("EVAL_ONLY") or not mixed:
        yield {}
        return
    view = run_dir / FOLDER / data.name
    view.mkdir(parents=True)
    try:
        for path in sorted(data.glob("fineweb_train_*.bin")):
            link(path.resolve(), view / path.name)
        yield {"DATA_PATH": str(view), "VAL_DATA_PATH": given["VAL_DATA_PATH"] or str(data)}
    finally:
        shutil.rmtree(view.parent, ignore_errors=True)
        for name in LOGS:
            replace_path(run_dir / name, str(view), given["DATA_PATH"])


def replace_path(log: Path, path: str, by: str) -> None:
    """Replaces a path in a log, as plain text and as JSON spells it."""
    with suppress(OSError):  # there is no log, or the disk is full: it stays as it is
        before = log.read_bytes()
        after = before
        for spell in (os.fsencode, lambda text: json.dumps(text)[1:-1].encode()):
            after = after.replace(spell(path), spell(by))
        if after != before:
            replace_file(log, after)


def link(path: Path, place: Path) -> None:
    """Makes a hard link, which does not show the data's folder; on another file system a symbolic one."""
    try:
        os.link(path, place)
    except OSError:
        place.symlink_to(path)
