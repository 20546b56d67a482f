"""A run's trainer sees the train shards alone; an entry's logs name the data's own folder."""

import json
import os
from pathlib import Path
from unittest import mock

import pytest
from conftest import passed, run_golf, write_shard
from golf.core import lock
from golf.run import view

from run.conftest import golf

LOOK = """
import pathlib
data = pathlib.Path(os.environ["DATA_PATH"])
seen = sorted(item.name for item in data.iterdir())
near = sorted(item.name for q in data.iterdir() for item in q.resolve().parent.iterdir())
val = os.environ.get("VAL_DATA_PATH") or str(data)
print("SAW", seen, near, sorted(item.name for item in pathlib.Path(val).iterdir()))
"""


@pytest.fixture
def repo(tiny_repo):
    """The fake trainer says what lies in its data folders before it runs."""
    script = tiny_repo / "train_gpt.py"
    text = script.read_text()
    assert "\ndef main(" in text
    look = "\nif '--knobs' not in sys.argv:" + LOOK.replace("\n", "\n    ")
    script.write_text(text.replace("\ndef main(", f"{look}\n\ndef main(", 1))
    return tiny_repo


def new(repo) -> Path:
    """The entry made of runs/a. What the check still misses is what a person writes."""
    entry = repo / "records" / "track_tiny" / "entry"
    said = passed(run_golf("new", "runs/a", "--out", entry, repo=repo)).stdout
    failed = [line for line in said.splitlines() if line.startswith(("FAIL ", "NEEDS"))][:-1]
    assert all(line.startswith("FAIL placeholder") for line in failed), said
    return entry


TRAIN, VAL = ["fineweb_train_000000.bin"], ["fineweb_val_000000.bin"]


def test_validation_shards_are_out_of_sight_while_a_run_lasts(repo):
    said = passed(golf(repo, RUN_ID="a")).stdout
    assert f"SAW {TRAIN} {TRAIN} {TRAIN + VAL}" in said
    assert not (repo / "runs" / "a" / view.FOLDER).exists()
    assert sorted(os.listdir(repo / "data/datasets/tiny")) == TRAIN + VAL


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"DATA_PATH": "data/datasets/tiny"}, {}], ids=["set", "default"])
def test_logs_and_claim_name_the_datas_own_folder_as_it_was_set(given, repo):
    passed(golf(repo, RUN_ID="a", **given))
    entry = new(repo)
    claim = json.loads((entry / "submission.json").read_text())
    assert claim["env"].get("DATA_PATH") == given.get("DATA_PATH") and "VAL_DATA_PATH" not in claim["env"]
    for folder in (repo / "runs" / "a", entry):
        texts = {p.name: p.read_text() for p in folder.iterdir() if p.suffix in (".json", ".jsonl", ".log")}
        assert not any(view.FOLDER in text for text in texts.values())
        metrics = next(text for name, text in texts.items() if name.startswith("metrics"))
        config = json.loads(metrics.splitlines()[0])["config"]
        assert config["DATA_PATH"] == "data/datasets/tiny"


def test_what_a_trainer_says_of_a_shard_names_the_datas_own_folder(repo):
    write_shard(repo / "data/datasets/tiny/fineweb_train_000001.bin", [0] * 8)
    script = repo / "train_gpt.py"
    look = "print(max(data.iterdir()), file=sys.stderr)\n    "
    script.write_text(script.read_text().replace('print("SAW"', look + 'print("SAW"', 1))
    done = golf(repo, RUN_ID="a")
    assert "data/datasets/tiny/fineweb_train_000001.bin" in done.stderr.splitlines()


def test_a_path_is_replaced_in_text_and_json(tmp_path):
    view.replace_path(tmp_path / "absent", "a", "b")
    log, odd = tmp_path / "log", '/a "b"/\u00e9'
    log.write_text(f"{odd}/x {json.dumps(odd)}\n")
    view.replace_path(log, odd, "data")
    assert log.read_text() == 'data/x "data"\n' and len(list(tmp_path.iterdir())) == 1


def test_a_val_data_path_of_ones_own_stays(repo):
    (repo / "elsewhere").mkdir()
    shard = repo / "data/datasets/tiny" / VAL[0]
    (repo / "elsewhere" / VAL[0]).write_bytes(shard.read_bytes())
    said = passed(golf(repo, RUN_ID="a", VAL_DATA_PATH=str(repo / "elsewhere"))).stdout
    assert f"SAW {TRAIN} {TRAIN} {VAL}" in said


def test_a_trainer_without_the_knob_is_given_the_folder_as_it_is(repo):
    script = repo / "train_gpt.py"
    lines = script.read_text().splitlines(keepends=True)
    script.write_text("".join(line for line in lines if not line.startswith('    "VAL_DATA_PATH"')))
    said = passed(golf(repo, RUN_ID="a", DATA_PATH="data/datasets/tiny")).stdout
    assert f"SAW {TRAIN + VAL}" in said


def test_what_a_killed_run_left_is_replaced(repo):
    left = repo / "runs" / "a" / view.FOLDER / "tiny"
    left.mkdir(parents=True)
    (left / "fineweb_train_000099.bin").touch()
    assert f"SAW {TRAIN} " in passed(golf(repo, RUN_ID="a")).stdout


def test_what_killed_runs_left_goes_with_the_next_run_beside_them(repo):
    left = [repo / "runs" / name / view.FOLDER for name in ("killed", "goes_on")]
    for folder in left:
        folder.mkdir(parents=True)
        (folder.parent / ".lock").touch()
    with lock.locked(left[1].parent):
        passed(golf(repo, RUN_ID="a"))
    assert [folder.exists() for folder in left] == [False, True]


def test_on_another_file_system_links_are_symbolic(tmp_path, monkeypatch):
    refuse = mock.Mock(side_effect=OSError(18, "Invalid cross-device link"))
    monkeypatch.setattr(view.os, "link", refuse)
    data, run_dir = tmp_path / "data" / "x", tmp_path / "run"
    data.mkdir(parents=True)
    for name in TRAIN + VAL:
        (data / name).write_text(name)
    given = {"DATA_PATH": str(data), "VAL_DATA_PATH": "", "EVAL_ONLY": ""}
    with view.train_shards_alone(given, tmp_path / "train_gpt.py", run_dir) as places:
        (link,) = Path(places["DATA_PATH"]).iterdir()
        assert link.is_symlink() and link.read_text() == TRAIN[0]
        assert places["VAL_DATA_PATH"] == str(data)
    assert not (run_dir / view.FOLDER).exists() and len(list(data.iterdir())) == 2


@pytest.mark.parametrize("change", [{"EVAL_ONLY": "x"}, {"DATA_PATH": ""}, {"DATA_PATH": "nowhere"}])
def test_nothing_is_made_where_nothing_trains(change, tmp_path):
    for name in TRAIN + VAL:
        (tmp_path / name).touch()
    given = {"DATA_PATH": str(tmp_path), "VAL_DATA_PATH": "", "EVAL_ONLY": ""} | change
    with view.train_shards_alone(given, tmp_path / "train_gpt.py", tmp_path / "run") as places:
        assert places == {} and not (tmp_path / "run").exists()
