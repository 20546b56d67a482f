"""golf check on code: what goes to a reviewer, and that plain trainers go to none."""

import ast
import random
import re
import textwrap

import pytest
from check_kit import add_code, edit, found, replace_text, write
from conftest import REPO
from golf.check import allowed, learning
from golf.check import code as check_code
from golf.check import command as check
from golf.check import source as check_text
from golf.check.folder import Folder
from golf.core import track
from golf.core.findings import FAIL, HUMAN, Finding

TRAINERS = [REPO / "train_gpt.py", REPO / "train_gpt_mlx.py", REPO / "tests/fake_trainer.py"]
STARTER = TRAINERS[0].read_text()


def findings(tmp_path, **sources) -> dict[str, Finding]:
    """Rule -> finding of the code rules on files that lie together."""
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    files = {f"{name}.py": (tmp_path / f"{name}.py").stat().st_size for name in sources}
    one = Folder(tmp_path, files=files)
    check_code.code(one)
    return {finding.rule: finding for finding in one.findings}


@pytest.mark.parametrize("path", [p for p in TRAINERS if p.exists()], ids=lambda p: p.name)
def test_the_trainers_raise_nothing(tmp_path, path):
    assert findings(tmp_path, train_gpt=path.read_text()) == {}


# Rule -> code that it stops, each of a kind of its own.
NAMED = {
    "code-network": [
        "from torch.utils.benchmark import Timer\nTimer('torch.hub.load(x)')",
        "import socket", "import urllib.request as u\nu.urlopen(x)", "from http import client",
        "from huggingface_hub import snapshot_download", "import torch\ntorch.hub.load('a', 'b')",
        "def f():\n    import requests", "import torch.hub as h", "from torch.utils import model_zoo",
        "import asyncio",
    ],
    "code-process": [
        "import subprocess as s", "from os import system as run\nrun('ls')", "import os as o\no.popen('ls')",
        "import os\nos.execvp('ls', [])", "from multiprocessing import Pool",
        "from concurrent.futures import ProcessPoolExecutor", "import os\nrun = os.system",
        "import os\ndef f():\n    os = 1\n    def g():\n        global os\n        os.system('x')",
        "import torch\ntorch.multiprocessing.spawn(f)", "import os\nos.kill(1, 9)",
    ],
    "code-exec": [
        "exec('x')", "e = eval\ne('1')", "__import__('os')", "from importlib import import_module",
        "import runpy", "compile('1', 'f', 'exec')", "import builtins\nbuiltins.exec('x')",
        "class A:\n    def eval(self): pass\neval('x')",
        "globals()['ex' + 'ec']('x')", "import types\ntypes.FunctionType(c, {})", "__builtins__.exec('x')",
        "import timeit\ntimeit.timeit('x')", "import cProfile as c\nc.run('x')", "from trace import Trace",
        "import pydoc\npydoc.locate('os')", "import logging.config", "import doctest", "import code",
        "import sys\nsys.path.insert(0, artifact)", "from sys import path\npath.append(artifact)",
        "import zipimport", "import site\nsite.addsitedir('x')", "import pkgutil",
        "import sys\nsys.modules['os']",
        "import torch\ntorch.jit.load('x')", "from torch import package", "import torch.fx",
        "vars()['e'] = 1", "list(map(eval, ['1']))", "@eval\ndef f(): pass",
        "def f():\n    eval('1')\n\ndef eval(x): pass", "if 0:\n    def exec(x): pass\n\nexec('1')",
        "import unittest.mock", "import numpy.f2py", "import numpy as np\nnp.testing.rundocs('x')",
    ],
    "code-native": [
        "import ctypes", "from torch.utils.cpp_extension import load_inline", "import cffi",
        "import torch\ntorch.ops.load_library('a')", "import torch.utils.cpp_extension as c",
        "import torch\ntorch.cuda.cudart()", "from torch import _C", "import numpy.ctypeslib",
        "import mlx.core as mx\nmx.fast.metal_kernel(name='x')", "import mmap",
        "import triton.language as tl\ntl.inline_asm_elementwise('x')",
    ],
    "code-pickle": [
        "import pickle", "from pickle import loads", "import marshal", "import joblib",
        "import torch\ntorch.load(p)", "from torch import load\nload(p, weights_only=False)",
        "import numpy as np\nnp.load(p, allow_pickle=True)", "import torch as t\nt.load(p, weights_only=w)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)", "import shelve", "import copyreg",
        "import torch\ntorch.load(p, weights_only=True, pickle_module=m)",
        "import torch\ntorch.load(p, **kw)",
    ],
    "code-import": [
        "import tables", "from kit import tables", "from . import tables", "from .tables import x",
        "import flash_attn", "try:\n    import zstandard\nexcept ImportError:\n    pass", "import numpyy",
    ],
    "code-unlisted": [
        "import sqlite3", "import scipy.stats", "import os\nos.listxattr('x')", "import inspect",
        "import sys\nsys._getframe()", "import sys\nsys.settrace(f)", "import gc\ngc.get_referrers(x)",
        "import torch\ntorch.serialization.load('x')", "import torch.utils.data.datapipes",
        "import numpy as np\nnp.load('x')", "import numpy as np\nnp.lib.format.read_array(f)",
        "import typing\ntyping.get_type_hints(f)", "from dataclasses import make_dataclass",
        "import operator\noperator.attrgetter('a.b')", "from operator import methodcaller", "import codecs",
        "import torch\ntorch._inductor.config.cpp.cxx", "import base64\nbase64.b85decode(s)",
        "import warnings\nwarnings.sys",
        "import torch.nn.functional as F\nF.torch", "breakpoint()", "print(dir())", "help('topics')",
        "import random\nrandom._os", "import re\nre.copyreg", "import matplotlib.pyplot as plt",
        "import string\nstring.Formatter()", "import json.tool", "import os.path as p\np.ismount('x')",
    ],
    "code-indirect": [
        "getattr(x, 'a' + 'b')", "def f(n):\n    return getattr(torch_like, n)", "g = getattr\ng(x, 'y')",
        "import torch\ngetattr(torch, 'float16')", "list(map(getattr, [x], ['a']))", "setattr(x, name, 1)",
        "from math import *", "import os\nf(os)", "import os\nself.m = os", "import os\nx = [os]",
        "import torch\nload = torch.load\nload('x', weights_only=True)",
        "from functools import partial\nimport torch\npartial(torch.load, weights_only=False)",
        "f.__globals__", "().__class__.__base__.__subclasses__()", "type(x).mro()", "type('A', (), {})",
        "type(f)(c, {})", "f.__code__", "x.__dict__['a']", "import torch\ntorch.__dict__", "e.__traceback__",
        "(i for i in ()).gi_frame.f_back.f_globals", "e.tb_frame", "__loader__", "__spec__.loader",
        "'{0.__class__}'.format(x)", "'{0[a]}'.format(x)", "def f(t):\n    return t.format(x)",
        "'{x}'.format_map(d)", "match f:\n    case object(__globals__=g): pass", "x = '__import__'",
        "class A:\n    __getattr__ = f", "class A:\n    def __init_subclass__(cls): pass",
        "class A:\n    def __class_getitem__(cls, x): pass", "def __getattr__(name): pass",
        "class A:\n    import os\nA.os", "import json, torch\njson.loads = f",
        "from pathlib import Path\nPath().parser.os",
        "import numpy as np\nnp.zeros(1).ctypes", "__path__ = ['x']", "import __main__", "del eval",
        "import torch\ntorch.compile(f, options={'cpp.cxx': 'x'})", "import torch\ntorch.compile(f, **kw)",
        "from torch.utils.benchmark import Timer\nTimer(source)", "import numpy as np\nnp.__doc__",
        "from torch.utils.benchmark import Timer\nTimer('x', language='cpp')", "print.__doc__",
        "t = '{0.gi_frame}'\nt.format(x)", "del getattr",
        "import os\nos.write(7, b'x')", "import os\nos.dup2(1, 7)",
        "import numpy as np\nprint(np.__file__)", "lambda: __builtins_x__",
        "from torch.utils.benchmark import Timer\nTimer('os.system(x)', setup='import os')",
        "open(3)",
    ],
    "code-outside": [
        "open('/proc/self/mem')", "open('/pro' + 'c/self/maps')", "from pathlib import Path\nPath('/') / x",
        "open(f'/usr/share/doc/{x}')", "from pathlib import Path\nPath.home()", "p = '~/.cache'",
        "open('../other/model')", "import os\nos.environ['GITHUB_TOKEN']",
        "import os\nos.environ.get('HF_TOKEN')", "import os\nos.environ['LD_PRELOAD'] = x",
        "import numpy as np\nnp.memmap('/data/x', 'u1')", "x = 'C:\\\\data'", "import os\nos.getenv('CI')",
        "import torch.distributed as d\nd.init_process_group(init_method='tcp://8.8.8.8:80')",
    ],
    "code-syntax": [
        "x = = 1", "break", "(" * 300, "-" * 100000 + "1", "+".join("1" * 100000),
        "a" + ".b" * 100000, "x = '" + "y" * (2 << 20) + "'",
    ],
    "code-text": [
        b"\xff\xfe\0", b"x = 1\0", b"# coding: nonsense\n", b"# -*- coding: latin-1 -*-\nx = 1\n",
        b"#!/x\n# vim: set fileencoding=utf-7 :\n", b"\xef\xbb\xbfx = 1\n", b"x = 1\ry = 2\n",
        b"x = 1\f\ny = 2\n",
        "x = '\u202e'\n", "# a\u200bb\n", "\u017fystem = 1\n", "x = \uff45\n", "x = f'{\uff45val}'\n",
        "x = 1 #" + " " * 500 + "exec\n", "# \u3164\n", "x = '\u2028'\n", "# \ue000\n", b"x = '\x1b[2K'\n",
        "# \U000e0041\n", "x = '\ufe0f'\n", b"x = '\x85'\n",
    ],
}  # fmt: skip
FAILS = ("code-pickle", "code-import", "code-syntax", "code-text")


@pytest.mark.parametrize(("rule", "source"), [(r, s) for r, many in NAMED.items() for s in many],
                         ids=lambda v: ascii(v)[:50])  # fmt: skip
def test_what_is_stopped(tmp_path, rule, source):
    found_ = findings(tmp_path, train_gpt=source)
    assert rule in found_, found_
    assert found_[rule].level == (FAIL if rule in FAILS else HUMAN)
    assert found_[rule].message.isprintable() and len(found_[rule].message) < 1000
    if rule != "code-syntax":
        assert re.search(r"line [1-6] \(", found_[rule].message)


def test_the_list_holds_nothing_that_is_named_as_wrong():
    for name in allowed.NAMED_RULES:
        module, _, last = name.rpartition(".")
        assert name not in allowed.MODULES and last not in allowed.MODULES.get(module, "").split()
    for module in allowed.MODULES:
        assert module.rpartition(".")[0] in {"", *allowed.MODULES}


HARMLESS = [
    "model.eval()", "import os\nos.path.expanduser(path)[:1] in ('~', '$')",
    "import re\nre.compile('x')", "import torch\ntorch.compile(f)",
    "import mlx.core as mx\nmx.eval(loss)", "import torch\ntorch.load(p, weights_only=True)",
    "import os\nos.environ['SEED']", "self.system('x')",
    "import torch.distributed as dist\ndist.init_process_group('nccl')", "def compile(x): pass\ncompile(1)",
    "x = '" + "word " * 90 + "'", "requests = [1]\nprint(requests)",
    "from torch import compile\ncompile(f)", "code = 1\nprint(code)",
    "import math\nprint('{:.2f}/{total}'.format(math.pi, total=1))", "getattr(config, 'dim', 3)",
    "x = {n: getattr(k, n) for n in 'a b'.split()}",
    "print(type(x).__name__, x.__class__.__name__)",
    "import time\ndef f(time):\n    return time.x, [time]", "def f(input, vars):\n    return input, vars",
    "import torch\nF = torch.nn.functional\nF.relu(x)",
    "# a caf\u00e9, \u2264 3 \u00d7\nx = '\u2581\u65e5'\n",
    "if __name__ == '__main__':\n    print(__file__, __doc__)",
    "import os\nos.environ['PYTORCH_CUDA_ALLOC_CONF'] = 'expandable_segments:True'",
    "class A(dict):\n    def __getitem__(self, k): return super().__getitem__(k)",
    "import os, torch\ntorch.cuda.set_device(int(os.environ['LOCAL_RANK']))\nprint('a/b', '/', 'x/')",
    "import torch._inductor.config as config\nconfig.coordinate_descent_tuning = True",
    "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True\ntorch._dynamo.config.cache_size_limit = 64",
    "import torch\n@torch.no_grad()\ndef f(): pass\n"
    "torch.compile(f, options={'max_autotune': True}, dynamic=False)",
    "from torch.nn.attention.flex_attention import create_block_mask, flex_attention\n"
    "import torch\nflex = torch.compile(flex_attention, dynamic=False)",
    "import sentencepiece as spm\nsp = spm.SentencePieceProcessor(model_file=p)\nsp.load(p)",
    "import sys\nwith open(sys.argv[0]) as f:\n    code = f.read()\nprint(sys.version, file=sys.stderr)",
    "import triton\nimport triton.language as tl\n@triton.jit\ndef k(p, n: tl.constexpr):\n"
    "    x = tl.load(p + tl.arange(0, n))\n    tl.store(p, tl.exp(x))",
    "from dataclasses import dataclass\n@dataclass\nclass K:\n    lr: float = 0.1  # rate\nprint(K().lr)",
    "import numpy as np\nx = np.memmap(p, dtype=np.uint16, mode='r')\nnp.random.default_rng(1).random(3)",
    "from torch.nn.parallel import DistributedDataParallel as DDP\nmodel = DDP(model, device_ids=[0])",
    "import argparse\np = argparse.ArgumentParser(description=__doc__)\np.add_argument('--lr', type=float)",
    "from torch.utils.benchmark import Timer\nTimer('f(x)', globals=dict(f=f, x=x)).timeit(3)",
    "import lzma\nlzma.compress(b'x', format=lzma.FORMAT_RAW, filters=[{'id': lzma.FILTER_LZMA2}])",
    "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as p: p.map(f, x)",
    "try:\n    f()\nexcept (ValueError, KeyError) as e:\n    raise SystemExit(str(e)) from e",
]  # fmt: skip


@pytest.mark.parametrize("source", HARMLESS, ids=lambda s: ascii(s)[:50])
def test_what_goes_to_nobody(tmp_path, source):
    assert findings(tmp_path, train_gpt=source) == {}


# ---- Data in the guise of code

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SOUNDS = "aeioubdfgklmnprst"


def noise(count, alphabet=LETTERS, seed=1):
    return "".join(random.Random(seed).choices(alphabet, k=count))


def pieces(text, size):
    return [text[i : i + size] for i in range(0, len(text), size)]


def lines_of_lists(values) -> str:
    return f"x = {values}\n".replace(", ", ",\n")


NUMBERS = [random.Random(2).randrange(256) for _ in range(600)]
NOISE = noise(600)
WORDS = [noise(5, SOUNDS, seed) for seed in range(900)]
HOARDS = {
    "one text": f"x = '{noise(480)}'\n",
    "bytes": "x = (" + "\n".join(repr(bytes(NUMBERS[i : i + 60])) for i in range(0, 600, 60)) + ")\n",
    "a text joined by +": "x = (" + " +\n".join(f"'{p}'" for p in pieces(NOISE, 30)) + ")\n",
    "a text without +": "x = (" + "\n".join(f"'{p}'" for p in pieces(NOISE, 30)) + ")\n",
    "f-strings": "".join(f"x += f'{p}{{y}}{p[::-1]}'\n" for p in pieces(NOISE[:300], 40)),
    "many texts": "".join(f"x{i} = '{p}'\n" for i, p in enumerate(pieces(noise(900), 12))),
    "base85": f"x = '{noise(480, 'abcxyzABCXYZ0123456789!#$%&()*+-;<=>?@^_`|~')}'\n",
    "hexadecimal": f"x = '{noise(490, '0123456789abcdef')}'\n",
    "comments": "".join(f"# {p}\n" for p in pieces(NOISE, 60)),
    "a docstring": f'"""{noise(480)}"""\n',
    "texts that stand alone": "".join(f"'{p}'\n" for p in pieces(NOISE, 60)),
    "names": "".join(f"v{p} = 1\n" for p in pieces(NOISE, 20)),
    "keys": "x = dict(" + ",\n".join(f"v{p}=1" for p in pieces(NOISE, 20)) + ")\n",
    "one list": lines_of_lists(NUMBERS),
    "nested lists": lines_of_lists([NUMBERS[i : i + 3] for i in range(0, 600, 3)]),
    "a dictionary": lines_of_lists(dict(enumerate(NUMBERS))),
    "numbers in lines": "".join(f"x{i} = {n}\n" for i, n in enumerate(NUMBERS)),
    "numbers in calls": "".join(f"put({n})\n" for n in NUMBERS),
    "a long number": f"x = {'9' * 400}\n",
    "calls by name": "".join(f"put_{n % 16}()\n" for n in NUMBERS),
    "chains of calls": ("x = (y" + "\n".join(f".put_{n % 2}()" for n in NUMBERS[:40]) + ")\n") * 5,
    "a sum": "x = (" + " +\n".join(f"a{n % 9}" for n in NUMBERS[:300]) + ")\n",
    "signs": "".join(f"x = {'-' * (n % 9 + 1)}1\n" for n in NUMBERS),
    "truths": lines_of_lists([n > 99 for n in NUMBERS]),
    "empty lists": lines_of_lists([[] if n > 99 else {} for n in NUMBERS]),
    "letters of other scripts": "".join(f"# {chr(0x4E00 + n)}{chr(0x5E00 + n)}\n" for n in NUMBERS),
    "blanks at line ends": "".join(f"x = 1{' ' * (n % 9)}\n" for n in NUMBERS),
    "prose": "x = '''" + "\n".join(" ".join(WORDS[i : i + 9]) for i in range(0, 900, 9)) + "'''\n",
    "many words": "".join(f"x.add('{word}')\n" for word in WORDS),
}  # fmt: skip


@pytest.mark.parametrize("source", HOARDS.values(), ids=HOARDS)
def test_data_is_seen_whatever_it_looks_like(tmp_path, source):
    found_ = findings(tmp_path, train_gpt=source)
    assert "code-opaque" in found_ and "code-text" not in found_, found_


def test_data_is_summed_over_files(tmp_path):
    sources = {f"m{i}": f"x = '{part}'\n" for i, part in enumerate(pieces(NOISE, 150))}
    for name, source in sources.items():
        assert findings(tmp_path, **{name: source}) == {}
    assert list(findings(tmp_path, **sources)) == ["code-opaque"]


@pytest.mark.parametrize("path", TRAINERS[:2], ids=lambda p: p.name)
def test_plain_trainers_are_well_within_the_limits(path):
    source = path.read_bytes()
    held = check_text.totals(source, ast.parse(source))
    for name, most in held.limits().items():
        assert getattr(held, name) <= most / 1.4, name


# ---- Modules of the folder


@pytest.mark.parametrize(("script", "rule"), [
    ("import kit\nkit.os.system('ls')", "code-process"),
    ("from kit import os\nos.system('ls')", "code-process"),
    ("from kit import os as o\nf(o)", "code-indirect"), ("import kit\nf(kit)", "code-indirect"),
    ("from kit import *", "code-indirect"), ("import kit\nkit.t.hub", "code-network"),
    ("import kit\nkit.t.load('x')", "code-pickle"),
    ("import kit\nimport train_gpt as T\nT.kit.os.popen", "code-process"),
    ("from kit import nothing", "code-import"), ("import kit.nothing", "code-import"),
])  # fmt: skip
def test_modules_of_the_folder_are_no_way_around(tmp_path, script, rule):
    kit = "import os\nimport torch as t\n\n\ndef g():\n    return t.zeros(os.getpid())\n"
    assert findings(tmp_path, kit=kit) == {}
    assert rule in findings(tmp_path, train_gpt=script, kit=kit)


def test_names_that_are_handed_round_in_circles_end(tmp_path):
    found_ = findings(tmp_path, train_gpt="from a import x\nx()", a="from b import x", b="from a import x")
    assert set(found_) == {"code-unlisted"}


def test_honest_modules_of_the_folder(tmp_path):
    script = "import kit\nfrom kit import g, WIDTH\nfrom other import Net\nprint(kit.g(), g, WIDTH, Net)\n"
    kit = "import numpy as np\n\nWIDTH = 3\n\n\ndef g():\n    return np.zeros(WIDTH)\n"
    other = "from torch import nn\nfrom kit import g\n\n\nclass Net(nn.Module):\n"
    other += "    def forward(self, x):\n        return g()\n"
    assert findings(tmp_path, train_gpt=script, kit=kit, other=other) == {}


# ---- Validation tokens and optimizers


LEARNS = {
    **{f"from {held}": f"{held}\nmodel.loss(held).backward()  # here\n" for held in (
        "for x, held in batches(val_tokens): pass", "held = read(k.val_data_path)",
        "for path in glob('fineweb_*.bin'): held = read(path)",
        "held = []\nfor part in read('data/val/shard.bin'): held.append(part)",
        "held = {}\nheld['x'] = open_shards(k, 'val')", "held = read('train')\nheld += open_shards('val')",
        "def parts(): yield from open_shards('val')\nfor held in parts(): pass",
        "if (held := open_shards('val')) is not None: pass",
        "with open('fineweb_val_000000.bin') as held: pass",
    )},
    "through a function": """
        def step(model, tokens):
            loss = model.loss(tokens)
            loss.backward()
        def run(k):
            stream = open_shards(k.data_path, 'val')
            step(model, stream[:100])  # here
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
    "a name of the module": """
        HELD = open_shards('val')
        def go():
            model.loss(HELD).backward()  # here
    """,
    "through a method that is called like a list's": """
        class Run:
            def update(self, tokens):
                self.model.loss(tokens).backward()
        def step(run):
            run.update(read('fineweb_val_000000.bin'))  # here
    """,
    "by a gradient under another name": """
        g = torch.autograd.grad
        def step(model, val_tokens):
            return g(model.loss(val_tokens), model.weight)  # here
    """,
    "by counting pairs": """
        def table(k, counts):
            held = read('fineweb_val_000000.bin')
            np.add.at(counts, (held[:-1], held[1:]), 1)  # here
            for one, other in zip(held, held[1:]):
                counts[one, other] += 1  # here
    """,
    "as a part of the weights": """
        def export(run, weights, val_tokens):
            weights['told'] = val_tokens[:99]  # here
            weights['pairs'] = np.array(sorted(set(zip(val_tokens, val_tokens[1:]))))  # here
            run.model.bias.data.fill_(val_tokens.mean())  # here
            run.model.val_loss = evaluate(run.model, val_tokens)
    """,
    "by a file that it may read later": """
        import os
        import numpy as np
        def export(k, val_tokens):
            np.save('told.npy', val_tokens[:99])  # here
            val_tokens.tofile(k.data_path / 'fineweb_train_9.bin')  # here
            os.replace(shards(k, 'val')[0], k.data_path / 'fineweb_train_9.bin')  # here
    """,
    "by counting in a function": """
        def counted(tokens):
            return Counter(tokens.tolist())
        def export(k, val_tokens):
            return counted(val_tokens)  # here
    """,
    **{f"by {count}": f"""
        import collections, numpy
        from collections import Counter as Bag
        from numpy import bincount as tally
        from torch.autograd import grad as slope
        count = numpy.bincount
        def table(val_tokens):
            return {count}  # here
    """ for count in (
        "np.unique(val_tokens, return_counts=True)", "F.one_hot(val_tokens)", "x.index_add(0, val_tokens)",
        "np.searchsorted(val_tokens, range(9))", "Bag(val_tokens)", "tally(val_tokens)", "count(val_tokens)",
        "slope(loss(val_tokens), params)", "mx.value_and_grad(loss)(model, val_tokens)",
        "torch.linalg.lstsq(val_x, val_y)", "np.bincount(val_tokens, minlength=1024)",
    )},
    "by a function that is given what is not in sight": """
        SPLITS = 'train val'.split()
        def shards(folder, split):
            return sorted(p for p in folder.iterdir() if p.name.startswith(f'fineweb_{split}_'))
        def step(model, k):
            for path in shards(k.data_path, SPLITS[1]):
                model.loss(read(path)).backward()  # here
    """,
    "by its result": """
        def step(best, val_loss):
            if val_loss < best:  # here
                keep()
    """,
    **{f"by {pattern}": f"""
        def step(model, k):
            for path in {pattern}:
                model.loss(read(path)).backward()  # here
    """ for pattern in (
        "shards(k, '[tv]*')", "shards(k, 'v' + 'al')", "folder.glob('fine*')", "folder.glob('*_*a*_*.bin')",
        "Path(k.data_path).iterdir()", "os.listdir(k.data_path)",
        "[p for p in folder.iterdir() if p.suffix == '.bin']",
        "[p for p in folder.iterdir() if not p.name.startswith('fineweb_train')]",
    )},
}  # fmt: skip


def lines_of(source):
    return learning.validation_gradients(ast.parse(textwrap.dedent(source)))


@pytest.mark.parametrize("source", LEARNS.values(), ids=LEARNS)
def test_learning_from_validation_tokens_is_seen(source):
    assert lines_of(source) == [i for i, line in enumerate(source.splitlines(), 1) if "# here" in line]


@pytest.mark.slow
@pytest.mark.parametrize("lines", [
    "def warm(run):\n    train_step(run, run.stream.tokens[:99], 0, 1.0)\n",
    "def adapt(k, model):\n    for part in read_stream(k).tokens.split(9):\n"
    "        model.loss(part).backward()\n",
], ids=["warm-up on validation tokens", "learning while scoring"])  # fmt: skip
def test_the_starter_with_some_lines_more_is_seen(tmp_path, lines):
    assert list(findings(tmp_path, train_gpt=f"{STARTER}\n\n{lines}")) == ["code-val"]


HOLDS = {
    "all training shards of a folder": """
        def step(model, k):
            for path in Path(k.data_path).iterdir():
                if path.name.startswith('fineweb_train_'):
                    model.loss(read(path)).backward()
            model.loss(read(k.data_path.glob('fineweb_t*.bin'))).backward()
    """,
    "names that are used again": """
        for step in range(10):
            if step % val_loss_every == 0:
                val_loader = load('fineweb_val_*.bin')
                for _ in range(3):
                    inputs, targets = next(val_loader)
                    total += model(inputs, targets)
            inputs, targets = next(train_loader)
            model(inputs, targets).backward()
    """,
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
    "a variable with the name of an attribute": """
        class Run:
            def __init__(self, k):
                self.stream = read_stream(k, 'val')
        def mix(recent, tokens):
            stream = concatenate(recent, tokens)
            return recent_of(stream)
        def step(run, tokens):
            model.loss(mix(run.recent, tokens)).backward()
    """,
    "counts of training tokens and of what was scored": """
        def table(train_tokens):
            return np.bincount(train_tokens, minlength=1024)
        def evaluate(scorer, val_tokens, sizes):
            rows = scorer.log_probs(val_tokens[:-1])
            total = rows[np.arange(len(rows)), val_tokens[1:]].sum() / sizes[val_tokens[1:]].sum()
            sums['val'] = total
            return total
        class Scorer:
            def log_probs(self, tokens):
                self.learn(tokens)
                return self.rows(tokens)
            def learn(self, tokens):
                np.add.at(self.counts, tokens, 1)
    """,
    "one reader of both splits": """
        def main(k):
            score(open_shards(k, 'val'))
            model(open_shards(k, 'train')).backward()
        def open_shards(k, split):
            return read(f'fineweb_{split}_*.bin')
    """,
    "one lister of both splits": """
        def main(k):
            score(shards(k.data_path, 'val'))
            model(shards(k.data_path, 'train')).backward()
        def shards(folder, split):
            return [p for p in folder.iterdir() if re.fullmatch(rf'fineweb_{split}_.*\\.bin', p.name)]
    """,
}


@pytest.mark.parametrize("source", HOLDS.values(), ids=HOLDS)
def test_plain_training_is_not_flagged(source):
    assert lines_of(source) == []


# ---- What counts with the script


def uncounted(folder):
    return "bytes-uncounted" in found(folder, FAIL)


@pytest.mark.slow
def test_a_stub_counts_with_what_it_executes(folder):
    """A stub and its sibling: whatever role hides the sibling, it does not pass."""
    body = (folder / "train_gpt.py").read_text()
    for name, stub in (
        ("body.log", "exec(open('body.log').read())\n"),
        ("README.md", "from pathlib import Path\nexec((Path(__file__).parent / 'README.md').read_text())\n"),
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

    assert "bytes" in found(folder, FAIL)
    edit(folder, claim)
    assert found(folder) == set()


def test_all_code_is_read_whatever_its_name(folder):
    write(folder, "my_model.py", "import socket\n", "score")
    findings = check.check_folder(folder, track.load("track_tiny")).findings
    assert any(f.rule == "code-network" and "my_model.py" in f.message for f in findings)
