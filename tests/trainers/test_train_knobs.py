"""The trainer's knobs: every name, every default, and what is said of a value that is wrong."""

import ast
import shlex
import sys
from dataclasses import asdict, dataclass, fields, replace

import pytest
import torch
import trainer_kit as kit
from golf.core import trainers
from trainer_kit import KNOB_NAMES, run_main

import train_gpt as T

# Design, section 3: upstream's names and this project's; the MLX trainer has a few of its own.
NAMES = """
DATA_PATH VAL_DATA_PATH TOKENIZER_PATH RUN_ID SEED VAL_BATCH_SIZE VAL_LOSS_EVERY TRAIN_LOG_EVERY ITERATIONS
WARMDOWN_ITERS WARMUP_STEPS TRAIN_BATCH_TOKENS TRAIN_SEQ_LEN MAX_WALLCLOCK_SECONDS QK_GAIN_INIT
VOCAB_SIZE NUM_LAYERS NUM_KV_HEADS MODEL_DIM NUM_HEADS MLP_MULT TIE_EMBEDDINGS ROPE_BASE LOGIT_SOFTCAP
EMBED_LR HEAD_LR TIED_EMBED_LR TIED_EMBED_INIT_STD MATRIX_LR SCALAR_LR MUON_MOMENTUM MUON_BACKEND_STEPS
MUON_MOMENTUM_WARMUP_START MUON_MOMENTUM_WARMUP_STEPS BETA1 BETA2 ADAM_EPS GRAD_CLIP_NORM
CONTROL_TENSOR_NAME_PATTERNS INT8_KEEP_FLOAT_FP32_NAME_PATTERNS OUT_DIR EVAL_SEQ_LEN EVAL_STRIDE
VAL_MAX_TOKENS ARTIFACT_CAP_BYTES QUANT_BITS COMPRESSOR WARMDOWN_FRAC DEVICE COMPILE MICRO_BATCH_TOKENS
CHECKPOINT_EVERY_SECONDS RESUME EVAL_ONLY PACK_SCRIPT
""".split()
# The reference job's, which is the design's.
DEFAULTS = dict(
    VOCAB_SIZE=1024, NUM_LAYERS=6, MODEL_DIM=192, NUM_HEADS=3, NUM_KV_HEADS=3, MLP_MULT=2.8334,
    TRAIN_SEQ_LEN=512, EVAL_SEQ_LEN=1024, EVAL_STRIDE=512, MATRIX_LR=0.02, SCALAR_LR=0.02,
    TIED_EMBED_LR=0.03,
    VAL_MAX_TOKENS=4194304, ARTIFACT_CAP_BYTES=2000000, QUANT_BITS=8, COMPRESSOR="zlib", ITERATIONS=0,
    MAX_WALLCLOCK_SECONDS=1800, DEVICE="auto", COMPILE="auto", SEED=1337, RESUME="0", EVAL_ONLY="",
)  # fmt: skip
SOURCE = (kit.REPO / "train_gpt.py").read_text()
RANKS = "RANK, WORLD_SIZE: ", "torchrun"
AUTO = {"DEVICE", "COMPILE", "MICRO_BATCH_TOKENS", "VAL_BATCH_SIZE"}


class Knob:
    """A field of the knobs, taken apart."""

    def __init__(self, field):
        self.name, self.default, self.kind = field.name, field.default, field.type
        limits = field.metadata
        self.choices = limits.get("choices", ())
        self.low, self.high = limits.get("low", 0), limits.get("high", 1e18)


OF = {field.name.upper(): Knob(field) for field in fields(T.Knobs)}


def test_every_name_of_the_design_is_there_and_defaults_are_the_tracks():
    assert set(NAMES) <= set(KNOB_NAMES)
    k = T.read_knobs({})
    assert {name: getattr(k, name.lower()) for name in DEFAULTS} == DEFAULTS
    assert k.data_path.endswith("data/datasets/fineweb10B_sp1024")
    assert k.tokenizer_path.endswith("data/tokenizers/fineweb_1024_bpe.model")
    assert k.out_dir == str(kit.REPO / "runs")


@pytest.fixture(scope="module", params=["--knobs", "--help"])
def listed(request):
    """As a process of its own in a Python that has no package: neither PyTorch nor NumPy."""
    done = kit.start([sys.executable, "-S", "-OO", kit.REPO / "train_gpt.py", request.param], {})
    assert done.returncode == 0 and not done.stderr
    return done.stdout.splitlines()


def test_knobs_lists_every_name_with_default_and_meaning(listed):
    names = [line.split()[0] for line in listed]
    assert [name for name in names if name != "TRAIN_MAX_SEQ_LEN"] == KNOB_NAMES
    assert "TRAIN_MAX_SEQ_LEN" in names
    assert [line for line in listed if len(line.partition(" # ")[2]) <= 5] == []  # unit, effect
    assert len({line.index("  ") < 36 and line[36] for line in listed} & {" "}) == 0, "columns"


def test_a_default_that_is_listed_can_be_given(listed):
    given = dict(shlex.split(line, comments=True) for line in listed)
    assert T.read_knobs(given) == T.read_knobs({})


def test_the_supervisor_reads_what_is_listed_and_the_fake_trainers_knobs_are_the_real_ones(listed):
    real, ours = trainers.read_knobs(kit.REPO / "train_gpt.py"), vars(T.read_knobs({}))
    assert real == {n: str(ours[n.replace("TRAIN_MAX_SEQ_LEN", "TRAIN_SEQ_LEN").lower()]) for n in real}
    assert list(real) == [line.split()[0] for line in listed]
    fake = trainers.read_knobs(kit.REPO / "tests" / "fake_trainer.py")
    assert fake["RUN_ID"] == "fake" and set(fake) <= set(real)


def test_a_knob_that_is_added_to_the_model_travels(monkeypatch, tmp_path):
    """No list to be kept beside: the scorer builds its model by what the artifact says."""

    @dataclass(frozen=True)
    class Wider(T.ModelKnobs):
        activation: str = T.knob("relu2", choices=("relu2", "gelu"))
        extra_gain: float = T.knob(1.5, 0, 4)

    @dataclass(frozen=True)
    class All(T.Knobs, Wider):
        pass

    monkeypatch.setattr(T, "ModelKnobs", Wider)
    monkeypatch.setattr(T, "Knobs", All)
    k = T.read_knobs(kit.settings(ACTIVATION="gelu", EXTRA_GAIN="0.1"))
    blob, _ = kit.packed(kit.random_model(k), k)
    (tmp_path / "artifact").write_bytes(blob)
    found = T.load_scorer(tmp_path / "artifact", "cpu").model.k
    assert (found.activation, found.extra_gain) == ("gelu", 0.1)


def test_the_knobs_are_all_that_the_trainer_reads():
    """No knob without an effect: each is used somewhere below its definition."""
    used = {node.attr for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Attribute)}
    assert {knob.name for knob in OF.values()} - used == set()


def good_value(f) -> str:
    """An allowed value, another than the default unless there is only one."""
    kind, high = f.kind, f.high
    if f.choices:
        return f.choices[-1]
    if kind is str:
        return "a_word"
    if f.name in ("num_kv_heads", "num_heads"):
        return {"num_kv_heads": "1", "num_heads": "6"}[f.name]  # one must divide the other
    if f.default <= 0:
        return str(kind(min(7, high)))
    return str(f.default / 2 if kind is float else 2 * f.default if 2 * f.default <= high else f.default // 2)


@pytest.mark.parametrize("name", KNOB_NAMES)
def test_a_value_reaches_its_knob(name):
    f, raw = OF[name], good_value(OF[name])
    value = getattr(T.read_knobs({name: raw}), f.name)
    assert value == f.kind(raw) and type(value) is f.kind
    assert value != f.default or f.choices == (value,)


def bad_values(name) -> list[str]:
    f = OF[name]
    kind, low, high, choices = f.kind, f.low, f.high, f.choices
    bad = [] if name in AUTO or "auto" in choices else ["auto"] if kind is not str or choices else []
    if choices:
        return [*bad, "", "maybe", choices[0].upper() + "x"]
    if kind is str:
        return ["a/b", "..", "../x"] if name == "RUN_ID" else []
    past = [repr(kind(low) - 1), "1" + "0" * 30 if high >= 1e18 else repr(kind(high) + 1)]
    return [*bad, *past, "", "x", "1,5", "nan", "inf", "-inf", *(["2.5", "1e3"] if kind is int else [])]


@pytest.mark.parametrize("name", [name for name in KNOB_NAMES if bad_values(name)])
def test_a_bad_value_ends_the_run_with_name_value_and_what_is_allowed(name, tmp_path):
    f = OF[name]
    for raw in bad_values(name):
        result = run_main(tmp_path, **{name: raw})
        kit.assert_told(result, 2, f"{name}={raw!r}")
        said = result.err.partition(repr(raw))[2]
        if f.choices:
            assert all(choice in said for choice in f.choices)
        elif name != "RUN_ID":
            assert all(word in said for word in (f.kind.__name__, f"{f.low}", f"{f.high:g}"))
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", sorted(AUTO))
def test_auto_is_what_is_taken_when_nothing_is_said(name):
    assert getattr(T.read_knobs({name: "auto"}), name.lower()) == OF[name].default


@pytest.mark.parametrize("changes, words", [
    (dict(ITERATIONS=0, MAX_WALLCLOCK_SECONDS=0), ("ITERATIONS", "MAX_WALLCLOCK_SECONDS")),
    (dict(NUM_HEADS=3), ("NUM_HEADS=3", "MODEL_DIM")),
    (dict(NUM_HEADS=16), ("NUM_HEADS=16", "MODEL_DIM")),  # rotary pairs need an even head
    (dict(NUM_HEADS=4, NUM_KV_HEADS=3), ("NUM_KV_HEADS=3", "NUM_HEADS")),
    (dict(EVAL_STRIDE=33), ("EVAL_STRIDE=33", "EVAL_SEQ_LEN")),
    (dict(BETA1=1), ("BETA1='1'", "0.9999")),  # Adam would divide by 1 - BETA1
    (dict(BETA2=1), ("BETA2='1'", "0.9999")),
    (dict(TRAIN_BATCH_TOKENS=65), ("TRAIN_BATCH_TOKENS=65", "16")),
    (dict(DEVICE="cuda"), ("DEVICE=cuda", "DEVICE=cpu")),
    (dict(RESUME=1, RUN_ID=""), ("RESUME=1", "RUN_ID")),
    # ranks that no torchrun started, as left over from a scheduler, or set by hand
    (dict(RANK=0, WORLD_SIZE=2), (*RANKS, "MASTER_ADDR")), (dict(WORLD_SIZE=0), (*RANKS, "no such rank")),
    (dict(RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT="x"), (*RANKS, "x")),
    (dict(RANK="a", WORLD_SIZE=2), (*RANKS, "'a'")), (dict(WORLD_SIZE="two"), (*RANKS, "'two'")),
    (dict(RANK=1), (*RANKS, "no such")),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else "")  # fmt: skip
def test_knobs_that_disagree_are_refused(changes, words, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kit.assert_refused(run_main(tmp_path, **changes), *words, code=2)


@pytest.mark.parametrize("package", ["brotli", "numpy", "sentencepiece"])
@pytest.mark.parametrize("name", ["train_gpt.py", "train_gpt_mlx.py"])
def test_a_package_that_is_missing_is_one_line(name, package):
    """All that the requirements name is imported at the start, not after hours of training."""
    code = f"import runpy, sys; sys.modules[{package!r}] = None; runpy.run_path({name!r}, None, '__main__')"
    done = kit.start([sys.executable, "-c", code], {}, cwd=kit.REPO)
    needs = {"train_gpt.py": "requirements-cuda.txt", "train_gpt_mlx.py": "requirements-mlx.txt"}[name]
    assert done.returncode == 1
    kit.assert_one_line(done.stderr, f"{name}: error: ", package, needs)


def test_upstreams_second_name_of_the_sequence_length():
    assert T.read_knobs({"TRAIN_MAX_SEQ_LEN": "256"}).train_seq_len == 256
    assert T.read_knobs({"TRAIN_MAX_SEQ_LEN": "256", "TRAIN_SEQ_LEN": "128"}).train_seq_len == 128


def test_the_reference_job_is_what_the_defaults_are():
    job, plain = T.read_knobs(kit.preset("local_4090_baseline.env")), T.read_knobs({})
    assert job == replace(plain, train_log_every=500)


@pytest.mark.parametrize("path", sorted(kit.REPO.glob("configs/*.env")), ids=lambda path: path.stem)
def test_presets_say_only_what_they_change(path):
    if path.stem == "upstream_16mb_baseline":
        pytest.skip("it holds all of upstream's values")
    values = kit.preset(path.name)
    assert values and set(values) <= set(KNOB_NAMES)
    k, plain = T.read_knobs(values), T.read_knobs({})
    assert [n for n in values if getattr(k, n.lower()) == getattr(plain, n.lower())] == []


def test_the_upstream_preset_holds_all_defaults_of_upstreams_trainer():
    """Those of its Hyperparameters and of the two lists of tensors, less RUN_ID, which is random there."""
    paired = "attn_scale,attn_scales,mlp_scale,mlp_scales,resid_mix,resid_mixes"
    control = f"{paired},q_gain,skip_weight,skip_weights"
    there = dict(
        DATA_PATH="data/datasets/fineweb10B_sp1024", TOKENIZER_PATH="data/tokenizers/fineweb_1024_bpe.model",
        SEED=1337, VAL_BATCH_SIZE=524288 // 8, VAL_LOSS_EVERY=1000, TRAIN_LOG_EVERY=200, ITERATIONS=20000,
        WARMDOWN_ITERS=1200, WARMUP_STEPS=20, TRAIN_BATCH_TOKENS=524288, TRAIN_SEQ_LEN=1024,
        MAX_WALLCLOCK_SECONDS=600, QK_GAIN_INIT=1.5, VOCAB_SIZE=1024, NUM_LAYERS=9, NUM_KV_HEADS=4,
        MODEL_DIM=512, NUM_HEADS=8, MLP_MULT=2, TIE_EMBEDDINGS=1, ROPE_BASE=10000, LOGIT_SOFTCAP=30,
        EMBED_LR=0.6, HEAD_LR=0.008, TIED_EMBED_LR=0.05, TIED_EMBED_INIT_STD=0.005, MATRIX_LR=0.04,
        SCALAR_LR=0.04, MUON_MOMENTUM=0.95, MUON_BACKEND_STEPS=5, MUON_MOMENTUM_WARMUP_START=0.85,
        MUON_MOMENTUM_WARMUP_STEPS=500, BETA1=0.9, BETA2=0.95, ADAM_EPS=1e-8, GRAD_CLIP_NORM=0,
        CONTROL_TENSOR_NAME_PATTERNS=control, INT8_KEEP_FLOAT_FP32_NAME_PATTERNS=control,
        VAL_MAX_TOKENS=0, ARTIFACT_CAP_BYTES=16000000,
    )  # fmt: skip
    values = kit.preset("upstream_16mb_baseline.env")
    k = T.read_knobs(values)
    assert {name: getattr(k, name.lower()) for name in there} == there and set(there) <= set(values)


@pytest.mark.parametrize("name", ["train_gpt.py", "train_gpt_mlx.py"])
def test_a_trainer_stays_small(name):
    """Its bytes are counted against every submission, and a function fits a screen."""
    source = (kit.REPO / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 1300 and len(source.encode()) <= 60_000
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    lengths = {f.name: f.end_lineno - f.lineno + 1 for f in functions}
    assert lengths["main"] and {name: n for name, n in lengths.items() if n > 60} == {}


def test_the_trainer_imports_nothing_of_the_repository():
    trees = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {getattr(node, "module", None) or node.names[0].name for node in trees}
    outside = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names)
    assert outside == {"numpy", "torch", "sentencepiece", "brotli"}


def test_a_home_folder_that_the_shell_left_is_expanded(monkeypatch):
    """OUT_DIR='~/runs' would make a folder of the name ~."""
    monkeypatch.setenv("HOME", "/home/me")
    given = ("OUT_DIR", "DATA_PATH", "VAL_DATA_PATH", "TOKENIZER_PATH", "EVAL_ONLY")
    found = asdict(T.read_knobs({name: "~/x" for name in given}))
    assert {found[name.lower()] for name in given} == {"/home/me/x"}
