"""Rules about files: what is in the folder, what is listed, what counts, which artifacts are sound."""

import html
import os
import re
import stat
from pathlib import Path, PurePosixPath

from golf.check import names as check_names
from golf.check.folder import Folder, quoted, seed_name
from golf.core import artifact, submission
from golf.core.json_io import dig, number
from golf.core.packed import packed_name

ENTRY_LIMIT = 500  # files and folders; a submission holds a dozen
DEPTH_LIMIT = 8
LARGE_BYTES = 10 << 20
READ_LIMIT = 100 << 20  # of one file; a hosted repository takes no larger one
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".mar")
# What scoring may read besides the artifact: Python, text, and tables, whose content is looked at.
SCORE_SUFFIXES = (".py", ".txt", ".md", ".json", ".csv", ".tsv", ".bin", ".dat", ".npy", ".model", ".vocab")
# Files for people, by suffix: nothing that a program reads as code, weights or its own settings. How pictures
# begin; the others are text.
EXTRA_STARTS = {".pdf": b"%PDF", ".png": b"\x89PNG", ".gif": b"GIF8", ".webp": b"RIFF"}
EXTRA_STARTS |= {".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff"} | dict.fromkeys("""
    .md .txt .csv .json .jsonl .toml .yaml .yml .env .sh .patch .diff .ipynb .html .svg LICENSE
    """.split(), b"")  # fmt: skip
# What a browser runs or goes to by itself in a page or a picture, by tags; then, by a tag's attributes, which
# hold entities and may hold blanks anywhere in an address.
ACTIVE = re.compile(
    r"(?i)<\s*([\w.-]+:)?(script|iframe|object|embed|applet|frame|frameset|base|form|meta\b[^<>]*refresh)\b"
    r"|<!entity|<\?xml-stylesheet"
)
TAG = re.compile(r"<[A-Za-z](?:[^<>\"']|\"[^\"]*\"|'[^']*')*")
HANDLER = re.compile(r"(?i)[\s/\"']on\w+\s*=")
ADDRESS = re.compile(r"javascript:|vbscript:|srcdoc=|data:(text|application)/")
NATIVE_MAGICS = (
    b"\x7fELF", b"MZ", b"\0asm", b"\xca\xfe\xba\xbe", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"!<arch>",
)  # fmt: skip


def scan_folder(folder: Folder) -> None:
    """Collects the regular files in folder.files. Links are never followed."""
    waiting, seen = [folder.path], 0
    if why := check_names.fault(folder.path.name):
        folder.fail("file-name", f"the folder {quoted(folder.path.name)}: {why}")
    while waiting:
        place = waiting.pop()
        relative = place.relative_to(folder.path)
        try:
            with os.scandir(place) as entries:
                paths = sorted(entry.path for entry in entries)
        except OSError as error:
            folder.fail("unreadable", f"{quoted(relative.as_posix())}: {error.strerror}; make it readable")
            continue
        if not paths and place != folder.path:
            text = f"{quoted(relative.as_posix())} is an empty folder, which git does not keep; remove it"
            folder.fail("file-kind", text)
        seen += len(paths)
        if seen > ENTRY_LIMIT or len(relative.parts) > DEPTH_LIMIT:
            text = f"over {ENTRY_LIMIT} entries or {DEPTH_LIMIT} levels; keep a dozen files"
            folder.fail("file-count", text)
            return
        waiting += [path for path in map(Path, paths) if scan_entry(folder, path)]


def scan_entry(folder: Folder, path: Path) -> bool:
    """Records a file's size or a finding about it. Returns True for a folder to scan."""
    relative = path.relative_to(folder.path).as_posix()
    try:
        facts = path.lstat()
    except OSError as error:
        folder.fail_file("unreadable", relative, f"{quoted(relative)}: {error.strerror}; remove or mend it")
        return False
    is_folder = stat.S_ISDIR(facts.st_mode)
    if stat.S_ISREG(facts.st_mode) and check_names.left_behind(relative):
        text = f"{quoted(relative)} is what a system or Python left behind: skipped; delete it"
        folder.note("file-unlisted", text)
        return False
    if why := check_names.fault(relative, is_folder):
        folder.fail_file("file-name", relative, f"{quoted(relative)}: {why}")
    if is_folder:
        return not check_names.EDITORS_OWN.fullmatch(path.name)
    if stat.S_ISLNK(facts.st_mode):
        text = f"{quoted(relative)} is a symbolic link; ship the file itself"
        folder.fail_file("file-link", relative, text)
    elif not stat.S_ISREG(facts.st_mode):
        folder.fail_file("file-kind", relative, f"{quoted(relative)} is not a regular file; remove it")
    elif facts.st_size > READ_LIMIT:
        text = f"{quoted(relative)} has {facts.st_size:,} bytes, too many to be read; ship less"
        folder.fail_file("file-large", relative, text)
    else:
        folder.files[relative] = facts.st_size
        scan_mode(folder, relative, facts)
    return False


def scan_mode(folder: Folder, path: str, facts: os.stat_result) -> None:
    """No hard links and no special mode bits: git keeps neither."""
    if facts.st_nlink > 1:
        folder.fail("file-link", f"{quoted(path)} is a hard link to another file; ship a copy")
    if facts.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        folder.fail("file-mode", f"{quoted(path)} has a set-id or sticky bit; chmod 644")
    elif facts.st_mode & 0o111:
        folder.note("file-mode", f"{quoted(path)} is executable, which ci refuses; chmod 644")


def required(folder: Folder) -> None:
    """The files that track.json requires are there: always, one script, and per seed for the lane."""
    rules = folder.track["required_files"]
    for name in rules["always"]:
        if name not in folder.files and name not in folder.reported_files:
            folder.fail_file("file-required", name, f"{name} is missing; add it (golf.sh new makes it)")
    scripts = rules.get("script", [])
    if scripts and not any(
        name in folder.files or name in folder.reported_files for name in with_packed(scripts)
    ):
        folder.reported_files |= {*scripts}
        folder.fail("file-required", f"the script that ran is missing; add {' or '.join(scripts)}")
    lane = folder.claim.get("lane")
    patterns = rules.get(lane, []) if isinstance(lane, str) else []
    for seed in folder.seeds():
        for pattern in patterns if type(seed.get("seed")) is int else ():
            wanted = pattern.replace("{seed}", str(seed["seed"]))
            here = (name for name in {*folder.files, *folder.reported_files} if "/" not in name)
            unclaimed = pattern.startswith("final_model") and seed.get("artifact") is None
            if not unclaimed and not any(PurePosixPath(name).match(wanted) for name in here):
                text = f"{wanted} is missing; the {lane} lane ships it"
                folder.fail_file("file-required", wanted, text)


def listed(folder: Folder) -> None:
    """`files` lists every file of the folder, with its size and hash."""
    named = [e for e in folder.entries("files") if isinstance(dig(e, "path"), str)]
    if not named:
        return  # json-schema says so
    for entry in named:
        check_entry(folder, entry)
    paths = [entry["path"] for entry in named]
    for path in sorted(set(folder.files) - {*paths, "submission.json"} - folder.reported_files):
        text = f"{quoted(path)} is not in files; list it with its role, or remove it"
        folder.fail_file("file-unlisted", path, text)
    for path in sorted({p for p in paths if paths.count(p) > 1}):
        folder.fail("file-listed", f"{quoted(path)} is listed twice; list it once")
    scripts = {e["path"] for e in named if e.get("role") == "script"}
    if not scripts:
        folder.fail("file-listed", "no file has the role script; the trainer always counts")
    allowed = folder.track["required_files"].get("script", scripts)
    for path in sorted(scripts - {*with_packed(allowed)}):
        text = f"{quoted(path)} has the role script; that is {' or '.join(sorted(allowed))}, others: score"
        folder.fail("file-role", text)


def with_packed(scripts) -> list[str]:
    return [name for script in scripts for name in (script, packed_name(script))]


def check_entry(folder: Folder, entry: dict) -> None:
    path = entry["path"]
    if folder.is_reported(path) and not folder.has(path):
        return
    if not folder.has(path):
        text = f"files names {quoted(path)}, which is no file here; remove the entry"
        folder.fail_file("file-listed", path, text)
    elif entry.get("role") == "readme":
        return  # written by hand after the run
    elif entry.get("bytes") != folder.files[path] or entry.get("sha256") != folder.sha256(path):
        remedy = "restore what the run wrote" if written_by_run(entry) else "list its bytes and sha256 anew"
        text = f"{quoted(path)} ({folder.files[path]:,} bytes) is not the file that is listed; {remedy}"
        folder.fail_file("file-hash", path, text)


def written_by_run(entry: dict) -> bool:
    """Whether the run wrote this file, so that it must not change. README and extra files may."""
    return entry.get("role") in ("script", "source", "score", "artifact", "log")


def roles(folder: Folder) -> None:
    """Roles fit the files: nothing that counts is listed under a role that does not count."""
    artifacts = [seed.get("artifact") for seed in folder.seeds()]
    for path, role in ((entry["path"], entry["role"]) for entry in folder.listed()):
        packed = folder.role(packed_name(path)) == "script"
        fits = {
            "script": not packed,
            "source": packed,
            "readme": path == "README.md",
            "log": path.endswith((".log", ".jsonl")) and b"\0" not in folder.read(path),
            "artifact": path in artifacts,
            "val": path.endswith(".bin") and folder.claim.get("lane") == "non-record",
            "extra": for_people(folder, PurePosixPath(path)),
        }.get(role, True)
        if not fits:
            text = "code and what scoring reads: role score; extra: text, tables and pictures for people"
            if role in ("script", "source"):
                text = f"role source is for what the listed script {quoted(packed_name(path))} was made from"
            folder.fail("file-role", f"{quoted(path)} is no {role}; {text}")


def for_people(folder: Folder, path: PurePosixPath) -> bool:
    """Whether people read such a file, and it is what its name says: a picture, or text, running nothing."""
    start = EXTRA_STARTS.get(path.suffix or path.name)
    blob = b"" if start is None else folder.read(str(path))
    if start is None or path.suffix in (".html", ".svg") and is_active(blob.decode("utf-8", "replace")):
        return False
    return blob.startswith(start) and (start != b"" or b"\0" not in blob)


def is_active(page: str) -> bool:
    """Whether a browser would do more with a page or a picture than show it."""
    tags = TAG.findall(page)
    addresses = (re.sub(r"[\0- ]", "", html.unescape(tag)).lower() for tag in tags)
    return bool(ACTIVE.search(page)) or any(map(HANDLER.search, tags)) or any(map(ADDRESS.search, addresses))


def foreign_files(folder: Folder) -> None:
    """No pickles, no native code, no archives, no huge files."""
    for path, size in folder.files.items():
        head = folder.read(path, 4096)
        pickled = head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
        zipped = head.startswith(b"PK\3\4") and b".pkl" in head
        if pickled or zipped or path.lower().endswith(PICKLE_SUFFIXES):
            folder.fail("file-pickle", f"{quoted(path)} is a pickle, which runs code when read; remove it")
        if head.startswith(b"version https://git-lfs."):
            folder.fail("file-kind", f"{quoted(path)} is a pointer of Git LFS; commit the file itself")
        binary = head.startswith(NATIVE_MAGICS) and b"\0" in head or head.startswith(b"!<arch>")
        scored = folder.role(path) == "score"
        if binary or scored and not path.endswith(SCORE_SUFFIXES):
            text = f"Python source and, for scoring, {' '.join(SCORE_SUFFIXES[1:])}"
            folder.fail("file-native", f"{quoted(path)} is no such file as a submission has: {text}")
        elif scored and artifact.holds_file(folder.read(path, READ_LIMIT)):
            text = "holds a file of another format; a reviewer reads what it is for"
            folder.human("file-native", f"{quoted(path)} {text}")
        if size > LARGE_BYTES:
            folder.note("file-large", f"{quoted(path)} has {size:,} bytes; log less, or ship less")


def artifacts(folder: Folder) -> None:
    """Each seed's artifact is listed, is a sound container, and counts as claimed and under the cap."""
    counts, named = [], {}
    for seed in folder.seeds():
        path = seed.get("artifact")
        if path is None:
            text = f"{seed_name(seed)} ships no artifact, so nobody can score it again: no rank"
            folder.add(folder.record_lane_level(), "not-rescorable", text)
            check_cap(folder, number(seed.get("bytes_total")) or 0, seed_name(seed))
        elif not folder.has(path):
            if not folder.is_reported(path):
                text = f"{seed_name(seed)}: its artifact {quoted(path)} is missing; add it"
                folder.fail("artifact", text)
        elif path not in folder.reported_files:
            if folder.role(path) != "artifact":
                folder.fail("artifact", f"{quoted(path)} is not in files with the role artifact; list it")
            named[path] = None
            counts.append(count(folder, seed, path))
    for path in named:  # each once
        container(folder, path)
    if len(counts) < len([seed for seed in folder.seeds() if seed.get("artifact") is not None]):
        return  # a finding says what is wrong with the others; the largest is not known
    if counts:
        most = max(counts, key=lambda one: one.total)
        for name, value in (("total", most.total), ("code", most.code), ("model", most.model)):
            same_bytes(folder, f"bytes_{name}", folder.claim.get(f"bytes_{name}"), value)
    else:
        check_cap(folder, number(folder.claim.get("bytes_total")) or 0, "submission.json")


def container(folder: Folder, path: str) -> None:
    """Reads the artifact with our own reader, never with the submission's."""
    try:
        found = artifact.read(folder.path / path)
        for doubt in found.doubts:
            folder.human("artifact-format", f"{quoted(path)}: {doubt}; a reviewer reads what they are for")
    except artifact.ForeignArtifact as error:
        folder.human("artifact-format", f"{quoted(path)}: {error}; a reviewer reads the script's decoder")
    except artifact.ArtifactError as error:
        folder.fail("artifact-format", f"{quoted(path)}: {error}; ship the file that the run packed")


def count(folder: Folder, seed: dict, path: str) -> submission.Count:
    found = submission.count_bytes(folder.path, folder.listed(), path)
    same_bytes(folder, f"{seed_name(seed)}: bytes_total", seed.get("bytes_total"), found.total)
    check_cap(folder, found.total, seed_name(seed))
    return found


def same_bytes(folder: Folder, what: str, claimed, found: int) -> None:
    if number(claimed) is not None and claimed != found and not folder.code_altered:
        folder.mismatch("bytes", what, f"{claimed:,}", f"{found:,}", "on disk")


def check_cap(folder: Folder, total: float, who: str) -> None:
    over = total - folder.track["cap_bytes"]
    if over > 0:
        folder.fail("cap", f"{who}: {total:,.0f} bytes are {over:,.0f} over the cap; pack coarser or shrink")


RULES = (required, *check_names.RULES, listed, roles, foreign_files, artifacts)
