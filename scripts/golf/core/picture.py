"""How every picture here is drawn: by matplotlib, without background, readable on white and on dark pages."""

import argparse
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

from golf.core.paths import path_argument

INK = "#77808b"  # between the two backgrounds: about 4:1 on white and on dark grey
COLOURS = ("#d1661f", "#2b7fd6", "#2f9a63", "#a45fc4", "#b08a1e", "#d1477a", "#3a9aa8", "#8a6d5b")
LINE = 125  # characters of text beside one another
STYLE = {
    "svg.hashsalt": "golf",  # the same ids in every rendering
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "legend.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}


def picture_path(text: str) -> Path:
    """For argparse: a file to draw."""
    path = path_argument(text)
    if path.suffix.lower() not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{text}: give a name that ends in .svg or .png")
    return path


def drawn(panels: list[Callable], kind: str = ".svg", columns: int = 3, size: tuple = (3.7, 2.4)) -> bytes:
    """A picture of panels, each drawn by a function that takes matplotlib's axes, in rows of `columns`.

    The legend is below all panels, or inside a single one. size: of a single one, in inches.
    """
    os.environ.pop("MPLBACKEND", None)  # a notebook's, which this Python may not have; nothing is shown
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context():  # whatever a person's own matplotlibrc says
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(9, 2.7 * rows + 0.3) if columns > 1 else size, layout="constrained")
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, panel in zip(places, panels):
            panel(axes)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        marks = {}
        for axes in places:
            for mark, name in zip(*axes.get_legend_handles_labels()):
                marks.setdefault(name, mark)
        if marks and len(panels) > 1:
            fit = LINE // (max(map(len, marks)) + 8)  # beside its line
            figure.legend(marks.values(), marks, loc="outside lower center", ncols=max(1, fit), frameon=False)
        elif marks:
            places[0].legend(frameon=False, fontsize=8)
        content, kind = io.BytesIO(), kind[1:].lower()
        extra = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 160}
        figure.savefig(content, format=kind, transparent=True, **extra)
        return content.getvalue()


def fingerprint(*facts) -> str:
    """A hash of what a picture shows; the picture's bytes differ between versions of matplotlib."""
    return hashlib.sha256(json.dumps([STYLE, *facts], sort_keys=True).encode()).hexdigest()


def signed(svg: bytes, mark: str) -> bytes:
    """The SVG with the fingerprint of what it shows."""
    return svg.rstrip() + f"\n<!-- drawn from {mark} -->\n".encode()


def is_signed(path: Path, mark: str) -> bool:
    """Whether the SVG shows what has this fingerprint."""
    return path.is_file() and mark.encode() in path.read_bytes()[-200:]


def tidy(axes, title: str, x: str = "", y: str = "") -> None:
    """Title to the left, labels, a faint grid, no frame above and to the right."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=INK, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)


def drawable(text: str) -> str:
    """`text` with a ? for characters that the font lacks, and $ escaped, which would begin a formula."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(c if ord(c) in known else "?" for c in text).replace("$", r"\$")
