"""The tools behind scripts/golf.sh: one module a command, plus what they share."""

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


class GolfError(Exception):
    """Something a person can put right, in one line; code 1: it is wrong, 2: used wrongly."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def missing(package: str, requirements: str = "requirements-cuda.txt") -> GolfError:
    """What to say where a Python package cannot be imported; code 2."""
    return GolfError(
        f"Python package {package} is missing from {sys.executable}; run "
        f"`{shown(sys.executable)} -m pip install -r {requirements}`, or scripts/quickstart.sh, "
        "which makes .venv",
        2,
    )


def shown(path) -> str:
    """A path as people type it, relative to the working directory or the repository, in one line."""
    path = Path(path)
    for base in (Path.cwd(), REPO):
        if path.is_relative_to(base):
            path = path.relative_to(base)
    return "".join(c if c.isprintable() else "?" for c in str(path))
