"""Trainer scripts: what they import, which knobs they have, where they find data.

Everything that would stop a run is reported in one line before it starts.
"""

import ast
import contextlib
import importlib.machinery
import importlib.util
import json
import os
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.files import plain
from golf.core.packages import missing
from golf.core.packed import NotPacked, read_source
from golf.core.paths import REPO, shown
from golf.core.text import last_line

TRAINER_PACKAGES = ("torch", "mlx", "numpy", "sentencepiece", "brotli")  # of the requirements

HEADER_BYTES, SHARD_MAGIC, SHARD_VERSION = 1024, 20240520, 1


def load(trainer: Path):
    """The trainer as a module of its own, whatever its suffix; runs its code."""
    name = f"trainer_{hash(trainer) & 0xFFFFFF:x}"
    loader = importlib.machinery.SourceFileLoader(name, str(trainer))
    spec = importlib.util.spec_from_file_location(name, trainer, loader=loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    loader.exec_module(module)
    return module


def check_trainer(trainer: Path) -> None:
    """GolfError if the trainer is missing, does not parse, or needs a module that is not installed.

    Imports inside functions count too: they may only run when scoring starts, after hours of training.
    """
    if not trainer.is_file():
        raise GolfError(f"{shown(trainer)}: no trainer there; give the path of a script", 2)
    files = [trainer]
    for path in files:
        try:
            source = read_source(path)
            source.decode()  # as UTF-8, in which a log begins with it
            tree = ast.parse(source)
        except NotPacked as error:
            raise GolfError(f"{shown(path)}: {error}; ship what the run packed") from None
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise GolfError(f"{shown(path)}: does not parse as Python: {error}") from None
        for name in sorted(imported(tree, path)):
            if (trainer.parent / name / "__init__.py").is_file():
                raise GolfError(
                    f"{shown(path)} imports {name}, a folder: a submission's modules are single files; "
                    f"make it {name}.py beside {trainer.name}"
                )
            own = trainer.parent / f"{name}.py"
            if own.is_file():
                files += [own] if own not in files else []
            elif not can_import(name):
                refuse_import(path, name)


def imported(tree: ast.AST, path: Path) -> set[str]:
    """Top-level names of the modules that a source imports.

    Imports in a `try` that handles their absence are left out. GolfError for relative imports, which a script
    cannot have.
    """
    found: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Try) and node.handlers and not any(map(gives_up, node.handlers)):
            waiting += [*node.handlers, *node.orelse, *node.finalbody]
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            raise GolfError(
                f"{shown(path)}:{node.lineno}: a script has no package to import from; "
                "write `import name`, without the dot, for name.py beside it"
            )
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        found |= {name.partition(".")[0] for name in names}
        waiting += ast.iter_child_nodes(node)
    return found


def gives_up(handler: ast.ExceptHandler) -> bool:
    """Whether the handler ends the script, so the import was needed after all."""
    ends = (ast.Name, ast.Attribute)
    called = [n.func for n in ast.walk(handler) if isinstance(n, ast.Call) and isinstance(n.func, ends)]
    names = {func.id if isinstance(func, ast.Name) else func.attr for func in called}
    return bool(names & {"exit", "SystemExit"}) or any(isinstance(n, ast.Raise) for n in ast.walk(handler))


def can_import(name: str) -> bool:
    """Whether a trainer can import the module. It does not see our own package."""
    if name in sys.stdlib_module_names:
        return True
    try:
        return name != "golf" and importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def refuse_import(path: Path, name: str) -> None:
    """GolfError for a module that is nowhere."""
    if name not in TRAINER_PACKAGES:
        raise GolfError(
            f"{shown(path)} imports {name}, which is no installed package, and there is no {name}.py "
            "beside it; put it there, or install it",
            2,
        )
    raise missing(name, f"requirements-{'mlx' if imports(path, 'mlx') else 'cuda'}.txt")


def read_knobs(trainer: Path) -> dict[str, str]:
    """NAME -> default, as `trainer --knobs` prints them, a line each: NAME default # meaning."""
    command, env = [sys.executable, str(trainer), "--knobs"], child_env({})
    done = subprocess.run(command, env=env, cwd=REPO, capture_output=True, encoding="utf-8", errors="replace")
    knobs = dict(filter(None, map(knob_of, done.stdout.splitlines())))
    if done.returncode or not knobs:
        said = last_line(done.stderr, "it printed no knobs")
        raise GolfError(f"{shown(trainer)} --knobs failed: {said}")
    return knobs


def knob_of(line: str) -> tuple[str, str] | None:
    """Name and default of a line; older trainers set them apart by tabs and quote nothing."""
    if line.count("\t") >= 2:
        return tuple(line.split("\t")[:2])
    with contextlib.suppress(ValueError):  # an open quote
        name, default = shlex.split(line, comments=True)
        return (name, default) if re.fullmatch("[A-Z][A-Z0-9_]*", name) else None
    return None


def find_path(value: str, trainer: Path) -> Path:
    """Where a trainer, run in the repository, finds a path; defaults count from where it lies."""
    bases = [REPO, *trainer.parents]
    return next((base / value for base in bases if (base / value).exists()), REPO / value)


def check_data(
    data: Path, tokenizer: Path, splits: tuple[str, ...] = ("train", "val"), val: Path | None = None
) -> None:
    """GolfError if shards or tokenizer are missing, or a shard is not whole.

    val: the folder of validation shards, if not `data`.
    """
    python = shlex.quote(shown(sys.executable))  # a system's own python3 may lack what these import
    fetch = f"get them with `{python} {' '.join(fetch_command(data))}`"
    if "sample" not in data.name:
        sample = f"{python} {' '.join(fetch_command(Path('sample')))}"
        fetch += f" (0.5 GB), or try it on the sample data: `{sample}`, then configs/quickstart.env"
    for split in splits:
        elsewhere = split == "val" and val is not None
        name, folder = ("VAL_DATA_PATH", val) if elsewhere else ("DATA_PATH", data)
        shards = shard_paths(folder, split)
        if not shards:
            raise GolfError(f"{name}={shown(folder)}: no fineweb_{split}_*.bin there; {fetch}")
        for path in shards:
            count_tokens(path)
    if not tokenizer.is_file():
        raise GolfError(f"TOKENIZER_PATH={shown(tokenizer)}: no such file; {fetch}")


def shard_paths(folder: Path, split: str) -> list[Path]:
    """A split's shards by their numbers: _2 comes before _10, with and without zeros before it."""
    found = {}
    for path in sorted(folder.glob(f"fineweb_{split}_*.bin"), key=lambda path: -len(path.name)):
        number = path.stem.split("_", 2)[2]
        if not re.fullmatch("[0-9]+", number) or int(number) in found:
            raise GolfError(f"{shown(path)}: no number of its own in its name; rename or remove it", 2)
        found[int(number)] = path
    return [found[number] for number in sorted(found)]


def count_tokens(shard: Path) -> int:
    """A shard's tokens, by its header. GolfError where it is not whole."""
    try:
        with plain(shard).open("rb") as file:
            header, size = file.read(12), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise GolfError(f"{shown(shard)}: cannot be read ({error.strerror})", 2) from None
    magic, version, count = struct.unpack("<3i", header.ljust(12, b"\0"))
    whole = size == HEADER_BYTES + 2 * count > HEADER_BYTES
    if not whole or (magic, version) != (SHARD_MAGIC, SHARD_VERSION):
        text = "not a whole token shard; remove it, then fetch or make it again"
        raise GolfError(f"{shown(shard)}: {text}", 2)
    return count


def shard_of(tokens) -> bytes:
    """The shard that holds these tokens, a numpy array."""
    header = struct.pack("<256i", SHARD_MAGIC, SHARD_VERSION, len(tokens), *[0] * 253)
    return header + tokens.astype("<u2").tobytes()


def fetch_command(data: Path, shards: int = 2) -> list[str]:
    """The arguments for Python, in the repository, that make or fetch a data folder and its tokenizer."""
    if "sample" in data.name:
        return ["data/build_sample_dataset.py"]
    variant = data.name.rpartition("_")[2] if data.name.startswith("fineweb10B_") else "sp1024"
    return ["data/cached_challenge_fineweb.py", "--variant", variant, "--train-shards", str(shards)]


# What PyTorch finds, asked in a process of its own: it may warn, and loads gigabytes.
ASK_CUDA = """
import json, torch
gpu = torch.cuda
count = gpu.device_count() if gpu.is_available() else 0  # NVML also counts where the driver is too old
cards = [(gpu.get_device_name(i), *gpu.get_device_capability(i)) for i in range(count)]
print(json.dumps(dict(cuda=torch.version.cuda, cards=cards, kernels=gpu.get_arch_list())))
"""
DRIVERS = {"11": 450, "12": 525, "13": 580}  # the oldest Linux driver of each CUDA


def cuda_facts(env: dict[str, str]) -> tuple[dict | None, str]:
    """What this Python's PyTorch says: cuda (None: a CPU build), cards (name, capability) and kernels; None
    if it does not start. And its last warning."""
    command = [sys.executable, "-c", ASK_CUDA]  # not where we stand: a torch.py there would be imported
    done = subprocess.run(command, env=env, cwd=REPO, capture_output=True, encoding="utf-8", errors="replace")
    warned = [line for line in done.stderr.splitlines() if "Warning: " in line]
    said = warned[-1].partition("Warning: ")[2].partition(" (Triggered")[0] if warned else ""
    try:
        return json.loads(done.stdout.splitlines()[-1]), said
    except (IndexError, ValueError):
        return None, said


def check_cuda(trainer: Path, env: dict[str, str], processes: int = 1) -> None:
    """GolfError unless PyTorch has a CUDA device with kernels for each process."""
    if not imports(trainer, "torch"):
        return
    found, said = cuda_facts(env)
    if found:
        refuse_cuda(found, said, processes)


def refuse_cuda(found: dict, said: str, processes: int) -> None:
    """GolfError if what cuda_facts found cannot train."""
    cards, cpu = found["cards"], "or set DEVICE=cpu to train on the processor"
    if not found["cuda"]:
        raise GolfError(
            "DEVICE=cuda: PyTorch finds no CUDA device here: it is a build for CPUs; install "
            f"requirements-cuda.txt without TORCH_INDEX_URL, {cpu}"
        )
    if not cards:
        driver = DRIVERS.get(found["cuda"].partition(".")[0])
        needs = f"; CUDA {found['cuda']} needs driver {driver} or newer" if driver else ""
        raise GolfError(
            f"DEVICE=cuda: PyTorch finds no CUDA device here{f' ({said})' * bool(said)}{needs}: see "
            f"nvidia-smi, update the driver, install PyTorch for an older CUDA by TORCH_INDEX_URL, {cpu}"
        )
    if processes > len(cards):
        raise GolfError(f"NPROC_PER_NODE={processes}: {len(cards)} CUDA devices here; one process each", 2)
    built = [int(digits[0]) for arch in found["kernels"] if (digits := re.findall(r"^sm_(\d+)", arch))]
    for name, major, minor in cards[:processes]:
        if built and 10 * major + minor < min(built):
            least = f"{min(built) // 10}.{min(built) % 10}"
            raise GolfError(
                f"DEVICE=cuda: {name} has capability {major}.{minor}, this PyTorch kernels from {least} on; "
                f"install one for an older CUDA by TORCH_INDEX_URL, {cpu}"
            )


def imports(trainer: Path, module: str) -> bool:
    """Whether a line of the trainer imports this top-level module."""
    pattern = rf"^[ \t\f]*(import|from) {module}\b".encode()  # \s would search line ends once a line
    return bool(re.search(pattern, read_source(trainer), re.MULTILINE))


def child_env(settings: dict[str, str]) -> dict[str, str]:
    """The trainer's environment: ours with the settings, without our own PYTHONPATH entry."""
    env = {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
    # SEEDS is ours: a trainer would ask whether SEED was meant. Ranks get the others from torchrun; left over
    # from another launcher they would make a run wait for processes that never come.
    for name in ("SEEDS", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        env.pop(name, None)
    scripts = str(REPO / "scripts")
    kept = [p for p in env.pop("PYTHONPATH", "").split(os.pathsep) if p and p != scripts]
    if kept:
        env["PYTHONPATH"] = os.pathsep.join(kept)
    return env
