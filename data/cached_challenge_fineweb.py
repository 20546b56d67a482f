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
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
MANIFEST, CHECKSUMS, STAGING = "manifest.json", ROOT / "checksums.json", ".incoming"
DEFAULT_TRAIN_SHARDS = 2
HEADER_BYTES, SHARD_MAGIC, SHARD_VERSION = 256 * 4, 20240520, 1

TRIES = 5
BACKOFF_SECONDS = 1.0  # doubles with each try
LONGEST_WAIT_SECONDS = 300.0  # a hub that asks for more is reported, not waited for
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# Base classes of what may pass by itself, of httpx (newer clients), requests and urllib3 (older ones).
PASSING = {
    "TransportError",
    "TimeoutException",
    "ConnectionError",
    "Timeout",
    "ChunkedEncodingError",
    "ProtocolError",
    "gaierror",
    "TimeoutError",
    "IncompleteRead",
}
PROXIES = [name for stem in ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY") for name in (stem, stem.lower())]


class Fail(Exception):
    """Something a user can act on: printed as one line, exit code 1."""


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
    kind = "sha256" if want.get("sha256") else "git_sha1"
    with path.open("rb") as file:
        while block := file.read(4 << 20):
            for name in {"sha256", kind}:
                digests[name].update(block)
    found = digests[kind].hexdigest()
    if found != want[kind]:
        return f"its {kind} is {found[:12]}… instead of {want[kind][:12]}…", None
    return None, digests["sha256"].hexdigest()


def read_record() -> dict[str, dict]:
    """checksums.json: of each file once fetched, its bytes, its sha256 and the source it came from."""
    if not CHECKSUMS.exists():
        return {}
    try:
        files = json.loads(CHECKSUMS.read_bytes())["files"]
        return {n: {key: e[key] for key in ("bytes", "sha256", "source")} for n, e in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Fail(f"{CHECKSUMS} is damaged: delete it and fetch again online") from error


def write_record(files: dict[str, dict]) -> None:
    draft = staging(CHECKSUMS) / CHECKSUMS.name
    record = {"schema_version": 1, "files": dict(sorted(files.items()))}
    draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, CHECKSUMS)


# ---- errors in words -----------------------------------------------------------------------


def causes_of(error: BaseException | None) -> list[BaseException]:
    """The error and what it came from, the client's wrappers first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def retry_after(headers) -> float:
    """Seconds that a Retry-After header asks for (a number or a date); 0 where there is none."""
    value = headers.get("Retry-After") or "0"
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def diagnose(error: BaseException) -> tuple[str, float | None]:
    """(a line for a person, seconds to wait before a retry or None where none can help).

    The client wraps errors differently from version to version, so this reads the whole chain of
    causes and relies on no class of theirs. What it does not know is reported as it is.
    """
    causes = causes_of(error)
    for cause in causes:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None and status >= 400:
            return diagnose_status(status, cause.response.headers)
        if "os error 28" in str(cause):  # how the Xet library, which is Rust, says ENOSPC
            return os.strerror(errno.ENOSPC), None
        if isinstance(cause, OSError) and cause.errno in NO_LOCKS:
            return (
                f"no file locks there ({cause.strerror}); fetch on another disk and make "
                "data/datasets a link to it, or copy the files"
            ), None
        if isinstance(cause, OSError) and (cause.filename or cause.errno in DISK):
            return str(cause) if cause.filename else os.strerror(cause.errno), None
    text = (str(causes[-1]).strip() or type(causes[-1]).__name__).splitlines()[0][:200]
    names = {base.__name__ for cause in causes for base in type(cause).__mro__}
    if "ImportError" in names or "UnsupportedProtocol" in names or re.search("(?i)proxy|socks", text):
        return f"{text}{proxy_hint()}", None
    if any("CERTIFICATE_VERIFY_FAILED" in str(cause) for cause in causes):
        return f"{text}; where a proxy signs anew, set SSL_CERT_FILE to its certificate", None
    if names & PASSING or any("Consistency check failed" in str(cause) for cause in causes):
        return text, 0.0
    return f"{type(causes[-1]).__name__}: {text}", None


def diagnose_status(status: int, headers) -> tuple[str, float | None]:
    if status in (401, 403, 404):
        why = "not found" if status == 404 else "no such repository, or it needs a valid HF_TOKEN"
        return f"the hub answered {status} ({why})", None
    if status == 407:
        return f"the proxy wants a name and a password{proxy_hint()}", None
    if status < 500 and status not in (408, 425, 429):
        return f"the hub answered {status}", None
    if (wait := retry_after(headers)) > LONGEST_WAIT_SECONDS:
        return f"the hub answered {status} and asks for {wait:.0f} s: try later", None
    return f"the hub answered {status}", wait


def proxy_hint() -> str:
    """What to do about the proxies that are set."""
    names = [name for name in PROXIES if os.environ.get(name)]
    if any("socks" in os.environ[name] for name in names):
        socks = f"for a SOCKS proxy run `{sys.executable} -m pip install socksio`, or "
        return f": {socks}unset {', '.join(names)}"
    return f": is {', '.join(names)} right?" if names else ""


def retrying(what: str, call):
    """call(), again while its errors may pass. Fail says what it was, in a line that begins with `what`."""
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except Exception as error:
            problem, wait = diagnose(error)
            if wait is None:
                raise Fail(f"{what}: {problem}") from error
            if attempt == TRIES:
                hint = "check the network, or set HF_ENDPOINT to a mirror; repeat to go on"
                raise Fail(f"{what}: {problem} ({TRIES} tries){proxy_hint()}: {hint}") from error
            wait = max(wait, BACKOFF_SECONDS * 2 ** (attempt - 1))
            print(f"{what}: {problem}; again in {wait:.0f} s", file=sys.stderr)
            time.sleep(wait)
    return None


# ---- the hub ------------------------------------------------------------------------------


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
        os.environ.setdefault("HF_XET_CHUNK_CACHE_SIZE_BYTES", "0")  # no second copy in a cache
        try:
            import filelock
            from huggingface_hub import HfApi, constants, get_token, hf_hub_download
            from huggingface_hub.utils import logging
        except ImportError as error:
            raise Fail(
                f"Python package {error.name} is missing from {sys.executable}; run "
                f"`{sys.executable} -m pip install huggingface_hub`, or scripts/quickstart.sh, "
                "which makes .venv"
            ) from error
        except Exception as error:  # it reads its variables when imported
            raise Fail(f"huggingface_hub cannot be loaded: {type(error).__name__}: {error}") from error
        if constants.HF_HUB_OFFLINE:
            raise Fail(
                f"HF_HUB_OFFLINE is set, so nothing is fetched; missing, or not as recorded: {some(wanted)}"
            )
        if not re.match("https?://", constants.ENDPOINT):
            raise Fail(
                f"HF_ENDPOINT={constants.ENDPOINT}: a URL (https://...) is needed; files that you "
                f"have already go into {ROOT}, then --verify"
            )
        logging.set_verbosity_error()  # its warnings are about retries, which are told here
        self.api, self.download, self.token = HfApi(), hf_hub_download, get_token()
        lock = filelock.FileLock(staging(ROOT / MANIFEST) / "lock", 0)
        try:
            self.stack.enter_context(lock)
        except filelock.Timeout as error:
            raise Fail(f"another download into {ROOT} is running: wait for it") from error
        except NotImplementedError as error:  # how filelock says ENOSYS
            raise Fail(f"{ROOT}: {diagnose(OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)))[0]}") from error
        except OSError as error:
            raise Fail(f"{ROOT}: {diagnose(error)[0]}") from error
        clean_staging(leftovers_only=True)
        where = f"{self.repo} at {constants.ENDPOINT}"
        self.revision = retrying(
            where,
            lambda: self.first_call(
                lambda token: self.api.repo_info(self.repo, repo_type="dataset", timeout=30, token=token)
            ),
        ).sha

    def first_call(self, call):
        """call(token), and where the token is refused without one: the export is public."""
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            self.drop_token("holds characters that no token has")
        try:
            return call(self.token or False)
        except Exception as error:
            refused = any(
                getattr(getattr(c, "response", None), "status_code", None) in (401, 403)
                for c in causes_of(error)
            )
            if not (refused and self.token):
                raise
        self.drop_token("is refused (expired?)")
        return call(False)

    def drop_token(self, why: str) -> None:
        print(
            f"the token in HF_TOKEN (or of `hf auth login`) {why}: goes on without; unset or renew it",
            file=sys.stderr,
        )
        self.token = None

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        """Lets go of the lock. What a call that failed has staged is kept for the next one."""
        if kind is None and self.revision:
            clean_staging()
        self.stack.close()

    def stat(self, names: list[str], optional: list[str] = ()) -> dict[str, dict]:
        """The hub's length and hash of each file. An optional one that it lacks is left out."""
        self.connect(names)
        wanted, found = [*names, *optional], {}
        for start in range(0, len(wanted), 100):
            paths = [self.remote(name) for name in wanted[start : start + 100]]
            infos = retrying(
                f"list of files of {self.source}",
                lambda paths=paths: self.api.get_paths_info(
                    self.repo, paths, repo_type="dataset", revision=self.revision, token=self.token or False
                ),
            )
            for info in infos:
                if hasattr(info, "blob_id"):  # a file, not a folder
                    lfs = info.lfs.sha256 if info.lfs else None
                    found[info.path] = {"bytes": info.size, "sha256": lfs, "git_sha1": info.blob_id}
        absent = [name for name in names if self.remote(name) not in found]
        if absent:
            raise Fail(f"{self.source} does not have {some(absent)}: check MATCHED_FINEWEB_*")
        return {n: found[self.remote(n)] for n in wanted if self.remote(n) in found}

    def fetch(self, name: str, want: dict) -> str:
        """Fetches a file, checks it, and only then puts it in its place. Returns its SHA-256."""
        target = ROOT / name
        problem = None
        for _ in range(2):  # a file that arrives wrong twice will do so again
            staged = Path(
                retrying(
                    name,
                    lambda: self.download(
                        self.repo,
                        self.remote(name),
                        repo_type="dataset",
                        revision=self.revision,
                        local_dir=staging(target),
                        token=self.token or False,
                    ),
                )
            )
            problem, sha256 = inspect(staged, want)
            if sha256:
                os.replace(staged, target)
                return sha256
            staged.unlink(missing_ok=True)  # or the client would take it for done
        raise Fail(f"{name}: fetched twice, and {problem}: the hub or the network alters it")


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


def require_space(want: dict[str, dict]) -> None:
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


# ---- the commands -----------------------------------------------------------------------------


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
    path, known = ROOT / MANIFEST, expected(record, MANIFEST, hub)
    if skip:
        if not path.is_file():
            raise Fail(f"--skip-manifest needs {path}, which is not there")
        return read_manifest()
    if known and not inspect(path, known)[0]:
        manifest = read_manifest()
        if any(entry["name"] == dataset for entry in manifest["datasets"]):
            return manifest
    want = hub.stat([MANIFEST])[MANIFEST]
    problem, sha256 = inspect(path, want)
    if problem:
        require_space({MANIFEST: want})
        sha256 = hub.fetch(MANIFEST, want)
    manifest = read_manifest()  # before it is recorded: what is none is asked for anew
    note(record, MANIFEST, sha256, want, hub)
    return manifest


def expected(record: dict, name: str, hub: Hub) -> dict | None:
    want = record.get(name)
    return want if want and want["source"] == hub.source else None


def note(record: dict, name: str, sha256: str, want: dict, hub: Hub) -> None:
    entry = {"bytes": want["bytes"], "sha256": sha256, "source": hub.source}
    if record.get(name) != entry:
        record[name] = entry
        write_record(record)


def wanted_files(manifest: dict, args: argparse.Namespace, source: str) -> tuple[list[str], list[str]]:
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
    if not required:
        raise Fail(f"{ROOT / MANIFEST}: the entry of {dataset} is not whole (no tokenizer file)")
    if args.train_shards > files_train:
        raise Fail(f"{args.variant} has {files_train} train shards, {args.train_shards} asked for")
    # A manifest comes from elsewhere: it must not name, and so replace, anything else in here.
    for name in [*required, *optional, f"tokenizers/{docs}"]:
        if not re.fullmatch(r"tokenizers/\w[\w.-]*", str(name)):
            raise Fail(f"{ROOT / MANIFEST} names a file that is none of the export's: {name}")
    for split, count in (("val", files_val), ("train", args.train_shards)):
        required += [f"datasets/{dataset}/fineweb_{split}_{i:06d}.bin" for i in range(count)]
    if args.with_docs:
        required += [docs, f"{docs.removesuffix('.jsonl')}.source_manifest.json"]
    return required, optional


def check_local(want: dict[str, dict], record: dict, hub: Hub | None) -> dict[str, str]:
    """What is wrong, by file. With `hub`, what is right by its hashes is recorded."""
    bad = {}
    for name, entry in want.items():
        problem, sha256 = inspect(ROOT / name, entry)
        if problem:
            bad[name] = problem
        elif hub:
            note(record, name, sha256, entry, hub)
    return bad


def fetch_variant(args: argparse.Namespace, hub: Hub) -> None:
    record = read_record()
    manifest = ready_manifest(f"fineweb10B_{args.variant}", args.skip_manifest, hub, record)
    required, optional = wanted_files(manifest, args, hub.source)
    recorded = {name: expected(record, name, hub) for name in required + optional}
    want = {name: entry for name, entry in recorded.items() if entry}
    unknown = [name for name in required if name not in want]
    # The hub is asked only where the record does not suffice: all here means no network at all.
    # Once asked, it is asked about every file: one call, one revision of the export.
    bad = {} if unknown else check_local(want, record, None)
    if unknown or bad:
        hub.connect(unknown or list(bad))
        want = hub.stat(required, optional)
        bad = check_local(want, record, hub)
    for name, problem in bad.items():
        if problem != "missing":
            print(f"{name}: {problem}: fetched anew", file=sys.stderr)
    require_space({name: want[name] for name in bad})
    small_first = sorted(bad, key=lambda name: want[name]["bytes"])
    for number, name in enumerate(small_first, len(want) - len(bad) + 1):
        print(f"{number}/{len(want)} {name}, {megabytes(want[name]['bytes'])}", file=sys.stderr, flush=True)
        note(record, name, hub.fetch(name, want[name]), want[name], hub)
    size = sum(entry["bytes"] for entry in want.values())
    print(f"{len(want)} files, {megabytes(size)}: {len(bad)} fetched, {len(want) - len(bad)} here")
    print(f"DATA_PATH={ROOT / 'datasets' / ('fineweb10B_' + args.variant)}")
    print(f"TOKENIZER_PATH={ROOT / required[0]}")


def verify() -> None:
    """Checks, without the network, every recorded file and every shard that lies here."""
    record = read_record()
    bad, checked, unrecorded = [], 0, 0
    shards = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("datasets/*/fineweb_*.bin")}
    for name in sorted(shards | {name for name in record if (ROOT / name).is_file()}):
        path, checked = ROOT / name, checked + 1
        if want := record.get(name):
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
    aside = f" ({unrecorded} shards without a recorded hash: header and length)" * bool(unrecorded)
    print(f"{checked} files are right{aside}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("shards", nargs="?", type=int, help="the same as --train-shards")
    add("--variant", default="sp1024", help="sp<vocabulary size> or byte260 (default sp1024)")
    add(
        "--train-shards",
        type=int,
        metavar="N",
        help=f"train shards to have, from the first on (default {DEFAULT_TRAIN_SHARDS})",
    )
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
