"""A track's entries in two pictures: score over bytes and over date, each with its frontier."""

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial

from golf.board.leaderboard import LANE_COLOURS
from golf.board.ranking import Board
from golf.core.picture import INK, drawable, tidy


def panels(board: Board) -> list[Callable]:
    """What draws the ranked entries of a board, which has at least one, over bytes and over date."""
    entries = [(lane, entry.claim) for lane, some in board.lanes.items() for entry in some]
    return [partial(over_bytes, board, entries), partial(over_date, board, entries)]


def over_bytes(board: Board, entries: list[tuple], axes) -> None:
    tidy(axes, "score over counted bytes", "bytes, millions", "val_bpb, lower is better")
    points = [(claim["bytes_total"] / 1e6, claim["val_bpb"], lane) for lane, claim in entries]
    scatter(axes, points, labels=True)
    steps(axes, [(x, y) for x, y, _ in points])
    best = min((claim for _, claim in entries), key=lambda claim: claim["val_bpb"])
    axes.annotate(drawable(best["name"][:40]), (best["bytes_total"] / 1e6, best["val_bpb"]),
                  xytext=(-6, -11), textcoords="offset points", ha="right")  # fmt: skip
    axes.axvline(board.rules["cap_bytes"] / 1e6, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("cap", (board.rules["cap_bytes"] / 1e6, 1), xycoords=("data", "axes fraction"),
                  xytext=(-4, -10), textcoords="offset points", ha="right")  # fmt: skip
    references(axes, board)
    for line in board.chart_scores:
        at, beside = ("axes fraction", "data"), {"xytext": (4, 3), "textcoords": "offset points"}
        axes.annotate(drawable(line["name"]), (0, line["val_bpb"]), xycoords=at, **beside)


def over_date(board: Board, entries: list[tuple], axes) -> None:
    from matplotlib.dates import AutoDateLocator, DateFormatter

    tidy(axes, "score over date", "", "val_bpb, lower is better")
    dated = [(date.fromisoformat(claim["date"]), claim["val_bpb"], lane) for lane, claim in entries]
    scatter(axes, dated)
    steps(axes, [(x, y) for x, y, _ in dated])
    days = [day for day, _, _ in dated]
    room = max((max(days) - min(days)) / 20, timedelta(days=2))
    axes.set_xlim(min(days) - room, max(days) + room)
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=1, maxticks=4))
    axes.xaxis.set_major_formatter(DateFormatter("%Y-%m-%d"))
    references(axes, board)


def references(axes, board: Board) -> None:
    """Reference scores as lines."""
    axes.margins(y=0.16)
    for line in board.chart_scores:
        axes.axhline(line["val_bpb"], color=INK, linewidth=1, linestyle=(0, (1, 2)))


def scatter(axes, points: list[tuple], labels: bool = False) -> None:
    for lane in dict.fromkeys(lane for _, _, lane in points):
        xs, ys = zip(*[(x, y) for x, y, other in points if other == lane])
        name = f"{lane} lane" if labels and len({other for _, _, other in points}) > 1 else None
        axes.scatter(xs, ys, s=36, color=LANE_COLOURS.get(lane, INK), linewidths=0, zorder=3, label=name)


def steps(axes, points: list[tuple]) -> None:
    """The line of best scores so far, from left to right."""
    best, frontier = float("inf"), []
    for x, y in sorted(points):
        best = min(best, y)
        frontier.append((x, best))
    axes.step(*zip(*frontier), where="post", color=INK, linewidth=1.2, zorder=2)
