"""golf bench: what it measures on a tiny model, what it prints, how two results compare."""

import functools
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import trainer_kit as kit
from conftest import HANG_SECONDS, run_golf
from golf.bench import command as bench
from golf.bench import floor, measure, selftest
from golf.core import trainers
from golf.core.errors import GolfError

TINY = {**kit.TINY, "TRAIN_SEQ_LEN": 32, "VAL_BATCH_SIZE": 128}
read_knobs = functools.cache(trainers.read_knobs)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A tiny model's env file; samples are short, and no corpus is found."""
    monkeypatch.setattr(bench, "SECONDS", {"cpu": 0.0, "cuda": 0.0})
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 0.001)
    monkeypatch.setattr(measure, "copy_bandwidth", lambda device: 1e9)
    monkeypatch.setattr(measure, "product_rate", lambda shape, dtype, device: 1e9)
    monkeypatch.setattr(measure, "device_of", measure.Device)
    monkeypatch.setattr(bench, "trainers", SimpleNamespace(**vars(trainers)))
    monkeypatch.setattr(bench.trainers, "read_knobs", read_knobs)
    path = tmp_path / "tiny.env"
    left_out = ("RUN_ID", "WARMUP_STEPS", "VAL_MAX_TOKENS")
    path.write_text("".join(f"{n}={v}\n" for n, v in TINY.items() if n not in left_out))
    return path


def arguments(what, *files, config=None, json=None, script=kit.REPO / "train_gpt.py"):
    return SimpleNamespace(what=what, files=list(files), config=config, json=json, script=script)


def results(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(samples, what="train", label="a", **more):
    return dict(schema=1, what=what, label=label, samples=samples, tokens=100, device="X", **more)


# ---- Measuring ----


def test_samples_leave_out_the_first_call_and_group_short_ones(monkeypatch):
    now, took = [0.0], iter([100.0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def call():
        now[0] += next(took, 0.03)

    found = measure.samples(call, torch.device("cpu"), seconds=1.0)
    assert found == pytest.approx([0.03] * len(found))
    assert len(found) == 11  # samples of three calls each, until a second is over
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 0.01)
    assert len(measure.samples(call, torch.device("cpu"), seconds=0.0)) == 3


@pytest.mark.slow
def test_peaks_are_measured_once_and_in_the_shapes_asked_for():
    device = measure.Device(torch.device("cpu"))
    device.limit = 32
    shape = floor.Product(4096, 16, 8, 2)
    operators = {floor.Operator("forward", "x", shape.operations, 10, shape): 1}
    peaks = device.peaks(operators, torch.float32)
    assert set(peaks.rates) == {floor.Product(32, 16, 8, 2), floor.Product(32, 32, 32)}
    assert all(rate > 0 for rate in peaks.rates.values()) and peaks.bandwidth > 0
    assert peaks.rate(shape) == peaks.rates[floor.Product(32, 16, 8, 2)]
    rates = dict(peaks.rates)
    assert device.peaks(operators, torch.float32).rates == rates
    assert device.peaks(operators, torch.float64).rates is not peaks.rates


@pytest.mark.slow
def test_each_part_of_a_tiny_trainer(config, tmp_path, capsys):
    out = tmp_path / "out.json"
    found = {}
    for part in ("train", "score", "optimizer", "data"):
        assert bench.main(arguments(part, config=config, json=out)) == 0
        (found[part],) = results(out)
        line = capsys.readouterr().out
        assert line.startswith(f"{part}, tiny: ")
        assert ("of the floor" in line) == (part != "data")
    for part, r in found.items():
        assert r["what"] == part and len(r["script_sha256"]) == 64
        assert r["device"] and r["torch"] == torch.__version__
        assert len(r["samples"]) >= 3 and all(s > 0 for s in r["samples"])
        assert r["config"]["MODEL_DIM"] == "16"
    train, score = found["train"], found["score"]
    assert train["tokens"] == 64 and train["micro_batch_tokens"] in (32, 64)
    assert set(train["parts"]) == {"forward", "backward", "optimizer", "data", "logging"}
    assert train["floor"] == pytest.approx(sum(train["part_floors"].values()))
    assert found["optimizer"]["floor"] == train["part_floors"]["optimizer"]
    # the peaks that were set: a nanosecond a byte or an operation, whichever are more
    k = kit.knobs(TRAIN_SEQ_LEN=32)
    operators = floor.training(k, getattr(torch, train["dtype"]).itemsize)
    larger = sum(n * max(op.operations, op.bytes) for op, n in operators.items())
    assert train["floor"] == pytest.approx(larger / 1e9)
    assert score["wanted_tokens"] == 4194304 and 0 < score["tokens"] < 4194304


def test_data_that_is_there_is_used(tmp_path):
    folder = kit.make_data(tmp_path / "corpus", val=2000)
    trainer = measure.load_trainer(kit.REPO / "train_gpt.py")
    given = {"DATA_PATH": str(folder), "TOKENIZER_PATH": str(kit.TOKENIZER)}
    assert measure.usable_data(given, trainer, tmp_path) == given
    (folder / "fineweb_val_000000.bin").unlink()
    made = measure.usable_data(given, trainer, tmp_path)
    assert made["DATA_PATH"] != given["DATA_PATH"]
    assert len(trainer.find_shards(made["DATA_PATH"], "train")) == 1


@pytest.mark.slow
def test_all_goes_on_where_a_part_fails_and_ends_with_a_table(config, monkeypatch, capsys):
    jobs = [
        bench.Benchmark("one", config, ("train", "score", "data")),
        bench.Benchmark("two", config, ("optimizer",), {"MODEL_DIM": "24"}),
        bench.Benchmark("three", config, ("data",), {"MODEL_DIM": "23"}),
    ]
    monkeypatch.setattr(bench, "ALL", {"cpu": jobs, "cuda": jobs})
    monkeypatch.setattr(measure, "score", lambda lab: 1 / 0)
    assert bench.main(arguments("all")) == 2  # of the bad knob
    said = capsys.readouterr()
    assert "golf bench: error: score, one: division by zero" in said.err
    assert "golf bench: error: data, three: NUM_HEADS=2: must divide MODEL_DIM / 2" in said.err
    head, peaks, *rows = said.out[said.out.index("device ") :].splitlines()
    assert peaks == "copies 1 GB/s, products 0.001 to 0.001 TFLOP/s by shape, a large square 0.001"
    assert f"torch {torch.__version__}" in head and "dtype " in head
    assert [row.split(" | ")[0] for row in rows if row.startswith("| ")] == [
        "| what", "| ---", "| train, one", "| forward alone", "| backward alone", "| optimizer alone",
        "| data alone", "| logging alone", "| data, one", "| optimizer, two",
    ]  # fmt: skip
    monkeypatch.setattr(bench, "LAST_START_SECONDS", -1)
    assert bench.main(arguments("all")) == 2
    said = capsys.readouterr()
    assert said.err.count("left out: the time is up") == 4 and said.out == ""


def test_a_reader_that_goes_away_is_no_failed_part(config, monkeypatch, capsys):
    def gone(*_):
        raise BrokenPipeError

    monkeypatch.setattr(bench, "floor_lines", gone)
    with pytest.raises(BrokenPipeError):  # which the door turns into a quiet end
        bench.main(arguments("floor", config=config))
    assert capsys.readouterr().err == ""


def test_used_wrongly(config, tmp_path):
    (tmp_path / "odd.env").write_text("MODEL_DIMM=3\n")
    (tmp_path / "other.txt").write_text("print('A\\t1\\tsome knob')\n")
    wrong = [
        (arguments("compare"), 2, "compare takes two files"),
        (arguments("train", Path("x")), 2, "compare takes two files"),
        (arguments("all", config=config), 2, "all has its own"),
        (arguments("train", config=tmp_path / "no.env"), 2, "no.env: cannot be read"),
        (arguments("train", config=tmp_path / "odd.env"), 2, "did you mean MODEL_DIM?"),
        (arguments("train", script=tmp_path / "no.py"), 2, "no trainer there"),
        (arguments("train", script=tmp_path / "other.txt"), 1, "has no read_knobs"),
        (arguments("train", json=tmp_path / "no" / "x"), 2, "cannot be written"),
        (arguments("floor", config=config, json=tmp_path / "x"), 2, "floor measures nothing"),
        (arguments("compare", config, config, json=config), 2, "compare measures nothing"),
        (arguments("compare", tmp_path / "no", config), 2, "cannot be read"),
        (arguments("compare", config, config), 1, "no results there"),
    ]
    for args, code, words in wrong:
        with pytest.raises(GolfError, match=words) as caught:
            bench.main(args)
        assert caught.value.code == code


@pytest.mark.slow
def test_earlier_results_are_kept_until_there_are_new_ones(config, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    out.write_text("earlier\n")
    monkeypatch.setenv("MODEL_DIM", "23")
    assert bench.main(arguments("data", config=config, json=out)) == 2
    assert capsys.readouterr().err.startswith("golf bench: error: data, tiny: NUM_HEADS=2: must")
    assert out.read_text() == "earlier\n"
    monkeypatch.delenv("MODEL_DIM")
    assert bench.main(arguments("data", config=config, json=out)) == 0
    assert [r["what"] for r in results(out)] == ["data"]


# ---- Self-test ----


def test_selftest_without_a_gpu_says_what_it_could_check(config):
    with pytest.raises(GolfError, match="no CUDA device, so only this was tested: python 3.*torch 2") as told:
        bench.main(arguments("selftest", config=config))
    assert told.value.code == 1 and "\n" not in str(told.value)


@pytest.mark.slow
def test_what_selftest_measures_of_a_trainer(config, tmp_path, monkeypatch):
    """On a CPU: the same parts but the card and the capture."""
    monkeypatch.setattr(selftest, "SCORED", 512)
    monkeypatch.setattr(selftest, "sync_line", lambda *_: "a sync inside a capture: not tried")
    trainer = measure.load_trainer(kit.REPO / "train_gpt.py")
    given = {name: str(value) for name, value in TINY.items()} | {"WARMUP_STEPS": "1"}
    given |= measure.usable_data(given, trainer, tmp_path)
    lines = list(selftest.about_training(trainer, given, tmp_path))
    kernels = [line.split(": ") for line in lines if line.startswith("attention ")]
    assert [name.split()[1] for name, _ in kernels] == [kernel.name for kernel in selftest.KERNELS]
    assert float(kernels[0][1].partition("%")[0]) < 1, "a CPU has this one"
    assert "compile:False" in lines and "gradients compiled and plain: 0.00% apart" in lines
    assert sum("tokens/s" in line for line in lines) == 2
    (scored,) = (line for line in lines if line.startswith("scoring: "))
    assert scored.endswith("the same") and scored.count(", ") == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: a sync inside a capture wants a GPU")
def test_a_sync_inside_a_capture_is_survived(tmp_path):
    trainer = measure.load_trainer(kit.REPO / "train_gpt.py")
    given = {name: str(value) for name, value in TINY.items() if name not in ("DEVICE", "COMPILE")}
    given |= measure.usable_data(given, trainer, tmp_path)
    line = selftest.sync_line(kit.REPO / "train_gpt.py", given, tmp_path)
    assert line.endswith("trains on without a graph")


# ---- Startup ----


def trainer_script(path: Path, body: str) -> Path:
    path.write_text(
        "import json, os, pathlib, sys, time\n"
        "run = pathlib.Path(os.environ['OUT_DIR'], os.environ['RUN_ID'])\n"
        "run.mkdir(parents=True)\n"
        "file = (run / 'metrics.jsonl').open('w')\n"
        "def event(name, at):\n"
        "    print(json.dumps(dict(schema=1, event=name, time=at)), file=file, flush=True)\n" + body
    )
    return path


def test_startup_ends_with_the_first_step(tmp_path):
    body = """
(run / "pid").write_text(str(os.getpid()))
event("start", 1.0)
event("step", time.time() + 1000)
event("step", time.time() + 5000)
time.sleep(600)
"""
    trainer = SimpleNamespace(__file__=str(trainer_script(tmp_path / "t.py", body)))
    found = list(measure.startup(trainer, {}, tmp_path, time.monotonic() + HANG_SECONDS))
    assert [r["name"] for r in found] == ["cold", "warm", "plain"]
    assert all(1000 <= r["samples"][0] < 2000 for r in found)
    for path in tmp_path.glob("runs/*/pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_startup_of_a_trainer_that_says_much(tmp_path):
    body = 'sys.stderr.write("warning\\n" * 50000)\nevent("step", time.time())\ntime.sleep(600)\n'
    script = trainer_script(tmp_path / "t.py", body)
    assert measure.first_step(script, measure.own_settings(tmp_path), limit=HANG_SECONDS) > 0


def test_startup_that_never_trains_says_why(tmp_path):
    body = 'event("start", 1.0)\nsys.exit("train_gpt.py: error: no luck today")\n'
    script = trainer_script(tmp_path / "t.py", body)
    with pytest.raises(GolfError, match="no luck today"):
        measure.first_step(script, measure.own_settings(tmp_path), limit=HANG_SECONDS)


def test_startup_ends_when_the_time_is_up(tmp_path):
    trainer = SimpleNamespace(__file__=str(trainer_script(tmp_path / "t.py", "time.sleep(600)\n")))
    with pytest.raises(GolfError, match=r"no first step in 1 s; the time is up"):
        list(measure.startup(trainer, {}, tmp_path, time.monotonic() + 1))


# ---- What is printed ----


def test_figures_say_what_is_extrapolated():
    part = result([2.0, 2.0, 2.0], "score", wanted_tokens=400)
    assert bench.figure(part) == "8.0 s for 400 targets, extrapolated from 100"
    assert bench.figure({**part, "wanted_tokens": 100}) == "2.0 s for 100 targets"
    assert bench.figure(result([0.5])) == "200 tokens/s, 500 ms a step"
    whole = result([0.5], floor=0.1, peak_reserved_bytes=2e9, micro_batch_tokens=64, notes=["graph:no"])
    line, memory, note = bench.lines(whole)
    assert line.endswith("once, 20.0 % of the floor") and note == "    graph:no"
    assert memory == "    its peak memory: 2.00 GB reserved, in micro-batches of 64 tokens"
    assert bench.spread([1.0, 2.0, 3.0]) == "±25.0 %"


@pytest.mark.parametrize(("before", "after", "words"), [
    (result([1.0, 1.1, 1.2]), result([0.5, 0.55, 0.6]), "2.000x (1.826 to 2.190), faster"),
    (result([1.0, 1.1, 1.2]), result([2.0, 2.2, 2.4]), ", slower"),
    (result([1.0, 1.1, 1.2]), result([1.05, 1.12, 1.3]), ", within noise"),
    (result([1.0]), result([2.0, 2.0, 2.0]), "0.500x (0.500 to 0.500), measured once"),
    # the same a token in half a batch
    (result([1.0] * 3), {**result([0.5] * 3), "tokens": 50}, "1.000x (1.000 to 1.000), within"),
    (result([1.0, 1.0]), {**result([1.0, 1.0]), "device": "Y"}, "; device differs: X, Y"),
    (
        result([1.0, 1.0], dtype="float32", torch="2.6", config={"NUM_HEADS": "6"}),
        result([1.0, 1.0], dtype="bfloat16", torch="2.7", config={"NUM_HEADS": "3", "SEED": "1"}),
        "within noise; dtype differs: float32, bfloat16; torch differs: 2.6, 2.7; "
        "NUM_HEADS differs: 6, 3; SEED differs: the default, 1",
    ),
    (result([1.0, 1.0]), result([1.0, 1.0], label="b"), "train, a -> train, b: "),
])  # fmt: skip
def test_two_results_compared(before, after, words):
    (line,) = bench.compare([before], [after])
    assert words in line


def test_results_are_paired_by_what_and_configuration():
    score = dict(what="score", wanted_tokens=100)
    before = [result([1.0, 1.0]), result([3.0, 3.0], **score), result([1.0], label="c")]
    after = [result([9.0, 9.0], label="b"), result([2.0, 2.0]), result([1.0], label="c", **score)]
    (line,) = bench.compare(before, after)
    assert line.startswith("train, a: ") and "0.500x" in line
    assert "nothing to compare" in bench.compare(before[1:2], after[:1])[0]


def test_compare_by_the_door(tmp_path):
    for name, seconds in (("a.json", 1.0), ("b.json", 0.5)):
        lines = [json.dumps(result([seconds] * 3)), "torn {", '{"schema": 1, "samples": ["x"]}']
        lines += ['{"schema": 1, "samples": [1]}', '{"schema": 1, "samples": [1], "what": []}']
        lines += [json.dumps(result([1.0], what="score")), json.dumps(result([1.0], label=7))]
        (tmp_path / name).write_text("\n".join(lines))
    done = run_golf("bench", "compare", tmp_path / "a.json", tmp_path / "b.json")
    assert done.returncode == 0 and "2.000x (2.000 to 2.000), faster" in done.stdout
    assert done.stdout.count("\n") == 1 and done.stderr == ""
    done = run_golf("bench", "compare", tmp_path / "a.json")
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_all_scores_the_starters_windows_on_cuda():
    """docs/floors.md has a row for a sliding score at 1024/64."""
    jobs = bench.ALL["cuda"]
    (starter,) = [job for job in jobs if job.config is None]
    k = measure.load_trainer(kit.REPO / "train_gpt.py").read_knobs(starter.changes)
    assert (k.num_heads, k.num_kv_heads, k.mlp_mult) == (6, 3, 3)
    assert (k.eval_seq_len, k.eval_stride) == (1024, 64)
    assert [j.parts for j in jobs if j.config is None] == [("train", "score", "optimizer")]
    assert {part for job in jobs for part in job.parts} == set(bench.PARTS)
