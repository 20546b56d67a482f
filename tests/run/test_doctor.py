"""golf.sh doctor: what works on this machine."""

import importlib.metadata
import shutil

import pytest
from conftest import REPO, run_golf, shard_of, write_shard
from golf.core import machine, trainers
from golf.run import doctor, preflight

CARDS = dict(cuda="12.8", cards=[["NVIDIA GeForce RTX 4090", 8, 9]], kernels=["sm_75", "sm_90"])


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """The exit code, and (outcome, line) by what is asked, on a machine where all is well."""
    monkeypatch.setattr(doctor, "REPO", tmp_path)
    monkeypatch.setattr(trainers, "cuda_facts", lambda env: (CARDS, ""))
    monkeypatch.setattr(machine, "has_nvidia", lambda: True)
    monkeypatch.setattr(machine, "compiler_faults", lambda env, gpu: [])
    monkeypatch.setattr(doctor.bwrap, "why_not", lambda: None)
    (tmp_path / "data/tokenizers").mkdir(parents=True)
    for name, tokenizer in doctor.DATA.items():
        shutil.copy(REPO / "data/sample_1024_bpe.model", tmp_path / "data/tokenizers" / tokenizer)
        (folder := tmp_path / "data/datasets" / name).mkdir(parents=True)
        for split in ("train", "val"):
            write_shard(folder / f"fineweb_{split}_000000.bin", range(9))

    def asked():
        done = run_golf("doctor", env={"OUT_DIR": str(tmp_path / "runs")})
        rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        assert done.stderr == "" and len(rows) == 8
        return done.returncode, {what: (outcome, said) for outcome, what, said in rows}

    return asked


def test_a_machine_where_all_is_well(ask):
    code, said = ask()
    assert code == 0 and {outcome for outcome, _ in said.values()} == {"ok"}
    assert "RTX 4090, capability 8.9" in said["device"][1] and "train shards: 1" in said["data"][1]
    assert "numpy " in said["packages"][1]


def no_package(name):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("place", "name", "value", "code", "what", "words"),
    [
        (importlib.metadata, "version", no_package, 1, "packages", "pip install -r requirements-"),
        (trainers, "cuda_facts", lambda env: (None, ""), 1, "device", "does not start"),
        (trainers, "cuda_facts", lambda env: (dict(CARDS, cards=[]), ""), 1, "device", "needs driver 525"),
        (preflight, "FREE_BYTES", 1 << 80, 1, "disk", "a run needs"),
        (machine, "compiler_faults", lambda env, gpu: ["no Python.h"], 0, "compiler", "python3-dev"),
        (doctor.bwrap, "why_not", lambda: "no bubblewrap", 0, "sandbox", "score and verify need it"),
        (doctor, "DATA", {name: "none" for name in doctor.DATA}, 0, "data", "cached_challenge_fineweb.py"),
    ],
)
def test_what_is_wrong_is_told_with_its_remedy(ask, monkeypatch, place, name, value, code, what, words):
    monkeypatch.setattr(place, name, value)
    found, said = ask()
    assert found == code and said[what][0] == ("FAIL" if code else "NOTE") and words in said[what][1]
    assert {outcome for other, (outcome, _) in said.items() if other != what} == {"ok"}


@pytest.mark.parametrize(
    "name", ["fineweb_train_000007.bin", "fineweb_val_000000.bin", "fineweb_train_0.bin"]
)
@pytest.mark.parametrize(
    "harm", [b"", b"<html>", shard_of(range(9))[:-1], shard_of(range(9), magic=7), shard_of([])]
)
def test_a_shard_that_is_not_whole_is_named(ask, tmp_path, name, harm):
    (tmp_path / "data/datasets/fineweb10B_sp1024" / name).write_bytes(harm)
    code, said = ask()
    assert code == 0 and said["data"][0] == "NOTE" and f"fineweb10B_sp1024/{name}: no" in said["data"][1]


def test_it_reads_out_dir_as_a_run_does(ask, tmp_path):
    done = run_golf("doctor", env={"OUT_DIR": "~/runs"}, cwd=tmp_path)
    assert "FAIL  disk      OUT_DIR: ~ and $NAME are not expanded here" in done.stdout
    assert done.returncode == 1 and not (tmp_path / "~").exists()


def test_a_machine_without_a_gpu_trains_on_its_cores(ask, monkeypatch):
    monkeypatch.setattr(trainers, "cuda_facts", lambda env: (dict(CARDS, cuda=None, cards=[]), ""))
    monkeypatch.setattr(machine, "has_nvidia", lambda: False)
    code, said = ask()
    assert code == 0 and "CPU cores" in said["device"][1] and "no NVIDIA GPU" in said["device"][1]
