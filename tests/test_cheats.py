"""Each cheat of fixtures/cheats fails by the rule that claims it; what is honest passes that rule."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from audit_kit import (
    ARTIFACT,
    CHEATS,
    EXAMPLES,
    REPO,
    TRACK,
    Local,
    audited,
    bigram,
    control,
    repacked,
    source,
)
from golf import sandbox, submission
from golf.feeder import Fault

assert source  # a fixture
TARGETS = 8192
# The pattern of invalid submissions that each shows is in its first line.
CLAIMED = {
    "adapts_then_scores": ["causal", "suffix-proof", "shuffled"],
    "cache_keyed_by_target": ["causal", "suffix-proof"],
    "gate_by_target": ["causal", "suffix-proof"],
    "holds_a_little": ["held-out"],
    "holds_the_stream": ["held-out"],
    "honest_in_short_calls": ["causal", "deterministic"],
    "mixes_in_blocks": ["causal", "suffix-proof"],
    "optimises_on_the_window": ["causal", "suffix-proof"],
    "peeks": ["causal", "suffix-proof", "shuffled"],
    "peeks_rarely": ["causal"],
    "rolls_dice": ["deterministic"],
    "takes_its_time": ["in-time"],
    "unnormalised": ["normalised"],
}
BY_CLAIM = "prints_a_score"  # golf.sh score compares with what it printed


def test_every_cheat_has_its_rule():
    assert {p.stem for p in CHEATS.glob("*.py")} == {*CLAIMED, BY_CLAIM, "tiny"}


@pytest.mark.parametrize("name", CLAIMED)
def test_cheat_is_caught_by_the_rule_that_claims_it(name, source, tmp_path):
    rarely = name == "peeks_rarely"  # what the 2,000 cuts are for, on the whole track
    text = source.stream(0, TRACK["targets"] if rarely else TARGETS)
    artifact = holding(text, tmp_path) if name.startswith("holds_") else ARTIFACT
    cheat, budget = Local(CHEATS / f"{name}.py", artifact), dict(budget_seconds=0.01)
    try:
        rules = audited(
            cheat,
            text,
            source.stream(TRACK["targets"], TARGETS),
            reference=of_its_kind() if name == "holds_a_little" else bigram,
            facts=budget if name == "takes_its_time" else (),
            cuts=2000 if rarely else 40 if name == "takes_its_time" else 400,
        )
        failed = {rule for rule, found in rules.items() if found.passed is False}
    except Fault as fault:  # in the first pass
        failed = {fault.rule}
    assert set(CLAIMED[name]) <= failed, failed
    if name in ("holds_a_little", "holds_the_stream", "takes_its_time", "peeks_rarely"):
        assert failed == set(CLAIMED[name]), "and it is nothing else that gives it away"


def holding(text, folder):
    """The examples' artifact with the stream at its end."""
    path = folder / "artifact"
    path.write_bytes(repacked(text.tokens.tobytes()))
    return path


def of_its_kind():
    """The model that the cheats bend, as a track's reference."""
    return control(Local(EXAMPLES / "bigram" / "train_gpt.py"))


def test_only_a_control_of_its_kind_sees_what_is_little(source, tmp_path):
    """What a track's reference is for: a model as good as most submissions explains how hard each
    document is, so little is enough to be told from chance."""
    text, holdout = source.stream(0, TARGETS), source.stream(TRACK["targets"], TARGETS)
    cheat, found = Local(CHEATS / "holds_a_little.py", holding(text, tmp_path)), {}
    for reference in (bigram, of_its_kind()):
        rules = audited(cheat, text, holdout, reference=reference)
        found[reference] = rules["held-out"].passed
    assert list(found.values()) == [True, False]


@pytest.mark.parametrize("name", ["tiny", "bigram", "learning"])
def test_what_is_honest_passes_every_rule(name, source, tmp_path):
    script = EXAMPLES / name / "train_gpt.py"
    if name == "tiny":  # the cheats' model, not bent
        script = tmp_path / "train_gpt.py"
        shutil.copy(CHEATS / "tiny.py", tmp_path)
        script.write_text("import tiny\nload_scorer = lambda path, device: tiny.Scorer(path)\n")
    text, holdout = source.stream(0, TARGETS), source.stream(TRACK["targets"], TARGETS)
    rules = audited(Local(script), text, holdout, facts=dict(budget_seconds=600))
    assert {rule for rules_ in CLAIMED.values() for rule in rules_} <= set(rules)
    assert not [found for found in rules.values() if found.passed is not True]


def entry(name, folder):
    """The bigram example's folder with a cheat in the place of its script."""
    shutil.copytree(EXAMPLES / "bigram", folder)
    shutil.copy(CHEATS / f"{name}.py", folder / "train_gpt.py")
    shutil.copy(CHEATS / "tiny.py", folder)
    claim = json.loads((folder / "submission.json").read_text())
    claim["files"].append(dict(path="tiny.py", role="score"))
    for file in claim["files"]:
        file["sha256"] = submission.sha256(folder / file["path"])
    (folder / "submission.json").write_text(json.dumps(claim))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name, rules", [(BY_CLAIM, {"claim", "segments"}), ("peeks", {"causal"})])
def test_cheat_is_caught_by_golf_score(name, rules, source, tmp_path):
    data, rules_file = tmp_path / "sample_sp1024", tmp_path / "track.json"
    rules_file.write_text(json.dumps(TRACK | dict(reference=None)))  # it has tests of its own
    data.mkdir()
    header = np.array([20240520, 1, len(source.tokens), *[0] * 253], "<i4")
    (data / "fineweb_val_000000.bin").write_bytes(header.tobytes() + source.tokens.tobytes())
    command = [sys.executable, "-m", "golf", "score", entry(name, tmp_path / "entry"), "--json"]
    command += ["--track", rules_file, "--data", data, "--device", "cpu"]
    command += ["--no-sandbox"] if sandbox.why_not() else []  # its own tests are about the sandbox
    tokenizer = REPO / "data" / TRACK["data"]["tokenizer_file"]
    env = os.environ | dict(PYTHONPATH=str(REPO / "scripts"), TOKENIZER_PATH=str(tokenizer))
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    failed = {rule["id"] for rule in report["seeds"][0]["rules"] if rule["passed"] is False}
    assert report["verdict"] == "FAIL" and rules <= failed, failed
