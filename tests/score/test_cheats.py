"""Each cheat of fixtures/cheats fails by the rule that claims it; what is honest passes that rule."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from audit_kit import (
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
    text_of,
)
from conftest import write_shard
from golf.core.files import sha256
from golf.score.feeder import Fault
from golf.score.sandbox import bwrap as sandbox

assert source  # a fixture
TARGETS = 8192
ALONE = {"held-out", "tails"}, {"in-time"}, {"first-sight"}  # for those that nothing else gives away
CLAIMED = {
    "adapts_then_scores": ["causal"],
    "answers_twice": ["deterministic"],
    "cache_keyed_by_target": ["causal"],
    "gate_by_target": ["causal"],
    "holds_a_little": ["held-out"],
    "holds_contexts": ["held-out"],
    "holds_document_tilts": ["held-out"],
    "holds_hard_targets": ["tails"],
    "holds_pairs": ["held-out"],
    "holds_places": ["held-out"],
    "holds_some_documents": ["held-out"],
    "holds_the_stream": ["held-out"],
    "honest_for_a_while": ["causal"],
    "honest_in_short_calls": ["causal"],
    "honest_in_the_second_process": ["causal"],
    "jitters_and_peeks": ["causal"],
    "jitters_rarely": ["deterministic", "causal"],
    "jitters_toward_targets": ["deterministic"],
    "knows_and_peeks_elsewhere": ["causal"],
    "knows_hard_targets_and_peeks": ["causal"],
    "knows_places_and_peeks": ["causal"],
    "learns_ahead_every_kth_row": ["causal"],
    "learns_in_blocks": ["causal"],
    "learns_its_own_target": ["causal"],
    "looks_two_ahead": ["causal"],
    "mixes_in_blocks": ["causal"],
    "optimises_on_the_window": ["causal"],
    "peeks": ["causal"],
    "peeks_at_first_rows": ["deterministic", "causal"],
    "peeks_at_hard_targets": ["causal"],
    "peeks_at_places": ["causal"],
    "peeks_before_last_rows": ["deterministic", "causal"],
    "peeks_by_the_clock": ["causal"],
    "peeks_in_early_documents": ["causal"],
    "peeks_in_short_calls": ["causal"],
    "peeks_in_some_calls": ["deterministic", "causal"],
    "peeks_late": ["causal"],
    "peeks_on_known_text": ["causal"],
    "peeks_rarely": ["causal"],
    "peeks_softly": ["causal"],
    "peeks_to_repair": ["causal"],
    "peeks_within_tolerance": ["causal"],
    "rolls_dice": ["deterministic"],
    "ruins_a_document": ["held-out"],
    "rules_out_the_others": ["causal"],
    "sums_to_a_little_more": ["causal"],
    "takes_its_time": ["in-time"],
    "tells_the_next_process": ["first-sight"],
    "unnormalised": ["normalised"],
    "works_in_reset": ["in-time"],
    "works_while_loading": ["in-time"],
}
FAST = "answers_twice", "holds_pairs", "peeks", "takes_its_time", "tells_the_next_process", "unnormalised"
BY_CLAIM = "prints_a_score"  # golf.sh score compares with what it printed


def test_every_cheat_has_its_rule_and_its_kind():
    assert {p.stem for p in CHEATS.glob("*.py")} == {*CLAIMED, BY_CLAIM, "tiny"}
    kinds = {p.read_text().partition(":")[0] for p in CHEATS.glob("*.py") if p.stem != "tiny"}
    assert len(CLAIMED) >= 40 and len(kinds) >= 12, kinds


@pytest.fixture(scope="module")
def honest(source, tmp_path_factory):
    """The cheats' model as it stands, of the same text: a track's reference of their kind."""
    folder = tmp_path_factory.mktemp("tiny")
    shutil.copy(CHEATS / "tiny.py", folder)
    script = folder / "train_gpt.py"
    script.write_text("import tiny\nload_scorer = lambda path, device: tiny.Scorer(path)\n")
    return control(Local(script))


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty temporary folder, in which a cheat that needs a leak of the sandbox finds one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CLAIMED]
)
def test_cheat_is_caught_by_the_rule_that_claims_it(name, source, honest, places, tmp_path):
    wide = name in ("holds_hard_targets", "holds_some_documents")  # what few documents cannot show
    text = text_of(source, 3 * TARGETS if wide else TARGETS, 3 * TARGETS if wide else TARGETS)
    cheat = Local(CHEATS / f"{name}.py", holding(text, tmp_path))
    budget = 0.4 if "in-time" in CLAIMED[name] else None
    try:
        rules = audited(cheat, text, reference=honest, budget=budget, cuts=20 if budget else 200)
        failed = {rule for rule, found in rules.items() if found.passed is False}
    except Fault as fault:  # in the first pass
        failed = {fault.rule}
    assert set(CLAIMED[name]) <= failed, failed
    for alone in ALONE:
        if alone >= set(CLAIMED[name]):
            assert failed <= alone, "it is nothing else that gives it away"


def holding(text, folder):
    """The examples' artifact with the stream at its end."""
    path = folder / "artifact"
    path.write_bytes(repacked(text.parts[0].tokens.tobytes()))
    return path


@pytest.mark.slow
def test_only_a_control_of_its_kind_sees_what_is_little(source, honest, tmp_path):
    """What a track's reference is for: a model as good as most submissions explains how hard each
    document is, so little is enough to be told from chance."""
    text = text_of(source, TARGETS, TARGETS)
    cheat, found = Local(CHEATS / "holds_a_little.py", holding(text, tmp_path)), {}
    for reference in (bigram, honest):
        found[reference] = audited(cheat, text, reference=reference)["held-out"].passed
    assert list(found.values()) == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "bigram", "learning"])
@pytest.mark.parametrize("reference", ["bigram", "honest"])
def test_what_is_honest_passes_every_rule(name, reference, source, honest, tmp_path):
    script = EXAMPLES / name / "train_gpt.py"
    if name == "tiny":  # the cheats' model, not bent
        script = tmp_path / "train_gpt.py"
        shutil.copy(CHEATS / "tiny.py", tmp_path)
        script.write_text("import tiny\nload_scorer = lambda path, device: tiny.Scorer(path)\n")
    reference = dict(bigram=bigram, honest=honest)[reference]
    rules = audited(Local(script), text_of(source, TARGETS, TARGETS), budget=600, reference=reference)
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
        file["sha256"] = sha256(folder / file["path"])
    (folder / "submission.json").write_text(json.dumps(claim))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name, rules", [(BY_CLAIM, {"claim", "segments"}), ("peeks", {"causal"})])
def test_cheat_is_caught_by_golf_score(name, rules, source, tmp_path):
    data, rules_file = tmp_path / "sample_sp1024", tmp_path / "track.json"
    rules_file.write_text(json.dumps(TRACK | dict(audit_control=None)))  # it has tests of its own
    data.mkdir()
    write_shard(data / "fineweb_val_000000.bin", source.tokens)
    command = [sys.executable, "-m", "golf.cli", "score", entry(name, tmp_path / "entry"), "--json"]
    command += ["--track", rules_file, "--data", data, "--device", "cpu"]
    command += ["--no-sandbox"] if sandbox.why_not() else []  # its own tests are about the sandbox
    tokenizer = REPO / "data" / TRACK["data"]["tokenizer_file"]
    env = os.environ | dict(PYTHONPATH=str(REPO / "scripts"), TOKENIZER_PATH=str(tokenizer))
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    failed = {rule["id"] for rule in report["seeds"][0]["rules"] if rule["passed"] is False}
    assert report["verdict"] == "FAIL" and rules <= failed, failed
