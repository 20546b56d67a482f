"""A script as text: misleading characters, and data disguised as code.

Data can hide in strings, numbers, names, comments or blanks, in one piece or in hundreds. So the limits
are on sums over all files of an entry, and come from what plain trainers hold.
"""

import ast
import io
import itertools
import re
import tokenize
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields

from golf.check.syntax import docstrings, every_node
from golf.core.text import BLANK, unreadable

COLUMNS = 500
CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")


def faults_of(blob: bytes) -> Iterator[tuple[int, str]]:
    """(line, what) of bytes that are not plain UTF-8 text, or that look like something else."""
    for number, line in enumerate(blob.split(b"\n")[:2], 1):
        named = CODING.match(line)
        if named and named[1].lower().replace(b"_", b"-") not in (b"utf-8", b"utf8"):
            yield number, "names an encoding"
    try:
        text = blob.decode("utf-8")
    except UnicodeDecodeError as error:
        yield blob[: error.start].count(b"\n") + 1, "not UTF-8"
        return
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if len(line) > COLUMNS:
            yield number, f"{len(line):,} columns"
        for character in sorted(set(line)):
            if not plain(character):
                yield number, f"U+{ord(character):04X}"
    yield from foreign_names(text)


def plain(character: str) -> bool:
    """Whether the character is visible and is what it seems: no control character, no odd blank."""
    if character.isascii():
        return character.isprintable() or character == "\t"
    category = unicodedata.category(character)
    return category[0] not in "CZ" and not BLANK.match(character) and character != "\ufe0f"


def foreign_names(text: str) -> Iterator[tuple[int, str]]:
    """Lines with non-ASCII letters outside strings and comments: Python normalizes such names."""
    if text.isascii():
        return
    fields_in_string = re.compile(r"\{([^{}]*)\}")
    for token in tokens(text):
        string = token.type in (tokenize.STRING, tokenize.COMMENT) or token.type in FSTRING_PARTS
        inside = token.type == tokenize.STRING and "f" in token.string[:2].lower()
        if not string and not token.string.isascii():
            yield token.start[0], "a name that is not ASCII"
        elif inside and not "".join(fields_in_string.findall(token.string)).isascii():
            yield token.start[0], "a name that is not ASCII"


FSTRING_PARTS = {
    getattr(tokenize, name) for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")
    if hasattr(tokenize, name)
}  # fmt: skip


def tokens(text: str) -> list[tokenize.TokenInfo]:
    """The tokens up to the first one that cannot be read."""
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            found.append(token)
    except (tokenize.TokenError, SyntaxError):
        pass  # code-syntax says so
    return found


# ---- Data in the guise of code


@dataclass
class Totals:
    """Counts over all files of an entry; each has a limit."""

    size: int = 0  # bytes
    tokens: int = 0
    strings: int = 0  # characters of string literals that are no docstrings
    remarks: int = 0  # characters of comments and docstrings
    unreadable: int = 0  # characters of words that no person reads, blanks at line ends
    numbers: int = 0  # numeric literals
    digits: int = 0  # characters of numeric literals
    elements: int = 0  # numbers and the like in rows of a dozen and more
    names: int = 0  # characters of different names, each once
    once: int = 0  # characters of names that a file has in one place alone

    def add(self, other: "Totals") -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def limits(self) -> dict[str, float]:
        return {name: n + per * self.size + more * self.tokens for name, (n, per, more, _) in LIMITS.items()}

    def over(self) -> dict[str, tuple[int, int]]:
        """Name -> (found, limit) of what is over."""
        limits = {name: int(limit) for name, limit in self.limits().items()}
        return {n: (getattr(self, n), most) for n, most in limits.items() if getattr(self, n) > most}


# Limit: a number, and more for each byte and token. At least twice what the plain trainers hold.
LIMITS = {
    "strings": (2000, 0.14, 0, "characters in strings"),
    "remarks": (2000, 0.4, 0, "characters in comments and docstrings"),
    "unreadable": (400, 0, 0, "characters of words that no person reads"),
    "numbers": (150, 0, 0.06, "numbers"),
    "digits": (300, 0, 0.12, "digits of numbers"),
    "elements": (250, 0, 0, "numbers and lines in long rows"),
    "names": (1500, 0.2, 0, "characters of different names"),
    "once": (600, 0.08, 0, "characters of names that stand in one place alone"),
}
MEANING = {name: row[-1] for name, row in LIMITS.items()}


def totals(blob: bytes, tree: ast.Module) -> Totals:
    """The counts of one file."""
    text = blob.decode("utf-8", "replace")
    found = Totals(size=len(blob))
    names, strings = Counter(), []
    for token in tokens(text):
        found.tokens += 1
        if token.type == tokenize.NAME:
            names[token.string] += 1
        elif token.type == tokenize.NUMBER:
            found.numbers += 1
            found.digits += len(token.string)
        elif token.type == tokenize.COMMENT:
            found.remarks += len(token.string)
            strings.append(token.string)
    documented = docstrings(tree)
    for node in every_node(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            value = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            strings.append(value)
            if id(node) in documented:
                found.remarks += len(value)
            else:
                found.strings += len(value)
    found.names = sum(map(len, names))
    found.once = sum(len(name) for name, count in names.items() if count == 1)
    found.elements = sum(long_rows(tree))
    blanks = sum(len(line) - len(line.rstrip(" \t")) for line in text.split("\n"))
    found.unreadable = blanks + sum(map(unreadable, [*names, *strings]))
    return found


LONG = 12  # elements; a plain trainer's longest list has 7
JOINED = (
    ast.List, ast.Tuple, ast.Set, ast.Dict, ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp,
    ast.JoinedStr, ast.FormattedValue, ast.Starred, ast.Slice,
)  # fmt: skip
CHAINED = (ast.Attribute, ast.Call, ast.Subscript, ast.Lambda, ast.If)
BODIES = ("body", "orelse", "finalbody", "handlers", "cases")


def long_rows(tree: ast.Module) -> Iterator[int]:
    """Lengths of the rows that could be data, if they are long: elements of a display or an operation,
    with those nested in it, whatever else Python has a list of, links of a chain, lines of one form."""
    yield from (count for count in lines_of_one_form(tree) if count >= LONG)
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        lists = [len(v) for field, v in ast.iter_fields(node) if isinstance(v, list) and field not in BODIES]
        count, parts = max([links(node), *lists]), [*ast.iter_child_nodes(node)]
        if isinstance(node, JOINED):
            count, parts = leaves(node)
        if count >= LONG:
            yield count
        else:
            waiting += parts


def leaves(node: ast.AST) -> tuple[int, list[ast.AST]]:
    """How much of a display or an operation is no text, nested ones included; and what it is made of."""
    count, waiting, parts = 0, [node], []
    while waiting:
        part = waiting.pop()
        if isinstance(part, JOINED):
            elements = [n for n in ast.iter_child_nodes(part) if isinstance(n, ast.expr)]
            waiting += elements
            count += not elements or isinstance(part, ast.UnaryOp)
        else:
            count += not isinstance(getattr(part, "value", None), str)
            parts.append(part)
    return count, parts


def links(node: ast.AST) -> int:
    """Of a chain of attributes, calls, indices, lambdas and blocks: x.a().b()[c], f(g(x)), elif."""
    count = 0
    while isinstance(node, CHAINED):
        parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, CHAINED)]
        node, count = next(iter(parts), None), count + 1
    return count


def lines_of_one_form(tree: ast.Module) -> Iterator[int]:
    """How many statements of a body are alike but for names and literals: `add(3)`, `add(7)`, ..."""
    for node in every_node(tree):
        for body in (getattr(node, field, None) for field in BODIES):
            if isinstance(body, list):
                yield from Counter(map(form, body)).values()


OPERATORS = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context)


def form(statement: ast.stmt) -> tuple:
    parts = (part for part in every_node(statement) if not isinstance(part, OPERATORS))
    return tuple(sorted(type(part).__name__ for part in itertools.islice(parts, 40)))
