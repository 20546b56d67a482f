"""Env files: parsed, never sourced. NAME=value, # comments, quotes, optional export, CRLF."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from . import REPO, GolfError, shown

KNOWN_PREFIXES = ("CUDA_", "OMP_", "HF_", "TORCH", "PYTORCH_", "NCCL_", "MLX_")
KNOWN_NAMES = ("NPROC_PER_NODE", "SEEDS")
PATH_NAMES = ("DATA_PATH", "VAL_DATA_PATH", "TOKENIZER_PATH", "OUT_DIR", "EVAL_ONLY")
ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
QUOTED = re.compile(r"""(?:"([^"]*)"|'([^']*)')\s*(?:#.*)?""", re.DOTALL)


def parse(path: Path) -> dict[str, tuple[str, int]]:
    """NAME -> (value, line number); a later line wins. GolfError names file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise GolfError(
            f"{shown(path)}: not a text file; give a file of NAME=value lines", 2
        ) from None
    except OSError as error:
        raise GolfError(f"{shown(path)}: cannot be read ({error.strerror})", 2) from None
    found = {}
    for number, line in enumerate(text.split("\n"), 1):
        line, where = line.strip(), f"{shown(path)}:{number}"
        if not line or line.startswith("#"):
            continue
        match = ASSIGNMENT.fullmatch(line)
        if not match:
            raise GolfError(f"{where}: {line[:60]!r} is not NAME=value (no spaces around =)", 2)
        found[match[1]] = (parse_value(match[2], where), number)
    return found


def parse_value(raw: str, where: str) -> str:
    """The value behind NAME=, without quotes and comment; nothing in it is expanded or run."""
    if raw[:1] in ("'", '"'):
        match = QUOTED.fullmatch(raw)
        if not match:
            raise GolfError(f'{where}: the quotes do not pair; write NAME="value"', 2)
        value = match[1] if match[1] is not None else match[2]
    else:
        value = re.sub(r"(^|\s)#.*", "", raw, flags=re.DOTALL).strip()
    if "$(" in value or "`" in value:
        raise GolfError(
            f"{where}: $(...) and backticks are not run here; write the value itself", 2
        )
    if "\0" in value:
        raise GolfError(f"{where}: a zero byte in the value; retype the line", 2)
    return value


def refuse_unknown(path: Path, found: dict[str, tuple[str, int]], knobs: dict[str, str]) -> None:
    """GolfError for the first name that nothing reads: a misspelt knob is silent otherwise."""
    for name, (_, number) in found.items():
        if is_known(name, knobs):
            continue
        near = nearest(name, knobs, 0.6)
        hint = f"did you mean {near}?" if near else "`train_gpt.py --knobs` lists the names"
        raise GolfError(f"{shown(path)}:{number}: unknown name {name}; {hint}", 2)


def near_misses(knobs: dict[str, str]) -> list[str]:
    """A warning for each variable of the environment that is nearly a knob; it holds much else."""
    names = sorted(name for name in os.environ if name.isupper() and not is_known(name, knobs))
    near = {name: nearest(name, knobs, 0.8) for name in names}
    return [f"{name} is set and unknown; did you mean {n}?" for name, n in near.items() if n]


def is_known(name: str, knobs: dict[str, str]) -> bool:
    return name in knobs or name in KNOWN_NAMES or name.startswith(KNOWN_PREFIXES)


def nearest(name: str, knobs: dict[str, str], cutoff: float) -> str | None:
    """The known name that is most alike, by difflib's ratio of at least `cutoff`."""
    found = difflib.get_close_matches(name.upper(), [*knobs, *KNOWN_NAMES], 1, cutoff)
    return found[0] if found else None


def settings(
    found: dict[str, tuple[str, int]], knobs: dict[str, str], defaults=None
) -> dict[str, str]:
    """What a run is given: `defaults` below the file, the file below the environment.

    A relative path counts from the repository in a file, from the working directory in the
    environment; trainers run in the repository, so only the latter is made absolute.
    """
    values = {**(defaults or {}), **{name: value for name, (value, _) in found.items()}}
    for name in {*found, *values, *knobs, *KNOWN_NAMES}:
        if name in os.environ:
            values[name] = os.environ[name]
            if name in PATH_NAMES and values[name] and Path.cwd() != REPO:
                values[name] = os.path.abspath(values[name])
    if "SEED" in os.environ and "SEEDS" not in os.environ:
        values.pop("SEEDS", None)  # SEED=42 on the command line means that seed, whatever the file
    if "TRAIN_MAX_SEQ_LEN" in os.environ and "TRAIN_SEQ_LEN" not in os.environ:
        values.pop("TRAIN_SEQ_LEN", None)  # one knob, two names: trainers ask for this one first
    return values
