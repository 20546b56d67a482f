"""A track with real text, and the sample data as the scorer reads it."""

import pytest
from audit_kit import TRACK
from golf.score import stream
from golf.score.sandbox import view
from score_kit import make_track


@pytest.fixture(scope="session")
def track(tmp_path_factory):
    return make_track(tmp_path_factory.mktemp("track"))


@pytest.fixture(scope="session")
def source(sample_data) -> stream.Source:
    return stream.load(TRACK, sample_data / "datasets" / "sample_sp1024")


@pytest.fixture(autouse=True)
def used_once(monkeypatch, request):
    """To use what a sandbox shows three times before it starts takes a second; one test is about that."""
    if "leaves_no_message" not in request.node.name:
        monkeypatch.setattr(view, "MOST_USED", 1)
