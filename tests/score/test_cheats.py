"""Each cheat of fixtures/cheats.py fails by the rule that claims it; what is honest passes that rule."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import audit_kit as kit
import pytest
from audit_kit import CHEATS, EXAMPLES, REPO, TRACK, Local
from check_kit import edit, relist
from conftest import load_script, write_shard
from golf.score.feeder import Fault
from golf.score.sandbox import bwrap as sandbox
from score_kit import failed

TARGETS = 8192
cheats = load_script(CHEATS)
EVERY = {cheat.__name__: cheat for cheat in cheats.Honest.__subclasses__()}
BY_CLAIM = cheats.PrintsAScore  # golf.sh score compares with what it printed
FAST = "AnswersTwice", "HoldsPairs", "Peeks", "TakesItsTime", "TellsTheNextProcess", "Unnormalised"
ALONE = {"held-out", "tails"}, {"in-time"}, {"first-sight"}  # for those that nothing else gives away


def test_there_are_cheats_of_many_kinds():
    kinds = {cheat.__doc__.partition(":")[0] for cheat in EVERY.values()}
    assert len(EVERY) > 40 and len(kinds) >= 12, kinds


@pytest.fixture(scope="module")
def honest():
    """The cheats' model as it stands, of the same text: a track's reference of their kind."""
    return kit.control(Local(cheats.Honest))


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty temporary folder, in which a cheat that needs a leak of the sandbox finds one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("cheat", [
    pytest.param(cheat, id=name, marks=[] if name in FAST else pytest.mark.slow)
    for name, cheat in EVERY.items()
    if cheat is not BY_CLAIM
])  # fmt: skip
def test_cheat_is_caught_by_the_rule_that_claims_it(cheat, source, honest, places, tmp_path):
    wide = cheat in (cheats.HoldsHardTargets, cheats.HoldsSomeDocuments)  # what few documents cannot show
    text = kit.text_of(source, 3 * TARGETS if wide else TARGETS, 3 * TARGETS if wide else TARGETS)
    budget = 0.4 if "in-time" in cheat.caught_by else None
    feeder = Local(cheat, holding(text, tmp_path))
    try:
        rules = kit.audited(feeder, text, reference=honest, budget=budget, cuts=20 if budget else 200)
        failed = {rule for rule, found in rules.items() if found.passed is False}
    except Fault as fault:  # in the first pass
        failed = {fault.rule}
    assert cheat.caught_by <= failed, failed
    for alone in ALONE:
        if alone >= cheat.caught_by:
            assert failed <= alone, "it is nothing else that gives it away"


def holding(text, folder):
    """The examples' artifact with the stream at its end."""
    path = folder / "artifact"
    path.write_bytes(kit.repacked(text.parts[0].tokens.tobytes()))
    return path


@pytest.mark.slow
def test_only_a_control_of_its_kind_sees_what_is_little(source, honest, tmp_path):
    """What a track's reference is for: a model as good as most submissions explains how hard each
    document is, so little is enough to be told from chance."""
    text = kit.text_of(source, TARGETS, TARGETS)
    cheat, found = Local(cheats.HoldsALittle, holding(text, tmp_path)), {}
    for reference in (kit.bigram, honest):
        found[reference] = kit.audited(cheat, text, reference=reference)["held-out"].passed
    assert list(found.values()) == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [cheats.Honest, *(EXAMPLES / name / "train_gpt.py" for name in ("bigram", "learning"))]
)
@pytest.mark.parametrize("reference", ["bigram", "honest"])
def test_what_is_honest_passes_every_rule(script, reference, source, honest):
    reference = dict(bigram=kit.bigram, honest=honest)[reference]
    rules = kit.audited(Local(script), kit.text_of(source, TARGETS, TARGETS), budget=600, reference=reference)
    assert set().union(*(c.caught_by for c in EVERY.values() if c is not BY_CLAIM)) <= set(rules)
    assert not [found for found in rules.values() if found.passed is not True]


def entry(cheat, folder):
    """The bigram example's folder with a cheat in the place of its script."""
    shutil.copytree(EXAMPLES / "bigram", folder)
    (folder / "train_gpt.py").write_text(f"from cheats import {cheat.__name__} as load_scorer\n")
    shutil.copy(CHEATS, folder)
    edit(folder, lambda v: v["files"].append(dict(path="cheats.py", role="score")))
    relist(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cheat", [BY_CLAIM, cheats.Peeks])
def test_cheat_is_caught_by_golf_score(cheat, source, tmp_path):
    data, rules_file = tmp_path / "sample_sp1024", tmp_path / "track.json"
    rules_file.write_text(json.dumps(TRACK | dict(audit_control=None)))  # it has tests of its own
    data.mkdir()
    write_shard(data / "fineweb_val_000000.bin", source.tokens)
    command = [sys.executable, "-m", "golf.cli", "score", entry(cheat, tmp_path / "entry"), "--json"]
    command += ["--track", rules_file, "--data", data, "--device", "cpu"]
    command += ["--no-sandbox"] if sandbox.why_not() else []  # its own tests are about the sandbox
    tokenizer = REPO / "data" / TRACK["data"]["tokenizer_file"]
    env = os.environ | dict(PYTHONPATH=str(REPO / "scripts"), TOKENIZER_PATH=str(tokenizer))
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "FAIL" and cheat.caught_by <= set(failed(report)), failed(report)
