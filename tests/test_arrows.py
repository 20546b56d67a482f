"""Imports between the rooms of scripts/golf point from cli to rooms to core, and run in no circle."""

import ast
import graphlib

from conftest import REPO

GOLF = REPO / "scripts/golf"
MODULES = {".".join(path.relative_to(GOLF).with_suffix("").parts): path for path in GOLF.rglob("*.py")}
ALLOWED = {  # room -> the rooms that it may use besides itself and core
    "cli": {"bench", "board", "check", "run", "score", "see", "submit", "sweep", "verify"},
    "submit": {"check"},
    "board": {"check", "score", "see"},
    "verify": {"check", "score"},
    "run": {"score"},  # doctor: does the sandbox work here?
    "sweep": {"run"},
    "see": {"run", "score"},  # a submission speaks in the scorer's sandbox alone
}


def imported(node: ast.AST) -> set[str]:
    """Modules of ours that an import names, without `golf.`."""
    base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    names = [base + a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
    ours = [name.removeprefix("golf.") for name in names if name.startswith("golf.")]
    return {name if name in MODULES else name.rpartition(".")[0] for name in ours}


def test_imports_point_from_cli_to_rooms_to_core():
    for module, path in MODULES.items():
        room = module.partition(".")[0]
        allowed = {room, "core", *ALLOWED.get(room, ())}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for other in imported(node):
                assert other.partition(".")[0] in allowed, f"{module} line {node.lineno} imports {other}"


def test_imports_run_in_no_circle():
    """Neither between rooms nor, at the top of files, between modules."""
    graphlib.TopologicalSorter(ALLOWED).prepare()
    trees = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}
    top = {m: {o for node in tree.body for o in imported(node)} for m, tree in trees.items()}
    assert sum(map(len, top.values())) > 100, "the imports were found"
    graphlib.TopologicalSorter(top).prepare()
