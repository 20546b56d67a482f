"""Trains an entry again, in a sandbox without validation data.

The sandbox holds Python, the system's libraries, the entry's counted files without its artifact, the train
shards and the tokenizer. Where a trainer looks for validation shards it finds a stand-in cut from a train
shard: its score on that is ignored, and it teaches nothing new. There is no network, no home, no repository,
no /usr/share and no other process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from golf.core import machine, runlog, trainers
from golf.core.errors import GolfError
from golf.core.paths import shown
from golf.core.processes import start
from golf.core.text import last_line
from golf.score import stream
from golf.score.claims import SeedEntry
from golf.score.sandbox import bwrap as sandbox
from golf.score.sandbox import syscalls, usage, view
from golf.score.sandbox.bwrap import in_place
from golf.score.sandbox.client import copy_files
from golf.score.sandbox.watch import MEMORY_RESERVE

HOME, WORK, CODE, DATA = "/verify/home", "/verify/work", "/verify/entry", "/verify/data"
ALONE = ("--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL")
HIDDEN = ("/usr/share", "/usr/local/share", "/usr/src", "/usr/local/src")  # they hold texts
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
OTHER_SECONDS = 300.0  # beyond the budget, for imports, compiling and packing
TICK_SECONDS = 0.2
DISK_RESERVE = 1 << 30  # bytes


@dataclass(frozen=True)
class Plan:
    """How one seed is trained again."""

    entry: SeedEntry
    env: dict[str, str]  # of the entry, without what names places
    arguments: list[str]  # after the script's name
    world: int  # processes, by torchrun
    device: str  # cpu or cuda
    shards: list[Path]  # train shards
    stand_in: int  # tokens of the stand-in for the validation shard
    tokenizer: Path
    data_name: str
    budget: float  # seconds of training
    limit: float  # seconds, after which the process is killed


@dataclass(frozen=True)
class Trained:
    artifact: Path
    seconds: float  # until the artifact was last written, of the parent's clock
    steps: float | None  # by its log


def train(plan: Plan, folder: Path) -> Trained:
    """Trains in the sandbox; log and artifact go to `folder`. GolfError if no artifact is written."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="golf-verify-") as temporary:
        code, work, data = (Path(temporary, name) for name in ("code", "work", "data"))
        for path in (work, data):
            path.mkdir(mode=0o755)
        # without the artifact, which a script could hand over as its own
        copy_files({n: path for n, path in plan.entry.files.items() if n != plan.entry.artifact}, code)
        lay_out(plan, data)
        view.forget_names()  # the scoring of another seed knew the validation text
        log = folder / "output.log"
        # as a run calls it: final_model.int8.zlib, without the seed
        name = Path(plan.entry.artifact).name.replace(f"_seed{plan.entry.seed}.", ".", 1)
        code_of, seconds = run(plan, (code, work, data), log, name)
        found = sorted(path for path in work.rglob(name) if path.is_file() and not path.is_symlink())
        if len(found) != 1:
            last = last_line(log.read_text(encoding="utf-8", errors="replace"), "it printed nothing")
            what = "no" if not found else f"{len(found)} files"
            raise GolfError(
                f"seed {plan.entry.seed}: training left {what} {name} (exit code {code_of}); its last words: "
                f"{ascii(last[:200])}; all of them are in {shown(log)}"
            )
        artifact = folder / plan.entry.artifact
        artifact.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[0], artifact)
    return Trained(artifact, seconds, runlog.trained_steps(log))


def lay_out(plan: Plan, data: Path) -> None:
    """Writes the stand-in for the validation shard: the beginning of the first train shards' tokens."""
    parts, missing = [], plan.stand_in
    for path in plan.shards:
        parts.append(np.array(stream.open_shard(path)[:missing]))
        missing -= len(parts[-1])
        if missing <= 0:
            break
    (data / "stand_in.bin").write_bytes(trainers.shard_of(np.concatenate(parts)))


def run(plan: Plan, folders: tuple[Path, Path, Path], log: Path, artifact: str) -> tuple[int, float]:
    """The exit code, and the seconds until the artifact was last written (0: never).

    The clock is ours: what a trainer logs of its time is its own word.
    """
    work = folders[1]
    settings = {
        **plan.env,
        **environment(),
        **machine.thread_settings(plan.world),
        "DATA_PATH": f"{DATA}/datasets/{plan.data_name}",
        "TOKENIZER_PATH": f"{DATA}/tokenizers/{plan.tokenizer.name}",
        "OUT_DIR": f"{WORK}/runs",
        "RUN_ID": "verify",
        "SEED": str(plan.entry.seed),
        "RESUME": "0",
    }
    python = [sys.executable]
    if plan.world > 1:
        python += ["-m", "torch.distributed.run", "--standalone", "--log-dir=/dev/null"]
        python += [f"--nproc_per_node={plan.world}"]
    usage.forbid_dumps()
    began, written, seen = time.monotonic(), 0.0, None
    with log.open("wb") as output, syscalls.filter_file(training=True) as calls:
        command = [*sandboxed(plan, folders, calls.fileno()), *python]
        command += [f"{CODE}/{plan.entry.script}", *plan.arguments]
        process = start(command, env=settings, stdout=output, stderr=subprocess.STDOUT,
                        pass_fds=[calls.fileno()])  # fmt: skip
        try:
            while (code := process.poll()) is None:
                now = time.monotonic() - began
                if now > plan.limit:
                    raise GolfError(
                        f"seed {plan.entry.seed}: still running after {now:.0f} s, its budget is "
                        f"{plan.budget:g} s; what it printed is in {shown(log)}"
                    )
                if why := machine_is_full(work):
                    raise GolfError(f"seed {plan.entry.seed}: training was ended: {why}")
                if (state := last_written(work, artifact)) != seen:
                    seen, written = state, now
                time.sleep(TICK_SECONDS)
        finally:
            usage.end(process)
    if last_written(work, artifact) != seen:
        written = time.monotonic() - began
    return code, written


def machine_is_full(work: Path) -> str | None:
    """Why no training may go on, whoever took the rest; None: it may."""
    if usage.machine_memory().left < MEMORY_RESERVE:
        return "the machine's memory ran out"
    if shutil.disk_usage(work).free < DISK_RESERVE:
        return f"the disk of {shown(work)} has under {DISK_RESERVE:,} bytes left"
    return None


def last_written(work: Path, artifact: str) -> list[tuple]:
    """A value that changes whenever a file of this name is written."""
    try:
        return [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(work.rglob(artifact))]
    except OSError:  # it is just being renamed
        return []


def environment() -> dict[str, str]:
    """The environment besides the entry's own variables; no path of this machine's user."""
    path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
    env = sandbox.passed_on()
    return env | {"HOME": HOME, "USER": "trainer", "TMPDIR": "/tmp", "PATH": path, "PYTHONUNBUFFERED": "1"}


def shown_folders() -> list[Path]:
    """The folders outside /usr that this Python and its packages lie in."""
    found = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_exec_prefix)]
    return [f for f in dict.fromkeys(found) if f.is_dir() and not f.is_relative_to("/usr")]


def refuse_shown(*paths: Path) -> None:
    """GolfError where a folder that must stay hidden lies in one that Python needs."""
    for path in paths:
        for folder in (Path("/usr"), *shown_folders()):
            if path.resolve().is_relative_to(folder.resolve()):
                raise GolfError(f"{shown(path)}: lies in {folder}, which training sees; move either", 2)


@cache
def why_not() -> str | None:
    """Why training cannot be sandboxed here, and what to do; None if it can.

    The scorer's sandbox may work all the same: root needs no user namespace for that. Most containers allow a
    user namespace, but not with its own /proc.
    """
    if why := sandbox.why_not():
        return why
    if not (said := sandbox.refusal([*ALONE, "true"])):
        return None
    return f"bubblewrap makes no user namespace with a /proc of its own here ({said}); {sandbox.what_to_do()}"


def sandboxed(plan: Plan, folders: tuple[Path, Path, Path], filter_fd: int) -> list[str]:
    """bubblewrap's part of the command line. filter_fd: a file that holds a filter of system calls."""
    code, work, data = folders
    args = ["bwrap", *ALONE, "--hostname", "trainer", "--new-session", "--die-with-parent"]
    args += ["--tmpfs", "/tmp", "--tmpfs", HOME, *in_place("--ro-bind", "/usr")]
    for path in filter(os.path.isdir, HIDDEN):
        args += ["--tmpfs", path]
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            args += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            args += in_place("--ro-bind", path)
    args += in_place("--ro-bind-try", *sandbox.ETC, "/etc/alternatives")
    args += in_place("--ro-bind", *shown_folders())
    args += ["--proc", "/proc", *sandbox.hide("/proc/1"), "--dev", "/dev", "--tmpfs", "/dev/shm"]
    if plan.device == "cuda":
        args += in_place("--ro-bind", "/sys") + sandbox.cuda_devices()
    args += ["--ro-bind", str(code), CODE, "--bind", str(work), WORK]
    datasets = f"{DATA}/datasets/{plan.data_name}"
    for path in plan.shards:
        args += ["--ro-bind", str(path.resolve()), f"{datasets}/{path.name}"]
    args += ["--ro-bind", str(data / "stand_in.bin"), f"{datasets}/fineweb_val_000000.bin"]
    args += ["--ro-bind", str(plan.tokenizer.resolve()), f"{DATA}/tokenizers/{plan.tokenizer.name}"]
    return [*args, "--remount-ro", "/", "--seccomp", str(filter_fd), "--chdir", WORK, "--"]
