"""A submission folder's shape, and the one function that counts its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

SCHEMA_VERSION = 1
ROLES = ("script", "artifact", "log", "readme", "score")
CODE_ROLES = ("script", "score")  # counted for every seed; of the artifacts, the seed's own
SEGMENTS = 64
PLACEHOLDERS = {
    "author": "your name",
    "github_id": "your-github-id",
    "blurb": "one sentence on what is new here",
}

# Key -> type: text, number, integer, object, list; a ? allows null.
KEYS = {
    "schema_version": "integer",
    "author": "text",
    "github_id": "text",
    "name": "text",
    "blurb": "text",
    "date": "text",
    "track": "text",
    "lane": "text",
    "hardware": "text",
    "command": "text",
    "env": "object",
    "val_loss": "number",
    "val_bpb": "number",
    "bytes_total": "integer",
    "bytes_code": "integer",
    "bytes_model": "integer",
    "train_seconds": "number",
    "eval_seconds": "number?",
    "files": "list",
    "data": "object",
    "seeds": "list",
}
FILE_KEYS = {"path": "text", "role": "text", "bytes": "integer", "sha256": "text"}
DATA_KEYS = {"name": "text", "val_sha256": "text", "tokenizer_sha256": "text"}
SEED_KEYS = {
    "seed": "integer",
    "val_loss": "number",
    "val_bpb": "number",
    "bytes_total": "integer",
    "train_seconds": "number",
    "eval_seconds": "number?",
    "log": "text",
    "artifact": "text?",
    "segments": "list?",
}


@dataclass(frozen=True)
class Count:
    """Counted bytes of one seed: the script and what scoring reads, and the artifact."""

    code: int
    model: int

    @property
    def total(self) -> int:
        return self.code + self.model


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


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
