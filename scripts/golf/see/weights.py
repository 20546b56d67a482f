"""The tensors of an artifact as numpy arrays, read by the repository's own bounded reader."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from golf.core import artifact
from golf.core.errors import GolfError
from golf.core.files import read_bytes
from golf.core.paths import shown

CHUNK = 64  # bytes
DTYPES = {"int8": "i1", "fp16": "<f2", "fp32": "<f4"}


@dataclass(frozen=True)
class Tensor:
    """One tensor as it is stored: symbols [*shape] with scales [rows], or floats [*shape] alone."""

    encoding: str  # int8, int8t (of the transpose), fp16 or fp32
    stored: np.ndarray
    scales: np.ndarray | None

    def values(self) -> np.ndarray:
        """float32: what the model computes with."""
        values = self.stored.astype(np.float32)
        if self.scales is not None:
            values *= self.scales.astype(np.float32)[:, None]
        return values.T if self.encoding == "int8t" else values


@dataclass(frozen=True)
class Weights:
    """What an artifact holds, and what its container takes."""

    config: dict
    tensors: dict[str, Tensor]
    file_bytes: int
    # Bytes that each part takes in the file: a tensor's two arrays, by its name, and "header".
    coded: dict[str, tuple[float, float]]


def load(path: Path) -> Weights:
    """The artifact in a file. GolfError if it is not sound, or only its own script can read it."""
    try:
        blob = read_bytes(path, artifact.MAX_UNPACKED)
        artifact.parse(blob)  # checks every shape and array
        payload = artifact.unpack(blob)
    except artifact.ForeignArtifact as error:
        raise GolfError(f"{shown(path)}: {error}; only the script that wrote it can read it", 2) from None
    except artifact.ArtifactError as error:
        raise GolfError(f"{shown(path)}: no sound artifact: {error}", 2) from None
    length = 4 + struct.unpack_from("<I", payload)[0]
    config, entries = artifact.read_header(payload[4:length], length)
    parts: dict[str, list[np.ndarray]] = {}
    layout = [(artifact.PREFIX.size, "header", length)]
    for name, dtype, array in artifact.arrays(payload, length, entries):
        parts.setdefault(name, []).append(np.frombuffer(array, DTYPES[dtype]))
        layout.append((0, name, len(array)))
    tensors = {}
    for name, shape, encoding in entries:
        stored, *scales = parts[name]
        tensors[name] = Tensor(encoding, stored.reshape(shape), scales[0] if scales else None)
    return Weights(config, tensors, len(blob), coded_bytes(blob, layout))


def coded_bytes(blob: bytes, layout: list[tuple[int, str, int]]) -> dict[str, tuple[float, float]]:
    """How many bytes of the file each part takes, within CHUNK bytes, by inflating it piece by piece.

    layout: (bytes outside the coded part, name, unpacked bytes) of each part, in order. If a part repeats an
    earlier one, the saving counts for itself; the last part includes the checksum.
    """
    inflate, read, made = artifact.inflater(blob), [0], [0]
    for at in range(artifact.PREFIX.size, len(blob), CHUNK):
        made.append(made[-1] + len(inflate(blob[at : at + CHUNK])))
        read.append(min(at + CHUNK, len(blob)) - artifact.PREFIX.size)
    read, made = np.array(read), np.array(made)
    found: dict[str, tuple[float, float]] = {}
    before, done = 0.0, 0
    for extra, name, size in layout:
        done += size
        here = float(read[-1]) if done >= made[-1] else float(np.interp(done, made, read))
        found[name] = (*found.get(name, ()), here - before + extra)
        before = here
    return {name: (*sizes, 0.0)[:2] for name, sizes in found.items()}
