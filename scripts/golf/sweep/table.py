"""A sweep's results, read from its runs' folders: results.csv, table.md, plot.svg."""

import csv
import io
import statistics
from dataclasses import dataclass

from golf.core.files import replace_file
from golf.core.json_io import dig, number
from golf.core.picture import COLOURS, drawable, drawn, tidy
from golf.core.record_rule import compare
from golf.core.runlog import packing, read_run
from golf.core.text import table
from golf.sweep.plan import Cell, Row, Sweep

FILES = ("results.csv", "table.md", "plot.svg")
COLUMNS = "row seed status val_loss val_bpb packing_gap bytes tokens steps train_seconds settings".split()


@dataclass(frozen=True)
class Result:
    """The result of a finished cell."""

    val_loss: float  # nats a target, sliding windows, packed
    val_bpb: float
    gap: float | None  # bits a byte that packing cost, where the run scored its last step unpacked
    size: int  # bytes counted
    tokens: int
    steps: int
    seconds: float  # of training


def read_result(cell: Cell) -> Result | None:
    """The cell's result; None where its run has not ended well."""
    facts = read_run(cell.folder)
    if dig(facts, "end", "exit_code") != 0 or dig(facts, "train_end", "reason") == "interrupted":
        return None
    wanted = [("sliding", "val_loss"), ("sliding", "val_bpb"), ("export", "bytes_total"),
              ("train_end", "tokens"), ("train_end", "step"), ("train_end", "train_seconds")]  # fmt: skip
    loss, bpb, size, tokens, steps, seconds = (number(dig(facts, *place)) for place in wanted)
    if None in (loss, bpb, size, tokens, steps, seconds):
        return None
    both = packing(facts)
    return Result(loss, bpb, both and both[1] - both[0], int(size), int(tokens), int(steps), seconds)


def write(sweep: Sweep, failed: set[Cell], pruned: set[Cell]) -> str:
    """Writes FILES, the plot once there is a result; the Markdown table."""
    results = [(cell, read_result(cell)) for cell in sweep.cells()]
    text = markdown(sweep, results)
    rows, lines, picture = (sweep.folder / name for name in FILES)
    replace_file(rows, as_csv(results, failed, pruned))
    replace_file(lines, text)
    if any(result for _, result in results):
        replace_file(picture, plot(sweep, results))
    return text


def as_csv(results: list[tuple[Cell, Result | None]], failed: set[Cell], pruned: set[Cell]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell, r in results:
        status = "done" if r else "failed" if cell in failed else "pruned" if cell in pruned else "open"
        figures = [r.val_loss, r.val_bpb, r.gap, r.size, r.tokens, r.steps, r.seconds] if r else [None] * 7
        words = " ".join(f"{key}={value}" for key, value in cell.row.settings.items())
        writer.writerow([cell.row.name, cell.seed, status, *figures, words])
    return out.getvalue()


def of_row(row: Row, results: list[tuple[Cell, Result | None]]) -> list[Result]:
    return [r for cell, r in results if cell.row == row and r]


def markdown(sweep: Sweep, results: list[tuple[Cell, Result | None]]) -> str:
    """A line per row. The difference is to the first row in bits a byte, negative is better; p is of Welch's
    one-sided test that the row is no better than the first."""
    head = "row | seeds | val_bpb | sd | difference [95 %] | p | bytes | tokens/s | minutes".split(" | ")
    first = of_row(sweep.rows[0], results) if sweep.rows else []
    rows = [figures(row, of_row(row, results), first) for row in sweep.rows]
    return "\n".join([*table(head, rows), ""])


def figures(row: Row, found: list[Result], first: list[Result]) -> list[str]:
    """The texts of a row of the table."""
    if not found:
        return [row.name, "0", *[""] * 7]
    bpbs, firsts = [r.val_bpb for r in found], [r.val_bpb for r in first]
    spread = f"{statistics.stdev(bpbs):.4f}" if len(bpbs) > 1 else ""
    change, p = "", ""
    if firsts and bpbs != firsts:
        test = compare(bpbs, firsts)
        change = f"{-test.improvement:+.4f}"
        if test.interval:
            low, high = test.interval
            change += f" [{-high:+.4f}, {-low:+.4f}]"
            p = f"{test.p:.2g}"
    rate = sum(r.tokens for r in found) / max(sum(r.seconds for r in found), 1e-9)
    minutes = statistics.fmean(r.seconds for r in found) / 60
    size = max(r.size for r in found)
    return [row.name, str(len(found)), f"{statistics.fmean(bpbs):.4f}", spread, change, p, f"{size:,.0f}",
            f"{rate:,.0f}", f"{minutes:.3g}"]  # fmt: skip


def plot(sweep: Sweep, results: list[tuple[Cell, Result | None]]) -> bytes:
    """An SVG: a dot per seed and a line at each mean, rows from top to bottom."""

    def panel(axes) -> None:
        tidy(axes, sweep.folder.name, "val_bpb, lower is better")
        for place, row in enumerate(sweep.rows):
            bpbs = [r.val_bpb for r in of_row(row, results)]
            axes.plot(bpbs, [place] * len(bpbs), "o", color=COLOURS[0], alpha=0.6)
            if bpbs:
                axes.plot([statistics.fmean(bpbs)] * 2, [place - 0.3, place + 0.3], color=COLOURS[1])
        axes.set_yticks(range(len(sweep.rows)), [drawable(row.name[:60]) for row in sweep.rows])
        axes.set_ylim(len(sweep.rows) - 0.5, -0.5)

    return drawn([panel], size=(8, 0.9 + 0.4 * len(sweep.rows)))
