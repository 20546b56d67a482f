"""Let a packed model write: text from a run, an entry or an artifact, as it comes, on the CPU.

A run's or entry's script is somebody's code: it runs in the scorer's sandbox, unless it is this
repository's own trainer. --surprise FILE writes an HTML page of a text instead: each token coloured
by how many bits the model needed for it, with the model's five best guesses on hover or focus.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from golf.core.errors import GolfError
from golf.core.files import read_text, replace_file
from golf.core.paths import path_argument, shown
from golf.core.text import printable
from golf.core.units import between
from golf.see import reader

if TYPE_CHECKING:
    import numpy as np  # imported late: other commands do without it

WINDOW = 512  # tokens that are decoded again to find what a new one adds


def add_arguments(parser) -> None:
    parser.add_argument("place", type=path_argument, metavar="RUN|ENTRY|ARTIFACT", help="whose model")
    parser.add_argument("--prompt", type=utf8, default="", metavar="TEXT", help="what the text begins with")
    parser.add_argument("--tokens", type=between(1), default=200, metavar="N", help="how many; default 200")
    parser.add_argument(
        "--temperature", type=between(0, 100, float), default=0.8, metavar="T",
        help="below 1: likelier text; 0: always the likeliest token; default 0.8",
    )  # fmt: skip
    parser.add_argument("--top-k", type=between(0), default=0, metavar="K", help="only the likeliest; 0: all")
    parser.add_argument("--seed", type=between(0), default=1, metavar="N", help="same text again; default 1")
    parser.add_argument("--tokenizer", type=path_argument, metavar="PATH", help="for an artifact alone")
    parser.add_argument("--surprise", type=path_argument, metavar="FILE", help="a text to make a page of")
    parser.add_argument("-o", "--out", type=path_argument, default="surprise.html", help="that page's place")
    parser.add_argument("--no-sandbox", action="store_true", help="run its script as yourself: read it first")


def utf8(text: str) -> str:
    """A terminal of another encoding may send bytes that are no UTF-8."""
    text.encode()
    return text


def main(args) -> int:
    import numpy as np

    from golf.see import surprise

    target = reader.find(args.place, args.tokenizer)
    tokenizer = reader.load_tokenizer(target.tokenizer)
    text = read_text(args.surprise) if args.surprise else None
    with reader.opened(target, sandboxed=not args.no_sandbox, fast=text is None) as model:
        if text is not None:
            replace_file(args.out, surprise.page(model, tokenizer, text, args.place.resolve().name))
            print(f"wrote {shown(args.out)}")
            return 0
        began, count = time.monotonic(), 0
        print(decoded(tokenizer, tokenizer.encode(args.prompt)), end="", flush=True)  # as the model reads it
        rng = np.random.default_rng(args.seed)
        for piece in write(model, tokenizer, args.prompt, args.tokens, args.temperature, args.top_k, rng):
            print(piece, end="", flush=True)
            count += 1
        seconds = time.monotonic() - began
    print()
    print(f"{count} tokens, {count / seconds:.0f} a second", file=sys.stderr)
    return 0


def write(
    model, tokenizer, prompt: str, count: int, temperature: float, top_k: int, rng: np.random.Generator
) -> Iterator[str]:
    """The text that each of `count` new tokens adds; a new document begins with an empty line."""
    tokens = [tokenizer.bos_id() if tokenizer.bos_id() >= 0 else 0, *tokenizer.encode(prompt)]
    if max(tokens) >= 1 << 16:
        raise GolfError("a vocabulary of more than 65,536 pieces", 2)
    model.reset()
    row = last_row(model, tokens)
    start, said = 1, decoded(tokenizer, tokens[1:])
    for left in range(count, 0, -1):
        token, new = pick(row, temperature, top_k, rng), ""
        tokens.append(token)
        if tokenizer.is_control(token) or tokenizer.is_unknown(token):
            start, said, new = len(tokens), "", "\n\n"
        text = decoded(tokenizer, tokens[start:])
        if text.startswith(said):  # not where bytes turn out to be no character
            new, said = new + text[len(said) :], text
        yield new  # "" for a part of a character
        if len(tokens) - start > WINDOW:  # old text does not change any more
            start, said = len(tokens) - 1, decoded(tokenizer, tokens[-1:])
        if left > 1:
            row = last_row(model, [token])


def last_row(model, tokens: list[int]) -> np.ndarray:
    """float64 [vocab]: the log-probabilities of what follows `tokens`."""
    import numpy as np

    return np.asarray(model.log_probs(np.array(tokens, np.uint16)))[-1].astype(np.float64)


def decoded(tokenizer, tokens: list[int]) -> str:
    """Their text without a character that is not whole yet; control characters, which steer a
    terminal, as a replacement."""
    return printable(tokenizer.decode(tokens).rstrip("\ufffd"), "\n\t", "\ufffd")


def pick(row: np.ndarray, temperature: float, top_k: int, rng: np.random.Generator) -> int:
    import numpy as np

    if temperature == 0:
        return int(row.argmax())
    logits = row / temperature
    if 0 < top_k < len(row):
        logits = np.where(row >= np.partition(row, -top_k)[-top_k], logits, -np.inf)
    chances = np.exp(logits - logits.max())
    return int(rng.choice(len(row), p=chances / chances.sum()))
