"""Scoring against full passes over the same windows; docs/benchmarks.md has the figures. No test."""

import time

import torch

import train_gpt as T

k = T.read_knobs({})
model, device = T.GPT(k).eval(), torch.device("cpu")
rope = T.rope_tables(k, 1024, device, torch.float32)
windows, stride = 16, 64
tokens = torch.randint(0, 1024, (windows, 1024))


def whole(rows):  # every block in full; logits for `rows` rows
    x = x0 = T.rms_norm(model.tok_emb(tokens))
    skips = []
    for i, block in enumerate(model.blocks):
        if i >= model.encoder_layers and skips:
            x = x + model.skip_weights[i - model.encoder_layers] * skips.pop()
        x = block(x, x0, rope, 1024)
        if i < model.encoder_layers:
            skips.append(x)
    return 30 * torch.tanh(T.F.linear(T.rms_norm(x[:, -rows:]), model.tok_emb.weight) / 30)


scorer = T.Scorer(model, 1024, stride)
stream = torch.randint(0, 1024, (1024 + windows * stride,)).numpy()
scorer.log_probs(stream[:1024])


def score():
    scorer.position, scorer.kept = 1024, stream[:1024].astype("int64")
    return scorer.log_probs(stream[1024:])


with torch.inference_mode():
    times = {"passes": [], "scoring": []}
    for _ in range(6):
        for name, call in (("passes", lambda: whole(stride)), ("scoring", score)):
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
a, b = (sorted(times[name])[2] for name in ("passes", "scoring"))
print(f"passes {a:.2f} s, scoring {b:.2f} s, ratio {b / a:.2f}; targets/s {windows * stride / b:.0f}")
