"""A page that shows a text as a model reads it: bits of each token, and what it expected instead."""

import math
from html import escape

import numpy as np

from golf.core.errors import GolfError
from golf.see.page import page as html_page

MOST_TOKENS, GUESSES, CALL = 20_000, 5, 1024
FULL_BITS = 12.0  # of the deepest colour; a guess among 1,024 pieces alike costs 10
STYLE = """
:root { --heat: #e07a3a; }
@media (prefers-color-scheme: dark) { :root { --heat: #a3501c; } }
.text { white-space: pre-wrap; font: 1.05rem/2 ui-monospace, monospace; padding-bottom: 9rem; }
.t { background: color-mix(in srgb, var(--heat) calc(var(--b) * 1%), transparent); border-radius: 3px;
  cursor: help; }
.t > span { display: none; position: fixed; inset: auto 0 0 0; z-index: 1; padding: .6rem 1rem;
  background: var(--soft); border-top: 1px solid var(--line); font: 1rem/1.5 ui-monospace, monospace; }
.t:focus > span, .t:hover > span { display: block; }
.t:hover > span { z-index: 2; }
.t:hover, .t:focus { outline: 2px solid var(--accent); }
.scale { display: inline-block; width: 8rem; height: .8rem; vertical-align: middle;
  background: linear-gradient(to right, transparent, var(--heat)); border: 1px solid var(--line); }
"""


def page(model, tokenizer, text: str, name: str) -> str:
    """The HTML page of `text`; GolfError where it has no token."""
    bos = max(tokenizer.bos_id(), 0)
    tokens = [bos, *tokenizer.encode(text)[:MOST_TOKENS]]
    if len(tokens) < 2:
        raise GolfError("the text is empty", 2)
    bits, guesses = read(model, np.array(tokens, np.uint16))
    parts = surfaces(tokenizer, tokens)
    size = sum(len(part.encode()) for part in parts)
    spans = [token_span(tokenizer, *item) for item in zip(parts, bits, guesses)]
    cut = f", the first {MOST_TOKENS:,} tokens of it" if len(tokens) > MOST_TOKENS else ""
    body = f"""<h1>How surprised is {escape(name)}?</h1>
<p>{sum(bits) / size:.4f} bits a byte over {len(bits):,} tokens and {size:,} bytes{cut}. The deeper the
colour, the more bits a token took: 0 <span class="scale"></span> {FULL_BITS:.0f} or more. Point at a token,
or reach it with Tab, to see what the model expected.</p>
<div class="text">{"".join(spans)}</div>"""
    return html_page(f"{name}: surprise", body, STYLE)


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
    """The text that each token but the first adds; the bytes of one character go to its last token."""
    parts, waiting, said = [], [], False
    for token in tokens[1:]:
        waiting.append(token)
        # A piece that goes before keeps the space that a document's first piece loses.
        text = tokenizer.decode([*tokens[1:2], *waiting])[len(tokenizer.decode(tokens[1:2])) :]
        text = tokenizer.decode(waiting) if not said else text
        whole = "\ufffd" not in text
        parts.append(text if whole else "")
        waiting, said = ([], True) if whole else (waiting, said)
    if waiting:
        parts[-1] = tokenizer.decode(waiting)
    return parts


def token_span(tokenizer, text: str, bits: float, guesses: list[tuple[int, float]]) -> str:
    depth = min(100, round(100 * bits / FULL_BITS)) if math.isfinite(bits) else 100
    words = (f"<b>{escape(visible(tokenizer.id_to_piece(i)))}</b> {100 * p:.1f}%" for i, p in guesses)
    tip = f"<b>{escape(visible(text))}</b> took {bits:.2f} bits. Expected: {', '.join(words)}"
    return f'<span class="t" tabindex="0" style="--b:{depth}">{escape(text)}<span>{tip}</span></span>'


def visible(piece: str) -> str:
    """A piece in which spaces and line ends are visible."""
    return piece.replace("\u2581", "\u00b7").replace(" ", "\u00b7").replace("\n", "\u23ce") or "(part)"
