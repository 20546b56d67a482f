"""What the tests share: where the repository is, and a way to run its scripts."""

import contextlib
import fcntl
import gc
import hashlib
import importlib.util
import io
import json
import lzma
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest

pytest_plugins = ["check_kit"]  # its fixtures
REPO = Path(__file__).resolve().parents[1]
KEPT_FROM_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
# Test processes share the machine: one thread each, none that spins while it waits (set before any test
# imports PyTorch), and no report.html after each run.
FRUGAL = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "REPORT": "0"}
os.environ.update(FRUGAL)
# Under nohup SIGHUP comes ignored. A handler keeps the tests alive, and what they start has the default.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
HANG_SECONDS = 1200  # what has not ended by then never will; a loaded machine is slow, not wrong


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """`-n auto`: a worker more than affinity and the container's quota let compute: tests also wait."""
    from golf.core import machine

    return machine.usable_cpus() + 1


def pytest_collection_finish():
    """What is imported by now stays: no later search for garbage goes through it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    return sendable((yield))


def sendable(report):
    """A report in which no surrogate is left: what a worker sends is UTF-8, and one would end it."""
    if isinstance(report, str):
        return report.encode("utf-8", "backslashreplace").decode()
    if isinstance(report, dict):
        return {key: sendable(value) for key, value in report.items()}
    return type(report)(map(sendable, report)) if isinstance(report, (list, tuple)) else report


def load_script(path):
    """A Python file as a new module, as if it were run from its folder."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look it up
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(path.parent)
        spec.loader.exec_module(module)
    return module


def shard_of(tokens, magic=20240520, count=None) -> bytes:
    """A shard of these tokens; `magic` and `count` are for the ones that lie."""
    header = struct.pack("<256i", magic, 1, len(tokens) if count is None else count, *[0] * 253)
    return header + struct.pack(f"<{len(tokens)}H", *tokens)


def write_shard(path, tokens, **lies):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(shard_of(tokens, **lies))
    return path


def write_events(folder, *events):
    """A run's metrics.jsonl."""
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def read_events(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def edit_json(path, change):
    """Applies `change` to the value that a file holds."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def container(payload: bytes, stated=None, coded=None, version=1, magic=b"PGLA", crc=None, coder=1) -> bytes:
    """An artifact of this payload; what it states may be another's."""
    coded = zlib.compress(payload) if coded is None else coded
    stated, crc = len(payload) if stated is None else stated, zlib.crc32(coded) if crc is None else crc
    return struct.pack("<4sHHQI", magic, version, coder, stated, crc) + coded


def real_tokens(count):
    """The first `count` tokens of the sample text, a BOS before each document."""
    from sentencepiece import SentencePieceProcessor

    encode = SentencePieceProcessor(model_file=str(REPO / "data" / "sample_1024_bpe.model")).encode
    tokens = []
    for line in lzma.decompress((REPO / "data" / "sample_text.jsonl.xz").read_bytes()).splitlines():
        tokens += [1, *encode(json.loads(line)["text"])]
        if len(tokens) >= count:
            break
    return tokens[:count]


def bare(env) -> dict[str, str]:
    """A bare environment with these variables: a developer's SEED or DATA_PATH changes no test."""
    base = {name: os.environ[name] for name in KEPT_FROM_ENVIRONMENT if name in os.environ}
    return {**base, **FRUGAL, "PYTHON": sys.executable, **(env or {})}


def run_script(script, *args, env=None, cwd=None, timeout=HANG_SECONDS, repo=REPO):
    """Runs scripts/<script> of `repo` by bash (a .py file by this Python): CompletedProcess, text."""
    path = Path(repo) / "scripts" / script if "/" not in str(script) else Path(repo) / script
    runner = sys.executable if path.suffix == ".py" else "bash"
    return subprocess.run([runner, str(path), *map(str, args)], env=bare(env), cwd=cwd or repo,
                          capture_output=True, text=True, errors="replace", timeout=timeout)  # fmt: skip


def wait_until(holds, process=None):
    """Waits for a condition; fails where it never comes, or once the process that brings it has ended."""
    end = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.05)


class Clock:
    """A clock that goes on only when told."""

    now = 100.0

    def __call__(self):
        return self.now


def luminance(red, green, blue):
    """WCAG 2's relative luminance of a colour, each part from 0 to 255."""
    parts = [part / 255 for part in (red, green, blue)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(one, other):
    """WCAG 2's contrast of two colours, 1 to 21."""
    dark, light = sorted((luminance(*one), luminance(*other)))
    return (light + 0.05) / (dark + 0.05)


def passed(done):
    """A process that ended with 0, else what it said."""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


def refused(done, *words, code=2):
    """A process that ended with this code and one line, or the command's usage, with these words in it."""
    assert done.returncode == code and all(word in done.stderr for word in words), done.stderr
    assert done.stderr.count("\n") == 1 or done.stderr.startswith("usage: "), done.stderr
    return done


def used_wrongly(error):
    """For pytest.raises: of the exit code of wrong usage."""
    return error.code == 2


@contextlib.contextmanager
def tools_in(repo, command):
    """This process's tools as if they lay in `repo`: what `command` imports is here before."""
    from golf import cli
    from golf.core import track

    if repo == REPO:
        yield
        return
    cli.parser([command])
    ours = {name: module for name, module in sys.modules.items() if name.startswith("golf.")}
    with pytest.MonkeyPatch.context() as patch:
        for module in ours.values():
            if hasattr(module, "REPO"):
                patch.setattr(module, "REPO", repo)
        patch.setattr(track, "RECORDS", repo / "records")
        yield
    late = {name for name in sys.modules if name.startswith("golf.")} - ours.keys()
    assert not any(hasattr(sys.modules[name], "REPO") for name in late), "they would stay in that repository"


def run_golf(*words, env=None, cwd=None, repo=REPO):
    """As run_script("golf.sh", *words), in this process: no start of Python, no second import of PyTorch.

    For commands that need no process of their own.
    """
    from golf import cli
    from golf.core.processes import STOP_SIGNALS

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with (pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ, bare(env), clear=True),
          tools_in(repo, words[0])):  # fmt: skip
        patch.chdir(cwd or repo)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.main([str(word) for word in words])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(words, code, *said)


def pytest_terminal_summary(terminalreporter):
    """One loud line for each thing that this machine lacks: how many tests were skipped for it."""
    reasons = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        _, marked, reason = str(report.longrepr[2]).partition("NOT TESTED: ")
        reasons[reason] += bool(marked)
    for reason, count in (+reasons).items():
        terminalreporter.write_line(f"{count} tests SKIPPED: {reason}", red=True, bold=True)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No knob of the developer's shell reaches a test; deleted here, restored after.

    Nor does git's own environment: in a git hook it names the developer's repository, into which
    the tests' commits would go. Nor PYTHONUNBUFFERED, which hides what fails when output is flushed.
    """
    knobs = ("SEED", "SEEDS", "RUN_ID", "OUT_DIR", "DATA_PATH", "TOKENIZER_PATH", "DEVICE")
    for name in [*knobs, "PYTHONUNBUFFERED", *(name for name in os.environ if name.startswith("GIT_"))]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def really():
    """What a sandbox does before each pass: it reads all that it shows, and has names forgotten.

    That takes half a second of CPU time and slows others' imports: only tests of it set these functions back.
    """
    from golf.score.sandbox import view

    functions = {name: getattr(view, name) for name in ("read_ahead", "forget_names")}
    with pytest.MonkeyPatch.context() as patch:
        for name in functions:
            patch.setattr(view, name, lambda *_: True)
        yield functions


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, make): a folder of that name, filled by make(folder) in one worker for all."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared

    def once(name, make):
        folder, whole = shared / name, shared / f"{name}.whole"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def sample_data(once):
    """datasets/ and tokenizers/ with the sample data, built as in every clone."""

    def build(folder):
        done = passed(run_script("data/build_sample_dataset.py", "--out", folder))
        assert "wrote 3 files" in done.stdout

    return once("sample data", build)


@pytest.fixture
def tiny_repo(tmp_path):
    """A repository in a folder with a space: scripts, the fake trainer, tiny data, a tiny track."""
    repo = tmp_path / "a repo"
    shutil.copytree(REPO / "scripts", repo / "scripts")  # with __pycache__: nothing to compile again
    shutil.copyfile(REPO / "tests" / "fake_trainer.py", repo / "train_gpt.py")
    data, tokenizers = repo / "data" / "datasets" / "tiny", repo / "data" / "tokenizers"
    for folder in (data, tokenizers, repo / "configs", repo / "records" / "track_tiny"):
        folder.mkdir(parents=True)
    for split in ("train", "val"):
        write_shard(data / f"fineweb_{split}_000000.bin", [0] * 8)
    (tokenizers / "tiny.model").write_bytes(b"tiny")
    (repo / "configs" / "tiny.env").write_text("# A tiny run\nITERATIONS=3\n")
    rules = json.loads((REPO / "records" / "track_sample_5min" / "track.json").read_text())
    rules |= dict(name="track_tiny", cap_bytes=20000, train_seconds=30, targets=6400, target_bytes=16000)
    val = hashlib.sha256((data / "fineweb_val_000000.bin").read_bytes()).hexdigest()
    rules["data"].update(name="tiny", val_sha256=val, tokenizer_sha256=hashlib.sha256(b"tiny").hexdigest())
    (repo / "records" / "track_tiny" / "track.json").write_text(json.dumps(rules))
    return repo
