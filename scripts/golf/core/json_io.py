"""Reads JSON that others wrote, without trust.

parse_json accepts what Python's reader accepts, except what would crash it. parse_strict is for
submission.json and track.json, on which board and review rely: it refuses what two readers could read
differently (a key twice, NaN, UTF-16, endless numbers, invisible characters).
"""

import codecs
import json
import math
import re
import unicodedata
from collections import Counter
from pathlib import Path

from golf.core.files import LARGE, read_bytes
from golf.core.text import BLANK

DEPTH_LIMIT = 8  # submission.json has 5 levels
DIGITS_LIMIT = 40  # of one number
BIGGEST = 1 << 63
# Unicode categories of characters that are invisible or move others: control, format (bidi, zero width),
# surrogate, private use, unassigned, line and paragraph separator, blanks.
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")
# Between letters of scripts that need them, as Persian and Hindi do, and between emoji, joiners show.
JOINED = re.compile("(?<=[^\0-\u05ff\u2000-\u206f])[\u200c\u200d](?=[^\0-\u05ff\u2000-\u206f])")
MARKS_LIMIT = 4  # on one letter; no language writes more


class StrictError(ValueError):
    """The message says in a few words what is wrong with the file."""


# ---- Values


def number(value) -> float | None:
    """`value` as a float if it is a finite number, else None (also for true and false)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def dig(value, *keys):
    """value[k1][k2]... through dicts; None if a key is missing or something on the way is no dict."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def mapping(value, *keys) -> dict:
    """The dict at value[k1][k2]...; an empty one if there is none."""
    found = dig(value, *keys)
    return found if isinstance(found, dict) else {}


def objects(value, name: str) -> list[dict]:
    """The dicts in the list value[name]; [] if that is no list."""
    listed = dig(value, name)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


# ---- Reading


def parse_json(text: str | bytes):
    """The JSON value; None for anything else, also for deep nesting, a key twice or an endless number."""
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None


def read_json(path: Path):
    """The JSON value in a file; None if there is no such file, or no JSON in it."""
    return parse_json(read_bytes(path, LARGE)) if path.is_file() else None


def unique(pairs: list[tuple[str, object]]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise StrictError(f"has the key {ascii(twice)[:60]} twice in one object")
    return value


def parse_strict(blob: bytes):
    """The JSON value in `blob`. StrictError says what is wrong or could be read in two ways."""
    if blob.startswith(codecs.BOM_UTF8):
        raise StrictError("begins with a byte order mark; save it as UTF-8 without one")
    if b"\0" in blob:
        raise StrictError("holds NUL bytes, as UTF-16 and UTF-32 do; save it as UTF-8")
    try:
        readers = dict(parse_int=parse_int, parse_float=parse_float, parse_constant=refuse_constant)
        value = json.loads(blob.decode("utf-8"), object_pairs_hook=unique, **readers)
    except UnicodeDecodeError as error:
        raise StrictError(f"is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise StrictError("nests too deep") from None
    except json.JSONDecodeError as error:
        raise StrictError(f"is not JSON: {error.msg} (line {error.lineno})") from None
    refuse_unseen(value)
    return value


def refuse_constant(name: str):
    raise StrictError(f"holds {name}, which is no number of JSON")


def parse_int(text: str) -> int:
    value = int(text) if len(text) <= DIGITS_LIMIT else BIGGEST
    if not -BIGGEST <= value < BIGGEST:
        raise StrictError(f"holds a number too large: {text[:20]}")
    return value


def parse_float(text: str) -> float:
    value = float(text) if len(text) <= DIGITS_LIMIT else float("inf")
    digits = text.lower().split("e")[0]
    if abs(value) == float("inf") or (value == 0 and digits.strip("-0.")):
        raise StrictError(f"holds a number too large, too small or too long: {text[:20]}")
    return value


def refuse_unseen(value) -> None:
    """StrictError for nesting past DEPTH_LIMIT and for invisible or unreadable characters."""
    waiting = [(value, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH_LIMIT:
            raise StrictError("nests too deep")
        if isinstance(value, dict):
            waiting += [(one, depth + 1) for one in (*value, *value.values())]
        elif isinstance(value, list):
            waiting += [(one, depth + 1) for one in value]
        elif isinstance(value, str) and not (value.isascii() and value.isprintable()):
            refuse_characters(value)


def refuse_characters(text: str, blanks: str = " ") -> None:
    seen = JOINED.sub("", text).translate(dict.fromkeys(map(ord, blanks)))
    unseen = next((c for c in seen if unicodedata.category(c) in UNSEEN or BLANK.match(c)), None)
    if unseen is not None:
        raise StrictError(
            f"holds the character U+{ord(unseen):04X}, which no one sees, or tells from a space; remove it"
        )
    stacked = 0
    for character in text:
        stacked = stacked + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if stacked > MARKS_LIMIT:
            raise StrictError(f"stacks more than {MARKS_LIMIT} marks on a letter: {ascii(text)[:40]}")
