"""Checks before a run starts: each problem is one line, and nothing has been made yet."""

import re
import shutil
import sys
import tempfile
from pathlib import Path

from golf.core import machine, trainers
from golf.core.errors import GolfError
from golf.core.files import plain
from golf.core.paths import shown

FREE_BYTES = 512 << 20  # logs, checkpoint and artifact of one run at the largest preset
CHECKPOINTS = ("checkpoint.pt", "checkpoint.safetensors")  # PyTorch's, MLX's
RUN_FILES = (*CHECKPOINTS, "train.log", "metrics.jsonl", "config.json", "supervisor.json", ".lock")
RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def check_checkpoint(trainer: Path, run_dir: Path) -> None:
    """A run goes on with the trainer that made its checkpoint."""
    other = CHECKPOINTS[not trainers.imports(trainer, "mlx")]
    if (run_dir / other).exists():
        maker = "MLX" if "safetensors" in other else "PyTorch"
        raise GolfError(f"{shown(run_dir / other)}: of the {maker} trainer; use that, or another RUN_ID")


def check_compiler(env: dict[str, str], compile_knob: str, gpu: bool) -> str | None:
    """A warning if training cannot be compiled here; GolfError if COMPILE=1 demands it.

    docs/benchmarks.md has the steps of quickstart on a CPU with and without compiling.
    """
    faults = machine.compiler_faults(env, gpu) if compile_knob != "0" else []
    if not faults:
        return None
    how = f"{'gcc' if gpu else 'g++'} and python3-dev"
    if sys.platform == "darwin":
        how = "Apple's compiler (xcode-select --install)"
    told = f"{' and '.join(faults)} found: install {how}"
    if compile_knob == "1":
        raise GolfError(f"COMPILE=1: {told}, or set COMPILE=auto")
    return f"{told}, or training is not compiled and takes {'2 to 3' if gpu else '1.4 to 1.6'} times as long"


def check_run_id(run_id: str, run_dir: Path, resume: bool) -> None:
    if not RUN_ID.fullmatch(run_id):
        raise GolfError(f"RUN_ID={run_id!r}: use letters, digits, . _ and - only, no . or - first", 2)
    for name in RUN_FILES:
        plain(run_dir / name)  # opening a pipe would wait for ever
    if (run_dir / "train.log").exists() and not resume:
        raise GolfError(f"{shown(run_dir)} already holds a run; choose another RUN_ID, or set RESUME=1")


def check_out_dir(out_dir: Path) -> None:
    """OUT_DIR can be written and has room; made if need be, so this comes last."""
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out_dir):
            pass
        disk = shutil.disk_usage(out_dir)
    except OSError as error:
        raise GolfError(
            f"OUT_DIR={shown(out_dir)}: cannot be written ({error.strerror}); set another OUT_DIR"
        ) from None
    if disk.total and disk.free < FREE_BYTES:  # some network disks say 0 of 0
        raise GolfError(
            f"OUT_DIR={shown(out_dir)}: {disk.free >> 20} MiB free, a run needs {FREE_BYTES >> 20}; "
            "free some or set OUT_DIR to another disk"
        )
