"""Untrusted text: made safe for a terminal or a page, and told apart from data disguised as words."""

import re
from collections.abc import Collection, Sequence

WORD = re.compile(r"\S+")
CHUNK = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
HARD = re.compile(r"[^aeiouyAEIOUY]{6,}")  # consonants in a row; 'rhythms' has none, 'lengths' five
# Letters and marks that show nothing, or a blank, though Unicode calls them something else: fillers, a blank
# of Braille, joiners, variation selectors (but for the last of these, which emoji have).
BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0e\uffa0\ufffc\U00013441\U00013442"
    "\U0001d159\U000e0100-\U000e01ef]"
)
SPACES = dict.fromkeys(map(ord, " \t\r\n"))


def printable(text: str, keep: str = "", instead: str = "?") -> str:
    """The text with `instead` for every non-printable character except those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else instead for c in text)


def plain(text: str, limit: int) -> str:
    """Untrusted text on one line, shortened, without invisible characters."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def last_line(text: str, otherwise: str) -> str:
    """The last line that a program printed, which tells its error; `otherwise` if it printed nothing."""
    return (text.strip().splitlines() or [otherwise])[-1]


def columns(rows: list[Sequence[str]], right: Collection[int]) -> list[str]:
    """A line for each row, in columns as wide as their texts; those in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    shapes = [f"{{:{'>' if i in right else '<'}{width}}}" for i, width in enumerate(widths)]
    return ["  ".join(shapes).format(*row).rstrip() for row in rows]


def slug(name: str, otherwise: str) -> str:
    """The name as part of a folder's; `otherwise` where nothing of it can be."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or otherwise


def cell(text: str) -> str:
    """Untrusted text for a Markdown table, with punctuation as entities so that nothing is markup.

    CommonMark 2.5: an entity never acts as a structural symbol. Apostrophes, the dots of numbers, what
    ends a word and begins no address, and _ within a word stay readable.
    """
    plain = r"(?<=\d)\.(?:\d|$)|(?<=[A-Za-z\d])_[A-Za-z\d]"
    markup = rf"(?!{plain})(?:[!-&(-+/<-@\[-`{{-~]|(?<![A-Za-z])[.:;]|[.:;](?=\S))"
    return re.sub(markup, lambda c: f"&#{ord(c[0])};", text)


def table(head: Sequence[str], rows: list[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def unreadable(text: str) -> int:
    """How many characters belong to words that look like data: base64, hexadecimal digits, noise."""
    odd = sum(not c.isascii() or not c.isprintable() for c in text.translate(SPACES))
    return odd + sum(len(word) for word in WORD.findall(text) if len(word) > 2 and is_noise(word))


def is_noise(word: str) -> bool:
    """Whether most of a word is in pieces too short, or without vowels, to be words joined up."""
    pieces = CHUNK.findall(word)
    letters = "".join(pieces)
    if len(letters) < 0.6 * len(word):
        return len(word) > 15 and not set(word) <= set("-=*#~_.+/|<>")  # punctuation without end
    noise = sum(len(p) for p in pieces if len(p) < 3 or p.isdigit() and len(p) > 6 or HARD.search(p))
    return noise > 0.5 * len(letters)
