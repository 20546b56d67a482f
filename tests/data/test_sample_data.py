"""The sample dataset, its builder, and the tracks' rules."""

import json
import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm
from conftest import edit_json, load_script
from golf.core import track
from golf.core.files import sha256

ROOT = Path(__file__).resolve().parents[2]
BUILDER = ROOT / "data" / "build_sample_dataset.py"
sample = load_script(BUILDER)


@pytest.fixture
def tokenizer(sample_data):
    return spm.SentencePieceProcessor(model_file=str(sample_data / "tokenizers" / sample.TOKENIZER))


@pytest.fixture
def short(tmp_path, monkeypatch):
    """The builder with a short text, and a track that pins no hash of what it becomes."""
    texts = [f"Text {n} has a few words, and {n * n} of them count." for n in range(400)]
    lines = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "text.jsonl.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    shutil.copy(sample.TRACK, tmp_path)
    edit_json(tmp_path / "track.json", lambda rules: rules["data"].update(val_sha256=None))
    edit_json(tmp_path / "track.json", lambda rules: rules.update(targets=1600))
    monkeypatch.setattr(sample, "TEXT", tmp_path / "text.jsonl.xz")
    monkeypatch.setattr(sample, "TRACK", tmp_path / "track.json")
    return sample


def read_shard(path):
    content = path.read_bytes()
    return np.frombuffer(content[:1024], "<i4"), np.frombuffer(content[1024:], "<u2")


def documents(tokens):
    """A shard's documents without their BOS."""
    return [ids[1:].tolist() for ids in np.split(tokens, np.flatnonzero(tokens == sample.BOS))[1:]]


def files_below(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pinned():
    return json.loads(sample.TRACK.read_text())["data"]


def test_hashes_are_the_pinned_ones(sample_data):
    assert sha256(sample_data / sample.VAL) == pinned()["val_sha256"]
    assert sha256(sample_data / "tokenizers" / sample.TOKENIZER) == pinned()["tokenizer_sha256"]


def test_decoded_documents_are_the_text_and_the_split_is_disjoint(sample_data, tokenizer):
    normalized = tokenizer.normalize(sample.read_documents(sample.TEXT))
    texts = [text.replace("\u2581", " ") for text in normalized]
    assert len(set(texts)) == len(texts)
    decoded = {}
    for path in (sample.TRAIN, sample.VAL):
        header, tokens = read_shard(sample_data / path)
        assert header[:3].tolist() == [20240520, 1, tokens.size] and not header[3:].any()
        assert tokens[0] == sample.BOS
        # No <unk>, no EOS, no padding; and BOS only where a document begins.
        assert not np.isin(tokens, [sample.PAD, sample.EOS, sample.UNK]).any()
        decoded[path] = tokenizer.decode(documents(tokens))
        known = set(decoded[path])
        assert decoded[path] == [text for text in texts if text in known]  # in order of the hashes
    assert not set(decoded[sample.TRAIN]) & set(decoded[sample.VAL])
    assert sorted(decoded[sample.TRAIN] + decoded[sample.VAL]) == sorted(texts)


@pytest.mark.slow
def test_a_second_build_does_nothing_and_a_damaged_shard_is_rebuilt(sample_data, tmp_path, capsys):
    out = tmp_path / "data"
    shutil.copytree(sample_data, out)
    before = files_below(out)
    times = {path: (out / path).stat().st_mtime_ns for path in before}
    assert sample.main(["--out", str(out)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert times == {path: (out / path).stat().st_mtime_ns for path in files_below(out)}

    train, val = out / sample.TRAIN, out / sample.VAL
    train.write_bytes(train.read_bytes()[:-2])
    val.write_bytes(val.read_bytes()[:2000] + b"\xff" + val.read_bytes()[2001:])
    assert sample.main(["--out", str(out)]) == 0
    assert "wrote 2 files" in capsys.readouterr().out
    assert files_below(out) == before


def test_a_hash_that_is_not_pinned_is_one_line_and_writes_nothing(short, tmp_path, capsys):
    edit_json(short.TRACK, lambda rules: rules["data"].update(val_sha256="0" * 64))
    assert short.main(["--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "val_sha256" in error and "git checkout" in error
    assert not (tmp_path / "out").exists()


DAMAGED = {
    "missing": ("TEXT", None), "truncated": ("TEXT", sample.TEXT.read_bytes()[:5000]),
    "no text": ("TEXT", lzma.compress(b"{}\n")), "no UTF-8": ("TEXT", lzma.compress(b"\xff\n")),
    "tokenizer": ("HERE", b"junk"),
}  # fmt: skip


@pytest.mark.parametrize(("what", "content"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_sources_are_one_line(what, content, tmp_path, capsys, monkeypatch):
    path = tmp_path / {"TEXT": "sample_text.jsonl.xz", "HERE": sample.TOKENIZER}[what]
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(sample, what, path if what == "TEXT" else tmp_path)
    assert sample.main(["--out", str(tmp_path / "out")]) == 1
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("build_sample_dataset.py: error: ")
    assert (str(path) if what == "TEXT" else path.name) in error
    assert not (tmp_path / "out").exists()


def test_ctrl_c_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sample, "build", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert sample.main(["--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "build_sample_dataset.py: error: stopped\n"


def test_an_interrupted_write_leaves_nothing(short, tmp_path, monkeypatch, capsys):
    def full_disk(*_):
        raise OSError(28, "No space left on device")  # as a full disk's, without a name

    monkeypatch.setattr(short.Path, "replace", full_disk)  # which keeps os.replace in Python 3.10
    assert short.main(["--out", str(tmp_path / "out")]) == 1
    assert not files_below(tmp_path / "out") and short.TRAIN in capsys.readouterr().err


@pytest.mark.slow
def test_retrained_tokenizer_stays_in_the_output_folder(tmp_path):
    committed = (sample.HERE / sample.TOKENIZER).read_bytes()
    code = sample.main(["--out", str(tmp_path), "--train-tokenizer"])
    retrained = (tmp_path / sample.TOKENIZER).read_bytes()
    assert (sample.HERE / sample.TOKENIZER).read_bytes() == committed
    assert code == (0 if retrained == committed else 1)  # another SentencePiece may differ
    assert spm.SentencePieceProcessor(model_proto=retrained).vocab_size() == sample.VOCAB_SIZE


TRACKS = sorted(ROOT.glob("records/*/track.json"))


@pytest.mark.parametrize("path", TRACKS, ids=lambda path: path.parent.name)
def test_a_track_is_valid_and_says_what_the_data_builder_reads(path):
    rules = track.load(path.parent.name)  # by its schema
    assert rules["name"] == path.parent.name and rules["title"] and (path.parent / "README.md").is_file()
    assert {"val_file", "tokenizer_file", "tokenizer_exempt"} <= set(rules["data"])
    assert set(rules["required_files"]) == {"always", "script", *({"record"} & set(rules["lanes"]))}


def test_the_three_tracks():
    tracks = {p.parent.name: json.loads(p.read_text()) for p in TRACKS}
    rules = {
        name: (t["cap_bytes"], t["train_seconds"], t["eval_seconds"], t["targets"], t["lanes"])
        for name, t in tracks.items()
    }
    assert rules == {
        "track_sample_5min": (2_000_000, 300, None, 65_536, ["open-hardware", "record"]),
        "track_30min_2mb_local": (2_000_000, 1800, 1800, 4_194_304, ["record", "open-hardware"]),
        "track_non_record_2mb_local": (2_000_000, None, None, 4_194_304, ["non-record"]),
    }
    assert all(pinned()[key] for key in ("val_sha256", "tokenizer_sha256"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_cannot_be_written_ends_no_build(short, tmp_path):
    code = (
        "import pathlib, sys, build_sample_dataset as builder\n"
        "builder.TEXT, builder.TRACK = map(pathlib.Path, sys.argv[1:3])\n"
        "sys.exit(builder.main(sys.argv[3:]))"
    )
    command = [sys.executable, "-Bc", code, short.TEXT, short.TRACK, "--out", tmp_path / "out"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=BUILDER.parent, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"") and len(files_below(tmp_path / "out")) == 3
