"""The sandbox that submissions run in: bubblewrap, and limits that are watched from outside.

A submission sees the system's libraries and this Python's packages, read-only; a copy of its own
counted files; an empty home. It has no network, no other process, no capability, and neither the
validation stream nor any file of the user's. https://github.com/containers/bubblewrap
"""

from __future__ import annotations

import os
import shutil
import signal
import site
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HOME, FOLDER, HOST = "/home/scorer", "/submission", "/scorer_host.py"
TMPFS_BYTES = 1 << 30
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives")
CUDA_DEVICES = ("nvidia*", "dxg")  # dxg: WSL2
PASSED_ON = ("LANG", "LC_ALL", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limits:
    """What one submission may use; over it, the sandbox ends."""

    load_seconds: float = 600.0  # importing the script, load_scorer
    call_seconds: float = 900.0  # one call of reset or log_probs
    memory_bytes: int = min(16 << 30, PAGE_BYTES * os.sysconf("SC_PHYS_PAGES") * 3 // 4)
    tasks: int = 256 + 16 * (os.cpu_count() or 1)  # processes and threads


@dataclass(frozen=True)
class Usage:
    """What a process and all below it use."""

    tasks: int
    memory_bytes: int  # resident; pages that processes share count for each


@cache
def why_not() -> str | None:
    """Why bubblewrap cannot be used here, and what to do; None: it can."""
    if not sys.platform.startswith("linux"):
        return "the sandbox needs Linux (on Windows: WSL2)"
    if shutil.which("bwrap") is None:
        return "the sandbox needs the package bubblewrap; install it (sudo apt install bubblewrap)"
    tried = subprocess.run(
        ["bwrap", "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if tried.returncode == 0:
        return None
    said = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
    return (
        f"bubblewrap cannot make namespaces here ({said}); allow unprivileged user namespaces "
        "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
    )


@cache
def options() -> str:
    """The options that this bubblewrap knows."""
    return subprocess.run(["bwrap", "--help"], capture_output=True, text=True).stdout


def python_folders() -> list[Path]:
    """The folders outside /usr that this Python and its packages lie in."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_exec_prefix)]
    if user_packages():
        folders.append(Path(user_packages()))
    return [f for f in dict.fromkeys(folders) if f.is_dir() and not f.is_relative_to("/usr")]


def user_packages() -> str | None:
    """`pip install --user`'s folder, where this Python looks into it."""
    folder = site.getusersitepackages()
    return folder if folder in sys.path else None


def shows(path: Path) -> bool:
    """Whether the sandbox would let a submission read what lies at `path`."""
    seen = [Path("/usr"), *map(Path, SYSTEM), *python_folders()]
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in seen)


def command(folder: Path, host: Path, device: str) -> list[str]:
    """bubblewrap's part of the command line: `folder` becomes FOLDER, the file `host` HOST."""
    args = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
    args += ["--hostname", "scorer", "--cap-drop", "ALL", "--new-session", "--die-with-parent"]
    if "--disable-userns" in options():
        args.append("--disable-userns")
    args += ["--ro-bind", "/usr", "/usr"]
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            args += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            args += ["--ro-bind", str(path), str(path)]
    for name in ETC:
        args += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for path in python_folders():
        args += ["--ro-bind", str(path), str(path)]
    args += ["--proc", "/proc", "--dev", "/dev"]
    if device == "cuda":
        args += ["--ro-bind", "/sys", "/sys"]  # the driver looks for its devices there
        for path in (p for pattern in CUDA_DEVICES for p in sorted(Path("/dev").glob(pattern))):
            args += ["--dev-bind", str(path), str(path)]
    for path in ("/tmp", "/dev/shm", HOME):
        size = ["--size", str(TMPFS_BYTES)] if "--size " in options() else []
        args += [*size, "--tmpfs", path]
    args += ["--ro-bind", str(folder), FOLDER, "--ro-bind", str(host), HOST]
    # The root and /dev are file systems in memory themselves.
    return [*args, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", FOLDER, "--"]


def environment(home: str = HOME) -> dict[str, str]:
    """All variables that a submission sees."""
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env |= {"HOME": home, "USER": "scorer", "TMPDIR": "/tmp", "PATH": "/usr/bin:/bin"}
    env |= {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}  # the same results each time
    if user_packages():
        env["PYTHONPATH"] = user_packages()
    return env


def usage(pid: int) -> tuple[Usage, list[int]]:
    """What the processes below `pid` use, and their ids; nothing where there is no /proc.

    The orphans of a PID namespace belong to its init, which is below bubblewrap: none gets away.
    """
    below, figures = defaultdict(list), {}
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        below[int(fields[1])].append(int(name))
        figures[int(name)] = int(fields[17]), int(fields[21])  # threads, resident pages
    found = [pid]
    for parent in found:
        found += below[parent]
    tasks, pages = (sum(column) for column in zip((0, 0), *(figures[p] for p in found[1:])))
    return Usage(tasks, pages * PAGE_BYTES), found[1:]


def memory_left() -> float:
    """The part of the machine's memory that is still available, 0 to 1.

    A backstop: files in memory belong to no process's resident set.
    """
    try:
        with open("/proc/meminfo") as file:
            sizes = {name: int(rest.split()[0]) for name, rest in (s.split(":") for s in file)}
        return sizes["MemAvailable"] / sizes["MemTotal"]
    except (OSError, KeyError):
        return 1.0


def end(process: subprocess.Popen) -> None:
    """Kills the process and all below it, and returns when they are gone."""
    if process.poll() is None:
        # The namespace's init goes first: the kernel ends all of the namespace with it, and
        # bubblewrap, waiting for it, leaves nothing unreaped.
        below = usage(process.pid)[1]
        for pid in below:
            kill(os.kill, pid)
        try:
            process.wait(2 if below else 0)
        except subprocess.TimeoutExpired:
            kill(os.kill, process.pid)
    kill(os.killpg, process.pid)  # without a sandbox: what outlived its parent
    process.wait()


def kill(how, pid: int) -> None:
    try:
        how(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
