"""Runs in the trackers, read back as they store them, without a network."""

import json
import shutil
import sqlite3
import sys
from unittest import mock

import pytest
from conftest import passed, refused, run_golf, run_script, write_events
from golf.core.errors import GolfError
from golf.see import export, history

EXPECTED = {"train_loss", "lr_scale", "tokens", "train_seconds", "val_loss", "val_bpb", "final_val_bpb"}


def test_the_points_are_the_runs(torch_run):
    h = history.read(torch_run)
    rows = export.rows(h)
    assert [step for step, values, _ in rows if "train_loss" in values] == [p["step"] for p in h.steps]
    assert rows[-1][1]["final_val_bpb"] == h.val_bpb and rows[-1][0] == 12
    assert [step for step, _, _ in rows] == sorted(step for step, _, _ in rows)


def test_tensorboard(torch_run, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="NOT TESTED: tensorboard is missing"
    )
    for _ in range(2):  # anew each time
        passed(run_golf("export", torch_run, "--to", "tensorboard", "--out", tmp_path))
    events = accumulator.EventAccumulator(str(tmp_path / "tiny"), {"tensors": 0, "scalars": 0}).Reload()
    tags = events.Tags()
    assert EXPECTED <= {*tags["scalars"], *tags["tensors"]}
    read = events.Scalars if "train_loss" in tags["scalars"] else events.Tensors
    steps = [event.step for event in read("train_loss")]
    assert steps == [p["step"] for p in history.read(torch_run).steps]


def test_no_file_of_anybodys_goes(torch_run, tmp_path):
    """--out runs would have removed the run itself."""
    pytest.importorskip("tensorboard", reason="NOT TESTED: tensorboard is missing")
    run = shutil.copytree(torch_run, tmp_path / "runs" / "tiny")
    before = {path.name for path in run.iterdir()}
    for _ in range(2):
        passed(run_golf("export", run, "--to", "tensorboard", "--out", run.parent))
    made = {path.name for path in run.iterdir()}
    assert before < made and len(made - before) == 1


def test_two_runs_of_one_name_do_not_overwrite_each_other(torch_run, tmp_path):
    pytest.importorskip("tensorboard", reason="NOT TESTED: tensorboard is missing")
    words = ("export", torch_run, torch_run, "--to", "tensorboard", "--out", tmp_path / "t")
    refused(run_golf(*words), "two runs are called tiny")
    assert not (tmp_path / "t").exists()


def test_trackio(torch_run, tmp_path):
    pytest.importorskip("trackio", reason="NOT TESTED: trackio is missing")
    env = {"TRACKIO_DIR": str(tmp_path / "db"), "HF_HUB_OFFLINE": "1"}
    passed(run_script("golf.sh", "export", torch_run, "--to", "trackio", env=env))
    (path,) = (tmp_path / "db").glob("*.db")
    stored = sqlite3.connect(path).execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    rows = [(step, values) for step, values, _ in export.rows(history.read(torch_run))]
    assert [(step, json.loads(values)) for step, values in stored] == rows


@pytest.mark.parametrize("name", [".", "..", "..."])
def test_a_run_without_a_name_clears_no_folder_but_its_own(name, tmp_path, monkeypatch):
    """Its name is foreign: of dots alone it was that of the folder with all runs."""
    run, out, made = tmp_path / "run", tmp_path / "out", []
    run.mkdir()
    write_events(run, {"event": "start", "run_id": name}, {"event": "step", "step": 1})
    monkeypatch.setattr(export, "load", lambda name: None)
    monkeypatch.setattr(export, "to_tensorboard", lambda tracker, h, folder: made.append(folder))
    passed(run_golf("export", run, "--to", "tensorboard", "--out", out))
    assert made == [out / "run"]


def test_what_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(GolfError, match="pip install wandb"):
        export.load("wandb")


def test_a_tracker_that_fails_is_told_in_a_line(torch_run):
    failing = mock.Mock(__name__="wandb", **{"init.side_effect": RuntimeError("no login")})
    with pytest.raises(GolfError, match="wandb: RuntimeError: no login"):
        export.to_tracker(failing, history.read(torch_run), "tiny")
