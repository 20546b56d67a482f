"""What the tests of the audit share: the sample stream, and submissions fed inside this process."""

import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from conftest import REPO, container, load_script
from golf.core import track
from golf.score.audit.passes import Pass, Text, feed
from golf.score.audit.reference import bigram_log_probs
from golf.score.audit.rules import FULL, audit, draw_uniform, in_time

EXAMPLES = REPO / "tests" / "fixtures" / "submissions"
CHEATS = REPO / "tests" / "fixtures" / "cheats.py"
ARTIFACT = EXAMPLES / "bigram" / "final_model.int8.zlib"
TRACK = track.load("track_sample_5min")


class Local:
    """A Feeder of a script or a cheat in this process; reset() loads it anew, as a new process does."""

    max_tokens = 8192

    def __init__(self, script: Path | type, artifact: Path = ARTIFACT):
        self.script, self.artifact, self.calls = script, artifact, []
        self.seconds = 0.0

    def reset(self) -> None:
        began = time.monotonic()
        load = load_script(self.script).load_scorer if isinstance(self.script, Path) else self.script
        self.scorer = load(self.artifact, "cpu")
        self.scorer.reset()
        self.calls.append([])
        self.seconds += time.monotonic() - began

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        assert 0 < len(tokens) <= self.max_tokens
        self.calls[-1].append(len(tokens))
        began = time.monotonic()
        rows = np.array(self.scorer.log_probs(tokens.copy()), np.float32)
        self.seconds += time.monotonic() - began
        return rows


def text_of(source, scored: int, held_out: int = 0, start: int = 0) -> Text:
    """The sample stream's first targets, and held-out text after those of the track."""
    other = source.part(TRACK["targets"], TRACK["targets"] + held_out + 4000).tokens
    begin = int(np.flatnonzero(source.vocabulary.special[other])[0])
    tokens = other[begin : begin + held_out + 1] if held_out else other[:0]
    return Text((source.part(start, start + scored),), tokens)


def a_pass(honest: np.ndarray, cuts=slice(0), peeked=0.0) -> Pass:
    """A pass with these log-probabilities, which gains so much by peeking where no call ends."""
    blind = np.zeros(len(honest), bool)
    blind[cuts] = True
    return Pass(np.where(blind, honest, honest + peeked), blind, 0.0, 0.0)


def first_pass(feeder, text: Text, seed=0, cuts=200) -> Pass:
    """The official pass, as golf score makes it."""
    return feed(feeder, text, draw_uniform(np.random.default_rng([seed, 1]), text, size_of(cuts)))


def size_of(cuts: int):
    return replace(FULL, cuts=cuts, targets_a_cut=1 << 40)


def bigram(text: Text) -> np.ndarray:
    """The control of tracks that name none."""
    return bigram_log_probs(text.inputs, text.targets, 1024)


def control(feeder):
    """Another submission as the control."""
    return lambda text: feed(feeder, text).log_probs


def audited(feeder, text, seed=0, cuts=200, budget=None, **options) -> dict:
    """The rules of a first pass and an audit, by id."""
    first = first_pass(feeder, text, seed, cuts)
    rules = {"in-time": in_time(first.seconds, budget, True)}
    return rules | audit_rules(feeder, text, first, seed, cuts, **options)


def audit_rules(feeder, text, first, seed=0, cuts=200, **options) -> dict:
    """The rules of an audit after this first pass, by id."""
    options = dict(reference=bigram, size=size_of(cuts), log=lambda _: None) | options
    rules = audit(feeder, text, first, np.random.default_rng(seed), **options)
    assert len({rule.rule for rule in rules}) == len(rules)
    return {rule.rule: rule for rule in rules}


def repacked(extra: bytes) -> bytes:
    """The examples' artifact with more bytes at the end of its payload."""
    payload = zlib.decompress(ARTIFACT.read_bytes()[20:]) + extra
    return container(payload, coded=zlib.compress(payload, 1))  # quick: how small it is matters to no test
