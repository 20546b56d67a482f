"""Runs of the PyTorch trainer that several tests compare with or go on from."""

import os
import shutil
import signal

import pytest
import trainer_kit as kit


def interrupt(run):
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run with a tiny run's knobs, from its first step to its last."""
    result = kit.run_main(tmp_path_factory.mktemp("whole"), RUN_ID="whole")
    assert result.code == 0, result.err
    return result


@pytest.fixture(scope="session")
def stopped_at_three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    assert kit.run_main(folder, {"train_step": kit.before_step(interrupt, 2)}).code == 0
    return folder


@pytest.fixture
def stopped(stopped_at_three, tmp_path):
    """The folder of that run when it was stopped at its third step; what run_main(tmp_path) goes on with."""
    shutil.copytree(stopped_at_three, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs" / "run"
