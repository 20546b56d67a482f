"""golf leaderboard: ranks, records, hostile words, the picture, and that ours is up to date."""

import html
import json
import lzma
import os
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm
from check_kit import another_run, edit, edit_track, write
from conftest import REPO, contrast, passed, refused, run_golf, run_script
from golf.board import charts, leaderboard, ranking, tables, verified
from golf.check import code as check_code
from golf.check import command as check
from golf.core import picture, submission, track
from golf.core.errors import GolfError
from golf.core.files import sha256
from golf.core.text import cell, plain
from matplotlib.figure import Figure
from test_ci import commit, git

RULES = {
    "name": "track_x",
    "title": "A track",
    "cap_bytes": 2_000_000,
    "targets": 100,
    "data": {"name": "text"},
    "lanes": ["record", "open-hardware"],
    "record_rule": {"test": "welch-one-sided", "improvement_nats": 0.005, "p": 0.01, "min_seeds": 3},
    "chart_scores": [{"name": "xz", "val_bpb": 2.3, "how": "`xz -9e`"}],
}

audit_of = submission.audit_of


@pytest.fixture(autouse=True)
def scored_whole(monkeypatch):
    """All entries count as scored by a maintainer."""
    monkeypatch.setattr(submission, "audit_of", lambda folder: {"rules": []})


def entry(folder, bpb, lane="open-hardware", date="2026-01-01", **more):
    """An entry whose seeds lie 0.001 nats around."""
    losses = [bpb + x for x in (-0.001, 0, 0.001)]
    claim = {
        "name": folder, "author": "A", "github_id": "a-b", "date": date, "lane": lane,
        "hardware": "a CPU", "val_bpb": bpb, "bytes_total": 1_900_000, "train_seconds": 299.0,
        "seeds": [{"val_bpb": x, "val_loss": x, "artifact": "a"} for x in losses], **more,
    }  # fmt: skip
    faults = claim.pop("faults", [])
    return ranking.Entry(REPO / "records/track_x" / folder, claim, faults, claim.pop("notes", []))


@pytest.fixture
def board(monkeypatch, tmp_path):
    """A Board of given entries, through the reading and ranking that real ones take."""

    def make(*entries, **rules):
        for e in entries:
            folder = tmp_path / "track_x" / e.folder.name
            folder.mkdir(parents=True)
            (folder / "submission.json").write_text("{}")
            e.folder = folder
        by_name = {e.folder.name: e for e in entries}
        monkeypatch.setattr(track, "RECORDS", tmp_path)
        monkeypatch.setattr(track, "load", lambda name: {**RULES, **rules})
        monkeypatch.setattr(ranking, "read_entry", lambda folder, _: by_name[folder.name])
        return ranking.read_board("track_x")

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
    text = "\n".join(tables.page_block(found))
    assert "| record | 1 | **1.9000 ± 0.0010** | 3 | 1,900,000 | 299 s | [gpu](gpu/) |" in text
    assert "| open-hardware | 2 | 2.2000 ± 0.0010 |" in text
    assert "| [fat](fat/) | [A](https://github.com/a-b) | 2026-01-01 | fails: cap |" in text
    assert "new-x" not in text and "1.0000" not in text and "| 2.3000 | `xz -9e` |" in text
    readme = "\n".join(tables.readme_block([found]))
    assert "[gpu](records/track_x/gpu/)" in readme and "fat" not in readme


def test_records_in_the_order_of_their_dates(board):
    few = {"seeds": [{"val_bpb": 1.0, "val_loss": 1.0, "artifact": "a"}] * 2}
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
    assert records(board(*entries, record_baseline="base")) == set()


def test_the_readme_shows_the_best_of_each_lane_alone(board):
    found = board(*(entry(f"e{i:02}", 2 + i / 100) for i in range(12)))
    readme, page = tables.readme_block([found]), tables.page_block(found)
    assert sum("| open-hardware |" in line for line in readme) == tables.README_ROWS
    assert sum("| open-hardware |" in line for line in page) == 12


# ---- Forged and broken entries on a real board, in the order that git tells


@pytest.fixture
def real(made, tmp_path, monkeypatch):
    """A repository whose main has one honest entry, `first`; others are added and merged."""
    monkeypatch.setattr(track, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(check_code, "RULES", ())
    home = tmp_path / "records/track_tiny"
    home.mkdir(parents=True)
    shutil.copy(made[0] / "records/track_tiny/track.json", home)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(tmp_path))

    def add(name, merge=True, better=0.0, **changes):
        """A copy of the submission with logs of its own, `better` nats a target better."""
        folder = Path(shutil.copytree(made[1], home / name))
        another_run(folder, name, better)
        edit(folder, lambda v: v.update(changes))
        if merge:
            commit(tmp_path)
        return folder

    add.home = home
    add("first")
    return add


def ranked(board):
    return [e.folder.name for entries in board.lanes.values() for e in entries]


def reasons(board):
    return {e.folder.name: e.unranked for e in board.unranked}


def read(real):
    return ranking.read_board("track_tiny")


def without_artifacts(folder, *seeds):
    def change(v):
        for seed in v["seeds"]:
            if seed["seed"] in seeds:
                (folder / seed["artifact"]).unlink()
                v["files"] = [f for f in v["files"] if f["path"] != seed["artifact"]]
                seed["artifact"] = None

    edit(folder, change)


@pytest.mark.parametrize("lane", ["record", "open-hardware"])
@pytest.mark.parametrize("seeds", [(1, 2, 3), (2, 3), (3,)])
def test_no_artifact_no_rank(real, lane, seeds):
    """An invented score led the board; one real seed with two invented ones was a record."""
    without_artifacts(real("forged", better=1.0, lane=lane), *seeds)
    board = read(real)
    assert ranked(board) == ["first"] and records(board) == {"first"}
    assert ("not-rescorable" if lane == "record" else "cannot be scored again") in reasons(board)["forged"]
    assert "forged" in "\n".join(tables.page_block(board))


def test_the_order_of_merging_counts_not_a_claimed_date(real):
    """A later entry states an earlier date, so that the earlier would be no record."""
    real("middle", better=0.1, date="2026-11-20")
    real("late", better=0.2, date="2026-01-02")
    assert records(read(real)) == {"first", "middle", "late"}
    real("later", better=0.15, date="2026-01-01")
    assert records(read(real)) == {"first", "middle", "late"}
    assert [*ranking.merge_order(real.home)] == ["first", "middle", "late", "later"]


def test_a_merge_counts_when_it_came_not_when_its_commit_was_made(real, tmp_path):
    git(tmp_path, "checkout", "--quiet", "-b", "side")
    real("side", better=0.01)
    git(tmp_path, "checkout", "--quiet", "main")
    real("main")
    git(tmp_path, "merge", "--quiet", "--no-edit", "side")
    assert [*ranking.merge_order(real.home)] == ["first", "main", "side"]


def test_what_is_removed_and_comes_back_keeps_its_place(real, tmp_path):
    """As the commits of a pull request may do it to another's entry, when they are rebased onto main."""
    real("second")
    for text in ("{}", (real.home / "first/submission.json").read_text()):
        shutil.move(real.home / "first", tmp_path / "away")
        commit(tmp_path)
        shutil.move(tmp_path / "away", real.home / "first")
        (real.home / "first/submission.json").write_text(text)
        commit(tmp_path)
    order = ranking.merge_order(real.home)
    assert order["first"] < order["second"]
    shutil.move(real.home / "first", real.home / "third")
    commit(tmp_path)
    assert ranking.merge_order(real.home)["third"] > order["second"]


def test_a_copy_of_an_entry_has_no_rank(real):
    folder = shutil.copytree(real.home / "first", real.home / "a_copy")
    edit(folder, lambda v: v.update(author="M", github_id="m", date="2026-01-01"))
    board = read(real)
    assert ranked(board) == ["first"] and "same log or artifact as first" in reasons(board)["a_copy"]


def test_a_claim_takes_no_rank_from_whose_run_it_copied(real, monkeypatch):
    """From an open pull request: merged before, as seeds of its own or as one log more."""
    monkeypatch.setattr(submission, "audit_of", lambda place: None if place.name == "a_claim" else {})
    real("a_claim", better=0.3, merge=False)
    more = real("a_log", better=0.1, merge=False)
    later = real("later", better=0.3, merge=False)
    write(more, "notes.log", (later / "train_seed2.log").read_bytes(), "log")
    board = read(real)
    assert ranked(board) == ["later", "a_log", "first"] and "claimed" in reasons(board)["a_claim"]


def test_weights_packed_anew_have_no_rank(real):
    """Other bytes in every file, the same run: its scores tell."""
    real("repacked", better=1e-6)
    board = read(real)
    assert ranked(board) == ["first"] and "same log or artifact" in reasons(board)["repacked"]


def test_an_incomplete_baseline_is_none_to_beat(real):
    folder = real("base", lane="open-hardware")
    without_artifacts(folder, 1)
    edit_track(folder, lambda v: v.update(record_baseline="base"))
    assert records(read(real)) == set()


LINKS = {
    "an entry": lambda home, away: (home / "linked").symlink_to(away),
    "a file": lambda home, away: [
        (home / "linked").mkdir(), (home / "linked/submission.json").symlink_to(away / "submission.json"),
    ],
    "a loop": lambda home, away: (home / "linked").symlink_to("linked"),
    "a track": lambda home, away: (home.parent / "track_linked").symlink_to(home),
}  # fmt: skip


@pytest.mark.parametrize("make", LINKS.values(), ids=LINKS)
def test_links_are_not_followed(real, tmp_path, make):
    away = real("away", merge=False, better=1.0).rename(tmp_path / "away")
    make(real.home, away)
    assert ranked(read(real)) == ["first"] and track.names() == ["track_tiny"]


BROKEN = {
    "a pipe": lambda f: [(f / "submission.json").unlink(), os.mkfifo(f / "submission.json")],
    "a folder": lambda f: [(f / "submission.json").unlink(), (f / "submission.json").mkdir()],
    "a list": lambda f: (f / "submission.json").write_text("[]"),
    "megabytes": lambda f: (f / "submission.json").write_text(" " * (3 << 20)),
    "depth": lambda f: (f / "submission.json").write_text("[" * 99999),
    "null": lambda f: edit(f, lambda v: v.update(seeds=None, files=None, name=None, lane=None)),
    "numbers": lambda f: edit(f, lambda v: v.update(val_bpb=True, date=7, author=[1])),
    "a bad name": lambda f: f.rename(f.with_name("](javascript:alert(1)) | x\n# y")),
    "half a name": lambda f: os.rename(os.fsencode(f), os.fsencode(f) + b"\xff"),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_one_broken_entry_never_takes_the_board_down(real, spoil):
    spoil(real("broken", merge=False, better=1.0))
    board = read(real)
    text = "\n".join([*tables.page_block(board), *tables.readme_block([board])])
    assert ranked(board) == ["first"] and len(board.unranked) == 1
    assert "javascript:" not in text and "\n# y" not in text and text.encode("utf-8")


def test_an_entry_that_the_check_falls_over_is_listed_without_a_rank(real, monkeypatch, capsys):
    real("odd", better=1.0)

    def fall(folder, rules):
        if folder.name == "odd":
            raise RuntimeError("not foreseen")
        return plain(folder, rules)

    plain = check.check_folder
    monkeypatch.setattr(check, "check_folder", fall)
    board = read(real)
    assert ranked(board) == ["first"] and reasons(board) == {"odd": "fails: unreadable"}
    assert "RuntimeError" in capsys.readouterr().err


def test_an_entry_has_no_rank_until_it_was_scored_whole(real, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "audit_of", audit_of)
    folder = real.home / "first"
    path = tmp_path / "runs/score-first/audit.json"
    monkeypatch.setattr(verified, "report_path", {folder.resolve(): path}.get)

    def claimed():
        board = read(real)
        assert bool(board.lanes) != bool(board.unranked)
        return reasons(board).get("first", "").startswith("claimed: a maintainer has yet to")

    assert claimed()
    with pytest.raises(GolfError, match="no report there"):
        verified.enter(folder)
    claim = json.loads((folder / "submission.json").read_text())
    seeds = [dict(seed=s["seed"], claimed=dict(val_bpb=s["val_bpb"]), official={**s}) for s in claim["seeds"]]
    report = dict(mode="whole", verdict="PASS", sandbox="bubblewrap", track="track_tiny", seeds=seeds)
    report["submission_sha256"] = sha256(folder / "submission.json")
    report["rules"] = [{"id": "control", "passed": True, "figure": "bigram"}]
    path.parent.mkdir(parents=True)
    first = seeds[0]["official"]
    (nats, size), *more = first["segments"]
    modest, disguised = {"val_bpb": first["val_bpb"] - 0.1}, {"segments": [[1.001 * nats, size], *more]}
    scores = None, first | modest, first | disguised
    wrong = [{"submission_sha256": "0" * 64}, {"mode": "quick"}, {"verdict": "FAIL"}, {"sandbox": "none"}]
    wrong += [{"track": "x"}, {"seeds": seeds[1:]}]
    wrong += [{"seeds": [{**seeds[0], "official": score}, *seeds[1:]]} for score in scores]
    for odd in wrong:
        path.write_text(json.dumps({**report, **odd}))
        with pytest.raises(GolfError):
            verified.enter(folder)
    path.write_text(json.dumps(report))
    (real.home / "verified.json").write_text('{"other": 1')
    with pytest.raises(GolfError, match="verified.json: not an object of JSON"):
        verified.enter(folder)  # which would write over what others' scores were
    (real.home / "verified.json").unlink()
    verified.enter(folder)
    assert not claimed()
    audit = read(real).lanes["record"][0].audit
    assert audit["verdict"] == "PASS" and audit["rules"] == [["", "control", "PASS", "bigram"]]
    edit(folder, lambda v: v.update(blurb="Now it is better."))
    assert claimed()
    for text in ("[", "[]", '{"first": 1}'):
        (real.home / "verified.json").write_text(text)
        assert claimed()


# ---- Foreign words


HOSTILE = (
    "x | y | <img src=x onerror=alert(1)> [link](javascript:alert(1)) `code` **b** _i_ ~s~ \\",
    "a\nb\r\n\n# heading\n<!-- end of leaderboard -->",
    "![i](http://example.org/i.png) &lt;b&gt; $x^2$ :tada: @someone #12 https://example.org",
    "\u202eright to left \x1b[31m \x00 \u200b",
    "1. a list. www.example.org; it's: a thing; #1: e.g.",
    tables.END,
)


@pytest.mark.parametrize("words", HOSTILE)
def test_foreign_words_stay_words(board, words):
    found = board(entry("x", 2.0, name=words, blurb=words, author=words, hardware=words, date=words[:10]))
    row = next(line for line in tables.page_block(found) if "| 1 |" in line)
    assert "\n" not in row and row.count("|") == 13
    cells = row.split(" | ")
    links = [re.fullmatch(r"\[(.*)\]\((x/|https://github.com/a-b)\)", c) for c in (cells[6], cells[8])]
    for inner in (*(link[1] for link in links), cells[7], cells[9], cells[10]):
        bare = re.sub(r"&#\d+;|(?<=[a-z])[.:;](?= |$)", "", inner)
        assert not set(bare) & set("|<>[]()`*_~\\!#$:@&{}/.;")
        assert html.unescape(inner).isprintable()
    assert html.unescape(links[0][1]) == plain(words, 60)


def test_numbers_and_names_stay_readable():
    text = "3.6 million at 4.1 bits on x86_64, in 2026."
    assert cell(text) == text
    assert cell("1. a, www.3.org, __b_ _c") == "1&#46; a, www&#46;3&#46;org, &#95;&#95;b&#95; &#95;c"


@pytest.mark.parametrize(
    ("github_id", "linked"),
    [("a", True), ("a-b9", True), ("-a", False), ("a/../b", False), ("a)(b", False), (7, False)],
)
def test_only_a_github_name_becomes_a_link(board, github_id, linked):
    assert ("github.com" in tables.author(entry("x", 2.0, github_id=github_id))) == linked


def test_a_folders_name_cannot_leave_its_link():
    one = entry("javascript:alert(1) [x]", 2.0)
    assert tables.entry_link(one, "").endswith("](javascript%3Aalert%281%29%20%5Bx%5D/)")


# ---- The picture


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
def test_inks_read_on_light_and_dark_pages(page):
    """Contrast as WCAG 2.2 defines it; 3:1 is what it asks of large text and of graphics."""
    inks = {picture.INK: 3.9, **dict.fromkeys(charts.LANE_COLOURS.values(), 3)}
    for ink, needed in inks.items():
        assert contrast(bytes.fromhex(ink[1:]), bytes.fromhex(page[1:])) >= needed, ink


@pytest.mark.slow
def test_picture_is_the_same_each_time_and_knows_its_data(board, tmp_path):
    found = board(
        entry("star", 1.9, "record", name="$\\frac</svg>& 名"), entry("dot", 2.1),
        entry("fat", 0.1, faults=["cap"], bytes_total=9_000_000),
    )  # fmt: skip
    assert [(p["val_bpb"], p["record"]) for p in charts.points(found)] == [(1.9, True), (2.1, False)]
    mark = leaderboard.picture_mark([found])
    content = picture.signed(leaderboard.draw([found]), mark)
    assert content == picture.signed(leaderboard.draw([found]), mark)
    ET.fromstring(content)
    path = tmp_path / "x.svg"
    path.write_bytes(content)
    assert picture.is_signed(path, mark)
    found.lanes["record"][0].claim["val_bpb"] += 1e-6
    assert not picture.is_signed(path, leaderboard.picture_mark([found]))
    assert b"<script" not in content


def test_a_record_is_a_star_and_the_best_so_far_a_line(board):
    found = board(
        entry("old", 2.2, "record", "2026-01-01"), entry("best", 1.9, "record", "2026-01-02"),
        entry("late", 2.0, date="2026-01-03"),
    )  # fmt: skip
    axes = Figure().subplots()
    charts.over_date(found, axes)
    assert axes.lines[0].get_ydata().tolist() == [2.2, 1.9, 1.9]
    charts.over_bytes(found, axes)
    assert axes.get_legend_handles_labels()[1] == ["record lane: set a record", "open-hardware lane"]
    assert {text.get_text() for text in axes.texts} == {"best: 1.9000", "cap", "xz: 2.3000"}


def test_an_empty_picture():
    ET.fromstring(leaderboard.draw([]))


# ---- The command


@pytest.mark.slow
def test_command_on_real_entries(made, tmp_path):
    """Written from a clone's records, then up to date until something changes."""
    repo = shutil.copytree(made[0], tmp_path / "repo")
    mark = f"{tables.BEGIN}\n{tables.END}"
    home = repo / "records/track_tiny"
    for path in (repo / "README.md", home / "README.md"):
        path.write_text(f"above\n{mark}\nbelow\n")
    (repo / "docs").mkdir()
    (home / "bad").mkdir()
    (home / "bad/submission.json").write_text('{"val_bpb": 0.1}')
    scored = {
        place.name: {"submission_sha256": sha256(place / "submission.json")}
        for place in submission.entry_folders(home)
    }
    (home / "verified.json").write_text(json.dumps(scored))

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
    refused(run(), "needs these two lines", code=1)


@pytest.mark.slow
def test_ours_is_up_to_date():
    passed(run_golf("leaderboard", "--check"))


def test_every_lane_has_a_colour():
    assert {lane for name in track.names() for lane in track.load(name)["lanes"]} <= set(charts.LANE_COLOURS)


@pytest.mark.slow
def test_the_samples_xz_figure_is_what_xz_gives(sample_data):
    """On the text of the scored targets; other versions of xz may differ by a few bytes."""
    rules = json.loads((REPO / "records/track_sample_5min/track.json").read_text())
    shard = sample_data / "datasets/sample_sp1024" / rules["data"]["val_file"]
    tokens = np.fromfile(shard, "<u2", offset=1024)[: rules["targets"] + 1]
    model = spm.SentencePieceProcessor(model_file=str(REPO / "data/sample_1024_bpe.model"))
    documents = np.split(tokens, np.flatnonzero(tokens == model.bos_id()))
    text = "".join(model.decode(d[1:].tolist()) for d in documents if len(d)).encode()
    bits = 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
    (xz,) = [r for r in rules["chart_scores"] if r["name"].startswith("xz")]
    assert xz["val_bpb"] == pytest.approx(bits, abs=0.002) and f"{len(text):,} bytes" in xz["how"]
