"""Imports between the rooms of scripts/golf point from cli to rooms to core, and run in no circle."""

from __future__ import annotations

import ast

from conftest import REPO

GOLF = REPO / "scripts/golf"
ALLOWED = {  # room -> the rooms that it may use besides itself and core
    "cli": {"bench", "board", "check", "run", "score", "see", "submit", "sweep", "verify"},
    "submit": {"check"},
    "board": {"check", "score", "see"},
    "verify": {"check", "score"},
    "see": {"run", "score"},  # a submission speaks in the scorer's sandbox alone
}


def test_imports_point_from_cli_to_rooms_to_core():
    for path in GOLF.rglob("*.py"):
        room = path.relative_to(GOLF).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            base = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [f"{base}.{a.name}" for a in getattr(node, "names", []) if hasattr(a, "name")]
            for other in {name.split(".")[1] for name in names if name.startswith("golf.")}:
                allowed = {room, *ALLOWED.get(room, set())} | ({"core"} if room != "__init__" else set())
                assert other in allowed, f"{path.relative_to(GOLF)} line {node.lineno} imports golf.{other}"
