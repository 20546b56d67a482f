"""Say what works on this machine, and what to do about the rest.

Makes the checks that other commands make before they start: Python and its packages, device, compiler, data,
disk, sandbox. ok: it works. NOTE: something works less well without it, or not yet. FAIL, and exit code 1: no
model can be trained here. Nothing is installed or fetched.
"""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec

from golf.core import envfile, machine, trainers
from golf.core.errors import GolfError
from golf.core.findings import FAIL, NOTE
from golf.core.packages import missing
from golf.core.paths import REPO, shown
from golf.run import preflight
from golf.score.sandbox import bwrap

PACKAGES = ("numpy", "sentencepiece", "tqdm", "huggingface-hub", "matplotlib", "scipy", "brotli")
DATA = {"sample_sp1024": "sample_1024_bpe.model", "fineweb10B_sp1024": "fineweb_1024_bpe.model"}
Check = tuple[str, str, Callable[[], str]]  # level if it raises GolfError; what it checks; makes the line


def add_arguments(parser) -> None:
    pass


def main(args) -> int:
    checks: list[Check] = [(FAIL, "python", python), (FAIL, "packages", packages), (FAIL, "device", device)]
    checks += [(NOTE, "compiler", compiler), (FAIL, "disk", disk)]
    checks += [(NOTE, "data", lambda name=name: data(name)) for name in DATA]
    checks += [(NOTE, "sandbox", sandbox)]
    failed = False
    for level, what, ask in checks:
        try:
            outcome, said = "ok", ask()
        except GolfError as error:
            outcome, said = level, str(error)
        print(f"{outcome:5} {what:9} {said}", flush=True)
        failed |= outcome == FAIL
    return int(failed)


def python() -> str:
    return f"{platform.python_version()}, {shown(sys.executable)}"


def packages() -> str:
    """Versions of one of the two frameworks, and of what both trainers and the tools need."""
    framework = "mlx" if find_spec("mlx") and not find_spec("torch") else "torch"
    try:
        names = (framework, *PACKAGES)
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError as error:
        raise missing(error.name) from None


def device() -> str:
    """What DEVICE=auto trains on; GolfError if there is a GPU that PyTorch cannot use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cpu = f"{machine.usable_cpus()} CPU cores of {platform.machine()}, {memory:.0f} GB of memory"
    if not find_spec("torch"):
        return f"{cpu}; MLX's device" if find_spec("mlx") else cpu
    found, said = trainers.cuda_facts(dict(os.environ))
    if found is None:
        raise GolfError(f"PyTorch does not start: `{shown(sys.executable)} -c 'import torch'` says why")
    if not found["cards"] and not machine.has_nvidia():
        return f"{cpu}; no NVIDIA GPU"
    trainers.refuse_cuda(found, said, 1)
    return "; ".join(f"{name}, capability {major}.{minor}" for name, major, minor in found["cards"])


def compiler() -> str:
    if warning := preflight.check_compiler(dict(os.environ), "auto", machine.has_nvidia()):
        raise GolfError(warning)
    return "training is compiled"


def disk() -> str:
    folder = REPO / (envfile.settings({}, {"OUT_DIR": ""}).get("OUT_DIR") or "runs")  # as golf run reads it
    preflight.check_out_dir(folder)
    return f"{shown(folder)}/ can be written and has room"


def data(name: str) -> str:
    folder = REPO / "data/datasets" / name
    trainers.check_data(folder, REPO / "data/tokenizers" / DATA[name])
    return f"{shown(folder)}, train shards: {len([*folder.glob('fineweb_train_*.bin')])}"


def sandbox() -> str:
    if reason := bwrap.why_not():
        raise GolfError(f"{reason}; golf.sh score and verify need it")
    return "golf.sh score and verify can confine other people's code"
