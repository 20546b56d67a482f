"""A report on this machine's CUDA device that people can paste into an issue: what works, what falls back."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from golf.bench import measure
from golf.core import machine, trainers
from golf.core.errors import GolfError
from golf.core.paths import REPO

KERNELS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)
SCORED = 65536  # targets of a scoring pass
# A step that waits for the device while it is captured: the run must go on, without a graph.
SYNC = """
import sys, torch
sys.path.insert(0, {folder!r})
import {name} as trainer
real = trainer.GPT.loss

def loss(model, tokens):
    found = real(model, tokens)
    if torch.cuda.is_current_stream_capturing():
        found.item()
    return found

trainer.GPT.loss = loss
sys.exit(trainer.main())
"""


def main(trainer, settings: dict[str, str], folder: Path) -> int:
    """Prints the report as it is made; returns 1 if something fell back or went wrong."""
    machine_lines = [
        f"python {platform.python_version()}, torch {torch.__version__}, its CUDA {torch.version.cuda}",
        ", ".join(machine.compiler_faults(dict(os.environ))) or "C compiler and Python.h found",
    ]
    if not torch.cuda.is_available():
        raise GolfError(f"selftest: no CUDA device, so only this was tested: {'; '.join(machine_lines)}")
    code, settings = 0, {**settings, **measure.usable_data(settings, trainer, folder)}
    major, minor = torch.cuda.get_device_capability()
    free, memory = (size / 1e9 for size in torch.cuda.mem_get_info())
    card = f"{torch.cuda.get_device_name()}, capability {major}.{minor}, driver {driver()}"
    machine_lines.append(f"{card}, {free:.1f} of {memory:.1f} GB free")
    for found in (machine_lines, about_training(trainer, settings, folder)):
        for line in found:
            print(line, flush=True)
            code |= "failed" in line or "WRONG" in line
    return int(code)


def about_training(trainer, settings: dict[str, str], folder: Path) -> Iterator[str]:
    lab = measure.Lab(trainer, settings, folder, 5.0)
    yield from attention_lines(lab)
    yield from lab.console.getvalue().strip().splitlines()  # compile, graph, self_test
    yield f"gradients compiled and plain: {gradient_error(lab):.2%} apart"
    yield from rate_lines(lab)
    yield from scoring_lines(lab)
    yield sync_line(Path(trainer.__file__), settings, folder)


def driver() -> str:
    """The driver's version; "unknown" if nvidia-smi does not say."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20).stdout.split()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "unknown"


def apart(found: list, expected: list) -> float:
    """The largest distance of two tensors, as a share of the expected one's norm."""
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected) if b.norm()]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def attention_lines(lab) -> Iterator[str]:
    """Each kernel's gradients of one block, in the model's own layout, against plain products."""
    k, model = lab.k, lab.run.model
    block = lab.trainer.Block(k).to(lab.run.device)
    x = torch.randn(2, k.train_seq_len, k.model_dim, device=lab.run.device).to(model.dtype)

    def gradients(kernel):
        with sdpa_kernel(kernel):
            return torch.autograd.grad(block(x, x, model.rope).square().mean(), list(block.parameters()))

    plain = gradients(SDPBackend.MATH)
    for kernel in KERNELS:
        try:
            yield f"attention {kernel.name}: {apart(gradients(kernel), plain):.2%} from plain products"
        except RuntimeError as error:
            yield f"attention {kernel.name}: not here ({str(error).splitlines()[0][:80]})"


def gradient_error(lab) -> float:
    """Of one pass, compiled as in a step, against the same uncompiled."""
    run, found = lab.run, []
    part = lab.batch(0)[: run.micro]
    for stance in ("default", "force_eager"):
        run.model.zero_grad()
        with torch.compiler.set_stance(stance):
            run.model.loss(part).backward()
        found.append([p.grad for p in run.opt.params if p.grad is not None and p.ndim == 2])
    return apart(*found)


def rate_lines(lab) -> Iterator[str]:
    """Tokens a second of a step as the run does it, and launched kernel by kernel."""
    run, tokens = lab.run, lab.batch(0)
    run.opt.schedule(0, 0.0)
    for name, update in (("as in a run", run.update), ("without a graph", type(run).update.__get__(run))):
        seconds = min(lab.samples(lambda update=update: update(tokens)))
        yield f"a step {name}: {lab.k.train_batch_tokens / seconds:,.0f} tokens/s"


def scoring_lines(lab) -> Iterator[str]:
    """Three passes over the same tokens: their speed, and whether they agree to the bit."""
    k, device, sums = lab.k, lab.run.device, []
    scorer = lab.trainer.Scorer(lab.run.model, k.eval_seq_len, k.eval_stride, k.val_batch_size)
    tokens = measure.random_tokens(SCORED, k.vocab_size)

    def score():
        scorer.reset()
        chunks = np.array_split(tokens, max(1, len(tokens) // (scorer.windows * scorer.stride)))
        sums.append(float(sum(scorer.log_probs(chunk).double().sum() for chunk in chunks)))

    seconds = [measure.samples(score, device, 0.0, least=1, most=1)[0] for _ in range(3)]
    same = "the same" if len(set(sums)) == 1 else f"{max(sums) - min(sums):.3g} nats apart"
    yield f"scoring: {', '.join(f'{len(tokens) / s:,.0f}' for s in seconds)} targets/s, {same}"


def sync_line(script: Path, settings: dict[str, str], folder: Path) -> str:
    """Whether a run goes on that waits for the device inside a capture; a process of its own."""
    code = SYNC.format(folder=str(script.parent), name=script.stem)
    given = {**settings, **measure.own_settings(folder), "ITERATIONS": "3", "MAX_WALLCLOCK_SECONDS": "0"}
    command, env = [sys.executable, "-c", code], trainers.child_env(given)
    done = subprocess.run(command, env=env, cwd=REPO, capture_output=True, encoding="utf-8")
    fell = "CUDA graph failed" in done.stdout
    outcome = "trains on without a graph" if fell and not done.returncode else f"WRONG ({done.returncode})"
    return f"a sync inside a capture: {outcome}"
