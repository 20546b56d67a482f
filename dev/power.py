"""How much peeking and text known by heart the audit misses, and whom it accuses, on the sample track: the
tables of docs/submission_interface.md. Log-probabilities of entries are kept in OUT.

    PYTHONPATH=scripts python3 dev/power.py OUT        # about 10 minutes of one core
"""

import sys
from pathlib import Path

import numpy as np
from golf.core import track
from golf.core.submission import read_claim
from golf.score import stream
from golf.score.audit import rules
from golf.score.audit.passes import Pass, Text, feed
from golf.score.audit.reference import bigram_log_probs
from golf.score.claims import read_entries
from golf.score.sandbox.client import Remote

TRACK, SCORED, HELD_OUT = track.load("track_sample_5min"), 65_536, 32_768
DRAWS, DEALS = 20, 100
PEEKING = (
    "made certain at random",
    "hardest made certain",
    "hardest half way",
    "as good as the control where furthest behind",
)
AMOUNTS = {
    "hardest": [*range(8, 256, 8), *range(256, 2048, 64)],
    "at random": [32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048],
    "documents": range(1, 13),
}


def answers(name: str, seed: int, text: Text, out: Path) -> np.ndarray:
    """float64 [n]: the log-probability of each target by an entry of the track."""
    path = out / f"{name}-{seed}.npy"
    if not path.exists():
        folder = track.home(TRACK, Path()) / name
        entry = next(e for e in read_entries(folder, read_claim(folder), "cpu") if e.seed == seed)
        files = entry.files, entry.script, entry.artifact
        with Remote(*files, "cpu", len(text.vocabulary)) as remote:
            np.save(path, feed(remote, text).log_probs)
    return np.load(path).astype(float)


def outcomes(text: Text, model: np.ndarray, controls: np.ndarray) -> list:
    one = Pass(model, np.zeros(len(model), bool), 0.0, 0.0)
    return [rule(text, one, controls) for rule in (rules.held_out, rules.tails)]


def undetected(text: Text, model: np.ndarray, controls: np.ndarray, kind: str, rng) -> str:
    """The last amount that over one draw in 20 hides, and the gain in bits a byte; then the first found."""
    documents, hardest = text.documents[:SCORED], np.argsort(model[:SCORED])
    draws, last = 1 if kind == "hardest" else DRAWS, "none"
    for amount in AMOUNTS[kind]:
        found, gains = 0, []
        for _ in range(draws):
            if kind == "documents":
                chosen = rng.choice(documents.max(), amount, replace=False) + 1
                known = np.flatnonzero(np.isin(documents, chosen))
            else:
                known = hardest[:amount] if kind == "hardest" else rng.choice(SCORED, amount, replace=False)
            knows = model.copy()
            knows[known] = 0
            found += any(rule.passed is not True for rule in outcomes(text, knows, controls))
            gains.append((knows - model).sum() / SCORED / text.nats_of_a_bit)
        told = f"{amount}: {np.mean(gains):.4f}"
        if found >= 0.95 * draws:
            return f"{last} bits a byte pass, {told} are found"
        last = told
    return f"{last} bits a byte pass, more was not tried"


def hidden_by_ruin(text: Text, model: np.ndarray, controls: np.ndarray, rng) -> str:
    """The largest lead on all of the stream that passes, in bits a byte, and how many held-out documents have
    to be ruined for it. By bisection, for each number of them up to half."""
    number, found = text.documents, []
    held, stream_alone = np.unique(number[SCORED:]), np.arange(len(model)) < SCORED
    for count in range(len(held) // 2):
        ruined, low, high = model - 40.0 * np.isin(number, rng.choice(held, count, replace=False)), 0.0, 1.0
        for _ in range(8):
            raised = (low + high) / 2
            knows = ruined + raised * stream_alone
            passes = all(rule.passed is True for rule in outcomes(text, knows, controls))
            low, high = (raised, high) if passes else (low, raised)
        found.append((low / text.nats_of_a_bit, count))
    return f"{found[0][0]:.4f} bits a byte pass with none ruined, {max(found)[0]:.4f} with {max(found)[1]}"


def smallest_peeking(model: np.ndarray, control: np.ndarray, kind: str, scored: int, bit: float, rng) -> str:
    """The smallest gain that 19 of 20 audits find, by a cut at a peeked target. Shares double."""
    count, cuts = len(model), rules.FULL.cuts
    for share in 2.0 ** -np.arange(14, 1, -1):
        where, to = peeked(model, control, kind, int(share * count), rng)
        peeks = model.copy()
        peeks[where] = np.maximum(to, model[where])
        moved, found = peeks - model > rules.ROW_TOLERANCE, 0
        for _ in range(DRAWS):
            blind = np.zeros(count, bool)
            blind[rng.choice(count, cuts, replace=False)] = True
            first = Pass(np.where(blind, model, peeks), blind, 0.0, 0.0)
            again = rules.draw_cuts(rng, first, control, cuts)
            found += moved[blind].any() or moved[again].any()
        if found >= 0.95 * DRAWS:
            gain = (peeks - model)[:scored].sum() / scored / bit
            return f"{gain:.4f} bits a byte, 1 target in {1 / share:.0f}"
    return "none found"


def peeked(model, control, kind: str, amount: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Which targets are peeked at, and what they become."""
    if kind == "made certain at random":
        return rng.choice(len(model), amount, replace=False), np.zeros(amount)
    if kind == "as good as the control where furthest behind":
        where = np.argsort(model - control)[:amount]
        return where, control[where]
    where = np.argsort(model)[:amount]
    return where, np.zeros(amount) if kind == "hardest made certain" else model[where] / 2


def accused(text: Text, model: np.ndarray, controls: np.ndarray, stream_docs: int, held_docs: int, rng):
    """How often each rule calls an honest model's dealt documents FAIL, and NEEDS-HUMAN."""
    number = text.documents
    fails, humans = np.zeros(2, int), np.zeros(2, int)
    for _ in range(DEALS):
        dealt = rng.permutation(np.unique(number))[: stream_docs + held_docs]
        at = [np.flatnonzero(number == n) for n in dealt]
        order, count = np.concatenate(at), sum(map(len, at[:stream_docs]))
        tokens = np.append(text.inputs[order], text.targets[order[-1]])
        part = Text((stream.Stream(tokens[: count + 1], text.vocabulary),), tokens[count:])
        found = outcomes(part, model[order], controls[:, order])
        fails += [rule.passed is False for rule in found]
        humans += [rule.passed is None for rule in found]
    return f"{stream_docs} and {held_docs} documents: FAIL {fails}, NEEDS-HUMAN {humans} of {DEALS}"


def main():
    out, rng = Path(sys.argv[1]), np.random.default_rng(3)
    out.mkdir(parents=True, exist_ok=True)
    source, _ = stream.load(TRACK)
    text = Text((source.part(0, SCORED),), source.tokens[SCORED : SCORED + HELD_OUT + 1])
    starter, text_and_documents = TRACK["audit_control"], TRACK["second_control"]
    controls = np.array([answers(name, 1337, text, out) for name in (starter, text_and_documents)])
    bigram = bigram_log_probs(text.inputs, text.targets, len(text.vocabulary))
    trials = {
        "another seed of the starter": (answers(starter, 42, text, out), controls),
        "a bigram model": (bigram, controls),
        "the starter beside a bigram model": (controls[0], bigram[None]),
        "what followed": (answers("2026-11-29_what_followed", 1337, text, out), controls),
        "another seed of text and documents": (answers(text_and_documents, 42, text, out), controls),
    }
    for name, (model, beside) in trials.items():
        print(name, *(rule.figure for rule in outcomes(text, model, beside)), sep="\n  ", flush=True)
        for kind in AMOUNTS:
            print(" ", kind, undetected(text, model, beside, kind, rng), flush=True)
        print("  everywhere", hidden_by_ruin(text, model, beside, rng), flush=True)
    rng, bit = np.random.default_rng(5), text.nats_of_a_bit
    for name, (model, beside) in trials.items():
        for kind in PEEKING:
            print(
                name,
                kind,
                smallest_peeking(model, rules.mixed(beside), kind, SCORED, bit, rng),
                sep=": ",
                flush=True,
            )
    rng = np.random.default_rng(4)
    for name, (model, beside) in trials.items():
        for counts in ((80, 39), (80, 10), (40, 20)):
            print(name, accused(text, model, beside, *counts, rng), flush=True)


if __name__ == "__main__":
    main()
