"""Shows a run's trainer the train shards without the validation shards.

A script that trains on `fineweb_*.bin` of its DATA_PATH would train on what it is scored on. So that
folder holds train shards alone while a run lasts, and validation has a path of its own,
VAL_DATA_PATH. This stops accidents, not intent: a script can read VAL_DATA_PATH as well. `golf.sh
verify` trains where there is no validation data at all.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from golf.core.files import replace_file
from golf.core.trainers import find_path

FOLDER = ".train_data"  # in the run's folder
LOGS = ("train.log", "metrics.jsonl", "config.json")


@contextmanager
def train_shards_alone(given: dict[str, str], trainer: Path, run_dir: Path) -> Iterator[dict[str, str]]:
    """Yields the variables to add to the trainer's; `given` are its knobs' values, defaults included.

    None where the trainer has no VAL_DATA_PATH, does not train, or has no validation shards in its
    DATA_PATH. When the run ends the links go, and its logs name the data's own folder.
    """
    data = find_path(given["DATA_PATH"], trainer) if given.get("DATA_PATH") else None
    mixed = data and any(data.glob("fineweb_val_*.bin")) and any(data.glob("fineweb_train_*.bin"))
    if "VAL_DATA_PATH" not in given or given.get("EVAL_ONLY") or not mixed:
        yield {}
        return
    view = run_dir / FOLDER / data.name
    shutil.rmtree(view.parent, ignore_errors=True)  # of a run that was killed
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
    """Writes one path for another in a log, as text and as JSON spells it; in one step."""
    with suppress(OSError):  # none was written, or the disk is full: then it stays as it is
        before = log.read_bytes()
        after = before
        for spell in (os.fsencode, lambda text: json.dumps(text)[1:-1].encode()):
            after = after.replace(spell(path), spell(by))
        if after != before:
            replace_file(log, after)


def link(path: Path, place: Path) -> None:
    """A hard link, which leads to no folder; on another file system a symbolic one."""
    try:
        os.link(path, place)
    except OSError:
        place.symlink_to(path)
