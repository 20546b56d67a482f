"""The shell scripts: usage, exit codes, what is missing, quickstart with a fake trainer."""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import REPO, load_script, passed, refused, run_golf, run_script
from golf.cli import parser as parser_of_all

USAGE = [
    ("run_cuda_baseline.sh", [], "usage: "),
    ("run_mlx_baseline.sh", [], "usage: "),
    ("check_submission_folder.sh", [], "usage: "),
    ("quickstart.sh", ["what"], "usage: "),
    ("golf.sh", ["run"], "usage: golf.sh run"),
    ("golf.sh", ["new"], "usage: golf.sh new"),
    ("golf.sh", ["fly"], "unknown command 'fly'; golf.sh help lists them"),
    ("golf.sh", ["chekc"], "unknown command 'chekc'; did you mean check?"),
    ("golf.sh", ["run", "a.env", "--default", "X"], "invalid"),
]


@pytest.mark.parametrize(("script", "args", "words"), USAGE)
def test_used_wrongly(script, args, words):
    refused(run_golf(*args) if script == "golf.sh" else run_script(script, *args), words)


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


def test_scripts_run_from_anywhere_with_spaces(tiny_repo, tmp_path):
    config = tiny_repo / "configs" / "tiny.env"
    done = run_script("run_cuda_baseline.sh", config, env={"RUN_ID": "x"}, cwd=tmp_path, repo=tiny_repo)
    assert "runs/x/" in passed(done).stdout
    assert '"DEVICE": "cuda"' in (tiny_repo / "runs/x/metrics.jsonl").read_text()


def test_python_is_found(tiny_repo):
    venv = tiny_repo / ".venv" / "bin"
    venv.mkdir(parents=True)
    wrapper(venv / "python", f'echo from .venv >&2; exec "{sys.executable}" "$@"')
    done = run_script("golf.sh", env={"PYTHON": ""}, repo=tiny_repo)
    assert done.returncode == 0 and "from .venv" in done.stderr
    done = run_script("golf.sh", env={"PYTHON": "/no/such/python"}, repo=tiny_repo)
    refused(done, "/no/such/python is not Python 3.10")
    done = run_script("golf.sh", env={"PYTHONHASHSEED": "x"}, repo=tiny_repo)
    assert "PYTHONHASHSEED must be" in done.stderr and done.stderr.count("\n") == 1


def test_a_link_to_golf_sh_leads_to_its_repository(tiny_repo, tmp_path):
    (tmp_path / "golf").symlink_to(tiny_repo / "scripts/golf.sh")
    (tmp_path / "-x").mkdir()
    shutil.copytree(tiny_repo / "scripts", tmp_path / "-x/scripts")
    env = {**os.environ, "PYTHON": sys.executable}
    for words in ((tmp_path / "golf",), ("--", "-x/scripts/golf.sh")):
        done = subprocess.run(["bash", *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert passed(done).stdout.startswith("usage: golf.sh COMMAND") and done.stderr == ""


def wrapper(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # a link would lead to the system's own
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def bin_path(tmp_path):
    """A PATH with the usual tools and no Python; tests put their own python3 there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "dirname", "basename", "date", "cat", "sed", "grep", "rm", "git", "uname", "mkdir"):
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    return folder


def test_old_python_and_missing_venv(tiny_repo, bin_path):
    env = {"PATH": str(bin_path), "PYTHON": ""}
    command = [shutil.which("bash"), str(tiny_repo / "scripts/quickstart.sh")]
    wrapper(bin_path / "python3", 'case "$*" in *version_info*) exit 1;; *) echo Python 3.8.1;; esac')
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no Python 3.10 or newer found (python3 is Python 3.8.1)" in done.stderr
    no_pip = f'case "$*" in *ensurepip*) exit 1;; *) exec "{sys.executable}" "$@";; esac'
    wrapper(bin_path / "python3", no_pip)
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    refused(done, f"sudo apt install python3.{sys.version_info[1]}-venv", code=1)
    assert not (tiny_repo / ".venv").exists()


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
    (tiny_repo / "configs/quickstart.env").write_text("# expect val_bpb: 1.2 to 1.5\nITERATIONS=3\n")
    quickstart = tiny_repo / "scripts/quickstart.sh"
    quickstart.write_text(quickstart.read_text().replace("track_sample_5min", "track_tiny"))
    return tiny_repo


def installs(repo: Path) -> list[str]:
    """What pip was told to install, call by call."""
    calls = (repo / ".venv/bin/pip.log").read_text().splitlines()
    return [call for call in calls if call.startswith("-m pip install")]


def test_quickstart_twice(quick_repo, tmp_path):
    done = passed(run_script("quickstart.sh", cwd=tmp_path, repo=quick_repo))
    for words in ("expect 1.2 to 1.5", "-submission on track_tiny, ", " to spare", "-submission/", "next "):
        assert words in done.stdout
    came_out = done.stdout[done.stdout.index("\nDone: ") :]
    for word in ("score ", "bytes ", "seconds ", "files ", "entry ", "next "):  # each thing once
        assert came_out.count(f"\n{word}") == 1, word
    assert done.stdout.count("passing is not a ruling") <= 1
    assert len(installs(quick_repo)) == 1 and "torch.txt" not in installs(quick_repo)[0]
    first = {p.name for p in (quick_repo / "runs").iterdir()}
    assert len(first) == 2
    done = run_script("quickstart.sh", env={"SEEDS": "1,2"}, repo=quick_repo)
    assert done.returncode == 0 and len(installs(quick_repo)) == 1
    assert len({p.name for p in (quick_repo / "runs").iterdir()} - first) == 2


def test_quickstart_shows_three_lines_of_whole_letters_of_what_the_model_writes():
    code = re.search(r"-c '\n(.*?)' \|\| true", (REPO / "scripts/quickstart.sh").read_text(), re.DOTALL)[1]
    text = "\u00fc" * 150 + " \u20ac word" * 100
    cut = text.encode() + b"\xe2\x82"  # inside the last letter
    env = {**os.environ, "LC_ALL": "C"}
    for given, count in ((cut, 3), (b"short", 1), (b"", 0)):
        done = subprocess.run([sys.executable, "-c", code], input=given, env=env, capture_output=True)
        lines = done.stdout.decode().splitlines()
        assert (done.returncode, done.stderr, len(lines)) == (0, b"", count)
        assert all(line.startswith(" " * 9) and len(line) <= 109 for line in lines)
        shown = "".join(line.strip() for line in lines).replace(" ", "")
        assert given.decode(errors="replace").replace(" ", "").startswith(shown)


@pytest.mark.slow
def test_torch_index_and_changed_requirements(quick_repo):
    env = {"TORCH_INDEX_URL": "http://localhost:1/cpu"}
    assert run_script("quickstart.sh", env=env, repo=quick_repo).returncode == 0
    torch, rest = installs(quick_repo)
    assert "--no-deps --index-url http://localhost:1/cpu" in torch and torch.endswith("torch.txt")
    assert "--index-url" not in rest and rest.endswith("requirements-cuda.txt")
    assert (quick_repo / ".venv/torch.txt").read_text() == "torch==9.9\n"
    done = run_script("quickstart.sh", env={**env, "PIP_CODE": "1", "TORCH_INDEX_URL": "x"}, repo=quick_repo)
    assert done.returncode == 1 and "pip could not install torch from TORCH_INDEX_URL" in done.stderr


@pytest.mark.slow
def test_quickstart_on_apple_silicon_takes_the_mlx_trainer(quick_repo):
    (quick_repo / "train_gpt.py").rename(quick_repo / "train_gpt_mlx.py")
    (quick_repo / "requirements-mlx.txt").write_text("x\n")
    wrapper(quick_repo / ".venv/bin/uname", 'case "$1" in -s) echo Darwin;; *) echo arm64;; esac')
    env = {"PATH": f"{quick_repo}/.venv/bin:{os.environ['PATH']}", "TORCH_INDEX_URL": "x"}
    done = passed(run_script("quickstart.sh", env=env, repo=quick_repo))
    (installed,) = installs(quick_repo)  # TORCH_INDEX_URL is of no use here
    assert installed.endswith("requirements-mlx.txt")
    assert "change train_gpt_mlx.py" in done.stdout and "run_mlx_baseline.sh configs/" in done.stdout


@pytest.mark.slow
def test_quickstart_stops_where_the_run_fails(quick_repo):
    done = run_script("quickstart.sh", env={"FAKE_FAIL": "1"}, repo=quick_repo)
    assert done.returncode == 1 and "Done:" not in done.stdout
    assert not list(quick_repo.glob("runs/*-submission"))


@pytest.mark.slow
def test_what_the_check_of_a_quickstart_finds_hides_no_result(quick_repo):
    env = {"ARTIFACT_CAP_BYTES": "99999", "FAKE_ARTIFACT_BYTES": "40000"}  # over the track's cap
    done = run_script("quickstart.sh", env=env, repo=quick_repo)
    assert done.returncode == 1 and "\nFAIL cap" in done.stdout
    assert "\nDone: " in done.stdout and "\nnext " in done.stdout


@pytest.mark.slow
def test_test_sh_runs_every_check(quick_repo):
    venv, calls = quick_repo / ".venv" / "bin", quick_repo / "calls"
    wrapper(venv / "python", 'case "$1" in -m) echo "$*" >>calls;; *) exec "$REAL" "$@";; esac')
    wrapper(venv / "shellcheck", 'echo "shellcheck $*" >>calls')
    (quick_repo / ".ci").mkdir()
    shutil.copyfile(REPO / ".ci/run", quick_repo / ".ci/run")
    env = {"REAL": sys.executable}
    assert run_script("test.sh", "-k", "x", env=env, repo=quick_repo).returncode == 0
    asked, pip, compiled, ruff, formatted, shellcheck, pytest_ = calls.read_text().splitlines()
    assert asked.startswith("-m pip download") and pip.endswith("requirements-dev.txt")
    assert compiled.startswith("-m compileall -q")
    assert ruff == "-m ruff check ." and formatted == "-m ruff format --check ."
    assert "scripts/venv.sh" in shellcheck
    assert pytest_ == "-m pytest -n auto --dist worksteal -m not slow -k x"
    calls.write_text("")
    passed(subprocess.run(["bash", str(quick_repo / ".ci/run")], env={**os.environ, **env}, cwd="/"))
    assert calls.read_text().splitlines()[-1] == "-m pytest -n auto --dist worksteal"


TYPED = [REPO / ".ci/run", *sorted((REPO / "scripts").glob("*.sh"))]
TYPED = [path for path in TYPED if path.read_bytes().startswith(b"#!")]


@pytest.mark.parametrize("script", TYPED, ids=lambda path: path.name)
def test_sh_and_posix_mode_are_as_good_as_bash(script, tmp_path):
    """`sh scripts/x.sh`, where sh is dash or bash, from another folder, with a CDPATH that misleads."""
    (tmp_path / "scripts").mkdir()
    env = {**os.environ, "CDPATH": str(tmp_path), "PYTHON": sys.executable}
    args = [] if script.name == "golf.sh" else ["--help"]  # which prints and does nothing else
    path = script.relative_to(REPO)
    expected = None
    for shell in (["bash"], ["sh"], ["bash", "--posix"]):
        done = subprocess.run([*shell, str(path), *args], cwd=REPO, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "") and "usage: " in done.stdout, shell
        expected = expected or done.stdout
        assert done.stdout == expected, shell


def test_a_chosen_python_is_used_or_refused(quick_repo, bin_path):
    """PYTHON=... that is not there, too old, or another than .venv's: told, never another instead."""
    wrapper(bin_path / "old", 'case "$*" in *version_info*) exit 1;; *) echo Python 3.8.1;; esac')
    wrapper(bin_path / "other", 'case "$*" in *version_info\\<*|*"< (3"*) ;; *) echo 3.99;; esac')
    for python, words in (
        ("/no/such/python", "PYTHON=/no/such/python: there is no such program"),
        (str(bin_path / "old"), "is not Python 3.10 or newer (Python 3.8.1)"),
        (str(bin_path / "other"), "is Python 3.99, but .venv was made with 3."),
    ):
        done = refused(run_script("quickstart.sh", env={"PYTHON": python}, repo=quick_repo), words, code=1)
        assert done.stdout == "" and not (quick_repo / "runs").exists()


@pytest.fixture
def venv_repo(tiny_repo):
    """tiny_repo with a base Python whose venvs are folders of links, made by a fake `-m venv`.

    FAKE_VENV=dies: the making ends half way, as by Ctrl-C. made.log counts what was made, pip.log
    (in .venv/bin) what pip was told; PIP_CODE is what pip answers.
    """
    for name in ("cuda", "dev"):
        (tiny_repo / f"requirements-{name}.txt").write_text("torch==9.9\n")
    tools = tiny_repo / "tools"
    tools.mkdir()
    inner = (
        f'case "$*" in *"import pip"*) [ -f "$(dirname "$0")/pip" ]; exit;; *ensurepip*) exit 1;; '
        f'"-m pip"*) echo "$*" >>"$(dirname "$0")/pip.log"; exit "${{PIP_CODE:-0}}";; esac\n'
        f'exec "{sys.executable}" "$@"'
    )
    wrapper(tools / "inner", inner)
    outer = (
        'case "$1 $2" in "-m venv") mkdir -p "$3/bin"; cp "$(dirname "$0")/inner" "$3/bin/python"\n'
        f'echo made >>"{tiny_repo}/made.log"\n'
        ': >"$3/bin/pip"; [ "${FAKE_VENV:-}" = dies ] && kill -9 $PPID; exit 0;; esac\n'
        'case "$*" in *"import pip"*) exit "${BASE_PIP:-1}";; esac\n'
        f'exec "{sys.executable}" "$@"'
    )
    wrapper(tools / "python3", outer)
    return tiny_repo


def ready(repo: Path, **env):
    """venv_ready requirements-cuda.txt in a shell of its own."""
    text = "set -euo pipefail; root=$PWD; . scripts/venv.sh; venv_ready requirements-cuda.txt"
    env = {"PATH": f"{repo}/tools:{os.environ['PATH']}", "HOME": str(repo), "TORCH_INDEX_URL": "x", **env}
    return subprocess.run(["bash", "-c", text], cwd=repo, env=env, capture_output=True, text=True)


def made(repo: Path) -> int:
    return len((repo / "made.log").read_text().splitlines())


@pytest.mark.slow
def test_a_venv_that_was_broken_off_is_made_anew(venv_repo):
    assert ready(venv_repo, FAKE_VENV="dies").returncode < 0
    assert (venv_repo / ".venv/bin/pip").exists()  # but who knows what else is not
    passed(ready(venv_repo))
    assert made(venv_repo) == 2
    assert ready(venv_repo).returncode == 0 and made(venv_repo) == 2  # whole: used again
    (venv_repo / ".venv/bin/pip").unlink()  # whatever it lost it by
    assert ready(venv_repo).returncode == 0 and made(venv_repo) == 3


@pytest.mark.slow
def test_a_failed_installation_is_gone_on_with(venv_repo):
    refused(ready(venv_repo, PIP_CODE="1"), "pip could not install torch from TORCH_INDEX_URL", code=1)
    assert (venv_repo / ".venv/.unfinished").exists()
    assert ready(venv_repo).returncode == 0 and made(venv_repo) == 1  # no package was half there
    assert not (venv_repo / ".venv/.unfinished").exists()


def test_half_a_package_is_noticed(tmp_path):
    """pip writes RECORD last: without it, or with a file that is short, the package is not whole."""
    packages = tmp_path / "site"
    info = packages / "thing-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    (packages / "thing.py").write_text("x = 1\n")
    wrapper(tmp_path / "python", f'exec "{sys.executable}" -S -c "\nimport sys; sys.path[:] = [p for p in '
            f"sys.path if p and 'site-packages' not in p] + ['{packages}']\n"
            'exec(sys.stdin.read())"')  # fmt: skip
    text = f'root="{REPO}"; . "$root/scripts/venv.sh"; python="{tmp_path}/python"; venv_packages_are_whole'
    whole = "thing.py,sha256=x,6\n"
    (packages / "thing.pyc").write_bytes(b"compiled again")
    compiled = whole + "thing.pyc,sha256=x,3\n"
    for record, code in ((None, 1), (whole, 0), (compiled, 0), (whole.replace("6", "7"), 1), ("a.py,,\n", 1)):
        if record is not None:
            (info / "RECORD").write_text(record)
        assert subprocess.run(["bash", "-c", text]).returncode == code, record


@pytest.mark.slow
def test_a_moved_or_copied_repository_makes_its_own_venv(venv_repo):
    assert ready(venv_repo).returncode == 0
    copy = venv_repo.parent / "a copy"
    shutil.copytree(venv_repo, copy, symlinks=True)
    assert ready(copy).returncode == 0 and made(venv_repo) == 2
    assert (copy / ".venv/.place").read_text().strip() == str(copy.resolve() / ".venv")
    link = venv_repo.parent / "link"
    link.symlink_to(venv_repo)
    assert ready(link).returncode == 0 and made(venv_repo) == 2  # another way to the same place


def test_two_calls_at_once_make_one_venv(venv_repo):
    inner = venv_repo / "tools/inner"
    inner.write_text(inner.read_text().replace('"-m pip"*)', '"-m pip"*) sleep 0.3;'))
    with ThreadPoolExecutor(3) as pool:
        all_done = list(pool.map(lambda _: ready(venv_repo), range(3)))
    assert [done.returncode for done in all_done] == [0, 0, 0], [done.stderr for done in all_done]
    assert made(venv_repo) == 1 and len(installs(venv_repo)) == 2  # torch, the rest
    assert sum("waiting for another call" in done.stdout for done in all_done) >= 1


@pytest.mark.parametrize("proxy", ["http://a:secret@127.0.0.1:9", pytest.param("", marks=pytest.mark.slow)])
def test_no_network_is_said_at_once_and_names_the_proxy(venv_repo, proxy):
    """A real pip asks an index that nobody serves."""
    inner = venv_repo / "tools/inner"
    ask = f'"-m pip install"*) exit 1;; "-m pip"*) exec "{sys.executable}" "$@";;'
    inner.write_text(inner.read_text().replace('"-m pip"*)', f'{ask} "-m nothing"*)'))
    index = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    done = ready(venv_repo, HTTP_PROXY=proxy, **index)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "pip gets no answer from its package index (127.0.0.1:9: Connection refused)" in done.stderr
    expected = "through the proxy of HTTP_PROXY=http://127.0.0.1:9: correct or unset it"
    assert (expected if proxy else "no proxy is set") in done.stderr and "secret" not in done.stderr
    shutil.rmtree(venv_repo / ".venv")  # where the base Python has pip, that is asked, before .venv is made
    again = ready(venv_repo, HTTP_PROXY=proxy, BASE_PIP="0", **index)
    assert (again.returncode, again.stderr) == (1, done.stderr) and not (venv_repo / ".venv").exists()


@pytest.mark.slow
def test_an_index_that_never_answers_is_given_up(monkeypatch, capsys):
    reach = load_script(REPO / "scripts" / "pip_reach.py")
    monkeypatch.setattr(reach, "SECONDS", 1)
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        assert reach.main([sys.executable, "--index-url", index]) == 1
    said = capsys.readouterr().out  # by our clock, or on a slow machine by pip's own
    assert "tried for " in said or "timed out" in said


def test_a_persons_own_pip_settings_do_not_lead_elsewhere(venv_repo):
    inner = venv_repo / "tools/inner"
    says = 'echo "$* user=$PIP_USER ${PIP_TARGET-}${PIP_PREFIX-}."'
    inner.write_text(inner.read_text().replace('echo "$*"', says))
    passed(ready(venv_repo, PIP_USER="1", PIP_TARGET="/x", PIP_PREFIX="/y"))
    assert len(installs(venv_repo)) == 2 and all(call.endswith(" user=0 .") for call in installs(venv_repo))


def test_the_mlx_script_names_mlx_requirements(tmp_path):
    wrapper(tmp_path / "bare", f'exec "{sys.executable}" -S -E "$@"')
    (tmp_path / "fineweb_train_000000.bin").touch()  # data is asked for first
    env = {"PYTHON": str(tmp_path / "bare"), "DATA_PATH": str(tmp_path), "TOKENIZER_PATH": __file__}
    done = run_script("run_mlx_baseline.sh", "configs/local_apple_mlx.env", env=env)
    refused(done, "-m pip install -r requirements-mlx.txt`\n")


@pytest.mark.parametrize("device", [False, True])
def test_without_an_nvidia_device_the_cuda_download_is_told_before_it(venv_repo, device):
    tools = venv_repo / "tools"
    wrapper(tools / "uname", 'case "$1" in -s) echo Linux;; *) echo x86_64;; esac')
    if device:
        wrapper(tools / "nvidia-smi", "exit 0")
    inner = tools / "inner"
    no_torch = 'case "$*" in *find_spec*) exit 1;; esac\ncase '
    inner.write_text(inner.read_text().replace("case ", no_torch, 1))
    done = passed(ready(venv_repo, TORCH_INDEX_URL=""))
    has_gpu = device or Path("/proc/driver/nvidia").exists() or Path("/dev/dxg").exists()
    assert ("TORCH_INDEX_URL=ADDRESS" in done.stdout) != has_gpu
    if not has_gpu:
        assert done.stdout.index("about 3 GB") < done.stdout.index("installing requirements")
    assert "3 GB" not in ready(venv_repo, TORCH_INDEX_URL="http://x").stdout


@pytest.mark.parametrize("command", ["check", "compare", "leaderboard"])
def test_missing_packages_of_the_light_commands_are_lightly_got(command, tmp_path):
    """In a Python without any package: one line, and the file without PyTorch."""
    starter = REPO / "tests/fixtures/submissions/bigram"
    args = {"check": [starter], "compare": [starter, starter], "leaderboard": []}[command]
    for name in ("scripts", "records"):  # the leaderboard is written
        shutil.copytree(REPO / name, tmp_path / name)
    shutil.copy(REPO / "README.md", tmp_path)
    wrapper(tmp_path / "bare", f'exec "{sys.executable}" -S -E "$@"')
    env = {"PYTHON": str(tmp_path / "bare"), "PYTHONPATH": ""}
    done = run_script("golf.sh", command, *args, env=env, repo=tmp_path)
    told = f"golf {command}: error: Python package ", "-m pip install -r requirements-check.txt`\n"
    refused(done, *told)


@pytest.mark.parametrize("settings", [["core.autocrlf=true"], ["core.eol=crlf", "core.autocrlf=false"]])
def test_a_windows_clone_holds_the_same_bytes(tmp_path, settings):
    """Scripts start, and what is hashed is as it was, whatever a git is told of line ends."""
    here = tmp_path / "here"
    made_here = (".git", ".venv", "runs", "datasets", "tokenizers", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(REPO, here, ignore=shutil.ignore_patterns(*made_here), symlinks=True)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "safe.directory=*"]
    git += ["-c", "core.compression=0"]  # megabytes of artifacts
    git += [word for setting in settings for word in ("-c", setting)]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=here, check=True, capture_output=True)
    subprocess.run([*git, "clone", "-q", str(here), str(tmp_path / "there")], check=True)
    there = [path for path in (tmp_path / "there").rglob("*") if path.is_file() and ".git" not in path.parts]
    names = [path.relative_to(tmp_path / "there") for path in there]
    assert [name for name, path in zip(names, there) if path.read_bytes() != (here / name).read_bytes()] == []
    assert {path.relative_to(here) for path in here.glob("**/*.sh")} | {Path(".ci/run")} <= set(names)
    lower = {str(name).lower() for name in names}
    assert len(lower) == len(names), "two names that a Mac or Windows takes for one"
    hashed = "tests/fixtures/submissions/bigram/train.log"
    (here / hashed).write_bytes(b"a\r\nb\n")  # nor is it converted on its way in
    subprocess.run([*git, "commit", "-q", "-am", "y"], cwd=here, check=True, capture_output=True)
    kept = subprocess.run([*git, "show", f"HEAD:{hashed}"], cwd=here, check=True, capture_output=True)
    assert kept.stdout == b"a\r\nb\n"


def test_what_the_machine_lacks_is_installed_where_it_may(tiny_repo, bin_path):
    """packages.sh: as root at once, by sudo without a password, else a line that says what is missing."""
    for tool in ("env", "tr", "true"):
        if found := shutil.which(tool):
            (bin_path / tool).symlink_to(found)
    wrapper(bin_path / "python3", "exit 0")
    wrapper(bin_path / "apt-get", f'echo "$*" >>"{tiny_repo}/calls"; exit "${{APT_CODE:-0}}"')
    wrapper(bin_path / "uname", "echo Linux")
    wrapper(bin_path / "g++", "exit 0")

    def ready(code, words=""):
        text = f'set -eu; . "{REPO}/scripts/packages.sh"; packages_ready {words}; echo went on'
        env = {"PATH": str(bin_path), "APT_CODE": code}
        how = dict(env=env, cwd=tiny_repo, capture_output=True, text=True)
        done = passed(subprocess.run(["/bin/bash", "-c", text], **how))
        return done.stdout, done.stderr, (tiny_repo / "calls").read_text().rstrip()

    for user, sudo, code, installed in (
        ("0", "exit 1", "0", True), ("7", 'shift; exec "$@"', "0", True),
        ("7", "exit 1", "0", False), ("0", "exit 1", "100", False),
    ):  # fmt: skip
        (tiny_repo / "calls").write_text("")
        wrapper(bin_path / "id", f"echo {user}")
        wrapper(bin_path / "sudo", sudo)
        out, err, calls = ready(code)
        assert "went on" in out and ("bubblewrap could not be installed" in err) != installed
        assert ("install" in calls and calls.endswith(" bubblewrap")) == installed
    wrapper(bin_path / "bwrap", "exit 0")
    assert ready(code)[:2] == ("went on\n", "")
    out, err, calls = ready("0", "--all")  # a browser for the site's tests
    assert (out, err) == ("installing chromium by apt-get\nwent on\n", "") and calls.endswith(" chromium")
    wrapper(bin_path / "google-chrome", "exit 0")
    assert ready("0", "--all")[:2] == ("went on\n", "")


@pytest.mark.slow
def test_a_worker_survives_a_surrogate_and_skipped_tests_are_counted_in_one_loud_line(tmp_path):
    hooks = "pytest_report_to_serializable, pytest_terminal_summary"
    (tmp_path / "conftest.py").write_text(f"from tests.conftest import {hooks}\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('i', range(31))\n"
        "@pytest.mark.skipif(True, reason='NOT TESTED: no bubblewrap here')\n"
        "def test_a(i): pass\n"
        "@pytest.mark.skip(reason='another matter')\n"
        "def test_b(): pass\n"
        "def test_c(): assert '\\udcff' == ''\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'tests'}"}
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "--rootdir", ".", "."]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "1 failed, 32 skipped" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("SKIPPED: ") == 1 and "31 tests SKIPPED: no bubblewrap here" in done.stdout
