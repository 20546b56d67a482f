"""Runs inside the sandbox: loads a submission's scorer and answers the requests of client.py.

Standard library and numpy alone until the submission's script is imported. From then on nothing
here can be trusted, and client.py trusts nothing: it takes fixed-size records from the socket and
float32 rows from the shared memory, and judges both.
"""

import contextlib
import ctypes
import importlib.util
import os
import re
import resource
import socket
import struct
import sys
import traceback

REQUEST = struct.Struct("<III")  # what to do, number of the request, tokens in the shared memory
REPLY = struct.Struct("<IIII")  # how it went, number of the request, shape of the rows
LOAD, RESET, NEXT = 1, 2, 3
DONE, RAISED, NOT_ROWS = 1, 2, 3
FILE_BYTES, OPEN_FILES = 1 << 30, 1024
KEYCTL = {"x86_64": 250, "aarch64": 219}
JOIN_SESSION_KEYRING, SET_DUMPABLE = 1, 4


def main(control_fd, memory_fd, rows_at, tasks, uid, script, artifact, device) -> None:
    """Answers until the other end closes. The shared memory holds uint16 tokens, and float32 rows
    from byte `rows_at` on."""
    control = socket.socket(fileno=int(control_fd))
    if int(tasks):
        leave_keys()
    set_limits(int(tasks))
    if int(uid) >= 0:
        become(int(uid))
    number, scorer = 0, None
    try:
        # Nothing of the submission runs before the scorer answers this: by then the sandbox is
        # sure to end with it.
        control.sendall(REPLY.pack(DONE, number, 0, 0))
        while request := control.recv(REQUEST.size, socket.MSG_WAITALL):
            what, number, count = REQUEST.unpack(request)
            answer = DONE, 0, 0
            if what == LOAD:
                scorer = load(script, artifact, device)
            elif what == RESET:
                scorer.reset()
            else:
                answer = answer_next(scorer, count, int(memory_fd), int(rows_at))
            control.sendall(REPLY.pack(answer[0], number, *answer[1:]))
    except BaseException:  # the scorer wants to know, also of sys.exit
        traceback.print_exc()
        sys.stderr.flush()
        control.sendall(REPLY.pack(RAISED, number, 0, 0))


def leave_keys() -> None:
    """Starts a session keyring of its own, so that it cannot find what others put into theirs."""
    number = KEYCTL.get(os.uname().machine)
    if number:
        ctypes.CDLL(None).syscall(number, JOIN_SESSION_KEYRING, None)


def become(uid: int) -> None:
    """Becomes another user for good, without capabilities; RuntimeError if there is a way back."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    with contextlib.suppress(PermissionError):
        os.setuid(0)
        raise RuntimeError("it could become root again")
    ctypes.CDLL(None).prctl(SET_DUMPABLE, 1, 0, 0, 0)  # its own /proc/self belongs to it again


def set_limits(tasks: int) -> None:
    """Backstops in the kernel; client.py watches memory, tasks and time from outside. 0: none."""
    limits = {resource.RLIMIT_CORE: 0}
    if tasks:  # in the sandbox, where client.py forbids cores
        limits = {resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_NOFILE: OPEN_FILES}
        version = [int(n) for n in re.findall(r"\d+", os.uname().release)[:2]]
        if version >= [5, 14]:  # before, all of the user's tasks outside were counted too
            limits[resource.RLIMIT_NPROC] = tasks
    for what, most in limits.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def load(script: str, artifact: str, device: str):
    """The script as a module of its own, as if it were imported from its folder."""
    sys.path[0] = os.path.dirname(script)
    spec = importlib.util.spec_from_file_location("submission", script)
    module = sys.modules["submission"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_scorer(artifact, device)


def answer_next(scorer, count: int, memory_fd: int, rows_at: int) -> tuple[int, int, int]:
    import numpy as np

    tokens = np.frombuffer(os.pread(memory_fd, 2 * count, 0), np.uint16).copy()
    rows = scorer.log_probs(tokens)
    if hasattr(rows, "detach"):  # a torch tensor, of any device and type
        rows = rows.detach().float().cpu().numpy()
    rows = np.asarray(rows, np.float32, order="C")
    if rows.ndim != 2:
        return NOT_ROWS, rows.ndim, 0
    if len(rows) == count:  # else its shape says enough
        write_all(memory_fd, memoryview(rows).cast("B"), rows_at)
    return DONE, *rows.shape


def write_all(fd: int, data, at: int) -> None:
    """All of `data`, as far as the file goes; a wrong vocabulary may not fit, which its shape tells."""
    data = data[: max(os.fstat(fd).st_size - at, 0)]
    while len(data):
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done


if __name__ == "__main__":
    main(*sys.argv[1:])
