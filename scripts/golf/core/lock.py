"""One run a folder: <run>/.lock, held for as long as the run lasts."""

import fcntl
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.paths import shown


def refuse_used(run_dir: Path) -> bool:
    """GolfError if another process holds the folder's lock; else whether the folder has a lock file."""
    try:
        with (run_dir / ".lock").open("rb") as file:
            take(file, fcntl.LOCK_SH, run_dir, "choose another RUN_ID")
            return True
    except OSError:
        return False  # not there, or no locks there: locked() says so


@contextmanager
def locked(run_dir: Path, instead: str = "choose another RUN_ID"):
    """Holds run_dir/.lock. At the end, a folder that holds nothing else is removed.

    If the file system has no locks (NFS without lockd, Lustre without flock), a warning says so, and the run
    goes on without one.
    """
    path = run_dir / ".lock"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise GolfError(f"{shown(path)}: cannot be written ({error.strerror}); set another OUT_DIR") from None
    try:
        try:
            take(file, fcntl.LOCK_EX, run_dir, instead)
        except OSError as error:
            why = f"no file locks in {shown(run_dir)} ({error.strerror}): going on without"
            what = "start no second run there, or set OUT_DIR to a folder on another disk"
            with suppress(OSError):
                print(f"golf run: warning: {why}; {what}", file=sys.stderr, flush=True)
        with suppress(OSError):  # the process's id is only for messages
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
        yield
    finally:
        with suppress(OSError):
            if {p.name for p in run_dir.iterdir()} <= {".lock", "supervisor.json"}:
                shutil.rmtree(run_dir, ignore_errors=True)
        with suppress(OSError):  # a full disk may say so once more
            file.close()


def take(file, kind: int, run_dir: Path, instead: str) -> None:
    """Takes the lock without waiting. GolfError: another process holds it. OSError: no locks here."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # held by another process
        file.seek(0)
        holder = file.read(20).decode("ascii", "replace").strip()
        raise GolfError(f"{shown(run_dir)} is in use by process {holder or 'unknown'}; {instead}") from None
