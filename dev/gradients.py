"""How far bfloat16 on a CPU turns training's gradients from float32's, batch by batch of an artifact's model,
with the trainer's attention and with PyTorch's kernel. docs/floors.md has figures.

    DATA_PATH=… TOKENIZER_PATH=… PYTHONPATH=. python3 dev/gradients.py ARTIFACT
"""

import os
import sys
from dataclasses import replace

import torch
from torch.nn.functional import scaled_dot_product_attention

import train_gpt as T

BATCHES, SEQUENCES = 32, 8  # batches of 4,096 tokens, as in configs/cpu_10min.env
KINDS = {"queries, keys": ("c_q.", "c_k."), "values, output": ("c_v.", "attn.proj."), "MLP": ("mlp.",)}
ours = T.attend


def fused(q, k, v, span):
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def gradients(model, tokens, attend):
    """Of one batch: kind -> float32 [all its weights]."""
    T.attend = attend  # traced anew, since compiled code guards it
    model.zero_grad()
    model.loss(tokens).backward()
    grads = {name: p.grad.flatten() for name, p in model.named_parameters()}
    return {
        kind: torch.cat([g for name, g in grads.items() if any(part in name for part in parts)])
        for kind, parts in KINDS.items()
    }


k = T.load_scorer(sys.argv[1], "cpu").model.k
data = T.TrainData(replace(T.read_knobs(os.environ), train_seq_len=k.train_seq_len), torch.device("cpu"))
models = []
for dtype in (torch.float32, torch.bfloat16):
    models.append(T.load_scorer(sys.argv[1], "cpu", dtype).model.train())
    if os.environ.get("COMPILE") != "0":
        models[-1].compile(T.Block.forward, T.GPT.nats)
exact, rounded = models
found = {"float32": [], "the trainer's": [], "PyTorch's kernel": []}
for at in range(BATCHES):
    tokens = data.batch(at * SEQUENCES, SEQUENCES)
    for label, model, attend in zip(found, (exact, rounded, rounded), (fused, ours, fused)):
        found[label].append(gradients(model, tokens, attend))
for kind in KINDS:
    truth, *others = (torch.stack([batch[kind] for batch in batches]) for batches in found.values())
    mean = truth.mean(0)
    print(f"{kind}: a batch from the mean {(truth - mean).norm(dim=1).mean() / mean.norm():.2f} of the mean")
    for label, grads in zip(list(found)[1:], others):
        error = grads - truth
        one, all_of_them = (error.norm(dim=1) / truth.norm(dim=1)).mean(), error.mean(0).norm() / mean.norm()
        print(f"  {label}: a batch {one:.4f} of its norm, their mean {all_of_them:.4f}")
