"""The MLX trainer beside its twin: the same model, training, artifacts and scores; flat memory."""

import shutil
from unittest import mock

import numpy as np
import pytest
import torch
import trainer_kit as kit
from conftest import Clock
from mlx_kit import M, given_weights, knobs, mx, new_run, run_main, twin_of

import train_gpt as T

# ---- Model ----


def logits_of(model, tokens):
    return np.array(model.logits(mx.array(tokens.astype(np.int32))[None], len(tokens))[0])


def twin_logits(twin, tokens):
    scorer = T.Scorer(twin, len(tokens), len(tokens))
    with torch.inference_mode():
        return scorer.log_probs(tokens).numpy()


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("changes", [
    dict(), dict(NUM_LAYERS=1), dict(NUM_LAYERS=3, TIE_EMBEDDINGS=0, LOGIT_SOFTCAP=3, ROPE_BASE=100),
    dict(TRAIN_SEQ_LEN=300, NUM_KV_HEADS=2, MLP_MULT="2.5"), dict(TRAIN_SEQ_LEN=140),
], ids=str)  # fmt: skip
def test_logits_are_the_twins(changes):
    model, twin = twin_of(EVAL_SEQ_LEN=300, **changes)
    tokens = kit.random_tokens(300)
    got, expected = logits_of(model, tokens), twin_logits(twin, tokens)
    assert got.std() > 0.1 and np.abs(log_softmax(got) - expected).max() < 1e-3


def test_a_new_model_has_the_twins_names_shapes_and_spread():
    changes = dict(MODEL_DIM=64, TIE_EMBEDDINGS=0)
    model = dict(M.tree_flatten(M.GPT(knobs(**changes)).parameters()))
    twin = dict(T.GPT(kit.knobs(**changes)).named_parameters())
    assert model.keys() == twin.keys()
    for name, p in twin.items():
        got = np.array(model[name])
        assert got.shape == tuple(p.shape) and got.dtype == np.float32
        assert got.std() == pytest.approx(p.std().item(), rel=0.1, abs=1e-9), name
        assert np.abs(got).max() == pytest.approx(p.abs().max().item(), rel=0.2, abs=1e-9), name
    tied = dict(M.tree_flatten(M.GPT(knobs()).parameters()))
    assert np.array(tied["tok_emb.weight"]).std() == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize("size", [1, 7, 64, 10**15])
def test_chunks_of_logits_change_neither_loss_nor_gradients(size):
    found = []
    for chunk in (0, size):
        model = given_weights(knobs(LOGIT_CHUNK_TOKENS=chunk))
        tokens = mx.array(kit.random_tokens(34).reshape(2, 17).astype(np.int32))
        loss, grads = M.nn.value_and_grad(model, model.loss)(tokens)
        found.append((loss.item(), {n: np.array(g) for n, g in M.tree_flatten(grads)}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name, grad in found[0][1].items():
        assert np.abs(grad - found[1][1][name]).max() <= 1e-4 * np.abs(grad).max() + 1e-7, name


# ---- Optimizers and steps ----


def test_newton_schulz_is_the_twins():
    for shape in ((3, 16, 16), (4, 16, 48), (2, 48, 16), (1, 8, 64)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        expected = T.newton_schulz(torch.from_numpy(x), 5).numpy()
        assert np.abs(np.array(M.newton_schulz(mx.array(x), 5)) - expected).max() < 1e-4


def losses_of(run, trainer, steps=10):
    count, length = run.sequences, run.k.train_seq_len + 1
    tensor = mx.array if trainer is M else torch.from_numpy
    losses = []
    for step in range(steps):
        tokens = kit.random_tokens(count * length, step).reshape(count, length).astype(np.int64)
        losses.append(trainer.train_step(run, tensor(tokens), step, 1.0 - step / 20).item())
    return losses


RECIPES = [
    dict(NUM_LAYERS=3, MODEL_DIM=32, NUM_HEADS=4, NUM_KV_HEADS=2, MUON_MOMENTUM_WARMUP_STEPS=5),
    dict(TIE_EMBEDDINGS=0, GRAD_CLIP_NORM=0.3, MUON_BACKEND_STEPS=3, EMBED_LR=0.1),
    dict(NUM_LAYERS=1, CONTROL_TENSOR_NAME_PATTERNS="c_q,resid_mix,skip_weight", MLP_MULT=4),
]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_ten_steps_from_the_same_weights_lose_as_the_twin_does(recipe, tmp_path):
    recipe = dict(TRAIN_BATCH_TOKENS=128, MICRO_BATCH_TOKENS=64, **recipe)
    with kit.new_run(tmp_path, RUN_ID="twin", **recipe) as (twin, _):
        weights = kit.weights_of(twin.model)
        expected = losses_of(twin, T)
        after = kit.weights_of(twin.model)
    with new_run(tmp_path, **recipe) as run:
        run.model.update(M.tree_unflatten([(n, mx.array(w)) for n, w in weights.items()]))
        got = losses_of(run, M)
    assert np.abs(np.subtract(got, expected)).max() < 0.002 and np.std(expected) > 0.01
    for name, p in M.tree_flatten(run.model.parameters()):
        assert np.linalg.norm(np.array(p) - after[name]) <= 1e-3 * np.linalg.norm(after[name]), name


def two_steps(folder, **changes):
    """(passes' sequences, losses, weights) of two steps from the weights of kit.random_model."""
    with new_run(folder, **changes) as run:
        given_weights(run.k, run.model)
        losses = losses_of(run, M, 2)
        return run.micro, losses, dict(M.tree_flatten(run.model.parameters()))


@pytest.fixture(scope="module")
def whole_batch(tmp_path_factory):
    return two_steps(tmp_path_factory.mktemp("whole"), MICRO_BATCH_TOKENS=64)


@pytest.mark.parametrize("changes, micro", [
    (dict(MICRO_BATCH_TOKENS=16), 1), (dict(MICRO_BATCH_TOKENS=48), 2), (dict(MICRO_BATCH_TOKENS=64), 4),
    (dict(GRAD_ACCUM_STEPS=2, MICRO_BATCH_TOKENS=64), 2), (dict(GRAD_ACCUM_STEPS=100), 1),
    (dict(MLX_MAX_MICROBATCH_TOKENS=16), 1), (dict(MLX_EAGER_EVAL=0, MICRO_BATCH_TOKENS=16), 1),
], ids=str)  # fmt: skip
def test_passes_are_as_told_and_give_the_step_of_the_whole_batch(changes, micro, whole_batch, tmp_path):
    _, losses, weights = whole_batch
    found = two_steps(tmp_path, **changes)
    assert found[:2] == (micro, pytest.approx(losses, rel=1e-5))
    for name, p in weights.items():
        assert np.abs(np.array(p - found[2][name])).max() < 1e-3 * mx.abs(p).max().item(), name


def test_on_a_gpu_passes_are_as_large_as_memory_allows(tmp_path, monkeypatch):
    """The backend of a CPU stands in for a GPU with little memory.

    Its peak varies by half from pass to pass, with the order in which MLX computes: one stands for all.
    """
    with new_run(tmp_path, TRAIN_BATCH_TOKENS=1024) as run:
        run.streams = run.streams[:1]
        monkeypatch.setattr(M.mx, "default_device", lambda: mx.gpu)
        before, peaks, peak = mx.get_active_memory(), [], mx.get_peak_memory
        monkeypatch.setattr(M.mx, "get_peak_memory", lambda: peaks.append(peak()) or 900)
        monkeypatch.setattr(M.mx, "get_active_memory", lambda: 400)
        for fits, micro in ((0.5, 1), (6, 4), (1000, 64)):
            info = dict(max_recommended_working_set_size=int(2 * fits * 500))
            monkeypatch.setattr(M.mx, "device_info", lambda info=info: info)
            assert run.pick_micro_batch() == micro
        assert min(peaks) > before + 2**16, "a pass was made, and measured"


def test_warm_up_leaves_no_trace(tmp_path):
    with new_run(tmp_path, WARMUP_STEPS=0) as cold, new_run(tmp_path, RUN_ID="w", WARMUP_STEPS=2) as warm:
        trees = ([run.model.parameters(), run.opt.state] for run in (cold, warm))
        for (name, a), (_, b) in zip(*map(M.tree_flatten, trees)):
            assert mx.array_equal(a, b).item(), name


# ---- Memory ----


def peak_of(action) -> int:
    mx.clear_cache()
    mx.reset_peak_memory()
    action()
    return mx.get_peak_memory()


@pytest.mark.slow
def test_memory_is_flat_over_fifty_validation_batches():
    k = knobs(EVAL_SEQ_LEN=16, EVAL_STRIDE=16)
    scorer = M.Scorer(given_weights(k), 16, 16, batch_tokens=64)
    peaks, held = [], []
    for batches in (1, 5, 50):
        stream = M.Stream(kit.random_tokens(64 * batches + 1), np.ones(64 * batches, np.int64), {}, "x")
        M.score_stream(scorer, stream)
        peaks.append(peak_of(lambda stream=stream: M.score_stream(scorer, stream)))
        held.append(mx.get_active_memory())
    # a pass more or less may be under way: one that grew would be at fifty times the first
    assert peaks[2] < 2 * peaks[0] and held[2] <= held[0] * 1.01


def test_memory_of_one_call_over_many_windows_is_flat():
    scorer = M.Scorer(given_weights(knobs()), 16, 4, batch_tokens=64)
    tokens = kit.random_tokens(1600)
    small, large = (peak_of(lambda n=n: scorer.log_probs(tokens[:n])) for n in (160, 1600))
    assert large < 2 * small


@pytest.mark.slow
def test_memory_does_not_grow_with_the_passes_of_a_step(tmp_path):
    peaks = []
    for count in (64, 1024):  # 4 and 64 passes
        with new_run(tmp_path, RUN_ID=f"m{count}", TRAIN_BATCH_TOKENS=count, MICRO_BATCH_TOKENS=16) as run:
            losses_of(run, M, 1)
            peaks.append(peak_of(lambda run=run: losses_of(run, M, 1)))
    assert peaks[1] < 2 * peaks[0]


# ---- Artifacts and scores ----


@pytest.mark.slow
@pytest.mark.parametrize("packs", [M, T], ids=["packed by MLX", "packed by the twin"])
def test_an_artifact_of_either_scores_the_same_in_both(packs, tmp_path):
    """16,384 targets; within 0.0005 bits a byte in float32, 0.003 in bfloat16."""
    changes = dict(MODEL_DIM=32, TRAIN_SEQ_LEN=32, EVAL_SEQ_LEN=64, EVAL_STRIDE=64)
    weights = kit.weights_of(kit.random_model(kit.knobs(**changes)))
    k = knobs(**changes) if packs is M else kit.knobs(**changes)
    blob, _ = packs.export_artifact(weights, kit.columns_of(weights), k, 0)
    path = tmp_path / "artifact"
    path.write_bytes(blob)
    stream = M.Stream(kit.random_tokens(16385), np.full(16384, 3), {}, "x")
    bpb = []
    for trainer, dtype in ((T, torch.float32), (M, mx.float32), (M, mx.bfloat16))[: 3 if packs is M else 2]:
        scorer = trainer.load_scorer(path, "cpu", dtype=dtype, batch_tokens=2048)
        bpb.append(trainer.score_stream(scorer, stream)["val_bpb"])
    assert bpb[0] > 1 and abs(bpb[0] - bpb[1]) < 0.0005 and abs(bpb[0] - bpb[-1]) < 0.003


@pytest.fixture
def scorer():
    return M.Scorer(given_weights(knobs()), 16, 4, batch_tokens=32)


def test_rows_are_float32_distributions_wherever_calls_are_cut(scorer):
    tokens = kit.random_tokens(90)
    whole = scorer.log_probs(tokens)
    assert isinstance(whole, np.ndarray) and whole.dtype == np.float32 and whole.shape == (90, kit.VOCAB)
    assert np.abs(np.exp(whole.astype(np.float64)).sum(1) - 1).max() < 1e-4
    for cuts in ([1] * 90, [50, 1, 39], [7] * 12 + [6]):
        scorer.reset()
        ends = np.cumsum(cuts)
        rows = np.concatenate([scorer.log_probs(tokens[e - n : e]) for n, e in zip(cuts, ends)])
        assert np.abs(rows - whole).max() < 1e-3


def test_a_row_depends_on_nothing_after_its_input(scorer):
    tokens = kit.random_tokens(60)
    before = scorer.log_probs(tokens)
    tokens[33] = tokens[33] % 900 + 50
    scorer.reset()
    moved = np.abs(scorer.log_probs(tokens) - before).max(axis=1)
    assert moved[:33].max() == 0 and moved[33] > 1e-5


@pytest.mark.parametrize("tokens", [[], [kit.VOCAB], [-1], [[1, 2]]], ids=str)
def test_inputs_that_are_no_stream_are_refused(tokens, scorer):
    with pytest.raises((M.UserError, ValueError)):
        scorer.log_probs(np.array(tokens, np.int64))


@pytest.mark.parametrize("change", [
    lambda h: h["config"].update(num_layers=3), lambda h: h["config"].update(model_dim=65536),
    lambda h: h["config"].pop("rope_base"), lambda h: h["tensors"][0].__setitem__(1, [1 << 30, 1 << 30]),
    lambda h: h["tensors"].pop(),
], ids=range(5))  # fmt: skip
def test_artifacts_that_lie_are_refused_before_anything_is_allocated(change, tmp_path):
    blob, _ = kit.packed(kit.random_model(kit.knobs()), knobs(), trainer=M)
    path = tmp_path / "artifact"

    def refused():
        with pytest.raises(M.UserError, match="damaged, or no artifact"):
            M.load_scorer(path, "cpu")

    for bad in (kit.with_header(blob, change), blob[:-1], blob[: M.PREFIX.size], b""):
        path.write_bytes(bad)
        assert peak_of(refused) < mx.get_active_memory() + 1_000_000
    path.write_bytes(kit.with_header(blob, lambda header: None))
    assert M.load_scorer(path, "cpu").log_probs([1]).shape == (1, kit.VOCAB)


# ---- Whole runs: how they go on and what they refuse ----


def test_a_resumed_run_ends_as_the_whole_one(tmp_path):
    whole = run_main(tmp_path, RUN_ID="whole")
    assert whole.code == 0, whole.err
    stop = kit.before_step(lambda run: run.stop.ask(15, None), 3, M)
    part = run_main(tmp_path, {"train_step": stop}, RUN_ID="part")
    assert part.code == 0 and part.event("train_end")["reason"] == "interrupted", part.err
    assert "interrupted" in part.events("score")[0]["notes"]
    rest = run_main(tmp_path, RUN_ID="part", RESUME=1)
    assert rest.code == 0 and rest.events("start")[-1]["resumed"], rest.err
    assert rest.losses == whole.losses
    assert rest.artifact.read_bytes() == whole.artifact.read_bytes()
    (rest.folder / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    kit.assert_told(run_main(tmp_path, RUN_ID="part", RESUME=1), 1, "delete it to begin anew")


def test_a_step_past_the_budget_is_undone(tmp_path):
    with new_run(tmp_path, ITERATIONS=0, MAX_WALLCLOCK_SECONDS=10) as run:
        clock, kept = Clock(), {}
        real = M.train_step

        def slow(run, tokens, step, scale):
            kept[step] = dict(M.tree_flatten(run.model.parameters()))
            clock.now += 3 if step < 2 else 9
            return real(run, tokens, step, scale)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(M, "train_step", slow)
            assert M.train(run, clock) == "wallclock_cap"
    end = kit.Result(run.folder).event("train_end")
    assert (end["step"], end["train_seconds"], end["discarded_step"]) == (2, 6, 3)
    for name, p in M.tree_flatten(run.model.parameters()):
        assert mx.array_equal(p, kept[2][name]).item(), name


METAL = "[METAL] Command buffer execution failed: "


@pytest.mark.parametrize("message, code, words", [
    (METAL + "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
     1, ("display sleep", "caffeinate", "MICRO_BATCH_TOKENS", "AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1")),
    (METAL + "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
     3, ("out of memory", "MICRO_BATCH_TOKENS")),
    ("[metal::malloc] Attempting to allocate 99 bytes which is greater than", 3, ("out of memory",)),
])  # fmt: skip
def test_what_metal_says_is_told_with_remedies(message, code, words, tmp_path):
    train_step = mock.Mock(side_effect=RuntimeError(message))
    kit.assert_told(run_main(tmp_path, {"train_step": train_step}), code, *words)


def test_other_errors_are_not_hidden(tmp_path):
    with pytest.raises(RuntimeError, match="a mistake"):
        run_main(tmp_path, {"train_step": mock.Mock(side_effect=RuntimeError("a mistake"))})


@pytest.mark.parametrize("changes, words", [
    (dict(DEVICE="gpu"), ("DEVICE=gpu", "DEVICE=cpu")), (dict(DEVICE="cuda"), ("DEVICE='cuda'", "gpu")),
    (dict(TRAIN_BATCH_TOKENS=65), ("TRAIN_BATCH_TOKENS=65", "16")),
    (dict(MLX_MAX_MICROBATCH_TOKENS=0), ("MLX_MAX_MICROBATCH_TOKENS='0'",)),
    (dict(RANK="one"), ("RANK='one': MLX",)), (dict(LOCAL_RANK=""), ("LOCAL_RANK='': MLX",)),
    (dict(WORLD_SIZE="-2"), ("WORLD_SIZE='-2': MLX trains in one process",)),
    (dict(WORLD_SIZE="2"), ("WORLD_SIZE='2': MLX",)),
], ids=str)  # fmt: skip
def test_wrong_settings_end_the_run_before_it_starts(changes, words, tmp_path):
    kit.assert_refused(run_main(tmp_path, **changes), *words, code=2)


def test_without_a_compiler_it_runs_uncompiled_unless_told_not_to(tmp_path, monkeypatch):
    error = RuntimeError("[Compile::eval_cpu] Failed to compile function X: sh: g++: not found")
    monkeypatch.setattr(M.mx, "compile", lambda *_, **__: mock.Mock(side_effect=error))
    kit.assert_told(run_main(tmp_path, COMPILE=1, RUN_ID="told"), 1, "COMPILE=1: ", "g++")
    with monkeypatch.context() as patch:  # a CPU stands in for a GPU
        patch.setattr(M, "pick_dtype", lambda: mx.float32)
        patch.setattr(M.Run, "pick_micro_batch", lambda run: 4)
        real = M.warm_up

        def warm_up(run):
            patch.setattr(M.mx, "default_device", lambda: mx.gpu)
            real(run)
            patch.undo()

        patch.setattr(M, "warm_up", warm_up)
        with new_run(tmp_path, COMPILE="auto") as run:
            assert losses_of(run, M, 1)
    assert "compile failed" in (run.folder / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="on a CPU MLX compiles with g++")
def test_compiled_steps_are_those_of_uncompiled_ones(tmp_path):
    after = []
    for compiled in (0, 1):
        with new_run(tmp_path, COMPILE=compiled, MICRO_BATCH_TOKENS=16, LOGIT_CHUNK_TOKENS=9) as run:
            after.append((losses_of(run, M, 3), dict(M.tree_flatten(run.model.parameters()))))
            assert f"compile:{bool(compiled)}" in (run.folder / "train.log").read_text()
    assert after[0][0] == pytest.approx(after[1][0], abs=1e-5)
    for name, p in after[0][1].items():
        assert np.abs(np.array(p - after[1][1][name])).max() < 1e-4, name
