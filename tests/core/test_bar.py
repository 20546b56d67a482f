"""A long command is never silent, whether or not one of its calls is slow."""

import time

from conftest import Clock
from golf.core import bar
from golf.core.bar import Talker


def test_a_slow_call_is_no_silence(capsys, monkeypatch):
    monkeypatch.setattr(bar, "TICK_SECONDS", 0.01)
    clock = Clock()
    with Talker("golf score", clock) as talker:
        talker.say("seed 1")
        tell = talker.begin("2/4 scoring", 200)
        clock.now += 10
        tell(50)
        time.sleep(0.1)
        clock.now += bar.SILENT_SECONDS - 5  # nobody calls us meanwhile
        end = time.monotonic() + 60
        while "scoring" not in (told := capsys.readouterr().err) and time.monotonic() < end:
            time.sleep(0.01)
    assert told == "golf score: 2/4 scoring 25%, 20s, 20s left\n"  # of the 40 s that were expected


def test_a_phase_of_unknown_length_has_no_time_left():
    clock = Clock()
    talker = Talker("golf score", clock)
    talker.begin("1/4 loading")
    clock.now += 7
    assert talker.status() == (0.0, "7s")
