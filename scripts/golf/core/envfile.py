"""Env files: parsed, never sourced. NAME=value, # comments, quotes, optional export, any line ends.

Nothing is expanded. What a shell would read as more than a value is refused: taken as it stands, it would
name strange folders, or hide a second setting on the line.
"""

import difflib
import os
import re
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.files import read_text
from golf.core.paths import REPO, path_argument, shown

# Read by `golf.sh run`, not by the trainer.
OWN_NAMES = ("NPROC_PER_NODE", "NNODES", "RDZV_ENDPOINT", "SEEDS", "REPORT")
# What the libraries below a trainer read, by who reads it. A config may set them.
KNOWN_PREFIXES = (
    "CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "TORCH", "PYTORCH_", "ATEN_", "KINETO_",  # PyTorch on CUDA
    "TRITON_", "INDUCTOR_", "HIP_", "HSA_", "ROCR_",  # its compilers, AMD
    "NCCL_", "GLOO_", "UCX_", "TP_", "FI_",  # between processes
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "ONEDNN_", "DNNL_",  # threads of a processor
    "VECLIB_", "NUMEXPR_", "MLX_", "METAL_", "MTL_", "AGX_",  # Apple, and its GPU's driver
    "WANDB_", "TRACKIO_", "MLFLOW_", "COMET_", "RAY_", "SLURM_",  # trackers, launchers
    "HF_", "HUGGINGFACE_", "TOKENIZERS_", "TQDM_", "MATCHED_FINEWEB_",  # the downloader and its client
    "PYTHON", "LD_", "DYLD_", "MALLOC_", "TCMALLOC_", "LC_", "XDG_", "SSL_CERT_",  # the system
)  # fmt: skip
KNOWN_NAMES = (*OWN_NAMES, *"""
    http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY REQUESTS_CA_BUNDLE
    CURL_CA_BUNDLE MASTER_ADDR MASTER_PORT TMPDIR TEMP TMP LANG LANGUAGE TZ CC CXX NO_COLOR TERM COLUMNS
    """.split())  # fmt: skip
PATH_NAMES = ("DATA_PATH", "VAL_DATA_PATH", "TOKENIZER_PATH", "OUT_DIR", "EVAL_ONLY")
ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
QUOTED = re.compile(r"""(?:"([^"]*)"|'([^']*)')\s*(?:#.*)?""", re.DOTALL)
# What a shell would not take into an unquoted value; typographic quotes come from web pages and mails.
BREAKS = re.compile(r"""[;&|<>\\"'\u2018-\u201f\xab\xbb]|\s[A-Za-z_][A-Za-z0-9_]*=""")
UNEXPANDED = re.compile(r"(^|:)~|\$[A-Za-z_{]|%[A-Za-z]\w*%|^[A-Za-z]:\\")


def config_and_words(given: list[str]) -> tuple[Path, list[str]]:
    """Separates the config from the NAME=value arguments, in any order."""
    words = [word for word in given if ASSIGNMENT.fullmatch(word)]
    configs = [word for word in given if word not in words]
    if len(configs) != 1:
        what = f"{len(configs)} configs ({' '.join(configs)})" if configs else "no config"
        raise GolfError(f"{what}; give one config file, and NAME=value (no spaces around =)", 2)
    return path_argument(configs[0]), words


def parse(path: Path, knobs: dict[str, str] | None = None) -> dict[str, str]:
    """NAME -> value; a later line wins. GolfError names file and line. If `knobs` are given, a name that
    nothing reads is an error, too: a misspelt knob would have no effect."""
    found = {}
    for number, line in enumerate(re.split("\r\n?|\n", read_text(path)), 1):
        line, where = line.strip(), f"{shown(path)}:{number}"
        if not line or line.startswith("#"):
            continue
        match = ASSIGNMENT.fullmatch(line)
        if not match:
            raise GolfError(f"{where}: {line[:60]!r} is not NAME=value (no spaces around =)", 2)
        if knobs is not None:
            require_known(match[1], knobs, where)
        found[match[1]] = parse_value(match[2], where)
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
        if "`" not in value and (broken := BREAKS.search(value)):
            told = f"without quotes, the value ends before {broken[0].strip()!r}"
            raise GolfError(f'{where}: {told}; write NAME="value", one on each line', 2)
    if "$(" in value or "`" in value:
        raise GolfError(f"{where}: $(...) and backticks are not run here; write the value itself", 2)
    refuse_unexpanded(value, where)
    if not value.isprintable():
        raise GolfError(f"{where}: an invisible character in {value[:60]!r}; retype the line", 2)
    return value


def refuse_unexpanded(value: str, where: str) -> None:
    """GolfError for ~, $NAME and Windows paths, which says what to write instead."""
    if UNEXPANDED.search(value):
        home = os.path.expanduser("~")
        whole = re.sub(r"(^|:)~(?=/|$)|\$HOME\b|\$\{HOME\}", lambda m: (m[1] or "") + home, value)
        hint = "write the value itself" if UNEXPANDED.search(whole) else f"write {whole}"
        if value[1:2] == ":":
            hint = "write a path of this system; Windows' C: is /mnt/c under WSL"
        raise GolfError(f"{where}: ~ and $NAME are not expanded here; {hint}", 2)


def require_known(name: str, knobs: dict[str, str], where: str) -> None:
    if is_known(name, knobs):
        return
    near = difflib.get_close_matches(name.upper(), [*knobs, *OWN_NAMES], 1)
    hint = f"did you mean {near[0]}?" if near else "`train_gpt.py --knobs` lists the names"
    raise GolfError(f"{where}: unknown name {name}; {hint}", 2)


def read_seeds(text: str, where: str) -> list[str]:
    """Different whole numbers, as in 1337,42,2025; none of an empty text."""
    seeds = [seed.strip() for seed in text.split(",") if seed.strip()]
    whole = all(re.fullmatch("[0-9]{1,20}", seed) for seed in seeds)
    if text.strip() and (not seeds or not whole or len(set(seeds)) < len(seeds)):
        raise GolfError(f"{where}: give different whole numbers as seeds: SEEDS=1337,42,2025", 2)
    return seeds


def set_words(words: list[str], knobs: dict[str, str]) -> None:
    """Puts NAME=value arguments into the environment, as if they stood in front of the command."""
    for word in words:
        name, _, value = word.partition("=")
        require_known(name, knobs, f"argument {word[:60]!r}")
        os.environ[name] = value


def is_known(name: str, knobs: dict[str, str]) -> bool:
    return name in knobs or name in KNOWN_NAMES or name.startswith(KNOWN_PREFIXES)


def settings(found: dict[str, str], knobs: dict[str, str], defaults=None) -> dict[str, str]:
    """A run's variables: the environment overrides the file, which overrides `defaults`.

    A relative path counts from the repository in a file, and from the working directory in the environment.
    Trainers run in the repository, so only the latter is made absolute.
    """
    values = {**(defaults or {}), **found}
    for name in {*values, *knobs, *OWN_NAMES} & os.environ.keys():
        values[name] = os.environ[name]
        if name in PATH_NAMES:
            refuse_unexpanded(values[name], name)
            if values[name] and Path.cwd() != REPO:
                values[name] = os.path.abspath(values[name])
    if "SEED" in os.environ and "SEEDS" not in os.environ:
        values.pop("SEEDS", None)  # SEED=42 on the command line means that seed, whatever the file
    if "TRAIN_MAX_SEQ_LEN" in os.environ and "TRAIN_SEQ_LEN" not in os.environ:
        values.pop("TRAIN_SEQ_LEN", None)  # one knob, two names: trainers ask for this one first
    return values
