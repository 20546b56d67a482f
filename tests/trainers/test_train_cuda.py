"""The CUDA path of the trainer where there is no GPU: mocked devices, graphs that are recordings or wrong."""

import contextlib
import re
import weakref
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import trainer_kit as kit
from conftest import passed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trainer_kit import run_main

import train_gpt as T

# name: capability, bytes of memory
CARDS = {
    "T4": ((7, 5), 16 << 30),
    "RTX 3070": ((8, 6), 8 << 30),
    "RTX 4090": ((8, 9), 24 << 30),
    "H100": ((9, 0), 80 << 30),
    "RTX 5090": ((12, 0), 32 << 30),
}


@pytest.fixture
def card(monkeypatch):
    """Makes PyTorch tell of a card of CARDS."""

    def plug(name, count=1):
        (major, minor), memory = CARDS[name]
        properties = SimpleNamespace(major=major, minor=minor, total_memory=memory, name=name)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (memory - (1 << 30), memory))

    return plug


# ---- What is chosen for a device ----


@pytest.mark.parametrize("name", CARDS)
def test_a_gpu_is_asked_for_its_type_and_not_timed(name, card):
    """Where launches dominate (WSL2, a busy host), a trial would choose float32, four times slower."""
    card(name)
    expected = torch.float32 if name == "T4" else torch.bfloat16
    assert T.pick_dtype(torch.device("cuda", 0)) == expected


def test_a_cpu_is_asked_for_its_instructions(monkeypatch):
    for can in ({"avx512_bf16": True}, {"avx512_bf16": False}, {}):  # the last: ARM
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda can=can: can)
        expected = torch.bfloat16 if any(can.values()) else torch.float32
        assert T.pick_dtype(torch.device("cpu")) == expected


def test_a_scorers_type_is_one_that_the_gpu_has(card, monkeypatch, tmp_path):
    result = run_main(tmp_path, ITERATIONS=1)
    asked = []
    monkeypatch.setattr(T, "pick_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(T.GPT, "to", lambda model, device: asked.append(model.dtype) or model)
    for name in ("T4", "RTX 4090"):
        card(name)
        T.load_scorer(result.artifact, "cuda")
    assert asked == [torch.float32, torch.bfloat16]


def micro_tokens(dtype, **changes) -> int:
    k = T.read_knobs({name: str(value) for name, value in changes.items()})
    sequences = k.train_batch_tokens // k.train_seq_len
    run = SimpleNamespace(k=k, cuda=True, model=SimpleNamespace(dtype=dtype), sequences=sequences)
    return T.Run.pick_micro_batch(run) * k.train_seq_len


@pytest.mark.parametrize("name", CARDS)
def test_a_pass_fits_the_card_uncompiled_in_either_type(name, card):
    """Uncompiled, a token takes 65 numbers a layer and channel, two bytes each or four; a logit 20."""
    card(name)
    large = dict(NUM_LAYERS=9, MODEL_DIM=512, NUM_HEADS=8, NUM_KV_HEADS=4, TRAIN_SEQ_LEN=1024)
    for shape in ({}, large, dict(VOCAB_SIZE=65536)):
        tokens = {dtype: micro_tokens(dtype, **shape) for dtype in (torch.bfloat16, torch.float32)}
        k = T.read_knobs({n: str(v) for n, v in shape.items()})
        for dtype, count in tokens.items():
            size = 65 * dtype.itemsize * k.num_layers * k.model_dim + 20 * k.vocab_size
            assert count * size <= CARDS[name][1] // 2
        assert tokens[torch.float32] <= tokens[torch.bfloat16]
    assert micro_tokens(torch.bfloat16, MICRO_BATCH_TOKENS=1024) == 1024
    assert micro_tokens(torch.bfloat16, MICRO_BATCH_TOKENS=10**15) == 65536  # a step's; and at once


def test_each_process_has_a_device_of_its_own_or_one_line(card, monkeypatch):
    card("RTX 4090", count=2)
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert T.pick_device("auto") == T.pick_device("cuda") == torch.device("cuda", int(rank))
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert T.pick_device("cpu") == torch.device("cpu")
    for name in ("auto", "cuda"):
        with pytest.raises(T.UserError, match=f"DEVICE={name}: no device 2; .* start fewer") as refused:
            T.pick_device(name)
        assert refused.value.code == 2
    monkeypatch.setenv("LOCAL_RANK", "one")
    with pytest.raises(T.UserError, match="DEVICE=auto: no device one; "):
        T.pick_device("auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert T.pick_device("auto") == torch.device("cpu")
    with pytest.raises(T.UserError, match="DEVICE=cuda: no device one; set DEVICE=cpu"):
        T.pick_device("cuda")


def test_no_attention_is_cudnns():
    """With masks it has had no plans; PyTorch chooses among the others, in training and scoring."""
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()


# ---- A step waits for nothing ----


class NoWaiting(TorchDispatchMode):
    """Fails where CUDA would wait for the device: a value that Python reads, a size that depends on values, a
    copy to or from the host."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.default", "is_nonzero")

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name, kwargs = str(operator), kwargs or {}
        assert not any(f"aten.{wait}" in name for wait in self.WAITS), name
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        # a number that becomes a tensor is one on the host
        assert "lift_fresh" not in name and len({tensor.device.type for tensor in tensors}) <= 1, name
        if "_to_copy" in name:
            assert kwargs.get("device") in (None, tensors[0].device), name
        return operator(*args, **kwargs)


@pytest.mark.parametrize(
    "changes", [{}, {"GRAD_CLIP_NORM": 1}, {"MICRO_BATCH_TOKENS": 32, "TIE_EMBEDDINGS": 0}]
)
def test_a_step_hides_no_wait(changes, tmp_path):
    with kit.new_run(tmp_path, WARMUP_STEPS=1, **changes) as (run, _):
        tokens = run.batch(0)
        with NoWaiting():
            T.train_step(run, tokens, 0, 0.5)
    waits = [lambda t: t.sum().item(), torch.nonzero, lambda t: t.fill_(2) + torch.tensor(1.0), bool]
    for wait in waits:
        with pytest.raises(AssertionError), NoWaiting():
            wait(torch.ones(1))


# ---- A CUDA graph, and its test ----


class Recording(TorchDispatchMode):
    """In place of a CUDA graph: keeps each operator with the tensors that it was given, and replays just
    these. A number of Python's that went in once goes in again, as in a graph."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        self.calls.append((operator, args, kwargs or {}, out))
        return out

    def replay(self):
        with torch._C._AutoDispatchBelowAutograd():  # the kernels alone
            for operator, args, kwargs, out in self.calls:
                again = operator(*args, **kwargs)
                for old, new in zip(*map(tree_leaves, (out, again))):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def fake_cuda(patch, graph, context):
    """warm_up captures, on a CPU."""
    real = T.warm_up

    def warm_up(run):
        run.cuda = True
        real(run)
        run.cuda = False

    patch.setattr(T, "warm_up", warm_up)
    patch.setattr(torch.cuda, "CUDAGraph", graph)
    patch.setattr(torch.cuda, "graph", context)
    patch.setattr(torch.cuda, "current_stream", lambda: None)
    patch.setattr(torch, "compile", lambda function, **_: function)


CAPTURED = dict(COMPILE="auto", WARMUP_STEPS=1, MUON_MOMENTUM_WARMUP_STEPS=2, GRAD_CLIP_NORM=1)
CAPTURED |= dict(MICRO_BATCH_TOKENS=32, WARMDOWN_FRAC=0.9)


def run_captured(folder, name, graph=Recording, context=lambda graph, stream: graph, **changes):
    """A whole run with a fake graph: `graph` is the class of graphs, `context` what captures."""
    with pytest.MonkeyPatch.context() as patch:
        fake_cuda(patch, graph, context)
        return run_main(folder, RUN_ID=name, **{**CAPTURED, **changes})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The run without a graph."""
    return run_captured(tmp_path_factory.mktemp("plain"), "plain", COMPILE="nograph")


def same_checkpoints(one, other):
    weights, others = one.checkpoint["model"], other.checkpoint["model"]
    return all(torch.allclose(value, others[name], atol=1e-6) for name, value in weights.items())


def test_a_captured_step_trains_as_the_plain_one(plain, tmp_path):
    """All that changes from step to step lies in tensors, and all state is restored in place."""
    captured = run_captured(tmp_path, "captured")
    assert plain.code == captured.code == 0
    assert captured.losses == pytest.approx(plain.losses, rel=1e-6) and len(set(captured.losses)) == 6
    facts = [run.event("warm_up") for run in (plain, captured)]
    assert [(f["compile"], f["graph"], f["self_test"]) for f in facts] == [
        (True, None, None),
        (True, True, "passed"),
    ]
    assert same_checkpoints(plain, captured)


@pytest.mark.slow
def test_a_resumed_run_is_captured_in_the_checkpoints_state(tmp_path):
    whole = run_captured(tmp_path, "whole")
    stop = kit.before_step(lambda run: run.stop.ask(15, None), 2)
    run_main(tmp_path, {"train_step": stop}, RUN_ID="parted", **{**CAPTURED, "COMPILE": "0"})
    parted = run_captured(tmp_path, "parted", RESUME=1)
    assert [f["graph"] for f in parted.events("warm_up")] == [None, True]
    assert same_checkpoints(whole, parted)


class Idle(Recording):
    """Replays nothing: the weights stay, the loss is the capture's."""

    def replay(self):
        pass


class Deaf(Recording):
    """Reads the tokens of the capture, whatever is copied where it reads."""

    def replay(self):
        self.batch = getattr(self, "batch", None)
        first = next(args[0] for operator, args, _, _ in self.calls if "split" in str(operator))
        if self.batch is None:
            self.batch = first.clone()
        first.copy_(self.batch)
        super().replay()


class Stuck(Recording):
    """Has the rate of the capture."""

    def replay(self):
        for operator, args, _, _ in self.calls:
            if str(operator) == "aten.mul.out" and args[0].ndim == 0:
                args[0].fill_(1.0)
        super().replay()


class Forgetful(Recording):
    """Leaves out the last update of matrices."""

    def replay(self):
        last = max(i for i, (operator, *_) in enumerate(self.calls) if "_foreach_sub_" in str(operator))
        self.calls = [call for i, call in enumerate(self.calls) if i != last]
        super().replay()


class Wild(Recording):
    """Its loss and its gradients are not numbers."""

    def replay(self):
        super().replay()
        for operator, args, _, _ in self.calls:
            if str(operator) == "aten.add_.Tensor" and args[0].ndim == 0:
                args[0].fill_(float("nan"))


WRONG = {
    Idle: "another loss",
    Deaf: "no tokens read",
    Stuck: "it moves at rate 0",
    Forgetful: "other moves",
    Wild: "another loss",
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_graph_is_named_and_left(wrong, plain, tmp_path):
    result = run_captured(tmp_path, "wrong", wrong)
    assert result.code == 0 and result.artifact.read_bytes() == plain.artifact.read_bytes()
    fact, line = result.event("warm_up"), result.line("CUDA graph failed")
    assert WRONG[wrong] in line and line.endswith("slower; COMPILE=1 tells why")
    assert (fact["graph"], fact["compile"], fact["self_test"]) == (False, True, line)
    kit.assert_told(run_captured(tmp_path, "told", wrong, COMPILE="1"), 1, WRONG[wrong])


@pytest.mark.slow
@pytest.mark.parametrize("at", ["entry", "inside", "exit"])
def test_a_capture_that_fails_leaves_no_trace(at, plain, tmp_path):
    @contextlib.contextmanager
    def context(graph, stream):
        if at == "entry":
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        with graph:
            yield
        if at == "exit":
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    class Syncing(Recording):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            if at == "inside" and "stack" in str(operator):
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
            return super().__torch_dispatch__(operator, types, args, kwargs)

    result = run_captured(tmp_path, "failed", Syncing, context)
    assert result.code == 0 and result.artifact.read_bytes() == plain.artifact.read_bytes()
    fact = result.event("warm_up")
    assert fact["graph"] is False and fact["self_test"].startswith("CUDA graph failed (RuntimeError(")
    with pytest.raises(RuntimeError, match="CUDA error: operation"):
        run_captured(tmp_path, "told", Syncing, context, COMPILE="1")


@pytest.mark.parametrize("mode", ["auto", "nograph"])
def test_want_of_memory_in_warm_up_is_the_supervisors_to_mend(mode, tmp_path, monkeypatch):
    """A capture's costs the graph, a compiled pass's a smaller micro-batch: uncompiled it would want more."""
    fails = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    if mode == "auto":
        result = run_captured(tmp_path, "run", context=fails)
    else:
        monkeypatch.setattr(torch, "compile", lambda function, **_: fails)
        result = run_main(tmp_path, COMPILE=mode)
    kit.assert_told(result, 3, "out of memory", "MICRO_BATCH_TOKENS")


# As Inductor and Triton say it, at the end of pages.
MISSING = {
    "no g++": "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx",
    "no gcc": "Failed to find C compiler. Please specify via CC environment variable",
    "no headers": "CppCompileError: C++ compile error" + " -D" * 99 + " fatal error: Python.h: No such file",
}


@pytest.mark.parametrize("said", MISSING.values(), ids=MISSING)
def test_what_cannot_be_compiled_trains_uncompiled_or_stops_with_the_reason(
    said, whole, tmp_path, monkeypatch
):
    error = RuntimeError(said)
    monkeypatch.setattr(torch, "compile", lambda function, **_: mock.Mock(side_effect=error))
    result = run_main(tmp_path, RUN_ID="auto", COMPILE="auto")
    assert result.artifact.read_bytes() == whole.artifact.read_bytes()
    told = f"compile failed ({repr(error)[:99]}): slower; COMPILE=1 tells why"
    fact = result.event("warm_up")
    assert (fact["compile"], fact["graph"], fact["self_test"]) == (False, None, told)
    assert told in result.out.splitlines()
    with pytest.raises(RuntimeError, match=re.escape(said)):
        run_main(tmp_path, RUN_ID="told", COMPILE="1")


def test_scoring_begins_when_training_holds_no_memory(tmp_path, monkeypatch):
    """A graph's pool is gigabytes, and scoring wants two."""
    kept, emptied = [], []
    real = T.score_artifact

    def score_artifact(*args):
        emptied.append([thing() for thing in kept])
        return real(*args)

    def keep(run):
        kept.extend(map(weakref.ref, (run, run.model, run.opt)))

    monkeypatch.setattr(T, "train_step", kit.before_step(keep, 5))
    monkeypatch.setattr(T, "score_artifact", score_artifact)
    result = run_captured(tmp_path, "run")
    assert result.event("warm_up")["graph"] and emptied == [[None, None, None]]


# ---- Ranks ----


@pytest.mark.parametrize("layers", [2, 1])  # one layer has skip weights of no rows, and no gradient
def test_ranks_add_up_a_step_in_one_message(layers, tmp_path):
    def all_reduce(tensor):  # with a rank that found the same
        sent.append(tensor.numel())
        tensor.mul_(2)

    sent, found = [], []
    with kit.new_run(tmp_path, NUM_LAYERS=layers) as (run, patch):
        patch.setattr(torch.distributed, "all_reduce", all_reduce)
        patch.setattr(run.opt, "apply", lambda: None)
        for run.world in (1, 2):
            loss = run.update(run.data.batch(0, 4))
            found.append([loss, *(p.grad for p in run.opt.params if p.grad is not None)])
    assert sent == [sum(tensor.numel() for tensor in found[0])]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


RANKS = """
import os, sys, torch
import train_gpt as T

def compile(function, **_):
    def compiled(*args):
        if os.environ["RANK"] == "1":
            raise RuntimeError("no compiler")
        return function(*args)
    return compiled

T.pick_dtype = lambda device: torch.float32
torch.compile = compile
sys.exit(T.main())
"""


@pytest.mark.slow
def test_ranks_compile_together_or_not_at_all(tmp_path):
    """Were rank 0 alone to go on compiled, both would wait for each other."""
    (tmp_path / "ranks.py").write_text(RANKS)
    env = kit.run_settings(tmp_path, dict(COMPILE="auto", ITERATIONS=2))
    passed(kit.start([*kit.TWO_RANKS, tmp_path / "ranks.py"], env))
    fact = kit.Result(tmp_path / "runs" / "run").event("warm_up")
    assert fact["compile"] is False and "compile failed (a rank)" in fact["self_test"]
