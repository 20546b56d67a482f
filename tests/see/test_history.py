"""What is read from a run, and what runs, watch and plot make of it."""

import fcntl
import json
import os
import re
import shutil

import pytest
from conftest import passed, read_events, refused, run_golf, write_events
from golf.core.errors import GolfError
from golf.core.files import LARGE
from golf.core.units import amount, duration
from golf.run import summary
from golf.see import history, plot, report, watch
from matplotlib.figure import Figure

from .conftest import ENTRY

UPSTREAM_LOG = """\
# a script's own source: f"step:{step}/{total} train_loss:{loss:.4f} train_time:{ms:.0f}ms"
train_batch_tokens:524288 train_seq_len:1024 iterations:20000 warmup_steps:20 max_wallclock_seconds:600.000
step:0/20000 val_loss:6.9357 val_bpb:4.1077 train_time:0ms step_avg:0.02ms
step:1/20000 train_loss:6.9370 train_time:33ms step_avg:32.98ms
step:2/20000 train_loss:16.8366 train_time:75ms step_avg:37.44ms
step:200/20000 train_loss:2.8554 train_time:8667ms step_avg:43.33ms
step:200/20000 val_loss:2.8400 val_bpb:1.6820 train_time:8670ms step_avg:43.35ms
final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22756936
"""


def test_metrics_and_log_of_one_run_say_the_same(torch_run):
    metrics, log = history.read(torch_run / "metrics.jsonl"), history.read(torch_run / "train.log")
    assert [p["step"] for p in metrics.steps] == [p["step"] for p in log.steps] == [*range(1, 11), 12]
    for a, b in zip(metrics.steps, log.steps):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-4)
        assert a["tokens"] == pytest.approx(b["tokens"])
    assert [p["step"] for p in metrics.vals] == [p["step"] for p in log.vals] == [5, 10, 12]
    assert metrics.val_bpb == pytest.approx(log.val_bpb, abs=1e-7)


def test_the_larger_challenges_log_is_read(tmp_path):
    (tmp_path / "train_seed1.log").write_text(UPSTREAM_LOG)
    h = history.read(tmp_path)
    assert [p["step"] for p in h.steps] == [1, 2, 200] and [p["step"] for p in h.vals] == [0, 200]
    assert h.steps[-1] == {"step": 200, "train_seconds": 8.667, "train_loss": 2.8554, "tokens": 200 * 524288}
    assert h.vals[-1]["val_bpb"] == 1.682 and h.val_bpb == 1.22756936


@pytest.mark.parametrize("text", ["", "no log\n", "\x00\xff\n" * 9, "{}\n[]\n", '{"event": "step"}\n'])
@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
def test_what_is_no_run_is_told_in_a_line(text, name, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(GolfError, match="no run's metrics"):
        history.read(tmp_path)
    refused(run_golf("plot", tmp_path), "no run's metrics")


def test_a_torn_last_line_is_left_out(torch_run, tmp_path):
    text = (torch_run / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(text[: text.index('"step": 3') + 3])
    assert [p["step"] for p in history.read(tmp_path).steps] == [1, 2]


def cut(run, folder, *kinds, **ends):
    """A copy of a run whose metrics lack these events; ends: new values of its end."""
    copy = shutil.copytree(run, folder)
    kept = [event for event in read_events(run) if event["event"] not in kinds]
    write_events(copy, *(event | (ends if event["event"] == "end" else {}) for event in kept))
    return copy


def test_states(torch_run, tmp_path):
    assert history.read(torch_run).state() == "finished"
    assert history.read(cut(torch_run, tmp_path / "a", exit_code=1)).state() == "failed"
    killed = cut(torch_run, tmp_path / "b", "train_end", "export", "score", "end")
    assert history.read(killed).state() == "running"  # it wrote something just now
    (killed / ".lock").touch()
    assert history.read(killed).state() == "stopped"
    with (killed / ".lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert history.read(killed).state() == "running"
    for path in killed.glob("checkpoint.*"):
        path.unlink()
    assert history.read(killed).state() == "failed"


def test_a_resumed_run_is_going_and_tells_each_step_once(torch_run, tmp_path):
    one = cut(torch_run, tmp_path / "one")
    lines = (one / "metrics.jsonl").read_text().splitlines(True)
    with (one / "metrics.jsonl").open("a") as file:
        file.writelines(lines[: next(n for n, line in enumerate(lines) if '"step": 7' in line)])
    h = history.read(one)
    assert h.state() == "running" and h.val_bpb is None and h.fraction() == 0.5
    assert [p["step"] for p in h.steps] == [1, 2, 3, 4, 5, 6] and [p["step"] for p in h.vals] == [5]
    assert "Not scored" in run_golf("summary", one).stdout


def test_time_left_is_of_the_steps_or_the_budget(torch_run):
    h = history.read(torch_run)
    del h.facts["train_end"]
    h.steps = h.steps[:6]
    assert h.fraction() == 0.5 and h.seconds_left() == pytest.approx(h.steps[-1]["train_seconds"])
    h.config["MAX_WALLCLOCK_SECONDS"] = 1.25 * h.steps[-1]["train_seconds"]
    assert h.fraction() == 0.8


def test_runs_lists_what_each_was(torch_run, tmp_path):
    shutil.copytree(torch_run, tmp_path / "one")
    origin = {"config": "configs/quickstart.env", "set": {"ITERATIONS": "12", "COMPILE": "0", "SEED": "7"}}
    (tmp_path / "one" / "supervisor.json").write_text(json.dumps(origin))
    cut(torch_run, tmp_path / "two", "score", "export", exit_code=1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "new").mkdir()
    write_events(tmp_path / "new")
    done = passed(run_golf("runs", tmp_path, "--sort", "score"))
    head, one, *others = done.stdout.splitlines()
    two, new = sorted(others, reverse=True)
    assert run_golf("runs", tmp_path / "one").stdout.splitlines()[1].split()[:2] == one.split()[:2]
    shape = r"one +quickstart +1.54k +\d\.\d{4} +[\d,]+ +\d+s +finished +ITERATIONS=12 COMPILE=0 SEED=7$"
    assert re.match(shape, one)
    assert re.match(r"two +- +1.54k +- +- +\d+s +failed$", two)
    assert re.match(r"new +- +- +- +- +- +running 0%$", new)
    assert one.index("finished") == head.index("state")


@pytest.mark.parametrize("data", [b"", b'{"event": "sta', bytes(range(256))])
def test_runs_tells_a_damaged_run_beside_the_sound_ones(data, torch_run, tmp_path):
    shutil.copytree(torch_run, tmp_path / "sound")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/metrics.jsonl").write_bytes(data)
    (tmp_path / "folder/metrics.jsonl").mkdir(parents=True)
    for path in tmp_path.glob("[bf]*/metrics.jsonl"):
        os.utime(path, (0, 0))  # else it might only be starting
    (tmp_path / "sound/supervisor.json").touch()
    os.truncate(tmp_path / "sound/supervisor.json", LARGE + 1)  # too large to read: it hides no run
    done = run_golf("runs", tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 2 and "broken" in done.stderr
    for name, state in (("broken", "damaged"), ("folder", "damaged"), ("sound", "finished")):
        assert re.search(rf"(?m)^{name} .* {state}$", done.stdout)


def test_runs_that_may_not_be_read_are_told_and_not_to_be_deleted(torch_run, tmp_path, monkeypatch):
    for name in ("sound", "locked", "closed", "unlisted"):
        shutil.copytree(torch_run, tmp_path / name)
    secret, closed, unlisted = tmp_path / "locked/metrics.jsonl", tmp_path / "closed", tmp_path / "unlisted"
    (unlisted / "metrics.jsonl").write_text("{")
    for path in (secret, unlisted / "metrics.jsonl"):
        os.utime(path, (0, 0))
    access, denied = os.access, {(secret, os.R_OK), (closed, os.X_OK), (unlisted, os.R_OK)}

    def forbid(call, forbids):
        def asked(path, *args, **options):
            if forbids(path):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *args, **options)

        return asked

    monkeypatch.setattr(os, "access", lambda p, how: (p, how) not in denied and access(p, how))
    monkeypatch.setattr(os, "stat", forbid(os.stat, lambda path: closed in getattr(path, "parents", ())))
    monkeypatch.setattr(type(secret), "open", forbid(type(secret).open, secret.__eq__))
    done = run_golf("runs", tmp_path)
    assert done.returncode == 1 and re.search("(?m)^sound .* finished$", done.stdout)
    said = ("locked/metrics.jsonl: cannot be read (Permission denied); its owner",
            "unlisted/metrics.jsonl: no run's metrics and no trainer's log; its owner",
            "closed: may not be looked into; its owner")  # fmt: skip
    assert all(words in line for words, line in zip(said, done.stderr.splitlines(), strict=True))
    assert "delete" not in done.stderr


def test_no_runs_yet_is_no_error_and_no_folder_is_one(tmp_path):
    done = run_golf("runs", tmp_path)
    assert done.returncode == 0 and "quickstart" in done.stdout
    assert run_golf("runs", tmp_path / "none").returncode == 2


def test_watch_ends_with_the_run(torch_run):
    done = passed(run_golf("watch", torch_run))
    assert re.match(r"finished, step 12, .*loss \d\.\d{4}, val_bpb .*tokens/s, score \d", done.stdout)


def test_watch_takes_the_newest_run_a_sweeps_too(torch_run, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "REPO", tmp_path)
    with pytest.raises(GolfError, match="no runs in"):
        watch.newest()
    for age, name in enumerate(("runs/grid/wide-s1", "runs/one", "runs/grid/base-s1")):
        shutil.copytree(torch_run, tmp_path / name)
        os.utime(tmp_path / name / "metrics.jsonl", (1000 - age, 1000 - age))
    assert watch.newest() == tmp_path / "runs/grid/wide-s1"


def test_watch_tells_the_phase_and_the_time_left(torch_run, tmp_path):
    h = history.read(cut(torch_run, tmp_path / "run", "train_end", "export", "score", "end"))
    h.steps, h.vals = h.steps[:6], []
    assert re.match(r"training 50%, step 6, .* of training left$", watch.status(h))
    assert watch.phase(history.read(torch_run)) == "scoring"
    h.steps = []
    assert watch.status(h).startswith("setting up")


def test_the_curve_falls_from_left_to_right_in_braille_or_in_plain_characters():
    rows = watch.curve([(step, 5 - step / 25) for step in range(1, 101)], 40)
    assert len(rows) == watch.HEIGHT
    columns = [next(y for y, row in enumerate(rows) if row[9 + x : 10 + x].strip()) for x in range(40)]
    assert columns == sorted(columns) and columns[0] == 0 and columns[-1] == watch.HEIGHT - 1
    assert watch.spelt(rows, "UTF-8") == rows and "".join(watch.spelt(rows, "ascii")).isascii()


@pytest.mark.parametrize("kind, magic", [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_plot_draws_runs_logs_and_entries(kind, magic, torch_run, mlx_run, tmp_path):
    (tmp_path / "train.log").write_text(UPSTREAM_LOG)
    out = tmp_path / f"picture.{kind}"
    places = (torch_run, mlx_run, ENTRY, tmp_path / "train.log")
    env = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # as in a notebook
    passed(run_golf("plot", *places, "-o", out, "--x", "tokens", env=env))
    assert out.read_bytes().startswith(magic)


def test_plot_draws_all_seeds_of_a_run(torch_run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "panels", lambda histories, x: drawn.extend(h.place.name for h in histories))
    monkeypatch.setattr(plot, "draw", lambda panels, kind: b"")
    for seed in (7, 11):
        shutil.copytree(torch_run, tmp_path / f"wide-s{seed}")
    passed(run_golf("plot", "wide", "wide-s7", cwd=tmp_path))
    assert drawn == ["wide-s7", "wide-s11", "wide-s7"]
    refused(run_golf("plot", "wider", cwd=tmp_path), "wider: cannot be read")


def test_the_panels_hold_the_runs_values(torch_run):
    h = history.read(torch_run)
    titles = dict(plot.series_of([h], "step", 1.0))
    steps, losses = ([p[name] for p in h.steps] for name in ("step", "train_loss"))
    assert titles["training loss, nats a token"] == [(steps, losses)]
    assert titles["validation on the way, bits a byte"][0][0] == [5, 10, 12]
    seconds = [b["train_seconds"] - a["train_seconds"] for a, b in zip(h.steps, h.steps[1:])]
    expected = [0.128 * n / s for n, s in zip([*[1] * 9, 2], seconds)]
    assert titles["training tokens a second, thousands"][0][1] == pytest.approx(expected)


HOSTILE = {
    "losses": [1e308, -1e308, 10**300, 2.0], "steps": [1e-320, 2e-320, 3e-320], "times": [-1e308, 1e308, 1.0],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_figures_that_no_run_has_break_nothing(name, tmp_path):
    fields = {"losses": "train_loss", "steps": "step", "times": "train_seconds"}
    steps = [{"event": "step", "step": n, "train_loss": 3.0, "train_seconds": n, fields[name]: value}
             for n, value in enumerate(HOSTILE[name] * 3)]  # fmt: skip
    start = {"event": "start", "time": 1e300, "hardware": "a\x1b[2J", "config": {"ITERATIONS": 1e308}}
    write_events(tmp_path, *steps, start)
    (tmp_path / "supervisor.json").write_text('{"config": "a\\u0000b", "set": {}}')
    h = history.read(tmp_path)
    assert plot.draw(plot.panels([h], "steps")) and watch.screen(h, 80, 24) and watch.status(h)
    h.facts["start"]["config"] = {"ITERATIONS": -1}
    assert h.fraction() == 0
    assert report.hashes(h) and report.command(h)
    write_events(tmp_path, *steps, start, {"event": "end", "setup_seconds": 1.0})
    assert all(map(str.isprintable, summary.summary(tmp_path)))


def test_a_log_of_endless_digits_is_no_trap(tmp_path):
    nines = "9" * 5000
    text = f"train_batch_tokens:{nines} x\nstep:{nines}/1 train_loss:1 train_time:1ms\n"
    (tmp_path / "train.log").write_text(text + "step:3/4 train_loss:1 train_time:1ms\n")
    assert [point["step"] for point in history.read(tmp_path).steps] == [3]


def test_the_legend_says_what_differs(torch_run):
    one, other = history.read(torch_run), history.read(torch_run)
    assert history.differences([one]) == history.differences([one, one])[:1] == ["tiny"]
    one.facts["start"]["config"] = {"MATRIX_LR": 0.04, "SEED": 1, "RUN_ID": "a"}
    other.facts["start"]["config"] = {"MATRIX_LR": 0.02, "SEED": 1, "RUN_ID": "b"}
    assert history.differences([one, other]) == ["MATRIX_LR=0.04", "MATRIX_LR=0.02"]
    other.facts["start"]["config"] |= {f"KNOB_{i}": i for i in range(9)}  # no room for that: their names
    other.facts["start"]["run_id"] = "other"
    assert history.differences([one, other]) == ["tiny", "other"]


def test_another_kind_of_file_is_refused_before_anything_is_read(tmp_path):
    refused(run_golf("plot", tmp_path / "none", "-o", "picture.gif"), ".svg or .png")


def test_amounts_and_durations():
    assert [amount(n) for n in (12, 999, 3280000, 2.5e9)] == ["12", "999", "3.28M", "2.5G"]
    assert [duration(s) for s in (0.4, 59, 150, 3900)] == ["0s", "59s", "2m30s", "1h05m"]


def test_the_panels_of_several_runs_have_names_and_one_end(torch_run, mlx_run):
    alone, other = history.read(torch_run), history.read(mlx_run)
    other.vals = other.vals[:1]  # it is drawn as far as the other
    assert plot.panels([alone])[0].keywords["names"] is None
    panels = [panel.keywords for panel in plot.panels([alone, other])]
    assert len(panels) == 4 and all(len(panel["names"]) == 2 for panel in panels)
    axes = Figure().subplots()
    plot.panels([alone, other])[1](axes)
    assert {1.02 * panel["end"] for panel in panels} == {axes.get_xlim()[1]}


def test_a_short_run_is_told_in_seconds(torch_run):
    h = history.read(torch_run)
    assert b"minutes" not in b"".join(str(p.keywords["label"]).encode() for p in plot.panels([h]))
    h.steps[-1]["train_seconds"] = h.facts["train_end"]["train_seconds"] = 200.0
    assert plot.panels([h])[0].keywords["label"] == "minutes of training"
