"""Follow a run from another terminal: its loss curve, budget, tokens a second and time left.

Ends when the run ends. If the output is not a terminal, it prints a line every 15 seconds instead.
"""

import os
import shutil
import sys
import textwrap
import time

from golf.core.errors import GolfError
from golf.core.json_io import dig, number
from golf.core.paths import REPO, path_argument
from golf.core.text import printable
from golf.core.units import amount, duration
from golf.see import history
from golf.see.history import History

EVERY_SECONDS = {True: 2.0, False: 15.0}  # on a terminal; elsewhere
HEIGHT = 12
DOTS = "⡀⠄⠂⠁"  # a quarter of a line each, from below
ASCII_DOTS = "_.-'"


def add_arguments(parser) -> None:
    parser.add_argument("run", nargs="?", type=path_argument, metavar="RUN", help="default: runs/'s newest")


def main(args) -> int:
    folder, terminal = args.run or newest(), sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    while True:
        h = history.read(folder)
        if terminal:
            lines = spelt(screen(h, *shutil.get_terminal_size()), sys.stdout.encoding)
            # from the top, each line's rest and then all below erased: nothing is ever blank
            print("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J", end="", flush=True)
        else:
            print(status(h), flush=True)
        if h.state() != "running":
            return 0
        time.sleep(EVERY_SECONDS[terminal])


def newest():
    """The run that wrote last; those of a sweep lie a folder deeper."""
    found = [path for depth in ("*", "*/*") for path in (REPO / "runs").glob(f"{depth}/metrics.jsonl")]
    if not found:
        raise GolfError("no runs in runs/ yet; name a run's folder", 2)
    return max(found, key=lambda path: path.stat().st_mtime).parent


def screen(h: History, width: int, height: int) -> list[str]:
    """The whole picture: a title, the curve, the status; no line is longer than the terminal is wide."""
    pairs = [(number(point.get("step")), number(point.get("train_loss"))) for point in h.steps]
    losses = [(step, loss) for step, loss in pairs if None not in (step, loss)]
    where = dig(h.facts, "start", "hardware") or "unknown hardware"
    title = f"{h.name} on {where}: training loss, nats a token"
    above, below = (textwrap.wrap(printable(text), max(20, width - 1)) for text in (title, status(h)))
    room = height - len(above) - len(below) - 3  # two empty lines, and the cursor's
    return [*above, "", *curve(losses, max(20, width - 10), max(4, min(HEIGHT, room))), "", *below]


def spelt(lines: list[str], encoding: str) -> list[str]:
    """With dots that the terminal's encoding has."""
    if "utf" in encoding.lower():
        return lines
    return [line.translate(str.maketrans(DOTS, ASCII_DOTS)) for line in lines]


def status(h: History) -> str:
    """One line: how far, how fast, how good, how long."""
    parts = [h.state()]
    if h.state() == "running":
        parts[0] = f"{phase(h)} {100 * h.fraction():.0f}%" if phase(h) == "training" else phase(h)
    step, seconds, rates = h.last("step"), h.last("train_seconds"), h.rates()
    budget = number(h.config.get("MAX_WALLCLOCK_SECONDS"))
    if step is not None:
        parts.append(f"step {step:,.0f}")
    if seconds is not None:
        parts.append(duration(seconds) + (f" of {duration(budget)}" if budget else ""))
    if h.steps and (loss := number(h.steps[-1].get("train_loss"))) is not None:
        parts.append(f"loss {loss:.4f}")
    if h.vals and (bpb := number(h.vals[-1].get("val_bpb"))) is not None:
        parts.append(f"val_bpb {bpb:.4f} on the way")
    if rates:
        parts.append(f"{amount(rates[-1][1])} tokens/s")
    left = h.seconds_left()
    if phase(h) == "training" and h.state() == "running" and left is not None:
        parts.append(f"{duration(left)} of training left")
    if h.val_bpb is not None:
        parts.append(f"score {h.val_bpb:.4f}")
    return ", ".join(parts)


def phase(h: History) -> str:
    if "export" in h.facts:
        return "scoring"
    if "train_end" in h.facts:
        return "packing"
    return "training" if h.steps else "setting up"


def curve(points: list[tuple[float, float]], width: int, height: int = HEIGHT) -> list[str]:
    """(step, value) as dots from left to right, with the largest and smallest value at the side."""
    import numpy as np

    if len(points) < 2 or points[0][0] == points[-1][0]:
        return ["(no steps yet)"]
    steps, values = zip(*points)
    spots = np.interp(np.linspace(steps[0], steps[-1], width), steps, values)
    low = spots.min()
    high = max(np.quantile(spots, 0.95), low + 1e-9)  # the first steps may lie above: they stay at the top
    with np.errstate(invalid="ignore"):  # of losses that are not finite
        levels = np.nan_to_num(np.minimum((spots - low) / (high - low), 1)) * (len(DOTS) * height - 1)
    rows = [[" "] * width for _ in range(height)]
    for x, level in enumerate(levels.astype(int)):
        row, dot = divmod(level, len(DOTS))
        rows[height - 1 - row][x] = DOTS[dot]
    labels = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}
    return [f"{labels.get(i, ''):>8} {''.join(row)}".rstrip() for i, row in enumerate(rows)]
