"""The shell scripts: usage, exit codes, what is missing, quickstart with a fake trainer."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import golf
import pytest
from conftest import REPO, run_script
from golf.__main__ import parser as parser_of_all

USAGE = [
    ("run_cuda_baseline.sh", [], "usage: "),
    ("check_submission_folder.sh", [], "usage: "),
    ("quickstart.sh", ["what"], "usage: "),
    ("golf.sh", ["run"], "usage: golf.sh run"),
    ("golf.sh", ["new"], "usage: golf.sh new"),
    ("golf.sh", ["fly"], "invalid choice: 'fly'"),
    ("golf.sh", ["run", "a.env", "--default", "X"], "invalid"),
]


@pytest.mark.parametrize(("script", "args", "words"), USAGE)
def test_used_wrongly(script, args, words):
    done = run_script(script, *args)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_golf_alone_lists_its_commands():
    done = run_script("golf.sh")
    assert done.returncode == 0
    assert all(f"\n    {name} " in done.stdout for name in ("run", "new", "check"))


def subcommands(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from (p for one in action.choices.values() for p in (one, *subcommands(one)))


def test_every_argument_has_its_help():
    for parser in subcommands(parser_of_all()):
        for action in parser._actions:
            steps = isinstance(action, argparse._SubParsersAction)
            assert steps or action.help, f"{parser.prog}: {action.metavar or action.option_strings}"


@pytest.mark.parametrize("args", ["", "run --help", "compare one two"])
def test_a_reader_that_goes_away_is_no_error(tmp_path, args):
    """As under `| head`: quiet, and the exit code that the signal would give."""
    data = {"name": "sample_sp1024", "val_sha256": "a", "tokenizer_sha256": "b"}
    start = {"event": "start", "seed": 1, "data": data}
    score = {"event": "score", "kind": "sliding", "val_loss": 2.0, "targets": 65536}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(f"{json.dumps(start)}\n{json.dumps(score)}\n")
    closed, out = os.pipe()
    os.close(closed)
    command = ["bash", REPO / "scripts/golf.sh", *args.split()]
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, env=env, cwd=tmp_path)
    os.close(out)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_path_is_shown_in_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert golf.shown(tmp_path / "a b" / "c") == "a b/c"
    assert golf.shown(golf.REPO / "docs") == "docs"
    assert golf.shown("/none/two\nlines\x1b[2J") == "/none/two?lines?[2J"


def test_a_file_that_cannot_be_written_is_one_line(tiny_repo):
    run_script("golf.sh", "run", "configs/tiny.env", env={"RUN_ID": "x"}, repo=tiny_repo)
    done = run_script("golf.sh", "new", "runs/x", "--out", "train_gpt.py/new", repo=tiny_repo)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("golf new: error: train_gpt.py")


def test_scripts_run_from_anywhere_with_spaces(tiny_repo, tmp_path):
    config = tiny_repo / "configs" / "tiny.env"
    done = run_script(
        "run_cuda_baseline.sh", config, env={"RUN_ID": "x"}, cwd=tmp_path, repo=tiny_repo
    )
    assert done.returncode == 0, done.stderr
    assert "runs/x/" in done.stdout
    log = (tiny_repo / "runs/x/metrics.jsonl").read_text()
    assert '"DEVICE": "cuda"' in log


def test_python_is_found(tiny_repo):
    venv = tiny_repo / ".venv" / "bin"
    venv.mkdir(parents=True)
    wrapper(venv / "python", f'echo from .venv >&2; exec "{sys.executable}" "$@"')
    done = run_script("golf.sh", env={"PYTHON": ""}, repo=tiny_repo)
    assert done.returncode == 0 and "from .venv" in done.stderr
    done = run_script("golf.sh", env={"PYTHON": "/no/such/python"}, repo=tiny_repo)
    assert done.returncode == 2 and "/no/such/python is not Python 3.10" in done.stderr


def wrapper(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def bin_path(tmp_path):
    """A PATH with the usual tools and no Python; tests put their own python3 there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "dirname", "basename", "date", "cat", "sed", "grep", "rm", "git", "uname"):
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    return folder


def test_old_python_and_missing_venv(tiny_repo, bin_path):
    env = {"PATH": str(bin_path), "PYTHON": ""}
    bash = shutil.which("bash")
    command = [bash, str(tiny_repo / "scripts/quickstart.sh")]
    wrapper(
        bin_path / "python3", 'case "$*" in *version_info*) exit 1;; *) echo Python 3.8.1;; esac'
    )
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no Python 3.10 or newer found (python3 is Python 3.8.1)" in done.stderr
    wrapper(
        bin_path / "python3",
        f'case "$*" in *ensurepip*) exit 1;; *) exec "{sys.executable}" "$@";; esac',
    )
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    version = f"python3.{sys.version_info[1]}"
    assert done.returncode == 1 and f"sudo apt install {version}-venv" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tiny_repo / ".venv").exists()


@pytest.fixture
def quick_repo(tiny_repo):
    """tiny_repo with what quickstart.sh needs; its .venv runs this Python and logs calls of pip."""
    for name in ("requirements-cuda.txt", "requirements-dev.txt"):
        (tiny_repo / name).write_text("torch==9.9\n")
    venv = tiny_repo / ".venv" / "bin"
    venv.mkdir(parents=True)
    log = 'echo "$*" >>"$(dirname "$0")/pip.log"; exit "${PIP_CODE:-0}"'
    log_pip = f'case "$*" in "-m pip"*) {log};; esac'
    wrapper(venv / "python", f'{log_pip}\nexec "{sys.executable}" "$@"')
    (tiny_repo / "data/build_sample_dataset.py").write_text("print('sample data is there')\n")
    config = "# expect val_bpb: 1.2 to 1.5\nITERATIONS=3\n"
    (tiny_repo / "configs/quickstart.env").write_text(config)
    quickstart = tiny_repo / "scripts/quickstart.sh"
    quickstart.write_text(quickstart.read_text().replace("track_sample_5min", "track_tiny"))
    return tiny_repo


def test_quickstart_twice(quick_repo, tmp_path):
    done = run_script("quickstart.sh", cwd=tmp_path, repo=quick_repo)
    assert done.returncode == 0, done.stderr
    for words in (
        "expect 1.2 to 1.5",
        "PASS runs/quickstart-",
        " to spare",
        "-submission/",
        "next ",
    ):
        assert words in done.stdout
    for word in ("score ", "bytes ", "seconds ", "files ", "next "):  # each thing once
        assert sum(line.startswith(word) for line in done.stdout.splitlines()) == 1, word
    pip = quick_repo / ".venv/bin/pip.log"
    assert len(pip.read_text().splitlines()) == 1 and "torch.txt" not in pip.read_text()
    first = {p.name for p in (quick_repo / "runs").iterdir()}
    assert len(first) == 2
    done = run_script("quickstart.sh", env={"SEEDS": "1,2"}, repo=quick_repo)
    assert done.returncode == 0 and len(pip.read_text().splitlines()) == 1
    assert len({p.name for p in (quick_repo / "runs").iterdir()} - first) == 2


def test_torch_index_and_changed_requirements(quick_repo):
    pip = quick_repo / ".venv/bin/pip.log"
    env = {"TORCH_INDEX_URL": "http://localhost:1/cpu"}
    assert run_script("quickstart.sh", env=env, repo=quick_repo).returncode == 0
    torch, rest = pip.read_text().splitlines()
    assert "--no-deps --index-url http://localhost:1/cpu" in torch and torch.endswith("torch.txt")
    assert "--index-url" not in rest and rest.endswith("requirements-cuda.txt")
    assert (quick_repo / ".venv/torch.txt").read_text() == "torch==9.9\n"
    done = run_script(
        "quickstart.sh", env={**env, "PIP_CODE": "1", "TORCH_INDEX_URL": "x"}, repo=quick_repo
    )
    assert (
        done.returncode == 1 and "pip could not install torch from TORCH_INDEX_URL" in done.stderr
    )


def test_quickstart_stops_where_the_run_fails(quick_repo):
    done = run_script("quickstart.sh", env={"FAKE_FAIL": "1"}, repo=quick_repo)
    assert done.returncode == 1 and "Done:" not in done.stdout
    assert not list(quick_repo.glob("runs/*-submission"))


def test_test_sh_runs_every_check(quick_repo):
    venv, calls = quick_repo / ".venv" / "bin", quick_repo / "calls"
    wrapper(venv / "python", 'case "$1" in -m) echo "$*" >>calls;; *) exec "$REAL" "$@";; esac')
    wrapper(venv / "shellcheck", 'echo "shellcheck $*" >>calls')
    (quick_repo / ".ci").mkdir()
    shutil.copyfile(REPO / ".ci/run", quick_repo / ".ci/run")
    env = {"REAL": sys.executable}
    assert run_script("test.sh", "-k", "x", env=env, repo=quick_repo).returncode == 0
    pip, ruff, shellcheck, pytest_ = calls.read_text().splitlines()
    assert pip.endswith("requirements-dev.txt") and ruff == "-m ruff check ."
    assert "scripts/venv.sh" in shellcheck and pytest_ == "-m pytest -m not slow -k x"
    calls.write_text("")
    done = subprocess.run(["bash", str(quick_repo / ".ci/run")], env={**os.environ, **env}, cwd="/")
    assert done.returncode == 0
    assert calls.read_text().splitlines()[-1] == "-m pytest"
