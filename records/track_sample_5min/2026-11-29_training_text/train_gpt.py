#!/usr/bin/env python3
"""Train, pack and score a tiny GPT whose code plus weights fit a byte cap. One file: copy it into a record
folder and change it. New here is the Mixer. `--knobs` lists its environment variables. Model, recipe and
names follow the baseline of openai/parameter-golf. Its bytes count against the cap, hence tabs."""

import difflib
import errno
import hashlib
import json
import locale
import logging
import math
import os
import re
import signal
import struct
import sys
import time
import zlib
from collections import namedtuple
from contextlib import contextmanager, suppress
from pathlib import Path

SCRIPT = Path(__file__).resolve()
ROOT = next((p for p in SCRIPT.parents if (p / "data").is_dir()), Path.cwd())
CHALLENGE_DATA, CHALLENGE_TARGETS = "fineweb10B_sp1024", 4194304


class UserError(Exception):
	"""main() prints it in one line and exits with `code`."""


def need(holds, message, code=1):
	if not holds:
		error = UserError(message)
		error.code = code
		raise error


ADVICE = {  # what to do about an OSError
	errno.ENOSPC: "free some room there",
	errno.EACCES: "change its permissions, or name another",
	errno.ENOENT: "put it back, or name another",
	errno.EMFILE: "too many for one process: raise `ulimit -n`",
}


def told(error, path=None):
	"""An OSError as one line: the file, what is wrong, what to do."""
	what, advice = error.strerror or error, ADVICE.get(error.errno, "look at the disk it lies on")
	return f"{path or error.filename or 'a file'}: {what}; {advice}"


@contextmanager
def file_access(path=None):
	"""An OSError of what is done inside ends the run in one line."""
	try:
		yield
	except OSError as e:
		need(0, told(e, path))


def say(text, stream):
	"""Prints at once; a pipe or terminal that went away, or a full disk behind it, ends no run."""
	with suppress(OSError, ValueError):
		print(text, file=stream, flush=True)


def warn(text):
	say(f"{SCRIPT.name}: warning: {text}", sys.stderr)


# ---- Knobs, k below: a variable's default, meaning, and a number's limits (0 and 1e18) or its choices ----

KNOBS = dict(
	run_id=("", "default: start time"),
	out_dir=(f"{ROOT}/runs", "of the folder RUN_ID"),
	seed=(1337, "weights and batch order"),
	device=("auto", "auto: cuda, else cpu", "auto", "cuda", "cpu"),
	compile=("auto", "torch.compile; auto falls back", "auto", "0", "1"),
	resume=("0", "1, auto: go on from RUN_ID's checkpoint, begin where there is none", "0", "1", "auto"),
	checkpoint_every_seconds=(300.0, "0: when stopped"),
	eval_only=("", "an artifact to score"),
	data_path=(f"{ROOT}/data/datasets/{CHALLENGE_DATA}", "folder of the training and validation shards"),
	val_data_path=("", "folder of the validation shards; default: DATA_PATH"),
	tokenizer_path=(f"{ROOT}/data/tokenizers/fineweb_1024_bpe.model", "SentencePiece"),
	vocab_size=(1024, "tokenizer pieces", 2, 65536),

	max_wallclock_seconds=(1800.0, "to train; 0: no limit"),
	iterations=(0, "step limit; 0: none"),
	train_batch_tokens=(65536, "a step, over all ranks", 1),
	train_seq_len=(512, "or TRAIN_MAX_SEQ_LEN", 1, 65536),
	micro_batch_tokens=(0, "a pass; 0 or auto: by memory"),
	warmup_steps=(2, "on random tokens, undone"),
	warmdown_frac=(0.6, "part of the run, rates fall to 0", 0, 1),
	warmdown_iters=(-1, "in steps, as upstream; -1: unused", -1),

	num_layers=(6, "blocks", 1, 256),
	model_dim=(192, "width", 2, 65536),
	num_heads=(6, "attention heads", 1),
	num_kv_heads=(3, "key and value heads", 1),
	mlp_mult=(3.0, "width / MODEL_DIM", 0.5, 64),
	tie_embeddings=(1, "input is output matrix", 0, 1),
	rope_base=(10000.0, "rotary frequencies", 1),
	logit_softcap=(30.0, "bound of logits", 0.1),
	qk_gain_init=(1.5, "of a query head"),
	tied_embed_init_std=(0.005, "of a normal"),

	embed_lr=(0.6, "Adam, untied embedding"),
	head_lr=(0.008, "Adam, untied output head"),
	tied_embed_lr=(0.05, "Adam, tied embedding"),
	scalar_lr=(0.04, "Adam, vectors"),
	matrix_lr=(0.04, "Muon, matrices"),
	muon_momentum=(0.95, "Muon", 0, 1),
	muon_backend_steps=(5, "Newton-Schulz iterations", 1),
	muon_momentum_warmup_start=(0.85, "momentum at step 0", 0, 1),
	muon_momentum_warmup_steps=(500, "to MUON_MOMENTUM"),
	beta1=(0.9, "Adam", 0, 0.9999),
	beta2=(0.95, "Adam", 0, 0.9999),
	adam_eps=(1e-8, "Adam"),
	grad_clip_norm=(0.0, "0: no clipping"),
	control_tensor_name_patterns=("attn_scale,mlp_scale,resid_mix,q_gain,skip_weight", "SCALAR_LR, fp16"),

	train_log_every=(200, "steps; 0: no log lines"),
	val_loss_every=(0, "steps; 0: no validation"),
	val_batch_size=(0, "a scoring pass; 0 or auto: by device"),
	val_max_tokens=(CHALLENGE_TARGETS, "targets scored; 0: all"),
	eval_seq_len=(1024, "window of the sliding score", 1, 65536),
	eval_stride=(64, "targets a window", 1),
	artifact_cap_bytes=(2000000, "code plus artifact; 0: none"),
	quant_bits=(8, "of a packed weight", 2, 8),
	keep_text=(1, "training text in the artifact", 0, 1),
	compressor=("zlib", "last stage of packing", "zlib"),
	int8_keep_float_fp32_name_patterns=("", "packed as fp32"),
)
Knobs = namedtuple("Knobs", KNOBS)
PATHS = ("out_dir", "eval_only", "data_path", "val_data_path", "tokenizer_path")
# What the weights do not depend on: it may change when a run is resumed. The data is compared by its hashes.
FREE = """run_id out_dir resume checkpoint_every_seconds eval_only device compile data_path val_data_path
tokenizer_path micro_batch_tokens mlx_max_microbatch_tokens grad_accum_steps mlx_eager_eval
logit_chunk_tokens warmup_steps train_log_every val_loss_every val_batch_size val_max_tokens eval_seq_len
eval_stride artifact_cap_bytes quant_bits compressor int8_keep_float_fp32_name_patterns""".split()


def read_knobs(env):
	env, values = {"TRAIN_SEQ_LEN": env.get("TRAIN_MAX_SEQ_LEN"), **env}, {}
	for name, (default, meaning, *limits) in KNOBS.items():
		values[name], kind, raw = default, type(default), env.get(name.upper())
		if raw is None:
			continue
		words = kind is str and limits
		low, high, *_ = *limits, *(0, 1e18)[len(limits) :]
		allowed = f"one of {', '.join(limits)}" if words else f"{kind.__name__} from {low} to {high:g}"
		try:
			value = values[name] = 0 if kind is int and raw == "auto" in meaning else kind(raw)
			holds = raw in limits if words else kind is str or low <= value <= high
		except ValueError:
			holds = False
		need(holds, f"{name.upper()}={raw!r}: allowed is {allowed}", 2)
	for name in PATHS:
		path = values[name] = os.path.expanduser(values[name])
		need(path[:1] not in ("~", "$"), f"{name.upper()}={path!r}: not expanded; write the path itself", 2)
	k = Knobs(**values)
	need(k.iterations or k.max_wallclock_seconds, "ITERATIONS and MAX_WALLCLOCK_SECONDS are 0: set one", 2)
	need(k.model_dim % (2 * k.num_heads) == 0, f"NUM_HEADS={k.num_heads}: must divide MODEL_DIM / 2", 2)
	need(k.num_heads % k.num_kv_heads == 0, f"NUM_KV_HEADS={k.num_kv_heads}: must divide NUM_HEADS", 2)
	need(k.eval_stride <= k.eval_seq_len, f"EVAL_STRIDE={k.eval_stride}: at most EVAL_SEQ_LEN", 2)
	need(Path(k.run_id).name == k.run_id != "..", f"RUN_ID={k.run_id!r}: must be a plain name", 2)
	return k


def near_misses(env):
	"""Warns of variables that nothing reads and that are nearly a knob."""
	known = [*(name.upper() for name in KNOBS), "TRAIN_MAX_SEQ_LEN", "SEEDS", "NPROC_PER_NODE"]
	prefixes = ("CUDA_", "OMP_", "HF_", "TORCH", "PYTORCH_", "NCCL_", "MLX_")
	for name in sorted(env):
		near = difflib.get_close_matches(name, known, 1, 0.8)
		if name.isupper() and near and name not in known and not name.startswith(prefixes):
			warn(f"{name} is set and unknown; did you mean {near[0]}?")


def on_stop(action):
	"""What signals that ask to stop do; a SIGHUP that nohup has switched off stays so."""
	for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
		if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
			signal.signal(number, action)


def leave(text):
	"""Ends the process from a signal handler."""
	with suppress(OSError):
		os.write(2, f"{text}\n".encode("utf-8", "surrogateescape"))
	os._exit(130)


if __name__ == "__main__":  # before the imports that take seconds and may fail
	with suppress(locale.Error):
		locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # libraries read their files by the locale
	for stream in filter(None, (sys.stdout, sys.stderr)):
		stream.reconfigure(encoding="utf-8", errors="surrogateescape")
	if sys.argv[1:]:
		for name, (default, meaning, *_) in KNOBS.items():
			say(f"{name.upper()}\t{default}\t{meaning}", sys.stdout)
		sys.exit()
	on_stop(lambda *_: leave("stopped before training began; there was nothing to save"))

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
logging.getLogger("torch.utils.cpp_extension").setLevel("ERROR")  # it tells of an nvcc without a GPU


def sha256(blob):
	return hashlib.sha256(blob).hexdigest()


def matches(name, patterns):
	return any(p and p in name for p in patterns.split(","))


# ---- Data: token shards, a seeded shuffle, the validation stream ----


FETCH = """fetch them with `python3 data/cached_challenge_fineweb.py --variant sp1024 --train-shards 2`, or \
make the sample with `python3 data/build_sample_dataset.py` and set DATA_PATH=data/datasets/sample_sp1024 \
TOKENIZER_PATH=data/tokenizers/sample_1024_bpe.model"""


def find_shards(folder, split):
	"""The paths of a split's shards by their numbers."""
	shards, names = {}, []
	with file_access(folder), suppress(FileNotFoundError, NotADirectoryError):
		names = sorted(os.listdir(folder))
	for name in names:
		if match := re.fullmatch(rf"fineweb_{split}_(.*)\.bin", name):
			path, known = Path(folder, name), re.fullmatch("[0-9]+", match[1])
			need(known, f"{path}: no number before .bin, so its place is unknown; rename or remove it")
			first = shards.setdefault(int(match[1]), path)
			need(first == path, f"{path}: has the number of {first.name}; remove one of them")
	need(shards, f"{folder}: no fineweb_{split}_*.bin; set DATA_PATH (or VAL_DATA_PATH), {FETCH}")
	return [shards[number] for number in sorted(shards)]


def open_shards(folder, split):
	"""Path -> mapped uint16 tokens, behind 256 int32 (magic, 1, count); little-endian."""
	shards = {}
	for path in find_shards(folder, split):
		with file_access(path):
			header, size = np.fromfile(path, "<i4", 256).tolist(), path.stat().st_size
			known = header[:2] == [20240520, 1] and len(header) == 256
			need(known, f"{path}: not a token shard; fetch it again")
			expected = 1024 + 2 * header[2]
			need(size == expected > 1024, f"{path}: {size} bytes, its header says {expected}; fetch it again")
			shards[path] = np.memmap(path, "<u2", "c", 1024)
	return shards


def fingerprint(shards):
	"""SHA-256 of the shards' lengths and of about a million tokens of each, evenly spread."""
	digest = hashlib.sha256()
	for tokens in shards:
		digest.update(struct.pack("<Q", len(tokens)) + tokens[:: 1 + len(tokens) // 1_000_000].tobytes())
	return digest.hexdigest()


def check_ids(tokens, folder, vocab_size):
	top = int(tokens.max())
	need(top < vocab_size, f"{folder}: holds token {top}, VOCAB_SIZE={vocab_size}; one is wrong")
	return tokens


class TrainData:
	"""Sequences of seq_len + 1 tokens (neighbours share one) in endless epochs, shuffled by seed and epoch
	alone. On CUDA the shards live on the device where they fit."""

	def __init__(self, k, device):
		self.k, self.device, shards = k, device, open_shards(k.data_path, "train").values()
		self.facts = dict(train_files=len(shards), train_fingerprint=fingerprint(shards))
		self.starts = np.cumsum([0, *((len(s) - 1) // k.train_seq_len for s in shards)])
		self.sequences, self.epoch = int(self.starts[-1]), None
		need(self.sequences, f"{k.data_path}: no shard holds TRAIN_SEQ_LEN={k.train_seq_len} tokens + 1")
		held = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 0
		home = device if held > 8 * sum(s.nbytes for s in shards) else "cpu"
		checked = [check_ids(s, k.data_path, k.vocab_size) for s in shards]
		self.shards = [torch.from_numpy(s.view("i2")).to(home) for s in checked]

	def shuffled(self, epoch):
		if epoch != self.epoch:
			rng, self.epoch = np.random.default_rng([self.k.seed, epoch]), epoch
			self.order = rng.permutation(self.sequences)
		return self.order

	def batch(self, first, count):
		"""int64 [count, seq_len + 1] on the device: places first .. first + count - 1."""
		epochs, places = divmod(np.arange(first, first + count), self.sequences)
		index = np.concatenate([self.shuffled(e)[places[epochs == e]] for e in np.unique(epochs)])
		shard = np.searchsorted(self.starts, index, side="right") - 1
		at, length = (index - self.starts[shard]) * self.k.train_seq_len, self.k.train_seq_len + 1
		rows = torch.stack([self.shards[i][j : j + length] for i, j in zip(shard, at)])
		return rows.to(self.device).long() & 0xFFFF


# uint16 [N + 1]; int64 [N], bytes of tokens[1:]; SHA-256 of the split's shards and the tokenizer
Stream = namedtuple("Stream", "tokens target_bytes hashes")


def read_stream(k):
	"""The Stream of the first targets of the validation split."""
	path = k.val_data_path or k.data_path
	shards = open_shards(path, "val")
	tokens = np.concatenate(list(shards.values()))
	held, count = len(tokens) - 1, k.val_max_tokens or len(tokens) - 1
	need(0 < count <= held, f"{path}: {held} validation targets, VAL_MAX_TOKENS={count} asks for more")
	tokens = check_ids(tokens[: count + 1], path, k.vocab_size)
	sp, tokenizer_sha256 = load_tokenizer(k)
	size, lead, special, unknown = piece_table(sp)
	lost = unknown[tokens].sum()
	need(not lost, f"{path}: {lost} <unk> in the validation stream, so text was lost; export it again")
	token_bytes = size[tokens] + lead[tokens] * ~np.append(True, special[tokens[:-1]])
	check_bytes(sp, tokens, token_bytes, special[tokens], path)
	val_sha256 = sha256(b"".join(shard.read_bytes() for shard in shards))
	return Stream(tokens, token_bytes[1:], dict(val_sha256=val_sha256, tokenizer_sha256=tokenizer_sha256))


def load_tokenizer(k):
	"""The SentencePiece processor and its file's SHA-256."""
	import sentencepiece

	path = k.tokenizer_path
	try:
		blob = Path(path).read_bytes()
		sp = sentencepiece.SentencePieceProcessor(model_proto=blob)
	except OSError as e:
		need(0, f"{told(e, path)}; TOKENIZER_PATH names it")
	except RuntimeError:
		need(0, f"{path}: not a SentencePiece model; fetch it or set TOKENIZER_PATH")
	count = sp.vocab_size()
	need(count == k.vocab_size, f"{path}: {count} pieces, VOCAB_SIZE={k.vocab_size}; set one right")
	return sp, sha256(blob)


def piece_table(sp):
	"""Four arrays [vocab]. Bytes of the text that a piece decodes to at a document's start; how many more
	elsewhere (a leading space); whether it is no text: control, unknown, unused, or a marker; is unknown."""
	table, model, pieces = [], sp.serialized_model_proto(), range(sp.vocab_size())
	special = [
		sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i) or is_marker(sp.id_to_piece(i), model)
		for i in pieces
	]
	plain = [i for i in pieces if not special[i] and not sp.is_byte(i)]
	before = next((i for i in plain if sp.decode([i])), None)  # any text
	for i in pieces:
		size, lead = 0 if special[i] else 1, 0  # a byte's
		if not special[i] and not sp.is_byte(i):
			size = len(sp.decode([i]).encode())
			lead = len(sp.decode([before, i]).encode()) - len(sp.decode([before]).encode()) - size
		table.append((size, lead, special[i], sp.is_unknown(i)))
	size, lead, special, unknown = np.array(table).T
	return size, lead, special.astype(bool), unknown.astype(bool)


def is_marker(piece, model):
	"""Whether a piece is a user-defined symbol in brackets, as <|endoftext|> or [SEP], which sets documents
	apart. SentencePiece does not tell; the model's bytes do: name, score, then type 4."""
	name = piece.encode()
	if piece[:1] + piece[-1:] not in ("<>", "[]") or len(name) > 127:
		return False
	entry = b"\n" + bytes([len(name)]) + re.escape(name) + b"(\x15.{4})?\x18\x04"
	return re.search(entry, model, re.DOTALL) is not None


def check_bytes(sp, tokens, token_bytes, special, path):
	"""Every document of the stream has as many bytes as its tokens are counted for."""
	sums, ends = np.append(0, np.cumsum(token_bytes)), np.append(np.flatnonzero(special), len(tokens))
	wrong, start = 0, 0
	for end in ends:
		text, counted = sp.decode(tokens[start:end].tolist()), sums[end] - sums[start]
		sizes = [len(text.encode())]
		if end == len(tokens):  # where the stream was cut, a character may be: one U+FFFD for each byte
			whole = text.rstrip("\ufffd")
			sizes.append(len(whole.encode()) + len(text) - len(whole))
		wrong, start = wrong + (counted not in sizes), end + 1
	need(not wrong, f"{path}: {wrong} of {len(ends)} documents have other bytes than their tokens count for; "
		"set TOKENIZER_PATH to the tokenizer that made these shards")


# ---- Model: pre-norm blocks with RoPE, QK-norm with a gain, grouped KV heads, ReLU^2, U-Net skips, the
# embedding mixed into every block ----

# What an artifact tells of its model.
MODEL_KNOBS = """vocab_size num_layers model_dim num_heads num_kv_heads mlp_mult tie_embeddings
rope_base logit_softcap train_seq_len eval_seq_len eval_stride""".split()
LOSS_TOKENS = 8192


def rope_tables(k, length, device, dtype):
	"""Cosines and sines [length, head_dim / 2]."""
	dim = k.model_dim // k.num_heads
	rates = k.rope_base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
	angle = torch.arange(length)[:, None] * rates
	return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def rotate(x, cos, sin):
	a, b = x.chunk(2, dim=-1)
	return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


def rms_norm(x):
	return F.rms_norm(x, x.shape[-1:], eps=1e-6)


class Linear(nn.Linear):
	"""Weights stay float32, cast where used."""

	def forward(self, x):
		return F.linear(x, self.weight.to(x.dtype))


def attend(q, k, v, span):
	"""Causal attention [batch, heads, length, head_dim] to at most `span` inputs, itself included; on a CPU
	in blocks, to skip most of what is masked."""
	length, fused = q.size(2), F.scaled_dot_product_attention
	if q.is_cuda and length <= span:
		return fused(q, k, v, is_causal=True)
	seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril().triu(1 - span)
	size = length if q.is_cuda else 128
	def block(at):
		part, keys = slice(at, at + size), slice(max(0, at + 1 - span), at + size)
		query, key, value, mask = q[:, :, part], k[:, :, keys], v[:, :, keys], seen[part, keys]
		if q.is_cuda or q.dtype == torch.float32:
			return fused(query, key, value, mask)
		# twice PyTorch's bfloat16 speed; keys of norm sqrt(head_dim) keep exp below e^80
		over = (query.detach().norm(dim=-1, keepdim=True) - 80).relu()
		weights = (query * q.size(-1) ** -0.5 @ key.mT - over).exp() * mask
		return weights @ value / weights.sum(-1, keepdim=True)

	return torch.cat([block(at) for at in range(0, length, size)], 2)


class Attention(nn.Module):
	def __init__(self, k):
		super().__init__()
		dim, self.heads, self.span = k.model_dim, k.num_heads, k.train_seq_len
		self.c_q, self.proj = (Linear(dim, dim, False) for _ in range(2))
		self.c_k, self.c_v = (Linear(dim, dim * k.num_kv_heads // self.heads, False) for _ in range(2))
		self.q_gain = nn.Parameter(torch.full((self.heads,), k.qk_gain_init))

	def forward(self, x, rope):
		"""[batch, length, dim], in and out. None attends past the trained length: docs/benchmarks.md."""
		rope, shape = [t[: x.size(1)] for t in rope], (*x.shape[:2], -1, x.size(2) // self.heads)
		q, k, v = (c(x).view(shape).transpose(1, 2) for c in (self.c_q, self.c_k, self.c_v))
		q = rotate(rms_norm(q), *rope) * self.q_gain.to(x.dtype)[:, None, None]
		k = rotate(rms_norm(k), *rope)
		k, v = (t.repeat_interleave(q.size(1) // t.size(1), dim=1) for t in (k, v))
		return self.proj(attend(q, k, v, self.span).transpose(1, 2).reshape(x.shape))


class MLP(nn.Module):
	def __init__(self, k):
		super().__init__()
		hidden = int(k.mlp_mult * k.model_dim)
		self.fc, self.proj = Linear(k.model_dim, hidden, False), Linear(hidden, k.model_dim, False)

	def forward(self, x):
		return self.proj(F.relu(self.fc(x)).square())


class Block(nn.Module):
	def __init__(self, k):
		super().__init__()
		self.attn, self.mlp, ones = Attention(k), MLP(k), torch.ones(k.model_dim)
		self.attn_scale, self.mlp_scale = nn.Parameter(ones.clone()), nn.Parameter(ones.clone())
		self.resid_mix = nn.Parameter(torch.stack((ones, 0 * ones)))

	def forward(self, x, x0, rope):
		keep, mix = self.resid_mix.to(x.dtype)
		x = keep * x + mix * x0
		x = x + self.attn_scale.to(x.dtype) * self.attn(rms_norm(x), rope)
		return x + self.mlp_scale.to(x.dtype) * self.mlp(rms_norm(x))


class GPT(nn.Module):
	def __init__(self, k, dtype=torch.float32):
		super().__init__()
		self.k, self.dtype, self.encoder_layers = k, dtype, k.num_layers // 2
		self.compile(False)
		self.tok_emb = nn.Embedding(k.vocab_size, k.model_dim)
		if k.tie_embeddings:
			nn.init.normal_(self.tok_emb.weight, std=k.tied_embed_init_std)
		self.blocks = nn.ModuleList(Block(k) for _ in range(k.num_layers))
		self.skip_weights = nn.Parameter(torch.ones(self.encoder_layers, k.model_dim))
		self.lm_head = None if k.tie_embeddings else Linear(k.model_dim, k.vocab_size, False)
		for name, p in self.named_parameters():
			if name.endswith(("proj.weight", "head.weight")):
				nn.init.zeros_(p)

	def compile(self, on):
		"""Blocks share what is compiled: sooner done, as fast."""
		parts = Block.forward, GPT.nats
		self.parts = [torch.compile(part, dynamic=False) for part in parts] if on else parts

	def features(self, tokens, rope, block_forward=Block.forward):
		"""int64 [batch, length] -> [batch, length, dim]."""
		x = rms_norm(self.tok_emb(tokens).to(self.dtype))
		x0, skips = x.clone(), []  # were x0 x, block 0 would compile anew
		for i, block in enumerate(self.blocks):
			if i >= self.encoder_layers and skips:
				x = x + self.skip_weights[i - self.encoder_layers].to(x.dtype) * skips.pop()
			x = block_forward(block, x, x0, rope)
			if i < self.encoder_layers:
				skips.append(x)
		return x

	def head(self, x):
		logits = F.linear(rms_norm(x), (self.lm_head or self.tok_emb).weight.to(x.dtype)).float()
		return self.k.logit_softcap * torch.tanh(logits / self.k.logit_softcap)

	def logits(self, tokens, rope, rows):
		"""int64 [batch, length] -> float32 [batch, rows, vocab], the last ones."""
		return self.head(self.features(tokens, rope)[:, -rows:])

	def nats(self, x, targets):
		return F.cross_entropy(self.head(x), targets, reduction="sum")

	def loss(self, tokens, rope):
		"""[batch, length + 1] -> mean nats a target. Compiled, no float32 logits outlive their chunk."""
		(block_forward, nats), targets = self.parts, tokens[:, 1:].flatten()
		x = self.features(tokens[:, :-1], rope, block_forward).flatten(0, 1)
		chunks = zip(x.split(LOSS_TOKENS), targets.split(LOSS_TOKENS))
		return sum(nats(self, *chunk) for chunk in chunks) / len(x)


# ---- Optimizers: Muon for matrices, Adam for embeddings and vectors ----


def newton_schulz(x, steps):
	"""About the nearest semi-orthogonal matrix to each of [n, rows, cols]: Muon's iteration, batched
	(K. Jordan, 2024, https://kellerjordan.github.io/posts/muon/)."""
	a, b, c = 3.4445, -4.7750, 2.0315
	tall = x.size(1) > x.size(2)
	x = x.mT if tall else x
	x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
	for _ in range(steps):
		gram = x @ x.mT
		x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
	return x.mT if tall else x


class Optimizers:
	def __init__(self, model, k, rank=0, world=1):
		self.k, self.params, self.dtype = k, list(model.parameters()), model.dtype
		self.rank, self.world, self.now = rank, world, self.params[0].new_zeros(2)  # scale, momentum
		embed_lr = k.tied_embed_lr if k.tie_embeddings else k.embed_lr
		rates, adam, muon = {"tok_emb.weight": embed_lr, "lm_head.weight": k.head_lr}, {}, {}
		for name, p in model.named_parameters():
			if name in rates or p.ndim < 2 or matches(name, k.control_tensor_name_patterns):
				adam.setdefault(rates.get(name, k.scalar_lr), []).append(p)
			else:
				muon.setdefault(p.shape, []).append(p)  # one batched product a shape
		groups = [dict(params=ps, lr=ps[0].new_zeros(()), base_lr=lr) for lr, ps in adam.items()]
		self.adam = torch.optim.Adam(groups, betas=(k.beta1, k.beta2), eps=k.adam_eps, fused=True)
		self.matrices = list(muon.values())
		self.momentum = [torch.zeros_like(torch.stack(group)) for group in self.matrices]

	def reset(self):
		torch._foreach_zero_(sum((list(s.values()) for s in self.adam.state.values()), self.momentum))

	def schedule(self, step, scale):
		"""For update number `step` (from 0), rates times `scale`."""
		k = self.k
		warm = min(1.0, step / max(k.muon_momentum_warmup_steps, 1))
		momentum = k.muon_momentum_warmup_start * (1 - warm) + k.muon_momentum * warm
		self.now[:1], self.now[1:] = scale, momentum  # no sync, as [0] would

	@torch.no_grad()
	def apply(self):
		"""What changes with the step lies in tensors: a CUDA graph keeps all else."""
		k, (scale, momentum) = self.k, self.now
		if k.grad_clip_norm:
			nn.utils.clip_grad_norm_(self.params, k.grad_clip_norm)
		for group in self.adam.param_groups:
			torch.mul(scale, group["base_lr"], out=group["lr"])
		self.adam.step()
		for params, buffer in zip(self.matrices, self.momentum):
			grad = torch.stack([p.grad for p in params])  # [n, rows, cols]
			buffer.mul_(momentum).add_(grad)
			nesterov = grad.addcmul_(buffer, momentum).to(self.dtype)
			update, mine = torch.zeros_like(nesterov), slice(self.rank, None, self.world)
			update[mine] = newton_schulz(nesterov[mine], k.muon_backend_steps)  # each rank its share
			if self.world > 1:
				dist.all_reduce(update)
			rate = scale * (k.matrix_lr * max(1.0, update.size(1) / update.size(2)) ** 0.5)
			torch._foreach_sub_(params, (update.float() * rate).unbind())


# ---- Schedule and budget: progress is a number from 0 to 1 ----


def lr_scale(k, progress, step):
	"""1, then straight to 0 over WARMDOWN_FRAC of the run, or WARMDOWN_ITERS of its step / progress steps."""
	part = k.warmdown_frac if k.warmdown_iters < 0 else k.warmdown_iters * progress / max(step, 1)
	return min(1.0, (1.0 - progress) / part) if part else 1.0


class Budget:
	"""The clock from the start of step 1 to the end of the last kept update."""

	def __init__(self, k, elapsed, clock):
		self.elapsed, self.clock, self.mark = elapsed, clock, clock()
		self.cap, self.limit = k.max_wallclock_seconds or math.inf, k.iterations or math.inf
		self.recent = [0.0]  # seconds of the last steps

	def lap(self):
		"""Ends a step; False, and not counted, if it ended past the budget."""
		now = self.clock()
		seconds, self.mark = now - self.mark, now
		self.recent = [*self.recent[-19:], seconds]
		fits = self.elapsed + seconds <= self.cap
		self.elapsed += seconds * fits
		return fits

	def over(self, step):
		"""Why no further step may begin; "" if the slowest of the last 20 would fit."""
		late = self.elapsed + max(self.recent) > self.cap
		return "iterations" if step >= self.limit else "wallclock_cap" if late else ""

	def progress(self, step):
		return min(1.0, max(self.elapsed / self.cap, step / self.limit))


# ---- Artifact: 20 bytes (magic, format, coder, unpacked length, CRC-32 of the rest), then coded: uint32
# length of a JSON header, the header (configuration; each tensor's name, shape, encoding), in its order all
# first arrays, then all scales: like bytes together pack better ----

PREFIX, MAGIC, FORMAT, ZLIB, MAX_UNPACKED = struct.Struct("<4sHHQI"), b"PGLA", 1, 1, 64 << 20
MAX_HEADER = 1 << 18  # bytes; 256 layers take 130,000
# A packed tensor is (encoding, arrays): int8 symbols [rows, cols] and fp16 scales [rows], or floats.
DTYPES = {"int8": ("i1", "<f2"), "fp16": ("<f2",), "fp32": ("<f4",)}


def quantize(matrix, step, bits):
	"""float32 [rows, cols] -> int8 symbols, fp16 row scales: `step` row deviations about zero, more where
	symbols would clip."""
	top = 2 ** (bits - 1) - 1
	deviation = np.sqrt(np.mean(np.square(matrix, dtype=np.float64), axis=1))
	scales = np.maximum(deviation * step, np.abs(matrix).max(1) / top).astype("<f2")
	divisor = np.where(scales > 0, scales, np.inf).astype(np.float32)[:, None]
	return [np.clip(np.rint(matrix / divisor), -top, top).astype("i1"), scales]


def dequantize(arrays):
	values, *scales = (a.astype(np.float32) for a in arrays)
	return (values.T * scales[0]).T if scales else values


@np.errstate(all="ignore")  # what overflows is refused below
def pack_tensors(weights, k, step):
	"""Matrices quantized, and these first; vectors and control tensors as fp16."""
	tensors = {}
	for name, value in weights.items():
		small = value.ndim != 2 or matches(name, k.control_tensor_name_patterns)
		full = matches(name, k.int8_keep_float_fp32_name_patterns)
		encoding = "fp32" if full else "fp16" if small else "int8"
		arrays = [value.astype(DTYPES[encoding][0])]
		if name == TEXT:
			arrays.append(np.ones(len(value), "<f2"))
		elif encoding == "int8":  # a logit adds up the errors of a row of the embedding or head
			arrays = quantize(value, step * (1 if name.startswith("blocks") else 0.6), k.quant_bits)
		need(np.isfinite(dequantize(arrays)).all(), f"{name}: too large for fp16; lower the rates")
		tensors[name] = encoding, arrays
	order = sorted(tensors, key=lambda name: (tensors[name][0] != "int8", name.split(".")[2:]))
	return {name: tensors[name] for name in order}


def serialize(config: dict, tensors: dict[str, tuple]):
	"""An artifact's bytes of a configuration and tensors by name; the inverse of parse."""
	entries = [[name, arrays[0].shape, encoding] for name, (encoding, arrays) in tensors.items()]
	header = json.dumps(dict(config=config, tensors=entries), separators=(",", ":")).encode()
	arrays = [a.tobytes() for i in (0, 1) for _, arrays in tensors.values() for a in arrays[i : i + 1]]
	payload = struct.pack("<I", len(header)) + header + b"".join(arrays)
	coded = zlib.compress(payload, 9)
	return PREFIX.pack(MAGIC, FORMAT, ZLIB, len(payload), zlib.crc32(coded)) + coded


def parse(blob: bytes):
	"""Configuration and tensors of anyone's bytes: any exception refuses them."""
	*kind, length, crc = PREFIX.unpack_from(blob)
	need(kind == [MAGIC, FORMAT, ZLIB], "wrong magic, format or coder")
	need(length <= MAX_UNPACKED, f"unpacks to {length} bytes, over {MAX_UNPACKED}")
	need(zlib.crc32(blob[PREFIX.size :]) == crc, "wrong CRC-32")
	decoder = zlib.decompressobj()
	payload = decoder.decompress(blob[PREFIX.size :], length + 1)  # no more is held
	need(len(payload) == length and decoder.eof, "does not unpack to its stated length")
	need(not decoder.unused_data, "bytes after the coded part")
	at = 4 + struct.unpack_from("<I", payload)[0]
	need(at <= MAX_HEADER, f"a header of {at} bytes, over {MAX_HEADER}")
	header = json.loads(payload[4:at])
	config, entries = header["config"], header["tensors"]
	forms = [json.dumps(header, separators=s).encode() for s in ((",", ":"), (", ", ": "))]
	need(payload[4:at] in forms and len(header) == 2, "a header that says more than it needs to")
	tensors = {name: (encoding, []) for name, _, encoding in entries}
	for i, (name, shape, encoding) in ((i, entry) for i in (0, 1) for entry in entries):
		for dtype in DTYPES[encoding][i : i + 1]:
			dims = shape[:1] if i else shape
			array = np.frombuffer(payload, dtype, math.prod(dims), at).reshape(dims)
			tensors[name][1].append(array)
			at += array.nbytes
	need(at == length and len(tensors) == len(entries), "bytes left over, or a name twice")
	return config, tensors


def export_artifact(weights, k, code_bytes):
	"""The artifact of float32 arrays, and its step in row deviations: 1/24, or what fits the cap less 5,000
	bytes (room to change the code), at most 2 (nearly all 0)."""
	config = {name: getattr(k, name) for name in MODEL_KNOBS}
	limit = k.artifact_cap_bytes - 5000 - code_bytes if k.artifact_cap_bytes else math.inf
	low, high, best, step = 1 / 24, 2.0, None, 1 / 24
	while high / low > 1.002:
		blob = serialize(config, pack_tensors(weights, k, step))
		if len(blob) <= limit:
			best, high = blob, step
		else:
			low = step
		step = math.sqrt(low * high)
	return best or serialize(config, pack_tensors(weights, k, high)), high


# ---- Mixer: what followed the last tokens before, in the training text and in the stream so far, mixed into
# the model's rows. Prediction by partial matching (Cleary, Witten 1984), with weights that are learnt ----

ORDERS = 1, 2, 3, 4, 6  # lengths of the contexts whose followers are counted
TEXT = "training_text"  # the tensor: int8 [2, tokens], each token's multiple of 32 and what is left
STREAM_COUNT = 2.0  # what a target of the stream adds; one of the training text adds 1
BINS, FIRST_WEIGHT = 12, 0.3  # classes of counts for the weights; a weight before it has learnt
POWER_RATE = 0.001  # of the gradient steps


def pack_text(shards):
	return np.stack(np.divmod(torch.cat(shards).cpu().numpy(), 32))


def unpack_text(planes, vocab_size):
	"""uint64 [tokens] of a tensor as pack_text makes it."""
	tokens = planes[0] * 32 + planes[1]
	need(len(planes) == 2 and tokens.min() >= 0 and tokens.max() < vocab_size, "its text is none")
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


# ---- Scorer, the submission interface: a stream's tokens in, the distribution after each out ----


class Scorer:
	"""Sliding windows: block b gives rows S*b .. S*b+S-1 (S: stride, E: seq_len) from inputs max(0, S*b+S-E)
	on. Blocks from input 0 share a pass, later ones are batched, one that a call cuts is redone."""

	def __init__(self, model, seq_len, stride, batch_tokens=0, mixer=None):
		self.model, self.seq_len, self.stride, self.mixer = model.eval(), seq_len, stride, mixer
		self.device = model.skip_weights.device
		usual = (1 << (27 if self.device.type == "cuda" else 24)) // model.k.vocab_size
		self.windows = max(1, (batch_tokens or usual) // seq_len)  # a pass
		self.rope = rope_tables(model.k, seq_len, self.device, model.dtype)
		self.reset()

	def reset(self):
		self.kept, self.position = np.zeros(0, np.int64), 0  # last inputs, number of inputs seen
		if self.mixer:
			self.mixer.reset()

	@torch.inference_mode()
	def log_probs(self, tokens):
		"""The next n >= 1 tokens of the stream -> float32 [n, vocab] natural-log probabilities: row i of the
		token after tokens[i], given the stream up to it."""
		new = np.asarray(tokens).astype(np.int64)
		known = new.ndim == 1 and len(new) and 0 <= new.min() and new.max() < self.model.k.vocab_size
		need(known, "tokens: a row of at least one id of the vocabulary")
		first, end = self.position, self.position + len(new)
		inputs = np.concatenate((self.kept, new))
		base, shared, out = end - len(inputs), self.seq_len // self.stride * self.stride, []
		if first < shared:  # rows whose window begins at input 0, which is inputs[0] here
			stop = min(shared, end)
			out.append(self.rows(inputs[None, :stop], stop - first))
		starts = np.arange(max(first, shared) // self.stride * self.stride, end, self.stride)
		for at in range(0, len(starts), self.windows):
			block = starts[at : at + self.windows]
			index = block[:, None] + np.arange(self.stride - self.seq_len, self.stride) - base
			# past `end` an input is repeated, unseen by the rows kept
			got = self.rows(inputs.take(index, mode="clip"), self.stride)
			out.append(got[max(first - block[0], 0) : end - block[0]])
		self.kept, self.position = inputs[-(self.seq_len + self.stride) :], end
		rows = torch.cat(out)
		return torch.from_numpy(self.mixer.mix(new, rows.cpu().numpy())) if self.mixer else rows

	def rows(self, windows, count):
		logits = self.model.logits(torch.from_numpy(windows).to(self.device), self.rope, count)
		return F.log_softmax(logits, dim=-1).flatten(0, 1)


def load_scorer(artifact_path, device="auto", dtype=None, batch_tokens=0):
	"""A Scorer of a packed artifact, which alone is read; a UserError says what is wrong."""
	path, device = Path(artifact_path), pick_device(device)
	try:
		need(path.stat().st_size <= MAX_UNPACKED, f"over {MAX_UNPACKED} bytes")
		config, tensors = parse(path.read_bytes())
		need(sorted(config) == sorted(MODEL_KNOBS), "its header misses knobs")
		k = read_knobs({name.upper(): f"{value:.17g}" for name, value in config.items()})
		weights = {name: torch.from_numpy(dequantize(arrays)) for name, (_, arrays) in tensors.items()}
		text, nothing = weights.pop(TEXT, None), np.zeros(0, np.uint64)
		mixer = Mixer(nothing if text is None else unpack_text(text.numpy(), k.vocab_size))
		with torch.device("meta"):  # shapes alone: nothing is allocated on the header's word
			shapes = {name: p.shape for name, p in GPT(k).named_parameters()}
		need(shapes == {name: w.shape for name, w in weights.items()}, "its tensors do not make its model")
	except Exception as e:  # whatever hostile bytes cause
		need(0, f"{path}: damaged, or no artifact ({e})")
	usual = torch.bfloat16 if device.type == "cuda" else torch.float32  # always the same
	model = GPT(k, dtype or usual).to(device)
	model.load_state_dict(weights)
	return Scorer(model, k.eval_seq_len, k.eval_stride, batch_tokens, mixer)


def score_stream(scorer, stream, log, stop=None):
	"""val_loss in nats a target, val_bpb in bits a byte, [nats, bytes] of 64 parts. None: stop was asked."""
	sizes, chunk, began = stream.target_bytes, scorer.windows * scorer.stride, time.monotonic()
	count, last, nats = len(sizes), began, np.empty(len(sizes))
	scorer.reset()
	for at in range(0, count, chunk):
		targets = stream.tokens[at + 1 : at + chunk + 1].astype(np.int64)
		rows = scorer.log_probs(stream.tokens[at : at + len(targets)])
		nats[at : at + chunk] = -rows[np.arange(len(targets)), targets].cpu()
		if stop and stop.asked:
			return None
		if (now := time.monotonic()) > last + 15:
			last, done = now, at + len(targets)
			log.line(f"scoring:{done}/{count} seconds_left:{(now - began) * (count - done) / done:.0f}")
	parts, total, size = np.arange(count) * 64 // count, float(nats.sum()), int(sizes.sum())
	segments = np.stack([np.bincount(parts, weights, 64) for weights in (nats, sizes)], 1).tolist()
	need(math.isfinite(total) and size, "the score is not finite; lower the rates")
	score = dict(val_loss=total / count, val_bpb=total / math.log(2) / size, targets=count, bytes=size)
	score |= dict(seq_len=scorer.seq_len, stride=scorer.stride, seconds=time.monotonic() - began)
	return score | dict(segments=[[n, int(b)] for n, b in segments])


# ---- Log, checkpoint, stop flag ----


class LineFile:
	"""A file to which whole lines are added. Where one cannot be written, that is said once and the run goes
	on; later lines are written when there is room again."""

	def __init__(self, path, append):
		if not append:
			open(path, "xb").close()
		self.path, self.failing, self.file = path, False, open(path, "ab+", buffering=0)
		if self.file.seek(0, os.SEEK_END):
			self.file.seek(-1, os.SEEK_END)
			if self.file.read(1) != b"\n":
				self.line("")  # ends a line that was cut off when the run before was

	def line(self, text):
		left, end = f"{text}\n".encode("utf-8", "surrogateescape"), None
		try:
			end = self.file.seek(0, os.SEEK_END)
			while left:
				left = left[self.file.write(left) :]
			self.failing = False
		except OSError as e:
			with suppress(OSError):
				self.file.truncate(end)  # no part of a line stays
			if not self.failing:
				warn(f"{told(e, self.path)}; its lines are lost until then, the run goes on")
			self.failing = True


class Log:
	"""train.log for people, metrics.jsonl for tools; or the console alone."""

	def __init__(self, folder, append=False, console=True):
		self.console, self.log, self.facts = console, None, None
		if not folder:
			return
		try:
			folder.mkdir(parents=True, exist_ok=True)
			self.log = LineFile(folder / "train.log", append)
			self.facts = LineFile(folder / "metrics.jsonl", append)
		except OSError as e:  # 'File exists': no run is overwritten
			need(0, f"{e.filename}: {e.strerror}; change RUN_ID or OUT_DIR, or go on with it by RESUME=1")

	def line(self, text, console=True):
		if self.console and console:
			say(re.sub(r"(?m)^(.{180}).{20,}$", r"\1 … (train.log has all)", text), sys.stdout)
		if self.log:
			self.log.line(text)

	def fact(self, event, text="", **values):
		self.line(text or "\n".join(f"{n}:{value}" for n, value in values.items() if value is not None))
		if self.facts:
			self.facts.line(json.dumps(dict(schema=1, event=event, time=time.time(), **values)))


CHECKPOINT = "checkpoint.pt"


def replace_file(path, write):
	"""All of what write(path) makes, or nothing."""
	part = path.with_suffix(".part")
	try:
		write(part)
		with part.open("rb") as file:
			os.fsync(file.fileno())  # on the disk before it has the name
		part.replace(path)
	finally:
		with suppress(OSError):
			part.unlink(missing_ok=True)


def find_checkpoint(run):
	"""The file that RESUME goes on from; None to begin."""
	if run.k.resume == "0":
		return None
	need(run.k.run_id, f"RESUME={run.k.resume}: set RUN_ID to the run's name, so that it is found", 2)
	found = [p for p in sorted(run.folder.glob("checkpoint.*")) if p.suffix != ".part"]
	if not found or run.folder / CHECKPOINT in found:
		return run.folder / CHECKPOINT if found else None
	need(0, f"{found[0]}: is another trainer's; go on with that one, or change RUN_ID")


def changes_since(run, knobs, data):
	"""What the weights depend on and is not as it was: 'NAME was ..., is ...'."""
	was, now = knobs | data, run.k._asdict() | run.data_facts
	names = [name for name in now | was if name not in FREE and now.get(name) != was.get(name)]
	return [f"{n.upper()} was {was.get(n, 'unknown')}, is {now.get(n, 'unknown')}" for n in names]


def save_checkpoint(run, step, elapsed):
	state = dict(knobs=run.k._asdict(), data=run.data_facts, step=step, elapsed=elapsed)
	state |= dict(model=run.model.state_dict(), dtype=run.model.dtype)
	state |= dict(adam=run.opt.adam.state_dict(), momentum=run.opt.momentum)
	try:
		replace_file(run.folder / CHECKPOINT, lambda part: torch.save(state, part))
	except (OSError, RuntimeError) as e:
		run.log.line(f"no checkpoint at step {step}, training goes on: {str(e)[:80]!r}")


def load_checkpoint(run):
	"""Loads the state; its step and elapsed training seconds."""
	path = run.checkpoint
	try:
		state = torch.load(path, map_location=run.device, weights_only=True)
		changes = changes_since(run, state["knobs"], state.get("data", {}))
	except OSError as e:
		need(0, told(e, path))
	except Exception as e:  # whatever a damaged file causes
		need(0, f"{path}: damaged ({type(e).__name__}); change RUN_ID, or delete it to begin anew")
	need(not changes, f"{path}: {'; '.join(changes)}; put that back, or change RUN_ID to begin anew", 2)
	try:
		run.model.load_state_dict(state["model"])
		run.opt.adam.load_state_dict(state["adam"])
		run.opt.momentum = state["momentum"]
		run.model.dtype = run.opt.dtype = state["dtype"]
	except (KeyError, ValueError, RuntimeError) as e:
		need(0, f"{path}: does not fit this script ({str(e)[:80]!r}); go on with the one that made it")
	for group in run.opt.adam.param_groups:
		group["capturable"] = False  # as a CUDA graph has it; a CPU cannot
	return state["step"], state["elapsed"]


class StopFlag:
	"""The first signal that asks to stop sets it: a run that trains ends after its step, saves, packs and
	scores. A second Ctrl-C or SIGTERM ends the process; a closing terminal may send SIGHUP twice."""

	def __init__(self, name):
		self.name, self.asked, self.training = name, False, True
		on_stop(self.ask)

	def ask(self, number, _):
		again, self.asked = self.asked, True  # first of all: a second signal may come in here
		if again and number in (signal.SIGINT, signal.SIGTERM):
			leave(f"stopped at once; RESUME=1 with RUN_ID={self.name} goes on from the last checkpoint")
		if not again:
			doing = "finishes the step, saves, packs" if self.training else "training is saved; packs"
			with suppress(OSError):
				os.write(2, f"stopping: {doing}, scores; again to stop at once\n".encode())


# ---- Run ----


def pick_device(name):
	cuda = torch.cuda.is_available()
	need(cuda or name != "cuda", "DEVICE=cuda: no CUDA device found; DEVICE=cpu does without", 2)
	return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda and name != "cpu" else "cpu")


def mean_seconds(device, count, action):
	"""Of `count` calls, after one that does not count."""
	wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
	action()
	wait()
	began = time.perf_counter()
	for _ in range(count):
		action()
	wait()
	return (time.perf_counter() - began) / count


def pick_dtype(device):
	"""bfloat16 where a trial product is faster so, else float32. A small trial first: bfloat16 can take ten
	times as long where a CPU has no instructions for it."""
	for rows, count in (256, 3), (2048, 20):
		a = torch.ones(rows, 192, device=device)
		b = a.bfloat16()
		slow, fast = (mean_seconds(device, count, lambda t=t: t @ t.T) for t in (a, b))
		if fast > 4 * slow:
			break
	return torch.bfloat16 if 1.3 * fast < slow else torch.float32


def fastest_attention(run):
	"""PyTorch's kernel that wins a trial at this shape, backward included; on a CPU all."""
	k, kinds, times = run.k, nn.attention.SDPBackend, {}
	kernels = [kinds.FLASH_ATTENTION, kinds.EFFICIENT_ATTENTION, kinds.CUDNN_ATTENTION, kinds.MATH]
	shape = run.micro, k.num_heads, k.train_seq_len, k.model_dim // k.num_heads
	q = torch.randn(shape, device=run.device, dtype=run.model.dtype, requires_grad=True)
	def trial():
		attend(q, q, q, k.train_seq_len).backward(q)

	for kernel in kernels[:3] * run.cuda:
		with suppress(RuntimeError), nn.attention.sdpa_kernel(kernel):  # not all work
			times[kernel] = mean_seconds(run.device, 9, trial)
			run.log.line(f"attention:{kernel.name} {1000 * times[kernel]:.3f}ms")
	return min(times, key=times.get, default=kernels)


def own_sources():
	"""Name -> bytes of this script and of the modules beside it that it and they import. All count."""
	found, waiting = {}, [SCRIPT]
	for path in waiting:
		source = found[path.name] = path.read_bytes()
		need(source.decode(errors="replace").encode() == source, f"{path}: not UTF-8; save it as UTF-8")
		pairs = re.findall(rb"\bfrom\s+(\w+)\s+import\b|\bimport\s+([\w., ]+)", source)
		names = [name.decode() for pair in pairs for part in pair for name in re.findall(rb"\w+", part)]
		beside = [SCRIPT.with_name(f"{name}.py") for name in names]
		waiting += [module for module in dict.fromkeys(beside) if module.is_file() and module not in waiting]
	return found


class Run:
	def __init__(self, k):
		self.k, self.device = k, pick_device(k.device)
		self.modules = own_sources()
		self.source = self.modules.pop(SCRIPT.name)
		self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
		unit, self.cuda = self.world * k.train_seq_len, self.device.type == "cuda"
		self.sequences, rest = divmod(k.train_batch_tokens, unit)  # a step, on this rank
		need(not rest, f"TRAIN_BATCH_TOKENS={k.train_batch_tokens}: no multiple of {unit}", 2)
		if self.cuda:
			torch.cuda.set_device(self.device)
			torch.cuda.set_stream(torch.cuda.Stream())  # the default one cannot be captured
		self.data, self.stream = TrainData(k, self.device), read_stream(k)
		self.data_facts = self.data.facts | self.stream.hashes
		self.folder = Path(k.out_dir) / (k.run_id or time.strftime("%Y%m%d-%H%M%S"))
		self.checkpoint = find_checkpoint(self)
		dtype = [pick_dtype(self.device)]
		if self.world > 1:
			dist.init_process_group("nccl" if self.cuda else "gloo")
			dist.broadcast_object_list(dtype)  # rank 0's
		torch.manual_seed(k.seed)
		self.model = GPT(k, *dtype).to(self.device)
		self.opt = Optimizers(self.model, k, self.rank, self.world)
		# half a GPU's memory, at about 60 bytes a token, layer and channel; a CPU's cache
		usual = torch.cuda.mem_get_info()[1] // (120 * k.num_layers * k.model_dim) if self.cuda else 4096
		fits = range(1, max(1, (k.micro_batch_tokens or usual) // k.train_seq_len) + 1)
		self.micro = max(m for m in fits if self.sequences % m == 0)  # sequences a pass
		self.start = load_checkpoint(self) if self.checkpoint else (0, 0.0)
		self.rope, self.reducing = rope_tables(k, k.train_seq_len, self.device, self.model.dtype), []
		for p in self.model.parameters() if self.world > 1 else []:
			p.register_post_accumulate_grad_hook(self.reduce)
		self.log = Log(None if self.rank else self.folder, k.resume != "0", not self.rank)
		self.attention = fastest_attention(self)

	def reduce(self, p):
		"""Sums a gradient over the ranks while backward goes on."""
		if self.last:
			self.reducing.append(dist.all_reduce(p.grad, async_op=True))

	def update(self, tokens):
		"""By this rank's int64 [sequences, length + 1], without host sync; all ranks' mean loss."""
		self.model.zero_grad()  # a failed step's too
		total = torch.zeros((), device=self.device)
		for at in range(0, self.sequences, self.micro):
			part, self.last = tokens[at : at + self.micro], at + self.micro == self.sequences
			with nn.attention.sdpa_kernel(self.attention):
				loss = self.model.loss(part, self.rope) * (self.micro / self.sequences / self.world)
			loss.backward()
			total += loss.detach()
		if self.world > 1:
			self.reducing.append(dist.all_reduce(total, async_op=True))
		while self.reducing:
			self.reducing.pop().wait()
		self.opt.apply()
		return total

	def capture(self, tokens):
		"""Makes `update` one CUDA graph: a tiny model's kernels are shorter than their launches."""
		graph, update = torch.cuda.CUDAGraph(), self.update
		for group in self.opt.adam.param_groups:
			group["capturable"] = True
		with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
			total = update(tokens)
		self.update = lambda batch: (tokens.copy_(batch), graph.replay(), total)[-1]


def shown(value):
	"""A path as text, whatever the locale made of its bytes."""
	return os.fsencode(value).decode("utf-8", "backslashreplace") if isinstance(value, str) else value


def describe(run):
	k, source, shards = run.k, run.source, run.data.shards
	knobs = {name.upper(): shown(value) for name, value in k._asdict().items()}
	name = torch.cuda.get_device_name() if run.cuda else f"{os.cpu_count()}-core {os.uname().machine} CPU"
	run.log.line(source.decode(), console=False)
	run.log.fact(
		"start", run_id=shown(run.folder.name), seed=k.seed, resumed=bool(run.checkpoint), script=SCRIPT.name,
		script_sha256=sha256(source), modules={name: sha256(blob) for name, blob in run.modules.items()},
		device=run.device.type, world_size=run.world,
		hardware=name, dtype=str(run.model.dtype)[6:], params=sum(p.numel() for p in run.opt.params),
		versions=dict(python=sys.version.split()[0], torch=torch.__version__, numpy=np.__version__),
		train_tokens=sum(map(len, shards)), micro_batch_tokens=run.micro * k.train_seq_len,
		train_files=len(shards), config=knobs,
		data=dict(name=shown(Path(k.val_data_path or k.data_path).name), **run.stream.hashes),
	)
	if k.resume != "0" and not run.checkpoint:
		run.log.line(f"RESUME={k.resume}: no {run.folder / CHECKPOINT} yet, so the run begins")
	(run.folder / "config.json").write_text(json.dumps(knobs), encoding="utf-8")
	for name, blob in {**run.modules, SCRIPT.name: source}.items():
		(run.folder / name).write_bytes(blob)


def train_step(run, tokens, step, scale):
	"""Update number `step`; its mean loss."""
	run.opt.schedule(step, scale)
	return run.update(tokens)


def attempt(run, name, action):
	"""Whether it worked. COMPILE=0 does not try, COMPILE=1 does not do without."""
	try:
		return run.k.compile != "0" and not action()
	except Exception as e:  # of many classes
		if run.k.compile == "1" or isinstance(e, torch.OutOfMemoryError):
			raise
		run.log.line(f"{name} failed ({type(e).__name__}): runs without, slower; COMPILE=1 tells why")
		return False


def warm_up(run):
	"""Compiles, runs a few steps on random tokens, restores all state, captures a CUDA graph."""
	k, count = run.k, max(run.k.warmup_steps, int(run.k.compile != "0"))
	tokens = torch.randint(k.vocab_size, (run.sequences, k.train_seq_len + 1), device=run.device)
	fresh = {name: p.clone() for name, p in run.model.state_dict().items()}
	def steps():
		for step in range(count):
			float(train_step(run, tokens, step, 1.0))

	run.model.compile(True)
	if not (compiled := attempt(run, "compile", steps)):
		run.model.compile(False)
		steps()
	run.model.load_state_dict(fresh)
	run.opt.reset()
	if run.checkpoint:
		load_checkpoint(run)
	if run.cuda and run.world == 1:
		attempt(run, "CUDA graph", lambda: run.capture(tokens))
	run.log.fact("warm_up", warmup_steps=count, compile=compiled)


def train(run, step, elapsed, clock=time.monotonic):
	"""Until budget, step limit or signal end it; says which."""
	run.stop = StopFlag(shown(run.folder.name))
	k, log, first, saved, discarded, loss, scale = run.k, run.log, step, elapsed, None, 0.0, 1.0
	budget, params = Budget(k, elapsed, clock), [p.detach() for p in run.opt.params]
	kept = [p.clone() for p in params]
	if k.keep_text:  # on the clock, as all that reads training tokens
		run.text = pack_text(run.data.shards)
	places = range(run.rank * run.sequences, sys.maxsize, run.world * run.sequences)  # this rank's batches
	tokens = run.data.batch(places[step], run.sequences)
	while True:
		state = ["interrupted" if run.stop.asked else budget.over(step), budget.progress(step)]
		if run.world > 1:
			dist.broadcast_object_list(state)  # rank 0's clock is everyone's
		reason, progress = state
		facts = dict(step=step, train_seconds=budget.elapsed, tokens=step * k.train_batch_tokens)
		at, ms = f"step:{step}/{k.iterations}", budget.elapsed * 1000
		timing = f"train_time:{ms:.0f}ms step_avg:{ms / max(step, 1):.2f}ms"
		if step > first:
			if k.train_log_every and (step <= first + 10 or step % k.train_log_every == 0) or reason:
				line = f"{at} train_loss:{loss:.4f} {timing}"
				log.fact("step", line, **facts, train_loss=loss, lr_scale=scale)
			due = reason or 0 < k.checkpoint_every_seconds < budget.elapsed - saved
			if due and not run.rank:
				save_checkpoint(run, step, saved := budget.elapsed)
			wanted = k.val_loss_every and (reason or step % k.val_loss_every == 0)
			if wanted and not run.rank and not run.stop.asked:
				began = clock()
				plain = Scorer(run.model, k.train_seq_len, k.train_seq_len, k.val_batch_size)
				log_score(plain, run.stream, log, "val", at, f" {timing}", 4, run.stop, **facts)
				run.model.train()
				budget.mark += clock() - began  # untimed
		if reason:
			break
		torch._foreach_copy_(kept, params)  # should this step end late, it is undone
		now = lr_scale(k, progress, step)
		got = train_step(run, tokens, step, now)
		tokens = run.data.batch(places[step + 1], run.sequences)  # while the device is at work
		got = float(got)
		need(math.isfinite(got), f"step {step + 1}: the loss is {got}; lower the rates")
		if budget.lap() or run.rank:  # rank 0 judges
			step, loss, scale = step + 1, got, now
		else:
			torch._foreach_copy_(params, kept)
			discarded = step + 1
			log.line(f"discarded_step:{discarded}")
	run.stop.training = False
	need(step > first or reason != "interrupted", "stopped before a step was done; nothing is lost", 130)
	log.line(f"stopping_early: {reason} train_time:{ms:.0f}ms {at}")
	line = f"train_seconds:{budget.elapsed:.3f} tokens:{facts['tokens']} steps:{step}"
	log.fact("train_end", line, **facts, reason=reason, discarded_step=discarded)
	return reason


def export(run):
	"""The artifact's path, the bytes left under the cap."""
	k, began, code = run.k, time.monotonic(), len(run.source)
	code += sum(len(name.encode()) + len(blob) for name, blob in run.modules.items())
	weights = {name: p.detach().cpu().numpy() for name, p in run.model.named_parameters()}
	if k.keep_text:
		weights[TEXT] = run.text
	blob, step = export_artifact(weights, k, code)
	path = run.folder / f"final_model.int{k.quant_bits}.{k.compressor}"
	try:
		replace_file(path, lambda part: part.write_bytes(blob))
	except OSError as e:  # the working directory may be on another disk
		warn(f"{told(e, path)}; the artifact goes to the working directory")
		replace_file(path := Path(f"{run.folder.name}-{path.name}"), lambda part: part.write_bytes(blob))
	run.log.line(f"quantized: step:std/{1 / step:.2f} bits:{k.quant_bits} coder:{k.compressor}")
	size, cap = len(blob), k.artifact_cap_bytes
	facts = dict(bytes_total=size + code, bytes_code=code, bytes_model=size, cap=cap)
	facts["headroom"] = room = cap - size - code
	line = "total_submission_size_quant_zlib:{} bytes code:{} model:{} cap:{} headroom:{}"
	line, facts["export_seconds"] = line.format(*facts.values()), time.monotonic() - began
	run.log.fact("export", line, **facts, step=step, artifact=path.name, artifact_sha256=sha256(blob))
	return path, room if cap else 0


def log_score(scorer, stream, log, event, head, tail="", digits=8, stop=None, **facts):
	if not (s := score_stream(scorer, stream, log, stop)):
		return
	line = f"{head} val_loss:{s['val_loss']:.{digits}f} val_bpb:{s['val_bpb']:.{digits}f}{tail}"
	log.fact(event, line, **facts, **s)


def score_artifact(path, k, stream, log, notes):
	"""Plain windows, then sliding ones."""
	sliding = load_scorer(path, k.device, batch_tokens=k.val_batch_size)
	name, count = Path(k.val_data_path or k.data_path).name, len(stream.target_bytes)
	length = sliding.model.k.train_seq_len
	notes += [f"data={shown(name)}"] if name != CHALLENGE_DATA else ["partial"] * (count < CHALLENGE_TARGETS)
	plain = Scorer(sliding.model, length, length, k.val_batch_size)
	tail = f" seq_len:{sliding.seq_len} stride:{sliding.stride} targets:{count}"
	tail += " note:" * bool(notes) + ",".join(notes)
	log_score(plain, stream, log, "score", "final_int8_zlib_roundtrip_exact", kind="roundtrip", notes=notes)
	log_score(sliding, stream, log, "score", "final_sliding_window_exact", tail, kind="sliding", notes=notes)


def run_all(k):
	if k.eval_only:
		return score_artifact(Path(k.eval_only), k, read_stream(k), Log(None), [])
	began, run = time.monotonic(), Run(k)
	if not run.rank:
		describe(run)
	warm_up(run)
	setup_seconds = time.monotonic() - began
	reason = train(run, *run.start)
	if run.world > 1:
		dist.destroy_process_group()
	if run.rank:
		return
	path, room = export(run)
	notes = ["resumed"] * bool(run.checkpoint) + ["interrupted"] * (reason == "interrupted")
	began = time.monotonic()
	score_artifact(path, k, run.stream, run.log, notes)
	facts = dict(setup_seconds=setup_seconds, eval_seconds=time.monotonic() - began)
	facts |= dict(peak_memory_bytes=torch.cuda.max_memory_allocated() or None, exit_code=int(room < 0))
	run.log.fact("end", **facts)
	need(room >= 0, f"{-room} bytes over the cap at the coarsest step; shrink the model")


def main():
	try:
		near_misses(os.environ)
		run_all(read_knobs(os.environ))
		return 0
	except UserError as e:
		message, code = e, e.code
	except OSError as e:
		message, code = told(e), 1
	except ImportError as e:
		message, code = f"{e}; pip install -r requirements-cuda.txt", 1
	except (RuntimeError, MemoryError) as e:
		if not matches(repr(e).lower(), "memoryerror,out of memory,alloc"):
			raise
		message, code = f"out of memory ({str(e)[:80]!r}); lower MICRO_BATCH_TOKENS or VAL_BATCH_SIZE", 3
	say(f"{SCRIPT.name}: error: {message}", sys.stderr)
	return code


if __name__ == "__main__":
	exit_code = main()
	for stream in filter(None, (sys.stdout, sys.stderr)):
		try:
			stream.flush()
		except OSError:  # nobody reads it, and Python would fail on that as it ends
			os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
	sys.exit(exit_code)
