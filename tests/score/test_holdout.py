"""Private held-out text: golf holdout, and parts drawn from train shards."""

import json
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from audit_kit import a_pass
from check_kit import edit
from conftest import REPO, write_shard
from golf.cli import main
from golf.core.errors import GolfError
from golf.score import holdout, stream
from golf.score import scorer as official
from golf.score.audit import rules as audit
from golf.score.audit.passes import Text
from score_kit import ECHO, TARGETS, make_submission, make_track, needs_sandbox, score

WORDS = "the quick brown fox jumps over the lazy dog and then it sleeps for a while".split()


@pytest.fixture(scope="module")
def vocabulary():
    return stream.read_tokenizer(REPO / "data" / "sample_1024_bpe.model")[0]


@pytest.fixture(autouse=True)
def tokenizer(monkeypatch):
    monkeypatch.setenv("TOKENIZER_PATH", str(REPO / "data" / "sample_1024_bpe.model"))


def prose(rng, words=60) -> str:
    return " ".join(rng.choice(WORDS, words)).capitalize() + "."


def documents_of(folder: Path, vocabulary) -> list[str]:
    """The texts of the shard that `golf score --holdout` would read."""
    tokens = stream.load_more(folder, vocabulary)
    assert tokens[0] == 1
    parts = np.split(tokens, np.flatnonzero(tokens == 1))[1:]
    return [vocabulary.processor.decode(part[1:].tolist()) for part in parts]


def test_each_line_of_a_jsonl_is_a_document(tmp_path, vocabulary, capsys):
    texts = ["One document.", "Another, with a snowman \u2603.", "One document.", "  ", "Last."]
    source = tmp_path / "text.jsonl"
    source.write_text("\n\n".join(json.dumps({"text": t}) for t in texts) + "\n")
    assert main(["holdout", str(source), "--out", str(tmp_path / "private")]) == 0
    assert sorted(documents_of(tmp_path / "private", vocabulary)) == sorted({texts[0], texts[1], texts[4]})
    said = capsys.readouterr().out
    assert "3 documents" in said and "--holdout" in said and "it sees less" in said


def test_paragraphs_of_plain_text_are_gathered(tmp_path, vocabulary):
    rng = np.random.default_rng(1)
    paragraphs = [prose(rng) for _ in range(100)]
    (tmp_path / "a.txt").write_text("\ufeff" + "\r\n\r\n".join(paragraphs[:50]), newline="")
    (tmp_path / "b.txt").write_text("\n \t\n\n".join(paragraphs[50:]))
    sources = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert main(["holdout", *sources, "--out", str(tmp_path / "o")]) == 0
    found = documents_of(tmp_path / "o", vocabulary)
    assert sum(len(d) >= holdout.DOCUMENT_CHARS for d in found) >= len(found) - 2 and 10 < len(found) < 40
    assert sorted(" ".join(found).split()) == sorted(" ".join(paragraphs).split())
    firsts = ["a" if d[:40] in (tmp_path / "a.txt").read_text() else "b" for d in found]
    assert firsts != sorted(firsts), "the files are mixed"


def test_a_link_that_leads_nowhere_is_no_new_folder(tmp_path, vocabulary, capsys):
    (tmp_path / "T.JSONL").write_text('{"text": "Some words."}')
    (tmp_path / "o").symlink_to("nowhere")
    assert main(["holdout", str(tmp_path / "T.JSONL"), "--out", str(tmp_path / "o")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["holdout", str(tmp_path / "T.JSONL"), "--out", str(tmp_path / "p")]) == 0
    assert documents_of(tmp_path / "p", vocabulary) == ["Some words."]


def test_the_shard_is_private_and_the_same_each_time(tmp_path):
    (tmp_path / "t.txt").write_text(prose(np.random.default_rng(2), 2000))
    for name in ("one", "two"):
        assert main(["holdout", str(tmp_path / "t.txt"), "--out", str(tmp_path / "deep" / name)]) == 0
    one, two = (tmp_path / "deep" / name / holdout.SHARD for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
    assert [p.name for p in (tmp_path / "deep").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name, content, message", [
    ("a.txt", b"\xff\xfe", r"not UTF-8 text \(byte 0\)"),
    ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', r"a.jsonl:2: not a JSON object"),
    ("a.jsonl", b"[1]\n", "a.jsonl:1"), ("a.jsonl", b"[" * 100_000, "a.jsonl:1"),
    ("a.txt", b" \n\n ", "no text"), ("absent.txt", None, "cannot be read"),
])  # fmt: skip
def test_bad_text_is_one_line_and_leaves_nothing(name, content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["holdout", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["there", "repository", "shown"])
def test_a_place_that_is_not_private_is_refused(where, tmp_path, capsys, monkeypatch):
    (tmp_path / "t.txt").write_text("text")
    out = {"there": tmp_path, "repository": REPO / "runs" / "x", "shown": tmp_path / "x"}[where]
    if where == "shown":
        monkeypatch.setattr(holdout.sandbox, "shows", lambda path: path == out)
    assert main(["holdout", str(tmp_path / "t.txt"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and (where == "there" or not out.exists())


def test_another_tokenizer_than_the_tracks_is_refused(tmp_path, monkeypatch, capsys):
    model = tmp_path / "other.model"
    model.write_bytes((REPO / "data" / "sample_1024_bpe.model").read_bytes() + b"\x00")
    monkeypatch.setenv("TOKENIZER_PATH", str(model))
    (tmp_path / "t.txt").write_text("text")
    assert main(["holdout", str(tmp_path / "t.txt"), "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- Drawn from train shards


@pytest.fixture
def shards(tmp_path):
    """Two train shards in which no two tokens of a document that follow each other repeat elsewhere."""
    rng = np.random.default_rng(3)
    for i in range(2):
        tokens = rng.integers(4, 1024, 60 * stream.PART).astype("<u2")
        tokens[::300] = 1
        write_shard(tmp_path / f"fineweb_train_{i:06}.bin", tokens)
    return tmp_path


def test_parts_are_drawn_from_all_shards_and_begin_with_a_document(shards, vocabulary):
    count = stream.PART  # one part, less what stands before its first document
    draws = [stream.draw_holdout(shards, vocabulary, np.random.default_rng(s), count) for s in range(12)]
    assert all(d is not None and len(d) == count + 1 and d[0] == 1 for d in draws)
    assert len({d[:200].tobytes() for d in draws}) > 8
    known = [stream.open_shard(p).tobytes() for p in sorted(shards.glob("*.bin"))]
    assert {next(i for i, k in enumerate(known) if d[:100].tobytes() in k) for d in draws} == {0, 1}
    assert (stream.draw_holdout(shards, vocabulary, np.random.default_rng(0), count) == draws[0]).all()


def test_too_little_to_draw_from_is_none(shards, vocabulary, tmp_path_factory):
    rng = np.random.default_rng(0)
    assert stream.draw_holdout(shards, vocabulary, rng, 2 * stream.PART) is None
    assert stream.draw_holdout(tmp_path_factory.mktemp("empty"), vocabulary, rng, 10) is None


def test_an_empty_train_shard_is_one_line(shards, vocabulary):
    (shards / "fineweb_train_000001.bin").write_bytes(b"")
    with pytest.raises(GolfError, match="fineweb_train_000001.bin: not a whole"):
        stream.draw_holdout(shards, vocabulary, np.random.default_rng(0), 10)


# ---- What golf score takes


def scored(tmp_path, lane="open-hardware", **options) -> dict:
    """The general rules of the echo's score on a small track that lies in tmp_path."""
    folder = make_submission(tmp_path / "entry", ECHO)
    edit(folder, lambda v: v.update(lane=lane))
    report = score(tmp_path / "track.json", folder, sandboxed=True, device="auto", **options)
    return {rule["id"]: rule["passed"] for rule in report["rules"]}


@pytest.fixture
def fed(monkeypatch):
    """The texts that the audit was given, in place of an audit."""
    found = []
    monkeypatch.setattr(official, "audit", lambda _, text, *__, **___: found.append(text) or [])
    return found


@needs_sandbox
@pytest.mark.parametrize("lane, passed", [("record", None), ("open-hardware", True), ("non-record", True)])
def test_public_text_alone_needs_a_person_in_the_record_lane(lane, passed, tmp_path, fed):
    make_track(tmp_path)
    assert scored(tmp_path, lane)["holdout-public"] is passed
    held_out = fed[0].held_out
    assert TARGETS // 2 < len(held_out) <= TARGETS + 1 and held_out[0] == 1, "from a document's beginning on"
    assert fed[0].kin


@needs_sandbox
@pytest.mark.parametrize("lane, forgets", [("record", False), ("record", True), ("non-record", False)])
def test_a_record_needs_names_forgotten_and_files_read(lane, forgets, tmp_path, fed, monkeypatch):
    make_track(tmp_path)
    monkeypatch.setattr(official.view, "forgets_names", lambda: forgets)
    monkeypatch.setattr(official.view, "forget_names", lambda: None)
    monkeypatch.setattr(official.view, "read_ahead", lambda most: forgets)
    found = scored(tmp_path, lane)
    for rule in ("names-kept", "files-unread"):
        assert (rule in found) == (lane == "record" and not forgets)
        assert found.get(rule) is None  # for a person to judge


@pytest.mark.parametrize("device, hides, found", [("cuda", "0", 1), ("cuda", "1", 0), ("cpu", "0", 0)])
def test_a_record_on_cuda_needs_a_kernel_that_hides_where_sockets_lie(
    device, hides, found, tmp_path, monkeypatch
):
    (tmp_path / "restrict").write_text(f"{hides}\n")
    monkeypatch.setattr(official.view, "POINTERS", tmp_path / "restrict")
    assert [rule.rule for rule in official.ways_to_talk(device)].count("sockets-shown") == found


@pytest.fixture
def private(tmp_path):
    """Private shards beside a small track."""
    make_track(tmp_path)
    (tmp_path / "t.txt").write_text("\n\n".join(prose(np.random.default_rng(i)) for i in range(50)))
    assert main(["holdout", str(tmp_path / "t.txt"), "--out", str(tmp_path / "private")]) == 0
    return tmp_path / "private"


@pytest.mark.slow
@needs_sandbox
def test_private_shards_are_no_public_text(private, tmp_path, fed):
    assert "holdout-public" not in scored(tmp_path, "record", holdout=private)
    shard = (private / holdout.SHARD).read_bytes()[1024:]
    held_out = fed[0].held_out
    assert len(held_out) == min(TARGETS + 1, len(shard) // 2) and shard.startswith(held_out.tobytes())
    assert not fed[0].kin, "it may be of another kind"


@needs_sandbox
def test_a_report_does_not_quote_an_entry_that_knows_the_private_text(private, tmp_path):
    folder = make_submission(tmp_path / "entry", "SaysWhatItFinds", b"'it ' + 'reads'")
    reports = [score(tmp_path / "track.json", folder, True, holdout=shards) for shards in (None, private)]
    assert ["it reads" in json.dumps(report) for report in reports] == [True, False]


@pytest.mark.parametrize("kin, verdicts", [(True, [True, False, False]), (False, [True, None, False])])
def test_private_text_of_another_kind_accuses_nobody_who_is_merely_better(kin, verdicts, vocabulary):
    """A model ahead of the control by so much on the stream and not on the private text."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, 1024, 20_001).astype(np.uint16)
    tokens[::200] = 1
    text = Text((stream.Stream(tokens[:10_001], vocabulary),), tokens[10_000:], kin)
    control, noise = rng.normal(-3, 0.01, len(text)), rng.normal(-3, 1, len(text))
    on_stream = np.arange(len(text)) < text.scored
    passes = [a_pass(noise + gain * on_stream) for gain in (0, 0.3, 1.5)]
    assert [audit.held_out(text, each, control[None]).passed for each in passes] == verdicts


@pytest.mark.slow
@needs_sandbox
def test_parts_of_train_shards_are_drawn_where_there_are_enough(tmp_path, fed):
    make_track(tmp_path)
    tokens = np.random.default_rng(3).integers(4, 1024, 101 * stream.PART).astype("<u2")
    tokens[::300] = 1
    write_shard(tmp_path / "data" / "fineweb_train_000000.bin", tokens)
    for _ in range(3):
        assert "holdout-public" not in scored(tmp_path, "record")
        shutil.rmtree(tmp_path / "entry")
    drawn = [text.held_out for text in fed]
    assert len(drawn[0]) == TARGETS + 1 and len({each.tobytes() for each in drawn}) > 1
    assert all(each[:300].tobytes() in tokens.tobytes() for each in drawn)
