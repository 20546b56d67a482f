"""A page that shows a text as a model reads it: bits of each token, and what it expected instead."""

import math

import numpy as np

from golf.core.errors import GolfError
from golf.see.page import render

MOST_TOKENS, GUESSES, CALL = 20_000, 5, 1024
FULL_BITS = 12.0  # of the deepest colour; a guess among 1,024 pieces alike costs 10


def page(model, tokenizer, text: str, name: str) -> str:
    """The HTML page of `text`; GolfError where it has no token."""
    tokens = [max(tokenizer.bos_id(), 0), *tokenizer.encode(text)[:MOST_TOKENS]]
    if len(tokens) < 2:
        raise GolfError("the text is empty", 2)
    bits, guesses = read(model, np.array(tokens, np.uint16))
    parts = surfaces(tokenizer, tokens)
    cut = f", the first {MOST_TOKENS:,} tokens of it" if len(tokens) > MOST_TOKENS else ""
    sums = dict(bits=sum(bits), size=sum(len(part.encode()) for part in parts), full=f"{FULL_BITS:.0f}")
    marked = [shown_token(tokenizer, *item) for item in zip(parts, bits, guesses)]
    return render("surprise.html", title=f"{name}: surprise", name=name, cut=cut, tokens=marked, **sums)


def read(model, tokens: np.ndarray) -> tuple[list[float], list[list[tuple[int, float]]]]:
    """For each token but the first: its bits, and the likeliest tokens with their probabilities."""
    bits, guesses = [], []
    model.reset()
    for at in range(0, len(tokens) - 1, CALL):
        targets = tokens[at + 1 : at + CALL + 1]
        rows = np.asarray(model.log_probs(tokens[at : at + len(targets)]))
        bits += (-rows[np.arange(len(targets)), targets] / math.log(2)).tolist()
        best = np.argsort(-rows, axis=1)[:, :GUESSES]
        guesses += [[(int(i), math.exp(row[i])) for i in some] for row, some in zip(rows, best)]
    return bits, guesses


def surfaces(tokenizer, tokens: list[int]) -> list[str]:
    """The text that each token but the first adds; a character of several tokens goes to the last of them."""
    first, parts, waiting, begun = tokens[1:2], [], [], False
    for token in tokens[1:]:
        waiting.append(token)
        text = tokenizer.decode(waiting)
        if begun:  # a piece before it keeps the space that a document's first piece loses
            text = tokenizer.decode([*first, *waiting])[len(tokenizer.decode(first)) :]
        if "\ufffd" in text:  # a part of a character
            parts.append("")
        else:
            parts.append(text)
            waiting, begun = [], True
    if waiting:
        parts[-1] = tokenizer.decode(waiting)
    return parts


def shown_token(tokenizer, text: str, bits: float, guesses: list[tuple[int, float]]) -> dict:
    """A token as surprise.html shows it; depth: of its colour, in percent."""
    depth = min(100, round(100 * bits / FULL_BITS)) if math.isfinite(bits) else 100
    pieces = [(visible(tokenizer.id_to_piece(i)), chance) for i, chance in guesses]
    return dict(text=text, shown=visible(text), bits=bits, depth=depth, guesses=pieces)


def visible(piece: str) -> str:
    """A piece in which spaces and line ends are visible."""
    return piece.replace("\u2581", "\u00b7").replace(" ", "\u00b7").replace("\n", "\u23ce") or "(part)"
