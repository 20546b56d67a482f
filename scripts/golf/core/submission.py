"""A submission folder's shape, and the one function that counts its bytes."""

import itertools
import os
import re
import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.files import sha256
from golf.core.json_io import StrictError, dig, number, objects, parse_strict, read_json
from golf.core.paths import shown

SCHEMA_VERSION = 1
JSON_LIMIT = 1 << 20  # bytes of a submission.json that anybody reads; three seeds take 12,000
FIGURE_LIMIT = 1e12  # as the schema says; sums of much larger figures are no numbers
# What a file is. script and score count for every seed, an artifact for its own; source is what a packed
# script was made from; val is the validation shard of an own tokenizer; extra is for people.
ROLES = ("script", "source", "score", "artifact", "val", "log", "readme", "extra")
CODE_ROLES = ("script", "score")
SEGMENTS = 64
SCORE_TOLERANCE = 0.0005  # bits a byte: a claim better by more is refused, on any device
MISSING = "is missing"
VERIFIED = "verified.json"
RUN_TOLERANCE = 1e-3  # of a segment's nats, within which two runs count as one
# What names a run or its place, not what it does; a command to repeat it sets SEED itself.
NOT_REPEATED = ("RUN_ID", "OUT_DIR", "SEED", "RESUME", "CHECKPOINT_EVERY_SECONDS")
# Between the seeds of one submission; data is compared by its hashes.
MAY_DIFFER = (*NOT_REPEATED, "MICRO_BATCH_TOKENS", "DATA_PATH", "VAL_DATA_PATH", "TOKENIZER_PATH")
# What people give instead of a submission's folder, by a file of it.
OTHER_FOLDERS = {
    "track.json": "a track's folder; give a submission's, one below it",
    "metrics.jsonl": "a run's folder; `golf.sh new` makes a submission's folder of it",
}
# The template's words, and what people write where they mean to write something later.
PLACEHOLDERS = {
    "author": "your name",
    "github_id": "your-github-id",
    "name": "what to call it",
    "blurb": "one sentence on what is new here",
}
UNWRITTEN = ("xxx", "n a", "none", "lorem ipsum")
LATER = ("todo", "tbd", "tba", "fixme")  # and what follows
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
    """GolfError, code 2, if there is no folder, or if it is a track's or a run's."""
    if not folder.is_dir():
        raise GolfError(f"{shown(folder)}: no folder there; give a submission's folder", 2)
    for name, text in OTHER_FOLDERS.items():
        if (folder / name).is_file() and not (folder / "submission.json").exists():
            raise GolfError(f"{shown(folder)}: {text}", 2)


def is_unwritten(text: str, template: str | None = None) -> bool:
    """Whether a text is a placeholder: no letters or digits, the template's words, or "todo" and the like."""
    words = plain_words(text)
    said = " ".join(words)
    if not words or words[0] in LATER or said in UNWRITTEN:
        return True
    return template is not None and f"{said} ".startswith(f"{' '.join(plain_words(template))} ")


def plain_words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation and differences of width."""
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())


def count_bytes(folder: Path, files: list[dict], artifact: str | None) -> Count:
    """Bytes on disk that count: roles script and score, plus the named artifact (None: none).

    `files` are entries with `path` (relative to `folder`) and `role`. Not counted: README,
    submission.json, logs, a stock tokenizer (known by its hash). OSError where a file is gone.
    """
    code = {entry["path"]: entry["role"] for entry in files if entry["role"] in CODE_ROLES}
    return Count(
        code=sum((folder / path).stat().st_size + path_bytes(path, role) for path, role in code.items()),
        model=(folder / artifact).stat().st_size if artifact else 0,
    )


def path_bytes(path: str, role: str) -> int:
    """The bytes that a file's name counts: role `score` only, where the author chooses the name.

    The track sets the script's name, and an artifact's name only says its seed (rule 6.2).
    """
    return len(path.encode("utf-8", "surrogatepass")) if role == "score" else 0


class ClaimError(GolfError):
    """A folder's submission.json cannot be read; `reason` says why without naming the file."""

    def __init__(self, folder: Path, reason: str):
        code = 2 if reason == MISSING else 1
        super().__init__(f"{shown(folder / 'submission.json')} {reason}; golf.sh new makes it", code)
        self.reason = reason


def read_claim(folder: Path) -> dict:
    """The object in the folder's submission.json. ClaimError says why there is none."""
    path = folder / "submission.json"
    try:
        if path.is_symlink() or not path.is_file():
            raise StrictError("is no plain file" if os.path.lexists(path) else MISSING)
        if (size := path.stat().st_size) > JSON_LIMIT:
            raise StrictError(f"has {size:,} bytes")
        value = parse_strict(path.read_bytes())
        if not isinstance(value, dict):
            raise StrictError("is not an object")
    except OSError as error:
        raise ClaimError(folder, f"cannot be read ({error.strerror})") from None
    except StrictError as error:
        raise ClaimError(folder, str(error)) from None
    return value


def entry_folders(home: Path) -> list[Path]:
    """The folders of a track's entries, by name; links and what a tool is still making are none."""
    try:
        places = sorted(home.iterdir())
    except OSError:
        return []
    places = [p for p in places if not p.name.startswith(".") and not p.is_symlink()]
    return [p for p in places if os.path.isdir(p) and os.path.lexists(p / "submission.json")]


def claims(home: Path) -> Iterator[tuple[Path, dict]]:
    """(folder, submission.json) of each entry in a track's folder whose submission.json can be read."""
    for folder in entry_folders(home):
        try:
            yield folder, read_claim(folder)
        except ClaimError:
            continue  # the check of that entry says so


def is_complete(claim: dict) -> bool:
    """Whether every seed ships an artifact, so that anyone can score all of it again."""
    seeds = claim.get("seeds")
    named = [dig(seed, "artifact") for seed in seeds] if isinstance(seeds, list) else []
    return bool(named) and all(isinstance(name, str) and name for name in named)


def audit_of(folder: Path) -> dict | None:
    """What verified.json, beside the entry, says of a maintainer's whole score of every seed (golf.sh
    leaderboard --verified); None if nobody scored it so, or the claim has changed since."""
    found, claim = dig(read_json(folder.parent / VERIFIED), folder.name), folder / "submission.json"
    same = claim.is_file() and not claim.is_symlink() and dig(found, "submission_sha256") == sha256(claim)
    return found if same else None


def hashes_of(claim: dict) -> set[str]:
    """SHA-256 of its seeds' logs and artifacts; without empty files, which are all alike."""
    named = [seed.get(kind) for seed in objects(claim, "seeds") for kind in ("log", "artifact")]
    return {
        str(e.get("sha256")) for e in objects(claim, "files") if e.get("path") in named and e.get("bytes")
    }


def parts(seed: dict) -> list[tuple[float, float]] | None:
    """A seed's segments if they are SEGMENTS pairs of numbers, else None."""
    pairs = seed.get("segments")
    if not isinstance(pairs, list) or len(pairs) != SEGMENTS:
        return None
    found = [tuple(map(figure, pair)) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
    return found if len(found) == SEGMENTS and not any(None in pair for pair in found) else None


def figure(value) -> float | None:
    """A number that sums and means can be made of, else None."""
    found = number(value)
    return None if found is None or abs(found) > FIGURE_LIMIT else found


def same_run(one: dict, other: dict, tolerance: float = RUN_TOLERANCE) -> bool:
    """Whether two seeds are one run packed twice: they score alike in every segment.

    Two runs never do; seeds of the starter differ by percents in most segments.
    """
    pairs = [parts(seed) for seed in (one, other)]
    if None in pairs:
        return False
    return all(abs(a - b) <= tolerance * max(a, b) for (a, _), (b, _) in zip(*pairs))


def has_run(claim: dict, seed: dict) -> bool:
    """Whether a seed of this submission.json is the same run as `seed`."""
    return any(same_run(one, seed) for one in objects(claim, "seeds"))


def command_line(env: dict[str, str], arguments: list[str]) -> str:
    """What to type in a shell: NAME=value ... and a command."""
    return " ".join([*(f"{n}={shlex.quote(v)}" for n, v in env.items()), shlex.join(arguments)])


def parse_command(text: str) -> tuple[dict[str, str], list[str]]:
    """Variables and arguments of a command_line; ValueError where a quote is left open."""
    words = shlex.split(text)
    given = [*itertools.takewhile(re.compile(r"[A-Za-z_][A-Za-z0-9_]*=").match, words)]
    return dict(word.split("=", 1) for word in given), words[len(given) :]
