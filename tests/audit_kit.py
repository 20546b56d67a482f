"""What the tests of the audit share: the sample stream, and submissions fed inside this process."""

from __future__ import annotations

import importlib.util
import struct
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golf import stream, track
from golf.audit import FULL, FirstPass, audit, feed, target_log_probs
from golf.audit_reference import bigram_log_probs

REPO = Path(__file__).resolve().parents[1]
EXAMPLES = REPO / "tests" / "fixtures" / "submissions"
CHEATS = REPO / "tests" / "fixtures" / "cheats"
ARTIFACT = EXAMPLES / "bigram" / "final_model.int8.zlib"
TRACK = track.load("track_sample_5min")


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> stream.Source:
    """The sample data, built as in every clone."""
    builder = load_script(REPO / "data" / "build_sample_dataset.py")
    out = tmp_path_factory.mktemp("sample")
    builder.make(out, retrain=False)
    return stream.load(TRACK, out / "datasets" / "sample_sp1024")


def load_script(path: Path):
    """A script as a new module, as if it were run from its folder."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        sys.modules.pop("tiny", None)
    return module


class Local:
    """A Feeder of a script in this process; reset() loads it anew, as a new process does."""

    max_tokens = 8192

    def __init__(self, script: Path, artifact: Path = ARTIFACT):
        self.script, self.artifact, self.calls = script, artifact, []

    def reset(self) -> None:
        self.scorer = load_script(self.script).load_scorer(self.artifact, "cpu")
        self.scorer.reset()
        self.calls.append([])

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        assert 0 < len(tokens) <= self.max_tokens
        self.calls[-1].append(len(tokens))
        return np.array(self.scorer.log_probs(tokens.copy()), np.float32)


def first_pass(feeder, text: stream.Stream, **facts) -> FirstPass:
    """The official pass, as score.py makes it: in calls as long as may be."""
    feeder.reset()
    began, found = time.monotonic(), []
    for at in range(0, len(text), feeder.max_tokens):
        tokens = text.tokens[at : min(at + feeder.max_tokens, len(text))]
        targets = text.tokens[at + 1 : at + 1 + len(tokens)]
        found.append(target_log_probs(feeder.log_probs(tokens), targets)[0])
    return FirstPass(np.concatenate(found), time.monotonic() - began, **facts)


def bigram(inputs, targets):
    """The control of tracks that name none."""
    return bigram_log_probs(inputs, targets, 1024)


def control(feeder):
    """Another submission as the control."""

    def reference(inputs, targets):
        feeder.reset()
        return feed(feeder, inputs, targets)[0]

    return reference


def audited(feeder, text, holdout=None, seed=0, facts=(), **options) -> dict:
    """The rules of a first pass and an audit, by id."""
    first = first_pass(feeder, text, **dict(facts))
    return audit_rules(feeder, text, first, seed, holdout=holdout, **options)


def audit_rules(feeder, text, first, seed=0, cuts=400, **options) -> dict:
    """The rules of an audit after this first pass, by id."""
    options = dict(reference=bigram, size=replace(FULL, cuts=cuts), log=lambda _: None) | options
    rules = audit(feeder, text, first, np.random.default_rng(seed), **options)
    assert len({rule.id for rule in rules}) == len(rules)
    return {rule.id: rule for rule in rules}


def repacked(extra: bytes) -> bytes:
    """The examples' artifact with more bytes at the end of its payload."""
    payload = zlib.decompress(ARTIFACT.read_bytes()[20:]) + extra
    coded = zlib.compress(payload, 9)
    return struct.pack("<4sHHQI", b"PGLA", 1, 1, len(payload), zlib.crc32(coded)) + coded
