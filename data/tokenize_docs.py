#!/usr/bin/env python3
"""Turn your own texts into token shards that the trainers read.

    python3 data/tokenize_docs.py TEXT... --out DIR

TEXT is a .jsonl file, one {"text": ...} a document, or any other text file: its paragraphs, blocks
between blank lines, are gathered to documents. DIR is made; it holds fineweb_train_*.bin,
fineweb_val_*.bin and tokenizer.model. One document in 100 is for validation, chosen by the hash of its
text, so that the same text is never on both sides. Exit: 0 made, 1 not made, 2 used wrongly.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
try:
    import numpy as np
    import sentencepiece as spm
    from build_sample_dataset import shard, train_tokenizer
    from golf.cli import interrupt
    from golf.core.errors import GolfError
    from golf.core.files import plain, read_bytes, read_text
    from golf.core.paths import path_argument, shown
    from golf.core.processes import handle_stops
    from golf.core.units import between
    from golf.score.holdout import gather, of_jsonl
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f"tokenize_docs.py: error: {error}; run scripts/quickstart.sh, then .venv/bin/python instead")

SHARD_TOKENS = 100_000_000  # of a shard at most, as in the published export
BATCH = 1024  # documents that are encoded at a time, on all processors
VAL_SHARE = 100  # one document in so many
TRAINED_ON = 50_000_000  # characters of the training documents for a new tokenizer: half a minute
STOCK = ROOT / "data" / "tokenizers" / "fineweb_1024_bpe.model"
Document = tuple[bool, str]  # whether it is for validation; its text


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("texts", nargs="+", type=path_argument, metavar="TEXT", help="a .jsonl or text file")
    parser.add_argument("--out", required=True, type=path_argument, metavar="DIR", help="a folder to make")
    parser.add_argument("--val-docs", type=between(0), metavar="N",
                        help="validation is the first N documents, in their order")  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tokenizer", type=path_argument, default=STOCK, metavar="FILE",
                       help="a SentencePiece model; default: FineWeb's")  # fmt: skip
    which.add_argument("--vocab-size", type=between(1), metavar="N",
                       help="train a new one of N pieces on the training documents")  # fmt: skip
    return parser.parse_args(argv)


def read_documents(paths: list[Path], val_docs: int | None) -> Iterator[Document]:
    """The documents of all files, in order, without those that are empty."""
    number = 0
    for path in paths:
        for text in documents_of(path):
            if text.strip():
                text = text.encode("utf-8", "replace").decode()  # JSON may hold half a pair
                yield number < val_docs if val_docs is not None else is_for_validation(text), text
                number += 1


def documents_of(path: Path) -> Iterator[str]:
    """A .jsonl file is read line by line: it may be larger than the memory."""
    if path.suffix != ".jsonl":
        yield from gather(path, read_text(path, float("inf")))
        return
    try:
        with plain(path).open(encoding="utf-8-sig") as lines:
            yield from of_jsonl(path, lines)
    except UnicodeDecodeError:
        raise GolfError(f"{shown(path)}: not UTF-8 text; save it as UTF-8") from None


def is_for_validation(text: str) -> bool:
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big") % VAL_SHARE == 0


def make_tokenizer(documents: Iterable[Document], vocab_size: int) -> bytes:
    """By the published tokenizer's recipe, of the first TRAINED_ON characters."""
    texts, size = [], 0
    for for_validation, text in documents:
        if not for_validation and size < TRAINED_ON:
            texts.append(text)
            size += len(text)
    print(f"training a tokenizer of {vocab_size:,} pieces on {size:,} characters", flush=True)
    try:
        return train_tokenizer(texts, vocab_size)
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2].strip()
        raise GolfError(
            f"--vocab-size {vocab_size}: no tokenizer of {size:,} characters ({reason})"
        ) from None


def open_tokenizer(model: bytes, name: str) -> spm.SentencePieceProcessor:
    try:
        processor = spm.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        raise GolfError(f"{name}: not a SentencePiece model") from None
    if not 0 <= processor.bos_id() < processor.vocab_size() <= 1 << 16:
        raise GolfError(f"{name}: needs a BOS piece, and at most 65,536 pieces")
    return processor


class Writer:
    """The shards of one split."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split, self.shards = folder, split, 0
        self.documents = self.tokens = self.waiting = 0
        self.parts: list[np.ndarray] = []  # uint16, of `waiting` tokens

    def add(self, document: np.ndarray) -> None:
        self.documents += 1
        self.tokens += len(document)
        self.waiting += len(document)
        self.parts.append(document)
        while self.waiting >= SHARD_TOKENS:
            self.write()

    def write(self) -> None:
        """A shard of the first SHARD_TOKENS tokens that wait, or of all; a document may go on in the next."""
        tokens = np.concatenate(self.parts)
        path = self.folder / f"fineweb_{self.split}_{self.shards:06}.bin"
        path.write_bytes(shard([tokens[:SHARD_TOKENS]]))
        self.shards += 1
        self.parts, self.waiting = [tokens[SHARD_TOKENS:]], max(0, len(tokens) - SHARD_TOKENS)


def write_shards(folder: Path, documents: Iterable[Document], processor) -> dict[str, Writer]:
    """Each document is BOS and its pieces, no EOS, as in the published export."""
    documents = iter(tqdm(documents, unit=" documents", mininterval=5, delay=5))
    bos, unknown = processor.bos_id(), processor.unk_id()
    writers = {split: Writer(folder, split) for split in ("train", "val")}
    while batch := list(islice(documents, BATCH)):
        for (for_validation, text), ids in zip(batch, processor.encode([text for _, text in batch])):
            if unknown in ids:
                raise GolfError(f"the tokenizer loses letters of {text[:40]!r}; use one with byte fallback")
            writers["val" if for_validation else "train"].add(np.array([bos, *ids], "<u2"))
    for split, writer in writers.items():
        if not writer.documents:
            raise GolfError(f"no document is left to {split} on; add text, or set --val-docs")
        if writer.waiting:
            writer.write()
    return writers


def make(args: argparse.Namespace) -> list[str]:
    """All of DIR, or nothing; lines that say what was made."""
    if args.out.exists():
        raise GolfError(f"{shown(args.out)} is there already; name a new folder with --out", 2)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f".{args.out.name}.") as temporary:
        folder = Path(temporary, "shards")
        folder.mkdir()
        if args.vocab_size is None:
            if not args.tokenizer.is_file():
                raise GolfError(
                    f"{shown(args.tokenizer)}: no tokenizer; fetch it (data/README.md) or name one", 2
                )
            model = read_bytes(args.tokenizer, float("inf"))
        else:
            model = make_tokenizer(read_documents(args.texts, args.val_docs), args.vocab_size)
        processor = open_tokenizer(model, shown(args.tokenizer))
        (folder / "tokenizer.model").write_bytes(model)
        writers = write_shards(folder, read_documents(args.texts, args.val_docs), processor)
        folder.rename(args.out)
    said = [
        f"made     {w.shards} shards to {split}: {w.documents:,} documents, {w.tokens:,} tokens"
        for split, w in writers.items()
    ]
    where = shlex.quote(str(args.out.resolve()))
    knobs = f"DATA_PATH={where} TOKENIZER_PATH={where}/tokenizer.model VOCAB_SIZE={processor.vocab_size()}"
    return [*said, f"next     {knobs} VAL_MAX_TOKENS=0 bash scripts/golf.sh run CONFIG.env"]


def main(argv: list[str] | None = None) -> int:
    handle_stops(interrupt)
    try:
        said, code = "\n".join(make(parse(argv))), 0
    except GolfError as error:
        said, code = f"tokenize_docs.py: error: {error}", error.code
    except OSError as error:
        where = shown(error.filename) if error.filename else "writing"
        said, code = f"tokenize_docs.py: error: {where}: {error.strerror or error}", 1
    except KeyboardInterrupt:
        said, code = "tokenize_docs.py: stopped; nothing was made", 130
    try:
        print(said, file=sys.stderr if code else sys.stdout, flush=True)
    except OSError:  # nobody reads: the shards are there all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
