"""Measures what a sandbox uses, from outside by /proc, and kills it."""

import glob
import os
import re
import resource
import subprocess
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from golf.core.processes import STATE, THREADS, TICKS, descendants, kill, stat

SEND_BUFFER = Path("/proc/sys/net/core/wmem_default")  # bytes that wait in a socket, at most
SIZE = re.compile(r"(\w+(?:\(\w+\))?):\s*([0-9]+) kB\n")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# Of /proc/meminfo. The kernel's own: what waits in sockets, empty files' names, page tables, filters.
SHARED = ("Shmem", "SUnreclaim", "PageTables", "KernelStack", "VmallocUsed")


@dataclass(frozen=True)
class Usage:
    """Resources of all processes below another."""

    tasks: int = 0  # processes, ended ones that nobody has waited for, and threads
    memory_bytes: int = 0  # theirs alone: memory that they share is in `shared_bytes`
    shared_bytes: int = 0  # the largest process's part of shared memory
    socket_bytes: int = 0  # that may wait in their sockets


def usage(pid: int) -> tuple[Usage, list[int]]:
    """What the processes below `pid` use, and their ids; nothing where there is no /proc.

    The orphans of a PID namespace belong to its init, which is below bubblewrap: none gets away.
    """
    below = descendants(pid)
    threads = sum(max(1, int(fields[THREADS])) for fields in below.values())  # an ended one has none
    sizes = [sizes_in(status(p, fields)) for p, fields in below.items()]
    own = sum(size["RssAnon"] + size["RssFile"] + size["VmSwap"] for size in sizes)
    shared = max((size["RssShmem"] for size in sizes), default=0)
    return Usage(threads, own, shared, max(map(socket_bytes, [*below][:1]), default=0)), list(below)


def status(pid: int, fields: list[bytes]) -> str:
    """The file with a process's sizes: another thread's where the first has ended, which then has none."""
    threads = glob.glob(f"/proc/{pid}/task/*/status") if fields[STATE] == b"Z" else []
    return next((path for path in threads if f"/task/{pid}/" not in path), f"/proc/{pid}/status")


def socket_bytes(pid: int) -> int:
    """What may wait in all sockets of a process's network, where that is not ours: a part is in no figure."""
    try:
        if os.path.samefile(f"/proc/{pid}/ns/net", "/proc/self/ns/net"):
            return 0
        line = Path(f"/proc/{pid}/net/sockstat").read_text(encoding="ascii").partition("\n")[0]
        return int(line.rpartition(" ")[2] or 0) * int(SEND_BUFFER.read_text(encoding="ascii"))
    except OSError:  # it ended
        return 0


def cpu_seconds(pids: list[int]) -> dict[int, float]:
    """What each process, and children of its that it waited for, have computed so far."""
    fields = {pid: found for pid in pids if (found := stat(pid))}
    return {pid: sum(map(int, found[TICKS])) / TICKS_A_SECOND for pid, found in fields.items()}


def sizes_in(path: str) -> defaultdict[str, int]:
    """The lines `name: number kB` of a file, in bytes; a size, or a process, that is not there has 0."""
    sizes: defaultdict[str, int] = defaultdict(int)
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if found := SIZE.fullmatch(line):  # a process may call itself anything, "a kB" for one
                sizes[found[1]] = int(found[2]) << 10
    return sizes


@dataclass(frozen=True)
class MachineMemory:
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


def forbid_dumps() -> None:
    """Neither this process nor one that it starts from now on hands its memory over when it crashes.

    Where a program of the system's takes such memory, it does as root, outside, whatever its size: a limit
    of 0 bytes does not keep it from that, 1 does (man 5 core; fs/coredump.c). The filter keeps it at 1.
    """
    if most := resource.getrlimit(resource.RLIMIT_CORE)[1]:
        resource.setrlimit(resource.RLIMIT_CORE, (1, most))


def end(process: subprocess.Popen) -> None:
    """Kills the process and all below it, and returns when they are gone."""
    if process.poll() is None:
        # The namespace's init goes first: the kernel ends all of the namespace with it, and
        # bubblewrap, waiting for it, leaves nothing unreaped.
        below = descendants(process.pid)
        for pid in below:
            kill(os.kill, pid)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2 if below else 0)
    kill(os.killpg, process.pid)  # if it is still there, and without a sandbox what outlived it
    process.wait()
