"""The audit's control model: the entry that a track names, or a bigram model in its place."""

import io
import json
from shutil import copytree

import numpy as np
import pytest
from check_kit import relist
from golf.core import track as tracks
from golf.core.bar import Talker
from golf.core.errors import GolfError
from golf.core.submission import read_claim
from golf.score import claims as entry
from golf.score import scorer as official
from golf.score.audit.control import KEPT, STEPS, Control, key_of
from golf.score.audit.passes import Text, feed
from golf.score.audit.reference import bigram_log_probs
from golf.score.sandbox.client import Remote
from golf.score.stream import Stream
from score_kit import ECHO, echo_log_probs, hostile, make_submission, make_track, needs_sandbox, score

BIGRAM = "a bigram model, counted over the audited text"


@pytest.fixture(scope="module")
def track(tmp_path_factory):
    return make_track(tmp_path_factory.mktemp("track"), audit_control="echo")


@pytest.fixture(scope="module")
def track_of_two(tmp_path_factory):
    return make_track(tmp_path_factory.mktemp("track"), audit_control="echo", second_control="second")


@pytest.fixture
def echo(tmp_path):
    """The track's reference entry, beside the submissions."""
    return make_submission(tmp_path / "echo", ECHO, seeds=(3, 4))


@pytest.fixture
def asked(monkeypatch):
    """What each seed's audit asked of its control, and the answer."""
    found = []

    def audit(feeder, text, first, rng, *, reference, **_):
        found.append((text.inputs, text.targets, reference(text)))
        return []

    monkeypatch.setattr(official, "audit", audit)
    return found


def run(track, folder, sandboxed=False, **options) -> tuple[dict, dict]:
    """The report, and its rule on the control."""
    report = score(track, folder, sandboxed, **options)
    return report, report["rules"][0]


@pytest.mark.slow
@pytest.mark.parametrize("sandboxed", [False, pytest.param(True, marks=needs_sandbox)])
def test_reference_is_scored_as_a_submission_is(track, echo, asked, tmp_path, capsys, sandboxed):
    control = run(track, make_submission(tmp_path / "entry", "Plain", seeds=(1, 2)), sandboxed)[1]
    assert (control["id"], control["passed"], control["figure"]) == ("control", True, "echo, seed 3")
    assert len(asked) == 2
    for inputs, targets, (answer,) in asked:
        np.testing.assert_allclose(answer, echo_log_probs(inputs, targets), atol=1e-5)
    told = capsys.readouterr().err
    assert told.count(f"{len(inputs):,} targets by the control, echo") == 1, "for both seeds"


def giving(rows):
    """A reference that gives other rows."""

    def spoil(folder):
        (folder / "train_gpt.py").write_text(hostile("Gives"))
        (folder / "final_model_seed3.bin").write_text(rows)
        relist(folder)

    return spoil


@pytest.mark.parametrize("spoil, words", [
    (lambda folder: folder.rename(folder.parent / "gone"), "is missing"),
    (lambda folder: (folder / "final_model_seed3.bin").unlink(), "is no file of this folder"),
    (lambda folder: (folder / "train_gpt.py").write_text("import nothing_of_the_kind"), "not the file"),
    (giving("rows + np.log(2)"), "a row sums to 2"), (giving("rows * np.nan"), "holds NaN or infinity"),
])  # fmt: skip
def test_a_reference_that_cannot_be_used_is_replaced(track, echo, asked, tmp_path, capsys, spoil, words):
    spoil(echo)
    folder = make_submission(tmp_path / "entry", "Plain", seeds=(1, 2))
    report, control = run(track, folder)
    assert report["verdict"] == "NEEDS-HUMAN" and control["passed"] is None
    assert control["figure"] == BIGRAM and words in control["sentence"]
    lines = [line for line in capsys.readouterr().err.splitlines() if words in line]
    assert len(lines) == 1 and "the track's audit_control echo cannot be used" in lines[0]
    for inputs, targets, (answer,) in asked:
        np.testing.assert_array_equal(answer, bigram_log_probs(inputs, targets, 1024))


def test_a_reference_that_fails_beside_submissions_is_run_again_alone(track, echo, asked, tmp_path):
    """They could have taken what it needs."""
    mark = repr(str(tmp_path / "mark"))
    giving(f"rows if os.path.isdir({mark}) else os.mkdir({mark}) or 1 / 0")(echo)
    control = run(track, make_submission(tmp_path / "entry", "Plain"))[1]
    assert control["passed"] is True and control["figure"] == "echo, seed 3"


def test_without_a_reference_it_is_the_bigram_model(asked, tmp_path):
    control = run(make_track(tmp_path / "track"), make_submission(tmp_path / "entry", "Plain"))[1]
    assert control["passed"] is True and control["figure"] == BIGRAM
    ((inputs, targets, (answer,)),) = asked
    np.testing.assert_array_equal(answer, bigram_log_probs(inputs, targets, 1024))


def test_a_second_reference_answers_beside_the_first(track_of_two, echo, asked, tmp_path):
    copytree(echo, tmp_path / "second")
    (tmp_path / "second/train_gpt.py").write_text(hostile("Plain"))
    relist(tmp_path / "second")
    report = run(track_of_two, make_submission(tmp_path / "entry", "Plain"))[0]
    told = [(rule["id"], rule["passed"], rule["figure"]) for rule in report["rules"][:2]]
    assert told == [("control", True, "echo, seed 3"), ("second-control", True, "second, seed 3")]
    ((inputs, targets, answers),) = asked
    np.testing.assert_allclose(answers[0], echo_log_probs(inputs, targets), atol=1e-5)
    np.testing.assert_allclose(answers[1], -np.log(1024), atol=1e-5)


def test_a_second_reference_that_cannot_be_used_is_replaced(track_of_two, echo, asked, tmp_path):
    report = run(track_of_two, make_submission(tmp_path / "entry", "Plain"))[0]
    second = report["rules"][1]
    assert second["passed"] is None and second["figure"] == BIGRAM
    assert "the track's second_control second cannot be used" in second["sentence"]
    ((inputs, targets, answers),) = asked
    np.testing.assert_array_equal(answers[1], bigram_log_probs(inputs, targets, 1024))


@pytest.mark.parametrize("quick", [False, True])
def test_the_reference_itself_passes(track, echo, quick):
    report, control = run(track, echo, quick=quick, seed=4)
    assert control["figure"] == "echo, seed 3"
    rules = {rule["id"]: rule for rule in report["seeds"][0]["rules"]}
    unclear = {rule for rule, found in rules.items() if found["passed"] is not True}
    assert unclear <= {"claim", "segments", "held-out", "tails"} and rules["held-out"]["passed"] is not False


@pytest.mark.slow
def test_what_has_the_references_files_is_its_own_control(track, echo, asked, capsys):
    """It is not fed a second time; another seed's artifact would be."""
    control = run(track, echo, seed=3)[1]
    assert control["figure"] == "echo, seed 3" and "by the control" not in capsys.readouterr().err
    ((inputs, targets, (answer,)),) = asked
    np.testing.assert_allclose(answer, echo_log_probs(inputs, targets), atol=1e-5)
    (echo / "final_model_seed4.bin").write_bytes(b"other")
    relist(echo)
    run(track, echo, seed=4)
    assert "by the control, echo" in capsys.readouterr().err


@pytest.mark.slow
def test_what_ships_with_the_track_is_not_run_again(track, echo, asked, tmp_path, monkeypatch, capsys):
    """But only if it is of the control's own files and of the very text."""
    texts, look_up = [], Control.look_up
    monkeypatch.setattr(Control, "look_up", lambda self, text: (texts.append(text), look_up(self, text)))
    folder, ran = make_submission(tmp_path / "entry", "Plain"), "by the control, echo"
    run(track, folder)
    assert ran in capsys.readouterr().err
    control, count = entry.read_entries(echo, read_claim(echo), "cpu")[0], len(texts[0])
    shipped = {"steps": np.arange(count + 9, dtype=np.uint16), key_of(control, texts[0]): count}
    np.savez(tmp_path / "control.npz", **shipped)
    assert run(track, folder)[1]["figure"] == "echo, seed 3"
    assert ran not in capsys.readouterr().err
    np.testing.assert_array_equal(asked[-1][2][0], np.arange(count) / -STEPS)
    run(track, folder, targets=count // 4)
    assert ran in capsys.readouterr().err, "another text"
    (echo / "final_model_seed3.bin").write_bytes(b"other")
    relist(echo)
    run(track, folder)
    assert ran in capsys.readouterr().err, "another artifact"


DAMAGED = {
    "cut": lambda blob, _: blob[: len(blob) // 2],
    "empty": lambda blob, _: b"",
    "of text": lambda blob, _: b"version https://git-lfs.github.com\n" * 3,
    "in a bit": lambda blob, _: blob[:170] + bytes([blob[170] ^ 1]) + blob[171:],
    "without steps": lambda blob, _: blob.replace(b"steps", b"stops"),
    "too short": lambda _, key: saved(np.savez, steps=np.arange(9, dtype=np.uint16), **{key: 9}),
    "of other numbers": lambda _, key: saved(np.savez, steps=np.full(9999, np.nan), **{key: 9}),
    "of one array": lambda _, key: saved(np.save, np.arange(9)),
    "a pickle": lambda _, key: saved(np.save, np.array([None]), allow_pickle=True),
}


def saved(save, *given, **more) -> bytes:
    file = io.BytesIO()
    save(file, *given, **more)
    return file.getvalue()


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_told_and_not_used(track, echo, tmp_path, capsys, damage):
    """The control's own answers are the same, so nothing hangs on the file."""
    text = Text((Stream(np.arange(65, dtype=np.uint16), None),))
    rules, talker = tracks.load(str(track)), Talker("golf score")
    control = Control(rules, "audit_control", tmp_path / "entry", "cpu", 1024, None, talker)
    key = key_of(control.entry, text)
    blob = saved(np.savez, steps=np.arange(64, dtype=np.uint16), **{key: len(text)})
    for content, due in ((blob, False), (damage(blob, key), True)):
        control.asked = None
        control.kept.write_bytes(content)
        control.look_up(text)
        lines = capsys.readouterr().err.splitlines()
        assert control.due(text) is due and len(lines) == due
    assert "control.npz is damaged (" in lines[0] and "the control runs instead" in lines[0]


@pytest.mark.slow
def test_what_ships_is_of_todays_control_and_text(sample_data, monkeypatch):
    """Whole and --quick find the file's answer, and the control answers so; else run dev/control.py again."""
    setups = []

    def score_entry(setup, seed, step):
        setups.append(setup)
        return official.SeedScore(seed.seed, 0, {})

    monkeypatch.setattr(official, "score_entry", score_entry)
    rules = tracks.load("track_sample_5min")
    folder = tracks.RECORDS / rules["name"] / "2026-11-29_what_followed"  # no control
    for quick in (True, False):
        data = sample_data / "datasets" / "sample_sp1024"
        official.score(folder, seed=42, quick=quick, data=data, device="cpu", sandboxed=False)
        controls, text = setups[-1].controls, setups[-1].text
        assert len(text) == 65_536 + (8_192 if quick else 32_768) and len(controls) == 2
        assert all(not control.due(text) and len(control(text)) == len(text) for control in controls)
    start = Text((setups[0].stream.part(0, 1024),))
    for control in controls:
        seed = control.entry
        with Remote(seed.files, seed.script, seed.artifact, "cpu", 1024, sandboxed=False) as remote:
            np.testing.assert_allclose(control(text)[:1024], feed(remote, start).log_probs, atol=1e-3)


@pytest.mark.parametrize("name, fine", [(None, True), ("2026-11-22_a.b", True), ("../x", False), ("", False)])
def test_what_a_track_may_name(track, tmp_path, name, fine):
    path = tmp_path / "track.json"
    path.write_text(json.dumps(json.loads(track.read_text()) | dict(audit_control=name)))
    if fine:
        assert tracks.load(str(path))["audit_control"] == name
    else:
        with pytest.raises(GolfError, match="audit_control"):
            tracks.load(str(path))


@pytest.mark.parametrize("name", tracks.names())
def test_tracks_of_the_repository_name_entries_that_can_be_scored(name):
    rules = tracks.load(name)
    for role in (role for role in KEPT if rules.get(role)):
        folder = tracks.RECORDS / name / rules[role]
        assert entry.read_entries(folder, read_claim(folder), "cpu")
