#!/usr/bin/env python3
"""Make data/sample_text.jsonl.xz from three Debian packages of public-domain English.

usage: apt-get download sqlite3-doc jargon-text dict-devil
       python3 data/build_sample_text.py FOLDER-OF-THE-DEBS [--out FILE]

Run once; its result is committed. The text must not lie on a machine that scores, where an entry
could read it, so it comes from packages that nothing here needs: SQLite's documentation, the Jargon
File and The Devil's Dictionary. Only the versions below give the committed text; another one ends
with an error. One {"text": ...} a line: a document is a page or a chapter (a long one in parts of
whole sections), or a few neighbouring entries of a dictionary. Only prose is kept: no navigation,
code, tables or drawings. The three dedications to the public domain go beside the output.
"""

from __future__ import annotations

import argparse
import gzip
import io
import itertools
import json
import lzma
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

PACKAGES = {"sqlite3-doc": "3.40.1-2+deb12u2", "jargon-text": "4.4.7-4.1", "dict-devil": "1.0-13.1"}
DOCUMENT_CHARS = 1_500  # entries and sections are gathered up to about this length
SQLITE_CHARS = 900_000  # so that no source has more than about half
MIN_CHARS = 300
RUN_WORDS, MAX_REPEATED = 13, 0.1  # at most this share of a document's runs of 13 words
SHUFFLE_SEED = 1337

# Pages of SQLite's documentation that are lists, indexes, syntax diagrams or licences.
NOT_PROSE = re.compile(
    r"doc_.*|.*index|sitemap|requirements|syntax.*|docs|changes|chronology|download|c_interface|books|"
    r"capi3ref|news|oldnews|copyright.*|consortium.*|crew|vtablist|lang_keywords|prosupport|support"
)
LEFT_OUT_TAGS = {"head", "script", "style", "pre", "table", "svg", "form", "button", "small"}
LEFT_OUT_CLASSES = ("nosearch", "fancy_toc", "codeblock", "imgcontainer", "columns", "mobileonly")
SECTION = "\f"  # stands before a heading
COARSE = re.compile(r"nigger|fuck|shit|cunt|\brap(e|es|ed|ist|ists|ing)\b", re.IGNORECASE)


class ProseParser(HTMLParser):
    """The paragraphs of an HTML page; a heading begins with SECTION."""

    INLINE = {"a", "b", "big", "code", "em", "font", "i", "nobr", "span", "strong", "sub", "sup", "tt", "u"}

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs = [""]
        self.left_out: list[str] = []  # the open tags of the name of the one whose content is left out

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.left_out:
            self.left_out += [tag] * (tag == self.left_out[0])
        elif tag in LEFT_OUT_TAGS or (dict(attrs).get("class") or "").startswith(LEFT_OUT_CLASSES):
            self.left_out = [tag]
        elif tag not in self.INLINE:
            self.paragraphs.append(SECTION if tag in ("h1", "h2", "h3") else "")

    def handle_endtag(self, tag: str) -> None:
        if self.left_out:
            if tag == self.left_out[0]:
                self.left_out.pop()
        elif tag not in self.INLINE:
            self.paragraphs.append("")

    def handle_data(self, data: str) -> None:
        if not self.left_out:
            self.paragraphs[-1] += data


def is_prose(paragraph: str) -> bool:
    """False for code, drawings, tables, addresses and lists of names; short sentences pass."""
    if re.fullmatch(r"\S*[/@]\S*", paragraph) or "sqlite>" in paragraph:
        return False
    words = re.findall(r"[A-Za-z][a-z'’]*[a-z]|\b[AIa]\b", paragraph)
    return bool(words) and sum(map(len, words)) + paragraph.count(" ") >= 0.75 * len(paragraph)


def tidy(paragraph: str) -> str:
    """One line, without what plain text uses as markup: {links} and _emphasis_."""
    paragraph = re.sub(r"\{([^{}]+)\}", r"\1", " ".join(paragraph.split()))
    return re.sub(r"(?<!\w)_([^_]+)_(?!\w)", r"\1", paragraph)


def gather(sections: Iterator[list[str]]) -> Iterator[str]:
    """Neighbouring sections, each a heading and paragraphs, as documents of about DOCUMENT_CHARS."""
    document: list[str] = []
    for heading, *paragraphs in sections:
        prose = [text for text in paragraphs if is_prose(text)]
        if prose and not COARSE.search(" ".join([heading, *prose])):
            document += [heading, *prose] if heading else prose
        if sum(map(len, document)) >= DOCUMENT_CHARS:
            yield "\n\n".join(document)
            document = []
    yield "\n\n".join(document)


def plainness(document: str) -> float:
    """The share of its words that are plain ones, not names of functions, constants or commands."""
    words = document.split()
    plain = (re.fullmatch(r"[(\"]*[A-Z]?[a-z'-]+[.,:;?!)\"]*", word) for word in words)
    return sum(map(bool, plain)) / max(1, len(words))


def sqlite_documents(files: dict[str, bytes]) -> list[str]:
    """A page a document, a long one in parts of whole sections: the SQLITE_CHARS of plainest prose."""
    documents: list[str] = []
    for path, content in sorted(files.items()):
        name = Path(path)
        if name.suffix != ".html" or name.parent.name != "sqlite3" or NOT_PROSE.fullmatch(name.stem):
            continue
        parser = ProseParser()
        parser.feed(content.decode("utf-8", "replace"))
        sections: list[list[str]] = [[""]]
        for paragraph in parser.paragraphs:
            if paragraph.startswith(SECTION):
                # Headings are numbered: "2.1. Overview".
                sections.append([re.sub(r"^[\d.]+\.\s+", "", tidy(paragraph.lstrip(SECTION)))])
            else:
                sections[-1].append(tidy(paragraph))
        documents += gather(iter(sections))
    documents = sorted(drop_repeats(documents), key=plainness, reverse=True)
    ends = itertools.accumulate(map(len, documents))
    return [document for document, end in zip(documents, ends) if end <= SQLITE_CHARS]


def jargon_entry(paragraph: str) -> str:
    """The heading of an entry, ':gonk: /gonk/, vi.,n.', as 'gonk, vi.,n.'; others as they are."""
    heading = re.match(r":(\S.*?): *(?:/.*?/)?,? *([a-z., ]*)$", paragraph)
    return ", ".join(filter(None, heading.groups())) if heading else paragraph


def jargon_documents(files: dict[str, bytes]) -> Iterator[str]:
    """Chapters and sections of the Jargon File, and groups of its entries."""
    (packed,) = (content for path, content in files.items() if path.endswith("/jargon.txt.gz"))
    text = gzip.decompress(packed).decode()
    text = text.replace("\xa0", " ")
    text = text[text.index("Welcome to the Jargon File", text.index("Bibliography")) :]
    glossary, appendices = text.index("\n   :"), text.index("\nAppendix A.")
    front = text[: text.index("\nGlossary\n")]
    for part in (front, text[appendices:]):
        blocks = [block for block in re.split(r"\n{2,}", part) if "cartoon" not in block]
        sections: list[list[str]] = [[""]]
        for block in blocks:
            if not block.startswith(" "):
                sections.append([])
            sections[-1].append(tidy(block))
        yield from gather(iter(sections))
    entries: list[list[str]] = []
    for block in re.split(r"\n{2,}", text[glossary:appendices].strip("\n")):
        # A drawing keeps its columns apart; prose has two spaces after a full stop at most.
        drawing = re.search(r"\S {3,}\S", block) or "cartoon" in block
        if block.startswith("   :"):
            entries.append([])
        if not drawing and len(block.strip()) > 1:
            entries[-1].append(jargon_entry(tidy(block)))
    yield from gather(entry for entry in entries if len(" ".join(entry[1:])) > 40)  # not "See foo."


def devil_documents(files: dict[str, bytes]) -> Iterator[str]:
    """The preface and groups of entries of The Devil's Dictionary."""
    (packed,) = (content for path, content in files.items() if path.endswith("/devil.dict.dz"))
    text = gzip.decompress(packed).decode("ascii", "replace")
    sections: list[list[str]] = [[""]]
    for block in re.split(r"\n\s*\n", text[text.index("_The Devil's Dictionary_ was") :]):
        if re.match(r"[A-Z][A-Z'-]+\b[A-Z' -]*(,|\.|$)", block):
            sections.append([""])
        sections[-1].append(tidy(block).replace(" -- ", " — "))
    yield from gather(iter(sections))


def drop_repeats(documents: list[str]) -> list[str]:
    """Without paragraphs that stood in an earlier document, and then without documents found in part
    in a longer one: what repeats could end on either side of the split."""
    seen: set = set()
    unique = []
    for document in documents:
        paragraphs = [text for text in document.split("\n\n") if len(text) < 60 or text not in seen]
        seen.update(paragraphs)
        unique.append("\n\n".join(paragraphs))
    seen, kept = set(), []
    for text in sorted(unique, key=lambda text: (-len(text), text)):
        words = text.split()
        runs = {tuple(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1)}
        if len(text) >= MIN_CHARS and len(runs & seen) <= MAX_REPEATED * len(runs):
            kept.append(text)
            seen |= runs
    return kept


def read_package(folder: Path, name: str) -> dict[str, bytes]:
    """The files of a package in the folder, by path. ValueError where it is absent or another version."""
    found = sorted(folder.glob(f"{name}_*.deb"))
    if len(found) != 1:
        raise ValueError(
            f"{folder} holds {len(found)} files {name}_*.deb; fetch it there by "
            f"`apt-get download {name}={PACKAGES[name]}`"
        )
    version = subprocess.run(["dpkg-deb", "-f", found[0], "Version"], capture_output=True).stdout.decode()
    if version.strip() != PACKAGES[name]:
        raise ValueError(
            f"{found[0]} is version {version.strip() or 'unknown'}; the sample text is made "
            f"from {name} {PACKAGES[name]}"
        )
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", found[0]], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


def licence(packages: dict[str, dict[str, bytes]]) -> str:
    """What each package says of its copyright, word for word."""
    parts = [
        "The text in sample_text.jsonl.xz is in the public domain. build_sample_text.py took it from\n"
        "these Debian packages, whose copyright files say so. (What they put under the GPL, Debian's\n"
        "scripts and packaging, is not in the text.)\n"
    ]
    for name, files in packages.items():
        (said,) = (content for path, content in files.items() if path.endswith(f"/doc/{name}/copyright"))
        parts.append(f"{'=' * 72}\n{name} {PACKAGES[name]}\n{'=' * 72}\n{said.decode().strip()}\n")
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the .deb files are")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sample_text.jsonl.xz")
    args = parser.parse_args(argv)
    try:
        packages = {name: read_package(args.folder, name) for name in PACKAGES}
    except (OSError, ValueError, subprocess.SubprocessError, tarfile.TarError) as error:
        print(f"build_sample_text.py: error: {error}", file=sys.stderr)
        return 1
    readers = (sqlite_documents, jargon_documents, devil_documents)
    found = {name: list(read(packages[name])) for name, read in zip(PACKAGES, readers)}
    documents = sorted(drop_repeats([text for texts in found.values() for text in texts]))
    random.Random(SHUFFLE_SEED).shuffle(documents)
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
    args.out.write_bytes(lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))
    (args.out.parent / "SAMPLE_TEXT_LICENSE").write_text(licence(packages), encoding="utf-8")
    text_bytes = sum(len(text.encode()) for text in documents)
    print(
        f"{args.out}: {len(documents)} documents, {text_bytes} bytes of text, "
        f"{args.out.stat().st_size} compressed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
