"""What can be known to be wrong before a run starts, each in one line, before anything is made."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import REPO, GolfError, missing, shown

FREE_BYTES = 512 << 20  # logs, checkpoint and artifact of one run at the largest preset
RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def check_trainer(trainer: Path) -> None:
    """The trainer is there, parses, and what it imports at its top can be imported."""
    if not trainer.is_file():
        raise GolfError(f"{shown(trainer)}: no trainer there; give the path of a script", 2)
    try:
        body = ast.parse(trainer.read_bytes()).body
    except (SyntaxError, ValueError) as error:
        raise GolfError(f"{shown(trainer)}: does not parse as Python: {error}") from None
    modules = {a.name for node in body if isinstance(node, ast.Import) for a in node.names}
    modules |= {
        n.module for n in body if isinstance(n, ast.ImportFrom) and n.module and not n.level
    }
    tops = {m.partition(".")[0] for m in modules}
    for module in sorted(tops):
        beside = (trainer.parent / f"{module}.py", trainer.parent / module)
        if importlib.util.find_spec(module) is None and not any(p.exists() for p in beside):
            raise missing(module, f"requirements-{'mlx' if 'mlx' in tops else 'cuda'}.txt")


def read_knobs(trainer: Path, env: dict[str, str]) -> dict[str, str]:
    """NAME -> default, as `trainer --knobs` prints them; "also NAME" in a meaning is an alias."""
    command = [sys.executable, str(trainer), "--knobs"]
    done = subprocess.run(
        command, env=env, cwd=REPO, capture_output=True, text=True, errors="replace"
    )
    rows = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") >= 2]
    if done.returncode or not rows:
        said = (done.stderr.strip().splitlines() or ["it printed no knobs"])[-1]
        raise GolfError(f"{shown(trainer)} --knobs failed: {said}")
    knobs = {name: default for name, default, *_ in rows}
    for _, default, meaning in (row[:3] for row in rows):
        for alias in re.findall(r"\balso ([A-Z][A-Z0-9_]+)", meaning):
            knobs.setdefault(alias, default)
    return knobs


def check_run_id(run_id: str, run_dir: Path, resume: bool) -> None:
    if not RUN_ID.fullmatch(run_id):
        raise GolfError(
            f"RUN_ID={run_id!r}: a plain name of letters, digits, . _ and - is needed", 2
        )
    if (run_dir / "train.log").exists() and not resume:
        raise GolfError(
            f"{shown(run_dir)} already holds a run; choose another RUN_ID, or go on with RESUME=1"
        )


def find_path(value: str, trainer: Path) -> Path:
    """Where a trainer, run in the repository, finds a path; defaults count from where it lies."""
    bases = [REPO, *trainer.parents]
    return next((base / value for base in bases if (base / value).exists()), REPO / value)


def check_data(
    data: Path, tokenizer: Path, splits: tuple[str, ...] = ("train", "val"), val: Path | None = None
) -> None:
    """val: the folder of the validation shards, where it is another (VAL_DATA_PATH)."""
    if "sample" in data.name:
        fetch = "python3 data/build_sample_dataset.py"
    else:
        variant = data.name.rpartition("_")[2] if data.name.startswith("fineweb10B_") else "sp1024"
        fetch = f"python3 data/cached_challenge_fineweb.py --variant {variant} --train-shards 2"
    for split in splits:
        elsewhere = split == "val" and val is not None
        name, folder = ("VAL_DATA_PATH", val) if elsewhere else ("DATA_PATH", data)
        if not any(folder.glob(f"fineweb_{split}_*.bin")):
            raise GolfError(
                f"{name}={shown(folder)}: no fineweb_{split}_*.bin there; get them with `{fetch}`"
            )
    if not tokenizer.is_file():
        raise GolfError(f"TOKENIZER_PATH={shown(tokenizer)}: no such file; get it with `{fetch}`")


def check_cuda(trainer: Path, env: dict[str, str]) -> None:
    """DEVICE=cuda needs a device that PyTorch sees; asked in a process of its own."""
    if not imports(trainer, "torch"):
        return
    ask = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 9)"
    command = [sys.executable, "-c", ask]  # not where we stand: a torch.py there would be imported
    done = subprocess.run(command, env=env, cwd=REPO, stderr=subprocess.DEVNULL)
    if done.returncode == 9:
        raise GolfError(
            "DEVICE=cuda: PyTorch finds no CUDA device here; check the driver with nvidia-smi, "
            "or set DEVICE=cpu to train on the processor"
        )


def imports(trainer: Path, module: str) -> bool:
    """Whether a line of it imports this top-level module."""
    pattern = rf"^\s*(import|from) {module}\b".encode()
    return bool(re.search(pattern, trainer.read_bytes(), re.MULTILINE))


def check_out_dir(out_dir: Path) -> None:
    """OUT_DIR can be written and has room; made if need be, so this comes last."""
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out_dir):
            pass
        free = shutil.disk_usage(out_dir).free
    except OSError as error:
        raise GolfError(
            f"OUT_DIR={shown(out_dir)}: cannot be written ({error.strerror}); set another OUT_DIR"
        ) from None
    if free < FREE_BYTES:
        raise GolfError(
            f"OUT_DIR={shown(out_dir)}: {free >> 20} MiB free, a run needs {FREE_BYTES >> 20}; "
            "free some or set OUT_DIR to another disk"
        )


def child_env(settings: dict[str, str]) -> dict[str, str]:
    """The trainer's environment: ours with the settings, without our own PYTHONPATH entry."""
    env = {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
    scripts = str(REPO / "scripts")
    kept = [p for p in env.pop("PYTHONPATH", "").split(os.pathsep) if p and p != scripts]
    if kept:
        env["PYTHONPATH"] = os.pathsep.join(kept)
    return env
