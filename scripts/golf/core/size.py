"""Estimates from its knobs alone how many bytes a model will pack to, before it is trained.

A trained matrix, divided by the standard deviation of its rows, is nearly normal, so its symbols need nearly
the entropy of a normal distribution cut into steps. How nearly, and how close each coder comes to the
entropy, was measured on two trained models, packed by the trainer at each step: the starter's entry
(records/track_sample_5min, seed 1337) and that of configs/quickstart.env. Expected and real bytes differ by
at most 1.1 % there from std/24 to std/0.5, and by 2.2 % in a barely trained model of 8.4 million weights. The
cost of a coarser step is that entry's, rounded, on 6,144 targets: an order of magnitude.
"""

import ast
import lzma
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from golf.core import packed as packed_script
from golf.core.artifact import MAX_UNPACKED

FINEST, COARSEST = 24.0, 0.5  # steps in a row deviation
ROOM = 5000  # bytes that the exporter leaves under the cap
EMBEDDING = 0.1  # of the step: a logit adds up the errors of a row of the embedding or head
TOP = 127  # the largest symbol: a step is never finer than a row's largest weight over it
TRAINED = 0.997  # entropy of a trained matrix / of a normal distribution
# (entropy of a block's weight in bits, coded bytes of all matrices / their entropy)
CODERS = {
    "zlib": ((1.24, 1.210), (1.48, 1.165), (1.64, 1.125), (1.88, 1.095), (2.10, 1.062), (3.05, 1.026),
             (3.63, 1.016), (4.03, 1.015), (5.03, 1.012), (6.03, 1.009), (6.61, 1.007)),
    "brotli": ((1.24, 1.030), (1.64, 0.990), (2.10, 0.993), (3.05, 0.995), (3.63, 0.997), (4.03, 0.998),
               (5.03, 1.002), (6.61, 0.999)),
}  # fmt: skip
# (entropy of a block's weight in bits, bits a byte more than at the finest step), rounding to nearest
COSTS = ((2.08, 0.067), (2.64, 0.031), (3.04, 0.017), (3.62, 0.006), (4.03, 0.005), (4.6, 0.003),
         (5.03, 0.002), (5.6, 0.001), (6.61, 0.0))  # fmt: skip


@dataclass(frozen=True)
class Model:
    """Weights of the starter's model by kind."""

    dim: int  # width of a row of the embedding
    block: int  # attention and MLP matrices
    embedding: int  # and an output head of its own
    vectors: int  # fp16
    rows: int  # of all matrices: an fp16 scale each
    tensors: int

    @property
    def weights(self) -> int:
        return self.block + self.embedding + self.vectors

    @property
    def unpacked_bytes(self) -> int:
        return self.block + self.embedding + 2 * (self.rows + self.vectors)


@dataclass(frozen=True)
class Packed:
    """What a model is expected to pack to at one step, with one coder."""

    steps: float  # in a row's standard deviation
    bits: float  # entropy of a matrix weight
    block_bits: float  # entropy of a block's weight
    model_bytes: int
    cost: float  # of rounding, bits a byte


def model(knobs: dict[str, str]) -> Model:
    """The Model of knobs (name -> text). KeyError, ValueError or OverflowError for knobs of another kind."""
    vocab, layers, dim = (int(knobs[n]) for n in ("VOCAB_SIZE", "NUM_LAYERS", "MODEL_DIM"))
    heads, kv_heads = int(knobs["NUM_HEADS"]), int(knobs["NUM_KV_HEADS"])
    if min(vocab, layers, dim, heads, kv_heads) < 1:
        raise ValueError("a size of 0")
    hidden, kv = int(float(knobs["MLP_MULT"]) * dim), dim * kv_heads // heads
    tables = 1 if int(knobs["TIE_EMBEDDINGS"]) else 2
    return Model(
        dim=dim,
        block=layers * (2 * dim * dim + 2 * dim * kv + 2 * dim * hidden),
        embedding=tables * vocab * dim,
        vectors=layers * (heads + 4 * dim) + layers // 2 * dim,
        rows=layers * (3 * dim + 2 * kv + hidden) + tables * vocab,
        tensors=10 * layers + 1 + tables,
    )


def normal_entropy(step: float) -> float:
    """Entropy in bits of a standard normal distribution cut into steps, with symbols from -TOP to TOP."""
    below = NormalDist().cdf
    chances = (below((k + 0.5) * step) - below((k - 0.5) * step) for k in range(-TOP, TOP + 1))
    return -sum(p * math.log2(p) for p in chances if p > 0)


def packed(m: Model, steps: float, coder: str) -> Packed:
    """Bytes of the artifact with so many steps in a row deviation."""
    largest = NormalDist().inv_cdf((1 + 0.5 ** (1 / m.dim)) / 2)  # of a row, in deviations: the median
    finest = max(EMBEDDING / steps, largest / TOP)
    block, embedding = (TRAINED * normal_entropy(step) for step in (1 / steps, finest))
    matrices = m.block + m.embedding
    bits = (m.block * block + m.embedding * embedding) / max(matrices, 1)
    coded = bits * between(CODERS[coder], block)
    size = matrices * coded / 8 + 0.92 * 2 * (m.rows + m.vectors) + 13 * m.tensors
    return Packed(steps, bits, block, round(size), max(0.0, between(COSTS, block)))


def fitting(m: Model, coder: str, room: int) -> Packed | None:
    """The finest step whose artifact is expected to take at most `room` bytes; None: none does."""
    low, high = COARSEST, FINEST
    if packed(m, high, coder).model_bytes <= room:
        return packed(m, high, coder)
    if packed(m, low, coder).model_bytes > room:
        return None
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if packed(m, middle, coder).model_bytes <= room else (low, middle)
    return packed(m, low, coder)


def between(points: tuple[tuple[float, float], ...], x: float) -> float:
    """Linear interpolation between the points, and extrapolation beyond them."""
    right = next((i for i, (at, _) in enumerate(points) if at >= x), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(right, 1) - 1], points[max(right, 1)]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def code_bytes(trainer: Path, knobs: dict[str, str]) -> int:
    """Bytes of a script; with PACK_SCRIPT=1 of the packed script, within a hundred bytes."""
    source = trainer.read_bytes()
    if knobs.get("PACK_SCRIPT") != "1":
        return len(source)
    bare = ast.unparse(packed_script.plain_tree(source)).encode()
    return round(1.25 * len(lzma.compress(bare, preset=9 | lzma.PRESET_EXTREME))) + 90


def line(knobs: dict[str, str], code: int) -> tuple[str, str | None]:
    """One line on a model's size beside `code` bytes; and a warning, or None if it will fit well."""
    m, cap, coder = model(knobs), int(float(knobs["ARTIFACT_CAP_BYTES"])), knobs["COMPRESSOR"]
    if (size := m.unpacked_bytes) > MAX_UNPACKED:
        told = f"its artifact unpacks to {size:,} bytes, readers take {MAX_UNPACKED:,}: shrink the model"
        return f"{m.weights:,} weights", told
    if not cap or coder not in CODERS:
        return f"{m.weights:,} weights", None
    head = f"{m.weights:,} weights, {cap - code:,} bytes for them"
    found = fitting(m, coder, cap - ROOM - code)
    if found is None:
        over = packed(m, COARSEST, coder).model_bytes + code - cap
        return head, f"even the coarsest packing is expected {over:,} bytes over the cap: shrink the model"
    text = f"{head}: expected at {found.bits:.1f} bits a weight, {found.model_bytes:,} bytes"
    if found.block_bits < COSTS[0][0]:
        worse = f"more than {COSTS[0][1]:.2f} bits a byte worse than it was trained"
        return text, f"packed that coarsely it is expected to score {worse}: shrink the model"
    return text, None
