"""The trainer's data: order of the batches, shards, the validation stream and its bytes."""

import errno
import io
import json
import lzma
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
import torch
import trainer_kit as kit
from golf.score import stream as golf_stream
from trainer_kit import BOS, TOKENIZER, UNK, knobs, make_data, random_tokens, run_main, write_shard

import train_gpt as T

# ---- Sequences ----

LENGTH = 8
# 10, 9, 0, 1 and 4 sequences: whole ones, one short of a token, too short, just long enough
SHARDS = (10 * LENGTH + 1, 10 * LENGTH, LENGTH, LENGTH + 1, 4 * LENGTH + 5)
SEQUENCES = 24


@pytest.fixture
def numbered(tmp_path):
    """Shards in which no token occurs twice, so that a token tells its place; and their knobs."""
    starts = np.cumsum((0, *SHARDS))
    for i, count in enumerate(SHARDS):
        write_shard(tmp_path / f"fineweb_train_{i:06}.bin", np.arange(starts[i], starts[i] + count))
    return lambda seed=1: knobs(DATA_PATH=tmp_path, TRAIN_SEQ_LEN=LENGTH, VOCAB_SIZE=65536, SEED=seed)


def train_data(k) -> T.TrainData:
    return T.TrainData(k, torch.device("cpu"))


def test_sequences_are_whole_share_one_token_and_stay_in_their_shard(numbered):
    data = train_data(numbered())
    rows = data.batch(0, SEQUENCES).numpy()
    assert data.sequences == SEQUENCES and rows.shape == (SEQUENCES, LENGTH + 1)
    assert (np.diff(rows) == 1).all()
    expected, start = [], 0
    for count in SHARDS:
        expected += [start + LENGTH * i for i in range((count - 1) // LENGTH)]
        start += count
    assert sorted(rows[:, 0]) == expected
    # neighbours of one shard: the last token of one is the first of the next
    assert set(rows[:, -1]) & set(rows[:, 0]) == {s for s in expected if s - LENGTH in expected}


def test_every_epoch_is_another_permutation_and_a_function_of_the_seed(numbered):
    def firsts(seed):
        data = train_data(numbered(seed))
        return [tuple(data.batch(epoch * SEQUENCES, SEQUENCES)[:, 0].tolist()) for epoch in range(3)]

    epochs = firsts(1)
    assert len({frozenset(epoch) for epoch in epochs}) == 1 and len(set(epochs[0])) == SEQUENCES
    assert len(set(epochs)) == 3
    assert firsts(1) == epochs and not set(firsts(2)) & set(epochs)


def test_a_batch_is_a_function_of_its_place_alone(numbered):
    run = train_data(numbered()).batch(0, 5 * SEQUENCES)  # also across the ends of epochs
    for first, count in ((3 * SEQUENCES - 2, 5), (7, 1), (0, SEQUENCES + 1), (SEQUENCES, 30)):
        assert (train_data(numbered()).batch(first, count) == run[first : first + count]).all()


def batches_of_a_rank(folder, rank: int, world: int) -> list[np.ndarray]:
    """What train() gives to train_step in three steps of 4 sequences, as this rank of so many."""
    seen = []

    def train_step(run, tokens, step, scale):
        seen.append(tokens.numpy())
        return 1.0

    with kit.new_run(folder, RUN_ID=f"{rank}of{world}", ITERATIONS=3) as (run, patch):
        run.rank, run.world, run.sequences = rank, world, 4 // world
        patch.setattr(T.dist, "broadcast_object_list", lambda state: None)
        patch.setattr(T, "train_step", train_step)
        T.train(run)
    return seen


def test_the_ranks_parts_make_up_the_batch(tmp_path):
    whole = batches_of_a_rank(tmp_path, 0, 1)
    assert len(whole) == 3 and {len(tokens) for tokens in whole} == {4}
    parts = [batches_of_a_rank(tmp_path, rank, 2) for rank in (0, 1)]
    for step, tokens in enumerate(whole):
        assert (np.concatenate([parts[0][step], parts[1][step]]) == tokens).all()
    assert (whole[0] != whole[1]).any()


# ---- Bytes ----

TEXTS = [
    "Déjà vu à l’été: naïve façade, Zürich, smörgåsbord, Łódź, ðæþ.",
    "日本語のテキストと中文文本,한국어 텍스트도 있다。",
    "Emoji: 🎉🧊👩‍👩‍👧 and flags 🇩🇪, then ascii again",
    "Ελληνικά и русский, עברית, العربية; maths ∑∞≠ € 1234567890",
    "x",
    "tabs\tand\nnew lines   and  runs of spaces are folded by the normaliser",
]


@pytest.fixture(scope="module")
def tokenizer():
    return sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))


@pytest.fixture(scope="module")
def sample_texts():
    lines = lzma.decompress((kit.REPO / "data" / "sample_text.jsonl.xz").read_bytes()).decode().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    odd = [text for text in texts if not text.isascii()]
    assert odd, "the sample has no multi-byte text left"
    return texts[:40] + odd[:20]


def stream_of(folder, tokens, **changes) -> T.Stream:
    write_shard(folder / "fineweb_val_000000.bin", tokens)
    return T.read_stream(knobs(DATA_PATH=folder, VAL_MAX_TOKENS=0, **changes))


def test_bytes_of_each_document_are_those_of_its_decoded_text(tmp_path, tokenizer, sample_texts):
    encoded = [[BOS, *tokenizer.encode(text)] for text in TEXTS + sample_texts]
    assert all(any(map(tokenizer.is_byte, ids)) for ids in encoded[:4]), "no byte pieces: proves nothing"
    stream = stream_of(tmp_path, np.concatenate(encoded))
    sizes = np.concatenate(([0], stream.target_bytes))  # token 0 is context alone
    ends = np.cumsum([len(ids) for ids in encoded])
    for ids, end in zip(encoded, ends):
        assert sizes[end - len(ids) : end].sum() == len(tokenizer.decode(ids[1:]).encode())
        assert sizes[end - len(ids)] == 0  # a BOS
    assert stream.target_bytes.sum() > len(encoded)


def test_bytes_of_single_targets_follow_the_rule(tmp_path, tokenizer):
    spaced, space, a = ids = tokenizer.piece_to_id(["▁the", "▁", "a"])
    three = tokenizer.piece_to_id([f"<0x{byte:02X}>" for byte in "漢".encode()])
    assert UNK not in ids + three
    tokens = [BOS, spaced, spaced, a, *three, space, BOS, space, a, tokenizer.eos_id(), spaced, 0, a]
    assert stream_of(tmp_path, tokens).target_bytes.tolist() == [3, 4, 1, 1, 1, 1, 1, 0, 0, 1, 0, 3, 0, 1]
    for cut in (1, 2, 3):  # a stream may end within a character
        assert stream_of(tmp_path, [BOS, spaced, *three[:cut]]).target_bytes.tolist() == [3] + [1] * cut


SETTINGS = {
    "as usual": dict(),
    "no space before": dict(add_dummy_prefix=False),
    "spaces kept": dict(remove_extra_whitespaces=False, allow_whitespace_only_pieces=True),
    "spaces kept, none before": dict(remove_extra_whitespaces=False, add_dummy_prefix=False),
    "spaces behind": dict(treat_whitespace_as_suffix=True),
    "words together": dict(split_by_whitespace=False),
    "no byte pieces": dict(byte_fallback=False, character_coverage=1.0),
    "normalized": dict(normalization_rule_name="nmt_nfkc"),
    "unigram": dict(model_type="unigram"),
    "symbols of text": dict(user_defined_symbols=["\n", "\n\n", "  ", "\u2581\u2581", "number", "\u2581is"]),
}
# the last: its length, 40, is the byte of a bracket, which would open a group of a pattern
MARKS = {"<|endoftext|>": True, "<sep>": True, "[SEP]": True, "end": False, f"<{'x' * 38}>": True}


def trained_tokenizer(folder, texts, **options):
    """A tokenizer of these settings; (processor, path)."""
    model = io.BytesIO()
    usual = dict(model_type="bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity")
    options = dict(sentence_iterator=iter(texts), model_writer=model, minloglevel=2) | usual | options
    sentencepiece.SentencePieceTrainer.train(**options)
    (folder / "tok.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), folder / "tok.model"


NUMBERS = [f"The number {i} is  less\tthan é 漢字 {i + 1}.\n\nNext:   {i}" for i in range(300)]


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("mark", [None, "<|endoftext|>"], ids=["BOS", "symbol"])
def test_bytes_are_those_of_the_text_whatever_the_tokenizer(options, mark, tmp_path):
    """Documents set apart by a BOS or by a symbol; the trainer's own count and the scorer's."""
    symbols = [*options.get("user_defined_symbols", []), *([mark] if mark else [])]
    tokenizer, path = trained_tokenizer(tmp_path, NUMBERS, **{**options, "user_defined_symbols": symbols})
    first = tokenizer.piece_to_id(mark) if mark else tokenizer.bos_id()
    encoded = [tokenizer.encode(text) for text in [*NUMBERS[:40], " x", "a b", "The"]]
    tokens = [token for ids in encoded for token in (first, *ids)]
    text_bytes = sum(len(tokenizer.decode(ids).encode()) for ids in encoded)
    stream = stream_of(tmp_path, tokens, TOKENIZER_PATH=path, VOCAB_SIZE=tokenizer.vocab_size())
    assert stream.target_bytes.sum() == text_bytes
    scorers = golf_stream.Stream(np.array(tokens), golf_stream.vocabulary_of(tokenizer))
    assert (scorers.target_bytes == stream.target_bytes).all()


@pytest.mark.parametrize("name, is_mark", MARKS.items())
def test_a_symbol_in_brackets_is_no_text_if_the_user_defined_it(name, is_mark, tmp_path):
    texts = [f"{text} {name} {name}" for text in NUMBERS]
    for symbols, expected in (([name], is_mark), ([], False)):
        tokenizer, _ = trained_tokenizer(tmp_path, texts, user_defined_symbols=symbols)
        proto = tokenizer.serialized_model_proto()
        special = {tokenizer.id_to_piece(i) for i in range(420) if T.is_special(tokenizer, i, proto)}
        assert (name in special) == expected, symbols


def test_the_stream_is_the_first_tokens_across_shards_by_their_numbers(tmp_path):
    tokens = random_tokens(1200)
    for i, part in enumerate(np.array_split(tokens, 12)):  # of 100 tokens each
        write_shard(tmp_path / (f"fineweb_val_{i}.bin" if i != 3 else "fineweb_val_000003.bin"), part)
    assert [p.stem for p in T.find_shards(tmp_path, "val")][-2:] == ["fineweb_val_10", "fineweb_val_11"]
    for count in (1, 98, 99, 100, 101, 1199, 0):  # 0: all
        stream = T.read_stream(knobs(DATA_PATH=tmp_path, VAL_MAX_TOKENS=count))
        assert (stream.tokens == tokens[: (count or 1199) + 1]).all()
        assert len(stream.target_bytes) == (count or 1199)


def test_validation_shards_are_read_from_their_own_folder_alone(tmp_path):
    beside = run_main(tmp_path, RUN_ID="beside", VAL_LOSS_EVERY=3)
    data, val = make_data(tmp_path / "apart" / "data"), tmp_path / "apart" / "val"
    val.mkdir()
    for path in data.glob("*val*"):
        path.rename(val / path.name)
    result = run_main(tmp_path / "apart", VAL_DATA_PATH=val, VAL_LOSS_EVERY=3)
    assert result.code == 0, result.err
    losses = [[m["val_loss"] for m in r.metrics if "val_loss" in m] for r in (beside, result)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert result.event("start")["data"] == beside.event("start")["data"] | dict(name="val")
    assert all("data=val" in m["notes"] for m in result.events("score"))  # the folder that it was made on
    (tmp_path / "empty").mkdir()  # those beside the training data do not count where a folder is named
    result = run_main(tmp_path, VAL_DATA_PATH=tmp_path / "empty")
    kit.assert_refused(result, tmp_path / "empty", "fineweb_val_*.bin", "VAL_DATA_PATH")


# ---- Bad data: one line, nothing written ----


def shard(name, tokens, **lies):
    return lambda data: write_shard(data / f"fineweb_{name}.bin", tokens, **lies)


def cut(name, change):
    def damage(data):
        path = data / f"fineweb_{name}.bin"
        path.write_bytes(change(path.read_bytes()))

    return damage


def each(split, change):
    return lambda data: [change(path) for path in data.glob(f"fineweb_{split}_*.bin")]


def pipe(name):
    """Opening one that nobody writes to would never end."""
    return lambda data: os.mkfifo(data / f"fineweb_{name}.bin")


def numpys(name, number):
    """As a disk that cannot map files, too many of them, or another user's: root reads that all the same.

    NumPy copies a file's number: that error names no file.
    """

    def fail(*_):
        raise OSError(number, os.strerror(number))

    return lambda data: {"np": SimpleNamespace(**{**vars(np), name: fail})}


FIRST, VAL, NOT_WHOLE = "train_000000", "val_000000", "not a whole token shard"
ODD = "fineweb_train_000002.bin"
LONG = [*random_tokens(100), 1024, *random_tokens(200)]
BAD_DATA = {
    "a link to nothing": (lambda data: (data / ODD).symlink_to("/nowhere/x.bin"), (f"{ODD}: No such file",)),
    "a folder": (lambda data: (data / ODD).mkdir(), (f"{ODD}: Is a directory",)),
    "a pipe": (pipe("train_000009"), ("fineweb_train_000009.bin", NOT_WHOLE)),
    "a pipe beside the validation shard": (pipe("val_000009"), ("fineweb_val_000009.bin", NOT_WHOLE)),
    "mapped badly": (numpys("memmap", errno.ENODEV), ("No such device",)),
    "unreadable": (numpys("fromfile", errno.EACCES), ("Permission denied", "its disk")),
    "too many": (numpys("fromfile", errno.EMFILE), ("Too many open files",)),
    "no shards": (each("*", Path.unlink), ("data", "fineweb_train_*.bin", "DATA_PATH", "data/README.md")),
    "no validation": (each("val", Path.unlink), ("data", "fineweb_val_*.bin")),
    "truncated": (cut("train_000001", lambda blob: blob[:-2]), ("train_000001", NOT_WHOLE)),
    "too long": (cut(VAL, lambda blob: blob + b"\0\0"), (VAL, NOT_WHOLE)),
    "half a header": (cut(FIRST, lambda blob: blob[:500]), (FIRST, NOT_WHOLE)),
    "empty": (cut(FIRST, lambda blob: b""), (FIRST, NOT_WHOLE)),
    "wrong magic": (shard(FIRST, random_tokens(500), magic=20240801), (FIRST, NOT_WHOLE)),
    "negative count": (shard(FIRST, random_tokens(500), count=-500), (FIRST,)),
    "high id": (shard(VAL, LONG), ("1024", "VOCAB_SIZE=1024")),
    "unknown on the stream": (shard(VAL, [UNK if t == 1024 else t for t in LONG]), ("as <unk>",)),
    "short stream": (shard(VAL, random_tokens(200)), ("199", "200")),  # 199 targets, 200 asked for
    "short shards": (each("train", lambda path: write_shard(path, random_tokens(16))), ("TRAIN_SEQ_LEN=16",)),
}  # fmt: skip


@pytest.mark.parametrize("damage, words", BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_refused_before_training(damage, words, tmp_path):
    patches = damage(make_data(tmp_path / "data"))
    patches = patches if isinstance(patches, dict) else None
    kit.assert_refused(run_main(tmp_path, patches), *words)


def test_a_high_id_in_training_data_stops_the_run(tmp_path):
    data = make_data(tmp_path / "data")
    for path in data.glob("fineweb_train_*.bin"):
        write_shard(path, np.full(500, 2000))
    kit.assert_told(run_main(tmp_path), 1, "2000", "VOCAB_SIZE=1024")


def test_a_tokenizer_that_disagrees_with_vocab_size_is_refused(tmp_path):
    data = make_data(tmp_path / "data")
    for path in data.glob("*.bin"):
        write_shard(path, random_tokens(600) % 500 + 4)
    kit.assert_refused(run_main(tmp_path, VOCAB_SIZE=512), TOKENIZER, "1024 pieces", "VOCAB_SIZE=512")


NO_UTF8 = TOKENIZER.read_bytes().replace("\u2581".encode(), b"\xff\xfe\x81", 20)  # pieces' leading spaces
NO_MODELS = {"empty": b"", "junk": b"this is no model" * 9, "no UTF-8": NO_UTF8}


@pytest.mark.parametrize("name", ["", "/dev/zero", "missing", "pipe", *NO_MODELS])
def test_a_tokenizer_that_is_none_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    if name in NO_MODELS:
        (tmp_path / name).write_bytes(NO_MODELS[name])
    said = f"{name}: " if name in NO_MODELS else f"TOKENIZER_PATH={name}: no file"
    kit.assert_refused(run_main(tmp_path, TOKENIZER_PATH=name), said)


def test_a_stream_whose_text_has_other_bytes_is_refused(tmp_path):
    """A byte piece alone is U+FFFD when it is decoded: three bytes, counted as one."""
    with pytest.raises(T.UserError, match="TOKENIZER_PATH does not fit the shards"):
        stream_of(tmp_path, [BOS, 300, 234, 300, BOS, 300, 301, BOS, 300])
