"""A real tiny run of each trainer, and the board's entry, for what looks at runs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import trainer_kit
from conftest import REPO, real_tokens
from trainer_kit import TOKENIZER

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ENTRY = REPO / "records" / "track_sample_5min" / "2026-11-29_starter"
TINY = {
    "DEVICE": "cpu", "COMPILE": "0", "MAX_WALLCLOCK_SECONDS": "0", "ITERATIONS": "12",
    "NUM_LAYERS": "3", "MODEL_DIM": "32", "NUM_HEADS": "2", "NUM_KV_HEADS": "1", "MLP_MULT": "2",
    "TRAIN_SEQ_LEN": "16", "TRAIN_BATCH_TOKENS": "128", "EVAL_SEQ_LEN": "64", "EVAL_STRIDE": "64",
    "VAL_MAX_TOKENS": "640", "VAL_LOSS_EVERY": "5", "WARMUP_STEPS": "0", "TOKENIZER_PATH": str(TOKENIZER),
}  # fmt: skip


@pytest.fixture(scope="session")
def sample_tokens() -> np.ndarray:
    return np.array(real_tokens(3000), np.uint16)


def make_run(folder: Path, kit, tokens: np.ndarray, **changes) -> Path:
    """A finished run, on `tokens`, of the trainer that `kit` is for; its folder."""
    trainer_kit.write_shard(folder / "data" / "fineweb_train_000000.bin", tokens[:2000])
    trainer_kit.write_shard(folder / "data" / "fineweb_val_000000.bin", tokens[2000:])
    done = kit.run_main(folder, **{**TINY, "RUN_ID": "tiny", **changes})
    assert done.code == 0, done.out[-2000:] + done.err[-2000:]
    return done.folder


@pytest.fixture(scope="session")
def torch_run(once, sample_tokens) -> Path:
    return once("torch run", lambda folder: make_run(folder, trainer_kit, sample_tokens)) / "runs" / "tiny"


@pytest.fixture(scope="session")
def mlx_run(once, sample_tokens) -> Path:
    import mlx_kit  # skips where there is no MLX

    return once("mlx run", lambda folder: make_run(folder, mlx_kit, sample_tokens)) / "runs" / "tiny"


@pytest.fixture(params=["torch_run", "mlx_run"])
def any_run(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("NOT TESTED: pages need a Chromium (sudo apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="NOT TESTED: playwright is missing")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def opened(browser, path: Path, width: int, theme: str = "light"):
    """A page, and the list to which its errors go."""
    page, errors = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=theme), []
    page.set_default_timeout(120_000)  # a busy machine
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: errors.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.goto(path.as_uri())
    return page, errors
