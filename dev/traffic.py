"""Bytes and kernels of a layer on a GPU, by Inductor's own estimates for a device that is not there. Wants
a CUDA build of PyTorch, no GPU. The defaults are the reference job's; the environment changes them.

    PYTHONPATH=. python3 dev/traffic.py 8.9            # what a layer moves
    PYTHONPATH=. python3 dev/traffic.py 7.5 compile    # and whether ptxas takes its Triton kernels

The step is traced on the CPU with tensors that hold nothing, then moved to the device and lowered for it.
"""

import copy
import functools
import os
import re
import sys
from types import SimpleNamespace
from unittest import mock

import torch
from torch._dynamo.utils import detect_fake_mode
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor import compile_fx, graph, ir, scheduler
from torch._inductor import config as inductor
from torch._inductor.codecache import PyCodeCache
from torch._inductor.exc import InductorError
from torch._inductor.runtime import triton_helpers
from torch._subclasses import FakeTensorMode
from torch.utils._triton import has_triton

import train_gpt as T

# capability: multiprocessors, threads that one holds (T4, RTX 4090, H100, B200)
DEVICES = {"7.5": (40, 1024), "8.9": (128, 1536), "9.0": (132, 2048), "10.0": (148, 2048)}
LAYER = 65536  # tokens


def faked(capability):
    """What PyTorch asks of a device, answered for one of this capability."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    major, minor = map(int, capability.split("."))
    processors, threads = DEVICES[capability]
    properties = SimpleNamespace(
        name="none", major=major, minor=minor, multi_processor_count=processors, total_memory=16 << 30,
        max_threads_per_multi_processor=threads, regs_per_multiprocessor=65536, warp_size=32,
        max_threads_per_block=1024, shared_memory_per_block_optin=64 << 10,
    )  # fmt: skip
    target = GPUTarget("cuda", 10 * major + minor, 32)
    driver.set_active(SimpleNamespace(get_current_target=lambda: target))
    answers = dict(
        is_available=lambda: True, device_count=lambda: 1, current_device=lambda: 0, _lazy_init=lambda: None,
        _get_device_properties=lambda *_: properties, get_rng_state=lambda *_: torch.zeros(1),
        set_rng_state=lambda *_: None, _exchange_device=lambda *_: 0, _maybe_exchange_device=lambda *_: 0,
    )  # fmt: skip
    return mock.patch.multiple(torch.cuda, create=True, **answers)


class Lowered(Exception):
    """Ends the compiler where it would load what it generated."""


class Lowering:
    """A compiler for torch.compile that runs what it is given as it is, and keeps what Inductor would run."""

    def __init__(self, capability):
        self.fakes = functools.partial(faked, capability)
        self.bytes, self.kernels, self.code = 0, 0, []

    def __call__(self, module, inputs):
        return compile_fx.compile_fx(module, inputs, inner_compile=self.lower)

    def lower(self, module, inputs, **options):
        """Of one graph, forward or backward."""
        moved, cuda = copy.deepcopy(module), torch.device("cuda:0")
        for node in moved.graph.nodes:
            is_device = {name: isinstance(value, torch.device) for name, value in node.kwargs.items()}
            node.kwargs = {name: cuda if is_device[name] else v for name, v in node.kwargs.items()}
        moved.recompile()
        with (
            self.fakes(),
            mock.patch.object(graph.GraphLowering, "compile_to_module", lambda found: self.keep(found)),
        ):
            has_triton.cache_clear()  # it was asked on the CPU
            with detect_fake_mode(inputs):
                there = [
                    torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=cuda)
                    if isinstance(x, torch.Tensor) else x for x in inputs
                ]  # fmt: skip
            try:
                compile_fx.compile_fx_inner(moved, there, **options)
            except InductorError as error:
                if not isinstance(error.inner_exception, Lowered):
                    raise
            has_triton.cache_clear()
        return make_boxed_func(module.forward)

    def keep(self, lowering):
        self.code.append(lowering.codegen()[0].value)
        self.bytes += lowering.count_bytes()[0]
        for node in lowering.scheduler.nodes:  # a kernel's further outputs are no launches, nor is a view
            further = isinstance(node.node, ir.MultiOutput)
            self.kernels += not (further or isinstance(node, scheduler.NopKernelSchedulerNode))
        raise Lowered


def attention(q, k, v, span):
    """The kernel that a GPU would take for the reference job."""
    if q.dtype == torch.bfloat16:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True)[0]
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, True)[0]


def lower_features(capability):
    """The blocks, with embedding and skips: forward, backward."""
    lowering, k = Lowering(capability), T.read_knobs(os.environ)
    dtype = torch.float32 if capability == "7.5" else torch.bfloat16
    compiled, patch = functools.partial(torch.compile, backend=lowering), mock.patch.object
    with FakeTensorMode(), patch(torch, "compile", compiled), patch(T, "attend", attention):
        model = T.GPT(k, dtype)
        features = torch.compile(T.GPT.features, dynamic=False)
        tokens = torch.zeros(LAYER // k.train_seq_len, k.train_seq_len, dtype=torch.int64)
        features(model, tokens).sum().backward()
    return lowering, k.num_layers


def compile_kernels(lowering):
    """Each different Triton kernel, in its first configuration; how many."""
    pattern = r"async_compile\.triton\('(\w+)', '''(.*?)''', device_str='cuda'\)"
    found = {}
    for name, source in re.findall(pattern, "\n".join(lowering.code), re.DOTALL):
        found.setdefault(source.replace(name, "kernel"), (name, source))
    with lowering.fakes(), mock.patch.object(triton_helpers, "set_driver_to_gpu"):
        for name, source in found.values():
            kernel = vars(PyCodeCache.load(source))[name]
            kernel._precompile_config(kernel.configs[0])
    return len(found)


def main():
    capability, *also = sys.argv[1:] or [""]
    if capability not in DEVICES or also not in ([], ["compile"]):
        sys.exit(f"traffic.py: error: wants a capability ({', '.join(DEVICES)}) and perhaps 'compile'")
    if torch.version.cuda is None:
        sys.exit("traffic.py: error: this PyTorch knows no CUDA; run it by a Python that has a CUDA build")
    inductor.fx_graph_cache = False
    lowering, layers = lower_features(capability)
    megabytes, kernels = lowering.bytes / layers / 1e6, lowering.kernels / layers
    print(f"capability {capability}, {LAYER:,} tokens: {megabytes:,.0f} MB and {kernels:.1f} kernels a layer")
    if also:
        print(f"compiled {compile_kernels(lowering)} Triton kernels")


main()
