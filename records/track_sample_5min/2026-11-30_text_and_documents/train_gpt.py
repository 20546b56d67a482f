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
from bisect import bisect_left
from collections import namedtuple
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from modulefinder import ModuleFinder
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


def utf8(text):
    """Bytes, also of a name that is no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()


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
    eval_seq_len: int = knob(1024, 1, 65536)  # tokens of a sliding window
    eval_stride: int = knob(512, 1)  # targets that a window scores; at most EVAL_SEQ_LEN
    ngram_rows: int = 0  # rows of each table of hashed pairs and triples; 0: no tables
    ngram_dim: int = knob(64, 1)  # width of a table's rows
    shift: int = knob(0, 0, 1)  # 1: keys and values take in a learnt part of those of the token before
    followers: int = knob(0, 0, 1)  # 1: scoring mixes in what followed the last tokens before


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
    keep_text: int = knob(0, 0, 1)  # 1: the training text goes into the artifact, for Followers
    gptq_batches: int = 0  # batches that show GPTQ typical inputs; 0: plain rounding
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
    compile: str = knob("auto", choices=("auto", "0", "1", "nograph"))  # auto: where it works
    micro_batch_tokens: int = knob(0, auto=True)  # tokens a forward pass; 0 or auto: by memory
    warmup_steps: int = 2  # on random tokens, untimed, undone
    checkpoint_every_seconds: float = 300.0  # of training; 0: at its end alone
    resume: str = knob("0", choices=("0", "1", "auto"))  # 1, auto: from RUN_ID's checkpoint
    eval_only: str = ""  # an artifact to score instead
    train_log_every: int = 200  # steps, or 15 s, a log line; 0: none
    val_loss_every: int = 0  # steps between validations; 0: none
    val_batch_size: int = knob(0, auto=True)  # tokens a scoring pass; 0 or auto: by device
    val_max_tokens: int = CHALLENGE_TARGETS  # targets to score; 0: all
    artifact_cap_bytes: int = 2000000  # code plus artifact; 0: no cap
    quant_bits: int = knob(8, 2, 8)  # of a packed weight, before coding
    max_quant_step: float = knob(2.0, 0.05)  # of packing, in deviations of a row
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
    return {knob.name: asdict(k)[knob.name] for knob in fields(group)}


def check_consistency(k):
    need(k.iterations or k.max_wallclock_seconds, "ITERATIONS and MAX_WALLCLOCK_SECONDS are 0: set one", 2)
    need(k.model_dim % (2 * k.num_heads) == 0, f"NUM_HEADS={k.num_heads}: must divide MODEL_DIM / 2", 2)
    need(k.num_heads % k.num_kv_heads == 0, f"NUM_KV_HEADS={k.num_kv_heads}: must divide NUM_HEADS", 2)
    need(k.eval_stride <= k.eval_seq_len, f"EVAL_STRIDE={k.eval_stride}: at most EVAL_SEQ_LEN", 2)
    need(Path(k.run_id).name == k.run_id != "..", f"RUN_ID={k.run_id!r}: must be a plain name", 2)


def print_knobs():
    """Name, default and meaning: the comment beside the field."""
    meanings = dict(re.findall(r"(?m)^    (\w+): \w+ = .*  # (.*)$", SCRIPT.read_text(encoding="utf-8")))
    for knob in fields(Knobs):
        for name in filter(None, (knob.name.upper(), knob.metadata.get("alias"))):
            say(f"{name:35} {knob.default!r:55} # {meanings.get(knob.name, '')}", sys.stdout)


def on_stop(action):
    """What signals that ask to stop do; one that nohup switched off stays so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, action)


def leave(text):
    with suppress(OSError):
        os.write(2, utf8(f"{text}\n"))
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
torch.backends.cuda.enable_cudnn_sdp(False)  # pytorch issue 140930


def rope_tables(k, dtype):
    """Cosines and sines [2, length, 1, head_dim / 2] (RoPE: https://arxiv.org/abs/2104.09864)."""
    dim, length = k.model_dim // k.num_heads, max(k.train_seq_len, k.eval_seq_len)
    rates = k.rope_base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack((angles.cos(), angles.sin())).to(dtype)[:, :, None]


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
    """Causal attention [batch, heads, length, head_dim] to at most `span` inputs; queries are the last."""
    end, fused, outputs = k.size(2), F.scaled_dot_product_attention, []
    past = end - q.size(2)  # keys before the first query's own
    if q.is_cuda and not past and end <= span:
        return fused(q, k, v, is_causal=True)
    block = span if q.is_cuda else CPU_BLOCK
    kernel = fused if q.is_cuda or q.dtype == torch.float32 else attend_by_products
    for start in range(past, end, block):  # blocks leave out keys that no query sees
        stop, first = min(start + block, end), max(0, start - span)
        seen = q.new_ones(stop - start, stop - first, dtype=torch.bool).tril(start - first)
        part = q[:, :, start - past : stop - past], k[:, :, first:stop], v[:, :, first:stop]
        outputs.append(kernel(*part, seen.triu(start - first + 1 - span)))
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
        self.heads = k.num_heads, k.num_kv_heads
        self.span = k.train_seq_len  # to reach further than trained scores worse
        self.c_q = Linear(dim, dim, bias=False)
        self.proj = Linear(dim, dim, bias=False)
        self.c_k = Linear(dim, kv_dim, bias=False)
        self.c_v = Linear(dim, kv_dim, bias=False)
        self.q_gain = nn.Parameter(torch.full((k.num_heads,), k.qk_gain_init))
        self.shift = nn.Parameter(torch.zeros(2 * kv_dim)) if k.shift else None

    def forward(self, x, rope, past=None):
        """past: keys and values of the inputs before x, or []; those of x are added."""
        heads, kv_heads = self.heads
        first = past[0].size(2) if past else 0
        weight = torch.cat((self.c_q.weight, self.c_k.weight, self.c_v.weight)).to(x.dtype)
        qkv = F.linear(x, weight).unflatten(2, (heads + 2 * kv_heads, -1))  # [batch, length, heads, head_dim]
        qk, v = qkv.split((heads + kv_heads, kv_heads), dim=2)
        q, k = rotate(rms_norm(qk), *rope[:, first : first + x.size(1)]).split((heads, kv_heads), dim=2)
        q, k, v = (t.transpose(1, 2) for t in (q * self.q_gain.to(x.dtype)[:, None], k, v))
        if past is not None:
            past[:] = k, v = [torch.cat(pair, dim=2) for pair in zip(past, (k, v))] if past else (k, v)
        if self.shift is not None:
            shares = self.shift.to(x.dtype).view(2, kv_heads, 1, -1)
            k, v = (t + share * F.pad(t, (0, 0, 1, 0))[:, :, :-1] for t, share in zip((k, v), shares))
        if heads > kv_heads:
            k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
        return self.proj(attend(q, k, v, self.span).transpose(1, 2).flatten(2))


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

    def forward(self, x, x0, rope, past=None):
        """x: the residual stream, x0: the embedding, [batch, length, dim]."""
        keep, mix = self.resid_mix.to(x.dtype)
        x = keep * x + mix * x0
        x = x + self.attn_scale.to(x.dtype) * self.attn(rms_norm(x), rope, past)
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
        self.register_buffer("rope", rope_tables(k, dtype), persistent=False)
        for name, p in self.named_parameters():
            if name.endswith(("proj.weight", "head.weight")):
                nn.init.zeros_(p)

    def compile(self, on):
        self.block_forward = torch.compile(Block.forward, dynamic=False) if on else Block.forward
        self.sum_nats = torch.compile(GPT.nats, dynamic=False) if on else GPT.nats

    def ngrams(self, tokens, before):
        """What the tables hold for the last two and three tokens at each place: [batch, length, dim].
        before: the two tokens that come first, [batch, 2]."""
        known = torch.cat((before, tokens), dim=1)
        pairs = known[:, 1:-1] * self.k.vocab_size + tokens
        triples = known[:, :-2] * self.k.vocab_size**2 + pairs
        found = []
        for table, key in ((self.ngram_2, pairs), (self.ngram_3, triples)):
            rows = (key * 0x9E3779B1 >> 15) % self.k.ngram_rows
            found.append(F.embedding(rows, table.T))
        return self.ngram_out(torch.cat(found, dim=-1).to(self.dtype))

    def features(self, tokens, block_forward=Block.forward, past=None, before=None):
        """int64 [batch, length] -> [batch, length, dim], before the last norm; past: see Attention; before:
        see ngrams, zeros where a window begins."""
        x = rms_norm(self.tok_emb(tokens).to(self.dtype))
        if self.k.ngram_rows:
            x = x + self.ngrams(tokens, tokens.new_zeros(len(tokens), 2) if before is None else before)
        x0, skips = x.clone(), []  # as x, it would compile apart
        for i, block in enumerate(self.blocks):
            if i >= self.encoder_layers and skips:
                x = x + self.skip_weights[i - self.encoder_layers].to(x.dtype) * skips.pop()
            x = block_forward(block, x, x0, self.rope, past and past[i])
            if i < self.encoder_layers:
                skips.append(x)
        return x

    def head(self, x):
        logits = F.linear(rms_norm(x), (self.lm_head or self.tok_emb).weight.to(x.dtype)).float()
        return self.k.logit_softcap * torch.tanh(logits / self.k.logit_softcap)

    def logits(self, tokens, rows, past=None, before=None):
        """int64 [batch, length] -> float32 [batch, rows, vocab_size]: the last `rows` positions."""
        return self.head(self.features(tokens, past=past, before=before)[:, -rows:])

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
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
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

    def state(self):
        return [*self.buffers, *(tensor for state in self.adam.state.values() for tensor in state.values())]

    def reset(self):
        torch._foreach_zero_(self.state())

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
        self.saved = self.logged = self.elapsed = elapsed  # their seconds: last saved, logged, now
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
    for path in sorted(Path(folder).glob(f"fineweb_{split}_*.bin")):
        number = path.stem.split("_", 2)[2]
        need(re.fullmatch("[0-9]+", number), f"{path}: no number before .bin; rename or remove it")
        first = shards.setdefault(int(number), path)
        need(first == path, f"{path}: has the number of {first.name}; remove one")
    need(shards, f"{folder}: no fineweb_{split}_*.bin; set DATA_PATH, VAL_DATA_PATH, or see data/README.md")
    return [shards[number] for number in sorted(shards)]


def open_shard(path, vocab_size):
    """Mapped uint16 tokens, behind 256 int32 (magic, 1, number of tokens); little-endian."""
    header, size = np.fromfile(path, "<i4", 256).tolist(), path.stat().st_size
    whole = len(header) == 256 and header[:2] == [20240520, 1] and size == 1024 + 2 * header[2] > 1024
    need(whole, f"{path}: not a whole token shard; fetch it again")
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
        parts = [struct.pack("<Q", len(s)) + s[:: 1 + len(s) // 1_000_000].tobytes() for s in shards]
        self.facts = dict(train_files=len(shards), train_fingerprint=sha256(b"".join(parts)))
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
        index = np.array([self.shuffled(e)[place] for e, place in zip(epochs, places)])
        shard = np.searchsorted(self.starts, index, side="right") - 1
        starts = (index - self.starts[shard]) * length
        rows = [self.shards[i][start : start + length + 1] for i, start in zip(shard, starts)]
        return torch.stack(rows).to(self.device).long() & 0xFFFF


# uint16 [N + 1], the first is context alone; int64 [N], bytes of the rest; SHA-256 of files
Stream = namedtuple("Stream", "tokens target_bytes hashes name")


def read_stream(k):
    import sentencepiece

    folder = k.val_data_path or k.data_path
    paths = find_shards(folder, "val")
    tokens = np.concatenate([open_shard(path, k.vocab_size) for path in paths])
    held, count = len(tokens) - 1, k.val_max_tokens or len(tokens) - 1
    need(0 < count <= held, f"{folder}: {held} targets, VAL_MAX_TOKENS={count} asks for more")
    tokens = tokens[: count + 1]
    path, model = k.tokenizer_path, Path(k.tokenizer_path).read_bytes()
    try:
        sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        need(0, f"{path}: not a SentencePiece model; set TOKENIZER_PATH")
    need(len(sp) == k.vocab_size, f"{path}: {len(sp)} pieces, VOCAB_SIZE={k.vocab_size}")
    need(sp.unk_id() not in tokens, f"{folder}: text was lost, as <unk>; export it again")
    shards = b"".join(path.read_bytes() for path in paths)
    hashes = dict(val_sha256=sha256(shards), tokenizer_sha256=sha256(model))
    return Stream(tokens, count_bytes(sp, tokens)[1:], hashes, Path(folder).name)


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
MAX_UNPACKED = 64 << 20  # bytes
DTYPES = {"int8": "i1", "fp16": "<f2", "fp32": "<f4"}  # int8: symbols, with fp16 scales [rows]
FINEST_STEP = 1 / 24  # in deviations of a row
FINER = {"tok_emb": 0.05, "c_v": 0.5, "c_k": 0.7, "fc": 0.6, "ngram_out": 0.2}  # their steps over the others'
RESERVE_BYTES = 5000  # left under the cap, to change the code


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
        if name == TEXT:
            encoding, arrays = "int8", [value, np.ones(1, "<f2")]
        elif matches(name, k.int8_keep_float_fp32_name_patterns):
            encoding, arrays = "fp32", [value.astype("<f4")]
        elif value.ndim != 2 or matches(name, k.control_tensor_name_patterns):
            encoding, arrays = "fp16", [value.astype("<f2")]
        else:
            part = step * next((FINER[part] for part in name.split(".") if part in FINER), 1)
            encoding, arrays = "int8", quantize(value, part, k.quant_bits)
            if name in hessians:
                arrays = gptq(value, hessians[name], part, k.quant_bits)
        need(np.isfinite(dequantize(arrays)).all(), f"{name}: too large for fp16; lower the rates")
        tensors[name] = encoding, arrays
    order = sorted(tensors, key=lambda name: (tensors[name][0] != "int8", name.split(".")[2:]))
    return {name: tensors[name] for name in order}


def compress(payload, coder):
    if coder == "zlib":
        packer = zlib.compressobj(memLevel=9, strategy=zlib.Z_RLE)  # other repeats would take more
        return packer.compress(payload) + packer.flush()
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
    entries = [[name, a[0].shape, encoding] for name, (encoding, a) in tensors.items()]
    header = json.dumps(dict(config=config, tensors=entries), separators=(",", ":")).encode()
    arrays = [a[n].tobytes() for n in (0, 1) for _, a in tensors.values() if n < len(a)]
    payload = b"".join([struct.pack("<I", len(header)), header, *arrays])
    coded = compress(payload, coder)
    return PREFIX.pack(MAGIC, FORMAT, CODERS.index(coder), len(payload), zlib.crc32(coded)) + coded


def parse(blob):
    """Configuration and tensors of anyone's bytes; any exception refuses them."""
    magic, version, coder, length, crc = PREFIX.unpack_from(blob)
    coded = blob[PREFIX.size :]
    sound = (magic, version) == (MAGIC, FORMAT) and coder > 0 and zlib.crc32(coded) == crc
    need(sound, "wrong magic, format, coder or CRC-32")
    need(length <= MAX_UNPACKED, f"unpacks to {length} bytes, over {MAX_UNPACKED}")
    payload, whole = decompress(coded, CODERS[coder], length + 1)
    need(len(payload) == length and whole, "not of its stated length")
    at = 4 + struct.unpack_from("<I", payload)[0]
    header = json.loads(payload[4:at])
    entries, tensors = header["tensors"], {}
    for name, shape, encoding in entries:
        array = np.frombuffer(payload, DTYPES[encoding], math.prod(shape), at).reshape(shape)
        tensors[name] = encoding, [array]
        at += array.nbytes
    for name, shape, encoding in entries:
        if encoding == "int8":
            scales = np.frombuffer(payload, "<f2", math.prod(shape[:1]), at)
            tensors[name][1].append(scales)
            at += scales.nbytes
    need(at == length and len(tensors) == len(entries), "bytes left over, a name twice")
    return header["config"], tensors


def export_artifact(weights, k, code_bytes, hessians=()):
    """The artifact, and its step: the finest that fits the cap less RESERVE_BYTES, or the coarsest.
    Plain rounding seeks it: GPTQ's symbols take nearly the same bytes."""
    config, steps = knobs_of(k, ModelKnobs), np.geomspace(FINEST_STEP, k.max_quant_step, 2000)
    limit = (k.artifact_cap_bytes or math.inf) - RESERVE_BYTES - code_bytes

    @cache
    def pack(at, coder, final=False):
        return serialize(config, pack_tensors(weights, k, steps[at], hessians if final else ()), coder)

    at, last = 0, len(steps) - 1
    for _ in range(3):  # zlib is fast, another coder's bytes nearly in proportion
        room = limit * len(pack(at, "zlib")) / len(pack(at, k.compressor))
        at = bisect_left(range(last), -room, key=lambda i: -len(pack(i, "zlib")))
    while at < last and len(pack(at, k.compressor)) > limit:
        at += 1
    while at < last and len(pack(at, k.compressor, final=True)) > limit:
        at += 1
    return pack(at, k.compressor, final=True), steps[at]


# ---- Followers: what came next when the last tokens stood in the stream before, mixed into the model's rows.
# Prediction by partial matching (Cleary, Witten 1984, https://doi.org/10.1109/TCOM.1984.1096090), for many
# rows at once and in tables of fixed size

ORDERS = 1, 2, 3, 4, 5, 6, 8, 12  # lengths of the contexts that are looked up
LATEST, FADE = 16, 0.9  # places of a context that are looked at; what a place counts over the next later one
BLOCK = 128  # targets after which what was learnt is used, at fixed places: no cut of the calls moves them
SLOTS = 1 << 21  # of an order's table, 12 bytes each; four million targets want 1 << 22
FIRST_WEIGHT = 0.3  # before it has learnt
POWER_RATE, FACTOR_RATE = 0.0003, 0.08  # of gradient steps
BEGIN = 1  # the token before each document
TEXT = "training_text"  # a tensor: int8 [1, 2 * tokens], of each token in turn its multiple of 8 and the rest


def pack_text(shards):
    tokens = np.concatenate([shard.cpu().numpy().view("<u2") for shard in shards])
    return np.stack((tokens >> 3, tokens & 7), axis=1).astype("i1").reshape(1, -1)


def unpack_text(values, vocab_size):
    """int64 [tokens], whole blocks of Followers: the last ones of a tensor as pack_text makes it."""
    pairs = values.reshape(-1, 2).astype(np.int64)
    tokens = pairs[:, 0] * 8 + pairs[:, 1]
    need(len(tokens) and tokens.min() >= 0 and tokens.max() < vocab_size, "its text is none")
    return tokens[len(tokens) % BLOCK :]


class Followers:
    """Votes of the tokens that came next at the latest places of a context: first those in earlier documents, for
    each order, shortest first, then those in this document. By each, a row becomes (1 - w) row + w votes. The
    weight w is how often votes rather than the row explained the target, over all places so far with as many votes
    for as many tokens (expectation-maximization, online). What comes out and the model's own row are multiplied,
    each to a power, and with a factor for each token that is this document's alone; powers and factors follow
    the loss's gradient.

    A target is learnt after its token came in as an input: its row is out by then. A token takes 40 bytes."""

    def __init__(self, vocab_size, text=()):
        """text: tokens of earlier documents, whole blocks."""
        self.vocab_size, self.text = vocab_size, text
        self.reset()

    def reset(self):
        orders = len(ORDERS)
        self.count, self.tokens = 0, np.zeros(0, np.int32)  # tokens so far
        self.begins = np.zeros(0, np.int32)  # where each one's document begins
        self.before = np.zeros((orders, 0), np.int32)  # for each order: where its context stood before, or -1
        self.latest = np.full((orders, SLOTS), -1, np.int32)  # where a slot's context stood last
        self.owner = np.zeros((orders, SLOTS), np.uint64)  # its hash
        self.explained = np.full((2 * orders, LATEST + 1, LATEST + 1), FIRST_WEIGHT)
        self.asked = np.ones_like(self.explained)
        self.powers = np.array([0.6, 0.4])  # of the mixture and of the model
        self.factors, self.learnt = np.zeros(self.vocab_size, np.float32), -1  # logarithms; their document's begin
        self.block = []  # what the rows of this block were made of
        for part in np.split(self.text, range(1 << 16, len(self.text), 1 << 16)):
            self.append(part)

    def mix(self, tokens, rows):
        """int [n], the next tokens of the stream, and the model's rows, float32 [n, vocab] -> rows."""
        mixed, at = np.empty_like(rows), 0
        while at < len(tokens):
            if self.block and self.count % BLOCK == 0:
                self.learn(tokens[at])
            stop = min(len(tokens), at + BLOCK - self.count % BLOCK)
            self.append(tokens[at:stop])
            mixed[at:stop] = self.rows(rows[at:stop])
            at = stop
        return mixed

    def append(self, new):
        first, self.count = self.count, self.count + len(new)
        if self.count >= len(self.tokens):
            more = self.count + len(self.tokens)
            self.tokens, self.begins = (np.append(a, np.zeros(more, a.dtype)) for a in (self.tokens, self.begins))
            self.before = np.append(self.before, np.zeros((len(ORDERS), more), np.int32), axis=1)
        self.tokens[first : self.count] = new
        places = np.arange(first, self.count, dtype=np.int32)
        begins = np.where(new == BEGIN, places, self.begins[first - 1] if first else 0)
        self.begins[first : self.count] = np.maximum.accumulate(begins)
        for n, order in enumerate(ORDERS):
            hashes = self.context_hashes(first, order)
            slots = hashes >> np.uint64(64 - SLOTS.bit_length() + 1)
            before = np.where(self.owner[n, slots] == hashes, self.latest[n, slots], -1)
            by_slot = np.argsort(slots, kind="stable")
            again = np.flatnonzero(np.diff(slots[by_slot]) == 0)  # slots of several new ones
            earlier, later = by_slot[again], by_slot[again + 1]
            before[later] = np.where(hashes[earlier] == hashes[later], places[earlier], -1)
            self.before[n, first : self.count] = before
            self.latest[n, slots] = places  # in a slot of several, the last
            self.owner[n, slots] = hashes

    def context_hashes(self, first, order):
        """uint64: a hash of the last `order` tokens at each place from `first`."""
        start = max(0, first - order)
        tokens = self.tokens[start : self.count].astype(np.uint64) + np.uint64(1)
        hashes = np.zeros(len(tokens), np.uint64)
        for back in range(order):
            hashes[back:] += tokens[: max(0, len(tokens) - back)]
            hashes *= np.uint64(0x9E3779B97F4A7C15)
            hashes ^= hashes >> np.uint64(29)
        return hashes[first - start :]

    def found(self, count):
        """int32 [2 * orders, count, LATEST]: what came next at the latest places of each context, the latest
        first, then -1: in earlier documents, for each order, and in this one."""
        begins = self.begins[self.count - count : self.count]
        found = np.full((2, len(ORDERS), count, LATEST), -1, np.int32)
        rows = np.arange(count)
        for n, before in enumerate(self.before):
            place, free = before[self.count - count : self.count], np.zeros((2, count), np.int64)
            for _ in range(LATEST):
                here = (place >= begins).astype(np.int64)
                next_token = np.where(place >= 0, self.tokens[place + 1], -1)
                found[here, n, rows, free[here, rows]] = next_token
                free[here, rows] += 1
                place = np.where(place >= 0, before[place], -1)
        return found.reshape(-1, count, LATEST)

    def rows(self, model):
        """The next rows, and what learn needs of them."""
        count = len(model)
        followers, begins = self.found(count), self.begins[self.count - count : self.count]
        known = followers >= 0
        ranked = np.sort(followers, axis=2)
        kinds = known[..., 0] + ((ranked[..., 1:] > ranked[..., :-1]) & (ranked[..., :-1] >= 0)).sum(2)
        bins = np.arange(len(known))[:, None], known.sum(2), kinds
        weights = (self.explained / self.asked)[bins] * known[..., 0]
        votes = known * FADE ** np.arange(LATEST)
        votes /= np.maximum(votes.sum(2, keepdims=True), 1e-9)
        kept = np.cumprod(1 - weights[::-1], axis=0)[::-1]  # of a row, by these votes and all later ones
        shares = weights * np.append(kept[1:], np.ones_like(kept[:1]), axis=0)
        mixture = np.exp(model) * kept[0, :, None].astype(np.float32)
        order, row, i = np.nonzero(known)
        shared = (shares[order, row] * votes[order, row, i]).astype(np.float32)
        np.add.at(mixture.reshape(-1), row * self.vocab_size + followers[order, row, i], shared)
        logs = np.log(mixture), model
        scores = sum(power * log for power, log in zip(self.powers.astype(np.float32), logs))
        scores += (begins == self.learnt)[:, None] * self.factors
        scores -= scores.max(1, keepdims=True)
        odds = np.exp(scores)
        total = odds.sum(1, keepdims=True)
        self.block.append((followers, votes, bins, weights, logs, odds / total, begins))
        return scores - np.log(total)

    def learn(self, token):
        """What the block's targets teach; `token` is the last of them."""
        targets = np.append(self.tokens[self.count - BLOCK + 1 : self.count], token)
        slope, last = 0.0, self.begins[self.count - 1]
        if last != self.learnt:
            self.learnt, self.factors[:] = last, 0
        for followers, votes, (_, found, kinds), weights, logs, chances, begins in self.block:
            now, targets = targets[: len(chances)], targets[len(chances) :]
            at, here = (np.arange(len(now)), now), begins == last
            slope += np.array([log[at].sum() - (chances * log).sum() for log in logs])
            self.factors -= FACTOR_RATE * chances[here].sum(0)
            np.add.at(self.factors, now[here], FACTOR_RATE)
            votes_for = (votes * (followers == now[:, None])).sum(2)
            chance = np.exp(logs[1][at])  # of the target, in the row before these votes
            for n, weight in enumerate(weights):
                ours = weight * votes_for[n]
                chance = (1 - weight) * chance + ours
                np.add.at(self.explained[n], (found[n], kinds[n]), ours / chance)
                np.add.at(self.asked[n], (found[n], kinds[n]), 1)
        self.powers += POWER_RATE * slope
        self.block = []


# ---- Scorer, the submission interface: a stream's tokens in, the distribution after each out


class Scorer:
    """Windows of `seq_len` inputs; each gives the rows of its last `stride`.

    With seq_len 8 and stride 4, block 2 gives rows 8..11 from inputs 4..11. Blocks that would begin before
    input 0 (rows 0..7) share one pass. A window that a call cuts goes on in the next, by its keys and values.
    """

    def __init__(self, model, seq_len, stride, batch_tokens=0, followers=None):
        self.model, self.seq_len, self.stride, self.followers = model, seq_len, stride, followers
        self.device = model.skip_weights.device
        usual = (1 << (27 if self.device.type == "cuda" else 24)) // model.k.vocab_size
        self.windows = max(1, (batch_tokens or usual) // seq_len)
        self.reset()

    def reset(self):
        self.kept, self.left = np.zeros(0, np.int64), 0  # last inputs; rows to come of their windows
        if self.followers:
            self.followers.reset()

    @torch.inference_mode()
    def log_probs(self, tokens):
        """The next n >= 1 tokens of the stream -> float32 [n, vocab_size], log-probabilities: row i of the
        token that follows tokens[i]."""
        new = np.asarray(tokens).astype(np.int64)
        known = new.ndim == 1 and len(new) and 0 <= new.min() and new.max() < self.model.k.vocab_size
        need(known, "tokens: at least one id of the vocabulary")
        inputs, at, outputs = np.concatenate((self.kept, new)), len(self.kept), []
        while at < len(inputs):
            first, windows = at, 1
            if not self.left:  # new ones
                first = max(0, at + self.stride - self.seq_len)
                windows = max(1, min((len(inputs) - at) // self.stride, self.windows)) if at else 1
                self.left = self.stride * (windows if at else self.seq_len // self.stride)
                self.past = [[] for _ in self.model.blocks] if windows == 1 else None
            count = min(self.left, len(inputs) - at) // windows
            index = np.add.outer(self.stride * np.arange(windows), np.arange(first, at + count))
            known = np.append([0, 0], inputs)
            before = known[np.add.outer(self.stride * np.arange(windows), np.arange(first, first + 2))]
            window, before = (torch.from_numpy(a).to(self.device) for a in (inputs[index], before))
            logits = self.model.logits(window, count, self.past, before)
            outputs.append(F.log_softmax(logits, dim=-1).flatten(0, 1))
            at += count * windows
            self.left -= count * windows
        self.kept = inputs[-self.seq_len - 2 :]  # two more for the tables
        rows = torch.cat(outputs)
        return torch.from_numpy(self.followers.mix(new, rows.cpu().numpy())) if self.followers else rows


def load_scorer(artifact_path, device="auto", dtype=None, batch_tokens=0):
    """A Scorer of an artifact, which alone is read, or a UserError."""
    path, device = Path(artifact_path), pick_device(device)
    try:
        need(path.stat().st_size <= MAX_UNPACKED, f"over {MAX_UNPACKED} bytes")
        config, tensors = parse(path.read_bytes())
        need(set(config) == {knob.name for knob in fields(ModelKnobs)}, "its header has other knobs")
        k = read_knobs({name.upper(): str(value) for name, value in config.items()})
        weights = {name: torch.from_numpy(dequantize(arrays)) for name, (_, arrays) in tensors.items()}
        text = weights.pop(TEXT, None)
        text = np.zeros(0, np.int64) if text is None else unpack_text(text.numpy(), k.vocab_size)
        with torch.device("meta"):  # shapes alone: nothing is allocated yet
            shapes = {name: p.shape for name, p in GPT(k).named_parameters()}
        need(shapes == {name: w.shape for name, w in weights.items()}, "its tensors do not make its model")
    except Exception as e:
        need(0, f"{path}: damaged, or no artifact ({e})")
    usual = pick_dtype(device) if device.type == "cuda" else torch.float32
    model = GPT(k, dtype or usual).to(device)
    model.load_state_dict(weights)
    followers = Followers(k.vocab_size, text) if k.followers else None
    return Scorer(model, k.eval_seq_len, k.eval_stride, batch_tokens, followers)


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
        path, size = self.folder / name, None
        try:
            with open(path, "ab") as file:
                size = file.tell()
                file.write(utf8(f"{text}\n"))
        except OSError as e:
            with suppress(OSError, TypeError):
                os.truncate(path, size)
            if name not in self.failing:
                say(f"warning: {explain(e, path)}; the run goes on", sys.stderr)
            self.failing.add(name)

    def line(self, text):
        if self.console:
            say(re.sub(r"(?m)^(.{180}).{20,}$", r"\1 ...", text), sys.stdout)
        if self.folder:
            self.put("train.log", text)

    def fact(self, event, text="", **values):
        """A line for people, or one a value, and an object for tools."""
        self.line(text or "\n".join(f"{n}:{value}" for n, value in values.items() if value is not None))
        if self.folder:
            facts = dict(schema=1, event=event, time=time.time(), **values)
            self.put("metrics.jsonl", json.dumps(facts, ensure_ascii=False))


def replace_file(path, write, *data):
    """All of what write makes, or an OSError."""
    part = path.with_suffix(".part")
    try:
        write(part, *data)
        part.replace(path)
    except Exception as e:
        with suppress(OSError):
            part.unlink()
        raise OSError(0, str(e), path) from e


def save_checkpoint(run, state):
    saved = dict(identity=run.identity, step=state.step, elapsed=state.elapsed, dtype=run.model.dtype)
    saved |= dict(model=run.model.state_dict(), optimizers=run.opt.state())
    try:
        replace_file(run.folder / CHECKPOINT, lambda part: torch.save(saved, part))
    except OSError as e:
        run.log.line(f"no checkpoint at step {state.step}, training goes on: {e.strerror[:80]!r}")


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
    changes = [f"{name.upper()} was {was.get(name)}, is {now.get(name)}" for name in changed]
    need(not changes, f"{path}: {'; '.join(changes)}; put that back, or change RUN_ID", 2)
    return saved


def restore(run):
    try:  # in place: a graph reads there
        run.model.load_state_dict(run.checkpoint["model"])
        torch._foreach_copy_(run.opt.state(), run.checkpoint["optimizers"])
    except (KeyError, RuntimeError):
        need(0, f"{run.folder / CHECKPOINT}: does not fit this script")


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
    count = torch.cuda.is_available() and torch.cuda.device_count()
    rank = int(os.environ.get("LOCAL_RANK", 0))
    if name == "cpu" or name == "auto" and not count:
        return torch.device("cpu")
    need(rank < count, f"DEVICE={name}: {count or 'none'} found; set DEVICE=cpu or start fewer", 2)
    return torch.device("cuda", rank)


def pick_dtype(device):
    """bfloat16 if the device has instructions for it."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(False)
    else:
        fast = torch.cpu.get_capabilities().get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32


def own_sources():
    """Name -> bytes of this script and the modules beside it that it imports."""
    finder = ModuleFinder([str(SCRIPT.parent)], excludes=os.listdir(SCRIPT.parent))
    finder.run_script(str(SCRIPT))
    paths = [SCRIPT, *(SCRIPT.with_name(f"{name}.py") for name in finder.modules)]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


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

    def setup_model(self):
        k, dtype = self.k, [self.checkpoint["dtype"] if self.checkpoint else pick_dtype(self.device)]
        if self.world > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.cuda else "gloo")
            dist.broadcast_object_list(dtype)
        torch.manual_seed(k.seed)
        self.model = GPT(k, *dtype).to(self.device)
        self.opt = Optimizers(self.model, k)
        self.micro = self.pick_micro_batch()

    def pick_micro_batch(self):
        """Sequences a pass, by half a GPU's memory (65 numbers a token, layer, channel) or a CPU's cache."""
        k, tokens = self.k, 4096
        if self.cuda:
            size = 130 * self.model.dtype.itemsize * k.num_layers * k.model_dim
            tokens = torch.cuda.mem_get_info()[1] // size
        most = max(1, (k.micro_batch_tokens or tokens) // k.train_seq_len)
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
            for tensor in (total, *(p.grad for p in self.opt.params if p.grad is not None)):
                dist.all_reduce(tensor)
        self.opt.apply()
        return total


def describe(run):
    k, config = run.k, {name.upper(): value for name, value in asdict(run.k).items()}
    run.log.put("train.log", run.source.decode(errors="replace"))
    cpu = f"{os.cpu_count()}-core {os.uname().machine} CPU"
    run.log.fact(
        "start",
        run_id=run.folder.name,
        seed=k.seed,
        resumed=bool(run.checkpoint),
        script=SCRIPT.name,
        script_sha256=sha256(run.source),
        modules={name: sha256(blob) for name, blob in run.modules.items()},
        device=run.device.type,
        hardware=torch.cuda.get_device_name() if run.cuda else cpu,
        world_size=run.world,
        dtype=str(run.model.dtype)[6:],
        params=sum(p.numel() for p in run.opt.params),
        versions=dict(python=sys.version.split()[0], torch=torch.__version__, numpy=np.__version__),
        micro_batch_tokens=run.micro * k.train_seq_len,
        **run.data.facts,
        config=config,
        data=dict(name=run.stream.name, **run.stream.hashes),
    )
    files = {**run.modules, SCRIPT.name: run.source}
    files["config.json"] = utf8(json.dumps(config, ensure_ascii=False))
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
    fault = ""
    try:
        action()
    except Exception as e:
        if run.k.compile == "1" or isinstance(e, torch.OutOfMemoryError):
            raise
        fault = repr(e)[:99]
    works = torch.tensor(int(not fault))
    if run.world > 1:
        dist.all_reduce(works, dist.ReduceOp.MIN)
    if not works:
        run.fault = f"{name} failed ({fault or 'a rank'})"
        run.log.line(f"{run.fault}: slower; COMPILE=1 tells why")
    return bool(works)


def try_graph(run, tokens):
    """`update` as a CUDA graph, which spares launches, if it does the same."""
    opt, update, batch = run.opt, run.update, tokens.clone()
    params = [p.detach() for p in opt.params]
    state = params + opt.state()
    kept = [tensor.clone() for tensor in state]

    def replay(tokens):
        batch.copy_(tokens)
        graph.replay()
        return total

    def step(update, tokens, scale=1.0):
        torch._foreach_copy_(state, kept)
        opt.schedule(0, scale)
        return float(update(tokens)), [p - old for p, old in zip(params, kept)]

    loss, moves = step(update, tokens)
    for group in opt.adam.param_groups:
        group["capturable"] = True
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        total = update(batch)
    same, replayed = step(replay, tokens)
    need(abs(same - loss) <= 0.01 * loss, "the graph's loss is another")
    pairs = [(a, b) for a, b in zip(replayed, moves) if b.ndim == 2]  # cosines over .98
    need(all((a - b).norm() <= 0.2 * b.norm() for a, b in pairs), "the graph moves otherwise")
    other, still = step(replay, (tokens + 1) % run.k.vocab_size, 0.0)
    need(not any(move.any() for move in still), "the graph moves at rate 0")
    need(other != same, "the graph reads no tokens")
    run.update = replay


def warm_up(run):
    """Compiles, runs steps on random tokens, tries a CUDA graph, restores all state."""
    k, compiled, graph, run.fault = run.k, False, None, None
    tokens = torch.randint(k.vocab_size, (run.sequences, k.train_seq_len + 1), device=run.device)
    fresh = {name: p.clone() for name, p in run.model.state_dict().items()}
    if k.compile != "0":
        run.model.compile(True)
        compiled = attempt(run, "compile", lambda: run.model.loss(tokens[: run.micro]).backward())
    if not compiled:
        run.model.compile(False)
    count = k.warmup_steps or int(k.compile != "0" or run.checkpoint is not None)
    for step in range(count):
        float(train_step(run, tokens, step, 1.0))
    if run.cuda and run.world == 1 and k.compile in ("auto", "1"):
        graph = attempt(run, "CUDA graph", lambda: try_graph(run, tokens))
    run.model.load_state_dict(fresh)
    run.opt.reset()
    if run.checkpoint:
        restore(run)
    passed = run.fault or graph and "passed"
    run.log.fact("warm_up", warmup_steps=count, compile=compiled, graph=graph, self_test=passed)


def train(run, step, elapsed, clock=time.monotonic):
    """Until budget, steps or a signal end it; says which."""
    run.stop, state = StopFlag(), TrainState(run.k, step, elapsed, clock)
    params = [p.detach() for p in run.opt.params]
    kept = [p.clone() for p in params]
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
    began = clock()  # all that reads training text is on the clock: leave seconds for it
    run.text = pack_text(run.data.shards) if run.k.keep_text else None
    run.hessians = calibrate(run, run.k.gptq_batches) if run.k.gptq_batches else ()
    state.elapsed += clock() - began
    facts, at, _ = state.facts()
    ended = "finished" if reason == "iterations" else "stopping_early"
    run.log.line(f"{ended}: {reason} train_time:{state.elapsed * 1000:.0f}ms {at}")
    line = f"train_seconds:{state.elapsed:.3f} tokens:{facts['tokens']} steps:{state.step}"
    run.log.fact("train_end", line, **facts, reason=reason, discarded_step=state.discarded)
    return reason


def after_step(run, state, reason):
    k, step, (facts, at, timing) = run.k, state.step, state.facts()
    due = step <= state.first + 10 or state.elapsed > state.logged + 15
    if reason or k.train_log_every and (due or step % k.train_log_every == 0):
        state.logged = state.elapsed
        line = f"{at} train_loss:{state.loss:.4f} {timing}"
        run.log.fact("step", line, **facts, train_loss=state.loss, lr_scale=state.scale)
    if reason or 0 < k.checkpoint_every_seconds < state.elapsed - state.saved:
        state.saved = state.elapsed
        save_checkpoint(run, state)
    if k.val_loss_every and (reason or step % k.val_loss_every == 0) and not run.stop.asked:
        began = state.clock()
        plain = Scorer(run.model, k.train_seq_len, k.train_seq_len, k.val_batch_size)
        log_score(plain, run.stream, run.log, "val", at, f" {timing}", 4, run.stop, **facts)
        state.mark += state.clock() - began


@torch.no_grad()
def calibrate(run, batches):
    """Products [cols, cols] of each matrix's inputs with themselves, over some of the training text."""
    model, products = run.model, {}

    def add(name, x):
        x = x.flatten(0, -2)
        products[name] = products.get(name, 0) + (x.T @ x).double().numpy()

    def add_attention(name, x):
        for matrix in ("c_q", "c_k", "c_v"):
            add(f"{name}.{matrix}.weight", x)

    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: add(f"{name}.weight", args[0]))
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    ] + [
        block.attn.register_forward_pre_hook(lambda _, args, n=n: add_attention(f"blocks.{n}.attn", args[0]))
        for n, block in enumerate(model.blocks)
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
    if k.keep_text:
        weights[TEXT] = run.text
    blob, step = export_artifact(weights, k, code, run.hessians)
    path = run.folder / f"final_model.int{k.quant_bits}.{k.compressor}"
    replace_file(path, Path.write_bytes, blob)
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
    name, count = stream.name, len(stream.target_bytes)
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
        os._exit(0)  # slower, gloo may abort
    path, room = export(run)
    notes = ["resumed"] * bool(run.checkpoint) + ["interrupted"] * (reason == "interrupted")
    began, stream, log = time.monotonic(), run.stream, run.log
    del run  # and a CUDA graph's memory
    torch.cuda.empty_cache()
    score_artifact(path, k, stream, log, notes)
    facts = dict(setup_seconds=setup_seconds, eval_seconds=time.monotonic() - began)
    facts |= dict(peak_memory_bytes=torch.cuda.max_memory_allocated() or None, exit_code=int(room < 0))
    log.fact("end", **facts)
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
        if not matches(repr(e), "MemoryError,out of memory,t allocate memory,enough memory,_ALLOC_FAILED"):
            raise
        message, code = "out of memory; lower MICRO_BATCH_TOKENS or VAL_BATCH_SIZE", 3
    say(f"{SCRIPT.name}: error: {message}", sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
