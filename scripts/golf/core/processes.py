"""Processes: the signals that ask one to stop, and what it started, found in /proc and ended together."""

import ctypes
import math
import os
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import suppress

STATE, PARENT, TICKS, THREADS = 0, 1, slice(11, 15), 17  # where stat()'s fields say so; proc(5)

# All ask a run to end well: Ctrl-C, kill or a scheduler, the end of the login, a scheduler's warning.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def handle_stops(handler) -> None:
    """Installs a handler of the signals that ask to stop; under nohup SIGHUP is ignored, and stays so."""
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def start(command: list[str], signum: int = signal.SIGKILL, **how) -> subprocess.Popen:
    """Starts a child in a session of its own: Ctrl-C reaches this process only. Where the kernel is Linux, it
    sends the child `signum` when this process dies, however it dies."""
    linux = sys.platform.startswith("linux")
    prctl = ctypes.CDLL(None).prctl if linux else None
    die_too = (lambda: prctl(1, signum)) if linux else None  # 1: PR_SET_PDEATHSIG
    how = dict(stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_too) | how
    return subprocess.Popen(command, **how)


def stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/<pid>/stat after its name; None: it ended."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)  # in half the time that open() takes
    except OSError:
        return None
    try:
        return os.read(file, 4096).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(file)


def descendants(pid: int, levels: float = math.inf) -> dict[int, list[bytes]]:
    """The processes below `pid`, so many levels down, with their stat(); none where there is no /proc."""
    names = os.listdir("/proc") if os.path.isdir("/proc") else []
    known = {int(name): fields for name in names if name.isdigit() and (fields := stat(int(name)))}
    found, level, children = {}, [pid], defaultdict(list)
    for p, fields in known.items():
        children[int(fields[PARENT])].append(p)
    while level and levels > 0:
        levels -= 1
        level = [child for p in level for child in children.pop(p, ())]
        found |= {p: known[p] for p in level}
    return found


def kill(send, pid: int) -> None:
    """SIGKILL by os.kill or os.killpg, to what may have ended already."""
    with suppress(ProcessLookupError, PermissionError):
        send(pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """Ends a child's process group and whatever else it started, at once."""
    below = descendants(pid)
    kill(os.killpg, pid)
    for each in below:
        kill(os.kill, each)
