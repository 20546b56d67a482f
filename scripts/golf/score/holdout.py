"""Make private held-out shards from any text, for `golf.sh score --holdout DIR`.

An entry may know the public text by heart; it cannot know a text that only you have. TEXT is a .jsonl
file, one {"text": ...} a document, or any other text file: its paragraphs, blocks between blank
lines, are gathered to documents. The documents are ordered by their hashes, so that every part of
the shard holds some of each file. Keep DIR to yourself, outside the repository.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from golf.core import track
from golf.core.errors import GolfError
from golf.core.files import LARGE, read_text, unfinished
from golf.core.json_io import dig, parse_json
from golf.core.paths import REPO, path_argument, shown
from golf.core.trainers import shard_of
from golf.score import stream
from golf.score.audit.rules import MOST_HELD_OUT
from golf.score.sandbox import bwrap as sandbox

JSONL = (".jsonl", ".ndjson", ".json")  # never taken for plain text
DOCUMENT_CHARS = 2_000  # a document of gathered paragraphs has at least so many
FEW_DOCUMENTS = 20  # with fewer a side the audit calls for a person where it would say FAIL
SHARD = "fineweb_val_000000.bin"  # the name that --holdout looks for


def add_arguments(parser) -> None:
    path = dict(type=path_argument)
    parser.add_argument("texts", nargs="+", **path, metavar="TEXT", help="a .jsonl or plain text file")
    parser.add_argument("--out", required=True, **path, metavar="DIR", help="a folder to make, outside")
    parser.add_argument("--track", default="track_sample_5min", metavar="NAME",
                        help="whose tokenizer encodes it (default: track_sample_5min)")  # fmt: skip
    parser.add_argument("--data", **path, metavar="DIR", help="the shards' folder, with its tokenizer")


def main(args) -> int:
    print("\n".join(make(args.texts, args.out, args.track, args.data)))
    return 0


def make(paths: list[Path], out: Path, track_name: str, data: Path | None) -> list[str]:
    """Writes the shard; lines that say what was made. GolfError where it could not be."""
    rules = track.load(track_name)
    vocabulary, _ = stream.load_vocabulary(rules, data or stream.default_folder(rules))
    check_out(out)
    texts = dict.fromkeys(text for path in paths for text in read_documents(path))
    if not texts:
        raise GolfError(f"{shown(paths[0])}: no text in it", 2)
    ordered = sorted(texts, key=lambda text: sha256(text.encode("utf-8", "replace")).digest())
    documents = encode(ordered, vocabulary)
    tokens = np.concatenate(documents)
    write_private(out, tokens)
    said = [f"made     {shown(out)}/{SHARD}: {len(documents):,} documents, {len(tokens):,} tokens"]
    wanted = min(rules["targets"], MOST_HELD_OUT)
    if len(documents) < FEW_DOCUMENTS or len(tokens) <= wanted:
        said.append(
            f"noted    the audit of {rules['name']} uses up to {wanted:,} tokens and {FEW_DOCUMENTS} "
            "documents or more; with less it sees less"
        )
    return [*said, f"next     bash scripts/golf.sh score FOLDER --holdout {shown(out)}"]


def check_out(out: Path) -> None:
    """GolfError where DIR is there already, would be published, or could be read by an entry."""
    if out.exists() or out.is_symlink():  # one that leads nowhere
        raise GolfError(f"{shown(out)} is there already; name a new folder with --out", 2)
    if out.resolve().is_relative_to(REPO):
        raise GolfError(f"--out {shown(out)}: lies in the repository; a private folder lies outside", 2)
    if sandbox.shows(out):
        raise GolfError(f"--out {shown(out)}: lies where entries can read; name another folder", 2)


def read_documents(path: Path) -> Iterator[str]:
    """The documents of a file, without those that are empty."""
    text = read_text(path, LARGE)
    documents = of_jsonl(path, text.split("\n")) if path.suffix.lower() in JSONL else gather(path, text)
    return (document for document in documents if document.strip())


def of_jsonl(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        document = dig(parse_json(line), "text")
        if not isinstance(document, str):
            raise GolfError(f'{shown(path)}:{number}: not a JSON object with a string "text"', 2)
        yield document


def gather(path: Path, text: str) -> Iterator[str]:
    """Whole paragraphs as documents of at least DOCUMENT_CHARS; the last may be shorter."""
    if "\0" in text:
        raise GolfError(f"{shown(path)}: holds NUL bytes, as UTF-16 does; save it as UTF-8", 2)
    document: list[str] = []
    size = 0
    for paragraph in "\n".join(line.rstrip() for line in text.splitlines()).split("\n\n"):
        document.append(paragraph)
        size += len(paragraph)
        if size >= DOCUMENT_CHARS:
            yield "\n\n".join(document)
            document, size = [], 0
    yield "\n\n".join(document)


def encode(texts: list[str], vocabulary: stream.Vocabulary) -> list[np.ndarray]:
    """Token ids of each document: uint16 [1 + pieces], BOS first, no EOS, as in the track's shards."""
    processor = vocabulary.processor
    texts = [text.encode("utf-8", "replace").decode() for text in texts]  # JSON may hold half a pair
    documents = []
    for ids in processor.encode(texts):
        document = np.array([processor.bos_id(), *ids], "<u2")
        if vocabulary.unknown[document].any():
            raise GolfError("the tokenizer has no bytes for some letters, so text would be lost", 2)
        documents.append(document)
    return documents


def write_private(out: Path, tokens: np.ndarray) -> None:
    """The shard in a new folder that nobody else may read; nothing is left of one that failed."""
    with unfinished(out.parent) as temporary:
        folder = temporary / "private"
        folder.mkdir(mode=0o700)
        (folder / SHARD).write_bytes(shard_of(tokens))
        folder.rename(out)
