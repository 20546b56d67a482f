"""Where the sample text comes from: packages of named versions, of which prose alone is kept."""

import gzip
import json
import lzma
import re
import shutil
import subprocess

import pytest
from conftest import REPO, load_script

builder = load_script(REPO / "data" / "build_sample_text.py")

needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="NOT TESTED: no dpkg-deb here")
SENTENCE = "A page that says something in plain words, as people do when they explain a thing. "

PAGE = f"""<html><head><title>No</title><style>p {{ color: red }}</style></head><body>
<div class=nosearch><div><a href="x.html">Menu entry that leads elsewhere</a></div></div>
<script>var no = 1 < 2;</script>
<h1>1. What it is</h1>
<p>{SENTENCE * 6}It is <b>fast</b> &amp; <a href="y.html">small</a>.
<pre>SELECT no FROM nowhere;</pre>
<ul><li>An item with a sentence of its own.<li>Another item, which follows the first.</ul>
<table><tr><td>No cell of a table</td></tr></table>
<h2>1.1. More of it</h2><p>{SENTENCE * 30}</p>
<p>x = sqlite3_open(&amp;db, 0x7f) ^ 3;</p>
<p align="center"><small>This page last modified on a day</small></p>
</body></html>"""


def test_a_page_gives_its_prose_alone():
    found = builder.sqlite_documents({"./usr/share/doc/sqlite3/about.html": PAGE.encode()})
    text = "\n\n".join(sorted(found, key=len))
    assert text.startswith("What it is\n\n") and "More of it" in text
    assert "It is fast & small." in text and "An item with a sentence" in text
    for no in ("No", "Menu", "var", "SELECT", "cell", "sqlite3_open", "modified", "<", "1.1."):
        assert no not in text


@pytest.mark.parametrize("name", ["sitemap", "keyword_index", "syntaxdiagrams", "copyright", "capi3ref"])
def test_lists_and_indexes_are_no_pages(name):
    assert builder.sqlite_documents({f"./usr/share/doc/sqlite3/{name}.html": PAGE.encode()}) == []
    assert builder.sqlite_documents({"./usr/share/doc/sqlite3/c3ref/about.html": PAGE.encode()}) == []


JARGON = f"""The Jargon File
   Bibliography
                          Welcome to the Jargon File

   {SENTENCE * 20}

Glossary

   foo

   :foo: /foo/, interj.

   {SENTENCE * 8}See also {{bar}} and {{baz}}.

   :bar: /bar/

   See {{foo}}.

   :baz: n.

   A word with a drawing, which is left out of this text as all of them are.

      +-----+     +-----+
      |  x  |     |  y  |

Appendix\u00a0A.\u00a0Hacker Folklore

   {SENTENCE * 20}
"""


def test_entries_of_the_jargon_file_are_gathered_without_links_and_drawings():
    files = {"./usr/share/doc/jargon-text/jargon.txt.gz": gzip.compress(JARGON.encode())}
    text = "\n\n".join(builder.jargon_documents(files))
    assert "foo, interj.\n\nA page" in text and "See also bar and baz." in text and "baz, n.\n\n" in text
    assert not re.search(r"[{}|+]|/foo/|bar\n\nSee foo", text)


def test_entries_of_the_devils_dictionary():
    body = (
        f"_The Devil's Dictionary_ was begun.\n\nABATIS, n.  {SENTENCE} -- _sic_\nand so on.\n\n"
        "NASTY, n.  A shitty thing to say.\n\nZEAL, n.  A certain nervous disorder of the young.\n\n"
        "    In verse,\n    it rhymes.\n"
    )
    files = {"./usr/share/dictd/devil.dict.dz": gzip.compress(b"header\n\n" + body.encode())}
    text = "\n\n".join(builder.devil_documents(files))
    assert text.startswith("The Devil's Dictionary was begun.") and "— sic and so on." in text
    assert "ZEAL, n. A certain nervous disorder of the young.\n\nIn verse, it rhymes." in text
    assert "NASTY" not in text


def test_what_repeats_is_dropped():
    one = " ".join(f"word{i}" for i in range(200))
    same = f"Another beginning. {one[:1200]}"
    other = " ".join(f"term{i}" for i in range(100)) + "\n\n" + one
    kept = builder.drop_repeats([one, same, other])
    assert one in kept and same not in kept
    assert [text for text in kept if text != one] == [other.split("\n\n")[0]]


# ---- Packages


def make_deb(folder, name, version):
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN").chmod(0o755)  # dpkg-deb wants it so, whatever the umask
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
    (root / "DEBIAN" / "control").write_text(control)
    (root / "usr").mkdir()
    (root / "usr" / "text").write_text("inside")
    command = ["dpkg-deb", "--build", root, folder / f"{name}_{version}_all.deb"]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(root)


@needs_dpkg
def test_a_packages_files_are_read(tmp_path):
    make_deb(tmp_path, "dict-devil", builder.PACKAGES["dict-devil"])
    assert builder.read_package(tmp_path, "dict-devil") == {"./usr/text": b"inside"}


@needs_dpkg
@pytest.mark.parametrize(
    "version, message", [("9.9-1", "is version 9.9-1; the sample text is made"), (None, "apt-get download")]
)
def test_another_version_or_none_is_one_line(version, message, tmp_path, capsys):
    if version:
        make_deb(tmp_path, "sqlite3-doc", version)
    assert builder.main([str(tmp_path), "--out", str(tmp_path / "text.jsonl.xz")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and not (tmp_path / "text.jsonl.xz").exists()


# ---- The text that is committed


def test_the_committed_text_is_prose_and_its_licence_lies_beside():
    packed = (REPO / "data" / "sample_text.jsonl.xz").read_bytes()
    texts = [json.loads(line)["text"] for line in lzma.decompress(packed).decode().splitlines()]
    assert 2_400_000 < sum(len(text.encode()) for text in texts) < 2_800_000 and len(packed) < 1_000_000
    assert min(map(len, texts)) >= builder.MIN_CHARS and len(set(texts)) == len(texts)
    for pattern in (r"</?[a-z]+[ >]\w*=", r"&[a-z]+;", r"\{\w+\}", "sqlite>", "last modified on", "\t"):
        assert sum(bool(re.search(pattern, text)) for text in texts) <= 3, pattern
    assert not any(builder.COARSE.search(text) for text in texts)
    licence = (REPO / "data" / "SAMPLE_TEXT_LICENSE").read_text()
    assert all(f"{name} {version}" in licence for name, version in builder.PACKAGES.items())
    assert licence.lower().count("public domain") >= 3
