#!/usr/bin/env python3
"""Make data/sample_text.jsonl.xz: the English that CPython carries, one {"text": ...} a line.

usage: python3 data/build_sample_text.py [--out FILE]

Run once; its result is committed, since another Python carries other text. A document is one help
topic of pydoc, or the docstrings of one standard-library module in source order. The library's
files are parsed, never imported. The Python's own licence goes beside the output.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import lzma
import random
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

MIN_CHARS = 200
RUN_WORDS, MAX_REPEATED = 13, 0.25  # at most this share of a document's runs of 13 words
SKIP = {"__pycache__", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests"}
TOPICS = "pydoc_data/topics.py"
SHUFFLE_SEED = 1337


def parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in the library's strings
        return ast.parse(path.read_bytes())


def topics(stdlib: Path) -> Iterator[str]:
    """The help texts behind pydoc's help('if'), help('EXPRESSIONS'), ..."""
    for node in parse(stdlib / TOPICS).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            yield from (inspect.cleandoc(text) for text in ast.literal_eval(node.value).values())


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Docstrings of a module and of all that it defines, in source order."""
    if isinstance(tree, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        if text := ast.get_docstring(tree, clean=True):
            yield text.strip()
    for child in ast.iter_child_nodes(tree):
        yield from docstrings(child)


def drop_repeats(documents: list[str]) -> list[str]:
    """Without the documents found in large part in a longer one: pydoc's topic on `for` is also a
    section of the one on compound statements, and the two could end on either side of the split."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for text in sorted(documents, key=lambda text: (-len(text), text)):
        words = text.split()
        runs = {tuple(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1)}
        if len(runs & seen) <= MAX_REPEATED * len(runs):
            kept.append(text)
            seen |= runs
    return kept


def collect(stdlib: Path) -> list[str]:
    """All documents, sorted and then shuffled; no docstring and no topic occurs twice."""
    seen: set[str] = set()

    def new(texts: Iterator[str]) -> list[str]:
        fresh = [text for text in dict.fromkeys(texts) if text and text not in seen]
        seen.update(fresh)
        return fresh

    documents = new(topics(stdlib))
    for path in sorted(stdlib.rglob("*.py")):
        name = path.relative_to(stdlib)
        if name.as_posix() != TOPICS and not SKIP & set(name.parts):
            documents.append("\n\n".join(new(docstrings(parse(path)))))
    documents = sorted(drop_repeats([text for text in documents if len(text) >= MIN_CHARS]))
    random.Random(SHUFFLE_SEED).shuffle(documents)
    return documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sample_text.jsonl.xz")
    out = parser.parse_args().out
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    licence = (stdlib / "LICENSE.txt").read_bytes()  # no licence, no text
    documents = collect(stdlib)
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
    out.write_bytes(lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))
    (out.parent / "SAMPLE_TEXT_LICENSE").write_bytes(licence)
    text_bytes = sum(len(text.encode()) for text in documents)
    print(f"{out}: {len(documents)} documents, {text_bytes} bytes of text, "
          f"{out.stat().st_size} compressed, from CPython {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
