"""golf new and golf check: from a finished run to a folder that passes, and what fails it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPO, run_script
from golf import GolfError, check, runlog, submission, track
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A tiny repository with three finished seeds and the submission made of them."""
    from conftest import tiny_repo

    repo = tiny_repo.__wrapped__(tmp_path_factory.mktemp("made"))
    done = run_script(
        "golf.sh", "run", "configs/tiny.env", env={"RUN_ID": "r", "SEEDS": "1,2,3"}, repo=repo
    )
    assert done.returncode == 0, done.stderr
    runs = [f"runs/r-s{seed}" for seed in (1, 2, 3)]
    done = run_script("golf.sh", "new", *runs, "--name", "my idea", "--lane", "record", repo=repo)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (repo / "records/track_tiny").glob("*_my-idea")
    return repo, folder, done.stdout


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of the submission that a test may spoil, under a track folder of its own."""
    repo, source, _ = made
    records = tmp_path / "records"
    monkeypatch.setattr(track, "RECORDS", records)
    (records / "track_tiny").mkdir(parents=True)
    shutil.copyfile(repo / "records/track_tiny/track.json", records / "track_tiny/track.json")
    return Path(shutil.copytree(source, records / "track_tiny" / source.name))


def findings(folder, level=None):
    return {f.rule for f in check.check_folder(folder).findings if level in (None, f.level)}


def edit(folder, change):
    """Applies `change` to the object in submission.json."""
    path = folder / "submission.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_text(folder, name, old, new):
    """Replaces text in a file of the folder and lists its new size and hash."""
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    relist(folder, name)


def relist(folder, name):
    def change(value):
        entry = next(e for e in value["files"] if e["path"] == name)
        entry.update(bytes=(folder / name).stat().st_size, sha256=submission.sha256(folder / name))

    edit(folder, change)


# ---- new


def test_new_fills_everything_from_the_runs(made):
    repo, folder, output = made
    value = json.loads((folder / "submission.json").read_text())
    assert set(value) == set(submission.KEYS)
    assert [s["seed"] for s in value["seeds"]] == [1, 2, 3]
    assert {p.name for p in folder.iterdir()} == {
        "README.md", "submission.json", "train.log", "train_gpt.py",
        *(f"{stem}_seed{s}.{end}" for s in (1, 2, 3) for stem, end in (
            ("train", "log"), ("metrics", "jsonl"), ("final_model", "int8.zlib"))),
    }  # fmt: skip
    for seed in value["seeds"]:
        facts = runlog.read_run(repo / f"runs/r-s{seed['seed']}")
        assert seed["val_bpb"] == facts["sliding"]["val_bpb"]
        assert seed["bytes_total"] == facts["export"]["bytes_total"]
        assert len(seed["segments"]) == 64
    assert value["env"] == {"ITERATIONS": "3"}
    script = f"records/track_tiny/{folder.name}/train_gpt.py"
    assert value["command"] == f"ITERATIONS=3 SEED=1 python3 {script}"
    assert value["command"] in (folder / "README.md").read_text()
    verdict = output.strip().splitlines()[-1]
    assert verdict.startswith("PASS records/track_tiny/") and "passing is not a ruling" in verdict
    assert not list(folder.parent.glob(".new-*"))


def test_template_has_every_key_of_its_kind():
    template = json.loads((REPO / "docs/submission_template.json").read_text())
    for value, kinds in (
        (template, submission.KEYS),
        (template["data"], submission.DATA_KEYS),
        (template["files"][0], submission.FILE_KEYS),
        (template["seeds"][0], submission.SEED_KEYS),
    ):
        assert set(value) == set(kinds)
        assert all(check.has_kind(value[name], kind) for name, kind in kinds.items())


def new(repo, *args):
    return run_script("golf.sh", "new", *args, repo=repo)


def test_new_refuses_in_one_line(made, tmp_path):
    repo, folder, _ = made
    bad = repo / "runs" / "unfinished"
    shutil.copytree(repo / "runs/r-s1", bad)
    lines = (bad / "metrics.jsonl").read_text().splitlines(keepends=True)
    cases = []
    (bad / "metrics.jsonl").write_text("".join(lines[:-3]))
    cases.append((new(repo, bad, "--out", tmp_path / "x"), "has no sliding event"))
    (bad / "metrics.jsonl").write_text("".join(lines).replace('"MODEL_DIM": 192', '"MODEL_DIM": 8')
                                       .replace('"seed": 1,', '"seed": 9,'))  # fmt: skip
    cases.append((new(repo, "runs/r-s1", bad, "--out", tmp_path / "x"), "differ in MODEL_DIM"))
    (bad / "train_gpt.py").write_text("pass\n")
    cases.append((new(repo, bad, "--out", tmp_path / "x"), "was changed after the run"))
    cases.append((new(repo, "runs/r-s1", "runs/r-s1"), "seed 1 is given 2 times"))
    cases.append((new(repo, tmp_path), "no metrics.jsonl"))
    cases.append((new(repo, "runs/r-s1", "--out", folder), "is there already"))
    cases.append((new(repo, "runs/r-s1", "--lane", "fast"), "in lane fast"))
    cases.append(
        (new(repo, "runs/r-s1", "--track", "none"), "no track 'none'; there are: track_tiny")
    )
    for done, words in cases:
        assert done.returncode in (1, 2) and words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()
    shutil.rmtree(bad)


def test_new_elsewhere_is_checked_by_the_track_it_names(made):
    repo, _, _ = made
    done = new(repo, "runs/r-s2", "--out", "runs/r-s2-submission")
    assert done.returncode == 0 and "NOTE placeholder: blurb" in done.stdout
    done = run_script("check_submission_folder.sh", "runs/r-s2-submission", repo=repo)
    assert done.returncode == 0 and done.stdout.strip().splitlines()[-1].startswith("PASS")
    assert (
        json.loads((repo / "runs/r-s2-submission/submission.json").read_text())["lane"]
        == "open-hardware"
    )


# ---- check: one folder that passes, and one change for each finding


def test_check_passes_what_new_made(folder):
    assert findings(folder) <= {"placeholder"}


def files_of(value, path):
    return [entry for entry in value["files"] if entry["path"] == path]


def set_seed(name, value):
    return lambda v: v["seeds"][0].update({name: value})


def set_top(name, value):
    return lambda v: v.update({name: value})


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("json-key", lambda v: v.pop("hardware")),
        ("json-key", set_top("val_bpb", "1.9")),
        ("json-key", set_top("val_bpb", float("nan"))),
        ("json-key", set_top("bytes_total", True)),
        ("json-key", set_top("bytes_total", 10**400)),
        ("json-key", set_top("seeds", [])),
        ("json-key", set_top("files", {})),
        ("json-key", set_top("schema_version", 7)),
        ("track", set_top("track", "track_other")),
        ("lane", set_top("lane", ["record"])),
        ("data", lambda v: v["data"].update(val_sha256="0" * 64)),
        ("data", lambda v: v["data"].update(name="other")),
        ("bytes", set_top("bytes_total", 5)),
        ("bytes", set_seed("bytes_total", 5)),
        ("score", set_seed("val_bpb", 1.0)),
        ("score", set_seed("val_loss", 1.0)),
        ("time", set_seed("train_seconds", 3.25)),
        ("time", set_seed("eval_seconds", 3.25)),
        ("time-budget", set_seed("train_seconds", 31)),
        ("mean", set_top("val_bpb", 1.0)),
        ("mean", set_top("train_seconds", 29)),
        ("segments", lambda v: v["seeds"][1]["segments"].pop()),
        ("segments", lambda v: v["seeds"][1]["segments"][3].__setitem__(0, 1e4)),
        ("segments", lambda v: v["seeds"][1]["segments"][3].__setitem__(1, "x")),
        ("artifact", set_seed("artifact", "README.md")),
        ("artifact", set_seed("artifact", "../../x")),
        ("log", set_seed("log", "none.log")),
        ("log", lambda v: v["seeds"].reverse()),
        ("seed-twice", set_seed("seed", 2)),
        ("file-listed", lambda v: v["files"][0].update(path="../README.md")),
        ("file-listed", lambda v: v["files"][0].update(role="friend")),
        ("file-role", lambda v: files_of(v, "train_gpt.py")[0].update(role="log")),
        ("file-role", set_seed("artifact", None)),
        ("file-hash", lambda v: v["files"][1].update(sha256="0" * 64)),
        ("file-hash", lambda v: v["files"][1].update(bytes=1)),
        ("file-unlisted", lambda v: v["files"].pop()),
    ],
)
def test_a_wrong_claim_is_found(folder, rule, change):
    edit(folder, change)
    assert rule in findings(folder, check.FAIL)


def test_missing_and_strange_files(folder):
    (folder / "README.md").unlink()
    (folder / "train_seed2.log").unlink()
    (folder / "help me.py").write_text("x = 1\n")
    os.symlink("/etc/passwd", folder / "passwd")
    os.symlink("/etc", folder / "etc")
    os.symlink("loop", folder / "loop")
    os.mkfifo(folder / "pipe")
    found = findings(folder, check.FAIL)
    assert {"file-required", "file-unlisted", "file-name", "link", "file-kind", "log"} <= found
    messages = [f.message for f in check.check_folder(folder).findings if f.rule == "link"]
    assert len([m for m in messages if "passwd" in m or "etc" in m]) == 2


def test_bytes_are_counted_with_what_scoring_reads(folder):
    (folder / "helper.py").write_text("#" * 30000)
    edit(folder, lambda v: v["files"].append(
        {"path": "helper.py", "role": "score", "bytes": 30000,
         "sha256": submission.sha256(folder / "helper.py")}))  # fmt: skip
    case = check.check_folder(folder)
    assert {"cap", "bytes"} <= {f.rule for f in case.findings if f.level == check.FAIL}
    script = (folder / "train_gpt.py").stat().st_size
    count = submission.count_bytes(folder, case.listed(), "final_model_seed1.int8.zlib")
    assert (count.code, count.model, count.total) == (script + 30000, 1000, script + 31000)


def test_the_cap_is_exact(folder):
    path, value = folder.parent / "track.json", json.loads((folder / "submission.json").read_text())
    for cap, fails in ((value["bytes_total"], False), (value["bytes_total"] - 1, True)):
        rules = json.loads(path.read_text())
        path.write_text(json.dumps({**rules, "cap_bytes": cap}))
        assert ("cap" in findings(folder)) == fails


def test_marked_scores_and_other_targets(folder):
    edit_text(folder, "train_seed2.log", "targets:6400", "targets:6000 note:partial,interrupted")
    assert {"score-note", "targets"} <= findings(folder, check.FAIL)
    edit(folder, set_top("lane", "open-hardware"))
    assert "score-note" in findings(folder, check.NOTE)


def test_another_script_or_artifact_than_the_run_had(folder):
    (folder / "train_gpt.py").write_text((folder / "train_gpt.py").read_text().replace("3", "4", 1))
    (folder / "final_model_seed1.int8.zlib").write_bytes(bytes(1000))
    relist(folder, "train_gpt.py")
    relist(folder, "final_model_seed1.int8.zlib")
    assert {"script-hash", "artifact-hash"} <= findings(folder, check.FAIL)


def test_a_log_that_ends_twice_or_never(folder):
    line = (folder / "train_seed2.log").read_text().splitlines()[-1]
    edit_text(folder, "train_seed2.log", line, f"{line}\n{line}")
    assert "log" in findings(folder, check.FAIL)
    edit_text(folder, "train_seed2.log", line, "")
    assert "log" in findings(folder, check.FAIL)


def test_unpinned_data_goes_to_a_human(folder, capsys):
    path = folder.parent / "track.json"
    rules = json.loads(path.read_text())
    rules["data"]["val_sha256"] = None
    path.write_text(json.dumps(rules))
    case = check.check_folder(folder)
    assert check.report(case, as_json=False) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("NEEDS-HUMAN") and "not a ruling" in last


def test_no_artifact_is_noted_in_an_open_lane(folder):
    edit(folder, set_top("lane", "open-hardware"))
    name = "final_model_seed1.int8.zlib"
    (folder / name).unlink()
    edit(folder, set_seed("artifact", None))
    edit(folder, lambda v: v["files"].remove(*files_of(v, name)))
    assert not findings(folder, check.FAIL)
    assert "not-rescorable" in findings(folder, check.NOTE)


def test_readme_may_be_edited(folder):
    (folder / "README.md").write_text("# My idea\n")
    assert not findings(folder, check.FAIL)


def test_json_output_and_exit_codes(made, tmp_path):
    repo, folder, _ = made
    done = run_script("check_submission_folder.sh", folder, "--json", repo=repo)
    value = json.loads(done.stdout)
    assert done.returncode == 0 and value["verdict"] == "PASS" and value["track"] == "track_tiny"
    for args in ([tmp_path / "none"], [tmp_path], [folder, "--track", "none"], [folder, "--odd"]):
        done = run_script("check_submission_folder.sh", *args, repo=repo)
        assert done.returncode == 2 and "Traceback" not in done.stderr
    done = run_script("check_submission_folder.sh", tmp_path, "--track", "track_tiny", repo=repo)
    assert done.returncode == 1 and "FAIL file-required: submission.json" in done.stdout


def test_check_runs_nothing_and_needs_no_torch(folder):
    (folder / "train_gpt.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = sys.modules['tqdm'] = None\n"
        "from golf import __main__; sys.exit(__main__.main(['check', sys.argv[1]]))"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env=env, cwd=folder.parent,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and "FAIL script-hash" in done.stdout and done.stderr == ""
    assert not list(folder.parent.rglob("ran"))


def test_a_huge_log_takes_no_minutes(folder):
    path = folder / "train_seed2.log"
    with path.open("ab") as file:
        for _ in range(40):
            file.write(b"step:1/2 train_loss:1.0 train_time:1ms step_avg:1ms\n" * 10000)
        file.write(bytes(20 << 20))
    began = time.monotonic()
    check.check_folder(folder)
    assert time.monotonic() - began < 5


# ---- Junk never crashes it

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mangled_json_never_crashes(folder, data):
    path = folder / "submission.json"
    original = path.read_text()
    value = json.loads(original)
    target = value
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [v for v in (target.values() if isinstance(target, dict) else target)
                 if isinstance(v, (dict, list)) and v]  # fmt: skip
        target = data.draw(st.sampled_from(inner)) if inner else target
    key = data.draw(
        st.sampled_from(list(target) if isinstance(target, dict) else range(len(target)))
    )
    target[key] = data.draw(JSON)
    path.write_text(json.dumps(value))
    try:
        rules = {f.rule for f in check.check_folder(folder, track.load("track_tiny")).findings}
    finally:
        path.write_text(original)
    assert "unreadable" not in rules


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    blob=st.binary(max_size=300),
    cut=st.integers(0, 3000),
    name=st.sampled_from(
        ["submission.json", "train_seed1.log", "metrics_seed1.jsonl", "train.log", "train_gpt.py"]
    ),
)
def test_junk_in_any_file_never_crashes(folder, blob, cut, name):  # fmt: skip
    path = folder / name
    original = path.read_bytes()
    path.write_bytes(original[:cut] + blob)
    try:
        rules = {f.rule for f in check.check_folder(folder, track.load("track_tiny")).findings}
    finally:
        path.write_bytes(original)
    assert "unreadable" not in rules


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100000, '{"seeds": ' + "9" * 5000 + "}"])
def test_submission_json_that_is_no_object(folder, text):
    (folder / "submission.json").write_text(text)
    case = check.check_folder(folder, track.load("track_tiny"))
    assert "json" in {f.rule for f in case.findings if f.level == check.FAIL}


def test_lists_without_end_take_no_minutes(folder):
    edit(folder, lambda v: v.update(seeds=v["seeds"] * 500, files=[0, *v["files"]] * 2000))
    began = time.monotonic()
    assert "json-key" in findings(folder, check.FAIL)
    assert time.monotonic() - began < 5


def test_messages_hold_nothing_that_moves_a_cursor(folder):
    (folder / "a\x1b[2J\nPASS.log").write_text("x")
    edit(folder, lambda v: v["seeds"][0].update(seed="\x1b[2J", log="a\x1b[2J\nPASS.log"))
    case = check.check_folder(folder)
    assert all(f.message.isprintable() for f in case.findings)


def test_metrics_of_other_shapes(folder):
    odd = [
        '{"event": "start", "data": 3, "script": 4}',
        '{"event": "score", "kind": []}',
        '{"event": "sliding", "notes": "x", "targets": "y"}',
        '{"event": 4}',
        "[]",
        "{",
    ]
    (folder / "metrics_seed1.jsonl").write_text("\n".join(odd))
    assert "unreadable" not in findings(folder)


def test_tracks_are_data(tmp_path, monkeypatch):
    monkeypatch.setattr(track, "RECORDS", REPO / "records")
    assert set(track.names()) >= {"track_30min_2mb_local", "track_sample_5min"}
    rules = track.load("track_30min_2mb_local")
    name, targets = rules["data"]["name"], rules["targets"]
    assert track.guess(name, targets, 1000)["name"] == "track_30min_2mb_local"
    assert track.guess(name, targets, 1e6)["name"] == "track_non_record_2mb_local"
    with pytest.raises(GolfError, match="no track scores"):
        track.guess(name, 7, 1000)
    (tmp_path / "track.json").write_text("[]")
    with pytest.raises(GolfError, match="not a track.json"):
        track.load(str(tmp_path))
