"""Write the leaderboard: tables in README.md and on each track's page, and docs/leaderboard.svg.

Reads every track.json and submission.json under records/. An entry is ranked if the check finds no FAIL
and a maintainer has scored every seed whole (--verified FOLDER); others are listed with the reason.
--check writes nothing, names what is stale and exits 1. --site DIR writes the board as a static site
instead. Workflows run both after a merge.
"""

from functools import partial

from golf.board import charts, verified
from golf.board.ranking import Board, read_board
from golf.board.tables import PICTURE, page_block, readme_block, with_block
from golf.core import track
from golf.core.files import renew
from golf.core.paths import REPO, path_argument, shown
from golf.core.picture import drawn, fingerprint, is_signed, signed, tidy


def add_arguments(parser) -> None:
    parser.add_argument("--check", action="store_true", help="only tell whether everything is up to date")
    path = {"type": path_argument}
    parser.add_argument(
        "--verified", **path, metavar="FOLDER", help="first note that this entry passed a whole score"
    )
    parser.add_argument("--site", **path, metavar="DIR", help="write a static site into DIR instead")


def main(args) -> int:
    if args.site:
        from golf.board import site

        site.require_free(args.site)
    if args.verified:
        verified.enter(args.verified)
    boards = [read_board(name) for name in track.names()]
    if args.site:
        print(f"wrote {site.write(boards, args.site)} pages into {shown(args.site)}/")
        return 0
    pages = {REPO / "README.md": readme_block(boards)}
    pages |= {board.page: page_block(board) for board in boards}
    texts = {path: with_block(path, block) for path, block in pages.items()}
    mark = picture_mark(boards)
    stale = {p: partial(texts.get, p) for p, text in texts.items() if p.read_text(encoding="utf-8") != text}
    if not is_signed(REPO / PICTURE, mark):
        stale[REPO / PICTURE] = lambda: signed(draw(boards), mark)
    renew(stale, "leaderboard", args.check)
    count = sum(len(entries) for board in boards for entries in board.lanes.values())
    print(f"leaderboard: {count} ranked, {sum(len(b.unranked) for b in boards)} not ranked")
    return 0


VERSION = 3  # of how the picture is drawn: a change makes it stale


def picture_mark(boards: list[Board]) -> str:
    """A hash of what the picture shows."""
    told = [(charts.points(b), b.rules["data"]["name"], b.rules["cap_bytes"], b.chart_scores) for b in boards]
    return fingerprint(VERSION, told)


def draw(boards: list[Board]) -> bytes:
    """An SVG: a row for each track that has ranked entries."""
    panels = [panel for board in boards for panel in charts.panels(board)]
    return drawn(panels or [lambda axes: tidy(axes, "no entries yet")], columns=2)
