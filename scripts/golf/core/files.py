"""Reads foreign files with a size limit, and writes files as a whole; UTF-8 whatever the locale."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.paths import shown

LIMIT = 1 << 20  # bytes; env files and supervisor.json have some hundreds
AS_TEXT = "unpack it, or save it as UTF-8"
UNFINISHED = ".golf-unfinished-"  # what a folder's name begins with until it is whole
LARGE = 1 << 30  # of logs, shards' texts and tokenizers; a file with a hole may state any size


def plain(path: Path, limit: float = float("inf")) -> Path:
    """`path`, if a regular file or nothing is there; GolfError, code 2, for all else, or over `limit` bytes.

    Reading a device may never end, nor does opening a pipe that nobody writes to. /dev/null may stand for an
    empty file.
    """
    odd = os.path.exists(path) and not os.path.isfile(path) and os.path.realpath(path) != os.devnull
    if odd or "\0" in str(path):  # which no system has
        raise GolfError(f"{shown(path)}: not a regular file; name a file, or save it as one", 2)
    if os.path.isfile(path) and os.path.getsize(path) > limit:
        raise GolfError(f"{shown(path)}: over {limit:,} bytes, too large for this kind of file", 2)
    return path


def read_bytes(path: Path, limit: float = LIMIT) -> bytes:
    """The file's bytes; GolfError, code 2, if it cannot be read or is larger than `limit`."""
    try:
        return plain(path, limit).read_bytes()
    except OSError as error:
        raise GolfError(f"{shown(path)}: cannot be read ({error.strerror})", 2) from None


def read_text(path: Path, limit: float = LIMIT) -> str:
    """The file as UTF-8, with or without a byte order mark; GolfError, code 2, for other text."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GolfError(f"{shown(path)}: not UTF-8 text (byte {error.start}); {AS_TEXT}", 2) from None


def sha256(path: Path) -> str:
    return sha256_and_size(path)[0]


def sha256_and_size(path: Path, limit: float = float("inf")) -> tuple[str, int]:
    """SHA-256 and number of bytes of a file; stops reading within a block past `limit` bytes."""
    digest, size = hashlib.sha256(), 0
    with plain(path).open("rb") as file:
        while size <= limit and (block := file.read(1 << 20)):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def replace_file(path: Path, content: str | bytes) -> None:
    """Replaces a file in one step; if that fails, the old file stays. Text is written as UTF-8.

    What is not a regular file (/dev/stdout) is written to instead. OSError names `path`.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    place = Path(os.path.realpath(path))  # a link stays one
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe has no real path
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # OSError, no waiting, where nobody reads
            os.set_blocking(pipe, True)
            with open(pipe, "wb") as file:
                file.write(data)
            return
        os.stat(f"{place.parent}/.")  # no folder is made for it
        with unfinished(place.parent) as temporary:
            (temporary / "file").write_bytes(data)
            (temporary / "file").replace(place)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """A new hidden folder in `parent` in which to make what is then renamed; at the end it is removed.

    First it removes those whose process was killed. A living process holds a lock on its own, so none is made
    directly in another.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with held(parent, fcntl.LOCK_EX):  # else another's folder could be seen before it is locked
            for path in parent.glob(f"{UNFINISHED}*"):
                with held(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as abandoned:
                    if abandoned:
                        shutil.rmtree(path, ignore_errors=True)
            made = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent, prefix=UNFINISHED)))
            stack.enter_context(held(made, fcntl.LOCK_EX))
        try:
            yield made
        except OSError as error:
            error.filename = error.filename or str(parent)  # a write to a full disk names no file
            raise


@contextmanager
def held(folder: Path, how: int) -> Iterator[bool]:
    """Locks a folder, where that is possible; whether it did."""
    with ExitStack() as stack:
        locked = False
        with suppress(OSError):  # not ours to open, another's lock, or a file system without locks
            number = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, number)
            fcntl.flock(number, how)
            locked = True
        yield locked


def renew(stale: dict[Path, Callable[[], str | bytes]], command: str, check: bool) -> None:
    """Writes the files that are not up to date; with `check` a GolfError names them instead."""
    if check and stale:
        names = ", ".join(map(shown, stale))
        raise GolfError(f"stale: {names}; run scripts/golf.sh {command} and commit that")
    for path, make in stale.items():
        replace_file(path, make())
        print(f"wrote {shown(path)}")
    if not stale:
        print(f"{command}: up to date")
