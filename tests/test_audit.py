"""The audit's rules one by one: what each finds, what it lets pass, and the mathematics under them."""

import itertools
import json
import math
import re
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from audit_kit import (
    ARTIFACT,
    EXAMPLES,
    REPO,
    TRACK,
    Local,
    audit_rules,
    audited,
    control,
    first_pass,
    load_script,
    source,
)
from golf import audit as audits
from golf.audit_reference import bigram_log_probs, compare_texts
from golf.audit_tokenizer import tokenizer
from golf.feeder import Fault
from golf.stream import Stream
from golf.submission import sha256

assert source  # a fixture
BIGRAM, LEARNING = (EXAMPLES / name / "train_gpt.py" for name in ("bigram", "learning"))
TARGETS = 8192


@pytest.fixture(scope="module")
def text(source):
    return source.stream(0, TARGETS)


@pytest.fixture(scope="module")
def holdout(source):
    return source.stream(TRACK["targets"], TARGETS)


# ---- causal and deterministic, in exact and in noisy arithmetic


def fed_twice(rng, noise, gain=0.0, share=0.0, count=16_000, cuts=2000) -> audits.Again:
    """Two passes of a model whose arithmetic is off by `noise` nats in most rows, each time anew;
    that gains by peeking at a share of the targets, where a call does not end."""
    model, rounds = rng.normal(-3, 2, count), (rng.random((2, count)) < 0.7)
    first, second = model + noise * rng.standard_t(5, (2, count)) * rounds  # tails as bfloat16 has
    uniform, proportional = audits.draw_cuts(rng, model + 3, cuts)
    seen = np.ones(count, bool)
    seen[uniform] = seen[proportional] = False
    peeked = rng.random(count) < share
    first, second = first + gain * peeked, second + gain * (peeked & seen)
    return audits.Again(first, second, seen, uniform, proportional, bpb_nats=1.7)


@pytest.mark.parametrize("noise", [0, 1e-6, 3e-3, 0.01])
@pytest.mark.parametrize("cuts", [200, 2000])
def test_noise_of_an_honest_model_passes(noise, cuts):
    rng = np.random.default_rng(0)
    for _ in range(100):
        again = fed_twice(rng, noise, cuts=cuts)
        assert audits.deterministic(again).passed, audits.deterministic(again).figure
        assert audits.causal(again).passed, audits.causal(again).figure


@pytest.mark.parametrize(
    "noise, gain, share",
    [
        (0, 0.002, 0.005),  # little more than a row's tolerance, now and then
        (0, 0.0007, 1),  # less, everywhere: the mean tells
        (1e-6, 0.3, 0.005),
        (0.005, 0.005, 1),  # within the noise, everywhere: the mean
        (0.005, 0.1, 0.1),
        (0.005, 3, 0.005),  # far over the noise, rarely: the rows
        (0.01, 3, 0.005),
    ],
)
def test_peeking_is_found_whatever_the_noise(noise, gain, share):
    rng = np.random.default_rng(0)
    found = [audits.causal(fed_twice(rng, noise, gain, share)).passed for _ in range(50)]
    assert found.count(False) >= 49


def test_noise_too_loud_to_hide_in_is_refused():
    assert audits.deterministic(fed_twice(np.random.default_rng(0), 0.1)).passed is False


def test_a_noisy_model_passes_a_whole_audit(text, holdout):
    class Noisy(Local):
        rng = np.random.default_rng(0)

        def log_probs(self, tokens):
            rows = super().log_probs(tokens) + self.rng.normal(0, 5e-3, 1024).astype(np.float32)
            return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))

    rules = audited(Noisy(BIGRAM), text, holdout)
    assert [rule.id for rule in rules.values() if rule.passed is not True] == []
    assert "rms 0.0" not in rules["deterministic"].figure


@pytest.mark.parametrize("noisy", [{0}, {1}, {2, 3}])
def test_a_process_may_choose_other_arithmetic(noisy, text, holdout):
    class Choosy(Local):
        def log_probs(self, tokens):
            rows = super().log_probs(tokens)
            if len(self.calls) - 1 in noisy:  # number of the process
                off = np.random.default_rng(tokens).normal(0, 5e-3, rows.shape)
                rows = (rows + off).astype(np.float32)
            return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))

    rules = audited(Choosy(BIGRAM), text, holdout)
    assert [rule.figure for rule in rules.values() if rule.passed is not True] == []


def test_rows_that_depend_on_the_cuts_are_refused(text, holdout):
    class Forgetful(Local):
        def log_probs(self, tokens):
            self.scorer.reset()  # each call begins anew
            return super().log_probs(tokens)

    assert audited(Forgetful(LEARNING), text, holdout)["deterministic"].passed is False


# ---- How much 2,000 cuts find


def test_smallest_share_is_what_the_binomial_says():
    for draws in (100, 200, 1000, 2000):
        n = audits.smallest_share(draws)
        assert 1 - (1 - 1 / n) ** draws >= 0.95 > 1 - (1 - 1 / (n + 2)) ** draws
    assert (audits.smallest_share(1000), audits.smallest_share(2000)) == (334, 668)
    assert (audits.smallest_share(1050), audits.smallest_share(2100)) == (350, 701)  # what audit() draws


@pytest.mark.parametrize("lead, one_in", [(0.0, 334), (1.1, 700)])
def test_drawn_cuts_hit_rare_peeking_in_95_of_100_audits(lead, one_in):
    """lead: of the peeked targets over the reference, of the mean positive lead."""
    rng, count, hit = np.random.default_rng(0), 50_000, 0
    for _ in range(200):
        leads = rng.normal(0, 1, count)
        peeked = rng.choice(count, count // one_in, replace=False)
        leads[peeked] = lead * np.maximum(leads, 0).mean()
        cuts = np.concatenate(audits.draw_cuts(rng, leads, 2000))
        assert len(set(cuts)) == 2000
        hit += bool(np.isin(cuts, peeked).any())
    assert hit >= 181  # 190 expected; fewer than 182 happens once in a thousand times


def test_half_of_the_cuts_follow_the_lead():
    leads = np.repeat([-1.0, 1.0, 3.0], 10_000)
    uniform, proportional = audits.draw_cuts(np.random.default_rng(0), leads, 2000)
    assert np.bincount(uniform // 10_000) == pytest.approx([333, 333, 333], abs=60)
    # without replacement, so a little less than 1 to 3
    assert np.bincount(proportional // 10_000) == pytest.approx([0, 257, 743], abs=60)


def test_beside_a_model_of_its_kind_cuts_find_much_rarer_peeking():
    rng, count = np.random.default_rng(0), 65_536
    for one_in in (1_000, 5_000, 20_000):
        leads = rng.normal(0, 1e-6, count)  # arithmetic
        peeked = rng.choice(count, count // one_in, replace=False)
        leads[peeked] = 0.01
        uniform, proportional = audits.draw_cuts(rng, leads, 2000)
        assert np.isin(peeked, [*uniform, *proportional]).all()
        assert len(proportional) == 1000


def test_without_a_lead_all_cuts_are_uniform():
    leads = np.where(np.arange(20_000) < 10_000, 9e-4, -3.0)  # less than a row may be off
    _, proportional = audits.draw_cuts(np.random.default_rng(0), leads, 2000)
    assert np.bincount(proportional // 10_000) == pytest.approx([500, 500], abs=90)


def test_quick_feeds_the_beginning_alone(source, holdout):
    feeder = Local(BIGRAM)
    rules = audited(feeder, source.stream(0, 20_000), holdout, size=audits.QUICK)
    assert "0 of 200 blind rows" in rules["causal"].figure
    assert "1 target in 33 anywhere" in rules["causal"].figure
    first, second, *trials = feeder.calls
    assert sum(first) == 20_000
    again = sum(map(sum, (second, *trials)))
    assert again <= audits.QUICK.fed(source.stream(0, 20_000), holdout) <= again + 3000
    assert audits.QUICK.targets < sum(second) <= audits.QUICK.targets + len(holdout)
    assert len(second) > 200 and len(trials) == 2 and all(len(calls) == 1 for calls in trials)


def test_a_call_ends_at_every_cut_and_none_is_too_long():
    ends = audits.call_ends(20_000, 8192, [3, 9_000]).tolist()
    assert ends == [3, 8191, 9_000, 16_383, 19_999]
    assert audits.call_ends(8192, 8192).tolist() == [8191] and audits.call_ends(0, 8192).tolist() == []


# ---- suffix-proof and shuffled


def test_shuffled_bound_is_the_logarithm_of_the_number_of_orders():
    tokens = np.array([3, 1, 3, 3, 2, 1, 0])
    orders = len(set(itertools.permutations(tokens.tolist())))
    assert audits.shuffled_bound(tokens) == pytest.approx(math.log(orders))


def test_a_model_that_knows_the_counts_is_not_taken_for_a_cheat():
    """The best that can be had: each token by how many of its kind are left."""
    rng, margins = np.random.default_rng(0), []
    for _ in range(50):
        tokens = rng.permutation(np.repeat(np.arange(64), 8))
        left, nats = np.bincount(tokens).astype(float), 0.0
        for token in tokens:
            nats -= math.log(left[token] / left.sum())
            left[token] -= 1
        margins.append(nats - audits.shuffled_bound(tokens))
    assert np.abs(margins).max() < 1e-6 < audits.LUCK


# ---- held-out


def documents_of(rng, sizes, effect=0.3):
    """A model's log-probabilities by document: each has its own mean, as texts do."""
    number = np.repeat(np.arange(len(sizes)), sizes)
    return rng.normal(0, effect, len(sizes))[number] - 3 + rng.normal(0, 1, len(number)), number


@pytest.mark.parametrize("count", [16, 80])
def test_held_out_rarely_accuses_the_honest(count):
    """Simulated audits of models that know neither text; 3 standard errors are 0.13 % by the normal
    distribution, of which few documents are a rough one."""
    rng, accused, z = np.random.default_rng(0), 0, []
    for _ in range(150):
        sizes = rng.integers(80, 3000, count)
        model, number = documents_of(rng, sizes)
        gap = compare_texts(model, rng.normal(-4, 1, len(model)), number, number < count // 2)
        accused += gap.difference > gap.allowed
        z.append(gap.difference / gap.error)
    assert accused <= 2 and 0.7 < np.std(z) < 1.4


def test_standard_error_is_the_jackknifes():
    rng = np.random.default_rng(0)
    model, number = documents_of(rng, rng.integers(5, 50, 14))
    first = number < 8
    gap = compare_texts(model, np.zeros(len(model)), number, first)
    variance = 0.0
    for part in (first, ~first):
        documents, mean = np.unique(number[part]), model[part].mean()
        changes = [model[part & (number != d)].mean() - mean for d in documents]
        variance += (len(documents) - 1) / len(documents) * np.square(changes).sum()
    assert gap.error == pytest.approx(math.sqrt(variance))
    assert gap.difference == pytest.approx(model[first].mean() - model[~first].mean())


def test_held_out_finds_what_was_learnt_by_heart():
    rng = np.random.default_rng(0)
    for _ in range(20):
        model, number = documents_of(rng, rng.integers(80, 3000, 150), effect=0.2)
        first = number < 75
        model[first & (rng.random(len(model)) < 0.1)] = 0  # 1 target in 10
        gap = compare_texts(model, np.zeros(len(model)), number, first)
        assert gap.difference > gap.allowed


def test_a_reference_narrows_the_gap_or_changes_nothing():
    rng = np.random.default_rng(0)
    model, number = documents_of(rng, np.full(80, 500))
    first, alike = number < 40, model + rng.normal(0, 0.1, len(model))
    errors = [
        compare_texts(model, reference, number, first).error
        for reference in (np.zeros(len(model)), alike, documents_of(rng, np.full(80, 500))[0])
    ]
    assert errors[1] < 0.2 * errors[0] and errors[2] < 1.05 * errors[0]


def test_few_documents_accuse_only_whom_they_must(source, holdout):
    """Ten documents a side; the model is better by so many times the difference that is allowed."""
    part, other = source.stream(0, 8000), holdout.part(0, 8000)
    rng, verdicts = np.random.default_rng(0), []
    noise, reference = rng.normal(-3, 1, 16_000), np.full(16_000, -3.0)
    for gain in (0, 0.1, 3):
        first, second = noise[:8000] + gain, noise[8000:]
        rule = audits.held_out(part, first, other.tokens, second, reference)
        verdicts.append(rule.passed)
    assert verdicts == [True, None, False]


def test_too_few_documents_are_not_judged(source):
    text = source.stream(0, 600)
    rules = audited(Local(BIGRAM), text, source.stream(70_000, 600), cuts=100)
    assert rules["held-out"].passed is None
    assert audited(Local(BIGRAM), text, cuts=100)["held-out"].figure == "no text"


def test_control_is_asked_once_for_what_is_fed_again(text, holdout):
    asked, feeder = [], Local(BIGRAM)

    def reference(inputs, targets):
        asked.append((inputs, targets))
        return np.zeros(len(inputs))

    audited(feeder, text, holdout, reference=reference)
    ((inputs, targets),) = asked
    assert len(inputs) == sum(feeder.calls[1]) > TARGETS + 4000
    np.testing.assert_array_equal(inputs[:TARGETS], text.tokens[:-1])
    np.testing.assert_array_equal(targets[:TARGETS], text.tokens[1:])
    np.testing.assert_array_equal(inputs[TARGETS + 1 :], targets[TARGETS:-1])
    assert text.vocabulary.special[inputs[TARGETS]], "held-out text begins with a document"


@pytest.mark.parametrize("script", [BIGRAM, LEARNING])
def test_the_control_itself_passes(script, text, holdout):
    for size in (audits.FULL, audits.QUICK):
        rules = audited(Local(script), text, holdout, reference=control(Local(script)), size=size)
        assert [rule for rule in rules.values() if rule.passed is not True] == []
        assert "0.000 nats better on the stream, error 0.000" in rules["held-out"].figure


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
    text = source.stream(0, 1000)
    return text, first_pass(Local(BIGRAM), text)


def test_a_target_left_out_is_found(short):
    text, first = short
    assert audit_rules(Local(BIGRAM), text, first)["complete"].passed is True
    missing = first.log_probs.copy()
    missing[7] = np.nan
    assert audit_rules(Local(BIGRAM), text, replace(first, log_probs=missing))["complete"].passed is False


@pytest.mark.parametrize(
    "seconds, budget, same_device, passed",
    [(5, None, True, True), (5, 6, True, True), (7, 6, True, False), (7, 6, False, None)],
)
def test_in_time(short, seconds, budget, same_device, passed):
    text, first = short
    facts = dict(seconds=seconds, budget_seconds=budget, same_device=same_device)
    assert audit_rules(Local(BIGRAM), text, replace(first, **facts))["in-time"].passed is passed


def test_rows_that_sum_to_one_in_the_first_pass_alone_are_found(short):
    text, first = short

    class Later(Local):
        def log_probs(self, tokens):
            return super().log_probs(tokens) + np.float32(2e-3 if self.calls[-1][1:] else 0)

    rules = audit_rules(Later(BIGRAM), text, first)
    assert rules["normalised"].passed is False and "sums to 1.002" in rules["normalised"].sentence
    assert "causal" not in rules


def test_misbehaviour_during_the_audit_is_a_finding(short):
    text, first = short

    class Ends(Local):
        def log_probs(self, tokens):
            raise Fault("died", "the process ended")

    assert audit_rules(Ends(BIGRAM), text, first)["died"].passed is False


def test_rows_without_probability_or_with_all_of_it(short):
    """-inf for what cannot come is allowed by the interface, where it is not the target."""
    text, first = short

    class Sure(Local):
        def log_probs(self, tokens):
            rows = super().log_probs(tokens)
            rows[:, 0] = -np.inf  # the padding piece
            return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))

    sure = Sure(BIGRAM)
    rules = audit_rules(sure, text, first_pass(sure, text))
    assert [r.id for r in rules.values() if r.passed is False] == []


# ---- tokenizer


def test_the_sample_text_survives_its_tokenizer(text):
    assert tokenizer(text).passed is True
    assert tokenizer(text).figure.startswith("0 <unk>; of 11 documents 0 change")


def test_lost_text_and_miscounted_bytes_are_found(text):
    vocabulary, tokens = text.vocabulary, text.tokens.copy()
    tokens[100] = int(np.flatnonzero(vocabulary.unknown)[0])
    assert tokenizer(Stream(tokens, vocabulary)).figure.startswith("1 <unk>")
    assert tokenizer(Stream(tokens, vocabulary)).passed is False
    # the space before a word counted twice, as in pattern 13
    twice = replace(vocabulary, size=vocabulary.size + vocabulary.space)
    assert tokenizer(Stream(text.tokens, twice)).passed is False


def test_a_tokenizer_that_folds_case_is_found(text):
    class Folding:
        def __init__(self, processor):
            self.processor = processor

        def decode(self, documents):
            return self.processor.decode(documents)

        def encode(self, texts):
            return self.processor.encode([text.lower() for text in texts])

    folding = replace(text.vocabulary, processor=Folding(text.vocabulary.processor))
    assert tokenizer(Stream(text.tokens, folding)).passed is False


# ---- The examples of docs/submission_interface.md


def test_the_documentation_shows_the_examples_that_are_tested():
    shown = (REPO / "docs" / "submission_interface.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", shown, re.S)
    assert BIGRAM.read_text() in blocks
    scorer = re.search(r"class Scorer:.*?(?=\n\n\ndef)", LEARNING.read_text(), re.S)[0]
    assert scorer + "\n" in blocks
    assert len(BIGRAM.read_text().splitlines()) <= 60


def test_every_rule_is_documented(short):
    text, first = short
    shown = (REPO / "docs" / "submission_interface.md").read_text()
    for rule in audit_rules(Local(BIGRAM), text, first):
        assert f"`{rule}`" in shown


@pytest.mark.parametrize("script", [BIGRAM, LEARNING], ids=["bigram", "learning"])
def test_examples_claim_what_they_score(script, source):
    claim = json.loads((script.parent / "submission.json").read_text())
    for file in claim["files"]:  # make.py writes them again
        assert sha256(script.parent / file["path"]) == file["sha256"], file["path"]
    text = source.stream(0, TRACK["targets"])
    first = first_pass(Local(script, script.parent / ARTIFACT.name), text)
    assert -first.log_probs.mean() == pytest.approx(claim["val_loss"], abs=1e-6)
    bits = -first.log_probs.sum() / math.log(2)
    assert bits / text.target_bytes.sum() == pytest.approx(claim["val_bpb"], abs=1e-6)


def test_example_trains_to_its_artifact(source, tmp_path):
    data = tmp_path / "data"
    subprocess.run([sys.executable, REPO / "data/build_sample_dataset.py", "--out", data], check=True)
    env = {"DATA_PATH": str(data / "datasets" / "sample_sp1024")}
    subprocess.run([sys.executable, BIGRAM], cwd=tmp_path, env=env, check=True)
    made = (tmp_path / ARTIFACT.name).read_bytes()
    for script in (BIGRAM, LEARNING):  # builds of zlib differ in the packed bytes
        kept = (script.parent / ARTIFACT.name).read_bytes()
        assert zlib.decompress(made[20:]) == zlib.decompress(kept[20:])


def test_learning_example_learns_each_target_after_its_score(text):
    """Twice the same text: better the second time, and the first row of a call knows no more."""
    script = load_script(LEARNING)
    scorer, tokens = script.load_scorer(ARTIFACT), text.tokens[:400]
    rows = np.concatenate([scorer.log_probs(tokens), scorer.log_probs(tokens)])
    targets = np.concatenate((tokens[1:], tokens[:1], tokens[1:]))
    nats = -rows[np.arange(799), targets]
    assert nats[400:].mean() < nats[:399].mean() - 0.3
    scorer.reset()
    again = np.concatenate([scorer.log_probs(tokens[i : i + 1]) for i in range(100)])
    np.testing.assert_array_equal(again, rows[:100])
