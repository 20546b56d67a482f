"""golf check on folders it has not seen: findings that make sense, never a crash."""

import ast
import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
from check_kit import edit, found, write
from conftest import REPO, passed, refused, run_script
from golf.check import code as check_code
from golf.check import command as check
from golf.check import names as check_names
from golf.check import source as check_text
from golf.check.folder import Folder
from golf.core import json_io, track
from golf.core.findings import NOTE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

fuzz = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def quick(folder, monkeypatch):
    """The folder, its code not read: the same each time, it takes longest."""
    monkeypatch.setattr(check_code, "RULES", ())
    return folder


def checked(folder) -> set[str]:
    """Ids of the findings; `unreadable` would mean that a rule gave up on a file."""
    findings = check.check_folder(folder, track.load("track_tiny")).findings
    assert not [f for f in findings if f.rule == "unreadable"], findings
    assert all(f.message.isprintable() and len(f.message) < 1200 for f in findings)
    return {f.rule for f in findings}


@contextlib.contextmanager
def put_back(folder, *names):
    """What these files held they hold again after: the next example gets the same folder."""
    before = {name: (folder / name).read_bytes() for name in names}
    try:
        yield
    finally:
        for name, content in before.items():
            (folder / name).write_bytes(content)


# ---- Mangled JSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@fuzz
@given(data=st.data())
def test_mangled_json_never_crashes(quick, data):
    path = quick / "submission.json"
    value = target = json.loads(path.read_text())
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [v for v in (target.values() if isinstance(target, dict) else target)
                 if isinstance(v, (dict, list)) and v]  # fmt: skip
        target = data.draw(st.sampled_from(inner)) if inner else target
    key = data.draw(st.sampled_from(list(target) if isinstance(target, dict) else range(len(target))))
    target[key] = data.draw(JSON)
    with put_back(quick, path.name):
        path.write_text(json.dumps(value))
        checked(quick)


@pytest.mark.slow
@fuzz
@given(data=st.data())
def test_mangled_metrics_never_crash(quick, data):
    path = quick / "metrics_seed2.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    event = data.draw(st.sampled_from(events))
    event[data.draw(st.sampled_from(list(event)))] = data.draw(JSON)
    with put_back(quick, path.name, "submission.json"):
        write(quick, path.name, "\n".join(map(json.dumps, events)))  # listed anew, so that it is read
        checked(quick)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_the_strict_reader_agrees_with_pythons_or_says_why(blob):
    try:
        value = json_io.parse_strict(blob)
    except json_io.StrictError as error:
        assert str(error).isprintable() and len(str(error)) < 200
    else:
        assert value == json.loads(blob) or value != value


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40).filter(lambda name: "/" not in name), st.booleans())
def test_a_name_that_passes_is_one_file_everywhere(name, is_folder):
    why = check_names.fault(name or "x", is_folder)
    assert why is not None or (name or "x").isascii() and check_names.key(name) == name.lower()


@pytest.mark.parametrize("change", [
    lambda v: v.update(seeds=v["seeds"] * 500, files=[0, *v["files"]] * 2000),
    lambda v: v.update(env={f"N{i}": "x" for i in range(20000)}),
    lambda v: v.update(command="A=1 " * 100000),
    lambda v: v.update(seeds=[{"seed": 10**4000}], name="x" * 500000),
    lambda v: v["seeds"][0].update(segments=[[1e308, 1e308]] * 64),
    lambda v: v.update(track="x\n" * 1000, lane="\x1b[2J" * 100, hardware=["\u202e"]),
], ids=["lists", "env", "command", "numbers", "sums", "text"])  # fmt: skip
def test_values_without_end(folder, change):
    edit(folder, change)
    assert {"json", "json-schema"} & checked(folder)


def test_messages_hold_nothing_that_moves_a_cursor(folder):
    (folder / "a\x1b[2J\nPASS.log").write_text("x")
    edit(folder, lambda v: v["seeds"][0].update(seed="\x1b[2J", log="a\x1b[2J\nPASS.log"))
    assert "file-name" in checked(folder)


# ---- Mangled logs and files


@pytest.mark.slow
@fuzz
@given(
    blob=st.binary(max_size=300),
    cut=st.integers(0, 3000),
    name=st.sampled_from([
        "submission.json", "train_seed1.log", "metrics_seed1.jsonl", "train.log", "train_gpt.py",
        "final_model_seed1.int8.zlib", "README.md",
    ]),
)  # fmt: skip
def test_junk_in_any_file_never_crashes(folder, blob, cut, name):
    content = (folder / name).read_bytes()[:cut] + blob
    with put_back(folder, name, "submission.json"):
        if name == "submission.json":
            (folder / name).write_bytes(content)
        else:
            write(folder, name, content)  # listed anew, so that every rule reads it
        checked(folder)


FIGURE = st.sampled_from(["1.5", "nan", "inf", "-1", "1e999", "", "0" * 5000, "1,5", "--", "2"])


@fuzz
@given(st.lists(st.tuples(st.sampled_from([
    "final_sliding_window_exact val_loss:{} val_bpb:{} seq_len:1024 stride:64 targets:{}",
    "final_sliding_window_exact val_loss:{} val_bpb:{} seq_len:1024 stride:64 targets:6400 note:{}",
    "total_submission_size_quant_zlib:{} bytes code:{} model:{} cap:1 headroom:-1",
    "train_seconds:{} tokens:{} steps:{}", "final_int8_zlib_roundtrip_exact val_loss:{} val_bpb:{} {}",
]), FIGURE, FIGURE, FIGURE), max_size=6))  # fmt: skip
def test_mangled_final_lines_never_crash(quick, lines):
    with put_back(quick, "train_seed2.log", "submission.json"):
        write(quick, "train_seed2.log", "\n".join(shape.format(*figures) for shape, *figures in lines))
        assert {"log-lines", "script-hash"} & checked(quick)


def test_metrics_of_other_shapes(folder):
    odd = [
        '{"event": "start", "data": 3, "script": 4, "config": [], "hardware": {}}',
        '{"event": "score", "kind": []}', '{"event": "sliding", "notes": "x", "targets": "y"}',
        '{"event": "export", "artifact_sha256": 5}', '{"event": 4}', "[]", "{", "null", '"event"',
    ]  # fmt: skip
    write(folder, "metrics_seed1.jsonl", "\n".join(odd))
    assert "seeds-differ" in checked(folder)


@pytest.mark.parametrize("megabytes", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_megabytes_of_log(folder, megabytes):
    """Read in a stream; a file without line ends is no trap."""
    steps = b"step:1/2 train_loss:1.0 train_time:1ms step_avg:1ms\n" * 10000
    with (folder / "train_seed2.log").open("ab") as log:
        for _ in range(2 * megabytes):
            log.write(steps)
    with (folder / "train_seed3.log").open("wb") as log:
        log.truncate(megabytes << 20)
    with (folder / "metrics_seed2.jsonl").open("ab") as metrics:
        for _ in range(megabytes):
            metrics.write(b'{"schema": 1, "event": "step", "step": 1, "train_loss": 2.0}\n' * 10000)
        metrics.write(b'{"event": "x"}\n' * 100000)
    assert {"file-large", "file-hash"} <= checked(folder)
    done = run_script("check_submission_folder.sh", folder, "--track", folder.parent, timeout=1200)
    assert done.returncode == 1 and "Traceback" not in done.stderr


# ---- Trees

NAMES = st.sampled_from(
    ["a", "b c", "train.log", "x.py", "submission.json", ".hidden", "\u00fc", "-rf", "a.so"]
)


@fuzz
@given(tree=st.lists(st.tuples(
    st.lists(NAMES, min_size=1, max_size=3),
    st.sampled_from(["file", "folder", "link in", "link out", "loop", "fifo", "nowhere"]),
    st.binary(max_size=60),
), max_size=8))  # fmt: skip
def test_any_tree_gives_findings(made, tmp_path, tree):
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    make = {
        "file": lambda path, blob: path.open("xb").close() or path.write_bytes(blob),
        "folder": lambda path, blob: path.mkdir(),
        "link in": lambda path, blob: path.symlink_to(root / "a"),
        "link out": lambda path, blob: path.symlink_to("/etc"),
        "loop": lambda path, blob: path.symlink_to(path.name),
        "fifo": lambda path, blob: os.mkfifo(path),
        "nowhere": lambda path, blob: path.symlink_to("/nowhere/at/all"),
    }
    for parts, kind, blob in tree:
        path = root.joinpath(*parts)
        if not os.path.realpath(path.parent).startswith(os.path.realpath(root)):
            continue  # nothing is made behind a link that leads out
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            make[kind](path, blob)
        except OSError:
            continue  # what is there already stands in the way
    rules = track.read(made[0] / "records/track_tiny/track.json")
    findings = check.check_folder(root, rules).findings
    gave_up = [f for f in findings if f.rule == "unreadable" and "gave up" in f.message]
    assert "file-required" in {f.rule for f in findings} and not gave_up


@pytest.mark.parametrize("name", ["train_gpt.py", "submission.json", "README.md"])
def test_files_that_may_not_be_read(folder, monkeypatch, name):
    """Whoever runs this: root may read everything, so the file only says no."""

    def read(self, path, limit=-1):
        if path == name:
            raise PermissionError(13, "Permission denied", path)
        return plain(self, path, limit)

    plain = Folder.read
    monkeypatch.setattr(Folder, "read", read)
    assert "unreadable" in found(folder)


def test_a_script_of_many_texts_is_read_in_a_moment(folder):
    """Each may name a file, and only names that stand in the folder are looked up."""
    one = Folder(folder, files={"train_gpt.py": 1})
    one.listed = lambda: pytest.fail("looked up")
    tree = ast.parse("x = ['a', 'b.log', 'c']\n")
    check_code.uncounted(one, "train_gpt.py", tree, executes=False)


def test_operations_of_all_constants_are_read(folder):
    """80 * "-" as well as "-" * 80, and what Python would refuse."""
    values = "'.' b'.' 2 -1 2.5 1j True None ... () f'{x}' 10**9 ('.'*9)".split()
    lines = [f"x = {a} {op} {b}\n" for a in values for b in values for op in "+*%"]
    write(folder, "train_gpt.py", "".join(lines))
    checked(folder)


LONG_LINES = {
    "blanks": f"x = 1{' ' * 2_000_000}# x\n",
    "a field": f"x = f'{{{'é' * 60_000}'\n",
    "texts": ("x = 'é'" + " + 'é'" * 2500 + "\n") * 9,
}


@pytest.mark.parametrize("source", LONG_LINES.values(), ids=LONG_LINES)
def test_long_lines_take_no_longer(source):
    """By the square of their length they would take hours."""
    blob = source.encode()
    assert list(check_text.faults_of(blob))
    with contextlib.suppress(SyntaxError):  # Python 3.11's of the field
        check_text.totals(blob, ast.parse(blob))


# ---- Old formats


def test_a_folder_of_the_larger_challenge(tmp_path):
    """Its submission.json has other keys, its logs other names; nothing is crashed into."""
    folder = tmp_path / "2025-03-20_TheirIdea"
    folder.mkdir()
    claim = {
        "author": "x", "github_id": "x", "name": "Their idea", "blurb": "b", "date": "2025-03-20T10:00:00Z",
        "val_loss": 1.2, "val_bpb": 1.1, "bytes_total": 15900000, "bytes_code": 47000,
        "seed_results": {"42": {"val_bpb": 1.1}},
    }  # fmt: skip
    (folder / "submission.json").write_text(json.dumps(claim))
    (folder / "README.md").write_text("# Theirs\n")
    (folder / "train_gpt_v2.py").write_text("import torch\nblob = torch.load('final_model.ptz')\n")
    for seed in (42, 1337):
        (folder / f"train_seed{seed}.log").write_text("step:1/2 train_loss:6.9\nfinal val_bpb:1.1\n")
    rules = track.read(REPO / "tests/fixtures/track_16mb/track.json")
    findings = check.check_folder(folder, rules).findings
    assert {"json-schema", "file-required", "code-pickle", "track", "lane"} <= {f.rule for f in findings}
    assert any("train.log is missing" in f.message for f in findings)
    refused(run_script("check_submission_folder.sh", folder), "give --track")
    done = run_script("check_submission_folder.sh", folder, "--track", "track_30min_2mb_local")
    assert done.returncode == 1 and "FAIL cap: submission.json: 15,900,000 bytes" in done.stdout


def test_a_folder_outside_records(made, tmp_path):
    repo, source, _ = made
    copy = Path(shutil.copytree(source, tmp_path / "elsewhere"))
    rules = track.read(repo / "records/track_tiny/track.json")
    assert {f.level for f in check.check_folder(copy, rules).findings} <= {NOTE}
    passed(run_script("check_submission_folder.sh", copy, repo=repo))
