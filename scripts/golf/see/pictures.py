"""Draw the README's pictures in docs/pictures/, from real runs in records/.

curve.svg, explain.svg and terminal.svg show the sample track's control entry: how its seeds learned, where
its bytes went, and its first seed's command and log as a terminal shows them. docs/leaderboard.svg is drawn
by `golf.sh leaderboard`.
"""

import textwrap
from pathlib import Path

import numpy as np

from golf.core import submission, track
from golf.core.errors import GolfError
from golf.core.files import renew, sha256
from golf.core.paths import REPO
from golf.core.picture import COLOURS, drawn, fingerprint, is_signed, signed
from golf.see import explain, history, plot, reader, sample, weights
from golf.see.cached import CachedModel
from golf.see.page import render

FOLDER = REPO / "docs" / "pictures"
TRACK = "track_sample_5min"
VERSION = 3  # of how they are drawn: a change makes all of them stale
WIDTH, LINE, CHARACTER, MARGIN = 96, 19, 8.2, 16  # characters; pixels
INDENT = "    "  # of a command's further lines
SAMPLE_TOKENS = 90


def add_arguments(parser) -> None:
    parser.add_argument("--check", action="store_true", help="draw nothing; exit 1 if a picture is stale")


def main(args) -> int:
    entry = control()
    ways = {"curve.svg": curve, "explain.svg": bytes_, "terminal.svg": terminal}
    files = [*entry.glob("metrics_seed*.jsonl"), *entry.glob("final_model*"), entry / "submission.json"]
    mark = fingerprint(VERSION, [[path.name, sha256(path)] for path in sorted(files)])
    FOLDER.mkdir(exist_ok=True)
    stale = {name: draw for name, draw in ways.items() if not is_signed(FOLDER / name, mark)}
    renew({FOLDER / n: lambda d=d: signed(d(entry), mark) for n, d in stale.items()}, "pictures", args.check)
    return 0


def control() -> Path:
    """The entry that the sample track's audit measures by: it is always there, with all its files."""
    name = track.load(TRACK).get("audit_control")
    if not isinstance(name, str):
        raise GolfError(f"{TRACK} names no audit_control, so there is nothing to draw", 2)
    return track.RECORDS / TRACK / name


def curve(entry: Path) -> bytes:
    return plot.draw(plot.panels([history.read(path) for path in sorted(entry.glob("metrics_seed*.jsonl"))]))


def bytes_(entry: Path) -> bytes:
    return drawn(explain.panels(*explain.read(entry)))


def terminal(entry: Path) -> bytes:
    """What its first seed was started with and wrote, and what its model writes, as a terminal shows them."""
    claim = submission.read_claim(entry)
    log = (entry / claim["seeds"][0]["log"]).read_text(encoding="utf-8").splitlines()
    steps = [line for line in log if history.STEP_LINE.fullmatch(line)]
    ends = [line for line in log if line.startswith(("total_submission_size", "final_sliding"))]
    some = [steps[0], "...", *steps[-2:], *ends]
    words = f"$ {claim['command']}"
    typed = textwrap.wrap(words, WIDTH - 2, subsequent_indent=INDENT, break_on_hyphens=False)
    lines = [
        *" \\\n".join(typed).split("\n"),
        *(textwrap.shorten(line, WIDTH, placeholder=" ...") for line in some),
        "",
        f'$ bash scripts/golf.sh sample {entry.relative_to(REPO)} --prompt "The "',
        *textwrap.wrap(" ".join(written(entry).split()), WIDTH)[:4],
    ]
    rows = [(line, COLOURS[0] if line.startswith(("$", INDENT)) else "#e3e7eb") for line in lines]
    width = f"{WIDTH * CHARACTER + 2 * MARGIN:.0f}"
    return render("terminal.svg", rows=rows, width=width, line=LINE, margin=MARGIN).encode()


def written(entry: Path) -> str:
    """What the command in the picture prints: the same defaults, fewer tokens."""
    target = reader.find(entry)
    model, tokenizer = CachedModel(weights.load(target.artifact)), reader.load_tokenizer(target.tokenizer)
    rng = np.random.default_rng(1)
    return "The" + "".join(sample.write(model, tokenizer, "The ", SAMPLE_TOKENS, 0.8, 0, rng))
