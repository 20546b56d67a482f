#!/usr/bin/env python3
"""Turn data/sample_text.jsonl.xz into the sample dataset that every clone can train on, offline.

usage: python3 data/build_sample_dataset.py [--out DIR] [--train-tokenizer]

Writes, in the layout of the published FineWeb export, below DIR (default: data/):
    datasets/sample_sp1024/fineweb_train_000000.bin, fineweb_val_000000.bin
    tokenizers/sample_1024_bpe.model
A shard is 256 little-endian int32 (magic, version, number of tokens) and then uint16 tokens. Every
build gives the same bytes; files that are already right are left alone. The validation shard and
the tokenizer must have the hashes pinned in records/track_sample_5min/track.json.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import os
import sys
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from golf.core.files import replace_file
from golf.core.packages import missing
from golf.core.trainers import shard_of

try:
    import numpy as np
    import sentencepiece as spm
except ImportError as error:
    sys.exit(f"build_sample_dataset.py: error: {missing(error.name)}; or run scripts/quickstart.sh")

HERE = Path(__file__).resolve().parent
TEXT = HERE / "sample_text.jsonl.xz"
TOKENIZER = "sample_1024_bpe.model"
TRACK = HERE.parent / "records" / "track_sample_5min" / "track.json"
DATASET = "datasets/sample_sp1024"
TRAIN, VAL = f"{DATASET}/fineweb_train_000000.bin", f"{DATASET}/fineweb_val_000000.bin"
PAD, BOS, EOS, UNK = 0, 1, 2, 3
VOCAB_SIZE = 1024


def read_documents(path: Path) -> list[str]:
    """The texts, each once, in the order of their hashes: where a text stands, and so the split,
    depends on the text alone."""
    try:
        lines = lzma.decompress(path.read_bytes()).decode().rstrip("\n").split("\n")
        texts = {json.loads(line)["text"] for line in lines}
        return sorted(texts, key=lambda text: sha256(text.encode()).digest())
    except (ValueError, LookupError, TypeError, AttributeError, lzma.LZMAError) as error:
        raise ValueError(f"{path} is damaged ({error!r:.99}); restore it: git checkout -- data") from error


def train_tokenizer(documents: list[str], vocab_size: int = VOCAB_SIZE) -> bytes:
    """The published tokenizer's recipe. The sample's was trained once and committed: SentencePiece does not
    promise the same bytes from every version of its trainer."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        # One line a document, of any length. A list: of Ctrl-C in a generator SentencePiece makes an error.
        sentence_iterator=iter([" ".join(text.split()) for text in documents]),
        max_sentence_length=1 << 24, model_writer=model, model_type="bpe", vocab_size=vocab_size,
        character_coverage=0.999, byte_fallback=True, split_digits=True,
        normalization_rule_name="nmt_nfkc", add_dummy_prefix=False, pad_id=PAD, bos_id=BOS, eos_id=EOS,
        unk_id=UNK, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def encode(documents: list[str], model: bytes) -> list[np.ndarray]:
    """Token ids of each document: uint16 [1 + pieces], BOS first, no EOS."""
    tokenizer = spm.SentencePieceProcessor(model_proto=model)
    if tokenizer.vocab_size() != VOCAB_SIZE:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size()} pieces, not {VOCAB_SIZE}")
    encoded = [np.array([BOS, *ids], "<u2") for ids in tokenizer.encode(documents, num_threads=1)]
    if any((ids == UNK).any() for ids in encoded):
        raise ValueError("the tokenizer gives <unk>; it must be trained with byte_fallback")
    return encoded


def split(encoded: list[np.ndarray], targets: int) -> tuple[list, list]:
    """(train, val). Validation is the first documents that hold the targets the track scores and twice
    as many again that nobody tunes on; long ones train, so that none makes up much of the score."""
    minimum, longest = 3 * targets + 128, targets // 16
    train, val, val_tokens = [], [], 0
    for ids in encoded:
        if val_tokens < minimum and len(ids) <= longest:
            val.append(ids)
            val_tokens += len(ids)
        else:
            train.append(ids)
    if val_tokens < minimum or not train:
        raise ValueError(f"{TEXT.name} is too short for {minimum} validation tokens")
    return train, val


def build(documents: list[str], model: bytes, targets: int) -> dict[str, bytes]:
    """All outputs, by path below the output folder."""
    train, val = split(encode(documents, model), targets)
    shards = {path: shard_of(np.concatenate(some)) for path, some in ((TRAIN, train), (VAL, val))}
    return {**shards, f"tokenizers/{TOKENIZER}": model}


def check_pin(pins: dict, key: str, content: bytes) -> None:
    """Raise ValueError where content has not the hash that the track pins (null: none yet)."""
    digest = sha256(content).hexdigest()
    if pins[key] not in (None, digest):
        raise ValueError(
            f"{key} is {digest}, but {TRACK.parent.name}/{TRACK.name} pins {pins[key]}; "
            f"restore {TEXT.name} and {TOKENIZER} (git checkout -- data), or pin the new hash if "
            "you changed them on purpose"
        )


def write(path: Path, content: bytes) -> bool:
    """Put content at path in one step; False where it was there already."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)
    return True


def make(out: Path, retrain: bool) -> list[str]:
    """Build below out; returns the paths that were written (none: all was right already)."""
    documents = read_documents(TEXT)
    try:
        track = json.loads(TRACK.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{TRACK}: {error}; restore it: git checkout -- records") from error
    if retrain:
        write(out / TOKENIZER, train_tokenizer(documents))
    model = ((out if retrain else HERE) / TOKENIZER).read_bytes()
    check_pin(track["data"], "tokenizer_sha256", model)
    files = build(documents, model, track["targets"])
    check_pin(track["data"], "val_sha256", files[VAL])
    return [path for path, content in files.items() if write(out / path, content)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE, help="output folder (default: data/)")
    parser.add_argument("--train-tokenizer", action="store_true",
                        help=f"train {TOKENIZER} again, in the output folder, and use it")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        written = make(args.out, args.train_tokenizer)
    except (OSError, RuntimeError, ValueError, KeyboardInterrupt) as error:
        print(f"build_sample_dataset.py: error: {str(error) or 'stopped'}", file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    state = (
        f"wrote {len(written)} file{'s' * (len(written) > 1)}" if written else "already there, nothing to do"
    )
    try:
        print(f"sample_sp1024 in {args.out}: {state}", flush=True)
    except OSError:  # nobody reads, or a full disk: the data is there all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
