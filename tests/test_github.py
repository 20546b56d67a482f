"""golf ci on real git repositories, and what the workflows may and may not do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from check_kit import made  # noqa: F401  (a fixture)
from conftest import REPO, run_script
from golf import GolfError, ci, sandbox

WORKFLOWS = sorted((REPO / ".github/workflows").glob("*.yml"))


def git(repo, *args):
    words = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@example.org", *args]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(repo):
    git(repo, "add", "--all", "--force")
    git(repo, "commit", "--quiet", "--allow-empty", "-m", "x")


class Pull:
    """The tools' repository and a clone of it, whose HEAD is a pull request's."""

    def __init__(self, made, tmp_path):  # noqa: F811
        tools, source, _ = made
        self.tools, self.entry = tools, source
        self.root = tmp_path / "pull"
        self.track = self.root / "records/track_tiny"
        self.track.mkdir(parents=True)
        shutil.copy(tools / "records/track_tiny/track.json", self.track)
        (self.root / "train_gpt.py").write_text("pass\n")
        git(tmp_path, "init", "--quiet", "--initial-branch=main", str(self.root))
        commit(self.root)
        self.outputs = tmp_path / "outputs"

    def add(self, name):
        return shutil.copytree(self.entry, self.track / name)

    def check(self, base="main", branch="mine"):
        """Commits what was changed to a branch and checks that."""
        if branch:
            git(self.root, "checkout", "--quiet", "-b", branch)
            commit(self.root)
        self.outputs.write_text("")
        env = {"GITHUB_OUTPUT": str(self.outputs)}
        return run_script(
            "golf.sh", "ci", "check", base, "--root", self.root, env=env, repo=self.tools
        )


@pytest.fixture
def pull(made, tmp_path):  # noqa: F811
    return Pull(made, tmp_path)


def remarks(done, level="error"):
    """{(rule, file)} of the annotations."""
    found = re.findall(rf"^::{level} file=([^,\n]*),title=([\w-]+)::.", done.stdout, re.MULTILINE)
    return {(rule, path) for path, rule in found}


def test_one_new_submission_passes_and_is_named_for_scoring(pull):
    pull.add("2026-01-31_x")
    done = pull.check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not remarks(done) and "PASS 'records/track_tiny/2026-01-31_x'" in done.stdout
    assert pull.outputs.read_text() == "folder=records/track_tiny/2026-01-31_x\ndata=tiny\n"


def test_code_and_track_changes_alone_are_left_to_the_tests(pull):
    (pull.root / "train_gpt.py").write_text("x = 1\n")
    (pull.track / "track.json").write_text("{}")
    (pull.track / "README.md").write_text("board\n")
    done = pull.check()
    assert done.returncode == 0 and "no submission's folder" in done.stdout
    assert pull.outputs.read_text() == "" and "::" not in done.stdout


def test_anything_else_beside_a_submission_fails(pull):
    pull.add("x")
    (pull.root / "train_gpt.py").write_text("x = 1\n")
    (pull.track / "track.json").write_text("{}")  # its own rules: not believed, and not allowed
    (pull.root / "records/track_tiny/x.md").write_text("no folder\n")
    done = pull.check()
    assert done.returncode == 1 and pull.outputs.read_text() == ""
    assert remarks(done) == {
        ("outside", path)
        for path in ("train_gpt.py", "records/track_tiny/track.json", "records/track_tiny/x.md")
    }


def test_two_submissions_fail_and_both_are_checked(pull):
    (pull.add("x") / "train.log").unlink()
    (pull.add("y") / "train_seed2.log").write_text("nothing\n")
    done = pull.check()
    assert done.returncode == 1
    rules = {rule for rule, _ in remarks(done)}
    assert {"one-folder", "file-required", "file-hash"} <= rules
    assert ("file-required", "records/track_tiny/x/submission.json") in remarks(done)


def test_a_failing_folder_fails(pull):
    folder = pull.add("x")
    value = json.loads((folder / "submission.json").read_text())
    (folder / "submission.json").write_text(json.dumps({**value, "val_bpb": 0.5}))
    done = pull.check()
    assert done.returncode == 1 and pull.outputs.read_text() == ""
    assert remarks(done) == {("mean", "records/track_tiny/x/submission.json")}


def test_changed_and_removed_entries(pull):
    folder = pull.add("x")
    commit(pull.root)
    (folder / "README.md").write_text("Better words.\n")
    done = pull.check()
    assert done.returncode == 0, done.stdout
    assert ("changed", "records/track_tiny/x") in remarks(done, "warning")
    git(pull.root, "rm", "-r", "--quiet", "records/track_tiny/x")
    assert remarks(pull.check(branch="gone")) == {("removed", "records/track_tiny/x")}


def test_strange_names_give_annotations_not_commands(pull):
    for name in ("a\nb::set-output name=folder::x", "a b", "-x", "ünï", "%0A::error::y"):
        folder = pull.track / name
        folder.mkdir()
        (folder / "submission.json").write_text("{}")
    unknown = pull.root / "records/track_moon/x"
    unknown.mkdir(parents=True)
    (unknown / "README.md").write_text("x")
    done = pull.check()
    assert done.returncode == 1 and pull.outputs.read_text() == ""
    assert {"file-name", "one-folder"} <= {rule for rule, _ in remarks(done)}
    for line in done.stdout.splitlines()[:-1]:
        assert re.match(r"::error file=[^,:]*,title=[\w-]+::", line), line


def test_an_unknown_track_is_named(pull):
    (pull.root / "records/track_moon/x").mkdir(parents=True)
    (pull.root / "records/track_moon/x/README.md").write_text("x")
    done = pull.check()
    assert remarks(done) == {("track", "records/track_moon/x")} and "track_tiny" in done.stdout


def test_only_what_the_branch_itself_changed_counts(pull):
    pull.add("x")
    git(pull.root, "checkout", "--quiet", "-b", "mine")
    commit(pull.root)
    git(pull.root, "checkout", "--quiet", "main")
    (pull.root / "train_gpt.py").write_text("main went on\n")
    commit(pull.root)
    git(pull.root, "checkout", "--quiet", "mine")
    assert pull.check(branch=None).returncode == 0


def test_used_wrongly_is_one_line(pull, tmp_path):
    for base, words in (("nothing", "BASE must be a commit"), ("--help", "BASE must be")):
        with pytest.raises(GolfError, match=words) as caught:
            ci.check_change(base, pull.root)
        assert caught.value.code == 2
    git(pull.root, "checkout", "--quiet", "--orphan", "apart")
    (pull.root / "train_gpt.py").write_text("another beginning\n")
    commit(pull.root)
    with pytest.raises(GolfError, match="fetch-depth: 0"):
        ci.check_change("main", pull.root)
    with pytest.raises(GolfError, match="rev-parse"):
        ci.check_change("main", tmp_path)
    with pytest.raises(GolfError, match="no such file"):
        ci.score(tmp_path)


def test_escape():
    assert ci.escape("100%\r\n::x::") == "100%25%0D%0A::x::"
    assert ci.escape("a:b,c%", ":,") == "a%3Ab%2Cc%25"
    assert ci.escape("a\x1b[1m\u202eb") == "a?[1m?b"


# ---- score


REPORT = {
    "verdict": "FAIL",
    "ruling": "passing is not a ruling",
    "rules": [{"id": "stream", "passed": True, "figure": "1", "sentence": "fine"}],
    "seeds": [{"rules": [
        {"id": "score", "passed": False, "figure": "2.0 bpb", "sentence": "claimed\n::warning::1.0"},
        {"id": "budget", "passed": None, "figure": "9 s", "sentence": "slow"},
    ]}],
}  # fmt: skip


@pytest.fixture
def scored(monkeypatch, pull):
    """ci.score of a submission, with the scorer's exit code and output given."""
    folder = pull.add("x")
    monkeypatch.setattr(ci, "rules_of", lambda folder: {"name": "track_tiny"})

    def run(code=0, stdout=b"", why=None):
        def fake(words, **kwargs):
            assert words[:4] == [sys.executable, "-m", "golf", "score"] and "--quick" in words
            assert words[4] == str(folder.resolve()) and kwargs["cwd"] == REPO
            return SimpleNamespace(returncode=code, stdout=stdout)

        monkeypatch.setattr(sandbox, "why_not", lambda: why)
        monkeypatch.setattr(ci.subprocess, "run", fake)
        return ci.score(folder)

    run.folder = folder
    return run


def test_score_annotates_what_the_audit_found(scored, capsys):
    assert scored(1, json.dumps(REPORT).encode()) == 1
    out = capsys.readouterr().out
    place = "file=records/track_tiny/x"
    assert f"::error {place},title=score::2.0 bpb: claimed%0A::warning::1.0\n" in out
    assert f"::warning {place},title=budget::9 s: slow\n" in out and "PASS stream: 1: fine\n" in out
    token = re.match(r"::stop-commands::(\w{32})\n\n::(\w+)::\n", out)
    assert token and token[1] == token[2]


def test_score_says_why_it_did_not(scored, capsys):
    assert scored(why="the sandbox needs the package bubblewrap") == 0
    assert "::warning" in (out := capsys.readouterr().out) and "not scored: the sandbox needs" in out
    assert scored(2) == 0 and "::warning" in capsys.readouterr().out
    assert scored(1) == 1 and "::error" in capsys.readouterr().out
    claim = scored.folder / "submission.json"
    value = json.loads(claim.read_text())
    for seed in value["seeds"]:
        seed["artifact"] = None
    claim.write_text(json.dumps(value))
    assert scored(1) == 0 and "title=not-rescorable" in capsys.readouterr().out


# ---- The workflows


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request):
    text = request.param.read_text()
    return text, yaml.safe_load(text)


def test_workflows_hold_no_rights_and_pin_their_actions(workflow):
    text, value = workflow
    assert "pull_request_target" not in text and "secrets." not in text
    assert value["permissions"] == {"contents": "read"}
    for job in value["jobs"].values():
        assert "permissions" not in job and job["timeout-minutes"] <= 120
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", step["uses"])
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            assert "${{" not in step.get("run", "")  # foreign text would become code


def test_workflows_call_what_there_is(workflow):
    text, _ = workflow
    for name in re.findall(r"(?:scripts|data)/[\w./]+\.(?:sh|py)", text):
        assert (REPO / name).is_file()
    for name in re.findall(r"requirements-\w+\.txt", text):
        assert (REPO / name).is_file()


def test_the_submission_workflow_uses_the_bases_tools():
    value = yaml.safe_load((REPO / ".github/workflows/submission.yml").read_text())
    tools, change = value["jobs"]["check"]["steps"][:2]
    assert "base.sha" in tools["with"]["ref"] and "path" not in tools["with"]
    assert "head.sha" in change["with"]["ref"] and change["with"]["path"] == "pull"
    assert value[True] == "pull_request"  # YAML 1.1 reads `on` as true
