"""The sandbox that submissions run in: bubblewrap, a filter of system calls, another user.

A submission sees this Python, the packages that scoring needs and shared libraries, read-only
(view.py); a copy of its own counted files; an empty home. It has no network, no other
process, no capability, and neither the validation stream nor any file of the user's. What it may
ask of the kernel is in syscalls.py. https://github.com/containers/bubblewrap
"""

import os
import platform
import shutil
import site
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from golf.core import machine
from golf.core.text import last_line
from golf.score.sandbox import syscalls
from golf.score.sandbox.view import View, library_path, links, view

HOME, FOLDER, HOST = "/home/scorer", "/submission", "/scorer_host.py"
NOBODY = 65534
TMPFS_BYTES = 1 << 30
ETC = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
CUDA_DEVICES = ("nvidia*", "dxg")  # dxg: WSL2
# What is shown of /proc besides a process's own files, on CUDA alone: its driver looks for its devices
# there. The rest are counters of the whole machine, which two passes could talk by, and settings.
PROC = ("self", "thread-self", "mounts", "net", "cpuinfo", "filesystems", "version")
PROC += ("devices", "driver", "modules", "sys")
SYS_HIDDEN_CUDA = ("fs", "kernel", "power", "firmware")
PASSED_ON = "LANG LC_ALL OMP_NUM_THREADS OMP_WAIT_POLICY LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES".split()
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
READ_AHEAD_BYTES = PAGE_BYTES * os.sysconf("SC_PHYS_PAGES") // 2  # of what is shown
PYTHON = [sys.executable, "-I", "-S", "-c"]
PARTS = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]


@dataclass(frozen=True)
class Limits:
    """Limits of one submission; the sandbox is killed over them."""

    load_seconds: float = 600.0  # importing the script, load_scorer
    call_seconds: float = 900.0  # one call of reset or log_probs
    stream_seconds: float = 12 * 3600.0  # all calls of a stream, which may be hundreds
    memory_bytes: int = min(16 << 30, PAGE_BYTES * os.sysconf("SC_PHYS_PAGES") * 3 // 4)
    tasks: int = 256 + 16 * (os.cpu_count() or 1)  # processes and threads


@dataclass(frozen=True)
class User:
    """The user that a submission runs as, and bubblewrap's options for it."""

    uid: int | None  # what host.py becomes; None: it stays what bubblewrap made it
    options: tuple[str, ...]


def users() -> list[User]:
    """The ways to run a submission as an unprivileged user, the best first.

    Root starts bubblewrap as itself and the host then becomes NOBODY for good, for the kernel too.
    Anyone else, and a root that may not do that, needs a user namespace: the kernel then still knows
    a submission as who runs the scorer, but for what is read-only or refused in any case.
    """
    alone = ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL"]
    if "--disable-userns" in options():
        alone.append("--disable-userns")
    found = [User(None, tuple(alone))]
    if os.geteuid() == 0 and "--perms " in options() and all(map(readable_by_all, view().shown)):
        capabilities = ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
        found.insert(0, User(NOBODY, capabilities))
    return found


def readable_by_all(path: Path) -> bool:
    """Whether others than its owner may read it, once it lies where they can go."""
    needed = 0o5 if path.is_dir() else 0o4
    return path.stat().st_mode & needed == needed


@cache
def user() -> User | str:
    """The best user that works here; or why bubblewrap cannot be used."""
    for candidate in users():
        become = f"import os; os.setgroups([]); os.setresuid(*[{candidate.uid}] * 3)"
        with syscalls.filter_file() as file:
            # a Python that lies in /dev/shm is still there to be tried
            args = [*candidate.options, "--dev", "/dev", *in_place("--ro-bind-try", "/dev/shm")]
            args += ["--seccomp", str(file.fileno()), *PYTHON, become if candidate.uid else "pass"]
            said = refusal([*PARTS, *args], pass_fds=[file.fileno()])
        if said is None:
            return candidate
    return said


def refusal(args: list[str], **options) -> str | None:
    """What bubblewrap says of a sandbox that shows this machine whole; None: it comes up and ends well."""
    command = ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", *args]
    options |= dict(stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace")
    tried = subprocess.run(command, **options)
    return last_line(tried.stderr, f"exit code {tried.returncode}") if tried.returncode else None


@cache
def why_not() -> str | None:
    """Why bubblewrap cannot be used here, and what to do; None: it can."""
    if not sys.platform.startswith("linux"):
        return "the sandbox needs Linux (on Windows: WSL2)"
    if platform.machine() not in syscalls.MACHINES or sys.maxsize < 1 << 32:
        return f"the sandbox needs 64-bit Python on {' or '.join(syscalls.MACHINES)}"
    if shutil.which("bwrap") is None:
        return "the sandbox needs the package bubblewrap; install it (sudo apt install bubblewrap)"
    said = user()
    if isinstance(said, User):
        return None
    return f"bubblewrap cannot make namespaces here ({said}); {what_to_do()}"


def what_to_do() -> str:
    """What to do on a machine that forbids namespaces; docs/scoring.md says more."""
    if any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv")):
        return (
            "start the container with --security-opt seccomp=unconfined --security-opt "
            "apparmor=unconfined --security-opt systempaths=unconfined --cap-add SYS_ADMIN, or score "
            "outside it"
        )
    settings = {  # that forbid, at the value that does
        "kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
        "kernel/unprivileged_userns_clone": ("0", "1"),
        "user/max_user_namespaces": ("0", "15000"),
    }
    for name, (forbids, allows) in settings.items():
        path = Path("/proc/sys", name)
        if path.exists() and path.read_text(encoding="utf-8").strip() == forbids:
            profile = ", or give bwrap the AppArmor profile in docs/scoring.md" if "apparmor" in name else ""
            return f"sudo sysctl -w {name.replace('/', '.')}={allows}{profile}"
    return "allow unprivileged user namespaces (docs/scoring.md, The sandbox)"


@cache
def options() -> str:
    """The options that this bubblewrap knows."""
    return subprocess.run(["bwrap", "--help"], capture_output=True, encoding="utf-8", errors="replace").stdout


def shows(path: Path) -> bool:
    """Whether a submission could read `path` in the sandbox."""
    return view().includes(path.resolve())


def command(folder: Path, host: Path, device: str, filter_fd: int) -> list[str]:
    """bubblewrap's part of the command line: `folder` becomes FOLDER, the file `host` HOST.

    filter_fd: a file that holds syscalls.program(), which the process inherits.
    """
    args = ["bwrap", *PARTS, *user().options, "--hostname", "scorer", "--new-session", "--die-with-parent"]
    args += ["--dev", "/dev"]
    for path in ("/tmp", "/dev/shm", HOME):
        args += tmpfs(path, TMPFS_BYTES, "1777")
    for name in links():
        if os.path.islink(f"/{name}"):
            args += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
    args += ["--dir", "/etc", *in_place("--ro-bind-try", *ETC), *show(view()), *proc_and_sys(device)]
    args += ["--ro-bind", str(folder), FOLDER, "--ro-bind", str(host), HOST]
    # The root and /dev are file systems in memory themselves.
    args += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*args, "--seccomp", str(filter_fd), "--chdir", FOLDER, "--"]


def in_place(how: str, *paths: Path | str) -> list[str]:
    """Options that bind paths of this machine to where they lie."""
    return [word for path in paths for word in (how, str(path), str(path))]


def show(what: View) -> list[str]:
    """Each path where it lies, folders before what lies in them."""
    around = {parent for path in what.shown for parent in path.parents if not what.includes(parent)}
    # bubblewrap alone would let nobody but root into them.
    args = [arg for path in sorted(around) for arg in ("--dir", str(path))]
    for path in sorted({*what.shown, *what.hidden}):
        args += in_place("--ro-bind", path) if path in what.shown else hide(path)
    return args


def hide(path: Path | str) -> list[str]:
    """Options that cover a path with an empty file or folder.

    Where only a user namespace is to be had, that folder can be written to, for it is the user's: a
    page of memory, which counts. To make it read-only would take four times as long.
    """
    if not os.path.isdir(path):
        return ["--ro-bind", "/dev/null", str(path)]
    return tmpfs(path, PAGE_BYTES, "0555")


def tmpfs(path: Path | str, size: int, mode: str) -> list[str]:
    """Options for an empty folder in memory, with size and mode where this bubblewrap knows them."""
    wanted = {"--size": str(size), "--perms": mode}
    known = [word for name, value in wanted.items() if f"{name} " in options() for word in (name, value)]
    return [*known, "--tmpfs", str(path)]


def proc_and_sys(device: str) -> list[str]:
    """On a CPU /proc holds the CPU's name alone. CUDA's driver wants more: then what is not a process's own
    is hidden. It may be writable where the kernel takes us for root.

    /proc/1 is bubblewrap, the same user in a user namespace: who writes into its memory outlives the scorer.
    """
    if device != "cuda":
        return ["--dir", "/proc", *in_place("--ro-bind-try", "/proc/cpuinfo")]
    args = ["--proc", "/proc", *hide("/proc/1")]
    root = os.geteuid() == 0 and user().uid is None
    for name in sorted(os.listdir("/proc")):
        if name in PROC or name.isdigit():
            continue
        if root or os.stat(f"/proc/{name}").st_mode & 0o4:  # else it is not to be read
            args += hide(f"/proc/{name}")
    args += in_place("--ro-bind-try", "/proc/driver", "/proc/sys") + in_place("--ro-bind", "/sys")
    for name in SYS_HIDDEN_CUDA:
        args += hide(f"/sys/{name}") if os.path.exists(f"/sys/{name}") else []
    return args + cuda_devices()


def cuda_devices() -> list[str]:
    paths = [path for pattern in CUDA_DEVICES for path in sorted(Path("/dev").glob(pattern))]
    return in_place("--dev-bind", *paths)


def environment() -> dict[str, str]:
    """All variables that a submission sees."""
    return bare_environment(HOME) | {"PYTHONPATH": ":".join(map(str, view().packages))}


def passed_on() -> dict[str, str]:
    """What a submission gets of the scorer's variables."""
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return env | ({"LD_LIBRARY_PATH": ":".join(library_path())} if "LD_LIBRARY_PATH" in env else {})


def bare_environment(home: str) -> dict[str, str]:
    """The same without a sandbox. Another home is no reason not to find `pip install --user`'s."""
    env = passed_on() | machine.thread_settings()
    env |= {"HOME": home, "USER": "scorer", "TMPDIR": "/tmp", "PATH": "/usr/bin:/bin"}
    env |= {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}  # the same results each time
    packages = site.getusersitepackages()
    return env | ({"PYTHONPATH": packages} if packages in sys.path else {})
