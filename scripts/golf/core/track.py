"""Tracks are data: every number of a track is in records/<track>/track.json, none in a script."""

from pathlib import Path

from golf.core import schema
from golf.core.errors import GolfError
from golf.core.files import read_bytes
from golf.core.json_io import StrictError, parse_strict
from golf.core.paths import REPO, shown
from golf.core.submission import MISSING, ClaimError

RECORDS = REPO / "records"


def names() -> list[str]:
    paths = [path for path in RECORDS.glob("*/track.json") if path.is_file()]
    return sorted(p.parent.name for p in paths if not p.is_symlink() and not p.parent.is_symlink())


def load(name: str) -> dict:
    """The track called `name`, or the one in the folder or file `name`. GolfError, code 2, without one."""
    for path in (RECORDS / name / "track.json", Path(name) / "track.json", Path(name)):
        if path.is_file() and path.suffix == ".json":
            return read(path)
    raise GolfError(f"no track {name!r}; there are: {', '.join(names()) or 'none'}", 2)


def read(path: Path) -> dict:
    """The object in a track.json. GolfError, code 2, if it is not valid by today's schema."""
    try:
        rules = parse_strict(read_bytes(path))
    except StrictError as error:
        raise GolfError(f"{shown(path)}: not a track.json: {error}; see track.schema.json", 2) from None
    if wrong := schema.errors("track", rules):
        raise GolfError(f"{shown(path)}: not a track.json: {wrong[0]}; see track.schema.json", 2)
    return rules


def of_folder(folder: Path) -> dict | None:
    """The track that a submission folder lies in: the nearest folder above with a track.json."""
    for parent in folder.resolve().parents:
        if (parent / "track.json").is_file():
            return read(parent / "track.json")
    return None


def of_submission(folder: Path, claim: dict, name: str | None = None) -> dict:
    """The track whose rules hold for a submission: `name`, else the one that it lies in, else its claim's.

    The place comes before the claim: an author cannot choose other rules by a word in submission.json.
    GolfError, code 2, where none of the three is a track.
    """
    rules = load(name) if name else of_folder(folder)
    if rules is None and claim.get("track") in names():
        rules = load(claim["track"])
    if rules is not None:
        return rules
    if not (folder / "submission.json").is_file():
        raise ClaimError(folder, MISSING)
    text = "lies under no track's folder and submission.json names no known track"
    raise GolfError(f"{shown(folder)}: {text}; give --track ({', '.join(names())})", 2)


def home(rules: dict, folder: Path) -> Path:
    """The folder of the track's entries: records/<track>/, or `folder`'s parent for other tracks."""
    known = RECORDS / rules["name"]
    return known if (known / "track.json").is_file() else folder.parent


def guess(data_name: str, targets: int, train_seconds: float = 0, lane: str | None = None) -> dict:
    """The track with this data and targets that has the smallest budget the run kept."""
    tracks = [read(RECORDS / name / "track.json") for name in names()]
    fits = [t for t in tracks if t["data"]["name"] == data_name and t["targets"] == targets]
    if lane is not None:
        fits = [t for t in fits if lane in t["lanes"]]
    kept = [t for t in fits if t["train_seconds"] is None or train_seconds <= t["train_seconds"]]
    if not kept:
        wanted = f"{targets} targets of {data_name}"
        wanted += f" in {train_seconds:.0f} s of training" if train_seconds else ""
        wanted += f" in lane {lane}" if lane else ""
        raise GolfError(f"no track scores {wanted}; choose one with --track ({', '.join(names())})")
    return min(kept, key=lambda t: float("inf") if t["train_seconds"] is None else t["train_seconds"])
