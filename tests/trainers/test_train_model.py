"""The trainer's model, optimizers, schedule, clock and Scorer, each against a plain reference."""

import itertools
import math

import numpy as np
import pytest
import torch
import trainer_kit as kit
from conftest import Clock
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from trainer_kit import knobs, random_model, random_tokens

import train_gpt as T

# ---- Model ----


def logits_of(model, tokens):
    tokens = torch.from_numpy(np.asarray(tokens, np.int64))[None]
    with torch.no_grad():
        return model.logits(tokens, tokens.size(1))[0]


def test_an_input_attends_to_at_most_the_trained_length():
    model, tokens = random_model(knobs(NUM_LAYERS=1, TRAIN_SEQ_LEN=8)), random_tokens(24)
    before = logits_of(model, tokens)
    tokens[3] = tokens[3] % 900 + 50
    moved = (logits_of(model, tokens) - before).abs().amax(dim=1) > 1e-5
    assert moved.nonzero().flatten().tolist() == list(range(3, 11))


def test_shapes_follow_the_knobs_and_the_start_predicts_nothing():
    k = knobs(NUM_LAYERS=3, MODEL_DIM=24, NUM_HEADS=4, NUM_KV_HEADS=2, MLP_MULT=2.5, TIE_EMBEDDINGS=0)
    model = T.GPT(k)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["blocks.2.mlp.fc.weight"] == (60, 24) and shapes["blocks.0.attn.c_k.weight"] == (12, 24)
    assert shapes["lm_head.weight"] == shapes["tok_emb.weight"] == (kit.VOCAB, 24)
    assert not model.blocks[0].attn.proj.weight.any() and not model.blocks[2].mlp.proj.weight.any()
    loss = model.loss(torch.from_numpy(random_tokens(34).astype(np.int64)).view(2, 17))
    assert loss.item() == pytest.approx(math.log(kit.VOCAB), abs=1e-3)  # an output head of zero
    assert "lm_head.weight" not in dict(T.GPT(knobs()).named_parameters())


def test_micro_batches_give_the_step_of_the_whole_batch(tmp_path):
    after = []
    for size in (16, 32, 64):
        with kit.new_run(tmp_path, RUN_ID=f"micro{size}", MICRO_BATCH_TOKENS=size) as (run, _):
            assert run.micro * 16 == size
            run.model.load_state_dict(random_model(run.k).state_dict())
            losses = [float(T.train_step(run, run.data.batch(4 * i, 4), i, 1.0)) for i in range(2)]
            after.append((losses, kit.weights_of(run.model)))
    for losses, weights in after[1:]:
        assert losses == pytest.approx(after[0][0], rel=1e-5)
        for name, value in weights.items():
            assert np.abs(value - after[0][1][name]).max() < 1e-3 * np.abs(value).max(), name


def test_gradients_of_a_step_that_failed_do_not_count(tmp_path):
    after = []
    for failed in (False, True):
        with kit.new_run(tmp_path, RUN_ID=f"failed{failed}") as (run, _):
            batch = run.data.batch(0, 4)
            if failed:
                run.model.loss(batch).backward()
            T.train_step(run, batch, 0, 1.0)
            after.append(kit.weights_of(run.model))
    assert all((after[0][name] == after[1][name]).all() for name in after[0])


# length, span: around the blocks' edges
ATTENDED = (1, 8), (127, 512), (300, 128), (300, 1), (257, 100), (640, 512)


@pytest.mark.parametrize("length, span", ATTENDED)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_attention_in_blocks_is_attention_with_its_gradients(length, span, dtype, tolerance):
    """As products, and in float32 by PyTorch's kernel."""
    generator = torch.Generator().manual_seed(length + span)
    options = dict(generator=generator, dtype=dtype, requires_grad=True)
    q, k, v = (torch.randn(2, 3, length, 8, **options) for _ in range(3))
    inputs = torch.arange(length)
    back = inputs[:, None] - inputs  # how far back each query would look
    scores = (q @ k.mT / 8**0.5).masked_fill((back < 0) | (back >= span), -math.inf)
    expected, weight = scores.softmax(-1) @ v, torch.randn(2, 3, length, 8, generator=generator)
    got = T.attend(q, k, v, span)
    assert torch.allclose(got, expected, atol=tolerance)
    for mine, plain in zip(*(torch.autograd.grad((y * weight).sum(), (q, k, v)) for y in (got, expected))):
        assert torch.allclose(mine, plain, rtol=1e-4, atol=100 * tolerance)


def test_attention_as_products_bears_queries_of_any_gain():
    """Keys are of norm sqrt(head_dim), so the largest score is the query's norm, gain sqrt(head_dim)."""
    q, k, v = (torch.randn(1, 2, 200, 16, dtype=torch.float64) for _ in range(3))
    k = T.rms_norm(k)
    for gain in (1, 10, 25):  # from 23 on, exp of the largest score would overflow in bfloat16
        loud = T.rms_norm(q) * gain
        expected = torch.nn.functional.scaled_dot_product_attention(loud, k, v, is_causal=True)
        assert torch.allclose(T.attend(loud, k, v, 512), expected, atol=1e-9)
        mine = T.attend(*(t.bfloat16() for t in (loud, k, v)), 512)
        assert mine.isfinite().all() and (mine - expected).abs().mean() < 0.05


def norm(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def turn(x, k):
    """RoPE by complex numbers: [batch, length, heads, head_dim]."""
    half = x.size(-1) // 2
    rates = k.rope_base ** (-torch.arange(half, dtype=torch.float64) / half)
    turns = torch.polar(torch.ones(()).double(), -torch.arange(x.size(1))[:, None] * rates)[:, None]
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * turns
    return torch.cat((turned.real, turned.imag), dim=-1).to(x.dtype)


class Plain(T.GPT):
    """The model as one would write it down, one line of mathematics after the other."""

    def loss(self, tokens):
        k, w = self.k, dict(self.named_parameters())
        x = x0 = norm(w["tok_emb.weight"][tokens[:, :-1]])
        skips = []
        for i in range(k.num_layers):
            layer = {name: w[f"blocks.{i}.{name}"] for name, _ in self.blocks[i].named_parameters()}
            if i >= k.num_layers // 2 and skips:
                x = x + w["skip_weights"][i - k.num_layers // 2] * skips.pop()
            x = layer["resid_mix"][0] * x + layer["resid_mix"][1] * x0
            x = x + layer["attn_scale"] * self.attention(layer, norm(x))
            hidden = (norm(x) @ layer["mlp.fc.weight"].T).relu().square()
            x = x + layer["mlp_scale"] * (hidden @ layer["mlp.proj.weight"].T)
            if i < k.num_layers // 2:
                skips.append(x)
        logits = k.logit_softcap * (norm(x) @ w["tok_emb.weight"].T / k.logit_softcap).tanh()
        return -logits.log_softmax(-1).gather(2, tokens[:, 1:, None]).mean()

    def attention(self, layer, x):
        k, shared = self.k, self.k.num_heads // self.k.num_kv_heads
        parts = (
            (x @ layer[f"attn.c_{name}.weight"].T).unflatten(2, (-1, k.model_dim // k.num_heads))
            for name in "qkv"
        )
        q, key, value = parts
        q = turn(norm(q), k) * layer["attn.q_gain"][:, None]
        key, value = (t.repeat_interleave(shared, dim=2) for t in (turn(norm(key), k), value))
        scores = torch.einsum("bihd,bjhd->bhij", q, key) / q.size(-1) ** 0.5
        unseen = torch.ones(x.size(1), x.size(1)).triu(1).bool()
        weights = scores.masked_fill(unseen, -math.inf).softmax(-1)
        return torch.einsum("bhij,bjhd->bihd", weights, value).flatten(2) @ layer["attn.proj.weight"].T


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_three_steps_are_those_of_the_plain_model(kv_heads, monkeypatch):
    """However products are joined, cut and laid out: losses, and each tensor within 1e-5 of its norm."""
    monkeypatch.setattr(T, "CPU_BLOCK", 4)
    shape = dict(NUM_LAYERS=4, MODEL_DIM=32, NUM_HEADS=4, NUM_KV_HEADS=kv_heads, TRAIN_SEQ_LEN=20)
    k, after = knobs(**shape, TRAIN_BATCH_TOKENS=80, LOGIT_SOFTCAP=3), []
    for kind in (T.GPT, Plain):
        model = kind(k)
        model.load_state_dict(random_model(k).state_dict())
        opt, losses = T.Optimizers(model, k), []
        for step in range(3):
            tokens = torch.from_numpy(random_tokens(4 * 21, step).astype(np.int64)).view(4, 21)
            model.zero_grad()
            loss = model.loss(tokens)
            loss.backward()
            opt.schedule(step, 1.0)
            opt.apply()
            losses.append(loss.item())
        after.append((losses, dict(model.named_parameters())))
    (losses, weights), (plain_losses, plain) = after
    assert losses == pytest.approx(plain_losses, rel=1e-5)
    for name, p in plain.items():
        assert (weights[name] - p).norm() <= 1e-5 * p.norm(), name


@pytest.mark.slow
@kit.can_compile
def test_compiled_the_loss_keeps_no_float32_logits():
    model, saved = T.GPT(knobs(), torch.bfloat16), []
    x, targets = torch.randn(64, 16, dtype=torch.bfloat16, requires_grad=True), torch.arange(64)
    plain = T.GPT.nats(model, x, targets)
    nats = torch.compile(T.GPT.nats, dynamic=False)

    def keep(tensor):
        saved.append((tuple(tensor.shape), tensor.dtype))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compiled = nats(model, x, targets)
    assert compiled.item() == pytest.approx(plain.item(), rel=1e-2)
    assert ((64, 1024), torch.float32) not in saved and saved


# ---- Optimizers ----


@pytest.mark.parametrize("tied", [0, 1])
@pytest.mark.parametrize("control", [None, "c_q,resid_mix,skip_weight"])
def test_every_parameter_has_one_optimizer_and_its_own_rate(tied, control):
    k = knobs(TIE_EMBEDDINGS=tied, NUM_LAYERS=3, CONTROL_TENSOR_NAME_PATTERNS=control)
    model = T.GPT(k)
    opt, names = T.Optimizers(model, k), {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: g["base_lr"] for g in opt.adam.param_groups for p in g["params"]}
    muon = [names[id(p)] for group in opt.matrices for p in group]
    assert sorted([*rates, *muon]) == sorted(names.values())
    matrices = ("c_k.weight", "c_v.weight", "proj.weight", "fc.weight", *([] if control else ["c_q.weight"]))
    assert set(muon) == {name for name in names.values() if name.endswith(matrices)}
    assert rates.pop("tok_emb.weight") == (k.tied_embed_lr if tied else k.embed_lr)
    assert rates.pop("lm_head.weight", k.head_lr) == k.head_lr
    assert rates and set(rates.values()) == {k.scalar_lr}


def upstream_newton_schulz(grad, steps):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = grad / (grad.norm() + 1e-7)
    transposed = grad.size(0) > grad.size(1)
    x = x.T if transposed else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


def test_three_updates_equal_upstreams_muon_and_torchs_adam():
    changes = dict(MUON_MOMENTUM_WARMUP_STEPS=2, MUON_MOMENTUM_WARMUP_START=0.5, MUON_MOMENTUM=0.9)
    k = knobs(MATRIX_LR=0.03, SCALAR_LR=0.02, MLP_MULT=3, **changes)
    model = random_model(k)
    opt = T.Optimizers(model, k)
    expected = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    matrices = [name for name in expected if name.startswith("blocks.") and name.endswith(".weight")]
    embedding = expected["tok_emb.weight"]
    others = [p for name, p in expected.items() if name not in matrices and p is not embedding]
    adam = torch.optim.Adam(
        [dict(params=others, lr=0.02), dict(params=[embedding], lr=k.tied_embed_lr)],
        betas=(k.beta1, k.beta2), eps=k.adam_eps,
    )  # fmt: skip
    rates, buffers = [g["lr"] for g in adam.param_groups], {n: 0 for n in matrices}
    generator = torch.Generator().manual_seed(1)
    for step, (scale, momentum) in enumerate(((1.0, 0.5), (0.8, 0.7), (0.3, 0.9))):
        for name, p in model.named_parameters():
            p.grad = torch.randn(p.shape, generator=generator)
            expected[name].grad = p.grad.clone()
        opt.schedule(step, scale)
        opt.apply()
        for group, rate in zip(adam.param_groups, rates):
            group["lr"] = rate * scale
        adam.step()
        for name in matrices:
            grad = expected[name].grad
            buffers[name] = momentum * buffers[name] + grad
            update = upstream_newton_schulz(grad + momentum * buffers[name], k.muon_backend_steps)
            stretch = max(1, grad.size(0) / grad.size(1)) ** 0.5  # taller than wide: larger
            expected[name].data -= 0.03 * scale * stretch * update
    for name, p in model.named_parameters():
        assert torch.allclose(p, expected[name], atol=1e-4), name


def test_gradients_are_clipped_to_their_common_norm():
    norms = []
    for limit in (0, 0.5):
        k = knobs(GRAD_CLIP_NORM=limit)
        model = T.GPT(k)
        opt = T.Optimizers(model, k)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        grads = [p.grad for p in model.parameters()]
        opt.adam.step = lambda g=grads: norms.append(torch.stack([x.norm() for x in g]).norm().item())
        opt.schedule(0, 1.0)
        opt.apply()
    assert norms[0] > 10 and norms[1] == pytest.approx(0.5, rel=1e-3)


# ---- Schedule and budget ----


def test_warmdown_frac_falls_to_zero_over_the_last_part():
    k = knobs(WARMDOWN_FRAC=0.4)
    got = [T.lr_scale(k, p, 100) for p in (0, 0.3, 0.6, 0.7, 0.8, 0.9, 1)]
    assert got == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25, 0])
    assert [T.lr_scale(knobs(WARMDOWN_FRAC=0), p, 9) for p in (0, 0.5, 1)] == [1, 1, 1]
    assert T.lr_scale(knobs(WARMDOWN_FRAC=1), 0.25, 9) == pytest.approx(0.75)


def upstream_lr_mul(iterations, warmdown_iters, budget_ms, step, elapsed_ms):
    """The larger challenge's schedule, in its own words."""
    if warmdown_iters <= 0:
        return 1.0
    if budget_ms is None:
        start = max(iterations - warmdown_iters, 0)
        return max((iterations - step) / warmdown_iters, 0.0) if start <= step < iterations else 1.0
    step_ms = elapsed_ms / max(step, 1)
    warmdown_ms = warmdown_iters * step_ms
    remaining_ms = max(budget_ms - elapsed_ms, 0.0)
    return remaining_ms / max(warmdown_ms, 1e-9) if remaining_ms <= warmdown_ms else 1.0


def progress_of(k, step, elapsed):
    return T.TrainState(k, dict(step=step, elapsed=elapsed, recent=[0.0]), Clock()).progress()


@pytest.mark.parametrize("iters", [0, 1, 30, 99, 300])
def test_warmdown_iters_is_upstreams(iters):
    steps = knobs(ITERATIONS=100, WARMDOWN_ITERS=iters)
    timed = knobs(ITERATIONS=0, MAX_WALLCLOCK_SECONDS=50, WARMDOWN_ITERS=iters)
    for step in range(100):
        scale = T.lr_scale(steps, progress_of(steps, step, 0.0), step)
        assert scale == pytest.approx(upstream_lr_mul(100, iters, None, step, 0))
        elapsed = step * 0.4
        scale = T.lr_scale(timed, progress_of(timed, step, elapsed), step)
        assert scale == pytest.approx(upstream_lr_mul(0, iters, 50_000, step, elapsed * 1000))


def test_progress_is_the_larger_of_time_and_steps():
    both = knobs(ITERATIONS=100, MAX_WALLCLOCK_SECONDS=50)
    assert progress_of(both, 20, 40) == pytest.approx(0.8)
    assert progress_of(both, 90, 5) == pytest.approx(0.9)
    assert progress_of(both, 10, 60) == progress_of(both, 200, 0) == 1
    assert progress_of(knobs(ITERATIONS=100), 25, 1e6) == pytest.approx(0.25)
    timed = knobs(ITERATIONS=0, MAX_WALLCLOCK_SECONDS=50)
    assert progress_of(timed, 10**6, 10) == pytest.approx(0.2)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0.01, 20), min_size=1, max_size=60), st.floats(0, 12), st.floats(1, 12))
def test_kept_time_never_exceeds_the_budget(durations, start, limit):
    clock, begin = Clock(), dict(step=0, elapsed=min(start, limit), recent=[0.0])
    state = T.TrainState(knobs(MAX_WALLCLOCK_SECONDS=limit, ITERATIONS=0), begin, clock)
    begun = state.elapsed
    for seconds in durations:
        if state.over():
            break
        clock.now += seconds
        before, step = state.elapsed, state.step
        kept = state.lap()
        assert kept == (before + seconds <= limit) or abs(before + seconds - limit) < 1e-6
        assert state.elapsed == (pytest.approx(before + seconds) if kept else before)
        assert state.step == step + kept and state.discarded == (None if kept else step + 1)
        assert begun <= state.elapsed <= limit
        clock.now += 100  # a validation
        state.mark = clock()


# ---- Scorer ----

# window and stride; 28 is past what attention reaches
CUTS = [(16, 4), (16, 5), (16, 16), (8, 1), (5, 3), (28, 8)]


def naive_rows(model, tokens, seq_len: int, stride: int) -> torch.Tensor:
    """Design, section 5: block b scores targets S b + 1 .. S b + S from the inputs
    max(0, S b + S - E) .. S b + S - 1, here by a pass of its own for every target."""
    rows = []
    for target in range(1, len(tokens) + 1):
        block = (target - 1) // stride
        begin = max(0, stride * block + stride - seq_len)
        window = torch.from_numpy(tokens[begin:target].astype(np.int64))[None]
        with torch.no_grad():
            logits = model.logits(window, window.size(1))
        rows.append(logits[0, -1].double().log_softmax(0))
    return torch.stack(rows)


def scorer_of(seq_len, stride, windows=2, seed=0, dtype=torch.float32):
    k = knobs(EVAL_SEQ_LEN=seq_len, EVAL_STRIDE=stride, TRAIN_SEQ_LEN=12, VOCAB_SIZE=64)
    return T.Scorer(random_model(k, seed, dtype), seq_len, stride, windows * seq_len)


def small_tokens(count, seed=0):
    return (random_tokens(count, seed) % 64).astype(np.uint16)


def boundary_lengths(seq_len, stride, windows=2):
    """Lengths around every boundary: of a block, the window, the shared pass, a batch."""
    shared = seq_len // stride * stride
    marks = (stride, seq_len, shared, shared + stride, shared + windows * stride)
    marks += (shared + 2 * windows * stride, windows * stride, 3 * windows * stride)
    return sorted({max(1, mark + off) for mark in marks for off in (-1, 0, 1)} | {1})


@pytest.mark.parametrize("seq_len, stride", CUTS)
def test_rows_equal_one_window_per_target_and_scores_count_every_target_once(seq_len, stride):
    scorer = scorer_of(seq_len, stride)
    lengths = boundary_lengths(seq_len, stride)
    tokens = small_tokens(max(*lengths, 3 * seq_len + 2) + 1)
    expected = naive_rows(scorer.model, tokens[:-1], seq_len, stride)
    rows = scorer.log_probs(tokens[:-1])
    assert rows.dtype == torch.float32 and rows.shape == expected.shape
    assert (rows - expected).abs().max() < 1e-4 and (rows.double().exp().sum(dim=1) - 1).abs().max() < 1e-5
    nats = -expected[torch.arange(len(expected)), torch.from_numpy(tokens[1:].astype(np.int64))].numpy()
    assert nats.std() > 0.1
    for count in lengths:
        sizes = np.arange(1, count + 1)
        score = T.score_stream(scorer, T.Stream(tokens[: count + 1], sizes, {}, "x"))
        assert score["targets"] == count and score["bytes"] == sizes.sum()
        assert score["val_loss"] == pytest.approx(nats[:count].mean(), rel=1e-5)
        assert score["val_bpb"] == pytest.approx(nats[:count].sum() / math.log(2) / sizes.sum(), rel=1e-5)
        segments = np.zeros((64, 2))
        for i in range(count):
            segments[i * 64 // count] += nats[i], sizes[i]
        assert np.allclose(score["segments"], segments, rtol=1e-4, atol=1e-5)
        assert (score["seq_len"], score["stride"]) == (seq_len, stride)


def fed(scorer, tokens, sizes) -> tuple[torch.Tensor, int]:
    """Rows of a stream fed in calls of these sizes, and how many inputs went through the model."""
    real, inputs = scorer.model.features, []

    def features(tokens, *past, **named):
        inputs.append(tokens.numel())
        return real(tokens, *past, **named)

    scorer.reset()
    ends = list(itertools.accumulate(sizes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer.model, "features", features)
        parts = [scorer.log_probs(tokens[end - size : end]) for size, end in zip(sizes, ends)]
    assert [len(part) for part in parts] == list(sizes)
    return torch.cat(parts), sum(inputs)


def least_inputs(count, seq_len, stride) -> int:
    """Of a stream of `count` inputs: the shared pass, then a window a block, the last as far as it goes."""
    shared = seq_len // stride * stride
    if count <= shared:
        return count
    blocks, rest = divmod(count - shared, stride)
    return shared + blocks * seq_len + (seq_len - stride + rest if rest else 0)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.sampled_from(CUTS), st.lists(st.one_of(st.just(1), st.integers(1, 45)), min_size=1, max_size=6))
def test_rows_do_not_depend_on_where_calls_are_cut(shape, sizes):
    scorer, tokens = scorer_of(*shape), small_tokens(sum(sizes))
    whole = scorer.log_probs(tokens)
    rows, inputs = fed(scorer, tokens, sizes)
    assert (rows - whole).abs().max() < 1e-5  # the contract allows 1e-3
    assert inputs == least_inputs(sum(sizes), *shape)


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.sampled_from(CUTS), st.integers(0, 49), st.integers(0, 9))
def test_a_row_does_not_move_when_later_inputs_change(shape, at, seed):
    scorer, tokens = scorer_of(*shape), small_tokens(50)
    before = scorer.log_probs(tokens)
    changed = tokens.copy()
    changed[at:] = small_tokens(50 - at, seed + 100)
    scorer.reset()
    assert (scorer.log_probs(changed) - before)[:at].abs().sum() == 0


def test_bfloat16_scores_hardly_depend_on_the_cuts():
    scorer, tokens = scorer_of(16, 4, dtype=torch.bfloat16), small_tokens(300)
    targets = torch.from_numpy(np.roll(tokens, -1).astype(np.int64))[:, None]
    means = []
    for size in (300, 1, 7, 100):
        scorer.reset()
        rows = torch.cat([scorer.log_probs(tokens[i : i + size]) for i in range(0, 300, size)])
        means.append(-rows.gather(1, targets).double().mean().item())
    assert max(means) - min(means) < 1e-4 * math.log(2) * 2.4  # 2.4 bytes a token, as in real text


@pytest.mark.parametrize("tokens", [[], [64], [-1], [[1, 2]]], ids=str)
def test_inputs_that_are_no_stream_are_refused(tokens):
    with pytest.raises((T.UserError, ValueError)):
        scorer_of(16, 4).log_probs(np.array(tokens, np.int64))
