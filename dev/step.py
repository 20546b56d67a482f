"""Where a compiled training step's CPU time goes: kernels by kind, against the products alone at their peak.

    OMP_NUM_THREADS=1 PYTHONPATH=. python3 dev/step.py                          # 3 heads of 64
    OMP_NUM_THREADS=1 NUM_HEADS=6 MLP_MULT=3 PYTHONPATH=. python3 dev/step.py   # 6 heads of 32

A step's CPU time (of the process, lowest of ROUNDS) is shared out by PyTorch's profiler, so other work on the
machine changes little. "Products alone": the same shapes, again and again on the same operands.
docs/floors.md has figures.
"""

import os
import re
import time
from collections import Counter

import torch
from torch._inductor import config
from torch.profiler import ProfilerActivity, profile

import train_gpt as T

ROUNDS, PASSES = 3, 4  # steps; passes of 4,096 tokens in a step
KINDS = {  # the first that fits an operator's name
    "attention": "attention",
    "optimizer": "bmm|adam|foreach|aten::stack",
    "products": r"aten::(mm|addmm)$|mkl_linear|linear_pointwise",
    "compiled elementwise": "cpp_fused|graph_",
}


def kind_of(name):
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "the rest")


def cpu_seconds(action, rounds):
    """The lowest of several rounds."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        action()
        times.append(time.process_time() - began)
    return min(times)


def product_seconds(products):
    """Of each (rows, inner, columns), alone."""
    total = 0.0
    for (rows, inner, columns), count in products.items():
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        total += count * cpu_seconds(lambda a=a, b=b: a @ b, 5)
    return total


def products_of(events):
    """(rows, inner, columns) of a matrix product -> how often."""
    shapes = Counter()
    for event in events:
        if kind_of(event.name) == "products":
            two = [shape for shape in event.input_shapes if len(shape) == 2][:2]
            if len(two) == 2 and two[0][1] == two[1][0]:
                shapes[(*two[0], two[1][1])] += 1
    return shapes


def main():
    config.cpp.enable_kernel_profile = True
    k = T.read_knobs(os.environ)
    torch.manual_seed(0)
    model = T.GPT(k)
    model.compiled = {part: torch.compile(part, dynamic=False) for part in (T.Block.forward, T.GPT.nats)}
    opt = T.Optimizers(model, k)
    tokens = torch.randint(k.vocab_size, (4096 // k.train_seq_len, k.train_seq_len + 1))

    def step():
        model.zero_grad()
        for _ in range(PASSES):
            (model.loss(tokens) / PASSES).backward()
        opt.schedule(0, 0.0)
        opt.apply()

    step()
    seconds = cpu_seconds(step, ROUNDS)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        step()
    events = profiler.events()
    shares, calls = Counter(), Counter()
    for event in events:
        shares[kind_of(event.name)] += event.self_cpu_time_total
        calls[kind_of(event.name)] += 1
    tokens_a_step = PASSES * 4096
    print(f"{1e6 * seconds / tokens_a_step:.1f} us a token, {tokens_a_step / seconds:,.0f} tokens/s")
    for kind, there in shares.most_common():
        part = there / shares.total()
        microseconds = 1e6 * part * seconds / tokens_a_step
        print(f"{kind:22} {part:6.1%} {microseconds:7.1f} us a token, {calls[kind]} calls")
    shapes = products_of(events)
    alone = product_seconds(shapes)
    operations = sum(2 * a * b * c * count for (a, b, c), count in shapes.items())
    rate = operations / alone / 1e9
    print(f"products alone {1e6 * alone / tokens_a_step:.1f} us a token, {rate:.0f} GFLOP/s")
    for name, row in Counter({e.key: e.self_cpu_time_total for e in profiler.key_averages()}).most_common(12):
        print(f"    {row / shares.total():6.1%} {name}")


if __name__ == "__main__":
    main()
