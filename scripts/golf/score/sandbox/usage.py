"""Measures what a sandbox uses, from outside by /proc, and kills it."""

import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass

from golf.core.processes import THREADS, TICKS, descendants, kill, stat

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# Of /proc/meminfo. The kernel's own: what waits in sockets, empty files' names, tables of empty pages.
SHARED = ("Shmem", "SUnreclaim", "PageTables", "KernelStack")


@dataclass(frozen=True)
class Usage:
    """Resources of all processes below another."""

    tasks: int = 0  # processes, ended ones that nobody has waited for, and threads
    memory_bytes: int = 0  # theirs alone: memory that they share is in `shared_bytes`
    shared_bytes: int = 0  # the largest process's part of shared memory


def usage(pid: int) -> tuple[Usage, list[int]]:
    """What the processes below `pid` use, and their ids; nothing where there is no /proc.

    The orphans of a PID namespace belong to its init, which is below bubblewrap: none gets away.
    """
    below = descendants(pid)
    threads = sum(max(1, int(fields[THREADS])) for fields in below.values())  # an ended one has none
    sizes = [sizes_in(f"/proc/{p}/status") for p in below]
    own = sum(size["RssAnon"] + size["RssFile"] + size["VmSwap"] for size in sizes)
    shared = max((size["RssShmem"] for size in sizes), default=0)
    return Usage(threads, own, shared), list(below)


def cpu_seconds(pids: list[int]) -> float:
    """What these processes, and children of theirs that they waited for, have computed so far."""
    fields = filter(None, map(stat, pids))
    return sum(int(ticks) for f in fields for ticks in f[TICKS]) / TICKS_A_SECOND


def sizes_in(path: str) -> defaultdict[str, int]:
    """The lines `name: number kB` of a file, in bytes; a size, or a process, that is not there has 0."""
    sizes: defaultdict[str, int] = defaultdict(int)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if value.endswith(" kB\n"):
                    sizes[name] = int(value.split()[0]) << 10
    except OSError:
        pass
    return sizes


@dataclass(frozen=True)
class MachineMemory:
    """Memory of the whole machine."""

    shared: tuple[int, ...]  # bytes of each of SHARED: of all processes, and of none
    available_bytes: int
    left: float  # the part that is still available, 0 to 1

    def grown_since(self, before: "MachineMemory") -> int:
        """Bytes by which counters of SHARED grew: where another one fell meanwhile, that hides nothing."""
        return sum(max(0, now - was) for now, was in zip(self.shared, before.shared))


def machine_memory() -> MachineMemory:
    sizes = sizes_in("/proc/meminfo")
    left = sizes["MemAvailable"] / sizes["MemTotal"] if sizes["MemTotal"] else 1.0
    return MachineMemory(tuple(sizes[name] for name in SHARED), sizes["MemAvailable"], left)


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
