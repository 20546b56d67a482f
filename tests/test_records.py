"""The entries that this repository publishes: they pass the check, and the scorer confirms one whole."""

import json

import pytest
from conftest import REPO, run_script
from golf.check import command as check
from golf.core.findings import FAIL
from score_kit import needs_sandbox

ENTRIES = sorted(path.parent for path in REPO.glob("records/*/*/submission.json"))
STARTER = REPO / "records/track_sample_5min/2026-11-29_starter"


@pytest.mark.slow
@pytest.mark.parametrize("folder", ENTRIES, ids=lambda folder: folder.name)
def test_every_entry_passes_the_check(folder):
    assert [f for f in check.check_folder(folder).findings if f.level == FAIL] == []


def test_the_starter_is_there_with_three_seeds_and_their_artifacts():
    claim = json.loads((STARTER / "submission.json").read_text())
    assert len(claim["seeds"]) == 3
    assert all((STARTER / seed["artifact"]).is_file() for seed in claim["seeds"])


@pytest.mark.slow
@needs_sandbox
def test_the_starter_scores_as_claimed_and_passes_the_audit(sample_data):
    options = ("--seed", "1337", "--device", "cpu", "--data", sample_data / "datasets" / "sample_sp1024")
    done = run_script("golf.sh", "score", STARTER, *options, "--json", timeout=3000)
    report = json.loads(done.stdout)
    failed = [rule for seed in report["seeds"] for rule in seed["rules"] if rule["passed"] is not True]
    assert report["mode"] == "whole" and failed == [] and report["verdict"] == "PASS", done.stdout
