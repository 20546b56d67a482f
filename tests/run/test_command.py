"""Runs under golf run, with a fake trainer: settings, seeds, memory, resuming."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import HANG_SECONDS, passed, refused, run_golf, run_script, write_events
from golf.core import envfile, lock, machine, runlog
from golf.core.errors import GolfError
from golf.run import command as run

from run.conftest import golf, one_line, write_config


def test_run_ends_with_a_summary(tiny_repo):
    done = passed(golf(tiny_repo, RUN_ID="one"))
    assert done.stderr == "" and not (tiny_repo / "runs/one/report.html").exists(), "REPORT=0 in all tests"
    assert re.search(r"step:3/3 .*\n", done.stdout)
    for words in ("score    val_bpb 1.", "bytes    ", " to spare", "train 0.0", "runs/one/", "next"):
        assert words in done.stdout
    origin = json.loads((tiny_repo / "runs/one/supervisor.json").read_text())
    assert origin["config"] == "configs/tiny.env" and origin["set"]["ITERATIONS"] == "3"


def test_run_id_defaults_to_the_configs_name_whatever_it_is_and_the_time(tiny_repo):
    assert golf(tiny_repo, config=write_config(tiny_repo, "ITERATIONS=3\n", "my (2).env")).returncode == 0
    (made,) = (tiny_repo / "runs").iterdir()
    assert re.fullmatch(r"my-2-\d{8}-\d{6}", made.name)


@pytest.mark.parametrize(("ends", "told"), [
    ("", "golf run: error: mine.py ended without metrics.jsonl; is it whole?"),
    ("sys.exit('mine.py: error: x')", "mine.py: error: x"),
    ("sys.exit(1)", "golf run: runs/one ended with exit code 1; see the error above"),
])  # fmt: skip
def test_a_trainer_that_ends_before_its_log_has_failed_and_is_told_once(tiny_repo, ends, told):
    knobs = "import sys\nif sys.argv[1:]:\n    sys.exit(print('RUN_ID x # name'))\n"
    (tiny_repo / "mine.py").write_text(knobs + ends)
    config = write_config(tiny_repo, "")
    done = golf(tiny_repo, "--trainer", tiny_repo / "mine.py", "RUN_ID=one", config=config)
    assert done.returncode == 1 and one_line(done.stderr) == told
    assert "next" not in done.stdout and not (tiny_repo / "runs/one").exists()


@pytest.mark.slow
def test_same_run_id_twice(tiny_repo):
    assert golf(tiny_repo, RUN_ID="one").returncode == 0
    log = (tiny_repo / "runs/one/train.log").read_bytes()
    refused(golf(tiny_repo, RUN_ID="one"), "already holds a run", code=1)
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
        refused(golf(tiny_repo, RUN_ID="one"), "in use by process 4711", code=1)
        with pytest.raises(GolfError, match="4711"), lock.locked(folder):
            pass
    assert golf(tiny_repo, RUN_ID="one").returncode == 0


def test_seeds_end_with_a_table(tiny_repo):
    done = passed(golf(tiny_repo, RUN_ID="r", SEEDS="1337,42, 7"))
    rows = [line.split() for line in done.stdout.splitlines()]
    table = rows[rows.index(["seed", "val_bpb", "bytes", "seconds"]) + 1 :][:5]
    assert [row[0] for row in table] == ["1337", "42", "7", "mean", "std"]
    scores = [float(row[1]) for row in table]
    assert abs(sum(scores[:3]) / 3 - scores[3]) < 2e-6
    for seed in (1337, 42, 7):
        assert runlog.read_run(tiny_repo / f"runs/r-s{seed}")["start"]["seed"] == seed
    assert "SEEDS" not in json.loads((tiny_repo / "runs/r-s7/supervisor.json").read_text())["set"]


def test_seed_on_the_command_line_beats_seeds_in_the_file(tiny_repo):
    assert golf(tiny_repo, config=write_config(tiny_repo, "SEEDS=1,2\nRUN_ID=x\n"), SEED="5").returncode == 0
    assert [p.name for p in (tiny_repo / "runs").iterdir()] == ["x"]


def test_the_other_name_of_a_knob_beats_the_file_too(tmp_path, monkeypatch):
    path = tmp_path / "a.env"
    path.write_text("TRAIN_SEQ_LEN=512\n")
    knobs = {"TRAIN_SEQ_LEN": "512", "TRAIN_MAX_SEQ_LEN": "512"}
    monkeypatch.delenv("REPORT", raising=False)  # set for all tests
    monkeypatch.setenv("TRAIN_MAX_SEQ_LEN", "1024")
    assert envfile.settings(envfile.parse(path), knobs) == {"TRAIN_MAX_SEQ_LEN": "1024"}
    monkeypatch.setenv("TRAIN_SEQ_LEN", "256")
    assert envfile.settings(envfile.parse(path), knobs)["TRAIN_SEQ_LEN"] == "256"


def test_a_signal_behind_the_last_line_ends_no_run(tmp_path):
    """The trainer's process lives on for a moment; what it made is whole."""

    def ended(*_):
        write_events(tmp_path, {"event": "start", "time": 1}, {"event": "end", "time": 2, "exit_code": 0})
        return run.STOPPED

    told = []
    supervisor = SimpleNamespace(stops=1, say=told.append, print=lambda text: None, run=ended)
    one = run.SeedRun(tmp_path / "t.py", {}, "", tmp_path, 1)
    codes = [run.run_one(one, tmp_path / "c.env", supervisor, {}, "") for _ in range(2)]
    assert codes == [0, 130] and "was ended" in told[0]  # the second time it was finished before


def test_resumed_seeds_keep_what_is_finished_and_what_was_never_begun_begins(tiny_repo):
    """One job script, always with RESUME=1, serves the first start and every requeue."""
    passed(golf(tiny_repo, RUN_ID="r-s1", SEED="1"))
    done = passed(golf(tiny_repo, RUN_ID="r", SEEDS="1,2", RESUME="1"))
    assert "r-s1 (seed 1) is finished: kept" in done.stdout
    begun = runlog.read_run(tiny_repo / "runs/r-s2")
    assert begun["start"]["resumed"] is False and begun["end"]["exit_code"] == 0


def test_new_is_next_where_a_track_has_such_data(tiny_repo):
    assert "next     bash scripts/golf.sh new runs/one" in golf(tiny_repo, RUN_ID="one").stdout
    shutil.copytree(tiny_repo / "data/datasets/tiny", tiny_repo / "own")
    done = passed(golf(tiny_repo, RUN_ID="two", DATA_PATH="own"))
    assert "files    runs/two/" in done.stdout and "next" not in done.stdout


def test_a_failed_run_says_so(tiny_repo):
    done = golf(tiny_repo, RUN_ID="one", FAKE_FAIL="1")
    assert done.returncode == 1
    error, said = done.stderr.strip().splitlines()
    assert "not finite at step 2" in error and "runs/one ended with exit code 1" in said
    assert "next" not in done.stdout
    assert done.stdout.endswith(")\n\n")  # of the script's source: no blank line of ours


@pytest.mark.slow
def test_out_of_memory_halves_the_micro_batch_and_the_run_can_be_submitted(tiny_repo):
    done = passed(golf(tiny_repo, RUN_ID="one", FAKE_OOM_ABOVE="1024", MICRO_BATCH_TOKENS="4096"))
    assert done.stderr.count("starting again") == 2
    assert "starting again with MICRO_BATCH_TOKENS=1024" in done.stderr
    folder = tiny_repo / "runs/one"
    attempts = sorted(p.name for p in folder.glob("attempt*"))
    assert attempts == [f"attempt{k}.{n}" for k in (1, 2) for n in ("metrics.jsonl", "train.log")]
    assert runlog.read_run(folder)["start"]["micro_batch_tokens"] == 1024
    assert json.loads((folder / "supervisor.json").read_text())["set"]["MICRO_BATCH_TOKENS"] == "1024"
    done = passed(run_golf("new", "runs/one", repo=tiny_repo))
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAIL ")]
    assert not [f for f in failures[:-1] if "placeholder" not in f]
    done = golf(tiny_repo, RUN_ID="two", FAKE_OOM_ABOVE="0")
    assert done.returncode == 3 and "=512, the smallest" in done.stderr


def insert(repo, before, code):
    """Adds code to the fake trainer."""
    text = (repo / "train_gpt.py").read_text()
    assert text.count(before) == 1
    (repo / "train_gpt.py").write_text(text.replace(before, code + before))


def test_out_of_memory_beside_a_failed_graph_starts_again_without(tiny_repo):
    """PyTorch cannot give back what a failed capture holds; if that is not enough, the batch is halved."""
    insert(tiny_repo, "    if int(run.knobs", '    run.fact("warm_up", graph=False)\n')
    done = passed(golf(tiny_repo, RUN_ID="one", COMPILE="auto", FAKE_OOM_ABOVE="2048"))
    again = re.findall(r"starting again with (\S+)", done.stderr)
    assert again == ["COMPILE=nograph", "MICRO_BATCH_TOKENS=2048"]


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


def test_an_artifact_that_is_scored_alone_is_no_run_to_sum_up(tiny_repo):
    """EVAL_ONLY writes no files: there is nothing to report, to list or to make a folder of."""
    line = "final_sliding_window_exact val_loss:1 val_bpb:1 seq_len:2 stride:1 targets:3"
    code = f'    if os.environ.get("EVAL_ONLY"):\n        return print("{line}")\n'
    insert(tiny_repo, "    run = Run(", code)
    done = passed(golf(tiny_repo, RUN_ID="one", REPORT="1", EVAL_ONLY="a.zlib"))
    assert done.stderr == "" and done.stdout.endswith(f"{line}\n")
    assert not (tiny_repo / "runs" / "one").exists()


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(tiny_repo):
    """`new` writes the command to repeat a run from supervisor.json."""
    passed(golf(tiny_repo, RUN_ID="one"))
    origin = (tiny_repo / "runs/one/supervisor.json").read_bytes()
    code = '    if os.environ["RESUME"] == "1":\n        return 2\n'
    insert(tiny_repo, "    run = Run(", code)
    done = golf(tiny_repo, RUN_ID="one", RESUME="1", MODEL_DIM="128")
    assert done.returncode == 2
    assert (tiny_repo / "runs/one/supervisor.json").read_bytes() == origin


def test_an_older_attempts_artifact_is_not_what_was_scored(tmp_path):
    """A resumed run's metrics go on where an earlier one's ended."""
    job = run.SeedRun(tmp_path / "t.py", {}, "", tmp_path, world=1)
    for kinds, scored in (("start export end start", False), ("start export end start export", True)):
        write_events(tmp_path, *({"event": kind, "artifact": "a", "exit_code": 0} for kind in kinds.split()))
        assert bool(run.scored_artifact(job, runlog.read_run(tmp_path))) == scored
        assert not run.finished(tmp_path)


def test_processes_share_the_cores_unless_told_otherwise(tmp_path, monkeypatch):
    def take(command, env, metrics, spelt):
        assert not {"RANK", "WORLD_SIZE"} & set(env), "torchrun sets them"
        given.append(env["OMP_NUM_THREADS"])
        return 0

    given, supervisor = [], SimpleNamespace(stops=0, print=lambda text: None, run=take)
    job = run.SeedRun(tmp_path / "t.py", {}, "", tmp_path, world=2)
    monkeypatch.setattr(machine, "affinity", lambda: 16)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    monkeypatch.setenv("RANK", "1")  # left over from another launcher
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run.run_one(job, tmp_path / "c.env", supervisor, {}, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run.run_one(job, tmp_path / "c.env", supervisor, {}, "")
    assert given == ["8", "3"]
    assert "OMP_NUM_THREADS" not in json.loads((tmp_path / "supervisor.json").read_text())["set"]


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_tools_start_without_docstrings(tiny_repo):
    """PYTHONOPTIMIZE=2, which some images set, strips them."""
    for args in ((), ("run", "-h"), ("check", "-h"), ("new", "-h"), ("bench", "-h")):
        done = run_script("golf.sh", *args, env={"PYTHONOPTIMIZE": "2"}, repo=tiny_repo)
        assert done.returncode == 0 and "usage" in done.stdout, done.stderr
    for script in ("build_sample_dataset.py", "build_sample_text.py", "cached_challenge_fineweb.py"):
        done = run_script(f"data/{script}", "-h", env={"PYTHONOPTIMIZE": "2"})
        assert done.returncode == 0 and "usage" in done.stdout, done.stderr
