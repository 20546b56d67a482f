"""A track with real text, and the sample data as the scorer reads it."""

import pytest
from audit_kit import TRACK
from golf.score import stream
from score_kit import make_track


@pytest.fixture(scope="session")
def track(tmp_path_factory):
    return make_track(tmp_path_factory.mktemp("track"))


@pytest.fixture(scope="session")
def source(sample_data) -> stream.Stream:
    return stream.load(TRACK, sample_data / "datasets" / "sample_sp1024")[0]
