"""The audit's rules one by one: what each finds, what it lets pass, and the mathematics under them."""

import json
import math
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from types import SimpleNamespace

import audit_kit as kit
import numpy as np
import pytest
from audit_kit import ARTIFACT, EXAMPLES, REPO, TRACK, Local, a_pass, control
from conftest import load_script
from golf.core.files import sha256
from golf.score.audit import rules as audits
from golf.score.audit.passes import Text, call_ends, feed
from golf.score.audit.reference import bigram_log_probs, compare_texts
from golf.score.audit.rules import tokenizer
from golf.score.feeder import Fault
from golf.score.stream import Stream

BIGRAM, LEARNING = (EXAMPLES / name / "train_gpt.py" for name in ("bigram", "learning"))
TARGETS = 8192


class Bent(Local):
    """A feeder whose rows `bend` changes: float32 [n, vocab] and their tokens in, rows out."""

    def __init__(self, script, bend):
        super().__init__(script)
        self.bend = bend

    def log_probs(self, tokens):
        return self.bend(super().log_probs(tokens), tokens)


def normal(rows):
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def text(source):
    return kit.text_of(source, TARGETS, TARGETS)


@pytest.fixture(scope="module")
def stream(source):
    return source.part(0, TARGETS)


# ---- Feeding


def test_a_call_ends_at_every_cut_and_none_is_too_long():
    assert call_ends(0, 20_000, 8192, [3, 9_000]).tolist() == [3, 8191, 9_000, 16_383, 19_999]
    assert call_ends(0, 8192, 8192).tolist() == [8191]
    assert call_ends(10, 20, 8192, [3, 9, 10, 15, 20]).tolist() == [10, 15, 19]


def test_parts_are_begun_anew_and_held_out_text_follows_the_last(source):
    parts = source.part(0, 300), source.part(5000, 5200)
    text = Text(parts, source.part(9000, 9100).tokens)
    feeder = Local(BIGRAM)
    passed = feed(feeder, text, [7, 299, 310, 550])
    assert feeder.calls == [[8, 292], [11, 189, 51, 49]]
    assert np.flatnonzero(passed.blind).tolist() == [7, 299, 310, 499, 550, 599]
    wanted = np.concatenate([part.tokens[1:] for part in parts] + [text.held_out[1:]])
    np.testing.assert_array_equal(text.targets, wanted)
    rows = Local(BIGRAM)
    rows.reset()
    alone = rows.log_probs(text.inputs)[np.arange(600), wanted]
    np.testing.assert_allclose(passed.log_probs, alone, atol=1e-6)
    assert (text.scored, len(text), text.begins.tolist()) == (500, 600, [0, 300])
    assert text.documents[300] == text.documents[299] + 1, "what is begun anew is another document"


def test_time_is_that_of_the_stream_with_loading(source):
    class Slow(Local):
        def reset(self):
            self.seconds += 10

        def log_probs(self, tokens):
            self.seconds += len(tokens)
            return np.full((len(tokens), 1024), -math.log(1024), np.float32)

    assert feed(Slow(BIGRAM), kit.text_of(source, 300, 200), [5]).seconds == 310


# ---- causal and deterministic, in exact and in noisy arithmetic


def fed_twice(rng, noise, gain=0.0, share=0.0, count=16_000, cuts=300) -> audits.Pair:
    """Two passes of a model whose arithmetic is off by `noise` nats in most rows, each time anew;
    that gains by peeking at a share of the targets, where a call does not end."""
    model, rounds = rng.normal(-3, 1, count), (rng.random((2, count)) < 0.7)
    peeked = gain * (rng.random(count) < share)
    control = model + rng.normal(0, 0.3, count)
    noisy = model + noise * rng.standard_t(5, (2, count)) * rounds  # tails as bfloat16 has
    text = Text((Stream(np.zeros(count + 1, np.uint16), BYTES),))
    first = a_pass(noisy[0], rng.choice(count, cuts, replace=False), peeked)
    second = a_pass(noisy[1], audits.draw_cuts(rng, first, control, cuts), peeked)
    return audits.Pair(text, first, second, control)


# A vocabulary of one piece, of as many bytes as tokens have in the mean.
BYTES = SimpleNamespace(size=np.array([2.45]), space=np.array([False]), special=np.array([False]))


@pytest.mark.parametrize("noise", [0, 1e-6, 3e-3, 5e-3])
def test_noise_of_an_honest_model_passes(noise):
    rng = np.random.default_rng(0)
    for _ in range(60):
        pair = fed_twice(rng, noise)
        assert audits.deterministic(pair).passed, audits.deterministic(pair).figure
        assert audits.causal(pair).passed, audits.causal(pair).figure


@pytest.mark.parametrize("noise, gain, share", [
    (0, 0.002, 0.03),  # little more than a row's tolerance, now and then
    (0, 0.0007, 1),  # less, everywhere: the mean tells
    (1e-6, 0.3, 0.03),
    (0.005, 0.005, 1),  # within the noise, everywhere: the mean
    (0.005, 0.1, 0.1),
    (0.005, 3, 0.005),  # far over the noise, rarely: the rows
    (0.01, 3, 0.005),
])  # fmt: skip
def test_peeking_is_found_whatever_the_noise(noise, gain, share):
    rng = np.random.default_rng(0)
    found = [audits.causal(fed_twice(rng, noise, gain, share)).passed for _ in range(50)]
    assert found.count(False) >= 48


def test_noise_too_loud_to_hide_in_is_refused():
    assert audits.deterministic(fed_twice(np.random.default_rng(0), 0.1)).passed is False


@pytest.mark.parametrize("share", [1e-3, 0.005, 0.01])
def test_noise_in_a_few_rows_allows_none_in_others(share):
    """What a submission would do that buys room for peeking by jittering some rows."""
    rng = np.random.default_rng(0)
    pair = fed_twice(rng, 0)
    jitter = rng.normal(0, 0.1, 16_000) * (rng.random(16_000) < share)
    jittered = replace(pair, first=replace(pair.first, log_probs=pair.first.log_probs + jitter))
    assert jittered.row_allowed == audits.ROW_TOLERANCE
    assert audits.deterministic(jittered).passed is False


@pytest.mark.parametrize("gain, share, outcome", [
    (0, 0, None),  # a person judges what bfloat16 does to a few rows
    (0.02, 0.1, False),  # that allows no more blind rows to be off
    (0.2, 0.01, False),  # nor any by more
    (0.003, 1, False),  # nor the mean
])  # fmt: skip
def test_a_few_rows_that_are_a_little_off_accuse_nobody_and_hide_nothing(gain, share, outcome):
    rng = np.random.default_rng(0)
    for _ in range(20):
        pair = fed_twice(rng, 0, gain, share, cuts=1050)
        off = 0.01 * (rng.random(16_000) < 4e-4)
        pair = replace(pair, first=replace(pair.first, log_probs=pair.first.log_probs + off))
        assert audits.deterministic(pair).passed is None
        assert audits.causal(pair).passed in ((None, True) if outcome is None else (outcome,))


@pytest.mark.parametrize("noisy", [{0}, {1}, pytest.param({0, 1}, marks=pytest.mark.slow)])
def test_noisy_arithmetic_passes_a_whole_audit(noisy, text):
    """In one process or in both: which arithmetic it takes is its own choice."""

    def bend(rows, tokens):
        if len(choosy.calls) - 1 in noisy:
            rows += np.random.default_rng(tokens).normal(0, 5e-3, rows.shape).astype(np.float32)
        return normal(rows)

    choosy = Bent(BIGRAM, bend)
    rules = kit.audited(choosy, text)
    assert [rule.figure for rule in rules.values() if rule.passed is not True] == []
    assert noisy < {0, 1} or "rms 0.0" not in rules["deterministic"].figure


@pytest.mark.slow
def test_rows_that_depend_on_the_cuts_are_refused(text):
    class Forgetful(Local):
        def log_probs(self, tokens):
            self.scorer.reset()  # each call begins anew
            return super().log_probs(tokens)

    assert kit.audited(Forgetful(LEARNING), text)["deterministic"].passed is False


# ---- Where cuts are drawn, and what they find


def test_smallest_share_is_what_the_binomial_says():
    for draws in (64, 160, 1000, 4096):
        n = audits.smallest_share(draws)
        assert 1 - (1 - 1 / n) ** draws >= 0.95 > 1 - (1 - 1 / (n + 2)) ** draws
    assert [audits.smallest_share(n) for n in (64, 160, 4096)] == [21, 53, 1367]


def test_beside_a_model_of_its_kind_every_peek_is_cut_at():
    rng, count = np.random.default_rng(0), 65_536
    control = rng.normal(-3, 1, count)
    for one_in in (1_000, 5_000, 20_000):
        log_probs = control + rng.normal(0, 1e-7, count)  # arithmetic
        peeked = rng.choice(count, count // one_in, replace=False)
        log_probs[peeked] += 0.01
        assert np.isin(peeked, audits.draw_cuts(rng, a_pass(log_probs), control, 160)).all()


def test_without_a_lead_cuts_go_where_peeking_would_pay():
    """A control that says the same of all targets of a kind: hard ones are drawn more often."""
    rng, control = np.random.default_rng(0), np.repeat([-1.0, -4.0], 10_000)
    log_probs = control * (1 + rng.normal(0, 0.2, 20_000))
    cuts = audits.draw_cuts(rng, a_pass(log_probs), control, 500)
    assert len(set(cuts.tolist())) == 500
    assert np.bincount(cuts // 10_000) == pytest.approx([100, 400], abs=40)


def test_a_lead_draws_cuts_in_proportion():
    rng, control = np.random.default_rng(0), np.full(30_000, -4.0)
    lead = np.repeat([0.0, 1.0, 3.0], 10_000) + rng.normal(0, 1e-3, 30_000)
    cuts = audits.draw_cuts(rng, a_pass(control + lead), control, 500)
    share = np.bincount(cuts // 10_000) / 500
    assert share[2] > 2 * share[1] > share[0]


def test_what_was_blind_is_not_cut_at_again():
    rng = np.random.default_rng(0)
    first = a_pass(np.full(1000, -1.0), rng.random(1000) < 0.5)
    assert not first.blind[audits.draw_cuts(rng, first, np.full(1000, -3.0), 300)].any()


def test_cuts_grow_with_the_text():
    counts = [audits.FULL.cuts_of(n) for n in (100, 10_000, 98_304, 1 << 20, 1 << 30)]
    assert counts == [25, 160, 160, 1024, 4096]
    held_out = [audits.FULL.held_out_of(n) for n in (100, 65_536, 1 << 20, 1 << 22, 1 << 24)]
    assert held_out == [100, 32_768, 65_536, 262_144, 262_144]


def test_both_passes_are_cut_as_often_over_all_that_is_fed(text):
    feeder = Local(BIGRAM)
    kit.audited(feeder, text)
    first, second = feeder.calls
    assert sum(first) == sum(second) == len(text) == 2 * TARGETS
    assert abs(len(first) - len(second)) < 5 and min(len(first), len(second)) > 200


# ---- What nothing that processes tell each other can hide


def test_first_sight_rarely_accuses_the_honest(text):
    rng = np.random.default_rng(0)
    lead, reference = rng.gamma(1, 1, len(text)), rng.normal(-3, 1, len(text))
    for _ in range(300):
        first = a_pass(reference - lead, rng.choice(len(text), 160, replace=False))
        assert audits.at_first_sight(text, first, reference[None]).passed


def test_first_sight_makes_nothing_of_rounding(text):
    """The lead of a copy of the control is rounding alone, which no chance spreads."""
    reference = np.random.default_rng(0).normal(-3, 1, len(text))
    first = a_pass(reference, reference < np.quantile(reference, 0.05), 1e-9)
    assert audits.at_first_sight(text, first, reference[None]).passed


def test_first_sight_finds_what_only_seen_rows_have(text):
    rng = np.random.default_rng(0)
    reference = rng.normal(-3, 1, len(text))
    honest = reference + rng.normal(0, 0.5, len(text))
    first = a_pass(honest, rng.choice(len(text), 160, replace=False), 0.4)
    assert audits.at_first_sight(text, first, reference[None]).passed is False


# ---- held-out and tails


def documents_of(rng, sizes, effect=0.3):
    """A model's log-probabilities by document: each has its own mean, as texts do."""
    number = np.repeat(np.arange(len(sizes)), sizes)
    return rng.normal(0, effect, len(sizes))[number] - 3 + rng.normal(0, 1, len(number)), number


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, 80])
def test_held_out_rarely_accuses_the_honest(count):
    """Simulated audits of models that know neither text; 3 standard errors are 0.13 % by the normal
    distribution, of which few documents are a rough one."""
    rng, accused, z = np.random.default_rng(0), 0, []
    for _ in range(150):
        model, number = documents_of(rng, rng.integers(80, 3000, count))
        gap = compare_texts(model, rng.normal(-4, 1, len(model)), number, number < count // 2)
        accused += gap.difference > gap.allowed
        z.append(gap.difference / gap.error)
    assert accused <= 2 and 0.7 < np.std(z) < 1.4


@pytest.mark.parametrize("alike", [True, False])
def test_standard_error_is_the_jackknifes(alike):
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 50, 14)
    model, number = documents_of(rng, sizes)
    first, variances, effective = number < 8, [], []
    gap = compare_texts(model, np.zeros(len(model)), number, first, alike=alike)
    for part in (first, ~first):
        documents, mean = np.unique(number[part]), model[part].mean()
        changes = [model[part & (number != d)].mean() - mean for d in documents]
        variances.append((len(documents) - 1) / len(documents) * np.square(changes).sum())
        effective.append(sizes[documents].sum() ** 2 / np.square(sizes[documents]).sum())
    if alike:  # the second text's, as if the first had its spread
        variances[0] = variances[1] * effective[1] / effective[0]
    assert gap.error == pytest.approx(math.sqrt(sum(variances)))
    assert gap.difference == pytest.approx(model[first].mean() - model[~first].mean())


def test_held_out_finds_a_few_whole_documents():
    """Three of 80 known by heart: however much that spreads the stream's documents."""
    rng, found = np.random.default_rng(0), {True: 0, False: 0}
    for _ in range(20):
        model, number = documents_of(rng, rng.integers(600, 900, 120), effect=0.06)
        model[number < 3] = 0
        for alike in found:
            gap = compare_texts(model, np.zeros(len(model)), number, number < 80, alike=alike)
            found[alike] += gap.difference > gap.allowed
    assert found[True] >= 19 > 1 >= found[False]


def test_a_reference_narrows_the_gap_or_changes_nothing():
    rng = np.random.default_rng(0)
    model, number = documents_of(rng, np.full(80, 500))
    first, alike = number < 40, model + rng.normal(0, 0.1, len(model))
    errors = [
        compare_texts(model, reference, number, first).error
        for reference in (np.zeros(len(model)), alike, documents_of(rng, np.full(80, 500))[0])
    ]
    assert errors[1] < 0.2 * errors[0] and errors[2] < 1.05 * errors[0]


def test_few_documents_accuse_only_whom_they_must(source):
    """A dozen documents a side; the model is better by so many times the difference that is allowed."""
    text = kit.text_of(source, TARGETS, TARGETS)
    rng, verdicts = np.random.default_rng(0), []
    noise, reference = rng.normal(-3, 1, len(text)), rng.normal(-3, 0.01, len(text))
    for gain in (0, 0.12, 3):
        better = np.where(np.arange(len(text)) < text.scored, gain, 0)
        verdicts.append(audits.held_out(text, a_pass(noise + better), reference[None]).passed)
    assert verdicts == [True, None, False]


def test_too_few_documents_are_not_judged(source):
    rules = kit.audited(Local(BIGRAM), kit.text_of(source, 600, 600), cuts=50)
    assert rules["held-out"].passed is rules["tails"].passed is None
    rules = kit.audited(Local(BIGRAM), kit.text_of(source, 600), cuts=50)
    assert rules["held-out"].figure == "too few documents"


def with_leads(rng, documents, size, leads):
    """A text of so many documents, half of them scored; a control; and a model with heavy tails in its
    lead, which also knows that many of the stream's hardest targets."""
    count = documents * size
    tokens = np.ones(count + 1, np.uint16)
    tokens[::size] = 0
    vocabulary = type("V", (), dict(special=np.array([True, False])))
    text = Text((Stream(tokens[: count // 2 + 1], vocabulary),), tokens[count // 2 :])
    control = -rng.gamma(1.5, 2, count)
    lead = 0.2 * rng.standard_t(4, count) * -control
    known = np.argsort(control[: text.scored])[:leads]
    lead[known] = -control[known]
    return text, a_pass(np.minimum(control + lead, 0)), control[None]


def test_tails_find_a_few_targets_that_the_mean_does_not():
    rng, found = np.random.default_rng(0), {"held_out": 0, "tails": 0}
    for _ in range(20):
        given = with_leads(rng, 150, 800, leads=60)  # one in 1,000 of the stream
        for rule in found:
            found[rule] += getattr(audits, rule)(*given).passed is False
    assert found["tails"] >= 19 > 10 > found["held_out"]


@pytest.mark.slow
def test_tails_rarely_accuse_the_honest():
    rng = np.random.default_rng(0)
    accused = [audits.tails(*with_leads(rng, 60, 400, leads=0)).passed for _ in range(200)]
    assert accused.count(True) >= 198


@pytest.mark.parametrize("size", [audits.QUICK, pytest.param(audits.FULL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("script", [BIGRAM, LEARNING])
def test_the_control_itself_passes(script, size, text):
    rules = kit.audited(Local(script), text, reference=control(Local(script)), size=size)
    assert [rule for rule in rules.values() if rule.passed is not True] == []
    assert "0.0000 nats better on the stream, error 0.0000" in rules["held-out"].figure


@pytest.mark.parametrize("lead", [0.0, 1e-5, 5e-4])
def test_a_gap_too_small_to_matter_is_none(lead):
    """Beside its like a model has next to no standard error."""
    rng = np.random.default_rng(0)
    reference, number = documents_of(rng, np.full(40, 200))
    model = reference + lead * (number < 20) + rng.normal(0, 1e-7, len(number))
    gap = compare_texts(model, reference, number, number < 20)
    assert gap.difference == pytest.approx(lead, abs=1e-6) and gap.difference <= gap.allowed
    assert 5 * gap.error < 1e-3 == gap.allowed


def test_bigram_reference_leaves_each_target_out():
    tokens = np.array([5, 1, 2, 1, 2, 2, 1, 0, 5, 1], np.uint16)
    found = bigram_log_probs(tokens[:-1], tokens[1:], 8)
    pairs = list(zip(tokens[:-1].tolist(), tokens[1:].tolist()))
    for i, (before, target) in enumerate(pairs):
        rest = pairs[:i] + pairs[i + 1 :]
        alone = (sum(b == target for _, b in rest) + 32 / 8) / (len(rest) + 32)
        hits, seen = rest.count((before, target)), sum(a == before for a, _ in rest)
        assert found[i] == pytest.approx(math.log((hits + 32 * alone) / (seen + 32)))


# ---- complete, in-time, normalised, faults


@pytest.fixture(scope="module")
def short(source):
    text = kit.text_of(source, 1000)
    return text, kit.first_pass(Local(BIGRAM), text, cuts=50)


def test_a_target_left_out_is_found(short):
    text, first = short
    assert kit.audit_rules(Local(BIGRAM), text, first)["complete"].passed is True
    missing = first.log_probs.copy()
    missing[7] = np.nan
    assert audits.complete(text, replace(first, log_probs=missing)).passed is False


@pytest.mark.parametrize(
    "seconds, budget, same_device, passed",
    [(5, None, True, True), (5, 6, True, True), (7, 6, True, False), (7, 6, False, None)],
)
def test_in_time(seconds, budget, same_device, passed):
    assert audits.in_time(seconds, budget, same_device).passed is passed


def test_rows_that_sum_to_one_in_the_first_pass_alone_are_found(short):
    text, first = short

    later = Bent(BIGRAM, lambda rows, _: rows + np.float32(2e-3 if later.calls[-1][1:] else 0))
    rules = kit.audit_rules(later, text, first)
    assert rules["normalised"].passed is False and "sums to 1.002" in rules["normalised"].message
    assert "causal" not in rules


def test_misbehaviour_during_the_audit_is_a_finding(short):
    text, first = short

    def ends(*_):
        raise Fault("died", "the process ended")

    assert kit.audit_rules(Bent(BIGRAM, ends), text, first)["died"].passed is False


def test_what_a_row_lacks_to_one_gains_nothing(short):
    """Whatever is within the tolerance of a row's sum is taken off before a target is read."""
    text, first = short

    fat = Bent(BIGRAM, lambda rows, _: rows + np.float32(9e-4))
    assert kit.first_pass(fat, text, cuts=50).log_probs == pytest.approx(first.log_probs, abs=1e-6)


def test_rows_without_probability_or_with_all_of_it(short):
    """-inf for what cannot come is allowed by the interface, where it is not the target."""
    text, first = short

    def bend(rows, _):
        rows[:, 0] = -np.inf  # the padding piece
        return normal(rows)

    rules = kit.audited(Bent(BIGRAM, bend), text, cuts=50)
    assert [r.rule for r in rules.values() if r.passed is False] == []


# ---- tokenizer


def test_the_sample_text_survives_its_tokenizer(stream):
    assert tokenizer(stream).passed is True
    assert tokenizer(stream).figure.startswith("0 <unk>; of 11 documents 0 change")


def test_lost_text_and_miscounted_bytes_are_found(stream):
    vocabulary, tokens = stream.vocabulary, stream.tokens.copy()
    tokens[100] = int(np.flatnonzero(vocabulary.unknown)[0])
    assert tokenizer(Stream(tokens, vocabulary)).figure.startswith("1 <unk>")
    assert tokenizer(Stream(tokens, vocabulary)).passed is False
    # the space before a word counted twice, as in pattern 13
    twice = replace(vocabulary, size=vocabulary.size + vocabulary.space)
    assert tokenizer(Stream(stream.tokens, twice)).passed is False


def test_a_tokenizer_that_folds_case_is_found(stream):
    real = stream.vocabulary.processor
    processor = SimpleNamespace(decode=real.decode, encode=lambda t: real.encode([x.lower() for x in t]))
    folding = replace(stream.vocabulary, processor=processor)
    assert tokenizer(Stream(stream.tokens, folding)).passed is False


# ---- The examples of docs/submission_interface.md


def test_the_documentation_shows_the_examples_that_are_tested():
    shown = (REPO / "docs" / "submission_interface.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", shown, re.S)
    assert BIGRAM.read_text() in blocks
    assert re.search(r"class Scorer:.*?(?=\n\n\ndef)", LEARNING.read_text(), re.S)[0] + "\n" in blocks
    assert len(BIGRAM.read_text().splitlines()) <= 60


def test_every_rule_is_documented(short):
    text, first = short
    shown = (REPO / "docs" / "submission_interface.md").read_text()
    for rule in ["in-time", *kit.audit_rules(Local(BIGRAM), text, first)]:
        assert f"`{rule}`" in shown


@pytest.mark.parametrize("script", [BIGRAM, LEARNING], ids=["bigram", "learning"])
def test_examples_claim_what_they_score(script, source):
    claim = json.loads((script.parent / "submission.json").read_text())
    for file in claim["files"]:  # make.py writes them again
        assert sha256(script.parent / file["path"]) == file["sha256"], file["path"]
    text = kit.text_of(source, TRACK["targets"])
    first = kit.first_pass(Local(script, script.parent / ARTIFACT.name), text)
    assert -first.log_probs.mean() == pytest.approx(claim["val_loss"], abs=1e-6)
    bits = -first.log_probs.sum() / math.log(2)
    assert bits / text.parts[0].target_bytes.sum() == pytest.approx(claim["val_bpb"], abs=1e-6)


@pytest.mark.slow
def test_example_trains_to_its_artifact(sample_data, tmp_path):
    env = {"DATA_PATH": str(sample_data / "datasets" / "sample_sp1024")}
    subprocess.run([sys.executable, BIGRAM], cwd=tmp_path, env=env, check=True)
    made = (tmp_path / ARTIFACT.name).read_bytes()
    for script in (BIGRAM, LEARNING):  # builds of zlib differ in the packed bytes
        kept = (script.parent / ARTIFACT.name).read_bytes()
        assert zlib.decompress(made[20:]) == zlib.decompress(kept[20:])


def test_learning_example_learns_each_target_after_its_score(stream):
    """Twice the same text: better the second time, and the first row of a call knows no more."""
    scorer, tokens = load_script(LEARNING).load_scorer(ARTIFACT), stream.tokens[:400]
    rows = np.concatenate([scorer.log_probs(tokens), scorer.log_probs(tokens)])
    targets = np.concatenate((tokens[1:], tokens[:1], tokens[1:]))
    nats = -rows[np.arange(799), targets]
    assert nats[400:].mean() < nats[:399].mean() - 0.3
    scorer.reset()
    again = np.concatenate([scorer.log_probs(tokens[i : i + 1]) for i in range(100)])
    np.testing.assert_array_equal(again, rows[:100])
