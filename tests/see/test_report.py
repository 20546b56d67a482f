"""report.html: one file that holds everything, at the end of a run and in a submission."""

import html
import itertools
import json
import re
import shutil
from types import SimpleNamespace

import pytest
from conftest import passed, run_golf
from golf.core.errors import GolfError
from golf.see import report


@pytest.mark.slow
def test_the_report_holds_all_sections_and_asks_for_nothing_outside(torch_run):
    text = report.build(torch_run)
    for title in ("Curves", "What it writes", "Where the bytes went", "Configuration", "How to repeat it"):
        part = text.partition(f"<h2>{title}</h2>")[2].partition("<h2>")[0]
        assert part and "Not here" not in part, title
        assert part.count('<pre class="text">') == {"What it writes": 3, "How to repeat it": 1}.get(title, 0)
    assert text.count("data:image/svg+xml;base64,") == 7
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text and "@import" not in text
    score = json.loads((torch_run / "metrics.jsonl").read_text().splitlines()[-2])["val_bpb"]
    assert f'<p class="score">{score:.4f} ' in text


@pytest.mark.slow
def test_what_is_foreign_is_escaped_and_no_home_is_named(torch_run, tmp_path):
    run = shutil.copytree(torch_run, tmp_path / "run")
    metrics = (run / "metrics.jsonl").read_text()
    evil, unseen = "<script>alert(1)</script>", r"\u001b[2J\u202e"
    metrics = metrics.replace('"device": "', f'"device": "{unseen}')
    metrics = metrics.replace('"run_id": "tiny"', f'"run_id": "{evil}"').replace("CPU", evil)
    metrics = metrics.replace('"versions": {', '"versions": 5, "a": {')
    metrics = metrics.replace('"data": {', '"data": [1], "b": {')
    (run / "metrics.jsonl").write_text(metrics)
    text = report.build(run)
    assert "<script" not in text and html.escape(evil) in text
    assert "?[2J?" in text and "\x1b" not in text and "\u202e" not in text
    assert f'"{report.REPO}/' not in text and f">{report.REPO}/" not in text


def test_a_run_without_its_artifact_gets_a_report_that_says_so(torch_run, tmp_path):
    run = shutil.copytree(torch_run, tmp_path / "run")
    for path in run.glob("final_model*"):
        path.unlink()
    text = report.build(run)
    assert text.count("Not here: ") == 2 and "is gone" in text and "<h2>Curves</h2>" in text


def test_a_script_that_is_slow_gives_no_scraps_of_text(torch_run, monkeypatch):
    clock = itertools.count(0.0, report.SAMPLE_SECONDS / 30)
    monkeypatch.setattr(report, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert len(report.samples(report.reader.find(torch_run))) == report.SAMPLES
    clock = itertools.count(0.0, report.SAMPLE_SECONDS / 5)
    with pytest.raises(GolfError, match=r"gives \d tokens in 15 s"):
        report.samples(report.reader.find(torch_run))


def test_golf_run_writes_it_and_golf_new_takes_it_along(tiny_repo):
    env = {"RUN_ID": "one", "REPORT": "1"}
    done = passed(run_golf("run", "configs/tiny.env", env=env, repo=tiny_repo))
    assert "\nreport   runs/one/report.html\n" in done.stdout
    made = run_golf("new", "runs/one", "--out", tiny_repo / "entry", repo=tiny_repo)
    claim = json.loads((tiny_repo / "entry" / "submission.json").read_text())
    assert [f["role"] for f in claim["files"] if f["path"] == "report.html"] == ["extra"]
    assert "report.html" not in made.stdout  # no finding of the check


def test_a_report_that_cannot_be_made_costs_the_run_nothing(tiny_repo):
    broken = tiny_repo / "scripts" / "golf" / "see" / "report.py"
    broken.write_text(broken.read_text().replace("def build(", "def build(run):\n    1 / 0\n\n\ndef other("))
    env = {"RUN_ID": "one", "REPORT": "1"}
    done = run_golf("run", "configs/tiny.env", env=env, repo=tiny_repo)
    assert done.returncode == 0 and "no report.html: ZeroDivisionError" in done.stderr
    assert "\nscore    val_bpb " in done.stdout
