"""Times attention, forward and backward, of one layer on a CPU: PyTorch's fused kernel, and ours.

PYTHONPATH=. python3 dev/attention.py
"""

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.benchmark import Timer

import train_gpt as T

LENGTH, SEQUENCES = 512, 8  # a micro-batch of 4,096 tokens


def fused(q, k, v, span):
    return scaled_dot_product_attention(q, k, v, is_causal=True)


for heads, size in ((6, 32), (3, 64)):
    for dtype in (torch.float32, torch.bfloat16):
        shape = (SEQUENCES, heads, LENGTH, size)
        q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
        times = []
        for attend in (fused, T.attend, torch.compile(T.attend, dynamic=False)):
            names = dict(attend=attend, q=q, k=k, v=v, span=LENGTH)
            threads = torch.get_num_threads()
            timer = Timer("attend(q, k, v, span).sum().backward()", globals=names, num_threads=threads)
            timer.timeit(3)
            times.append(1000 * timer.timeit(20).median)
        print(f"{heads} heads of {size}, {dtype}: fused {times[0]:.1f} ms, blocks {times[1]:.1f}", end="")
        print(f", blocks compiled {times[2]:.1f} ({times[0] / times[2]:.2f}x)")
