"""The packed artifact: quantization, the container, the cap, and bytes that are not to be trusted."""

import functools
import math
import os
import shutil
import struct
import tracemalloc
import zlib

import brotli
import numpy as np
import pytest
import torch
import trainer_kit as kit
from golf.core import size
from trainer_kit import container, knobs, parts_of, random_model, random_tokens, weights_of

import train_gpt as T


def artifact_of(cap=0, code_bytes=0, model=None, **changes):
    """(bytes, scale step, model) of a random model."""
    k = knobs(ARTIFACT_CAP_BYTES=cap, **changes)
    model = model or random_model(k)
    return *kit.packed(model, k, code_bytes), model


def saved(folder, blob):
    path = folder / "final_model.int8.zlib"
    path.write_bytes(blob)
    return path


# ---- Quantization ----


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symbols_and_scales_follow_the_design(bits):
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((400, 5)) * [0.01, 1, 3, 50, 0.3]).astype(np.float32)
    matrix[7, 1], matrix[7, 2] = 1000, -1000  # these set their columns' scales: nothing is clipped
    steps = np.array([0.001, 0.1, 0.2, 10, 0.5])
    symbols, scales = T.quantize(matrix, steps, bits)
    top = 2 ** (bits - 1) - 1
    assert symbols.dtype == np.int8 and scales.dtype == np.float16 and symbols.shape == (5, 400)
    assert np.allclose(scales.astype(float), np.maximum(steps, np.abs(matrix).max(0) / top), rtol=1e-3)
    expected = np.clip(np.rint(matrix / scales.astype(np.float32)), -top, top)
    assert (symbols.T == expected).all() and symbols.max() == top and symbols.min() == -top
    np.testing.assert_array_equal(T.dequantize([symbols, scales]), expected * scales.astype(np.float32))


def test_zero_constant_and_tiny_columns_survive():
    matrix = np.zeros((64, 5), np.float32)
    matrix[:, 1] = 0.7
    matrix[:, 2] = -3e-5  # its scale is a subnormal fp16
    matrix[:, 3] = 1e-30  # too small for one: becomes zero, not infinite
    matrix[5, 4] = 1
    symbols, scales = T.quantize(matrix, matrix.std(0) / 24, 8)
    got = T.dequantize([symbols, scales])
    assert np.isfinite(got).all() and scales[0] == scales[3] == 0
    assert not got[:, 0].any() and not got[:, 3].any()
    assert np.allclose(got[:, 1], 0.7, rtol=0.03) and np.allclose(got[:, 2], -3e-5, rtol=0.05)
    assert got[:, 4].argmax() == 5 and np.count_nonzero(got[:, 4]) == 1


def test_columns_of_larger_gradients_have_finer_steps():
    """What Muon's momentum and Adam's squares tell of ten steps in which one input of each matrix is loud."""
    k = knobs()
    model = random_model(k)
    opt = T.Optimizers(model, k)
    loud = {name: i % p.size(1) for i, (name, p) in enumerate(model.named_parameters()) if p.ndim == 2}
    for step in range(10):
        opt.schedule(step, 0.0)
        for name, p in model.named_parameters():
            p.grad = torch.full_like(p, 1e-3)
            if p.ndim == 2:
                p.grad[:, loud[name]] *= 5
        opt.apply()
    columns = opt.column_steps(model)
    assert set(columns) == set(loud)
    for name, steps in columns.items():
        others = np.delete(steps, loud[name])
        assert np.allclose(others, others[0]) and 2 < others[0] / steps[loud[name]] < 5, name
    sizes = [np.log(abs(w) / columns[n]).ravel() for n, w in weights_of(model).items() if w.ndim == 2]
    assert np.concatenate(sizes).mean() == pytest.approx(0, abs=0.01)


# ---- Container ----


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("changes", [{}, dict(NUM_LAYERS=1, TIE_EMBEDDINGS=0), dict(MLP_MULT=2.5)], ids=str)
def test_parse_and_serialize_are_inverse(bits, changes):
    blob, _, _ = artifact_of(QUANT_BITS=bits, **changes)
    config, tensors = T.parse(blob)
    assert T.serialize(config, tensors) == blob
    magic, version, coder_id, length, crc = struct.unpack_from("<4sHHQI", blob)
    assert (magic, version, coder_id) == (b"PGLA", 1, 1)
    unpacked = zlib.decompress(blob[20:])
    assert len(unpacked) == length and zlib.crc32(blob[20:]) == crc
    assert config["model_dim"] == 16 and config["eval_stride"] == 8


@pytest.mark.slow
def test_the_coder_is_chosen_named_and_read_back(tmp_path):
    by = {coder: artifact_of(COMPRESSOR=coder)[0] for coder in T.CODERS[1:]}
    assert set(by) == {"zlib", "brotli"} and [by[coder][6] for coder in ("zlib", "brotli")] == [1, 2]
    parsed = {coder: T.parse(blob) for coder, blob in by.items()}
    assert T.serialize(*parsed["zlib"], "brotli") == by["brotli"]
    assert T.serialize(*parsed["brotli"]) == by["zlib"]
    scorers = [T.load_scorer(saved(tmp_path, blob), "cpu", torch.float32) for blob in by.values()]
    assert torch.equal(*[scorer.log_probs(random_tokens(40)) for scorer in scorers])


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_come_back_nearly_as_they_were(bits, tmp_path):
    blob, step, model = artifact_of(QUANT_BITS=bits, TIE_EMBEDDINGS=0)
    back = weights_of(T.load_scorer(saved(tmp_path, blob), "cpu", torch.float32).model)
    assert step == pytest.approx(1 / 12)
    assert list(back) == list(weights_of(model))
    errors = []
    for name, value in weights_of(model).items():
        errors.append(np.sqrt(((back[name] - value) ** 2).mean() / (value**2).mean()))
        assert errors[-1] < 1e-3 if value.ndim == 1 else errors[-1] > 0, name  # gains stay fp16
    assert max(errors) < 0.02 if bits == 8 else 0.02 < max(errors) < 0.3


def test_what_is_fp16_fp32_and_quantized_follows_the_patterns():
    patterns = dict(CONTROL_TENSOR_NAME_PATTERNS="q_gain,resid_mix,skip_weight")
    blob, _, model = artifact_of(INT8_KEEP_FLOAT_FP32_NAME_PATTERNS="attn.c_v,q_gain", **patterns)
    encodings = {name: encoding for name, (encoding, *_) in T.parse(blob)[1].items()}
    weights = weights_of(model)
    assert set(encodings) == set(weights)
    for name, encoding in encodings.items():
        if "c_v" in name or "q_gain" in name:
            assert encoding == "fp32"
        elif "resid_mix" in name or "skip_weight" in name or weights[name].ndim == 1:
            assert encoding == "fp16"
        else:
            assert encoding == "int8t", name


def test_the_model_is_rebuilt_with_its_own_numbers_to_the_last_digit(tmp_path):
    odd = dict(ROPE_BASE=1234567.125, LOGIT_SOFTCAP=29.123456789, MLP_MULT=2.66666667, MODEL_DIM=48)
    blob, _, model = artifact_of(**odd, NUM_HEADS=4, NUM_KV_HEADS=2, TIE_EMBEDDINGS=0)
    scorer = T.load_scorer(saved(tmp_path, blob), "cpu", torch.float32)
    for name, value in T.parse(blob)[0].items():
        assert getattr(scorer.model.k, name) == getattr(model.k, name) == value, name


# ---- The cap ----


def test_the_step_is_coarsened_until_code_and_artifact_fit():
    k = dict(MODEL_DIM=64)
    model, code = random_model(knobs(**k)), 1234
    free, finest, _ = artifact_of(model=model, **k)
    for share in (0.9, 0.6):
        limit = int(share * len(free))
        blob, step, _ = artifact_of(cap=limit + 5000 + code, code_bytes=code, model=model, **k)
        assert len(blob) <= limit and step > finest
        assert len(blob) > 0.97 * limit, "coarser than the cap asks for"
    exact, step, _ = artifact_of(cap=len(free) + 5000 + code, code_bytes=code, model=model, **k)
    assert (exact, step) == (free, finest)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.95, 0.7, 0.55])
@pytest.mark.parametrize("coder", ["zlib", "brotli"])
def test_the_step_is_the_finest_that_fits_and_a_slow_coder_packs_seldom(coder, share, monkeypatch):
    k = dict(MODEL_DIM=64, COMPRESSOR=coder)
    model, packs, real = random_model(knobs(**k)), [], T.serialize
    free, _, _ = artifact_of(model=model, **k)
    limit = int(share * len(free))
    monkeypatch.setattr(T, "serialize", lambda *args: packs.append(args[2]) or real(*args))
    blob, step, _ = artifact_of(cap=limit + 5000, model=model, **k)
    assert coder == "zlib" or packs.count(coder) <= 4

    def size(step):
        config, weights = T.knobs_of(knobs(**k), T.ModelKnobs), weights_of(model)
        return len(
            T.serialize(config, T.pack_tensors(weights, kit.columns_of(weights), step, knobs(**k)), coder)
        )

    assert size(step) == len(blob) <= limit < size(step / 1.01)
    low, high = T.FINEST_STEP, T.COARSEST_STEP  # the same by bisection, a pack a step
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if size(middle) <= limit else (middle, high)
    assert step == pytest.approx(high, rel=0.01)


def test_where_no_step_fits_the_coarsest_is_taken():
    _, step, _ = artifact_of(cap=9_000, MODEL_DIM=64)
    assert step == T.COARSEST_STEP == 1 / size.COARSEST


def test_a_cap_that_cannot_be_met_is_said_and_loses_nothing(tmp_path):
    result = kit.run_main(tmp_path, ITERATIONS=1, ARTIFACT_CAP_BYTES=20000)
    over = -result.event("export")["headroom"]
    assert over > 0
    kit.assert_told(result, 1, f"{over} bytes over the cap")
    assert result.event("end")["exit_code"] == 1 and len(result.events("score")) == 2
    assert T.load_scorer(result.artifact, "cpu").model


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what a run shows, test_train_run.py checks
@pytest.mark.parametrize("value", [1e30, math.inf, math.nan])
@pytest.mark.parametrize("name", ["blocks.0.attn.c_q.weight", "blocks.1.attn.q_gain"])
def test_weights_that_cannot_be_stored_are_refused(name, value):
    weights = weights_of(random_model(knobs()))
    weights[name].flat[0] = value
    with pytest.raises(T.UserError, match=name):
        T.export_artifact(weights, kit.columns_of(weights), knobs(), 0)


# ---- load_scorer ----


def test_load_scorer_reads_the_artifact_alone(tmp_path, monkeypatch):
    blob, _, model = artifact_of()
    alone = tmp_path / "alone"
    alone.mkdir()
    path = saved(alone, blob)
    expected = T.load_scorer(path, "cpu", torch.float32).log_probs(random_tokens(50))
    monkeypatch.chdir(alone)
    for name, value in dict(NUM_LAYERS=9, VOCAB_SIZE=7, EVAL_STRIDE=1, DATA_PATH="none").items():
        monkeypatch.setenv(name, str(value))
    opened = []
    for function in ("open_shard", "read_stream", "count_bytes"):
        monkeypatch.setattr(T, function, lambda *_: opened.append(1))
    scorer = T.load_scorer(path.name, "cpu", torch.float32)
    assert not opened and (scorer.seq_len, scorer.stride) == (32, 8)
    assert torch.equal(scorer.log_probs(random_tokens(50)), expected)
    assert [p.name for p in alone.iterdir()] == [path.name]


# ---- Bytes that are anyone's: one line, quickly, without much memory ----

BLOB, _, _ = artifact_of()
_, ARRAYS = parts_of(BLOB)
SIZE = len(zlib.decompress(BLOB[20:]))


with_header = functools.partial(kit.with_header, BLOB)


def config_with(**values):
    return lambda header: header["config"].update(values)


def shape_with(shape, index=0):
    return lambda header: header["tensors"][index].__setitem__(1, shape)


def bomb(stated, compress=zlib.compress, coder=1):
    coded = compress(bytes(200 << 20))
    assert len(coded) < 1 << 20
    return container(b"", stated=stated, coded=coded, coder=coder)


DEEP = b'{"config":' + b"[" * 200_000 + b"]" * 200_000 + b',"tensors":[]}'
HOSTILE = {
    "empty": lambda: b"",
    "prefix cut": lambda: BLOB[:10],
    "prefix alone": lambda: BLOB[:20],
    "cut in half": lambda: BLOB[: len(BLOB) // 2],
    "last byte gone": lambda: BLOB[:-1],
    "a byte after what is coded": lambda: container(b"", coded=BLOB[20:] + b"x", stated=SIZE),
    "one byte more": lambda: BLOB + b"x",
    "a bit flipped": lambda: BLOB[:500] + bytes([BLOB[500] ^ 4]) + BLOB[501:],
    "wrong magic": lambda: container(b"1234", magic=b"PK\3\4"),
    "a later format": lambda: container(b"1234", version=2),
    "unknown coder": lambda: BLOB[:6] + b"\x09\0" + BLOB[8:],
    "wrong crc": lambda: container(b"1234", crc=7),
    "states 1 TiB": lambda: container(b"1234", stated=1 << 40),
    "states over 64 MiB": lambda: container(b"1234", stated=(64 << 20) + 1),
    "states too little": lambda: with_header(lambda h: None, stated=3000),
    "states too much": lambda: with_header(lambda h: None, stated=1 << 20),
    "zlib bomb": lambda: bomb(5000),
    "zlib bomb at the limit": lambda: bomb(64 << 20),
    "brotli bomb": lambda: bomb(5000, lambda zeros: brotli.compress(zeros, quality=1), 2),
    "noise": lambda: container(b"", stated=5000, coded=np.random.default_rng(0).bytes(4000)),
    "nothing packed": lambda: container(b""),
    "header past the end": lambda: container(struct.pack("<I", 1 << 31) + b"{}"),
    "no JSON": lambda: with_header(lambda h: b"{" * 9),
    "no text": lambda: with_header(lambda h: b"\xff\xfe" * 9),
    "deep JSON": lambda: with_header(lambda h: DEEP),
    "a list": lambda: with_header(lambda h: b"[1, 2]"),
    "no tensors": lambda: with_header(lambda h: b'{"config": {}}'),
    "tensors misspelt": lambda: with_header(lambda h: h.update(tensors=[{"name": 1}])),
    "unknown encoding": lambda: with_header(lambda h: h["tensors"][0].__setitem__(2, "fp64\nfp8")),
    "a huge shape": lambda: with_header(shape_with([1 << 40, 1 << 40])),
    "a shape past the end": lambda: with_header(shape_with([1 << 20, 50], -1)),
    "a shape beyond 64 bits": lambda: with_header(shape_with([1 << 70, 2])),
    "a negative shape": lambda: with_header(shape_with([-1, 16], -1)),
    "a shape of floats": lambda: with_header(shape_with([16.0, 16.0])),
    "a shape of many": lambda: with_header(shape_with([1] * 5000)),
    "another shape": lambda: with_header(lambda h: h["tensors"][0][1].append(1)),
    "a wrong name": lambda: with_header(lambda h: h["tensors"][0].__setitem__(0, "blocks.0.attn.c_z.weight")),
    "a tensor missing": lambda: with_header(lambda h: h["tensors"].pop(0)),
    "a name twice": lambda: with_header(lambda h: h["tensors"].append(h["tensors"][-1])),
    "bytes left over": lambda: with_header(lambda h: None, arrays=ARRAYS + b"\0"),
    "bytes missing": lambda: with_header(lambda h: None, arrays=ARRAYS[:-1]),
    "a knob missing": lambda: with_header(lambda h: h["config"].pop("model_dim")),
    "a knob too many": lambda: with_header(config_with(data_path="/etc")),
    "a huge model": lambda: with_header(config_with(model_dim=65536, vocab_size=65536, num_layers=256)),
    "a huger model": lambda: with_header(config_with(model_dim=10**12)),
    "a huge window": lambda: with_header(config_with(eval_seq_len=10**9)),
    "a knob of text": lambda: with_header(config_with(model_dim="sixteen\nlines")),
    "a knob of infinity": lambda: with_header(config_with(rope_base=math.inf)),
    "heads that do not divide": lambda: with_header(config_with(num_heads=3)),
    "no heads": lambda: with_header(config_with(num_heads=0)),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A sound one was loaded, and what PyTorch needs for it."""
    sound = saved(tmp_path_factory.mktemp("sound"), with_header(lambda header: None))
    assert T.load_scorer(sound, "cpu", torch.float32)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_artifact_is_one_line_and_small_work(case, loaded, tmp_path):
    path = saved(tmp_path, HOSTILE[case]())
    message, peak = refused(path)
    assert str(path) in message and "\n" not in message and len(message) < 600
    # what may be held: 64 MiB unpacked, and twice that while it grows; else hardly anything
    assert peak < (200 << 20 if "limit" in case else 20 << 20), peak


def refused(path) -> tuple[str, int]:
    """What is said of an artifact, and the bytes that were allocated for it."""
    tracemalloc.start()
    try:
        with pytest.raises(T.UserError) as told:
            T.load_scorer(path, "cpu", torch.float32)
        return str(told.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_oversized_file_is_not_read(tmp_path):
    path = saved(tmp_path, b"")
    os.truncate(path, (64 << 20) + 1)  # sparse
    message, peak = refused(path)
    assert "too large" in message and peak < 1 << 20


# ---- EVAL_ONLY ----


def test_eval_only_scores_the_artifact_to_the_same_number(tmp_path):
    trained = kit.run_main(tmp_path, VAL_MAX_TOKENS=300)
    moved = tmp_path / "elsewhere.bin"
    shutil.copyfile(trained.artifact, moved)
    before = sorted(tmp_path.rglob("*"))
    # the artifact's own shape and window hold, whatever the knobs say
    again = kit.run_main(tmp_path, EVAL_ONLY=moved, VAL_MAX_TOKENS=300, NUM_LAYERS=5, EVAL_STRIDE=1)
    assert again.code == 0 and not again.err
    assert again.scores == trained.scores and len(again.scores) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("path", ["missing", "junk", "empty", "pipe", "/dev/zero"])
def test_eval_only_of_what_is_no_artifact(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "empty").touch()
    kit.assert_refused(kit.run_main(tmp_path, EVAL_ONLY=path), f"{path}: damaged, or no artifact")


def test_an_artifact_whose_scales_are_not_finite_gives_no_score(tmp_path):
    config, tensors = T.parse(artifact_of()[0])
    (_, arrays), *_ = (packed for packed in tensors.values() if packed[0] == "int8t")
    arrays[1] = np.full_like(arrays[1], np.nan)
    result = kit.run_main(tmp_path, EVAL_ONLY=saved(tmp_path, T.serialize(config, tensors)))
    kit.assert_told(result, 1, "the score is not finite")
    assert not result.scores


def test_the_run_fits_a_small_cap_and_says_so(tmp_path):
    code = T.SCRIPT.stat().st_size
    plain = kit.run_main(tmp_path, RUN_ID="plain", MODEL_DIM=32, ITERATIONS=1)
    free = plain.event("export")
    cap = code + free["bytes_model"] * 7 // 10 + 5000
    tight = kit.run_main(tmp_path, MODEL_DIM=32, ITERATIONS=1, ARTIFACT_CAP_BYTES=cap)
    assert plain.code == tight.code == 0
    fitted, size = tight.event("export"), tight.artifact.stat().st_size
    assert fitted["bytes_model"] == size and fitted["bytes_code"] == code
    assert fitted["bytes_total"] == code + size <= cap - 5000 and fitted["headroom"] == cap - code - size
    assert free["step"] == pytest.approx(1 / 12) and fitted["step"] > free["step"]
