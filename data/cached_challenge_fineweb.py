#!/usr/bin/env python3
"""Fetch the published FineWeb export: shards, tokenizer and manifest, checked file by file.

    python3 data/cached_challenge_fineweb.py --variant sp1024 --train-shards 2

Files land beside this script: datasets/fineweb10B_sp1024/, tokenizers/, manifest.json. Each is fetched
into .incoming/ beside its place, checked there by the hub's hash, and renamed: what lies at a final
path is whole. checksums.json keeps the hashes, so later checks (--verify) need no network. A call that
broke off is simply repeated.

Environment: MATCHED_FINEWEB_REPO_ID, MATCHED_FINEWEB_REMOTE_ROOT_PREFIX; and what huggingface_hub
reads: HF_ENDPOINT (a mirror), HF_HUB_OFFLINE, HF_TOKEN. Exit: 0 fine, 1 failed, 2 used wrongly.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import json
import operator
import os
import re
import shutil
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent
MANIFEST, CHECKSUMS, STAGING = "manifest.json", "checksums.json", ".incoming"
DOCS = ("docs_selected.jsonl", "docs_selected.source_manifest.json")
MOST_SHARDS = 100_000  # of a split; what a manifest says is not believed beyond
TRIES = 5  # one, two, four ... seconds apart
LONGEST_WAIT = 300  # seconds; a hub that asks for more is reported, not waited for
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
STATUS = {
    401: " (no such repository, or it needs a valid HF_TOKEN; unset one that has expired)",
    403: " (it needs a valid HF_TOKEN)",
    407: " (the proxy wants a name and a password)",
}
# What is not as it should be leads to these, in a file or in the hub's answer; no retry helps.
ODD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Fail(Exception):
    """An error that a user can act on: printed as one line, exit code 1."""


def say(text: str, stream=None) -> None:
    """Prints a line, to stderr by default; a terminal or pipe that went away ends no download."""
    stream = stream or sys.stderr
    try:
        print(text, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# ---- Files and their hashes


def inspect(path: Path, want: dict | None) -> str | None:
    """What is wrong with the file; None if nothing is.

    want: bytes and hash, a SHA-256 or, as the hub has no other of its small files, a git id.
    """
    if not want or not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != want["bytes"]:
        return f"{size} bytes instead of {want['bytes']}"
    by_git = len(want["hash"]) == 40
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if by_git else hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(4 << 20):
            digest.update(block)
    return None if digest.hexdigest() == want["hash"] else f"its hash is not {want['hash'][:12]}…"


def read(path: Path) -> bytes:
    """The file's bytes; a pipe, which may never end, is none."""
    if path.exists() and not path.is_file():
        raise ValueError("no regular file")
    return path.read_bytes()


def read_record() -> dict[str, dict]:
    """checksums.json: bytes, hash and source of each file that was once fetched."""
    path = ROOT / CHECKSUMS
    if not path.exists():
        return {}
    try:
        files = json.loads(read(path))["files"]
        return {name: {key: e[key] for key in ("bytes", "hash", "source")} for name, e in files.items()}
    except (OSError, *ODD) as error:
        raise Fail(f"{path} is damaged: delete it and fetch again online") from error


def note(name: str, entry: dict) -> None:
    """Adds a file to the record."""
    record = read_record()
    if record.get(name) != entry:
        record[name] = entry
        draft = staging(ROOT / CHECKSUMS) / CHECKSUMS
        text = json.dumps({"schema_version": 2, "files": dict(sorted(record.items()))}, indent=1)
        draft.write_text(text + "\n", encoding="utf-8")
        os.replace(draft, ROOT / CHECKSUMS)


def staging(target: Path) -> Path:
    """The folder, on the target's own disk, that a file is fetched into."""
    folder = target.parent / STAGING
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ---- Errors in words


def explain(error: BaseException) -> tuple[str, float | None]:
    """(a line for a person, seconds to wait before a retry; None where no retry helps).

    The client wraps errors differently from version to version, so this reads the chain of causes.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if (response := getattr(cause, "response", None)) is not None and response.status_code >= 400:
            status, asked = response.status_code, response.headers.get("Retry-After") or ""
            said = f"the hub answered {status}{STATUS.get(status, '')}"
            if status < 500 and status not in (408, 425, 429):
                return said, None
            wait = float(asked) if re.fullmatch(r"[0-9]+", asked) else 0.0  # a date is not waited for
            return (
                (said, wait) if wait <= LONGEST_WAIT else (f"{said} and asks for {asked} s: try later", None)
            )
        if isinstance(cause, OSError) and (cause.filename or cause.errno in DISK):
            advice = "; use another disk, to which data/datasets may be a link" * (cause.errno in DISK)
            return f"{cause.filename or ROOT}: {cause.strerror}{advice}", None
    root = causes[-1]
    text = (str(root).strip() or type(root).__name__).splitlines()[0][:200]
    if re.search("(?i)proxy|socks", text + type(root).__name__):
        return text + proxy_hint(), None
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"{text}; where a proxy signs anew, set SSL_CERT_FILE to its certificate", None
    hopeless = isinstance(root, (ImportError, *ODD)) or "os error 28" in text  # ENOSPC of the Xet library
    return (f"{type(root).__name__}: {text}", None) if hopeless else (text, 0.0)


def proxy_hint() -> str:
    """What to do about the proxies that are set."""
    names = [name for name in os.environ if re.fullmatch("(?i)(https?|all)_proxy", name) and os.environ[name]]
    if any("socks" in os.environ[name] for name in names):
        return f": run `{sys.executable} -m pip install socksio`, or unset {', '.join(names)}"
    return f": is {', '.join(names)} right?" if names else ""


def retrying(what: str, call):
    """call(), again while its errors may pass. Fail: a line that begins with `what`."""
    for attempt in range(TRIES):
        try:
            return call()
        except Exception as error:
            problem, wait = explain(error)
            if wait is None:
                raise Fail(f"{what}: {problem}") from error
            if attempt == TRIES - 1:
                hint = "check the network, or set HF_ENDPOINT to a mirror; repeat to go on"
                raise Fail(f"{what}: {problem} ({TRIES} tries){proxy_hint()}: {hint}") from error
            wait = max(wait, 2**attempt)
            say(f"{what}: {problem}; again in {wait:.0f} s")
            time.sleep(wait)


# ---- The hub


class Hub:
    """The one place that talks to the network, once something is asked of it."""

    def __init__(self) -> None:
        self.repo = os.environ.get("MATCHED_FINEWEB_REPO_ID") or "willdepueoai/parameter-golf"
        self.prefix = os.environ.get("MATCHED_FINEWEB_REMOTE_ROOT_PREFIX", "datasets").strip("/")
        self.source = f"{self.repo}/{self.prefix}"
        self.start = f"{self.prefix}/".lstrip("/")  # of a file's path there
        self.lock = None
        self.files: dict[str, dict] = {}  # once connected: the record's entry of each file it has

    def connect(self, wanted: list[str]) -> None:
        """Loads the client, locks the folder against another download, lists one revision of the export."""
        if self.files:
            return
        os.environ.setdefault("HF_XET_CHUNK_CACHE_SIZE_BYTES", "0")  # no second copy in a cache
        try:
            from huggingface_hub import HfApi, constants, hf_hub_download
            from huggingface_hub.utils import logging
        except ImportError as error:
            raise Fail(
                f"Python package {error.name} is missing from {sys.executable}; run `{sys.executable} -m pip "
                "install huggingface_hub`, or scripts/quickstart.sh, which makes .venv"
            ) from error
        except Exception as error:  # it reads its variables when imported
            raise Fail(f"huggingface_hub cannot be loaded: {type(error).__name__}: {error}") from error
        if constants.HF_HUB_OFFLINE:
            missing = f"missing, or not as recorded: {some(wanted)}"
            raise Fail(f"HF_HUB_OFFLINE is set, so nothing is fetched; {missing}")
        if not re.match("https?://", constants.ENDPOINT):
            raise Fail(f"HF_ENDPOINT={constants.ENDPOINT}: a URL (https://...) is needed")
        logging.set_verbosity_error()  # its warnings are about retries, which are told here
        self.lock = (staging(ROOT / MANIFEST) / "lock").open("wb")  # until main closes it
        try:  # the client's own locks would wait for ever on a disk without locks
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Fail(f"another download into {ROOT} is running: wait for it") from error
        ask = partial(HfApi().dataset_info, self.repo, files_metadata=True, timeout=60)
        found = retrying(f"{self.repo} at {constants.ENDPOINT}", ask)
        for file in found.siblings:
            if file.rfilename.startswith(self.start):
                digest = file.lfs.sha256 if file.lfs else file.blob_id
                entry = dict(bytes=file.size, hash=digest, source=self.source)
                self.files[file.rfilename[len(self.start) :]] = entry
        self.download = partial(hf_hub_download, self.repo, repo_type="dataset", revision=found.sha)

    def stat(self, names: list[str], optional: list[str] = ()) -> dict[str, dict]:
        """The record's entry of each file, by the hub. An optional one that it lacks is left out."""
        self.connect(names)
        if absent := [name for name in names if name not in self.files]:
            raise Fail(f"{self.source} does not have {some(absent)}: check MATCHED_FINEWEB_*")
        return {name: self.files[name] for name in [*names, *optional] if name in self.files}

    def fetch(self, name: str, want: dict) -> None:
        """Fetches a file, checks it, and only then puts it in its place and on record."""
        for _ in range(2):  # a file that arrives wrong twice will do so again
            get = partial(self.download, filename=self.start + name, local_dir=staging(ROOT / name))
            staged = Path(retrying(name, get))
            if not (problem := inspect(staged, want)):
                os.replace(staged, ROOT / name)
                return note(name, want)
            staged.unlink(missing_ok=True)  # or the client would take it for done
        raise Fail(f"{name}: fetched twice, and {problem}: the hub or the network alters it")


def require_space(want: dict[str, dict]) -> None:
    """Fail where the shards' disk has no room for these files."""
    need = sum(entry["bytes"] for entry in want.values())
    (ROOT / "datasets").mkdir(exist_ok=True)
    disk = shutil.disk_usage(ROOT / "datasets")
    if disk.total and need > disk.free:  # some network disks say 0 of 0
        raise Fail(f"{megabytes(need)} to fetch, {megabytes(disk.free)} free at {ROOT / 'datasets'}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# ---- What to fetch


def ready_manifest(skip: bool, hub: Hub, record: dict) -> dict:
    """The local manifest where it is as recorded, else the hub's; with `skip` the local one as it is."""
    path = ROOT / MANIFEST
    if not skip and inspect(path, record.get(MANIFEST)):
        want = hub.stat([MANIFEST])[MANIFEST]
        if inspect(path, want):
            hub.fetch(MANIFEST, want)
        note(MANIFEST, want)
    try:
        manifest = json.loads(read(path))
        [entry["name"] for entry in [*manifest["datasets"], *manifest["tokenizers"]]]
    except (OSError, *ODD) as error:
        if not skip:
            path.unlink(missing_ok=True)  # to be asked for anew
        raise Fail(f"{path} is no manifest of the export ({error!r:.200})") from error
    return manifest


def wanted_files(manifest: dict, args: argparse.Namespace, source: str) -> tuple[list[str], list[str]]:
    """Names, relative to the export's root, of the files that must be there and that may be."""
    dataset = f"fineweb10B_{args.variant}"
    try:
        entries = {entry["name"]: entry for entry in manifest["datasets"]}
        if dataset not in entries:
            have = ", ".join(name.removeprefix("fineweb10B_") for name in sorted(entries))
            raise Fail(f"{source} has no variant {args.variant}; its manifest lists: {have}")
        stats, key = entries[dataset]["stats"], entries[dataset]["tokenizer_name"]
        files_train, files_val = (operator.index(stats[f"files_{split}"]) for split in ("train", "val"))
        tokenizer = next(entry for entry in manifest["tokenizers"] if entry["name"] == key)
        required = [tokenizer[key] for key in ("model_path", "path") if tokenizer.get(key)]
        optional = [tokenizer["vocab_path"]] if tokenizer.get("vocab_path") else []
        if not required or not 0 < files_val <= MOST_SHARDS:
            raise ValueError(f"files_val is {files_val}, tokenizer {required}")
    except (*ODD, StopIteration) as error:
        raise Fail(f"{ROOT / MANIFEST}: the entry of {dataset} is not whole ({error!r})") from error
    if args.train_shards > files_train:
        raise Fail(f"{args.variant} has {files_train} train shards, {args.train_shards} asked for")
    # A manifest comes from elsewhere: it must not name, and so replace, anything else in here.
    for name in [*required, *optional]:
        if not re.fullmatch(r"tokenizers/\w[\w.-]*", str(name)):
            raise Fail(f"{ROOT / MANIFEST} names a file that is none of the export's: {name}")
    for split, count in (("val", files_val), ("train", args.train_shards)):
        required += [f"datasets/{dataset}/fineweb_{split}_{i:06d}.bin" for i in range(count)]
    return required + [*DOCS] * args.with_docs, optional


# ---- The commands


def fetch_variant(args: argparse.Namespace, hub: Hub) -> None:
    record = {name: entry for name, entry in read_record().items() if entry["source"] == hub.source}
    required, optional = wanted_files(ready_manifest(args.skip_manifest, hub, record), args, hub.source)
    want, bad = {n: record[n] for n in (*required, *optional) if n in record}, {}
    # The hub is asked only where the record does not suffice: all here means no network at all.
    # Once asked, it is asked about every file: one call, one revision of the export.
    if unsure := [n for n in {*required, *want} if inspect(ROOT / n, want.get(n))]:
        hub.connect(sorted(unsure))
        want = hub.stat(required, optional)
        for name, entry in want.items():
            if not (problem := inspect(ROOT / name, entry)):
                note(name, entry)
                continue
            bad[name] = entry
            if problem != "missing":
                say(f"{name}: {problem}: fetched anew")
        require_space(bad)
    small_first = sorted(bad, key=lambda name: bad[name]["bytes"])
    for number, name in enumerate(small_first, len(want) - len(bad) + 1):
        say(f"{number}/{len(want)} {name}, {megabytes(bad[name]['bytes'])}")
        hub.fetch(name, bad[name])
    for name in (MANIFEST, *want) if hub.files else ():  # a failed call's stay for the next
        shutil.rmtree((ROOT / name).parent / STAGING, ignore_errors=True)
    size = sum(entry["bytes"] for entry in want.values())
    say(f"{len(want)} files, {megabytes(size)}: {len(bad)} fetched, {len(want) - len(bad)} here", sys.stdout)
    say(f"DATA_PATH={ROOT / 'datasets' / ('fineweb10B_' + args.variant)}", sys.stdout)
    say(f"TOKENIZER_PATH={ROOT / required[0]}", sys.stdout)


def verify() -> None:
    """Checks every recorded file that lies here, without the network."""
    record = read_record()
    names = [name for name in sorted(record) if (ROOT / name).is_file()]
    problems = {name: problem for name in names if (problem := inspect(ROOT / name, record[name]))}
    for name, problem in problems.items():
        say(f"BAD {name}: {problem}", sys.stdout)
    if not names:
        raise Fail(f"nothing to verify: {ROOT} holds no fetched file")
    if problems:
        told = f"{len(problems)} of {len(names)} files are bad: {some([*problems])}"
        raise Fail(f"{told}; fetch again to replace")
    say(f"{len(names)} files are right", sys.stdout)


def parse(argv: list[str] | None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("shards", nargs="?", type=int, help="the same as --train-shards")
    parser.add_argument("--variant", default="sp1024", help="sp<vocabulary size> or byte260 (default sp1024)")
    parser.add_argument("--train-shards", metavar="N", type=int, help="the first N train shards (default 2)")
    parser.add_argument("--with-docs", action="store_true", help="also the documents' text, tens of GB")
    parser.add_argument("--skip-manifest", action="store_true", help="use the local manifest.json as it is")
    parser.add_argument("--verify", action="store_true", help="check what was fetched, offline")
    args = parser.parse_args(argv)
    given = [count for count in (args.shards, args.train_shards) if count is not None]
    args.train_shards = given[0] if given else 2
    if len(given) > 1 or args.train_shards < 0:
        parser.error("give the number of train shards once, 0 or more")
    if not re.fullmatch(r"byte260|sp[1-9][0-9]*", args.variant):
        parser.error(f"--variant is sp<vocabulary size> or byte260, not {args.variant!r}")
    return args


def main(argv: list[str] | None = None) -> int:
    for name in ("stdout", "stderr"):  # the client writes to what a caller may have closed
        setattr(sys, name, getattr(sys, name) or open(os.devnull, "w", encoding="utf-8"))
    args, hub = parse(argv), Hub()
    try:
        verify() if args.verify else fetch_variant(args, hub)
        return 0
    except (Fail, OSError) as error:
        text = explain(error)[0] if isinstance(error, OSError) else error
        say(f"{Path(__file__).name}: error: {text}")
        return 1
    except KeyboardInterrupt:
        say(f"{Path(__file__).name}: stopped; repeat the call to go on")
        return 130
    finally:
        if hub.lock:
            hub.lock.close()


if __name__ == "__main__":
    sys.exit(main())
