"""Reads an artifact's container with the standard library alone: is it sound, what is in it?

The format is defined by the trainer's `Artifact` section (train_gpt.py); a test holds the two
together on the same bytes. 20 bytes (magic, format, coder, unpacked length, CRC-32 of the rest),
then the coded payload: uint32 length of a JSON header, the header, raw arrays.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

PREFIX, MAGIC, FORMAT, ZLIB, MAX_UNPACKED = struct.Struct("<4sHHQI"), b"PGLA", 1, 1, 64 << 20
MAX_HEADER = 4 << 20  # the starter's has 3,000 bytes; JSON of 64 MiB would take minutes
MAX_RANK = 8  # the product of a million sizes would, too
# Bytes an element of a tensor's arrays: symbols [*shape] and scales [rows], or floats [*shape].
ITEM_BYTES = {"int8": (1, 2), "fp16": (2,), "fp32": (4,)}


class ArtifactError(ValueError):
    """The bytes are no sound artifact; the message says why."""


class ForeignArtifact(ArtifactError):
    """A whole container whose format, coder or encoding only the submission's own code knows."""


@dataclass(frozen=True)
class Artifact:
    """What a container holds: the model's configuration, and shape and encoding by tensor name."""

    config: dict
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    unpacked_bytes: int


def read(path: Path) -> Artifact:
    """The artifact in a file; ArtifactError says what is wrong with it."""
    size = path.stat().st_size
    need(size <= MAX_UNPACKED, f"{size:,} bytes, over {MAX_UNPACKED:,}")
    return parse(path.read_bytes())


def parse(blob: bytes) -> Artifact:
    """The artifact in `blob`, which may be anyone's; no more than the stated length is inflated."""
    payload = unpack(blob)
    try:
        length = 4 + struct.unpack_from("<I", payload)[0]
        need(length <= MAX_HEADER, f"its header has {length:,} bytes")
        header = json.loads(payload[4:length])
        entries = [read_entry(*entry) for entry in header["tensors"]]
        config = header["config"]
    except ArtifactError:
        raise
    except (ValueError, TypeError, KeyError, struct.error, RecursionError):
        raise ArtifactError("its header is not what the format says") from None
    tensors = {name: (encoding, shape) for name, shape, encoding in entries}
    need(isinstance(config, dict), "its configuration is no object")
    need(len(tensors) == len(entries), "a tensor's name stands twice")
    held = length + sum(array_bytes(shape, encoding) for _, shape, encoding in entries)
    need(held == len(payload), f"its tensors take {held:,} bytes, there are {len(payload):,}")
    return Artifact(config, tensors, len(payload))


def unpack(blob: bytes) -> bytes:
    """The payload, inflated no further than its stated length."""
    need(len(blob) >= PREFIX.size and blob.startswith(MAGIC), f"does not begin with {MAGIC!r}")
    _, version, coder, length, crc = PREFIX.unpack_from(blob)
    coded = memoryview(blob)[PREFIX.size :]
    need(length <= MAX_UNPACKED, f"unpacks to {length:,} bytes, over {MAX_UNPACKED:,}")
    need(zlib.crc32(coded) == crc, "wrong CRC-32: damaged, or changed by hand")
    if (version, coder) != (FORMAT, ZLIB):
        raise ForeignArtifact(f"format {version}, coder {coder}: not this repository's own")
    decoder = zlib.decompressobj()
    try:
        payload = decoder.decompress(coded, length + 1)
    except zlib.error:
        raise ArtifactError("its coded part does not unpack") from None
    need(len(payload) == length and decoder.eof, "does not unpack to its stated length")
    return payload


def read_entry(name, shape, encoding) -> tuple[str, tuple[int, ...], str]:
    sizes = isinstance(shape, list) and len(shape) <= MAX_RANK
    sizes = sizes and all(type(n) is int and 0 <= n <= MAX_UNPACKED for n in shape)
    need(
        isinstance(name, str) and sizes and isinstance(encoding, str), "a tensor has no such shape"
    )
    if encoding not in ITEM_BYTES:
        raise ForeignArtifact(f"encoding {encoding[:40]!r}: not this repository's own")
    return name, tuple(shape), encoding


def array_bytes(shape: tuple[int, ...], encoding: str) -> int:
    """Bytes of a tensor's arrays; the second one, if any, has an element a row."""
    sizes = (math.prod(shape), math.prod(shape[:1]))
    return sum(size * count for size, count in zip(ITEM_BYTES[encoding], sizes))


def need(holds: bool, message: str) -> None:
    if not holds:
        raise ArtifactError(message)
