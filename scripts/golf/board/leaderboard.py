"""Write the leaderboard: tables in README.md and on each track's page, and docs/leaderboard.svg.

All of it comes from records/*/: each track.json, and each submission.json as far as the check finds
no FAIL and every seed ships its artifact; other entries are listed without a rank, with the reason.
An entry is 'claimed' until a maintainer has scored it whole (--verified FOLDER). --check writes
nothing, names what is stale and exits 1. --site DIR writes the board as a static site instead.
Workflows run both after a merge.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from golf.board import verified
from golf.check import command as check
from golf.core import submission, track
from golf.core.errors import GolfError
from golf.core.findings import FAIL
from golf.core.paths import REPO, shown
from golf.core.picture import INK, STYLE, drawable, rendered, styled
from golf.core.record_rule import compare
from golf.core.text import printable

BEGIN = "<!-- leaderboard: written by scripts/golf.sh leaderboard, which overwrites any edit -->"
END = "<!-- end of leaderboard -->"
PICTURE = Path("docs/leaderboard.svg")
README_ROWS = 10  # a lane; the track's page has all
RECORD_LANE = "record"
SHOWN_NOTES = ("score-note", "own-tokenizer", "data-unpinned")
LAST = 1 << 62  # the order of what is not committed yet


@dataclass
class Entry:
    """A submission folder as the board sees it."""

    folder: Path
    claim: dict  # submission.json; empty where that is no object
    faults: list[str]  # rule ids of the check's FAIL findings; with any, no rank
    notes: list[str]
    record: bool = False  # set a record when it came
    merged: int = LAST  # its place in the history of main
    copy_of: str | None = None  # the entry, merged before, whose log or artifact it has

    def text(self, name: str, limit: int = 60) -> str:
        value = self.claim.get(name)
        return plain(value, limit) if isinstance(value, str) and value.strip() else "?"

    @property
    def title(self) -> str:
        return self.text("name") if "name" in self.claim else plain(self.folder.name, 60)

    @property
    def unranked(self) -> str | None:
        """Why it has no rank."""
        if self.faults:
            return f"fails: {', '.join(self.faults)}"
        if not submission.is_complete(self.claim):
            without = [s for s in self.claim.get("seeds", []) if not s.get("artifact")]
            seeds = ", ".join(str(s.get("seed")) for s in without[:9])
            return f"cannot be scored again: no artifact of seed {seeds}"
        return f"same log or artifact as {cell(self.copy_of)}, merged before" if self.copy_of else None

    @property
    def order(self) -> tuple:
        """As merged; what is not committed yet comes last, by its date."""
        return self.merged, str(self.claim.get("date")), self.folder.name

    @property
    def scores(self) -> list[float]:
        return [seed["val_bpb"] for seed in self.claim["seeds"]]

    @property
    def losses(self) -> list[float]:
        return [seed["val_loss"] for seed in self.claim["seeds"]]


@dataclass
class Board:
    """A track: its ranked entries by lane, best first, and the others."""

    rules: dict
    lanes: dict[str, list[Entry]]
    unranked: list[Entry]

    @property
    def page(self) -> Path:
        return track.RECORDS / self.rules["name"] / "README.md"

    @property
    def chart_scores(self) -> list[dict]:
        """Reference scores (not entries): name, val_bpb, how each was measured."""
        return self.rules.get("chart_scores", [])


def add_arguments(parser) -> None:
    parser.add_argument("--check", action="store_true", help="only say whether all is up to date")
    parser.add_argument(
        "--verified", type=Path, metavar="FOLDER", help="first enter that its whole score was taken and held"
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
        if path in texts:
            path.write_text(texts[path], encoding="utf-8", newline="\n")
        else:
            path.write_bytes(draw(panels))
        print(f"wrote {shown(path)}")
    count = sum(len(entries) for board in boards for entries in board.lanes.values())
    print(f"leaderboard: {count} ranked, {sum(len(b.unranked) for b in boards)} not ranked")
    return 0


# ---- Reading and ranking


def read_board(name: str) -> Board:
    rules, home = track.load(name), track.RECORDS / name
    merged, known = merge_order(home), verified.read(home)
    entries = [read_entry(folder, rules) for folder in submission.entry_folders(home)]
    for entry in entries:
        entry.merged = merged.get(entry.folder.name, LAST)
        if not verified.holds(known, entry.folder):
            entry.notes = ["claimed", *entry.notes]
    entries.sort(key=lambda entry: entry.order)
    mark_copies(entries)
    lanes: dict[str, list[Entry]] = {}
    for entry in (e for e in entries if not e.unranked):
        lanes.setdefault(entry.claim["lane"], []).append(entry)
    mark_records(lanes.get(RECORD_LANE, []), rules)
    for ranked in lanes.values():
        ranked.sort(key=lambda e: (e.claim["val_bpb"], e.order))
    lanes = {lane: lanes[lane] for lane in rules["lanes"] if lane in lanes}
    return Board(rules, lanes, [entry for entry in entries if entry.unranked])


def read_entry(folder: Path, rules: dict) -> Entry:
    """What the check says of a folder. Whatever lies there, the board goes on."""
    try:
        checked = check.check_folder(folder, rules)
    except GolfError:  # the tool lacks something
        raise
    except Exception as error:
        why = f"{type(error).__name__}; listed without a rank"
        print(f"leaderboard: {shown(folder)}: {why}", file=sys.stderr)
        return Entry(folder, {}, ["unreadable"], [])
    findings = [(finding.level, finding.rule) for finding in checked.findings]
    faults = sorted({rule for level, rule in findings if level == FAIL})
    notes = [rule for rule in SHOWN_NOTES if rule in {rule for _, rule in findings}]
    return Entry(folder, checked.claim, faults, notes)


def merge_order(home: Path) -> dict[str, int]:
    """Place in the history of main by folder: of the last commit that added its submission.json.

    A place in the first-parent history, not a date: an author can write any date into a commit.
    Empty outside a repository.
    """
    words = ["git", "-C", str(home), "log", "--first-parent", "-m", "--reverse", "--diff-filter=A"]
    words += ["--no-renames", "--relative", "--name-only", "--format=%x01", "-z", "--"]
    words.append(":(glob)*/submission.json")
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="surrogateescape")
    except OSError:
        return {}
    commits = done.stdout.split("\x01") if done.returncode == 0 else []
    names = ((i, path.strip("\n")) for i, commit in enumerate(commits) for path in commit.split("\0"))
    return {path.split("/")[0]: i for i, path in names if path.endswith("/submission.json")}


def mark_copies(entries: list[Entry]) -> None:
    """In the order of merging: who has a log, an artifact or a run of an entry before copied it."""
    owner: dict[str, str] = {}
    own: list[Entry] = []
    for entry in (e for e in entries if not e.faults):
        hashes = submission.hashes_of(entry.claim, "log", "artifact")
        entry.copy_of = next((owner[h] for h in sorted(hashes) if h in owner), None)
        if entry.copy_of is None:
            pairs = itertools.product(own, entry.claim["seeds"])
            entry.copy_of = next((e.folder.name for e, s in pairs if submission.has_run(e.claim, s)), None)
        if entry.copy_of is None:
            owner.update(dict.fromkeys(hashes, entry.folder.name))
            own.append(entry)


def mark_records(entries: list[Entry], rules: dict) -> None:
    """In the order of merging: each that beats the best before it, as `check --record` asks.

    At first that is the track's record_baseline; where it names none, the first with enough seeds is one.
    """
    rule = rules["record_rule"]
    best = next((e for e in entries if e.folder.name == rules.get("record_baseline")), None)
    if best is None and rules.get("record_baseline"):
        return  # what is to be beaten cannot be scored again
    for entry in (e for e in entries if len(e.losses) >= rule["min_seeds"]):
        entry.record = best is None or compare(entry.losses, best.losses, rule).record
        if best is None or statistics.fmean(entry.losses) < statistics.fmean(best.losses):
            best = entry


# ---- Tables


def plain(text: str, limit: int) -> str:
    """Foreign text on one line, cut, without what no one can see."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def cell(text: str) -> str:
    """Foreign text for a Markdown table: punctuation as entities, so that nothing is markup.

    CommonMark 2.5: an entity never stands for a symbol of the structure.
    """
    return re.sub(r"[!-+./:-@\[-`{-~]", lambda c: f"&#{ord(c[0])};", text)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in lines]


def entry_cells(entry: Entry, link: str) -> dict[str, str]:
    """The columns of a ranked entry; `link` leads from the page to the track's folder."""
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


def ranked_table(board: Board, link: str, leave_out: tuple = (), limit: int | None = None):
    rows, head = [], []
    for lane, entries in board.lanes.items():
        for rank, entry in enumerate(entries[:limit], 1):
            cells = {"lane": lane, "#": str(rank), **entry_cells(entry, link)}
            head = [name for name in cells if name not in leave_out]
            rows.append([cells[name] for name in head])
    return table(head, rows) if rows else ["No entries yet."]


def chart_scores_table(board: Board) -> list[str]:
    rows = [[f"{r['val_bpb']:.4f}", r["how"]] for r in board.chart_scores]
    return ["", *table(["val_bpb", "reference score (not an entry)"], rows)] if rows else []


def readme_block(boards: list[Board]) -> list[str]:
    alt = "val_bpb over bytes, for each data set; the tables below hold the same figures"
    lines = [f"![{alt}]({PICTURE.as_posix()})"]
    for board in boards:
        name = board.rules["name"]
        lines += ["", f"**[{name}](records/{name}/)**: {board.rules['title']}", ""]
        lines += ranked_table(
            board, f"records/{name}/", leave_out=("training", "hardware"), limit=README_ROWS
        )
        lines += chart_scores_table(board)
    return lines


def page_block(board: Board) -> list[str]:
    lines = [*ranked_table(board, ""), *chart_scores_table(board)]
    if board.unranked:
        rows = [[entry_link(e, ""), author(e), cell(e.text("date")), e.unranked] for e in board.unranked]
        lines += ["", *table(["not ranked", "by", "date", "why"], rows)]
    return lines


def with_block(path: Path, block: list[str]) -> str:
    """The text of the file at `path` with `block` between the markers."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if [text.count(mark) for mark in (BEGIN, END)] != [1, 1] or text.index(BEGIN) > text.index(END):
        raise GolfError(f"{shown(path)}: needs these two lines, once each: {BEGIN} and {END}")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    return "\n".join([f"{head}{BEGIN}", "", *block, "", f"{END}{tail}"])


# ---- The picture

LANE_COLOURS = {"record": "#d1661f", "open-hardware": "#2b7fd6", "non-record": "#2f9a63"}


def picture_data(boards: list[Board]) -> list[dict]:
    """What is drawn, a panel for each data set: scores on different data do not compare."""
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
    return hashlib.sha256(json.dumps([panels, STYLE], sort_keys=True).encode()).hexdigest()


def is_drawn(path: Path, panels: list[dict]) -> bool:
    """Whether the picture is of this data. Its bytes may differ between versions of matplotlib."""
    return path.is_file() and fingerprint(panels).encode() in path.read_bytes()


def draw(panels: list[dict]) -> bytes:
    """An SVG without background, in inks that read on white and on dark pages."""
    from matplotlib.figure import Figure

    with styled():
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
    axes.set_xlim(min([0.8 * cap, *(0.98 * p["bytes"] / 1e6 for p in points)]), 1.03 * cap)
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
                axes.scatter(
                    [p["bytes"] / 1e6 for p in some],
                    [p["val_bpb"] for p in some],
                    s=size,
                    c=LANE_COLOURS.get(lane, INK),
                    marker=marker,
                    linewidths=0,
                    zorder=3,
                    label=f"{lane} lane: set a record" if record else f"{lane} lane",
                )
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
