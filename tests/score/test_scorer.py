"""The official score: right to the last digit, compared with every kind of claim."""

import copy
import json
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
from check_kit import edit
from conftest import REPO, passed, refused, run_golf, run_script, used_wrongly, write_shard
from golf.core import track as tracks
from golf.core.errors import GolfError
from golf.core.files import LARGE
from golf.core.findings import judged
from golf.score import command as score
from golf.score import scorer as official
from golf.score import stream
from score_kit import ECHO, TARGETS, echo_log_probs, failed, make_submission, needs_sandbox


@pytest.fixture
def no_audit(monkeypatch):
    monkeypatch.setattr(official, "audit", lambda *_, **__: [])


@pytest.fixture
def echo(tmp_path):
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    return path


def run(track, folder, sandboxed=False, **options) -> dict:
    """A report. What needs no sandbox is tested without one, so on every machine."""
    options = dict(track_name=str(track), data=track.parent / "data", device="cpu") | options
    return official.score(folder, sandboxed=sandboxed, **options)


def read(track) -> stream.Stream:
    return stream.load(tracks.load(str(track)), track.parent / "data")[0].part(0, TARGETS)


def echo_score(track) -> dict:
    """The echo's score, by plain arithmetic."""
    s = read(track)
    nats = -echo_log_probs(s.tokens[:-1], s.tokens[1:])
    parts = [(nats[i : i + 100], s.target_bytes[i : i + 100]) for i in range(0, TARGETS, 100)]
    segments = [[float(n.sum()), int(b.sum())] for n, b in parts]
    bpb = nats.sum() / math.log(2) / s.target_bytes.sum()
    return dict(val_loss=float(nats.mean()), val_bpb=float(bpb), segments=segments)


# ---- The stream


def test_target_bytes_are_the_documents_bytes(track):
    s = read(track)
    decode = s.vocabulary.processor.decode
    starts = np.flatnonzero(s.tokens == 1)
    assert starts[0] == 0 and len(starts) > 2
    for start, end in zip(starts, starts[1:]):
        text = decode(s.tokens[start + 1 : end].tolist())
        assert s.target_bytes[start : end - 1].sum() == len(text.encode())
        assert s.target_bytes[end - 1] == 0  # the BOS of the next


def test_bytes_of_kinds_of_pieces():
    pieces = ["<unk>", "<s>", "<0x41>", "\u2581", "\u2581the", "é", "<unused>"]

    def decode(lists):
        texts = ("".join(pieces[i] for i in ids) for ids in lists)
        return [text.removeprefix("\u2581").replace("\u2581", " ") for text in texts]

    kinds = dict(is_unknown=0, is_control=1, is_byte=2, is_unused=6)
    processor = SimpleNamespace(
        decode=decode, vocab_size=lambda: len(pieces), id_to_piece=pieces.__getitem__,
        serialized_model_proto=lambda: b"",  # no user-defined symbols
        **{name: lambda i, number=number: i == number for name, number in kinds.items()},
    )  # fmt: skip
    tokens = np.array([1, 4, 4, 3, 5, 2, 4, 1, 3, 6, 4], np.uint16)
    s = stream.Stream(tokens, stream.vocabulary_of(processor))
    assert s.target_bytes.tolist() == [3, 4, 1, 2, 1, 4, 0, 0, 0, 3]
    assert s.part(2, 5).target_bytes.tolist() == [1, 2, 1]


@pytest.mark.parametrize("damage, words", [
    (lambda blob: blob[:-2], "not a whole token shard"),
    (lambda blob: b"x" + blob[1:], "not a whole token shard"),
    (lambda blob: blob[:500], "not a whole token shard"),
    (lambda blob: blob[:-2] + b"\x09\x00", "the track pins"),
    (lambda blob: blob[:-2] + b"\xff\xff", "the track pins"),
])  # fmt: skip
def test_other_data_is_refused(track, tmp_path, damage, words):
    blob = (track.parent / "data" / "fineweb_val_000000.bin").read_bytes()
    (tmp_path / "fineweb_val_000000.bin").write_bytes(damage(blob))
    with pytest.raises(GolfError, match=words, check=used_wrongly):
        stream.load(tracks.load(str(track)), tmp_path)


def test_bytes_that_the_track_pins(track, tmp_path):
    (tmp_path / "track.json").write_text(json.dumps(json.loads(track.read_text()) | dict(target_bytes=12345)))
    with pytest.raises(GolfError, match="the track pins 12,345"):
        run(track, make_submission(tmp_path / "entry", "Plain"), track_name=str(tmp_path / "track.json"))


def test_data_of_another_vocabulary_and_no_data(track, tmp_path):
    rules = copy.deepcopy(tracks.load(str(track)))
    rules["data"]["val_sha256"] = None
    write_shard(tmp_path / "fineweb_val_000000.bin", [1, 0xFFFF])
    with pytest.raises(GolfError, match="not of this tokenizer"):
        stream.load(rules, tmp_path)
    with pytest.raises(GolfError, match="no fineweb_val"):
        stream.load(rules, tmp_path / "nowhere")


# ---- The score and its claims


@pytest.mark.parametrize("sandboxed", [False, pytest.param(True, marks=needs_sandbox)])
def test_score_is_exact(track, echo, tmp_path, no_audit, sandboxed):
    expected = echo_score(track)
    report = run(track, make_submission(tmp_path / "entry", echo, **expected), sandboxed)
    official = report["seeds"][0]["official"]
    assert official["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-6)
    assert official["val_bpb"] == pytest.approx(expected["val_bpb"], abs=1e-6)
    assert [b for _, b in official["segments"]] == [b for _, b in expected["segments"]]
    for (found, _), (nats, _) in zip(official["segments"], expected["segments"]):
        assert found == pytest.approx(nats, rel=1e-6)
    assert report["verdict"] == ("PASS" if sandboxed else "NEEDS-HUMAN")
    assert report["sandbox"] == ("bubblewrap" if sandboxed else "none")
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("figure, better, passed", [
    ("val_bpb", 0.0004, True), ("val_bpb", 0.0006, False), ("val_bpb", -0.1, True),
    ("val_loss", 0.002, False),  # nats a target: 0.001 bits a byte
])  # fmt: skip
def test_claim_against_the_official_score(track, echo, tmp_path, no_audit, figure, better, passed):
    claim = echo_score(track)
    claim[figure] -= better
    report = run(track, make_submission(tmp_path / "entry", echo, **claim))
    assert failed(report).keys() == (set() if passed else {"claim"})


def test_segments_against_their_claims(track, echo, tmp_path, no_audit):
    claim = echo_score(track)
    claim["segments"][5][0] -= 2.0  # 0.01 bits a byte of about 262 bytes
    claim["segments"][6][0] += 2.0
    report = run(track, make_submission(tmp_path / "nats", echo, **claim))
    assert failed(report).keys() == {"segments"}
    assert "segment 5" in json.dumps(report)
    claim = echo_score(track)
    claim["segments"][9][1] += 1
    report = run(track, make_submission(tmp_path / "bytes", echo, **claim))
    assert failed(report).keys() == {"segments"}


@pytest.mark.parametrize("segments", [None, [], "x", [[1, 2]] * 63, [[1, "2"]] * 64, [[1]] * 64, [3] * 64])
def test_segments_that_are_none(track, echo, tmp_path, no_audit, segments):
    report = run(track, make_submission(tmp_path / "entry", echo, segments=segments))
    rules = {rule["id"]: rule["passed"] for rule in report["seeds"][0]["rules"]}
    assert rules["segments"] is None and rules["claim"] is None


def test_mean_of_seeds_and_over_the_cap(track, echo, tmp_path, no_audit):
    claim = echo_score(track)
    folder = make_submission(tmp_path / "entry", echo, artifact=bytes(2_000_000), seeds=(1, 2), **claim)
    edit(folder, lambda v: v.update(val_bpb=v["val_bpb"] - 0.01))
    report = run(track, folder)
    assert failed(report).keys() == {"bytes"}
    assert [r["passed"] for r in report["rules"] if r["id"] == "claim-mean"] == [False]
    assert [seed["seed"] for seed in run(track, folder, seed=2)["seeds"]] == [2]
    with pytest.raises(GolfError, match="no seed 3 with an artifact; there are 1, 2"):
        run(track, folder, seed=3)


def test_part_of_the_targets_gets_no_verdict(track, echo, tmp_path, no_audit):
    folder = make_submission(tmp_path / "entry", echo, **echo_score(track))
    report = run(track, folder, targets=640)
    assert report["mode"] == "part" and report["verdict"] == "NEEDS-HUMAN"
    assert report["seeds"][0]["targets"] == 640
    for targets in (0, 1, 10**9, -5):
        with pytest.raises(GolfError, check=used_wrongly):
            run(track, folder, targets=targets)


def rules_of(report) -> dict:
    """All rules of a report with one seed, by id."""
    return {rule["id"]: rule for rule in report["rules"] + report["seeds"][0]["rules"]}


def test_quick_scores_a_short_stream_whole(track, echo, tmp_path, no_audit):
    claim = echo_score(track)
    report = run(track, make_submission(tmp_path / "right", echo, seeds=(1, 2), **claim), quick=True)
    assert report["mode"] == "quick" and len(report["seeds"]) == 1
    assert report["seeds"][0]["targets"] == TARGETS and not failed(report)
    assert report["seeds"][0]["official"]["val_bpb"] == pytest.approx(claim["val_bpb"], abs=1e-6)
    for wrong in (3, 40, 63):  # one segment that was invented, wherever it is
        claim = echo_score(track)
        claim["segments"][wrong][0] *= 0.99
        report = run(track, make_submission(tmp_path / f"wrong {wrong}", echo, **claim), quick=True)
        assert failed(report).keys() == {"segments"} and f"segment {wrong}" in json.dumps(report)


@pytest.mark.slow
def test_quick_takes_two_segments_of_a_long_stream(track, echo, tmp_path, no_audit, monkeypatch):
    monkeypatch.setattr(official, "QUICK_TARGETS", 0)
    monkeypatch.setattr(official, "QUICK_CONTEXT", 300)
    claim = echo_score(track)
    report = run(track, make_submission(tmp_path / "right", echo, **claim), quick=True)
    (seed,) = report["seeds"]
    assert seed["targets"] == 200 and seed["official"] is None and not failed(report)
    assert 200 < seed["fed"] <= 800
    assert rules_of(report)["segments"]["passed"] is True
    claim["segments"] = [[0.99 * nats, size] for nats, size in claim["segments"]]
    report = run(track, make_submission(tmp_path / "wrong", echo, **claim), quick=True)
    assert rules_of(report)["segments"]["passed"] is None, "a learner would differ too"


@pytest.mark.parametrize("chosen, parts", [([4, 5], 1), ([0, 63], 2), ([7, 9], 2)])
def test_segments_are_those_of_the_whole_score(track, echo, tmp_path, no_audit, monkeypatch, chosen, parts):
    """Neighbours are one part; context is scored by no claim."""
    monkeypatch.setattr(official, "QUICK_TARGETS", 0)
    monkeypatch.setattr(official, "QUICK_CONTEXT", 150)
    monkeypatch.setattr(official.Setup, "segments", chosen)
    report = run(track, make_submission(tmp_path / "entry", echo, **echo_score(track)), quick=True)
    figure = rules_of(report)["segments"]["figure"]
    off = float(figure.split("at most ")[1].split()[0])
    assert rules_of(report)["segments"]["passed"] is True and abs(off) < 1e-5
    assert report["seeds"][0]["fed"] == 200 + sum(150 for _ in range(parts)) - 150 * (chosen[0] == 0)


@pytest.mark.slow
@pytest.mark.parametrize("options, words", [
    (dict(quick=True), ["1 of 2 seeds", "rarer peeking"]),
    (dict(seed=2), ["1 of 2 seeds"]),
    (dict(targets=640), ["the targets after these"]),
    (dict(), None),
])  # fmt: skip
def test_a_part_of_a_score_says_that_the_whole_is_due(track, echo, tmp_path, no_audit, options, words):
    folder = make_submission(tmp_path / "entry", echo, seeds=(1, 2), **echo_score(track))
    report = run(track, folder, **options)
    due = [rule for rule in report["rules"] if rule["id"] == "whole-score-due"]
    assert len(due) == (words is not None)
    for rule in due:
        assert rule["passed"] is True and all(word in rule["sentence"] for word in words)
        assert "NOTE        whole-score-due" in score.table(report) and words[0] in score.table(report)


@pytest.mark.slow
def test_seeds_that_cannot_be_scored_are_told(track, echo, tmp_path, no_audit):
    """One real seed and two invented ones."""
    claim = echo_score(track)
    folder = make_submission(tmp_path / "entry", echo, **claim)
    invented = [dict(seed=s, val_loss=0.5, val_bpb=0.3, artifact=None) for s in (8, 9)]
    edit(folder, lambda v: v.update(seeds=v["seeds"] + invented, val_bpb=(claim["val_bpb"] + 0.6) / 3))
    rules = rules_of(run(track, folder))
    assert rules["seeds"]["passed"] is None and "2 ship no artifact" in rules["seeds"]["sentence"]
    assert rules["claim-mean"]["passed"] is True, "of what is claimed"
    edit(folder, lambda v: v.update(val_bpb=v["val_bpb"] - 0.001))
    assert rules_of(run(track, folder))["claim-mean"]["passed"] is False
    edit(folder, lambda v: v["seeds"][1].update(val_bpb=None))
    assert rules_of(run(track, folder))["claim-mean"]["passed"] is None


@pytest.mark.parametrize("figure", [1e308, -1e308])
def test_claims_without_end_are_none(track, echo, tmp_path, no_audit, figure):
    folder = make_submission(tmp_path / "entry", echo, **echo_score(track))
    invented = [dict(seed=s, val_loss=figure, val_bpb=figure, artifact=None) for s in (8, 9)]
    edit(folder, lambda v: v.update(seeds=v["seeds"] + invented))
    assert rules_of(run(track, folder))["claim-mean"]["passed"] is None
    edit(folder, lambda v: v["seeds"][0].update(val_bpb=figure, segments=[[figure, figure]] * 64))
    rules = rules_of(run(track, folder))
    assert rules["claim"]["passed"] is rules["segments"]["passed"] is None and "308" not in json.dumps(rules)


@pytest.mark.parametrize("file", ["submission.json", "train_gpt.py", "final_model_seed1.bin"])
def test_a_folder_that_changes_meanwhile_is_not_scored(track, echo, tmp_path, monkeypatch, file):
    folder = make_submission(tmp_path / "entry", echo, **echo_score(track))

    def change(*_, **__):
        path = folder / file
        path.write_bytes(path.read_bytes().replace(b"open-hardware", b"record") + b" ")
        return []

    monkeypatch.setattr(official, "audit", change)
    with pytest.raises(GolfError, match="changed while it was scored|is not the file whose sha256"):
        run(track, folder)


@pytest.mark.parametrize("error", [OSError(22, "bad"), ValueError("x"), MemoryError(), AssertionError()])
def test_whatever_breaks_the_scorer_is_a_report(track, echo, tmp_path, no_audit, monkeypatch, error):
    def breaks(*_):
        raise error

    monkeypatch.setattr(official.Remote, "log_probs", breaks)
    report = run(track, make_submission(tmp_path / "entry", echo, **echo_score(track)))
    assert report["verdict"] == "FAIL" and type(error).__name__ in failed(report)["scorer"]
    json.dumps(report, allow_nan=False)


def test_an_audit_that_breaks_is_a_report(track, echo, tmp_path, monkeypatch):
    monkeypatch.setattr(official, "audit", lambda *_, **__: 1 / 0)
    report = run(track, make_submission(tmp_path / "entry", echo, **echo_score(track)))
    assert report["verdict"] == "FAIL" and "ZeroDivisionError" in failed(report)["scorer"]
    assert report["seeds"][0]["official"], "what was found so far stays"


def test_audit_gets_what_it_needs(track, echo, tmp_path, monkeypatch):
    seen = {}

    def audit(feeder, text, first, rng, **options):
        feeder.reset()  # the first pass's process has ended
        seen.update(options, text=text, first=first, rows=feeder.log_probs(text.inputs[:3]))
        return [judged("odd", False, "1", "as told")]

    monkeypatch.setattr(official, "audit", audit)
    report = run(track, make_submission(tmp_path / "entry", echo, **echo_score(track)))
    assert report["verdict"] == "FAIL" and failed(report) == {"odd": "as told"}
    text, first = seen["text"], seen["first"]
    assert text.scored == TARGETS < len(text) == len(first.log_probs)
    assert text.vocabulary.special[text.inputs[TARGETS]], "held-out text begins with a document"
    assert np.isfinite(first.log_probs).all() and seen["rows"].shape == (3, 1024)
    assert first.blind.sum() > official.FULL.cuts and first.blind[TARGETS:].any()


def test_time_counts_from_loading_on(track, tmp_path, no_audit):
    script = tmp_path / "slow.py"
    slow = ECHO.replace("    return Scorer()", "    import time\n    time.sleep(0.5)\n    return Scorer()")
    script.write_text(slow.replace("self.seen = 0", "import time; time.sleep(0.5); self.seen = 0"))
    report = run(track, make_submission(tmp_path / "entry", script, **echo_score(track)))
    assert report["seeds"][0]["score_seconds"] > 1.0
    assert "in-time" in rules_of(report)


# ---- Seeds side by side


@pytest.fixture
def calls(monkeypatch):
    """(seed's artifact, process, tokens) as a call is made, and again as it is answered, with tokens None."""
    told, log_probs = [], official.Remote.log_probs

    def noted(remote, tokens):
        who = remote.paths[1], remote.process.pid
        told.append((*who, len(tokens)))
        rows = log_probs(remote, tokens)
        told.append((*who, None))
        return rows

    monkeypatch.setattr(official.Remote, "log_probs", noted)
    return told


def test_seeds_go_in_step(track, echo, tmp_path, calls):
    """None is given tokens before all have handed over their rows of the call before, cut at one place."""
    claim = echo_score(track)
    report = run(track, make_submission(tmp_path / "entry", echo, seeds=(1, 2, 3), **claim))
    assert [seed["seed"] for seed in report["seeds"]] == [1, 2, 3]
    assert all(seed["official"]["val_bpb"] == pytest.approx(claim["val_bpb"]) for seed in report["seeds"])
    seeds = sorted({artifact for artifact, *_ in calls})
    made, answered = {seed: [] for seed in seeds}, dict.fromkeys(seeds, 0)
    for artifact, _, count in calls:
        if count is None:
            answered[artifact] += 1
        else:
            assert min(answered.values()) >= len(made[artifact])
            made[artifact].append(count)
    assert len(seeds) == 3 and made[seeds[0]] == made[seeds[1]] == made[seeds[2]]
    assert sum(made[seeds[0]]) > 2 * TARGETS, "the stream and held-out text, twice"
    assert len({process for _, process, _ in calls}) == 6


@pytest.mark.slow
def test_seeds_of_a_record_take_turns(track, echo, tmp_path, calls, no_audit):
    folder = make_submission(tmp_path / "entry", echo, seeds=(1, 2))
    edit(folder, lambda v: v.update(lane="record"))
    run(track, folder)
    order = [artifact for artifact, *_ in calls]
    assert order == sorted(order) and len(set(order)) == 2


def test_a_seed_that_fails_leaves_the_others(track, tmp_path):
    """Whenever it ends, nobody waits for it."""
    script = tmp_path / "fails.py"
    fails = "        self.seen += len(tokens)\n        assert self.seen < 3000 or not self.bad\n"
    code = ECHO.replace("        self.seen += len(tokens)\n", fails)
    bad = "    Scorer.bad = 'seed2' in artifact_path\n    return Scorer()"
    script.write_text(code.replace("    return Scorer()", bad))
    report = run(track, make_submission(tmp_path / "entry", script, seeds=(1, 2, 3)))
    ended = [[r["id"] for r in seed["rules"] if r["passed"] is False] for seed in report["seeds"]]
    assert ended == [[], ["raised"], []]
    assert [seed["official"] is None for seed in report["seeds"]] == [False, True, False]


# ---- What is scored


def test_only_the_seeds_own_counted_files_are_there(track, tmp_path, no_audit):
    script = tmp_path / "lists.py"
    script.write_text("import os\ndef load_scorer(*_):\n raise RuntimeError(sorted(os.listdir()))\n")
    folder = make_submission(tmp_path / "entry", script, seeds=(1, 2))
    (folder / "notes.log").write_text("not counted")
    report = run(track, folder)
    wanted = "['final_model_seed1.bin', 'hostile.py', 'train_gpt.py']"
    assert wanted.replace("'", "") in failed(report)["raised"].replace("'", "").replace("\\", "")


def link_out(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to(folder.parent / "x")


def edited(change):
    return lambda folder: edit(folder, lambda value: change(value, folder))


@pytest.mark.parametrize("spoil, words", [
    (lambda f: (f / "submission.json").unlink(), "submission.json is missing"),
    (lambda f: (f / "submission.json").write_text("[1]"), "is not an object"),
    (lambda f: (f / "train_gpt.py").write_text("changed"), "not the file whose sha256"),
    (lambda f: (f / "hostile.py").unlink(), "no file of this folder"),
    (edited(lambda v, f: v["files"].append(dict(path="../x", role="score"))), "no file of this folder"),
    (edited(lambda v, f: v["files"].append(dict(path=[1], role="score"))), "no file of this folder"),
    (edited(lambda v, f: v["files"].append(dict(path="x\0", role="score"))), "which no one sees"),
    (edited(lambda v, f: v["files"].append(dict(path=f"{f}/hostile.py", role="score"))), "no file of this"),
    (edited(lambda v, f: v["files"].append(dict(path="hostile.py", role="val"))), "scored by reviewers"),
    (lambda f: link_out(f, "hostile.py"), "no file of this folder"),
    (edited(lambda v, f: v["files"].pop(0)), "lists no train_gpt.py"),
    (edited(lambda v, f: v.update(files=7)), "lists no train_gpt.py"),
    (edited(lambda v, f: v["seeds"][0].update(artifact="hostile.py")), "no listed artifact"),
    (edited(lambda v, f: v["seeds"][0].update(artifact=["x"])), "no listed artifact"),
    (edited(lambda v, f: v["seeds"][0].update(artifact=None)), "no seed ships an artifact"),
    (edited(lambda v, f: v.update(seeds=[3, None])), "no seed ships an artifact"),
    (edited(lambda v, f: v["seeds"].append(v["seeds"][0])), "two seeds have one seed"),
    (edited(lambda v, f: v["seeds"].append(v["seeds"][0] | dict(seed=2))), "two seeds have one artifact"),
    (lambda f: os.truncate(f / "hostile.py", LARGE), "its counted files have over"),
    (edited(lambda v, f: v["files"][1].update(path="./hostile.py")), "no file of this folder"),
    (edited(lambda v, f: v["files"][1].update(path="x" * 900_000)), "no file of this folder"),
])  # fmt: skip
def test_folders_that_cannot_be_scored(track, tmp_path, spoil, words):
    folder = make_submission(tmp_path / "entry", "Plain")
    (tmp_path / "x").write_text("outside")
    spoil(folder)
    with pytest.raises(GolfError, match=words) as error:
        run(track, folder)
    assert error.value.code == (2 if "reviewers" in words or "is missing" in words else 1)


def test_device(tmp_path, monkeypatch):
    (tmp_path / "train_gpt_mlx.py").touch()
    assert official.pick_device("auto", tmp_path) == "mlx"
    (tmp_path / "train_gpt.py").write_text("import torch")
    monkeypatch.setattr(official.machine, "has_nvidia", lambda: False)
    assert official.pick_device("auto", tmp_path) == "cpu"
    monkeypatch.setattr(official.machine, "has_nvidia", lambda: True)
    monkeypatch.setattr(official.trainers, "check_cuda", lambda *_: None)
    assert official.pick_device("auto", tmp_path) == "cuda" == official.pick_device("cuda", tmp_path)

    def none_found(*_):
        raise GolfError("no CUDA device")

    monkeypatch.setattr(official.trainers, "check_cuda", none_found)
    assert official.pick_device("auto", tmp_path) == "cpu" == official.pick_device("cpu", tmp_path)
    with pytest.raises(GolfError, match="--device cuda: .*; use --device cpu", check=used_wrongly):
        official.pick_device("cuda", tmp_path)


def test_a_holdout_that_is_not_there_is_named_by_its_option(track, tmp_path):
    folder = make_submission(tmp_path / "entry", "Plain")
    with pytest.raises(GolfError, match="nowhere: no fineweb_val.* with --holdout"):
        run(track, folder, holdout=tmp_path / "nowhere")


def test_missing_package_is_no_finding(track, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import a_package_that_nobody_has\n")
    with pytest.raises(GolfError, match="imports a_package_that_nobody_has, which is no installed package"):
        run(track, make_submission(tmp_path / "entry", script))


def test_without_a_sandbox_it_refuses(track, tmp_path, monkeypatch):
    monkeypatch.setattr(official.sandbox, "why_not", lambda: "no bubblewrap here")
    with pytest.raises(GolfError, match="no bubblewrap here", check=used_wrongly):
        run(track, make_submission(tmp_path / "entry", "Plain"), sandboxed=True)


def test_report_says_what_was_found(track, echo, tmp_path, no_audit, capsys):
    report = run(track, make_submission(tmp_path / "entry", echo, **echo_score(track)))
    text = score.table(report)
    assert score.NO_SANDBOX in text and score.NO_SANDBOX in capsys.readouterr().err
    assert f"{report['seeds'][0]['official']['val_bpb']:.8f}" in text
    assert "PASS        claim" in text and "NEEDS-HUMAN sandbox" in text


def test_command_line(track, echo, tmp_path):
    refused(run_golf("score", tmp_path / "nowhere"), "no folder there")
    refused(run_golf("score", track.parent), "a track's folder; give a submission's")
    folder = make_submission(tmp_path / "entry", echo, segments=[[1.0, 1]] * 64)
    common = (folder, "--track", track, "--data", track.parent / "data", "--device", "cpu", "--no-sandbox")
    done = run_golf("score", *common, "--quick", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["verdict"] == "FAIL"
    assert report["schema_version"] == official.SCHEMA_VERSION
    assert "targets again" in done.stderr


@pytest.fixture
def sample(sample_data):
    """track_sample_5min and its data, as options of golf.sh score."""
    data = sample_data / "datasets" / "sample_sp1024"
    return ("--track", "track_sample_5min", "--data", data, "--device", "cpu")


@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize("name", ["bigram", "learning"])
def test_example_passes_whole(sample, name, tmp_path):
    """Beside a bigram model, which is quick, a person may have to look at the tails; nothing fails."""
    rules = tracks.load("track_sample_5min") | dict(audit_control=None)
    (tmp_path / "track.json").write_text(json.dumps(rules))
    options = ("--track", tmp_path / "track.json", *sample[2:], "--json")
    done = run_golf("score", REPO / "tests/fixtures/submissions" / name, *options)
    report = json.loads(done.stdout)
    unsure = {rule["id"] for rule in report["seeds"][0]["rules"] if rule["passed"] is None}
    assert done.returncode == 0 and report["verdict"] != "FAIL" and unsure <= {"tails"}, done.stdout


@pytest.mark.slow
@needs_sandbox
def test_trained_entry_passes_whole(sample, tmp_path):
    """The starter, made small, trained a little, packed, entered, and scored again by the command."""
    knobs = dict(NUM_LAYERS=2, MODEL_DIM=64, NUM_HEADS=2, NUM_KV_HEADS=1, TRAIN_SEQ_LEN=128)
    knobs |= dict(ITERATIONS=60, WARMUP_STEPS=0, EVAL_SEQ_LEN=128, EVAL_STRIDE=64)
    knobs |= dict(RUN_ID="small", OUT_DIR=tmp_path, DATA_PATH=sample[3], DEVICE="cpu", OMP_NUM_THREADS=1)
    knobs |= dict(TOKENIZER_PATH=REPO / "data" / "sample_1024_bpe.model")
    env = {name: str(value) for name, value in knobs.items()}
    entry, score_it = tmp_path / "entry", ("score", tmp_path / "entry", *sample, "--json")
    train = "run", REPO / "configs" / "quickstart.env"
    enter = "new", tmp_path / "small", "--out", entry, *sample[:2]
    for words in (train, enter, (*score_it, "--quick"), score_it):
        done = passed(run_script("golf.sh", *words, env=env, timeout=1200))
    report = json.loads(done.stdout)
    assert report["verdict"] == "PASS", report
    assert report["rules"][0]["figure"].startswith(tracks.load(sample[1])["audit_control"])
    (seed,) = report["seeds"]
    assert seed["official"]["val_bpb"] == pytest.approx(seed["claimed"]["val_bpb"], abs=1e-4)


def test_the_report_is_kept_where_nobody_reads_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(official, "score", lambda *args, **options: {"verdict": "PASS"})
    monkeypatch.setattr(score, "table", lambda report: (_ for _ in ()).throw(BrokenPipeError))
    (tmp_path / "records/track_tiny/x").mkdir(parents=True)
    (tmp_path / "records/track_tiny/x/submission.json").touch()
    run_golf("score", tmp_path / "records/track_tiny/x", repo=tmp_path)
    assert json.loads((tmp_path / "runs/score-x/audit.json").read_text()) == {"verdict": "PASS"}
