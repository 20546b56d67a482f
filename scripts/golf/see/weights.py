"""The tensors of an artifact as numpy arrays, read by the repository's own bounded reader."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from golf.core import artifact
from golf.core.errors import GolfError
from golf.core.paths import shown

DTYPES = {"int8": "i1", "fp16": "<f2", "fp32": "<f4"}


@dataclass(frozen=True)
class Tensor:
    """One tensor as it is stored: symbols [*shape] with scales [rows], or floats [*shape] alone."""

    encoding: str  # int8, fp16 or fp32
    stored: np.ndarray
    scales: np.ndarray | None

    def values(self) -> np.ndarray:
        """float32 [*shape]: what the model computes with."""
        values = self.stored.astype(np.float32)
        return values if self.scales is None else values * self.scales.astype(np.float32)[:, None]


@dataclass(frozen=True)
class Weights:
    """What an artifact holds, and what its container takes."""

    config: dict
    tensors: dict[str, Tensor]
    file_bytes: int
    header_bytes: int  # the container's prefix and its JSON header, uncompressed


def load(path: Path) -> Weights:
    """The artifact in a file. GolfError says why there is none, or why only its own script can read it."""
    try:
        artifact.read(path)  # checks every shape and array
        payload = artifact.unpack(path.read_bytes())
    except artifact.ForeignArtifact as error:
        raise GolfError(f"{shown(path)}: {error}; only the script that wrote it can read it", 2) from None
    except artifact.ArtifactError as error:
        raise GolfError(f"{shown(path)}: no sound artifact: {error}", 2) from None
    except OSError as error:
        raise GolfError(f"{shown(path)}: cannot be read ({error.strerror})", 2) from None
    length = 4 + struct.unpack_from("<I", payload)[0]
    config, entries = artifact.read_header(payload[4:length], length)
    parts: dict[str, list[np.ndarray]] = {}
    for name, dtype, blob in artifact.arrays(payload, length, entries):
        parts.setdefault(name, []).append(np.frombuffer(blob, DTYPES[dtype]))
    tensors = {}
    for name, shape, encoding in entries:
        stored, *scales = parts[name]
        tensors[name] = Tensor(encoding, stored.reshape(shape), scales[0] if scales else None)
    return Weights(config, tensors, path.stat().st_size, artifact.PREFIX.size + length)
