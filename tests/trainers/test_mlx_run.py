"""The MLX trainer as people start it: by its script, by the supervisor, alone in a record folder."""

import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trainer_kit as kit
from conftest import REPO, passed, refused, run_script
from mlx_kit import M

import train_gpt as T

SCRIPT = M.SCRIPT
# Small enough for a CPU: 2 layers, 64 wide.
SMALL = dict(
    NUM_LAYERS=2, MODEL_DIM=64, NUM_HEADS=2, NUM_KV_HEADS=1, TRAIN_SEQ_LEN=64, TRAIN_BATCH_TOKENS=512,
    ITERATIONS=12, MAX_WALLCLOCK_SECONDS=0, EVAL_SEQ_LEN=64, EVAL_STRIDE=32, VAL_MAX_TOKENS=500,
    TRAIN_LOG_EVERY=4, VAL_LOSS_EVERY=6, CHECKPOINT_EVERY_SECONDS="1e-9", MUON_MOMENTUM_WARMUP_STEPS=10,
    DEVICE="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(once):
    """A whole run by run_mlx_baseline.sh."""

    def make(folder):
        paths = dict(DATA_PATH=kit.make_data(folder / "data", train=(9000, 5000)), OUT_DIR=folder / "runs")
        values = dict(SMALL, TOKENIZER_PATH=kit.TOKENIZER, RUN_ID="run", **paths)
        config = folder / "small.env"
        config.write_text("".join(f'{name}="{value}"\n' for name, value in values.items()))
        done = passed(run_script("run_mlx_baseline.sh", config, timeout=1200))
        (folder / "said").write_text(done.stdout)

    folder = once("mlx script", make)
    return kit.Result(folder / "runs" / "run", out=(folder / "said").read_text())


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A run of the twin with the same logging."""
    shape = dict(ITERATIONS=12, TRAIN_LOG_EVERY=4, VAL_LOSS_EVERY=6, EVAL_SEQ_LEN=64, EVAL_STRIDE=32)
    changes = dict(VAL_MAX_TOKENS=500, TRAIN_BATCH_TOKENS=512, CHECKPOINT_EVERY_SECONDS=1e-9)
    return kit.run_main(tmp_path_factory.mktemp("twin"), **shape, **changes)


def test_the_script_says_that_a_cpu_computes(finished):
    apple = sys.platform == "darwin"
    assert ("no Apple Silicon here: MLX's CPU backend" in finished.out) != apple


def test_the_run_folder_holds_what_the_contract_says(finished):
    assert {p.name for p in finished.folder.iterdir()} - {".lock"} == {
        "train.log", "metrics.jsonl", "config.json", "checkpoint.safetensors", "supervisor.json",
        "final_model.int8.zlib", "train_gpt_mlx.py",
    }  # fmt: skip
    assert (finished.folder / "train_gpt_mlx.py").read_bytes() == SCRIPT.read_bytes()
    assert finished.log.startswith(SCRIPT.read_text())


def shapes(run):
    """The lines of training and scoring; a number's digits are 9, and one before its point."""
    lines = [re.sub(r"(?<![.\d])\d+", "9", line) for line in run.log.splitlines()]
    told = [line for line in lines if re.match("step:9/|finished:|train_seconds:|final_|total_", line)]
    return [re.sub(r"\d", "9", line) for line in told]


def test_log_lines_have_the_shapes_of_the_twins(finished, twin):
    assert shapes(finished) == shapes(twin) and len(shapes(twin)) == 18


def test_metrics_have_the_twins_events_and_keys(finished, twin):
    keys = [{m["event"]: set(m) for m in run.metrics} for run in (twin, finished)]
    assert keys[0].pop("warm_up") - keys[1].pop("warm_up") == {"graph", "self_test"}  # CUDA's
    assert keys[0] == keys[1]
    start, end = finished.event("start"), finished.event("train_end")
    assert (end["step"], end["tokens"], end["reason"]) == (12, 6144, "iterations")
    assert (start["script"], start["device"], start["dtype"]) == ("train_gpt_mlx.py", "cpu", "float32")
    assert start["script_sha256"] == T.sha256(SCRIPT.read_bytes())
    assert set(start["versions"]) == {"python", "mlx", "numpy"}


def test_it_learns_and_packing_keeps_what_it_learned(finished):
    steps, scores = finished.events("step"), {s["kind"]: s for s in finished.events("score")}
    assert steps[0]["train_loss"] == pytest.approx(math.log(kit.VOCAB), abs=0.1)
    assert steps[-1]["train_loss"] < steps[0]["train_loss"] - 0.3
    assert scores["roundtrip"]["val_loss"] == pytest.approx(finished.events("val")[-1]["val_loss"], abs=0.02)
    segments = scores["sliding"]["segments"]
    assert len(segments) == 64 and sum(b for _, b in segments) == scores["sliding"]["bytes"]


def test_the_twin_gives_its_artifact_the_same_score(finished):
    (sliding,) = (s for s in finished.events("score") if s["kind"] == "sliding")
    settings = dict(DATA_PATH=finished.folder.parents[1] / "data", VAL_MAX_TOKENS=500)
    stream = T.read_stream(kit.knobs(**settings))
    score = T.score_stream(T.load_scorer(finished.artifact, "cpu", torch.float32), stream)
    assert score["val_bpb"] == pytest.approx(sliding["val_bpb"], abs=0.0005)


@pytest.mark.slow
def test_the_larger_challenges_smoke_command_runs_in_a_record_folder(tmp_path):
    """Its variables as they are, but fewer steps and a smaller model; data is found from there."""
    folder = tmp_path / "records" / "track" / "mine"
    folder.mkdir(parents=True)
    script = Path(shutil.copy(SCRIPT, folder))
    kit.make_data(tmp_path / "data" / "datasets" / "fineweb10B_sp1024", train=(20000,))
    (tmp_path / "data" / "tokenizers").mkdir()
    shutil.copy(kit.TOKENIZER, tmp_path / "data" / "tokenizers" / "fineweb_1024_bpe.model")
    smoke = dict(RUN_ID="mlx_smoke", TRAIN_BATCH_TOKENS=8192, VAL_LOSS_EVERY=0, VAL_BATCH_SIZE=8192)
    smaller = dict(ITERATIONS=1, WARMUP_STEPS=0, NUM_LAYERS=1, MODEL_DIM=24, VAL_MAX_TOKENS=500, DEVICE="cpu")
    done = passed(kit.start([sys.executable, script.name], {**smoke, **smaller}, cwd=folder))
    assert "step:1/1 train_loss:6.9" in done.stdout and not done.stderr
    run = kit.Result(tmp_path / "runs" / "mlx_smoke")
    again = kit.start([sys.executable, script.name], {**smaller, "EVAL_ONLY": run.artifact}, cwd=folder)
    assert f"val_bpb:{run.events('score')[-1]['val_bpb']:.8f} " in again.stdout, again.stderr


# ---- The supervisor ----


def test_several_processes_are_refused():
    env = {"NPROC_PER_NODE": "2"}
    done = run_script("run_mlx_baseline.sh", REPO / "configs" / "local_apple_mlx.env", env=env)
    refused(done, "NPROC_PER_NODE=2: train_gpt_mlx.py is one process")


def test_its_own_knobs_are_known_and_others_are_not(tmp_path):
    config = tmp_path / "x.env"
    for line, known in (("GRAD_ACCUM_STEPS=8", True), ("GRAD_ACUM_STEPS=8", False)):
        config.write_text(f"{line}\nDATA_PATH={tmp_path}\n")
        done = run_script("run_mlx_baseline.sh", config)
        assert done.returncode in (1, 2) and ("GRAD_ACCUM_STEPS?" in done.stderr) != known, done.stderr


ABORTS = """import os, sys
if sys.argv[1:] == ["--knobs"]:
  print("RUN_ID\\t\\tname")
  sys.exit()
print("libc++abi: [METAL] Command buffer execution failed: Impacting Interactivity", file=sys.stderr)
sys.stderr.flush()
os.abort()
"""


def test_an_abort_by_macos_is_told_with_remedies(tiny_repo):
    (tiny_repo / "train_gpt_mlx.py").write_text(ABORTS)
    (tiny_repo / "configs/mlx.env").write_text("RUN_ID=x\n")
    done = run_script("run_mlx_baseline.sh", "configs/mlx.env", repo=tiny_repo)
    assert done.returncode == 1
    for word in ("display sleep", "caffeinate", "MICRO_BATCH_TOKENS", "AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1"):
        assert word in done.stderr
    assert "signal 6" not in done.stderr


def test_the_preset_is_the_reference_jobs_shape():
    names = "local_4090_baseline.env", "local_apple_mlx.env"
    job, preset = (M.read_knobs(kit.preset(name)) for name in names)
    assert replace(preset, train_batch_tokens=65536, train_log_every=500) == job
