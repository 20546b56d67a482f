"""track.json: its schema's versions, and which track a submission belongs to."""

import json

import pytest
from conftest import REPO, edit_json, used_wrongly
from golf.core import track
from golf.core.errors import GolfError


@pytest.fixture
def records(tmp_path, monkeypatch):
    """records/ with two tracks, and entries in one of them and elsewhere."""
    rules = track.load("track_sample_5min")
    monkeypatch.setattr(track, "RECORDS", tmp_path / "records")
    for name in ("one", "two"):
        (tmp_path / "records" / name).mkdir(parents=True)
        (tmp_path / "records" / name / "track.json").write_text(json.dumps(rules | {"name": name}))
    for folder in ("records/one/entry", "elsewhere"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.mark.parametrize(("folder", "claimed", "named", "track_name"), [
    ("records/one/entry", "two", "two", "two"),  # what a person names
    ("records/one/entry", "two", None, "one"),  # the place, whatever the claim says
    ("elsewhere", "two", None, "two"),  # the claim, where the place says nothing
])  # fmt: skip
def test_which_track_a_submission_belongs_to(records, folder, claimed, named, track_name):
    assert track.of_submission(records / folder, {"track": claimed}, named)["name"] == track_name


@pytest.mark.parametrize("claimed", ["three", None, ["one"], "../one", "records/one"])
def test_a_submission_of_no_track_is_told_in_a_line(records, claimed):
    (records / "elsewhere/submission.json").write_text("{}")
    with pytest.raises(GolfError, match="names no known track; give --track .one, two.", check=used_wrongly):
        track.of_submission(records / "elsewhere", {"track": claimed})


def test_the_former_schema_is_refused(records):
    edit_json(records / "records/one/track.json", lambda rules: rules.update(schema_version=1))
    with pytest.raises(GolfError, match="schema_version: 2 was expected", check=used_wrongly):
        track.load("one")


RULE = track.load("track_sample_5min")["record_rule"]


@pytest.mark.parametrize("rule", [{}, "vote", [], RULE | {"test": "vote"}, RULE | {"p": 2}])
def test_a_record_rule_that_no_tool_knows_is_refused(records, rule):
    edit_json(records / "records/one/track.json", lambda rules: rules.update(record_rule=rule))
    with pytest.raises(GolfError, match="record_rule", check=used_wrongly):
        track.load("one")


@pytest.mark.parametrize("old, new, words", [
    ('"train_seconds": 300', '"train_seconds": NaN', "holds NaN"),  # over which no time ever is
    ('"train_seconds": 300', '"train_seconds": 1e999', "too large"),
    ('"targets"', '"targets": 7, "targets"', "'targets' twice"),
    ('"track_sample_5min"', '"\\u001b[2J"', r"U\+001B"),
])  # fmt: skip
def test_rules_have_one_way_to_be_read(tmp_path, old, new, words):
    text = (track.RECORDS / "track_sample_5min/track.json").read_text()
    assert old in text
    (tmp_path / "track.json").write_text(text.replace(old, new, 1))
    with pytest.raises(GolfError, match=words, check=used_wrongly):
        track.load(str(tmp_path))


def test_a_run_belongs_to_the_track_of_its_data_targets_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(track, "RECORDS", REPO / "records")
    assert set(track.names()) >= {"track_30min_2mb_local", "track_sample_5min"}
    rules = track.load("track_30min_2mb_local")
    name, targets = rules["data"]["name"], rules["targets"]
    assert track.guess(name, targets, 1000)["name"] == "track_30min_2mb_local"
    assert track.guess(name, targets, 1e6)["name"] == "track_non_record_2mb_local"
    with pytest.raises(GolfError, match=f"no track scores 7 targets of {name} in 1000 s of training; "):
        track.guess(name, 7, 1000)
    for text in ("[]", "{", json.dumps({**rules, "cap_bytes": "2 MB"}), '{"name": "x"}'):
        (tmp_path / "track.json").write_text(text)
        with pytest.raises(GolfError, match="not a track.json") as error:
            track.load(str(tmp_path))
        assert error.value.code == 2 and "\n" not in str(error.value)
