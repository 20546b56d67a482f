"""The leaderboard as a static site: one page of all entries, one page an entry, and the rules.

Its templates, style and script lie in templates/; every page is one file that asks for nothing from
outside. What comes from entries is foreign: the templates escape it, the Markdown renderer takes no
HTML, and each page's policy lets no other script or address through.
"""

import base64
import hashlib
import itertools
import shutil
from pathlib import Path

from markupsafe import Markup

from golf.board import charts, ci_summary
from golf.board.ranking import Board, Entry
from golf.core.bar import Talker
from golf.core.errors import GolfError
from golf.core.files import read_text, replace_file
from golf.core.findings import ORDER
from golf.core.paths import REPO, shown
from golf.core.text import printable
from golf.see import history, plot, reader, report
from golf.see.page import render, section

TEMPLATES = Path(__file__).with_name("templates")
MARK = ".golf-site"  # in a folder that this module made, and may make anew
RULES = REPO / "docs" / "track_spec.md"
# Heading -> classes: n is a number, less is left out on a phone.
COLUMNS = {"val_bpb": "n", "entry": "", "by": "less", "bytes": "n", "training": "n less", "track": "less",
           "lane": "less", "date": "less"}  # fmt: skip


def require_free(out: Path) -> None:
    """GolfError unless `out` is new, an empty folder, or a site that was made before."""
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise GolfError(f"{shown(out)}: holds something else; name a new or empty folder", 2)


def write(boards: list[Board], out: Path) -> int:
    """Writes the site into the folder `out`; the number of pages."""
    shutil.rmtree(out / "entries", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / MARK, "made by golf.sh leaderboard --site\n")
    pages = {"index.html": index(boards), "rules.html": rules_page(boards)}
    entries = [(board, entry) for board in boards for entry in entries_of(board)]
    with Talker("golf leaderboard") as talker:  # each entry's script writes three samples
        done = talker.begin("entries' pages", len(entries))
        for count, (board, entry) in enumerate(entries):
            pages[place_of(board, entry)] = entry_page(board, entry)
            done(count + 1)
    for name, text in pages.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    return len(pages)


def entries_of(board: Board) -> list[Entry]:
    """The ranked ones by score, then those without a rank."""
    return [*(entry for entries in board.lanes.values() for entry in entries), *board.unranked]


def place_of(board: Board, entry: Entry) -> str:
    """The entry's page in the site; a name of its own whatever the folder is called."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in entry.folder.name)
    digest = hashlib.sha256(entry.folder.name.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"entries/{board.rules['name']}/{name[:80]}-{digest}.html"


def whole(template: str, title: str, up: str = "", script: str = "", **facts) -> str:
    """A page of the site; `up` leads to its root, `script` is the only one that may run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"sha256-{digest}" if script else "none"
    return render(template, TEMPLATES, title=title, up=up, script=script, allowed=allowed, **facts)


# ---- The board


def index(boards: list[Board]) -> str:
    references = [
        (f"{r['val_bpb']:.4f}", f"{r['how'].replace('`', '')} ({board.rules['name']})")
        for board in boards
        for r in board.chart_scores
    ]
    lanes = sorted({lane for board in boards for lane in board.rules["lanes"]})
    return whole(
        "index.html",
        "Parameter Golf Local: leaderboard",
        script=(TEMPLATES / "site.js").read_text(encoding="utf-8"),
        filters={"track": [board.rules["name"] for board in boards], "lane": lanes},
        columns=COLUMNS,
        rows=[board_row(board, entry) for board in boards for entry in entries_of(board)],
        charts=[(b.rules["title"], report.pictures(charts.panels(b))) for b in boards if entries_of(b)],
        references=references,
    )


def board_row(board: Board, entry: Entry) -> dict:
    """A row of the table of all entries; what has no rank has no figures."""
    claim, ranked = entry.claim, not entry.unranked
    said = [entry.text("blurb", 240), *(entry.notes if ranked else [f"not ranked: {entry.unranked}"])]
    names = {"val_bpb": "val_bpb", "bytes": "bytes_total", "seconds": "train_seconds"}
    return dict(
        place=place_of(board, entry),
        title=entry.title,
        record=entry.record,
        ranked=ranked,
        said="; ".join(filter(None, said)),
        track=board.rules["name"],
        **{name: entry.text(name, 40) for name in ("lane", "author", "date")},
        **{name: claim[key] if ranked else "NaN" for name, key in names.items()},
    )


def rules_page(boards: list[Board]) -> str:
    """The tracks' figures, then the rules as they are written."""
    text = markdown(read_text(RULES)) if RULES.is_file() else ""
    tracks = [board.rules for board in boards]
    return whole("rules.html", "Parameter Golf Local: rules", tracks=tracks, text=text)


# ---- An entry


def entry_page(board: Board, entry: Entry) -> str:
    """README, curves, bytes, samples, and the code against what it builds on."""
    claim, folder = entry.claim, entry.folder
    facts = [["track", board.rules["name"]]]
    facts += [[name, entry.text(key, 80)] for name, key in
              (("lane", "lane"), ("by", "author"), ("date", "date"), ("hardware", "hardware"))]  # fmt: skip
    if entry.unranked:
        facts.append(["not ranked", entry.unranked])
    else:
        facts += [
            ["score", f"{claim['val_bpb']:.6f}, the mean of {len(entry.scores)} seeds"],
            ["bytes", f"{claim['bytes_code']:,} code + {claim['bytes_model']:,} model"],
            ["training", f"{claim['train_seconds']:,.1f} s"],
            ["scoring", f"{claim['eval_seconds']:,.1f} s"],
        ]
    if entry.notes:
        facts.append(["notes", ", ".join(entry.notes)])
    return whole(
        "entry.html",
        f"{entry.title}: Parameter Golf Local",
        up="../../",
        entry=entry.title,
        val_bpb=None if entry.unranked else claim["val_bpb"],
        facts=facts,
        readme=section(lambda: markdown(read_text(folder / "README.md"))),
        audit=section(lambda: audit(entry)),
        curves=section(lambda: curves(folder)),
        samples=section(lambda: report.samples(reader.find(folder))),
        bytes=section(lambda: report.where_bytes_went(folder)),
        difference=section(lambda: difference(folder)),
    )


def audit(entry: Entry) -> dict:
    """What the score and its audit found, rule by rule, for each seed."""
    found = entry.audit
    if found is None:
        raise GolfError("its score is a claim: no maintainer has scored it whole as it is now")
    seeds = []
    for seed, lines in itertools.groupby(found["rules"], lambda line: line[0]):
        rows = [line[1:] for line in lines]
        worst = min((row[1] for row in rows), key=ORDER.index)
        seeds.append(dict(title=f"seed {seed}" if seed else "all seeds", rows=rows, worst=worst))
    return dict(how="{verdict}, scored whole on {machine} ({device}), {time}".format_map(found), seeds=seeds)


def curves(folder: Path) -> list[str]:
    paths = sorted(folder.glob("metrics_seed*.jsonl")) or sorted(folder.glob("train*.log"))[:1]
    plain = [path for path in paths if not path.is_symlink()]
    histories = [history.read(path) for path in plain[:6]]
    if not histories:
        raise GolfError("it ships no metrics and no log")
    return report.pictures(plot.panels(histories))


def difference(folder: Path) -> dict:
    """The script against what it builds on: the diff's lines with their kind."""
    head, lines = ci_summary.against_nearest(folder)
    marks = {"+": "add", "-": "del", "@": "hunk"}
    kinds = [marks.get(line[:1], "") for line in lines]
    lines = list(zip(kinds, lines))
    return dict(head=head, lines=lines, added=kinds.count("add"), gone=kinds.count("del"))


def markdown(text: str) -> Markup:
    """HTML of foreign Markdown: no HTML of its own, no images from elsewhere, no odd links."""
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Markup(renderer.render(printable(text, keep="\n\t")))
