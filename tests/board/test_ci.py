"""golf ci on real git repositories, and what the workflows may and may not do."""

import html
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from check_kit import another_run, edit
from conftest import REPO, passed, run_golf, used_wrongly
from golf.board import ci, ci_summary
from golf.check import code as check_code
from golf.core import track
from golf.core.errors import GolfError
from golf.score.sandbox import bwrap as sandbox

WORKFLOWS = sorted((REPO / ".github/workflows").glob("*.yml"))


def git(repo, *args):
    words = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@example.org", *args]
    return passed(subprocess.run(words, capture_output=True, text=True)).stdout.strip()


def commit(repo):
    git(repo, "add", "--all", "--force")
    git(repo, "commit", "--quiet", "--allow-empty", "-m", "x")


class Pull:
    """The tools' repository and a clone of it, whose HEAD is a pull request's."""

    def __init__(self, made, begun, tmp_path):
        self.tools, self.entry, _ = made
        self.root = shutil.copytree(begun, tmp_path / "pull")
        self.track = self.root / "records/track_tiny"
        self.outputs, self.page = tmp_path / "outputs", tmp_path / "page.md"
        self.later = []  # for git's index

    def add(self, name):
        return shutil.copytree(self.entry, self.track / name)

    def meanwhile(self, change):
        """Commits what was changed to a branch, and after that `change` to main."""
        git(self.root, "checkout", "--quiet", "-b", "mine")
        commit(self.root)
        git(self.root, "checkout", "--quiet", "main")
        change()
        commit(self.root)
        git(self.root, "checkout", "--quiet", "mine")

    def check(self, base="main", branch="mine"):
        """Commits what was changed to a branch and checks that."""
        if branch:
            git(self.root, "checkout", "--quiet", "-b", branch)
            commit(self.root)
        self.outputs.write_text("")
        env = {"GITHUB_OUTPUT": str(self.outputs), "GITHUB_STEP_SUMMARY": str(self.page)}
        return run_golf("ci", "check", base, "--root", self.root, env=env, repo=self.tools)


@pytest.fixture(scope="session")
def begun(made, tmp_path_factory):
    """A repository with a track."""
    root = tmp_path_factory.mktemp("begun")
    track = root / "records/track_tiny"
    track.mkdir(parents=True)
    shutil.copy(made[0] / "records/track_tiny/track.json", track)
    (root / "train_gpt.py").write_text("pass\n")
    git(root, "init", "--quiet", "--initial-branch=main", "--template=")
    commit(root)
    return root


@pytest.fixture
def pull(made, begun, tmp_path):
    return Pull(made, begun, tmp_path)


def remarks(done, level="error"):
    """{(rule, file)} of the annotations in what was printed."""
    text = done if isinstance(done, str) else done.stdout
    found = re.findall(rf"^::{level} file=([^,\n]*),title=([\w-]+)::.", text, re.MULTILINE)
    return {(rule, path) for path, rule in found}


def test_one_new_submission_passes_and_is_named_for_scoring(pull):
    pull.add("2026-01-31_x")
    done = passed(pull.check())
    assert not remarks(done) and "PASS 'records/track_tiny/2026-01-31_x'" in done.stdout
    assert pull.outputs.read_text() == "folder=records/track_tiny/2026-01-31_x\ndata=tiny\n"


def test_code_changes_alone_are_left_to_the_tests(pull):
    (pull.root / "train_gpt.py").write_text("x = 1\n")
    (pull.root / "train_gpt.py").chmod(0o755)
    (pull.root / "docs").mkdir()
    (pull.root / "docs/records.md").write_text("x")
    done = pull.check()
    assert done.returncode == 0 and "nothing under records/" in done.stdout
    assert pull.outputs.read_text() == "" and "::" not in done.stdout


@pytest.mark.slow
def test_two_submissions_fail_and_both_are_checked(pull):
    (pull.add("x") / "train.log").unlink()
    (pull.add("y") / "train_seed2.log").write_text("nothing\n")
    done = pull.check()
    assert done.returncode == 1
    assert {"one-folder", "file-required", "file-hash"} <= {rule for rule, _ in remarks(done)}
    assert ("file-required", "records/track_tiny/x/submission.json") in remarks(done)


def test_strange_names_give_annotations_not_commands(pull):
    for name in ("a\nb::set-output name=folder::x", "a b", "-x", "ünï", "%0A::error::y", "##[add-mask]x"):
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


def test_histories_that_cross_are_refused(pull):
    """Merging this undoes the second rules.txt, and compared with the first it changes nothing."""
    (pull.root / "rules.txt").write_text("1\n")
    commit(pull.root)
    (pull.root / "docs.md").write_text("x\n")
    pull.meanwhile(lambda: (pull.root / "rules.txt").write_text("2\n"))
    second = git(pull.root, "rev-parse", "main")
    git(pull.root, "checkout", "--quiet", "main")
    git(pull.root, "merge", "--quiet", "--no-ff", "-m", "x", "mine")
    git(pull.root, "checkout", "--quiet", "mine")
    git(pull.root, "merge", "--quiet", "--strategy=ours", "-m", "x", second)
    pull.add("x")
    commit(pull.root)
    done = pull.check(branch=None)
    assert done.returncode == 1 and "crosswise" in done.stderr and pull.outputs.read_text() == ""
    git(pull.root, "checkout", "--quiet", "main")
    git(pull.root, "merge", "--quiet", "--no-ff", "-m", "x", "mine")
    assert (pull.root / "rules.txt").read_text() == "1\n"


def test_only_what_the_branch_itself_changed_counts(pull):
    pull.add("x")
    pull.meanwhile(lambda: (pull.root / "train_gpt.py").write_text("main went on\n"))
    assert pull.check(branch=None).returncode == 0


# ---- One new folder of a track, and nothing else, whatever the letters


def blob(pull, text="x"):
    path = pull.root.parent / "blob"
    path.write_text(text)
    return git(pull.root, "hash-object", "-w", str(path))


def index(pull, path, mode="100644", text="x"):
    """A path that a file system might not hold: later, straight into git's index."""
    pull.later.append((path, mode, text))


def link(pull, path, target="train.log"):
    place = pull.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    place.symlink_to(target)


X = "records/track_tiny/x"
SCENARIOS = {
    # (rule that fails, whether the entry x is added, what is done too: a path alone goes into git's index)
    "a link in the entry": ("mode", True, lambda p: link(p, f"{X}/train_seed2.log", "train_seed1.log")),
    "the entry is a link": ("outside", False, lambda p: link(p, X, "../../docs")),
    "records is a link": ("mode", False, lambda p: link(p, "records", "docs")),
    "a track is a link": ("outside", False, lambda p: link(p, "records/track_new", "track_tiny")),
    "a link with code alone": ("mode", False, lambda p: link(p, "docs/x", "/etc/passwd")),
    "a submodule": ("mode", False, lambda p: index(p, f"{X}/lib", "160000")),
    "an executable script": ("mode", True, lambda p: (p.root / X / "train_gpt.py").chmod(0o755)),
    "Records": ("outside", False, "Records/track_tiny/x/submission.json"),
    "records and a dot": ("outside", False, "records./track_tiny/track.json"),
    "records by short name": ("outside", False, "RECORD~1/track_tiny/track.json"),
    "records with nothing between": ("outside", False, "rec\u200cords/track_tiny/track.json"),
    "records in Cyrillic": ("outside", False, "rec\u043erds/track_tiny/x/README.md"),
    "records with an accent": ("outside", False, "r\u00e9cords/track_tiny/x/README.md"),
    "records in full width": ("outside", False, "ｒecords/track_tiny/track.json"),
    "records with a backslash": ("outside", False, "records\\track_tiny\\track.json"),
    "a stream of records": ("outside", False, "records::$INDEX_ALLOCATION/track_tiny/x"),
    "a second spelling beside": ("outside", True, "Records/track_tiny/x/numpy.py"),
    "a new track alone": ("outside", False, lambda p: index(p, "records/track_moon/track.json", text="{}")),
    "code beside": ("outside", True, lambda p: (p.root / "train_gpt.py").write_text("x = 1\n")),
    "the rules alone": ("outside", False, lambda p: (p.track / "track.json").write_text("{}")),
    "a file under records": ("outside", False, lambda p: (p.root / "records/x.md").write_text("x")),
    "attributes at root": ("settings", True, lambda p: index(p, ".gitattributes", text="* text eol=crlf")),
    "attributes in capitals": ("settings", False, "docs/.GitAttributes"),
    "modules": ("settings", False, ".gitmodules"),
    "who reviews": ("settings", False, "CODEOWNERS"),
    "where large files come from": ("settings", False, ".lfsconfig"),
    "who is called what": ("settings", False, ".mailmap"),
    "a workflow beside": ("settings", True, ".GITHUB/workflows/x.yml"),
    "an entry renamed": ("removed", False, lambda p: (p.track / "first").rename(p.track / "x")),
    "an entry's score": ("changed", False, lambda p: (p.track / "first/submission.json").write_text("{}")),
    "a file into an entry": ("changed", False, lambda p: (p.track / "first/more.log").write_text("x")),
    "an entry's name in capitals": ("changed", False, "records/track_tiny/FIRST/submission.json"),
    "an entry's log a link": ("changed", False, lambda p: link(p, "records/track_tiny/first/train.log")),
    "an entry removed": ("removed", False, lambda p: shutil.rmtree(p.track / "first")),
    "another's logs": ("log-twice", True, lambda p: None),
    "a system's leavings": ("file-unlisted", True, lambda p: (p.root / X / ".DS_Store").write_text("x")),
    "placeholder": ("placeholder", True, lambda p: edit(p.root / X, lambda v: v.update(author="your name"))),
    "a name that is another's in capitals": ("file-name", True, f"{X}/TRAIN.log"),
    "a name of the track's own": ("file-name", False, lambda p: p.add("verified.json")),
    "the name of the control's answers": ("file-name", False, lambda p: p.add("Control.npz")),
    "attributes by a short name": ("settings", False, "GITATT~1"),
    "two entries": ("one-folder", True, lambda p: shutil.copytree(p.root / X, p.track / "y")),
    "an entry of a track in capitals": ("track", False, "records/TRACK_TINY/x/README.md"),
}  # fmt: skip


@pytest.fixture
def inside(pull, monkeypatch, capsys):
    """Checks in this process: (exit code, what was printed)."""
    monkeypatch.setattr(track, "RECORDS", pull.tools / "records")
    monkeypatch.setattr(check_code, "RULES", ())

    def run():
        git(pull.root, "checkout", "--quiet", "-b", "mine")
        git(pull.root, "add", "--all", "--force")
        for path, mode, text in pull.later:
            sha = git(pull.root, "rev-parse", "HEAD") if mode == "160000" else blob(pull, text)
            git(pull.root, "update-index", "--add", "--cacheinfo", f"{mode},{sha},{path}")
        git(pull.root, "commit", "--quiet", "--allow-empty", "-m", "x")
        git(pull.root, "reset", "--quiet", "--hard")  # what a checkout of the commit holds
        return ci.check_change("main", pull.root), capsys.readouterr().out

    return run


def first_entry(pull):
    """An entry that main has already, with logs and artifacts of its own."""
    another_run(pull.add("first"), "first", better=0.1)
    commit(pull.root)


@pytest.mark.parametrize(("rule", "entry", "change"), SCENARIOS.values(), ids=SCENARIOS)
def test_pull_requests_that_fail(pull, inside, rule, entry, change):
    if rule == "log-twice":
        pull.add("first")
        commit(pull.root)
    else:
        first_entry(pull)
    with (pull.root / ".git/config").open("a") as file:
        file.write("[core]\nignorecase = false\nprotectHFS = false\nprotectNTFS = false\n")
    if entry:
        pull.add("x")
    index(pull, change) if isinstance(change, str) else change(pull)
    code, out = inside()
    assert code == 1 and rule in {name for name, _ in remarks(out)}, out
    assert "PASS" not in out


def test_one_new_entry_beside_another_passes(pull, inside, monkeypatch):
    first_entry(pull)
    pull.add("x")
    monkeypatch.setenv("PULL_LOGIN", "AThor")
    monkeypatch.setenv("PULL_ID", "7")
    code, out = inside()
    assert code == 0 and f"PASS '{X}'" in out and not remarks(out), out


def test_a_name_taken_since_the_branch_began(pull, inside, capsys):
    pull.add("x")
    pull.meanwhile(lambda: pull.add("X"))
    assert ci.check_change("main", pull.root) == 1
    assert ("changed", X) in remarks(capsys.readouterr().out)


def replaced(pull):
    """The commit is what it is, whatever replaces it here."""
    before = git(pull.root, "rev-parse", "HEAD")
    (pull.root / "train_gpt.py").write_text("more\n")
    commit(pull.root)
    git(pull.root, "replace", "HEAD", before)


def lacking(name):
    """The commit has a file that the checkout lacks."""

    def change(pull):
        git(pull.root, "update-index", "--add", "--cacheinfo", f"100644,{blob(pull)},{X}/{name}")
        git(pull.root, "commit", "--quiet", "-m", "x")

    return change


UNLIKE = {
    "a log that was converted": (
        "checkout", f"{X}/train.log", lambda p: (p.root / X / "train.log").write_bytes(b"converted\r\n"),
    ),
    "a commit that is replaced": ("outside", "train_gpt.py", replaced),
    "a file that was removed": ("checkout", f"{X}/more.py", lacking("more.py")),
    "a name too long for a disk": ("checkout", f"{X}/{'n' * 300}", lacking("n" * 300)),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "change"), UNLIKE.values(), ids=UNLIKE)
def test_a_checkout_that_is_not_the_commit(pull, inside, capsys, rule, path, change):
    pull.add("x")
    inside()
    change(pull)
    assert ci.check_change("main", pull.root) == 1
    assert (rule, path) in remarks(capsys.readouterr().out)


@pytest.mark.parametrize("count", [600, pytest.param(3000, marks=pytest.mark.slow)])
def test_many_files_are_a_few_lines(pull, inside, capsys, count):
    folder = pull.add("x")
    for i in range(count):
        (folder / f"{'f' * 50}{i}.log").write_text("x")
    code, out = inside()
    assert code == 1 and "file-count" in {rule for rule, _ in remarks(out)} and len(out.splitlines()) < 700


# ---- Who


WHO = {
    "its author": ("athor", "7", {}, False),
    "in other letters": ("AThor", "7", {}, False),
    "by number": ("renamed", "7", {"github_id": "7", "author": "Re Named"}, False),
    "someone else": ("mallory", "8", {}, True),
    "nobody": ("athor", "7", {"github_id": "-"}, True),
    "a look-alike": ("athor", "7", {"github_id": "аthor"}, True),
    "another's login as name": ("mallory", "8", {"github_id": "mallory", "author": "ATHOR"}, True),
    "another's name without dots": ("mallory", "8", {"github_id": "mallory", "author": "AThor!"}, True),
    "another's name in Cyrillic": ("mallory", "8", {"github_id": "mallory", "author": "А. Thоr"}, True),
    "another's name in Lisu": ("mallory", "8", {"github_id": "mallory", "author": "ꓮ. ꓔꓧꓳꓣ"}, True),
    "a name with a small capital": ("mallory", "8", {"github_id": "mallory", "author": "A. Th\u1d0fr"}, True),
    "another's name with a stroke": ("mallory", "8", {"github_id": "mallory", "author": "A. Thør"}, True),
    "two alphabets in a word": ("athor", "7", {"author": "A. Th\u0585r"}, True),
    "letters of a name in Spain": ("athor", "7", {"author": "M\u00aa Thor"}, False),
    "letters of a name in Japan": ("athor", "7", {"author": "Q\u592a\u90ce"}, False),
    "a letter that only Latin words have": ("athor", "7", {"author": "Ka\u02bbiulani Thor"}, False),
    "a login that is another's number": ("7", "8", {"github_id": "7"}, True),
    "a number": ("athor", "7", {"github_id": 7}, True),
    "a name in other letters": ("mallory", "8", {"github_id": "mallory", "author": "李 Á."}, False),
    "a command": ("athor", "7", {"github_id": "::error::x"}, True),
}  # fmt: skip


@pytest.mark.parametrize(("login", "number", "changes", "fails"), WHO.values(), ids=WHO)
def test_who_opened_it_is_who_it_names(pull, inside, monkeypatch, login, number, changes, fails):
    edit(pull.add("x"), lambda v: v.update(changes))
    monkeypatch.setenv("PULL_LOGIN", login)
    monkeypatch.setenv("PULL_ID", number)
    code, out = inside()
    assert (code == 1) == fails and ("author" in {rule for rule, _ in remarks(out)}) == fails, out


def test_two_letters_that_look_like_one():
    assert ci.looks("Arnold VV.") == ci.looks("Am01d w") != ci.looks("Amold v")
    assert ci.looks("P4ram3t3r") == ci.looks("Parameter")


def test_on_github_who_is_always_asked(pull, inside, monkeypatch):
    pull.add("x")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    code, out = inside()
    assert code == 1 and "author" in {rule for rule, _ in remarks(out)}


def test_used_wrongly_is_one_line(pull, tmp_path):
    for base, words in (("nothing", "BASE must be a commit"), ("--help", "BASE must be")):
        with pytest.raises(GolfError, match=words, check=used_wrongly):
            ci.check_change(base, pull.root)
    git(pull.root, "checkout", "--quiet", "--orphan", "apart")
    (pull.root / "train_gpt.py").write_text("another beginning\n")
    commit(pull.root)
    with pytest.raises(GolfError, match="fetch-depth: 0"):
        ci.check_change("main", pull.root)
    with pytest.raises(GolfError, match="rev-parse"):
        ci.check_change("main", tmp_path)
    git(tmp_path, "clone", "--quiet", "--depth=1", "--branch=main", f"file://{pull.root}", "cut")
    with pytest.raises(GolfError, match="cut off"):
        ci.check_change("HEAD", tmp_path / "cut")
    with pytest.raises(GolfError, match="is missing"):
        ci.score(tmp_path)


def test_escape():
    assert ci.escape("100%\r\n::x::") == "100%25%0D%0A::x::"
    assert ci.escape("a:b,c%", ":,") == "a%3Ab%2Cc%25"
    assert ci.escape("a\x1b[1m\u202eb") == "a?[1m?b"


# ---- score


REPORT = {
    "verdict": "FAIL",
    "ruling": "passing is not a ruling",
    "rules": [{"id": "stream", "passed": True, "figure": "1", "sentence": "fine"},
              {"id": "whole-score-due", "passed": True, "figure": "not whole", "sentence": "again"}],
    "seeds": [{"seed": 1, "targets": 64, "claimed": {"val_bpb": 1.9}, "official": None, "rules": [
        {"id": "score", "passed": False, "figure": "2.0 bpb", "sentence": "claimed\n::warning::1.0"},
        {"id": "budget", "passed": None, "figure": "9 s", "sentence": "slow"},
    ]}],
}  # fmt: skip


@pytest.fixture
def scored(monkeypatch, pull):
    """ci.score of a submission, with the scorer's exit code and output given."""
    folder = pull.add("x")
    monkeypatch.setattr(ci, "rules_of", lambda folder: {"name": "track_tiny"})

    plain = subprocess.run

    def run(code=0, stdout=b"", why=None):
        def fake(words, **kwargs):
            if words[0] == "git":  # for the page
                return plain(words, **kwargs)
            assert words[:4] == [sys.executable, "-m", "golf.cli", "score"] and "--quick" in words
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
    assert "\nNOTE whole-score-due: not whole: again\n" in out
    token = re.match(r"::stop-commands::(\w{32})\n\n::(\w+)::\n", out)
    assert token and token[1] == token[2]


@pytest.mark.parametrize(("code", "stdout"), [
    (0, b""), (1, b""), (2, b"golf score: error"), (-9, b""), (0, b"{}"), (0, b"[]"),
    (0, b'{"seeds": 3, "rules": []}'),
    (0, b'{"seeds": [], "rules": [], "verdict": "PASS"}'),
    (0, b'{"seeds": [7, {"targets": true}], "rules": [], "verdict": "PASS"}'),
    (0, b'{"seeds": [{"targets": 0, "rules": []}], "rules": [], "verdict": "PASS"}'),
])  # fmt: skip
def test_what_was_not_scored_is_not_green(scored, capsys, code, stdout):
    assert scored(code, stdout) == 1
    out = capsys.readouterr().out
    assert "::error" in out and "title=not-scored" in out and "PASS" not in out


@pytest.mark.parametrize("verdict", ["", None, "PASSED", "UNKNOWN", ["PASS"]])
def test_a_verdict_that_is_none_is_not_green(scored, capsys, verdict):
    assert scored(0, json.dumps({**REPORT, "verdict": verdict}).encode()) == 1


def test_score_says_why_it_did_not(scored, capsys):
    assert scored(why="the sandbox needs the package bubblewrap") == 1
    assert "::error" in (out := capsys.readouterr().out) and "not scored: the sandbox needs" in out
    claim = scored.folder / "submission.json"
    value = json.loads(claim.read_text())
    for seed in value["seeds"]:
        seed["artifact"] = None
    claim.write_text(json.dumps(value))
    assert scored(0, json.dumps(REPORT).encode()) == 1 and "ships no artifact" in capsys.readouterr().out


# ---- The job's page


HOSTILE = (
    "</pre><script>alert(1)</script>",
    "| a | <img src=x> ![](http://x) [l](javascript:x) `c` @someone #1",
    "```\n# x",
)


@pytest.fixture
def page(pull, monkeypatch, tmp_path):
    monkeypatch.setattr(track, "RECORDS", pull.tools / "records")
    path = tmp_path / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    monkeypatch.setattr(ci, "record_rule", lambda folder: "NOTE: against <b>x</b>: record rule met")
    return path


def test_the_page_shows_score_verdict_record_rule_and_what_is_new(scored, page, capsys):
    script = scored.folder / "train_gpt.py"
    script.write_text(script.read_text() + "".join(f"# {words}\n" for words in HOSTILE))
    report = json.loads(json.dumps(REPORT))
    report["seeds"][0]["rules"][0]["sentence"] = " ".join(HOSTILE)
    assert scored(1, json.dumps(report).encode()) == 1
    text = page.read_text()
    assert "FAIL" in text and "1.900000" in text and "+# &lt;/pre&gt;" in text
    assert "Record rule: NOTE: " in text and "the whole score, of every seed, is due" in text
    head, diff = text.split("<pre>")
    assert diff.count("</pre>") == 1 and "<" not in head and "javascript:" not in head
    assert not re.search(r"<(?!/pre>)", diff) and "@someone" not in head


def test_what_the_page_leaves_out_it_says():
    """GitHub shows nothing of a page beyond 1 MiB."""
    text = "\n".join(ci_summary.limited(["+" + "'" * 299 + "hidden()"] * 900))
    assert len(html.escape(text).encode()) < 1 << 20 and "hidden" not in text
    assert text.split("\n")[0].endswith("... and 8 characters more")
    assert text.endswith(f"\n... and {900 - text.count(chr(10)):,} lines more")
    assert ci_summary.limited(["+a", "-<b"]) == ["+a", "-<b"]


def test_the_page_says_that_nothing_was_scored(scored, page):
    assert scored(why="no <bubblewrap> here") == 1
    assert "not scored" in page.read_text() and "<bubblewrap>" not in page.read_text()


def test_an_entry_is_shown_against_its_nearest(pull, monkeypatch, tmp_path):
    home = tmp_path / "records/track_tiny"
    for name, lines in (("far", range(50)), ("near", range(100)), ("mine", range(2, 101))):
        (home / name).mkdir(parents=True)
        (home / name / "submission.json").write_text("{}")
        (home / name / "train_gpt.py").write_text("".join(f"x = {i}\n" for i in lines))
    shutil.copy(pull.tools / "records/track_tiny/track.json", home)
    monkeypatch.setattr(track, "RECORDS", tmp_path / "records")
    head, diff = ci_summary.against_nearest(home / "mine")
    assert "near/train_gpt.py" in head and "+x = 100" in diff and "-x = 1" in diff
    (home / "far/train_gpt.py").unlink()
    (home / "far/train_gpt.py").symlink_to("/dev/zero")
    assert [p.parent.name for p in ci_summary.candidates(home / "mine/train_gpt.py")][-1] == "near"


def test_the_check_writes_its_findings_to_the_page(pull):
    (pull.add("x") / "a <b> | c.log").write_text("x")
    assert pull.check().returncode == 1 and pull.outputs.read_text() == ""
    text = pull.page.read_text()
    assert "FAIL" in text and "file-name" in text and "<b>" not in text


@pytest.mark.parametrize("words", ["::error::x", "a\n::set-output name=a::x", "##[add-mask]x", "  ::stop::t"])
def test_no_line_is_a_command_by_accident(capsys, words):
    ci.say(f"PASS {words}")
    (line,) = capsys.readouterr().out.splitlines()
    assert "::" not in line and "##[" not in line


# ---- The workflows


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request):
    text = request.param.read_text()
    return text, yaml.safe_load(text)


def test_workflows_hold_no_rights_and_pin_their_actions(workflow):
    text, value = workflow
    assert "pull_request_target" not in text and "secrets." not in text
    special = {  # after a merge: one writes the tables, the other publishes the site
        "board": {"contents": "write"},
        "pages": {"contents": "read", "pages": "write", "id-token": "write"},
    }
    assert value["permissions"] == special.get(value["name"], {"contents": "read"})
    for job in value["jobs"].values():
        assert "permissions" not in job and job["timeout-minutes"] <= 120
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])  # a tag can be moved
                assert re.search(rf"{step['uses']} # v\d+\.\d+\.\d+$", text, re.MULTILINE)
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
