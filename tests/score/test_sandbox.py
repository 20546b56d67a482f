"""Hostile submissions: each ends in a named finding, in time, and leaves nothing behind."""

import collections
import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import importlib.util
import itertools
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import HANG_SECONDS, REPO, wait_until
from golf.core import machine
from golf.core.errors import GolfError
from golf.score import scorer as official
from golf.score.feeder import Fault
from golf.score.sandbox import bwrap as sandbox
from golf.score.sandbox import client as remote
from golf.score.sandbox import syscalls, usage, view, watch
from score_kit import failed, make_submission, needs_sandbox, needs_user_namespace, score

LIMITS = sandbox.Limits(load_seconds=HANG_SECONDS, call_seconds=HANG_SECONDS, memory_bytes=4 << 30, tasks=60)


@pytest.fixture
def memory_alone(tmp_path_factory):
    """One test at a time: a sandbox is charged with what the machine's shared memory grows by meanwhile."""
    with (tmp_path_factory.getbasetemp().parent / "memory.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


SEED = os.getpid()  # in the artifact's name, so that our processes are known by it


def ours() -> list[bytes]:
    """The command lines of all processes on the machine that run a submission of this test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return [line for line in found if f"final_model_seed{SEED}.bin".encode() in line]


@pytest.fixture
def run(track, tmp_path, monkeypatch):
    """Scores a class of tests/fixtures/hostile.py, without the audit: a report."""
    monkeypatch.setattr(official, "audit", lambda *_, **__: [])

    def run(name, artifact=b"-", limits=LIMITS, sandboxed=True, **claim):
        folder = tmp_path / f"{name}-{sandboxed}"
        make_submission(folder, name, artifact, seeds=(SEED,), **claim)
        return score(track, folder, sandboxed, limits=limits)

    yield run
    assert not ours()  # no process is left, whoever its parent is by now
    assert not usage.usage(os.getpid())[1]  # not even an unreaped one


@needs_sandbox
@pytest.mark.parametrize("name, told, limits, rule, words", [
    ("Forks", "", {}, "tasks", "over 60 processes and threads while log_probs"),
    ("CallsItselfASize", "", {}, "tasks", "over 60 processes and threads while log_probs"),
    ("LeavesZombies", "", {}, "tasks", "over 60 processes and threads while log_probs"),
    ("Digs", "", dict(tasks=100), "tasks", "over 100 processes"),  # however deep they lie
    ("Kills", "", {}, "died", "while log_probs (exit code 137)"),
    ("Gives", "os._exit(0) if self.seen > 2000 else rows", {}, "died", "while log_probs (exit code 0)"),
    ("Gives", "time.sleep(1e6)", dict(call_seconds=3), "time", " took over 3 s"),
    # The limit holds for the start of the sandbox too, which a loaded machine takes long for.
    pytest.param("HangsLoading", "", dict(load_seconds=30), "time", "loading took over 30 s",
                 marks=pytest.mark.slow),
    ("Gives", "os.ftruncate(exchange_memory(), 0)", {}, "raised", "PermissionError"),
    ("Hoards", "spliced", {}, "raised", "PermissionError"),  # no pipe holds what a file held
    ("Gives", "os.write(exchange_socket(), bytes(64)) and rows", {}, "protocol", "not one of the protocol's"),
    ("Gives", "np.where(np.arange(len(rows))[:, None] == len(rows) // 2, np.nan, rows)", {}, "finite",
     "of a call of"),
    ("Gives", "np.where(np.arange(1024) == 7, 0 * rows, -np.inf)", {}, "finite",
     "target 0 was given no probability"),
    ("Gives", "rows[1:]", {}, "shape", ", 1024] for"),
    ("Gives", "0.05", {}, "shape", "an array of 0 dimensions"),
    ("Gives", "rows + np.log(2)", {}, "normalised", "a row sums to 2"),
])  # fmt: skip
def test_hostile(run, name, told, limits, rule, words):
    findings = failed(run(name, told.encode(), dataclasses.replace(LIMITS, **limits)))
    assert list(findings) == [rule] and words in findings[rule]


@pytest.mark.slow
@needs_sandbox
def test_filling_memory_ends_at_its_limit(run, memory_alone):
    hoard = b"[np.ones(1 << 22) for _ in range(96)] and rows"  # 3 GiB, should nobody stop it
    report = run("Gives", hoard, dataclasses.replace(LIMITS, memory_bytes=1 << 29))
    assert failed(report) == {"memory": "over 536,870,912 bytes of memory while log_probs"}
    assert report["seeds"][0]["peak_memory_bytes"] < 2 << 30


@needs_sandbox
def test_children_end_with_it(run):
    assert not failed(run("LeavesChildren"))


@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize(
    "number, early", [(signal.SIGKILL, True), (signal.SIGKILL, False), (signal.SIGTERM, False)]
)
def test_it_ends_with_the_scorer(track, tmp_path, number, early):
    """Early: before bubblewrap can have asked the kernel to end with it."""
    folder = make_submission(tmp_path / "entry", "HangsLoading", seeds=(SEED, SEED + 1))
    command = [sys.executable, "-m", "golf.cli", "score", folder, "--track", track, "--json"]
    command += ["--data", track.parent / "data", "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(REPO / "scripts"), "TMPDIR": str(tmp_path)}
    scorer = subprocess.Popen(list(map(str, command)), env=env, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(early or b"--unshare-all" not in line for line in ours()))
    finally:
        scorer.send_signal(number)
        scorer.wait()
    wait_until(lambda: not ours())
    assert number == signal.SIGKILL or not list(tmp_path.glob("golf-score-*"))


@needs_sandbox
def test_printed_scores_are_not_believed(run):
    line = "final_sliding_window_exact val_loss:0.10000000 val_bpb:0.05000000 seq_len:1 stride:1"
    report = run("Gives", f"print('\\x1b[2J{line}') or rows".encode(), val_bpb=0.05, val_loss=0.1)
    assert report["seeds"][0]["official"]["val_loss"] == pytest.approx(np.log(1024))
    assert list(failed(report)) == ["claim"]


@needs_sandbox
def test_last_words_are_short_and_escaped(run):
    shouts = rb"[print('\x1b[2J' + 'x' * 4000) for _ in range(2000)] and '\x1b]0;title\x07 that was it'"
    said = failed(run("SaysWhatItFinds", shouts))["raised"]
    assert said.isprintable() and len(said) < 400 and "that was it" in said


@needs_sandbox
def test_no_network(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = str(server.getsockname()[1]).encode()
        assert "Address family not supported" in failed(run("OpensSocket", port))["raised"]
        with pytest.raises(BlockingIOError):
            server.accept()
        assert not failed(run("OpensSocket", port, sandboxed=False))  # as it would without
        server.accept()[0].close()


@needs_sandbox
def test_nothing_is_written(run, tmp_path):
    places = ["/usr/x", "/etc/x", "/x", "/dev/x", "/submission/x", "/submission/train_gpt.py"]
    artifact = "\n".join([str(tmp_path / "x"), *places]).encode()
    assert "no such file" in failed(run("WritesFiles", artifact))["raised"]
    assert not (tmp_path / "x").exists()
    assert not failed(run("WritesFiles", artifact, sandboxed=False))
    assert (tmp_path / "x").exists()


TOKENS = np.zeros(5, np.uint16)


def connect(name, tmp_path, artifact=b"-", device="cpu", **options) -> remote.Remote:
    """A class of hostile.py in its sandbox, at the beginning of a stream."""
    folder = tmp_path / name
    if not folder.exists():
        make_submission(folder, name, artifact)
    files = {path.name: path for path in folder.iterdir()}
    options = dict(limits=LIMITS) | options
    feeder = remote.Remote(files, "train_gpt.py", "final_model_seed1.bin", device, 1024, **options)
    feeder.reset()
    return feeder


def last_words(tmp_path, expression: str, device="cpu") -> str:
    """What an expression is inside the sandbox."""
    with pytest.raises(Fault) as fault:
        connect("SaysWhatItFinds", tmp_path / str(time.monotonic_ns()), expression.encode(), device)
    assert fault.value.rule == "raised"
    return fault.value.message.partition("RuntimeError: ")[2].rstrip("\"'")


@needs_sandbox
def test_rows_changed_after_handing_over(tmp_path):
    tokens = np.arange(100, dtype=np.uint16)
    with connect("OverwritesRows", tmp_path) as feeder:
        rows = feeder.log_probs(tokens)
        kept = rows.copy()
        with pytest.raises(Fault) as fault:
            for _ in range(HANG_SECONDS):  # until it has written
                time.sleep(0.2)
                feeder.log_probs(tokens)
        assert (rows == kept).all()
    assert fault.value.rule == "rows-changed"


@needs_sandbox
def test_every_stream_has_its_own_process(tmp_path):
    with connect("Plain", tmp_path) as feeder:
        feeder.log_probs(TOKENS)
        first = feeder.process.pid
        feeder.reset()
        assert feeder.process.pid != first
        assert feeder.log_probs(TOKENS).shape == (5, 1024)
        children = usage.usage(os.getpid())[1]
    assert first not in children and usage.usage(os.getpid())[1] == []


@needs_sandbox
@pytest.mark.parametrize("places", [":/usr/lib", "/usr/lib;", "."])
def test_bubblewrap_takes_no_library_from_a_submission(tmp_path, monkeypatch, places):
    """Nor does Python before it is another user: an empty place is the working directory."""
    monkeypatch.setenv("LD_LIBRARY_PATH", places)
    folder = make_submission(tmp_path / "Plain", "Plain")
    for name in ("libcap.so.2", "libselinux.so.1", "libc.so.6"):  # which it needs
        (folder / name).write_text("no library")
    connect("Plain", tmp_path).end()


# ---- What it shows


@needs_sandbox
def test_only_what_scoring_needs_is_shown(run, track, tmp_path):
    (tmp_path / "secret").write_text("mine")
    packages = Path(pytest.__file__).resolve().parents[1]
    shard = track.parent / "data" / "fineweb_val_000000.bin"
    hidden = {
        Path("/"): [tmp_path / "secret", shard, track, official.__file__, Path.home() / ".bashrc"],
        Path(os.__file__).parent: [
            "pydoc_data/topics.py", "test/__init__.py", "idlelib/help.html", "turtledemo/__init__.py",
        ],
        packages: [
            "pytest/__init__.py", "hypothesis/__init__.py", "matplotlib/__init__.py", "numpy/doc/ufuncs.py",
            f"numpy-{np.__version__}.dist-info/METADATA", "torch/include/torch/script.h", "torch/bin/protoc",
            "torch/bin/test_api", "numpy/tests/test_lazyloading.py",
        ],
        Path("/proc"): [
            "1/mem", "stat", "meminfo", "loadavg", "keys", "key-users", "vmstat", "diskstats",
            "sys/kernel/hostname", "sys/fs/dentry-state",
        ],
        Path("/etc"): ["passwd", "os-release", "hostname"],
    }  # fmt: skip
    paths = [folder / name for folder, names in hidden.items() for name in names]
    paths += map(Path, ["/bin/sh", "/usr/bin/env", "/sys/kernel/mm/ksm/run"])
    for pattern in ("share/*/*", "share/common-licenses/*", "lib/python3/dist-packages/*.py", "include/*.h"):
        paths += [*Path("/usr").glob(pattern)][:50]
    there = [path for path in paths if path.is_file()]
    assert len(there) > 20
    assert "no such file" in failed(run("ReadsFiles", "\n".join(map(str, there)).encode()))["raised"]
    assert not failed(run("ReadsFiles", str(there[0]).encode(), sandboxed=False))


@needs_sandbox
@pytest.mark.parametrize("module", ["torch", "numpy", "sentencepiece", "mlx.core", "tqdm", "sympy"])
def test_what_an_entry_may_import(tmp_path, module):
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"NOT TESTED: {module} is not installed")
    assert last_words(tmp_path, f"__import__('{module}').__name__") == module.partition(".")[0]


NOT_TO_IMPORT = "pytest", "matplotlib", "scipy", "pip", "hypothesis", "huggingface_hub", "pydoc_data.topics"
INSIDE = {
    "it may import nothing else": (f"[n for n in {NOT_TO_IMPORT} if importlib.util.find_spec(n)]", "[]"),
    "it gets no variable of the scorer's": ("os.environ.get('HF_TOKEN')", "None"),
    "it sees no process on a CPU": ("os.listdir('/proc')", "['cpuinfo']"),
    # Sandboxes that live at the same time could talk by locks of files that all see.
    "it locks what is locked": ("fcntl.flock(open(os.__file__), fcntl.LOCK_EX | fcntl.LOCK_NB)", "None"),
    # What children computed would be lost with them.
    "it keeps children that nobody waits for": (
        "[signal.signal(signal.SIGCHLD, signal.SIG_IGN), os.fork() or os._exit(0), os.wait()][2][1]", "0",
    ),
}  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize("expression, said", INSIDE.values(), ids=INSIDE)
def test_what_it_finds(tmp_path, monkeypatch, expression, said):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with open(os.__file__) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert last_words(tmp_path, expression) == said


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_python_may_lie_where_the_sandbox_has_folders_of_its_own(tmp_path, place):
    """A Python of its own, with numpy alone, below /tmp or /dev/shm."""
    with tempfile.TemporaryDirectory(dir=place) as home:
        library = Path(sysconfig.get_path("stdlib"))
        python = Path(home, "bin", Path(os.path.realpath(sys.executable)).name)
        ignored = shutil.ignore_patterns("*-packages", "test", "tests", "__pycache__", "idlelib", "ensurepip")
        shutil.copytree(library, Path(home, "lib", library.name), ignore=ignored)
        python.parent.mkdir()
        shutil.copy(os.path.realpath(sys.executable), python)
        for shared in library.parent.glob("libpython*.so*"):
            shutil.copy(shared, Path(home, "lib"))
        env = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": f"{home}/lib"}
        ask = [python, "-c", "import site; print(site.getsitepackages()[0])"]  # Debian's lies elsewhere
        site = Path(subprocess.run(ask, env=env, capture_output=True, text=True).stdout.strip())
        for path in Path(np.__file__).parents[1].glob("numpy*"):
            shutil.copytree(path, site / path.name, ignore=shutil.ignore_patterns("tests"))
        folder = make_submission(tmp_path / "entry", "Plain")
        code = f"""
import sys, pathlib
sys.path.insert(0, {str(REPO / "scripts")!r})
from golf.score.sandbox.client import Remote
folder = pathlib.Path({str(folder)!r})
files = {{path: folder / path for path in ("train_gpt.py", "hostile.py", "final_model_seed1.bin")}}
with Remote(files, "train_gpt.py", "final_model_seed1.bin", "cpu", 1024) as feeder:
    feeder.reset()
    print(feeder.log_probs(__import__("numpy").zeros(5, "uint16")).shape, sys.base_prefix)
"""
        done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True)
        assert done.stdout == f"(5, 1024) {home}\n", done.stderr


def test_data_that_the_sandbox_shows_is_refused(tmp_path):
    assert sandbox.shows(Path(np.__file__).parent / "data")
    for hidden in (tmp_path, Path("/usr/share/data"), Path(np.__file__).parent / "doc/data"):
        assert not sandbox.shows(hidden)


def test_without_bubblewrap_the_package_is_named(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    sandbox.why_not.cache_clear()
    try:
        assert "bubblewrap" in sandbox.why_not()
    finally:
        sandbox.why_not.cache_clear()


# ---- What it may ask of the kernel


@needs_sandbox
def test_what_the_filter_refuses(tmp_path):
    column = syscalls.MACHINES[platform.machine()][0]
    calls = {name: [n[column]] + [0] * 6 for name, n in syscalls.REFUSED.items()}
    calls = {name: call for name, call in calls.items() if call[0] is not None}
    number = dict(keyctl=(250, 219), socket=(41, 198), pair=(53, 199), clone=(56, 220), preadv2=(327, 286))
    number |= dict(fcntl=(72, 25), getsockopt=(55, 209), ioctl=(16, 29), prctl=(157, 167))
    number = {name: numbers[column] for name, numbers in number.items()}
    families = 0, 1, 2, 10, 16, 17, 38, 40, 45  # of the internet, netlink, packets, AF_ALG, AF_VSOCK
    calls |= {f"socket{family}": [number["socket"], family, 1, 0] for family in families}
    calls |= {f"clone{bit:x}": [number["clone"], bit, 0] for bit in (0x20000, 1 << 28, 1 << 30)}
    calls |= {
        "keyctl a named keyring": [number["keyctl"], 1, "name"],
        "keyctl search": [number["keyctl"], 10, -3, "user", "name", 0],
        "keyctl revoke": [number["keyctl"], 3, 0],  # by its first argument alone
        "socketpair": [number["pair"], 1, 1, 0, 0],
        "preadv2 that does not wait": [number["preadv2"], 0, 0, 0, 0, 0, 8],
        "clone3": [435, 0, 0],
        **{f"fcntl lock {what}": [number["fcntl"], 0, what, 0] for what in (5, 6, 7, 36, 37, 38)},
        **{f"fcntl hint {what}": [number["fcntl"], 0, what, 0] for what in range(1035, 1039)},
        **{f"ioctl {what:x}": [number["ioctl"], 0, what, 0] for what in (0x6612, 0x6601, 0x9409, 0x5412)},
        **{f"prctl PR_SCHED_CORE {what}": [number["prctl"], 62, what, 0, 0, 0] for what in range(4)},
        "getsockopt SO_COOKIE": [number["getsockopt"], 0, 1, 57, 0, 0],
        "a call of tomorrow": [600, 0],
    }
    connect("AsksKernel", tmp_path, json.dumps(calls).encode()).end()  # which it did not say of any
    with pytest.raises(Fault, match="not refused: getpid"):
        connect("AsksKernel", tmp_path / "granted", b'{"getpid": [%d]}' % (39, 172)[column])


@needs_sandbox
def test_calls_of_another_architecture_end_it(tmp_path):
    if platform.machine() != "x86_64":
        pytest.skip(f"NOT TESTED: {platform.machine()} has no second set of calls")
    with pytest.raises(Fault) as fault:  # getpid of x32
        connect("AsksKernel", tmp_path, json.dumps({"x32": [0x40000000 + 39]}).encode())
    assert fault.value.rule == "died"


@pytest.mark.parametrize(
    "machine, header", [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")]
)
def test_numbers_of_calls(machine, header):
    path, column = Path("/usr/include", header), syscalls.MACHINES[machine][0]
    if not path.exists():
        pytest.skip(f"NOT TESTED: no {path} (package linux-libc-dev)")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    listed = syscalls.REFUSED | {name: numbers for name, (numbers, _) in syscalls.ANSWERED.items()}
    wrong = {n: v for n, v in listed.items() if n in known and int(known[n]) != v[column]}
    assert not wrong and len(set(known) & set(syscalls.REFUSED)) > 70


@needs_sandbox
@pytest.mark.parametrize(
    "way", ["keys", "files", "times", "shm", "devices", "names", "sessions", "hints", "pages"]
)
def test_a_pass_leaves_no_message(tmp_path, way, really, monkeypatch):
    if way == "names" and not view.forgets_names():
        pytest.skip("NOT TESTED: only root can have names forgotten")
    for name in really if way in ("names", "pages") else ():
        monkeypatch.setattr(view, name, really[name])
    seldom_read = Path(np.__path__[0]).parent / "torch/testing/_internal/common_methods_invocations.py"
    if way == "pages" and seldom_read.exists():
        with seldom_read.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    libc, keyctl = ctypes.CDLL(None), dict(x86_64=250, aarch64=219)[platform.machine()]
    libc.syscall(keyctl, 1, None)  # a session with a keyring, as a login makes one
    for _ in range(2):
        # On CUDA where /proc would tell of it, which a CPU's passes do not see.
        device = "cuda" if way in ("sessions", "pages") else "cpu"
        connect("LeavesAMessage", tmp_path, way.encode(), device).end()


@needs_sandbox
def test_root_is_nobody(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: not run as root")
    if sandbox.user().uid is None:
        pytest.skip("NOT TESTED: root may not become another user here")
    with connect("Plain", tmp_path) as feeder:
        inside = usage.usage(feeder.process.pid)[1][-1]
        status = Path(f"/proc/{inside}/status").read_text()
    assert re.search(r"^Uid:(\s+65534){4}$", status, re.M) and re.search(r"^Gid:(\s+65534){4}$", status, re.M)
    assert re.search(r"^CapEff:\s+0+$", status, re.M) and re.search(r"^Groups:\s*$", status, re.M)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M) and re.search(r"^Seccomp:\s+2$", status, re.M)


@needs_sandbox
@pytest.mark.parametrize("which", [0, pytest.param(-1, marks=needs_user_namespace)])
def test_no_program_of_the_systems_gets_what_is_left_of_a_crash(tmp_path, monkeypatch, which):
    user = sandbox.users()[which]
    monkeypatch.setattr(sandbox, "user", lambda: user)
    core = "[w.split()[4] for w in open('/proc/self/limits') if 'core' in w]"
    assert last_words(tmp_path, core, "cuda") == "['1']"
    assert last_words(tmp_path, "LIBC.setrlimit(4, bytes(16))") == "-1"


@needs_sandbox
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_setting_of_the_kernel_is_writable(tmp_path, device):
    """As whatever it runs as; and where root can have a user namespace alone."""
    files = "(d + '/' + f for t in ('/proc', '/sys') for d, _, fs in os.walk(t) for f in fs)"
    writable = "os.access(f, os.W_OK) and not os.stat(f).st_rdev"  # /dev/null lies over the others
    expression = f"[f for f in {files} if not f[6:7].isdigit() and {writable}]"
    assert last_words(tmp_path, expression, device) == "[]"


@needs_user_namespace
def test_root_in_a_namespace_alone(tmp_path, monkeypatch, really):
    monkeypatch.setattr(sandbox, "user", lambda: sandbox.users()[-1])
    test_no_setting_of_the_kernel_is_writable(tmp_path, "cuda")
    # The kernel takes it for the files' owner.
    test_a_pass_leaves_no_message(tmp_path, "hints", really, monkeypatch)
    # Or it writes into bubblewrap's memory.
    assert last_words(tmp_path, "os.listdir('/proc/1')", "cuda") == "[]"
    before = os.stat("/dev/full").st_mode  # the machine's own device
    change = "[os.chmod('/dev/full', 0o1666), os.stat('/dev/full').st_mode][1]"
    assert last_words(tmp_path, change) == str(before) == str(os.stat("/dev/full").st_mode)
    with connect("Plain", tmp_path) as feeder:
        assert feeder.log_probs(TOKENS).shape == (5, 1024)


# ---- The exchange


@needs_sandbox
@pytest.mark.parametrize("way, rule", [
    ("append", "raised"),  # by its own writing
    ("nonblocking", "raised|protocol"), ("seal", "none"),
    ("empty", "none"),  # before its rows are there
    ("signals", "none"), ("floods", "none"), ("deaf", "died|protocol"), ("dumb", "died"),
    ("urgent", "none|protocol|died"),  # as the kernel knows such bytes or not
    ("hands_over", "protocol"),
])  # fmt: skip
def test_the_exchange_holds(tmp_path, way, rule):
    found = "none"
    with connect("BreaksExchange", tmp_path, way.encode()) as feeder:
        try:
            for _ in range(3):
                assert feeder.log_probs(np.zeros(9, np.uint16)).shape == (9, 1024)
                time.sleep(0.2)
        except Fault as fault:
            found = fault.rule
    assert re.fullmatch(rule, found)


@needs_sandbox
def test_what_breaks_the_exchange_is_reported(run, monkeypatch):
    """No error of the exchange ends the scorer: it is a finding of the report."""

    def broken(*_):
        raise OSError(27, "File too large")

    monkeypatch.setattr(remote, "write_all", broken)
    report = run("Plain")
    assert report["verdict"] == "FAIL" and "File too large" in failed(report)["protocol"]


@needs_sandbox
def test_a_sandbox_that_does_not_start_is_no_fault_of_the_submission(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "HOST_PY", Path("/nowhere.py"))
    with pytest.raises(GolfError, match="the sandbox did not start: the process ended"):
        connect("Plain", tmp_path)


# ---- Limits


@needs_sandbox
@pytest.mark.parametrize("way", ["memfd", "deleted", "mapped", "tables", "sockets", "leaderless"])
def test_memory_in_files_counts(tmp_path, way, memory_alone, monkeypatch):
    program = functools.partial(syscalls.program, sockets=way == "sockets")  # as on CUDA
    monkeypatch.setattr(syscalls, "program", lambda **_: program())
    limits = dataclasses.replace(LIMITS, memory_bytes=1 << 28)
    with connect("Hoards", tmp_path, way.encode(), limits=limits) as feeder:
        with pytest.raises(Fault) as fault:
            feeder.log_probs(TOKENS)
    assert fault.value.rule == "memory" and feeder.peak_memory_bytes > 1 << 28


@pytest.mark.parametrize("kind", ["SUnreclaim", "VmallocUsed"])
@pytest.mark.parametrize("slow", [False, True])
def test_what_others_free_meanwhile_hides_nothing_of_another_kind(monkeypatch, kind, slow):
    """Nor does a look that takes long, as a submission can make it."""
    if slow:
        monkeypatch.setattr(watch.time, "thread_time", itertools.count(0, 3600).__next__)
    sizes = collections.Counter(Shmem=3 << 30, SUnreclaim=1 << 20)
    monkeypatch.setattr(usage, "sizes_in", lambda path: sizes if path == "/proc/meminfo" else sizes - sizes)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        watching = watch.LimitWatch(process, dataclasses.replace(LIMITS, memory_bytes=1 << 28))
        try:
            sizes.update({"Shmem": -(2 << 30), kind: 1 << 29})
            wait_until(lambda: watching.fault)
            assert watching.fault.rule == "memory" and watching.peak_memory_bytes == 1 << 29
        finally:
            watching.stop()
            usage.end(process)


@needs_sandbox
def test_what_cannot_be_measured_ends(tmp_path, monkeypatch):
    with connect("Plain", tmp_path) as feeder:
        monkeypatch.setattr(usage, "usage", lambda pid: 1 / 0)
        wait_until(lambda: feeder.watch.fault)
        assert feeder.watch.fault.rule == "scorer" and "ZeroDivisionError" in feeder.watch.fault.message
        monkeypatch.undo()


@needs_sandbox
def test_limits_hold_while_nobody_waits(tmp_path, memory_alone):
    limits = dataclasses.replace(LIMITS, memory_bytes=1 << 28)
    with connect("Hoards", tmp_path, b"idle", limits=limits) as feeder:
        feeder.log_probs(TOKENS)
        wait_until(lambda: feeder.process.poll() is not None)
        with pytest.raises(Fault) as fault:
            feeder.log_probs(TOKENS)
    assert fault.value.rule == "memory" and "while nobody waited for it" in fault.value.message


@pytest.mark.slow
@needs_sandbox
def test_work_between_calls_counts(tmp_path):
    spent = {}
    for name in ("WorksBetweenCalls", "Plain"):
        with connect(name, tmp_path) as feeder:
            before = feeder.seconds
            for _ in range(3):
                feeder.log_probs(TOKENS)
                time.sleep(0.5)
            spent[name] = feeder.seconds - before
    assert spent["WorksBetweenCalls"] > spent["Plain"]
    assert feeder.seconds >= feeder.stream_seconds > feeder.load_seconds


@needs_sandbox
def test_a_stream_has_a_limit_of_its_own(tmp_path):
    """However many calls it has, each within theirs: loading alone takes so long."""
    with pytest.raises(Fault, match="a stream took over 1 s") as fault:
        connect("LoadsSlowly", tmp_path, limits=dataclasses.replace(LIMITS, stream_seconds=1))
    assert fault.value.rule == "time"


def test_a_process_that_ends_hides_no_work_of_others(monkeypatch):
    feeder = remote.Remote.__new__(remote.Remote)
    feeder.watch, feeder.idle = collections.namedtuple("Watch", "pids")([]), (0.0, {1: 9.0, 2: 1.0})
    monkeypatch.setattr(usage, "cpu_seconds", lambda pids: {2: 4.0, 3: 0.5})
    assert feeder.worked_unasked() == 3.5


@pytest.mark.slow
@needs_sandbox
def test_loading_and_reset_count(tmp_path):
    with connect("LoadsSlowly", tmp_path) as feeder:
        assert feeder.stream_seconds >= 2 and feeder.load_seconds >= 1
        feeder.log_probs(TOKENS)
        feeder.reset()
        assert feeder.stream_seconds >= 2 and feeder.seconds >= 4


# ---- Where there is none


@pytest.mark.parametrize("exists, value, words", [
    ("/.dockerenv", "", "--security-opt seccomp=unconfined"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "userns=0, or give bwrap"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("/nothing", "", "docs/scoring.md"),
])  # fmt: skip
def test_what_to_do_where_namespaces_are_forbidden(monkeypatch, exists, value, words):
    monkeypatch.setattr(sandbox.Path, "exists", lambda path: str(path) == exists)
    monkeypatch.setattr(sandbox.Path, "read_text", lambda path, **_: value + "\n")
    assert words in sandbox.what_to_do()


def test_a_submission_gets_the_threads_of_the_quota(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "affinity", lambda: 64)
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.0)
    assert sandbox.bare_environment("/home")["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    assert "OMP_NUM_THREADS" not in sandbox.bare_environment("/home")
    assert machine.usable_cpus() == 64 and os.cpu_count()
