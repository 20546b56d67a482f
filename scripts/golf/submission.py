"""A submission folder's shape, and the one function that counts its bytes."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import GolfError, shown
from .runlog import parse_json

SCHEMA_VERSION = 1
JSON_LIMIT = 1 << 20  # bytes of a submission.json that anybody reads; three seeds take 12,000
FIGURE_LIMIT = 1e12  # as the schema says; sums of much larger figures are no numbers
# What a file is. script and score count for every seed, an artifact for its own; val is the
# validation shard of an own tokenizer; extra is for people, neither run nor read.
ROLES = ("script", "score", "artifact", "val", "log", "readme", "extra")
CODE_ROLES = ("script", "score")
SEGMENTS = 64
# What names a run or its place, not what it does; a command to repeat it sets SEED itself.
NOT_REPEATED = ("RUN_ID", "OUT_DIR", "SEED", "RESUME", "CHECKPOINT_EVERY_SECONDS")
# Between the seeds of one submission; data is compared by its hashes.
MAY_DIFFER = (*NOT_REPEATED, "MICRO_BATCH_TOKENS", "DATA_PATH", "VAL_DATA_PATH", "TOKENIZER_PATH")
# What people give instead of a submission's folder, by a file of it.
OTHER_FOLDERS = {
    "track.json": "a track's folder; give a submission's, one below it",
    "metrics.jsonl": "a run's folder; `golf.sh new` makes a submission's folder of it",
}
PLACEHOLDERS = {
    "author": "your name",
    "github_id": "your-github-id",
    "blurb": "one sentence on what is new here",
}
IDEA = "What changed against the starter, why it should help, what was tried besides and did not."


@dataclass(frozen=True)
class Count:
    """Counted bytes of one seed: the script and what scoring reads, and the artifact."""

    code: int
    model: int

    @property
    def total(self) -> int:
        return self.code + self.model


def require_folder(folder: Path) -> None:
    """GolfError, code 2, where there is no folder, or a track's or a run's."""
    if not folder.is_dir():
        raise GolfError(f"{shown(folder)}: no folder there; give a submission's folder", 2)
    for name, text in OTHER_FOLDERS.items():
        if (folder / name).is_file() and not (folder / "submission.json").exists():
            raise GolfError(f"{shown(folder)}: {text}", 2)


def count_bytes(folder: Path, files: list[dict], artifact: str | None) -> Count:
    """Bytes on disk that count: roles script and score, plus the named artifact (None: none).

    `files` are entries with `path` (relative to `folder`) and `role`. Not counted: README,
    submission.json, logs, a stock tokenizer (known by its hash). OSError where a file is gone.
    """
    code = {entry["path"] for entry in files if entry["role"] in CODE_ROLES}
    return Count(
        code=sum((folder / path).stat().st_size for path in code),
        model=(folder / artifact).stat().st_size if artifact else 0,
    )


def claims(home: Path) -> Iterator[tuple[Path, dict]]:
    """(folder, submission.json) of the entries in a track's folder, as far as they are objects."""
    for path in sorted(home.glob("*/submission.json")):
        if path.is_file() and path.stat().st_size <= JSON_LIMIT:
            value = parse_json(path.read_bytes())
            if isinstance(value, dict):
                yield path.parent, value


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def command_line(env: dict[str, str], arguments: list[str]) -> str:
    """What to type in a shell: NAME=value ... and a command."""
    return " ".join([*(f"{n}={shlex.quote(v)}" for n, v in env.items()), shlex.join(arguments)])


def parse_command(text: str) -> tuple[dict[str, str], list[str]]:
    """Variables and arguments of a command_line; ValueError where a quote is left open."""
    words, env = shlex.split(text), {}
    while words and re.match(r"[A-Za-z_][A-Za-z0-9_]*=", words[0]):
        name, _, env[name] = words.pop(0).partition("=")
    return env, words
