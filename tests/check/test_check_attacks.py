"""golf check on code: ways around the list, sources of knowledge, and plain code that resembles them."""

import ast
import itertools
import re

import pytest
from conftest import REPO
from golf.check import source as check_text
from golf.check.steering import other_sources
from golf.core.findings import FAIL, HUMAN
from test_check_code import findings

AROUND = {
    "code-indirect": [
        # what partial and map call later, classes under another name or of foreign memory, codecs by a name
        "import functools\nfrom types import SimpleNamespace as N\nfunctools.partial(N, **w)()",
        "X = type(*('A', (), {}))",
        "import functools\nimport numpy as np\nfunctools.partial(np.ndarray, (9,), object)(b)",
        "import numpy as np\nclass A(np.ndarray): pass", "import numpy as np\nclass A(np.memmap): pass",
        "from modulefinder import ModuleFinder\nclass A(ModuleFinder): pass",
        "C = 'rot13'\nopen(x, encoding=C)", "import torch\nT = torch.Tensor\nT.cpu = f",
        # names that packages keep to themselves lead to modules and to foreign memory
        "import enum\nenum.Enum._convert_('E', 'os', f)",
        "class K(enum.Enum): A = 1\nK._convert_('E', 'os', f)",
        "import warnings\nwarnings.catch_warnings()._module", "x._mmap", "getattr(x, '_private')",
        "import torch\ntorch.nn.Module._load_from_state_dict", "kernel._unsafe_update_src(s)",
        "class A:\n    def _convert_(self): pass\nB._convert_('E', 'os', f)",
        # text that is put together so that nobody sees it
        "chr(47) + x", "chr(40 + 7)", "bytes([47, 117])", "bytes.fromhex('2f75')", "map(chr, [47, 117])",
        "''.join(chr(c) for c in (47, 117))", "''.join(chr(ord(c) - 1) for c in '0vts')", "'sdrow/rsu'[::-1]",
        "'|usr'.replace('|', '/')", "'0vts'.translate({48: 47})",
        # functions that take attributes, code or files by a text
        "list(map('{0.x}'.format, [f]))", "f = str.format",
        "import functools\nfunctools.wraps(f, assigned=a)(g)",
        "import logging\nlogging.basicConfig(style='{', format=t)", "open(x, opener=f)",
        "import argparse\nargparse.ArgumentParser(fromfile_prefix_chars='@')",
        "import torch\ntorch.compile(f, backend=g)", "model.compile(backend=g)",
        "import torch\ntorch.compile(f, backend='mine')", "g.on_generate_code(f)", "M('X', (B,), {})",
        "import torch\nsetattr(torch.Tensor, 'backward', f)",
        # functions that are called later, with arguments out of sight
        "import functools, torch\nfunctools.partial(torch.compile, backend=g)",
        "import torch\nc = torch.compile",
        "c = model.compile", "import torch\nx = [torch.compile]",
        # what else hands out modules, and classes made by others than `class`
        "import os\ntry: os.process_cpu_count()\nexcept AttributeError as e: e.obj.popen('x')",
        "match e:\n    case AttributeError(obj=m): m.load('x')",
        "from torch.utils.data import DataLoader\nDataLoader(d).multiprocessing_context.Process(target=f)",
        "DataLoader(d, multiprocessing_context=c)", "t = type(int)", "type(type(x))",
        "class A: x = 1\nt = type(A)", "class A(B, metaclass=M): pass", "class A(**words): pass",
        "p.parse_args(['--x', 'y'], namespace=C)", "Path('x').symlink_to(y)", "Path('x').chmod(0o755)",
        # letters that are made of numbers or of other letters
        "x = '%cusr' % 47", "x = f'{47:c}usr'", "'{:c}'.format(47)", "b'+AC8-'.decode('utf-7')",
        r"b'\x2f'.decode('unicode_escape')", "'gbc'.encode('rot13')", r"json.loads('\\u002fusr')",
        "(47).to_bytes(1, 'big')", "import struct\nstruct.pack('2B', 47, 117)",
        "import numpy as np\nnp.array([47, 117], np.uint8).tobytes()",
        "import numpy as np\nnp.uint32(1920169263).tobytes()",
        "SLASH = 47\nchr(SLASH + 0)", "C = [47, 117]\nbytes(C)", "T = 'a/b'\nT[1]", "chr(ord('0') - 1)",
        "import string\nstring.printable[76]", "T = 'x/etc'\nT.split('x')[1]",
        "C = (47, 117)\nchr(C[0])", "class K: slash = 47\nchr(K.slash)", "H = '2f'\nchr(int(H, 16))",
        "T = dict(a=47)\n''.join(chr(n) for n in T.values())", "def f(n=47): return chr(n)",
        "C = (47, 117)\nbytes(chr(a + b) for a, b in zip(C, (0, 0)))", "S = 47\nbytes(bytearray((S,)))",
        "T = 'rsu/'\n''.join(reversed(T))",
        # names that stand for two things, or that somebody else binds
        "def f():\n    from math import pi as getattr\ngetattr(x, y)",
        "if 0:\n    from math import pi as open", "for n in 'a b'.split(): getattr(x, n)",
        "[(lambda n: getattr(x, n))(y) for n in 'a b'.split()]", "class K:\n    gi_frame: int",
        "[getattr(x, f.name) for f in K]", "[getattr(x, f.type) for f in fields(K)]",
        "from dataclasses import fields\n[getattr(x, f.name) for f in fields(K) for f in y]",
        "N = 'a b'.split()\ndef f(N): return [getattr(x, n) for n in N]",
        "N = ['a']\nN.append(y)\n[getattr(x, n) for n in N]", "N = W = ['a']\n[getattr(x, n) for n in N]",
        "N = ['a']\nN[0] = y\n[getattr(x, n) for n in N]", "N = ['a']\ndef N(): [getattr(x, n) for n in N]",
        "t = '{}'\ndef f(t): return t.format(x)", "t = '{}'\ndef f(t=u): return t.format(x)",
        "t = '{}'\nfor t in u: t.format(x)", "with f() as t: t.format(x)", "t = '{}'\nt += u\nt.format(x)",
        "t = '{}'\n(t := u)\nt.format(x)", "t: str = u\nt.format(x)", "t = '{}'\nt, v = u, 1\nt.format(x)",
        "'{0:{1.x}}'.format(1, y)", "_module = 1\nw._module",
        "def hasattr(m, n): m.x\nhasattr(os, n)\nimport os",
        # patterns name attributes too; a class may claim others' objects as its own
        "match w:\n    case object(_module=m): pass", "match m:\n    case object(compile=c): c(f, backend=g)",
        "match t:\n    case str(format=f): f(x)",
        "from abc import ABC\nclass B(ABC): gi_frame: int\nB.register(g)",
        "getattr(m, 'compile')(f, backend=g)", "getattr(t, 'format')(x)", "getattr(e, 'obj')",
        # := and yield hand on what is plain to look at
        "import torch\nif (c := torch.compile) is not None: c(f, backend=g)", "print(c := model.compile)",
        "print(d := __doc__)", "def g(): print((yield model.compile))", "import torch\nA() == torch.compile",
        # attributes of computed names, classes made by `type`, memory of others as objects
        "from types import SimpleNamespace\nSimpleNamespace(**d)", "import argparse\nargparse.Namespace(**d)",
        "x = {'__arr%s': 1}", "x = 'y_interface__'", "from enum import Enum\nEnum('E', d)",
        "(T := type(a))(n, b, d)", "T = type(t)\nT(n, b, d)", "t = type(a)(a)\nt(n, b, d)", "f(type(t))",
        "import numpy as np\nnp.ndarray((1,), dtype=object, buffer=b)",
        "import numpy as np\nnp.memmap(p, dtype='O')", "import numpy as np\nN = np.ndarray", "kernel.src = t",
        # letters that are cut from others or decoded
        "str(b, 'utf-7')", "bytes(t, 'unicode_escape')", "open(p, encoding='unicode_escape')",
        "x.decode(encoding='utf-7')", "x = '%s' % '/'", "x = 'a/b'[1]", "x = 'x/usr/share'[1:]",
        "x = 'x/usr'.lstrip('x')", "x = 'x/usr'.removeprefix('x')", "x = 'x/usr'.split('x')[1]",
        "x = 'x|/usr'.partition('|')[2]", "x = '/USR/share'.lower()", "import os\nos.getenv('ci'.upper())",
        # files that somebody else has opened
        "open(int('3'))", "open(True)", "import numpy as np\nnp.fromfile(3)", "import os\nos.close(3)",
        "import os\nos.truncate(3, 0)", "import os\nos.stat(3)", "import os\nos.listdir(3)",
        # what other code relies on
        "eval = 1\ntry: f()\nexcept ValueError as eval: pass", "for n in range(9):\n    open(n)",
        "fd = 3\nopen(fd)", "open(1 + 2)", "from pathlib import Path\nPath('numpy.py').write_text(x)",
        "from pathlib import Path\nPath('x.pth').write_text(x)", "Path('sitecustomize.py')",
        # numbers of files, in whatever form; what takes attributes or modules of any name
        "open(file=3)", "open(len('abc'))", "open(*x)", "list(map(open, [3]))", "for n in (3, 4): open(n)",
        "def f(n=3): return open(n)", "open(3 if x else p)", "import os\nos.open(x, 0, dir_fd=3)",
        "p.parse_args(t, C)", "import argparse\nargparse.ArgumentParser(**{'fromfile_prefix_chars': '@'})",
        "p.fromfile_prefix_chars = '@'", "from modulefinder import ModuleFinder\nModuleFinder()",
        "m.bltns.exec('x')", "f.co_filename", "log.findCaller()", "log.error('x', stack_info=True)",
        "kernel.asm['cubin'] = b", "self.popen('x')", "t.collect_callgrind()",
        # its own text as data
        "x = __doc__", "f(description=__doc__)",
        # what leads out also where the code has such a name of its own
        "m.Popen(['ls'])", "class A:\n    def Popen(self): pass\nm.Popen(['ls'])", "m.urlopen(u)",
        "m.CDLL('x')", "x.set_(y, 0, (9,))",
        # what libraries say, kept: warnings, errors, logs, help; files that an import would find
        "import warnings\nwarnings.catch_warnings(record=True)",
        "import traceback\ntraceback.print_exc(file=b)", "import logging\nlogging.StreamHandler(b)",
        "import contextlib\nwith contextlib.redirect_stdout(b): f()",
        "import logging\nlogging.basicConfig(stream=b)", "import glob\nglob.glob('**', recursive=True)",
        "import os\nos.rename(x, n + '.pth')", "open(f'{n}.so', 'wb')",
        "class Box: obj, system = 0, 1\ntry: f()\nexcept AttributeError as e: e.obj.system('ls')",
        # words of libraries: names of characters, of classes; memory as objects
        "chr(n).encode('ascii', 'namereplace')", "import typing\nx = f'{typing.Optional}'",
        "str(KeyError)", "import numpy as np\nnp.frombuffer(b, object)", "str.lower('/USR')",
        "import re\nre.sub('x', '.', 'xx')",
    ],
    "code-exec": [
        "if 0:\n    from math import pi as exec\nexec('x')", "d = {}\nd[\n exec] = 1\nexec('x')",
        "d = {}\n[exec('x') for d[exec] in [0]]", "def exec(\n  x=exec('1')): pass",
        "class exec:\n    x = exec('1')", "vars(x)", "def f(a=vars(C)): pass",
        "args = p.parse_args(namespace=n)\nvars(args)",
        "def f(eval):\n    class A:\n        global eval\n        eval('1')",
    ],
    "code-unlisted": [
        "import torch\ntorch.from_file(p, False, 9)",
        "import unicodedata\nunicodedata.name(c)", "from torch.library import custom_op", 
        "import torch\ng = torch.library.triton_op('a::b')(f)",
        # attributes of objects whose origin is not shown: none leads to a program, a folder, a text or memory
        "m.system('ls')", "m.Process(target=f)", "m.run(['ls'])", "m.call(['ls'])", "m.spawn(f)",
        "m.connect(a)", "m.dlopen('x', 2)", "class A:\n    def f(self): self.tool.system('ls')",
        "getattr(m, 'system')('ls')", "m.run_path('a')", "match m:\n    case object(system=s): s('ls')",
        "match m:\n    case {'a': object(communicate=c)}: c()", "m.get_data('x')", "m.load_dynamic('x')",
        "x = [getattr(m, n) for n in ('walk_packages', 'x')]", "here.rglob('*')", "here.walk()",
        "class A(dict): __getitem__ = here.rglob", "@(lambda f: f.rglob)\ndef g(): pass",
        "try: f()\nexcept E as e: x = e.msg", "w[0].message", "p.format_help()", "p.format_usage()",
        "p.set_defaults(**d)", "d.arg_constraints", "model.get_submodule(n)", "x.untyped_storage()",
        "x.as_strided(a, b)", "x.share_memory_()", "x.data_ptr()", "x.getbuffer()", "x.setflags(write=True)",
        "x.base", "x.to_dlpack()", "import array\narray.array('b').buffer_info()",
        "import mlx.core as mx\nmx.as_strided(x, s)", "f.cache_info()", "import os\nos.path.relpath(a, b)",
    ],
    "code-process": [
        "import os\ndef f(os):\n    class A:\n        global os; os.system('x')",
    ],
    "code-pickle": ["import torch\ntorch.load(p, 'cpu', x, weights_only=True)"],
    "code-outside": [
        "match p:\n    case Path(root=r): pass", "print(p := '/')", "print(read('/'))", "x = '' + '/'",
        "x = '.' + '.'",
        "open('/%s' % n)", "open('/{}'.format(n))", "x = '/p'\nopen(x + 'roc')", "x = f'/us{n}'",
        "here / '/'",
        "open('/' + x)", "open(f'/{x}')", "x = '/'", "'/'.join(['', x])", "x = '~'",
        "import os\nos.listdir('..')",
        "import glob\nglob.glob('*', root_dir='/')", "Path.cwd().anchor", "here.parents[5]",
        "import os\nos.environ.copy()",
        "here.parents[-1]", "here.parents[n]", "here.parent.parent.parent.parent",
        "import os\nos.getcwd()[0]", "import os\nos.path.abspath('x')[:1]", "Path.cwd().parts[0]",
        "import os\nos.path.join(x, '..')", "import os\nos.path.join('/', x)", "import os\nos.environ.keys()",
        "import os\nos.environ.values()", "import os\nos.environ['VIRTUAL_ENV']", "x = '203.0.113.9'",
        "s = t.untyped_storage()\ns.from_file(p, False, 9)", "x = __file__[0]", "x = str(Path.cwd())[:1]",
        "x = next(iter(p.parts))",
        "import tempfile\nx = tempfile.gettempdir()[0]", "x = '//usr/share'", "x = '/./usr'", "x = '//'",
        "x = top / 'usr/share'", "x = top / 'proc'", "x = 'lib/site-packages'", "import os\ndict(os.environ)",
        "import os\nos.environ.update(CXX='x')", "import os\nx = {**os.environ}", "x = 'TRITON_PTXAS_PATH'",
        "import os\nos.environ.data", "dict(LD_PRELOAD=x)",
        # folders above, whatever way leads there
        "for p in here.parents: print(p)", "while p != p.parent: p = p.parent",
        "a = p.parent.parent\nb = a.parent.parent\nb / 'x'",
        "import functools\nfunctools.reduce(lambda p, _: p.parent, x, here)", "top = list(here.parents)[-1]",
        "*_, top = here.parents", "max(here.parents, key=len)", "getattr(here, 'parents')",
        "match here:\n    case Path(parents=p): pass", "import os\nwhile x: d = os.path.dirname(d)",
        "from os.path import dirname as d\nd(d(d(d(x))))",
        "import os\nd = os.path.dirname\nd(d(d(d(__file__))))",
        "import os\nfor _ in x: p = os.path.split(p)[0]",
        "import tempfile\nx = Path(tempfile.gettempdir()).parent",
        "def up(p): return up(p.parent) if x else p", "up = lambda p: p.parent\nup(x)",
        "def up(p): return p.parent\nup(up(up(up(x))))",
        "class W:\n    def up(self): self.at = self.at.parent",
        "next(p for p in here.parents if p.is_dir())",
        "next(p for p in here.parents if (p / 'bin').is_dir())", "here.glob('**/*.txt')", "x.parts",
        # all of the environment, and variables whose names are computed
        "import os\nfor k in os.environ: print(k)", "import os\nenv = os.environ\nenv.items()",
        "import os\n[*os.environ]", "import os\na, *b = os.environ", "import os\nx = f'{os.environ}'",
        "import os\nx = os.environ | {}", "from os import environ as e\nfor k in e: print(k)",
        "import os\n' '.join(os.environ)", "import os\nf(**os.environ)",
        "import os\ndef f(e): return e.values()\nx = f(os.environ)",
        "import os\nmatch os.environ:\n    case {**x}: pass", "import copy, os\ncopy.copy(os.environ)",
        "import os\ne = os.environ\nf = e\nprint(f)", "import os\nclass K: env = os.environ\nlist(K.env)",
        "import os\nfor k in x: os.environ[k] = v", "import os\nos.environ.setdefault(k, v)",
        "import os\nos.environ.update(d)",
        "import os\nPath(os.devnull).parent.parent", "import os\nos.devnull[:1]", "Path('.' * 2)",
        "Path(f\"{'.'}{'.'}\")", "import os\nos.environ.get('HOSTNAME')",
        "import tempfile\nPath(tempfile.TemporaryDirectory().name).parent.parent",
        "import os\nos.devnull.split('n')[0]", "DOT = '.'\nPath(DOT + DOT)", "DOT = '.'\nPath(f'{DOT}{DOT}')",
        "ROOTS = dict(root=1)\nPath.cwd().root", r"open('\\proc/x')",
        "x = ' /etc'", "os.environ['MASTER_ADDR'] = 'collector.example.org'", "p.glob('records/*/*/f*')",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("rule", "source"), [(r, s) for r, many in AROUND.items() for s in many],
                         ids=lambda v: ascii(v)[:50])  # fmt: skip
def test_ways_around_are_seen(tmp_path, rule, source):
    found = findings(tmp_path, train_gpt=source)
    assert rule in found, found
    assert found[rule].level == (FAIL if rule == "code-pickle" else HUMAN)
    assert re.search(r"line [1-4] \(", found[rule].message)


def test_a_module_of_the_folder_is_not_written_anew(tmp_path):
    found = findings(tmp_path, train_gpt="open('tables.py', 'w')\nimport tables", tables="X = 1")
    assert "line 1 ('tables.py')" in found["code-indirect"].message


PLAIN = [
    "import torch, torch.nn.functional as F\nT = torch.Tensor\ndef f(x: T): return act(x)\nact = F.gelu",
    "import functools, torch.nn.functional as F\nact = functools.partial(F.gelu, approximate='tanh')",
    "import argparse\nconfig = vars(argparse.ArgumentParser().parse_args())", "'records', here / 'docs'",
    "class A:\n def f(self):\n  try: g()\n  except: pass\n  match x:\n   case _: g()",
    "def unwrap(model): return getattr(model, '_orig_mod', model)",
    "import torch\ntorch._foreach_add_(a, b)", "class A:\n    def _run(self): return self._run()",
    "m._is_residual = True\nif m._is_residual: f()", "self.register_buffer('_mask', x)\nself._mask",
    "import numpy as np\nx = chr(0x2581), chr(n), bytes(4), [chr(n) for n in cs]", "x = '~' in y, ord('~')",
    "p.replace('/', '_'), a + '/' + b, f'{a}/{b}', '/'.join(parts), s.split('/')", "print('a', sep='/')",
    "import torch\ntorch.compile(f, backend='aot_eager')\nmodel.compile(mode='max-autotune')",
    "import functools\n@functools.wraps(f)\ndef g(): pass", "T = '{:>6}'\nprint(T.format(3))",
    "import argparse\np = argparse.ArgumentParser(description=__doc__)\na = p.parse_args()\nprint(vars(a))",
    "import os\nos.environ['PYTHONHASHSEED'] = '0'\nos.environ.setdefault('MASTER_ADDR', '127.0.0.1')",
    "import enum\nclass E(enum.Enum):\n    A = 1\nE(1), E['A'], E.A.name", "raise type(e)(str(e)) from e",
    "import numpy as np\ndef f(x: np.ndarray): return isinstance(x, np.ndarray)",
    "from types import SimpleNamespace\nx = SimpleNamespace(a=1)", "p.add_argument('--x', type=type(d))",
    "kind = type(d)\nx = kind(text)", "'a,b'.split(','), 'abc'[i], '%d/s' % n, '-' * 9",
    "hasattr(torch, 'x')\nimport torch",
    "from dataclasses import fields\nx = {f.name: getattr(k, f.name) for f in fields(K)}",
    "N = 'a b'.split()\nx = {n: getattr(k, n) for n in N}\nlen(N), sorted(N)",
    "import numpy as np\nnp.memmap(p, np.uint16, 'r'), np.memmap(p, dtype='<u2')",
    "import numpy as np\nK = '<u2'\ndef f(p): return np.memmap(p, dtype=K)",
    "t = '{}'\nt = t.format(x)\ndef f(t): return t", "import os\nstack.callback(os.close, f)",
    "x = type(f.default)(text)", "here.parent.parent, here.parents[2]", "self.root = x\nself.root",
    "for n in range(9):\n    open(paths[n])", "try: f()\nexcept OSError as error: print(error)",
    "import os\nmain(os.environ), os.environ['A'], 'B' in os.environ\nenv = os.environ\nos.fsync(f.fileno())",
    "here = Path(__file__).resolve().parents[0]\nsorted(here.glob(n))[0]", "folder / 'dev' / 'lib'",
    "import sys\nparts = name.split('.')\nparts[0], sys.argv[0]", "import torch\ntorch.autocast('cuda')",
    "p.parse_args(), p.parse_known_args(words)",
    "import os\ndef read(env): return [k for k in env]\nif __name__ == '__main__': read(os.environ)",
    "ROOT = next((p for p in here.parents if (p / 'data').is_dir()), Path.cwd())\nROOT / 'data' / 'x'",
    "folder = path.parent\ndef f(folder): path = folder / n\npath.parent.mkdir()",
    "import struct\nstruct.pack('<4sHH', b'PGLA', 1, 1), struct.pack('<2I', n, 64)",
    "import numpy as np\nnp.array([1, 47, 300]).tobytes(), x[:64].tobytes(), np.array([]).tobytes()",
    "P = 'data/x'\nP.split('/')[-1], P.rstrip('/'), P.replace('/', '_'), P.startswith('data')",
    "V = 1024\nV.to_bytes(2, 'big'), bytes(V), chr(V)\nN = ('a', 'b')\n', '.join(N), bytes(range(256))",
    *re.split(r"# ---- .*\n", (REPO / "tests/fixtures/honest_code.txt").read_text())[1:],
]  # fmt: skip


@pytest.mark.parametrize("source", PLAIN, ids=lambda s: ascii(s)[:50])
def test_plain_code_that_resembles_them_is_not(tmp_path, source):
    assert findings(tmp_path, train_gpt=source) == {}


def scorer(body: str, before: str = "") -> str:
    head = "import os, random, sys, time\nimport numpy as np\nfrom pathlib import Path\n"
    return f"{head}{before}\nclass Scorer:\n    def log_probs(self, tokens):\n        {body}\n"


STEERED = {
    **{f"{name}, in scoring": scorer(f"return {call}  # here", f"import {name}") for name, call in {
        "signal": "signal.alarm(1)", "threading": "threading.Event().wait(1)",
        "queue": "queue.Queue().get(True, 1)",
        "shutil": "shutil.disk_usage('.').free", "logging": "logging.info('x')",
        "torch": "torch.Generator().seed()",
        "traceback": "traceback.format_exc()", "tqdm": "tqdm.tqdm(x).format_dict", "ast": "x.data_ptr()",
        "math": "a.elapsed_time(b)", "json": "sys.getsizeof(x)",
    }.items()},
    **{f"by chance: {call}": scorer(f"return {call}  # here", "import gzip, torch") for call in (
        "torch.rand(3)", "torch.randint(9, (3,))", "torch.bernoulli(x)", "torch.nn.functional.dropout(x)",
        "torch.normal(x)", "x.normal_()", "x.uniform_()", "x.random_()", "x.multinomial(2)", "d.sample()",
        "torch.svd_lowrank(x)", "np.random.default_rng(None).random()", "random.Random(None).random()",
        "torch.empty(3)", "np.empty(3)", "np.empty_like(x).sum()", "x.new_empty(3)", "torch.Tensor(3)",
        "(torch.empty(9), 1)", "gzip.compress(b'')[4]",
    )},
    **{f"kept: {body}": scorer(f"{body}  # here", f"import torch\n{held}") for body, held in {
        "C[0] = x": "C = {}", "C.append(x)": "C = []", "C.n += 1": "class C: n = 0",
        "global C; C = x": "C = 0", "C.copy_(x)": "C = torch.zeros(9)", "next(C)": "C = iter(x)",
        "C.send(x)": "C = g()", "C.setdefault(x, [])": "C = {}", "C.pop()": "C = [1]",
        "C.seen = x": "def C(): pass",
    }.items()},
    "kept in a default": scorer("seen.append(tokens)").replace("tokens):", "tokens, seen=[]):  # here"),
    "the text of an error": scorer("try: f()\n        except OSError as e: return str(e)  # here"),
    "the text of an error, at the start": scorer("return T  # here", "try: f()\n"
    "except OSError as e: T = str(e)"),
    "the text of an error, by a function": scorer("return T", "def f():\n    try: g()\n"
    "    except OSError as e: return str(e)  # here\nT = f()"),
    **{f"who runs it: {how}": scorer("return T  # here", f"T = {how}") for how in (
        "Path(__file__).parent.name", "__name__ == '__main__'")},
    "what the process has left": scorer("try: return f(f)\n        except RecursionError: return 1  # here"),
    "when the artifact was made": "def load_scorer(p): return p.stat().st_mtime  # here",
    "Python's version": "import sys\ndef load_scorer(p): return sys.version  # here",
    "what is there at the start": scorer("return T  # here", "T = Path('seen').exists()"),
    "brotli's dictionary, in a class": scorer("return K.t  # here", "import brotli\nclass K:\n"
    "    t = brotli.Decompressor().process(b'x')"),
    "brotli's words, when it loads": "import brotli\ndef load_scorer(p): return brotli.compress(p)  # here",
    "a thread that counts": scorer("return N", "import threading\nN = 0\nthreading.Thread(target=f)  # here"),
    "a signal that counts": scorer("return N", "import signal\nN = 0\nsignal.signal(14, f)  # here"),
    "a property": scorer("return self.now\n    @property\n    def now(self): return time.time()  # here"),
    "what it is made of": scorer("return self.t\n    def __init__(self): self.t = time.time()  # here")
    + "def load_scorer(p, d): return Scorer()\n",
    "a value of the module": scorer("return T", "T = time.time()  # here"),
    "a lambda": scorer("return now()", "now = lambda: time.time()  # here"),
    **{f"what {how} at the start": scorer("return T  # here", f"T = []\n{how}") for how in (
        "T += [time.time()]", "T: float = time.time()", "if 1: T = time.time()", "T.append(time.time())",
        "T[0] = time.time()", "for T in [time.time()]: pass", "with f(time.time()) as T: pass",
        "try: f()\nexcept OSError: T = -time.time()", "class K:\n    T = time.time()",
    )},
    "part of a function": scorer("return P()", "import functools\nP = functools.partial(time.time)  # here"),
    "a method that nobody names": scorer("return self.m[0]", "class M:\n"
    "    def __getitem__(self, n): return time.time()  # here"),
    "a module's forward": scorer("return self.m(x)",
    "class M:\n    def forward(self, x): return time.time()  # here"),
    "a decorator": scorer("pass", "def d(f): return lambda *a: time.time()  # here")
    .replace("    def l", "    @d\n    def l"),
    "an assigned method": "import time\ndef h(self, t): return time.time()  # here\n"
    "class Scorer: pass\nScorer.log_probs = h",
    "a function that a module seems to have": scorer(
        "return struct.pack(x)", "def pack(x): return time.time()  # here\nclass struct: pack = pack"
    ),
    "a function by the script's own name": scorer("return me.note(x)", "import train_gpt as me\n"
    "def note(x): return time.time()  # here"),
    "a function that a class was given": scorer(
        "return self.note(x)", "def note(x): return time.time()  # here") + "Scorer.note = note\n",
    "a function that a module had": scorer("return json.loads(x)", "import json\n"
    "def loads(x): return time.time()  # here\njson = Own()"),
    **{f"kept, by another name: {body}": scorer(f"{body}  # here\n    def reset(self): self.kept = 0",
       f"import functools\n{held}") for body, held in {
        "m = L; m.append(x)": "L = [1]", "m = D['a']; m[0] = x": "D = {'a': [1]}",
        "m = C.rows; m += [x]; m[0] = x": "class C: rows = [1]", "w = self.rope; w.add_(1)": "",
        "[m.append(x) for m in L]": "L = [[1], [2]]", "push(x)": "L = [1]\npush = L.append",
        "push = L.append; push(x)": "L = [1]", "list(map(L.append, tokens))": "L = [1]",
        "table()[0] += 1": "@functools.cache\ndef table(): return [1]",
        "t = table(9); t[tokens] = 1": "@functools.lru_cache(None)\ndef table(n): return np.ones(n)",
        "table().append(x)": "def build(): return [1]\ntable = functools.lru_cache()(build)",
        "self.table()[0] = 1": "class A:\n    @functools.cache\n    def table(self): return [1]",
    }.items()},
    **{f"a function as a value: {body}": scorer(body, f"def note(x): return time.time()  # here\n{held}")
       for body, held in {
        "return OPS['a'](tokens)": "OPS = {'a': note}", "return OPS[0](tokens)": "OPS = [note, len]",
        "for f in (note, len): f(tokens)": "", "f = note; return f(tokens)": "",
        "return self.hook(tokens)": "def load_scorer(p):\n    s = Scorer()\n    s.hook = note\n    return s",
        "return self.ops['a'](tokens)\n    def __init__(self): self.ops = {'a': note}": "",
        "return K.act(tokens)": "class K: act = note", "return max(tokens, key=note)": "",
    }.items()},
    "a method as a value": scorer("f = self.m.note; return f(tokens)", "class M:\n"
    "    def note(self, x): return time.time()  # here"),
    **{f"in training: {made}": scorer("return self.net(tokens)", f"import torch\nfrom torch import nn\n"
       f"class Net(nn.Module):\n    def __init__(self): self.x = {made}  # here\n"
       "    def forward(self, x): return mx.eval(self.x(x))\nimport mlx.core as mx") for made in (
        "nn.Dropout(0.1)", "nn.Sequential(nn.BatchNorm1d(9))", "torch.nn.AlphaDropout()", "nn.RReLU()")},
    "what learns in training alone": scorer("return self.model(tokens)\n    def reset(self): self.kept = 0",
    "class Gate:\n    def forward(self, x):\n        if self.training: self.load += x.sum()  # here"),
    **{f"an address: {text}": scorer(f"return len({text})  # here") for text in (
        "repr(self.act)", "f'{self}'", "str(self)", "format(self)", "ascii(x)", "[hash(self)]")},
    "chance, in a list": scorer("return [torch.zeros, torch.randn][1](9)  # here", "import torch"),
    "chance, in a table": scorer("return T['a'](x)", "from torch.nn import functional as F\n"
    "T = {'a': F.dropout}  # here"),
    "the threads": scorer("return torch.get_num_threads()  # here", "import torch"),
    "the clock": scorer("return self.a if time.time() % 2 > 1 else self.b  # here"),
    "the clock by another name": scorer("return clock()  # here", "clock = time.monotonic"),
    "brotli's dictionary": scorer("return rows(brotli.compress(tokens))  # here", "import brotli"),
    "the process": scorer("return os.getpid() % 2  # here"),
    "the environment": scorer("return os.environ.get('AUDIT')  # here"),
    "chance, in a helper": scorer("return chance()", "def chance(): return random.random()  # here"),
    "chance without a seed": scorer("return np.random.default_rng().random()  # here"),
    "a file left behind": scorer("return Path('seen').exists()  # here"),
    "an address": scorer("return id(self) % 2  # here"),
    "the process, when it loads": "import os\ndef load_scorer(path):\n    return Model(os.getpid())  # here",
    "its comments": scorer("return WORDS  # here", "WORDS = Path(__file__).read_text().split('#')"),
    "its source, in steps": scorer(
        "return T  # here", "with open(sys.argv[0]) as f:\n  C = f.read()\nT = C[9:]"
    ),
    "its source, as numbers": scorer("return np.fromfile(__file__, np.uint8)  # here"),
    "a closure of the start": scorer(
        "note(tokens)",
        "def make():\n    seen = []\n    def note(x): seen.append(x)  # here\n    return note\nnote = make()",
    ),
    "an object of the start": scorer(
        "M.note(tokens)  # here", "class Memory:\n    def note(self, x): self.seen = x\nM = Memory()"
    ),
    "what a generator counts": scorer(
        "for n in C: break  # here", "def count():\n    n = 0\n    while True: yield n\nC = count()"
    ),
    "a list, by del": scorer("del L[0]  # here", "L = [1, 2]"),
    "a list under another name": scorer("m = L  # here", "L = []"),
    "a list that a function fills": scorer("push(L, tokens)  # here", "def push(m, x): m.append(x)\nL = []"),
    "an array, by out": scorer("np.add(A, 1, out=A)  # here", "A = np.zeros(9)"),
    "an array, by place": scorer("np.add.at(A, 0, 1)  # here", "A = np.zeros(9)"),
    "what reset() leaves": scorer("self.seen.append(1)  # here\n    def reset(self): self.kept = 0"),
    "the model, in part": scorer("self.model.rope.mul_(2)  # here\n    def reset(self): self.kept = 0"),
    "how often it began": scorer("return x\n    def reset(self): self.passes += 1  # here"),
    **{f"a mark of the first load: {text}": f"import os\nfrom pathlib import Path\n"
       f"def load_scorer(p): {text}  # here" for text in ("p.touch()", "os.mkdir('a')", "x.tofile('a')")},
    "a folder that is there": scorer("return Path('x').is_dir()  # here"),
    "a file that is made": scorer("np.save('x', tokens)  # here"),
    "a folder's files, when it loads":
        "def load_scorer(path):\n    return [p.read_bytes() for p in path.parent.iterdir()]  # here",
    "threads": scorer("torch.set_num_threads(3)  # here", "import torch"),
    "chance, by partial": scorer(
        "return draw()", "import functools, torch\ndraw = functools.partial(torch.rand, 3)  # here"
    ),
    "dropout that is always on": scorer(
        "return F.dropout(x, 0.5, True)  # here", "import torch.nn.functional as F"
    ),
    # what scoring reaches by more hands, or without a call
    "many hands": scorer("return f0()", "".join(f"def f{n}(): return f{n + 1}()\n" for n in range(9))
    + "def f9(): return time.time()  # here"),
    **{f"an object that is made: {how}": scorer(f"return {use}", f"class Base:\n    def {how}(self, *a):\n"
       "        self.at = time.time()  # here\n        return self\nclass Clock(Base): pass")
       for how, use in {
        "__init__": "Clock().at", "__post_init__": "Clock().at", "__enter__": "Clock().__enter__().at",
    }.items()},
    "an object that a block enters": scorer("with Watch() as w: return w.now", "class Watch:\n"
    "    def __enter__(self): self.now = time.time(); return self  # here"),
    "getattr of a literal": scorer("return getattr(self, 'now')()\n"
    "    def now(self): return time.time()  # here"),
    "setattr of a method": scorer("pass", "def bent(self, tokens): return time.time()  # here")
    + "setattr(Scorer, 'log_probs', bent)\n",
    **{f"a scorer of functions: {made}": "import time\ndef rows(x): return time.time()  # here\n"
       f"def load_scorer(p): return {made}\n" for made in (
        "SimpleNamespace(log_probs=rows, reset=print)", "Pair(rows, print)", "[rows][0]")},
    **{f"a hook: {hook}": scorer("return self.model(tokens)\n    def reset(self): self.kept = 0",
       "SEEN = np.zeros(9)\ndef note(m, x, y): SEEN[0] += 1  # here") + f"def load_scorer(p):\n    {hook}\n"
       for hook in ("model.register_forward_hook(note)", "model.act = note", "return Scorer(hook=note)")},
    "a hook that is a lambda": scorer("return self.model(tokens)", "SEEN = [0]")
    + "def load_scorer(p): p.register_forward_hook(lambda *a: SEEN.__setitem__(0, 1))  # here\n",
    **{f"a closure, {kept}": scorer("return self.f()") + "def load_scorer(p):\n    n = [0]\n"
       f"    def g(): n[0] += 1  # here\n    {kept}\n" for kept in ("return Scorer(g)", "p.f = g")},
    "a closure, of a class": scorer("pass") + "def load_scorer(p):\n    n = [0]\n    class A(Scorer):\n"
    "        def log_probs(self, x): n[0] += 1  # here\n    return A()\n",
    "a closure, of a decorator": scorer("pass", "def d(f):\n    last = [0]\n    def g(*a):\n"
    "        last[0] = a  # here\n    return g").replace("    def l", "    @d\n    def l"),
    # what outlives reset(), in more guises; reset() renews `kept` alone
    **{f"outlives: {body}": scorer(f"{body}  # here\n    def reset(self): self.kept = 0",
       f"import heapq, io, itertools, struct, torch, zlib\n{held}") for body, held in {
        "setattr(self, 'n', getattr(self, 'n', 0) + 1)": "", "self.n = self.n + 1": "",
        "self.rows = [*self.rows, tokens]": "", "self.rows = np.concatenate((self.rows, tokens))": "",
        "self.file.write(tokens)": "", "self.packer.compress(tokens)": "", "next(self.count)": "",
        "heapq.heappush(self.heap, 1)": "", "struct.pack_into('I', self.room, 0, 1)": "",
        "print(tokens, file=self.file)": "", "self.rng.random()": "", "self.rng.permutation(9)": "",
        "self.rng.shuffle(self.rows)": "", "torch.rand(1, generator=self.gen)": "",
        "torch.rand(1, generator=GEN)": "GEN = torch.Generator()", "list.append(self.rows, 1)": "",
        "list.append(ROWS, 1)": "ROWS = [0]", "self.rows.__setitem__(0, 1)": "", "self.it.__next__()": "",
        "self.model.register_buffer('seen', tokens)": "", "torch._foreach_add_(self.rows, 1)": "",
        "np.add.at(self.counts, tokens, 1)": "",
        "torch.backends.cudnn.benchmark = True": "", "torch._dynamo.config.cache_size_limit = tokens[0]": "",
        "torch.set_float32_matmul_precision('high')": "", "np.set_printoptions(precision=3)": "",
        "torch.default_generator.manual_seed(3)": "", "torch.cuda.manual_seed(3)": "",
        "torch.cuda.max_memory_allocated()": "", "torch.use_deterministic_algorithms(True)": "",
        "import locale; locale.setlocale(locale.LC_CTYPE)": "",
        "np.place(self.rows, tokens, 1)": "", "self.net.half()": "", "self.file.read(1)": "",
        "self.rows.narrow(0, 0, 1).add_(1)": "",
        "self.sp.encode('a', enable_sampling=True)": "",
    }.items()},
    "a method of another self": scorer("self.note(tokens)\n    def reset(self): self.kept = 0\n"
    "    def note(this, x): this.seen[x] += 1  # here"),
    **{f"a reset() that another takes the place of: {how}": scorer("self.rows.append(1)  # here\n"
       f"    def reset(self): self.rows = []\n    {how}") for how in (
        "def reset(self): self.kept = 0", "def __init__(self): self.reset = lambda: None")},
    "a class method": scorer("Book.note(tokens)", "class Book:\n    rows = [0]\n    @classmethod\n"
    "    def note(cls, x): cls.rows.append(x)  # here"),
    **{f"a default that is kept: {value}": scorer("note(tokens)", f"def note(x, seen={value}):\n"
       "    seen[0] = x  # here") for value in ("[0]", "np.zeros(9)", "dict(a=1)")},
    **{f"reset() asks: {body}": scorer(f"pass\n    def reset(self):\n        {body}  # here") for body in (
        "self.n = self.n + 1", "self.odd = not self.odd", "self.old, self.rows = self.rows, []",
        "self.n = getattr(self, 'n', 0) + 1", "self.first = self.last; self.last = 0")},
    "reset() asks: if": scorer("pass\n    def reset(self):\n        if self.late: self.n = 2  # here\n"
    "        self.late = 1"),
    **{f"where it does not train: {test}": scorer("self.m(tokens)\n    def reset(self): self.m.eval()",
       f"SEEN = [0]\nclass M:\n    def forward(self, x):\n        if {test}: SEEN[0] += 1  # here")
       for test in ("not self.training", "self.training or len(x)", "self.training is False")},
    "back to training": scorer("return self.net(tokens)", "from torch import nn\nclass Net:\n"
    "    def __init__(self): self.drop = nn.Dropout(0.1)  # here")
    + "def load_scorer(p):\n    p.eval()\n    p.train()\n",
    # followed through other names, arguments, results, views and parts; reset() renews `kept` alone
    **{f"followed: {body}": scorer(f"{body}  # here\n    def reset(self): self.kept = 0", "import torch")
       for body in (
        "me = self; me.n += 1", "for m in [self.rows]: m.append(1)", "self.rows.get('a').append(1)",
        "m = self.rows if tokens else self.kept; m.append(1)", "(self.rows or []).append(1)",
        "m = self.seen.view(-1); m[0] = 1", "m = self.seen[1:]; m += 1", "max(self.rows).append(1)",
        "for m in self.rows.values(): m += [1]", "m, *_ = self.rows; m.append(1)",
        "(lambda m: m.append(1))(self.rows)", "[m.append(1) for m in (self.rows,)]",
        "m = torch.from_numpy(self.seen); m.add_(1)", "torch.Tensor.add_(self.seen, 1)",
        "for t in tokens: m = self.rows[t]; m.append(1)", "super().rows.append(1)",
        "old, self.last = self.last, tokens", "x = self.first; self.first = False",
        "self.model.seen = self.model.seen + tokens", "self.register_buffer('seen', tokens)",
    )},
    **{f"by a helper: {use}": scorer(f"{use}\n    def reset(self): self.kept = 0",
       "def push(m, x): m.append(x)  # here\ndef outer(m): push(m, 1)"
       "\nclass Pen:\n    def __init__(self, m): self.m = m\n"
       "    def write(self): push(self.m, 1)") for use in (
        "push(self.rows, 1)", "push(x=1, m=self.rows)", "outer(self.rows)", "Pen(self.rows).write()")},
    "an accessor": scorer("self.book().append(1)  # here\n    def book(self): return self.rows\n"
    "    def reset(self): self.kept = 0"),
    "a count of a maker": scorer("return self.f()") + "def load_scorer(p):\n    n = 0\n    def g():\n"
    "        nonlocal n\n        n += 1  # here\n    return Scorer(g)\n",
    "an attribute of its own function": scorer("note()", "def note():\n    note.n = 1  # here"),
    "what a block leaves": scorer("with Keep(tokens): pass", "SEEN = [0]\nclass Keep:\n"
    "    def __exit__(self, *e): SEEN[0] = self.x  # here"),
    "an attribute of the model": scorer("self.model.n = tokens  # here\n        return self.model.n\n"
    "    def reset(self): self.kept = 0"),
    "an object that begins again": scorer("self.box.__init__(self.box.n)  # here\n"
    "    def reset(self): self.k = 0", "class Box:\n    def __init__(self, n): self.n = n"),
    "an attribute called as another that reset() renews": scorer("self.memory.note(tokens)\n"
    "    def reset(self): self.kept = []",
    "class Memory:\n    def note(self, x): self.kept.append(x)  # here"),
    **{f"reset() does not renew: {how}": scorer(f"self.rows.append(1)  # here\n    def reset(self): {how}")
       for how in ("len(self.rows)", "list(self.rows).clear()", "self.model.rows = []", "rows = []")},
    **{f"a cache of what moves: {how}": scorer("self.at = tokens; return self.begun()\n"
       f"    @functools.{how}\n    def begun(self): return self.at  # here", "import functools")
       for how in ("cached_property", "lru_cache(None)")},
    # its own source and validation data, where scoring begins
    **{f"its source: {text}": "from pathlib import Path\n"
       f"def load_scorer(p): return ({text}).read_text()  # here" for text in (
        "Path(__file__).parent / 'train_gpt.py'", "Path(__file__).with_name('train_gpt.py')",
        "Path('train_gpt.py')", "Path(__file__).parent / 'README.md'")},
    "its source, by a docstring": "def load_scorer(p): return __doc__.split()  # here",
    "its source, by another name": "from pathlib import Path\nSCRIPT = Path(__file__)\n"
    "def load_scorer(p):\n    path = SCRIPT\n    return path.read_text()  # here",
    "a property made of a function": scorer("return self.now\n    now = property(lambda self: time.time())"
    "  # here"),
    "where it is imported alone": scorer("return T", "if __name__ == '__main__': pass\n"
    "else: T = time.time()  # here"),
    **{f"validation data: {text}": f"def load_scorer(p): return read({text})  # here" for text in (
        "'data/fineweb_val_000000.bin'", "p, 'val'", "'fineweb_val_*.bin'")},
    "its source, in a class": "class A:\n    T = open(__file__).read()\n"
    "    def reset(self):\n        self.T  # here",
}  # fmt: skip


@pytest.mark.parametrize("source", STEERED.values(), ids=STEERED)
def test_what_else_may_steer_scores_is_seen(tmp_path, source):
    line = next(number for number, text in enumerate(source.splitlines(), 1) if "# here" in text)
    assert f"line {line} (" in findings(tmp_path, train_gpt=source)["code-val"].message


@pytest.mark.parametrize("source", [
    scorer("return np.random.default_rng(1).random()"),
    scorer("return random.Random(7).random()"),
    scorer("return self.dim, DIM", "class K:\n    dim = os.environ.get('DIM')\nDIM = os.getenv('DIM')"),
    scorer("return self.model(tokens)", "print(time.time())\nC = open(__file__).read()\nprint(C)"),
    "import time\ndef train(scorer):\n    scorer.log_probs(x)\n    return time.time()",
    "import brotli\ndef load_scorer(path):\n    return brotli.Decompressor().process(path)",
    "from pathlib import Path\ndef load_scorer(path):\n    return Path(path).read_bytes()",
    scorer("np.add.at(self.counts, tokens, 1)\n    def reset(self): self.counts = np.ones(9)"),
    scorer("self.cache.add(tokens)\n    def reset(self): self.cache.clear()", "class Cache:\n"
           "    def clear(self): self.rows = {}\n    def add(self, x): self.rows[0] = x"),
    scorer("return self.model(tokens)\n    def reset(self): self.model.eval()", "class Gate:\n"
           "    def forward(self, x):\n        if self.training: self.load += x.sum()\n        return x"),
    scorer("self.cache.add(tokens)\n    def reset(self): self.cache = Cache()", "class Cache:\n"
           "    def __init__(self): self.n = 0\n    def add(self, x): self.n += self.one(x)\n"
           "    def one(self, x): return 1"),
    scorer("m = self.rows\n        m = []\n        m.append(1)\n        push(m, tokens)\n"
           "        return sorted(self.rows)[:1]\n    def reset(self): self.kept = 0",
           "def push(m, x): m.append(x)"),
    scorer("n = len(tokens)\n        if n not in self.masks: self.masks[n] = torch.ones(n, n).tril()\n"
           "        self.counts.update(tokens)\n        return self.masks[n]\n"
           "    def reset(self): self.counts = Counter()", "import torch\nfrom collections import Counter\n"
           "class Run:\n    def update(self, x): self.model(x).backward()"),
    scorer("out = []\n        def add(x): out.append(x)\n        return add(TABLE[0])", "TABLE = [3, 4]"),
    scorer("return self.model(tokens, mask(len(tokens)).float().mul_(2))", "import functools, torch\n"
           "@functools.lru_cache\ndef mask(n): return torch.ones(n, n).tril()"),
    scorer("rows = self.table[tokens]\n        rows[:, 0] = -9\n        rows -= 1\n        return rows\n"
           "    def reset(self): self.kept = 0"),
    scorer("cache = self.cache\n        cache[0] = tokens\n        return cache\n"
           "    def reset(self): self.cache = {}"),
    scorer("w = self.weight\n        w = w * 2\n        w.mul_(2)\n        return w\n"
           "    def reset(self): self.kept = 0"),
    scorer("return self.act(tokens), ACTS['a'](tokens)\n    def __init__(self): self.act = ACTS['b']",
           "def square(x): return x * x\nACTS = {'a': square, 'b': lambda x: x + 1}"),
    scorer("steps = len(tokens)\n        return self.model(tokens, steps)",
           "SEEN = [1]\ndef steps():\n    SEEN[0] += 1\n    return time.time()"),
    scorer("return self.net(tokens)\n    def __init__(self): self.net = Net().eval()",
           "from torch import nn\nclass Net:\n    def __init__(self): self.drop = nn.Dropout(0.1)"),
    scorer("raise ValueError(f'{self.n} rows of {x!r}, {hash((1, 2))} {str(tokens)}')"),
    scorer("return str(tokens).encode(), self.head.decode(), self.cache.add(tokens)\n"
           "    def reset(self): self.cache = set()",
           "def encode(x): return open(x).read()\ndef decode(x): return time.time()\n"
           "def add(x): SEEN.append(x)\nSEEN = []"),
    *(scorer(f"return {module}.{name}(x)", f"import {module}, torch\ndef {name}(x):\n    SEEN.append(x)\n"
             "    return torch.rand(3)\nSEEN = []") for module, name in (
        ("struct", "pack"), ("json", "loads"), ("zlib", "compress"), ("numpy", "pad"), ("math", "fsum"))),
], ids=range(28))  # fmt: skip
def test_what_scores_alike_is_not(tmp_path, source):
    assert findings(tmp_path, train_gpt=source) == {}


@pytest.mark.parametrize(("own", "use", "kit"), [
    ("import kit", "kit.note(tokens)", "SEEN = [0]\ndef note(x): SEEN[0] += 1  # here"),
    ("from kit import note as think", "think(tokens)", "import time\ndef note(x): return time.time() # here"),
    ("from kit import Mixer", "self.mixer.mix(tokens)",
     "import os\nclass Mixer:\n    def mix(self, x): return os.getpid()  # here"),
    ("from kit import Base as Scorer", "return 1", "class Base:\n    told = [0]\n    def forward(self, x):\n"
     "        SEEN.append(x)  # here\nSEEN = [0]"),
    ("import kit", "return kit.T[0]", "import numpy as np\nT = np.fromfile('fineweb_val_0.bin')  # here"),
], ids=["keeps", "the clock", "a class", "a base", "validation data"])  # fmt: skip
def test_other_files_of_the_folder_are_followed(tmp_path, own, use, kit):
    line = next(number for number, text in enumerate(kit.splitlines(), 1) if "# here" in text)
    message = findings(tmp_path, train_gpt=scorer(use, own), kit=kit)["code-val"].message
    assert message.startswith("'kit.py'") and f"line {line} (" in message


def test_names_are_followed_in_full():
    tree = ast.parse("import numpy.random as r\ndef load_scorer(p):\n    return r.rand(3)")
    assert list(other_sources(tree)) == [(3, "numpy.random.rand")]


SYLLABLES = itertools.product(("bado", "kelu", "mi"), ("ta", "nolu", "pera", "fumo"), ("gan", "des", "li"))
WORDS = list(map("".join, SYLLABLES))
GROUPS = " ".join(re.findall(".{6}", "q7Zx1LkR9vT3" * 4))
AB = ["ab"[n * n % 7 % 2] for n in range(600)]
HIDDEN = {
    "fields of a text": "x = (" + "\n".join(f"f'{{{a}}}'" for a in AB) + ")\n",
    "members in a list": "x = [" + ",\n".join(f"e.{a}" for a in AB) + "]\n",
    "calls in a list": "x = [" + ",\n".join(f"f({a})" for a in AB) + "]\n",
    "decorators": "".join(f"@{a}\n" for a in AB) + "def f(): pass\n",
    "targets": "".join(" = ".join(AB[n : n + 60]) + " = c\n" for n in range(0, 600, 60)),
    "calls in calls": "".join("(".join(AB[n : n + 60]) + ")" * 59 + "\n" for n in range(0, 600, 60)),
    "conditions": "x = [y for y in z " + "\n".join(f"if {a}" for a in AB) + "]\n",
    "choices": "".join(" if c else ".join(AB[n : n + 30]) + "\nf()\n" for n in range(0, 600, 30)),
    "what is handed over": "f(" + ",\n".join(f"**{a}" for a in AB) + ")\n",
    "forms in turn": "".join(f"f({a})\n" if n % 2 else f"f({a}, {a})\n" for n, a in enumerate(AB)),
    "cases": "match x:\n" + "".join(f"    case e.{a}: f({a})\n" for a in AB),
    "letters in groups": "x = '''" + f"{GROUPS}\n" * 30 + "'''\n",
    "operators": "".join(f"x = a {'+-*/'[n % 4]} b {'*-'[n % 2]} c\n" for n in range(300)),
    "members of an enumeration": "import enum\nclass E(enum.Enum):\n"
    + "".join(f"    {a}_{b} = {n}\n" for n, (a, b) in enumerate(itertools.product(WORDS, WORDS[:6]))),
    "names that stand once": "".join(f"def {a}_{b}(): pass\n" for a in WORDS for b in WORDS[:3]),
}  # fmt: skip


@pytest.mark.parametrize("source", HIDDEN.values(), ids=HIDDEN)
def test_more_guises_of_data(tmp_path, source):
    assert "code-opaque" in findings(tmp_path, train_gpt=source)


def test_a_limit_for_each_count():
    assert set(check_text.Totals().limits()) == set(check_text.MEANING)
