"""Write the leaderboard: tables in README.md and on each track's page, and docs/leaderboard.svg.

Reads every track.json and submission.json under records/. An entry is ranked if the check finds no FAIL
and a maintainer has scored every seed whole (--verified FOLDER); others are listed with the reason.
--check writes nothing, names what is stale and exits 1. --site DIR writes the board as a static site
instead. Workflows run both after a merge.
"""

import hashlib
import json
from pathlib import Path

from golf.board import verified
from golf.board.ranking import Board, read_board
from golf.board.tables import PICTURE, page_block, readme_block, with_block
from golf.core import track
from golf.core.errors import GolfError
from golf.core.files import replace_file
from golf.core.paths import REPO, shown
from golf.core.picture import INK, STYLE, drawable, rendered, styled
from golf.core.text import plain


def add_arguments(parser) -> None:
    parser.add_argument("--check", action="store_true", help="only tell whether everything is up to date")
    parser.add_argument(
        "--verified", type=Path, metavar="FOLDER", help="first note that this entry passed a whole score"
    )
    parser.add_argument("--site", type=Path, metavar="DIR", help="write a static site into DIR instead")


def main(args) -> int:
    if args.verified:
        verified.enter(args.verified)
    boards = [read_board(name) for name in track.names()]
    if args.site:
        from golf.board import site

        print(f"wrote {site.write(boards, args.site)} pages into {shown(args.site)}/")
        return 0
    pages = {REPO / "README.md": readme_block(boards)}
    pages |= {board.page: page_block(board) for board in boards}
    texts = {path: with_block(path, block) for path, block in pages.items()}
    panels = picture_data(boards)
    stale = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    if not is_drawn(REPO / PICTURE, panels):
        stale.append(REPO / PICTURE)
    if args.check:
        if stale:
            names = ", ".join(shown(path) for path in stale)
            raise GolfError(f"stale: {names}; run scripts/golf.sh leaderboard and commit that")
        print("leaderboard: up to date")
        return 0
    for path in stale:
        replace_file(path, texts[path] if path in texts else draw(panels))
        print(f"wrote {shown(path)}")
    count = sum(len(entries) for board in boards for entries in board.lanes.values())
    print(f"leaderboard: {count} ranked, {sum(len(b.unranked) for b in boards)} not ranked")
    return 0


# ---- The picture

VERSION = 2  # of how it is drawn: a change makes it stale
LANE_COLOURS = {"record": "#d1661f", "open-hardware": "#2b7fd6", "non-record": "#2f9a63"}


def picture_data(boards: list[Board]) -> list[dict]:
    """What to draw: one panel per data set, because scores on different data do not compare."""
    panels = {}
    for board in boards:
        data, targets, cap = (board.rules[k] for k in ("data", "targets", "cap_bytes"))
        key = (data["name"], targets, cap)
        title = f"{data['name']}, {targets:,} targets"
        panel = panels.setdefault(key, {"title": title, "cap": cap, "lines": [], "points": []})
        panel["lines"] += [{"name": r["name"], "val_bpb": r["val_bpb"]} for r in board.chart_scores]
        panel["points"] += [
            {
                "bytes": entry.claim["bytes_total"],
                "val_bpb": entry.claim["val_bpb"],
                "lane": lane,
                "record": entry.record,
                "label": plain(entry.title, 28) if entry is entries[0] else "",
            }
            for lane, entries in board.lanes.items()
            for entry in entries
        ]
    return [panel for panel in panels.values() if panel["points"]]


def fingerprint(panels: list[dict]) -> str:
    return hashlib.sha256(json.dumps([VERSION, panels, STYLE], sort_keys=True).encode()).hexdigest()


def is_drawn(path: Path, panels: list[dict]) -> bool:
    """Whether the picture shows this data. Its bytes may differ between versions of matplotlib."""
    return path.is_file() and fingerprint(panels).encode() in path.read_bytes()


def draw(panels: list[dict]) -> bytes:
    """An SVG without background, in inks that read on white and on dark pages."""
    with styled():
        from matplotlib.figure import Figure

        count = max(len(panels), 1)
        figure = Figure(figsize=(8, 2.9 * count), layout="constrained")
        for axes, panel in zip(figure.subplots(count, squeeze=False)[:, 0], panels):
            draw_panel(axes, panel)
        marks = {}
        for axes in figure.axes:
            marks |= dict(zip(*axes.get_legend_handles_labels()[::-1]))
        figure.legend(marks.values(), marks, loc="outside lower center", ncols=4, frameon=False)
        return rendered(figure, Title="val_bpb over bytes", Description=fingerprint(panels))


def draw_panel(axes, panel: dict) -> None:
    """Scores over counted bytes; the cap, reference scores as lines, a star for each record."""
    points, cap = panel["points"], panel["cap"] / 1e6
    heights = [item["val_bpb"] for item in (*panel["lines"], *points)]
    room = max(0.1 * (max(heights) - min(heights)), 0.02)
    axes.set_ylim(min(heights) - room, max(heights) + 1.5 * room)
    axes.set_xlim(min([0.8 * cap, *(p["bytes"] / 1e6 - 0.03 * cap for p in points)]), 1.03 * cap)
    axes.set_title(panel["title"], loc="left", fontsize=10)
    axes.set_xlabel("code and artifact, millions of bytes")
    axes.set_ylabel("val_bpb, lower is better")
    axes.spines[["top", "right"]].set_visible(False)
    axes.axvspan(cap, 1.03 * cap, color=INK, alpha=0.15, linewidth=0)
    top = axes.get_xaxis_transform()
    axes.text(cap, 1, f"cap {panel['cap']:,} ", transform=top, ha="right", va="top")
    left = axes.get_xlim()[0]
    for line, height in zip(panel["lines"], spread_labels(axes, panel["lines"])):
        axes.axhline(line["val_bpb"], color=INK, linewidth=1, linestyle=(0, (4, 3)))
        text = f"  {drawable(line['name'])}: {line['val_bpb']:.4f}"
        axes.text(left, height, text, va="bottom", parse_math=False)
    for lane in dict.fromkeys(p["lane"] for p in points):
        for record, marker, size in ((False, "o", 36), (True, "*", 150)):
            some = [p for p in points if (p["lane"], p["record"]) == (lane, record)]
            if some:
                axes.scatter([p["bytes"] / 1e6 for p in some], [p["val_bpb"] for p in some], s=size,
                             c=LANE_COLOURS.get(lane, INK), marker=marker, linewidths=0, zorder=3,
                             label=f"{lane} lane: set a record" if record else f"{lane} lane")  # fmt: skip
    named = [p for p in points if p["label"]]
    for point, height in zip(named, spread_labels(axes, named)):  # beside the panel, with a line
        axes.annotate(
            f" {drawable(point['label'])}: {point['val_bpb']:.4f}",
            (point["bytes"] / 1e6, point["val_bpb"]),
            xytext=(1.03 * cap, height), va="center", parse_math=False,
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.6, "shrinkB": 4},
        )  # fmt: skip


def spread_labels(axes, items: list[dict]) -> list[float]:
    """A height for each item's label: its val_bpb, or as far above as keeps labels apart."""
    low, high = axes.get_ylim()
    heights, free = {}, low
    for i in sorted(range(len(items)), key=lambda i: items[i]["val_bpb"]):
        heights[i] = max(items[i]["val_bpb"], free)
        free = heights[i] + 0.08 * (high - low)
    return [heights[i] for i in range(len(items))]
