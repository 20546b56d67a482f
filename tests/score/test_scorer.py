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
from golf.score import command, stream
from golf.score import scorer as official
from score_kit import ECHO, TARGETS, echo_log_probs, failed, make_submission, needs_sandbox, score


@pytest.fixture
def claim(track) -> dict:
    """What the echo may claim."""
    return echo_score(track)


@pytest.fixture
def scored(track, claim, tmp_path, monkeypatch):
    """scored(...): the report on a folder with the echo that claims `claim`, as it is by then; no audit."""
    monkeypatch.setattr(official, "audit", lambda *_, **__: [])

    def scored(script=ECHO, artifact=b"-", seeds=(1,), change=lambda value: None, **options):
        folder = make_submission(tmp_path / str(len(os.listdir(tmp_path))), script, artifact, seeds, **claim)
        edit(folder, change)
        return score(track, folder, **options)

    return scored


def rules_of(report) -> dict:
    """All rules of a report with one seed, by id."""
    return {rule["id"]: rule for rule in report["rules"] + report["seeds"][0]["rules"]}


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
])  # fmt: skip
def test_other_data_is_refused(track, tmp_path, damage, words):
    blob = (track.parent / "data" / "fineweb_val_000000.bin").read_bytes()
    (tmp_path / "fineweb_val_000000.bin").write_bytes(damage(blob))
    with pytest.raises(GolfError, match=words, check=used_wrongly):
        stream.load(tracks.load(str(track)), tmp_path)


def test_bytes_that_the_track_pins(track, tmp_path):
    other, folder = tmp_path / "track.json", make_submission(tmp_path / "entry", "Plain")
    other.write_text(json.dumps(json.loads(track.read_text()) | dict(target_bytes=12345)))
    with pytest.raises(GolfError, match="the track pins 12,345"):
        score(other, folder, data=track.parent / "data")


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
def test_score_is_exact(scored, claim, sandboxed):
    report = scored(sandboxed=sandboxed)
    official = report["seeds"][0]["official"]
    assert official["val_loss"] == pytest.approx(claim["val_loss"], abs=1e-6)
    assert official["val_bpb"] == pytest.approx(claim["val_bpb"], abs=1e-6)
    assert [b for _, b in official["segments"]] == [b for _, b in claim["segments"]]
    for (found, _), (nats, _) in zip(official["segments"], claim["segments"]):
        assert found == pytest.approx(nats, rel=1e-6)
    assert report["verdict"] == ("PASS" if sandboxed else "NEEDS-HUMAN")
    assert report["sandbox"] == ("bubblewrap" if sandboxed else "none")
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("figure, better, passed", [
    ("val_bpb", 0.0004, True), ("val_bpb", 0.0006, False), ("val_bpb", -0.1, True),
    ("val_loss", 0.002, False),  # nats a target: 0.001 bits a byte
])  # fmt: skip
def test_claim_against_the_official_score(scored, claim, figure, better, passed):
    claim[figure] -= better
    assert failed(scored()).keys() == (set() if passed else {"claim"})


@pytest.mark.parametrize("changes", [
    [(5, 0, -2.0), (6, 0, 2.0)],  # nats: 0.01 bits a byte of about 262 bytes
    [(5, 1, 1)],
])  # fmt: skip
def test_segments_against_their_claims(scored, claim, changes):
    for segment, figure, more in changes:
        claim["segments"][segment][figure] += more
    report = scored()
    assert failed(report).keys() == {"segments"} and "segment 5" in json.dumps(report)


@pytest.mark.parametrize("segments", [None, [], "x", [[1, 2]] * 63, [[1, "2"]] * 64, [[1]] * 64, [3] * 64])
def test_segments_that_are_none(scored, claim, segments):
    claim.update(val_loss=None, val_bpb=None, segments=segments)
    rules = rules_of(scored())
    assert rules["segments"]["passed"] is rules["claim"]["passed"] is None


def test_mean_of_seeds_and_over_the_cap(scored):
    entry = dict(seeds=(1, 2), artifact=bytes(2_000_000))
    entry.update(change=lambda v: v.update(val_bpb=v["val_bpb"] - 0.01))
    report = scored(**entry)
    assert failed(report).keys() == {"bytes"}
    assert [r["passed"] for r in report["rules"] if r["id"] == "claim-mean"] == [False]
    assert [seed["seed"] for seed in scored(**entry, seed=2)["seeds"]] == [2]
    with pytest.raises(GolfError, match="no seed 3 with an artifact; there are 1, 2"):
        scored(**entry, seed=3)


def test_part_of_the_targets_gets_no_verdict(scored):
    report = scored(targets=640)
    assert report["mode"] == "part" and report["verdict"] == "NEEDS-HUMAN"
    assert report["seeds"][0]["targets"] == 640
    for targets in (0, 1, 10**9, -5):
        with pytest.raises(GolfError, check=used_wrongly):
            scored(targets=targets)


def test_quick_scores_a_short_stream_whole(scored, claim):
    report = scored(seeds=(1, 2), quick=True)
    assert report["mode"] == "quick" and len(report["seeds"]) == 1
    assert report["seeds"][0]["targets"] == TARGETS and not failed(report)
    assert report["seeds"][0]["official"]["val_bpb"] == pytest.approx(claim["val_bpb"], abs=1e-6)


@pytest.mark.parametrize("wrong", [3, 40, 63])
def test_quick_finds_one_segment_that_was_invented_wherever_it_is(scored, claim, wrong):
    claim["segments"][wrong][0] *= 0.99
    report = scored(quick=True)
    assert failed(report).keys() == {"segments"} and f"segment {wrong}" in json.dumps(report)


@pytest.fixture
def long_stream(monkeypatch):
    """Streams are too long to be fed whole with --quick."""
    monkeypatch.setattr(official, "QUICK_TARGETS", 0)
    monkeypatch.setattr(official, "QUICK_CONTEXT", 150)


@pytest.mark.slow
def test_quick_takes_two_segments_of_a_long_stream(scored, claim, long_stream):
    report = scored(quick=True)
    (seed,) = report["seeds"]
    assert seed["targets"] == 200 and seed["official"] is None and not failed(report)
    assert 200 < seed["fed"] <= 500
    assert rules_of(report)["segments"]["passed"] is True
    claim["segments"] = [[0.99 * nats, size] for nats, size in claim["segments"]]
    assert rules_of(scored(quick=True))["segments"]["passed"] is None, "a learner would differ too"


@pytest.mark.parametrize("chosen, parts", [([4, 5], 1), ([0, 63], 2), ([7, 9], 2)])
def test_segments_are_those_of_the_whole_score(scored, long_stream, monkeypatch, chosen, parts):
    """Neighbours are one part; context is scored by no claim."""
    monkeypatch.setattr(official.Setup, "segments", chosen)
    report = scored(quick=True)
    found = rules_of(report)["segments"]
    off = float(found["figure"].split("at most ")[1].split()[0])
    assert found["passed"] is True and abs(off) < 1e-5
    assert report["seeds"][0]["fed"] == 200 + 150 * parts - 150 * (chosen[0] == 0)


@pytest.mark.slow
@pytest.mark.parametrize("options, words", [
    (dict(quick=True), ["1 of 2 seeds", "rarer peeking"]),
    (dict(seed=2), ["1 of 2 seeds"]),
    (dict(targets=640), ["the targets after these"]),
    (dict(), None),
])  # fmt: skip
def test_a_part_of_a_score_says_that_the_whole_is_due(scored, options, words):
    report = scored(seeds=(1, 2), **options)
    due = [rule for rule in report["rules"] if rule["id"] == "whole-score-due"]
    assert len(due) == (words is not None)
    for rule in due:
        assert rule["passed"] is True and all(word in rule["sentence"] for word in words)
        assert "NOTE        whole-score-due" in command.table(report) and words[0] in command.table(report)


def invented(**figures):
    """Two seeds more, of which nothing is shipped."""
    seeds = [dict(seed=s, artifact=None, **figures) for s in (8, 9)]
    return lambda value: value.update(seeds=value["seeds"] + seeds)


@pytest.mark.slow
@pytest.mark.parametrize("bpb, better, passed", [(0.3, 0, True), (0.3, 0.001, False), (None, 0, None)])
def test_seeds_that_cannot_be_scored_are_told(scored, claim, bpb, better, passed):
    """One real seed and two invented ones, whose claims count as they are."""

    def change(value):
        invented(val_loss=0.5, val_bpb=bpb)(value)
        value["val_bpb"] = (claim["val_bpb"] + 0.6) / 3 - better

    rules = rules_of(scored(change=change))
    assert rules["seeds"]["passed"] is None and "2 ship no artifact" in rules["seeds"]["sentence"]
    assert rules["claim-mean"]["passed"] is passed


@pytest.mark.parametrize("figure", [1e308, -1e308])
def test_claims_without_end_are_none(scored, claim, figure):
    change = invented(val_loss=figure, val_bpb=figure)
    assert rules_of(scored(change=change))["claim-mean"]["passed"] is None
    claim.update(val_bpb=figure, segments=[[figure, figure]] * 64)
    rules = rules_of(scored(change=change))
    assert rules["claim"]["passed"] is rules["segments"]["passed"] is None and "308" not in json.dumps(rules)


@pytest.mark.parametrize("file", ["submission.json", "train_gpt.py", "final_model_seed1.bin"])
def test_a_folder_that_changes_meanwhile_is_not_scored(track, claim, tmp_path, monkeypatch, file):
    folder = make_submission(tmp_path / "entry", ECHO, **claim)

    def change(*_, **__):
        path = folder / file
        path.write_bytes(path.read_bytes().replace(b"open-hardware", b"record") + b" ")
        return []

    monkeypatch.setattr(official, "audit", change)
    with pytest.raises(GolfError, match="changed while it was scored|is not the file whose sha256"):
        score(track, folder)


@pytest.mark.parametrize("place, name, error", [
    (official.Remote, "log_probs", OSError(22, "bad")), (official.Remote, "log_probs", AssertionError()),
    (official, "audit", MemoryError()),
])  # fmt: skip
def test_whatever_breaks_the_scorer_is_a_report(scored, monkeypatch, place, name, error):
    def breaks(*_, **__):
        raise error

    monkeypatch.setattr(place, name, breaks)
    report = scored()
    assert report["verdict"] == "FAIL" and type(error).__name__ in failed(report)["scorer"]
    assert bool(report["seeds"][0]["official"]) == (name == "audit"), "what was found so far stays"
    json.dumps(report, allow_nan=False)


def test_audit_gets_what_it_needs(scored, monkeypatch):
    seen = {}

    def audit(feeder, text, first, rng, **options):
        feeder.reset()  # the first pass's process has ended
        seen.update(options, text=text, first=first, rows=feeder.log_probs(text.inputs[:3]))
        return [judged("odd", False, "1", "as told")]

    monkeypatch.setattr(official, "audit", audit)
    report = scored()
    assert report["verdict"] == "FAIL" and failed(report) == {"odd": "as told"}
    text, first = seen["text"], seen["first"]
    assert text.scored == TARGETS < len(text) == len(first.log_probs)
    assert text.vocabulary.special[text.inputs[TARGETS]], "held-out text begins with a document"
    assert np.isfinite(first.log_probs).all() and seen["rows"].shape == (3, 1024)
    assert first.blind.sum() > official.FULL.cuts and first.blind[TARGETS:].sum() > official.FULL.cuts / 4


def test_time_counts_from_loading_on(scored):
    report = scored("LoadsSlowly")
    assert report["seeds"][0]["score_seconds"] > 2
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


def test_seeds_go_in_step(track, claim, tmp_path, calls):
    """None is given tokens before all have handed over their rows of the call before, cut at one place."""
    report = score(track, make_submission(tmp_path / "entry", ECHO, seeds=(1, 2, 3), **claim))
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
def test_seeds_of_a_record_take_turns(scored, calls):
    scored(seeds=(1, 2), change=lambda v: v.update(lane="record"))
    order = [artifact for artifact, *_ in calls]
    assert order == sorted(order) and len(set(order)) == 2


def test_a_seed_that_fails_leaves_the_others(track, tmp_path):
    """Whenever it ends, nobody waits for it."""
    fails = "        self.seen += len(tokens)\n        assert self.seen < 3000 or not self.bad\n"
    code = ECHO.replace("        self.seen += len(tokens)\n", fails)
    bad = "    Scorer.bad = 'seed2' in artifact_path\n    return Scorer()"
    script = code.replace("    return Scorer()", bad)
    report = score(track, make_submission(tmp_path / "entry", script, seeds=(1, 2, 3)))
    ended = [[r["id"] for r in seed["rules"] if r["passed"] is False] for seed in report["seeds"]]
    assert ended == [[], ["raised"], []]
    assert [seed["official"] is None for seed in report["seeds"]] == [False, True, False]


# ---- What is scored


def test_only_the_seeds_own_counted_files_are_there(track, tmp_path):
    folder = make_submission(tmp_path / "entry", "SaysWhatItFinds", b"sorted(os.listdir())", seeds=(1, 2))
    (folder / "notes.log").write_text("not counted")
    report = score(track, folder)
    wanted = "['final_model_seed1.bin', 'hostile.py', 'train_gpt.py']"
    assert wanted.replace("'", "") in failed(report)["raised"].replace("'", "").replace("\\", "")


def link_out(folder):
    (folder / "hostile.py").unlink()
    (folder / "hostile.py").symlink_to(folder.parent / "x")


def edited(change):
    return lambda folder: edit(folder, change)


def listed(path, role="score"):
    """One file more in `files`."""
    return edited(lambda v: v["files"].append(dict(path=path, role=role)))


def seed(**figures):
    return edited(lambda v: v["seeds"][0].update(figures))


@pytest.mark.parametrize("spoil, words", [
    (lambda f: (f / "submission.json").unlink(), "submission.json is missing"),
    (lambda f: (f / "submission.json").write_text("[1]"), "is not an object"),
    (lambda f: (f / "train_gpt.py").write_text("changed"), "not the file whose sha256"),
    (lambda f: (f / "hostile.py").unlink(), "no file of this folder"),
    (listed("../x"), "no file of this folder"), (listed([1]), "no file of this folder"),
    (listed("x\0"), "which no one sees"), (listed("hostile.py", role="val"), "scored by reviewers"),
    (lambda f: listed(f"{f}/hostile.py")(f), "no file of this folder"),
    (link_out, "no file of this folder"),
    (edited(lambda v: v["files"].pop(0)), "lists no train_gpt.py"),
    (edited(lambda v: v.update(files=7)), "lists no train_gpt.py"),
    (seed(artifact="hostile.py"), "no listed artifact"), (seed(artifact=["x"]), "no listed artifact"),
    (seed(artifact=None), "no seed ships an artifact"),
    (edited(lambda v: v.update(seeds=[3, None])), "no seed ships an artifact"),
    (edited(lambda v: v["seeds"].append(v["seeds"][0])), "two seeds have one seed"),
    (edited(lambda v: v["seeds"].append(v["seeds"][0] | dict(seed=2))), "two seeds have one artifact"),
    (lambda f: os.truncate(f / "hostile.py", LARGE), "its counted files have over"),
    (edited(lambda v: v["files"][1].update(path="./hostile.py")), "no file of this folder"),
    (edited(lambda v: v["files"][1].update(path="x" * 900_000)), "no file of this folder"),
])  # fmt: skip
def test_folders_that_cannot_be_scored(track, tmp_path, spoil, words):
    folder = make_submission(tmp_path / "entry", "Plain")
    (tmp_path / "x").write_text("outside")
    spoil(folder)
    with pytest.raises(GolfError, match=words) as error:
        score(track, folder)
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


def test_what_the_options_or_the_machine_lack_is_named(track, tmp_path, monkeypatch):
    folder = make_submission(tmp_path / "entry", "Plain")
    with pytest.raises(GolfError, match="nowhere: no fineweb_val.* with --holdout"):
        score(track, folder, holdout=tmp_path / "nowhere")
    monkeypatch.setattr(official.sandbox, "why_not", lambda: "no bubblewrap here")
    with pytest.raises(GolfError, match="no bubblewrap here", check=used_wrongly):
        score(track, folder, sandboxed=True)


def test_missing_package_is_no_finding(track, tmp_path):
    folder = make_submission(tmp_path / "entry", "import a_package_that_nobody_has\n")
    with pytest.raises(GolfError, match="imports a_package_that_nobody_has, which is no installed package"):
        score(track, folder)


def test_report_says_what_was_found(scored, capsys):
    report = scored()
    text = command.table(report)
    assert command.NO_SANDBOX in text and command.NO_SANDBOX in capsys.readouterr().err
    assert f"{report['seeds'][0]['official']['val_bpb']:.8f}" in text
    assert "PASS        claim" in text and "NEEDS-HUMAN sandbox" in text


def test_command_line(track, tmp_path):
    refused(run_golf("score", tmp_path / "nowhere"), "no folder there")
    refused(run_golf("score", track.parent), "a track's folder; give a submission's")
    folder = make_submission(tmp_path / "entry", ECHO, segments=[[1.0, 1]] * 64)
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
    monkeypatch.setattr(command, "table", lambda report: (_ for _ in ()).throw(BrokenPipeError))
    (tmp_path / "records/track_tiny/x").mkdir(parents=True)
    (tmp_path / "records/track_tiny/x/submission.json").touch()
    run_golf("score", tmp_path / "records/track_tiny/x", repo=tmp_path)
    assert json.loads((tmp_path / "runs/score-x/audit.json").read_text()) == {"verdict": "PASS"}
