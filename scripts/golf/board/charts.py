"""A track's entries in two pictures: score over bytes and over date, each with its frontier."""

from __future__ import annotations

from datetime import date, timedelta

from golf.board.leaderboard import LANE_COLOURS
from golf.board.ranking import Board
from golf.core.picture import INK, drawable, rendered, styled, tidy


def draw(board: Board) -> bytes:
    """An SVG of the ranked entries of a board, which has at least one."""
    entries = [(lane, entry.claim) for lane, some in board.lanes.items() for entry in some]
    with styled():
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.4), layout="constrained")
        by_bytes, by_date = figure.subplots(1, 2, sharey=True)
        tidy(by_bytes, "score over counted bytes", "bytes, millions", "val_bpb, lower is better")
        points = [(claim["bytes_total"] / 1e6, claim["val_bpb"], lane) for lane, claim in entries]
        scatter(by_bytes, points)
        steps(by_bytes, [(x, y) for x, y, _ in points])
        cap = board.rules["cap_bytes"] / 1e6
        by_bytes.axvline(cap, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        by_bytes.annotate("cap", (cap, 1), xycoords=("data", "axes fraction"), xytext=(-4, -10),
                          textcoords="offset points", ha="right")  # fmt: skip
        tidy(by_date, "score over date", "")
        dated = [(date.fromisoformat(claim["date"]), claim["val_bpb"], lane) for lane, claim in entries]
        scatter(by_date, dated)
        steps(by_date, [(x, y) for x, y, _ in dated])
        days = [day for day, _, _ in dated]
        room = max((max(days) - min(days)) / 20, timedelta(days=10))
        by_date.set_xlim(min(days) - room, max(days) + room)
        by_date.margins(y=0.12)
        locator = AutoDateLocator(minticks=1, maxticks=6)
        by_date.xaxis.set_major_locator(locator)
        by_date.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        for axes in (by_bytes, by_date):
            for line in board.chart_scores:
                axes.axhline(line["val_bpb"], color=INK, linewidth=1, linestyle=(0, (1, 2)))
        for line in board.chart_scores:
            at, beside = ("axes fraction", "data"), {"xytext": (4, 3), "textcoords": "offset points"}
            by_bytes.annotate(drawable(line["name"]), (0, line["val_bpb"]), xycoords=at, **beside)
        figure.legend(
            *by_bytes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
        )
        return rendered(figure)


def scatter(axes, points: list[tuple]) -> None:
    for lane in dict.fromkeys(lane for _, _, lane in points):
        xs, ys = zip(*[(x, y) for x, y, other in points if other == lane])
        axes.scatter(
            xs, ys, s=36, color=LANE_COLOURS.get(lane, INK), linewidths=0, zorder=3, label=f"{lane} lane"
        )


def steps(axes, points: list[tuple]) -> None:
    """The line of best scores so far, from left to right."""
    best, frontier = float("inf"), []
    for x, y in sorted(points):
        best = min(best, y)
        frontier.append((x, best))
    axes.step(*zip(*frontier), where="post", color=INK, linewidth=1.2, zorder=2)
