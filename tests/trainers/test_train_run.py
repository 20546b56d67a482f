"""Whole tiny runs of the trainer: what they log, how they end, how they go on, what they refuse."""

import errno
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import trainer_kit as kit
from conftest import Clock, load_script, passed
from golf.core import runlog
from golf.core.files import sha256
from golf.run.bar import SIGN_OF_LIFE
from trainer_kit import TWO_RANKS, make_data, run_main, same_weights, start

import train_gpt as T

TIMES = r"train_time:\d+ms step_avg:\d+\.\d\dms"


def values(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+):(\S+)", line))


# ---- What a run writes ----

LOGGED = dict(ITERATIONS=14, TRAIN_LOG_EVERY=4, VAL_LOSS_EVERY=5, CHECKPOINT_EVERY_SECONDS=1e-9)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole run that has most of what a log can show."""
    result = run_main(tmp_path_factory.mktemp("finished"), **LOGGED)
    assert result.code == 0 and not result.err, result.err
    return result


def test_the_run_folder_holds_what_the_contract_says(finished):
    names = "train.log metrics.jsonl config.json checkpoint.pt final_model.int8.zlib train_gpt.py"
    assert {p.name for p in finished.folder.iterdir()} == set(names.split())
    assert (finished.folder / "train_gpt.py").read_bytes() == T.SCRIPT.read_bytes()
    config = json.loads((finished.folder / "config.json").read_text())
    assert set(config) == set(kit.KNOB_NAMES) and config["MODEL_DIM"] == 16 and config["MLP_MULT"] == 2


# The keys that other tools may rely on.
CONTRACT = {
    "start": "run_id seed script script_sha256 config device hardware versions dtype "
    "micro_batch_tokens world_size params resumed data",
    "step": "step train_loss train_seconds tokens lr_scale",
    "val": "step val_loss val_bpb targets train_seconds",
    "train_end": "step train_seconds tokens reason discarded_step",
    "export": "step artifact artifact_sha256 bytes_model bytes_code bytes_total cap headroom export_seconds",
    "score": "kind val_loss val_bpb seq_len stride targets bytes seconds notes",
    "end": "setup_seconds eval_seconds peak_memory_bytes exit_code",
}


def test_every_metric_has_the_keys_of_the_contract_and_events_come_in_order(finished):
    for found in finished.metrics:
        assert found["schema"] == 1 and isinstance(found["time"], float)
        assert set(CONTRACT.get(found["event"], "").split()) - set(found) == set()
    order = [m["event"] for m in finished.metrics if m["event"] in CONTRACT]
    assert {"step", "val"} <= set(order)
    expected = ["start", "train_end", "export", "score", "score", "end"]
    assert [event for event in order if event not in ("step", "val")] == expected


def test_the_start_event_says_what_ran(finished):
    start = finished.event("start")
    assert (start["run_id"], start["seed"], start["script"]) == ("run", 1337, "train_gpt.py")
    assert start["script_sha256"] == sha256(T.SCRIPT)
    assert (start["device"], start["dtype"], start["world_size"]) == ("cpu", "float32", 1)
    assert not start["resumed"] and start["micro_batch_tokens"] == 64 and "CPU" in start["hardware"]
    python = ".".join(map(str, sys.version_info[:3]))
    assert start["versions"] == dict(python=python, torch=torch.__version__, numpy=np.__version__)
    assert start["params"] == sum(p.numel() for p in T.GPT(kit.knobs()).parameters())
    assert start["config"]["NUM_LAYERS"] == 2 and set(start["config"]) == set(kit.KNOB_NAMES)
    hashes = dict(
        val_sha256=sha256(finished.folder.parents[1] / "data/fineweb_val_000000.bin"),
        tokenizer_sha256=sha256(kit.TOKENIZER),
    )
    assert start["data"] == {"name": "data", **hashes}


def test_the_log_begins_with_the_source_and_the_console_does_not(finished):
    source = T.SCRIPT.read_text()
    assert finished.log.startswith(source) and source.splitlines()[5] not in finished.out
    after = finished.log[len(source) :]
    assert torch.__version__ in after and "CPU" in after.split("step:1/")[0]
    logged = [line for line in after.splitlines() if line]
    printed = finished.out.splitlines()
    (long,) = (i for i, line in enumerate(logged) if line.startswith("config:"))
    assert "CONTROL_TENSOR_NAME_PATTERNS" in logged[long] and len(logged[long]) > 1000
    assert len(printed[long]) < 220 and logged[long].startswith(printed[long][:180])
    data = long + 1  # two hashes are long, too
    assert logged[data].startswith("data:") and logged[data].startswith(printed[data][:180])
    assert logged[:long] + logged[data + 1 :] == printed[:long] + printed[data + 1 :]
    assert "peak_memory_bytes" not in finished.out  # there is none to tell of on a CPU


def test_step_lines_and_metrics_agree(finished):
    lines = [line for line in finished.log.splitlines() if re.match(r"step:\d+/14 train_loss:", line)]
    steps = finished.events("step")
    # the first ten, every fourth, the last
    assert [s["step"] for s in steps] == [*range(1, 11), 12, 14] and len(lines) == len(steps)
    for line, fact in zip(lines, steps):
        assert re.fullmatch(rf"step:\d+/14 train_loss:\d+\.\d{{4}} {TIMES} tokens/s:\d+ left:\d+s", line)
        said, ms = values(line), fact["train_seconds"] * 1000
        assert said["step"] == f"{fact['step']}/14" and said["train_loss"] == f"{fact['train_loss']:.4f}"
        assert said["train_time"] == f"{ms:.0f}ms" and said["step_avg"] == f"{ms / fact['step']:.2f}ms"
        assert fact["tokens"] == 64 * fact["step"]
        assert said["s"] == f"{fact['tokens'] / fact['train_seconds']:.0f}"
    assert lines[-1].endswith(" left:0s")
    scales = [s["lr_scale"] for s in steps]
    assert scales[0] == 1 and scales[-1] == pytest.approx((1 / 14) / 0.6) and sorted(scales)[::-1] == scales
    assert steps[0]["train_loss"] == pytest.approx(math.log(kit.VOCAB), abs=0.1)
    assert steps[-1]["train_loss"] < steps[0]["train_loss"] - 0.01, "it learns nothing"


def test_how_far_scoring_is_is_said_after_five_seconds_of_silence(monkeypatch, capsys):
    clock = Clock()

    class Slow:
        windows, stride, seq_len = 2, 4, 4

        def reset(self):
            clock.now += 7  # as long as it was silent before the first target

        def log_probs(self, tokens):
            clock.now += 2
            return torch.full((len(tokens), 8), -math.log(8))

    monkeypatch.setattr(T, "time", SimpleNamespace(monotonic=clock))
    T.score_stream(Slow(), T.Stream(np.arange(65) % 8, np.ones(64, np.int64), {}, "x"), T.Log())
    told = capsys.readouterr().out.splitlines()
    assert told == ["scoring:0/64 seconds:7", "scoring:24/64 seconds:13", "scoring:48/64 seconds:19"]
    assert all(SIGN_OF_LIFE.fullmatch(f"{line}\n".encode()) for line in told)  # as the supervisor reads it


def test_validation_lines_and_metrics_agree(finished):
    lines = [line for line in finished.log.splitlines() if re.match(r"step:\d+/14 val_loss:", line)]
    facts = finished.events("val")
    assert [f["step"] for f in facts] == [5, 10, 14] and len(lines) == 3
    for line, fact in zip(lines, facts):
        assert re.fullmatch(rf"step:\d+/14 val_loss:\d+\.\d{{4}} val_bpb:\d+\.\d{{4}} {TIMES}", line)
        assert values(line)["val_loss"] == f"{fact['val_loss']:.4f}" and fact["targets"] == 200
        assert values(line)["val_bpb"] == f"{fact['val_bpb']:.4f}"
    (roundtrip,) = (s for s in finished.events("score") if s["kind"] == "roundtrip")
    assert facts[-1]["val_loss"] == pytest.approx(roundtrip["val_loss"], abs=0.05)  # the same but packed


def test_the_end_of_training_is_told(finished):
    end = finished.event("train_end")
    assert (end["step"], end["tokens"], end["reason"], end["discarded_step"]) == (14, 896, "iterations", None)
    seconds = end["train_seconds"]
    assert finished.line("train_seconds:") == f"train_seconds:{seconds:.3f} tokens:896 steps:14"
    assert seconds == finished.events("step")[-1]["train_seconds"] > 0


def test_final_score_lines_have_their_exact_shapes_and_metrics_agree(finished):
    scores = {s["kind"]: s for s in finished.events("score")}
    assert scores["roundtrip"]["seq_len"] == scores["roundtrip"]["stride"] == 16
    tails = {"int8_zlib_roundtrip": "", "sliding_window": " seq_len:32 stride:8 targets:200 note:data=data"}
    for (name, tail), score in zip(tails.items(), (scores["roundtrip"], scores["sliding"])):
        exact = f"val_loss:{score['val_loss']:.8f} val_bpb:{score['val_bpb']:.8f}"
        assert finished.line(f"final_{name}_exact ") == f"final_{name}_exact {exact}{tail}"
        assert score["targets"] == 200 and score["notes"] == ["data=data"]
        assert score["val_bpb"] == pytest.approx(score["val_loss"] * 200 / math.log(2) / score["bytes"])
    segments = scores["sliding"]["segments"]
    assert len(segments) == 64 and sum(size for _, size in segments) == scores["sliding"]["bytes"]
    assert sum(nats for nats, _ in segments) / 200 == pytest.approx(scores["sliding"]["val_loss"])


def test_the_script_that_ran_is_counted_though_it_was_edited_meanwhile(tmp_path):
    ran = tmp_path / "train_gpt.py"
    ran.write_bytes(T.SCRIPT.read_bytes())

    def edit(run):
        ran.write_text("another")

    result = run_main(tmp_path, {"SCRIPT": ran, "train_step": kit.before_step(edit, 1)})
    counted = result.event("export")["bytes_code"]
    assert ran.stat().st_size < counted == (result.folder / "train_gpt.py").stat().st_size


def test_modules_of_its_own_are_kept_and_counted_with_their_names(tmp_path):
    ran = tmp_path / "train_gpt.py"
    ran.write_bytes(T.SCRIPT.read_bytes().replace(b"import zlib", b"import zlib, one as uno", 1))
    texts = {"one": "from two import x\n", "two": "import train_gpt, one\nx = 1\n", "three": ""}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    result = run_main(tmp_path, {"SCRIPT": ran})
    kept = [ran, tmp_path / "one.py", tmp_path / "two.py"]
    assert result.event("start")["modules"] == {path.name: sha256(path) for path in kept[1:]}
    assert all((result.folder / path.name).read_bytes() == path.read_bytes() for path in kept)
    assert not (result.folder / "three.py").exists()
    size = sum(path.stat().st_size for path in kept) + len("one.py" + "two.py")
    assert result.event("export")["bytes_code"] == size


def test_the_size_line_counts_the_files(finished):
    export = finished.event("export")
    model, code = finished.artifact.stat().st_size, T.SCRIPT.stat().st_size
    total, cap = model + code, 2_000_000
    parts = f"code:{code} model:{model} cap:{cap} headroom:{cap - total}"
    line = f"total_submission_size_quant_zlib:{total} bytes {parts}"
    assert finished.line("total_submission_size_quant_zlib:") == line
    sizes = [export[n] for n in ("bytes_total", "bytes_code", "bytes_model", "cap", "headroom")]
    assert sizes == [total, code, model, cap, cap - total]
    assert finished.line("quantization_step:") == f"quantization_step:{export['step']:.4f}"
    assert export["artifact"] == finished.artifact.name
    assert export["artifact_sha256"] == sha256(finished.artifact)


def test_key_names_stay_whatever_is_packed_how(tmp_path):
    coder = T.CODERS[-1]
    result = run_main(tmp_path, QUANT_BITS=4, COMPRESSOR=coder, ITERATIONS=1)
    assert result.code == 0 and result.artifact.name == f"final_model.int4.{coder}"
    assert result.line("final_int8_zlib_roundtrip_exact ")
    assert result.line("total_submission_size_quant_zlib:")


def test_fewer_targets_of_the_challenges_data_are_partial(tmp_path):
    result = run_main(tmp_path, DATA_PATH=make_data(tmp_path / "fineweb10B_sp1024"), ITERATIONS=1)
    assert result.line("final_sliding_window_exact ").endswith(" targets:200 note:partial")
    assert all(score["notes"] == ["partial"] for score in result.events("score"))


def test_a_run_without_a_name_is_called_by_its_time(tmp_path):
    result = run_main(tmp_path, RUN_ID="", ITERATIONS=1)
    (folder,) = (tmp_path / "runs").iterdir()
    assert result.code == 0 and re.fullmatch(r"\d{8}-\d{6}", folder.name)


# ---- Reruns ----


def test_the_same_knobs_give_the_same_bytes_and_another_seed_does_not(tmp_path):
    runs = [run_main(tmp_path, RUN_ID=f"r{i}", SEED=seed) for i, seed in enumerate((1, 1, 2))]
    first, again, other = (run.artifact.read_bytes() for run in runs)
    assert first == again != other


def test_warm_up_leaves_no_trace(whole, tmp_path):
    counted = mock.Mock(wraps=T.train_step)
    warm = run_main(tmp_path, {"train_step": counted}, WARMUP_STEPS=3)
    assert counted.call_count == 3 + 6 and warm.losses == whole.losses
    assert warm.artifact.read_bytes() == whole.artifact.read_bytes()


def test_untied_embeddings_and_odd_shapes_run_to_the_end(tmp_path):
    shape = dict(NUM_LAYERS=3, MODEL_DIM=24, NUM_HEADS=4, NUM_KV_HEADS=2, MLP_MULT=2.5, TIE_EMBEDDINGS=0)
    result = run_main(tmp_path, **shape, VAL_LOSS_EVERY=2)
    assert result.code == 0, result.err
    assert result.losses[-1] < result.losses[0]
    (packed, _), trained = result.events("score"), result.events("val")[-1]
    assert packed["val_loss"] == pytest.approx(trained["val_loss"], abs=0.05)


# ---- The budget ----


def timed_run(folder, durations, start=None, validation=0.0, **changes):
    """train() on a clock that each step moves by the next of `durations`: (result, reason, weights before
    each step and after the last)."""
    clock, weights, durations = Clock(), [], iter(durations)
    real, changes = T.train_step, dict(MAX_WALLCLOCK_SECONDS=10, ITERATIONS=0) | changes

    def train_step(run, *args):
        weights.append(kit.weights_of(run.model))
        loss = real(run, *args)
        clock.now += next(durations)
        return loss

    def score_stream(*_):
        clock.now += validation
        return dict(val_loss=1.0, val_bpb=1.0, seconds=validation, targets=1)

    with kit.new_run(folder, **changes) as (run, patch):
        patch.setattr(T, "train_step", train_step)
        patch.setattr(T, "score_stream", score_stream)
        run.checkpoint = start
        reason = T.train(run, clock)
    return kit.Result(run.folder), reason, [*weights, kit.weights_of(run.model)]


def test_a_slow_last_step_is_undone_and_the_logged_time_stays_within_the_budget(tmp_path):
    result, _, weights = timed_run(tmp_path, [1.0] * 7 + [5.0] + [1.0] * 9)
    assert result.event("train_end")["tokens"] == 7 * 64
    seventh, last = result.events("step")[-2:]  # logged once more as the last
    assert last == seventh | dict(time=last["time"]) and last["step"] == 7
    *_, before_seventh, before_eighth, now = weights
    assert same_weights(now, before_eighth) and not same_weights(now, before_seventh)
    assert re.search(r"^discarded_step:8\b", result.log, re.M)
    assert result.line("stopping") == "stopping_early: wallclock_cap train_time:7000ms step:7/0"


def test_a_slow_run_is_not_silent_for_long(tmp_path):
    changes = dict(MAX_WALLCLOCK_SECONDS=0, ITERATIONS=18, TRAIN_LOG_EVERY=1000)
    result, *_ = timed_run(tmp_path, [6.0] * 18, **changes)
    steps = [s["step"] for s in result.events("step")]
    assert steps == [*range(1, 11), 13, 16, 18]  # the first ten, then each after more than 15 s, the last
    assert result.line("finished") == "finished: iterations train_time:108000ms step:18/18"


EACH_ONE, REST = [1.0] * 20, dict(step=7, elapsed=7.0, recent=[1.0])
BUDGETS = {  # seconds of each step, what else is so, (last step, seconds, steps begun, step discarded)
    "no step begins that may end too late": ([1.0, 3.0, *EACH_ONE], {}, (6, 8, 6, None)),
    "one that is met exactly is used whole": ([2.0] * 9, {}, (5, 10, 5, None)),
    "a slow last step is undone": ([1.0] * 7 + [5.0, *EACH_ONE], {}, (7, 7, 8, 8)),
    "a first step past it leaves the start": ([11.0, 1.0], {}, (0, 0, 1, 1)),
    "validation does not count": (EACH_ONE, dict(validation=50.0, VAL_LOSS_EVERY=2), (10, 10, 10, None)),
    "the step limit comes first": (EACH_ONE, dict(ITERATIONS=3), (3, 3, 3, None)),
    "a resumed run has only the rest": (EACH_ONE, dict(start=REST), (10, 10, 3, None)),
}


@pytest.mark.parametrize("durations, options, expected", BUDGETS.values(), ids=BUDGETS)
def test_what_the_budget_holds(durations, options, expected, tmp_path):
    result, reason, weights = timed_run(tmp_path, durations, **options)
    end, begun = result.event("train_end"), len(weights) - 1
    assert (end["step"], pytest.approx(end["train_seconds"]), begun, end["discarded_step"]) == expected
    assert end["tokens"] == 64 * end["step"]
    assert reason == end["reason"] == ("iterations" if "ITERATIONS" in options else "wallclock_cap")
    assert same_weights(weights[-1], weights[-2]) == (end["discarded_step"] is not None)
    if expected == (5, 10, 5, None):
        assert [s["lr_scale"] for s in result.events("step")] == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])


# ---- Stopping and going on ----


@pytest.mark.parametrize("number", kit.STOP_SIGNALS)
def test_the_first_signal_finishes_step_pack_and_score(number, tmp_path):
    step = kit.before_step(lambda run: os.kill(os.getpid(), number), 3)
    result = run_main(tmp_path, {"train_step": step})
    end = result.event("train_end")
    assert (result.code, end["step"], end["reason"]) == (0, 4, "interrupted")
    assert result.line("final_sliding_window_exact ").endswith(" note:interrupted,data=data")
    assert all("interrupted" in score["notes"] for score in result.events("score"))
    assert result.artifact.exists() and result.checkpoint["step"] == 4
    assert result.event("end")["exit_code"] == 0


def test_an_interrupted_run_goes_on_to_the_same_bytes(whole, stopped, tmp_path):
    first = (stopped / "train.log").read_text()
    assert (stopped / whole.artifact.name).read_bytes() != whole.artifact.read_bytes()
    resumed = run_main(tmp_path, RESUME=1)
    assert resumed.code == 0, resumed.err
    assert resumed.artifact.read_bytes() == whole.artifact.read_bytes()
    assert resumed.log.startswith(first) and len(resumed.events("start")) == 2
    assert [start["resumed"] for start in resumed.events("start")] == [False, True]
    assert "resumed" in resumed.events("score")[-1]["notes"]
    losses = [{m["step"]: m["train_loss"] for m in run.events("step")} for run in (resumed, whole)]
    assert losses[0] == losses[1]


KILLED = """
import os, sys, torch
import train_gpt as T
T.pick_dtype = lambda device: torch.float32
save, saved = torch.save, []

def save_part(state, path):
    # the fourth checkpoint is cut off in the middle
    saved.append(state["step"])
    save(state, path)
    if len(saved) == 4:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), 9)

torch.save = save_part
sys.exit(T.main())
"""


@pytest.mark.slow  # a process of its own
def test_a_killed_and_resumed_run_is_bit_equal_to_an_unbroken_one(tmp_path):
    changes = dict(ITERATIONS=12, CHECKPOINT_EVERY_SECONDS=1e-9)
    done = start([sys.executable, "-c", KILLED], kit.run_settings(tmp_path, changes))
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = tmp_path / "runs" / "run"
    assert list(folder.glob("checkpoint*.part")) and not list(folder.glob("final_model*"))
    resumed = run_main(tmp_path, RESUME=1, **changes)
    assert resumed.code == 0, resumed.err
    losses = [m["step"] for m in resumed.events("step")]
    assert losses == [1, 2, 3, 4, *range(4, 13)], "it did not go on after the last whole checkpoint"
    whole = run_main(tmp_path, RUN_ID="whole", **changes)
    assert resumed.artifact.read_bytes() == whole.artifact.read_bytes()
    assert same_weights(resumed.checkpoint["model"], whole.checkpoint["model"])


def contents(folder):
    """All but what only grows: the log and the metrics."""
    files = (p for p in folder.iterdir() if p.name not in ("train.log", "metrics.jsonl"))
    return {p.name: p.read_bytes() for p in files}


@pytest.mark.parametrize(
    "name", ["MICRO_BATCH_TOKENS", "TRAIN_LOG_EVERY", "VAL_LOSS_EVERY", "VAL_BATCH_SIZE"]
)
def test_a_resumed_run_may_change_what_no_weight_depends_on(name, stopped, tmp_path):
    result = run_main(tmp_path, RESUME=1, **{name: 16})
    assert result.code == 0 and result.events("train_end")[-1]["step"] == 6, result.err


def test_a_run_that_its_budget_ended_makes_no_step_when_it_is_resumed(tmp_path):
    """What a step takes is in the checkpoint: the next would still not fit."""
    clock = dict(MAX_WALLCLOCK_SECONDS=1, ITERATIONS=0)
    first, again = run_main(tmp_path, **clock), run_main(tmp_path, RESUME=1, **clock)
    assert first.code == again.code == 0
    assert len({event["step"] for event in again.events("train_end")}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("resume", ["1", "auto"])
def test_where_no_checkpoint_is_a_resumed_run_begins(resume, whole, tmp_path):
    """One command for the first start and for each after a preemption."""
    first = run_main(tmp_path, RESUME=resume)
    assert first.code == 0 and first.artifact.read_bytes() == whole.artifact.read_bytes()
    assert not first.events("start")[0]["resumed"]
    assert "resumed" not in first.events("score")[0]["notes"]
    # killed before its first checkpoint
    (tmp_path / "runs" / "early").mkdir()
    (tmp_path / "runs" / "early" / "train.log").write_text("step:1/6")
    kit.assert_one_line(run_main(tmp_path, RUN_ID="early").err, "train.log", "RESUME=1")
    again = run_main(tmp_path, RUN_ID="early", RESUME=resume)
    assert again.code == 0 and again.artifact.read_bytes() == whole.artifact.read_bytes()
    # a run that ended is scored again, not trained again
    ended = run_main(tmp_path, RESUME=resume)
    assert ended.code == 0 and ended.artifact.read_bytes() == whole.artifact.read_bytes()
    assert ended.events("start")[1]["resumed"] and len(ended.events("step")) == 6


def test_a_run_goes_on_wherever_its_data_and_its_folder_lie_now(whole, stopped, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "data").rename(moved / "tokens")
    stopped.rename(moved / "renamed")
    for shard in (moved / "tokens").iterdir():
        os.utime(shard, (1, 1))
    changes = dict(DATA_PATH=f"{moved}/./tokens/", OUT_DIR=moved, RUN_ID="renamed", WARMUP_STEPS=1)
    (moved / "tok.model").write_bytes(kit.TOKENIZER.read_bytes())
    result = run_main(tmp_path, RESUME=1, TOKENIZER_PATH=moved / "tok.model", **changes)
    assert result.code == 0, result.err
    assert result.artifact.read_bytes() == whole.artifact.read_bytes()


def other_order(data):
    first, second = (data / f"fineweb_train_{i:06}.bin" for i in (0, 1))
    first.rename(data / "x")
    second.rename(first)
    (data / "x").rename(second)


def shard(name, tokens):
    return lambda data: kit.write_shard(data / f"fineweb_{name}.bin", tokens)


def without(part, name):
    def change(data):
        state = torch.load(path := checkpoint_of(data), weights_only=True)
        del state[part][name]
        torch.save(state, path)

    return change


def checkpoint_of(data):
    return data.parent / "runs" / "run" / T.CHECKPOINT


def cut(size):
    return lambda data: os.truncate(checkpoint_of(data), size)


TOKENS = kit.random_tokens(1500, 0)
OTHERWISE = {  # what is another when the run goes on; the exit code, and what is said
    "seed": (dict(SEED=2), 2, "SEED was 1337, is 2"),
    "width": (dict(MODEL_DIM=32), 2, "MODEL_DIM was 16, is 32"),
    "batch": (dict(TRAIN_BATCH_TOKENS=32), 2, "TRAIN_BATCH_TOKENS was 64, is 32"),
    "order of shards": (other_order, 2, "TRAIN_FINGERPRINT was "),
    "a token less": (shard("train_000000", TOKENS[:-1]), 2, "TRAIN_FINGERPRINT was "),
    "a token else": (shard("train_000000", TOKENS + (np.arange(1500) == 700)), 2, "TRAIN_FINGERPRINT was "),
    "another shard": (shard("train_000002", kit.random_tokens(100)), 2, "TRAIN_FILES was 2, is 3"),
    "validation": (shard("val_000000", kit.random_tokens(600, 98)), 2, "VAL_SHA256 was "),
    "a knob that is new in the script": (without("identity", "rope_base"), 2, "ROPE_BASE was None"),
    "a tensor that is": (without("model", "skip_weights"), 1, "does not fit this script"),
    "no checkpoint": (cut(0), 1, "damaged (EOFError); delete it to begin anew"),
    "100 bytes of one": (cut(100), 1, "damaged ("),
    "9,000 bytes of one": (cut(9000), 1, "damaged ("),
}


@pytest.mark.parametrize("change, code, words", OTHERWISE.values(), ids=OTHERWISE)
def test_a_run_does_not_go_on_with_what_is_another(change, code, words, stopped, tmp_path):
    knobs = change if isinstance(change, dict) else {}
    if not knobs:
        change(tmp_path / "data")
    before = contents(stopped)
    result = run_main(tmp_path, RESUME=1, **knobs)
    kit.assert_told(result, code, T.CHECKPOINT, words, *(["put that back", "RUN_ID"] if code == 2 else []))
    assert contents(stopped) == before or "script" in words
    assert not knobs or run_main(tmp_path, RESUME=1).code == 0


@pytest.mark.parametrize("name", ["train.log", "metrics.jsonl"])
def test_a_line_that_was_cut_off_is_ended_before_more_is_added(name, stopped, tmp_path):
    path = stopped / name
    torn = path.read_bytes()[:-7]
    path.write_bytes(torn)
    assert run_main(tmp_path, RESUME=1).code == 0
    now = path.read_bytes()
    assert now.startswith(torn + b"\n") and not now[len(torn) + 1 :].startswith(b"\n")
    if name == "metrics.jsonl":
        assert json.loads(now[len(torn) + 1 :].splitlines()[0])["event"] == "start"


def test_a_resumed_run_keeps_its_number_type(stopped, tmp_path):
    result = run_main(tmp_path, {"pick_dtype": lambda device: torch.bfloat16}, RESUME=1)
    assert result.code == 0
    assert [start["dtype"] for start in result.events("start")] == ["float32", "float32"]


STOPPED = "stopped at once; RESUME=1 goes on from the last checkpoint, if any\n"
PIPES = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow  # a process of its own
def test_the_second_signal_stops_at_once(tmp_path):
    make_data(tmp_path / "data", val=60_000)
    command, env = trainer(tmp_path, ITERATIONS=10**9, VAL_MAX_TOKENS=50_000, EVAL_STRIDE=1)
    process = subprocess.Popen(command, env=env, text=True, bufsize=1, **PIPES)
    try:
        assert any(line.startswith("step:1/") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert "stop" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(1200) == 130
        assert process.stderr.read() == STOPPED
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "runs" / "run" / "final_model.int8.zlib").exists()


# ---- What is refused, and what a failure leaves ----


def test_the_same_run_id_twice_is_refused_and_loses_nothing(tmp_path):
    first = run_main(tmp_path, ITERATIONS=1)
    before = {p.name: p.read_bytes() for p in first.folder.iterdir()}
    kit.assert_told(run_main(tmp_path, ITERATIONS=1), 1, first.folder, "RUN_ID")
    assert {p.name: p.read_bytes() for p in first.folder.iterdir()} == before


@pytest.mark.parametrize("at", ["OUT_DIR", "its parent", "the run"])
def test_a_folder_that_cannot_be_written_is_refused(at, tmp_path):
    file = tmp_path / "file"
    file.write_text("precious")
    out = {"OUT_DIR": file, "its parent": file / "runs", "the run": tmp_path}[at]
    result = run_main(tmp_path, OUT_DIR=out, RUN_ID="file" if at == "the run" else "run")
    kit.assert_told(result, 1, file, "OUT_DIR" if at == "the run" else "Not a directory; check it")
    assert file.read_text() == "precious"


def test_a_loss_of_nan_stops_the_run_and_says_the_step(tmp_path):
    def poison(run):
        with torch.no_grad():
            run.model.tok_emb.weight[5:] = math.nan

    result = run_main(tmp_path, {"train_step": kit.before_step(poison, 3)}, CHECKPOINT_EVERY_SECONDS=1e-9)
    kit.assert_told(result, 1, "step 4", "nan")
    assert result.checkpoint["step"] == 3
    assert all(torch.isfinite(value).all() for value in result.checkpoint["model"].values())
    assert not list(result.folder.glob("final_model*")) and result.events("step")[-1]["step"] == 3
    assert run_main(tmp_path, RESUME=1, CHECKPOINT_EVERY_SECONDS=1e-9).code == 0


def test_weights_that_overflow_at_the_last_step_are_one_line(tmp_path):
    result = run_main(tmp_path, ITERATIONS=1, MATRIX_LR=1e12)
    kit.assert_told(result, 1, "proj.weight")
    assert not list(result.folder.glob("final_model*"))


def raising(error):
    """What makes the second step raise this."""

    def fail(run):
        raise error

    return kit.before_step(fail, 1)


CPU_FAILS = "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: "
ERRORS = {  # of the second step; the exit code, and what is said
    "a file": (raising(OSError(errno.EIO, "I/O error", "/mnt/x")), 1, ["error: /mnt/x: I/O error"]),
    "a file without a name": (raising(OSError(errno.EIO, "I/O error")), 1, ["error: a file: I/O error"]),
}
MEMORY = {
    "GPU": raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. " * 9)),
    "memory": kit.before_step(lambda run: np.empty(1 << 58, np.uint8), 1),
    "CPU tensors": kit.before_step(lambda run: torch.empty(1 << 58, dtype=torch.uint8), 1),
    "CUDA": raising(RuntimeError("CUDA error: out of memory")),
    "cuBLAS": raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")),
    "an older PyTorch": raising(RuntimeError(f"{CPU_FAILS}can't allocate memory: you tried")),
    "a newer one": raising(RuntimeError(f"{CPU_FAILS}not enough memory: you tried")),
}
REMEDIES = ["memory", "MICRO_BATCH_TOKENS", "VAL_BATCH_SIZE"]
ERRORS |= {name: (step, 3, REMEDIES) for name, step in MEMORY.items()}


@pytest.mark.parametrize("train_step, code, words", ERRORS.values(), ids=ERRORS)
def test_an_error_is_one_line_and_want_of_memory_has_its_own_exit_code(train_step, code, words, tmp_path):
    kit.assert_told(run_main(tmp_path, {"train_step": train_step}), code, *words)


@pytest.mark.parametrize("said", [
    "CUDA error: an illegal memory access", "channels_last memory format",
    '!block->expandable INTERNAL ASSERT FAILED at "/c10/cuda/CUDACachingAllocator.cpp":2700',
])  # fmt: skip
def test_an_error_that_speaks_of_memory_is_not_want_of_it(said, tmp_path):
    """Else the supervisor would halve the micro-batch again and again."""
    with pytest.raises(RuntimeError, match=re.escape(said)):
        run_main(tmp_path, {"train_step": raising(RuntimeError(said))})


def test_a_full_disk_at_the_checkpoint_is_one_line_and_training_goes_on(tmp_path, monkeypatch):
    real = torch.save

    def save(state, path):
        real(state, path)
        if state["step"] > 2:
            real(state, "/dev/full")

    monkeypatch.setattr(torch, "save", save)
    result = run_main(tmp_path, CHECKPOINT_EVERY_SECONDS=1e-9)
    assert result.checkpoint["step"] == 2, "the one before is kept"
    assert result.code == 0 and not result.err
    assert result.log.count("\nno checkpoint at step 3, training goes on: ") == 1
    assert not list(result.folder.glob("*.part")), "the artifact wants the room"


class Full(io.FileIO):
    """A file on a disk that is full in the third and fourth step; half of what is written fits before."""

    step = 0

    def write(self, data):
        if Full.step not in (3, 4):
            return super().write(data)
        super().write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_on_a_full_disk_ends_no_run_and_goes_on_when_there_is_room(tmp_path, monkeypatch):
    def train_step(run, tokens, step, scale):
        monkeypatch.setattr(Full, "step", step + 1)
        return real(run, tokens, step, scale)

    def opened(path, mode):
        return Full(path, mode) if mode == "ab" else open(path, mode)

    real = T.train_step
    monkeypatch.setattr(T, "open", opened, raising=False)
    result = run_main(tmp_path, {"train_step": train_step})
    assert result.code == 0
    (warning,) = result.err.splitlines()
    assert "train.log: No space left on device" in warning and warning.endswith("; the run goes on")
    told = [re.findall(r"^step:(\d)/6 train_loss", text, re.M) for text in (result.out, result.log)]
    assert told[0] == list("123456") and told[1][:2] == list("12")
    # half a line is left, and lost with what follows on it; what tools read is whole again after that
    events = runlog.events(result.folder / "metrics.jsonl", True)
    assert [event["step"] for kind, event in events if kind == "step"] == [1, 2, 6]
    assert result.line("final_sliding_window_exact ")


def test_a_log_that_cannot_be_opened_ends_no_run_and_keeps_what_it_holds(tmp_path, monkeypatch):
    def opened(path, mode):
        if mode == "ab" and shut:
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return open(path, mode)

    shut = []
    monkeypatch.setattr(T, "open", opened, raising=False)
    result = run_main(tmp_path, {"train_step": kit.before_step(lambda run: shut.append(1), 3)})
    assert result.code == 0 and result.err.count("Too many open files") == 1
    assert [m["step"] for m in result.events("step")] == [1, 2, 3] and result.log.startswith("#!")


def test_an_artifact_that_finds_no_room_is_packed_by_resuming(whole, tmp_path):
    """What was trained is in the checkpoint."""

    def replace(path, write, *data):
        if "final_model" in path.name:
            return real(path, lambda part: write(Path("/dev/full"), *data))  # an error without a name
        return real(path, write, *data)

    real = T.replace_file
    lost = run_main(tmp_path, {"replace_file": replace})
    assert lost.code == 1 and lost.checkpoint["step"] == 6
    kit.assert_one_line(lost.err, "final_model.int8.zlib: ", "No space left", "disk")
    again = run_main(tmp_path, RESUME=1)
    assert again.code == 0 and [m["step"] for m in again.events("step")] == [1, 2, 3, 4, 5, 6]
    assert again.artifact.read_bytes() == whole.artifact.read_bytes()


def trainer(folder, *python, **changes):
    """The command and environment of a trainer as a process of its own."""
    env = {**kit.BARE, **kit.run_settings(folder, changes)}
    return [sys.executable, *python, kit.REPO / "train_gpt.py"], env


@pytest.mark.slow  # a process of its own
@pytest.mark.parametrize("full", [False, True], ids=["nobody reads", "full disk"])
def test_a_console_that_takes_nothing_ends_no_run(full, tmp_path):
    command, env = trainer(tmp_path)
    with open("/dev/full", "w") as disk:
        stream = disk if full else subprocess.PIPE
        process = subprocess.Popen(command, env=env, stdout=stream, stderr=stream)
    if not full:
        process.stdout.readline()
        process.stdout.close()
        process.stderr.close()
    assert process.wait(1200) == 0
    assert "final_sliding_window_exact" in (tmp_path / "runs" / "run" / "train.log").read_text()


@pytest.mark.slow  # a process of its own
@pytest.mark.skipif(not str(kit.REPO).isascii(), reason="in the C locale PyTorch wants a folder of ASCII")
def test_in_any_locale_and_without_docstrings_files_are_utf8(tmp_path):
    folder = tmp_path / "für"
    folder.mkdir()
    command, env = trainer(folder, "-OO", RUN_ID="größe")
    env |= dict(LC_ALL="C", PYTHONCOERCECLOCALE="0")
    done = passed(subprocess.run(command, env=env, capture_output=True))
    assert "run_id:größe\n".encode() in done.stdout
    run = folder / "runs" / "größe"
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert events[0]["run_id"] == "größe" and events[0]["config"]["DATA_PATH"] == str(folder / "data")
    assert json.loads((run / "config.json").read_text("utf-8"))["RUN_ID"] == "größe"
    assert (run / "train.log").read_text("utf-8").endswith("exit_code:0\n")


@pytest.mark.parametrize("number", [
    signal.SIGTERM,
    *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)),
])  # fmt: skip
def test_a_signal_before_training_ends_the_run_at_once(number, tmp_path):
    code = (
        "import runpy, sys, time, torch\n"
        "torch.nn.Embedding.__init__ = lambda *_: print('here', flush=True) or time.sleep(60)\n"
        f"runpy.run_path({str(kit.REPO / 'train_gpt.py')!r}, run_name='__main__')"
    )
    _, env = trainer(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", code], env=env, text=True, **PIPES)
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=1200)
    assert (process.returncode, err) == (-number, "")  # no traceback
    assert not list(tmp_path.glob("runs/run/final_model*"))


def test_a_signal_that_comes_before_a_step_is_done_packs_nothing(tmp_path):
    result = run_main(tmp_path, {"StopFlag": lambda: SimpleNamespace(asked=True)})
    kit.assert_told(result, 130, "stopped before a step was done")
    assert not list(result.folder.glob("final_model*")) and not list(result.folder.glob("checkpoint*"))


def test_a_signal_while_it_packs_or_scores_loses_nothing(tmp_path):
    real = T.export_artifact

    def export_artifact(*args):
        assert (tmp_path / "runs" / "run" / "checkpoint.pt").exists()
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    result = run_main(tmp_path, {"export_artifact": export_artifact})
    assert result.code == 0 and len(result.events("score")) == 2
    assert result.event("train_end")["reason"] == "iterations"


def test_a_stop_in_a_periodic_validation_ends_training_and_saves(tmp_path):
    real = T.score_stream

    def score_stream(*args):
        if not (tmp_path / "runs" / "run" / "checkpoint.pt").exists():
            os.kill(os.getpid(), signal.SIGHUP)
        return real(*args)

    result = run_main(tmp_path, {"score_stream": score_stream}, VAL_LOSS_EVERY=2, ITERATIONS=100)
    assert result.code == 0 and [val["step"] for val in result.events("val")] == [2]
    assert result.checkpoint["step"] == result.event("train_end")["step"] == 3


def test_nohup_holds(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        step = kit.before_step(lambda run: os.kill(os.getpid(), signal.SIGHUP), 3)
        result = run_main(tmp_path, {"train_step": step})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.code == 0 and result.event("train_end")["reason"] == "iterations"


# ---- A script that is shipped packed ----


def test_a_packed_script_is_counted_and_scores_the_same(whole, tmp_path):
    """The run that made it, EVAL_ONLY by it, and its load_scorer. core/test_packed.py reads its two lines."""
    result = run_main(tmp_path, PACK_SCRIPT=1)
    script = result.folder / "train_gpt.packed.py"
    assert result.event("export")["bytes_code"] == script.stat().st_size < T.SCRIPT.stat().st_size / 2
    assert (result.folder / "train_gpt.py").read_bytes() == T.SCRIPT.read_bytes()
    assert result.artifact.read_bytes() == whole.artifact.read_bytes()
    submission = load_script(script)
    done = run_main(tmp_path, trainer=submission, EVAL_ONLY=result.artifact)
    assert (done.code, done.err) == (0, "") and done.scores == result.scores != []
    assert submission.load_scorer(result.artifact, "cpu").log_probs([1, 300]).shape == (2, 1024)


def test_the_cap_is_fitted_with_the_packed_size(tmp_path):
    code = len(T.pack_script(T.SCRIPT.read_bytes()))
    free = run_main(tmp_path, RUN_ID="free", MODEL_DIM=32, ITERATIONS=1).event("export")
    cap = code + free["bytes_model"] + 5000
    result = run_main(tmp_path, PACK_SCRIPT=1, MODEL_DIM=32, ITERATIONS=1, ARTIFACT_CAP_BYTES=cap)
    export = result.event("export")
    assert (result.code, export["step"], export["headroom"]) == (0, free["step"], 5000)


@pytest.mark.slow
@kit.can_compile
def test_torch_compiles_a_packed_script(tmp_path):
    script = tmp_path / "train_gpt.packed.py"
    script.write_bytes(T.pack_script(T.SCRIPT.read_bytes()))
    env = kit.run_settings(tmp_path, dict(COMPILE=1, ITERATIONS=2))
    done = start([sys.executable, script], {**env, "TORCHINDUCTOR_CACHE_DIR": tmp_path / "cache"})
    assert "compile:True" in passed(done).stdout


# ---- Other processes ----


@pytest.mark.slow
def test_the_trainer_alone_in_a_record_folder_finds_the_repositorys_data(tmp_path):
    repo = tmp_path / "a clone"
    record = repo / "records" / "track" / "mine"
    record.mkdir(parents=True)
    shutil.copyfile(kit.REPO / "train_gpt.py", record / "train_gpt.py")
    make_data(repo / "data" / "datasets" / "fineweb10B_sp1024")
    (repo / "data" / "tokenizers").mkdir()
    shutil.copyfile(kit.TOKENIZER, repo / "data" / "tokenizers" / "fineweb_1024_bpe.model")
    env = kit.settings(TOKENIZER_PATH=None, ITERATIONS=2, VAL_MAX_TOKENS=100)
    done = start([sys.executable, record / "train_gpt.py"], {**env, "PYTHONPATH": ""}, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (repo / "runs" / "run" / "final_model.int8.zlib").exists()
    assert [p.name for p in record.iterdir()] == ["train_gpt.py"]


RANKS = """
import os, sys, torch
import train_gpt as T
T.pick_dtype = lambda device: torch.bfloat16 if os.environ.get("RANK") == "1" else torch.float32
real = T.export

def export(run):
    torch.save(run.model.state_dict(), run.folder / "weights.pt")
    return real(run)

T.export = export
sys.exit(T.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2, 1])  # one layer has skip weights of no rows, and no gradient
def test_two_ranks_agree_with_one_process(layers, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    changes = dict(ITERATIONS=5, VAL_LOSS_EVERY=2, NUM_LAYERS=layers)
    for name, command in (("one", [sys.executable]), ("two", TWO_RANKS)):
        passed(start([*command, script], kit.run_settings(tmp_path, dict(RUN_ID=name, **changes))))
    one, two = (kit.Result(tmp_path / "runs" / name) for name in ("one", "two"))
    assert two.event("start")["world_size"] == 2
    for a, b in zip(one.events("step"), two.events("step"), strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)
        assert (a["step"], a["tokens"]) == (b["step"], b["tokens"])
    weights = [torch.load(run.folder / "weights.pt") for run in (one, two)]
    for name, value in weights[0].items():
        assert (weights[1][name] - value).norm() <= 1e-4 * value.norm(), name
    scores = [run.events("score")[-1]["val_loss"] for run in (one, two)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)  # packed: a symbol may round the other way


@pytest.mark.slow
def test_no_compiler_falls_back_with_one_line(tmp_path):
    command, env = trainer(tmp_path, COMPILE="auto", ITERATIONS=2)
    no_compiler = dict(PATH=tmp_path, TORCHINDUCTOR_CACHE_DIR=tmp_path / "cache")
    done = passed(start(command, {**env, **no_compiler}))
    assert re.search(r"(?m)^compile failed \(.*\): slower; COMPILE=1 tells why$", done.stdout)
    assert "Traceback" not in done.stdout + done.stderr
    assert kit.Result(tmp_path / "runs" / "run").event("warm_up")["compile"] is False


@pytest.mark.slow
@kit.can_compile
def test_compiled_equals_eager(whole, tmp_path, monkeypatch):
    if not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")):
        pytest.fail("the slow tier needs a C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    compiled = run_main(tmp_path, RUN_ID="compiled", COMPILE=1)
    assert compiled.code == 0, compiled.err
    assert compiled.event("warm_up")["compile"] is True
    assert compiled.losses == pytest.approx(whole.losses, rel=1e-3)
    scores = [run.events("score")[-1]["val_loss"] for run in (whole, compiled)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)


def test_a_pipe_in_the_checkpoint_s_place_stops_no_run_for_ever(tmp_path):
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    os.mkfifo(folder / T.CHECKPOINT)  # no checkpoint: the run begins, and replaces it
    assert run_main(tmp_path, RESUME="auto", ITERATIONS=1).code == 0
    assert (folder / T.CHECKPOINT).is_file()
