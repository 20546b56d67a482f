"""golf new: from finished runs to a folder that passes, and a command that repeats them."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from check_kit import edit, edit_track, found
from conftest import REPO, bare, passed, read_events, refused, run_golf, run_script, write_events
from golf.check import command as check
from golf.core import runlog, schema, submission, track
from golf.core.findings import FAIL
from golf.submit import new as new_command


def new(repo, *args):
    return run_golf("new", *args, repo=repo)


def test_new_fills_everything_from_the_runs(made):
    repo, folder, output = made
    value = json.loads((folder / "submission.json").read_text())
    assert schema.errors("submission", value) == []
    assert set(value) == set(schema.validator("submission").schema["properties"])
    assert [s["seed"] for s in value["seeds"]] == [1, 2, 3]
    assert {p.name for p in folder.iterdir()} == {
        "README.md", "submission.json", "train.log", "train_gpt.py",
        *(f"{stem}_seed{s}.{end}" for s in (1, 2, 3) for stem, end in (
            ("train", "log"), ("metrics", "jsonl"), ("final_model", "int8.zlib"))),
    }  # fmt: skip
    for seed in value["seeds"]:
        facts = runlog.read_run(repo / f"runs/r-s{seed['seed']}")
        assert seed["val_bpb"] == facts["sliding"]["val_bpb"]
        assert seed["val_loss"] == facts["sliding"]["val_loss"]
        assert seed["bytes_total"] == facts["export"]["bytes_total"]
        assert seed["train_seconds"] == facts["train_end"]["train_seconds"]
        assert seed["segments"] == facts["sliding"]["segments"]
    start = runlog.read_run(repo / "runs/r-s1")["start"]
    assert value["hardware"] == start["hardware"] and value["data"] == start["data"]
    assert value["val_bpb"] == pytest.approx(sum(s["val_bpb"] for s in value["seeds"]) / 3)
    assert (value["author"], value["github_id"], value["lane"]) == ("A. Thor", "athor", "record")
    *_, todo, verdict, then = output.strip().splitlines()
    assert todo.startswith("FAIL placeholder: README.md") and verdict.startswith("FAIL records/track_tiny/")
    assert then.startswith("next ") and then.endswith(folder.name)  # the idea is for a person to write
    assert not list(folder.parent.glob(".new-*"))


def test_the_script_is_the_one_that_ran(made):
    """Not the working tree's, which may have moved on."""
    repo, _, _ = made
    script = repo / "train_gpt.py"
    ran = script.read_text()
    try:
        script.write_text(ran + "# later\n")
        done = new(repo, "runs/r-s2", "--out", "runs/moved-on")
    finally:
        script.write_text(ran)
    assert done.returncode == 0, done.stdout
    assert (repo / "runs/moved-on/train_gpt.py").read_text() == ran


def test_readme_has_results_hardware_and_command(made):
    _, folder, _ = made
    value, text = (json.loads((folder / "submission.json").read_text()), (folder / "README.md").read_text())
    for seed in value["seeds"]:
        assert f"| {seed['seed']} | {seed['val_loss']:.6f} | {seed['val_bpb']:.6f} |" in text
    assert f"| mean | {value['val_loss']:.6f} | {value['val_bpb']:.6f} |" in text
    spread = statistics.stdev(seed["val_loss"] for seed in value["seeds"])
    assert f"| std | {spread:.6f} |" in text
    for words in ("Hardware: a fake processor", "## The idea", "Wider is", "It helps.", value["command"]):
        assert words in text


def test_the_command_parses_back_and_repeats_the_run(made):
    """In a shell at the repository's root: the same script, seed and configuration."""
    repo, folder, _ = made
    value = json.loads((folder / "submission.json").read_text())
    script = f"records/track_tiny/{folder.name}/train_gpt.py"
    assert value["env"] == {"ITERATIONS": "3"}
    assert value["command"] == f"ITERATIONS=3 SEED=1 python3 {script}"
    settings, words = submission.parse_command(value["command"])
    assert settings == {"ITERATIONS": "3", "SEED": "1"} and words == ["python3", script]
    env = bare({"RUN_ID": "again", "OUT_DIR": "runs"})
    subprocess.run(["bash", "-c", value["command"]], cwd=repo, env=env, check=True, capture_output=True)
    again, first = (runlog.read_run(repo / f"runs/{name}")["start"] for name in ("again", "r-s1"))
    for name in ("seed", "script_sha256", "data"):
        assert again[name] == first[name]
    differ = {name for name in again["config"] if again["config"][name] != first["config"][name]}
    assert differ <= {"RUN_ID", "OUT_DIR", "VAL_DATA_PATH"}


def test_new_refuses_in_one_line(made, tmp_path):
    repo, folder, _ = made
    bad = tmp_path / "unfinished"
    shutil.copytree(repo / "runs/r-s1", bad)
    start, *rest = read_events(bad)

    def told(words, *args):
        done = new(repo, *args)
        assert done.returncode in (1, 2) and words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

    write_events(bad, start, *rest[:-3])
    told("has no sliding event", bad, "--out", tmp_path / "x")
    write_events(bad, start | {"seed": 9, "config": start["config"] | {"MODEL_DIM": 8}}, *rest)
    told("differ in MODEL_DIM", "runs/r-s1", bad, "--out", tmp_path / "x")
    (bad / "train_gpt.py").write_text("pass\n")
    told("was changed after the run", bad, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    told("seed 1 is given 2 times", "runs/r-s1", "runs/r-s1")
    told("no metrics.jsonl", tmp_path)
    told("give a run's folder, or runs/<RUN_ID> for runs with SEEDS=...", "runs/q")
    told("is there already", "runs/r-s1", "--out", folder)
    told("golf new: error: train_gpt.py", "runs/r-s1", "--out", "train_gpt.py/x")
    told("in lane fast", "runs/r-s1", "--lane", "fast")
    told("no track 'none'; there are: track_tiny", "runs/r-s1", "--track", "none")


@pytest.mark.parametrize(("device", "world_size", "hardware", "lane"), [
    ("cuda", 1, "NVIDIA GeForce RTX 4090", "record"),
    ("cuda", 1, "NVIDIA GeForce RTX 3070", "open-hardware"),
    ("cuda", 2, "NVIDIA GeForce RTX 4090", "open-hardware"),
    ("cpu", 1, "2-core x86_64 CPU", "open-hardware"),
])  # fmt: skip
def test_the_record_lane_is_guessed_on_record_hardware_alone(device, world_size, hardware, lane):
    rules = track.read(REPO / "records/track_30min_2mb_local/track.json")
    start = {"device": device, "world_size": world_size, "hardware": hardware}
    assert new_command.guess_lane(rules, new_command.Run(Path(), {"start": start}, 1, "x.py")) == lane


@pytest.mark.slow
def test_new_takes_nothing_from_outside_the_runs_folder(made, tmp_path):
    """Someone else's run may name any path as its artifact, and a file of it may be a link."""
    repo, _, _ = made
    odd = Path(shutil.copytree(repo / "runs/r-s1", tmp_path / "odd"))
    (tmp_path / "final_model.int8.zlib").write_text("a private file")
    metrics = (odd / "metrics.jsonl").read_text()
    name = '"artifact": "final_model.int8.zlib"'
    assert name in metrics
    (odd / "metrics.jsonl").write_text(metrics.replace(name, '"artifact": "../final_model.int8.zlib"'))
    done = passed(new(repo, odd, "--out", tmp_path / "out", "--lane", "open-hardware"))
    packed = (tmp_path / "out/final_model_seed1.int8.zlib").read_bytes()
    assert packed == (odd / "final_model.int8.zlib").read_bytes()
    for event, value in (
        ('"time": ', '"time": 1e300, "x": '), ('"run_id": "r-s1"', '"run_id": 7'),
        ('"a fake processor"', r'"\ud800"'),
    ):  # fmt: skip
        assert event in metrics
        (odd / "metrics.jsonl").write_text(metrics.replace(event, value))
        done = new(repo, odd, "--out", tmp_path / f"out{len(value)}")
        assert done.returncode < 2 and "Traceback" not in done.stderr
    (odd / "metrics.jsonl").write_text(metrics)
    (odd / "train.log").rename(tmp_path / "private")
    (odd / "train.log").symlink_to(tmp_path / "private")
    refused(new(repo, odd, "--out", tmp_path / "linked"), "train.log is a link", code=1)
    assert not (tmp_path / "linked").exists()


@pytest.mark.slow
def test_new_elsewhere_is_checked_by_the_track_it_names(made):
    repo, _, _ = made
    words = ["--author", "A", "--github-id", "a", "--blurb", "It helps."]
    out = repo / "runs/r-s2-submission"
    done = new(repo, "runs/r-s2", "--out", out, *words[:4])
    assert done.returncode == 0 and "FAIL placeholder: blurb" in done.stdout
    shutil.rmtree(out)
    new(repo, "runs/r-s2", "--out", out, *words)
    (out / "README.md").write_text((out / "README.md").read_text().replace(submission.IDEA, "Wider."))
    done = run_script("check_submission_folder.sh", "runs/r-s2-submission", repo=repo)
    last = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 0 and last.startswith("PASS") and "passing is not a ruling" in last
    assert json.loads((repo / "runs/r-s2-submission/submission.json").read_text())["lane"] == "open-hardware"


# ---- In a folder of records/, as people work


WORDS = ("--author", "A", "--github-id", "a", "--blurb", "It helps.")


def work_in(repo, name, **files):
    """A folder of the tiny track with a copy of the trainer, changed, a README and whatever else."""
    folder = repo / "records/track_tiny" / name
    folder.mkdir()
    text = (repo / "train_gpt.py").read_text(encoding="utf-8")
    (folder / "train_gpt.py").write_text(text.replace("import zlib\n", "import zlib\n\nimport helper\n"))
    (folder / "helper.py").write_text("# a module of its own\n")
    (folder / "README.md").write_text("# Mine\n\nWider, because I said so.\n")
    (folder / "notes.txt").write_text("what I tried\n")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "helper.pyc").write_bytes(b"x")
    return folder


def run_in(repo, folder, **env):
    words = ("run", "configs/tiny.env", "--trainer", folder / "train_gpt.py")
    passed(run_golf(*words, env=env, repo=repo))


def test_new_completes_the_folder_that_the_trainer_ran_from(tiny_repo):
    folder = work_in(tiny_repo, "2026-01-02_mine")
    run_in(tiny_repo, folder, RUN_ID="r", SEEDS="10,9")
    done = passed(new(tiny_repo, "runs/r", *WORDS))
    assert f"made     records/track_tiny/{folder.name}/ from 2 runs" in done.stdout
    assert (folder / "README.md").read_text() == "# Mine\n\nWider, because I said so.\n"
    value = json.loads((folder / "submission.json").read_text())
    assert value["command"] == f"ITERATIONS=3 SEED=9 python3 records/track_tiny/{folder.name}/train_gpt.py"
    roles = {entry["path"]: entry["role"] for entry in value["files"]}
    assert roles["helper.py"] == "score" and roles["notes.txt"] == "extra" and roles["README.md"] == "readme"
    assert not {path for path in roles if "pycache" in path or "DS_Store" in path}
    code = sum((folder / name).stat().st_size for name in ("train_gpt.py", "helper.py")) + len("helper.py")
    assert value["bytes_code"] == code  # as the trainer counted, and the check does
    assert runlog.read_run(tiny_repo / "runs/r-s9")["export"]["bytes_code"] == code
    assert {s["seed"] for s in value["seeds"]} == {9, 10}
    failed = [line for line in done.stdout.splitlines() if re.match("FAIL (bytes|command|file)", line)]
    assert not [line for line in failed if "pycache" not in line and "DS_Store" not in line]


@pytest.mark.slow
def test_new_completes_the_folder_that_out_names_and_writes_nothing_over(tiny_repo):
    folder = work_in(tiny_repo, "2026-01-02_mine")
    run_in(tiny_repo, folder, RUN_ID="a")
    (tiny_repo / "runs/a/supervisor.json").unlink()  # the trainer by itself
    given = ("runs/a", *WORDS, "--out", f"records/track_tiny/{folder.name}")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    for name, words in (("train_gpt.py", "not the one that ran"), ("helper.py", "helper.py is there")):
        (folder / name).write_bytes(before[name] + b"# later\n")
        done = new(tiny_repo, *given)
        assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1
        (folder / name).write_bytes(before[name])
        assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    assert not list(folder.parent.glob(".new-*"))
    done = passed(new(tiny_repo, *given))
    made = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert before.items() <= made.items() and "final_model_seed1337.int8.zlib" in made
    assert new(tiny_repo, *given).returncode == 0  # nothing differs
    refused(new(tiny_repo, *given, "--name", "another"), "submission.json is there already", code=1)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == made


def test_a_module_that_changed_after_the_run_is_told(tiny_repo):
    run_in(tiny_repo, work_in(tiny_repo, "2026-01-02_mine"), RUN_ID="a")
    (tiny_repo / "runs/a/helper.py").write_text("# another\n")
    refused(new(tiny_repo, "runs/a"), "runs/a/helper.py was changed after the run", code=1)
    start, *rest = read_events(tiny_repo / "runs/a")
    write_events(tiny_repo / "runs/a", start | {"modules": {"../train_gpt.py": "0" * 64}}, *rest)
    refused(new(tiny_repo, "runs/a"), "names a module '../train_gpt.py'", code=1)


@pytest.mark.parametrize("trainer", ["/", "../x/train_gpt.py", "a\0b", "records/track_tiny/train_gpt.py", 7])
def test_only_a_folder_of_records_is_completed(made, trainer, tmp_path):
    run = new_command.read_finished(shutil.copytree(made[0] / "runs/r-s1", tmp_path / "run"))
    for text in (json.dumps({"trainer": trainer}), "", "[]", "{", "\0"):
        (tmp_path / "run/supervisor.json").write_text(text)
        assert new_command.entry_folder(run) is None and (run.origin == {} or "trainer" in text)


@pytest.mark.parametrize(("said", "name"), [
    (b"Jos\xe9\n", "Jos\xe9"), ("Jos\xe9\n".encode(), "Jos\xe9"), (b"a\nb\x1b[0m", "ab[0m"), (b"", ""),
])  # fmt: skip
def test_git_may_hold_any_name_or_be_absent(monkeypatch, said, name):
    git = mock.Mock(return_value=subprocess.CompletedProcess([], 0, said))
    monkeypatch.setattr(new_command.subprocess, "run", git)
    assert new_command.git_config("user.name") == name
    git.side_effect = FileNotFoundError("git")
    assert new_command.git_config("user.name") == ""


# ---- Tracks are data: the larger challenge's numbers, from a file alone


@pytest.mark.slow
def test_another_tracks_numbers_hold_without_a_change_of_code(made, tmp_path):
    repo, _, _ = made
    rules = shutil.copytree(REPO / "tests/fixtures/track_16mb", tmp_path / "track_16mb")
    env = {"RUN_ID": "big", "FAKE_ARTIFACT_BYTES": "3000000", "ARTIFACT_CAP_BYTES": "16000000"}
    done = passed(run_golf("run", "configs/tiny.env", env=env, repo=repo))
    words = ["--lane", "non-record", "--name", "big", "--out", rules / "2026-01-01_big"]
    words += ["--author", "A", "--github-id", "a", "--blurb", "It helps."]
    done = new(repo, "runs/big", "--track", rules, *words)
    assert done.returncode == 0 and "on track_16mb, non-record (1 FAIL" in done.stdout, done.stdout
    folder = rules / "2026-01-01_big"
    (folder / "README.md").write_text("# Big\n")  # the idea was to be written
    assert not found(folder, FAIL)
    value = json.loads((rules / "track.json").read_text())
    total = json.loads((folder / "submission.json").read_text())["bytes_total"]
    for cap, fails in ((total, set()), (total - 1, {"cap"}), (2_000_000, {"cap"})):
        (rules / "track.json").write_text(json.dumps({**value, "cap_bytes": cap}))
        assert found(folder, FAIL) == fails
    (rules / "track.json").write_text(json.dumps(value))
    edit(folder, lambda v: v.update(lane="record"))
    assert "hardware" in found(folder, FAIL)  # eight H100s


def test_no_script_knows_a_tracks_numbers():
    rules = track.read(REPO / "records/track_30min_2mb_local/track.json")
    numbers = {str(rules[key]) for key in ("cap_bytes", "train_seconds", "targets")}
    for path in [*(REPO / "scripts").rglob("*.py"), *(REPO / "scripts").glob("*.sh")]:
        words = set(re.split(r"[^\w.]+", path.read_text().replace("_", "")))
        assert not numbers & words, path


# ---- The command line of the check


def test_json_output_and_exit_codes(made, tmp_path):
    repo, folder, _ = made
    done = run_script("check_submission_folder.sh", folder, "--json", repo=repo)
    value = json.loads(done.stdout)
    assert done.returncode == 0 and value["verdict"] == "PASS" and value["track"] == "track_tiny"
    for args, words in (
        ([tmp_path / "none"], "no folder there"),
        ([tmp_path], "submission.json is missing; golf.sh new makes it"),
        (["records/track_tiny"], "records/track_tiny: a track's folder; give a submission's"),
        (["runs/r-s1"], "runs/r-s1: a run's folder; `golf.sh new` makes"),
        ([folder, "--track", "none"], "no track 'none'"),
        ([folder, "--odd"], "--odd"),
    ):
        refused(run_golf("check", *args, repo=repo), words)
    done = run_golf("check", tmp_path, "--track", "track_tiny", "--json", repo=repo)
    value = json.loads(done.stdout)
    assert done.returncode == 1 and value["verdict"] == "FAIL" and "not a ruling" in value["ruling"]
    first = value["findings"][0]
    assert (first["level"], first["rule"], first["section"]) == ("FAIL", "file-required", "6.1")


def test_unpinned_data_goes_to_a_human(folder, capsys):
    edit_track(folder, lambda v: v["data"].update(val_sha256=None))
    assert check.report(check.check_folder(folder), as_json=False) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("NEEDS-HUMAN") and "not a ruling" in last


def test_what_is_not_installed_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    monkeypatch.setattr(schema, "validator", schema.validator.__wrapped__)  # not the one that is kept
    refused(run_golf("check", folder), "package jsonschema is missing", "requirements-check.txt")


def test_check_runs_nothing_and_needs_no_torch(folder):
    (folder / "train_gpt.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = sys.modules['tqdm'] = None\n"
        "from golf import cli; sys.exit(cli.main(['check', sys.argv[1]]))"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env=env, cwd=folder.parent,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and "FAIL file-hash" in done.stdout and done.stderr == ""
    assert not list(folder.parent.rglob("ran"))
