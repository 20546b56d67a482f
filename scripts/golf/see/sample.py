"""Let a packed model write text: of a run, an entry or an artifact, token by token, on the CPU.

The script of a run or entry is somebody's code: it runs in the scorer's sandbox, unless it is this
repository's own trainer. --surprise FILE makes an HTML page of a text instead: each token is coloured by the
bits that the model needed for it, and shows the model's five best guesses on hover or focus.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np

from golf.core.errors import GolfError
from golf.core.files import read_text, replace_file
from golf.core.paths import path_argument, shown
from golf.core.text import printable
from golf.core.units import between
from golf.see import reader, surprise

WINDOW = 512  # tokens that are decoded again to find what a new one adds


def add_arguments(parser) -> None:
    add, path = parser.add_argument, path_argument
    add("place", type=path, metavar="RUN|ENTRY|ARTIFACT", help="the folder or file with the model")
    add("--prompt", type=utf8, default="", metavar="TEXT", help="what the text begins with")
    add("--tokens", type=between(1), default=200, metavar="N", help="how many tokens to write; default: 200")
    add("--temperature", type=between(0, 100, float), default=0.8, metavar="T",
        help="below 1: likelier text; 0: always the likeliest token; default: 0.8")  # fmt: skip
    add("--top-k", type=between(0), default=0, metavar="K", help="draw from the K likeliest tokens; 0: all")
    add("--seed", type=between(0), default=1, metavar="N", help="another seed, another text; default: 1")
    add("--tokenizer", type=path, metavar="PATH", help="the tokenizer's .model; needed for an artifact alone")
    add("--surprise", type=path, metavar="FILE", help="the text file to make a page of")
    add("-o", "--out", type=path, default="surprise.html", metavar="PAGE", help="default: surprise.html")
    add("--no-sandbox", action="store_true", help="run the model's script as yourself: read it first")


def utf8(text: str) -> str:
    """For argparse: text, or an error if a terminal of another encoding sent bytes that are not UTF-8."""
    text.encode()
    return text


def main(args) -> int:
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
    return np.asarray(model.log_probs(np.array(tokens, np.uint16)))[-1].astype(np.float64)


def decoded(tokenizer, tokens: list[int]) -> str:
    """Their text, less a last character that is not whole yet; control characters, which could steer a
    terminal, are replaced."""
    return printable(tokenizer.decode(tokens).rstrip("\ufffd"), "\n\t", "\ufffd")


def pick(row: np.ndarray, temperature: float, top_k: int, rng: np.random.Generator) -> int:
    if temperature == 0:
        return int(row.argmax())
    logits = row / temperature
    if 0 < top_k < len(row):
        logits = np.where(row >= np.partition(row, -top_k)[-top_k], logits, -np.inf)
    chances = np.exp(logits - logits.max())
    return int(rng.choice(len(row), p=chances / chances.sum()))
