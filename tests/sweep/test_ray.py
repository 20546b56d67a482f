"""A sweep on a cluster: two nodes on loopback, one of them killed while it works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refused, run_script, wait_until
from golf.sweep import node

from .test_sweep import rows_of

MISSING = "NOT TESTED: ray is missing (requirements-sweep.txt)"


@pytest.fixture
def cluster(monkeypatch):
    """A head that takes no run, and two nodes with room for one each."""
    kit = pytest.importorskip("ray.cluster_utils", reason=MISSING)
    for name, value in {"FAKE_STEPS": "12", "FAKE_STEP_SECONDS": "0.5", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)  # which the nodes hand on
    made = kit.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    yield made, nodes
    made.shutdown()


@pytest.mark.slow
def test_runs_go_on_where_a_node_dies(cluster, tiny_repo):
    made, nodes = cluster
    words = ["configs/tiny.env", "MODEL_DIM=64,128", "SEEDS=1,2", "DEVICE=cpu", "--name", "far"]
    command = ["bash", "scripts/golf.sh", "sweep", *words, "--ray", made.address]
    env = {**os.environ, "PYTHON": sys.executable}
    with subprocess.Popen(command, cwd=tiny_repo, env=env, stdout=subprocess.PIPE, text=True) as sweep:
        folder = tiny_repo / "runs/far"
        wait_until(lambda: len(list(folder.glob("*/metrics.jsonl"))) == 2, sweep)  # streamed back
        made.remove_node(nodes[0], allow_graceful=False)
        out, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, out
    found = rows_of(tiny_repo, "far")
    assert [r["status"] for r in found] == ["done"] * 4 and len({r["val_bpb"] for r in found}) == 2
    for name in ("MODEL_DIM-64-s1", "MODEL_DIM-128-s2"):
        names = {path.name for path in (folder / name).iterdir()}
        assert {"train.log", "metrics.jsonl", "final_model.int8.zlib", "train_gpt.py"} <= names
        assert (folder / name / "metrics.jsonl").read_text().count('"event": "start"') == 1
    assert not list(folder.glob("*.out")) and "4 runs, 0 finished before" in out
    done = run_script("golf.sh", "sweep", *words, "--ray", made.address, repo=tiny_repo)
    assert "4 runs, 4 finished before" in done.stdout and "begins" not in done.stdout


def test_no_cluster_is_told_in_a_line(tiny_repo):
    pytest.importorskip("ray", reason=MISSING)
    for address in ("auto", "127.0.0.1:1", "ray://no.such.host:10001", "127.0.0.1:99999", ""):
        done = run_script("golf.sh", "sweep", "configs/tiny.env", "--ray", address, repo=tiny_repo)
        refused(done, f"--ray {address}: no cluster there")


def test_a_node_fetches_the_data_that_it_lacks(tiny_repo, monkeypatch):
    """On a node the repository is a copy without data, and nothing lies where the sweep was started."""
    data = tiny_repo / "data/datasets/tiny"
    shards = {path.name: path.read_bytes() for path in data.iterdir()}
    code = "import pathlib\np = pathlib.Path('data/datasets/tiny')\np.mkdir()\n"
    code += f"for name, blob in {shards!r}.items(): (p / name).write_bytes(blob)\n"
    (tiny_repo / "data/fetch.py").write_text(code)
    for path in data.iterdir():
        path.unlink()
    data.rmdir()
    monkeypatch.setattr(node, "REPO", tiny_repo)
    monkeypatch.setattr(node, "EVERY_SECONDS", 0.1)
    settings = {"RUN_ID": "one", "SEED": "3", "ITERATIONS": "3"}
    paths = {"DATA_PATH": "/elsewhere/datasets/tiny", "TOKENIZER_PATH": "/elsewhere/tiny.model"}
    sent: dict = {}
    for name, part in node.run("configs/tiny.env", "train_gpt.py", settings, paths, ["data/fetch.py"]):
        sent[name] = sent.get(name, b"") + part if name is not None else part
    assert sent[None] == 0, sent[""].decode()
    assert b'"event": "end"' in sent["metrics.jsonl"] and b"step:3/3" in sent["train.log"]
    assert len(sent["final_model.int8.zlib"]) == 1000 and "supervisor.json" in sent
    assert not any(Path(name).name.startswith(".") for name in filter(None, sent))
