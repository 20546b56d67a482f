"""Runs by their names, and what their logs and metrics hold."""

import json
from pathlib import Path

from golf.core import runlog


def test_runs_by_what_people_call_them(tmp_path):
    for name in ("x-s10", "x-s9", "x-s09a", "x-s", "y"):
        (tmp_path / name).mkdir()
    assert runlog.run_folders(tmp_path / "x") == [tmp_path / "x-s9", tmp_path / "x-s10"]
    assert runlog.run_folders(Path(f"{tmp_path}/y,{tmp_path}/z")) == [tmp_path / "y", tmp_path / "z"]
    assert runlog.run_folders(tmp_path / "y") == [tmp_path / "y"]
    assert runlog.run_folders(tmp_path / "none/x") == [tmp_path / "none/x"]
    (tmp_path / "x").mkdir()
    assert runlog.run_folders(tmp_path / "x") == [tmp_path / "x"]


def test_torn_and_foreign_lines_in_metrics_are_passed_over(tmp_path):
    start, end = (json.dumps({"event": e, "seed": 1}).encode() for e in ("start", "end"))
    lines = [b"\xef\xbb\xbf" + start + b"\r", b"", b"\0\0\0", b'{"event": "step', b'{"event": "en' + end]
    lines += [b"\xff\xfe", b"[]", b"7", b"{" * 5000, b'"start"', b"x" * (3 << 20), end, b'{"event": "st']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    lines += [b"train_seconds:1.5 tokens:3 steps:2", b"train_sec"]
    (tmp_path / "train.log").write_bytes(b"\n".join(lines))
    assert set(runlog.read_run(tmp_path)) == {"start", "end"}
    (train,) = runlog.final_lines(tmp_path / "train.log")["train"]
    assert train == {"train_seconds": 1.5, "tokens": 3.0, "steps": 2.0}
