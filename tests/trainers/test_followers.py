"""docs/patches/followers.patch on both trainers. Its Followers are held to slow ones, a place at a time, and
to the loss's slopes by finite differences."""

import copy
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import trainer_kit as kit
from conftest import load_script
from golf.check import code as check_code
from golf.check.folder import Folder
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

VOCAB = 7
TRAINERS = "train_gpt.py", "train_gpt_mlx.py"


@pytest.fixture(scope="session")
def patched(tmp_path_factory):
    """The folder of both trainers with the patch."""
    folder = tmp_path_factory.mktemp("patched")
    for name in TRAINERS:
        shutil.copy(kit.REPO / name, folder)
    subprocess.run(["git", "apply", kit.REPO / "docs/patches/followers.patch"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def T(patched):  # noqa: N802
    return load_script(patched / TRAINERS[0])


def text(T, count, seed=0):
    """Of few tokens, so that contexts return; documents of about 40."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, VOCAB, count)
    tokens[rng.integers(0, count, count // 40)] = T.FIRST_TOKEN
    return tokens


def model_rows(count, seed=0):
    rows = np.random.default_rng(seed + 1000).normal(0, 3, (count, VOCAB)).astype(np.float32)
    return rows - np.log(np.exp(rows).sum(1, keepdims=True))


def raises(T, tokens, at):
    """(token, order, rank, here) after tokens[: at + 1], by looking at every earlier place."""
    start = max((i for i in range(at + 1) if tokens[i] == T.FIRST_TOKEN), default=0)
    padded = [0] * max(T.ORDERS) + list(tokens)  # contexts before the stream begins are zeros
    contexts = [padded[i + 1 : i + 1 + max(T.ORDERS)] for i in range(at + 1)]
    for n, order in enumerate(T.ORDERS):
        ends = [i for i in range(at - 1, -1, -1) if contexts[i][-order:] == contexts[at][-order:]]
        for rank, end in enumerate(ends[: T.RANKS]):
            yield tokens[end + 1], n, rank, int(end >= start)


def slow_row(T, state, tokens, model, at):
    row = state.factor * model.astype(np.float64) + state.bias
    for token, *kind in raises(T, tokens, at):
        row[token] += state.amounts[(*kind, min(int(-model[token] / 2), 4))]
    return row - np.log(np.exp(row).sum())


def test_both_trainers_get_the_same_class_and_the_check_asks_nothing(patched, tmp_path):
    sources = [(patched / name).read_text() for name in TRAINERS]
    one, other = (re.search(r"class Followers:.*?\n\n\n", source, re.DOTALL)[0] for source in sources)
    assert one == other
    for source in sources:
        (tmp_path / TRAINERS[0]).write_text(source)
        folder = Folder(tmp_path, files={TRAINERS[0]: len(source)})
        check_code.code(folder)
        assert folder.findings == []


def test_rows_are_those_of_one_place_at_a_time(T):
    tokens, rows = text(T, 400), model_rows(400)
    state = T.Followers(VOCAB)
    for at in range(0, 400, 50):
        mixed = state.mix(tokens[at : at + 50], rows[at : at + 50])
        last = slow_row(T, state, tokens[: at + 50], rows[at + 49], at + 49)
        np.testing.assert_allclose(mixed[-1], last, atol=1e-5)
    assert state.factor != 1 and np.ptp(state.amounts) > 0.1  # it had learnt


def test_a_target_moves_what_made_its_row_by_the_slope_of_its_loss(T):
    tokens, rows = text(T, 300), model_rows(300)
    state = T.Followers(VOCAB)
    state.mix(tokens[:-1], rows[:-1])
    kinds = {tuple(kind) for kind in np.transpose(state.made[3])}
    before = copy.deepcopy(state)

    def slope(name, at):
        sides = []
        for shift in (1e-4, -1e-4):
            moved = copy.deepcopy(before)
            values = np.array(getattr(moved, name), np.float64)
            values[at] += shift
            setattr(moved, name, values)
            sides.append(slow_row(T, moved, tokens, rows[298], 298)[tokens[299]])
        return (sides[0] - sides[1]) / 2e-4

    state.mix(tokens[-1:], rows[-1:])  # brings the last target
    assert len(kinds) > 4
    for at in np.ndindex(state.amounts.shape):
        step = 0.3 * slope("amounts", at) / math.sqrt(before.squares[at] + slope("amounts", at) ** 2)
        assert state.amounts[at] - before.amounts[at] == pytest.approx(step, abs=1e-4)
        assert (abs(step) > 1e-5) == (at in kinds)
    assert state.factor - before.factor == pytest.approx(0.0005 * slope("factor", ()), abs=1e-6)
    for token in range(VOCAB):
        step = 0.1 * slope("bias", token) - 0.001 * before.bias[token]
        assert state.bias[token] - before.bias[token] == pytest.approx(step, abs=1e-5)


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.just(1), st.integers(1, 200)), min_size=1, max_size=9), st.integers(0, 9))
def test_no_cut_of_the_calls_moves_a_row(T, sizes, seed):
    count = sum(sizes)
    tokens, rows = text(T, count, seed), model_rows(count, seed)
    whole = T.Followers(VOCAB).mix(tokens, rows)
    state, ends = T.Followers(VOCAB), np.cumsum(sizes)
    parts = [state.mix(tokens[e - n : e], rows[e - n : e]) for n, e in zip(sizes, ends)]
    assert np.array_equal(np.concatenate(parts), whole)
    np.testing.assert_allclose(np.exp(whole.astype(np.float64)).sum(1), 1, atol=1e-5)


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.integers(1, 399))
def test_a_row_does_not_move_when_later_tokens_change(T, at):
    tokens, rows = text(T, 400), model_rows(400)
    changed = np.concatenate((tokens[:at], text(T, 400 - at, 5)))
    a, b = (T.Followers(VOCAB).mix(t, rows) for t in (tokens, changed))
    assert np.array_equal(a[:at], b[:at])


def test_it_learns_what_a_model_does_not_know(T):
    """A text that repeats itself every 9 tokens, and a model that knows nothing."""
    tokens = np.tile(text(T, 9, 3), 300)
    mixed = T.Followers(VOCAB).mix(tokens, np.full((2700, VOCAB), -math.log(VOCAB), np.float32))
    nats = -mixed[np.arange(2699), tokens[1:]]
    assert nats[-200:].mean() < 0.05 * math.log(VOCAB)


def test_text_that_never_returns_costs_little(T):
    """Random tokens: votes are worth nothing."""
    tokens = np.random.default_rng(0).integers(2, 512, 6000)
    rows = np.full((6000, 512), -math.log(512), np.float32)
    nats = -T.Followers(512).mix(tokens, rows)[np.arange(5999), tokens[1:]]
    assert nats[-2000:].mean() < math.log(512) + 0.01


def test_a_run_scores_its_net_alone_and_with_followers(T, tmp_path):
    """In windows of 16 that do not overlap, so both lines have the net's same rows."""
    result = kit.run_main(tmp_path, trainer=T, FOLLOWERS=1, EVAL_SEQ_LEN=16, EVAL_STRIDE=16)
    nats = {score["kind"]: score["val_loss"] for score in result.events("score")}
    scorer, tokens = T.load_scorer(result.artifact, "cpu"), kit.random_tokens(600, 99)[:201].astype(np.int64)
    net = T.Scorer(scorer.model, 16, 16).log_probs(tokens[:-1]).numpy()
    mixed, at = T.Followers(kit.VOCAB).mix(tokens[:-1], net), (np.arange(200), tokens[1:])
    assert nats["roundtrip"] == pytest.approx(-net[at].mean(), abs=1e-6)
    assert nats["sliding"] == pytest.approx(-mixed[at].mean(), abs=1e-6)
    for _ in range(2):  # a reset forgets
        scorer.reset()
        np.testing.assert_allclose(scorer.log_probs(tokens[:-1]).numpy(), mixed, atol=1e-6)


def test_mlx_rows_are_changed_alike(T, patched, tmp_path):
    pytest.importorskip("mlx.core")
    M = load_script(patched / TRAINERS[1])  # noqa: N806
    k, path, tokens = M.read_knobs(kit.settings(FOLLOWERS=1)), tmp_path / "artifact", kit.random_tokens(90)
    path.write_bytes(M.export_artifact(kit.weights_of(kit.random_model(kit.knobs())), k, 0)[0])
    scorer = M.load_scorer(path, "cpu")
    net = M.Scorer(scorer.model, k.eval_seq_len, k.eval_stride).log_probs(tokens)
    expected = T.Followers(kit.VOCAB).mix(tokens, net)
    scorer.reset()
    rows = np.concatenate([scorer.log_probs(part) for part in np.split(tokens, [1, 40])])
    assert np.abs(rows - expected).max() < 1e-3 < 0.1 < np.abs(expected - net).max()
