"""golf.sh summary."""

import json
import re

from conftest import run_script
from golf.run import summary as report

from run.conftest import golf, one_line


def test_summary_of_a_finished_run_and_of_none(tiny_repo):
    golf(tiny_repo, "--no-summary", RUN_ID="one")
    done = run_script("golf.sh", "summary", "runs/one", "--expect", "1 to 2", repo=tiny_repo)
    assert done.returncode == 0 and re.search(r"score    val_bpb 1\.\d+  \(expect 1 to 2\)", done.stdout)
    done = run_script("golf.sh", "summary", "runs/two", repo=tiny_repo)
    assert done.returncode == 2 and "runs/two: no metrics.jsonl" in one_line(done.stderr)


def test_a_run_without_a_score_is_not_done(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    for content in (b"", b'{"event": "sta', b"\xff\0" * 99):
        metrics.write_bytes(content)
        done = run_script("golf.sh", "summary", tmp_path)
        assert done.returncode == 2 and "no metrics.jsonl with events" in one_line(done.stderr)
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
