"""golf check on code: what goes to a reviewer, and that plain trainers go to none."""

from __future__ import annotations

import ast
import re

import pytest
from check_kit import add_code, edit, found, replace_text, write
from conftest import REPO
from golf import case, check, check_code, check_flow, track

pytest_plugins = ["check_kit"]
TRAINERS = [REPO / "train_gpt.py", REPO / "train_gpt_mlx.py", REPO / "tests/fake_trainer.py"]
STARTER = TRAINERS[0].read_text()


def raised(tmp_path, source, name="train_gpt.py") -> dict[str, str]:
    """Rule -> message of the code rules on one file."""
    (tmp_path / name).write_bytes(source if isinstance(source, bytes) else source.encode())
    one = case.Case(tmp_path, files={name: (tmp_path / name).stat().st_size})
    check_code.code(one)
    return {finding.rule: finding.message for finding in one.findings}


@pytest.mark.parametrize("path", [p for p in TRAINERS if p.exists()], ids=lambda p: p.name)
def test_the_trainers_raise_nothing(tmp_path, path):
    assert raised(tmp_path, path.read_text()) == {}


NAMED = {
    "code-network": [
        "import socket", "import urllib.request as u\nu.urlopen(x)", "from http import client",
        "from huggingface_hub import snapshot_download", "import torch\ntorch.hub.load('a', 'b')",
        "def f():\n    import requests", "import torch.hub as h",
    ],
    "code-process": [
        "import subprocess as s", "from os import system as run\nrun('ls')", "import os as o\no.popen('ls')",
        "import os\nos.execvp('ls', [])", "from multiprocessing import Pool",
        "from concurrent.futures import ProcessPoolExecutor",
    ],
    "code-exec": [
        "exec('x')", "e = eval\ne('1')", "__import__('os')", "from importlib import import_module",
        "import runpy", "compile('1', 'f', 'exec')", "import builtins\nbuiltins.exec('x')",
        "class A:\n    def eval(self): pass\neval('x')",
        "globals()['ex' + 'ec']('x')", "import types\ntypes.FunctionType(c, {})", "__builtins__.exec('x')",
    ],
    "code-native": [
        "import ctypes", "from torch.utils.cpp_extension import load_inline", "import cffi",
        "import torch\ntorch.ops.load_library('a')", "import torch.utils.cpp_extension as c",
    ],
    "code-pickle": [
        "import pickle", "from pickle import loads", "import marshal", "import joblib",
        "import torch\ntorch.load(p)", "from torch import load\nload(p, weights_only=False)",
        "import numpy as np\nnp.load(p, allow_pickle=True)", "import torch as t\nt.load(p, weights_only=w)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)",
    ],
    "code-opaque": [
        "x = b'" + "q" * 500 + "'", "x = [" + "1, " * 300 + "]", "x = " + "9" * 400,
        "def f():\n    return '" + "z" * 1000 + "'",
    ],
    "code-syntax": [
        "x = = 1", "break", b"\xff\xfe\0", b"x = 1\0", "(" * 300, "-" * 100000 + "1", "+".join("1" * 100000),
        "a" + ".b" * 100000, "x = '" + "y" * (2 << 20) + "'", b"# coding: nonsense\n",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("rule", "source"), [(r, s) for r, many in NAMED.items() for s in many],
                         ids=lambda v: str(v)[:40])  # fmt: skip
def test_what_goes_to_a_reviewer(tmp_path, rule, source):
    found_ = raised(tmp_path, source)
    assert rule in found_ and found_[rule].isprintable() and len(found_[rule]) < 1000
    if rule not in ("code-syntax", "code-opaque"):
        assert re.search(r"line [1-3] \(", found_[rule])


HARMLESS = [
    "model.eval()", "import re\nre.compile('x')", "import torch\ntorch.compile(f)", "mx.eval(loss)",
    "import torch\ntorch.load(p, weights_only=True)", "import os\nos.environ['SEED']", "self.system('x')",
    "import torch.distributed as dist\ndist.init_process_group('nccl')", "def compile(x): pass\ncompile(1)",
    "x = '" + "word " * 500 + "'", "requests = [1]\nprint(requests)", "import numpy as np\nnp.load('x')",
    "import numpy as np\nnp.load('x', allow_pickle=False)",
    "from torch import compile\ncompile(f)", "code = 1\nprint(code)",
]  # fmt: skip


@pytest.mark.parametrize("source", HARMLESS, ids=lambda s: s[:40])
def test_what_goes_to_nobody(tmp_path, source):
    assert raised(tmp_path, source) == {}


# ---- Validation tokens and optimizers


LEARNS = {
    "in a loop": """
        val_tokens = load('fineweb_val_000000.bin')
        for x, y in batches(val_tokens):
            loss = model(x, y)
            loss.backward()  # here
    """,
    "through a function": """
        def step(model, tokens):
            loss = model.loss(tokens)
            loss.backward()  # here
        def run(k):
            stream = open_shards(k.data_path, 'val')
            step(model, stream[:100])
    """,
    "through an attribute": """
        class Scorer:
            def __init__(self, path):
                self.held = open_shards(path, 'val')
            def adapt(self):
                for part in self.held:
                    self.model.loss(part).backward()  # here
    """,
    "with MLX": """
        def go(data_path):
            grad_fn = nn.value_and_grad(model, loss)
            tokens = read(sorted(Path(data_path).glob('fineweb_val_*.bin'))[0])
            loss, grads = grad_fn(model, tokens)  # here
    """,
    "with MLX at once": """
        def go(val_tokens):
            loss, grads = mx.value_and_grad(loss)(model, val_tokens)  # here
    """,
    "through a list": """
        buffer = []
        for part in read('data/val/shard.bin'):
            buffer.append(part)
        grads = torch.autograd.grad(model(torch.stack(buffer)).sum(), params)  # here
    """,
    "of what the scorer is given": """
        class Scorer:
            def log_probs(self, tokens):
                rows = self.model(tokens)
                self.seen = tokens
                self.learn()
                return rows
            def learn(self):
                self.model.loss(self.seen).backward()  # here
    """,
    "in closed form": """
        def fit(val_x, val_y):
            return torch.linalg.lstsq(val_x, val_y)  # here
    """,
}


def lines_of(source):
    source = ast.parse("if True:\n" + source)
    return check_flow.validation_gradients(ast.Module(source.body[0].body, []))


@pytest.mark.parametrize("source", LEARNS.values(), ids=LEARNS)
def test_learning_from_validation_tokens_is_seen(source):
    marked = [i for i, line in enumerate(source.splitlines(), 2) if "# here" in line]
    assert lines_of(source) == marked


@pytest.mark.parametrize(
    "lines",
    [
        "def warm(run):\n    train_step(run, run.stream.tokens[:99], 0, 1.0)\n",
        "def adapt(k, model):\n    for part in read_stream(k).tokens.split(9):\n"
        "        model.loss(part).backward()\n",
    ],
    ids=["warm-up on validation tokens", "learning while scoring"],
)
def test_the_starter_with_some_lines_more_is_seen(tmp_path, lines):
    assert list(raised(tmp_path, f"{STARTER}\n\n{lines}")) == ["code-val"]


HOLDS = {
    "periodic validation": """
        train_tokens = load('fineweb_train_*.bin')
        val_tokens = load('fineweb_val_*.bin')
        for step in range(10):
            loss = model(train_tokens[step])
            loss.backward()
            if step % val_loss_every == 0:
                print(evaluate(model, val_tokens))
    """,
    "lengths and a table of two scorers": """
        def main(k, model):
            stream = open_shards(k, 'val')
            tail = f'targets:{len(stream)}'
            for name, scorer, text in (('plain', Plain(model), ''), ('sliding', Sliding(model), tail)):
                print(name, scorer.loss(stream), text)
                scorer.reset()
            Train(model).step(open_shards(k, 'train'))
        class Plain:
            def reset(self):
                self.state = 0
        class Train:
            def reset(self):
                self.state = 0
            def step(self, tokens):
                self.model.loss(tokens, self.state).backward()
    """,
    "one reader of both splits": """
        def main(k):
            score(open_shards(k, 'val'))
            model(open_shards(k, 'train')).backward()
        def open_shards(k, split):
            return read(f'fineweb_{split}_*.bin')
    """,
}


@pytest.mark.parametrize("source", HOLDS.values(), ids=HOLDS)
def test_plain_training_is_not_flagged(source):
    assert lines_of(source) == []


def test_a_tangle_is_given_to_a_reviewer(tmp_path):
    names = [f"p{i}" for i in range(14)]
    calls = "".join(
        f"    f{i + 1}({', '.join('val_x' if n == skipped else n for n in names)})\n"
        for i in range(1) for skipped in names
    )  # fmt: skip
    body = "".join(
        f"def f{i}({', '.join(names)}):\n{calls.replace('f1(', f'f{(i + 1) % 9}(')}"
        for i in range(9)
    )
    messages = raised(tmp_path, body)
    assert "tangled" in messages["code-val"]


# ---- What counts with the script


def uncounted(folder):
    return "bytes-uncounted" in found(folder, case.FAIL)


def test_a_stub_counts_with_what_it_executes(folder):
    """A stub and its sibling: whatever role hides the sibling, it does not pass."""
    body = (folder / "train_gpt.py").read_text()
    for name, stub in (
        ("body.log", "exec(open('body.log').read())\n"),
        (
            "README.md",
            "from pathlib import Path\nexec((Path(__file__).parent / 'README.md').read_text())\n",
        ),
        ("body.txt", "import runpy\nrunpy.run_path('./body.txt')\n"),
    ):
        role = {"log": "log", "md": "readme", "txt": "extra"}[name.rsplit(".", 1)[1]]
        write(folder, name, body, role)
        write(folder, "train_gpt.py", stub)
        assert uncounted(folder), name
    write(folder, "body.py", body, "score")
    write(folder, "train_gpt.py", "import body\n")
    assert not uncounted(folder)
    counted = check.check_folder(folder).findings
    assert any(f.rule == "bytes" and f"{len(body) + 12 + 7:,}" in f.message for f in counted)


def test_modules_in_folders_and_relative_imports(folder):
    (folder / "kit").mkdir()
    write(folder, "kit/__init__.py", "", "score")
    write(folder, "kit/tables.py", "x = 1\n", "log")
    add_code(folder, "import kit.tables\n")
    assert uncounted(folder)
    replace_text(folder, "train_gpt.py", "import kit.tables\n", "from kit import tables\n")
    assert uncounted(folder)
    replace_text(folder, "train_gpt.py", "from kit import tables\n", "import kit\n")
    assert not uncounted(folder)
    write(folder, "kit/__init__.py", "from .tables import x\n")
    assert uncounted(folder)


def test_bytes_that_the_script_did_not_count_itself(folder):
    """A run knows its script alone; what it imports is counted on top, claim and disk agreeing."""
    write(folder, "tables.py", "x = 1\n", "score")
    more = len("x = 1\n") + len("tables.py")

    def claim(v):
        v["bytes_total"] += more
        v["bytes_code"] += more
        for seed in v["seeds"]:
            seed["bytes_total"] += more

    assert "bytes" in found(folder, case.FAIL)
    edit(folder, claim)
    assert found(folder) == set()


def test_a_trainer_may_name_the_log_that_it_writes(folder):
    assert '"train.log"' in (folder / "train_gpt.py").read_text()
    assert not uncounted(folder)


def test_all_code_is_read_whatever_its_name(folder):
    write(folder, "my_model.py", "import socket\n", "score")
    findings = check.check_folder(folder, track.load("track_tiny")).findings
    assert any(f.rule == "code-network" and "my_model.py" in f.message for f in findings)
