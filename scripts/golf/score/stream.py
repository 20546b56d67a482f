"""Reads the validation stream for the scorer: tokens, tokenizer, and the bytes of targets.

Written apart from the trainer and without PyTorch: a submission's own reading of the data, right or
wrong, has no part in its official score. docs/track_spec.md 3 has the rules.
"""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from golf.core.errors import GolfError
from golf.core.files import LARGE, read_bytes
from golf.core.paths import REPO, shown
from golf.core.trainers import HEADER_BYTES, count_tokens, shard_paths

PART = 8192  # tokens of a train shard that are drawn together as held-out text
DRAWN_FROM = 100  # train shards hold at least so many times what is drawn


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece tokenizer and what counting bytes needs of its pieces, arrays of [vocab]."""

    processor: object  # sentencepiece.SentencePieceProcessor
    size: np.ndarray  # int64: UTF-8 bytes of the text it decodes to at a document's start
    space: np.ndarray  # bool: one byte more elsewhere, a space that the tokenizer drops there
    special: np.ndarray  # bool: control, unknown, unused or a marker, all of 0 bytes
    unknown: np.ndarray  # bool

    def __len__(self) -> int:
        return len(self.size)


@dataclass(frozen=True)
class Stream:
    """N targets, tokens[1:], after one token that is context alone."""

    tokens: np.ndarray  # uint16 [N + 1]
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.tokens) - 1

    @cached_property
    def target_bytes(self) -> np.ndarray:
        """int64 [N]: a space counts unless the token before is special (nothing precedes it)."""
        v, before, target = self.vocabulary, self.tokens[:-1], self.tokens[1:]
        return v.size[target] + (v.space[target] & ~v.special[before])

    def part(self, start: int, stop: int) -> "Stream":
        """The targets start .. stop - 1, as far as there are, as a stream of their own."""
        return Stream(self.tokens[start : stop + 1], self.vocabulary)


def load(rules: dict, folder: Path | None = None) -> tuple[Stream, dict[str, str]]:
    """The track's whole validation split, from `folder` or where the downloader puts it, and its hashes:
    val_sha256 (of all its shards, in order), tokenizer_sha256.

    GolfError where files are missing or damaged, or are not those whose hashes the track pins.
    """
    folder = folder or default_folder(rules)
    tokens, val_sha256 = read_shards(folder)
    require_pinned(rules, "val_sha256", val_sha256, folder)
    vocabulary, tokenizer_sha256 = load_vocabulary(rules, folder)
    check_ids(tokens, vocabulary, folder)
    hashes = {"val_sha256": val_sha256, "tokenizer_sha256": tokenizer_sha256}
    return Stream(tokens, vocabulary), hashes


def load_vocabulary(rules: dict, folder: Path) -> tuple[Vocabulary, str]:
    """The track's tokenizer, and the SHA-256 of its file."""
    vocabulary, found = read_tokenizer(find_tokenizer(folder, rules["data"]["tokenizer_file"]))
    require_pinned(rules, "tokenizer_sha256", found, folder)
    return vocabulary, found


def require_pinned(rules: dict, name: str, found: str, folder: Path) -> None:
    pinned = rules["data"].get(name)
    if pinned not in (None, found):
        told = f"{name} is {found}, the track pins {pinned}; fetch the track's data (data/README.md)"
        raise GolfError(f"{shown(folder)}: {told} or name its folder with --data", 2)


def default_folder(rules: dict) -> Path:
    """Where the downloader puts the track's shards; DATA_PATH names another place."""
    return Path(os.environ.get("DATA_PATH") or REPO / "data/datasets" / rules["data"]["name"])


def load_more(folder: Path, vocabulary: Vocabulary) -> np.ndarray:
    """The tokens, uint16, of other validation shards in the same vocabulary (--holdout)."""
    tokens, _ = read_shards(folder, "--holdout")
    check_ids(tokens, vocabulary, folder)
    return tokens


def draw_holdout(folder: Path, vocabulary: Vocabulary, rng, count: int) -> np.ndarray | None:
    """`count` + 1 tokens, uint16, in parts drawn from the train shards that are in `folder`.

    rng: numpy's Generator. Each part starts with a document. None where there are no train shards,
    or they hold less than DRAWN_FROM times as much: a model knows well what it saw several times.
    """
    shards = [open_shard(path) for path in sorted(folder.glob("fineweb_train_*.bin"))]
    slots = [(s, at) for s, shard in enumerate(shards) for at in range(0, len(shard) - PART, PART)]
    wanted = -(-count // PART)
    if len(slots) < DRAWN_FROM * wanted:
        return None
    parts = []
    for s, at in rng.permutation(slots):
        part = np.array(shards[s][at : at + PART])
        begins = np.flatnonzero(vocabulary.special[np.minimum(part, len(vocabulary) - 1)])
        parts.append(part[begins[0] :] if len(begins) else part[:0])
        if sum(map(len, parts)) > count:
            break
    tokens = np.concatenate(parts)[: count + 1]
    check_ids(tokens, vocabulary, folder)
    return tokens


def open_shard(path: Path) -> np.ndarray:
    """A shard's tokens, uint16, mapped: train shards are large. GolfError where it is not whole."""
    return np.memmap(path, "<u2", "r", HEADER_BYTES, count_tokens(path))


def read_shards(folder: Path, option: str = "--data") -> tuple[np.ndarray, str]:
    """All tokens of fineweb_val_*.bin in order, and the SHA-256 of these files' bytes.

    option: what names the folder on the command line.
    """
    paths = shard_paths(folder, "val")
    if not paths:
        raise GolfError(
            f"{shown(folder)}: no fineweb_val_*.bin; fetch the data (data/README.md) or name its "
            f"folder with {option}",
            2,
        )
    tokens, digest = np.concatenate(list(map(open_shard, paths))), sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return tokens.astype(np.uint16, copy=False), digest.hexdigest()


def find_tokenizer(folder: Path, name: str) -> Path:
    """The tokenizer beside the dataset, or in data/; TOKENIZER_PATH names another place."""
    given = os.environ.get("TOKENIZER_PATH")
    beside = folder.resolve().parent.parent / "tokenizers" / name  # at the root, the root again
    places = [Path(given)] if given else [beside, REPO / "data/tokenizers" / name, REPO / "data" / name]
    for path in places:
        if path.is_file():
            return path
    raise GolfError(f"{shown(places[0])}: no tokenizer there; fetch it or set TOKENIZER_PATH", 2)


def read_tokenizer(path: Path) -> tuple[Vocabulary, str]:
    """The tokenizer's vocabulary and the SHA-256 of its file."""
    from sentencepiece import SentencePieceProcessor

    blob = read_bytes(path, LARGE)
    try:
        processor = SentencePieceProcessor(model_proto=blob or b"empty")  # of no bytes it makes a model
        return vocabulary_of(processor), sha256(blob).hexdigest()
    except (RuntimeError, UnicodeDecodeError):  # the latter: of a piece
        raise GolfError(f"{shown(path)}: not a SentencePiece model; fetch it again", 2) from None


def vocabulary_of(processor) -> Vocabulary:
    """Measures each piece by what it decodes to, alone and after another, not by its name."""
    ids, model = range(processor.vocab_size()), processor.serialized_model_proto()
    unknown = [processor.is_unknown(i) for i in ids]
    kinds = processor.is_unknown, processor.is_control, processor.is_unused
    marked = {i for i in ids if not processor.is_byte(i) and marks(processor.id_to_piece(i), model)}
    special = [i in marked or any(is_kind(i) for is_kind in kinds) for i in ids]
    text = [i for i in ids if not special[i] and not processor.is_byte(i)]
    size = np.array([0 if s else 1 for s in special], np.int64)  # a byte piece is one byte
    space = np.zeros(len(ids), bool)
    if text:
        alone = [len(t.encode()) for t in processor.decode([[i] for i in text])]
        front = text[int(np.argmax(alone))]
        behind = [len(t.encode()) - max(alone) for t in processor.decode([[front, i] for i in text])]
        size[text], space[text] = alone, np.array(behind) > alone
    return Vocabulary(processor, size, space, np.array(special), np.array(unknown))


def marks(name: str, model: bytes) -> bool:
    """Whether the piece is a user-defined symbol in brackets (<|endoftext|>, [SEP]): no text, but what
    sets documents apart. Type 4 behind name and score in the model's bytes says so."""
    if len(name.encode()) > 127 or (name[:1], name[-1:]) not in (("<", ">"), ("[", "]")):
        return False
    field = re.escape(b"\n" + bytes([len(name.encode())]) + name.encode())
    return bool(re.search(field + rb"(?:\x15....)?\x18\x04", model, re.DOTALL))


def check_ids(tokens: np.ndarray, vocabulary: Vocabulary, folder: Path) -> None:
    if len(tokens) < 2 or int(tokens.max()) >= len(vocabulary):
        raise GolfError(f"{shown(folder)}: its tokens are not of this tokenizer's vocabulary", 2)
