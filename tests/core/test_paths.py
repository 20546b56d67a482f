"""Paths as people read them."""

from golf.core import paths


def test_a_path_is_shown_in_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert paths.shown(tmp_path / "a b" / "c") == "a b/c"
    assert paths.shown(paths.REPO / "docs") == "docs"
    assert paths.shown("/none/two\nlines\x1b[2J") == "/none/two?lines?[2J"
