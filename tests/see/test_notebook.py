"""docs/colab.ipynb runs from its first cell to its last."""

import json
import subprocess

import pytest

from .conftest import REPO

NOTEBOOK = REPO / "docs" / "colab.ipynb"


def test_it_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_it_runs_with_short_settings(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="NOT TESTED: nbclient is missing")
    nbformat = pytest.importorskip("nbformat", reason="NOT TESTED: nbclient is missing")
    pytest.importorskip("ipykernel", reason="NOT TESTED: ipykernel is missing")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(clone)], check=True)
    if (REPO / ".venv").exists():
        (clone / ".venv").symlink_to((REPO / ".venv").resolve())
    settings = dict(MAX_WALLCLOCK_SECONDS=10, COMPILE=0, DEVICE="cpu", VAL_MAX_TOKENS=65536, WARMUP_STEPS=0)
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(clone / "docs")}}
    nbclient.NotebookClient(notebook, timeout=1200, resources=place).execute()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in notebook.cells}
    said = {name: "".join(o.get("text", "") for o in some) for name, some in outputs.items()}
    assert "score    val_bpb " in said["quickstart"]
    assert any("image/png" in o.get("data", {}) for o in outputs["curve"])
    assert said["sample"].startswith("The") and "150 tokens" in said["sample"]
    assert "embedding" in said["explain"] and "submission.json" in said["entry"]
