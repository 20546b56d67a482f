"""golf.core.packed: exactly what PACK_SCRIPT=1 writes is read, nothing beside it, and nothing is run."""

import ast
import base64
import json
import lzma
import random
import resource
import shutil
from functools import cache
from pathlib import Path

import pytest
from check_kit import edit, found, listing, write
from conftest import REPO, read_events, refused, run_golf, write_events
from golf.check import command as check
from golf.core import packed, submission
from golf.core.errors import GolfError
from golf.core.findings import FAIL, HUMAN
from golf.core.trainers import check_trainer

import train_gpt as T

SOURCE = '"""Docstring."""\n\nimport json\n\n\ndef f(x):\n    """Doc."""\n    return x + 1  # why\n'


def compress(source: str | bytes, **how) -> bytes:
    data = source if isinstance(source, bytes) else source.encode()
    return lzma.compress(data, **how or {"preset": packed.PRESET})


def stub(stream: bytes) -> bytes:
    text = base64.b85encode(stream).decode()
    run = f'exec(compile(lzma.decompress(base64.b85decode("{text}")), __file__, "exec"))'
    return f"import base64, lzma\n{run}\n".encode()


@cache
def pack(source: str) -> bytes:
    return stub(compress(ast.unparse(packed.plain_tree(source.encode()))))


def test_a_packed_script_is_its_source_and_runs_as_it_does():
    script = pack(SOURCE)
    assert packed.fault(script, SOURCE.encode()) is None
    assert b"why" not in packed.unpack(script) and b"Doc" not in packed.unpack(script)
    names = {"__file__": "x.py"}
    exec(script.decode(), names)
    assert names["f"](1) == 2


@pytest.mark.parametrize("name", ["train_gpt.py", "train_gpt_mlx.py"])
def test_what_the_trainers_pack_is_read_as_themselves(name):
    source = (REPO / name).read_bytes()
    script = T.pack_script(source)
    assert script == pack(source.decode()) and packed.fault(script, source) is None
    assert len(script) < len(source) / 2


@pytest.mark.parametrize("change", [
    lambda b: b + b"print(1)\n", lambda b: b + b"#\n", lambda b: b"import os\n" + b,
    lambda b: b"# coding: utf-7\n" + b, lambda b: b"\xef\xbb\xbf" + b,
    lambda b: b.replace(b"import base64, lzma", b"import base64, lzma, os"),
    lambda b: b.replace(b"import base64, lzma\n", b"import base64, lzma; print(1)\n"),
    lambda b: b.replace(b'"exec")', b'"exec"), {}'),
    lambda b: b.replace(b"lzma.decompress", b"lzma.LZMADecompressor().decompress"),
    lambda b: b.replace(b"\n", b"\r\n"), lambda b: b.replace(b"\n", b"\f\n"),
    lambda b: b.replace(b"\n", b"\0\n"), lambda b: b.rstrip(b"\n"),
    lambda b: b.replace(b'b85decode("', b'b85decode(b"'),
    lambda b: b.replace(b'b85decode("', b'b85decode("\\x30'),
    lambda b: b.replace(b'b85decode("', b'b85decode("" "'),
    lambda b: b"",
])  # fmt: skip
def test_any_other_stub_is_refused(change):
    with pytest.raises(packed.NotPacked, match="not the two lines"):
        packed.unpack(change(pack(SOURCE)))


DELTA = [{"id": lzma.FILTER_DELTA, "dist": 1}, {"id": lzma.FILTER_LZMA2, "preset": packed.PRESET}]
LARGE = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20}]
STREAMS = {
    "bytes behind the stream": (lambda: compress(SOURCE) + b"hidden", "more or less"),
    "a second stream": (lambda: compress(SOURCE) + compress("import os"), "more or less"),
    "zeros behind it": (lambda: compress(SOURCE) + bytes(8), "more or less"),
    "half of it": (lambda: compress(SOURCE)[:60], "more or less"),
    "no stream": (lambda: b"", "not the two lines"),
    "noise": (lambda: bytes(range(256)), "does not unpack"),
    "another filter": (lambda: compress(SOURCE, filters=DELTA), "in another way"),
    "no check": (lambda: compress(SOURCE, check=lzma.CHECK_NONE, preset=packed.PRESET), "in another way"),
    "another preset": (lambda: compress(SOURCE, preset=1), "in another way"),
    "an lzma stream of the old kind": (lambda: compress(SOURCE, format=lzma.FORMAT_ALONE), "does not unpack"),
    "a large dictionary": (lambda: compress(SOURCE, filters=LARGE), "does not unpack"),
    "no text": (lambda: compress(b"\xff\xfe"), "no Python source"),
    "a comment": (lambda: compress("x = 1  # hidden\n"), "comments"),
    "an encoding": (lambda: compress("# coding: raw_unicode_escape\nx = 1\n"), "comments"),
    "a mark": (lambda: compress("\ufeffx = 1\n"), "control characters"),
    "a nul byte": (lambda: compress("x = 1\0\n"), "control characters"),
    "carriage returns": (lambda: compress("x = 1\r\n"), "control characters"),
    "an invisible character": (lambda: compress("x = '\u200b'\n"), "control characters"),
    "an open bracket": (lambda: compress("x = (1\n"), "no Python source"),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_holds_anything_else_is_refused(name):
    stream, words = STREAMS[name]
    with pytest.raises(packed.NotPacked, match=words):
        packed.unpack(stub(stream()))


def test_base85_is_spelled_in_one_way():
    """Five characters stand for four bytes in more ways than one at the end."""
    stream = compress("x = 1\n")
    text = base64.b85encode(stream)
    spare = len(text) % 5
    others = [text[:-1] + bytes([c]) for c in range(33, 126) if c not in b"\"',./:[\\]"]
    alike = [other for other in others if other != text and decodes_to(other, stream)]
    assert spare == 0 or alike, "no other spelling was found to test with"
    for other in alike:
        with pytest.raises(packed.NotPacked):
            packed.unpack(stub(stream).replace(text, other))


def decodes_to(text: bytes, stream: bytes) -> bool:
    try:
        return base64.b85decode(text) == stream
    except ValueError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("size", [1 << 20, 1 << 28])
def test_a_bomb_costs_nothing(size):
    compressor = lzma.LZMACompressor(preset=0)
    block = b"#" * (1 << 20)
    stream = b"".join(compressor.compress(block) for _ in range(size >> 20)) + compressor.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(packed.NotPacked, match="over 262,144 bytes"):
        packed.unpack(stub(stream))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize(("source", "other"), [
    ("x = 1\n", "x = 2\n"), ("x = 1\n", "x = 1.0\n"), ("x = 0.0\n", "x = -0.0\n"),
    ("x = 'a'\n", "x = b'a'\n"),
    ("def f():\n    return 1\n", "def f():\n    pass\n    return 1\n"),
    ("x = 1\n", "x = 1\n'text'\n"), ("pass\n", "x = 1\n"), ("x = 1\n", "x = (1\n"),
])  # fmt: skip
def test_other_code_is_not_the_same(source, other):
    script = pack(source)
    assert packed.fault(script, source.encode()) is None
    assert packed.fault(script, other.encode())


@pytest.mark.parametrize(("within", "source"), [
    ('"""Data."""\nx = len(__doc__)', '"""Doc."""\nx = len(__doc__)'), ("x = 1\n'Data.'", "x = 1"),
    ('"""Doc."""\n"""Data."""\nx = 1', '"""Doc."""\n"""Dat."""\nx = 1'), ("'Data.'", ""),
    ("def f():\n    'Data.'\n    x = f.__doc__", "def f():\n    x = f.__doc__"),
    ("class A:\n    'Data.'\n    x = 1", "class A:\n    x = 1"),
    ("async def f():\n    'Data.'\n    x = 1", "async def f():\n    x = 1"),
])  # fmt: skip
def test_no_docstring_is_packed_that_people_do_not_read(within, source):
    assert packed.fault(stub(compress(within)), source.encode()) == "runs other code than its source"


DIGITS = random.Random(1).choices("0123456789", k=400)


@pytest.mark.parametrize("within", [
    "x = 0.333333333333333333" + "".join(DIGITS), "x = 1 / 3\n" + "\n".join(int(d) * " " for d in DIGITS),
    "x = 1 / 3\n" + "".join(f"y = {int(d) * '('}0{int(d) * ')'}\n" for d in DIGITS),
    "".join(f"x = '{d}' {' '.join(int(d) * [chr(39) * 2])}\n" for d in DIGITS),
])  # fmt: skip
def test_spellings_hold_no_data(within):
    """Each parses as its source does; where it packs to more, nobody sees what for."""
    source, longer = ast.unparse(ast.parse(within)).encode(), "is longer than what PACK_SCRIPT=1 makes of its"
    assert packed.fault(stub(compress(within)), source) == f"{longer} source"
    assert packed.fault(stub(compress("x = (1_0)\n")), b"x = 10\n") is None  # as other Pythons may write it


@pytest.mark.parametrize("source", [
    '"""Doc."""\n"second"\nx = 1\n', 'def f():\n    """Doc."""\n', '""""""\nclass A:\n    ""\n    x = 1\n',
    "async def f():\n    'doc'\n    await g()\n", "from __future__ import annotations\nx: int = 1\n",
    "x = f'{y!r:>{w}} {z}' 'ä'\n", "x = '\\t\\n\\0\\u200b\\ud800'\n",
])  # fmt: skip
def test_any_source_packs_into_its_own(source):
    assert packed.fault(pack(source), source.encode()) is None


def test_what_the_stub_imports_is_not_the_scripts():
    """A name that runs packed and not as it is would be followed by no rule."""
    assert "the stub's base64" in packed.fault(pack("base64.x()\n"), b"base64.x()\n")
    assert packed.fault(pack("import lzma\nlzma.x()\n"), b"import lzma\nlzma.x()\n") is None


# ---- In a folder


def ship_packed(folder, source: str | None = None) -> None:
    """The submission as PACK_SCRIPT=1 ships it; `source`: what is packed, else the script."""
    script = (folder / "train_gpt.py").read_text()
    write(folder, "train_gpt.packed.py", pack(source or script), "script")

    def change(value):
        listing(value, "train_gpt.py")["role"] = "source"
        for seed in value["seeds"]:
            count = submission.count_bytes(folder, value["files"], seed["artifact"])
            seed["bytes_total"] = count.total
        value["bytes_code"], value["bytes_total"] = count.code, count.total

    edit(folder, change)


def test_a_packed_submission_is_judged_by_its_source(folder):
    ship_packed(folder)
    assert found(folder, FAIL) == {"bytes"}  # the logs are of a run that did not pack
    count = submission.count_bytes(folder, check.check_folder(folder).listed(), "final_model_seed1.int8.zlib")
    assert count.code == (folder / "train_gpt.packed.py").stat().st_size


@pytest.mark.parametrize(("spoil", "rule"), [
    (lambda f: ship_packed(f, (f / "train_gpt.py").read_text().replace('"1337"', '"1338"')), "code-packed"),
    (lambda f: ship_packed(f, "import socket\n"), "code-packed"),
    (lambda f: (ship_packed(f), (f / "train_gpt.py").unlink()), "code-packed"),
    (lambda f: (ship_packed(f), role(f, "train_gpt.py", "extra")), "file-role"),
    (lambda f: (ship_packed(f), role(f, "train_gpt.py", "script")), "file-role"),
    (lambda f: (ship_packed(f), role(f, "train_gpt.packed.py", "source")), "file-role"),
    (lambda f: role(f, "train_gpt.py", "source"), "file-role"),
    (lambda f: write(f, "train_gpt.packed.py", stub(compress("import os\n")), "script"), "code-packed"),
    (lambda f: write(f, "more.packed.py", b"import os\n", "script"), "file-role"),
    (lambda f: write(f, "help.packed.py", b"import os\n", "score"), "code-packed"),
])  # fmt: skip
def test_other_code_in_a_stub_fails(folder, spoil, rule):
    spoil(folder)  # test_what_golf_new_made_raises_none: before, no rule was raised
    assert rule in found(folder, FAIL)


@pytest.mark.parametrize(("name", "role"), [
    ("train_gpt", "source"), ("train_gpt", "script"), ("help", "score"),
])  # fmt: skip
def test_the_comments_of_what_is_packed_are_measured_too(folder, name, role):
    """The packed one lacks them, but a run may read them: while it trains, or when it scores."""
    noise = "".join(f"# {base64.b64encode(random.Random(i).randbytes(60)).decode()}\n" for i in range(9))
    path = folder / f"{name}.py"
    source = (path.read_text() if path.exists() else "x = 1\n") + noise
    write(folder, path.name, source, role)
    if role == "source":
        ship_packed(folder)
    else:
        write(folder, f"{name}.packed.py", pack(source), "score")
    assert {"code-opaque"} == found(folder, HUMAN) and "code-packed" not in found(folder)


def role(folder, path: str, name: str) -> None:
    edit(folder, lambda v: listing(v, path).update(role=name))


def test_the_rules_about_code_see_into_a_stub(folder):
    script = (folder / "train_gpt.py").read_text() + "\nimport socket\n"
    write(folder, "train_gpt.py", script)
    ship_packed(folder)
    (said,) = (f.message for f in check.check_folder(folder).findings if f.rule == "code-network")
    assert said.startswith("'train_gpt.py' reaches the network:")


@pytest.mark.slow
def test_new_ships_the_packed_script_and_its_source(made):
    repo, _, _ = made
    run = Path(shutil.copytree(repo / "runs/r-s1", repo / "runs/packed"))
    start, *rest = read_events(run)
    start["config"]["PACK_SCRIPT"] = 1
    write_events(run, start, *rest)
    words = ("new", "runs/packed", "--lane", "open-hardware", "--out", "runs/made")
    refused(run_golf(*words, repo=repo), "train_gpt.packed.py is gone", code=1)
    (run / "train_gpt.packed.py").write_bytes(pack("import os\n"))
    assert "runs other code than its source; run it again" in run_golf(*words, repo=repo).stderr
    (run / "train_gpt.packed.py").write_bytes(pack((run / "train_gpt.py").read_text()))
    run_golf(*words, repo=repo)
    claim = json.loads((repo / "runs/made/submission.json").read_text())
    roles = {file["path"]: file["role"] for file in claim["files"]}
    assert roles["train_gpt.packed.py"] == "script" and roles["train_gpt.py"] == "source"
    assert claim["bytes_code"] == (repo / "runs/made/train_gpt.packed.py").stat().st_size
    assert "train_gpt.py" in claim["command"]


def test_preflight_reads_what_is_packed(tmp_path):
    path = tmp_path / "train_gpt.packed.py"
    path.write_bytes(pack("import json\nimport no_such_module\n"))
    with pytest.raises(GolfError, match="imports no_such_module"):
        check_trainer(path)
    path.write_bytes(pack("import json\n"))
    check_trainer(path)
    path.write_bytes(b"import json\n")
    with pytest.raises(GolfError, match="not the two lines"):
        check_trainer(path)
