"""Hostile submissions: each ends in a named finding, in time, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from golf import official, remote, sandbox, sandbox_usage
from golf.feeder import Fault
from score_kit import HOSTILE, failed, make_submission, make_track, needs_sandbox

LIMITS = sandbox.Limits(load_seconds=60, call_seconds=60, memory_bytes=4 << 30, tasks=60)


@pytest.fixture(scope="module")
def track(tmp_path_factory):
    return make_track(tmp_path_factory.mktemp("track"))


SEED = os.getpid()  # in the artifact's name, so that our processes are known by it


def ours() -> list[bytes]:
    """The command lines of all processes on the machine that run a submission of this test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return [line for line in found if f"final_model_seed{SEED}.bin".encode() in line]


@pytest.fixture
def run(track, tmp_path, monkeypatch):
    """Scores tests/fixtures/hostile/<name>.py, without the audit: a report."""
    monkeypatch.setattr(official, "audit", lambda *_, **__: [])

    def run(name, artifact=b"-", limits=LIMITS, sandboxed=True, **claim):
        folder = tmp_path / f"{name}-{sandboxed}"
        make_submission(folder, HOSTILE / f"{name}.py", artifact, seeds=(SEED,), **claim)
        data = dict(track_name=str(track), data=track.parent / "data", device="cpu")
        return official.score(folder, **data, limits=limits, sandboxed=sandboxed)

    yield run
    assert not ours()  # no process is left, whoever its parent is by now
    assert not sandbox_usage.usage(os.getpid())[1]  # not even an unreaped one


@needs_sandbox
@pytest.mark.parametrize(
    "name, rule, words",
    [
        ("forks", "tasks", "over 60 processes and threads while log_probs"),
        ("kills", "died", "the process ended while log_probs (exit code 137)"),
        ("exits", "died", "the process ended while log_probs (exit code 0)"),
        ("shrinks_memory", "raised", "PermissionError"),
        ("sends_records", "protocol", "not one of the protocol's"),
        ("gives_nan", "finite", "row 256 of a call of 512 tokens"),
        ("gives_zero", "finite", "target 0 was given no probability"),
        ("wrong_shape", "shape", "[511, 1024] for 512 tokens"),
        ("one_number", "shape", "an array of 0 dimensions"),
        ("sums_to_two", "normalised", "a row sums to 2"),
    ],
)
def test_hostile(run, name, rule, words):
    findings = failed(run(name))
    assert list(findings) == [rule]
    assert words in findings[rule]


@needs_sandbox
@pytest.mark.parametrize("name, during", [("hangs", "log_probs"), ("hangs_loading", "loading")])
def test_hanging_ends_at_its_limit(run, name, during):
    limits = dataclasses.replace(LIMITS, load_seconds=4, call_seconds=4)
    assert failed(run(name, limits=limits)) == {"time": f"{during} took over 4 s"}


@needs_sandbox
def test_filling_memory_ends_at_its_limit(run):
    report = run("fills_memory", limits=dataclasses.replace(LIMITS, memory_bytes=1 << 29))
    assert failed(report) == {"memory": "over 536,870,912 bytes of memory while log_probs"}
    assert report["seeds"][0]["peak_memory_bytes"] < 2 << 30


@needs_sandbox
def test_children_end_with_it(run):
    assert not failed(run("leaves_children"))


@needs_sandbox
@pytest.mark.parametrize(
    "number, early", [(signal.SIGKILL, True), (signal.SIGKILL, False), (signal.SIGTERM, False)]
)
def test_it_ends_with_the_scorer(track, tmp_path, number, early):
    """Early: before bubblewrap can have asked the kernel to end with it."""
    folder = make_submission(tmp_path / "entry", HOSTILE / "hangs_loading.py", seeds=(SEED,))
    command = [sys.executable, "-m", "golf", "score", folder, "--track", track, "--json"]
    command += ["--data", track.parent / "data", "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(REPO / "scripts"), "TMPDIR": str(tmp_path)}
    scorer = subprocess.Popen(list(map(str, command)), env=env, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(early or b"--unshare-all" not in line for line in ours()))
    finally:
        scorer.send_signal(number)
        scorer.wait()
    wait_until(lambda: not ours())
    assert number == signal.SIGKILL or not list(tmp_path.glob("golf-score-*"))


def wait_until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@needs_sandbox
def test_printed_scores_are_not_believed(run):
    report = run("prints_scores", val_bpb=0.05, val_loss=0.1)
    assert report["seeds"][0]["official"]["val_loss"] == pytest.approx(np.log(1024))
    assert list(failed(report)) == ["claim"]


@needs_sandbox
def test_last_words_are_short_and_escaped(run):
    said = failed(run("shouts"))["raised"]
    assert said.isprintable() and len(said) < 400 and "that was it" in said


@needs_sandbox
def test_no_network(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = str(server.getsockname()[1]).encode()
        assert "Address family not supported" in failed(run("opens_socket", port))["raised"]
        with pytest.raises(BlockingIOError):
            server.accept()
        assert not failed(run("opens_socket", port, sandboxed=False))  # as it would without
        server.accept()[0].close()


@needs_sandbox
def test_no_file_of_the_user(run, track, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    shard = track.parent / "data" / "fineweb_val_000000.bin"
    home = os.path.expanduser("~")
    paths = [secret, shard, track, official.__file__, "/etc/passwd", "/proc/1/mem", f"{home}/.bashrc"]
    artifact = "\n".join(map(str, paths)).encode()
    assert "nothing to read" in failed(run("reads_files", artifact))["raised"]
    assert not failed(run("reads_files", artifact, sandboxed=False))


@needs_sandbox
def test_nothing_is_written(run, tmp_path):
    places = ["/usr/x", "/etc/x", "/x", "/dev/x", "/submission/x", "/submission/train_gpt.py"]
    artifact = "\n".join([str(tmp_path / "x"), *places]).encode()
    assert "nothing to write" in failed(run("writes_files", artifact))["raised"]
    assert not (tmp_path / "x").exists()
    assert not failed(run("writes_files", artifact, sandboxed=False))
    assert (tmp_path / "x").exists()


def connect(name, tmp_path, **options) -> remote.Remote:
    folder = make_submission(tmp_path / name, HOSTILE / f"{name}.py")
    files = {path: folder / path for path in ("train_gpt.py", "plain.py", "final_model_seed1.bin")}
    return remote.Remote(files, "train_gpt.py", "final_model_seed1.bin", "cpu", 1024, LIMITS, **options)


@needs_sandbox
def test_rows_changed_after_handing_over(tmp_path):
    tokens = np.arange(100, dtype=np.uint16)
    with connect("overwrites_rows", tmp_path) as feeder:
        feeder.reset()
        rows = feeder.log_probs(tokens)
        kept = rows.copy()
        time.sleep(1)
        assert (rows == kept).all()
        with pytest.raises(Fault) as fault:
            feeder.log_probs(tokens)
    assert fault.value.rule == "rows-changed"


@needs_sandbox
def test_every_stream_has_its_own_process(tmp_path):
    with connect("plain", tmp_path) as feeder:
        feeder.reset()
        feeder.log_probs(np.zeros(5, np.uint16))
        first = feeder.process.pid
        feeder.reset()
        assert feeder.process.pid != first
        assert feeder.log_probs(np.zeros(5, np.uint16)).shape == (5, 1024)
        children = sandbox_usage.usage(os.getpid())[1]
    assert first not in children and sandbox_usage.usage(os.getpid())[1] == []


@needs_sandbox
def test_environment_is_bare(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "HF_TOKEN" not in sandbox.environment()
    with connect("plain", tmp_path) as feeder:
        inside = sandbox_usage.usage(feeder.process.pid)[1][-1]
        with open(f"/proc/{inside}/environ", "rb") as file:
            assert b"secret" not in file.read()


def test_data_that_the_sandbox_shows_is_refused(tmp_path):
    assert sandbox.shows(Path(np.__file__).parent / "data")
    for hidden in (tmp_path, Path("/usr/share/data"), Path(np.__file__).parent / "doc/data"):
        assert not sandbox.shows(hidden)


def test_without_bubblewrap_the_package_is_named(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    sandbox.why_not.cache_clear()
    try:
        assert "bubblewrap" in sandbox.why_not()
    finally:
        sandbox.why_not.cache_clear()
