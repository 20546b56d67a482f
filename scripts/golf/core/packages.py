"""The error message for a missing Python package."""

import shlex
import sys
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.paths import REPO, shown

CHECK_PACKAGES = "jsonschema scipy matplotlib markdown_it jinja2 markupsafe brotli tomli".split()
SWEEP_PACKAGES = ("optuna", "ray")


def missing(package: str, requirements: str | None = None) -> GolfError:
    """The GolfError (code 2) for a package that cannot be imported; it says how to install it.

    requirements: the file that lists the package; by default the smallest that does.
    """
    if requirements is None:
        of = "check" if package in CHECK_PACKAGES else "sweep" if package in SWEEP_PACKAGES else "cuda"
        requirements = f"requirements-{of}.txt"
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
