"""Reads what can be scored in a submission's folder: each seed's claim and counted files."""

from dataclasses import dataclass
from pathlib import Path

from golf.core import submission
from golf.core.errors import GolfError
from golf.core.files import LARGE, sha256
from golf.core.json_io import objects
from golf.core.packed import packed_name
from golf.core.paths import shown

TORCH, MLX = "train_gpt.py", "train_gpt_mlx.py"
LONGEST_PATH = 255
SCRIPTS = {"cpu": (TORCH, MLX), "cuda": (TORCH,), "mlx": (MLX,)}  # by device, the first there is


@dataclass(frozen=True)
class SeedEntry:
    """One seed of a submission: what it is scored from, and what it claims."""

    seed: int
    files: dict[str, Path]  # the counted files: path in the folder -> where it lies
    script: str
    artifact: str
    bytes_total: int
    claim: dict  # of submission.json's `seeds`


def read_entries(folder: Path, claim: dict, device: str) -> list[SeedEntry]:
    """Every seed that ships an artifact, with the script for cpu, cuda or mlx. GolfError where a
    counted file is not as declared."""
    declared, room = {}, LARGE
    for entry in objects(claim, "files"):
        if entry.get("role") == "val":
            raise GolfError(f"{shown(folder)}: an own tokenizer (rule 4.3) is scored by reviewers", 2)
        if entry.get("role") in submission.CODE_ROLES or entry.get("role") == "artifact":
            path = declared_path(folder, entry, room)
            declared[path] = entry["role"]
            room -= (folder / path).stat().st_size
    names = (name for plain in SCRIPTS[device] for name in (packed_name(plain), plain))
    script = next((name for name in names if declared.get(name) == "script"), None)
    if script is None:
        wanted = " or ".join(SCRIPTS[device])
        raise GolfError(f"{shown(folder)}: submission.json lists no {wanted} with the role script")
    entries = []
    for seed in objects(claim, "seeds"):
        artifact, name = seed.get("artifact"), seed.get("seed")
        if artifact is None:
            continue
        if declared.get(str(artifact)) != "artifact" or not isinstance(name, int):
            raise GolfError(f"{shown(folder)}: seed {name!a}: {artifact!a} is no listed artifact")
        counted = [path for path, role in declared.items() if role != "artifact"] + [artifact]
        files = {path: folder / path for path in counted}
        listed = [{"path": path, "role": role} for path, role in declared.items()]
        size = submission.count_bytes(folder, listed, artifact).total
        entries.append(SeedEntry(name, files, script, artifact, size, seed))
    if not entries:
        raise GolfError(f"{shown(folder)}: no seed ships an artifact, so nothing can be scored")
    for what in ("seed", "artifact"):
        if len({getattr(entry, what) for entry in entries}) < len(entries):
            raise GolfError(f"{shown(folder)}: two seeds have one {what}; each has its own")
    return entries


def declared_path(folder: Path, entry: dict, room: int) -> str:
    """The path of an entry of `files`: a file in the folder, of up to `room` bytes, of the declared hash."""
    path = entry.get("path")
    if not is_inside(folder, path):
        raise GolfError(f"{shown(folder)}: files names {path!a}, which is no file of this folder")
    if (folder / path).stat().st_size > room:  # a file with a hole may state any size
        raise GolfError(f"{shown(folder)}: its counted files have over {LARGE:,} bytes; ship less")
    if sha256(folder / path) != entry.get("sha256"):
        raise GolfError(f"{shown(folder)}: {path!a} is not the file whose sha256 is listed")
    return path


def is_inside(folder: Path, path) -> bool:
    """Whether `path` names a file of the folder by a plain relative path spelled one way, no link on it."""
    if not isinstance(path, str) or "\0" in path or {"..", "/"} & set(Path(path).parts):
        return False
    if Path(path).as_posix() != path or len(path) > LONGEST_PATH:
        return False
    place, home = (folder / path).resolve(), folder.resolve()
    return place.is_file() and place == home / path
