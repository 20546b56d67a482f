"""golf.sh and its help: every command once, in the groups in which a user meets them."""

import re
import subprocess

from conftest import REPO, run_script
from golf import cli

GOLF = REPO / "scripts" / "golf.sh"


def test_help_lists_every_command_in_its_group_with_what_it_does():
    text = run_script("golf.sh").stdout
    assert text == run_script("golf.sh", "help").stdout == run_script("golf.sh", "-h").stdout
    found, group = {}, None
    for line in text.splitlines()[1:]:
        if re.fullmatch(r"[a-z]+", line):
            group = line
        elif match := re.fullmatch(r"  (python3 \S+|[a-z]+) +(\S.*)", line):
            found.setdefault(group, []).append(match[1])
    assert list(found) == ["data", "run", "see", "submit", "judge"]
    assert {group: found[group] for group in cli.GROUPS} == {g: list(c) for g, c in cli.GROUPS.items()}


def test_help_of_a_command_is_its_own():
    done = run_script("golf.sh", "help", "compare")
    assert done.returncode == 0 and done.stdout == run_script("golf.sh", "compare", "-h").stdout
    assert done.stdout.startswith("usage: golf.sh compare")


def test_a_working_directory_that_was_removed_is_told(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = 'rmdir "$PWD"; exec bash "$0" check .'
    done = subprocess.run(["bash", "-c", command, GOLF], cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("golf check: error: the working directory was removed; cd to another\n")
