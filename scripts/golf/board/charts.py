"""Draws a track's ranked entries: val_bpb over counted bytes and over date."""

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial

from golf.board.ranking import Board
from golf.core.picture import INK, drawable, tidy

LANE_COLOURS = {"record": "#d1661f", "open-hardware": "#2b7fd6", "non-record": "#2f9a63"}
SCORE = "val_bpb, lower is better"


def points(board: Board) -> list[dict]:
    """What is drawn of each ranked entry."""
    return [
        {"lane": lane, "record": entry.record, "name": entry.title, "date": entry.claim["date"],
         "val_bpb": entry.claim["val_bpb"], "bytes": entry.claim["bytes_total"]}
        for lane, entries in board.lanes.items()
        for entry in entries
    ]  # fmt: skip


def panels(board: Board) -> list[Callable]:
    """What draws a board into axes of matplotlib: two panels, none where it has no ranked entry."""
    return [partial(over_bytes, board), partial(over_date, board)] if points(board) else []


def over_bytes(board: Board, axes) -> None:
    """With the names of the lanes, the best entry, the cap and the reference scores."""
    found, cap = points(board), board.rules["cap_bytes"] / 1e6
    tidy(axes, f"{board.rules['data']['name']}: score over bytes", "code and artifact, million bytes", SCORE)
    draw_points(axes, found, [point["bytes"] / 1e6 for point in found], labels=True)
    best = min(found, key=lambda point: point["val_bpb"])
    text = {"textcoords": "offset points", "ha": "right"}
    name = f"{drawable(best['name'][:40])}: {best['val_bpb']:.4f}"
    axes.annotate(name, (best["bytes"] / 1e6, best["val_bpb"]), xytext=(-6, -11), **text)
    axes.axvline(cap, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("cap", (cap, 1), xycoords=("data", "axes fraction"), xytext=(-4, -10), **text)
    draw_references(axes, board)
    for line in board.chart_scores:
        name, place = f"{drawable(line['name'])}: {line['val_bpb']:.4f}", (0, line["val_bpb"])
        axes.annotate(name, place, xycoords=("axes fraction", "data"), xytext=(4, 3), **text | {"ha": "left"})


def over_date(board: Board, axes) -> None:
    from matplotlib.dates import AutoDateLocator, DateFormatter

    found = points(board)
    days = [date.fromisoformat(point["date"]) for point in found]
    tidy(axes, "score over date", "", SCORE)
    draw_points(axes, found, days)
    room = max((max(days) - min(days)) / 20, timedelta(days=2))
    axes.set_xlim(min(days) - room, max(days) + room)
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=1, maxticks=4))
    axes.xaxis.set_major_formatter(DateFormatter("%Y-%m-%d"))
    draw_references(axes, board)


def draw_points(axes, found: list[dict], places: list, labels: bool = False) -> None:
    """A dot an entry in its lane's colour, a star for a record; the line of the best scores so far."""
    kinds = [(point["lane"], point["record"]) for point in found]
    for lane, record in dict.fromkeys(kinds):
        xs, ys = zip(*[(x, p["val_bpb"]) for x, p, of in zip(places, found, kinds) if of == (lane, record)])
        marker, size = ("*", 150) if record else ("o", 36)
        name = f"{lane} lane: set a record" if record else f"{lane} lane"
        axes.scatter(xs, ys, s=size, marker=marker, color=LANE_COLOURS.get(lane, INK), linewidths=0, zorder=3,
                     label=name if labels and len(set(kinds)) > 1 else None)  # fmt: skip
    best, frontier = float("inf"), []
    for place, point in sorted(zip(places, found), key=lambda pair: pair[0]):
        best = min(best, point["val_bpb"])
        frontier.append((place, best))
    axes.step(*zip(*frontier), where="post", color=INK, linewidth=1.2, zorder=2)


def draw_references(axes, board: Board) -> None:
    axes.margins(y=0.16)
    for line in board.chart_scores:
        axes.axhline(line["val_bpb"], color=INK, linewidth=1, linestyle=(0, (1, 2)))
