"""golf.sh summary."""

import json

from conftest import refused, run_golf
from golf.run import summary as report


def test_a_run_without_a_score_is_not_done(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    refused(run_golf("summary", tmp_path), "no metrics.jsonl with events")
    for content in (b"", b'{"event": "sta', b"\xff\0" * 99):
        metrics.write_bytes(content)
        refused(run_golf("summary", tmp_path), "no metrics.jsonl with events")
    metrics.write_text('{"event": "start"}\n{"event": "train_end", "step": 99}\n')
    assert report.headline(tmp_path).startswith("Not scored: ")


def test_what_a_summary_lacks_is_left_out(tmp_path):
    events = [
        {"event": "score", "kind": "sliding", "val_bpb": 1.5},
        {"event": "export", "bytes_total": 9, "cap": "x"},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert [line.split()[0] for line in report.summary(tmp_path)] == ["score", "files"]


def test_unpacked_stands_beside_packed_where_the_final_weights_were_validated(tmp_path):
    val = {"event": "val", "step": 9, "targets": 640, "val_bpb": 1.5}
    rest = [
        {"event": "train_end", "step": 9},
        {"event": "score", "kind": "roundtrip", "targets": 640, "val_bpb": 1.5125},
    ]
    for change, expected in (({}, ["packing  val_bpb 1.5000 unpacked, 1.5125 packed"]), ({"step": 8}, []),
                             ({"targets": 9}, [])):  # fmt: skip
        (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, [{**val, **change}, *rest])))
        lines = [line for line in report.summary(tmp_path) if line.startswith("packing")]
        assert [line.partition(" (")[0] for line in lines] == expected


def test_few_steps_are_no_success(tmp_path):
    def words(**end):
        events = [
            {"event": "train_end", "train_seconds": 150.2, **end},
            {"event": "score", "kind": "sliding"},
        ]
        (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, events)))
        return report.headline(tmp_path)

    begin = "Only 19 steps in 150 s"
    assert words(step=19, reason="wallclock_cap").startswith(f"{begin}: this machine was too busy")
    assert words(step=19, reason="interrupted").startswith(f"{begin}, since training was stopped")
    assert words(step=20, reason="wallclock_cap").startswith("Done: ")
    assert words(step=3, reason="iterations").startswith("Done: ")  # as many as were asked for
