"""Finds the packed model that a person means, and opens it without trusting it.

A model is opened in the first of these ways that is sure to be right:
- for text, by its forward pass in numpy (cached.py), if the script is the repository's own;
- by load_scorer of the repository's own trainer, for the same scripts and for an artifact alone;
- by load_scorer of the run's or entry's script, which is somebody's code, in the scorer's sandbox. For text,
  if it agrees with cached.py on some tokens, cached.py is used, since it is faster.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from golf.core import submission, trainers
from golf.core.errors import GolfError
from golf.core.files import sha256
from golf.core.json_io import dig, mapping
from golf.core.paths import REPO, shown
from golf.core.runlog import no_run, read_run
from golf.score import claims
from golf.score.command import NO_SANDBOX
from golf.score.feeder import Fault
from golf.score.sandbox import bwrap
from golf.score.sandbox.client import Remote
from golf.score.stream import read_tokenizer
from golf.see import weights
from golf.see.cached import CachedModel

TRAINERS = ("train_gpt.py", "train_gpt_mlx.py")
AGREE_NATS = 1e-3  # two models that differ less on every row are one
AGREE_TOKENS = 48


@dataclass(frozen=True)
class Target:
    """A packed model: where it lies, which script made it, and which tokenizer it reads."""

    artifact: Path
    script: Path | None  # None: an artifact alone
    files: dict[str, Path]  # what the script needs beside it: path in its folder -> where it lies
    tokenizer: Path

    @property
    def ours(self) -> str | None:
        """The repository's own trainer that made it; None where the script is another."""
        if self.script is None:
            return TRAINERS[0] if importlib.util.find_spec("torch") else TRAINERS[1]
        digest = sha256(self.script)
        return next((name for name in TRAINERS if sha256(REPO / name) == digest), None)


def find(place: Path, tokenizer: Path | None = None) -> Target:
    """The model of a run's folder, of an entry's (its first seed), or in a file."""
    if (place / "submission.json").is_file():
        return of_entry(place, tokenizer)
    if (place / "metrics.jsonl").is_file():
        return of_run(place, tokenizer)
    if not place.is_file():
        raise no_run(place, "no run, no entry and no artifact there")
    if tokenizer is None and (place.parent / "metrics.jsonl").is_file():
        return of_run(place.parent, None, place.name)
    if tokenizer is None:
        text = "an artifact does not say which tokenizer it reads; name it with --tokenizer"
        raise GolfError(f"{shown(place)}: {text}", 2)
    return Target(place, None, {}, tokenizer)


def of_run(folder: Path, tokenizer: Path | None, artifact: str | None = None) -> Target:
    facts = read_run(folder)
    artifact = artifact or dig(facts, "export", "artifact")
    script = dig(facts, "start", "script")
    if not isinstance(artifact, str) or not isinstance(script, str):
        raise GolfError(f"{shown(folder)}: that run has not packed a model yet", 2)
    names = [script, artifact, *mapping(facts, "start", "modules")]
    files = {Path(name).name: folder / Path(name).name for name in names}
    for path in files.values():
        if not path.is_file():
            raise GolfError(f"{shown(path)}: the run's file is gone", 2)
    model = tokenizer or find_tokenizer(dig(facts, "start", "data", "tokenizer_sha256"))
    return Target(folder / Path(artifact).name, folder / Path(script).name, files, model)


def of_entry(folder: Path, tokenizer: Path | None) -> Target:
    claim = submission.read_claim(folder)
    entry = claims.read_entries(folder, claim, "cpu")[0]
    model = tokenizer or find_tokenizer(dig(claim, "data", "tokenizer_sha256"))
    return Target(folder / entry.artifact, folder / entry.script, entry.files, model)


def find_tokenizer(digest) -> Path:
    """The tokenizer of data/ with this SHA-256."""
    for path in sorted([*(REPO / "data").glob("*.model"), *(REPO / "data/tokenizers").glob("*.model")]):
        if sha256(path) == digest:
            return path
    text = f"no tokenizer in data/ has the SHA-256 that it was trained with ({str(digest)[:12]}…)"
    raise GolfError(f"{text}; fetch it (data/README.md) or name it with --tokenizer", 2)


def load_tokenizer(path: Path):
    """A sentencepiece.SentencePieceProcessor."""
    return read_tokenizer(path)[0].processor


@contextlib.contextmanager
def opened(target: Target, *, sandboxed: bool = True, fast: bool = False) -> Iterator:
    """Yields a scorer on the CPU: reset() and log_probs(tokens), as docs/submission_interface.md says.

    fast: for text: one token a call is quick where it can be. GolfError where it cannot be loaded.
    """
    cached, ours = cached_model(target) if fast else None, target.ours
    if ours:
        yield cached or load_ours(ours, target.artifact)
        return
    if not sandboxed:
        print(NO_SANDBOX, file=sys.stderr)
    try:
        with in_sandbox(target, sandboxed) as own:
            yield cached if cached and agree(cached, own) else own
    except Fault as fault:
        raise GolfError(f"{shown(target.script)}: {fault.rule}: {fault.message}") from None


def cached_model(target: Target) -> CachedModel | None:
    try:
        found = weights.load(target.artifact)
        return None if found.config.get("followers") else CachedModel(found)  # which knows the net alone
    except (GolfError, KeyError, ValueError, TypeError, ZeroDivisionError):
        return None  # another architecture or container


def agree(one: CachedModel, other) -> bool:
    """Whether both models give some random tokens the same rows; leaves both at the start of a stream."""
    tokens = np.random.default_rng(0).integers(3, len(one.output), AGREE_TOKENS).astype(np.uint16)
    rows = []
    for model in (one, other):
        model.reset()
        rows.append(np.asarray(model.log_probs(tokens)))
        model.reset()
    return rows[0].shape == rows[1].shape and float(np.abs(rows[0] - rows[1]).max()) < AGREE_NATS


def load_ours(name: str, artifact: Path):
    """A Scorer of the repository's own trainer."""
    module = trainers.load(REPO / name)
    try:
        return module.load_scorer(artifact, "cpu")
    except Exception as error:  # the trainer's own one-line error, of its own class
        if type(error).__name__ != "UserError":
            raise
        raise GolfError(str(error), 2) from None


def in_sandbox(target: Target, sandboxed: bool):
    """The script's own load_scorer in a sandboxed process."""
    if sandboxed and bwrap.why_not():
        text = f"{shown(target.script)} is not this repository's own trainer, and {bwrap.why_not()}"
        raise GolfError(f"{text}. --no-sandbox runs it as yourself", 2)
    script, artifact = (
        next(name for name, path in target.files.items() if path == wanted)
        for wanted in (target.script, target.artifact)
    )
    vocab = load_tokenizer(target.tokenizer).vocab_size()
    return Remote(target.files, script, artifact, "cpu", vocab, sandboxed=sandboxed)
