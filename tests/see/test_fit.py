"""What is said before training, against what really comes out."""

import argparse
import re

import numpy as np
import pytest
from conftest import passed, refused, run_golf
from golf.core import size
from golf.run import command
from golf.see import explain, reader, weights

from .conftest import ENTRY, TINY

STARTER = {
    "VOCAB_SIZE": "1024", "NUM_LAYERS": "6", "MODEL_DIM": "192", "NUM_HEADS": "6", "NUM_KV_HEADS": "3",
    "MLP_MULT": "3.0", "TIE_EMBEDDINGS": "1", "ARTIFACT_CAP_BYTES": "2000000", "COMPRESSOR": "zlib",
}  # fmt: skip


def test_the_counted_weights_are_the_trainers(any_run):
    found = weights.load(reader.find(any_run).artifact)
    model = size.model({**STARTER, **TINY})
    kinds = {part.name: part.weights for part in explain.by_kind(explain.parts_of(found))}
    assert model.block == kinds["attention"] + kinds["MLP"]
    assert (model.embedding, model.vectors) == (kinds["embedding"], kinds["vectors"])
    assert model.columns == sum(len(t.scales) for t in found.tensors.values() if t.scales is not None)
    assert model.tensors == len(found.tensors)


@pytest.mark.parametrize("coder", ["zlib", pytest.param("brotli", marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [12, 4, 1.5, 0.7])
def test_expected_bytes_are_about_those_that_the_trainer_packs(steps, coder):
    """The starter's weights, packed anew. Its gradients are not known, so steps are drawn that spread as the
    half-hour model's do, 0.8 in the logarithm."""
    import train_gpt as T

    found, rng = weights.load(ENTRY / "final_model_seed1337.int8.zlib"), np.random.default_rng(0)
    values = {name: tensor.values() for name, tensor in found.tensors.items()}
    columns = {n: w.std(0) * rng.lognormal(0, 0.8, w.shape[1]) for n, w in values.items() if w.ndim == 2}
    logs = [np.log((abs(values[n]) + 1e-9) / column).ravel() for n, column in columns.items()]
    mean, k = np.exp(np.concatenate(logs).mean()), T.read_knobs({**STARTER})
    columns = {n: mean * column for n, column in columns.items()}
    real = len(T.serialize(found.config, T.pack_tensors(values, columns, 1 / steps, k), coder))
    assert size.packed(size.model(STARTER), steps, coder).model_bytes == pytest.approx(real, rel=0.17)


def test_coarser_steps_take_fewer_bytes_and_cost_more():
    model = size.model(STARTER)
    for coder in size.CODERS:
        rows = [size.packed(model, steps, coder) for steps in (12, 6, 3, 1.5, 0.7)]
        assert [r.model_bytes for r in rows] == sorted((r.model_bytes for r in rows), reverse=True)
        assert [r.cost for r in rows] == sorted(r.cost for r in rows)


def test_the_step_that_fits_is_the_finest():
    model = size.model(STARTER)
    room = size.packed(model, 4, "brotli").model_bytes
    found = size.fitting(model, "brotli", room)
    assert found.model_bytes <= room and found.steps == pytest.approx(4, rel=0.02)
    assert size.fitting(model, "zlib", 3_000_000).steps == size.FINEST
    assert size.fitting(model, "zlib", 100_000) is None


@pytest.mark.parametrize("change, words", [
    ({}, None), ({"MODEL_DIM": "288"}, None),
    ({"MODEL_DIM": "384"}, "score more than 0.07 bits a byte worse"),
    ({"MODEL_DIM": "640"}, "bytes over the cap: shrink the model"),
    ({"MODEL_DIM": "640", "ARTIFACT_CAP_BYTES": "0"}, None),
    # the trainer's own unpacked to 76,763,425 bytes, header included
    ({"NUM_LAYERS": "9", "MODEL_DIM": "1024", "NUM_HEADS": "8", "NUM_KV_HEADS": "8", "MLP_MULT": "2",
      "ARTIFACT_CAP_BYTES": "0"}, "unpacks to 76,759,184 bytes, readers take 67,108,864: shrink the model"),
])  # fmt: skip
def test_a_model_that_will_not_fit_is_told_of(change, words):
    text, warning = size.line({**STARTER, **change}, 45_000)
    assert re.match(r"[\d,]+ weights", text)
    assert (warning is None) if words is None else (words in warning)


def test_the_command_tells_it_at_once():
    done = passed(run_golf("fit", "configs/quickstart.env", "--quick"))
    assert re.search(r"(?m)^  1/12 +6\.\d +\+0\.000 +[\d,]+ +fits +[\d,]+ +fits$", done.stdout)
    assert re.search(r"(?m)^fit      [\d,]+ weights, .* expected at \d\.\d bits a weight", done.stdout)
    refused(run_golf("fit", "configs/quickstart.env", "MODEL_DIM=768", "--quick"), "over the cap", code=1)


@pytest.mark.slow  # the trainer in a process of its own
def test_twenty_timed_steps_tell_memory_and_minutes(torch_run):
    data = torch_run.parents[1] / "data"
    env = {**TINY, "DATA_PATH": str(data), "OMP_NUM_THREADS": "1", "ITERATIONS": "1000"}
    done = passed(run_golf("fit", "configs/quickstart.env", env=env))
    assert re.search(r"(?m)^memory   [\d,]+ MiB at most \(", done.stdout)
    assert re.search(r"(?m)^train    \w+: all 1,000 steps of [\d,]+ ms, [\d,]+ tokens/s$", done.stdout)
    assert re.search(r"(?m)^score    \w+ for 640 targets$", done.stdout)


@pytest.mark.parametrize(
    "words",
    [("MODEL_DIM=0",), ("MODEL_DIM", "64"), ("ARTIFACT_CAP_BYTES=inf",), ("VAL_MAX_TOKENS=x",),
     ("NUM_HEADS=-2",), ("MAX_WALLCLOCK_SECONDS=0", "ITERATIONS=0"), ("--trainer", "other.py")],
)  # fmt: skip
def test_knobs_that_nothing_can_be_said_of_are_told(words, tmp_path):
    (tmp_path / "other.py").write_text("print('MODEL_DIM\\t64\\twidth')\n")
    config = command.REPO / "configs/quickstart.env"
    assert refused(run_golf("fit", config, *words, cwd=tmp_path)).stdout == ""


def test_a_run_tells_it_at_its_start(capsys, tmp_path, monkeypatch):
    trainer = command.REPO / "train_gpt.py"
    monkeypatch.setattr(command, "check", lambda *_: None)  # nothing is trained
    monkeypatch.setattr(command, "run_all", lambda *_, **__: 0)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.main(parser.parse_args(["configs/quickstart.env"])) == 0
    assert capsys.readouterr().out.startswith("fit      ")
    supervisor = command.Supervisor()
    command.tell_size(trainer, {**STARTER, "MODEL_DIM": "640"}, supervisor)
    out, err = capsys.readouterr()
    assert out.startswith("fit      ") and "golf run: warning: even the coarsest" in err
    command.tell_size(trainer, {"MODEL_DIM": "x"}, supervisor)  # the trainer refuses it
    command.tell_size(tmp_path / "train_gpt.py", STARTER, supervisor)  # another's model
    assert capsys.readouterr() == ("", "")


def test_a_packed_script_is_as_large_as_the_trainer_packs_it():
    import train_gpt

    path = command.REPO / "train_gpt.py"
    packed = len(train_gpt.pack_script(path.read_bytes()))
    assert size.code_bytes(path, {"PACK_SCRIPT": "1"}) == pytest.approx(packed, abs=100)
    assert size.code_bytes(path, {"PACK_SCRIPT": "0"}) == path.stat().st_size
