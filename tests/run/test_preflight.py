"""What stops a run before anything is made."""

import os

import pytest
from conftest import refused
from golf.core import machine, trainers
from golf.core.errors import GolfError
from golf.run import command, preflight

from run.conftest import golf, one_line


@pytest.mark.parametrize(("env", "words"), [
    ({"DATA_PATH": "nowhere"}, "cached_challenge_fineweb.py --variant sp1024"),
    ({"DATA_PATH": "nowhere"}, "`python3 data/build_sample_dataset.py`, then configs/quickstart.env"),
    ({"DATA_PATH": "data/sample_x"}, "build_sample_dataset.py"),
    ({"DATA_PATH": "data/fineweb10B_sp8192"}, "--variant sp8192"),
    ({"VAL_DATA_PATH": "nowhere"}, "VAL_DATA_PATH=nowhere: no fineweb_val_*.bin"),
    ({"TOKENIZER_PATH": "nothing.model"}, "TOKENIZER_PATH=nothing.model"),
    ({"OUT_DIR": "~/x"}, "OUT_DIR: ~ and $NAME are not expanded here"),
    ({"OUT_DIR": "train_gpt.py/runs"}, "OUT_DIR=train_gpt.py/runs: cannot be written"),
    ({"RUN_ID": "../x"}, "RUN_ID='../x'"), ({"SEEDS": "1,x"}, "SEEDS='1,x'"),
    ({"SEEDS": "1,1"}, "SEEDS='1,1'"), ({"NPROC_PER_NODE": "0"}, "NPROC_PER_NODE='0'"),
    ({"NPROC_PER_NODE": "999999"}, "NPROC_PER_NODE='999999': a whole number from 1 to "),
    ({"NNODES": "two"}, "NNODES='two'"), ({"NNODES": "2"}, "RDZV_ENDPOINT=HOST:PORT"),
    ({"NNODES": "2", "RDZV_ENDPOINT": "here:29400", "RESUME": "1"}, "one node alone has the checkpoint"),
    ({"RESUME": "yes"}, "RESUME='yes': 1, 0 or auto"), ({"RESUME": "auto"}, "RESUME=auto: RUN_ID"),
    ({"REPORT": "yes"}, "REPORT='yes'"),
])  # fmt: skip
def test_preflight_says_what_to_do_and_makes_nothing(tiny_repo, env, words):
    before = sorted(p for p in tiny_repo.rglob("*") if "__pycache__" not in p.parts)
    done = golf(tiny_repo, **env)
    assert done.returncode in (1, 2) and words in one_line(done.stderr)
    assert sorted(p for p in tiny_repo.rglob("*") if "__pycache__" not in p.parts) == before


def test_a_trainer_or_config_that_is_none_is_told(tiny_repo):
    refused(golf(tiny_repo, "--trainer", "none.py"), "no trainer there")
    (tiny_repo / "mine.py").write_text("raise SystemExit('broken')\n")
    refused(golf(tiny_repo, "--trainer", "mine.py"), "--knobs failed: broken", code=1)
    refused(golf(tiny_repo, config="none.env"), "cannot be read")


def test_full_disk(tmp_path, monkeypatch):
    usage = type("U", (), {"free": 5, "total": 9})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(GolfError, match="0 MiB free"):
        preflight.check_out_dir(tmp_path / "runs")
    usage.total = usage.free = 0  # a network disk that does not say
    preflight.check_out_dir(tmp_path / "runs")


def check_source(folder, text, **beside):
    for name, source in beside.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    (folder / "t.py").write_text(text, encoding="utf-8")
    trainers.check_trainer(folder / "t.py")


def test_an_import_that_is_nowhere_is_told_before_training(tmp_path):
    check_source(tmp_path, "import json, helper\n", helper="import other\n", other="import math\n")
    check_source(tmp_path, "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n")
    check_source(tmp_path, "def pack():\n    import sentencepiece.x\n")
    for source, words in (
        ("import nowhere\n", "t.py imports nowhere, which is no installed package"),
        ("def load_scorer():\n    from nowhere.x import y\n", "t.py imports nowhere"),
        ("import golf\n", "t.py imports golf"),
        ("import helper\n", "helper.py imports nothing_such"),
        ("from . import helper\n", r"t.py:1: a script has no package"),
        ("import folder.part\n", "imports folder, a folder"),
        ("import helper2\n", "helper2.py: does not parse"),
        ("\0", "does not parse"),
    ):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "__init__.py").touch()
        with pytest.raises(GolfError, match=words):
            check_source(tmp_path, source, helper="import nothing_such\n", helper2="def\n")


# PyTorch itself takes seconds to import
TORCH = """import sys
from types import SimpleNamespace as N
print("x.py:5: UserWarning: CUDA initialization: too old (Triggered internally at a.cpp)", file=sys.stderr)
cuda = N(device_count=lambda: 1, get_device_name=lambda i: {count} and "T4" or 1 / 0, get_arch_list=list)
cuda.is_available = lambda: {count} > 0
cuda.get_device_capability = lambda i: (7, 5)
version = N(cuda="13.0")
"""


def test_cuda_is_asked_for_where_there_is_none(tmp_path):
    """What PyTorch warns of is kept: else a driver that is too old looks like none."""
    trainer = tmp_path / "t.py"  # no .pyc: the next torch.py may have this one's size and second
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    trainer.write_text("import json\n")
    trainers.check_cuda(trainer, env)  # no torch in it: nothing to ask
    trainer.write_text("import torch\n")
    (tmp_path / "torch.py").write_text(TORCH.format(count=1))
    trainers.check_cuda(trainer, env)
    (tmp_path / "torch.py").write_text(TORCH.format(count=0))
    with pytest.raises(GolfError, match=r"no CUDA device here \(CUDA initialization: too old\); CUDA 13"):
        trainers.check_cuda(trainer, env)
    (tmp_path / "torch.py").write_text("raise ImportError\n")
    trainers.check_cuda(trainer, env)  # which the trainer tells


CARD = ["NVIDIA GeForce RTX 4090", 8, 9]
KERNELS = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
OLD_DRIVER = "CUDA initialization: The NVIDIA driver on your system is too old (found version 12040)."


@pytest.mark.parametrize(("found", "said", "processes", "words"), [
    (dict(cuda=None, cards=[]), "", 1, "a build for CPUs; install requirements-cuda.txt"),
    (dict(cuda="13.0", cards=[]), OLD_DRIVER, 1, "too old .found version 12040.*driver 580 or newer"),
    (dict(cuda="13.0", cards=[]), "", 1, "CUDA 13.0 needs driver 580 or newer: see nvidia-smi"),
    (dict(cuda="14.0", cards=[]), "", 1, "finds no CUDA device here: see nvidia-smi"),
    (dict(cuda="13.0", cards=[CARD]), "", 2, "NPROC_PER_NODE=2: 1 CUDA devices"),
    (dict(cuda="13.0", cards=[["GTX 1080", 6, 1]]), "", 1, "GTX 1080 has capability 6.1, .*from 7.5 on"),
])  # fmt: skip
def test_what_cannot_train_on_cuda_is_one_line_with_a_remedy(found, said, processes, words):
    with pytest.raises(GolfError, match=words) as refused:
        trainers.refuse_cuda({"kernels": KERNELS, **found}, said, processes)
    assert "\n" not in str(refused.value)


def test_what_can_train_on_cuda_is_let_through():
    for cards in ([CARD], [["Tesla T4", 7, 5]], [["RTX 5090", 12, 0], CARD]):
        trainers.refuse_cuda(dict(cuda="13.0", cards=cards, kernels=KERNELS), "", len(cards))
    trainers.refuse_cuda(dict(cuda="13.0", cards=[CARD], kernels=[]), "", 1)  # it does not say


@pytest.mark.parametrize(("gpu", "name", "no_compiler", "costs"), [
    (True, "CC", "no C compiler (none) found", "2 to 3 times"),
    (False, "CXX", "no C++ compiler (none)", "1.6"),
])  # fmt: skip
def test_a_missing_compiler_is_one_line_before_the_run(tmp_path, monkeypatch, gpu, name, no_compiler, costs):
    have, lacks = {name: "python3"}, {name: "none"}
    monkeypatch.setattr(machine.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "no Python.h found: install g" in preflight.check_compiler(have, "auto", gpu)
    (tmp_path / "Python.h").touch()
    assert preflight.check_compiler(have, "auto", gpu) is None
    told = preflight.check_compiler(lacks, "auto", gpu)
    assert no_compiler in told and costs in told and "\n" not in told
    assert preflight.check_compiler(lacks, "0", gpu) is None
    with pytest.raises(GolfError, match="COMPILE=1: no C"):
        preflight.check_compiler(lacks, "1", gpu)


def test_without_a_compiler_a_processor_is_not_asked_to_compile(tiny_repo, capsys):
    trainer = tiny_repo / "t.py"
    trainer.write_text("import torch\n")
    run = command.SeedRun(trainer, {"CXX": "none", "DEVICE": "cpu"}, "", tiny_repo / "runs/x", 1)
    command.check_torch([run], {"COMPILE": "auto", **run.settings})
    told = one_line(capsys.readouterr().err)  # Python.h may be missing, too
    assert run.settings["COMPILE"] == "0" and "no C++ compiler (none)" in told and "install g++" in told


@pytest.mark.parametrize("name", ["checkpoint.pt", "train.log", "metrics.jsonl", ".lock", "supervisor.json"])
def test_a_pipe_where_a_run_writes_is_refused(tiny_repo, name):
    (tiny_repo / "runs/x").mkdir(parents=True)
    os.mkfifo(tiny_repo / "runs/x" / name)
    refused(golf(tiny_repo, RUN_ID="x", RESUME="auto"), f"runs/x/{name}: not a regular file")
