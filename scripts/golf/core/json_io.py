"""JSON that others wrote: read without trust."""

from __future__ import annotations

import json
import math


def number(value) -> float | None:
    """`value` as a float where it is a finite number, else None (also for true and false)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def dig(value, *keys):
    """value[k1][k2]... through dicts, None where there is no such thing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def parse_json(text: str | bytes):
    """The JSON value, or None: also for what nests too deep, holds a key twice or a number without end."""
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None


def unique(pairs: list) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key twice")
    return value
