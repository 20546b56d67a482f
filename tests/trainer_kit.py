"""What the trainer's tests share: tiny data, tiny knobs, and a whole tiny run inside this process."""

import contextlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from dataclasses import dataclass, fields
from modulefinder import ModuleFinder
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import REPO, container, write_shard
from golf.core import envfile

import train_gpt as T

torch.set_num_threads(1)

TOKENIZER = REPO / "data" / "sample_1024_bpe.model"
BOS, UNK, VOCAB = 1, 3, 1024
PLAIN = 260  # the first piece that is text: those before are special, or bytes
KNOB_NAMES = [knob.name.upper() for knob in fields(T.Knobs)]
STOP_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1
# One CPU thread, no compile, float32: the conditions under which reruns are bit-equal.
TINY = dict(
    DEVICE="cpu", COMPILE=0, RUN_ID="run", MAX_WALLCLOCK_SECONDS=0, ITERATIONS=6, WARMUP_STEPS=0,
    NUM_LAYERS=2, MODEL_DIM=16, NUM_HEADS=2, NUM_KV_HEADS=1, MLP_MULT=2, VOCAB_SIZE=VOCAB,
    TRAIN_SEQ_LEN=16, TRAIN_BATCH_TOKENS=64, EVAL_SEQ_LEN=32, EVAL_STRIDE=8, VAL_MAX_TOKENS=200,
)  # fmt: skip
# For a subprocess: a bare environment, one thread, a home for caches.
BARE = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
BARE |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "COMPILE": "0"}
TWO_RANKS = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
TWO_RANKS += ("--log-dir=/dev/null",)  # else folders stay in /tmp


# Where COMPILE=1 cannot be tested; COMPILE=auto then runs without.
can_compile = pytest.mark.skipif(
    " " in torch.__file__, reason="NOT TESTED: PyTorch's C++ compiler cannot link in a folder with a space"
)


def random_tokens(count: int, seed: int = 0) -> np.ndarray:
    """Text-like enough to learn from: skewed ids, a BOS first and now and then, no <unk>."""
    rng = np.random.default_rng(seed)
    tokens = (PLAIN + rng.geometric(0.03, count) % (VOCAB - PLAIN)).astype(np.uint16)
    tokens[rng.integers(0, count, count // 50)] = BOS
    tokens[0] = BOS
    return tokens


def make_data(folder: Path, train=(1500, 900), val: int = 600) -> Path:
    for number, count in enumerate(train):
        write_shard(folder / f"fineweb_train_{number:06}.bin", random_tokens(count, number))
    write_shard(folder / "fineweb_val_000000.bin", random_tokens(val, 99))
    return folder


def settings(**changes) -> dict[str, str]:
    """The environment of a tiny run with these changes; None removes a name."""
    values = {**TINY, "TOKENIZER_PATH": TOKENIZER, **changes}
    return {name: str(value) for name, value in values.items() if value is not None}


def knobs(**changes) -> T.Knobs:
    return T.read_knobs(settings(**changes))


def preset(name: str) -> dict[str, str]:
    """What a file of configs/ sets."""
    return envfile.parse(REPO / "configs" / name)


def random_model(k: T.Knobs, seed: int = 0, dtype=torch.float32) -> T.GPT:
    """A model whose every parameter matters: the trainer's own start has projections of zero."""
    generator = torch.Generator().manual_seed(seed)
    model = T.GPT(k, dtype)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise / p.size(-1) ** 0.5 if p.ndim == 2 and "resid" not in name else 1 + 0.3 * noise)
    return model


def weights_of(model) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def columns_of(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Steps by which a column's deviation, at the finest, takes 24."""
    return {name: value.std(0) / 2 for name, value in weights.items() if value.ndim == 2 and value.size}


def packed(model, k, code_bytes: int = 0, trainer=T) -> tuple[bytes, float]:
    """The artifact of a model that no gradients tell of, and its step."""
    weights = weights_of(model)
    return trainer.export_artifact(weights, columns_of(weights), k, code_bytes)


def same_weights(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[n]), torch.as_tensor(b[n])) for n in a)


def parts_of(blob: bytes) -> tuple[bytes, bytes]:
    """An artifact's header and its arrays' bytes."""
    payload = zlib.decompress(blob[20:])
    at = 4 + struct.unpack_from("<I", payload)[0]
    return payload[4:at], payload[at:]


def with_header(blob: bytes, change, arrays=None, **options) -> bytes:
    """The artifact, sound in itself, whose header was changed, in place or to the bytes that are given."""
    text, rest = parts_of(blob)
    header = json.loads(text)
    other = change(header)
    text = other if isinstance(other, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return container(struct.pack("<I", len(text)) + text + (rest if arrays is None else arrays), **options)


class Modules(ModuleFinder):
    """Looks once for what the repository's own scripts import: it takes as long as a tiny run's steps."""

    known: ClassVar = {}

    def run_script(self, script):
        if script in self.known:
            self.modules = self.known[script]
            return
        super().run_script(script)
        if Path(script).parent == REPO:
            self.known[script] = self.modules


@contextlib.contextmanager
def trainer_process(folder: Path, env: dict, trainer=T):
    """As if the trainer were started in `folder` with just these knobs; all is put back after."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(trainer.sys, "argv", [trainer.SCRIPT.name])
        patch.setattr(trainer, "ModuleFinder", Modules)
        if hasattr(trainer, "torch"):  # the faster type is measured anew in each run
            patch.setattr(trainer, "pick_dtype", lambda device: torch.float32)
        names = [knob.name.upper() for knob in fields(trainer.Knobs)]
        for name in [*names, "TRAIN_MAX_SEQ_LEN", "RANK", "WORLD_SIZE", "LOCAL_RANK"]:
            patch.delenv(name, raising=False)
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            yield patch
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def shown_warnings(err):
    """Warnings that Python would show by default go to `err`, as they would outside of pytest."""
    hidden = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for category in hidden:
            warnings.simplefilter("ignore", category)
        yield
    err.writelines(f"{w.filename}:{w.lineno}: {w.category.__name__}: {w.message}\n" for w in caught)


@contextlib.contextmanager
def new_run(folder: Path, **changes):
    """(run, patch): what main() sets up for these knobs, ready for train(); data as in run_main."""
    env = run_settings(folder, changes)
    with trainer_process(folder, env) as patch, contextlib.redirect_stdout(io.StringIO()):
        run = T.Run(T.read_knobs(env))
        run.log.open(run.folder, False)
        T.warm_up(run)
        yield run, patch


def run_settings(folder: Path, changes: dict) -> dict[str, str]:
    """Data from folder/data (made where it is not there), the run in folder/runs/run."""
    if not (folder / "data").exists():
        make_data(folder / "data")
    return settings(**{"DATA_PATH": folder / "data", "OUT_DIR": folder / "runs", **changes})


@dataclass
class Result:
    folder: Path
    code: int = 0
    out: str = ""
    err: str = ""

    @property
    def metrics(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def events(self, name: str) -> list[dict]:
        return [m for m in self.metrics if m["event"] == name]

    def event(self, name: str) -> dict:
        (found,) = self.events(name)
        return found

    def line(self, beginning: str) -> str:
        """The only line of the log that begins so."""
        (found,) = (line for line in self.log.splitlines() if line.startswith(beginning))
        return found

    @property
    def losses(self) -> list[float]:
        return [m["train_loss"] for m in self.events("step")]

    @property
    def scores(self) -> list[str]:
        """The lines of the final scores on the console."""
        return [line for line in self.out.splitlines() if line.startswith("final_")]

    @property
    def log(self) -> str:
        return (self.folder / "train.log").read_text()

    @property
    def artifact(self) -> Path:
        (path,) = (p for p in self.folder.glob("final_model.*") if p.suffix != ".part")
        return path

    @property
    def checkpoint(self) -> dict:
        return torch.load(self.folder / "checkpoint.pt", weights_only=True)


def run_main(folder: Path, patches: dict | None = None, trainer=T, **changes) -> Result:
    """main() with a tiny run's knobs and these changes; `patches` replaces parts of the trainer."""
    env = run_settings(folder, changes)
    out, err = io.StringIO(), io.StringIO()
    with trainer_process(folder, env, trainer) as patch:
        for name, value in (patches or {}).items():
            patch.setattr(trainer, name, value)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), shown_warnings(err):
            code = trainer.main()
    return Result(Path(env["OUT_DIR"]) / env["RUN_ID"], code, out.getvalue(), err.getvalue())


def start(command, env: dict, **options) -> subprocess.CompletedProcess:
    """A process with these knobs in a bare environment of one thread."""
    options |= dict(capture_output=True, text=True, timeout=1200)
    env = {name: str(value) for name, value in {**BARE, **env}.items()}
    return subprocess.run([str(word) for word in command], env=env, **options)


def assert_one_line(err: str, *words: str):
    """A message for a person: one line on stderr that holds these words, and no traceback."""
    assert err.startswith(("train_gpt.py: error: ", "train_gpt_mlx.py: error: ")), err
    assert err.count("\n") == 1 and err.endswith("\n"), err
    for word in words:
        assert str(word) in err, err


def assert_told(result: Result, code: int, *words: str):
    """It ended with that exit code and one line."""
    assert result.code == code, result.out + result.err
    assert_one_line(result.err, *words)


def assert_refused(result: Result, *words: str, code: int = 1):
    """It failed before training: that exit code, one line, and no run folder was left behind."""
    assert_told(result, code, *words)
    assert not (result.folder / "train.log").exists()


def before_step(action, step: int, trainer=T):
    """A train_step that first does `action(run)` at the given step (from 0)."""
    real = trainer.train_step

    def train_step(run, tokens, number, scale):
        if number == step:
            action(run)
        return real(run, tokens, number, scale)

    return train_step
