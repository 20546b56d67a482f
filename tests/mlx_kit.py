"""What the MLX trainer's tests share: models with the twin's weights, and tiny runs in this process."""

import contextlib
import functools
import io
import platform
from pathlib import Path

import pytest
import trainer_kit as kit

if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
    pytest.skip("there is no MLX for Intel Macs", allow_module_level=True)

import mlx.core as mx

import train_gpt_mlx as M

__all__ = ["M", "given_weights", "knobs", "mx", "new_run", "run_main", "twin_of"]
mx.set_default_device(mx.cpu)  # also on a Mac: the figures here are those of float32 on a CPU


def knobs(**changes):
    return M.read_knobs(kit.settings(**changes))


def given_weights(k, model=None):
    """A model in which every parameter matters; the weights of kit.random_model."""
    model = model or M.GPT(k)
    weights = kit.weights_of(kit.random_model(k))
    model.update(M.tree_unflatten([(name, mx.array(w)) for name, w in weights.items()]))
    return model


def twin_of(**changes):
    """An MLX model and the same in PyTorch."""
    return given_weights(knobs(**changes)), kit.random_model(kit.knobs(**changes))


@contextlib.contextmanager
def new_run(folder: Path, **changes):
    """What main() sets up for these knobs, ready for train(); data as in kit.run_settings."""
    number = len(list((folder / "runs").glob("*"))) if (folder / "runs").exists() else 0
    env = kit.run_settings(folder, {"RUN_ID": f"run{number}", **changes})
    with kit.trainer_process(folder, env, M), contextlib.redirect_stdout(io.StringIO()):
        run = M.Run(M.read_knobs(env))
        run.log.open(run.folder, False)
        M.warm_up(run)
        yield run


run_main = functools.partial(kit.run_main, trainer=M)
