"""The README's pictures are of what lies in records/."""

import xml.dom.minidom
from html import unescape
from types import SimpleNamespace

import pytest
from conftest import passed, run_golf
from golf.core.errors import GolfError
from golf.see import pictures


def test_ours_are_up_to_date():
    passed(run_golf("pictures", "--check"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "FOLDER", tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_they_are_drawn_once_and_stale_when_the_entry_changes(folder, monkeypatch):
    with pytest.raises(GolfError, match="stale: .*curve.svg, .*explain.svg, .*terminal.svg"):
        pictures.main(SimpleNamespace(check=True))
    assert pictures.main(SimpleNamespace(check=False)) == 0 == pictures.main(SimpleNamespace(check=True))
    for path in folder.iterdir():
        xml.dom.minidom.parseString(path.read_bytes())
    monkeypatch.setattr(pictures, "VERSION", pictures.VERSION + 1)
    with pytest.raises(GolfError, match="stale"):
        pictures.main(SimpleNamespace(check=True))


@pytest.mark.slow
def test_the_terminal_shows_the_entrys_own_figures():
    text = pictures.terminal(pictures.control()).decode()
    claim = pictures.submission.read_claim(pictures.control())
    assert f"val_bpb:{claim['seeds'][0]['val_bpb']:.8f}" in text
    assert f"quant_zlib:{claim['seeds'][0]['bytes_total']} bytes" in text
    assert claim["command"].split()[-1] in text
    shown = pictures.written(pictures.control())[:60].rsplit(" ", 1)[0]
    assert shown in unescape(text) and len(shown) > 30
