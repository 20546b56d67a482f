"""What a trainer imports and the device that it asks for, told before it trains."""

import ast
import os
from pathlib import Path

import pytest
from golf.core import trainers
from golf.core.errors import GolfError
from golf.core.trainers import imported


def check_source(folder, text, **beside):
    for name, source in beside.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    (folder / "t.py").write_text(text, encoding="utf-8")
    trainers.check_trainer(folder / "t.py")


def test_imports_that_are_there_are_let_through(tmp_path):
    check_source(tmp_path, "import json, helper\n", helper="import other\n", other="import math\n")
    check_source(tmp_path, "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n")
    check_source(tmp_path, "def pack():\n    import sentencepiece.x\n")


@pytest.mark.parametrize(("source", "words"), [
    ("import nowhere\n", "t.py imports nowhere, which is no installed package"),
    ("def load_scorer():\n    from nowhere.x import y\n", "t.py imports nowhere"),
    ("import golf\n", "t.py imports golf"), ("import helper\n", "helper.py imports nothing_such"),
    ("from . import helper\n", "t.py:1: a script has no package"),
    ("import folder.part\n", "imports folder, a folder"),
    ("import helper2\n", "helper2.py: does not parse"), ("\0", "does not parse"),
])  # fmt: skip
def test_an_import_that_is_nowhere_is_told_before_training(tmp_path, source, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/__init__.py").touch()
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


def test_a_script_of_line_ends_is_read_in_no_time(tmp_path):
    """In as many steps as the square of them it would not end."""
    (tmp_path / "train_gpt.py").write_text(1_000_000 * "\n" + "\fimport torch\n")
    assert trainers.imports(tmp_path / "train_gpt.py", "torch")


def test_an_import_whose_absence_ends_the_script_is_needed():
    gone = "except ImportError as e:\n    if __name__ != '__main__':\n        raise\n    sys.exit(e)\n"
    for handler, needed in ((gone, True), ("except ImportError:\n    nowhere = None\n", False)):
        tree = ast.parse(f"import sys\ntry:\n    import nowhere\n{handler}")
        assert ("nowhere" in imported(tree, Path("x.py"))) == needed
