"""The leaderboard's tables, for README.md and the tracks' pages."""

import os
import re
import statistics
from pathlib import Path
from urllib.parse import quote

from golf.board.ranking import Board, Entry
from golf.core.errors import GolfError
from golf.core.paths import shown
from golf.core.text import cell, table

BEGIN = "<!-- leaderboard: written by scripts/golf.sh leaderboard, which overwrites any edit -->"
END = "<!-- end of leaderboard -->"
PICTURE = Path("docs/leaderboard.svg")
README_ROWS = 10  # a lane; the track's page has all


def entry_cells(entry: Entry, link: str) -> dict[str, str]:
    """The columns of a ranked entry. `link`: from the page to the track's folder."""
    claim, scores = entry.claim, entry.scores
    spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    score = f"{claim['val_bpb']:.4f}{spread}"
    return {
        "val_bpb": f"**{score}**" if entry.record else score,
        "seeds": str(len(scores)),
        "bytes": f"{claim['bytes_total']:,}",
        "training": f"{claim['train_seconds']:,.0f} s",
        "entry": entry_link(entry, link),
        "what is new": cell(entry.text("blurb", 160)),
        "by": author(entry),
        "date": cell(entry.text("date")),
        "hardware": cell(entry.text("hardware")),
        "notes": ", ".join([*["record"] * entry.record, *entry.notes]),
    }


def entry_link(entry: Entry, link: str) -> str:
    return f"[{cell(entry.title)}]({link}{quote(os.fsencode(entry.folder.name))}/)"


def author(entry: Entry) -> str:
    name, github_id = entry.text("author", 40), entry.claim.get("github_id")
    if isinstance(github_id, str) and re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}", github_id):
        return f"[{cell(name)}](https://github.com/{github_id})"
    return cell(name)


def ranked_table(board: Board, link: str, without: tuple = (), limit: int | None = None):
    rows, head = [], []
    for lane, entries in board.lanes.items():
        for rank, entry in enumerate(entries[:limit], 1):
            cells = {"lane": lane, "#": str(rank), **entry_cells(entry, link)}
            head = [name for name in cells if name not in without]
            rows.append([cells[name] for name in head])
    return table(head, rows) if rows else ["No entries yet."]


def chart_scores_table(board: Board) -> list[str]:
    rows = [[f"{r['val_bpb']:.4f}", r["how"]] for r in board.chart_scores]
    return ["", *table(["val_bpb", "reference score (not an entry)"], rows)] if rows else []


def readme_block(boards: list[Board]) -> list[str]:
    alt = "val_bpb over bytes and over date; the tables below hold the same figures"
    lines = [f"![{alt}]({PICTURE.as_posix()})"]
    for board in boards:
        name = board.rules["name"]
        lines += ["", f"**[{name}](records/{name}/)**: {board.rules['title']}", ""]
        lines += ranked_table(board, f"records/{name}/", without=("training", "hardware"), limit=README_ROWS)
        lines += chart_scores_table(board)
    return lines


def page_block(board: Board) -> list[str]:
    lines = [*ranked_table(board, ""), *chart_scores_table(board)]
    if board.unranked:
        rows = [[entry_link(e, ""), author(e), cell(e.text("date")), e.unranked] for e in board.unranked]
        lines += ["", *table(["not ranked", "by", "date", "why"], rows)]
    return lines


def with_block(path: Path, block: list[str]) -> str:
    """The file's text with `block` between the markers."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if [text.count(mark) for mark in (BEGIN, END)] != [1, 1] or text.index(BEGIN) > text.index(END):
        raise GolfError(f"{shown(path)}: needs these two lines, once each: {BEGIN} and {END}")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    return "\n".join([f"{head}{BEGIN}", "", *block, "", f"{END}{tail}"])
