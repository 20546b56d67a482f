"""The error message for a missing Python package."""

import shlex
import sys
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.paths import REPO, shown

# of requirements-check.txt
CHECK_PACKAGES = (
    "jsonschema",
    "scipy",
    "matplotlib",
    "markdown_it",
    "jinja2",
    "markupsafe",
    "brotli",
    "tomli",
)


def missing(package: str, requirements: str | None = None) -> GolfError:
    """The GolfError (code 2) for a package that cannot be imported: where, and how to install it.

    requirements: the file that names it; default: the light one if the package is in that.
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
