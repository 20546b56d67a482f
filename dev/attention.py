"""Times one layer's attention on a CPU, forward and backward, and products alone, in the type that the
trainer takes here: CPU time of all threads, lowest of ROUNDS, in turn. docs/floors.md has figures.

    OMP_NUM_THREADS=1 PYTHONPATH=. python3 dev/attention.py
"""

import time

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

import train_gpt as T

LENGTH, SEQUENCES, ROUNDS = 512, 8, 8  # a micro-batch of 4,096 tokens
DIM, HIDDEN, VOCAB = 192, 576, 1024
DTYPE = T.pick_dtype(torch.device("cpu"))


def whole(q, k, v, span):
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def blocks_of(queries):
    def attend(q, k, v, span):
        usual, T.CPU_BLOCK = T.CPU_BLOCK, queries // 2
        rows = T.attend(q, k, v, span)
        T.CPU_BLOCK = usual
        return rows

    return attend


def lowest(actions):
    """Microseconds a token of each."""
    seconds = [[] for _ in actions]
    for _ in range(ROUNDS + 1):  # the first does not count: it compiles
        for action, times in zip(actions, seconds):
            began = time.process_time()
            action()
            times.append(time.process_time() - began)
    return [1e6 * min(times[1:]) / LENGTH / SEQUENCES for times in seconds]


ways = {f"blocks of {queries}": blocks_of(queries) for queries in (32, 64, 128, 256)}
ways = {"PyTorch's kernel, whole": whole} | ways
ways["the trainer's blocks, compiled"] = torch.compile(T.attend, dynamic=False)


def passes(attend, parts):
    return lambda: attend(*parts, LENGTH).sum().backward()


for heads, size in ((6, 32), (3, 64)):
    shape = (SEQUENCES, heads, LENGTH, size)
    parts = [torch.randn(shape, dtype=DTYPE, requires_grad=True) for _ in range(3)]
    for name, microseconds in zip(ways, lowest([passes(attend, parts) for attend in ways.values()])):
        print(f"{heads} heads of {size}, {DTYPE}, {name}: {microseconds:.1f} us a token", flush=True)
for width, out in ((DIM, 2 * DIM), (DIM, DIM), (DIM, HIDDEN), (HIDDEN, DIM), (DIM, VOCAB)):
    x, w = (torch.randn(n, width, dtype=DTYPE) for n in (SEQUENCES * LENGTH, out))
    (microseconds,) = lowest([lambda x=x, w=w: linear(x, w)])
    print(f"product of {width} x {out}: {2e-3 * width * out / microseconds:.0f} GFLOP/s", flush=True)
