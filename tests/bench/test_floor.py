"""The floor's counts against the real model: torch counts its products, we count ours."""

from collections import Counter

import numpy as np
import pytest
import torch
import trainer_kit as kit
from golf.bench import command as bench
from golf.bench import floor
from golf.bench.floor import Operator, Peaks, Product
from golf.core import envfile
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import train_gpt as T

SHAPES = [
    dict(NUM_LAYERS=1),
    dict(NUM_LAYERS=2, TIE_EMBEDDINGS=0),
    dict(NUM_LAYERS=5, MODEL_DIM=24, NUM_HEADS=4, NUM_KV_HEADS=2, MLP_MULT=2.5),
    dict(NUM_LAYERS=3, NUM_KV_HEADS=2, MLP_MULT=1),  # keys as wide as queries, a square MLP
]


def counted(call) -> int:
    """Operations by torch's counter; attention as plain products over the whole square."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def operations(operators, phase, attention=None) -> int:
    """Ours; attention: only that (True), or all else (False)."""
    return sum(
        n * op.operations
        for op, n in operators.items()
        if op.phase == phase and attention in (None, op.name == "attention")
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_has_the_operations_that_torch_counts(shape):
    k = kit.knobs(**shape)
    model, length = kit.random_model(k), k.train_seq_len
    batch = k.train_batch_tokens // length
    tokens = torch.randint(0, k.vocab_size, (batch, length + 1))
    loss = []
    operators = floor.training(k, size=4)
    square = 2 * k.model_dim * length**2 * batch * k.num_layers  # of one product of attention
    forward = counted(lambda: loss.append(model.loss(tokens)))
    assert forward == operations(operators, "forward", attention=False) + 2 * square
    backward = counted(lambda: loss[0].backward())
    assert backward == operations(operators, "backward", attention=False) + 4 * square
    # ours does half of each, and in the backward pass the scores again
    half = square * (length + 1) // (2 * length)
    assert operations(operators, "forward", attention=True) == 2 * half
    assert operations(operators, "backward", attention=True) == 5 * half


@pytest.mark.parametrize("shape", SHAPES)
def test_an_update_has_the_operations_that_torch_counts(shape):
    k = kit.knobs(**shape)
    model = kit.random_model(k)
    optimizers = T.Optimizers(model, k)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    assert counted(optimizers.apply) == operations(floor.training(k, 4), "optimizer")


@pytest.mark.parametrize(("layers", "seq_len", "stride"), [(1, 16, 8), (3, 32, 4), (2, 24, 24)])
def test_scoring_has_the_operations_that_torch_counts(layers, seq_len, stride):
    k = kit.knobs(NUM_LAYERS=layers, EVAL_SEQ_LEN=seq_len, EVAL_STRIDE=stride, TRAIN_SEQ_LEN=16)
    model, windows = kit.random_model(k), 3
    tokens = torch.randint(0, k.vocab_size, (windows, seq_len))
    with torch.no_grad():
        found = counted(lambda: model.logits(tokens, stride))
    operators = floor.scoring(k, 4, windows)
    at = np.arange(seq_len)
    back = at[:, None] - at
    pairs = ((back >= 0) & (back < 16)).sum() * layers * windows
    assert operations(operators, "score", attention=True) == 4 * k.model_dim * pairs
    # torch counts whole squares: one block of queries is no longer than 128
    square = 4 * k.model_dim * seq_len**2 * layers * windows
    assert found == operations(operators, "score", attention=False) + square


def test_the_floor_is_the_sum_of_each_operators_larger_bound():
    fast, slow = Product(8, 8, 8), Product(64, 8, 8)
    peaks = Peaks(bandwidth=10.0, square=100.0, rates={fast: 1000.0, slow: 50.0}, limit=64)
    operators = Counter({
        Operator("forward", "products", 500, 1, fast): 2,  # 0.5 s, not 0.1
        Operator("forward", "clipped", 500, 1, Product(4096, 8, 8)): 1,  # as `slow`: 10 s
        Operator("backward", "bytes", 500, 70, fast): 1,  # 7 s, not 0.5
        Operator("score", "unknown", 500, 0, Product(9, 9, 9)): 1,  # at the square's peak: 5 s
        Operator("optimizer", "no products", 0, 20): 3,  # 2 s each
    })  # fmt: skip
    assert floor.floor_seconds(operators, peaks, "forward") == pytest.approx(11)
    assert floor.floor_seconds(operators, peaks) == pytest.approx(11 + 7 + 5 + 6)
    assert floor.shapes(operators, 64) == {fast, slow, Product(9, 9, 9)}


@pytest.mark.parametrize("config", ["local_4090_baseline", "upstream_16mb_baseline"])
def test_the_documented_table_is_the_computed_one(config):
    """It holds operations, bytes and seconds of every phase to what was counted by hand."""
    k = T.read_knobs(envfile.parse(kit.REPO / "configs" / f"{config}.env"))
    documented = (kit.REPO / "docs" / "floors.md").read_text()
    rows = [line for line in bench.floor_lines(config, k) if line.startswith(f"| {config} |")]
    assert len(rows) == 5
    for row in rows:
        assert row in documented
