"""The tools behind scripts/golf.sh: one module a command, plus what they share."""

import shlex
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CHECK_PACKAGES = ("jsonschema", "scipy", "matplotlib")  # of requirements-check.txt


class GolfError(Exception):
    """Something a person can put right, in one line; code 1: it is wrong, 2: used wrongly."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def missing(package: str, requirements: str | None = None) -> GolfError:
    """What to say where a Python package cannot be imported; code 2.

    requirements: the file that names it; by itself the light one for what lies in that.
    """
    if requirements is None:
        requirements = "requirements-check.txt" if package in CHECK_PACKAGES else "requirements-cuda.txt"
    python, where = sys.executable, ""
    if sys.prefix == sys.base_prefix:  # a system's own Python takes no packages: make .venv first
        where, python = f"{shlex.quote(python)} -m venv .venv && ", ".venv/bin/python"
    if Path.cwd() == REPO:
        python = shown(python)
    else:
        where = f"cd {shlex.quote(str(REPO))} && {where}"
    return GolfError(
        f"Python package {package} is missing from {sys.executable}; run `{where}"
        f"{shlex.quote(python)} -m pip install -r {requirements}`",
        2,
    )


def shown(path) -> str:
    """A path as people type it, relative to the working directory or the repository, in one line."""
    path = Path(path)
    for base in (Path.cwd(), REPO):
        if path.is_relative_to(base):
            path = path.relative_to(base)
    return "".join(c if c.isprintable() else "?" for c in str(path))


def path_argument(text: str) -> Path:
    """For argparse: a path with a leading ~ made whole, which a shell leaves alone in --out=~/x."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody's home
        raise GolfError(f"{text}: there is no such home folder; write the whole path", 2) from None
