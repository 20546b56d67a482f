#!/usr/bin/env python3
"""Turn your own texts into token shards that the trainers read.

    python3 data/tokenize_docs.py TEXT... --out DIR

TEXT is a .jsonl file (or .ndjson), one {"text": ...} a document, or any other text file: its paragraphs,
blocks between blank lines, are gathered to documents. DIR is made; it holds fineweb_train_*.bin,
fineweb_val_*.bin and tokenizer.model. One document in 100 is for validation, chosen by the hash of its
text, so that the same text is never on both sides. Exit: 0 made, 1 not made, 2 used wrongly.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from array import array
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
try:
    import numpy as np
    import sentencepiece as spm
    from build_sample_dataset import train_tokenizer
    from golf.cli import interrupt
    from golf.core.errors import GolfError
    from golf.core.files import AS_TEXT, LARGE, plain, read_bytes, read_text, replace_file, unfinished
    from golf.core.paths import path_argument, shown
    from golf.core.processes import handle_stops
    from golf.core.trainers import shard_of
    from golf.core.units import between
    from golf.score.holdout import JSONL, gather, of_jsonl
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f"tokenize_docs.py: error: {error}; run scripts/quickstart.sh, then .venv/bin/python instead")

SHARD_TOKENS = 100_000_000  # of a shard at most, as in the published export
BATCH = 4_000_000  # characters that are encoded at a time, on all processors: 36 bytes an id
VAL_SHARE = 100  # one document in so many
TRAINED_ON = 50_000_000  # characters of the training documents for a new tokenizer: half a minute
LONGEST = 4_000_000  # characters of a text that SentencePiece's trainer takes; it leaves out longer ones
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
    which.add_argument("--vocab-size", type=between(1, 1 << 16), metavar="N",
                       help="train a new one of N pieces on the training documents")  # fmt: skip
    return parser.parse_args(argv)


class Documents:
    """The documents of all files, in order, without those that are empty. Each loop reads them anew."""

    def __init__(self, paths: list[Path], val_docs: int | None):
        self.paths, self.val_docs, self.left_out = paths, val_docs, 0  # of training: validation has them

    def __iter__(self) -> Iterator[Document]:
        self.left_out, held = 0, set()
        texts = (text for path in self.paths for text in documents_of(path) if text.strip())
        for number, text in enumerate(texts):
            text = text.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair
            digest, first = sha256(text.encode()).digest(), self.val_docs and number < self.val_docs
            held |= {digest} if first else set()
            if first or digest not in held:
                yield first if self.val_docs is not None else is_for_validation(text), text
            else:
                self.left_out += 1


def documents_of(path: Path) -> Iterator[str]:
    """A .jsonl file is read line by line: it may be larger than the memory."""
    if path.suffix.lower() not in JSONL:
        yield from gather(path, read_text(path, float("inf")))
        return
    try:
        with plain(path).open(encoding="utf-8-sig") as lines:
            yield from of_jsonl(path, lines)
    except UnicodeDecodeError:
        raise GolfError(f"{shown(path)}: not UTF-8 text; {AS_TEXT}") from None


def is_for_validation(text: str) -> bool:
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big") % VAL_SHARE == 0


def make_tokenizer(documents: Iterable[Document], vocab_size: int) -> bytes:
    """By the published tokenizer's recipe, of the first TRAINED_ON characters."""
    texts, size = [], 0
    for text in (text for for_validation, text in documents if not for_validation):
        text = text[: TRAINED_ON - size]
        texts += [text[at : at + LONGEST] for at in range(0, len(text), LONGEST)]
        size += len(text)
        if size == TRAINED_ON:
            break
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
        processor = spm.SentencePieceProcessor(model_proto=model or b"empty")  # of no bytes it makes a model
    except RuntimeError:
        raise GolfError(f"{name}: not a SentencePiece model") from None
    if not 0 <= processor.bos_id() < processor.vocab_size() <= 1 << 16:
        raise GolfError(f"{name}: needs a BOS piece, and at most 65,536 pieces")
    return processor


class Writer:
    """The shards of one split."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split, self.shards = folder, split, 0
        self.documents = self.tokens = 0
        self.waiting = array("H")  # tokens, 2 bytes each however short the documents are

    def add(self, document: list[int]) -> None:
        self.documents += 1
        self.tokens += len(document)
        self.waiting.fromlist(document)
        while len(self.waiting) >= SHARD_TOKENS:
            self.write()

    def write(self) -> None:
        """A shard of the first SHARD_TOKENS tokens that wait, or of all; a document may go on in the next."""
        path = self.folder / f"fineweb_{self.split}_{self.shards:06}.bin"
        replace_file(path, shard_of(np.array(self.waiting[:SHARD_TOKENS])))
        self.shards += 1
        del self.waiting[:SHARD_TOKENS]


def write_shards(folder: Path, documents: Iterable[Document], processor) -> dict[str, Writer]:
    """Each document is BOS and its pieces, no EOS, as in the published export."""
    documents = tqdm(documents, unit=" documents", mininterval=5, delay=5)
    bos, unknown = processor.bos_id(), processor.unk_id()
    writers = {split: Writer(folder, split) for split in ("train", "val")}
    size = 0

    def number_of_batch(document: Document) -> int:
        nonlocal size
        size += len(document[1]) + 100  # what a short one takes besides
        return size // BATCH

    for batch in (list(group) for _, group in groupby(documents, number_of_batch)):
        for (for_validation, text), ids in zip(batch, processor.encode([text for _, text in batch])):
            if unknown in ids:
                raise GolfError(f"the tokenizer loses letters of {text[:40]!r}; use one with byte fallback")
            writers["val" if for_validation else "train"].add([bos, *ids])
    for split, writer in writers.items():
        if not writer.documents:
            raise GolfError(f"no document is left for {split}; add text, or set --val-docs")
        if writer.waiting:
            writer.write()
    return writers


def make(args: argparse.Namespace) -> list[str]:
    """All of DIR, or nothing; lines that say what was made."""
    if os.path.lexists(args.out):  # also a link that leads nowhere
        raise GolfError(f"{shown(args.out)} is there already; name a new folder with --out", 2)
    for path in args.texts:  # not after an hour of work on the first
        plain(path).open("rb").close()
    documents = Documents(args.texts, args.val_docs)
    with unfinished(args.out.parent) as temporary:
        folder = temporary / "shards"
        folder.mkdir()
        if args.vocab_size is None:
            if not args.tokenizer.is_file():
                raise GolfError(
                    f"{shown(args.tokenizer)}: no tokenizer; fetch it (data/README.md) or name one", 2
                )
            model = read_bytes(args.tokenizer, LARGE)
        else:
            model = make_tokenizer(documents, args.vocab_size)
        processor = open_tokenizer(model, shown(args.tokenizer))
        replace_file(folder / "tokenizer.model", model)
        writers = write_shards(folder, documents, processor)
        folder.rename(args.out)
    said = [
        f"made     {split}: {w.documents:,} documents, {w.tokens:,} tokens, shards: {w.shards}"
        for split, w in writers.items()
    ]
    if left_out := documents.left_out:
        said.append(f"noted    {left_out:,} documents left out of train: they are for validation")
    where = shlex.quote(str(args.out.resolve()))
    knobs = f"DATA_PATH={where} TOKENIZER_PATH={where}/tokenizer.model VOCAB_SIZE={processor.vocab_size()}"
    return [*said, f"next     {knobs} VAL_MAX_TOKENS=0 bash scripts/golf.sh run CONFIG.env"]


def main(argv: list[str] | None = None) -> int:
    handle_stops(interrupt)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a path may hold what its encoding lacks
        stream.reconfigure(errors="backslashreplace")
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
