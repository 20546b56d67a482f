"""What the tools and trainers need, and how to install it."""

import re
import shlex
import sys

from conftest import REPO
from golf.core import packages, paths


def test_requirements_txt_names_what_the_trainer_needs():
    assert "\n-r requirements-cuda.txt\n" in "\n" + (REPO / "requirements.txt").read_text()
    for name in ("cuda", "mlx"):
        assert "\n-r requirements-check.txt\n" in (REPO / f"requirements-{name}.txt").read_text()
    named = (REPO / "requirements-check.txt").read_text().splitlines()
    listed = {re.split(r"[^\w-]", line)[0] for line in named if not line.startswith("#")}
    module = {"markdown_it": "markdown-it-py"}
    assert listed == {module.get(name, name) for name in packages.CHECK_PACKAGES}


def test_where_to_install_is_right_for_this_python(monkeypatch):
    monkeypatch.chdir(paths.REPO)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    makes = "/usr/bin/python3 -m venv .venv && .venv/bin/python"
    assert f"`{makes} -m pip install -r requirements-cuda.txt`" in str(packages.missing("torch"))
    monkeypatch.setattr(sys, "prefix", "/a/venv")
    monkeypatch.setattr(sys, "executable", "/a/venv/bin/python")
    monkeypatch.chdir("/")
    assert (
        f"`cd {shlex.quote(str(paths.REPO))} && /a/venv/bin/python -m pip install -r requirements-check.txt`"
        in str(packages.missing("scipy"))
    )
