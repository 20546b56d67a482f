"""golf.sh sweep: what it runs, in which order, what it repeats and what it says."""

import csv
import os
import re

import pytest
from conftest import passed, refused, run_golf
from golf import cli
from golf.core import lock
from golf.sweep import engines, plan, table

FILE = """
config = "configs/tiny.env"
seeds = [1, 2]
[rows.base]
[rows.wide]
MODEL_DIM = 256
"""


def sweep(repo, *args, env=None):
    return run_golf("sweep", *args, repo=repo, env=env)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """A tiny run has ended before a sweep usually looks."""
    monkeypatch.setattr(engines, "WAIT_SECONDS", 0.05)


def rows_of(repo, name="tiny"):
    with (repo / "runs" / name / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(repo, text, name="tiny.toml"):
    path = repo / name
    path.write_text(text)
    return path


def test_rows_and_seeds_become_runs_and_a_table(tiny_repo):
    passed(sweep(tiny_repo, write(tiny_repo, FILE)))
    found = rows_of(tiny_repo)
    order = [(r["row"], r["seed"]) for r in found]
    assert order == [("base", "1"), ("wide", "1"), ("base", "2"), ("wide", "2")]
    assert all(r["status"] == "done" and float(r["val_bpb"]) > 0 for r in found)
    assert [r["settings"] for r in found[:2]] == ["", "MODEL_DIM=256"]
    lines = (tiny_repo / "runs/tiny/table.md").read_text().splitlines()
    assert len(lines) == 4 and lines[3].startswith("| wide | 2 | ")
    assert (tiny_repo / "runs/tiny/plot.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.slow
def test_a_finished_run_is_never_repeated_and_the_same_command_goes_on(tiny_repo):
    path = write(tiny_repo, FILE)
    assert "0 s are over" in sweep(tiny_repo, path, "--for", "0").stdout
    assert {r["status"] for r in rows_of(tiny_repo)} == {"open"}
    sweep(tiny_repo, path, "SEEDS=1")
    log = tiny_repo / "runs/tiny/base-s1/metrics.jsonl"
    before = log.read_bytes(), log.stat().st_mtime_ns
    assert "4 runs, 2 finished before" in sweep(tiny_repo, path).stdout
    assert (log.read_bytes(), log.stat().st_mtime_ns) == before
    assert {r["status"] for r in rows_of(tiny_repo)} == {"done"}


@pytest.mark.slow
def test_a_row_whose_settings_changed_does_not_take_the_old_run(tiny_repo):
    sweep(tiny_repo, write(tiny_repo, FILE), "SEEDS=1")
    done = sweep(tiny_repo, write(tiny_repo, FILE.replace("256", "512")), "SEEDS=1")
    refused(done, "wide-s1 was run with MODEL_DIM=256, its row now has 512")
    done = sweep(tiny_repo, write(tiny_repo, FILE.replace("MODEL_DIM = 256", "")), "ITERATIONS=4", "SEEDS=1")
    refused(done, "base-s1 was run with ITERATIONS=3, its row now has 4")


@pytest.mark.slow
def test_a_run_of_another_config_environment_or_script_is_not_taken(tiny_repo):
    words = ["configs/tiny.env", "SEEDS=1"]
    config, script = tiny_repo / "configs/tiny.env", tiny_repo / "train_gpt.py"
    passed(sweep(tiny_repo, *words))
    done = passed(sweep(tiny_repo, *words, env={"MICRO_BATCH_TOKENS": "512"}))
    assert "1 runs, 1 finished before" in done.stdout
    (tiny_repo / "elsewhere").mkdir()
    data = {"DATA_PATH": "../data/datasets/tiny"}  # the same place
    passed(run_golf("sweep", config, "SEEDS=1", repo=tiny_repo, cwd=tiny_repo / "elsewhere", env=data))
    refused(sweep(tiny_repo, *words, env={"SEED": "2", "MODEL_DIM": "7"}), "MODEL_DIM=192, its row now has 7")
    before = config.read_text()
    config.write_text(before + "MODEL_DIM=192\nTRAIN_SEQ_LEN=64\n")
    refused(sweep(tiny_repo, *words), "as-is-s1 was run with TRAIN_SEQ_LEN=512, its row now has 64")
    log = tiny_repo / "runs/tiny-sweep/as-is-s1/metrics.jsonl"
    log.write_text(log.read_text().replace('"event": "end"', '"event": "no"'))  # it will be resumed
    (log.parent / "checkpoint.pt").touch()
    refused(sweep(tiny_repo, *words), "TRAIN_SEQ_LEN=512, its row now has 64")
    (log.parent / "checkpoint.pt").unlink()
    passed(sweep(tiny_repo, *words))
    config.write_text(before)
    script.write_text(script.read_text() + "\n")
    refused(sweep(tiny_repo, *words), "train_gpt.py has changed since runs/tiny-sweep/as-is-s1 was run")


def test_a_run_on_shards_that_changed_since_is_not_taken(tiny_repo):
    words, data = ["configs/tiny.env", "SEEDS=1", "REPORT=0"], tiny_repo / "data/datasets/tiny"
    passed(sweep(tiny_repo, *words))
    shard, another = data / "fineweb_train_000000.bin", data / "fineweb_train_1.bin"
    when = shard.stat().st_mtime_ns
    for change, undo in (
        (lambda: os.utime(shard, (0, 0)), lambda: os.utime(shard, ns=(when, when))),
        (another.touch, another.unlink),
    ):
        change()
        refused(sweep(tiny_repo, *words), "shards of its data have changed since runs/tiny-sweep/as-is-s1")
        undo()
        passed(sweep(tiny_repo, *words))


@pytest.mark.slow
def test_a_run_that_fails_is_skipped_and_tried_again(tiny_repo):
    words = ["configs/tiny.env", "MODEL_DIM=64,128", "--name", "odd"]
    done = sweep(tiny_repo, *words, env={"FAKE_FAIL": "1"})
    assert done.returncode == 1 and done.stdout.count("failed (exit code 1)") == 2
    assert [r["status"] for r in rows_of(tiny_repo, "odd")] == ["failed", "failed"]
    done = passed(sweep(tiny_repo, *words))
    assert [r["row"] for r in rows_of(tiny_repo, "odd")] == ["MODEL_DIM-64", "MODEL_DIM-128"]


def test_a_row_that_no_trainer_takes_does_not_end_the_sweep(tiny_repo):
    rows = FILE.replace("[rows.wide]", "[rows.broken]\nNPROC_PER_NODE = 9999\n[rows.wide]")
    done = sweep(tiny_repo, write(tiny_repo, rows), "SEEDS=1")
    assert done.returncode == 1 and "NPROC_PER_NODE='9999': give a whole number" in done.stdout
    assert [r["status"] for r in rows_of(tiny_repo)] == ["done", "failed", "done"]
    assert rows_of(tiny_repo)[0]["bytes"].isdigit() and rows_of(tiny_repo)[0]["tokens"] == "1536"


def test_a_sweep_that_is_stopped_says_how_to_go_on(tiny_repo, monkeypatch):
    def stop(engine):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines.Local, "ended", stop)
    done = sweep(tiny_repo, "configs/tiny.env", "SEEDS=1")
    assert done.returncode == 130 and done.stderr == ""
    assert "stopped; the same command continues" in done.stdout
    assert done.stdout.endswith("results  runs/tiny-sweep/results.csv, table.md\n")


def test_a_name_that_the_trainer_does_not_know_ends_it_at_once(tiny_repo):
    done = refused(sweep(tiny_repo, "configs/tiny.env", "MODEL_DIMM=64,128"), "MODEL_DIMM")
    assert "2 of 2" not in done.stdout


@pytest.mark.parametrize(("text", "told"), [
    ("config = 3", "config: 3 is not of type 'string'"), ("", "'config' is a required property"),
    ('config = "configs/tiny.env"', r"\[rows.NAME\] tables or one \[grid\]"),
    (FILE + "[grid]\nSEED = [1]\n", "either"), (FILE.replace("seeds", "seed"), "'seed' was unexpected"),
    (FILE.replace("[1, 2]", "[1, 1]"), "different whole numbers"),
    (FILE.replace("[1, 2]", "[]"), "seeds"),
    (FILE.replace("256", "[256]"), "rows.wide.MODEL_DIM: .256. is not of type"),
    (FILE.replace("tiny.env", "absent.env"), "no such file"),
    (FILE.replace("configs/tiny.env", "train_gpt.py"), "not NAME=value"),
    (FILE.replace("MODEL_DIM", "MODEL_DIMM"), "row wide: unknown name MODEL_DIMM; did you mean MODEL_DIM"),
    (FILE.replace("MODEL_DIM", "SEED"), "row wide: a sweep itself sets SEED; give seeds as SEEDS=1,2"),
    (FILE + "[set]\nRUN_ID = 'x'\n", "row base: a sweep itself sets RUN_ID"),
    (FILE.split("[rows")[0] + "[grid]\nMODEL_DIM = []\n", "no rows"),
    ("config =", "tiny.toml: "), (FILE.replace("256", "true"), "True is not of type"),
    (FILE + "[set]\n\"A B\" = 1\n", "'A B' does not match"),
])  # fmt: skip
def test_a_file_that_says_something_wrong_is_refused_in_a_line(tiny_repo, text, told):
    done = sweep(tiny_repo, write(tiny_repo, text))
    assert done.returncode == 2 and re.search(told, done.stderr), done.stderr
    assert "Traceback" not in done.stderr and not (tiny_repo / "runs").exists()


def result(bpb):
    return table.Result(bpb * 1.7, bpb, None, 1000, 1e6, 10, 60)


def test_the_table_tests_each_row_against_the_first(tmp_path):
    rows = [plan.Row("first", {}), plan.Row("better", {}), plan.Row("alone", {}), plan.Row("open", {})]
    made = plan.Sweep(tmp_path, tmp_path, rows, [1, 2, 3], tmp_path, {}, {})
    scores = {"first": [2.0, 2.01, 1.99], "better": [1.9, 1.91, 1.89], "alone": [1.95]}
    results = [(c, result(scores[c.row.name][c.seed - 1])
                if c.seed <= len(scores.get(c.row.name, [])) else None) for c in made.cells()]  # fmt: skip
    first, better, alone, empty = [row.split(" | ") for row in table.markdown(made, results).splitlines()[2:]]
    assert first[1:6] == ["3", "2.0000", "0.0100", "", ""]
    change, low, high = map(float, re.findall(r"[-+][\d.]+", better[4]))
    assert change == -0.1 and low < -0.1 < high < 0
    assert float(better[5]) < 0.001
    assert alone[1:6] == ["1", "1.9500", "", "-0.0500", ""]
    assert empty[1] == "0" and "1.9" not in "".join(empty)


def test_a_grid_is_every_combination():
    rows = plan.grid({"A": ["1", "2"], "B": ["x"]}, {"C": "3"})
    assert [(r.name, r.settings) for r in rows] == [
        ("A-1_B-x", {"A": "1", "B": "x", "C": "3"}), ("A-2_B-x", {"A": "2", "B": "x", "C": "3"}),
    ]  # fmt: skip


def test_a_grid_of_many_names_has_folders_that_a_disk_takes():
    space = {f"SOME_LONG_NAME_{n}": ["0.001", "0.002"] for n in range(12)}
    rows = plan.grid({key: values[: 1 + (key[-1] < "4")] for key, values in space.items()}, {})
    assert len({row.name for row in rows}) == len(rows) == 64 and max(len(row.name) for row in rows) <= 120


def test_one_sweep_of_a_name_at_a_time(tiny_repo):
    with lock.locked(tiny_repo / "runs/tiny-sweep"):
        done = sweep(tiny_repo, "configs/tiny.env", "SEEDS=1")
    refused(done, "is in use by process", "another --name", code=1)
    assert not (tiny_repo / "runs/tiny-sweep").exists()


@pytest.mark.parametrize("words", ["--for nan", "--for=-1", "--search 0", "--each 0", "--each inf"])
def test_a_number_that_no_sweep_can_have_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        cli.parser(["sweep"]).parse_args(["sweep", "x.env", *words.split()])
    assert "allowed is" in capsys.readouterr().err
