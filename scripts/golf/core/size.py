"""Estimates from its knobs alone how many bytes a model will pack to, before it is trained.

The trainers pack in steps of the weights' geometric mean, so the bits that a weight takes at a step hardly
depend on the model. Two were packed at each step: the half-hour model of docs/benchmarks.md, and that of
configs/quickstart.env after a minute. They differ from their mean, which stands here, by up to 2 % with zlib
and 4 % with brotli. The starter's entry, which has learnt less, takes 5 to 16 % more. The cost of a coarser
step is the half-hour model's, on 32,768 targets: an order of magnitude, and less where less was learnt.
"""

import ast
import lzma
import math
from dataclasses import dataclass
from pathlib import Path

from golf.core import packed as packed_script
from golf.core.artifact import MAX_UNPACKED

FINEST, COARSEST = 12.0, 0.25  # steps in the weights' geometric mean
ROOM = 5000  # bytes that the exporter leaves under the cap
# (steps, bits that a matrix's weight takes, scales not counted)
CODERS = {
    "zlib": ((0.33, 1.95), (0.5, 2.41), (0.7, 2.82), (1, 3.28), (1.5, 3.83), (2, 4.25), (3, 4.81),
             (5, 5.50), (8, 6.10), (12, 6.56)),
    "brotli": ((0.33, 1.74), (0.5, 2.22), (0.7, 2.63), (1, 3.10), (1.5, 3.65), (2, 4.05), (3, 4.61),
               (5, 5.32), (8, 5.92), (12, 6.39)),
}  # fmt: skip
# (steps, bits a byte more than unpacked)
COSTS = ((0.7, 0.071), (1, 0.034), (1.5, 0.014), (2, 0.008), (3, 0.003), (5, 0.002), (8, 0.001), (12, 0.0))


@dataclass(frozen=True)
class Model:
    """Weights of the starter's model by kind."""

    dim: int  # width of a row of the embedding
    block: int  # attention and MLP matrices
    embedding: int  # and an output head of its own
    vectors: int  # fp16
    columns: int  # of all matrices: an fp16 scale each
    tensors: int

    @property
    def weights(self) -> int:
        return self.block + self.embedding + self.vectors

    @property
    def unpacked_bytes(self) -> int:
        return self.block + self.embedding + 2 * (self.columns + self.vectors)


@dataclass(frozen=True)
class Packed:
    """What a model is expected to pack to at one step, with one coder."""

    steps: float  # in the weights' geometric mean
    bits: float  # a matrix's weight
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
        columns=layers * (5 * dim + hidden) + tables * dim,
        tensors=10 * layers + 1 + tables,
    )


def packed(m: Model, steps: float, coder: str) -> Packed:
    """Bytes of the artifact with so many steps in the weights' geometric mean."""
    bits = between(CODERS[coder], steps)
    size = (m.block + m.embedding) * bits / 8 + 0.92 * 2 * (m.columns + m.vectors) + 13 * m.tensors
    return Packed(steps, bits, round(size), max(0.0, between(COSTS, steps)))


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


def between(points: tuple[tuple[float, float], ...], steps: float) -> float:
    """Linear in the logarithm of steps, between the points and beyond them."""
    right = next((i for i, (at, _) in enumerate(points) if at >= steps), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(right, 1) - 1], points[max(right, 1)]
    return y0 + (y1 - y0) * math.log(steps / x0) / math.log(x1 / x0)


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
    if found.steps < COSTS[0][0]:
        worse = f"more than {COSTS[0][1]:.2f} bits a byte worse than it was trained"
        return text, f"packed that coarsely it is expected to score {worse}: shrink the model"
    return text, None
