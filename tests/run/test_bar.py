"""How far a run is, told from what it writes."""

import json
import sys

import pytest
from conftest import Clock
from golf.core.bar import SILENT_SECONDS
from golf.run.bar import Progress


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bar(tmp_path, clock):
    (tmp_path / "run").mkdir()
    return Progress(tmp_path / "run" / "metrics.jsonl", clock)


def write(bar, *events):
    with bar.metrics.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


START = {"event": "start", "config": {"MAX_WALLCLOCK_SECONDS": 100.0, "ITERATIONS": 0}}


def step(number, seconds, loss=4.0):
    return dict(event="step", step=number, train_seconds=seconds, tokens=1000 * number, train_loss=loss)


def test_nothing_is_said_before_it_was_silent_for_a_while(bar, clock):
    clock.now += SILENT_SECONDS - 1
    assert bar.tick() == ""
    clock.now += 1
    assert bar.tick() == "1/5 set-up, 15s" and bar.tick() == ""
    clock.now += SILENT_SECONDS
    assert bar.heard(b"a line\n") == b"a line\n"
    assert bar.tick() == ""


def test_the_runs_signs_of_life_are_not_shown_twice(bar, clock):
    clock.now += SILENT_SECONDS
    lines = b"setup seconds:5\nrun_id:x\nafter:warm_up seconds:30\nscoring:8/64 seconds:35\n"
    assert bar.heard(lines + b"step:1/2 train_loss:1.0\n") == b"run_id:x\nstep:1/2 train_loss:1.0\n"
    clock.now += SILENT_SECONDS
    assert bar.heard(b"after:start seconds:50\n") == b"" and bar.tick() != "", "it was silent"


def test_the_set_up_takes_as_long_as_the_last_time(bar, clock):
    last = bar.metrics.parent.parent / "last"
    last.mkdir()
    (last / "metrics.jsonl").write_text('{"event": "end", "setup_seconds": 40.0}\n')
    bar = Progress(bar.metrics, clock)
    clock.now += 20
    assert bar.tick() == "1/5 set-up 50%, 20s, 20s left"
    clock.now += 60
    assert bar.tick() == "1/5 set-up 95%, 1m20s", "nobody knows"


def test_training_has_step_smoothed_loss_speed_and_time_left(bar, clock):
    write(bar, START, step(1, 10.0, 8.0), step(2, 20.0, 4.0))
    assert bar.tick() == ""
    clock.now += SILENT_SECONDS
    assert bar.tick() == "2/5 training 35%, 35s, 1m05s left, step 2, loss 7.800, 100 tokens/s"
    write(bar, step(202, 40.0, 4.0))  # the steps between were not logged: little is left of the first ones
    bar.tick()
    assert bar.loss < 4.01


def test_the_clock_stands_while_it_validates(bar, clock):
    write(bar, START, step(9, 50.0))
    bar.tick()
    clock.now += 5
    bar.heard(b"scoring:0/64 seconds:55\n")
    clock.now += 30
    bar.heard(b"scoring:32/64 seconds:85\n")
    assert bar.fraction() == 0.55 and bar.status().endswith("validation 50%")
    write(bar, {"event": "val"})
    bar.tick()
    clock.now += 2
    assert bar.fraction() == 0.57 and "validation" not in bar.status()


def test_a_step_limit_counts_where_it_comes_first(bar):
    write(bar, {**START, "config": {"MAX_WALLCLOCK_SECONDS": 1000.0, "ITERATIONS": 4}}, step(3, 30.0))
    bar.tick()
    assert bar.fraction() == 0.75 and "10s left" in bar.status()


def test_packing_and_scoring_have_clocks_of_their_own(bar, clock):
    write(bar, START, step(9, 99.0), {"event": "train_end"})
    clock.now += 60
    bar.tick()
    clock.now += SILENT_SECONDS
    assert bar.tick() == "3/5 packing, 15s"
    write(bar, {"event": "export"})
    bar.tick()
    clock.now += 30
    bar.heard(b"scoring:16384/65536 left:30s seconds:90\n")
    assert (bar.title(), bar.fraction(), bar.status()) == ("4/5 scoring", 0.25, "30s, 1m30s left")
    clock.now += 30  # it runs down until more is heard
    assert bar.status() == "1m00s, 1m00s left"
    clock.now += 90
    assert (bar.fraction(), bar.status()) == (0.95, "2m30s")
    write(bar, {"event": "score", "kind": "roundtrip"})
    bar.tick()
    assert (bar.title(), bar.fraction()) == ("5/5 scoring, sliding windows", 0.0)


def test_packing_is_known_by_weights_and_coder(bar, clock):
    start = {"event": "start", "params": 2_000_000, "config": {"COMPRESSOR": "brotli"}}
    write(bar, start, {"event": "train_end"})
    bar.tick()
    clock.now += 5
    assert (bar.title(), bar.status()) == ("3/5 packing", "5s, 5s left")


def test_an_artifact_that_is_scored_alone_has_a_bar(bar, clock):
    bar.heard(b"scoring:0/64 seconds:5\n")
    clock.now += 10
    bar.heard(b"scoring:32/64 seconds:15\n")
    assert (bar.title(), bar.status()) == ("4/5 scoring", "10s, 10s left")


def test_torn_and_odd_lines_do_no_harm(bar):
    bar.metrics.write_text('[]\nnull\n{"event": "step", "step": "x", "train_loss": null}\n{"event": "trai')
    bar.tick()
    assert bar.phase == "train" and bar.fraction() == 0.0 and bar.status()


def test_a_terminal_gets_a_bar_and_one_that_is_gone_ends_nothing(tmp_path, clock, monkeypatch):
    class Terminal:
        def __init__(self):
            self.text, self.gone = "", False

        def isatty(self):
            return True

        def write(self, text):
            if self.gone:
                raise OSError(28, "No space left on device")
            self.text += text

        def flush(self):
            self.write("")

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Progress(tmp_path / "metrics.jsonl", clock)
    write(bar, START, step(5, 50.0))
    clock.now += SILENT_SECONDS
    assert bar.tick() == "" and "2/5 training" in terminal.text and "step 5" in terminal.text
    terminal.gone = True
    bar.tick()
    bar.bar.draw("close")
    assert bar.bar.bar is None
