"""golf compare: the record rule's statistics against an independent computation, and bad input."""

import json
import math
import random
import re
import statistics

import pytest
from conftest import passed, refused, run_golf
from golf.core import record_rule, track
from golf.core.errors import GolfError

RULE = {"test": "welch-one-sided", "improvement_nats": 0.005, "p": 0.01, "min_seeds": 3}
DATA = {"name": "sample_sp1024", "val_sha256": "a" * 64, "tokenizer_sha256": "b" * 64}


# ---- The statistics, once more from their definition


def t_tail(t: float, df: float, steps: int = 20000) -> float:
    """P(T > t) of Student's t by Simpson's rule; x = sqrt(df) tan(u) makes the density cos^(df-1)."""
    edge, end = math.atan(t / math.sqrt(df)), math.pi / 2
    h = (end - edge) / steps
    weights = (1 if i in (0, steps) else 4 if i % 2 else 2 for i in range(steps + 1))
    area = h / 3 * sum(w * math.cos(edge + i * h) ** (df - 1) for i, w in enumerate(weights))
    log_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(math.pi)
    return math.exp(log_scale) * area


def by_hand(a, b, margin):
    """Welch's t, its degrees of freedom (Welch-Satterthwaite) and the standard error."""
    parts = [statistics.variance(x) / len(x) for x in (a, b)]
    error = math.sqrt(sum(parts))
    df = sum(parts) ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (a, b)))
    return (statistics.fmean(b) - statistics.fmean(a) - margin) / error, df, error


def draws(seed):
    chance = random.Random(seed)
    sizes = chance.choice([(3, 3), (3, 5), (7, 3), (2, 4)])
    gain, spread = chance.uniform(-0.01, 0.03), chance.choice([0.0005, 0.003, 0.01])
    a = [chance.gauss(3.0 - gain, spread) for _ in range(sizes[0])]
    return a, [chance.gauss(3.0, 2 * spread) for _ in range(sizes[1])]


@pytest.mark.parametrize("seed", range(12))
def test_p_and_interval_are_what_the_definition_gives(seed):
    a, b = draws(seed)
    found = record_rule.compare(a, b, RULE)
    t, df, error = by_hand(a, b, RULE["improvement_nats"])
    assert found.p == pytest.approx(t_tail(t, df), rel=1e-6, abs=1e-9)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(found.improvement)
    half = (high - low) / 2 / error  # the quantile of 98 % confidence: 1 % lies above
    assert t_tail(half, df) == pytest.approx(0.01, rel=1e-4)
    assert found.record == (min(len(a), len(b)) >= 3 and found.p < 0.01)
    assert (low > RULE["improvement_nats"]) == (found.p < 0.01)


def test_a_textbook_value():
    """Student's t with one degree of freedom is Cauchy, with two it has a closed form."""
    assert t_tail(1.0, 1) == pytest.approx(0.25, abs=1e-9)
    assert t_tail(1.5, 2) == pytest.approx(0.5 - 1.5 / (2 * math.sqrt(2 + 1.5**2)), abs=1e-9)


def test_the_rule_asks_for_the_margin_not_for_zero():
    b = [3.0000, 3.0010, 3.0005]
    clear = [x - 0.02 for x in b]
    assert record_rule.compare(clear, b, RULE).record
    small = record_rule.compare([x - 0.0045 for x in b], b, RULE)
    assert not small.record and small.p > 0.5 and small.interval[0] > 0
    assert small.verdict.endswith(
        "not met: A is better by 0.004500 nats; better by more than 0.005 is needed"
    )
    close = record_rule.compare([x - 0.0055 for x in b], b, RULE).verdict
    assert (
        "A is better by 0.005500 nats; more than 0.005 only at p = 0." in close
        and "< 0.01 is needed" in close
    )
    assert "worse by" in record_rule.compare(b, clear, RULE).verdict
    assert "not met: A scores as B does" in record_rule.compare(b, b[::-1], RULE).verdict
    assert record_rule.compare([x - 0.0045 for x in b], b, {**RULE, "improvement_nats": 0}).record


def test_too_few_seeds_decide_nothing():
    found = record_rule.compare([2.0, 2.001], [3.0, 3.001, 3.002], RULE)
    assert not found.record and found.p < 0.01
    assert "2 and 3 seeds are too few, the rule asks for 3 a side" in found.verdict
    assert found.verdict.endswith("A is better by 1.000500 nats")
    one = record_rule.compare([2.0], [3.0], RULE)
    assert not one.record and one.p is None and one.interval is None and one.improvement == 1.0


def test_equal_values_are_no_sample():
    found = record_rule.compare([2.0] * 3, [3.0] * 3, RULE)
    assert not found.record and found.p is None and "no two seeds of a side differ" in found.verdict
    for nearly in ([1.0, 1.0, 1.0 + 1e-15], [1.0, 1.0 + 1e-8, 1.0]):  # rounding is no spread
        found = record_rule.compare(nearly, [2.0] * 3, RULE)
        assert not found.record and found.p is None
    same = [3.0, 3.001, 3.002]
    assert not record_rule.compare(same, same, RULE).record
    t, *_ = by_hand([2.9] * 3, same, 0.005)
    assert record_rule.compare([2.9] * 3, same, RULE).p == pytest.approx(t_tail(t, 2), rel=1e-6)


# ---- Entries on disk


def write_run(folder, seed, loss, targets=65536, **data):
    folder.mkdir(parents=True)
    events = [
        {"event": "start", "seed": seed, "data": {**DATA, **data}},
        {"event": "score", "kind": "roundtrip", "val_loss": 9.9, "targets": targets},
        {"event": "score", "kind": "sliding", "val_loss": loss, "targets": targets},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))


def write_submission(folder, losses, **changes):
    folder.mkdir(parents=True)
    seeds = [{"seed": i, "val_loss": x} for i, x in enumerate(losses)]
    value = dict(track="track_sample_5min", lane="open-hardware", data=DATA, seeds=seeds) | changes
    (folder / "submission.json").write_text(json.dumps(value))


@pytest.fixture
def entries(tmp_path):
    for seed, loss in ((1, 2.50), (2, 2.51), (3, 2.505)):
        write_run(tmp_path / f"runs/idea-s{seed}", seed, loss)
    write_run(tmp_path / "runs/idea-small-2", 1, 99.0)  # no seed of idea
    write_submission(tmp_path / "base", [2.60, 2.61, 2.605])
    return tmp_path


def run(folder, *args):
    return run_golf("compare", *args, cwd=folder)


def test_command_compares_runs_with_a_submission(entries):
    done = passed(run(entries, "runs/idea", "base"))
    assert "B = base (track_sample_5min, open-hardware)" in done.stdout
    assert "record rule met: A is better by 0.100000 nats" in done.stdout
    assert re.search(r"2\.505000 +2\.605000\n", done.stdout) and "99." not in done.stdout
    joined = run(entries, "runs/idea-s1,runs/idea-s2,runs/idea-s3", "base", "--json")
    value = json.loads(joined.stdout)
    assert joined.returncode == 0 and value["record"] and value["improvement"] == pytest.approx(0.1)
    assert value["a"]["seeds"] == {"1": 2.5, "2": 2.51, "3": 2.505}
    assert value["rule"] == track.load("track_sample_5min")["record_rule"]
    assert run(entries, "base", "runs/idea").returncode == 1
    few = run(entries, "runs/idea-s1", "base")
    assert few.returncode == 1 and "not decided: 1 and 3 seeds are too few" in few.stdout
    assert "as they are, A is better by 0.105000 nats" in few.stdout
    other = run(entries, "base", "runs/idea-s1")
    assert other.returncode == 1 and "as they are, A is worse by 0.105000 nats" in other.stdout


CANNOT = {
    # a submission like this: what is said
    "differ in validation data (cccccccccccc, aaaaaaaaaaaa)": dict(data={**DATA, "val_sha256": "c" * 64}),
    "differ in tokenizer": dict(data={**DATA, "tokenizer_sha256": "c" * 64}),
    "differ in targets (4194304, 65536)": dict(track="track_30min_2mb_local"),
    "names no known track": dict(track="track_moon"),
    "does not say which data": dict(data=None),
    "a seed lacks its number or its val_loss": dict(losses=["2.0"]),
    "submission.json holds NaN": dict(losses=[math.nan]),
    "claims a val_loss of 1e+308": dict(losses=[1e308] * 3),
    "lists no seeds": dict(seeds={}),
    "seed 1 is there twice": dict(seeds=[{"seed": 1, "val_loss": 2.0}] * 3),
}


@pytest.mark.parametrize("words, changes", CANNOT.items())
def test_submissions_that_cannot_be_compared(entries, words, changes):
    write_submission(entries / "other", **{"losses": [2.0], **changes})
    refused(run(entries, "other", "base"), words)


def test_runs_and_folders_that_cannot_be_compared(entries):
    write_run(entries / "runs/mixed-s1", 1, 2.5)
    write_run(entries / "runs/mixed-s2", 2, 2.5, targets=4)
    write_run(entries / "runs/alike-s1", 1, 2.5)
    write_run(entries / "runs/alike-s2", 1, 2.5)
    write_submission(entries / "list", [])
    (entries / "list/submission.json").write_text("[1]")
    (entries / "runs/empty").mkdir()
    for place, words in {
        "list": "submission.json is not an object",
        "runs/mixed": "differ in data or targets",
        "runs/alike": "seed 1 is there twice",
        "runs/empty": "no finished run there",
        "no/where": "no submission, no run",
    }.items():
        assert not refused(run(entries, place, "base"), words).stdout
    refused(run(entries, "base", "base", "--track", "track_moon"), "no track 'track_moon'")


def test_two_runs_compare_whatever_they_scored(entries):
    """Any number of targets, any data, without a record rule: the difference and its interval."""
    for seed, loss in enumerate((2.5, 2.51, 2.505)):
        write_run(entries / f"runs/u-s{seed}", seed, loss, targets=7, name="my_corpus")
        write_run(entries / f"runs/v-s{seed}", seed, loss + 0.1, targets=7, name="my_corpus")
        write_run(entries / f"runs/w-s{seed}", seed, loss + 0.001, targets=7)
    done = run(entries, "runs/u", "runs/v")
    assert done.returncode == 0 and "no record rule: A is better by 0.100000 nats\n" in done.stdout
    assert "95% confidence interval" in done.stdout and "Welch" not in done.stdout
    one = run(entries, "runs/u-s0", "runs/v-s1", "--json")
    value = json.loads(one.stdout)
    assert one.returncode == 0 and value["rule"] is None and value["improvement"] == pytest.approx(0.11)
    assert "1 and 1 seeds cannot tell that from chance" in value["verdict"]
    near = run(entries, "runs/w", "runs/w-s0,runs/w-s2")
    assert near.returncode == 0 and "may be chance" in near.stdout


def test_more_than_two_make_a_table(entries):
    done = run(entries, "base", "runs/idea-s1", "runs/idea", "runs/idea-s3")
    lines = done.stdout.splitlines()
    order = "entry runs/idea-s1 runs/idea runs/idea-s3 base".split()
    assert done.returncode == 0 and [x.split()[0] for x in lines[:5]] == order
    assert lines[4].split()[1:5] == ["3", "2.605000", "0.005000", "0.105000"]
    value = json.loads(run(entries, "base", "runs/idea", "base", "--json").stdout)
    assert [e["name"] for e in value] == ["runs/idea", "base", "base"]
    write_run(entries / "runs/less", 1, 2.5, targets=9)
    refused(run(entries, "base", "runs/idea", "runs/less"), "base and runs/less differ in targets")


def test_runs_on_data_of_no_track_take_the_named_tracks_rule(entries):
    for name in ("x", "y"):
        write_run(entries / f"runs/{name}", 1, 2.5, targets=100, name="my_corpus")
    done = run(entries, "runs/x", "runs/y", "--track", "track_sample_5min")
    assert done.returncode == 1 and "not decided: 1 and 1 seeds" in done.stdout


@pytest.mark.parametrize("loss", [-1e-9, -5, 1e13])
def test_a_loss_that_none_can_have(loss):
    with pytest.raises(GolfError, match="claims a val_loss"):
        record_rule.make_side("x", [(1, loss, 1.0)], {"val_sha256": "a", "tokenizer_sha256": "b"}, 5)
