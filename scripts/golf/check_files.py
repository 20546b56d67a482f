"""Rules about files: what lies in the folder, what is listed, what counts, what is an artifact."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath

from . import artifact, submission
from .case import Case, quoted, seed_name
from .runlog import dig, number

ENTRY_LIMIT = 500  # files and folders; a submission holds a dozen
DEPTH_LIMIT = 8
LARGE_BYTES = 10 << 20
GOOD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".mar")
NATIVE_SUFFIXES = (
    ".so", ".dll", ".dylib", ".exe", ".o", ".a", ".pyd", ".pyc", ".ptx", ".cubin", ".wasm",
    ".metallib", ".c", ".cc", ".cpp", ".cxx", ".h", ".hpp", ".cu", ".cuh", ".rs", ".s", ".asm",
    ".metal",
)  # fmt: skip
NATIVE_MAGICS = (
    b"\x7fELF", b"MZ", b"\0asm", b"\xca\xfe\xba\xbe", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"!<arch>",
)  # fmt: skip


def scan_folder(case: Case) -> None:
    """Fills case.files with all regular files, also those that a link within the folder gives."""
    waiting, seen = [case.folder], 0
    if not GOOD_NAME.fullmatch(case.folder.name):
        name = quoted(case.folder.name)
        case.fail("file-name", f"the folder {name}: rename it with letters, digits, '_', '-' only")
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                paths = sorted(entry.path for entry in entries)
        except OSError as error:
            relative = folder.relative_to(case.folder).as_posix()
            case.fail("unreadable", f"{quoted(relative)}: {error.strerror}; make it readable")
            continue
        seen += len(paths)
        if seen > ENTRY_LIMIT or len(folder.relative_to(case.folder).parts) > DEPTH_LIMIT:
            case.fail(
                "file-count",
                f"over {ENTRY_LIMIT} entries or {DEPTH_LIMIT} levels; keep a dozen files",
            )
            return
        waiting += [path for path in map(Path, paths) if scan_entry(case, path)]


def scan_entry(case: Case, path: Path) -> bool:
    """Notes a file's size, or what is wrong with it; True for a folder to go into."""
    relative = path.relative_to(case.folder).as_posix()
    if not all(GOOD_NAME.fullmatch(part) for part in PurePosixPath(relative).parts):
        case.fail(
            "file-name", f"{quoted(relative)}: rename it with letters, digits, '_', '-', '.' only"
        )
    try:
        inside = path.resolve().is_relative_to(case.folder)
        mode = path.stat() if inside else path.lstat()
    except (OSError, RuntimeError) as error:  # a link to nowhere, or to itself
        reason = getattr(error, "strerror", None) or "a loop of links"
        case.fail("unreadable", f"{quoted(relative)}: {reason}; remove or mend it")
        return False
    if path.is_symlink() and (not inside or stat.S_ISDIR(mode.st_mode)):
        case.fail(
            "file-link", f"{quoted(relative)} is a link out of its place; put the file itself"
        )
    elif stat.S_ISREG(mode.st_mode):
        case.files[relative] = mode.st_size
    elif stat.S_ISDIR(mode.st_mode):
        return True
    else:
        case.fail("file-kind", f"{quoted(relative)} is no plain file; remove it")
    return False


def required(case: Case) -> None:
    """The files that track.json names: always, one script, and those of the lane for each seed."""
    rules = case.track["required_files"]
    for name in rules["always"]:
        if name not in case.files:
            case.fail("file-required", f"{name} is missing; add it (golf.sh new makes it)")
    scripts = rules.get("script", [])
    if scripts and not any(name in case.files for name in scripts):
        case.fail("file-required", f"the script that ran is missing; add {' or '.join(scripts)}")
    lane = case.claim.get("lane")
    patterns = rules.get(lane, []) if isinstance(lane, str) else []
    for seed in (s.get("seed") for s in case.seeds()):
        for pattern in patterns:
            wanted = pattern.replace("{seed}", str(seed)[:40])
            if not any(PurePosixPath(name).match(wanted) for name in case.files if "/" not in name):
                case.fail("file-required", f"{wanted} is missing; the {lane} lane ships it")


def listed(case: Case) -> None:
    """`files` names what is there, with its size and hash, and all of it."""
    named = [e for e in case.entries("files") if isinstance(dig(e, "path"), str)]
    if not named:
        return  # json-schema says so
    for entry in named:
        check_entry(case, entry)
    paths = [entry["path"] for entry in named]
    for path in sorted(set(case.files) - {*paths, "submission.json"}):
        case.fail(
            "file-unlisted", f"{quoted(path)} is not in files; list it with its role, or remove it"
        )
    for path in sorted({p for p in paths if paths.count(p) > 1}):
        case.fail("file-listed", f"{quoted(path)} is listed twice; list it once")
    if not any(entry["role"] == "script" for entry in case.listed()):
        case.fail("file-listed", "no file has the role script; the trainer always counts")


def check_entry(case: Case, entry: dict) -> None:
    path = entry["path"]
    if not case.has(path):
        case.fail(
            "file-listed", f"files names {quoted(path)}, which is no file here; remove the entry"
        )
    elif entry.get("role") == "readme":
        return  # written by hand after the run
    elif entry.get("bytes") != case.files[path]:
        case.fail(
            "file-hash",
            f"{quoted(path)} has {case.files[path]:,} bytes, not as listed; list it anew",
        )
    elif entry.get("sha256") != case.sha256(path):
        case.fail(
            "file-hash", f"{quoted(path)} is not the file whose sha256 is listed; list it anew"
        )


def roles(case: Case) -> None:
    """What counts cannot be listed as something that does not."""
    artifacts = [seed.get("artifact") for seed in case.seeds()]
    for path, role in ((entry["path"], entry["role"]) for entry in case.listed()):
        fits = {
            "readme": path == "README.md",
            "log": path.endswith((".log", ".jsonl")),
            "artifact": path in artifacts,
            "val": path.endswith(".bin") and case.claim.get("lane") == "non-record",
            "extra": not path.endswith(".py"),
        }.get(role, True)
        if not fits:
            case.fail(
                "file-role", f"{quoted(path)} is no {role}; code and what scoring reads: role score"
            )


def foreign_files(case: Case) -> None:
    """No pickles, no native code, nothing that fills the repository."""
    for path, size in case.files.items():
        head = case.read(path, 4096)
        pickled = head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
        zipped = head.startswith(b"PK\3\4") and b".pkl" in head
        if pickled or zipped or path.lower().endswith(PICKLE_SUFFIXES):
            case.fail(
                "file-pickle", f"{quoted(path)} is a pickle, which runs code when read; remove it"
            )
        binary = head.startswith(NATIVE_MAGICS) and b"\0" in head or head.startswith(b"!<arch>")
        if binary or path.lower().endswith(NATIVE_SUFFIXES):
            case.fail(
                "file-native", f"{quoted(path)} is native code; a submission is Python source"
            )
        if size > LARGE_BYTES:
            case.note("file-large", f"{quoted(path)} has {size:,} bytes; log less, or ship less")


def artifacts(case: Case) -> None:
    """Each seed's artifact: listed, a sound container, and counted under the cap as claimed."""
    counts = []
    for seed in case.seeds():
        path = seed.get("artifact")
        if path is None:
            case.note("not-rescorable", f"{seed_name(seed)} ships no artifact: cannot be re-scored")
            check_cap(case, number(seed.get("bytes_total")) or 0, seed_name(seed))
        elif not case.has(path):
            case.fail(
                "artifact", f"{seed_name(seed)}: its artifact {quoted(path)} is missing; add it"
            )
        else:
            if case.role(path) != "artifact":
                case.fail(
                    "artifact", f"{quoted(path)} is not in files with the role artifact; list it"
                )
            container(case, path)
            counts.append(count(case, seed, path))
    if counts:
        most = max(counts, key=lambda one: one.total)
        for name, value in (("total", most.total), ("code", most.code), ("model", most.model)):
            same_bytes(case, f"bytes_{name}", case.claim.get(f"bytes_{name}"), value)
    else:
        check_cap(case, number(case.claim.get("bytes_total")) or 0, "submission.json")


def container(case: Case, path: str) -> None:
    """The artifact is read by this repository's own reader, never by the submission's."""
    try:
        artifact.read(case.folder / path)
    except artifact.ForeignArtifact as error:
        case.human(
            "artifact-format", f"{quoted(path)}: {error}; a reviewer reads the script's decoder"
        )
    except artifact.ArtifactError as error:
        case.fail("artifact-format", f"{quoted(path)}: {error}; ship the file that the run packed")


def count(case: Case, seed: dict, path: str) -> submission.Count:
    found = submission.count_bytes(case.folder, case.listed(), path)
    same_bytes(case, f"{seed_name(seed)}: bytes_total", seed.get("bytes_total"), found.total)
    check_cap(case, found.total, seed_name(seed))
    return found


def same_bytes(case: Case, what: str, claimed, found: int) -> None:
    if number(claimed) is not None and claimed != found:
        case.differs("bytes", what, f"{claimed:,}", f"{found:,}", "on disk")


def check_cap(case: Case, total: float, who: str) -> None:
    over = total - case.track["cap_bytes"]
    if over > 0:
        case.fail(
            "cap", f"{who}: {total:,.0f} bytes are {over:,.0f} over the cap; pack coarser or shrink"
        )


RULES = (required, listed, roles, foreign_files, artifacts)
