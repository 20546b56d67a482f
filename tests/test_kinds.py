"""Kinds of fault that a rule over the whole source keeps out, and shards whatever their names and folder."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from golf.core import machine
from golf.core.errors import GolfError
from golf.score import stream
from golf.score.sandbox import bwrap as sandbox

SOURCES = [*REPO.glob("scripts/golf/**/*.py"), *REPO.glob("data/*.py"), *REPO.glob("train_gpt*.py")]
NO_TEXT = {("os", "open"), ("tarfile", "open")}
TEXT_CALLS = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "read_text", "write_text", "run"}
TEXT_CALLS |= {"Popen"}


def mode_of(call: ast.Call, name: str) -> str | None:
    """The mode that a call opens a file with; None where it opens none, or it is not written there."""
    if name in ("read_text", "write_text"):
        given = name == "read_text" and call.args  # the encoding
        return "r" if isinstance(call.func, ast.Attribute) and not given else None
    if name in ("run", "Popen"):
        text = any(k.arg in ("text", "universal_newlines") for k in call.keywords)
        return "r" if text else None
    of_path = isinstance(call.func, ast.Attribute) and name == "open"  # path.open(mode)
    given = [k.value for k in call.keywords if k.arg == "mode"] or call.args[0 if of_path else 1 :][:1]
    mode = given[0].value if given and isinstance(given[0], ast.Constant) else None
    if isinstance(mode, str) and re.fullmatch("[rwxabt+]+", mode):
        return mode
    return "w+b" if "Temporary" in name else None if given else "r"


def by_locale(source: str) -> list[int]:
    """Lines of calls whose text would be read or written in the locale's encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        name = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", ""))
        owner = getattr(getattr(getattr(node, "func", None), "value", None), "id", "")
        if not isinstance(node, ast.Call) or name not in TEXT_CALLS or (owner, name) in NO_TEXT:
            continue
        mode, given = mode_of(node, name), {k.arg for k in node.keywords}
        if mode is not None and "b" not in mode and not given & {"encoding", None}:
            found.append(node.lineno)
    return found


def test_the_rule_finds_what_it_should():
    for source in (
        "open(p)", "open(p, 'w')", "p.open()", "p.open('a')", "p.read_text()", "p.write_text(x)",
        "os.fdopen(3, 'w')", "subprocess.run(c, text=True)", "open(p, errors='replace')", "open(p, mode='r')",
    ):  # fmt: skip
        assert by_locale(source) == [1], source
    for source in (
        "open(p, 'rb')", "p.open('wb')", "p.read_text(encoding='utf-8')", "os.open(p, flags)",
        "open(p, **TEXT)", "p.read_text('utf-8')", "tarfile.open(p)",
        "subprocess.run(c)", "tempfile.TemporaryFile(dir=d)", "p.read_bytes()", "open(p, mode='xb')",
    ):  # fmt: skip
        assert by_locale(source) == [], source


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_text_is_utf8_whatever_the_locale(path):
    assert by_locale(path.read_text(encoding="utf-8")) == []


# ---- Shards: their order, their folder


def write_shard(path: Path, *tokens: int) -> None:
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + np.array(tokens, "<u2").tobytes())


def test_shards_follow_their_numbers_not_their_letters(tmp_path):
    for number in (10, 2, 9, 0):
        write_shard(tmp_path / f"fineweb_val_{number}.bin", number)
    write_shard(tmp_path / "fineweb_val_000001.bin", 1)
    assert stream.read_shards(tmp_path)[0].tolist() == [0, 1, 2, 9, 10]
    for name in ("fineweb_val_01.bin", "fineweb_val_x.bin", "fineweb_val_.bin", "fineweb_val_a_3.bin",
                 "fineweb_val_\u0663.bin"):  # fmt: skip
        write_shard(tmp_path / name, 1)
        with pytest.raises(GolfError, match="no number of its own in its name"):
            stream.read_shards(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("folder", ["/", "/shards", "/a/shards", "shards", "."])
def test_a_tokenizer_is_looked_for_whatever_the_folders_depth(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENIZER_PATH", raising=False)
    with pytest.raises(GolfError, match="no tokenizer there; fetch it or set TOKENIZER_PATH"):
        stream.find_tokenizer(Path(folder), "nowhere.model")


def test_a_submission_gets_the_threads_of_the_quota(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "affinity", lambda: 64)
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.0)
    assert sandbox.bare_environment("/home")["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    assert "OMP_NUM_THREADS" not in sandbox.bare_environment("/home")
    assert machine.usable_cpus() == 64 and os.cpu_count()
