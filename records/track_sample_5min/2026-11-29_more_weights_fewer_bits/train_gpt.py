#!/usr/bin/env python3
"""Train, pack and score a tiny GPT whose code plus weights fit a byte cap. Change a copy; `--knobs`
lists its environment variables, PACK_SCRIPT=1 ships it without comments. Model, recipe and names follow the
baseline of https://github.com/openai/parameter-golf."""

import ast
import base64
import hashlib
import json
import locale
import lzma
import math
import os
import re
import signal
import struct
import sys
import time
import zlib
from collections import namedtuple
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path

SCRIPT = Path(__file__).resolve()
ROOT = next((p for p in SCRIPT.parents if (p / "data").is_dir()), Path.cwd())
CHALLENGE_DATA, CHALLENGE_TARGETS = "fineweb10B_sp1024", 4194304


class UserError(Exception):  # what a user can put right
    code = 1  # invalid input; 2: wrong usage


def need(holds, message, code=1):
    if not holds:
        error = UserError(message)
        error.code = code
        raise error


def explain(error, path=None):
    path = path or error.filename or "a file"
    return f"{path}: {error.strerror or error}; check it, its permissions, its disk"


def say(text, stream):
    """A terminal that went away ends no run."""
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# ---- Knobs: environment variables, read once (k below), by their fields' names in upper case


def knob(default, low=0, high=1e18, **more):
    """A field with limits. more: choices; alias, a second name; auto, a word for 0."""
    return field(default=default, metadata=dict(low=low, high=high, **more))


@dataclass(frozen=True)
class ModelKnobs:  # what a scorer needs to build the model again: all travel in the artifact
    vocab_size: int = knob(1024, 2, 65536)  # pieces of the tokenizer
    num_layers: int = knob(6, 1, 256)  # blocks
    model_dim: int = knob(192, 2, 65536)  # width of the residual stream
    num_heads: int = knob(3, 1)  # attention heads; must divide MODEL_DIM / 2
    num_kv_heads: int = knob(3, 1)  # key and value heads; must divide NUM_HEADS
    mlp_mult: float = knob(2.8334, 0.5, 64)  # MLP width / MODEL_DIM; may be fractional
    tie_embeddings: int = knob(1, 0, 1)  # 1: the embedding is the output head, too
    rope_base: float = knob(10000.0, 1)  # base of the rotary frequencies
    logit_softcap: float = knob(30.0, 0.1)  # bound of the logits
    train_seq_len: int = knob(512, 1, 65536, alias="TRAIN_MAX_SEQ_LEN")  # tokens; attention reaches as far
    ngram_rows: int = 0  # rows of each table of hashed pairs and triples; 0: no tables
    ngram_dim: int = knob(64, 1)  # width of a table's rows
    count_followers: int = knob(0, 0, 1)  # 1: scoring mixes in what followed the last tokens before
    learn_rate: float = 0.0  # rates of a step on each block that was scored, over training's; 0: none
    eval_seq_len: int = knob(1024, 1, 65536)  # tokens of a sliding window
    eval_stride: int = knob(512, 1)  # targets that a window scores; at most EVAL_SEQ_LEN


@dataclass(frozen=True)
class TrainKnobs(ModelKnobs):  # what else weights depend on: a run resumes with the same
    seed: int = 1337  # of first weights and batch order
    max_wallclock_seconds: float = 1800.0  # training budget; 0: no limit
    iterations: int = 0  # step limit; 0: none
    train_batch_tokens: int = knob(65536, 1)  # tokens a step, over all ranks
    warmdown_frac: float = knob(0.6, 0, 1)  # last part of the run, in which rates fall to 0
    warmdown_iters: int = knob(-1, -1)  # the same in steps, as upstream; -1: unused
    qk_gain_init: float = 1.5  # first gain of each query head
    tied_embed_init_std: float = 0.005  # spread of its first weights
    embed_lr: float = 0.6  # Adam's rate, untied embedding
    ngram_lr: float = 0.02  # Adam's rate, tables of pairs and triples
    keep_text: int = knob(0, 0, 1)  # 1: the training text is in the artifact, for COUNT_FOLLOWERS
    gptq_batches: int = 0  # batches that show GPTQ typical inputs; 0: plain rounding
    pack_step: float = 0.0  # step of packing, in deviations; 0: the finest that fits the cap
    qat_frac: float = knob(0.0, 0, 1)  # last part of the run, in which weights are used as packed
    head_lr: float = 0.008  # Adam's rate, untied output head
    tied_embed_lr: float = 0.03  # Adam's rate, tied embedding
    scalar_lr: float = 0.02  # Adam's rate, vectors
    matrix_lr: float = 0.02  # Muon's rate, matrices
    muon_momentum: float = knob(0.95, 0, 1)  # after its warm-up
    muon_backend_steps: int = knob(5, 1)  # Newton-Schulz iterations
    muon_momentum_warmup_start: float = knob(0.85, 0, 1)  # momentum at step 0
    muon_momentum_warmup_steps: int = 500  # steps until MUON_MOMENTUM
    beta1: float = knob(0.9, 0, 0.9999)  # Adam's decay, mean gradient
    beta2: float = knob(0.95, 0, 0.9999)  # Adam's decay, mean square
    adam_eps: float = 1e-8  # keeps Adam from dividing by 0
    grad_clip_norm: float = 0.0  # largest gradient norm; 0: no clipping
    control_tensor_name_patterns: str = "attn_scale,mlp_scale,resid_mix,q_gain,skip_weight"  # Adam, fp16


@dataclass(frozen=True)
class Knobs(TrainKnobs):  # all: also what no weight depends on
    run_id: str = ""  # name of the run's folder; default: start time
    out_dir: str = f"{ROOT}/runs"  # where that folder is made
    data_path: str = f"{ROOT}/data/datasets/{CHALLENGE_DATA}"  # folder of token shards
    val_data_path: str = ""  # of validation shards; default: DATA_PATH
    tokenizer_path: str = f"{ROOT}/data/tokenizers/fineweb_1024_bpe.model"  # SentencePiece
    device: str = knob("auto", choices=("auto", "cuda", "cpu"))  # auto: cuda, else cpu
    compile: str = knob("auto", choices=("auto", "0", "1"))  # torch.compile; auto: where it works
    micro_batch_tokens: int = knob(0, auto=True)  # tokens a forward pass; 0 or auto: by memory
    warmup_steps: int = 2  # on random tokens, untimed, undone
    checkpoint_every_seconds: float = 300.0  # of training; 0: at its end alone
    resume: str = knob("0", choices=("0", "1", "auto"))  # 1, auto: from RUN_ID's checkpoint
    eval_only: str = ""  # an artifact to score instead
    train_log_every: int = 200  # steps between log lines; 0: none
    val_loss_every: int = 0  # steps between validations; 0: none
    val_batch_size: int = knob(0, auto=True)  # tokens a scoring pass; 0 or auto: by device
    val_max_tokens: int = CHALLENGE_TARGETS  # targets to score; 0: all
    artifact_cap_bytes: int = 2000000  # code plus artifact; 0: no cap
    quant_bits: int = knob(8, 2, 8)  # of a packed weight, before coding
    compressor: str = knob("zlib", choices=("zlib", "brotli"))  # of the artifact; brotli is a package
    int8_keep_float_fp32_name_patterns: str = ""  # packed as fp32: parts of names
    pack_script: int = knob(0, 0, 1)  # 1: ship the script without comments, packed


def parse_knob(knob, raw):
    name, kind, limits = knob.name.upper(), knob.type, knob.metadata
    if kind is str:
        choices = limits.get("choices", (raw,))
        need(raw in choices, f"{name}={raw!r}: allowed is one of {', '.join(choices)}", 2)
        return raw
    low, high = limits.get("low", 0), limits.get("high", 1e18)
    try:
        value = 0 if raw == "auto" and "auto" in limits else kind(raw)
    except ValueError:
        value = math.nan
    need(low <= value <= high, f"{name}={raw!r}: allowed is {kind.__name__} from {low} to {high:g}", 2)
    return value


def read_knobs(env):
    known = {knob.metadata.get("alias", ""): knob for knob in fields(Knobs)}
    known |= {knob.name.upper(): knob for knob in fields(Knobs)}
    values = {knob.name: parse_knob(knob, env[name]) for name, knob in known.items() if name in env}
    for name in set(env).difference(known):
        for near in get_close_matches(name, known, 1, 0.85):
            say(f"warning: {name} is unknown; did you mean {near}?", sys.stderr)
    k = Knobs(**values)
    check_consistency(k)
    return k


def knobs_of(k, group):
    names = {knob.name for knob in fields(group)}
    return {name: value for name, value in asdict(k).items() if name in names}


def check_consistency(k):
    need(k.iterations or k.max_wallclock_seconds, "ITERATIONS and MAX_WALLCLOCK_SECONDS are 0: set one", 2)
    need(k.model_dim % (2 * k.num_heads) == 0, f"NUM_HEADS={k.num_heads}: must divide MODEL_DIM / 2", 2)
    need(k.num_heads % k.num_kv_heads == 0, f"NUM_KV_HEADS={k.num_kv_heads}: must divide NUM_HEADS", 2)
    need(k.eval_stride <= k.eval_seq_len, f"EVAL_STRIDE={k.eval_stride}: at most EVAL_SEQ_LEN", 2)
    need(Path(k.run_id).name == k.run_id != "..", f"RUN_ID={k.run_id!r}: must be a plain name", 2)


def print_knobs():
    """Name, default and meaning, which is the comment beside the field."""
    meanings = dict(re.findall(r"(?m)^    (\w+): \w+ = .*  # (.*)$", SCRIPT.read_text(encoding="utf-8")))
    for knob in fields(Knobs):
        for name in filter(None, (knob.name.upper(), knob.metadata.get("alias"))):
            say(f"{name:35} {knob.default!r:55} # {meanings.get(knob.name, '')}", sys.stdout)


def on_stop(action):
    """What signals that ask to stop do; one that nohup has switched off stays so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, action)


def leave(text):
    with suppress(OSError):
        os.write(2, f"{text}\n".encode("utf-8", "surrogateescape"))
    os._exit(130)


if __name__ == "__main__":  # before imports that may fail
    with suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # libraries read files by it
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    if sys.argv[1:]:
        sys.exit(print_knobs())
    on_stop(lambda *_: leave("stopped before training began"))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep
try:
    import numpy as np
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch import nn
except ImportError as e:
    if __name__ != "__main__":
        raise
    sys.exit(f"{SCRIPT.name}: error: {e}; pip install -r requirements-cuda.txt")


# ---- Model: pre-norm blocks, RoPE, QK-norm, grouped KV heads, ReLU^2, U-Net skips, x0 in every block

LOSS_TOKENS = 8192  # targets whose float32 logits exist at once
CPU_BLOCK = 128


def rope_tables(k, dtype):
    """Cosines and sines [length, head_dim / 2] (RoPE: https://arxiv.org/abs/2104.09864)."""
    dim, length = k.model_dim // k.num_heads, max(k.train_seq_len, k.eval_seq_len)
    rates = k.rope_base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(length)[:, None] * rates
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


def rms_norm(x):
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


class Linear(nn.Linear):
    """Weights stay float32, cast where they are used."""

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


def attend(q, k, v, span):
    """Causal attention [batch, heads, length, head_dim] to at most `span` inputs."""
    length, fused = q.size(2), F.scaled_dot_product_attention
    if q.is_cuda and length <= span:
        return fused(q, k, v, is_causal=True)
    seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril().triu(1 - span)
    if q.is_cuda:
        return fused(q, k, v, seen)
    kernel = fused if q.dtype == torch.float32 else attend_by_products
    outputs = []
    for start in range(0, length, CPU_BLOCK):  # blocks leave out keys that no query sees
        queries = slice(start, start + CPU_BLOCK)
        keys = slice(max(0, start + 1 - span), start + CPU_BLOCK)
        outputs.append(kernel(q[:, :, queries], k[:, :, keys], v[:, :, keys], seen[queries, keys]))
    return torch.cat(outputs, dim=2)


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
        self.heads = k.num_heads
        self.span = k.train_seq_len  # to reach further than trained scores worse
        self.c_q = Linear(dim, dim, bias=False)
        self.proj = Linear(dim, dim, bias=False)
        self.c_k = Linear(dim, kv_dim, bias=False)
        self.c_v = Linear(dim, kv_dim, bias=False)
        self.q_gain = nn.Parameter(torch.full((self.heads,), k.qk_gain_init))

    def forward(self, x, rope):
        batch, length, dim = x.shape
        shape = batch, length, -1, dim // self.heads
        q = self.c_q(x).view(shape).transpose(1, 2)  # [batch, heads, length, head_dim]
        k = self.c_k(x).view(shape).transpose(1, 2)  # [batch, kv_heads, length, head_dim]
        v = self.c_v(x).view(shape).transpose(1, 2)
        q = rotate(rms_norm(q), *rope) * self.q_gain.to(x.dtype)[:, None, None]
        k = rotate(rms_norm(k), *rope)
        shared = q.size(1) // k.size(1)
        y = attend(q, k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1), self.span)
        return self.proj(y.transpose(1, 2).reshape(x.shape))


class MLP(nn.Module):
    def __init__(self, k):
        super().__init__()
        hidden = int(k.mlp_mult * k.model_dim)
        self.fc = Linear(k.model_dim, hidden, bias=False)
        self.proj = Linear(hidden, k.model_dim, bias=False)

    def forward(self, x):
        return self.proj(F.relu(self.fc(x)).square())


class Block(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.attn = Attention(k)
        self.mlp = MLP(k)
        ones = torch.ones(k.model_dim)
        self.attn_scale = nn.Parameter(ones.clone())
        self.mlp_scale = nn.Parameter(ones.clone())
        self.resid_mix = nn.Parameter(torch.stack((ones, 0 * ones)))  # of x and of x0

    def forward(self, x, x0, rope):
        """x: the residual stream, x0: the embedding, [batch, length, dim]."""
        keep, mix = self.resid_mix.to(x.dtype)
        x = keep * x + mix * x0
        x = x + self.attn_scale.to(x.dtype) * self.attn(rms_norm(x), rope)
        return x + self.mlp_scale.to(x.dtype) * self.mlp(rms_norm(x))


class GPT(nn.Module):
    """Parameters are float32, activations `dtype`."""

    def __init__(self, k, dtype=torch.float32):
        super().__init__()
        self.k, self.dtype = k, dtype
        self.encoder_layers = k.num_layers // 2  # their outputs are added later
        self.compile(False)
        self.tok_emb = nn.Embedding(k.vocab_size, k.model_dim)
        if k.tie_embeddings:
            nn.init.normal_(self.tok_emb.weight, std=k.tied_embed_init_std)
        self.blocks = nn.ModuleList(Block(k) for _ in range(k.num_layers))
        self.skip_weights = nn.Parameter(torch.ones(self.encoder_layers, k.model_dim))
        self.lm_head = None if k.tie_embeddings else Linear(k.model_dim, k.vocab_size, bias=False)
        if k.ngram_rows:
            self.ngram_2 = nn.Parameter(torch.zeros(k.ngram_dim, k.ngram_rows))
            self.ngram_3 = nn.Parameter(torch.zeros(k.ngram_dim, k.ngram_rows))
            self.ngram_out = Linear(2 * k.ngram_dim, k.model_dim, bias=False)
        for name, table in zip(("cos", "sin"), rope_tables(k, dtype)):
            self.register_buffer(name, table, persistent=False)
        for name, p in self.named_parameters():
            if name.endswith(("proj.weight", "head.weight")):
                nn.init.zeros_(p)

    def compile(self, on):
        self.block_forward = torch.compile(Block.forward, dynamic=False) if on else Block.forward
        self.sum_nats = torch.compile(GPT.nats, dynamic=False) if on else GPT.nats

    def features(self, tokens, block_forward=Block.forward):
        """int64 [batch, length] -> [batch, length, dim], before the last norm."""
        x = rms_norm(self.tok_emb(tokens).to(self.dtype))
        if self.k.ngram_rows:
            x = x + self.ngrams(tokens)
        x0 = x.clone()  # were it x, block 0 would compile apart
        skips, rope = [], (self.cos[: x.size(1)], self.sin[: x.size(1)])
        for i, block in enumerate(self.blocks):
            if i >= self.encoder_layers and skips:
                x = x + self.skip_weights[i - self.encoder_layers].to(x.dtype) * skips.pop()
            x = block_forward(block, x, x0, rope)
            if i < self.encoder_layers:
                skips.append(x)
        return x

    def ngrams(self, tokens):
        """What the tables hold for the last two and three tokens at each place: [batch, length, dim]."""
        before = F.pad(tokens, (2, 0))
        pairs = before[:, 1:-1] * self.k.vocab_size + tokens
        triples = before[:, :-2] * self.k.vocab_size**2 + pairs
        found = []
        for table, key in ((self.ngram_2, pairs), (self.ngram_3, triples)):
            rows = (key * 0x9E3779B1 >> 15) % self.k.ngram_rows
            found.append(F.embedding(rows, table.T))
        return self.ngram_out(torch.cat(found, dim=-1).to(self.dtype))

    def head(self, x):
        logits = F.linear(rms_norm(x), (self.lm_head or self.tok_emb).weight.to(x.dtype)).float()
        return self.k.logit_softcap * torch.tanh(logits / self.k.logit_softcap)

    def logits(self, tokens, rows):
        """int64 [batch, length] -> float32 [batch, rows, vocab_size]: the last `rows` positions."""
        return self.head(self.features(tokens)[:, -rows:])

    def nats(self, x, targets):
        return F.cross_entropy(self.head(x), targets, reduction="sum")

    def loss(self, tokens):
        """int64 [batch, length + 1] -> mean nats a target."""
        x = self.features(tokens[:, :-1], self.block_forward).flatten(0, 1)
        chunks = zip(x.split(LOSS_TOKENS), tokens[:, 1:].flatten().split(LOSS_TOKENS))
        return sum(self.sum_nats(self, *chunk) for chunk in chunks) / len(x)


# ---- Optimizers: Muon for matrices, Adam for embeddings and vectors


def newton_schulz(x, steps):
    """About the nearest semi-orthogonal matrices to [n, rows, cols]: Muon's iteration (K. Jordan, 2024,
    https://kellerjordan.github.io/posts/muon/)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.size(1) > x.size(2)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if tall else x


def matches(name, patterns):
    return any(pattern and pattern in name for pattern in patterns.split(","))


def split_parameters(model, k):
    """Adam's parameters by rate, Muon's by shape: one batched product serves a shape."""
    embed_lr = k.tied_embed_lr if k.tie_embeddings else k.embed_lr
    rates = {"tok_emb.weight": embed_lr, "lm_head.weight": k.head_lr}
    rates |= {"ngram_2": k.ngram_lr, "ngram_3": k.ngram_lr}
    adam, muon = {}, {}
    for name, p in model.named_parameters():
        if name in rates or p.ndim < 2 or matches(name, k.control_tensor_name_patterns):
            adam.setdefault(rates.get(name, k.scalar_lr), []).append(p)
        else:
            muon.setdefault(p.shape, []).append(p)
    return adam, muon


class Optimizers:
    """What changes with the step (rates, momentum) lies in tensors: a CUDA graph keeps all else."""

    def __init__(self, model, k):
        self.k, self.dtype = k, model.dtype
        self.params = list(model.parameters())
        self.scale, self.momentum = self.params[0].new_zeros(2)  # of all rates; Muon's
        adam, muon = split_parameters(model, k)
        groups = [dict(params=ps, lr=ps[0].new_zeros(()), base_lr=lr) for lr, ps in adam.items()]
        self.adam = torch.optim.Adam(groups, betas=(k.beta1, k.beta2), eps=k.adam_eps, fused=True)
        self.matrices = list(muon.values())
        self.buffers = [torch.zeros_like(torch.stack(params)) for params in self.matrices]

    def reset(self):
        for state in self.adam.state.values():
            for tensor in state.values():
                tensor.zero_()
        for buffer in self.buffers:
            buffer.zero_()

    def schedule(self, step, scale):
        """Prepares update `step` (from 0), rates times `scale`."""
        k = self.k
        warm = min(1.0, step / max(k.muon_momentum_warmup_steps, 1))
        # fill_ hands the number to a kernel; tensor[0] = number would wait for the device
        self.momentum.fill_(k.muon_momentum_warmup_start * (1 - warm) + k.muon_momentum * warm)
        self.scale.fill_(scale)

    @torch.no_grad()
    def apply(self):
        if self.k.grad_clip_norm:
            nn.utils.clip_grad_norm_(self.params, self.k.grad_clip_norm)
        for group in self.adam.param_groups:
            torch.mul(self.scale, group["base_lr"], out=group["lr"])
        self.adam.step()
        for params, buffer in zip(self.matrices, self.buffers):
            self.apply_muon(params, buffer)

    def apply_muon(self, params, buffer):
        """Nesterov momentum, made orthogonal, of matrices of one shape."""
        grad = torch.stack([p.grad for p in params])  # [n, rows, cols]
        buffer.mul_(self.momentum).add_(grad)
        nesterov = grad.addcmul_(buffer, self.momentum).to(self.dtype)
        update = newton_schulz(nesterov, self.k.muon_backend_steps)
        stretch = max(1.0, update.size(1) / update.size(2)) ** 0.5
        rate = self.scale * (self.k.matrix_lr * stretch)
        torch._foreach_sub_(params, (update.float() * rate).unbind())


# ---- Schedule and budget: progress is a number from 0 to 1


def lr_scale(k, progress, step):
    """1, then straight to 0 over WARMDOWN_FRAC, or WARMDOWN_ITERS of the run's step / progress steps."""
    part = k.warmdown_frac
    if k.warmdown_iters >= 0:
        part = k.warmdown_iters * progress / max(step, 1)
    return min(1.0, (1.0 - progress) / part) if part else 1.0


class TrainState:
    """Its clock runs from the start of step 1 to the last kept update."""

    def __init__(self, k, step, elapsed, clock):
        self.k, self.clock = k, clock
        self.first = self.step = step  # updates kept: before, by now
        self.saved = self.elapsed = elapsed  # their seconds: when last saved, by now
        self.loss, self.scale = 0.0, 1.0  # of the last kept update
        self.discarded, self.recent = None, [0.0]  # the step that ended late; seconds of the last 20 steps
        self.cap, self.limit = k.max_wallclock_seconds or math.inf, k.iterations or math.inf
        self.mark = clock()  # when the present step began

    def lap(self, keep=False):
        """Ends a step; False, and not counted, if it ended past the budget."""
        now = self.clock()
        seconds, self.mark = now - self.mark, now
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
    shards = {}
    for path in sorted(Path(folder).iterdir()) if os.path.isdir(folder) else []:
        if match := re.fullmatch(rf"fineweb_{split}_(.*)\.bin", path.name):
            need(re.fullmatch("[0-9]+", match[1]), f"{path}: no number before .bin; rename or remove it")
            first = shards.setdefault(int(match[1]), path)
            need(first == path, f"{path}: has the number of {first.name}; remove one of them")
    need(shards, f"{folder}: no fineweb_{split}_*.bin; set DATA_PATH, VAL_DATA_PATH, or see data/README.md")
    return [shards[number] for number in sorted(shards)]


def open_shard(path, vocab_size):
    """Mapped uint16 tokens, behind 256 int32 (magic, 1, number of tokens); little-endian."""
    header, size = np.fromfile(path, "<i4", 256).tolist(), path.stat().st_size
    need(header[:2] == [20240520, 1] and len(header) == 256, f"{path}: not a token shard; fetch it again")
    expected = 1024 + 2 * header[2]
    need(size == expected > 1024, f"{path}: {size} bytes, its header says {expected}; fetch it again")
    try:
        tokens = np.memmap(path, "<u2", "c", 1024)
    except OSError as e:
        need(0, explain(e, path))
    top = int(tokens.max())
    need(top < vocab_size, f"{path}: holds token {top}, VOCAB_SIZE={vocab_size}")
    return tokens


def sha256(blob):
    return hashlib.sha256(blob).hexdigest()


class TrainData:
    """Sequences of TRAIN_SEQ_LEN + 1 tokens (neighbours share one), in epochs shuffled by seed."""

    def __init__(self, k, device):
        self.k, self.device, self.epoch = k, device, None
        shards = [open_shard(path, k.vocab_size) for path in find_shards(k.data_path, "train")]
        self.starts = np.cumsum([0, *((len(shard) - 1) // k.train_seq_len for shard in shards)])
        self.sequences = int(self.starts[-1])
        need(self.sequences, f"{k.data_path}: no shard holds TRAIN_SEQ_LEN={k.train_seq_len} tokens + 1")
        digest = hashlib.sha256()  # lengths, and a million tokens a shard
        for shard in shards:
            digest.update(struct.pack("<Q", len(shard)) + shard[:: 1 + len(shard) // 1_000_000].tobytes())
        self.facts = dict(train_files=len(shards), train_fingerprint=digest.hexdigest())
        free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 0
        home = device if free > 8 * sum(shard.nbytes for shard in shards) else "cpu"
        self.shards = [torch.from_numpy(shard.view("i2")).to(home) for shard in shards]

    def shuffled(self, epoch):
        if epoch != self.epoch:
            self.order = np.random.default_rng([self.k.seed, epoch]).permutation(self.sequences)
            self.epoch = epoch
        return self.order

    def batch(self, first, count):
        """int64 [count, length + 1]: sequences first .. first + count - 1 of the endless run."""
        length = self.k.train_seq_len
        epochs, places = divmod(np.arange(first, first + count), self.sequences)
        index = np.concatenate([self.shuffled(e)[places[epochs == e]] for e in np.unique(epochs)])
        shard = np.searchsorted(self.starts, index, side="right") - 1
        starts = (index - self.starts[shard]) * length
        rows = [self.shards[i][start : start + length + 1] for i, start in zip(shard, starts)]
        return torch.stack(rows).to(self.device).long() & 0xFFFF


# uint16 [N + 1], the first is context alone; int64 [N], bytes of the others; SHA-256 of files
Stream = namedtuple("Stream", "tokens target_bytes hashes")


def read_stream(k):
    folder = k.val_data_path or k.data_path
    paths = find_shards(folder, "val")
    tokens = np.concatenate([open_shard(path, k.vocab_size) for path in paths])
    held, count = len(tokens) - 1, k.val_max_tokens or len(tokens) - 1
    need(0 < count <= held, f"{folder}: {held} targets, VAL_MAX_TOKENS={count} asks for more")
    tokens = tokens[: count + 1]
    sp, tokenizer_sha256 = load_tokenizer(k)
    lost = np.count_nonzero(tokens == sp.unk_id())
    need(not lost, f"{folder}: {lost} <unk> in the stream: text was lost; export it again")
    val_sha256 = sha256(b"".join(path.read_bytes() for path in paths))
    hashes = dict(val_sha256=val_sha256, tokenizer_sha256=tokenizer_sha256)
    return Stream(tokens, count_bytes(sp, tokens)[1:], hashes)


def load_tokenizer(k):
    import sentencepiece

    path, blob = k.tokenizer_path, Path(k.tokenizer_path).read_bytes()
    try:
        sp = sentencepiece.SentencePieceProcessor(model_proto=blob)
    except RuntimeError:
        need(0, f"{path}: not a SentencePiece model; set TOKENIZER_PATH")
    need(len(sp) == k.vocab_size, f"{path}: {len(sp)} pieces, VOCAB_SIZE={k.vocab_size}")
    return sp, sha256(blob)


def is_special(sp, i, model):
    """Whether a piece is no text: also a user-defined symbol such as <|endoftext|>."""
    name = sp.id_to_piece(i).encode()
    entry = b"\n" + bytes([len(name) % 128]) + re.escape(name) + b"(\x15.{4})?\x18\x04"  # name, score, type
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
    for ids, counts in zip(np.split(tokens, starts), np.split(sizes, starts)):
        cut = any(map(sp.is_byte, ids[-1:].tolist()))  # may end inside a character
        same = cut or size(ids[~special[ids]].tolist()) == counts.sum()
        need(same, "TOKENIZER_PATH does not fit the shards: their text has other bytes")
    return sizes


# ---- Artifact: 20 bytes (magic, format, coder, unpacked length, CRC-32 of the rest), then coded: length of a
# JSON header, the header (ModelKnobs; tensors' names, shapes, encodings), all first arrays, all scales

PREFIX = struct.Struct("<4sHHQI")
MAGIC, FORMAT, CODERS = b"PGLA", 1, ("", "zlib", "brotli")
MAX_UNPACKED = 64 << 20  # bytes that a reader unpacks
# Encoding -> types of arrays: int8 symbols [rows, cols] and fp16 scales [rows], or floats.
DTYPES = {"int8": ("i1", "<f2"), "fp16": ("<f2",), "fp32": ("<f4",)}
FINEST_STEP, COARSEST_STEP = 1 / 24, 2.0  # in deviations of a row
EMBEDDING_STEP = 0.6  # of other matrices' step: a logit adds up a row's errors
RESERVE_BYTES = 5000  # left under the cap: room to change the code


def step_of(name, step):
    """In deviations of a row: a logit adds up a row's errors, so what makes it gets a finer step."""
    return step if name.startswith(("blocks", "ngram")) else step * EMBEDDING_STEP


@torch.no_grad()
def on_grid(weight, step, bits):
    """A matrix as a scorer will have it: `quantize` and `dequantize`, in PyTorch."""
    top = 2 ** (bits - 1) - 1
    scales = torch.maximum(weight.square().mean(1).sqrt() * step, weight.abs().amax(1) / top)
    scales = scales.half().float().clamp(min=1e-8)[:, None]
    return (weight / scales).round_().clamp_(-top, top).mul_(scales)


def quantize(matrix, step, bits):
    """float32 [rows, cols] -> int8, fp16 scales [rows]: `step` deviations, more where symbols would clip."""
    top = 2 ** (bits - 1) - 1
    deviation = np.sqrt(np.mean(np.square(matrix, dtype=np.float64), axis=1))
    scales = np.maximum(deviation * step, np.abs(matrix).max(1) / top).astype("<f2")
    divisor = np.where(scales > 0, scales, np.inf).astype(np.float32)[:, None]  # a zero row has scale 0
    return [np.clip(np.rint(matrix / divisor), -top, top).astype("i1"), scales]


def gptq(matrix, hessian, step, bits):
    """Like quantize, but column by column: the columns left make good a column's error on typical inputs,
    whose products [cols, cols] are `hessian` (Frantar et al. 2022, https://arxiv.org/abs/2210.17323)."""
    top = 2 ** (bits - 1) - 1
    _, scales = quantize(matrix, step, bits)
    step_size = np.where(scales > 0, scales, 1).astype(np.float64)
    left, symbols = matrix.astype(np.float64), np.empty(matrix.shape, "i1")
    order = np.argsort(-np.diag(hessian))  # the busiest inputs first, while many columns can still help
    damped = hessian[np.ix_(order, order)] + np.eye(len(order)) * (0.01 * np.trace(hessian) / len(order))
    shares = np.linalg.cholesky(np.linalg.inv(damped)).T  # upper: row i, how errors of column i spread
    left = left[:, order]
    for i, column in enumerate(order):
        symbols[:, column] = np.clip(np.rint(left[:, i] / step_size), -top, top)
        error = (left[:, i] - symbols[:, column] * step_size) / shares[i, i]
        left[:, i + 1 :] -= np.outer(error, shares[i, i + 1 :])
    return [symbols, scales]


def dequantize(arrays):
    values, *scales = (array.astype(np.float32) for array in arrays)
    return (values.T * scales[0]).T if scales else values


@np.errstate(all="ignore")
def pack_tensors(weights, k, step, hessians=()):
    """(encoding, arrays) by name; matrices are quantized, and come first."""
    tensors = {}
    for name, value in weights.items():
        if value.dtype == np.int8:  # the training text, as it is
            tensors[name] = "int8", [value, np.ones(len(value), "<f2")]
            continue
        if matches(name, k.int8_keep_float_fp32_name_patterns):
            encoding, arrays = "fp32", [value.astype("<f4")]
        elif value.ndim != 2 or matches(name, k.control_tensor_name_patterns):
            encoding, arrays = "fp16", [value.astype("<f2")]
        else:
            encoding, coarse = "int8", step_of(name, step)
            if name in hessians:
                arrays = gptq(value, hessians[name], coarse, k.quant_bits)
            else:
                arrays = quantize(value, coarse, k.quant_bits)
        need(np.isfinite(dequantize(arrays)).all(), f"{name}: too large for fp16; lower the rates")
        tensors[name] = encoding, arrays
    order = sorted(tensors, key=lambda name: (tensors[name][0] != "int8", name.split(".")[2:]))
    return {name: tensors[name] for name in order}


def compress(payload, coder):
    if coder == "zlib":
        return zlib.compress(payload, 9)
    import brotli

    return brotli.compress(payload)


def decompress(coded, coder, limit):
    """At most `limit` bytes of what `coded` unpacks to, and whether that is all."""
    if coder == "zlib":
        decoder = zlib.decompressobj()
        return decoder.decompress(coded, limit), decoder.eof and not decoder.unused_data
    import brotli

    decoder = brotli.Decompressor()
    return decoder.process(coded, output_buffer_limit=limit), decoder.is_finished()


def serialize(config, tensors, coder="zlib"):
    """An artifact's bytes; the inverse of parse."""
    entries = [[name, arrays[0].shape, encoding] for name, (encoding, arrays) in tensors.items()]
    header = json.dumps(dict(config=config, tensors=entries), separators=(",", ":")).encode()
    values = [arrays[0].tobytes() for _, arrays in tensors.values()]
    scales = [arrays[1].tobytes() for _, arrays in tensors.values() if len(arrays) > 1]
    payload = b"".join([struct.pack("<I", len(header)), header, *values, *scales])
    coded = compress(payload, coder)
    return PREFIX.pack(MAGIC, FORMAT, CODERS.index(coder), len(payload), zlib.crc32(coded)) + coded


def parse(blob):
    """Configuration and tensors of anyone's bytes; any exception refuses them."""
    magic, version, coder, length, crc = PREFIX.unpack_from(blob)
    need((magic, version) == (MAGIC, FORMAT) and coder > 0, "wrong magic, format or coder")
    need(length <= MAX_UNPACKED, f"unpacks to {length} bytes, over {MAX_UNPACKED}")
    need(zlib.crc32(blob[PREFIX.size :]) == crc, "wrong CRC-32")
    payload, whole = decompress(blob[PREFIX.size :], CODERS[coder], length + 1)
    need(len(payload) == length and whole, "does not unpack to its stated length")
    at = 4 + struct.unpack_from("<I", payload)[0]
    header = json.loads(payload[4:at])
    entries, tensors = header["tensors"], {}
    for name, shape, encoding in entries:
        array = np.frombuffer(payload, DTYPES[encoding][0], math.prod(shape), at).reshape(shape)
        tensors[name] = encoding, [array]
        at += array.nbytes
    for name, shape, encoding in entries:
        for dtype in DTYPES[encoding][1:]:
            tensors[name][1].append(np.frombuffer(payload, dtype, math.prod(shape[:1]), at))
            at += 2 * math.prod(shape[:1])
    need(at == length and len(tensors) == len(entries), "bytes left over, a name twice")
    return header["config"], tensors


def export_artifact(weights, k, code_bytes, hessians=()):
    """The artifact, and its step: the finest that fits the cap less RESERVE_BYTES."""
    config = knobs_of(k, ModelKnobs)
    if k.pack_step:
        return serialize(config, pack_tensors(weights, k, k.pack_step, hessians), k.compressor), k.pack_step
    limit = (k.artifact_cap_bytes or math.inf) - RESERVE_BYTES - code_bytes
    low, high, best, step = FINEST_STEP, COARSEST_STEP, None, FINEST_STEP
    while high / low > 1.002:
        blob = serialize(config, pack_tensors(weights, k, step, hessians), k.compressor)
        if len(blob) <= limit:
            best, high = blob, step
        else:
            low = step
        step = math.sqrt(low * high)
    return best or serialize(config, pack_tensors(weights, k, high, hessians), k.compressor), high


# ---- Mixer: what followed the last tokens before, in the training text and in the stream so far, mixed into
# the model's rows. Prediction by partial matching (Cleary, Witten 1984), with weights that are learnt

ORDERS = 1, 2, 3, 4, 6  # lengths of the contexts whose followers are counted
TEXT = "training_text"  # the tensor: int8 [1, 2 * tokens], for each token its multiple of 8 and what is left
STREAM_COUNT = 2.0  # what a target of the stream adds; one of the training text adds 1
BINS, FIRST_WEIGHT = 12, 0.3  # classes of counts for the weights; a weight before it has learnt
POWER_RATE = 0.001  # of the gradient steps


def pack_text(shards):
    """At most 1,024 token ids as int8: neighbours stand together, so phrases that recur pack well."""
    tokens = torch.cat(shards).cpu().numpy()
    return np.stack((tokens // 8 - 64, tokens % 8), axis=1).astype("i1").reshape(1, -1)


def unpack_text(symbols, vocab_size):
    """uint64 [tokens] of a tensor as pack_text makes it."""
    high, low = symbols.reshape(-1, 2).astype(np.int64).T
    tokens = (high + 64) * 8 + low
    need(not len(tokens) or 0 <= tokens.min() and tokens.max() < vocab_size, "its text is none")
    return tokens.astype(np.uint64)


def context_hashes(tokens, order):
    """uint64 [n]: a hash of the last `order` tokens at each place, its low 16 bits 0."""
    hashes = np.zeros(len(tokens), np.uint64)
    for back in range(order):
        hashes[back:] = (hashes[back:] + tokens[: max(len(tokens) - back, 0)] + 1) * 0x9E3779B97F4A7C15
        hashes ^= hashes >> 29
    return hashes >> 16 << 16


def bin_of(count):
    """0 for 1, 1 for 2, 2 for 3, 3 for 4 and 5, ..., 11 for 162 and more."""
    return min(BINS - 1, int(1.5 * math.log2(count)))


class Mixer:
    """For each order, shortest first, a row becomes (1 - w) row + w counts / total. The weight w is how often
    the counts rather than the row before explained the target, over all places with about as many counts of
    about as many followers (expectation-maximization, online). The result and the model's own row are then
    multiplied, each to a power that follows the gradient of the loss.

    A target is learnt when its token comes in as an input: its row is out by then. Tokens are taken one by
    one, so where calls are cut changes nothing."""

    def __init__(self, text):
        """text: uint64 tokens, or none. A pair is (context | follower), so a context's stand together."""
        pairs = [context_hashes(text, order)[:-1] | text[1:] for order in ORDERS]
        self.known = [np.unique(p, return_counts=True) for p in pairs]
        self.reset()

    def reset(self):
        self.recent, self.last = np.zeros(0, np.uint64), None  # inputs; what the last row was made of
        self.changed = [{} for _ in ORDERS]  # context -> followers, counts: where the stream added some
        self.explained = np.full((len(ORDERS), BINS, BINS), FIRST_WEIGHT)
        self.asked = np.ones_like(self.explained)
        self.powers = np.array([0.5, 0.5])  # of the mixture and of the model

    def mix(self, tokens, rows):
        """int64 [n], the next tokens of the stream, and the model's rows [n, vocab] -> rows."""
        stream, places = np.concatenate((self.recent, tokens.astype(np.uint64))), []
        for order, (pairs, _) in zip(ORDERS, self.known):
            contexts = context_hashes(stream, order)[len(self.recent) :]
            ends = np.searchsorted(pairs, contexts), np.searchsorted(pairs, contexts + 0xFFFF, "right")
            places.append(zip(contexts.tolist(), *(end.tolist() for end in ends)))
        mixed = np.empty_like(rows)
        for i, (token, *found) in enumerate(zip(tokens.tolist(), *places)):
            if self.last:
                self.learn(token)
            mixed[i] = self.row(rows[i].astype(np.float64), found)
        self.recent = stream[-max(ORDERS) :]
        return mixed

    def row(self, model, found):
        """The next row. found: for each order the context and where it lies among the known pairs."""
        mixture, steps = np.exp(model), []
        for n, (context, start, end) in enumerate(found):
            entry = self.changed[n].get(context)
            if not entry:
                pairs, counts = self.known[n]
                entry = (pairs[start:end] & 0xFFFF).astype(np.int64), counts[start:end].astype(np.float64)
            followers, counts = entry
            weight, total, place = 0.0, 1.0, None
            if len(followers):
                total = counts.sum()
                place = n, bin_of(total), bin_of(len(followers))
                weight = self.explained[place] / self.asked[place]
                mixture *= 1 - weight
                mixture[followers] += weight / total * counts
            steps.append((context, followers, counts, weight / total, place))
        logs = np.stack((np.log(mixture), model))
        scores = self.powers @ logs
        scores -= scores.max()
        odds = np.exp(scores)
        self.last = steps, logs, odds / odds.sum()
        return scores - math.log(odds.sum())

    def learn(self, token):
        """The target of the last row."""
        steps, logs, odds = self.last
        self.powers += POWER_RATE * (logs[:, token] - logs @ odds)
        chance = math.exp(logs[1, token])  # of the target, in the row before each step
        for n, (context, followers, counts, share, place) in enumerate(steps):
            at = np.flatnonzero(followers == token)
            if place:
                ours = share * counts[at].sum()
                chance = (1 - share * counts.sum()) * chance + ours
                self.explained[place] += ours / chance
                self.asked[place] += 1
            if len(at):
                counts[at] += STREAM_COUNT
            else:
                followers, counts = np.append(followers, token), np.append(counts, STREAM_COUNT)
            self.changed[n][context] = followers, counts


# ---- Scorer, the submission interface: a stream's tokens in, the distribution after each out


class Scorer:
    """Windows of `seq_len` inputs; each gives the rows of its last `stride`.

    With seq_len 8 and stride 4, block 2 gives rows 8..11 from inputs 4..11. Blocks that would begin before
    input 0 (rows 0..7) share one pass. A block that a call cuts is computed again in the next.
    """

    def __init__(self, model, seq_len, stride, batch_tokens=0, mixer=None, rate=0.0):
        self.model, self.seq_len, self.stride = model.eval(), seq_len, stride
        self.mixer, self.rate = mixer, rate
        if rate:
            self.fresh = {name: p.clone() for name, p in model.state_dict().items()}
            self.opt = Optimizers(model, model.k)
        self.device = model.skip_weights.device
        usual = (1 << (27 if self.device.type == "cuda" else 24)) // model.k.vocab_size
        self.windows = max(1, (batch_tokens or usual) // seq_len)
        self.reset()

    def reset(self):
        self.kept = np.zeros(0, np.int64)
        self.position = 0
        if self.mixer:
            self.mixer.reset()
        if self.rate:
            self.model.load_state_dict(self.fresh)
            self.opt.reset()

    def log_probs(self, tokens):
        """The next n >= 1 tokens of the stream -> float32 [n, vocab_size], log-probabilities: row i of the
        token that follows tokens[i]."""
        new = np.asarray(tokens).astype(np.int64)
        known = new.ndim == 1 and len(new) and 0 <= new.min() and new.max() < self.model.k.vocab_size
        need(known, "tokens: a row of at least one id of the vocabulary")
        if self.rate:
            cuts = np.arange(-self.position % self.stride, len(new), self.stride)
            rows = torch.cat([self.block_rows(part) for part in np.split(new, cuts) if len(part)])
        else:
            rows = self.model_rows(new)
        return torch.from_numpy(self.mixer.mix(new, rows.cpu().numpy())) if self.mixer else rows

    def block_rows(self, new):
        """The model's rows of inputs in one block. When its first comes in, every target before was scored,
        and the model takes a step on the last of them."""
        self.kept = np.concatenate((self.kept, new))
        into = self.position % self.stride + len(new)  # of the block, at the end of `new`
        before = len(self.kept) - into
        if self.position and into == len(new):
            self.step_on(self.kept[max(0, before - self.seq_len) : before + 1])
        self.position += len(new)
        rows = self.rows(self.kept[None, max(0, before + self.stride - self.seq_len) :], len(new))
        self.kept = self.kept[-(self.seq_len + self.stride) :]
        return rows

    def step_on(self, tokens):
        self.model.zero_grad()
        self.model.loss(torch.from_numpy(tokens)[None].to(self.device)).backward()
        self.opt.schedule(self.model.k.muon_momentum_warmup_steps, self.rate)
        self.opt.apply()

    def model_rows(self, new):
        """The rows of a model that does not learn, many windows at once."""
        first, end = self.position, self.position + len(new)  # inputs first .. end - 1 are new
        inputs = np.concatenate((self.kept, new))
        context_start = end - len(inputs)  # place of inputs[0]
        outputs = []
        shared = self.seq_len // self.stride * self.stride  # rows before this one begin at input 0
        if first < shared:
            stop = min(shared, end)
            outputs.append(self.rows(inputs[None, :stop], stop - first))
        blocks = np.arange(max(first, shared) // self.stride * self.stride, end, self.stride)
        for at in range(0, len(blocks), self.windows):
            starts = blocks[at : at + self.windows]
            index = starts[:, None] + np.arange(self.stride - self.seq_len, self.stride) - context_start
            # past the end an input is repeated, unseen by the rows kept
            rows = self.rows(inputs.take(index, mode="clip"), self.stride)
            outputs.append(rows[max(first - starts[0], 0) : end - starts[0]])
        self.kept, self.position = inputs[-(self.seq_len + self.stride) :], end
        return torch.cat(outputs)

    @torch.inference_mode()
    def rows(self, windows, count):
        """The log-probabilities of the last `count` inputs of each window."""
        logits = self.model.logits(torch.from_numpy(windows).to(self.device), count)
        return F.log_softmax(logits, dim=-1).flatten(0, 1)


def load_scorer(artifact_path, device="auto", dtype=None, batch_tokens=0):
    """A Scorer of an artifact, which alone is read, or a UserError."""
    path, device = Path(artifact_path), pick_device(device)
    try:
        need(path.stat().st_size <= MAX_UNPACKED, f"over {MAX_UNPACKED} bytes")
        config, tensors = parse(path.read_bytes())
        need(set(config) == {knob.name for knob in fields(ModelKnobs)}, "its header has other knobs")
        k = read_knobs({name.upper(): str(value) for name, value in config.items()})
        symbols = tensors.pop(TEXT, ("", [np.zeros((1, 0), "i1")]))[1][0]
        mixer = Mixer(unpack_text(symbols, k.vocab_size)) if k.count_followers else None
        weights = {name: torch.from_numpy(dequantize(arrays)) for name, (_, arrays) in tensors.items()}
        with torch.device("meta"):  # shapes alone: nothing is allocated yet
            shapes = {name: p.shape for name, p in GPT(k).named_parameters()}
        need(shapes == {name: w.shape for name, w in weights.items()}, "its tensors do not make its model")
    except Exception as e:
        need(0, f"{path}: damaged, or no artifact ({e})")
    usual = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = GPT(k, dtype or usual).to(device)
    model.load_state_dict(weights)
    return Scorer(model, k.eval_seq_len, k.eval_stride, batch_tokens, mixer, k.learn_rate)


def score_stream(scorer, stream, stop=None):
    """val_loss in nats a target, val_bpb in bits a byte, [nats, bytes] of 64 parts; None at a `stop`."""
    count, chunk = len(stream.target_bytes), scorer.windows * scorer.stride
    nats, began = np.empty(count), time.monotonic()
    scorer.reset()
    for at in range(0, count, chunk):
        targets = stream.tokens[at + 1 : at + chunk + 1].astype(np.int64)
        rows = scorer.log_probs(stream.tokens[at : at + len(targets)])
        nats[at : at + chunk] = -rows[np.arange(len(targets)), targets].cpu()
        if stop and stop.asked:
            return None
    parts = np.arange(count) * 64 // count
    segments = [np.bincount(parts, weights, 64) for weights in (nats, stream.target_bytes)]
    total, size = float(nats.sum()), int(stream.target_bytes.sum())
    need(math.isfinite(total) and size, "the score is not finite; lower the rates")
    score = dict(val_loss=total / count, val_bpb=total / math.log(2) / size, targets=count, bytes=size)
    score |= dict(seq_len=scorer.seq_len, stride=scorer.stride, seconds=time.monotonic() - began)
    return score | dict(segments=[[nats, int(size)] for nats, size in zip(*segments)])


# ---- Harness: log, checkpoint, signals, devices

CHECKPOINT = "checkpoint.pt"


class Log:
    """train.log for people, metrics.jsonl for tools; without a folder the console alone."""

    def __init__(self, folder, append=False, console=True):
        self.folder, self.console, self.failing = folder, console, set()
        try:
            for name in ("train.log", "metrics.jsonl") if folder else ():
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / name, "ab+" if append else "xb+") as file:
                    file.seek(max(0, file.tell() - 1))
                    if file.read() not in (b"", b"\n"):
                        file.write(b"\n")  # ends a line that was cut off
        except OSError as e:
            need(0, f"{e.filename}: {e.strerror}; change RUN_ID or OUT_DIR, or set RESUME=1")

    def put(self, name, text):
        """A whole line, or a warning, once."""
        line = f"{text}\n".encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()
        path, size = self.folder / name, None
        try:
            with open(path, "ab") as file:
                size = file.tell()
                file.write(line)
        except OSError as e:
            with suppress(OSError, TypeError):
                os.truncate(path, size)
            if name not in self.failing:
                say(f"warning: {explain(e, path)}; the run goes on, without its lines", sys.stderr)
            self.failing.add(name)

    def line(self, text):
        if self.console:
            say(re.sub(r"(?m)^(.{180}).{20,}$", r"\1 ... (see train.log)", text), sys.stdout)
        if self.folder:
            self.put("train.log", text)

    def fact(self, event, text="", **values):
        """A line for people, or one a value, and an object for tools."""
        self.line(text or "\n".join(f"{n}:{value}" for n, value in values.items() if value is not None))
        if self.folder:
            facts = dict(schema=1, event=event, time=time.time(), **values)
            self.put("metrics.jsonl", json.dumps(facts, ensure_ascii=False))


def replace_file(path, write):
    """All of what write makes, or nothing."""
    part = path.with_suffix(".part")
    try:
        write(part)
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def save_checkpoint(run, state):
    saved = dict(identity=run.identity, step=state.step, elapsed=state.elapsed, dtype=run.model.dtype)
    saved |= dict(model=run.model.state_dict(), adam=run.opt.adam.state_dict(), momentum=run.opt.buffers)
    try:
        replace_file(run.folder / CHECKPOINT, lambda part: torch.save(saved, part))
    except (OSError, RuntimeError) as e:
        run.log.line(f"no checkpoint at step {state.step}, training goes on: {str(e)[:80]!r}")


def read_checkpoint(run):
    """What RESUME goes on from; None to begin."""
    path, k, now = run.folder / CHECKPOINT, run.k, run.identity
    if k.resume == "0":
        return None
    need(k.run_id, f"RESUME={k.resume}: set RUN_ID", 2)
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location=run.device, weights_only=True)
        was = dict(saved["identity"])
    except Exception as e:
        need(0, f"{path}: damaged ({type(e).__name__}); delete it to begin anew")
    changed = [name for name in now | was if now.get(name) != was.get(name)]
    changes = [f"{n.upper()} was {was.get(n, 'unknown')}, is {now.get(n, 'unknown')}" for n in changed]
    need(not changes, f"{path}: {'; '.join(changes)}; put that back, or change RUN_ID", 2)
    return saved


def restore(run):
    try:
        run.model.load_state_dict(run.checkpoint["model"])
        run.opt.adam.load_state_dict(run.checkpoint["adam"])
        run.opt.buffers = run.checkpoint["momentum"]
    except (KeyError, ValueError, RuntimeError):
        need(0, f"{run.folder / CHECKPOINT}: does not fit this script")
    for group in run.opt.adam.param_groups:
        group["capturable"] = False  # as a CUDA graph has it


class StopFlag:
    """Set by the first signal to stop; the second ends all, but SIGHUP, which comes in twos."""

    def __init__(self):
        self.asked = False
        on_stop(self.ask)

    def ask(self, number, _):
        again, self.asked = self.asked, True  # first: another may come in here
        if again and number in (signal.SIGINT, signal.SIGTERM):
            leave("stopped at once; RESUME=1 goes on from the last checkpoint")
        with suppress(OSError):
            os.write(2, b"stopping: what is trained is saved, packed, scored; again to stop at once\n")


def pick_device(name):
    cuda = torch.cuda.is_available()
    need(cuda or name != "cuda", "DEVICE=cuda: none found; set DEVICE=cpu", 2)
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda and name != "cpu" else "cpu")


def mean_seconds(device, count, action):
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    action()
    wait()
    began = time.perf_counter()
    for _ in range(count):
        action()
    wait()
    return (time.perf_counter() - began) / count


def pick_dtype(device):
    """bfloat16 where products are faster so."""
    a = torch.ones(512, 192, device=device)
    b = a.bfloat16()
    slow, fast = (mean_seconds(device, 9, lambda t=t: t @ t.T) for t in (a, b))
    return torch.bfloat16 if 1.3 * fast < slow else torch.float32


def fastest_attention(run):
    """PyTorch's kernel that wins a trial at this shape; on a CPU all."""
    k, kinds, times = run.k, nn.attention.SDPBackend, {}
    kernels = [kinds.FLASH_ATTENTION, kinds.EFFICIENT_ATTENTION, kinds.CUDNN_ATTENTION, kinds.MATH]
    shape = run.micro, k.num_heads, k.train_seq_len, k.model_dim // k.num_heads
    q = torch.randn(shape, device=run.device, dtype=run.model.dtype, requires_grad=True)
    for kernel in kernels[:3] if run.cuda else []:
        with suppress(RuntimeError), nn.attention.sdpa_kernel(kernel):
            times[kernel] = mean_seconds(run.device, 9, lambda: attend(q, q, q, k.train_seq_len).backward(q))
            run.log.line(f"attention:{kernel.name} {1000 * times[kernel]:.3f}ms")
    return min(times, key=times.get, default=kernels)


def own_sources():
    """Name -> bytes of this script and the modules beside it that it imports: all count."""
    sources, waiting = {}, [SCRIPT]
    for path in waiting:
        source = sources[path.name] = path.read_bytes()
        imports = re.findall(rb"\bfrom\s+(\w+)\s+import\b|\bimport\s+([\w., ]+)", source)
        names = re.findall(r"\w+", b" ".join(map(b" ".join, imports)).decode())
        beside = [SCRIPT.with_name(f"{name}.py") for name in dict.fromkeys(names)]
        waiting += [module for module in beside if module.is_file() and module not in waiting]
    return sources


def pack_script(source):
    """A stub of two lines that runs as the script does, without docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    packed = lzma.compress(ast.unparse(tree).encode(), preset=9 | lzma.PRESET_EXTREME)
    text = base64.b85encode(packed).decode()
    run = f'exec(compile(lzma.decompress(base64.b85decode("{text}")), __file__, "exec"))'
    return f"import base64, lzma\n{run}\n".encode()


# ---- Train: setup, warm-up, training, export, scores


class Run:
    def __init__(self, k):
        self.k, self.device = k, pick_device(k.device)
        self.cuda = self.device.type == "cuda"
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.modules = own_sources()
        self.source = self.modules.pop(SCRIPT.name)
        self.packed = pack_script(self.source) if k.pack_script else b""
        compress(b"", k.compressor)
        unit = self.world * k.train_seq_len
        self.sequences, rest = divmod(k.train_batch_tokens, unit)  # a step and rank
        need(not rest, f"TRAIN_BATCH_TOKENS={k.train_batch_tokens}: no multiple of {unit}", 2)
        if self.cuda:
            torch.cuda.set_device(self.device)
            torch.cuda.set_stream(torch.cuda.Stream())  # capture needs one
        self.data, self.stream = TrainData(k, self.device), read_stream(k)
        self.folder = Path(k.out_dir) / (k.run_id or time.strftime("%Y%m%d-%H%M%S"))
        self.identity = knobs_of(k, TrainKnobs) | self.data.facts | self.stream.hashes
        self.checkpoint = read_checkpoint(self)
        self.setup_model()
        self.log = Log(None if self.rank else self.folder, k.resume != "0", not self.rank)
        self.attention = fastest_attention(self)

    def setup_model(self):
        k, dtype = self.k, [self.checkpoint["dtype"] if self.checkpoint else pick_dtype(self.device)]
        if self.world > 1:
            dist.init_process_group("nccl" if self.cuda else "gloo")
            dist.broadcast_object_list(dtype)
        torch.manual_seed(k.seed)
        self.model = GPT(k, *dtype).to(self.device)
        self.opt = Optimizers(self.model, k)
        control = k.control_tensor_name_patterns
        matrices = {name: p for name, p in self.model.named_parameters() if p.ndim == 2}
        self.coded = {name: p for name, p in matrices.items() if not matches(name, control)}
        self.hessians, self.text = {}, {}
        self.on_grid = False  # whether training uses weights as they will be packed
        self.micro = self.pick_micro_batch()

    def pick_micro_batch(self):
        """Sequences a pass, by half a GPU's memory (60 bytes a token, layer, channel) or a CPU's cache."""
        k, tokens = self.k, 4096
        if self.cuda:
            tokens = torch.cuda.mem_get_info()[1] // (120 * k.num_layers * k.model_dim)
        most = max(1, (k.micro_batch_tokens or tokens) // k.train_seq_len)
        return max(n for n in range(1, most + 1) if self.sequences % n == 0)

    def batch(self, step):
        return self.data.batch((step * self.world + self.rank) * self.sequences, self.sequences)

    @torch.no_grad()
    def swap_in(self):
        """Makes the matrices what a scorer will have, and returns what they were."""
        latent = [p.clone() for p in self.coded.values()]
        for name, p in self.coded.items():
            p.copy_(on_grid(p, step_of(name, self.k.pack_step), self.k.quant_bits))
        return latent

    def update(self, tokens):
        """By int64 [sequences, length + 1], without waiting; all ranks' mean loss."""
        self.model.zero_grad()
        latent = self.swap_in() if self.on_grid else []
        total = torch.zeros((), device=self.device)
        for part in tokens.split(self.micro):
            with nn.attention.sdpa_kernel(self.attention):
                loss = self.model.loss(part) * (self.micro / self.sequences / self.world)
            loss.backward()
            total += loss.detach()
        with torch.no_grad():  # the gradient was taken at the weights as packed, and goes to these
            for p, was in zip(self.coded.values(), latent):
                p.copy_(was)
        if self.world > 1:
            for tensor in (total, *(p.grad for p in self.opt.params if p.grad is not None)):
                dist.all_reduce(tensor)
        self.opt.apply()
        return total

    def capture(self, tokens):
        """`update` as one CUDA graph: a tiny model's kernels are shorter than their launches."""
        graph, update = torch.cuda.CUDAGraph(), self.update
        for group in self.opt.adam.param_groups:
            group["capturable"] = True
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            total = update(tokens)

        def replay(batch):
            tokens.copy_(batch)
            graph.replay()
            return total

        self.update = replay


def describe(run):
    k, files = run.k, {**run.modules, SCRIPT.name: run.source}
    if run.packed:
        files[f"{SCRIPT.stem}.packed.py"] = run.packed
    config = {name.upper(): value for name, value in asdict(k).items()}
    run.log.put("train.log", run.source.decode(errors="replace"))
    facts = dict(run_id=run.folder.name, seed=k.seed, resumed=bool(run.checkpoint), script=SCRIPT.name)
    modules = dict(zip(run.modules, map(sha256, run.modules.values())))
    facts |= dict(script_sha256=sha256(run.source), modules=modules, device=run.device.type)
    cpu = f"{os.cpu_count()}-core {os.uname().machine} CPU"
    facts |= dict(hardware=torch.cuda.get_device_name() if run.cuda else cpu, world_size=run.world)
    facts |= dict(dtype=str(run.model.dtype)[6:], params=sum(p.numel() for p in run.opt.params))
    versions = dict(python=sys.version.split()[0], torch=torch.__version__, numpy=np.__version__)
    facts |= dict(versions=versions, micro_batch_tokens=run.micro * k.train_seq_len, **run.data.facts)
    data = dict(name=Path(k.val_data_path or k.data_path).name, **run.stream.hashes)
    run.log.fact("start", **facts, config=config, data=data)
    files["config.json"] = json.dumps(config, ensure_ascii=False).encode("utf-8", "surrogateescape")
    for name, blob in files.items():
        (run.folder / name).write_bytes(blob)


def train_step(run, tokens, step, scale):
    """Update `step` (from 0), rates times `scale`; its mean loss."""
    run.opt.schedule(step, scale)
    return run.update(tokens)


def attempt(run, name, action):
    if run.k.compile == "0":
        return False
    try:
        action()
    except Exception as e:
        if run.k.compile == "1" or isinstance(e, torch.OutOfMemoryError):
            raise
        run.log.line(f"{name} failed ({type(e).__name__}): slower; COMPILE=1 tells why")
        return False
    return True


def warm_up(run):
    """Compiles, runs steps on random tokens, restores all state, captures a CUDA graph."""
    k, count = run.k, max(run.k.warmup_steps, int(run.k.compile != "0"))
    tokens = torch.randint(k.vocab_size, (run.sequences, k.train_seq_len + 1), device=run.device)
    fresh = {name: p.clone() for name, p in run.model.state_dict().items()}

    def steps():
        for step in range(count):
            float(train_step(run, tokens, step, 1.0))

    run.model.compile(True)
    compiled = attempt(run, "compile", steps)
    if not compiled:
        run.model.compile(False)
        steps()
    run.model.load_state_dict(fresh)
    run.opt.reset()
    if run.checkpoint:
        restore(run)
    if run.cuda and run.world == 1:
        attempt(run, "CUDA graph", lambda: run.capture(tokens))
    run.log.fact("warm_up", warmup_steps=count, compile=compiled)


def train(run, step, elapsed, clock=time.monotonic):
    """Until budget, steps or a signal end it; says which."""
    run.stop, state = StopFlag(), TrainState(run.k, step, elapsed, clock)
    params = [p.detach() for p in run.opt.params]
    kept = [p.clone() for p in params]
    run.text = {TEXT: pack_text(run.data.shards)} if run.k.keep_text else {}
    tokens = run.batch(step)
    while True:
        decision = ["interrupted" if run.stop.asked else state.over(), state.progress()]
        if run.world > 1:
            dist.broadcast_object_list(decision)
        reason, progress = decision
        if state.step > state.first and not run.rank:
            after_step(run, state, reason)
        if reason:
            break
        torch._foreach_copy_(kept, params)  # to undo a late step
        scale = lr_scale(run.k, progress, state.step)
        run.on_grid = run.k.pack_step > 0 and progress >= 1 - run.k.qat_frac
        loss = train_step(run, tokens, state.step, scale)
        tokens = run.batch(state.step + 1)  # while the device works
        loss = float(loss)
        need(math.isfinite(loss), f"step {state.step + 1}: the loss is {loss}; lower the rates")
        if state.lap(keep=run.rank > 0):
            state.loss, state.scale = loss, scale
        else:
            torch._foreach_copy_(params, kept)
            run.log.line(f"discarded_step:{state.discarded}")
    need(state.step > state.first or reason != "interrupted", "stopped before a step was done", 130)
    if run.k.gptq_batches:  # on the clock, as all that reads training text: leave seconds for it
        began = clock()
        run.hessians = calibrate(run, run.k.gptq_batches)
        state.elapsed += clock() - began
    facts, at, _ = state.facts()
    run.log.line(f"stopping_early: {reason} train_time:{state.elapsed * 1000:.0f}ms {at}")
    line = f"train_seconds:{state.elapsed:.3f} tokens:{facts['tokens']} steps:{state.step}"
    run.log.fact("train_end", line, **facts, reason=reason, discarded_step=state.discarded)
    return reason


def after_step(run, state, reason):
    k, step, (facts, at, timing) = run.k, state.step, state.facts()
    if reason or k.train_log_every and (step <= state.first + 10 or step % k.train_log_every == 0):
        line = f"{at} train_loss:{state.loss:.4f} {timing}"
        run.log.fact("step", line, **facts, train_loss=state.loss, lr_scale=state.scale)
    if reason or 0 < k.checkpoint_every_seconds < state.elapsed - state.saved:
        state.saved = state.elapsed
        save_checkpoint(run, state)
    if k.val_loss_every and (reason or step % k.val_loss_every == 0) and not run.stop.asked:
        began = state.clock()
        plain = Scorer(run.model, k.train_seq_len, k.train_seq_len, k.val_batch_size)
        log_score(plain, run.stream, run.log, "val", at, f" {timing}", 4, run.stop, **facts)
        run.model.train()
        state.mark += state.clock() - began


@torch.no_grad()
def calibrate(run, batches):
    """Products [cols, cols] of each matrix's inputs with themselves, over some of the training text."""
    model, products = run.model, {}

    def add(name, x):
        x = x.flatten(0, -2)
        products[name] = products.get(name, 0) + (x.T @ x).double().numpy()

    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: add(f"{name}.weight", args[0]))
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    ]
    for step in range(batches):
        x = model.features(run.batch(step)[:, :-1])
        add("tok_emb.weight", rms_norm(x))
    for hook in hooks:
        hook.remove()
    return products


def export(run):
    """The artifact's path, bytes left under the cap."""
    k, began, code = run.k, time.monotonic(), len(run.packed or run.source)
    code += sum(len(name.encode()) + len(blob) for name, blob in run.modules.items())
    weights = {name: p.detach().cpu().numpy() for name, p in run.model.named_parameters()}
    blob, step = export_artifact(weights | run.text, k, code, run.hessians)
    path = run.folder / f"final_model.int{k.quant_bits}.{k.compressor}"
    replace_file(path, lambda part: part.write_bytes(blob))
    run.log.line(f"quantized: step:std/{1 / step:.2f} bits:{k.quant_bits} coder:{k.compressor}")
    model, cap = len(blob), k.artifact_cap_bytes
    total, room = model + code, cap - model - code
    sizes = f"{total} bytes code:{code} model:{model} cap:{cap} headroom:{room}"
    facts = dict(bytes_total=total, bytes_code=code, bytes_model=model, cap=cap, headroom=room, step=step)
    facts |= dict(artifact=path.name, artifact_sha256=sha256(blob), export_seconds=time.monotonic() - began)
    run.log.fact("export", f"total_submission_size_quant_zlib:{sizes}", **facts)
    return path, room if cap else 0


def log_score(scorer, stream, log, event, head, tail="", digits=8, stop=None, **facts):
    if score := score_stream(scorer, stream, stop):
        line = f"{head} val_loss:{score['val_loss']:.{digits}f} val_bpb:{score['val_bpb']:.{digits}f}{tail}"
        log.fact(event, line, **facts, **score)


def score_artifact(path, k, stream, log, notes):
    sliding = load_scorer(path, k.device, batch_tokens=k.val_batch_size)
    length = sliding.model.k.train_seq_len
    plain = Scorer(sliding.model, length, length, k.val_batch_size)
    name, count = Path(k.val_data_path or k.data_path).name, len(stream.target_bytes)
    partial = ["partial"] if count < CHALLENGE_TARGETS else []
    notes += partial if name == CHALLENGE_DATA else [f"data={name}"]
    note = f" note:{','.join(notes)}" if notes else ""
    tail = f" seq_len:{sliding.seq_len} stride:{sliding.stride} targets:{count}{note}"
    log_score(plain, stream, log, "score", "final_int8_zlib_roundtrip_exact", kind="roundtrip", notes=notes)
    log_score(sliding, stream, log, "score", "final_sliding_window_exact", tail, kind="sliding", notes=notes)


# ---- Main


def run_all(k):
    if k.eval_only:
        return score_artifact(Path(k.eval_only), k, read_stream(k), Log(None), [])
    began, run = time.monotonic(), Run(k)
    if not run.rank:
        describe(run)
    warm_up(run)
    setup_seconds = time.monotonic() - began
    resumed = run.checkpoint or dict(step=0, elapsed=0.0)
    reason = train(run, resumed["step"], resumed["elapsed"])
    if run.world > 1:
        dist.destroy_process_group()
    if run.rank:
        return
    path, room = export(run)
    held = {"resumed": run.checkpoint, "interrupted": reason == "interrupted"}
    notes = [note for note, holds in held.items() if holds]
    began = time.monotonic()
    score_artifact(path, k, run.stream, run.log, notes)
    facts = dict(setup_seconds=setup_seconds, eval_seconds=time.monotonic() - began)
    facts |= dict(peak_memory_bytes=torch.cuda.max_memory_allocated() or None, exit_code=int(room < 0))
    run.log.fact("end", **facts)
    need(room >= 0, f"{-room} bytes over the cap at the coarsest step; shrink the model")


def main():
    try:
        run_all(read_knobs(os.environ))
        return 0
    except UserError as e:
        message, code = e, e.code
    except OSError as e:
        message, code = explain(e), 1
    except ImportError as e:
        message, code = f"{e}; pip install -r requirements-cuda.txt", 1
    except (RuntimeError, MemoryError) as e:
        if not matches(repr(e).lower(), "memoryerror,out of memory,alloc"):
            raise
        message, code = "out of memory; lower MICRO_BATCH_TOKENS or VAL_BATCH_SIZE", 3
    say(f"{SCRIPT.name}: error: {message}", sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
