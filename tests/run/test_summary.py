"""golf.sh summary."""

import pytest
from conftest import refused, run_golf, write_events
from golf.run import summary as report

SCORE = {"event": "score", "kind": "sliding"}


def test_a_run_without_a_score_is_not_done(tmp_path):
    refused(run_golf("summary", tmp_path), "no metrics.jsonl with events")
    for content in (b"", b'{"event": "sta', b"\xff\0" * 99):
        (tmp_path / "metrics.jsonl").write_bytes(content)
        refused(run_golf("summary", tmp_path), "no metrics.jsonl with events")
    write_events(tmp_path, {"event": "start"}, {"event": "train_end", "step": 99})
    assert report.headline(tmp_path).startswith("Not scored: ")


def test_what_a_summary_lacks_is_left_out(tmp_path):
    write_events(tmp_path, SCORE | {"val_bpb": 1.5}, {"event": "export", "bytes_total": 9, "cap": "x"})
    assert [line.split()[0] for line in report.summary(tmp_path)] == ["score", "files"]


@pytest.mark.parametrize("change, expected", [
    ({}, ["packing  val_bpb 1.5000 unpacked, 1.5125 packed"]), ({"step": 8}, []), ({"targets": 9}, []),
])  # fmt: skip
def test_unpacked_stands_beside_packed_where_the_final_weights_were_validated(change, expected, tmp_path):
    val = {"event": "val", "step": 9, "targets": 640, "val_bpb": 1.5}
    score = {"event": "score", "kind": "roundtrip", "targets": 640, "val_bpb": 1.5125}
    write_events(tmp_path, val | change, {"event": "train_end", "step": 9}, score)
    lines = [line for line in report.summary(tmp_path) if line.startswith("packing")]
    assert [line.partition(" (")[0] for line in lines] == expected


@pytest.mark.parametrize("step, reason, words", [
    (19, "wallclock_cap", "Only 19 steps in 150 s: this machine was too busy"),
    (19, "interrupted", "Only 19 steps in 150 s, since training was stopped"),
    (20, "wallclock_cap", "Done: "),
    (3, "iterations", "Done: "),  # as many as were asked for
])  # fmt: skip
def test_few_steps_are_no_success(step, reason, words, tmp_path):
    end = {"event": "train_end", "train_seconds": 150.2, "step": step, "reason": reason}
    write_events(tmp_path, end, SCORE)
    assert report.headline(tmp_path).startswith(words)
