"""The leaderboard as a static site: one page of all entries, one page an entry, and the rules.

Hand-written HTML, CSS (site.css) and JavaScript (site.js); every page is one file that asks for
nothing from outside. What comes from entries is foreign: it is escaped here or by the Markdown
renderer, which takes no HTML, and each page's policy lets no other script or address through.
"""

import base64
import hashlib
import itertools
import shutil
from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import quote

from golf.board import charts, ci_summary
from golf.board.ranking import Board, Entry
from golf.core.bar import Talker
from golf.core.errors import GolfError
from golf.core.files import read_text, replace_file
from golf.core.findings import ORDER
from golf.core.paths import REPO, shown
from golf.core.text import printable
from golf.see import explain, history, plot, reader, report
from golf.see.page import page as html_page
from golf.see.page import table

HERE = Path(__file__).parent
MARK = ".golf-site"  # in a folder that this module made, and may make anew
RULES = REPO / "docs" / "track_spec.md"
ABOUT = (
    "The best tiny language models whose code and packed weights fit in 2,000,000 bytes. The score is "
    "val_bpb, bits a byte of held-out text: lower is better, within one track."
)
# Columns: heading, whether it is a number, whether a phone leaves it out.
COLUMNS = (
    ("val_bpb", True, False), ("entry", False, False), ("by", False, True), ("bytes", True, False),
    ("training", True, True), ("track", False, True), ("lane", False, True), ("date", False, True),
)  # fmt: skip


def write(boards: list[Board], out: Path) -> int:
    """Writes the site into the folder `out`, which is empty, new or one of its own; the number of pages."""
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise GolfError(f"{shown(out)}: holds something else; name a new or empty folder", 2)
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


def whole(title: str, body: str, up: str = "", script: str = "") -> str:
    """A page with the navigation and the policy that lets nothing foreign in."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"sha256-{digest}" if script else "none"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{allowed}'"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    nav = f'<nav><a href="{up}index.html">Leaderboard</a><a href="{up}rules.html">Rules</a></nav>\n'
    tail = f"\n<script>{script}</script>" if script else ""
    return html_page(title, nav + body + tail, (HERE / "site.css").read_text(encoding="utf-8"), head)


# ---- The board


def index(boards: list[Board]) -> str:
    shown_boards = [board for board in boards if entries_of(board)]
    rows = [board_row(board, entry) for board in shown_boards for entry in entries_of(board)]
    lines = ["<h1>Parameter Golf Local</h1>"]
    lines.append(f"<p>{ABOUT}</p>")
    lines += [filters(boards), entry_table(rows)]
    for board in shown_boards:
        lines.append(f"<h2>{escape(board.rules['title'])}</h2>")
        alt = "val_bpb of this track's entries over bytes and over date; the table above has the same figures"
        lines.append(report.pictures(charts.panels(board), alt))
    lines += [*references(boards)]
    return whole(
        "Parameter Golf Local: leaderboard",
        "\n".join(lines),
        script=(HERE / "site.js").read_text(encoding="utf-8"),
    )


def filters(boards: list[Board]) -> str:
    tracks = [board.rules["name"] for board in boards]
    lanes = sorted({lane for board in boards for lane in board.rules["lanes"]})
    choices = "".join(
        f'<label>{name}<select name="{name}"><option value="">all</option>'
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select></label>"
        for name, values in (("track", tracks), ("lane", lanes))
    )
    search = '<label>search<input id="search" type="search" autocomplete="off"></label>'
    return f'<form id="filters" hidden>{search}{choices}<p id="count" aria-live="polite"></p></form>'


def entry_table(rows: list[str]) -> str:
    head = "".join(
        f'<th scope="col"{classes(number, less)}><button type="button">{name}</button></th>'
        for name, number, less in COLUMNS
    )
    body = "\n".join(rows) or f'<tr><td colspan="{len(COLUMNS)}">No entries yet.</td></tr>'
    table_ = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="wide"><table id="entries">{table_}</table></div>'


def classes(number: bool, less: bool) -> str:
    names = " ".join(["n"] * number + ["less"] * less)
    return f' class="{names}"' if names else ""


def board_row(board: Board, entry: Entry) -> str:
    claim, ranked = entry.claim, not entry.unranked
    star = ' <span class="star" title="set a record">record</span>' if entry.record else ""
    link = f'<a href="{quote(place_of(board, entry))}">{escape(entry.title)}</a>{star}'
    said = [entry.text("blurb", 240), *(entry.notes if ranked else [f"not ranked: {entry.unranked}"])]
    track, lane = escape(board.rules["name"]), escape(entry.text("lane", 30))
    score = size = seconds = ("-", "NaN")
    if ranked:
        score = f"{claim['val_bpb']:.4f}", claim["val_bpb"]
        size = f"{claim['bytes_total']:,}", claim["bytes_total"]
        seconds = f"{claim['train_seconds']:,.0f} s", claim["train_seconds"]
    what = f'{link}<span class="blurb">{escape("; ".join(filter(None, said)))}</span>'
    author, date = (escape(entry.text(name, 40)) for name in ("author", "date"))
    text = ""
    for (_, number, less), cell in zip(COLUMNS, (score, what, author, size, seconds, track, lane, date)):
        markup, data = (cell[0], f' data-value="{cell[1]}"') if number else (cell, "")
        text += f"<td{classes(number, less)}{data}>{markup}</td>"
    return f'<tr data-track="{track}" data-lane="{lane}">{text}</tr>'


def references(boards: list[Board]) -> list[str]:
    rows = [
        [f"{r['val_bpb']:.4f}", f"{r['how'].replace('`', '')} ({board.rules['name']})"]
        for board in boards
        for r in board.chart_scores
    ]
    if not rows:
        return []
    return ["<h2>Reference scores (not entries)</h2>", table(["val_bpb", "how"], rows, numbers=(0,))]


def rules_page(boards: list[Board]) -> str:
    """The tracks' figures, then the rules as they are written."""
    lines = ["<h1>Rules</h1>", "<ul>"]
    for board in boards:
        r = board.rules
        budget = f"{r['train_seconds']:,} s" if r["train_seconds"] else "any time"
        figures = f"{r['cap_bytes']:,} bytes, {budget} of training, {r['targets']:,} targets"
        lines.append(
            f"<li><b>{escape(r['title'])}</b> (<code>{escape(r['name'])}</code>): {figures}; lanes "
            f"{escape(', '.join(r['lanes']))}</li>"
        )
    text = markdown(read_text(RULES)) if RULES.is_file() else ""
    lines += ["</ul>", f"<article>{text}</article>"]
    return whole("Parameter Golf Local: rules", "\n".join(lines))


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
    parts: list[tuple[str, Callable[[], str]]] = [
        ("What it says", lambda: f"<article>{markdown(read_text(folder / 'README.md'))}</article>"),
        ("Audit", lambda: audit(entry)),
        ("Curves", lambda: curves(folder)),
        ("What it writes", lambda: report.samples(reader.find(folder))),
        ("Where the bytes went", lambda: report.artifact(*explain.read(folder))),
        ("The code against what it builds on", lambda: difference(folder)),
    ]
    lines = [f"<h1>{escape(entry.title)}</h1>"]
    if not entry.unranked:
        lines.append(report.big_score(claim["val_bpb"]))
    lines.append(table(["", ""], facts, head_row=False))
    lines += [report.section(title, make) for title, make in parts]
    return whole(f"{entry.title}: Parameter Golf Local", "\n".join(lines), up="../../")


def audit(entry: Entry) -> str:
    """What the score and its audit found, rule by rule, for each seed."""
    found = entry.audit
    if found is None:
        raise GolfError("its score is a claim: no maintainer has scored it whole as it is now")
    how = "{verdict}, scored whole on {machine} ({device}), {time}".format_map(found)
    parts = [f"<p>{escape(how)}</p>"]
    for seed, lines in itertools.groupby(found["rules"], lambda line: line[0]):
        rows = [line[1:] for line in lines]
        worst = min((row[1] for row in rows), key=ORDER.index)
        title = f"seed {seed}" if seed else "all seeds"
        parts.append(f"<details><summary>{escape(title)}: {len(rows)} rules, {worst}</summary>")
        parts.append(f'<div class="audit">{table(["rule", "outcome", "figure"], rows)}</div></details>')
    return "\n".join(parts)


def curves(folder: Path) -> str:
    paths = sorted(folder.glob("metrics_seed*.jsonl")) or sorted(folder.glob("train*.log"))[:1]
    plain = [path for path in paths if not path.is_symlink()]
    histories = [history.read(path) for path in plain[:6]]
    if not histories:
        raise GolfError("it ships no metrics and no log")
    return report.pictures(plot.panels(histories), "loss, validation, rates or speed of its seeds")


def difference(folder: Path) -> str:
    """ci_summary's diff: the head has its foreign text as entities, the rest is escaped there."""
    head, *rest = ci_summary.against_nearest(folder) or ["It ships no script."]
    marks = {"+": "add", "-": "del", "@": "hunk"}
    lines = "\n".join(rest).strip().removeprefix("<pre>").removesuffix("</pre>").split("\n")
    code = "\n".join(
        f'<span class="{marks[line[0]]}">{line}</span>' if line[:1] in marks else line for line in lines
    )
    if not code:
        return f"<p>{head}</p>"
    added, gone = (sum(line[:1] == mark for line in lines) for mark in "+-")
    summary = f"<summary>{added:,} lines added, {gone:,} taken away</summary>"
    return f"<p>{head}</p><details>{summary}<pre>{code}</pre></details>"


def markdown(text: str) -> str:
    """HTML of foreign Markdown: no HTML of its own, no images from elsewhere, no odd links."""
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return renderer.render(printable(text, keep="\n\t"))
