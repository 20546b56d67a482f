"""What rounding costs: each kind of matrix alone at one step; then all, at so many bits
a weight, with the embedding's step at several shares of the others'.

The unpacked weights of a run's checkpoint, in plain windows, on the last 16,384 tokens of its last
training shard: validation text chooses nothing.

python3 dev/rounding.py runs/NAME [SCRIPT]
"""

import json
import sys
from collections import defaultdict
from importlib.util import module_from_spec, spec_from_file_location
from math import log, sqrt
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

ALONE, BITS, SHARES = 0.4, (4.4, 3.8, 3.4), (1, 0.6, 0.2, 0.1, 0.05)
run, script = Path(sys.argv[1]), Path(sys.argv[2] if sys.argv[2:] else "train_gpt.py")
spec = spec_from_file_location("trainer", script)
T = sys.modules["trainer"] = module_from_spec(spec)
spec.loader.exec_module(T)

config = {name.upper(): str(value) for name, value in json.loads((run / "config.json").read_text()).items()}
k = T.read_knobs(config | dict(RESUME="0", DEVICE="cpu"))
model = T.GPT(k)
model.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["model"])
matrices = {
    name: p.detach().numpy().copy()
    for name, p in model.named_parameters()
    if p.ndim == 2 and not T.matches(name, k.control_tensor_name_patterns)
}
kinds = defaultdict(list)  # c_q of all blocks, ...
for name in matrices:
    kinds[name.removesuffix(".weight").split(".", 2)[-1]].append(name)
weights = sum(matrix.size for matrix in matrices.values())

stream = T.read_stream(k)
nats_to_bpb = len(stream.target_bytes) / stream.target_bytes.sum() / log(2)
shard = sorted(Path(k.data_path).glob("fineweb_train_*.bin"))[-1]
tokens = torch.from_numpy(np.fromfile(shard, "<u2", offset=1024)[-16385:].astype(np.int64))
inputs, targets = tokens[:-1].reshape(-1, k.train_seq_len), tokens[1:].reshape(-1, k.train_seq_len)


@torch.inference_mode()
def score():
    parts = zip(inputs.split(8), targets.split(8))
    nats = [cross_entropy(model.logits(x, x.size(1)).mT, y, reduction="sum") for x, y in parts]
    return float(sum(nats)) / targets.numel() * nats_to_bpb


@torch.no_grad()
def rounded(steps):
    """Rounds each kind of matrix by its step (0: not at all); bits a weight, by the symbols' entropy."""
    bits = 0
    for kind, names in kinds.items():
        for name in names:
            value = matrices[name]
            if steps[kind]:
                packed = T.quantize(value, steps[kind], k.quant_bits)
                shares = np.unique(packed[0], return_counts=True)[1] / value.size
                bits += 16 * len(packed[1]) - value.size * (shares * np.log2(shares)).sum()
                value = T.dequantize(packed)
            model.get_parameter(name).copy_(torch.from_numpy(value))
    return bits / weights


def at_bits(bits, factors):
    """The common step at which all take `bits` a weight, by bisection; leaves the model so."""
    low, high = 0.02, 4.0
    for _ in range(12):
        step = sqrt(low * high)
        if rounded({kind: step * factor for kind, factor in factors.items()}) > bits:
            low = step
        else:
            high = step
    return step


rounded(dict.fromkeys(kinds, 0))
unpacked = score()
print(f"{run.name}: {weights} weights in matrices, unpacked {unpacked:.4f}")
print(f"each kind alone at a step of {ALONE}:")
for kind, names in kinds.items():
    rounded({other: ALONE * (other == kind) for other in kinds})
    print(f"  {kind:12} {sum(matrices[n].size for n in names):9} weights {score() - unpacked:+.4f}")
for share in SHARES:
    for bits in BITS:
        step = at_bits(bits, {kind: share if kind == "tok_emb" else 1 for kind in kinds})
        print(f"embedding at {share} of {step:.3f}: {bits} bits a weight, {score() - unpacked:+.4f}")
