"""Texts of one's own become shards that a trainer trains on."""

import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece as spm
import trainer_kit as kit
from conftest import REPO, load_script, passed, refused, run_script

docs = load_script(REPO / "data" / "tokenize_docs.py")
TOKENIZER = REPO / "data" / "sample_1024_bpe.model"
TEXTS = [f"Document {n}: a snowman \u2603, half a pair \ud83d, and {n * n} words." for n in range(300)]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    lines = (json.dumps({"text": text, "id": [1]}) for text in (*TEXTS[:150], " ", *TEXTS[150:]))
    path.write_text("\n\n".join(lines))
    return path


def clean(texts):
    return [text.replace("\ud83d", "?") for text in texts]


def run(source, *words):
    """The exit code, and the folder."""
    out = source.parent / "deep" / "out"
    return docs.main([str(source), "--out", str(out), *map(str, words)]), out


def texts_of(out, split):
    """The documents of all shards of a split."""
    processor = spm.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
    shards = sorted(out.glob(f"fineweb_{split}_*.bin"))
    tokens = np.concatenate([np.fromfile(path, "<u2", offset=1024) for path in shards])
    parts = np.split(tokens, np.flatnonzero(tokens == processor.bos_id()))
    assert not len(parts[0])
    return shards, [processor.decode(part[1:].tolist()) for part in parts[1:]]


def test_every_document_is_once_in_one_of_the_splits(source, monkeypatch):
    monkeypatch.setattr(docs, "SHARD_TOKENS", 1000)
    code, out = run(source, "--tokenizer", TOKENIZER)
    (shards, train), (_, val) = (texts_of(out, split) for split in ("train", "val"))
    assert code == 0 and len(shards) > 3 and 0 < len(val) < 20
    assert {path.stat().st_size for path in shards[:-1]} == {1024 + 2000}
    assert sorted(train + val) == sorted(clean(TEXTS))
    assert list(out.parent.iterdir()) == [out]


def test_the_split_is_by_text_or_the_first_documents(source):
    assert 150 < sum(docs.is_for_validation(str(number)) for number in range(20_000)) < 250
    code, out = run(source, "--tokenizer", TOKENIZER, "--val-docs", 2)
    assert code == 0
    assert texts_of(out, "val")[1] == clean(TEXTS[:2])


def test_a_trainer_trains_on_the_shards_and_a_new_tokenizer(source, tmp_path):
    code, out = run(source, "--vocab-size", 320)
    result = kit.run_main(tmp_path, DATA_PATH=out, TOKENIZER_PATH=out / "tokenizer.model", VOCAB_SIZE=320,
                          VAL_MAX_TOKENS=0, EVAL_STRIDE=32)  # fmt: skip
    assert code == result.code == 0
    size = sum(len(text.encode()) for text in clean(TEXTS) if docs.is_for_validation(text))
    assert result.events("score")[-1]["bytes"] == size


@pytest.mark.parametrize(
    "content, words, code, message",
    [
        ('{"text": "one"}\n{"no": 2}\n', (), 2, ':2: not a JSON object with a string "text"'),
        (b"\xff\xfe", (), 1, "not UTF-8"),
        ("", ("--val-docs", "1"), 1, "no document is left for train"),
        ('{"text": "one"}', ("--val-docs", "0"), 1, "no document is left for val"),
        (None, (), 1, "No such file"),
        ("", ("--tokenizer", REPO / "README.md"), 1, "not a SentencePiece model"),
        ("", ("--tokenizer", "none.model"), 2, "no tokenizer"),
        ("", ("--tokenizer", "texts.jsonl"), 1, "not a SentencePiece model"),
        ('{"text": "one two three"}', ("--vocab-size", "5"), 1, "no tokenizer of"),
        (b"\x1f\x8b\x08", (), 1, "unpack it"),
        ("", ("--tokenizer", ""), 2, "an empty path is given"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(content, words, code, message, tmp_path, capfd):
    path = tmp_path / "texts.jsonl"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    words = [tmp_path / word if word == path.name else word for word in words]
    words = words if {"--tokenizer", "--vocab-size"} & set(words) else (*words, "--tokenizer", TOKENIZER)
    found, out = run(path, *words)
    lines = capfd.readouterr().err.splitlines()
    assert found == code and not out.exists() and not any(out.parent.glob("*"))
    assert len(lines) == 1 and lines[0].startswith("tokenize_docs.py: error: ") and message in lines[0]


def test_a_folder_that_is_there_is_left_alone(source, capsys):
    (source.parent / "deep" / "out").mkdir(parents=True)
    assert run(source)[0] == 2 and "is there already" in capsys.readouterr().err
    (source.parent / "deep" / "out").rmdir()
    (source.parent / "deep" / "out").symlink_to("nowhere")  # nothing could be put in its place at the end
    assert run(source, "--tokenizer", TOKENIZER)[0] == 2 and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["TEXTS.JSONL", "texts.ndjson", "texts.json"])
def test_json_is_told_by_its_name_and_never_taken_for_a_text(source, name, capsys):
    words = ["--tokenizer", str(TOKENIZER)]
    code, out = run(source.rename(source.with_name(name)), *words)
    found = [text for split in ("train", "val") for text in texts_of(out, split)[1]]
    assert code == 0 and sorted(found) == sorted(clean(TEXTS))
    source.with_name("list.json").write_text(json.dumps([{"text": text} for text in TEXTS], indent=1))
    assert docs.main([str(source.with_name("list.json")), "--out", str(source.parent / "no"), *words]) == 2
    assert 'list.json:1: not a JSON object with a string "text"' in capsys.readouterr().err


def test_a_text_of_the_first_documents_is_not_trained_on(source, capsys):
    with source.open("a") as file:
        file.write("\n" + json.dumps({"text": TEXTS[1]}))
    code, out = run(source, "--tokenizer", TOKENIZER, "--val-docs", 2)
    assert code == 0 and texts_of(out, "train")[1] == clean(TEXTS[2:])
    assert "1 documents left out of train: they are for validation" in capsys.readouterr().out


def test_a_tokenizer_is_made_of_a_text_in_one_line(tmp_path):
    """SentencePiece leaves out what has more than 16 MiB."""
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "here and there, " * 1_200_000}))
    documents = docs.Documents([tmp_path / "long.jsonl"], 0)
    model = docs.make_tokenizer(documents, 280)
    pieces = spm.SentencePieceProcessor(model_proto=model).encode("here and there", out_type=str)
    assert "".join(pieces).startswith("here") and len(pieces) < 10


def test_memory_is_bounded_by_characters_not_by_documents(tmp_path):
    """100,000 documents of a word take 2 bytes a token, and long ones are encoded a few at a time."""
    sizes = []

    def encode(texts):
        sizes.append(sum(map(len, texts)))
        return [[5, 6]] * len(texts)

    processor = SimpleNamespace(encode=encode, bos_id=lambda: 1, unk_id=lambda: 0)
    tracemalloc.start()
    docs.write_shards(tmp_path, ((n == 0, "a") for n in range(100_000)), processor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6 and (tmp_path / "fineweb_train_000000.bin").stat().st_size == 1024 + 6 * 99_999
    docs.write_shards(tmp_path, ((n == 0, "a" * 100_000) for n in range(100)), processor)
    assert max(sizes) < 5_000_000


def test_all_texts_are_looked_for_before_the_first_is_read(source, monkeypatch, capsys):
    monkeypatch.setattr(docs, "documents_of", lambda path: pytest.fail("it began"))
    words = [str(source), str(source.with_name("gone.txt")), "--out", str(source.parent / "out")]
    assert docs.main([*words, "--tokenizer", str(TOKENIZER)]) == 1
    assert "gone.txt: No such file" in capsys.readouterr().err


def test_a_path_that_the_terminal_cannot_show_is_no_error(source):
    (folder := source.parent / "\u00fc").mkdir()
    words = ("data/tokenize_docs.py", source, "--out", folder / "out", "--tokenizer", TOKENIZER)
    said = passed(run_script(*words, env={"PYTHONIOENCODING": "ascii"})).stdout
    assert r"DATA_PATH=" in said and r"\xfc/out" in said
    refused(run_script(*words, env={"PYTHONIOENCODING": "ascii"}), r"\xfc/out is there already")
