#!/usr/bin/env python3
"""A trainer for tests: it learns nothing, but writes what a trainer writes, in a blink.

It keeps to what tools rely on (files, log lines, metrics, exit codes, signals), with the standard
library alone. FAKE_* variables, from the environment, steer it:
  FAKE_STEPS (3), FAKE_STEP_SECONDS (0)  how long it "trains"
  FAKE_OOM_ABOVE  out of memory (exit 3) while MICRO_BATCH_TOKENS is larger
  FAKE_OOM_SCORING  out of memory once the artifact is written
  FAKE_FAIL  an error line and exit 1
  FAKE_ARTIFACT_BYTES (1000)
"""

import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import struct
import sys
import time
import zlib
from pathlib import Path

SCRIPT = Path(__file__).resolve()
SOURCE = SCRIPT.read_text(encoding="utf-8")
MODULES = [p for p in sorted(SCRIPT.parent.glob("*.py")) if re.search(rf"(?m)^import {p.stem}$", SOURCE)]
KNOBS = {
    "RUN_ID": ("fake", "name of the run"),
    "OUT_DIR": ("runs", "the run's files go to OUT_DIR/RUN_ID"),
    "SEED": ("1337", "seed"),
    "DEVICE": ("auto", "auto, cuda or cpu"),
    "RESUME": ("0", "continue"),
    "DATA_PATH": ("data/datasets/tiny", "shards"),
    "VAL_DATA_PATH": ("", "validation shards"),
    "TOKENIZER_PATH": ("data/tokenizers/tiny.model", "tokenizer"),
    "ITERATIONS": ("0", "step limit"),
    "MAX_WALLCLOCK_SECONDS": ("60", "budget"),
    "TRAIN_SEQ_LEN": ("512", "tokens of a sequence"),
    "TRAIN_MAX_SEQ_LEN": ("512", "another name of TRAIN_SEQ_LEN"),
    "MICRO_BATCH_TOKENS": ("4096", "tokens a forward pass"),
    "MODEL_DIM": ("192", "width"),
    "ARTIFACT_CAP_BYTES": ("20000", "cap"),
    "EVAL_ONLY": ("", "score this artifact"),
}
TARGETS, SEGMENTS = 6400, 64


def fake(name: str, default: float) -> float:
    return float(os.environ.get(f"FAKE_{name}", default))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def container(seed: int, size: int) -> bytes:
    """An artifact of `size` bytes in the trainers' format: one matrix of noise."""
    free = size - 160
    # 212 of 256 symbols: less even than compressed data, and zlib needs nearly a byte for each
    noise = bytes(random.Random(seed).choices([n & 255 for n in range(-106, 106)], k=size))
    while True:
        name = "n" * (12 - len(str(free)))  # a header of one length
        header = json.dumps({"config": {}, "tensors": [[name, [1, free], "int8"]]})
        matrix = noise[:free] + struct.pack("<e", 1.0)  # and its scale
        payload = struct.pack("<I", len(header)) + header.encode() + matrix
        coded = zlib.compress(payload, 0)
        over = 20 + len(coded) - size
        if over == 0:
            return struct.pack("<4sHHQI", b"PGLA", 1, 1, len(payload), zlib.crc32(coded)) + coded
        free -= over


class Run:
    def __init__(self, knobs: dict[str, str]):
        self.knobs, self.stop, self.notes = knobs, False, []
        self.folder = Path(knobs["OUT_DIR"]) / knobs["RUN_ID"]
        self.main = os.environ.get("RANK", "0") == "0"  # the only rank that writes
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.log = (self.folder / "train.log").open("a" if knobs["RESUME"] != "0" else "x")
            self.metrics = (self.folder / "metrics.jsonl").open("a")
            shutil.copyfile(SCRIPT, self.folder / "train_gpt.py")
            for path in MODULES:
                shutil.copyfile(path, self.folder / path.name)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def is_started(self) -> bool:
        metrics = self.folder / "metrics.jsonl"
        return metrics.exists() and '"start"' in metrics.read_text()

    def on_signal(self, number, frame) -> None:
        if self.stop:
            os._exit(130)
        self.stop = True

    def line(self, text: str) -> None:
        if self.main:
            print(text, flush=True)
            print(text, file=self.log, flush=True)

    def fact(self, event: str, **values) -> None:
        if self.main:
            record = {"schema": 1, "event": event, "time": time.time(), **values}
            print(json.dumps(record), file=self.metrics, flush=True)

    def start(self) -> None:
        data = Path(self.knobs.get("VAL_DATA_PATH") or self.knobs["DATA_PATH"])
        hashes = dict(
            val_sha256=sha256(data / "fineweb_val_000000.bin"),
            tokenizer_sha256=sha256(Path(self.knobs["TOKENIZER_PATH"])),
        )
        self.fact(
            "start", run_id=self.knobs["RUN_ID"], seed=int(self.knobs["SEED"]), script="train_gpt.py",
            script_sha256=sha256(SCRIPT), modules={path.name: sha256(path) for path in MODULES},
            config={k: int(v) if v.isdigit() else v for k, v in self.knobs.items()},
            device="cpu", hardware="a fake processor", versions={"python": "3", "torch": "none"},
            micro_batch_tokens=int(self.knobs["MICRO_BATCH_TOKENS"]),
            world_size=int(os.environ.get("WORLD_SIZE", 1)), resumed=self.knobs["RESUME"] != "0",
            data={"name": data.name, **hashes},
        )  # fmt: skip

    def train(self) -> float:
        steps, began = int(fake("STEPS", 3)), time.monotonic() - 0.002  # never none
        for step in range(1, steps + 1):
            time.sleep(fake("STEP_SECONDS", 0))
            seconds = time.monotonic() - began
            loss, ms = 6.9 / math.sqrt(step), 1000 * seconds
            line = f"step:{step}/{steps} train_loss:{loss:.4f} train_time:{ms:.0f}ms"
            self.line(f"{line} step_avg:{ms / step:.2f}ms")
            self.fact("step", step=step, train_loss=loss, train_seconds=seconds, tokens=step * 512)
            if self.stop:
                self.notes = ["interrupted"]
                break
        self.line(f"train_seconds:{seconds:.3f} tokens:{step * 512} steps:{step}")
        reason = "interrupted" if self.stop else "iterations"
        self.fact("train_end", step=step, train_seconds=seconds, tokens=step * 512, reason=reason)
        return seconds

    def export(self) -> str:
        blob = container(int(self.knobs["SEED"]), int(fake("ARTIFACT_BYTES", 1000)))
        name, code = "final_model.int8.zlib", SCRIPT.stat().st_size
        code += sum(path.stat().st_size + len(path.name) for path in MODULES)
        if self.main:
            (self.folder / name).write_bytes(blob)
        total, cap = code + len(blob), int(self.knobs["ARTIFACT_CAP_BYTES"])
        sizes = {"bytes_model": len(blob), "bytes_code": code, "bytes_total": total}
        digest = hashlib.sha256(blob).hexdigest()
        self.fact("export", artifact=name, artifact_sha256=digest, **sizes, cap=cap, headroom=cap - total)
        line = f"total_submission_size_quant_zlib:{total} bytes code:{code} model:{len(blob)}"
        return f"{line} cap:{cap} headroom:{cap - total}"

    def score(self) -> None:
        chance = random.Random(int(self.knobs["SEED"]))
        segments = [[chance.uniform(200, 260), 250] for _ in range(SEGMENTS)]
        nats, size = sum(s[0] for s in segments), sum(s[1] for s in segments)
        loss, bpb = nats / TARGETS, nats / math.log(2) / size
        exact = f"val_loss:{loss:.8f} val_bpb:{bpb:.8f}"
        self.line(f"final_int8_zlib_roundtrip_exact {exact}")
        note = f" note:{','.join(self.notes)}" if self.notes else ""
        shape = f"seq_len:1024 stride:64 targets:{TARGETS}"
        self.line(f"final_sliding_window_exact {exact} {shape}{note}")
        facts = {"val_loss": loss, "val_bpb": bpb, "targets": TARGETS, "bytes": size}
        self.fact("score", kind="roundtrip", **facts, notes=self.notes)
        self.fact("score", kind="sliding", **facts, notes=self.notes, segments=segments)

    def end(self, code: int, train_seconds: float = 0.0) -> int:
        self.fact("end", setup_seconds=0.5, train_seconds=train_seconds, export_seconds=0.25,
                  eval_seconds=1.5, peak_memory_bytes=0, exit_code=code)  # fmt: skip
        return code


def main() -> int:
    if "--knobs" in sys.argv:
        print("\n".join(f"{name:24} {default!r:32} # {text}" for name, (default, text) in KNOBS.items()))
        return 0
    run = Run({name: os.environ.get(name, default) for name, (default, _) in KNOBS.items()})
    run.line(SOURCE)
    run.start()
    if "FAKE_FAIL" in os.environ:
        print("train_gpt.py: error: the loss is not finite at step 2", file=sys.stderr)
        return run.end(1)
    if int(run.knobs["MICRO_BATCH_TOKENS"]) > fake("OOM_ABOVE", math.inf):
        print("train_gpt.py: error: out of memory", file=sys.stderr)
        while not run.is_started():  # ranks meet before they train; torchrun ends all with the first
            time.sleep(0.05)
        return run.end(3)
    seconds = run.train()
    size_line = run.export()
    if "FAKE_OOM_SCORING" in os.environ:
        print("train_gpt.py: error: out of memory", file=sys.stderr)
        return 3
    run.score()
    run.line(size_line)
    return run.end(0, seconds)


if __name__ == "__main__":
    sys.exit(main())
