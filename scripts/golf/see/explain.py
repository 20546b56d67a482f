"""Show where the bytes went: by kind and by tensor of a packed model, beside the code's and those left.

For each: weights, bytes, and bits a weight (raw; entropy of single symbols; as coded in the file). Then
scales, header, code, headroom, and what one more layer or 32 more columns would take. Runs no script.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from golf.core import track
from golf.core.files import replace_file
from golf.core.json_io import dig, number
from golf.core.paths import path_argument, shown
from golf.core.picture import COLOURS, INK, drawn, picture_path, tidy
from golf.core.runlog import read_run
from golf.core.submission import count_bytes
from golf.core.text import columns
from golf.see import reader, weights
from golf.see.weights import Tensor, Weights

KINDS = ("embedding", "attention", "MLP", "head", "other matrices", "vectors", "scales", "header")
HEAD = ["", "weights", "bytes", "share", "raw", "entropy", "coded"]
COLUMNS = 32
TOP = 128  # a symbol is an int8
RARE = 0.02  # % of the symbols: those that come less often do not widen the picture


@dataclass(frozen=True)
class Part:
    """A row of the table: a tensor, or all of a kind."""

    name: str
    kind: str
    weights: int
    raw: float  # bytes before coding
    entropy: float  # bytes that an ideal coder of single symbols would need
    coded: float  # bytes in the file

    def bits(self, size: float) -> float:
        """Bits a weight, of `size` bytes; 0 if there are no weights."""
        return 8 * size / self.weights if self.weights else 0.0

    def cells(self, total: int) -> list[str]:
        """The row under HEAD, in a file of `total` bytes."""
        bits = [self.bits(size) for size in (self.raw, self.entropy, self.coded)]
        sizes = [f"{self.coded:,.0f}", f"{100 * self.coded / total:.1f}%"]
        if not self.weights:
            return [self.name, "-", *sizes, "-", "-", "-"]
        return [self.name, f"{self.weights:,}", *sizes, *(f"{b:.2f}" for b in bits)]


@dataclass(frozen=True)
class Budget:
    """Bytes of the code and of the cap; None if the place does not say."""

    code: int | None = None
    cap: int | None = None


def add_arguments(parser) -> None:
    parser.add_argument("place", type=path_argument, metavar="RUN|ENTRY|ARTIFACT", help="where the model is")
    parser.add_argument("-o", "--out", type=picture_path, metavar="FILE", help="draw it, as .svg or .png")


def main(args) -> int:
    found, budget = read(args.place)
    print("\n".join(lines(found, budget)))
    if args.out:
        replace_file(args.out, drawn(panels(found, budget), args.out.suffix))
        print(f"wrote {shown(args.out)}")
    return 0


def read(place: Path) -> tuple[Weights, Budget]:
    """The packed model of a run, an entry or a file, and what counts beside it."""
    if place.is_file() and not (place.parent / "metrics.jsonl").is_file():
        return weights.load(place), Budget()
    target = reader.find(place, Path())  # which tokenizer it reads does not matter here
    if (place / "submission.json").is_file():
        counted = {name: path for name, path in target.files.items() if path != target.artifact}
        roles = {name: "script" if path == target.script else "score" for name, path in counted.items()}
        files = [{"path": name, "role": role} for name, role in roles.items()]
        cap = dig(track.of_folder(place), "cap_bytes")
        return weights.load(target.artifact), Budget(count_bytes(place, files, None).code, cap)
    facts = read_run(target.artifact.parent)
    code, cap = (number(dig(facts, "export", name)) for name in ("bytes_code", "cap"))
    return weights.load(target.artifact), Budget(code and int(code), cap and int(cap))


def kind_of(name: str, tensor: Tensor) -> str:
    if tensor.scales is None or tensor.stored.ndim != 2:
        return "vectors"
    words = {"tok_emb": "embedding", "lm_head": "head", "attn": "attention", "mlp": "MLP"}
    return next((kind for word, kind in words.items() if word in name.split(".")), "other matrices")


def parts_of(found: Weights) -> list[Part]:
    """Each tensor's first array; then all scales, and the header, as one each."""
    parts, scales = [], []
    for name, tensor in found.tensors.items():
        first, second = found.coded[name]
        stored, kind = tensor.stored, kind_of(name, tensor)
        parts.append(Part(name, kind, stored.size, stored.nbytes, entropy_bytes(stored), first))
        if tensor.scales is not None:
            scales.append(Part(name, "scales", 0, tensor.scales.nbytes, entropy_bytes(tensor.scales), second))
    header = found.coded["header"][0]
    return [*parts, total("scales", scales), Part("header", "header", 0, header, header, header)]


def total(kind: str, parts: list[Part]) -> Part:
    sums = (sum(getattr(p, name) for p in parts) for name in ("weights", "raw", "entropy", "coded"))
    return Part(kind, kind, *sums)


def entropy_bytes(array: np.ndarray) -> float:
    """Bytes that its symbols need one by one; of floats, their low and high bytes apart."""
    total, planes = 0.0, array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize)
    for plane in planes.T:
        counts = np.bincount(plane, minlength=256)
        counts = counts[counts > 0]
        total -= float((counts * np.log2(counts / counts.sum())).sum()) / 8
    return total


def by_kind(parts: list[Part]) -> list[Part]:
    """A sum for each kind that there is."""
    found = {kind: [part for part in parts if part.kind == kind] for kind in KINDS}
    return [total(kind, some) for kind, some in found.items() if some]


def lines(found: Weights, budget: Budget) -> list[str]:
    """The tables as text."""
    parts, rows = parts_of(found), []
    for some in (by_kind(parts), parts):
        table = columns([HEAD, *(part.cells(found.file_bytes) for part in some)], right=range(1, len(HEAD)))
        rows += [f"{table[0]}  (bits a weight)", *table[1:], ""]
    counts = symbols(found)
    near = [100 * counts[TOP - k : TOP + k + 1].sum() / max(counts.sum(), 1) for k in (0, 1)]
    rows.append(f"symbols  {(counts > 0).sum()} different; {near[0]:.1f}% are 0, {near[1]:.1f}% within 1")
    rows.append(f"artifact {found.file_bytes:,} bytes")
    if budget.code is not None:
        rows.append(f"code     {budget.code:,} bytes")
        if budget.cap:
            left = budget.cap - budget.code - found.file_bytes
            rows.append(f"headroom {left:,} of {budget.cap:,} bytes")
    return rows + growth(found, parts)


def symbols(found: Weights) -> np.ndarray:
    """How often each symbol comes in the matrices, from -TOP to TOP - 1."""
    matrices = [t.stored for t in found.tensors.values() if t.scales is not None]
    return sum((np.bincount(m.ravel().astype(np.int64) + TOP, minlength=2 * TOP) for m in matrices),
               np.zeros(2 * TOP, np.int64))  # fmt: skip


def growth(found: Weights, parts: list[Part]) -> list[str]:
    """What one more layer, or 32 more columns, would take at the same bits a weight.

    A layer: the mean of those there are. Columns: matrices of a block grow both ways, the rest one.
    """
    layers, dim = (found.config.get(name) for name in ("num_layers", "model_dim"))
    blocks = [(n, t) for n, t in found.tensors.items() if re.match(r"blocks\.\d+\.", n)]
    if not all(type(size) is int and size > 0 for size in (layers, dim)) or not blocks:
        return []
    layer = sum(sum(found.coded[name]) for name, _ in blocks) / layers
    wider = (dim + COLUMNS) / dim
    powers = {name: 2 if t.scales is not None else 1 for name, t in blocks}
    coded = {part.name: part.coded for part in parts}
    columns = sum((wider ** powers.get(name, 1) - 1) * coded[name] for name in found.tensors)
    columns += (wider - 1) * sum(scales for _, scales in found.coded.values())
    return [f"one more layer: about {layer:+,.0f} bytes; {COLUMNS} more columns: about {columns:+,.0f} bytes"]


def panels(found: Weights, budget: Budget) -> list[Callable]:
    """What draws bytes by kind, bits a weight by kind, and how often each symbol comes."""
    kinds = by_kind(parts_of(found))
    rows = [(p.name, p.coded) for p in kinds]
    rows += [("code", budget.code)] if budget.code is not None else []
    if budget.cap and budget.code is not None:
        rows.append(("headroom", max(0, budget.cap - budget.code - found.file_bytes)))
    dense = [p for p in kinds if p.weights]
    return [partial(draw_bytes, rows), partial(draw_bits, dense), partial(draw_symbols, found)]


def draw_bytes(rows: list[tuple[str, float]], axes) -> None:
    tidy(axes, "where the bytes are, thousands")
    names, values = [n for n, _ in rows], [v / 1e3 for _, v in rows]
    bars = axes.barh(names, values, color=[INK if n == "headroom" else COLOURS[0] for n in names])
    axes.bar_label(bars, [f"{v:,.0f}" if v >= 10 else f"{v:.1f}" for v in values], padding=3)
    axes.set_xlim(0, 1.25 * max(values))
    axes.invert_yaxis()


def draw_bits(dense: list[Part], axes) -> None:
    tidy(axes, "bits a weight")
    for i, name in enumerate(("raw", "entropy", "coded")):
        bits = [p.bits(getattr(p, name)) for p in dense]
        places = [at + 0.27 * (i - 1) for at in range(len(dense))]
        axes.barh(places, bits, 0.25, color=COLOURS[(2, 1, 0)[i]], label=name)
    axes.set_yticks(range(len(dense)), [p.name for p in dense])
    axes.invert_yaxis()


def draw_symbols(found: Weights, axes) -> None:
    tidy(axes, "how often a symbol comes, %", "symbol of a matrix")
    counts = symbols(found)
    shares = {at - TOP: 100 * count / counts.sum() for at, count in enumerate(counts) if count}
    axes.bar(list(shares), list(shares.values()), 1.0, color=COLOURS[1])
    edge = 1 + max((abs(symbol) for symbol, share in shares.items() if share >= RARE), default=TOP)
    axes.set_xlim(-edge, edge)
