"""FOLLOWERS=1 in both trainers. Followers are held to slow ones, a place at a time, and to the loss's slopes
by finite differences."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trainer_kit as kit
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import train_gpt as T

VOCAB, FIRST_TOKEN = 7, 1


def text(count, seed=0):
    """Of few tokens, so that contexts return; documents of about 40."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, VOCAB, count)
    tokens[rng.integers(0, count, count // 40)] = FIRST_TOKEN
    return tokens


def model_rows(count, seed=0):
    rows = np.random.default_rng(seed + 1000).normal(0, 3, (count, VOCAB)).astype(np.float32)
    return rows - np.log(np.exp(rows).sum(1, keepdims=True))


def mixed(followers, tokens, rows):
    return np.stack([followers.mix(*pair) for pair in zip(tokens.tolist(), rows)])


def raises(tokens, at):
    """(token, order, rank) after tokens[: at + 1], by looking at every earlier place: of the stream, then of
    this document, whose orders are the last four."""
    document = max((i for i in range(at + 1) if tokens[i] == FIRST_TOKEN), default=0)
    padded = [0] * max(T.ORDERS) + list(tokens)  # contexts before the stream begins are zeros
    contexts = [padded[i + 1 : i + 1 + max(T.ORDERS)] for i in range(at + 1)]
    pairs = [(start, order) for start in (0, document) for order in T.ORDERS]
    for n, (start, order) in enumerate(pairs):
        ends = [i for i in range(at - 1, start - 1, -1) if contexts[i][-order:] == contexts[at][-order:]]
        for rank, end in enumerate(ends[: T.RANKS]):
            yield tokens[end + 1], n, rank


def slow_row(state, tokens, model, at):
    row = state.factor * model.astype(np.float64) + state.bias
    for token, order, rank in raises(tokens, at):
        row[token] += state.amounts[order, rank, min(int(-model[token] / 2), 4)]
    return row - np.log(np.exp(row).sum())


def test_rows_are_those_of_one_place_at_a_time():
    tokens, rows = text(400), model_rows(400)
    tokens[300:328] = [2, 3, 3, 4, 5, 6, 4] * 4  # so that six return within a document
    state, orders = T.Followers(VOCAB), set()
    for at, token in enumerate(tokens.tolist()):
        row = state.mix(token, rows[at])
        np.testing.assert_allclose(row, slow_row(state, tokens, rows[at], at), atol=1e-5)
        orders |= {order for _, order, _ in raises(tokens, at)}
    assert orders == set(range(8)) and state.factor != 1 and np.ptp(state.amounts) > 0.1  # it had learnt


def test_a_target_moves_what_made_its_row_by_the_slope_of_its_loss():
    tokens, rows = text(300), model_rows(300)
    state = T.Followers(VOCAB)
    mixed(state, tokens[:-1], rows[:-1])
    kinds = {tuple(kind) for kind in np.transpose(state.made[3])}
    before = copy.deepcopy(state)

    def slope(name, at):
        sides = []
        for shift in (1e-4, -1e-4):
            moved = copy.deepcopy(before)
            values = np.array(getattr(moved, name), np.float64)
            values[at] += shift
            setattr(moved, name, values)
            sides.append(slow_row(moved, tokens, rows[298], 298)[tokens[299]])
        return (sides[0] - sides[1]) / 2e-4

    state.mix(int(tokens[-1]), rows[-1])  # brings the last target
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
def test_no_cut_of_the_calls_moves_a_row(sizes, seed):
    """Scorers of a model whose rows are those of a table, whatever stands before."""

    def logits(tokens, rows, past):
        return table[tokens[:, -rows:]]

    table, count = torch.from_numpy(model_rows(VOCAB, seed)), sum(sizes)
    model = SimpleNamespace(k=SimpleNamespace(vocab_size=VOCAB), skip_weights=table, blocks=[], logits=logits)
    scorer, tokens, ends = T.Scorer(model, 8, 3, 16, follow=1), text(count, seed), np.cumsum(sizes)
    whole = scorer.log_probs(tokens).numpy()
    scorer.reset()
    parts = [scorer.log_probs(tokens[e - n : e]).numpy() for n, e in zip(sizes, ends)]
    assert np.array_equal(np.concatenate(parts), whole)
    np.testing.assert_allclose(np.exp(whole.astype(np.float64)).sum(1), 1, atol=1e-5)
    assert np.array_equal(whole, mixed(T.Followers(VOCAB), tokens, table.log_softmax(-1).numpy()[tokens]))


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.integers(1, 399))
def test_a_row_does_not_move_when_later_tokens_change(at):
    tokens, rows = text(400), model_rows(400)
    changed = np.concatenate((tokens[:at], text(400 - at, 5)))
    a, b = (mixed(T.Followers(VOCAB), t, rows) for t in (tokens, changed))
    assert np.array_equal(a[:at], b[:at])


def test_it_learns_what_a_model_does_not_know():
    """A text that repeats itself every 9 tokens, and a model that knows nothing."""
    tokens = np.tile(text(9, 3), 300)
    rows = mixed(T.Followers(VOCAB), tokens, np.full((2700, VOCAB), -math.log(VOCAB), np.float32))
    nats = -rows[np.arange(2699), tokens[1:]]
    assert nats[-200:].mean() < 0.05 * math.log(VOCAB)


def test_text_that_never_returns_costs_little():
    """Random tokens: votes are worth nothing."""
    tokens = np.random.default_rng(0).integers(2, 512, 6000)
    rows = np.full((6000, 512), -math.log(512), np.float32)
    nats = -mixed(T.Followers(512), tokens, rows)[np.arange(5999), tokens[1:]]
    assert nats[-2000:].mean() < math.log(512) + 0.01


def test_a_run_scores_its_net_alone_and_with_followers(tmp_path):
    """In windows of 16 that do not overlap, so both lines have the net's same rows."""
    result = kit.run_main(tmp_path, FOLLOWERS=1, EVAL_SEQ_LEN=16, EVAL_STRIDE=16)
    nats = {score["kind"]: score["val_loss"] for score in result.events("score")}
    scorer, tokens = T.load_scorer(result.artifact, "cpu"), kit.random_tokens(600, 99)[:201].astype(np.int64)
    net = T.Scorer(scorer.model, 16, 16).log_probs(tokens[:-1]).numpy()
    better, at = mixed(T.Followers(kit.VOCAB), tokens[:-1], net), (np.arange(200), tokens[1:])
    assert nats["roundtrip"] == pytest.approx(-net[at].mean(), abs=1e-6)
    assert nats["sliding"] == pytest.approx(-better[at].mean(), abs=1e-6)
    for _ in range(2):  # a reset forgets
        scorer.reset()
        np.testing.assert_allclose(scorer.log_probs(tokens[:-1]).numpy(), better, atol=1e-6)


def test_mlx_rows_are_changed_alike(tmp_path):
    M = pytest.importorskip("mlx_kit").M  # noqa: N806
    k, path, tokens = M.read_knobs(kit.settings(FOLLOWERS=1)), tmp_path / "artifact", kit.random_tokens(90)
    path.write_bytes(kit.packed(kit.random_model(kit.knobs()), k, trainer=M)[0])
    scorer = M.load_scorer(path, "cpu")
    net = M.Scorer(scorer.model, k.eval_seq_len, k.eval_stride).log_probs(tokens)
    expected = mixed(T.Followers(kit.VOCAB), tokens, net)
    scorer.reset()
    rows = np.concatenate([scorer.log_probs(part) for part in np.split(tokens, [1, 40])])
    assert np.abs(rows - expected).max() < 1e-3 < 0.1 < np.abs(expected - net).max()
