"""What the compiler makes of the model for a GPU, where PyTorch can compile for one; no GPU is needed."""

import re
import sys

import pytest
import torch
import trainer_kit as kit
from conftest import passed

pytestmark = pytest.mark.slow
wants_cuda = pytest.mark.skipif(
    torch.version.cuda is None, reason="NOT TESTED: what a GPU would run wants PyTorch's CUDA build"
)


def traffic(tmp_path, *words, **changes):
    caches = {name: str(tmp_path / name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    return kit.start([sys.executable, kit.REPO / "dev" / "traffic.py", *words], {**caches, **changes})


def lowered(*words, **changes) -> list[float]:
    """The numbers that dev/traffic.py prints: megabytes and kernels a layer, Triton kernels compiled."""
    line, *rest = passed(traffic(*words, **changes)).stdout.splitlines()
    found = re.fullmatch(r"capability \S+, 65,536 tokens: (\S+) MB and (\S+) kernels a layer", line)
    return [float(word.replace(",", "")) for word in (*found.groups(), *re.findall(r"\d+", "".join(rest)))]


@wants_cuda
def test_a_layer_moves_little_in_few_kernels(tmp_path):
    """Of the reference job; a block at a time, with a pass for each scale, it was 2,964 MB in 42 kernels."""
    megabytes, kernels = lowered(tmp_path, "8.9")
    assert 2000 < megabytes <= 2950 and 20 < kernels <= 48


@wants_cuda
@pytest.mark.parametrize("capability", ["7.5", "8.9", "9.0", "10.0"])
def test_every_card_has_its_kernels(capability, tmp_path):
    """By the assembler that Triton brings along. Two layers: the first, and one that takes its skip."""
    *_, kernels = lowered(tmp_path, capability, "compile", NUM_LAYERS="2")
    assert kernels >= 20


@pytest.mark.parametrize("words", [(), ("8.8",), ("8.9", "run"), ("8.9",)], ids=str)
def test_used_wrongly_or_without_cuda_it_says_so(words, tmp_path):
    if words == ("8.9",) and torch.version.cuda:
        pytest.skip("this PyTorch can")
    done = traffic(tmp_path, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("traffic.py: error: ") and done.stderr.count("\n") == 1
