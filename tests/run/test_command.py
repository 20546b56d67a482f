"""The supervisor: env files, preflight, seeds, out of memory, signals; with a fake trainer."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, REPO, run_script
from golf.core import envfile, lock, machine, runlog, trainers
from golf.core.errors import GolfError
from golf.core.processes import descendants
from golf.run import command as run
from golf.run import preflight
from golf.run import summary as report


def golf(repo, *args, config="tiny.env", **env):
    return run_script("golf.sh", "run", f"configs/{config}", *args, env=env, repo=repo)


def write_config(repo, text, name="mine.env"):
    (repo / "configs" / name).write_bytes(text.encode())
    return name


def one_line(text: str) -> str:
    """The only line of an error message; a traceback or a second line fails the test."""
    assert "Traceback" not in text
    (line,) = text.strip().splitlines()
    return line


# ---- Env files


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("A=a b  # why", "a b"),
        ("A='x # y' # z", "x # y"),
        ('A="it\'s"', "it's"),
        ("A=", ""),
        ("A=# nothing", ""),
        ("A=1 # not `x`, not $(x)", "1"),
        ("A='1' # not `x`", "1"),
        ("A=a#b", "a#b"),
        ("A=5$;rm", "5$;rm"),
        ("A=1\r", "1"),
        ("  A=1", "1"),
    ],
)
def test_env_values(tmp_path, line, value):
    path = tmp_path / "a.env"
    path.write_bytes(f"\ufeff# note\n\n{line}\n".encode())
    assert envfile.parse(path) == {"A": (value, 3)}


@pytest.mark.parametrize(
    "line", ["A = 1", "A", "A='1", 'A="1" 2', "A=$(touch x)", "A='`x`'", "A=`x`", "1A=2", "A=x\0y"]
)
def test_env_lines_refused_with_file_and_line(tmp_path, line):
    path = tmp_path / "a.env"
    path.write_text(f"B=1\n{line}\n")
    with pytest.raises(GolfError, match=r"a\.env:2: ") as error:
        envfile.parse(path)
    assert error.value.code == 2


@pytest.mark.parametrize(
    "value", ["~", "~/x", "'~/x'", "~other/x", "$HOME/x", '"${HOME}/x"', "'$HOME/x'", "/a:~/b", "$RUN_ID"]
)
def test_what_only_a_shell_expands_is_refused(tiny_repo, value):
    """Or a folder that is called ~ is made, and somebody removes it with rm -r ~."""
    config = write_config(tiny_repo, f"RUN_ID=x\nOUT_DIR={value}\n")
    done = golf(tiny_repo, config=config, HOME="/home/me")
    assert done.returncode == 2 and "mine.env:2: ~ and $NAME are not expanded" in one_line(done.stderr)
    if value.endswith(("HOME/x", "HOME}/x", "HOME/x'", 'HOME}/x"', "'~/x'")) or value == "~/x":
        assert done.stderr.endswith("write /home/me/x\n")
    for given in ({"OUT_DIR": value.strip("'\"")}, {}):
        words = () if given else (f"OUT_DIR={value.strip(chr(39) + chr(34))}",)
        assert golf(tiny_repo, *words, **given).returncode == 2
    assert not [path for path in tiny_repo.rglob("*") if set("~$") & set(path.name)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"A=1\nB=\xe9\n", "not UTF-8 text (byte 6)"),
        ("A=1\n".encode("utf-16"), "not UTF-8 text"),
        (b"A=1\n" * (1 << 19), "over 1,048,576 bytes"),
        (None, "cannot be read (Is a directory)"),
    ],
)
def test_what_is_no_env_file_is_refused_in_a_line(tmp_path, content, words):
    path = tmp_path / "a.env"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(GolfError, match=re.escape(words)):
        envfile.parse(path)
    with pytest.raises(GolfError, match=r"over 1,048,576 bytes"):
        envfile.parse(Path("/dev/zero"))


def test_names_that_libraries_read_are_accepted(tiny_repo):
    names = """GLOO_SOCKET_IFNAME TOKENIZERS_PARALLELISM UCX_TLS KMP_AFFINITY MKL_NUM_THREADS TMPDIR
        OPENBLAS_NUM_THREADS TRITON_CACHE_DIR TORCHINDUCTOR_CACHE_DIR LD_LIBRARY_PATH http_proxy
        AGX_RELAX_CDM_CTXSTORE_TIMEOUT NVIDIA_TF32_OVERRIDE MALLOC_ARENA_MAX PYTHONHASHSEED CC TZ"""
    for name in names.split():
        assert envfile.is_known(name, {}), name
    for name in ("TMPDIRR", "MODEL_DIMM", "LRATE", "PROXY"):
        assert not envfile.is_known(name, {}), name


def test_names_that_our_messages_recommend_are_accepted():
    """Every NAME=value in a message or a page of this repository can stand in a config."""
    knobs = trainers.read_knobs(REPO / "train_gpt.py", trainers.child_env({}))
    knobs |= trainers.read_knobs(REPO / "train_gpt_mlx.py", trainers.child_env({}))
    paths = [*REPO.glob("scripts/**/*.py"), *REPO.glob("data/*.py"), *REPO.glob("*.py"), REPO / "README.md",
             *REPO.glob("docs/*.md"), *REPO.glob("data/*.md"), *REPO.glob("configs/*.env")]  # fmt: skip
    found = set()
    for path in paths:
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"\b(?:set|export|with|or|unset) `?([A-Z][A-Z0-9]*_[A-Z0-9_]+)=?\b", text))
        found |= set(re.findall(r"\b([A-Z][A-Z0-9]*_[A-Z0-9_]+)=[\w./-]", text))
    assert {"TORCH_INDEX_URL", "AGX_RELAX_CDM_CTXSTORE_TIMEOUT", "OUT_DIR", "HF_ENDPOINT"} <= found
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.suffix == ".py")
    ours = set(re.findall(r"(?m)^\s*([A-Z][A-Z0-9_]+)\b[^=\n]* = ", code))  # constants
    strange = {name for name in found - ours if not envfile.is_known(name, knobs)}
    assert not strange


def test_env_file_runs_nothing(tiny_repo):
    config = write_config(tiny_repo, f"MODEL_DIM=$(touch '{tiny_repo}/pwned')\n")
    done = golf(tiny_repo, config=config)
    assert done.returncode == 2 and "mine.env:1" in one_line(done.stderr)
    config = write_config(tiny_repo, f"RUN_ID=x; touch '{tiny_repo}/pwned'\n")
    assert golf(tiny_repo, config=config).returncode == 2
    assert not (tiny_repo / "pwned").exists() and not (tiny_repo / "runs").exists()


def test_unknown_name_names_the_nearest(tiny_repo):
    config = write_config(tiny_repo, "ITERATIONS=3\r\nMODEL_DIMM=64\r\n")
    done = golf(tiny_repo, config=config)
    assert done.returncode == 2
    assert "mine.env:2" in done.stderr and "did you mean MODEL_DIM?" in one_line(done.stderr)
    names = "TRAIN_MAX_SEQ_LEN=1\nOMP_NUM_THREADS=1\nNPROC_PER_NODE=1\nPYTORCH_X=1\nHF_X=1\n"
    assert golf(tiny_repo, config=write_config(tiny_repo, names)).returncode == 0


def test_environment_wins_and_paths_count_from_where_they_stand(tiny_repo, tmp_path):
    config = write_config(tiny_repo, "RUN_ID=a\nMODEL_DIM=64\nDATA_PATH=data/datasets/tiny\n")
    done = run_script(
        "golf.sh", "run", tiny_repo / "configs" / config, "--default", "DEVICE=cpu",
        env={"MODEL_DIM": "32", "OUT_DIR": "here"}, cwd=tmp_path, repo=tiny_repo,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = runlog.read_run(tmp_path / "here" / "a")["start"]["config"]
    assert (settings["MODEL_DIM"], settings["DEVICE"]) == (32, "cpu")
    assert settings["DATA_PATH"] == "data/datasets/tiny"


def test_settings_behind_the_config_do_what_they_do_before_it(tiny_repo):
    config = write_config(tiny_repo, "RUN_ID=a\nMODEL_DIM=64\n")
    done = golf(tiny_repo, "MODEL_DIM=32", "--trainer", "train_gpt.py", "RUN_ID=b", config=config, RUN_ID="c")
    assert done.returncode == 0, done.stderr
    assert runlog.read_run(tiny_repo / "runs/b")["start"]["config"]["MODEL_DIM"] == 32
    env = {"RUN_ID": "d"}
    done = run_script("golf.sh", "run", "MODEL_DIM=16", f"configs/{config}", env=env, repo=tiny_repo)
    assert done.returncode == 0, done.stderr
    assert runlog.read_run(tiny_repo / "runs/d")["start"]["config"]["MODEL_DIM"] == 16
    done = run_script("run_cuda_baseline.sh", f"configs/{config}", "MODEL_DIMM=1", repo=tiny_repo)
    assert done.returncode == 2 and "'MODEL_DIMM=1': unknown name MODEL_DIMM; did you mean MODEL_DIM?" in (
        one_line(done.stderr)
    )
    for words, said in ((["b.env"], "2 configs"), (["--nonsense"], "unrecognized arguments")):
        done = golf(tiny_repo, *words)
        assert done.returncode == 2 and said in done.stderr
    assert golf(tiny_repo, "--no-summary", "x").returncode == 2


def test_a_misspelt_name_in_the_environment_is_told(tiny_repo):
    done = golf(tiny_repo, MODEL_DMI="3", MODEL_DIM="64", SOME_TOOL="x", model_dmi="3")
    assert done.returncode == 0
    assert one_line(done.stderr) == (
        "golf run: warning: MODEL_DMI is set and unknown; did you mean MODEL_DIM?"
    )


# ---- Preflight


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"DATA_PATH": "nowhere"}, "cached_challenge_fineweb.py --variant sp1024"),
        ({"DATA_PATH": "nowhere"}, "`python3 data/build_sample_dataset.py`, then configs/quickstart.env"),
        ({"DATA_PATH": "data/sample_x"}, "build_sample_dataset.py"),
        ({"DATA_PATH": "data/fineweb10B_sp8192"}, "--variant sp8192"),
        ({"VAL_DATA_PATH": "nowhere"}, "VAL_DATA_PATH=nowhere: no fineweb_val_*.bin"),
        ({"TOKENIZER_PATH": "nothing.model"}, "TOKENIZER_PATH=nothing.model"),
        ({"OUT_DIR": "train_gpt.py/runs"}, "OUT_DIR=train_gpt.py/runs: cannot be written"),
        ({"RUN_ID": "../x"}, "RUN_ID='../x'"),
        ({"SEEDS": "1,x"}, "SEEDS='1,x'"),
        ({"SEEDS": "1,1"}, "SEEDS='1,1'"),
        ({"NPROC_PER_NODE": "0"}, "NPROC_PER_NODE='0'"),
    ],
)
def test_preflight_says_what_to_do_and_makes_nothing(tiny_repo, env, words):
    before = sorted(p for p in tiny_repo.rglob("*") if "__pycache__" not in p.parts)
    done = golf(tiny_repo, **env)
    assert done.returncode in (1, 2) and words in one_line(done.stderr)
    assert sorted(p for p in tiny_repo.rglob("*") if "__pycache__" not in p.parts) == before


def test_missing_trainer_package_and_config(tiny_repo):
    done = golf(tiny_repo, "--trainer", "none.py")
    assert done.returncode == 2 and "no trainer there" in one_line(done.stderr)
    (tiny_repo / "mine.py").write_text("import no_such_package_here\n")
    done = golf(tiny_repo, "--trainer", "mine.py")
    assert done.returncode == 2 and "imports no_such_package_here, which is no installed" in one_line(
        done.stderr
    )
    (tiny_repo / "mine.py").write_text("raise SystemExit('broken')\n")
    done = golf(tiny_repo, "--trainer", "mine.py")
    assert done.returncode == 1 and "--knobs failed: broken" in one_line(done.stderr)
    done = golf(tiny_repo, config="none.env")
    assert done.returncode == 2 and "cannot be read" in one_line(done.stderr)


def test_full_disk(tmp_path, monkeypatch):
    usage = type("U", (), {"free": 5, "total": 9})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(GolfError, match="0 MiB free"):
        preflight.check_out_dir(tmp_path / "runs")
    usage.total = usage.free = 0  # a network disk that does not say
    preflight.check_out_dir(tmp_path / "runs")


def check_source(folder, text, **beside):
    for name, source in beside.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    (folder / "t.py").write_text(text, encoding="utf-8")
    trainers.check_trainer(folder / "t.py")


def test_an_import_that_is_nowhere_is_told_before_training(tmp_path):
    check_source(tmp_path, "import json, helper\n", helper="import other\n", other="import math\n")
    check_source(tmp_path, "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n")
    check_source(tmp_path, "def pack():\n    import sentencepiece.x\n")  # a known package, perhaps not needed
    for source, words in (
        ("import nowhere\n", "t.py imports nowhere, which is no installed package"),
        ("def load_scorer():\n    from nowhere.x import y\n", "t.py imports nowhere"),
        ("import golf\n", "t.py imports golf"),
        ("import helper\n", "helper.py imports nothing_such"),
        ("from . import helper\n", r"t.py:1: a script has no package"),
        ("import folder.part\n", "imports folder, a folder"),
        ("import helper2\n", "helper2.py: does not parse"),
        ("\0", "does not parse"),
    ):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "__init__.py").touch()
        with pytest.raises(GolfError, match=words):
            check_source(tmp_path, source, helper="import nothing_such\n", helper2="def\n")


def test_cuda_is_asked_for_where_there_is_none(tmp_path):
    trainer, hidden = tmp_path / "t.py", {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    trainer.write_text("import json\n")
    trainers.check_cuda(trainer, hidden)  # no torch in it: nothing to ask
    trainer.write_text("import torch\n")
    with pytest.raises(GolfError, match="finds no CUDA device"):
        trainers.check_cuda(trainer, hidden)


# ---- Runs


def test_run_ends_with_a_summary(tiny_repo):
    done = golf(tiny_repo, RUN_ID="one")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(r"step:3/3 .*\n", done.stdout)
    for words in (
        "score    val_bpb 1.",
        "bytes    ",
        " to spare",
        "train 0.0",
        "runs/one/",
        "next",
    ):
        assert words in done.stdout
    origin = json.loads((tiny_repo / "runs/one/supervisor.json").read_text())
    assert origin["config"] == "configs/tiny.env" and origin["set"]["ITERATIONS"] == "3"


def test_run_id_defaults_to_config_and_time(tiny_repo):
    assert golf(tiny_repo).returncode == 0
    (made,) = (tiny_repo / "runs").iterdir()
    assert re.fullmatch(r"tiny-\d{8}-\d{6}", made.name)


def test_a_config_may_have_any_name(tiny_repo):
    assert golf(tiny_repo, config=write_config(tiny_repo, "ITERATIONS=3\n", "my (2).env")).returncode == 0
    (made,) = (tiny_repo / "runs").iterdir()
    assert made.name.startswith("my-2-2")


def test_summary_of_a_finished_run_and_of_none(tiny_repo):
    golf(tiny_repo, "--no-summary", RUN_ID="one")
    done = run_script("golf.sh", "summary", "runs/one", "--expect", "1 to 2", repo=tiny_repo)
    assert done.returncode == 0 and re.search(r"score    val_bpb 1\.\d+  \(expect 1 to 2\)", done.stdout)
    done = run_script("golf.sh", "summary", "runs/two", repo=tiny_repo)
    assert done.returncode == 2 and "runs/two: no metrics.jsonl" in one_line(done.stderr)


def test_what_a_summary_lacks_is_left_out(tmp_path):
    events = [
        {"event": "score", "kind": "sliding", "val_bpb": 1.5},
        {"event": "export", "bytes_total": 9, "cap": "x"},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert [line.split()[0] for line in report.summary(tmp_path)] == ["score", "files"]


def test_resume_without_a_run_id_goes_on_with_the_newest_unfinished_run(tiny_repo):
    done = golf(tiny_repo, RESUME="1")
    assert done.returncode == 2 and "no unfinished run tiny-<time> in runs" in one_line(done.stderr)
    ids = ("tiny-20260101-000000", "tiny-20260102-000000", "tiny-20260103-000000")
    for run_id in ids:
        (tiny_repo / "runs" / run_id).mkdir(parents=True)
        (tiny_repo / "runs" / run_id / "train.log").touch()
    (tiny_repo / "runs" / ids[2] / "metrics.jsonl").write_text('{"event": "end", "exit_code": 0}\n')
    done = golf(tiny_repo, RESUME="1")
    assert done.returncode == 0 and f"run      runs/{ids[1]}\n" in done.stdout, done.stderr
    assert f"run      runs/{ids[0]}\n" in golf(tiny_repo, RESUME="auto").stdout
    assert golf(tiny_repo, RESUME="auto").returncode == 0  # all have finished: a new one
    assert len(list((tiny_repo / "runs").iterdir())) == 4


def test_resumed_seeds_without_a_run_id(tiny_repo):
    (tiny_repo / "runs" / "tiny-20260101-000000-s7").mkdir(parents=True)
    done = golf(tiny_repo, RESUME="auto", SEEDS="7,8")
    assert done.returncode == 0, done.stderr
    assert {path.name[-3:] for path in (tiny_repo / "runs").iterdir()} == {"-s7", "-s8"}


def test_same_run_id_twice(tiny_repo):
    assert golf(tiny_repo, RUN_ID="one").returncode == 0
    log = (tiny_repo / "runs/one/train.log").read_bytes()
    done = golf(tiny_repo, RUN_ID="one")
    assert done.returncode == 1 and "already holds a run" in one_line(done.stderr)
    assert (tiny_repo / "runs/one/train.log").read_bytes() == log
    assert golf(tiny_repo, RUN_ID="one", RESUME="1").returncode == 0
    assert golf(tiny_repo, RUN_ID="one", RESUME="auto").returncode == 0


def test_lock(tiny_repo):
    folder = tiny_repo / "runs" / "one"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b"4711")
        file.flush()
        done = golf(tiny_repo, RUN_ID="one")
        assert done.returncode == 1 and "in use by process 4711" in one_line(done.stderr)
        with pytest.raises(GolfError, match="4711"), lock.locked(folder):
            pass
    assert golf(tiny_repo, RUN_ID="one").returncode == 0


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EIO"])
def test_a_disk_without_file_locks_is_told_and_used(tmp_path, monkeypatch, capfd, code):
    def flock(file, how):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    folder = tmp_path / "one"
    with lock.locked(folder):
        (folder / "train.log").touch()
        lock.refuse_used(folder)
    said = one_line(capfd.readouterr().err)
    assert f"no file locks in {folder}" in said and "OUT_DIR" in said
    (folder / "train.log").unlink()
    with lock.locked(folder):
        pass
    assert not folder.exists()


def test_a_lock_that_cannot_be_made_names_the_file(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".lock").mkdir()
    with pytest.raises(GolfError, match=r"one/\.lock: cannot be written \(Is a directory\)"):
        with lock.locked(tmp_path / "one"):
            pass


def test_seeds_end_with_a_table(tiny_repo):
    done = golf(tiny_repo, RUN_ID="r", SEEDS="1337,42, 7")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    table = rows[rows.index(["seed", "val_bpb", "bytes", "seconds"]) + 1 :][:5]
    assert [row[0] for row in table] == ["1337", "42", "7", "mean", "std"]
    scores = [float(row[1]) for row in table]
    assert abs(sum(scores[:3]) / 3 - scores[3]) < 2e-6
    for seed in (1337, 42, 7):
        assert runlog.read_run(tiny_repo / f"runs/r-s{seed}")["start"]["seed"] == seed
    assert "SEEDS" not in json.loads((tiny_repo / "runs/r-s7/supervisor.json").read_text())["set"]


def test_seed_on_the_command_line_beats_seeds_in_the_file(tiny_repo):
    config = write_config(tiny_repo, "SEEDS=1,2\nRUN_ID=x\n")
    assert golf(tiny_repo, config=config, SEED="5").returncode == 0
    assert [p.name for p in (tiny_repo / "runs").iterdir()] == ["x"]


def test_the_other_name_of_a_knob_beats_the_file_too(tmp_path, monkeypatch):
    path = tmp_path / "a.env"
    path.write_text("TRAIN_SEQ_LEN=512\n")
    knobs = {"TRAIN_SEQ_LEN": "512", "TRAIN_MAX_SEQ_LEN": "512"}
    monkeypatch.setenv("TRAIN_MAX_SEQ_LEN", "1024")
    assert envfile.settings(envfile.parse(path), knobs) == {"TRAIN_MAX_SEQ_LEN": "1024"}
    monkeypatch.setenv("TRAIN_SEQ_LEN", "256")
    assert envfile.settings(envfile.parse(path), knobs)["TRAIN_SEQ_LEN"] == "256"


def test_resumed_seeds_keep_what_is_finished(tiny_repo):
    assert golf(tiny_repo, RUN_ID="r-s1", SEED="1").returncode == 0
    done = golf(tiny_repo, RUN_ID="r", SEEDS="1,2", RESUME="1")
    assert done.returncode == 0 and "r-s1 (seed 1) is finished: kept" in done.stdout
    assert runlog.read_run(tiny_repo / "runs/r-s2")["start"]["resumed"] is False


def test_a_failed_run_says_so(tiny_repo):
    done = golf(tiny_repo, RUN_ID="one", FAKE_FAIL="1")
    assert done.returncode == 1
    error, said = done.stderr.strip().splitlines()
    assert "not finite at step 2" in error and "runs/one ended with exit code 1" in said
    assert "next" not in done.stdout
    assert done.stdout.endswith(")\n\n")  # of the script's source: no blank line of ours


def test_out_of_memory_halves_the_micro_batch(tiny_repo):
    done = golf(tiny_repo, RUN_ID="one", FAKE_OOM_ABOVE="1024")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting again") == 2 and "starting again with 1024" in done.stderr
    folder = tiny_repo / "runs/one"
    attempts = sorted(p.name for p in folder.glob("attempt*"))
    assert attempts == [f"attempt{k}.{n}" for k in (1, 2) for n in ("metrics.jsonl", "train.log")]
    assert runlog.read_run(folder)["start"]["micro_batch_tokens"] == 1024
    done = golf(tiny_repo, RUN_ID="two", FAKE_OOM_ABOVE="0")
    assert done.returncode == 3 and "=512, the smallest" in done.stderr


def test_out_of_memory_in_scoring_trains_nothing_again(tiny_repo):
    """A smaller micro-batch would not help; what was trained is kept and said."""
    done = golf(tiny_repo, RUN_ID="one", FAKE_OOM_SCORING="1")
    assert done.returncode == 3 and "starting again" not in done.stderr
    artifact = "runs/one/final_model.int8.zlib"
    assert f"with a smaller VAL_BATCH_SIZE EVAL_ONLY={artifact} scores" in done.stderr
    assert "RESUME=1 ends the run" in done.stderr
    assert (tiny_repo / artifact).exists() and not list(tiny_repo.glob("runs/*/attempt*"))
    done = golf(tiny_repo, RUN_ID="two", FAKE_OOM_ABOVE="1024", EVAL_ONLY="a b.zlib")
    assert done.returncode == 3 and "starting again" not in done.stderr
    assert "with a smaller VAL_BATCH_SIZE EVAL_ONLY='a b.zlib'" in done.stderr
    assert "RESUME" not in done.stderr


def test_an_older_attempts_artifact_is_not_what_was_scored(tmp_path):
    """A resumed run's metrics go on where an earlier one's ended."""
    job = run.SeedRun(tmp_path / "t.py", {}, "", tmp_path, world=1)
    facts = {"export": {"time": 1.0, "artifact": "a"}, "start": {"time": 2.0}}
    assert run.scored_artifact(job, facts) is None
    facts["start"]["time"] = 0.5
    assert run.scored_artifact(job, facts).endswith("/a")


def test_a_given_micro_batch_that_was_halved_can_be_submitted(tiny_repo):
    done = golf(tiny_repo, RUN_ID="one", FAKE_OOM_ABOVE="2048", MICRO_BATCH_TOKENS="4096")
    assert done.returncode == 0, done.stderr
    origin = json.loads((tiny_repo / "runs/one/supervisor.json").read_text())
    assert origin["set"]["MICRO_BATCH_TOKENS"] == "2048"
    done = run_script("golf.sh", "new", "runs/one", repo=tiny_repo)
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAIL ")]
    assert done.returncode == 0 and not [f for f in failures[:-1] if "placeholder" not in f]


def test_processes_share_the_cores_unless_told_otherwise(tmp_path, monkeypatch):
    given = []

    class Supervisor:
        stops = 0

        def run(self, command, env, metrics):
            given.append(env["OMP_NUM_THREADS"])
            return 0

        def print(self, text):
            pass

    job = run.SeedRun(tmp_path / "t.py", {}, "", tmp_path, world=2)
    monkeypatch.setattr(machine, "affinity", lambda: 16)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    for value in (None, "3"):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if value:
            monkeypatch.setenv("OMP_NUM_THREADS", value)
        run.run_one(job, tmp_path / "c.env", Supervisor())
    assert given == ["8", "3"]
    assert "OMP_NUM_THREADS" not in json.loads((tmp_path / "supervisor.json").read_text())["set"]


def write_group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text, encoding="utf-8")


def test_processors_by_affinity_and_quota(tmp_path, monkeypatch):
    own, two, one = tmp_path / "own", tmp_path / "v2", tmp_path / "v1"
    own.write_text("0::/a/b\n", encoding="utf-8")
    assert machine.cpu_quota(two, own) is None
    write_group(two / "a" / "b", cpu_max="max 100000\n")
    assert machine.cpu_quota(two, own) is None
    write_group(two / "a", cpu_max="350000 100000\n")  # of the group above
    assert machine.cpu_quota(two, own) == 3.5
    write_group(two, cpu_max="50000 100000\n")
    assert machine.cpu_quota(two, own) == 0.5
    own.write_text("5:memory:/x\n4:cpu,cpuacct:/docker/7\nnonsense\n", encoding="utf-8")
    write_group(one / "cpu,cpuacct" / "docker", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    assert machine.cpu_quota(one, own) is None
    write_group(one / "cpu", cpu_cfs_quota_us="200000", cpu_cfs_period_us="100000")  # as a container sees it
    assert machine.cpu_quota(one, own) == 2
    assert machine.cpu_quota(one, tmp_path / "nowhere") is None

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "affinity", lambda: 8)
    for quota, processes, threads in (
        (None, 1, None), (3.5, 1, "3"), (0.5, 1, "1"), (None, 2, "4"), (3.5, 2, "1"), (64, 16, "1"),
    ):  # fmt: skip
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        assert machine.thread_settings(processes).get("OMP_NUM_THREADS") == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert machine.thread_settings(2) == {"OMP_WAIT_POLICY": "PASSIVE"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert machine.thread_settings(2) == {}


def test_ranks_of_one_machine_meet_at_the_loopback_address(tmp_path, monkeypatch):
    command = " ".join(run.SeedRun(tmp_path / "t.py", {}, "", tmp_path, world=2).command)
    assert "--rdzv-endpoint=127.0.0.1:0" in command and "--local-addr=127.0.0.1" in command
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert machine.loopback() in ({"GLOO_SOCKET_IFNAME": "lo"}, {"GLOO_SOCKET_IFNAME": "lo0"})
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    assert machine.loopback() == {}


@pytest.mark.parametrize(("used", "smaller"), [(4096, 2048), (1536, 512), (512, None), (4608, 1536)])
def test_smaller_micro_batch_divides_the_batch(used, smaller):
    facts = {"start": {"micro_batch_tokens": used, "config": {"TRAIN_SEQ_LEN": 512}}}
    assert run.smaller_micro_batch(facts, {})[1] == smaller


def start(repo, **env):
    """A supervised run of a minute in the background, once its second step is logged."""
    env = {**os.environ, "PYTHON": sys.executable, "RUN_ID": "one", "FAKE_STEPS": "600",
           "FAKE_STEP_SECONDS": "0.1", **env}  # fmt: skip
    command = ["bash", str(repo / "scripts" / "golf.sh"), "run", str(repo / "configs/tiny.env")]
    process = subprocess.Popen(command, env=env, cwd=repo, stdout=subprocess.PIPE, stderr=2)
    metrics, until = repo / "runs/one/metrics.jsonl", time.monotonic() + HANG_SECONDS
    while not (metrics.exists() and metrics.read_text().count('"step"') > 1):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return process


def child_of(process) -> int:
    """The trainer's process id."""
    return next(iter(descendants(process.pid, levels=1)))


def gone(pid: int) -> bool:
    until = time.monotonic() + HANG_SECONDS
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_first_signal_lets_the_run_finish(tiny_repo, number):
    process = start(tiny_repo, SEEDS="")
    process.send_signal(number)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
    assert b"noted    training was stopped early" in output and b"score    val_bpb" in output
    assert runlog.read_run(tiny_repo / "runs/one")["end"]["exit_code"] == 0


def test_second_signal_ends_it_at_once(tiny_repo):
    process = start(tiny_repo, FAKE_STEP_SECONDS="1")
    child = child_of(process)
    while process.poll() is None:  # a second one too soon after the first is taken for its echo
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    process.communicate()
    assert process.returncode == 130 and gone(child)
    assert "end" not in runlog.read_run(tiny_repo / "runs/one")


def test_what_is_left_after_a_run_was_ended_at_once_is_told(tmp_path):
    assert "nothing to go on from" in run.how_to_go_on(tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    assert f"RUN_ID={tmp_path.name} RESUME=1 goes on from checkpoint.pt" in run.how_to_go_on(tmp_path)


def test_a_login_that_ends_says_so_more_than_once(tiny_repo):
    """SIGHUP from the shell and the terminal, SIGTERM beside it, `timeout`'s two: one request."""
    process = start(tiny_repo, FAKE_STEP_SECONDS="0.5")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1):
        process.send_signal(number)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0 and b"noted    training was stopped early" in output


def test_under_nohup_the_end_of_the_login_is_ignored():
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from golf.core.processes import handle_stops\n"
        "handle_stops(print); print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert done.stdout == b"True\n", done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_run_is_prepared_ends_it_in_a_line(tiny_repo, number):
    trainer = tiny_repo / "slow.py"
    source = "import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(60)\n"
    trainer.write_text(source, encoding="utf-8")
    command = ["bash", "scripts/golf.sh", "run", "configs/tiny.env", "--trainer", "slow.py"]
    env = {**os.environ, "PYTHON": sys.executable}
    process = subprocess.Popen(command, env=env, cwd=tiny_repo, stderr=subprocess.PIPE)
    until = time.monotonic() + HANG_SECONDS
    while not (tiny_repo / "here").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    child = child_of(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130 and gone(child)
    assert one_line(errors.decode()) == "golf run: stopped"
    assert not (tiny_repo / "runs").exists()


def test_a_terminal_that_goes_away_ends_no_run(tiny_repo):
    """Its reads and writes fail with EIO, not EPIPE; the run saves what it has."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHON": sys.executable, "RUN_ID": "one"}
    env |= {"FAKE_STEPS": "20", "FAKE_STEP_SECONDS": "0.1"}
    command = ["bash", str(tiny_repo / "scripts/golf.sh"), "run", str(tiny_repo / "configs/tiny.env")]
    process = subprocess.Popen(command, env=env, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    process.wait(timeout=HANG_SECONDS)
    assert runlog.read_run(tiny_repo / "runs/one")["end"]["exit_code"] == 0
    assert process.returncode == 0


def test_output_that_cannot_be_written_is_one_line(tiny_repo):
    env = {**os.environ, "PYTHON": sys.executable}

    def said(command):
        command = ["bash", "-c", f"bash scripts/golf.sh {command}"]
        done = subprocess.run(command, env=env, cwd=tiny_repo, capture_output=True, timeout=HANG_SECONDS)
        assert b"Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr.decode()

    code, text = said("run configs/tiny.env RUN_ID=one > /dev/full")
    assert code == 0 and runlog.read_run(tiny_repo / "runs/one")["end"]["exit_code"] == 0
    code, text = said("compare runs/one runs/one --track track_tiny > /dev/full")
    assert code == 2 and "No space left on device" in one_line(text)
    assert said("compare runs/one runs/one --track track_tiny >&-")[0] in (0, 1)
    assert said("run configs/none.env 2>&-") == (2, "")


def test_tools_start_without_docstrings(tiny_repo):
    """PYTHONOPTIMIZE=2, which some images set, strips them."""
    for args in ((), ("run", "-h"), ("check", "-h"), ("new", "-h"), ("bench", "-h")):
        done = run_script("golf.sh", *args, env={"PYTHONOPTIMIZE": "2"}, repo=tiny_repo)
        assert done.returncode == 0 and "usage" in done.stdout, done.stderr
    for script in ("build_sample_dataset.py", "build_sample_text.py", "cached_challenge_fineweb.py"):
        done = run_script(f"data/{script}", "-h", env={"PYTHONOPTIMIZE": "2"})
        assert done.returncode == 0 and "usage" in done.stdout, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's parent-death signal")
def test_no_child_outlives_a_killed_supervisor(tiny_repo):
    process = start(tiny_repo)
    child = child_of(process)
    process.kill()
    process.communicate(timeout=HANG_SECONDS)
    assert gone(child)


def test_progress_bar_on_a_terminal(tiny_repo):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    env = {**os.environ, "PYTHON": sys.executable, "RUN_ID": "one", "FAKE_STEPS": "5",
           "FAKE_STEP_SECONDS": "0.3"}  # fmt: skip
    command = [
        "bash",
        str(tiny_repo / "scripts/golf.sh"),
        "run",
        str(tiny_repo / "configs/tiny.env"),
    ]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=theirs, timeout=HANG_SECONDS)
    os.set_blocking(ours, False)
    shown = os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert re.search(rb"train: +\d+%\|.*step \d loss \d", shown)


def test_reader_that_goes_away_ends_no_run(tiny_repo):
    env = {**os.environ, "PYTHON": sys.executable, "RUN_ID": "one"}
    command = f"bash '{tiny_repo}/scripts/golf.sh' run '{tiny_repo}/configs/tiny.env' | head -1"
    subprocess.run(["bash", "-c", command], env=env, capture_output=True, timeout=HANG_SECONDS)
    assert runlog.read_run(tiny_repo / "runs/one")["end"]["exit_code"] == 0


def test_several_processes_go_through_torchrun(tiny_repo):
    done = golf(tiny_repo, RUN_ID="one", NPROC_PER_NODE="2")
    assert done.returncode == 0, done.stderr
    assert runlog.read_run(tiny_repo / "runs/one")["start"]["world_size"] == 2


@pytest.mark.slow
def test_out_of_memory_and_a_signal_under_torchrun(tiny_repo):
    done = golf(tiny_repo, RUN_ID="two", NPROC_PER_NODE="2", FAKE_OOM_ABOVE="2048")
    assert done.returncode == 0 and "starting again with 2048" in done.stderr
    process = start(tiny_repo, NPROC_PER_NODE="2")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0 and b"noted    training was stopped early" in output
