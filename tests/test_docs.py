"""The pages name what is there: links and their anchors, files, commands and options."""

import argparse
import functools
import re
import subprocess

import pytest
from conftest import REPO
from golf import cli

# Folders of tracked files; what lies in other places (runs/, data/datasets/) a page may name freely.
TRACKED = r"(?:configs|docs|scripts|tests|dev|records|\.github|\.ci)/[\w./-]*[\w-]"


@functools.cache
def files():
    """Tracked files and those about to be: what a clone will hold."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=REPO, text=True).splitlines()
    return {name for name in names if (REPO / name).exists()}


def pages():
    """Pages of this repository; an entry's README is its author's, and links there are checked alike."""
    return sorted(name for name in files() if name.endswith(".md"))


def anchors(text):
    """GitHub's ids of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (REPO / page).read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http:", "https:", "../blob/")):  # the last: GitHub's own, in its templates
            continue
        place, _, anchor = link.partition("#")
        target = ((REPO / page).parent / place).resolve() if place else REPO / page
        assert target.exists(), f"{page}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


@pytest.mark.parametrize("page", [page for page in pages() if not re.match(r"records/[^/]+/20|tests/", page)])
def test_files_that_a_page_names_exist(page):
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "", (REPO / page).read_text(encoding="utf-8"))
    for match in re.finditer(rf"(?<![\w/.*>…]){TRACKED}(?![\w*<…]|/[<*…\w])", text):
        name = match[0].rstrip(".")
        made_up = re.search(r"20\d\d-\d\d-\d\d_|/mine\b|/track_[ab]\b|/x\b", name)
        assert made_up or (REPO / name).exists(), f"{page}: {name}"


def options(command):
    """All options that `golf.sh COMMAND` takes; None if there is no such command."""
    choices = next(a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    if command not in choices:
        return None
    return {option for action in choices[command]._actions for option in action.option_strings}


@pytest.mark.parametrize("page", pages())
def test_commands_that_a_page_names_exist(page):
    text = (REPO / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for command, rest in re.findall(r"golf\.sh ([a-z]+)\b([^\n`]*)", text):
        known = options(command)
        assert known is not None, f"{page}: golf.sh {command}"
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.partition("#")[0]):
            assert option in known, f"{page}: golf.sh {command} {option}"


def test_configs_are_listed():
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    for name in sorted(files()):
        if re.fullmatch(r"configs/[^/]+\.env", name):
            assert f"| `{name.removeprefix('configs/')}` |" in readme, name


def test_the_tools_are_listed_file_by_file():
    """CONTRIBUTING.md's tree has each file of scripts/golf once, and no other."""
    page = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The files of scripts/golf\n")[1]
    found, folders = [], []
    for line in page.strip("\n").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        name = line.split()[0]
        folders = [*folders[:depth], name.strip("/")]
        if not name.endswith("/"):
            found.append("/".join(folders))
    tools = [n.removeprefix("scripts/golf/") for n in files() if n.startswith("scripts/golf/")]
    assert sorted(found) == sorted(n for n in tools if not n.endswith("__init__.py")), "CONTRIBUTING.md"
