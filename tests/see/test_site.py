"""The board as a site: nothing foreign gets through, and it works in a real browser."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import contrast, passed, run_golf
from golf.board import leaderboard, ranking, site
from golf.core import track
from golf.core.errors import GolfError
from golf.core.submission import read_claim

from .conftest import ENTRY, opened

EVIL = "<script>alert(1)</script>\"'&"
README = f"""# Title

{EVIL} <img src=x onerror=alert(1)> [a](javascript:alert(1)) ![b](http://example.org/b.png)

| a | b |
| --- | --- |
| 1 | {"x" * 300} |
"""


def entry(folder: Path, name: str, bpb: float, lane: str = "open-hardware", **claim) -> ranking.Entry:
    """An entry on the board, of a folder that lacks its artifact."""
    folder = folder / name.replace("/", "_")
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(claim.pop("readme", "# It\n\nwords\n"))
    for path in [ENTRY / "train_gpt.py", *ENTRY.glob("metrics_seed1337.jsonl")]:
        shutil.copy(path, folder)
    value = {**read_claim(ENTRY), "name": name, "val_bpb": bpb, "lane": lane, **claim}
    known = dict.fromkeys(("verdict", "time", "device", "machine"), "x")
    return ranking.Entry(folder, value, [], [], audit={**known, "rules": []})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The site of a board with four entries, one of them hostile; its folder."""
    folder, rules = tmp_path_factory.mktemp("site"), track.load("track_sample_5min")
    home = folder / "records"
    best = entry(home, "best", 1.5, "record", date="2026-03-01", bytes_total=1_999_999)
    best.record = True
    best.audit = {"verdict": "PASS", "time": "2026", "device": "cpu", "machine": EVIL,
                  "rules": [["7", "causal", "NEEDS-HUMAN", EVIL]]}  # fmt: skip
    evil = entry(home, f"z{EVIL}", 1.9, blurb=EVIL, author=EVIL, readme=README, hardware=EVIL)
    (evil.folder / "train_gpt.py").write_text(f"# {EVIL}\n")
    tenth = entry(home, "tenth", 1.75, bytes_total=900, train_seconds=12.0)
    broken = ranking.Entry(home / "broken", {}, ["unreadable"], [])
    (home / "broken").mkdir()
    boards = [ranking.Board(rules, {"record": [best], "open-hardware": [tenth, evil]}, [broken])]
    boards.append(ranking.Board(track.load("track_30min_2mb_local"), {}, []))
    assert site.write(boards, folder / "site") == 6
    return folder / "site"


def test_every_entry_has_a_page_and_every_link_leads_to_one(made):
    pages = list(made.rglob("*.html"))
    assert len(pages) == 6
    for page in pages:
        for link in re.findall(r'href="([^"#:]+)(?:#[^"]*)?"', page.read_text()):
            if not link.startswith("data") and "articles" not in link and page.name != "rules.html":
                assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_what_is_foreign_is_escaped_everywhere(made):
    for page in made.rglob("*.html"):
        text = page.read_text()
        assert "<script>alert" not in text and "<img src=x" not in text and 'href="javascript' not in text
        assert not re.search(r'src="(?!data:image/svg)', text), page
        assert text.count("<script>") == (page.name == "index.html")
        assert "default-src 'none'" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in (made / "index.html").read_text()


def test_an_entry_says_what_it_lacks(made):
    (page,) = (made / "entries").rglob("best-*.html")
    text = page.read_text()
    assert text.count("Not here: ") == 2 and "<h2>Curves</h2>" in text and "data:image/svg" in text
    (broken,) = (made / "entries").rglob("broken-*.html")
    assert "fails: unreadable" in broken.read_text() and "its score is a claim" in broken.read_text()
    assert "seed 7: 1 rules, NEEDS-HUMAN" in text and "<td>causal</td><td>NEEDS-HUMAN</td>" in text
    assert "its score is a claim" not in text


def test_the_diff_is_against_what_the_script_builds_on(tmp_path):
    mine = entry(tmp_path, "mine", 2.0).folder
    script = mine / "train_gpt.py"
    script.write_text(script.read_text().replace("relu(", "gelu(", 1) + "\n# <b>mine</b>\n")
    found = site.difference(mine)
    assert "2026-11-29" in found["head"] and ("add", "+# <b>mine</b>") in found["lines"]
    assert found["added"] >= 2


def test_junk_that_nobody_foresaw_costs_its_own_section_alone(tmp_path):
    """A link to itself, which Python before 3.13 tells by an error of its own."""
    folder = entry(tmp_path, "loop", 2.0).folder
    (folder / "final_model_seed1337.int8.zlib").symlink_to("final_model_seed1337.int8.zlib")
    assert site.section(lambda: site.report.samples(site.reader.find(folder))).missing
    assert site.section(lambda: {}["x"]).missing == "KeyError: 'x'"


def test_a_folder_with_something_else_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("mine")
    monkeypatch.setattr(leaderboard, "read_board", None)  # it is told before entries are checked
    with pytest.raises(GolfError, match="holds something else"):
        leaderboard.main(SimpleNamespace(site=tmp_path, verified=None))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_its_script_is_short_and_has_no_address():
    text = (site.TEMPLATES / "site.js").read_text()
    assert text.count("\n") <= 200 and "http" not in text and "innerHTML" not in text


# ---- In a browser, which takes seconds to start


def names(page) -> list[str]:
    return [link.inner_text()[:5] for link in page.query_selector_all("#entries tbody tr:not([hidden]) a")]


@pytest.mark.slow
def test_sorting_by_mouse_and_keyboard(browser, made):
    page, errors = opened(browser, made / "index.html", 1200)
    assert names(page) == ["best", "tenth", f"z{EVIL}"[:5], "broke"]
    page.click("th button:text('val_bpb')")
    assert names(page) == ["best", "tenth", f"z{EVIL}"[:5], "broke"]
    page.click("th button:text('val_bpb')")  # the other way; what has no score stays last
    assert names(page) == [f"z{EVIL}"[:5], "tenth", "best", "broke"]
    page.focus("th button:text('bytes')")
    page.keyboard.press("Enter")
    assert names(page)[0] == "tenth"
    assert page.get_attribute("th:has(button:text('bytes'))", "aria-sort") == "ascending"
    assert page.query_selector_all("th[aria-sort]").__len__() == 1 and not errors


@pytest.mark.slow
def test_filtering(browser, made):
    page, errors = opened(browser, made / "index.html", 1200)
    page.fill("#search", "TEN th")
    assert names(page) == ["tenth"] and page.inner_text("#count") == "1 of 4 entries"
    page.fill("#search", "")
    page.select_option("select[name=lane]", "record")
    assert names(page) == ["best"]
    page.select_option("select[name=track]", "track_30min_2mb_local")
    assert names(page) == [] and not errors


@pytest.mark.slow
def test_opening_an_entry_and_going_back(browser, made):
    page, errors = opened(browser, made / "index.html", 390)
    page.click("#entries a:text('tenth')")
    assert page.inner_text("h1") == "tenth"
    page.click("nav a:text('Leaderboard')")
    assert page.title() == "Parameter Golf Local: leaderboard" and not errors


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_no_page_scrolls_sideways_or_complains(browser, made, width, theme):
    """The screenshots in the test's output are for people to look at."""
    for path in sorted(made.rglob("*.html")):
        page, errors = opened(browser, path, width, theme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        assert not errors, path.name
        page.screenshot(path=made.parent / f"{path.stem[:20]}-{width}-{theme}.png")
        page.close()
    assert len(list(made.parent.glob(f"*-{width}-{theme}.png"))) == 6


@pytest.mark.slow
def test_light_and_dark_differ_and_text_can_be_read(browser, made):
    contrasts = {}
    for theme in ("light", "dark"):
        page, _ = opened(browser, made / "index.html", 390, theme)
        read = "e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
        for name in ("p", ".blurb", "a"):
            colours = [map(int, re.findall(r"\d+", text)[:3]) for text in page.eval_on_selector(name, read)]
            contrasts[theme, name] = contrast(*colours)
    assert min(contrasts.values()) >= 4.5, contrasts


@pytest.mark.slow
def test_the_command_writes_the_real_board(tmp_path):
    """Only that it is whole: the samples take a sandbox and some seconds."""
    passed(run_golf("leaderboard", "--site", tmp_path / "out"))
    claims = list((ENTRY.parents[1]).glob("*/*/submission.json"))
    assert len(list((tmp_path / "out" / "entries").rglob("*.html"))) == len(claims)
    index = (tmp_path / "out" / "index.html").read_text()
    for path in claims:
        assert json.loads(path.read_text())["name"] in index
