"""What the compiler makes of the model for a GPU, where PyTorch can compile for one; no GPU is needed."""

from __future__ import annotations

import re
import sys

import pytest
import torch
import trainer_kit as kit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        torch.version.cuda is None, reason="NOT TESTED: what a GPU would run wants PyTorch's CUDA build"
    ),
]


def lowered(tmp_path, *words, **changes) -> list[float]:
    """The numbers that dev/traffic.py prints: megabytes and kernels a layer, Triton kernels compiled."""
    caches = {name: str(tmp_path / name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    done = kit.start([sys.executable, kit.REPO / "dev" / "traffic.py", *words], {**caches, **changes})
    assert done.returncode == 0, done.stderr
    line, *compiled = done.stdout.splitlines()
    found = re.fullmatch(r"capability \S+, 65,536 tokens: (\S+) MB and (\S+) kernels a layer", line)
    return [
        float(word.replace(",", "")) for word in (*found.groups(), *re.findall(r"\d+", "".join(compiled)))
    ]


def test_a_layer_moves_little_in_few_kernels(tmp_path):
    """Of the reference job; a block at a time, with a pass for each scale, it was 2,964 MB in 42 kernels."""
    megabytes, kernels = lowered(tmp_path, "8.9")
    assert 2000 < megabytes <= 2950 and 20 < kernels <= 48


@pytest.mark.parametrize("capability", ["7.5", "8.9", "9.0", "10.0"])
def test_every_card_has_its_kernels(capability, tmp_path):
    """By the assembler that Triton brings along. Two layers: the first, and one that takes its skip."""
    *_, kernels = lowered(tmp_path, capability, "compile", NUM_LAYERS="2")
    assert kernels >= 20
