"""golf leaderboard: ranks, records, hostile words, the picture, and that ours is up to date."""

from __future__ import annotations

import html
import json
import lzma
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import sentencepiece as spm
from check_kit import made  # noqa: F401  (a fixture)
from conftest import REPO, run_script
from golf import leaderboard, track

RULES = {
    "name": "track_x",
    "title": "A track",
    "cap_bytes": 2_000_000,
    "targets": 100,
    "data": {"name": "text"},
    "lanes": ["record", "open-hardware"],
    "record_rule": {"test": "welch-one-sided", "improvement_nats": 0.005, "p": 0.01, "min_seeds": 3},
    "references": [{"name": "xz", "val_bpb": 2.3, "how": "`xz -9e`"}],
}


def entry(folder, bpb, lane="open-hardware", date="2026-01-01", **more):
    """An entry whose seeds lie 0.001 nats around."""
    losses = [bpb + x for x in (-0.001, 0, 0.001)]
    claim = {
        "name": folder, "author": "A", "github_id": "a-b", "date": date, "lane": lane,
        "hardware": "a CPU", "val_bpb": bpb, "bytes_total": 1_900_000, "train_seconds": 299.0,
        "seeds": [{"val_bpb": x, "val_loss": x} for x in losses], **more,
    }  # fmt: skip
    faults = claim.pop("faults", [])
    return leaderboard.Entry(REPO / "records/track_x" / folder, claim, faults, claim.pop("notes", []))


@pytest.fixture
def board(monkeypatch, tmp_path):
    """A Board of given entries, through the reading and ranking that real ones take."""

    def make(*entries, **rules):
        for e in entries:
            folder = tmp_path / "track_x" / e.folder.name
            folder.mkdir(parents=True)
            (folder / "submission.json").write_text("{}")
        by_name = {e.folder.name: e for e in entries}
        monkeypatch.setattr(track, "RECORDS", tmp_path)
        monkeypatch.setattr(track, "load", lambda name: {**RULES, **rules})
        monkeypatch.setattr(leaderboard, "read_entry", lambda folder, _: by_name[folder.name])
        return leaderboard.read_board("track_x")

    return make


def records(board):
    return {e.folder.name for entries in board.lanes.values() for e in entries if e.record}


# ---- Ranks and records


def test_lanes_rank_apart_and_failing_entries_do_not(board):
    found = board(
        entry("slow", 2.2), entry("best", 2.1), entry("gpu", 1.9, "record"),
        entry("fat", 1.0, faults=["cap"]), entry(".new-x", 0.5),
    )  # fmt: skip
    assert list(found.lanes) == ["record", "open-hardware"]
    assert [e.folder.name for e in found.lanes["open-hardware"]] == ["best", "slow"]
    text = "\n".join(leaderboard.page_block(found))
    assert "| record | 1 | **1.9000 ± 0.0010** | 3 | 1,900,000 | 299 s | [gpu](gpu/) |" in text
    assert "| open-hardware | 2 | 2.2000 ± 0.0010 |" in text
    assert "| [fat](fat/) | [A](https://github.com/a-b) | 2026-01-01 | fails: cap |" in text
    assert "new-x" not in text and "1.0000" not in text and "| 2.3000 | `xz -9e` |" in text
    readme = "\n".join(leaderboard.readme_block([found]))
    assert "[gpu](records/track_x/gpu/)" in readme and "fat" not in readme


def test_records_in_the_order_of_their_dates(board):
    few = {"seeds": [{"val_bpb": 1.0, "val_loss": 1.0}] * 2}
    found = board(
        entry("few", 1.0, "record", "2026-01-01", **few),
        entry("first", 2.0, "record", "2026-01-02"),
        entry("close", 1.996, "record", "2026-01-03"),
        entry("second", 1.98, "record", "2026-01-04"),
        entry("late", 1.99, "record", "2026-01-05"),
        entry("other", 1.5, "open-hardware", "2026-01-06"),
    )
    assert records(found) == {"first", "second"}


def test_a_record_beats_the_best_entry_not_the_last_record_alone(board):
    """Rule 5.4, as check --record asks it."""
    entries = [entry(f"e{i}", 2.0 - 0.004 * i, "record", f"2026-01-0{i + 1}") for i in range(4)]
    assert records(board(*entries)) == {"e0"}


def test_a_named_baseline_is_what_the_first_record_beats(board):
    entries = [entry("base", 2.0, "record", "2026-01-02"), entry("close", 1.996, "record")]
    assert records(board(*entries, baseline="base")) == set()


def test_the_readme_shows_the_best_of_each_lane_alone(board):
    found = board(*(entry(f"e{i:02}", 2 + i / 100) for i in range(12)))
    readme, page = leaderboard.readme_block([found]), leaderboard.page_block(found)
    assert sum("| open-hardware |" in line for line in readme) == leaderboard.README_ROWS
    assert sum("| open-hardware |" in line for line in page) == 12


# ---- Foreign words


HOSTILE = (
    "x | y | <img src=x onerror=alert(1)> [link](javascript:alert(1)) `code` **b** _i_ ~s~ \\",
    "a\nb\r\n\n# heading\n<!-- end of leaderboard -->",
    "![i](http://example.org/i.png) &lt;b&gt; $x^2$ :tada: @someone #12 https://example.org",
    "\u202eright to left \x1b[31m \x00 \u200b",
    leaderboard.END,
)


@pytest.mark.parametrize("words", HOSTILE)
def test_foreign_words_stay_words(board, words):
    found = board(entry("x", 2.0, name=words, author=words, hardware=words, date=words[:10]))
    row = next(line for line in leaderboard.page_block(found) if "| 1 |" in line)
    assert "\n" not in row and row.count("|") == 12
    cells = row.split(" | ")
    links = [re.fullmatch(r"\[(.*)\]\((x/|https://github.com/a-b)\)", c) for c in (cells[6], cells[7])]
    for inner in (*(link[1] for link in links), cells[8], cells[9]):
        assert not set(re.sub(r"&#\d+;", "", inner)) & set("|<>[]()`*_~\\!#$:@&{}/.")
        assert html.unescape(inner).isprintable()
    assert html.unescape(links[0][1]) == leaderboard.plain(words, 60)


@pytest.mark.parametrize(
    ("github_id", "linked"),
    [("a", True), ("a-b9", True), ("-a", False), ("a/../b", False), ("a)(b", False), (7, False)],
)
def test_only_a_github_name_becomes_a_link(board, github_id, linked):
    assert ("github.com" in leaderboard.author(entry("x", 2.0, github_id=github_id))) == linked


def test_a_folders_name_cannot_leave_its_link():
    one = entry("javascript:alert(1) [x]", 2.0)
    assert leaderboard.entry_link(one, "").endswith("](javascript%3Aalert%281%29%20%5Bx%5D/)")


def test_entries_that_say_nothing_still_have_a_row():
    for claim in ({}, {"name": 7, "author": None, "github_id": [], "date": " "}):
        one = leaderboard.Entry(REPO / "records/track_x/junk", claim, ["json"], [])
        found = leaderboard.Board(RULES, {}, [one])
        assert "fails: json" in "\n".join(leaderboard.page_block(found))


# ---- The picture


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
def test_inks_read_on_light_and_dark_pages(page):
    """Contrast as WCAG 2.2 defines it; 3:1 is what it asks of large text and of graphics."""
    inks = {leaderboard.INK: 3.9, **dict.fromkeys(leaderboard.LANE_COLOURS.values(), 3)}
    for ink, needed in inks.items():
        light, dark = sorted((luminance(ink), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= needed, ink


def test_picture_is_the_same_each_time_and_knows_its_data(board, tmp_path):
    found = board(
        entry("star", 1.9, "record", name="$\\frac</svg>& 名"), entry("dot", 2.1),
        entry("fat", 0.1, faults=["cap"], bytes_total=9_000_000),
    )  # fmt: skip
    panels = leaderboard.picture_data([found])
    assert [p["val_bpb"] for p in panels[0]["points"]] == [1.9, 2.1]
    assert [p["record"] for p in panels[0]["points"]] == [True, False]
    content = leaderboard.draw(panels)
    assert content == leaderboard.draw(panels)
    ET.fromstring(content)
    path = tmp_path / "x.svg"
    path.write_bytes(content)
    assert leaderboard.is_drawn(path, panels)
    panels[0]["points"][0]["val_bpb"] += 1e-6
    assert not leaderboard.is_drawn(path, panels)
    assert b"<script" not in content and b"20" + b"26-" not in content  # and no date


def test_an_empty_picture():
    ET.fromstring(leaderboard.draw([]))


def test_labels_keep_apart():
    class Axes:
        def get_ylim(self):
            return 0.0, 1.0

    items = [{"val_bpb": value} for value in (0.5, 0.1, 0.5, 0.51)]
    heights = sorted(leaderboard.spread_labels(Axes(), items))
    assert heights[0] == 0.1 and min(np.diff(heights)) > 0.079


# ---- The command


def test_command_on_real_entries(made, tmp_path):  # noqa: F811
    """Written from a clone's records, then up to date until something changes."""
    repo = shutil.copytree(made[0], tmp_path / "repo")
    mark = f"{leaderboard.BEGIN}\n{leaderboard.END}"
    home = repo / "records/track_tiny"
    for path in (repo / "README.md", home / "README.md"):
        path.write_text(f"above\n{mark}\nbelow\n")
    (repo / "docs").mkdir()
    (home / "bad").mkdir()
    (home / "bad/submission.json").write_text('{"val_bpb": 0.1}')

    def run(*args):
        return run_script("golf.sh", "leaderboard", *args, repo=repo)

    stale = run("--check")
    assert stale.returncode == 1 and len(stale.stderr.splitlines()) == 1
    assert "README.md, records/track_tiny/README.md, docs/leaderboard.svg" in stale.stderr
    done = run()
    assert done.returncode == 0 and "leaderboard: 1 ranked, 1 not ranked" in done.stdout, done.stderr
    assert run("--check").returncode == 0 and "wrote" not in run().stdout
    page = (home / "README.md").read_text()
    assert page.startswith("above\n") and page.endswith("\nbelow\n")
    assert re.search(r"\| record \| 1 \| \*\*\d\.\d{4} ± ", page) and "[my idea]" in page
    assert re.search(r"\(bad/\) \| .* \| fails: .*file-required", page)
    assert "[my idea](records/track_tiny/" in (repo / "README.md").read_text()
    shutil.rmtree(home / made[1].name)
    assert run("--check").returncode == 1
    (home / "README.md").write_text("no markers\n")
    missing = run()
    assert missing.returncode == 1 and "needs these two lines" in missing.stderr


def test_ours_is_up_to_date():
    done = run_script("golf.sh", "leaderboard", "--check")
    assert done.returncode == 0, done.stderr


def test_every_lane_has_a_colour():
    lanes = {lane for name in track.names() for lane in track.load(name)["lanes"]}
    assert lanes <= set(leaderboard.LANE_COLOURS)


def test_the_samples_xz_figure_is_what_xz_gives(tmp_path):
    """On the text of the scored targets; other versions of xz may differ by a few bytes."""
    builder = [sys.executable, REPO / "data/build_sample_dataset.py", "--out", tmp_path]
    subprocess.run(builder, check=True, capture_output=True)
    rules = json.loads((REPO / "records/track_sample_5min/track.json").read_text())
    shard = tmp_path / "datasets/sample_sp1024" / rules["data"]["val_file"]
    tokens = np.fromfile(shard, "<u2", offset=1024)[: rules["targets"] + 1]
    model = spm.SentencePieceProcessor(model_file=str(REPO / "data/sample_1024_bpe.model"))
    documents = np.split(tokens, np.flatnonzero(tokens == model.bos_id()))
    text = "".join(model.decode(d[1:].tolist()) for d in documents if len(d)).encode()
    bits = 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
    (xz,) = [r for r in rules["references"] if r["name"].startswith("xz")]
    assert xz["val_bpb"] == pytest.approx(bits, abs=0.002) and f"{len(text):,} bytes" in xz["how"]
