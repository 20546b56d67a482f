"""golf.sh and its help: every command once, in the groups in which a user meets them."""

import re
import subprocess
from types import SimpleNamespace

import pytest
from conftest import REPO, run_golf, run_script
from golf import cli

GOLF = REPO / "scripts" / "golf.sh"


def test_help_lists_every_command_in_its_group_with_what_it_does():
    text = run_script("golf.sh").stdout
    assert text == run_golf("help").stdout == run_golf("-h").stdout
    found, group = {}, None
    for line in text.splitlines()[1:]:
        if re.fullmatch(r"[a-z]+", line):
            group = line
        elif match := re.fullmatch(r"  (python3 \S+|[a-z]+) +(\S.*)", line):
            found.setdefault(group, []).append(match[1])
    assert list(found) == ["data", "run", "see", "submit", "judge"]
    assert {group: found[group] for group in cli.GROUPS} == {g: list(c) for g, c in cli.GROUPS.items()}


def test_help_of_a_command_is_its_own():
    done = run_golf("help", "compare")
    assert done.returncode == 0 and done.stdout == run_golf("compare", "-h").stdout
    assert done.stdout.startswith("usage: golf.sh compare")


@pytest.mark.parametrize(
    "words, told",
    [
        (["explain", ""], "golf: error: an empty path is given"),
        (["explain", "a\nb"], "golf explain: error: a?b: no run"),
        (["compare", "a\nb", "c"], "golf compare: error: a?b: no submission"),
        (["compare", ",", "c"], "golf compare: error: ,: no submission"),
        (["compare", "", "c"], "golf compare: error: an empty path is given"),
        (["leaderboard", "--site", ""], "golf: error: an empty path is given"),
        (["explain", "/proc/self/mem"], "golf explain: error: /proc/self/mem: "),
        (["fit", "--trainer", "/proc/self/mem", "configs/quickstart.env"], "golf fit: error: /proc/"),
        (["plot", "-o", "a\nb", "c"], "golf.sh plot: error: argument -o/--out: a?b: give a name"),
        (["run", "configs/quickstart.env", "--trainer", "LOOP"], "golf run: error: "),
    ],
)
def test_an_odd_path_is_told_in_one_line(words, told, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    done = run_golf(*(word.replace("LOOP", str(tmp_path / "loop")) for word in words))
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("usage: ", " "))]
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith(told)


@pytest.mark.parametrize("command", ["summary", "report", "explain", "sample", "watch"])
def test_where_the_run_id_of_seeds_is_given_a_run_is_named(command, tmp_path):
    for seed in (42, 7):
        (tmp_path / f"one-s{seed}").mkdir()
    done = run_golf(command, tmp_path / "one")
    assert done.returncode == 2 and done.stderr.endswith(f"; did you mean {tmp_path}/one-s7?\n")


def test_a_message_has_an_end(capsys):
    assert cli.main(["score", "x" * 100_000]) == 2
    assert len(capsys.readouterr().err) < 3_000


def test_a_working_directory_that_was_removed_is_told(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = 'rmdir "$PWD"; exec bash "$0" check .'
    done = subprocess.run(["bash", "-c", command, GOLF], cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("golf check: error: the working directory was removed; cd to another\n")


def test_a_copy_that_fails_names_what_could_not_be_written(monkeypatch, capsys):
    def copy(args):
        raise OSError(28, "No space left on device", "from", None, "to")

    monkeypatch.setattr(cli, "parse", lambda words: SimpleNamespace(command="new", main=copy))
    assert cli.dispatch(["new"]) == 2
    assert capsys.readouterr().err == "golf new: error: to: No space left on device\n"
