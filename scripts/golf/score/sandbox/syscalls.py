"""The system calls that a submission may not make: a seccomp filter, as bubblewrap loads it.

Refused is what could carry a message from one pass to the next, what looks into other processes or
into the machine, and what no scorer needs of the parts of the kernel where most of its errors were.
A filter is a program of 8-byte instructions over `struct seccomp_data` (the call's number, the
architecture, six arguments): man 2 seccomp, and Documentation/userspace-api/seccomp_filter.rst.
"""

import errno
import platform
import struct
import tempfile

# name: its numbers on x86_64 and on aarch64; None: there is no such call.
REFUSED = {
    # Keys and System V's memory, queues: they stay when a process has gone.
    "add_key": (248, 217), "request_key": (249, 218), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "shmdt": (67, 197), "semget": (64, 190), "semop": (65, 193),
    "semtimedop": (220, 192), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # Which pages of a file are in memory: a pass could tell the next by what it had read.
    "mincore": (27, 232), "cachestat": (451, 451),
    # The machine's free memory and load: sandboxes that live at the same time could talk by them.
    "sysinfo": (99, 179),
    # Other processes.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "move_pages": (279, 239), "migrate_pages": (256, 238),
    # Mounts, namespaces, watching files.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457),
    "listmount": (458, 458), "unshare": (272, 97), "setns": (308, 268), "swapon": (167, 224),
    "swapoff": (168, 225), "quotactl": (179, 60), "quotactl_fd": (443, 443), "acct": (163, 89),
    "sethostname": (170, 161), "setdomainname": (171, 162), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    "inotify_init": (253, None), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    # The rest of the kernel that no scorer needs.
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_setup": (206, 0),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "syslog": (103, 116), "reboot": (169, 142),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    "uselib": (134, None), "personality": (135, 92), "vhangup": (153, 58),
    # Memory that is in no figure: a pipe keeps a file's pages, of 2 MiB each, when the file is gone.
    "memfd_secret": (447, 447), "link": (86, None), "linkat": (265, 37),
    "vmsplice": (278, 75), "splice": (275, 76), "tee": (276, 77), "sendfile": (40, 71),
}  # fmt: skip
# What leads into bubblewrap's own process where it is the same user, by which a submission outlives it.
INTO_PROCESSES = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd")
# A device's times may be set by whoever may write to it, its mode by a root that a user namespace alone
# confines: they hold for the machine, and stay when a process has gone. So these are granted and do nothing.
OF_DEVICES = {
    "utime": ((132, None), 0), "utimes": ((235, None), 0), "futimesat": ((261, None), 0),
    "utimensat": ((280, 88), 0),
    "chmod": ((90, None), 0), "fchmod": ((91, 52), 0), "fchmodat": ((268, 53), 0),
    "fchmodat2": ((452, 452), 0), "chown": ((92, None), 0), "fchown": ((93, 55), 0),
    "lchown": ((94, None), 0), "fchownat": ((260, 54), 0),
    "setxattr": ((188, 5), 0), "lsetxattr": ((189, 6), 0), "fsetxattr": ((190, 7), 0),
    "removexattr": ((197, 14), 0), "lremovexattr": ((198, 15), 0), "fremovexattr": ((199, 16), 0),
}  # fmt: skip
# The same with another error, or 0: it does nothing.
ANSWERED = {
    "clone3": ((435, 435), errno.ENOSYS),  # its flags lie in memory; libc then takes clone
    "flock": ((73, 32), 0),  # of files that every sandbox sees
    "readahead": ((187, 213), 0),
    "fadvise64": ((221, 223), 0),  # what is in memory stays in memory
    "setsid": ((112, 157), 0),  # /proc/self/autogroup tells how many sessions the machine has begun
    **OF_DEVICES,
}
# In code, /proc tells where a socket lies in memory, and a new one lies where the last was closed:
# a pass could tell the next by their order. Not refused on CUDA, which was not tried without them.
SOCKETS = {
    "socket": ((41, 198), errno.EAFNOSUPPORT), "socketpair": ((53, 199), errno.EAFNOSUPPORT),
}  # fmt: skip
LOW, HIGH = 0, 4  # the halves of an argument
ALL = 0xFFFFFFFF  # of their bits
NAMESPACES = 0x7E020000  # every CLONE_NEW* that clone takes
JOIN_SESSION_KEYRING, AF_UNIX = 1, 1
# Such calls do more with each new kernel, so what they may do is listed: nothing to a file or its pages that
# other processes, or later ones, could see (locks, leases, hints, flags).
FCNTL = (0, 1, 2, 3, 4, 8, 9, 10, 11, 1030, 1031, 1032, 1033, 1034)
MADVISE = (*range(12), *range(14, 20), 22, 23, 24, 102, 103)
IOCTLS = (0x5400, 0x4600, 0x4700, 0)  # of terminals, pipes and sockets; of CUDA's devices
# numbers, argument, its half, bits of it, values, error: refused unless these bits have one of the values, or
# with DENIED if they have.
DENIED = True
CORES = (  # prlimit64, setrlimit: RLIMIT_CORE
    ((302, 261), 1, LOW, ALL, (4,), errno.EPERM, DENIED),
    ((160, 164), 0, LOW, ALL, (4,), errno.EPERM, DENIED),
)
CONDITIONS = (
    ((250, 219), 0, LOW, ALL, (JOIN_SESSION_KEYRING,), errno.EPERM),  # keyctl: a new, nameless one
    ((250, 219), 1, LOW, ALL, (0,), errno.EPERM),
    ((250, 219), 1, HIGH, ALL, (0,), errno.EPERM),
    ((41, 198), 0, LOW, ALL, (AF_UNIX,), errno.EAFNOSUPPORT),  # socket, where there may be one
    ((53, 199), 0, LOW, ALL, (AF_UNIX,), errno.EAFNOSUPPORT),  # socketpair
    ((56, 220), 0, LOW, NAMESPACES, (0,), errno.EPERM),  # clone
    ((28, 233), 2, LOW, ALL, MADVISE, errno.EINVAL),
    ((72, 25), 1, LOW, ALL, FCNTL, errno.EPERM),
    ((16, 29), 1, LOW, 0xFF00, IOCTLS, errno.EPERM),
    ((327, 286), 5, LOW, ALL, (0,), errno.EOPNOTSUPP),  # preadv2, pwritev2: RWF_NOWAIT and others
    ((328, 287), 5, LOW, ALL, (0,), errno.EOPNOTSUPP),
    ((9, 222), 3, LOW, 0x40000, (0,), errno.ENOMEM),  # mmap, memfd_create: huge pages are not counted
    ((319, 279), 1, LOW, 4, (0,), errno.EINVAL),
    ((55, 209), 2, LOW, ALL, (57,), errno.EPERM, DENIED),  # SO_COOKIE: the machine counts it up
    ((157, 167), 0, LOW, ALL, (62,), errno.EPERM, DENIED),  # PR_SCHED_CORE: tells where a cookie lies
    *CORES,
    # rt_sigaction of SIGCHLD does nothing: who ignores that signal hides its children's time.
    ((13, 134), 0, LOW, ALL, (17,), 0, DENIED),
    ((54, 208), 2, LOW, ALL, (7, 32), 0, DENIED),  # setsockopt: SO_SNDBUF, SO_SNDBUFFORCE do nothing
    ((16, 29), 1, LOW, ALL, (0x5412, 0x541C, 0x5423), errno.EPERM, DENIED),  # TIOCSTI, TIOCLINUX, TIOCSETD
)
LAST_KNOWN = 462  # calls that are younger than this list do not exist
# machine: its column above, AUDIT_ARCH_*
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
X32 = 0x40000000  # the bit of x86_64's second set of calls, which has numbers of its own

LOAD, AND, RETURN = 0x20, 0x54, 0x06
JUMP_EQUAL, JUMP_ABOVE, JUMP_FROM = 0x15, 0x25, 0x35
KILL, ERROR, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16


def filter_file(**options):
    """A temporary file that holds program(), for bubblewrap to read."""
    file = tempfile.TemporaryFile()
    file.write(program(**options))
    file.seek(0)
    return file


def program(machine: str | None = None, training: bool = False, sockets: bool = False) -> bytes:
    """The filter for a machine of MACHINES (default: this one); a training may do all but what lasts."""
    refused, answered, conditions = REFUSED, ANSWERED | ({} if sockets else SOCKETS), CONDITIONS
    if training:
        refused, answered, conditions = {name: REFUSED[name] for name in INTO_PROCESSES}, OF_DEVICES, CORES
    column, arch = MACHINES[machine or platform.machine()]
    code = [(LOAD, 0, 0, ARCH_AT), (JUMP_EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL)]
    code += [(LOAD, 0, 0, NUMBER_AT), (JUMP_FROM, 0, 1, X32), (RETURN, 0, 0, KILL)]
    code += [(JUMP_ABOVE, 0, 1, LAST_KNOWN), (RETURN, 0, 0, ERROR | errno.ENOSYS)]
    for numbers, error in [(numbers, errno.EPERM) for numbers in refused.values()] + [*answered.values()]:
        if numbers[column] is not None:
            code += [(JUMP_EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ERROR | error)]
    for numbers, argument, half, bits, values, error, *denied in conditions:
        mask = [(AND, 0, 0, bits)] * (bits != ALL)
        code += [(JUMP_EQUAL, 0, len(mask) + len(values) + 3, numbers[column])]
        code += [(LOAD, 0, 0, ARGUMENTS_AT + 8 * argument + half), *mask]
        for left, value in zip(range(len(values), 0, -1), values):  # to the refusal, or over it
            code += [(JUMP_EQUAL, *((left - 1, left == 1) if denied else (left, 0)), value)]
        code += [(RETURN, 0, 0, ERROR | error), (LOAD, 0, 0, NUMBER_AT)]
    code.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
