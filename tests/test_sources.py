"""Rules over the whole source: text is UTF-8 whatever the locale, and names say one thing."""

import ast
import re

import pytest
from conftest import REPO

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


def test_no_two_classes_of_the_tools_have_one_name():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in REPO.glob("scripts/golf/**/*.py")]
    names = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert len(names) > 30 and sorted({name for name in names if names.count(name) > 1}) == []
