"""What this process may use of the machine: processors, and the loopback interface."""

import os
import platform
import shutil
import socket
import sys
import sysconfig
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def described() -> str:
    """As a report has it: 2-core x86_64, Linux."""
    return f"{os.cpu_count()}-core {platform.machine()}, {platform.system()}"


def usable_cpus() -> int:
    """Processors by affinity and by the container's quota (rounded down), at least 1."""
    quota = cpu_quota()
    return min(affinity(), max(1, int(quota))) if quota else affinity()


def affinity() -> int:
    """The processors that the scheduler may put this process on."""
    try:
        return len(os.sched_getaffinity(0)) or 1
    except (AttributeError, OSError):  # macOS has no such call
        return os.cpu_count() or 1


def cpu_quota(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Processors that the control groups (v2 and v1) above this process allow; None: no limit.

    A group's limit holds for all below it, so the least on the way up counts. In a container the
    group's own folder may be mounted as the root, hence the root is always looked at.
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    limits = []
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        bases = [root] if not controllers else []
        if "cpu" in controllers.split(","):
            bases = [root / "cpu", root / controllers]
        for base in bases:
            below = base / group.strip("/")
            for folder in (below, *below.parents):
                limits.append(group_limit(folder))
                if folder == base:
                    break
    return min(filter(None, limits), default=None)


def group_limit(folder: Path) -> float | None:
    """A control group's own limit in processors; None if it has none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((folder / n).read_text(encoding="ascii") for n in names).split()
            quota, period = map(int, words)
        except (OSError, ValueError):  # not there, or "max"
            continue
        if quota > 0 and period > 0:
            return quota / period
    return None


def thread_settings(processes: int = 1) -> dict[str, str]:
    """Variables to add for each of so many processes that compute at once; what is set already stays.

    OMP_WAIT_POLICY=PASSIVE: idle threads sleep. Spinning triples the time of a step on a busy machine and
    saves about a sixth on an idle one (docs/floors.md). OMP_NUM_THREADS: a process's share of the usable
    CPUs, unless the libraries, which go by affinity, choose the same.
    """
    wanted, share = {"OMP_WAIT_POLICY": "PASSIVE"}, max(1, usable_cpus() // processes)
    if share != affinity():
        wanted["OMP_NUM_THREADS"] = str(share)
    return {name: value for name, value in wanted.items() if name not in os.environ}


def loopback() -> dict[str, str]:
    """GLOO_SOCKET_IFNAME, by which ranks on one machine find each other without a host name."""
    try:
        names = [name for _, name in socket.if_nameindex()]
    except OSError:
        names = []
    usual = [name for name in ("lo", "lo0") if name in names]
    return {"GLOO_SOCKET_IFNAME": usual[0]} if usual and "GLOO_SOCKET_IFNAME" not in os.environ else {}


def has_nvidia() -> bool:
    """Whether there are signs of an NVIDIA device: Linux's driver, WSL's, or nvidia-smi."""
    return any(map(os.path.exists, ("/proc/driver/nvidia", "/dev/dxg"))) or bool(shutil.which("nvidia-smi"))


def compiler_faults(env: dict[str, str], gpu: bool = True) -> list[str]:
    """What torch.compile lacks here, in words: a compiler (of C for a GPU, else of C++), Python's headers."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    language, given = ("C", env.get("CC") or "gcc or clang") if gpu else ("C++", env.get("CXX") or usual)
    faults = []
    if not any(shutil.which(name) for name in given.split(" or ")):
        faults.append(f"no {language} compiler ({given})")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        faults.append("no Python.h")
    return faults
