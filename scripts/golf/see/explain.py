"""Show where the bytes went: per kind and tensor of a packed model, beside code and what is left.

Weights, bits a weight (raw; entropy of the symbols alone; as really coded), scales, header, code,
headroom, and what one more layer or 32 more columns would cost at the same coding. It runs no script.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from golf.core import track
from golf.core.errors import GolfError
from golf.core.files import replace_file
from golf.core.json_io import dig, number
from golf.core.paths import path_argument, shown
from golf.core.picture import COLOURS, INK, drawn, tidy
from golf.core.runlog import read_run
from golf.core.submission import count_bytes
from golf.see import reader

if TYPE_CHECKING:  # numpy is imported late: other commands do without it
    import numpy as np

    from golf.see.weights import Tensor, Weights

KINDS = ("embedding", "attention", "MLP", "head", "other matrices", "vectors", "scales", "header")
COLUMNS = 32
RARE = 0.05  # % of the symbols: those that come less often do not widen the picture


@dataclass(frozen=True)
class Part:
    """A row of the table: what lies in so many bytes."""

    name: str
    weights: int
    raw: float  # bytes before coding
    entropy: float  # bytes that an ideal coder of single symbols would need
    coded: float  # bytes in the file

    def bits(self, size: float) -> str:
        return f"{8 * size / self.weights:.2f}" if self.weights else "-"


@dataclass(frozen=True)
class Budget:
    """What else counts; None where the place does not say."""

    code: int | None = None
    cap: int | None = None


def add_arguments(parser) -> None:
    parser.add_argument("place", type=path_argument, metavar="RUN|ENTRY|ARTIFACT", help="whose model")
    parser.add_argument("-o", "--out", type=path_argument, metavar="FILE", help="a picture: .svg or .png")
    parser.add_argument(
        "--model-seed", type=int, metavar="N", help="which seed of an entry; default: its first"
    )


def main(args) -> int:
    kind = args.out.suffix.lower().removeprefix(".") if args.out else None
    if kind not in (None, "svg", "png"):
        raise GolfError(f"{shown(args.out)}: give a name that ends in .svg or .png", 2)
    found, budget = read(args.place, args.model_seed)
    print("\n".join(lines(found, budget)))
    if args.out:
        replace_file(args.out, drawn(panels(found, budget), kind))
        print(f"wrote {shown(args.out)}")
    return 0


def read(place: Path, seed: int | None = None) -> tuple[Weights, Budget]:
    """The packed model of a run, an entry or a file, and what counts beside it."""
    from golf.see import weights

    if place.is_file() and not (place.parent / "metrics.jsonl").is_file():
        return weights.load(place), Budget()
    target = reader.find(place, seed, Path())  # which tokenizer it reads does not matter here
    if (place / "submission.json").is_file():
        files = [{"path": str(target.script.relative_to(place)), "role": "script"}]
        extra = [n for n, p in target.files.items() if p not in (target.script, target.artifact)]
        files += [{"path": name, "role": "score"} for name in extra]
        rules = track.of_folder(place)
        return weights.load(target.artifact), Budget(
            count_bytes(place, files, None).code, dig(rules, "cap_bytes")
        )
    facts = read_run(target.artifact.parent)
    code, cap = (number(dig(facts, "export", name)) for name in ("bytes_code", "cap"))
    return weights.load(target.artifact), Budget(code and int(code), cap and int(cap))


def kind_of(name: str, tensor: Tensor) -> str:
    if tensor.scales is None or tensor.stored.ndim != 2:
        return "vectors"
    words = {"tok_emb": "embedding", "lm_head": "head", "attn": "attention", "mlp": "MLP"}
    return next((kind for word, kind in words.items() if word in name.split(".")), "other matrices")


def parts_of(found: Weights) -> list[tuple[str, Part]]:
    """(kind, Part) of each tensor's first array; then all scales, and the header, as one each."""
    parts, scales = [], Part("scales", 0, 0, 0, 0)
    for name, tensor in found.tensors.items():
        first, second = found.coded[name]
        sizes = tensor.stored.nbytes, entropy_bytes(tensor.stored)
        parts.append((kind_of(name, tensor), Part(name, tensor.stored.size, *sizes, first)))
        if tensor.scales is not None:
            more = tensor.scales.nbytes, entropy_bytes(tensor.scales), second
            scales = Part(
                "scales", 0, *(a + b for a, b in zip((scales.raw, scales.entropy, scales.coded), more))
            )
    header = found.coded["header"][0]
    return [*parts, ("scales", scales), ("header", Part("header", 0, header, header, header))]


def entropy_bytes(array: np.ndarray) -> float:
    """Bytes that its symbols need one by one; of floats, their low and high bytes apart."""
    import numpy as np

    total, planes = 0.0, array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize)
    for plane in planes.T:
        counts = np.bincount(plane, minlength=256)
        counts = counts[counts > 0]
        total -= float((counts * np.log2(counts / counts.sum())).sum()) / 8
    return total


def by_kind(parts: list[tuple[str, Part]]) -> list[Part]:
    rows = []
    for kind in KINDS:
        some = [part for k, part in parts if k == kind]
        if some:
            sums = (sum(getattr(p, name) for p in some) for name in ("weights", "raw", "entropy", "coded"))
            rows.append(Part(kind, *sums))
    return rows


def lines(found: Weights, budget: Budget) -> list[str]:
    """The tables as text."""
    import numpy as np

    parts = parts_of(found)
    kinds = by_kind(parts)
    rows = [*table_rows(kinds, found.file_bytes), "", *table_rows([p for _, p in parts], found.file_bytes)]
    matrices = [t for t in found.tensors.values() if t.scales is not None]
    counts = Counter(np.concatenate([t.stored.ravel() for t in matrices]).tolist()) if matrices else Counter()
    rows += ["", f"symbols  {len(counts)} different; {share(counts, 0)} are 0, {share(counts, 1)} within 1"]
    rows.append(f"artifact {found.file_bytes:,} bytes")
    if budget.code is not None:
        rows.append(f"code     {budget.code:,} bytes")
        if budget.cap:
            left = budget.cap - budget.code - found.file_bytes
            rows.append(f"headroom {left:,} of {budget.cap:,} bytes")
    return rows + growth(found, parts)


def share(counts: Counter, top: int) -> str:
    total = max(sum(counts.values()), 1)
    return f"{100 * sum(n for symbol, n in counts.items() if abs(symbol) <= top) / total:.1f}%"


def table_rows(parts: list[Part], total: int) -> list[str]:
    width = max(len(p.name) for p in parts)
    head = f"{'':<{width}} {'weights':>10} {'bytes':>10} {'share':>6} {'raw':>6} {'entropy':>8} {'coded':>6}"
    found = [f"{head}  (bits a weight)"]
    for p in parts:
        bits = f"{p.bits(p.raw):>6} {p.bits(p.entropy):>8} {p.bits(p.coded):>6}"
        count = f"{p.weights:,}" if p.weights else "-"
        found.append(f"{p.name:<{width}} {count:>10} {p.coded:>10,.0f} {100 * p.coded / total:>5.1f}% {bits}")
    return found


def growth(found: Weights, parts: list[tuple[str, Part]]) -> list[str]:
    """What one more layer, or 32 more columns, would take at the same bits a weight.

    A layer: the mean of those there are. Columns: matrices of a block grow both ways, the rest one.
    """
    layers, dim = (number(found.config.get(name)) for name in ("num_layers", "model_dim"))
    blocks = [(n, t) for n, t in found.tensors.items() if re.match(r"blocks\.\d+\.", n)]
    if not layers or not dim or not blocks:
        return []
    layer = sum(sum(found.coded[name]) for name, _ in blocks) / layers
    wider = (dim + COLUMNS) / dim
    powers = {name: 2 if t.scales is not None else 1 for name, t in blocks}
    coded = {part.name: part.coded for _, part in parts}
    columns = sum((wider ** powers.get(name, 1) - 1) * coded[name] for name in found.tensors)
    columns += (wider - 1) * sum(found.coded[name][1] for name, _ in blocks)  # an embedding has a row a piece
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
    axes.set_xlim(0, 1.18 * max(values))
    axes.invert_yaxis()


def draw_bits(dense: list[Part], axes) -> None:
    tidy(axes, "bits a weight")
    for i, name in enumerate(("raw", "entropy", "coded")):
        bits = [8 * getattr(p, name) / p.weights for p in dense]
        places = [at + 0.27 * (i - 1) for at in range(len(dense))]
        axes.barh(places, bits, 0.25, color=COLOURS[(2, 1, 0)[i]], label=name)
    axes.set_yticks(range(len(dense)), [p.name for p in dense])
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)


def draw_symbols(found: Weights, axes) -> None:
    import numpy as np

    tidy(axes, "how often a symbol comes, %", "symbol of a matrix")
    if matrices := [t.stored.ravel() for t in found.tensors.values() if t.scales is not None]:
        counts = np.bincount(np.concatenate(matrices).astype(np.int64) + 128, minlength=256)
        shares, symbols = 100 * counts / counts.sum(), np.arange(-128, 128)
        edge = 1 + np.abs(symbols[shares >= RARE]).max()
        axes.bar(symbols, shares, 1.0, color=COLOURS[1])
        axes.set_xlim(-edge, edge)
