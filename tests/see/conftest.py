"""A real tiny run of each trainer, and the board's entry, for what looks at runs."""

from __future__ import annotations

import json
import lzma
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]
TOKENIZER = REPO / "data" / "sample_1024_bpe.model"
ENTRY = REPO / "records" / "track_sample_5min" / "2026-11-29_starter"
TINY = {
    "DEVICE": "cpu", "COMPILE": "0", "MAX_WALLCLOCK_SECONDS": "0", "ITERATIONS": "12",
    "NUM_LAYERS": "3", "MODEL_DIM": "32", "NUM_HEADS": "2", "NUM_KV_HEADS": "1", "MLP_MULT": "2",
    "TRAIN_SEQ_LEN": "16", "TRAIN_BATCH_TOKENS": "128", "EVAL_SEQ_LEN": "64", "EVAL_STRIDE": "64",
    "VAL_MAX_TOKENS": "640", "VAL_LOSS_EVERY": "5", "WARMUP_STEPS": "0", "TOKENIZER_PATH": str(TOKENIZER),
}  # fmt: skip


@pytest.fixture(scope="session")
def sample_tokens() -> np.ndarray:
    """uint16: the first documents of the sample text, each behind a BOS."""
    from sentencepiece import SentencePieceProcessor

    encode, tokens = SentencePieceProcessor(model_file=str(TOKENIZER)).encode, []
    for line in lzma.decompress((REPO / "data" / "sample_text.jsonl.xz").read_bytes()).splitlines():
        tokens += [1, *encode(json.loads(line)["text"])]
        if len(tokens) > 3000:
            return np.array(tokens[:3000], np.uint16)


def make_run(folder: Path, trainer: str, tokens: np.ndarray, **changes) -> Path:
    """A finished run of the repository's `trainer` on `tokens`; its folder."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for split, part in (("train", tokens[:2000]), ("val", tokens[2000:])):
        header = struct.pack("<256i", 20240520, 1, len(part), *[0] * 253)
        (data / f"fineweb_{split}_000000.bin").write_bytes(header + part.astype("<u2").tobytes())
    env = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    env |= {**TINY, "OMP_NUM_THREADS": "1", "DATA_PATH": str(data), "OUT_DIR": str(folder / "runs")}
    env |= {"RUN_ID": "tiny", **changes}
    command = [sys.executable, str(REPO / trainer)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "runs" / env["RUN_ID"]


@pytest.fixture(scope="session")
def torch_run(tmp_path_factory, sample_tokens) -> Path:
    return make_run(tmp_path_factory.mktemp("torch"), "train_gpt.py", sample_tokens)


@pytest.fixture(scope="session")
def mlx_run(tmp_path_factory, sample_tokens) -> Path:
    if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
        pytest.skip("there is no MLX for Intel Macs")
    return make_run(tmp_path_factory.mktemp("mlx"), "train_gpt_mlx.py", sample_tokens)
