"""Signals, output and progress of a supervised run, with a fake trainer."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from conftest import HANG_SECONDS, REPO, passed, wait_until
from golf.core import runlog
from golf.core.processes import descendants, stat
from golf.run import child
from golf.run import command as run

from run.conftest import golf, one_line


def popen(repo, *words, steps=3, seconds=0.0, env=None, **streams):
    """`golf.sh run` of the tiny config in the background, with a trainer of so many steps."""
    fake = {"RUN_ID": "one", "FAKE_STEPS": str(steps), "FAKE_STEP_SECONDS": str(seconds)}
    command = ["bash", "scripts/golf.sh", "run", "configs/tiny.env", *words]
    env = {**os.environ, "PYTHON": sys.executable, **fake, **(env or {})}
    return subprocess.Popen(command, env=env, cwd=repo, **streams)


def stopped(process, number):
    """Asks it to stop by this signal; it goes on to the end, and says why."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0 and b"noted    training was stopped early" in output
    return output


def start(repo, seconds=0.1, **env):
    """A supervised run of a minute in the background, once its second step is logged."""
    process = popen(repo, steps=600, seconds=seconds, env=env, stdout=subprocess.PIPE, stderr=2)
    metrics = repo / "runs/one/metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count('"step"') > 1, process)
    return process


def wait_for_ranks(process, count) -> None:
    """Until torchrun and so many trainers handle SIGTERM: the fake ones, unlike real ranks, do not wait
    for each other, and one that only begins would be killed by it."""

    def handling() -> int:
        found = 0
        for pid in descendants(process.pid):
            with contextlib.suppress(OSError):
                ours = b"train_gpt.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
                caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
                found += ours and int(caught, 16) >> (signal.SIGTERM - 1) & 1
        return found

    wait_until(lambda: handling() > count, process)


def child_of(process) -> int:
    """The trainer's process id."""
    return next(iter(descendants(process.pid, levels=1)))


def gone(pid: int) -> bool:
    """Whether it has ended, waited for or not."""
    fields = stat(pid)
    return fields is None or fields[0] == b"Z"


def test_what_is_written_while_the_trainer_ends_is_passed_on(tmp_path, capfd):
    """The pipe stays open, as a grandchild would hold it; the trainer ends between two looks."""
    (out, speaks), (err, silent) = os.pipe(), os.pipe()
    words = [b"last words\n"]

    class Process:
        stdout, stderr = os.fdopen(out, "rb", 0), os.fdopen(err, "rb", 0)

        def poll(self):
            while words:
                os.write(speaks, words.pop())
            return 0

    supervisor = child.Supervisor.__new__(child.Supervisor)  # which would take this process's signals
    supervisor.process, supervisor.progress = Process(), child.Progress(tmp_path / "metrics.jsonl")
    assert supervisor.pump((b"", b"")) == []
    assert capfd.readouterr().out == "last words\n"
    for pipe in (Process.stdout, Process.stderr):
        pipe.close()
    os.close(speaks)
    os.close(silent)


# Any of the signals that ask to stop; the tools take them all by one function.
ANY = [
    signal.SIGINT,
    *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)),
]


@pytest.mark.parametrize("number", ANY)
def test_first_signal_lets_the_run_finish(tiny_repo, number):
    assert b"score    val_bpb" in stopped(start(tiny_repo, SEEDS=""), number)
    assert runlog.read_run(tiny_repo / "runs/one")["end"]["exit_code"] == 0


def test_second_signal_ends_it_at_once(tiny_repo):
    process = start(tiny_repo, 1)
    child = child_of(process)
    with contextlib.suppress(ProcessLookupError):  # once the child is gone, no more
        while True:  # a second one too soon after the first is taken for its echo
            os.kill(child, 0)
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
    process.communicate()
    wait_until(lambda: gone(child))
    assert process.returncode == 130 and "end" not in runlog.read_run(tiny_repo / "runs/one")


def test_what_is_left_after_a_run_was_ended_at_once_is_told(tmp_path):
    assert "nothing to go on from" in run.how_to_go_on(tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    assert f"RUN_ID={tmp_path.name} RESUME=1 goes on from checkpoint.pt" in run.how_to_go_on(tmp_path)


AGAIN = [  # a signal sent so many seconds after the first, and whether it ends the run at once
    (signal.SIGINT, 0.1, False), (signal.SIGTERM, 0.1, False), (signal.SIGHUP, 0.1, False),
    (signal.SIGINT, 0.15, True), (signal.SIGTERM, 0.15, True), (signal.SIGHUP, 0.15, False),
    (signal.SIGUSR1, 60, False),
]  # fmt: skip


@pytest.mark.parametrize("number, later, ends", AGAIN)
def test_a_login_that_ends_says_so_more_than_once(number, later, ends, monkeypatch):
    """SIGHUP from the shell and the terminal, SIGTERM beside it, `timeout`'s two: one request."""
    process = SimpleNamespace(pid=1, args=[], returncode=None)
    kill, kill_tree, clock = mock.Mock(), mock.Mock(), mock.Mock(return_value=0.0)
    monkeypatch.setattr(child.os, "kill", kill)
    monkeypatch.setattr(child, "kill_tree", kill_tree)
    monkeypatch.setattr(child.time, "monotonic", clock)
    monkeypatch.setattr(child, "handle_stops", mock.Mock())
    supervisor = child.Supervisor()
    supervisor.process = process
    supervisor.on_signal(signal.SIGHUP, None)
    clock.return_value += later
    supervisor.on_signal(number, None)
    kill.assert_called_once_with(process.pid, signal.SIGTERM)
    assert kill_tree.called == ends


def test_under_nohup_the_end_of_the_login_is_ignored():
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from golf.core.processes import handle_stops\n"
        "handle_stops(print); print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert done.stdout == b"True\n", done.stderr


@pytest.mark.parametrize("number", ANY[:3])
def test_a_signal_while_a_run_is_prepared_ends_it_in_a_line(tiny_repo, number):
    source = "import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(60)\n"
    (tiny_repo / "slow.py").write_text(source)
    process = popen(tiny_repo, "--trainer", "slow.py", stderr=subprocess.PIPE)
    wait_until((tiny_repo / "here").exists, process)
    child = child_of(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    wait_until(lambda: gone(child))
    assert process.returncode == 130 and one_line(errors.decode()) == "golf run: stopped"
    assert not (tiny_repo / "runs").exists()


def test_a_terminal_that_goes_away_ends_no_run(tiny_repo):
    """Its reads and writes fail with EIO, not EPIPE; the run saves what it has."""
    ours, theirs = pty.openpty()
    process = popen(tiny_repo, steps=20, seconds=0.1, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    process.wait(timeout=HANG_SECONDS)
    assert runlog.read_run(tiny_repo / "runs/one")["end"]["exit_code"] == 0
    assert process.returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's parent-death signal")
def test_no_child_outlives_a_killed_supervisor(tiny_repo):
    process = start(tiny_repo)
    child = child_of(process)
    process.kill()
    process.communicate(timeout=HANG_SECONDS)
    wait_until(lambda: gone(child))


def test_progress_bar_on_a_terminal(tiny_repo):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = popen(tiny_repo, steps=5, seconds=0.3, stdout=subprocess.PIPE, stderr=theirs)
    process.communicate(timeout=HANG_SECONDS)
    os.set_blocking(ours, False)
    shown = os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 0
    assert re.search(rb"2/5 training +\d+%\|.*step \d, loss \d", shown)


def test_reader_that_goes_away_ends_no_run(tiny_repo):
    env = {**os.environ, "PYTHON": sys.executable, "RUN_ID": "one"}
    command = f"bash '{tiny_repo}/scripts/golf.sh' run '{tiny_repo}/configs/tiny.env' | head -1"
    subprocess.run(["bash", "-c", command], env=env, capture_output=True, timeout=HANG_SECONDS)
    assert runlog.read_run(tiny_repo / "runs/one")["end"]["exit_code"] == 0


@pytest.mark.slow
def test_two_nodes_meet(tiny_repo):
    """Two agents of torchrun on this machine; only the node of rank 0 keeps files."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    env = {"NNODES": "2", "RDZV_ENDPOINT": endpoint}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    nodes = [popen(tiny_repo, env={**env, "OUT_DIR": f"runs/{name}"}, **pipes) for name in ("a", "b")]
    said = [node.communicate(timeout=HANG_SECONDS) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    (folder,) = (tiny_repo / "runs").glob("*/one")
    assert runlog.read_run(folder)["start"]["world_size"] == 2
    assert sorted(b"the node of rank 0 holds its files" in out for out, _ in said) == [False, True]
    assert sorted(b"score    val_bpb" in out for out, _ in said) == [False, True]


@pytest.mark.slow
def test_out_of_memory_and_a_signal_under_torchrun(tiny_repo):
    done = passed(golf(tiny_repo, RUN_ID="two", NPROC_PER_NODE="2", FAKE_OOM_ABOVE="2048"))
    assert runlog.read_run(tiny_repo / "runs/two")["start"]["world_size"] == 2
    assert "starting again with MICRO_BATCH_TOKENS=2048" in done.stderr
    process = start(tiny_repo, NPROC_PER_NODE="2")
    wait_for_ranks(process, 2)
    stopped(process, signal.SIGINT)


def test_a_console_is_spared_lines_that_say_nothing(tmp_path):
    noise = b"W1129 cpp_extension.py:178] No CUDA runtime is found, using CUDA_HOME='/usr/local/cuda'\n"
    lines = b"run_id:x\n" + noise + b"peak_memory_bytes:0\npeak_memory_bytes:05\n"
    heard = child.Progress(tmp_path / "metrics.jsonl").heard(lines + b"the end")
    assert heard == b"run_id:x\npeak_memory_bytes:05\nthe end"
