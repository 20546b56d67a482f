"""Text from a packed model: the same model, by every way that leads to it."""

import html
import re
import shutil

import numpy as np
import pytest
from conftest import passed, refused, run_golf
from golf.core.errors import GolfError
from golf.see import reader, sample, surprise, weights
from golf.see.cached import CachedModel
from score_kit import ECHO, needs_sandbox

from .conftest import ENTRY, TOKENIZER, opened


def rows_of(model, tokens, cuts=()):
    model.reset()
    return np.concatenate([np.asarray(model.log_probs(part)) for part in np.split(tokens, cuts)])


def test_the_cached_model_is_the_trainers_own(any_run, sample_tokens):
    target, tokens = reader.find(any_run), sample_tokens[:64]
    assert target.ours == target.script.name
    own = reader.load_ours(target.ours, target.artifact)
    cached = CachedModel(weights.load(target.artifact))
    expected = rows_of(own, tokens)
    assert np.abs(rows_of(cached, tokens) - expected).max() < 1e-4
    assert np.abs(rows_of(cached, tokens, (1, 2, 20, 21, 63)) - expected).max() < 1e-4
    assert np.abs(rows_of(cached, tokens) - rows_of(cached, tokens[::-1].copy())).max() > 0.01


def test_another_models_tensors_or_settings_are_not_read_as_the_starters(torch_run):
    found = weights.load(reader.find(torch_run).artifact)
    for change in ({"config": {**found.config, "activation": "gelu"}}, {"tensors": {}}):
        with pytest.raises((KeyError, ValueError)):
            CachedModel(weights.Weights(**{**vars(found), **change}))


def test_a_scorer_that_learns_is_not_read_as_its_net_alone(torch_run, monkeypatch):
    target = reader.find(torch_run)
    found = weights.load(target.artifact)
    assert reader.cached_model(target)
    config = {**found.config, "followers": 1}
    monkeypatch.setattr(weights, "load", lambda path: weights.Weights(**{**vars(found), "config": config}))
    assert reader.cached_model(target) is None


def test_the_command_writes_the_prompt_and_as_many_tokens_as_asked_for(any_run):
    words = ("sample", any_run, "--prompt", "The  file ", "--tokens", 30, "--seed", 3)
    first = passed(run_golf(*words))
    assert re.match(r"The file ?\S", first.stdout) and len(first.stdout) > 20
    assert re.search(r"30 tokens, \d+ a second", first.stderr)
    assert run_golf(*words).stdout == first.stdout
    odd = run_golf("sample", any_run, "--prompt", "\udcff")  # bytes of a terminal that is not UTF-8
    assert odd.returncode == 2 and "--prompt" in odd.stderr and "Traceback" not in odd.stderr


def test_an_artifact_alone_needs_its_tokenizer_and_then_no_script(any_run, tmp_path):
    alone = shutil.copy(reader.find(any_run).artifact, tmp_path)
    refused(run_golf("sample", alone), "--tokenizer")
    passed(run_golf("sample", alone, "--tokenizer", TOKENIZER, "--tokens", 5))


@pytest.mark.slow
@needs_sandbox
def test_an_entrys_script_runs_in_the_sandbox_and_agrees_with_the_cached_model():
    with reader.opened(reader.find(ENTRY), fast=True) as model:
        assert isinstance(model, CachedModel)
    with reader.opened(reader.find(ENTRY)) as model:
        assert type(model).__name__ == "Remote"


@needs_sandbox
def test_a_script_of_another_model_is_asked_itself_and_not_trusted_with_files(torch_run, tmp_path):
    run = shutil.copytree(torch_run, tmp_path / "run")
    trace = tmp_path / "trace"
    text = ECHO + f"\ntry:\n    open({str(trace)!r}, 'w').close()\nexcept OSError:\n    pass\n"
    (run / "train_gpt.py").write_text(text)
    with reader.opened(reader.find(run), fast=True) as model:
        row = rows_of(model, np.array([1, 300], np.uint16))[-1]
    assert row.argmax() == 300 and np.exp(row[300]) == pytest.approx(0.5)
    assert not trace.exists()


def test_without_a_sandbox_no_other_script_runs(torch_run, tmp_path, monkeypatch):
    run = shutil.copytree(torch_run, tmp_path / "run")
    (run / "train_gpt.py").write_text(ECHO)
    monkeypatch.setattr("golf.score.sandbox.bwrap.why_not", lambda: "there is none here")
    with pytest.raises(GolfError, match="--no-sandbox"), reader.opened(reader.find(run)):
        pass


def test_a_place_without_a_sound_model_is_told_in_a_line(torch_run, tmp_path):
    run = shutil.copytree(torch_run, tmp_path / "run")
    path = reader.find(run).artifact
    path.write_bytes(path.read_bytes()[:-9])
    refused(run_golf("sample", run), "damaged")
    lines = [x for x in (run / "metrics.jsonl").read_text().splitlines() if '"export"' not in x]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    refused(run_golf("sample", run), "not packed")
    refused(run_golf("sample", tmp_path / "nothing"), "no run, no entry")


class Fixed:
    """Says the tokens of a script, one after another, for sure."""

    def __init__(self, tokens, vocab=1024):
        self.tokens, self.vocab, self.fed = tokens, vocab, []

    def reset(self):
        self.fed, self.at = [], 0

    def log_probs(self, tokens):
        self.fed += list(tokens)
        rows = np.full((len(tokens), self.vocab), -30.0, np.float32)
        rows[-1, self.tokens[min(self.at, len(self.tokens) - 1)]] = 0
        self.at += 1
        return rows


def tokenizer():
    return reader.load_tokenizer(TOKENIZER)


@pytest.mark.parametrize("text", ["Plain words, and more.", "ü — 漢字 \U0001f600 end", "x" * 40])
def test_what_is_streamed_is_what_the_tokens_decode_to(text):
    tokens = tokenizer().encode(text)
    parts = list(sample.write(Fixed(tokens), tokenizer(), "", len(tokens), 0.0, 0, np.random.default_rng(0)))
    assert len(parts) == len(tokens) and "".join(parts) == tokenizer().decode(tokens)


def test_a_new_document_begins_with_an_empty_line_and_escapes_do_not_reach_the_terminal():
    one = tokenizer().encode("one")
    escape = [tokenizer().piece_to_id("<0x1B>")]
    script = [*one, 1, *one, *escape]
    parts = sample.write(Fixed(script), tokenizer(), "", len(script), 0.0, 0, np.random.default_rng(0))
    assert "".join(parts) == "one\n\none\ufffd"


def test_top_k_and_temperature_choose_as_they_say():
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    rng = np.random.default_rng(0)
    drawn = [sample.pick(row, 1.0, 2, rng) for _ in range(500)]
    assert set(drawn) == {0, 1} and 0.5 < drawn.count(0) / 500 < 0.75
    assert {sample.pick(row, 0.0, 0, rng) for _ in range(9)} == {0}
    assert np.mean([sample.pick(row, 0.2, 0, rng) == 0 for _ in range(500)]) > 0.85


@pytest.mark.parametrize(
    "words", [("--tokens", 0), ("--temperature", -1), ("--temperature", "nan"), ("--surprise", "/dev/null")]
)
def test_what_makes_no_text_is_refused(words, torch_run):
    refused(run_golf("sample", torch_run, *words))


def test_the_surprise_page_shows_the_whole_text_escaped_with_five_guesses(torch_run, tmp_path):
    text = "A <script>alert(1)</script> & ü end"
    (tmp_path / "text").write_text(text)
    out = tmp_path / "page.html"
    passed(run_golf("sample", torch_run, "--surprise", tmp_path / "text", "-o", out))
    body = out.read_text().partition('<div class="text">')[2]
    assert "<script" not in body and "http" not in body
    spans = re.findall(r'<span class="t" tabindex="0" style="--b:(\d+)">(.*?)<span>(.*?)</span></span>', body)
    assert html.unescape("".join(shown for _, shown, _ in spans)) == text
    assert all(tip.count("%") == 5 for _, _, tip in spans)
    assert len(spans) == len(tokenizer().encode(text))


def test_the_pages_bits_are_the_models(torch_run):
    target = reader.find(torch_run)
    own = reader.load_ours(target.ours, target.artifact)
    tokens = np.array([1, *tokenizer().encode("The file system is a file.")], np.uint16)
    bits, guesses = surprise.read(own, tokens)
    rows = rows_of(own, tokens[:-1])
    assert np.allclose(bits, -rows[np.arange(len(rows)), tokens[1:]] / np.log(2), atol=1e-5)
    assert [g[0][0] for g in guesses] == rows.argmax(1).tolist()


@pytest.mark.slow  # a browser
@pytest.mark.parametrize("width, theme", [(390, "dark"), (1200, "light")])
def test_pointing_at_a_token_or_tab_shows_its_guesses(browser, width, theme, torch_run, tmp_path):
    target = reader.find(torch_run)
    page = tmp_path / "page.html"
    text = "The file system is a file. " * 60  # more than a screen
    page.write_text(surprise.page(reader.load_ours(target.ours, target.artifact), tokenizer(), text, "it"))
    shown, errors = opened(browser, page, width, theme)
    tokens = shown.locator(".t")
    tips = shown.locator(".t > span:visible")
    assert tips.count() == 0
    tokens.nth(7).hover()
    said = tips.inner_text()
    assert tips.count() == 1 and said.count("%") == 5 and " bits. Expected: " in said
    shown.mouse.move(0, 0)
    assert tips.count() == 0
    for _ in range(3):
        shown.keyboard.press("Tab")
    assert tips.count() == 1 and tokens.nth(2).locator("span").is_visible()
    tokens.last.focus()
    tip, token = tips.bounding_box(), tokens.last.bounding_box()
    assert token["y"] + token["height"] <= tip["y"], "the last token is not hidden by what is said of it"
    assert tip["x"] >= 0 and tip["x"] + tip["width"] <= width and tip["y"] + tip["height"] <= 844
    assert shown.evaluate("document.documentElement.scrollWidth") <= width and not errors
