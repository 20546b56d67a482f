"""What stops a run before anything is made."""

import os
import sys

import pytest
from conftest import refused
from golf.core import machine
from golf.core.errors import GolfError
from golf.run import command, preflight

from run.conftest import golf, one_line


@pytest.mark.parametrize(("env", "words"), [
    ({"DATA_PATH": "nowhere"}, "cached_challenge_fineweb.py --variant sp1024"),
    ({"DATA_PATH": "nowhere"}, f"`{sys.executable} data/build_sample_dataset.py`, then"),
    ({"DATA_PATH": "data/sample_x"}, "build_sample_dataset.py"),
    ({"DATA_PATH": "data/fineweb10B_sp8192"}, "--variant sp8192"),
    ({"VAL_DATA_PATH": "nowhere"}, "VAL_DATA_PATH=nowhere: no fineweb_val_*.bin"),
    ({"TOKENIZER_PATH": "nothing.model"}, "TOKENIZER_PATH=nothing.model"),
    ({"OUT_DIR": "~/x"}, "OUT_DIR: ~ and $NAME are not expanded here"),
    ({"OUT_DIR": "train_gpt.py/runs"}, "OUT_DIR=train_gpt.py/runs: cannot be written"),
    ({"RUN_ID": "../x"}, "RUN_ID='../x'"), ({"SEEDS": "1,x"}, "SEEDS='1,x'"),
    ({"SEEDS": "1,1"}, "SEEDS='1,1'"), ({"SEEDS": ","}, "SEEDS=','"),
    ({"NPROC_PER_NODE": "0"}, "NPROC_PER_NODE='0'"),
    ({"NPROC_PER_NODE": "999999"}, "NPROC_PER_NODE='999999': give a whole number from 1 to "),
    ({"NNODES": "two"}, "NNODES='two'"), ({"NNODES": "2"}, "RDZV_ENDPOINT=HOST:PORT"),
    ({"NNODES": "2", "RDZV_ENDPOINT": "here:29400", "RESUME": "1"}, "only one node has the checkpoint"),
    ({"RESUME": "yes"}, "RESUME='yes': set 0, 1 or auto"), ({"RESUME": "auto"}, "RESUME=auto: set RUN_ID"),
    ({"REPORT": "yes"}, "REPORT='yes'"),
])  # fmt: skip
def test_preflight_says_what_to_do_and_makes_nothing(tiny_repo, env, words):
    before = sorted(p for p in tiny_repo.rglob("*") if "__pycache__" not in p.parts)
    done = golf(tiny_repo, **env)
    assert done.returncode in (1, 2) and words in one_line(done.stderr)
    assert sorted(p for p in tiny_repo.rglob("*") if "__pycache__" not in p.parts) == before


def test_a_trainer_or_config_that_is_none_is_told(tiny_repo):
    refused(golf(tiny_repo, "--trainer", "none.py"), "no trainer there")
    (tiny_repo / "mine.py").write_text("raise SystemExit('broken')\n")
    refused(golf(tiny_repo, "--trainer", "mine.py"), "--knobs failed: broken", code=1)
    refused(golf(tiny_repo, config="none.env"), "cannot be read")


def test_full_disk(tmp_path, monkeypatch):
    usage = type("U", (), {"free": 5, "total": 9})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(GolfError, match="0 MiB free"):
        preflight.check_out_dir(tmp_path / "runs")
    usage.total = usage.free = 0  # a network disk that does not say
    preflight.check_out_dir(tmp_path / "runs")


@pytest.mark.parametrize(("gpu", "name", "no_compiler", "costs"), [
    (True, "CC", "no C compiler (none) found", "2 to 3 times"),
    (False, "CXX", "no C++ compiler (none)", "1.4 to 1.6"),
])  # fmt: skip
def test_a_missing_compiler_is_one_line_before_the_run(tmp_path, monkeypatch, gpu, name, no_compiler, costs):
    have, lacks = {name: "python3"}, {name: "none"}
    monkeypatch.setattr(machine.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "no Python.h found: install g" in preflight.check_compiler(have, "auto", gpu)
    (tmp_path / "Python.h").touch()
    assert preflight.check_compiler(have, "auto", gpu) is None
    told = preflight.check_compiler(lacks, "auto", gpu)
    assert no_compiler in told and costs in told and "\n" not in told
    assert preflight.check_compiler(lacks, "0", gpu) is None
    with pytest.raises(GolfError, match="COMPILE=1: no C"):
        preflight.check_compiler(lacks, "1", gpu)


def test_without_a_compiler_a_processor_is_not_asked_to_compile(tiny_repo, capsys):
    trainer = tiny_repo / "t.py"
    trainer.write_text("import torch\n")
    run = command.SeedRun(trainer, {"CXX": "none", "DEVICE": "cpu"}, "", tiny_repo / "runs/x", 1)
    command.check_torch([run], {"COMPILE": "auto", **run.settings})
    told = one_line(capsys.readouterr().err)  # Python.h may be missing, too
    assert run.settings["COMPILE"] == "0" and "no C++ compiler (none)" in told and "install g++" in told


@pytest.mark.parametrize("name", ["checkpoint.pt", "train.log", "metrics.jsonl", ".lock", "supervisor.json"])
def test_a_pipe_where_a_run_writes_is_refused(tiny_repo, name):
    (tiny_repo / "runs/x").mkdir(parents=True)
    os.mkfifo(tiny_repo / "runs/x" / name)
    refused(golf(tiny_repo, RUN_ID="x", RESUME="auto"), f"runs/x/{name}: not a regular file")
