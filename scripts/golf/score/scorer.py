"""The official score of a submission: feeds the stream, compares the claims, runs the audit."""

import math
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from golf.core import machine, submission, track, trainers
from golf.core.bar import Talker
from golf.core.errors import GolfError
from golf.core.files import sha256
from golf.core.findings import FAIL, HUMAN, RULING, Finding, as_json, judged, verdict
from golf.core.json_io import dig, objects
from golf.core.paths import shown
from golf.core.submission import SCORE_TOLERANCE, SEGMENTS
from golf.score import stream as streams
from golf.score.audit.control import KEPT, Control
from golf.score.audit.passes import Pass, Text, feed
from golf.score.audit.rules import FULL, MOST_HELD_OUT, QUICK, RECORD, Size, audit, draw_uniform, in_time
from golf.score.claims import MLX, TORCH, SeedEntry, read_entries
from golf.score.command import DUE, NO_SANDBOX
from golf.score.feeder import Fault, InStep
from golf.score.sandbox import bwrap as sandbox
from golf.score.sandbox import usage, view
from golf.score.sandbox.bwrap import Limits
from golf.score.sandbox.client import Beside, Remote
from golf.score.stream import Stream

SCHEMA_VERSION = 1
SEGMENT_TOLERANCE = 0.004  # the same of one segment: noise of 1/64 of the targets is 8 times as much
FIRST_CALLS = (512, 1024, 1024)  # short calls at first, to estimate the time soon
QUICK_SEGMENTS = 2
QUICK_TARGETS = 1 << 17  # --quick feeds streams of up to so many targets whole
QUICK_CONTEXT = 2048  # and else its segments alone, after so many tokens before them
MEMORY_EACH = 6 << 30  # bytes that should be left for each seed that is scored beside others


@dataclass
class SeedScore:
    seed: int
    bytes_total: int
    claimed: dict[str, float | None]
    official: dict | None = None  # val_loss, val_bpb, segments; None where no whole score was taken
    rules: list[Finding] = field(default_factory=list)
    targets: int = 0  # compared with the claim
    fed: int = 0  # of the stream, in the official pass
    load_seconds: float = 0.0
    score_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, rule: str, passed: bool | None, figure: str, sentence: str) -> None:
        self.rules.append(judged(rule, passed, figure, sentence))


@dataclass(frozen=True)
class Setup:
    """What is the same for every seed."""

    rules: dict  # track.json
    stream: Stream
    holdout: Stream | None
    kind: str  # of held-out text: private, drawn (of train shards) or public
    device: str
    lane: str | None
    quick: bool
    start: Callable[[SeedEntry, str], Remote]
    beside: Beside
    sandboxed: bool
    controls: list[Control]
    talker: Talker
    rng: np.random.Generator

    @property
    def partial(self) -> bool:
        return len(self.stream) != self.rules["targets"]

    @property
    def whole(self) -> bool:
        """Whether all targets are fed, not some segments."""
        return not self.quick or len(self.stream) <= QUICK_TARGETS

    @property
    def size(self) -> Size:
        """How much the audit feeds."""
        return QUICK if self.quick else RECORD if self.lane == "record" else FULL

    def edges(self, segment: int) -> tuple[int, int]:
        """A segment's first target, and the one after its last."""
        count = len(self.stream)
        return -(-segment * count // SEGMENTS), -(-(segment + 1) * count // SEGMENTS)

    @cached_property
    def segments(self) -> list[int]:
        """Those that are compared: all, or of a long stream with --quick two, drawn now."""
        if self.whole:
            return list(range(SEGMENTS))
        return sorted(self.rng.choice(SEGMENTS, QUICK_SEGMENTS, replace=False).tolist())

    @cached_property
    def parts(self) -> list[tuple[int, int]]:
        """Ranges of targets to feed, each in a new process: the whole stream, or segments with context."""
        if self.whole:
            return [(0, len(self.stream))]
        parts = []
        for start, stop in map(self.edges, self.segments):
            if parts and parts[-1][1] == start:
                parts[-1] = parts[-1][0], stop
            else:
                parts.append((max(0, start - QUICK_CONTEXT), stop))
        return parts

    @cached_property
    def text(self) -> Text:
        """What every pass feeds: the parts, and held-out text from a document's beginning on."""
        parts = tuple(self.stream.part(*part) for part in self.parts)
        if self.holdout is None:
            return Text(parts)
        tokens = self.holdout.tokens
        begins = np.flatnonzero(self.stream.vocabulary.special[tokens])
        start = begins[0] if len(begins) else 0
        most = self.size.held_out_of(sum(map(len, parts)))
        return Text(parts, tokens[start : start + most + 1], self.kind != "private")


def score(
    folder: Path,
    *,
    track_name: str | None = None,
    data: Path | None = None,
    device: str = "auto",
    seed: int | None = None,
    targets: int | None = None,
    quick: bool = False,
    holdout: Path | None = None,
    sandboxed: bool = True,
    limits: Limits | None = None,
) -> dict:
    """Scores a submission's folder. Returns the report of audit.json. GolfError: it cannot be scored."""
    claim = submission.read_claim(folder)
    rules = track.of_submission(folder, claim, track_name)
    device, beside = pick_device(device, folder), Beside()
    (split, hashes), data = streams.load(rules, data), data or streams.default_folder(rules)
    stream = pick_targets(rules, split, targets)
    rng = np.random.default_rng()  # of the system's entropy: nobody can foresee it
    vocab = len(split.vocabulary)

    def start(entry: SeedEntry, device: str) -> Remote:
        paths = entry.files, entry.script, entry.artifact
        # where it is fed a private text, it could say what that is
        return Remote(*paths, device, vocab, limits, sandboxed, beside, last_words=holdout is None)

    with Talker("golf score") as talker:
        guard(talker, sandboxed, data, *filter(None, [holdout]))
        held_out, kind = hold_out(split, stream, holdout, data, rng)
        entries = pick_seeds(read_entries(folder, claim, device), seed, quick)
        trainers.check_trainer(folder / entries[0].script)  # what is missing here is no fault of it
        roles = [role for role in KEPT if rules.get("audit_control") and rules.get(role)] or ["audit_control"]
        controls = [Control(rules, role, folder, device, vocab, start, talker) for role in roles]
        setup = Setup(rules=rules, stream=stream, holdout=held_out, kind=kind, device=device,
                      lane=claim.get("lane") if isinstance(claim.get("lane"), str) else None, quick=quick,
                      start=start, beside=beside, sandboxed=sandboxed,
                      controls=controls, talker=talker, rng=rng)  # fmt: skip
        size = seeds_at_once(setup, len(entries))
        groups = [entries[at : at + size] for at in range(0, len(entries), size)]
        results = [result for group in groups for result in score_group(setup, group)]
    read_entries(folder, claim, device)  # GolfError where a file is another by now
    if submission.read_claim(folder) != claim:
        raise GolfError(f"{shown(folder)}: submission.json changed while it was scored; score it again")
    general = general_rules(setup, hashes, claim, results)
    return report_of(setup, folder, hashes, results, general)


# ---- What is scored


def pick_device(name: str, folder: Path) -> str:
    """auto: mlx for a folder with the MLX script alone, cuda where its framework finds such a
    device, else cpu. GolfError where cuda is asked for in vain."""
    if name == "auto" and not (folder / TORCH).exists() and (folder / MLX).exists():
        return "mlx"
    if name == "auto" and not machine.has_nvidia():
        return "cpu"
    if name in ("auto", "cuda") and (folder / TORCH).is_file():
        try:
            trainers.check_cuda(folder / TORCH, dict(os.environ))
        except GolfError:
            if name == "cuda":
                text = "--device cuda: PyTorch finds no CUDA device here; use --device cpu"
                raise GolfError(text, 2) from None
            return "cpu"
    return "cuda" if name == "auto" else name


def guard(talker: Talker, sandboxed: bool, *texts: Path) -> None:
    """GolfError if there is no sandbox, or it would show these texts or the home folder."""
    if not sandboxed:
        talker.say(NO_SANDBOX)
    elif sandbox.why_not():
        raise GolfError(f"{sandbox.why_not()}. --no-sandbox runs its code as yourself", 2)
    else:
        for path in (*texts, Path.home()):
            if sandbox.shows(path):
                raise GolfError(f"{shown(path)}: lies where the sandbox shows Python; move either", 2)


def pick_targets(rules: dict, split: Stream, asked: int | None) -> Stream:
    """The track's targets, or the first `asked`. GolfError if their bytes are not what the track pins."""
    count, held = rules["targets"] if asked is None else asked, len(split)
    if not SEGMENTS <= count <= held:
        raise GolfError(f"{count:,} targets to score; {SEGMENTS} to {held:,} are possible here", 2)
    stream = split.part(0, count)
    size, pinned = int(stream.target_bytes.sum()), rules.get("target_bytes")
    if count == rules["targets"] and pinned not in (None, size):
        raise GolfError(f"the targets have {size:,} bytes, the track pins {pinned:,}; one is wrong", 2)
    return stream


def hold_out(
    split: Stream, stream: Stream, folder: Path | None, data: Path, rng: np.random.Generator
) -> tuple[Stream | None, str]:
    """Text that the submission is not scored on, and its kind: private (--holdout), drawn (random parts
    of the train shards), or public (what follows the targets in the validation shard)."""
    count, vocabulary = min(len(stream), MOST_HELD_OUT), split.vocabulary
    if folder:
        return Stream(streams.load_more(folder, vocabulary), vocabulary).part(0, len(stream)), "private"
    drawn = streams.draw_holdout(data, vocabulary, rng, count)
    if drawn is not None:
        return Stream(drawn, vocabulary), "drawn"
    rest = split.part(len(stream), 2 * len(stream))
    return rest if len(rest) else None, "public"


def pick_seeds(entries: list[SeedEntry], seed: int | None, quick: bool) -> list[SeedEntry]:
    """--quick takes one at random where none is named."""
    if seed is not None:
        found = [entry for entry in entries if entry.seed == seed]
        if not found:
            known = ", ".join(str(entry.seed) for entry in entries)
            raise GolfError(f"no seed {seed} with an artifact; there are {known}", 2)
        return found
    return [entries[np.random.default_rng().integers(len(entries))]] if quick else entries


def seeds_at_once(setup: Setup, seeds: int) -> int:
    """How many seeds are scored side by side (see InStep): on a CPU all, where memory is left for them. They
    take turns on other devices, whose time counts, and in the record lane."""
    if setup.device != "cpu" or setup.lane == "record":
        return 1
    return min(seeds, max(1, int(usage.machine_memory().available_bytes // MEMORY_EACH)))


def score_group(setup: Setup, entries: list[SeedEntry]) -> list[SeedScore]:
    """Scores seeds side by side, and on a CPU the controls, which are the track's own, beside them: a process
    on each core does more than threads that share the small products of one."""
    step = InStep(len(entries), int(setup.rng.integers(1 << 62)))
    for control in setup.controls:
        control.look_up(setup.text)
    due = [control for control in setup.controls if control.due(setup.text)]
    beside = [control for control in due if setup.device == "cpu" and not any(map(control.is_it, entries))]
    setup.beside.count = len(entries) + len(beside)
    with ThreadPoolExecutor(setup.beside.count) as pool:
        asked = [pool.submit(control.run_beside, setup.text) for control in beside]
        scores = [pool.submit(score_entry, setup, entry, step) for entry in entries]
        try:
            return [score.result() for score in scores]
        except BaseException:  # a signal: the threads go on until their processes end
            while not all(job.done() for job in scores + asked):
                setup.beside.end()
            raise


# ---- One seed


def score_entry(setup: Setup, entry: SeedEntry, step: InStep) -> SeedScore:
    """Scores and audits one seed. A Fault becomes a finding and ends it. So does any other error: a
    submission that breaks the scorer must not get a better report."""
    claimed = {name: submission.figure(entry.claim.get(name)) for name in ("val_loss", "val_bpb")}
    result = SeedScore(entry.seed, entry.bytes_total, claimed)
    cap = setup.rules["cap_bytes"]
    room = f"{entry.bytes_total:,} of {cap:,} bytes"
    result.add("bytes", entry.bytes_total <= cap, room, "script, artifact and what else counts")
    setup.talker.say(f"seed {entry.seed}: loading on {setup.device}")
    setup.talker.begin("1/3 loading")
    remote = None
    try:
        with setup.start(entry, setup.device) as remote:
            result.load_seconds = remote.load_seconds
            score_stream(setup, entry, remote, result, step)
    except Fault as fault:
        result.add(fault.rule, False, "ended", fault.message)
    except Exception as error:
        told = f"the scorer could not go on: {type(error).__name__}: {ascii(str(error))[:200]}"
        result.add("scorer", False, "ended", f"{told}; if no fault of the submission's, score again")
    finally:
        step.leave()
    if remote:
        result.peak_memory_bytes = remote.peak_memory_bytes
    return result


def score_stream(setup: Setup, entry: SeedEntry, remote: Remote, result: SeedScore, step: InStep) -> None:
    """The official pass, the comparison with the claims, and the audit."""
    text, rng = setup.text, np.random.default_rng(step.seed)

    def say(line: str) -> None:
        setup.talker.say(f"seed {entry.seed}: {line}")

    say(f"feeding {len(text):,} targets")
    first = first_pass(setup, remote, rng, step)
    result.fed, result.score_seconds = text.scored, first.seconds
    log_probs = np.full(len(setup.stream), np.nan)  # of the targets that were fed
    for (start, stop), at in zip(setup.parts, text.begins):
        log_probs[start:stop] = first.log_probs[at : at + stop - start]
    found = score_of_segments(setup.stream, log_probs, setup.segments)
    result.targets = sum(stop - start for start, stop in map(setup.edges, setup.segments))
    if setup.whole:
        result.official = official_score(setup.stream, log_probs, found)
        compare_score(setup, result)
    if not setup.partial:
        compare_segments(result, submission.parts(entry.claim), found, setup.whole)
    budget = None if setup.partial or not setup.whole else setup.rules["eval_seconds"]
    result.rules.append(in_time(first.seconds, budget, setup.lane == "record" and setup.device == "cuda"))
    for control in setup.controls:
        control.recall(entry, text, first)
    remote.end()  # it knows the targets: no process of a second pass, nor the control's, lives beside it
    step.meet()  # one may have been the control
    if any(control.due(text) for control in setup.controls):
        setup.talker.begin("3/3 audit: waiting for the controls")
    found = audit(remote, text, first, rng, size=setup.size, log=say,
                  reference=lambda text: np.array([control(text) for control in setup.controls]),
                  progress=lambda: progress(setup, "3/3 audit", step),
                  agree=lambda cuts: np.unique(step.meet(cuts)))  # fmt: skip
    result.rules += found if setup.controls[0].entry else [beside_a_bigram(rule) for rule in found]


def beside_a_bigram(rule: Finding) -> Finding:
    """A bigram control explains few large leads: honest models that learn beat it by many of them."""
    if rule.rule != "tails" or rule.level != FAIL:
        return rule
    why = "more large leads on the stream; a bigram control cannot tell why"
    return replace(rule, level=HUMAN, message=why)


def progress(setup: Setup, title: str, step: InStep) -> Callable[[int], None]:
    """What to call after each call: tells how far the pass is, and waits for the other seeds."""
    tell = setup.talker.begin(title, len(setup.text))

    def done(at: int) -> None:
        tell(at)
        step.meet()

    return done


def first_pass(setup: Setup, remote: Remote, rng: np.random.Generator, step: InStep) -> Pass:
    """Feeds the text once, with as many cuts as the audit's pass has."""
    text = setup.text
    cuts = np.concatenate((np.cumsum(FIRST_CALLS) - 1, draw_uniform(rng, text, setup.size)))
    first = feed(remote, text, cuts, progress(setup, "2/3 scoring", step))
    lost = np.flatnonzero(~np.isfinite(first.log_probs[: text.scored]))
    if len(lost):
        raise Fault("finite", f"target {lost[0]} was given no probability: an infinite score")
    return first


def score_of_segments(stream: Stream, log_probs: np.ndarray, chosen: list[int]) -> dict[int, list]:
    """[nats, bytes] of each chosen segment."""
    parts = np.arange(len(stream)) * SEGMENTS // len(stream)
    sums = (np.bincount(parts, w, SEGMENTS).tolist() for w in (-log_probs, stream.target_bytes))
    pairs = [[n, int(b)] for n, b in zip(*sums)]
    return {s: pairs[s] for s in chosen}


def official_score(stream: Stream, log_probs: np.ndarray, segments: dict[int, list]) -> dict:
    """val_loss in nats a target, val_bpb in bits a byte, and the segments' [nats, bytes]."""
    count, nats, size = len(stream), -float(log_probs.sum()), int(stream.target_bytes.sum())
    return dict(val_loss=nats / count, val_bpb=bits_a_byte(nats, size), segments=list(segments.values()))


def bits_a_byte(nats: float, size: int) -> float:
    return nats / math.log(2) / max(size, 1)


# ---- Claims


def compare_score(setup: Setup, result: SeedScore) -> None:
    official, claimed = result.official, result.claimed
    if setup.partial:
        of = f"{result.targets:,} of {setup.rules['targets']:,} targets"
        result.add("claim", None, of, "a part was scored; leave --targets out for a verdict")
    elif None in claimed.values():
        told = f"official {official['val_bpb']:.6f} bits a byte"
        result.add("claim", None, told, "it claims no val_loss or no val_bpb to compare with")
    else:
        nats = (official["val_loss"] - claimed["val_loss"]) * len(setup.stream)
        by_loss = bits_a_byte(nats, int(setup.stream.target_bytes.sum()))
        better = max(official["val_bpb"] - claimed["val_bpb"], by_loss)
        told = f"claimed {claimed['val_bpb']:.6f}, official {official['val_bpb']:.6f} bits a byte"
        most = f"val_bpb and val_loss may be claimed at most {SCORE_TOLERANCE:g} bits a byte better"
        result.add("claim", better <= SCORE_TOLERANCE, told, most)


def compare_segments(result: SeedScore, claimed, found: dict[int, list], exact: bool) -> None:
    """Each fed segment's claim; `found` maps a segment to its [nats, bytes]."""
    which = f"{len(found)} of {SEGMENTS} segments"
    if claimed is None:
        result.add("segments", None, which, "it claims no segments to compare with")
        return
    wrong = [s for s in found if claimed[s][1] != found[s][1]]
    if wrong:
        told = f"segment {wrong[0]}: {claimed[wrong[0]][1]:.12g} bytes claimed, {found[wrong[0]][1]} there"
        result.add("segments", False, told, "the bytes of the targets are not a matter of the model")
        return
    better = {s: bits_a_byte(found[s][0] - claimed[s][0], found[s][1]) for s in found}
    worst = max(better, key=better.get)
    right = better[worst] <= SEGMENT_TOLERANCE
    sentence = f"a claim may be at most {SEGMENT_TOLERANCE:g} better than the official number"
    if not right and not exact:
        sentence = (
            f"scored after {QUICK_CONTEXT:,} tokens of context alone: a scorer that learns or looks "
            "further back needs the whole score, without --quick"
        )
    figure = f"{which}; at most {better[worst]:+.6f} bits a byte better (segment {worst})"
    result.add("segments", right or (None if not exact else False), figure, sentence)


def general_rules(setup: Setup, hashes: dict, claim: dict, results: list[SeedScore]) -> list[Finding]:
    """Findings about the submission as a whole."""
    rules = [control.rule() for control in setup.controls]
    for name, value in hashes.items():
        if setup.rules["data"].get(name) is None:
            told = "as the claim's" if dig(claim, "data", name) == value else "NOT the claim's"
            rules.append(
                judged("data-unpinned", None, f"{name} {value[:12]}, {told}", "the track pins none yet")
            )
    if setup.kind == "public":
        figure = "public text alone: that an entry knows it by heart cannot be excluded"
        passed = None if setup.lane == "record" else True
        rules.append(judged("holdout-public", passed, figure, "score it with --holdout (golf.sh holdout)"))
    if not setup.sandboxed:
        rules.append(judged("sandbox", None, "none", "scored without a sandbox: read its code first"))
    if setup.sandboxed and setup.lane == "record":
        rules += ways_to_talk(setup.device)
    rules += claim_mean(setup, claim, results)
    seeds = objects(claim, "seeds")
    if len(results) < len(seeds):
        shipped = sum(seed.get("artifact") is not None for seed in seeds)
        told = f"{len(results)} of {len(seeds)} seeds scored"
        sentence = "the others' scores are claims"
        if shipped < len(seeds):
            sentence += f"; {len(seeds) - shipped} ship no artifact, so nobody can score them"
        # which of those that could be scored are is the caller's choice; `whole-score-due` says so too
        rules.append(judged("seeds", None if shipped < len(seeds) else True, told, sentence))
    if setup.quick or len(results) < len(seeds) or setup.partial:
        rules.append(judged(DUE, True, "not whole", whole_score_due(setup, len(results), len(seeds))))
    return rules


def ways_to_talk(device: str) -> list[Finding]:
    """How a pass could tell the next what it saw, on this machine."""
    closed = {
        "names-kept": (view.forgets_names(), "names that it looks up: score records as root"),
        "files-unread": (view.read_ahead(sandbox.READ_AHEAD_BYTES), "files that it reads: use more memory"),
        "sockets-shown": (
            device != "cuda" or view.hides_pointers(),
            "sockets: sysctl kernel.kptr_restrict=1",
        ),
    }
    told = "a pass can tell the next by"
    return [judged(rule, None, "here", f"{told} {how}") for rule, (shut, how) in closed.items() if not shut]


def whole_score_due(setup: Setup, scored: int, seeds: int) -> str:
    """A sentence that says what this score cannot show."""
    lacks = []
    if scored < seeds:
        lacks.append(f"{seeds - scored} of {seeds} seeds")
    if not setup.whole:
        lacks.append(f"{SEGMENTS - QUICK_SEGMENTS} of {SEGMENTS} segments of each seed")
    if setup.partial:
        lacks.append("the targets after these")
    if setup.quick:
        lacks.append("rarer peeking, and less text known by heart, than its figures tell")
    due = "score again without --quick, --seed and --targets: this shows nothing of "
    return due + ", ".join(lacks)


def claim_mean(setup: Setup, claim: dict, results: list[SeedScore]) -> list[Finding]:
    """Compares the claimed mean with that of official scores; a seed not scored counts as claimed."""
    scores = {result.seed: result.official["val_bpb"] for result in results if result.official}
    seeds, claimed = objects(claim, "seeds"), submission.figure(claim.get("val_bpb"))
    values = [scores.get(seed.get("seed"), submission.figure(seed.get("val_bpb"))) for seed in seeds]
    if setup.partial or not scores or not values:
        return []
    told = f"the mean of {len(values)} seeds, {len(scores)} of them scored"
    if claimed is None or None in values:
        return [judged("claim-mean", None, "none to compare", f"{told}; a val_bpb is missing")]
    official = statistics.fmean(values)
    figure = f"claimed {claimed:.6f}, official {official:.6f} bits a byte"
    return [judged("claim-mean", official - claimed <= SCORE_TOLERANCE, figure, told)]


# ---- The report


def report_of(setup: Setup, folder: Path, hashes: dict, results: list[SeedScore], general) -> dict:
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict([*general, *(rule for result in results for rule in result.rules)]),
        "ruling": RULING,
        "folder": shown(folder),
        "submission_sha256": sha256(folder / "submission.json"),
        "track": setup.rules["name"],
        "lane": setup.lane,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "mode": "quick" if setup.quick else "part" if setup.partial else "whole",
        "targets": len(setup.stream),
        "device": setup.device,
        "machine": machine.described(),
        "sandbox": "bubblewrap" if setup.sandboxed else "none",
        "data": {"name": setup.rules["data"]["name"], **hashes},
        "rules": [as_json(rule) for rule in general],
        "seeds": [{**asdict(each), "rules": [as_json(rule) for rule in each.rules]} for each in results],
    }
