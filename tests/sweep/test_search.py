"""A sweep whose rows Optuna chooses."""

import pytest
from conftest import passed, refused, write_events
from golf.core.errors import GolfError
from golf.run.bar import Follower
from golf.sweep import plan, sources, table

from .test_sweep import rows_of, sweep

MISSING = "NOT TESTED: optuna is missing (requirements-sweep.txt)"
optuna = pytest.importorskip("optuna", reason=MISSING)


def a_sweep(folder, space, seeds=(1,)):
    (folder / "study").mkdir(exist_ok=True)
    return plan.Sweep(folder, folder, [], list(seeds), folder / "study", space, {"C": "3"})


def test_trials_become_rows_within_their_ranges_and_the_search_goes_on(tiny_repo):
    words = ["configs/tiny.env", "MODEL_DIM=64..512", "MAX_WALLCLOCK_SECONDS=.5..60", "SEEDS=1,2"]
    done = passed(sweep(tiny_repo, *words, "--name", "s", "--search", "2"))
    found = rows_of(tiny_repo, "s")
    assert len(found) == 4 and {r["status"] for r in found} == {"done"}
    for row in found:
        given = dict(pair.split("=") for pair in row["settings"].split())
        assert 64 <= int(given["MODEL_DIM"]) <= 512 and 0.5 <= float(given["MAX_WALLCLOCK_SECONDS"]) <= 60
    done = sweep(tiny_repo, *words, "--name", "s", "--search", "3")
    assert "6 runs, 4 finished before" in done.stdout and done.stdout.count("begins") == 2
    assert [r["row"] for r in rows_of(tiny_repo, "s")][:2] == [r["row"] for r in found][:2]
    done = sweep(tiny_repo, "configs/tiny.env", "MODEL_DIM=1..2", "--name", "s", "--search", "3")
    assert done.returncode == 2 and "was a search of MODEL_DIM, MAX_WALLCLOCK_SECONDS" in done.stderr


def run_at(cell, part, loss):
    """The follower of a run that is so far, with this loss."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "metrics.jsonl").unlink(missing_ok=True)
    follower = Follower(cell.folder / "metrics.jsonl")
    step = {"event": "step", "step": int(100 * part), "train_seconds": 1.0, "train_loss": loss}
    write_events(cell.folder, {"event": "start", "config": {"ITERATIONS": 100}}, step)
    follower.look()
    return follower


RESULT = table.Result(1.7, 1.0, None, 9, 9, 9, 9)


def test_a_trial_that_does_worse_than_the_median_ends_early(tmp_path, monkeypatch):
    search = sources.Search(a_sweep(tmp_path, {"A": ["1.0..1000"]}), 6)
    monkeypatch.setattr(table, "read_result", lambda cell: None)
    cells = []
    for _ in range(sources.STARTUP):
        cells.append(search.next())
        assert search.goes_on(cells[-1], run_at(cells[-1], 0.5, 3.0))  # nothing to compare with
        with monkeypatch.context() as patch:
            patch.setattr(table, "read_result", lambda cell: RESULT)
            search.ended(cells[-1])
    bad, good = search.next(), search.next()
    assert search.goes_on(bad, run_at(bad, 0.1, 9.0)), "too early to judge"
    assert not search.goes_on(bad, run_at(bad, 0.5, 9.0)) and search.pruned == {bad}
    assert search.goes_on(good, run_at(good, 0.5, 2.0)) and search.next() is None
    states = [trial.state.name for trial in search.study.trials]
    assert states == ["COMPLETE"] * sources.STARTUP + ["PRUNED", "RUNNING"]
    again = sources.Search(a_sweep(tmp_path, {"A": ["1.0..1000"]}), 6)  # the sweep was killed
    assert again.pruned == {bad} and again.kept == sources.STARTUP + 1
    assert again.next() == good and again.next() is None


def test_values_that_come_again_are_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "read_result", lambda cell: RESULT)
    search = sources.Search(a_sweep(tmp_path, {"A": ["x", "y"]}, seeds=(1, 2)), 5)
    assert search.next() is None and {row.name for row in search.sweep.rows} <= {"A-x", "A-y"}
    assert [trial.value for trial in search.study.trials] == [1.0] * 5


@pytest.mark.parametrize("text", ["9..1", "1..1e999", "1..99999999999999999999", "x1..y2"])
def test_a_range_that_is_none_is_told_before_anything_is_made(tmp_path, text):
    with pytest.raises(GolfError, match=f"A={text}: a range is low..high"):
        sources.Search(a_sweep(tmp_path, {"A": [text]}), 1)
    assert not list((tmp_path / "study").iterdir())


@pytest.mark.parametrize(("before", "now"), [("1 2", "1 2 3"), ("1..9", ".1..9"), ("1..9", "1 9")])
def test_a_search_of_other_values_is_another_search(tmp_path, before, now):
    before, now = before.split(), now.split()
    sources.Search(a_sweep(tmp_path, {"A": before}), 1).next()
    with pytest.raises(GolfError, match="was a search of A, or of other values; give another --name"):
        sources.Search(a_sweep(tmp_path, {"A": now}), 2)


def test_a_search_among_more_rows_than_a_grid_can_have(tiny_repo):
    words = [f"{name}={','.join(map(str, range(64, 164)))}" for name in ("MODEL_DIM", "ITERATIONS", "SEQ")]
    done = passed(sweep(tiny_repo, "configs/tiny.env", *words[:2], "--name", "s", "--search", "1"))
    assert "1 runs, 0 finished before" in done.stdout and len(rows_of(tiny_repo, "s")) == 1
    refused(sweep(tiny_repo, "configs/tiny.env", *words), "1,000,000 rows, over 10,000")


def test_a_search_goes_on_with_the_whole_lines_of_its_journal(tmp_path):
    """As a full disk or SIGKILL leaves it: the last line is cut, and Optuna's lock stays."""
    space = {"A": ["1.0..9"]}
    cell = sources.Search(a_sweep(tmp_path, space), 1).next()
    journal = tmp_path / "study" / "search.journal"
    journal.with_name("search.journal.lock").symlink_to("search.journal")
    for damage in (b'{"op_code": 4, "wor', bytes(range(256)), b"{}\n[]\n"):
        with journal.open("ab") as file:
            file.write(damage)
        search = sources.Search(a_sweep(tmp_path, space), 1)
        assert search.next() == cell and search.next() is None


def test_what_cannot_be_chosen_of_is_told(tmp_path, tiny_repo):
    with pytest.raises(GolfError, match="nothing to choose"):
        sources.Search(a_sweep(tmp_path, {}), 1)
    done = sweep(tiny_repo, "configs/tiny.env", "MODEL_DIM=64..512")
    assert done.returncode == 2 and "needs --search N" in done.stderr and not (tiny_repo / "runs").exists()
