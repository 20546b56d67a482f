"""The trainers' model in numpy, token by token, with cached keys and values.

A trainer's Scorer computes a whole window for every token of text that is asked for by itself: 10 to 60
tokens a second. This one has the same interface. It is used for text only if it is known to be the same model
(see/reader.py); tests compare it with load_scorer of both trainers. It runs no script.
"""

import numpy as np

from golf.see.weights import Weights

# Known settings of a model; those in the last line do not change its forward pass.
SETTINGS = frozenset(
    """
    vocab_size num_layers model_dim num_heads num_kv_heads mlp_mult tie_embeddings rope_base logit_softcap
    train_seq_len
    eval_seq_len eval_stride qk_gain_init tied_embed_init_std followers
    """.split()
)


class CachedModel:
    """A Scorer (docs/submission_interface.md) of the trainers' forward pass, in float32."""

    def __init__(self, weights: Weights):
        """KeyError or ValueError if the tensors or settings are not those of the trainers' model."""
        config, self.w = weights.config, {n: t.values() for n, t in weights.tensors.items()}
        self.layers, self.heads = config["num_layers"], config["num_heads"]
        self.kv_heads, self.span = config["num_kv_heads"], config["train_seq_len"]
        self.softcap, dim = config["logit_softcap"], config["model_dim"]
        self.head_dim = dim // self.heads
        self.rates = config["rope_base"] ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        head = "tok_emb.weight" if config["tie_embeddings"] else "lm_head.weight"
        known = {"tok_emb.weight", "skip_weights", head}
        names = ("attn.c_q.weight", "attn.c_k.weight", "attn.c_v.weight", "attn.proj.weight", "attn.q_gain")
        names += ("mlp.fc.weight", "mlp.proj.weight", "attn_scale", "mlp_scale", "resid_mix")
        known |= {f"blocks.{i}.{name}" for i in range(self.layers) for name in names}
        if known != set(self.w):
            raise ValueError(f"tensors of another model: {', '.join(sorted(known ^ set(self.w))[:4])}")
        if config.keys() - SETTINGS:  # a setting that nobody here knows may change the forward pass
            raise ValueError(f"settings of another model: {', '.join(sorted(config.keys() - SETTINGS)[:4])}")
        self.output = self.w[head]
        self.blocks = [{n: self.w[f"blocks.{i}.{n}"] for n in names} for i in range(self.layers)]
        self.reset()

    def reset(self) -> None:
        """Begins a stream."""
        self.position = 0
        self.cache: list = [None] * self.layers  # keys and values [kv_heads, inputs, head_dim]

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """The next n >= 1 tokens of the stream -> float32 [n, vocab], log-probabilities of what follows."""
        tokens = np.asarray(tokens, np.int64)
        angle = (self.position + np.arange(len(tokens)))[:, None] * self.rates
        rope = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        x = x0 = rms_norm(self.w["tok_emb.weight"][tokens])
        encoder_layers, skips = self.layers // 2, []
        for i in range(self.layers):
            if i >= encoder_layers and skips:
                x = x + self.w["skip_weights"][i - encoder_layers] * skips.pop()
            x = self.block(i, x, x0, rope)
            if i < encoder_layers:
                skips.append(x)
        self.position += len(tokens)
        logits = self.softcap * np.tanh(rms_norm(x) @ self.output.T / self.softcap)
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def block(self, i: int, x, x0, rope) -> np.ndarray:
        """[n, dim], in and out."""
        w = self.blocks[i]
        keep, mix = w["resid_mix"]
        x = keep * x + mix * x0
        x = x + w["attn_scale"] * self.attention(i, w, rms_norm(x), rope)
        hidden = np.maximum(rms_norm(x) @ w["mlp.fc.weight"].T, 0) ** 2
        return x + w["mlp_scale"] * (hidden @ w["mlp.proj.weight"].T)

    def attention(self, i: int, w: dict, x, rope) -> np.ndarray:
        """Causal, to at most `span` inputs, itself included; keys and values of earlier calls are kept."""
        shape = len(x), -1, self.head_dim
        q, k, v = ((x @ w[f"attn.c_{c}.weight"].T).reshape(shape).transpose(1, 0, 2) for c in "qkv")
        q = rotate(rms_norm(q), *rope) * w["attn.q_gain"][:, None, None]
        k = rotate(rms_norm(k), *rope)  # [kv_heads, n, head_dim]
        if self.cache[i] is not None:
            k, v = (np.concatenate(pair, axis=1) for pair in zip(self.cache[i], (k, v)))
        self.cache[i] = k[:, 1 - self.span :], v[:, 1 - self.span :]
        groups = q.reshape(self.kv_heads, -1, len(x), self.head_dim)  # heads that share keys and values
        scores = groups @ k[:, None].swapaxes(-1, -2) / np.sqrt(np.float32(self.head_dim))
        ahead = np.arange(k.shape[1]) - np.arange(k.shape[1] - len(x), k.shape[1])[:, None]  # key less query
        scores = np.where((ahead <= 0) & (ahead > -self.span), scores, -np.inf)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = scores / scores.sum(axis=-1, keepdims=True) @ v[:, None]
        mixed = mixed.reshape(self.heads, len(x), self.head_dim).transpose(1, 0, 2).reshape(len(x), -1)
        return mixed @ w["attn.proj.weight"].T


def rms_norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-6))


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * cos + b * sin, b * cos - a * sin), axis=-1)
