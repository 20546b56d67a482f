#!/usr/bin/env python3
"""Fetch the published FineWeb export: shards, tokenizer and manifest, checked file by file.

    python3 data/cached_challenge_fineweb.py --variant sp1024 --train-shards 2

Files land beside this script: datasets/fineweb10B_sp1024/, tokenizers/, manifest.json. A file
counts as present only if its length, its shard header and its SHA-256 are right; the hashes are
the hub's and are kept in checksums.json, so later checks (--verify) need no network. A file is
fetched into .incoming/ beside its place, checked there, and renamed: what lies at a final path is
whole. A call that broke off is simply repeated.

Environment: MATCHED_FINEWEB_REPO_ID, MATCHED_FINEWEB_REMOTE_ROOT_PREFIX; and what huggingface_hub
reads: HF_ENDPOINT (a mirror), HF_HUB_OFFLINE, HF_TOKEN. Exit: 0 fine, 1 failed, 2 used wrongly.
"""

from __future__ import annotations

import argparse
import contextlib
import email.utils
import errno
import hashlib
import json
import os
import re
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parent
MANIFEST = "manifest.json"
CHECKSUMS = ROOT / "checksums.json"
STAGING = ".incoming"
DEFAULT_TRAIN_SHARDS = 2
HEADER_BYTES, SHARD_MAGIC, SHARD_VERSION = 256 * 4, 20240520, 1

TRIES = 5
BACKOFF_SECONDS = 1.0  # doubles with each try
LONGEST_WAIT_SECONDS = 300.0  # a hub that asks for more is reported, not waited for
DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

Want = dict[str, Any]  # {"bytes": int, "sha256": str | None, "git_sha1": str | None}


class Fail(Exception):
    """Something a user can act on: printed as one line, exit code 1."""


def missing(error: ImportError) -> Fail:
    return Fail(
        f"Python package {error.name} is missing from {sys.executable}; run `{sys.executable} "
        "-m pip install huggingface_hub tqdm`, or scripts/quickstart.sh, which makes .venv"
    )


# ---- what is right: shards, hashes and the record of them ----------------------------------


def shard_problem(path: Path, size: int) -> str | None:
    """What is wrong with a shard's header or length; None if nothing is."""
    with path.open("rb") as file:
        head = file.read(12)
    if size <= HEADER_BYTES or len(head) < 12:
        return f"{size} bytes are too few for a shard"
    magic, version, tokens = struct.unpack("<3i", head)
    if (magic, version) != (SHARD_MAGIC, SHARD_VERSION):
        return f"not a shard: its header starts with {magic}, {version}"
    if size != HEADER_BYTES + 2 * tokens:
        return f"its header promises {tokens} tokens, but it has {size} bytes"
    return None


def inspect(
    path: Path, want: Want, advance: Callable[[int], object] = lambda count: None
) -> tuple[str | None, str | None]:
    """Returns (what is wrong with the file or None, its SHA-256 or None)."""
    if not path.is_file():
        return "missing", None
    size = path.stat().st_size
    if size != want["bytes"]:
        return f"{size} bytes instead of {want['bytes']}", None
    if path.suffix == ".bin" and (problem := shard_problem(path, size)):
        return problem, None
    sha256 = hashlib.sha256()
    git_sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(4 << 20):
            sha256.update(block)
            if not want.get("sha256"):  # the hub has only a git id for files outside LFS
                git_sha1.update(block)
            advance(len(block))
    found, kind = (sha256, "sha256") if want.get("sha256") else (git_sha1, "git_sha1")
    if found.hexdigest() != want[kind]:
        return f"its {kind} is {found.hexdigest()[:12]}… instead of {want[kind][:12]}…", None
    return None, sha256.hexdigest()


class Checksums:
    """checksums.json: of each file once fetched, its length, its SHA-256 and where it came from."""

    def __init__(self, source: str = "") -> None:
        self.source = source
        self.files: dict[str, Want] = {}
        if CHECKSUMS.is_file():
            try:
                files = json.loads(CHECKSUMS.read_text(encoding="utf-8"))["files"]
                self.files = {n: {k: e[k] for k in ("bytes", "sha256", "source")}
                              for n, e in files.items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise Fail(f"{CHECKSUMS} is damaged: delete it and fetch again online") from error

    def expected(self, name: str) -> Want | None:
        want = self.files.get(name)
        return want if want and want.get("source") == self.source else None

    def put(self, name: str, sha256: str, size: int) -> None:
        entry = {"bytes": size, "sha256": sha256, "source": self.source}
        if self.files.get(name) == entry:
            return
        self.files[name] = entry
        record = {"schema_version": 1, "files": dict(sorted(self.files.items()))}
        draft = staging(CHECKSUMS) / CHECKSUMS.name
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, CHECKSUMS)


# ---- the hub ------------------------------------------------------------------------------


def chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def retry_after(headers: Any) -> float:
    """Seconds that a Retry-After header asks for (a number or a date); 0 where there is none."""
    value = headers.get("Retry-After") or "0"
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def diagnose(error: BaseException) -> tuple[str, float | None]:
    """Returns (a line for a person, seconds to wait before a retry or None where none can help).

    The client wraps errors differently from version to version (requests, httpx), so this reads
    the whole chain of causes and relies on no class of theirs.
    """
    causes = list(chain(error))
    for cause in causes:
        if "os error 28" in str(cause):  # how the Xet library, which is Rust, says ENOSPC
            cause = OSError(errno.ENOSPC, "")
        if isinstance(cause, OSError) and (cause.errno in DISK_ERRNOS or cause.filename):
            return str(cause) if cause.filename else os.strerror(cause.errno or 0), None
        response = getattr(cause, "response", None)
        status = getattr(response, "status_code", None)
        if status in (401, 403, 404):
            why = "not found" if status == 404 else "no such repository, or HF_TOKEN is needed"
            return f"the hub answered {status} ({why})", None
        if status is not None and status >= 400:
            wait = retry_after(response.headers)
            if wait > LONGEST_WAIT_SECONDS:
                return f"the hub answered {status} and asks for {wait:.0f} s: try later", None
            return f"the hub answered {status}", wait
    text = (str(causes[-1]).strip() or type(causes[-1]).__name__).splitlines()[0]
    return text[:200], 0.0


class Hub:
    """The one place that talks to the network. Nothing is imported or locked until it must."""

    def __init__(self) -> None:
        self.repo = os.environ.get("MATCHED_FINEWEB_REPO_ID", "willdepueoai/parameter-golf")
        self.prefix = os.environ.get("MATCHED_FINEWEB_REMOTE_ROOT_PREFIX", "datasets").strip("/")
        self.source = f"{self.repo}/{self.prefix}"
        self.revision = ""  # empty: not connected
        self.stack = contextlib.ExitStack()

    def remote(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def connect(self, wanted: list[str]) -> None:
        """Loads the client, takes the folder's lock, and pins the revision for this call."""
        if self.revision:
            return
        # Set before the import, which reads them: one bar is ours, and no second copy in a cache.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_XET_CHUNK_CACHE_SIZE_BYTES", "0")
        try:
            import filelock
            from huggingface_hub import HfApi, constants, hf_hub_download
            from huggingface_hub.utils import logging
        except ImportError as error:
            raise missing(error) from error
        if constants.HF_HUB_OFFLINE:
            raise Fail(
                "HF_HUB_OFFLINE is set, so nothing is fetched; missing, or not as recorded: "
                f"{some(wanted)}"
            )
        logging.set_verbosity_error()  # its warnings are about retries, which are told here
        self.api, self.download = HfApi(), hf_hub_download
        try:
            self.stack.enter_context(filelock.FileLock(staging(ROOT / MANIFEST) / "lock", 0))
        except filelock.Timeout as error:
            raise Fail(f"another download into {ROOT} is running: wait for it") from error
        clean_staging(leftovers_only=True)
        self.revision = self.retrying(
            f"{self.repo} at {self.api.endpoint}",
            lambda: self.api.repo_info(self.repo, repo_type="dataset", timeout=30)).sha

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        """Lets go of the lock. What a call that failed has staged is kept for the next one."""
        if kind is None and self.revision:
            clean_staging()
        self.stack.close()

    def retrying(self, what: str, call: Callable[[], Any]) -> Any:
        for attempt in range(1, TRIES + 1):
            try:
                return call()
            except Exception as error:
                problem, wait = diagnose(error)
                if wait is None:
                    raise Fail(f"{what}: {problem}") from error
                if attempt == TRIES:
                    hint = "check the network, or set HF_ENDPOINT to a mirror; repeat to go on"
                    raise Fail(f"{what}: {problem} ({TRIES} tries): {hint}") from error
                wait = max(wait, BACKOFF_SECONDS * 2 ** (attempt - 1))
                print(f"{what}: {problem}; again in {wait:.0f} s", file=sys.stderr)
                time.sleep(wait)

    def stat(self, names: list[str], optional: Iterable[str] = ()) -> dict[str, Want]:
        """The hub's length and hash of each file. An optional one that it lacks is left out."""
        self.connect(names)
        wanted, found = [*names, *optional], {}
        for start in range(0, len(wanted), 100):
            paths = [self.remote(name) for name in wanted[start : start + 100]]
            infos = self.retrying(
                f"list of files of {self.source}",
                lambda paths=paths: self.api.get_paths_info(
                    self.repo, paths, repo_type="dataset", revision=self.revision))
            for info in infos:
                if hasattr(info, "blob_id"):  # a file, not a folder
                    found[info.path] = {
                        "bytes": info.size,
                        "sha256": info.lfs.sha256 if info.lfs else None,
                        "git_sha1": None if info.lfs else info.blob_id,
                    }
        absent = [name for name in names if self.remote(name) not in found]
        if absent:
            raise Fail(f"{self.source} does not have {some(absent)}: check MATCHED_FINEWEB_*")
        return {n: found[self.remote(n)] for n in wanted if self.remote(n) in found}

    def fetch(self, name: str, want: Want, bar: Any = None) -> str:
        """Fetches a file, checks it, and only then puts it in its place. Returns its SHA-256."""
        target = ROOT / name
        folder = staging(target)
        problem = None
        for _ in range(2):  # a file that arrives wrong twice will do so again
            with following(bar, folder, want["bytes"]):
                staged = Path(self.retrying(name, lambda: self.download(
                    self.repo, self.remote(name), repo_type="dataset",
                    revision=self.revision, local_dir=folder)))
            problem, sha256 = inspect(staged, want)
            if sha256:
                os.replace(staged, target)
                return sha256
            staged.unlink(missing_ok=True)  # or the client would take it for done
        raise Fail(f"{name}: fetched twice, and {problem}: the hub or the network alters it")


# ---- staging, space and the bar ---------------------------------------------------------------


def staging(target: Path) -> Path:
    """The folder, on the target's own disk, that a file is fetched into."""
    folder = target.parent / STAGING
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder


def clean_staging(leftovers_only: bool = False) -> None:
    """Removes staging folders, or of them only the partial files that no client will resume.

    Newer clients write <hash>.<8 hex digits>.incomplete, a name for one process; what a killed
    one leaves would stay for good. Older ones write <hash>.incomplete and resume it.
    """
    for folder in [ROOT / STAGING, *ROOT.glob(f"*/{STAGING}"), *ROOT.glob(f"*/*/{STAGING}")]:
        if not leftovers_only:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        for path in folder.rglob("*.incomplete"):
            if re.search(r"\.[0-9a-f]{8}\.incomplete$", path.name):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def following(bar: Any, folder: Path, size: int) -> Iterator[None]:
    """Moves the bar with what the client has written: its own bars differ between versions."""
    if bar is None:
        yield
        return
    start, done = bar.n, threading.Event()

    def follow() -> None:
        while not done.wait(0.25):
            written = 0
            with contextlib.suppress(OSError):
                written = sum(path.stat().st_size for path in folder.rglob("*.incomplete"))
            bar.update(start + min(written, size) - bar.n)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        bar.n = start


def require_space(want: dict[str, Want]) -> None:
    if not want:
        return
    need = sum(entry["bytes"] for entry in want.values())
    folder = staging(ROOT / max(want, key=lambda name: want[name]["bytes"]))
    free = shutil.disk_usage(folder).free
    if need > free:
        raise Fail(f"{megabytes(need)} to fetch, {megabytes(free)} free at {folder.parent}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# ---- the commands -----------------------------------------------------------------------------


def read_manifest() -> dict[str, Any]:
    try:
        manifest = json.loads((ROOT / MANIFEST).read_text(encoding="utf-8"))
        for entry in [*manifest["datasets"], *manifest["tokenizers"]]:
            entry["name"]
        return manifest
    except (ValueError, KeyError, TypeError) as error:
        raise Fail(f"{ROOT / MANIFEST} is no manifest of the export ({error!r})") from error


def ready_manifest(dataset: str, skip: bool, hub: Hub, sums: Checksums) -> dict[str, Any]:
    """The local manifest if it is as recorded and lists the dataset, else the hub's."""
    path, recorded = ROOT / MANIFEST, sums.expected(MANIFEST)
    if skip:
        if not path.is_file():
            raise Fail(f"--skip-manifest needs {path}, which is not there")
        return read_manifest()
    if recorded and not inspect(path, recorded)[0]:
        manifest = read_manifest()
        if any(entry["name"] == dataset for entry in manifest["datasets"]):
            return manifest
    want = hub.stat([MANIFEST])[MANIFEST]
    problem, sha256 = inspect(path, want)
    if problem:
        require_space({MANIFEST: want})
        sha256 = hub.fetch(MANIFEST, want)
    manifest = read_manifest()  # before it is recorded: what is none is asked for anew
    sums.put(MANIFEST, str(sha256), want["bytes"])
    return manifest


def wanted_files(
    manifest: dict[str, Any], args: argparse.Namespace, source: str
) -> tuple[list[str], list[str]]:
    """Names, relative to the export's root, of the files that must be there and that may be."""
    dataset = f"fineweb10B_{args.variant}"
    try:
        entries = {entry["name"]: entry for entry in manifest["datasets"]}
        if dataset not in entries:
            have = ", ".join(name.removeprefix("fineweb10B_") for name in sorted(entries))
            raise Fail(f"{source} has no variant {args.variant}; its manifest lists: {have}")
        stats, key = entries[dataset]["stats"], entries[dataset]["tokenizer_name"]
        files_train, files_val = int(stats["files_train"]), int(stats["files_val"])
        tokenizer = next(entry for entry in manifest["tokenizers"] if entry["name"] == key)
        required = [tokenizer[key] for key in ("model_path", "path") if tokenizer.get(key)]
        optional = [tokenizer["vocab_path"]] if tokenizer.get("vocab_path") else []
        docs = manifest.get("docs_jsonl", "docs_selected.jsonl")
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise Fail(f"{ROOT / MANIFEST}: the entry of {dataset} is not whole ({error!r})") from error
    if args.train_shards > files_train:
        raise Fail(f"{args.variant} has {files_train} train shards, {args.train_shards} asked for")
    # A manifest comes from elsewhere: it must not name, and so replace, anything else in here.
    for name in [*required, *optional, f"tokenizers/{docs}"]:
        if not re.fullmatch(r"tokenizers/\w[\w.-]*", str(name)):
            raise Fail(f"{ROOT / MANIFEST} names a file that is none of the export's: {name}")
    for split, count in (("val", files_val), ("train", args.train_shards)):
        required += [f"datasets/{dataset}/fineweb_{split}_{i:06d}.bin" for i in range(count)]
    if args.with_docs:
        stem = docs.removesuffix(".jsonl")
        required += [f"{stem}.jsonl", f"{stem}.source_manifest.json"]
    return required, optional


def check_local(want: dict[str, Want], sums: Checksums, adopt: bool, bar: Any) -> dict[str, str]:
    """Returns what is wrong, by file. With `adopt`, what is right by the hub's hash is recorded."""
    bad = {}
    bar.reset(total=sum(entry["bytes"] for entry in want.values()))
    for name, entry in want.items():
        start = bar.n
        problem, sha256 = inspect(ROOT / name, entry, bar.update)
        bar.n = start + (0 if problem else entry["bytes"])
        if problem:
            bad[name] = problem
        elif adopt:
            sums.put(name, str(sha256), entry["bytes"])
    return bad


def fetch_variant(args: argparse.Namespace, hub: Hub) -> None:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise missing(error) from error
    sums = Checksums(hub.source)
    manifest = ready_manifest(f"fineweb10B_{args.variant}", args.skip_manifest, hub, sums)
    required, optional = wanted_files(manifest, args, hub.source)
    recorded = {name: sums.expected(name) for name in required + optional}
    want = {name: entry for name, entry in recorded.items() if entry}
    unknown = [name for name in required if name not in want]
    quiet = 0.1 if sys.stderr.isatty() else 20.0  # a log file gets a line now and then
    with tqdm(unit="B", unit_scale=True, mininterval=quiet, desc="check") as bar:
        # The hub is asked only where the record does not suffice: all here means no network at
        # all. Once asked, it is asked about every file: one call, one revision of the export.
        bad = {} if unknown else check_local(want, sums, False, bar)
        if unknown or bad:
            hub.connect(unknown or list(bad))
            want = hub.stat(required, optional)
            bad = check_local(want, sums, True, bar)
        for name, problem in bad.items():
            if problem != "missing":
                bar.write(f"{name}: {problem}: fetched anew", file=sys.stderr)
        require_space({name: want[name] for name in bad})
        small_first = sorted(bad, key=lambda name: want[name]["bytes"])
        for number, name in enumerate(small_first, start=len(want) - len(bad) + 1):
            bar.set_description(f"{number}/{len(want)} {PurePosixPath(name).name}")
            sums.put(name, hub.fetch(name, want[name], bar), want[name]["bytes"])
            bar.update(want[name]["bytes"])
    size = sum(entry["bytes"] for entry in want.values())
    print(f"{len(want)} files, {megabytes(size)}: {len(bad)} fetched, {len(want) - len(bad)} here")
    print(f"DATA_PATH={ROOT / 'datasets' / ('fineweb10B_' + args.variant)}")
    print(f"TOKENIZER_PATH={ROOT / required[0]}")


def verify() -> None:
    """Checks, without the network, every recorded file and every shard that lies here."""
    sums = Checksums()
    bad, checked, unrecorded = [], 0, 0
    shards = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("datasets/*/fineweb_*.bin")}
    for name in sorted(shards | {name for name in sums.files if (ROOT / name).is_file()}):
        path, checked = ROOT / name, checked + 1
        if want := sums.files.get(name):
            problem = inspect(path, want)[0]
        else:  # a shard that another tool made: only its form can be judged
            problem, unrecorded = shard_problem(path, path.stat().st_size), unrecorded + 1
        if problem:
            bad.append(name)
            print(f"BAD {name}: {problem}")
    if not checked:
        raise Fail(f"nothing to verify: {ROOT} holds no fetched file")
    if bad:
        raise Fail(f"{len(bad)} of {checked} files are bad: {some(bad)}; fetch again to replace")
    note = f" ({unrecorded} shards without a recorded hash: header and length)" * bool(unrecorded)
    print(f"{checked} files are right{note}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("shards", nargs="?", type=int, help="the same as --train-shards")
    add("--variant", default="sp1024", help="sp<vocabulary size> or byte260 (default sp1024)")
    add("--train-shards", type=int, metavar="N",
        help=f"train shards to have, from the first on (default {DEFAULT_TRAIN_SHARDS})")
    add("--with-docs", action="store_true", help="also the documents' text, tens of GB")
    add("--skip-manifest", action="store_true", help="use the local manifest.json as it is")
    add("--verify", action="store_true", help="check all that is here, offline, and fetch nothing")
    args = parser.parse_args(argv)
    if args.shards is not None and args.train_shards is not None:
        parser.error("give the number of train shards once")
    given = args.shards if args.train_shards is None else args.train_shards
    args.train_shards = DEFAULT_TRAIN_SHARDS if given is None else given
    if args.train_shards < 0:
        parser.error(f"--train-shards must not be negative, but is {args.train_shards}")
    if not re.fullmatch(r"byte260|sp[1-9][0-9]*", args.variant):
        parser.error(f"--variant is sp<vocabulary size> or byte260, not {args.variant!r}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        if args.verify:
            verify()
        else:
            with Hub() as hub:
                fetch_variant(args, hub)
    except (Fail, OSError) as error:
        text = diagnose(error)[0] if isinstance(error, OSError) else error
        print(f"{Path(__file__).name}: error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{Path(__file__).name}: stopped; repeat the call to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
