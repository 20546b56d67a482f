"""Where an artifact's bytes went adds up, and the scripts beside it are not run."""

import re
import shutil

import numpy as np
import pytest
import trainer_kit
from conftest import passed, refused, run_golf
from golf.core import artifact
from golf.see import explain, reader, weights

from .conftest import ENTRY


def test_the_parts_add_up_to_the_file(any_run):
    found, budget = explain.read(any_run)
    kinds = explain.by_kind(explain.parts_of(found))
    assert sum(p.coded for p in kinds) == pytest.approx(found.file_bytes, abs=1)
    assert found.file_bytes == reader.find(any_run).artifact.stat().st_size
    assert budget.code == reader.find(any_run).script.stat().st_size and budget.cap == 2_000_000
    assert sum(p.weights for p in kinds) == sum(t.stored.size for t in found.tensors.values())


@pytest.mark.parametrize("coder", ["zlib", "brotli"])
def test_bytes_go_to_the_tensor_that_they_code(coder):
    compress = pytest.importorskip(coder, reason=f"NOT TESTED: {coder} is missing").compress
    blobs = {"noise": np.random.default_rng(0).bytes(40_000), "zeros": bytes(40_000)}
    for names in (("noise", "zeros"), ("zeros", "noise")):
        coded = compress(b"".join(blobs[name] for name in names))
        number = artifact.CODERS.index(coder)
        blob = artifact.PREFIX.pack(artifact.MAGIC, artifact.FORMAT, number, 80_000, 0) + coded
        found = weights.coded_bytes(blob, [(20, "header", 0), *((0, n, 40_000) for n in names)])
        assert found["noise"][0] == pytest.approx(40_000, abs=300)
        assert found["zeros"][0] == pytest.approx(0, abs=300)
        assert sum(map(sum, found.values())) == pytest.approx(len(blob))


@pytest.mark.parametrize("size", [1e-200, 0, -5, 0.5, True])
def test_a_setting_that_is_no_size_tells_no_growth(size):
    tensor = weights.Tensor("fp16", np.zeros(4, np.float16), None)
    found = weights.Weights({"num_layers": 1, "model_dim": size}, {"blocks.0.a": tensor}, 9,
                            {"blocks.0.a": (8.0, 0.0), "header": (1.0, 0.0)})  # fmt: skip
    assert explain.growth(found, explain.parts_of(found)) == []


@pytest.mark.parametrize("size", [0, 4, 19])
def test_what_is_shorter_than_a_head_is_told_so(size, torch_run, tmp_path):
    path = tmp_path / "model.int8.zlib"
    path.write_bytes(reader.find(torch_run).artifact.read_bytes()[:size])
    refused(run_golf("explain", path), f"{size} bytes, and its head alone has 20: is it whole?")


def test_entropy_is_of_single_symbols():
    even = np.arange(256).astype(np.uint8).view(np.int8)
    assert explain.entropy_bytes(np.tile(even, 10)) == pytest.approx(2560)
    assert explain.entropy_bytes(np.zeros(100, np.int8)) == 0
    halves = np.array([1.0, 2.0] * 50, np.float16)  # one bit in the high byte, none in the low
    assert explain.entropy_bytes(halves) == pytest.approx(100 / 8)


def test_the_command_tells_kinds_tensors_headroom_and_growth(torch_run, tmp_path):
    out = tmp_path / "picture.svg"
    done = passed(run_golf("explain", torch_run, "-o", out))
    for words in ("embedding", "attention", "MLP", "vectors", "scales", "header", "blocks.2.mlp.fc.weight"):
        assert len(re.findall(rf"(?m)^{re.escape(words)} +", done.stdout)) >= 1, words
    assert re.search(r"(?m)^headroom 1,\d{3},\d{3} of 2,000,000 bytes$", done.stdout)
    assert re.search(r"one more layer: about \+[\d,]+ bytes; 32 more columns: about \+[\d,]+", done.stdout)
    assert out.read_bytes().startswith(b"<?xml")


@pytest.mark.slow  # two more trainings
def test_one_more_layer_and_wider_columns_cost_about_what_they_did(torch_run, tmp_path, sample_tokens):
    """Against real runs of the larger models, whose weights are as little trained."""
    from .conftest import make_run

    found, _ = explain.read(torch_run)
    text = explain.growth(found, explain.parts_of(found))[0]
    layer, columns = (int(n.replace(",", "")) for n in re.findall(r"\+([\d,]+)", text))
    for change, guess in (({"NUM_LAYERS": "4"}, layer), ({"MODEL_DIM": "64"}, columns)):
        folder = tmp_path / next(iter(change))
        folder.mkdir()
        larger, _ = explain.read(make_run(folder, trainer_kit, sample_tokens, **change))
        assert guess == pytest.approx(larger.file_bytes - found.file_bytes, rel=0.15)


def test_an_entry_is_read_without_its_script():
    found, budget = explain.read(ENTRY)
    assert found.file_bytes == (ENTRY / "final_model_seed1337.int8.zlib").stat().st_size
    assert budget.code == (ENTRY / "train_gpt.py").stat().st_size and budget.cap == 2_000_000


def test_an_artifact_alone_has_no_headroom_and_a_damaged_one_is_told(torch_run, tmp_path):
    alone = shutil.copy(reader.find(torch_run).artifact, tmp_path / "a")
    done = run_golf("explain", alone)
    assert done.returncode == 0 and "headroom" not in done.stdout
    alone.write_bytes(alone.read_bytes()[:-5])
    refused(run_golf("explain", alone), "CRC")
