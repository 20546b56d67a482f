#!/usr/bin/env python3
"""Train, pack and score a tiny GPT whose code plus weights fit a byte cap. `--knobs` lists its variables.
Model, recipe and names follow the baseline of https://github.com/openai/parameter-golf."""

import ast
import base64
import hashlib
import json
import lzma
import math
import os
import re
import signal
import struct
import sys
import time
import zlib
from bisect import bisect_left, bisect_right
from collections import namedtuple
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from modulefinder import ModuleFinder
from pathlib import Path

SCRIPT = Path(__file__).resolve()
ROOT = next((p for p in SCRIPT.parents if (p / "data").is_dir()), Path.cwd())
CHALLENGE_DATA, CHALLENGE_TARGETS = "fineweb10B_sp1024", 4194304


class UserError(Exception):
    """What a user can put right; code 1: invalid input, 2: wrong usage."""

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code


def need(holds, message, code=1):
    if not holds:
        raise UserError(message, code)


def explain(e, path=None):
    hint = "check it and its disk"
    if isinstance(e, FileExistsError):
        hint = "change RUN_ID or OUT_DIR, or set RESUME=1"
    return f"{path or e.filename or 'a file'}: {e.strerror or e}; {hint}"


def say(text, stream):
    """A terminal that went away ends no run."""
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# ---- Knobs: environment variables, read once (k below), by their fields' names in upper case


def knob(default, low=0, high=1e18, **more):
    """A field with limits. more: choices; alias, a second name; auto, a word for 0."""
    return field(default=default, metadata=dict(low=low, high=high, **more))


@dataclass(frozen=True)
class ModelKnobs:  # what a scorer builds the model from: all travel in the artifact
    vocab_size: int = knob(1024, 2, 65536)  # pieces of the tokenizer
    num_layers: int = knob(6, 1, 256)  # blocks
    model_dim: int = knob(192, 2, 65536)  # width of the residual stream
    num_heads: int = knob(3, 1)  # attention heads; must divide MODEL_DIM / 2
    num_kv_heads: int = knob(3, 1)  # key and value heads; must divide NUM_HEADS
    mlp_mult: float = knob(2.8334, 0.5, 64)  # MLP width / MODEL_DIM
    tie_embeddings: int = knob(1, 0, 1)  # 1: the embedding is the head, too
    rope_base: float = knob(10000.0, 1)  # base of the rotary frequencies
    logit_softcap: float = knob(30.0, 0.1)  # bound of the logits
    train_seq_len: int = knob(512, 1, 65536, alias="TRAIN_MAX_SEQ_LEN")  # tokens; attention reaches as far
    eval_seq_len: int = knob(1024, 1, 65536)  # tokens of a sliding window
    eval_stride: int = knob(512, 1)  # targets a window; at most EVAL_SEQ_LEN
    followers: int = knob(0, 0, 1)  # 1: scoring learns what followed the last tokens before


@dataclass(frozen=True)
class TrainKnobs(ModelKnobs):  # what else weights depend on: to resume, the same
    seed: int = 1337  # of first weights and batch order
    max_wallclock_seconds: float = 1800.0  # training budget; 0: no limit
    iterations: int = 0  # step limit; 0: none
    train_batch_tokens: int = knob(65536, 1, 10**9)  # tokens a step, over all ranks
    warmdown_frac: float = knob(0.6, 0, 1)  # last part, in which rates fall to 0
    warmdown_iters: int = knob(-1, -1)  # the same in steps, as upstream; -1: unused
    qk_gain_init: float = 1.5  # first gain of each query head
    tied_embed_init_std: float = 0.005  # of its first weights
    embed_lr: float = 0.6  # Adam's rate, untied embedding
    head_lr: float = 0.008  # Adam's rate, untied output head
    tied_embed_lr: float = 0.03  # Adam's rate, tied embedding
    scalar_lr: float = 0.02  # Adam's rate, vectors
    matrix_lr: float = 0.02  # Muon's rate, matrices
    muon_momentum: float = knob(0.95, 0, 1)  # after its warm-up
    muon_backend_steps: int = knob(5, 1, 100)  # Newton-Schulz iterations
    muon_momentum_warmup_start: float = knob(0.85, 0, 1)  # momentum at step 0
    muon_momentum_warmup_steps: int = 500  # steps until MUON_MOMENTUM
    beta1: float = knob(0.9, 0, 0.9999)  # Adam's decay, mean gradient
    beta2: float = knob(0.95, 0, 0.9999)  # Adam's decay, mean square
    adam_eps: float = 1e-8  # keeps Adam from dividing by 0
    grad_clip_norm: float = 0.0  # largest gradient norm; 0: no clipping
    control_tensor_name_patterns: str = "attn_scale,mlp_scale,resid_mix,q_gain,skip_weight"  # Adam, fp16


@dataclass(frozen=True)
class Knobs(TrainKnobs):  # also what no weight depends on
    run_id: str = ""  # the run's folder; default: start time
    out_dir: str = f"{ROOT}/runs"  # its parent
    data_path: str = f"{ROOT}/data/datasets/{CHALLENGE_DATA}"  # folder of token shards
    val_data_path: str = ""  # of validation shards; default: DATA_PATH
    tokenizer_path: str = f"{ROOT}/data/tokenizers/fineweb_1024_bpe.model"  # SentencePiece
    device: str = knob("auto", choices=("auto", "cuda", "cpu"))  # auto: cuda, else cpu
    compile: str = knob("auto", choices=("auto", "0", "1", "nograph"))  # auto: where it works
    micro_batch_tokens: int = knob(0, auto=True)  # tokens a forward pass; 0, auto: by memory
    warmup_steps: int = 2  # on random tokens, untimed, undone
    checkpoint_every_seconds: float = 300.0  # of training; 0: at its end alone
    resume: str = knob("0", choices=("0", "1", "auto"))  # 1, auto: from RUN_ID's checkpoint
    eval_only: str = ""  # an artifact to score instead
    train_log_every: int = 200  # steps, or 15 s, a log line; 0: none
    val_loss_every: int = 0  # steps between validations; 0: none
    val_batch_size: int = knob(0, auto=True)  # tokens a scoring pass; 0, auto: by device
    val_max_tokens: int = CHALLENGE_TARGETS  # targets; 0: all
    artifact_cap_bytes: int = 2000000  # code plus artifact; 0: no cap
    quant_bits: int = knob(8, 2, 8)  # of a packed weight
    compressor: str = knob("zlib", choices=("zlib", "brotli"))  # of the artifact
    int8_keep_float_fp32_name_patterns: str = ""  # packed as fp32: parts of names
    pack_script: int = knob(0, 0, 1)  # 1: ship the script without comments, packed


def parse_knob(knob, raw):
    name, kind, limits = knob.name.upper(), knob.type, knob.metadata
    if kind is str:
        choices = limits.get("choices", (raw,))
        need(raw in choices, f"{name}={raw!r}: allowed is one of {', '.join(choices)}", 2)
        return os.path.expanduser(raw)
    low, high = limits.get("low", 0), limits.get("high", 1e18)
    try:
        value = 0 if raw == "auto" and "auto" in limits else kind(raw)
    except ValueError:
        value = math.nan
    need(low <= value <= high, f"{name}={raw!r}: allowed is {kind.__name__} from {low} to {high:g}", 2)
    return value


def knob_names():
    return {n: knob for knob in fields(Knobs) for n in (knob.metadata.get("alias"), knob.name.upper()) if n}


def read_knobs(env):
    values = {knob.name: parse_knob(knob, env[name]) for name, knob in knob_names().items() if name in env}
    k = Knobs(**values)
    need(k.iterations or k.max_wallclock_seconds, "ITERATIONS and MAX_WALLCLOCK_SECONDS are 0: set one", 2)
    need(k.model_dim % (2 * k.num_heads) == 0, f"NUM_HEADS={k.num_heads}: must divide MODEL_DIM / 2", 2)
    need(k.num_heads % k.num_kv_heads == 0, f"NUM_KV_HEADS={k.num_kv_heads}: must divide NUM_HEADS", 2)
    need(k.eval_stride <= k.eval_seq_len, f"EVAL_STRIDE={k.eval_stride}: at most EVAL_SEQ_LEN", 2)
    need(Path(k.run_id).name == k.run_id != "..", f"RUN_ID={k.run_id!r}: must be a plain name", 2)
    return k


def knobs_of(k, group):
    return {knob.name: getattr(k, knob.name) for knob in fields(group)}


def print_knobs():
    meanings = dict(re.findall(r"(?m)^    (\w+): \w+ = .*  # (.*)$", SCRIPT.read_text(encoding="utf-8")))
    for name, knob in knob_names().items():
        say(f"{name:35} {knob.default!r:55} # {meanings.get(knob.name, '')}", sys.stdout)


class StopFlag:
    """The first signal to stop sets it; the second ends all, but SIGHUP, which comes in twos."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # by nohup
                signal.signal(number, self.ask)

    def ask(self, number, _):
        told = b"stopping: what is trained is saved, packed, scored; again to stop at once\n"
        end = self.asked and number in (signal.SIGINT, signal.SIGTERM)
        if end:
            told = b"stopped at once; RESUME=1 goes on from the last checkpoint, if any\n"
        self.asked = True
        try:
            os.write(2, told)  # print is not reentrant
        except OSError:
            pass
        if end:
            os._exit(130)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    if sys.argv[1:]:
        sys.exit(print_knobs())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep
try:
    import brotli
    import numpy as np
    import sentencepiece
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch import nn
except ImportError as e:
    if __name__ != "__main__":
        raise
    sys.exit(f"{SCRIPT.name}: error: {e}; pip install -r requirements-cuda.txt")


# ---- Model: pre-norm blocks, RoPE, QK-norm, grouped KV heads, ReLU^2, U-Net skips, x0 in every block

CPU_BLOCK = 64  # queries; in training 128
Linear = partial(nn.Linear, bias=False)
torch.backends.cuda.enable_cudnn_sdp(False)  # pytorch issue 140930


def rope_tables(k, dtype):
    """Cosines and sines [2, length, 1, head_dim / 2] (RoPE: https://arxiv.org/abs/2104.09864)."""
    dim, length = k.model_dim // k.num_heads, max(k.train_seq_len, k.eval_seq_len)
    rates = k.rope_base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack((angles.cos(), angles.sin())).to(dtype)[:, :, None]


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), -1)


def rms_norm(x):
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def project(x, weight):
    """Weights stay float32, cast where they are used."""
    return F.linear(x, weight.to(x.dtype))


def attend(q, k, v, span):
    """Causal attention [batch, heads, length, head_dim] to at most `span` inputs; q: the last."""
    end, fused, rows = k.size(2), F.scaled_dot_product_attention, []
    past = end - q.size(2)  # keys before the first query
    if q.is_cuda and not past and end <= span:
        return fused(q, k, v, is_causal=True)
    block = span if q.is_cuda else CPU_BLOCK * (1 + q.requires_grad)
    kernel = fused if q.is_cuda or q.itemsize > 2 else attend_by_products
    kind = torch.bool if kernel is fused else q.dtype  # numbers multiply sooner
    seen = q.new_ones(block, span + block, dtype=kind).tril(span).triu(1)
    for start in range(past, end, block):  # skips keys that no query sees
        stop, first = min(start + block, end), max(0, start - span)
        part = q[:, :, start - past : stop - past], k[:, :, first:stop], v[:, :, first:stop]
        rows.append(kernel(*part, seen[: stop - start, first - start + span : stop - start + span]))
    return torch.cat(rows, 2)


def attend_by_products(q, k, v, seen):
    """In bfloat16 twice as fast as PyTorch's: no pass for the row maximum. Keys have norm sqrt(head_dim), so
    a score is at most its query's norm; less what that has over 80, exp is finite."""
    excess = (q.detach().norm(dim=-1, keepdim=True) - 80).relu()
    weights = (q * q.size(-1) ** -0.5 @ k.mT - excess).exp() * seen
    return weights @ v / weights.sum(-1, keepdim=True)


class Attention(nn.Module):
    def __init__(self, k):
        super().__init__()
        dim, kv_dim = k.model_dim, k.model_dim * k.num_kv_heads // k.num_heads
        self.heads = k.num_heads, k.num_kv_heads
        self.span = k.train_seq_len  # to reach further than trained scores worse
        self.c_q = Linear(dim, dim)
        self.proj = Linear(dim, dim)
        self.c_k = Linear(dim, kv_dim)
        self.c_v = Linear(dim, kv_dim)
        self.q_gain = nn.Parameter(torch.full((k.num_heads,), k.qk_gain_init))

    def forward(self, x, scale, rope, past=None):
        """scale: [dim], of the output; past: keys and values of inputs before x, or []; x's are added."""
        heads, kv_heads = self.heads
        first = past[0].size(2) if past else 0
        rope = rope[:, first : first + x.size(1)]
        qkv = project(x, torch.cat((self.c_q.weight, self.c_k.weight, self.c_v.weight)))
        qkv = qkv.unflatten(2, (heads + 2 * kv_heads, -1))  # [batch, length, heads, head_dim]
        q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=2)
        q, k = (rotate(rms_norm(t), *rope) for t in (q, k))
        q, k, v = (t.transpose(1, 2) for t in (q * self.q_gain.to(x.dtype)[:, None], k, v))
        if past is not None:
            past[:] = k, v = [torch.cat(pair, 2) for pair in zip(past, (k, v))] if past else (k, v)
        if heads > kv_heads:
            k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
        x = attend(q, k, v, self.span).transpose(1, 2).flatten(2)
        return project(x, scale[:, None] * self.proj.weight)  # saves a pass


class MLP(nn.Module):
    def __init__(self, k):
        super().__init__()
        hidden = int(k.mlp_mult * k.model_dim)
        self.fc = Linear(k.model_dim, hidden)
        self.proj = Linear(hidden, k.model_dim)

    def forward(self, x, scale):
        hidden = F.relu(project(x, self.fc.weight)).square()
        return project(hidden, scale[:, None] * self.proj.weight)


class Block(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.attn = Attention(k)
        self.mlp = MLP(k)
        ones = torch.ones(k.model_dim)
        self.attn_scale = nn.Parameter(ones.clone())
        self.mlp_scale = nn.Parameter(ones.clone())
        self.resid_mix = nn.Parameter(torch.stack((ones, 0 * ones)))  # of x and of x0

    def forward(self, x, x0, rope, past=None):
        """x: the residual stream, x0: the embedding, [batch, length, dim]."""
        keep, mix = self.resid_mix.to(x.dtype)
        x = keep * x + mix * x0
        x = x + self.attn(rms_norm(x), self.attn_scale, rope, past)
        return x + self.mlp(rms_norm(x), self.mlp_scale)


class GPT(nn.Module):
    """Parameters are float32, activations `dtype`."""

    def __init__(self, k, dtype=torch.float32):
        super().__init__()
        self.k, self.dtype = k, dtype
        self.encoder_layers = k.num_layers // 2  # their outputs are added later
        self.compiled = {}  # what loss calls instead of these functions
        self.tok_emb = nn.Embedding(k.vocab_size, k.model_dim)
        if k.tie_embeddings:
            nn.init.normal_(self.tok_emb.weight, std=k.tied_embed_init_std)
        self.blocks = nn.ModuleList(Block(k) for _ in range(k.num_layers))
        self.skip_weights = nn.Parameter(torch.ones(self.encoder_layers, k.model_dim))
        self.lm_head = None if k.tie_embeddings else Linear(k.model_dim, k.vocab_size)
        self.register_buffer("rope", rope_tables(k, dtype), persistent=False)
        for name, p in self.named_parameters():
            if name.endswith(("proj.weight", "head.weight")):
                nn.init.zeros_(p)

    def features(self, tokens, block_forward=Block.forward, past=None):
        """int64 [batch, length] -> [batch, length, dim], before the last norm; past: see Attention."""
        x = rms_norm(self.tok_emb(tokens).to(self.dtype))
        x0, skips = x.clone(), []  # as x, block 0 would compile apart
        for i, block in enumerate(self.blocks):
            if i >= self.encoder_layers and skips:
                x = x + self.skip_weights[i - self.encoder_layers].to(x.dtype) * skips.pop()
            x = block_forward(block, x, x0, self.rope, past and past[i])
            if i < self.encoder_layers:
                skips.append(x)
        return x

    def head(self, x):
        logits = project(rms_norm(x), (self.lm_head or self.tok_emb).weight).float()
        return self.k.logit_softcap * torch.tanh(logits / self.k.logit_softcap)

    def logits(self, tokens, rows, past=None):
        """int64 [batch, length] -> float32 [batch, rows, vocab_size]: the last `rows` positions."""
        return self.head(self.features(tokens, past=past)[:, -rows:])

    def nats(self, x, targets):
        return F.cross_entropy(self.head(x), targets)

    def loss(self, tokens):
        """int64 [batch, length + 1] -> mean nats a target."""
        features, block, nats = (self.compiled.get(f, f) for f in (GPT.features, Block.forward, GPT.nats))
        x = features(self, tokens[:, :-1], block).flatten(0, 1)
        return nats(self, x, tokens[:, 1:].flatten())


# ---- Optimizers: Muon for matrices, Adam for embeddings and vectors


def newton_schulz(x, steps):
    """About semi-orthogonal [n, rows, cols] (Muon, https://kellerjordan.github.io/posts/muon/)."""
    if x.size(1) > x.size(2):
        return newton_schulz(x.mT, steps).mT
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def matches(name, patterns):
    return any(pattern and pattern in name for pattern in patterns.split(","))


class Optimizers:
    """What changes with the step (rates, momentum) lies in tensors: a CUDA graph keeps all else."""

    def __init__(self, model, k):
        self.k, self.dtype = k, model.dtype
        self.params = list(model.parameters())
        self.weights = [p.detach() for p in self.params]
        self.kept = [weight.clone() for weight in self.weights]  # to undo what is tried
        self.scale, self.momentum = self.params[0].new_zeros(2)  # of all rates; Muon's
        embed_lr = k.tied_embed_lr if k.tie_embeddings else k.embed_lr
        rates = {"tok_emb.weight": embed_lr, "lm_head.weight": k.head_lr}
        adam, muon = {}, {}  # parameters by rate; by shape: one batched product serves a shape
        for name, p in model.named_parameters():
            if name in rates or p.ndim < 2 or matches(name, k.control_tensor_name_patterns):
                adam.setdefault(rates.get(name, k.scalar_lr), []).append(p)
            else:
                muon.setdefault(p.shape, []).append(p)
        groups = [dict(params=ps, lr=ps[0].new_zeros(()), base_lr=lr) for lr, ps in adam.items()]
        betas = k.beta1, k.beta2
        self.adam = torch.optim.Adam(groups, betas=betas, eps=k.adam_eps, fused=True, capturable=True)
        self.matrices = list(muon.values())
        self.buffers = [torch.zeros_like(torch.stack(params)) for params in self.matrices]

    def state(self):
        return [*self.buffers, *(tensor for state in self.adam.state.values() for tensor in state.values())]

    def column_steps(self, model):
        """Packing steps [cols] by name: finer where gradients are larger (https://arxiv.org/abs/1612.01543)."""
        squares = {p: state["exp_avg_sq"] for p, state in self.adam.state.items() if p.ndim == 2}
        for params, buffer in zip(self.matrices, self.buffers):
            squares |= zip(params, buffer**2 * (1 - self.k.muon_momentum**2))
        noise = {p: square.mean(0).sqrt() for p, square in squares.items()}
        usual = torch.cat([*noise.values()]).nanmean() + 1e-12
        fine = {p: rms / usual + 0.3 for p, rms in noise.items()}
        logs = [(p.detach().abs() * fine[p] + 1e-9).log().flatten() for p in fine]
        mean = torch.cat(logs).mean().exp()
        return {n: (mean / fine[p]).cpu().numpy() for n, p in model.named_parameters() if p in fine}

    def schedule(self, step, scale):
        k = self.k
        warm = min(1.0, step / max(k.muon_momentum_warmup_steps, 1))
        # fill_ does not wait for the device, tensor[0] = number would
        self.momentum.fill_(k.muon_momentum_warmup_start * (1 - warm) + k.muon_momentum * warm)
        self.scale.fill_(scale)

    @torch.no_grad()
    def apply(self):
        if self.k.grad_clip_norm:
            nn.utils.clip_grad_norm_(self.params, self.k.grad_clip_norm)
        for group in self.adam.param_groups:
            torch.mul(self.scale, group["base_lr"], out=group["lr"])
        self.adam.step()
        # Muon: Nesterov momentum, made orthogonal, of matrices of one shape
        for params, buffer in zip(self.matrices, self.buffers):
            grad = torch.stack([p.grad for p in params])  # [n, rows, cols]
            buffer.mul_(self.momentum).add_(grad)
            nesterov = grad.addcmul_(buffer, self.momentum).to(self.dtype)
            update = newton_schulz(nesterov, self.k.muon_backend_steps)
            stretch = max(1.0, update.size(1) / update.size(2)) ** 0.5
            rate = self.scale * (self.k.matrix_lr * stretch)
            torch._foreach_sub_(params, (update.float() * rate).unbind())


# ---- Schedule and budget: progress is a number from 0 to 1


def lr_scale(k, progress, step):
    """1, then straight to 0 over WARMDOWN_FRAC, or WARMDOWN_ITERS of ITERATIONS or step / progress steps."""
    part = k.warmdown_frac
    if k.warmdown_iters >= 0:
        part = k.warmdown_iters * max(progress / max(step, 1), 1 / (k.iterations or math.inf))
    return min(1.0, (1.0 - progress) / part) if part else 1.0


class TrainState:
    """Its clock runs from the start of step 1 to the last kept update."""

    def __init__(self, k, start, clock):
        self.k, self.clock = k, clock
        self.first = self.step = start["step"]  # updates kept: before, by now
        self.saved = self.logged = self.elapsed = start["elapsed"]  # their seconds: last saved, logged, now
        self.recent = start["recent"]  # seconds of the last 20 steps
        self.discarded = None  # the step that ended late
        self.cap, self.limit = k.max_wallclock_seconds or math.inf, k.iterations or math.inf
        self.mark = clock()  # when the present step began

    def lap(self, keep=False):
        """Ends a step; False, and not counted, if it ended past the budget."""
        seconds = self.clock() - self.mark
        self.mark += seconds
        self.recent = [*self.recent[-19:], seconds]
        if self.elapsed + seconds > self.cap and not keep:
            self.discarded = self.step + 1
            return False
        self.elapsed += seconds
        self.step += 1
        return True

    def over(self):
        """Why no further step may begin; "" if the slowest of the last 20 would fit."""
        if self.step >= self.limit:
            return "iterations"
        return "wallclock_cap" if self.elapsed + max(self.recent) > self.cap else ""

    def progress(self):
        return min(1.0, max(self.elapsed / self.cap, self.step / self.limit))

    def facts(self):
        ms, step = self.elapsed * 1000, self.step
        timing = f"train_time:{ms:.0f}ms step_avg:{ms / max(step, 1):.2f}ms"
        facts = dict(step=step, train_seconds=self.elapsed, tokens=step * self.k.train_batch_tokens)
        return facts, f"step:{step}/{self.k.iterations}", timing


# ---- Data: token shards, a seeded shuffle, the validation stream and its targets' bytes


def find_shards(folder, split):
    shards = list(Path(folder).glob(f"fineweb_{split}_*.bin"))
    need(shards, f"{folder}: no fineweb_{split}_*.bin; set DATA_PATH, VAL_DATA_PATH, or see data/README.md")
    return sorted(shards, key=lambda path: int("0" + re.sub("[^0-9]", "", path.stem)))


def open_shard(path, vocab_size):
    """Mapped uint16 tokens, behind 256 int32 (magic, 1, number of tokens); little-endian."""
    count = path.stat().st_size / 2 - 512
    whole = count > 0 and np.fromfile(path, "<i4", 3).tolist() == [20240520, 1, count]
    need(whole, f"{path}: not a whole token shard; fetch it again")
    tokens = np.memmap(path, "<u2", "c", 1024)
    top = int(tokens.max())
    need(top < vocab_size, f"{path}: holds token {top}, VOCAB_SIZE={vocab_size}")
    return tokens


def sha256(blob):
    return hashlib.sha256(blob).hexdigest()


class TrainData:
    """Sequences of TRAIN_SEQ_LEN + 1 tokens (neighbours share one), in epochs shuffled by seed."""

    def __init__(self, k, device):
        self.k, self.device = k, device
        self.shards = [open_shard(path, k.vocab_size) for path in find_shards(k.data_path, "train")]
        self.starts = np.cumsum([0, *((len(shard) - 1) // k.train_seq_len for shard in self.shards)])
        count = self.sequences = int(self.starts[-1])
        need(count, f"{k.data_path}: no shard holds TRAIN_SEQ_LEN={k.train_seq_len} tokens + 1")
        self.order = lru_cache(2)(lambda epoch: np.random.default_rng([k.seed, epoch]).permutation(count))
        parts = b"".join(s[:: 1 + len(s) // 1_000_000].tobytes() for s in self.shards)
        self.facts = dict(train_files=len(self.shards), train_fingerprint=sha256(parts))

    def batch(self, first, count):
        """int64 [count, length + 1]: sequences first .. first + count - 1 of the endless run."""
        length, rows = self.k.train_seq_len, []
        for place in range(first, first + count):
            epoch, at = divmod(place, self.sequences)
            index = self.order(epoch)[at]
            shard = bisect_right(self.starts, index) - 1
            start = (index - self.starts[shard]) * length
            rows.append(self.shards[shard][start : start + length + 1])
        return torch.from_numpy(np.stack(rows).astype(np.int64)).to(self.device)


# tokens: uint16 [N + 1], the first is context alone; target_bytes: int64 [N], of the others
Stream = namedtuple("Stream", "tokens target_bytes hashes name")


def read_stream(k):
    folder = k.val_data_path or k.data_path
    paths = find_shards(folder, "val")
    tokens = np.concatenate([open_shard(path, k.vocab_size) for path in paths])
    held = len(tokens) - 1
    count = k.val_max_tokens or held
    need(0 < count <= held, f"{folder}: {held} targets, VAL_MAX_TOKENS={count} asks for more")
    tokens = tokens[: count + 1]
    path = Path(k.tokenizer_path)
    need(path.is_file(), f"TOKENIZER_PATH={k.tokenizer_path}: no file")
    try:
        model = path.read_bytes()
        sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        need(len(sp) == k.vocab_size, f"{path}: {len(sp)} pieces, VOCAB_SIZE={k.vocab_size}")
        need(sp.unk_id() not in tokens, f"{folder}: text was lost, as <unk>; export it again")
        sizes = count_bytes(sp, tokens)
    except (RuntimeError, UnicodeDecodeError):
        raise UserError(f"{path}: not a SentencePiece model; set TOKENIZER_PATH")
    shards = b"".join(map(Path.read_bytes, paths))
    hashes = dict(val_sha256=sha256(shards), tokenizer_sha256=sha256(model))
    return Stream(tokens, sizes[1:], hashes, Path(folder).name)


def is_special(sp, i, model):
    """Whether a piece is no text: also a user-defined symbol such as <|endoftext|>."""
    name = sp.id_to_piece(i).encode()
    entry = re.escape(b"\n" + bytes([len(name) % 128]) + name) + b"(\x15.{4})?\x18\x04"
    marker = name[:1] + name[-1:] in (b"<>", b"[]") and re.search(entry, model, re.DOTALL)
    return bool(marker) or sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i)


def count_bytes(sp, tokens):
    """int64 [N], each token's bytes of text, by what its piece decodes to alone and after another."""
    model, ids = sp.serialized_model_proto(), range(len(sp))
    special = np.array([is_special(sp, i, model) for i in ids])
    first = np.array([int(sp.is_byte(i)) for i in ids])  # at the start of a document
    later = first.copy()  # elsewhere, where a leading space counts

    def size(pieces):
        return len(sp.decode(pieces).encode())

    plain = np.flatnonzero(~special & (first == 0)).tolist()
    before = next((i for i in plain if size([i])), None)
    for i in plain:
        first[i], later[i] = size([i]), size([before, i]) - size([before])
    sizes = np.where(np.append(True, special[tokens[:-1]]), first[tokens], later[tokens])
    starts = np.flatnonzero(special[tokens])
    documents = zip(np.split(tokens, starts), np.split(sizes, starts))
    for ids, counts in list(documents)[1:-1]:  # whole ones, behind a special piece
        need(size(ids[1:].tolist()) == counts.sum(), "TOKENIZER_PATH does not fit the shards' bytes")
    return sizes


# ---- Artifact: 20 bytes (magic, format, coder, unpacked length, CRC-32 of the rest), then coded: length of a
# JSON header, the header (ModelKnobs; tensors' names, shapes, encodings), all first arrays, all scales

PREFIX = struct.Struct("<4sHHQI")
MAGIC, FORMAT, CODERS = b"PGLA", 1, ("", "zlib", "brotli")
MAX_UNPACKED = 64 << 20  # bytes
DTYPES = {"int8t": "i1", "fp16": "<f2", "fp32": "<f4"}  # int8t: transposed, with fp16 scales
FINEST_STEP, COARSEST_STEP = 1 / 12, 4  # of a mean weight
RESERVE_BYTES = 5000  # left under the cap, to change the code


def quantize(matrix, steps, bits):
    """float32 [rows, cols] -> int8 [cols, rows], fp16 scales [cols]: `steps`, or what clips nothing."""
    top = 2 ** (bits - 1) - 1
    scales = np.maximum(steps, np.abs(matrix).max(0) / top).astype("<f2")
    divisor = np.where(scales > 0, scales, np.inf).astype(np.float32)  # columns of zeros
    return [np.clip(np.rint(matrix / divisor), -top, top).astype("i1").T, scales]


def dequantize(arrays):
    values, *scales = (array.astype(np.float32) for array in arrays)
    return values.T * scales[0] if scales else values


def pack_tensors(weights, columns, step, k):
    """(encoding, arrays) by name; matrices are quantized, and come first."""
    tensors = {}
    for name, value in weights.items():
        need((abs(value) < 65504).all(), f"{name}: too large for fp16; lower the rates")
        if matches(name, k.int8_keep_float_fp32_name_patterns):
            tensors[name] = "fp32", [value.astype("<f4")]
        elif value.ndim != 2 or matches(name, k.control_tensor_name_patterns):
            tensors[name] = "fp16", [value.astype("<f2")]
        else:
            tensors[name] = "int8t", quantize(value, step * columns[name], k.quant_bits)
    return dict(sorted(tensors.items(), key=lambda item: (item[1][0] != "int8t", item[0].split(".")[2:])))


def serialize(config, tensors, coder="zlib"):
    """An artifact's bytes; the inverse of parse."""
    entries = [[name, a[0].shape, encoding] for name, (encoding, a) in tensors.items()]
    header = json.dumps(dict(config=config, tensors=entries), separators=(",", ":")).encode()
    arrays = [a[n].tobytes() for n in (0, 1) for _, a in tensors.values() if n < len(a)]
    payload = b"".join([struct.pack("<I", len(header)), header, *arrays])
    if coder == "zlib":
        packer = zlib.compressobj(memLevel=9, strategy=zlib.Z_RLE)  # other repeats would take more
        coded = packer.compress(payload) + packer.flush()
    else:
        coded = brotli.compress(payload)
    return PREFIX.pack(MAGIC, FORMAT, CODERS.index(coder), len(payload), zlib.crc32(coded)) + coded


def parse(blob):
    """Configuration and tensors of anyone's bytes; any exception refuses them."""
    magic, version, coder, length, crc = PREFIX.unpack_from(blob)
    coded = blob[PREFIX.size :]
    sound = (magic, version) == (MAGIC, FORMAT) and coder > 0 and zlib.crc32(coded) == crc
    need(sound, "wrong magic, format, coder or CRC-32")
    need(length <= MAX_UNPACKED, f"unpacks to {length} bytes, over {MAX_UNPACKED}")
    if CODERS[coder] == "zlib":
        decoder = zlib.decompressobj()
        payload = decoder.decompress(coded, length + 1)
        whole = decoder.eof and not decoder.unused_data
    else:
        decoder = brotli.Decompressor()
        payload = decoder.process(coded, output_buffer_limit=length + 1)
        whole = decoder.is_finished()
    need(len(payload) == length and whole, "not of its stated length")
    at = 4 + struct.unpack_from("<I", payload)[0]
    header = json.loads(payload[4:at])
    entries = header["tensors"]

    arrays = [(name, DTYPES[encoding], shape) for name, shape, encoding in entries]
    arrays += [(name, "<f2", shape[:1]) for name, shape, encoding in entries if encoding == "int8t"]
    tensors = {name: (encoding, []) for name, _, encoding in entries}
    for name, dtype, shape in arrays:
        array = np.frombuffer(payload, dtype, math.prod(shape), at).reshape(shape)
        tensors[name][1].append(array)
        at += array.nbytes
    need(at == length and len(tensors) == len(entries), "bytes left over, a name twice")
    return header["config"], tensors


def export_artifact(weights, columns, k, code_bytes):
    """The artifact, and its step: the finest that fits the cap less RESERVE_BYTES, or the coarsest."""
    config, steps = knobs_of(k, ModelKnobs), np.geomspace(FINEST_STEP, COARSEST_STEP, 2000)
    limit = (k.artifact_cap_bytes or math.inf) - RESERVE_BYTES - code_bytes

    @lru_cache
    def pack(at, coder):
        return serialize(config, pack_tensors(weights, columns, steps[at], k), coder)

    at, last = 0, len(steps) - 1
    for _ in range(3):  # by zlib, which is fast; another coder's difference changes slowly
        room = len(pack(at, "zlib")) + limit - len(pack(at, k.compressor))
        at = bisect_left(range(last), -room, key=lambda i: -len(pack(i, "zlib")))
    while at < last and len(pack(at, k.compressor)) > limit:
        at += 1
    return pack(at, k.compressor), steps[at]


# ---- Followers: what came next where the last tokens stood before gets a higher logit

ORDERS, RANKS = (1, 2, 3, 6), 4  # lengths of contexts; latest followers of each


class Followers:
    """By how much, depends on order, rank and the model's doubt: learnt by Adagrad (https://jmlr.org/papers/v12/
    duchi11a). Plain gradient steps learn a factor of the model's row, and a bias that fades."""

    def __init__(self, vocab_size):
        self.last, self.made = (0,) * max(ORDERS), None  # tokens; the last row and what made it
        self.seen = {}, {}  # context -> latest followers: in the stream, in this document
        self.amounts = np.full((2 * len(ORDERS), RANKS, 5), 0.3, np.float32)
        self.squares = np.full_like(self.amounts, 0.01)  # of gradients, summed up
        self.factor, self.bias = 1.0, np.zeros(vocab_size, np.float32)

    def mix(self, token, model):
        """The stream's next token, the model's log-probabilities after it [vocab_size] -> better ones."""
        if self.made:
            self.learn(token)
        if token == 1:  # a document begins
            self.seen[1].clear()
        self.last = *self.last[1:], token
        places = [(seen, hash(self.last[-order:])) for seen in self.seen for order in ORDERS]
        latest = [seen.get(context, ()) for seen, context in places]
        votes = [(next, n, rank) for n, tokens in enumerate(latest) for rank, next in enumerate(tokens)]
        voted, *kind = np.array(votes, int).reshape(-1, 3).T
        kind = *kind, np.minimum(model[voted] / -2, 4).astype(int)
        row = self.factor * model + self.bias
        np.add.at(row, voted, self.amounts[kind])
        row -= np.log(np.exp(row).sum())
        self.made = row, model, voted, kind, places
        return row

    def learn(self, target):
        row, model, voted, kind, places = self.made
        error = -np.exp(row)
        error[target] += 1
        slope = error[voted]
        self.squares[kind] += slope**2
        self.amounts[kind] += 0.3 * slope / np.sqrt(self.squares[kind])
        self.factor += 0.0005 * float(error @ model)
        self.bias = 0.999 * self.bias + 0.1 * error
        for seen, context in places:
            seen[context] = target, *seen.get(context, ())[: RANKS - 1]


# ---- Scorer, the submission interface: a stream's tokens in, the distribution after each out


class Scorer:
    """Windows of `seq_len` inputs; each gives the rows of its last `stride`.

    With seq_len 8 and stride 4, block 2 gives rows 8..11 from inputs 4..11. Blocks that would begin before
    input 0 (rows 0..7) share one pass. A window that a call cuts goes on in the next, by its keys and values.
    """

    def __init__(self, model, seq_len, stride, batch_tokens=0, follow=0):
        self.model, self.seq_len, self.stride, self.follow = model, seq_len, stride, follow
        self.device = model.skip_weights.device
        usual = (1 << (27 if self.device.type == "cuda" else 21)) // model.k.vocab_size
        self.windows = max(1, (batch_tokens or usual) // seq_len)
        self.reset()

    def reset(self):
        self.kept, self.left = np.zeros(0, np.int64), 0  # last inputs; rows to come of their windows
        self.followers = Followers(self.model.k.vocab_size) if self.follow else None

    @torch.inference_mode()
    def log_probs(self, tokens):
        """The next n >= 1 tokens of the stream -> float32 [n, vocab_size], log-probabilities: row i of the
        token that follows tokens[i]."""
        new = np.asarray(tokens).astype(np.int64)
        need(0 <= new.min() and new.max() < self.model.k.vocab_size, "tokens: unknown ids")
        inputs, at, outputs = np.concatenate((self.kept, new)), len(self.kept), []
        while at < len(inputs):
            first, windows = at, 1
            if not self.left:
                first = max(0, at + self.stride - self.seq_len)
                windows = max(1, min((len(inputs) - at) // self.stride, self.windows)) if at else 1
                self.left = self.stride * (windows if at else self.seq_len // self.stride)
                self.past = [[] for _ in self.model.blocks] if windows == 1 else None
            count = min(self.left, len(inputs) - at) // windows
            index = np.add.outer(self.stride * np.arange(windows), np.arange(first, at + count))
            logits = self.model.logits(torch.from_numpy(inputs[index]).to(self.device), count, self.past)
            outputs.append(F.log_softmax(logits, -1).flatten(0, 1))
            at += count * windows
            self.left -= count * windows
        self.kept = inputs[-self.seq_len :]
        rows = torch.cat(outputs)
        if self.followers:
            pairs = zip(new.tolist(), rows.cpu().numpy())
            rows = torch.from_numpy(np.stack([self.followers.mix(*pair) for pair in pairs]))
        return rows


def load_scorer(artifact_path, device="auto", dtype=None, batch_tokens=0):
    """A Scorer of an artifact, which alone is read, or a UserError."""
    path, device = Path(artifact_path), pick_device(device)
    try:
        need(path.is_file() and path.stat().st_size <= MAX_UNPACKED, "no file, or too large")
        config, tensors = parse(path.read_bytes())
        need(set(config) == {knob.name for knob in fields(ModelKnobs)}, "other knobs")
        k = read_knobs({name.upper(): str(value) for name, value in config.items()})
        weights = {name: torch.from_numpy(dequantize(arrays)) for name, (_, arrays) in tensors.items()}
        dim = k.model_dim
        least = dim * (k.vocab_size + 2 * k.num_layers * dim * (1 + k.mlp_mult))
        need(least <= sum(w.numel() for w in weights.values()), "too few weights")  # bounds memory
        model = GPT(k, dtype or (pick_dtype(device) if device.type == "cuda" else torch.float32))
        shapes = {name: p.shape for name, p in model.named_parameters()}
        need(shapes == {name: w.shape for name, w in weights.items()}, "tensors of another model")
    except Exception as e:
        raise UserError(f"{path}: damaged, or no artifact ({e})")
    model.load_state_dict(weights)
    return Scorer(model.to(device), k.eval_seq_len, k.eval_stride, batch_tokens, k.followers)


def score_stream(scorer, stream, log=None):
    """val_loss in nats a target, val_bpb in bits a byte, [nats, bytes] of 64 parts."""
    count, chunk = len(stream.target_bytes), scorer.windows * scorer.stride
    nats, began = np.empty(count), time.monotonic()
    scorer.reset()
    for at in range(0, count, chunk):
        now = time.monotonic()
        if log and now > log.spoken + 5:  # breaks a silence
            log.line(f"scoring:{at}/{count} seconds:{now - log.began:.0f}")
        targets = stream.tokens[at + 1 : at + chunk + 1].astype(np.int64)
        rows = scorer.log_probs(stream.tokens[at : at + len(targets)])
        nats[at : at + chunk] = -rows[np.arange(len(targets)), targets].cpu()
    parts = np.arange(count) * 64 // count
    segments = [np.bincount(parts, weights, 64) for weights in (nats, stream.target_bytes)]
    total, size = float(nats.sum()), int(stream.target_bytes.sum())
    need(math.isfinite(total) and size, "the score is not finite; lower the rates")
    return dict(
        val_loss=total / count, val_bpb=total / math.log(2) / size, targets=count, bytes=size,
        seq_len=scorer.seq_len, stride=scorer.stride, seconds=time.monotonic() - began,
        segments=[[nats, int(size)] for nats, size in zip(*segments)],
    )  # fmt: skip


# ---- Harness: log, checkpoint, signals, devices

CHECKPOINT = "checkpoint.pt"


class Log:
    """train.log for people, metrics.jsonl for tools."""

    def __init__(self):
        self.folder, self.told = None, False
        self.began = self.spoken = time.monotonic()

    def open(self, folder, append):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / "train.log", folder / "metrics.jsonl"):
            with open(path, "ab" if append else "xb") as file:
                file.write(b"\n" * (path.read_bytes()[-1:] > b"\n"))  # a cut line

    def put(self, name, text):
        """A line or, on a full disk, a warning, once."""
        if not self.folder:
            return
        path = self.folder / name
        try:
            with open(path, "ab") as file:
                file.write(f"{text}\n".encode(errors="backslashreplace"))
        except OSError as e:
            if not self.told:
                say(f"warning: {explain(e, path)}; the run goes on", sys.stderr)
            self.told = True

    def line(self, text):
        self.spoken = time.monotonic()
        if os.getenv("RANK", "0") == "0":
            say(re.sub(r"(.{180}).{20,}", r"\1 ...", text), sys.stdout)
        self.put("train.log", text)

    def fact(self, event, text="", **values):
        """A line for people, or one a value, and an object for tools."""
        self.line(text or "\n".join(f"{n}:{value}" for n, value in values.items() if value is not None))
        self.put("metrics.jsonl", json.dumps(dict(schema=1, event=event, time=time.time(), **values)))


def replace_file(path, write, *data):
    """All of what write makes, or an OSError."""
    part = path.with_suffix(".part")
    try:
        write(part, *data)
        part.replace(path)
    except Exception as e:
        part.unlink(missing_ok=True)
        raise OSError(0, str(e), path) from e


def save_checkpoint(run, state):
    saved = dict(identity=run.identity, step=state.step, elapsed=state.elapsed, recent=state.recent)
    saved |= dict(dtype=run.model.dtype, model=run.model.state_dict(), optimizers=run.opt.state())
    try:
        replace_file(run.folder / CHECKPOINT, lambda part: torch.save(saved, part))
    except OSError as e:
        run.log.line(f"no checkpoint at step {state.step}, training goes on: {e.strerror[:80]!r}")


def read_checkpoint(run):
    path, k, now = run.folder / CHECKPOINT, run.k, run.identity
    need(k.run_id or k.resume == "0", f"RESUME={k.resume}: set RUN_ID", 2)
    if k.resume == "0" or not path.is_file():
        return None
    try:
        saved = torch.load(path, map_location=run.device, weights_only=True)
        was = dict(saved["identity"])
    except Exception as e:
        raise UserError(f"{path}: damaged ({type(e).__name__}); delete it to begin anew")
    other = [f"{n.upper()} was {was.get(n)}, is {now.get(n)}" for n in now | was if now.get(n) != was.get(n)]
    need(not other, f"{path}: {'; '.join(other)}; put that back, or change RUN_ID", 2)
    return saved


def pick_device(name):
    count = torch.cuda.is_available() and torch.cuda.device_count()
    rank = os.getenv("LOCAL_RANK", "0")
    if name == "cpu" or name == "auto" and not count:
        return torch.device("cpu")
    need(rank in map(str, range(count)), f"DEVICE={name}: no device {rank}; set DEVICE=cpu or start fewer", 2)
    return torch.device("cuda", int(rank))


def pick_dtype(device):
    fast = torch.cpu.get_capabilities().get("avx512_bf16")
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(False)
    return torch.bfloat16 if fast else torch.float32


def pack_script(source):
    """A stub of two lines that runs as the script does, without docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    packed = lzma.compress(ast.unparse(tree).encode(), preset=9 | lzma.PRESET_EXTREME)
    run = b'exec(compile(lzma.decompress(base64.b85decode("%b")), __file__, "exec"))'
    return b"import base64, lzma\n" + run % base64.b85encode(packed) + b"\n"


# ---- Train


class Run:
    def __init__(self, k, log=None):
        self.k, self.log, self.device = k, log or Log(), pick_device(k.device)
        self.cuda = self.device.type == "cuda"
        finder = ModuleFinder([str(SCRIPT.parent)])
        finder.run_script(str(SCRIPT))
        beside = [SCRIPT.with_name(f"{name}.py") for name in finder.modules if name != SCRIPT.stem]
        self.source = SCRIPT.read_bytes()
        self.modules = {path.name: path.read_bytes() for path in beside if path.is_file()}
        self.packed = pack_script(self.source) if k.pack_script else b""
        if self.cuda:
            torch.cuda.set_device(self.device)
            torch.cuda.set_stream(torch.cuda.Stream())  # capture needs one
        self.data, self.stream = TrainData(k, self.device), read_stream(k)
        self.folder = Path(k.out_dir) / (k.run_id or time.strftime("%Y%m%d-%H%M%S"))
        self.identity = knobs_of(k, TrainKnobs) | self.data.facts | self.stream.hashes
        self.checkpoint = read_checkpoint(self)
        dtype = [self.checkpoint["dtype"] if self.checkpoint else pick_dtype(self.device)]
        try:
            self.rank, self.world = int(os.getenv("RANK", 0)), int(os.getenv("WORLD_SIZE", 1))
            need(self.rank < self.world, "no such rank")
            if self.world > 1:
                dist.init_process_group()  # gloo for a CPU's tensors, NCCL for a GPU's
                dist.broadcast_object_list(dtype)
        except Exception as e:
            raise UserError(f"RANK, WORLD_SIZE: {e!s:.99}; unset both, or use torchrun", 2)
        unit = self.world * k.train_seq_len
        self.sequences, rest = divmod(k.train_batch_tokens, unit)
        need(not rest, f"TRAIN_BATCH_TOKENS={k.train_batch_tokens}: no multiple of {unit}", 2)
        torch.manual_seed(k.seed)
        self.model = GPT(k, *dtype).to(self.device)
        self.opt = Optimizers(self.model, k)
        self.micro = self.pick_micro_batch()

    def pick_micro_batch(self):
        """By half a GPU's memory (65 numbers a token, layer, channel; 5 a logit) or a CPU's cache."""
        k, tokens = self.k, 4096
        if self.cuda:
            size = 130 * self.model.dtype.itemsize * k.num_layers * k.model_dim + 40 * k.vocab_size
            tokens = torch.cuda.mem_get_info()[1] // size
        most = min(self.sequences, max(1, (k.micro_batch_tokens or tokens) // k.train_seq_len))
        return max(n for n in range(1, most + 1) if self.sequences % n == 0)

    def batch(self, step):
        return self.data.batch((step * self.world + self.rank) * self.sequences, self.sequences)

    def update(self, tokens):
        """By int64 [sequences, length + 1], without waiting; all ranks' mean loss."""
        self.model.zero_grad()
        total = torch.zeros((), device=self.device)
        for part in tokens.split(self.micro):
            loss = self.model.loss(part) * (self.micro / self.sequences / self.world)
            loss.backward()
            total += loss.detach()
        if self.world > 1:
            shared = [total, *(p.grad for p in self.opt.params if p.grad is not None)]
            flat = nn.utils.parameters_to_vector(shared)
            dist.all_reduce(flat)
            nn.utils.vector_to_parameters(flat, shared)
        self.opt.apply()
        return total


def describe(run):
    k, config = run.k, {name.upper(): value for name, value in knobs_of(run.k, Knobs).items()}
    run.log.open(run.folder, k.resume != "0")
    run.log.put("train.log", run.source.decode(errors="replace"))
    cpu = f"{os.cpu_count()}-core {os.uname().machine} CPU"
    run.log.fact(
        "start", run_id=run.folder.name, seed=k.seed, resumed=bool(run.checkpoint), script=SCRIPT.name,
        script_sha256=sha256(run.source), modules={name: sha256(blob) for name, blob in run.modules.items()},
        device=run.device.type, hardware=torch.cuda.get_device_name() if run.cuda else cpu,
        world_size=run.world, dtype=str(run.model.dtype)[6:], params=sum(p.numel() for p in run.opt.params),
        versions=dict(python=sys.version.split()[0], torch=torch.__version__, numpy=np.__version__),
        micro_batch_tokens=run.micro * k.train_seq_len, **run.data.facts, config=config,
        data=dict(name=run.stream.name, **run.stream.hashes),
    )  # fmt: skip
    files = {**run.modules, SCRIPT.name: run.source, "config.json": json.dumps(config).encode()}
    if run.packed:
        files[f"{SCRIPT.stem}.packed.py"] = run.packed
    for name, blob in files.items():
        replace_file(run.folder / name, Path.write_bytes, blob)


def train_step(run, tokens, step, scale):
    """Update `step` (from 0), rates times `scale`; its mean loss."""
    run.opt.schedule(step, scale)
    return run.update(tokens)


def attempt(run, name, action):
    """Whether it works, on all ranks; if not, COMPILE=1 stops."""
    works, fault = torch.tensor(1), "a rank"
    try:
        action()
    except Exception as e:
        if run.k.compile == "1" or isinstance(e, torch.OutOfMemoryError):
            raise
        works, fault = 0 * works, repr(e)[:99]
    if run.world > 1:
        dist.all_reduce(works, dist.ReduceOp.MIN)
    if not works:
        run.fault = f"{name} failed ({fault}): slower; COMPILE=1 tells why"
        run.log.line(run.fault)
    return bool(works)


def try_graph(run, tokens):
    """`update` as a CUDA graph, if it does the same."""
    opt, update, batch = run.opt, run.update, tokens.clone()
    state = opt.weights + opt.state()
    kept = [tensor.clone() for tensor in state]

    def replay(tokens):
        batch.copy_(tokens)
        graph.replay()
        return total

    def step(update, tokens, scale=1.0):
        torch._foreach_copy_(state, kept)
        opt.schedule(0, scale)
        return float(update(tokens)), [now - old for now, old in zip(opt.weights, kept)]

    loss, moves = step(update, tokens)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        total = update(batch)
    same, replayed = step(replay, tokens)
    need(abs(same - loss) <= 0.01 * loss, "another loss")
    alike = all((a - b).norm() <= 0.2 * b.norm() for a, b in zip(replayed, moves) if b.ndim == 2)
    need(alike, "other moves")  # cosines over .98
    other, still = step(replay, (tokens + 1) % run.k.vocab_size, 0.0)
    need(not any(move.any() for move in still), "it moves at rate 0")
    need(other != same, "no tokens read")
    run.update = replay


def warm_up(run):
    """Compiles, runs steps on random tokens, tries a CUDA graph, restores all state."""
    k, compiled = run.k, False
    graph = run.fault = None
    tokens = torch.randint(k.vocab_size, (run.sequences, k.train_seq_len + 1), device=run.device)
    if k.compile != "0":
        # All blocks as one move fewer bytes; a CPU compiles one, for all, sooner.
        parts = GPT.features if run.cuda else Block.forward, GPT.nats
        run.model.compiled = {part: torch.compile(part, dynamic=False) for part in parts}
        compiled = attempt(run, "compile", lambda: run.model.loss(tokens[: run.micro]).backward())
    if not compiled:
        run.model.compiled = {}
    count = k.warmup_steps or int(k.compile != "0" or run.checkpoint is not None)
    for step in range(count):
        float(train_step(run, tokens, step, 1.0))
    if run.cuda and run.world == 1 and k.compile in ("auto", "1"):
        graph = attempt(run, "CUDA graph", lambda: try_graph(run, tokens))
    torch._foreach_copy_(run.opt.weights, run.opt.kept)
    torch._foreach_zero_(run.opt.state())
    if run.checkpoint:
        try:  # in place, where a CUDA graph reads
            run.model.load_state_dict(run.checkpoint["model"])
            torch._foreach_copy_(run.opt.state(), run.checkpoint["optimizers"])
        except (KeyError, RuntimeError):
            raise UserError(f"{run.folder / CHECKPOINT}: does not fit this script")
    facts = dict(compile=compiled, graph=graph, self_test="passed" if graph else run.fault)
    run.log.fact("warm_up", warmup_steps=count, **facts)


def train(run, clock=time.monotonic):
    """Until budget, steps or a signal end it; says which."""
    start = run.checkpoint or dict(step=0, elapsed=0.0, recent=[0.0])
    run.stop, state = StopFlag(), TrainState(run.k, start, clock)
    tokens = run.batch(state.step)
    while True:
        decision = ["interrupted" if run.stop.asked else state.over(), state.progress()]
        if run.world > 1:
            dist.broadcast_object_list(decision)
        reason, progress = decision
        if state.step > state.first and not run.rank:
            after_step(run, state, reason)
        if reason:
            break
        torch._foreach_copy_(run.opt.kept, run.opt.weights)  # to undo a late step
        scale = lr_scale(run.k, progress, state.step)
        loss = train_step(run, tokens, state.step, scale)
        tokens = run.batch(state.step + 1)  # while the device works
        loss = float(loss)
        need(math.isfinite(loss), f"step {state.step + 1}: the loss is {loss}; lower the rates")
        if state.lap(keep=run.rank > 0):
            state.loss, state.scale = loss, scale
        else:
            torch._foreach_copy_(run.opt.weights, run.opt.kept)
            run.log.line(f"discarded_step:{state.discarded}")
    need(state.step > state.first or reason != "interrupted", "stopped before a step was done", 130)
    facts, at, _ = state.facts()
    ended = "finished" if reason == "iterations" else "stopping_early"
    line = f"{ended}: {reason} train_time:{state.elapsed * 1000:.0f}ms {at}\n"
    line += f"train_seconds:{state.elapsed:.3f} tokens:{facts['tokens']} steps:{state.step}"
    run.log.fact("train_end", line, **facts, reason=reason, discarded_step=state.discarded)
    return reason


def after_step(run, state, reason):
    k, step, (facts, at, timing) = run.k, state.step, state.facts()
    due = step <= state.first + 10 or state.elapsed > state.logged + 15
    if reason or k.train_log_every and (due or step % k.train_log_every == 0):
        state.logged = state.elapsed
        speed, left = facts["tokens"] / state.elapsed, state.elapsed / state.progress() - state.elapsed
        line = f"{at} train_loss:{state.loss:.4f} {timing} tokens/s:{speed:.0f} left:{left:.0f}s"
        run.log.fact("step", line, **facts, train_loss=state.loss, lr_scale=state.scale)
    if reason or 0 < k.checkpoint_every_seconds < state.elapsed - state.saved:
        state.saved = state.elapsed
        save_checkpoint(run, state)
    if k.val_loss_every and (reason or step % k.val_loss_every == 0) and not run.stop.asked:
        began = state.clock()
        plain = Scorer(run.model, k.train_seq_len, k.train_seq_len, k.val_batch_size)
        log_score(plain, run.stream, run.log, "val", at, f" {timing}", digits=4, **facts)
        state.mark += state.clock() - began


def export(run):
    k, began, code = run.k, time.monotonic(), len(run.packed or run.source)
    code += sum(len(name.encode()) + len(blob) for name, blob in run.modules.items())
    weights = {name: p.detach().cpu().numpy() for name, p in run.model.named_parameters()}
    blob, step = export_artifact(weights, run.opt.column_steps(run.model), k, code)
    path = run.folder / f"final_model.int{k.quant_bits}.{k.compressor}"
    replace_file(path, Path.write_bytes, blob)
    model, cap = len(blob), k.artifact_cap_bytes
    total, room = model + code, cap - model - code
    text = f"quantization_step:{step:.4f}\ntotal_submission_size_quant_zlib:{total} bytes"
    run.log.fact(
        "export", f"{text} code:{code} model:{model} cap:{cap} headroom:{room}", bytes_total=total,
        bytes_code=code, bytes_model=model, cap=cap, headroom=room, step=step, artifact=path.name,
        artifact_sha256=sha256(blob), export_seconds=time.monotonic() - began,
    )  # fmt: skip
    return path, room if cap else 0


def log_score(scorer, stream, log, event, head, tail="", digits=8, **facts):
    score = score_stream(scorer, stream, log)
    line = f"{head} val_loss:{score['val_loss']:.{digits}f} val_bpb:{score['val_bpb']:.{digits}f}{tail}"
    log.fact(event, line, **facts, **score)


def score_artifact(path, k, stream, log, notes):
    sliding = load_scorer(path, k.device, batch_tokens=k.val_batch_size)
    length, count = sliding.model.k.train_seq_len, len(stream.target_bytes)
    plain = Scorer(sliding.model, length, length, k.val_batch_size)
    if stream.name != CHALLENGE_DATA:
        notes.append(f"data={stream.name}")
    elif count < CHALLENGE_TARGETS:
        notes.append("partial")
    tail = f" seq_len:{sliding.seq_len} stride:{sliding.stride} targets:{count}"
    tail += f" note:{','.join(notes)}" if notes else ""
    log_score(plain, stream, log, "score", "final_int8_zlib_roundtrip_exact", kind="roundtrip", notes=notes)
    log_score(sliding, stream, log, "score", "final_sliding_window_exact", tail, kind="sliding", notes=notes)


# ---- Main


def run_all(k, log):
    if k.eval_only:
        return score_artifact(k.eval_only, k, read_stream(k), log, [])
    run = Run(k, log)
    if not run.rank:
        describe(run)
    warm_up(run)
    setup_seconds = time.monotonic() - log.began
    reason = train(run)
    if run.world > 1:
        dist.destroy_process_group()
    if run.rank:
        os._exit(0)  # slower, gloo may abort
    path, room = export(run)
    notes = ["resumed"] if run.checkpoint else []
    notes += [reason] if reason == "interrupted" else []
    began, stream = time.monotonic(), run.stream
    del run  # and a CUDA graph's memory
    torch.cuda.empty_cache()
    score_artifact(path, k, stream, log, notes)
    peak = torch.cuda.max_memory_allocated() or None
    facts = dict(eval_seconds=time.monotonic() - began, peak_memory_bytes=peak, exit_code=int(room < 0))
    log.fact("end", setup_seconds=setup_seconds, **facts)
    need(room >= 0, f"{-room} bytes over the cap at the coarsest step; shrink the model")


def main():
    try:
        run_all(read_knobs(os.environ), Log())
        return 0
    except UserError as e:
        message, code = e, e.code
    except OSError as e:
        message, code = explain(e), 1
    except (RuntimeError, MemoryError) as e:
        if not matches(repr(e), "MemoryError,out of memory,CPUAllocator,_ALLOC_FAILED"):
            raise
        message, code = "out of memory; lower MICRO_BATCH_TOKENS or VAL_BATCH_SIZE", 3
    say(f"{SCRIPT.name}: error: {message}", sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
