#!/usr/bin/env python3
"""Fetch the published FineWeb export: shards, tokenizer and manifest, checked file by file.

    python3 data/cached_challenge_fineweb.py --variant sp1024 --train-shards 2

Files land beside this script: datasets/fineweb10B_sp1024/, tokenizers/, manifest.json. A file counts
as present only if its length, its shard header and its SHA-256 are right. The hashes are the hub's;
checksums.json keeps them, so later checks (--verify) need no network. A file is fetched into
.incoming/ beside its place, checked there, and renamed: what lies at a final path is whole. A call
that broke off is simply repeated.

Environment: MATCHED_FINEWEB_REPO_ID, MATCHED_FINEWEB_REMOTE_ROOT_PREFIX; and what huggingface_hub
reads: HF_ENDPOINT (a mirror), HF_HUB_OFFLINE, HF_TOKEN. Exit: 0 fine, 1 failed, 2 used wrongly.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import hashlib
import json
import operator
import os
import re
import shutil
import struct
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent
MANIFEST, CHECKSUMS, STAGING = "manifest.json", "checksums.json", ".incoming"
HEADER_BYTES, SHARD_MAGIC, SHARD_VERSION = 256 * 4, 20240520, 1

MOST_SHARDS = 100_000  # of a split; what a manifest says is not believed beyond
TRIES = 5
BACKOFF_SECONDS = 1.0  # doubles with each try
LONGEST_WAIT_SECONDS = 300.0  # a hub that asks for more is reported, not waited for
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
HOPELESS = (ImportError, ValueError, LookupError, TypeError, AttributeError)  # no retry helps
PROXIES = [name for stem in ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY") for name in (stem, stem.lower())]


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


def inspect(path: Path, want: dict) -> tuple[str | None, str | None]:
    """(what is wrong with the file or None, its SHA-256 or None).

    want: bytes, and sha256 or, as the hub has only a git id for its small files, git_sha1.
    """
    if not path.is_file():
        return "missing", None
    size = path.stat().st_size
    if size != want["bytes"]:
        return f"{size} bytes instead of {want['bytes']}", None
    if path.suffix == ".bin" and (problem := shard_problem(path, size)):
        return problem, None
    git_sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    digests = {"sha256": hashlib.sha256(), "git_sha1": git_sha1}
    with path.open("rb") as file:
        while block := file.read(4 << 20):
            for digest in digests.values():
                digest.update(block)
    kind = "sha256" if want.get("sha256") else "git_sha1"
    if (found := digests[kind].hexdigest()) != want[kind]:
        return f"its {kind} is {found[:12]}… instead of {want[kind][:12]}…", None
    return None, digests["sha256"].hexdigest()


def read_record() -> dict[str, dict]:
    """checksums.json: bytes, sha256 and source of each file that was once fetched."""
    path = ROOT / CHECKSUMS
    if not path.exists():
        return {}
    try:
        files = json.loads(path.read_bytes())["files"]
        return {n: {key: e[key] for key in ("bytes", "sha256", "source")} for n, e in files.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Fail(f"{path} is damaged: delete it and fetch again online") from error


def note(record: dict, name: str, entry: dict) -> None:
    """Adds a file to the record, on disk too."""
    if record.get(name) == entry:
        return
    record[name] = entry
    draft = staging(ROOT / CHECKSUMS) / CHECKSUMS
    text = json.dumps({"schema_version": 1, "files": dict(sorted(record.items()))}, indent=1)
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, ROOT / CHECKSUMS)


def staging(target: Path) -> Path:
    """The folder, on the target's own disk, that a file is fetched into."""
    folder = target.parent / STAGING
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder


def staging_folders() -> list[Path]:
    return [ROOT / STAGING, *ROOT.glob(f"*/{STAGING}"), *ROOT.glob(f"*/*/{STAGING}")]


# ---- Errors in words


def explain(error: BaseException) -> tuple[str, float | None]:
    """(a line for a person, seconds to wait before a retry; None where no retry helps).

    The client wraps errors differently from version to version, so this reads the chain of causes.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    for cause in causes:
        response = getattr(cause, "response", None)
        if response is not None and response.status_code >= 400:
            return explain_status(response.status_code, response.headers.get("Retry-After"))
        if isinstance(cause, OSError) and cause.errno in NO_LOCKS:
            advice = "fetch on another disk and make data/datasets a link to it, or copy the files"
            return f"no file locks there ({cause.strerror}); {advice}", None
        if isinstance(cause, OSError) and (cause.filename or cause.errno in DISK):
            return f"{cause.filename}: {cause.strerror}" if cause.filename else os.strerror(cause.errno), None
    root = causes[-1]
    text = (str(root).strip() or type(root).__name__).splitlines()[0][:200]
    if "os error 28" in text:  # ENOSPC in the words of the Xet library, which is Rust
        return os.strerror(errno.ENOSPC), None
    if re.search("(?i)proxy|socks", text + type(root).__name__):
        return text + proxy_hint(), None
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"{text}; where a proxy signs anew, set SSL_CERT_FILE to its certificate", None
    return (f"{type(root).__name__}: {text}", None) if isinstance(root, HOPELESS) else (text, 0.0)


def explain_status(status: int, retry_after: str | None) -> tuple[str, float | None]:
    """The same for the hub's answer. Retry-After: seconds; a date is not waited for."""
    said = f"the hub answered {status}"
    if status == 407:
        return f"the proxy wants a name and a password{proxy_hint()}", None
    if status in (401, 403, 404):
        why = "not found" if status == 404 else "no such repository, or it needs a valid HF_TOKEN"
        return f"{said} ({why})", None
    if status < 500 and status not in (408, 425, 429):
        return said, None
    wait = float(retry_after) if re.fullmatch(r"\d+", retry_after or "") else 0.0
    return (
        (f"{said} and asks for {wait:.0f} s: try later", None)
        if wait > LONGEST_WAIT_SECONDS
        else (said, wait)
    )


def proxy_hint() -> str:
    """What to do about the proxies that are set."""
    names = [name for name in PROXIES if os.environ.get(name)]
    if any("socks" in os.environ[name] for name in names):
        return f": run `{sys.executable} -m pip install socksio`, or unset {', '.join(names)}"
    return f": is {', '.join(names)} right?" if names else ""


def retrying(what: str, call):
    """call(), again while its errors may pass. Fail: a line that begins with `what`."""
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except Exception as error:
            problem, wait = explain(error)
            if wait is None:
                raise Fail(f"{what}: {problem}") from error
            if attempt == TRIES:
                hint = "check the network, or set HF_ENDPOINT to a mirror; repeat to go on"
                raise Fail(f"{what}: {problem} ({TRIES} tries){proxy_hint()}: {hint}") from error
            wait = max(wait, BACKOFF_SECONDS * 2 ** (attempt - 1))
            say(f"{what}: {problem}; again in {wait:.0f} s")
            time.sleep(wait)
    raise AssertionError("unreachable")


# ---- The hub


class Hub:
    """The one place that talks to the network. Nothing is imported or locked until it must be."""

    def __init__(self) -> None:
        self.repo = os.environ.get("MATCHED_FINEWEB_REPO_ID") or "willdepueoai/parameter-golf"
        self.prefix = os.environ.get("MATCHED_FINEWEB_REMOTE_ROOT_PREFIX", "datasets").strip("/")
        self.source = f"{self.repo}/{self.prefix}"
        self.where = dict(repo_type="dataset", revision="", token=False)  # no revision: not connected
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Lets go of the lock. What a failed call has staged is kept for the next one."""
        for folder in staging_folders() if kind is None and self.where["revision"] else ():
            shutil.rmtree(folder, ignore_errors=True)
        self.stack.close()

    def remote(self, name: str) -> str:
        return f"{self.prefix}/{name}".lstrip("/")

    def connect(self, wanted: list[str]) -> None:
        """Loads the client, takes the folder's lock, pins the export's revision for this call."""
        if self.where["revision"]:
            return
        os.environ.setdefault("HF_XET_CHUNK_CACHE_SIZE_BYTES", "0")  # no second copy in a cache
        try:
            from huggingface_hub import HfApi, constants, hf_hub_download
            from huggingface_hub.utils import logging
        except ImportError as error:
            install = f"{sys.executable} -m pip install huggingface_hub"
            raise Fail(
                f"Python package {error.name} is missing from {sys.executable}; run `{install}`, or "
                "scripts/quickstart.sh, which makes .venv"
            ) from error
        except Exception as error:  # it reads its variables when imported
            raise Fail(f"huggingface_hub cannot be loaded: {type(error).__name__}: {error}") from error
        if constants.HF_HUB_OFFLINE:
            missing = f"missing, or not as recorded: {some(wanted)}"
            raise Fail(f"HF_HUB_OFFLINE is set, so nothing is fetched; {missing}")
        if not re.match("https?://", constants.ENDPOINT):
            raise Fail(
                f"HF_ENDPOINT={constants.ENDPOINT}: a URL (https://...) is needed; files that you have "
                f"already go into {ROOT}, then --verify"
            )
        logging.set_verbosity_error()  # its warnings are about retries, which are told here
        self.api, self.download = HfApi(), hf_hub_download
        self.lock()
        ask = partial(self.api.repo_info, self.repo, repo_type="dataset", timeout=30)
        what = f"{self.repo} at {constants.ENDPOINT}"
        self.where["revision"] = retrying(what, partial(self.public_first, ask)).sha

    def public_first(self, ask):
        """ask(token=...): without one, as the export is public; with one where that is refused."""
        from huggingface_hub import get_token

        try:
            return ask(token=False)
        except Exception as error:
            if "HF_TOKEN" not in explain(error)[0] or not get_token():
                raise
        answer = ask(token=True)
        self.where["token"] = True
        return answer

    def lock(self) -> None:
        """One download into a folder at a time; removes partial files that no client will resume."""
        try:
            file = self.stack.enter_context((staging(ROOT / MANIFEST) / "lock").open("wb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Fail(f"another download into {ROOT} is running: wait for it") from error
        except OSError as error:
            raise Fail(f"{ROOT}: {explain(error)[0]}") from error
        for path in (path for folder in staging_folders() for path in folder.rglob("*.incomplete")):
            if re.search(r"\.[0-9a-f]{8}\.incomplete$", path.name):  # named for a process that is gone
                path.unlink(missing_ok=True)

    def stat(self, names: list[str], optional: list[str] = ()) -> dict[str, dict]:
        """The hub's length and hash of each file. An optional one that it lacks is left out."""
        self.connect(names)
        wanted, found = [*names, *optional], {}
        for start in range(0, len(wanted), 100):
            paths = [self.remote(name) for name in wanted[start : start + 100]]
            ask = partial(self.api.get_paths_info, self.repo, paths, **self.where)
            for info in retrying(f"list of files of {self.source}", ask):
                if hasattr(info, "blob_id"):  # a file, not a folder
                    lfs = info.lfs.sha256 if info.lfs else None
                    found[info.path] = {"bytes": info.size, "sha256": lfs, "git_sha1": info.blob_id}
        if absent := [name for name in names if self.remote(name) not in found]:
            raise Fail(f"{self.source} does not have {some(absent)}: check MATCHED_FINEWEB_*")
        return {n: found[self.remote(n)] for n in wanted if self.remote(n) in found}

    def fetch(self, name: str, want: dict) -> dict:
        """Fetches a file, checks it, and only then puts it in its place. Returns its record."""
        folder = staging(ROOT / name)
        for _ in range(2):  # a file that arrives wrong twice will do so again
            get = partial(self.download, self.repo, self.remote(name), local_dir=folder, **self.where)
            staged = Path(retrying(name, get))
            problem, sha256 = inspect(staged, want)
            if sha256:
                os.replace(staged, ROOT / name)
                return self.entry(want, sha256)
            staged.unlink(missing_ok=True)  # or the client would take it for done
        raise Fail(f"{name}: fetched twice, and {problem}: the hub or the network alters it")

    def entry(self, want: dict, sha256: str) -> dict:
        return {"bytes": want["bytes"], "sha256": sha256, "source": self.source}


def require_space(want: dict[str, dict]) -> None:
    """Fail where the disk of the largest of these files has no room for all of them."""
    if not want:
        return
    need = sum(entry["bytes"] for entry in want.values())
    folder = staging(ROOT / max(want, key=lambda name: want[name]["bytes"]))
    disk = shutil.disk_usage(folder)
    if disk.total and need > disk.free:  # some network disks say 0 of 0
        raise Fail(f"{megabytes(need)} to fetch, {megabytes(disk.free)} free at {folder.parent}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# ---- What to fetch


def read_manifest() -> dict:
    try:
        manifest = json.loads((ROOT / MANIFEST).read_bytes())
        for entry in [*manifest["datasets"], *manifest["tokenizers"]]:
            entry["name"]
        return manifest
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Fail(f"{ROOT / MANIFEST} is no manifest of the export ({error!r:.200})") from error


def ready_manifest(dataset: str, skip: bool, hub: Hub, record: dict) -> dict:
    """The local manifest if it is as recorded and lists the dataset, else the hub's."""
    path, known = ROOT / MANIFEST, of_source(record, hub).get(MANIFEST)
    if skip and not path.is_file():
        raise Fail(f"--skip-manifest needs {path}, which is not there")
    if skip or known and not inspect(path, known)[0]:
        manifest = read_manifest()
        if skip or any(entry["name"] == dataset for entry in manifest["datasets"]):
            return manifest
    want = hub.stat([MANIFEST])[MANIFEST]
    problem, sha256 = inspect(path, want)
    require_space({MANIFEST: want} if problem else {})
    entry = hub.fetch(MANIFEST, want) if problem else hub.entry(want, sha256)
    manifest = read_manifest()  # before it is recorded: what is none is asked for anew
    note(record, MANIFEST, entry)
    return manifest


def of_source(record: dict, hub: Hub) -> dict[str, dict]:
    """The part of the record that came from this repository."""
    return {name: entry for name, entry in record.items() if entry["source"] == hub.source}


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
        docs = manifest.get("docs_jsonl") or "docs_selected.jsonl"
        required[0]  # a tokenizer has one file at least
        stem = docs.removesuffix(".jsonl")
        if not 0 < files_val <= MOST_SHARDS:
            raise ValueError(f"files_val is {files_val}")
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
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
        required += [docs, f"{stem}.source_manifest.json"]
    return required, optional


# ---- The commands


def fetch_variant(args: argparse.Namespace, hub: Hub) -> None:
    record = read_record()
    manifest = ready_manifest(f"fineweb10B_{args.variant}", args.skip_manifest, hub, record)
    required, optional = wanted_files(manifest, args, hub.source)
    want = {name: e for name, e in of_source(record, hub).items() if name in (*required, *optional)}
    missing = [name for name in required if name not in want or inspect(ROOT / name, want[name])[0]]
    bad = {}
    # The hub is asked only where the record does not suffice: all here means no network at all.
    # Once asked, it is asked about every file: one call, one revision of the export.
    if missing or any(inspect(ROOT / name, want[name])[0] for name in optional if name in want):
        hub.connect(missing)
        want = hub.stat(required, optional)
        for name, entry in want.items():
            problem, sha256 = inspect(ROOT / name, entry)
            if sha256:
                note(record, name, hub.entry(entry, sha256))
                continue
            bad[name] = entry
            if problem != "missing":
                say(f"{name}: {problem}: fetched anew")
    require_space(bad)
    small_first = sorted(bad, key=lambda name: bad[name]["bytes"])
    for number, name in enumerate(small_first, len(want) - len(bad) + 1):
        say(f"{number}/{len(want)} {name}, {megabytes(bad[name]['bytes'])}")
        note(record, name, hub.fetch(name, bad[name]))
    size = sum(entry["bytes"] for entry in want.values())
    say(f"{len(want)} files, {megabytes(size)}: {len(bad)} fetched, {len(want) - len(bad)} here", sys.stdout)
    say(f"DATA_PATH={ROOT / 'datasets' / ('fineweb10B_' + args.variant)}", sys.stdout)
    say(f"TOKENIZER_PATH={ROOT / required[0]}", sys.stdout)


def verify() -> None:
    """Checks, without the network, every recorded file and every shard that lies here."""
    record, problems, unrecorded = read_record(), {}, 0
    shards = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("datasets/*/fineweb_*.bin")}
    names = sorted(shards | {name for name in record if (ROOT / name).is_file()})
    for name in names:
        path = ROOT / name
        if want := record.get(name):
            problem = inspect(path, want)[0]
        else:  # a shard that another tool made: only its form can be judged
            problem, unrecorded = shard_problem(path, path.stat().st_size), unrecorded + 1
        if problem:
            problems[name] = problem
            say(f"BAD {name}: {problem}", sys.stdout)
    if not names:
        raise Fail(f"nothing to verify: {ROOT} holds no fetched file")
    if problems:
        raise Fail(
            f"{len(problems)} of {len(names)} files are bad: {some([*problems])}; fetch again to replace"
        )
    aside = f" ({unrecorded} shards without a recorded hash: header and length)" * bool(unrecorded)
    say(f"{len(names)} files are right{aside}", sys.stdout)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shards = dict(type=int, default=None)
    parser.add_argument("shards", nargs="?", **shards, help="the same as --train-shards")
    parser.add_argument("--variant", default="sp1024", help="sp<vocabulary size> or byte260 (default sp1024)")
    parser.add_argument("--train-shards", metavar="N", **shards, help="the first N train shards (default 2)")
    parser.add_argument("--with-docs", action="store_true", help="also the documents' text, tens of GB")
    parser.add_argument("--skip-manifest", action="store_true", help="use the local manifest.json as it is")
    parser.add_argument(
        "--verify", action="store_true", help="check all that is here, offline, fetch nothing"
    )
    args = parser.parse_args(argv)
    given = [count for count in (args.shards, args.train_shards) if count is not None]
    if len(given) > 1:
        parser.error("give the number of train shards once")
    args.train_shards = given[0] if given else 2
    if args.train_shards < 0:
        parser.error(f"--train-shards must not be negative, but is {args.train_shards}")
    if not re.fullmatch(r"byte260|sp[1-9][0-9]*", args.variant):
        parser.error(f"--variant is sp<vocabulary size> or byte260, not {args.variant!r}")
    return args


def main(argv: list[str] | None = None) -> int:
    for name in ("stdout", "stderr"):  # the client writes to what a caller may have closed
        setattr(sys, name, getattr(sys, name) or open(os.devnull, "w", encoding="utf-8"))
    args = parse(argv)
    try:
        if args.verify:
            verify()
        else:
            with Hub() as hub:
                fetch_variant(args, hub)
    except (Fail, OSError) as error:
        text = explain(error)[0] if isinstance(error, OSError) else error
        say(f"{Path(__file__).name}: error: {text}")
        return 1
    except KeyboardInterrupt:
        say(f"{Path(__file__).name}: stopped; repeat the call to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
