"""How many bytes the starter's model will pack to, before it is trained: from its knobs alone.

A trained matrix, divided by the deviation of its rows, is nearly normal, so that its symbols need
nearly the entropy of a normal that is cut into steps. How nearly, and how close each coder comes, was
measured on the starter's entry (records/track_sample_5min, seed 1337), requantized at each step; what
a coarser step costs by rounding is that entry's loss on its own track. A model of other weights
differs: expect the bytes within 3 %, and of the cost no more than its size.
"""

from __future__ import annotations

import ast
import lzma
import math
from dataclasses import dataclass
from pathlib import Path

from golf.core import packed as packed_script

FINEST = 24.0  # steps in a row deviation
ROOM = 5000  # bytes that the exporter leaves under the cap
EMBEDDING = 0.6  # of the step: a logit adds up the errors of a row of the embedding or head
TRAINED = 0.995  # entropy of a trained matrix, of a normal's
# (bits a weight as entropy, coded bytes of that)
CODERS = {
    "zlib": ((1.27, 1.295), (1.77, 1.133), (2.15, 1.074), (2.70, 1.032), (3.11, 1.022), (3.68, 1.010),
             (6.66, 1.006)),
    "brotli": ((1.67, 1.056), (2.70, 1.012), (3.68, 1.003), (4.10, 1.007), (6.66, 1.003)),
}  # fmt: skip
# (bits a weight as entropy, bits a byte more than unpacked), rounding to nearest
COSTS = ((3.1, 0.14), (3.7, 0.066), (4.1, 0.031), (4.4, 0.022), (5.1, 0.008), (6.0, 0.002), (6.7, 0.001))


@dataclass(frozen=True)
class Model:
    """Weights of the starter's model by kind."""

    block: int  # attention and MLP matrices
    embedding: int  # and an output head of its own
    vectors: int  # fp16
    rows: int  # of all matrices: an fp16 scale each
    tensors: int

    @property
    def weights(self) -> int:
        return self.block + self.embedding + self.vectors


@dataclass(frozen=True)
class Packed:
    """What one step and coder are expected to come to."""

    steps: float  # in a row deviation
    bits: float  # a matrix weight, as entropy
    model_bytes: int
    cost: float  # bits a byte, by rounding


def model(knobs: dict[str, str]) -> Model:
    """Of knobs by name, as text; KeyError or ValueError where they are not the starter's."""
    vocab, layers, dim = (int(knobs[n]) for n in ("VOCAB_SIZE", "NUM_LAYERS", "MODEL_DIM"))
    heads, kv_heads = int(knobs["NUM_HEADS"]), int(knobs["NUM_KV_HEADS"])
    hidden, kv = int(float(knobs["MLP_MULT"]) * dim), dim * kv_heads // heads
    tables = 1 if int(knobs["TIE_EMBEDDINGS"]) else 2
    return Model(
        block=layers * (2 * dim * dim + 2 * dim * kv + 2 * dim * hidden),
        embedding=tables * vocab * dim,
        vectors=layers * (heads + 4 * dim) + layers // 2 * dim,
        rows=layers * (3 * dim + 2 * kv + hidden) + tables * vocab,
        tensors=10 * layers + 1 + tables,
    )


def normal_entropy(step: float, top: int = 127) -> float:
    """Bits of a standard normal cut into steps, symbols up to `top` either way."""

    def below(x: float) -> float:
        return 0.5 * (1 + math.erf(x / math.sqrt(2)))

    chances = (below((k + 0.5) * step) - below((k - 0.5) * step) for k in range(-top, top + 1))
    return -sum(p * math.log2(p) for p in chances if p > 0)


def packed(m: Model, steps: float, coder: str) -> Packed:
    """Bytes of the artifact with so many steps in a row deviation."""
    block, embedding = (TRAINED * normal_entropy(part / steps) for part in (1.0, EMBEDDING))
    matrices = m.block + m.embedding
    bits = (m.block * block + m.embedding * embedding) / max(matrices, 1)
    coded = bits * between(CODERS[coder], bits)
    size = matrices * coded / 8 + 0.92 * 2 * (m.rows + m.vectors) + 13 * m.tensors
    return Packed(steps, bits, round(size), between(COSTS, bits))


def fitting(m: Model, coder: str, room: int, coarsest: float) -> Packed | None:
    """The finest step whose artifact is expected to take at most `room` bytes; None: none does.

    coarsest: the fewest steps in a row deviation.
    """
    low, high = coarsest, FINEST
    if packed(m, high, coder).model_bytes <= room:
        return packed(m, high, coder)
    if packed(m, low, coder).model_bytes > room:
        return None
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if packed(m, middle, coder).model_bytes <= room else (low, middle)
    return packed(m, low, coder)


def between(points: tuple[tuple[float, float], ...], x: float) -> float:
    """Straight lines between the points; beyond them, the line of the last two goes on."""
    right = next((i for i, (at, _) in enumerate(points) if at >= x), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(right, 1) - 1], points[max(right, 1)]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def code_bytes(trainer: Path, knobs: dict[str, str]) -> int:
    """Of a script alone; with PACK_SCRIPT=1 what it packs to, within a hundred bytes."""
    source = trainer.read_bytes()
    if knobs.get("PACK_SCRIPT") != "1":
        return len(source)
    bare = ast.unparse(packed_script.plain_tree(source)).encode()
    return round(1.25 * len(lzma.compress(bare, preset=9 | lzma.PRESET_EXTREME))) + 90


def line(knobs: dict[str, str], code: int) -> tuple[str, str | None]:
    """One line on a model's size beside `code` bytes, and a warning where it will not fit well."""
    m, cap, coder = model(knobs), int(float(knobs["ARTIFACT_CAP_BYTES"])), knobs["COMPRESSOR"]
    if not cap or coder not in CODERS:
        return f"{m.weights:,} weights", None
    head = f"{m.weights:,} weights, {cap - code:,} bytes for them"
    coarsest = 1 / float(knobs.get("MAX_QUANT_STEP", 2))  # entries made before it was a knob had 2
    found = fitting(m, coder, cap - ROOM - code, coarsest)
    if found is None:
        over = packed(m, coarsest, coder).model_bytes + code - cap
        return head, f"even the coarsest packing is expected {over:,} bytes over the cap: shrink the model"
    text = f"{head}: expected at {found.bits:.1f} bits a weight, {found.model_bytes:,} bytes"
    if found.bits < COSTS[0][0]:
        worse = f"more than {COSTS[0][1]:.2f} bits a byte worse than it was trained"
        return text, f"packed that coarsely it is expected to score {worse}: shrink the model"
    return text, None
