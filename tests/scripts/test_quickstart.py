"""The README's first command, as a newcomer types it: a fresh clone, real installs, real training."""

import json
import os
import re
import subprocess

import pytest
from conftest import REPO, passed


@pytest.mark.slow
def test_a_fresh_clone_in_a_folder_with_a_space_passes_quickstart(tmp_path):
    clone = tmp_path / "a folder" / "golf"
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(clone)], check=True)
    # a short training: whether it works is asked here, not how well it learns
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHON")}
    env |= dict(MAX_WALLCLOCK_SECONDS="15", COMPILE="0", DEVICE="cpu")
    command = ["bash", "scripts/quickstart.sh"]
    done = passed(subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True))
    for words in ("score    val_bpb ", "bytes    ", "seconds  ", "files    ", "entry    "):
        assert done.stdout.count(f"\n{words}") == 1
    failed = re.findall(r"^FAIL ([\w-]+): ", done.stdout, re.MULTILINE)
    assert set(failed) <= {"placeholder"}, "only a person's own words are missing"
    assert "No CUDA runtime" not in done.stdout + done.stderr
    (entry,) = clone.glob("runs/*-submission/submission.json")
    submission = json.loads(entry.read_text())
    assert 1.5 < submission["val_bpb"] < 5 and submission["bytes_total"] < 2_000_000
    assert submission["track"] == "track_sample_5min" and submission["train_seconds"] <= 15
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True)
    assert status.stdout == "", "what quickstart makes is ignored by git"
