"""What packing costs at so many bits a weight, with the trainer's steps and with others.

The unpacked weights of a run's checkpoint, in plain windows, on the last 32,768 tokens of its last
training shard: validation text chooses nothing. Bits are the artifact's, by zlib.

python3 dev/rounding.py runs/NAME [SCRIPT]
"""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from math import log, sqrt
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

BITS = 6.6, 5.5, 4.4, 3.8, 3.4
run, script = Path(sys.argv[1]), Path(sys.argv[2] if sys.argv[2:] else "train_gpt.py")
spec = spec_from_file_location("trainer", script)
T = sys.modules["trainer"] = module_from_spec(spec)
spec.loader.exec_module(T)

config = {name.upper(): str(value) for name, value in json.loads((run / "config.json").read_text()).items()}
k = T.read_knobs(config | dict(RESUME="0", DEVICE="cpu"))
checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
model = T.GPT(k)
model.load_state_dict(checkpoint["model"])
weights = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
optimizers = T.Optimizers(model, k)
for p in model.parameters():
    p.grad = torch.zeros_like(p)
optimizers.adam.step()  # makes its state
torch._foreach_copy_(optimizers.state(), checkpoint["optimizers"])
columns = optimizers.column_steps(model)
count = sum(weights[name].size for name in columns)

stream = T.read_stream(k)
nats_to_bpb = len(stream.target_bytes) / stream.target_bytes.sum() / log(2)
shard = sorted(Path(k.data_path).glob("fineweb_train_*.bin"))[-1]
tokens = torch.from_numpy(np.fromfile(shard, "<u2", offset=1024)[-32769:].astype(np.int64))
inputs, targets = tokens[:-1].reshape(-1, k.train_seq_len), tokens[1:].reshape(-1, k.train_seq_len)


@torch.inference_mode()
def score(values):
    for name, value in values.items():
        model.get_parameter(name).copy_(torch.from_numpy(value))
    parts = zip(inputs.split(8), targets.split(8))
    nats = [cross_entropy(model.logits(x, x.size(1)).mT, y, reduction="sum") for x, y in parts]
    return float(sum(nats)) / targets.numel() * nats_to_bpb


def packed_at(bits, columns):
    """The weights as unpacked, at the finest step that takes at most `bits` a weight, and that step."""
    low, high = 0.01, 4.0
    for _ in range(14):
        step = sqrt(low * high)
        tensors = T.pack_tensors(weights, columns, step, k)
        low, high = (step, high) if 8 * len(T.serialize({}, tensors)) > bits * count else (low, step)
    return {name: T.dequantize(arrays) for name, (_, arrays) in tensors.items()}, step


unpacked = score(weights)
print(f"{run.name}: {count} weights in matrices, unpacked {unpacked:.4f}")
kinds = {
    "by gradients": columns,
    "by deviation": {name: weights[name].std(0) for name in columns},
    "equal": {name: np.ones_like(column) for name, column in columns.items()},
}
for bits in BITS:
    for kind, steps in kinds.items():
        values, step = packed_at(bits, steps)
        print(f"{bits} bits, {kind:12} {step:.3f} {score(values) - unpacked:+.4f}")
