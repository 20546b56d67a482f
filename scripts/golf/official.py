"""The official score of a submission: the stream fed, claims compared, the audit called."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from . import GolfError, preflight, sandbox, shown, submission, track
from . import stream as streams
from .audit import FULL, QUICK, FirstPass, Size, audit, target_log_probs
from .check import RULING
from .control import Control
from .entry import MLX, TORCH, Entry, objects, read_claim, read_entries
from .feeder import AuditRule, Fault
from .progress import FIRST_CALLS, Progress, say
from .remote import Remote
from .runlog import dig, number
from .sandbox import Limits
from .score import NO_SANDBOX
from .stream import Stream

SCHEMA_VERSION = 1
SEGMENTS = submission.SEGMENTS
SCORE_TOLERANCE = 0.0005  # bits a byte: a claim better by more is refused, on any device
SEGMENT_TOLERANCE = 0.004  # the same of one segment: noise of 1/64 of the targets is 8 times as much
QUICK_SEGMENTS = 2
QUICK_TARGETS = 1 << 17  # --quick feeds streams of up to so many targets from their start
QUICK_CONTEXT = 2048  # and else its segments alone, after so many tokens before them
CUDA_SIGNS = ("/dev/nvidiactl", "/dev/dxg")  # dxg: WSL2


@dataclass
class Result:
    """What scoring one seed found."""

    seed: int
    bytes_total: int
    claimed: dict[str, float | None]
    official: dict | None = None  # val_loss, val_bpb, segments; None where no whole score was taken
    rules: list[AuditRule] = field(default_factory=list)
    targets: int = 0  # compared with the claim
    fed: int = 0  # in the official pass, or passes
    load_seconds: float = 0.0
    score_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, rule: str, passed: bool | None, figure: str, sentence: str) -> None:
        self.rules.append(AuditRule(rule, passed, figure, sentence))


@dataclass(frozen=True)
class Job:
    """What is the same for every seed."""

    rules: dict  # track.json
    stream: Stream
    holdout: Stream | None
    public: bool  # whether anybody can have the held-out text beforehand
    device: str
    lane: str | None
    quick: bool
    start: Callable[[Entry, str], Remote]
    sandboxed: bool
    control: Control
    rng: np.random.Generator

    @property
    def partial(self) -> bool:
        return len(self.stream) != self.rules["targets"]

    @property
    def again(self) -> Size:
        """What the audit feeds."""
        return QUICK if self.quick else FULL


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
    """Scores a submission's folder; the report that audit.json holds. GolfError: could not."""
    claim = read_claim(folder)
    rules = track.load(track_name) if track_name else track.of_folder(folder) or of_claim(claim)
    device = pick_device(device, folder)
    source = streams.load(rules, data)
    guard(sandboxed, data or streams.default_folder(rules), *filter(None, [holdout]))
    stream = pick_targets(rules, source, targets)
    rng = np.random.default_rng()  # of the system's entropy: nobody can foresee it
    held_out, public = hold_out(source, stream, holdout, data or streams.default_folder(rules), rng)
    entries = pick_seeds(read_entries(folder, claim, device), seed, quick)
    preflight.check_trainer(folder / entries[0].script)  # what is missing here is no fault of it
    vocab = len(source.vocabulary)

    def start(entry: Entry, device: str) -> Remote:
        paths = entry.files, entry.script, entry.artifact
        return Remote(*paths, device, vocab, limits, sandboxed)

    job = Job(
        rules=rules,
        stream=stream,
        holdout=held_out,
        public=public,
        device=device,
        lane=claim.get("lane") if isinstance(claim.get("lane"), str) else None,
        quick=quick,
        start=start,
        sandboxed=sandboxed,
        control=Control(rules, folder, device, vocab, start),
        rng=rng,
    )
    results = [score_entry(job, entry) for entry in entries]
    general = general_rules(job, source, claim, results)
    return report_of(job, folder, source, claim, results, general)


# ---- What is scored


def of_claim(claim: dict) -> dict:
    name = claim.get("track")
    if isinstance(name, str) and name in track.names():
        return track.load(name)
    raise GolfError("the folder lies under no track's and names none; give --track NAME", 2)


def pick_device(name: str, folder: Path) -> str:
    """auto: mlx for a folder with the MLX script alone, cuda where its framework finds such a
    device, else cpu. GolfError where cuda is asked for in vain."""
    if name == "auto" and not (folder / TORCH).exists() and (folder / MLX).exists():
        return "mlx"
    if name == "auto" and not any(Path(path).exists() for path in CUDA_SIGNS):
        return "cpu"
    if name in ("auto", "cuda") and (folder / TORCH).is_file():
        try:
            preflight.check_cuda(folder / TORCH, dict(os.environ))
        except GolfError:
            if name == "cuda":
                text = "--device cuda: PyTorch finds no CUDA device here; use --device cpu"
                raise GolfError(text, 2) from None
            return "cpu"
    return "cuda" if name == "auto" else name


def guard(sandboxed: bool, *texts: Path) -> None:
    """GolfError unless a sandbox can be had, and hides these texts and home, or none is wanted."""
    if not sandboxed:
        say(NO_SANDBOX)
    elif sandbox.why_not():
        raise GolfError(f"{sandbox.why_not()}. --no-sandbox runs its code as yourself", 2)
    else:
        for path in (*texts, Path.home()):
            if sandbox.shows(path):
                raise GolfError(f"{shown(path)}: lies where the sandbox shows Python; move either", 2)


def pick_targets(rules: dict, source: streams.Source, asked: int | None) -> Stream:
    """The track's targets, or the first so many; their bytes are the track's, where it pins them."""
    count, held = rules["targets"] if asked is None else asked, len(source.tokens) - 1
    if not SEGMENTS <= count <= held:
        raise GolfError(f"{count:,} targets to score; {SEGMENTS} to {held:,} are possible here", 2)
    stream = source.stream(0, count)
    size, pinned = int(stream.target_bytes.sum()), rules.get("target_bytes")
    if count == rules["targets"] and pinned not in (None, size):
        raise GolfError(f"the targets have {size:,} bytes, the track pins {pinned:,}; one is wrong", 2)
    return stream


def hold_out(
    source: streams.Source, stream: Stream, folder: Path | None, data: Path, rng: np.random.Generator
) -> tuple[Stream | None, bool]:
    """Text that the submission is not scored on, as much as the audit feeds, and whether it is public:
    private shards; parts of the train shards, drawn now; else what follows in the validation shard."""
    count, vocabulary = min(len(stream), FULL.held_out), source.vocabulary
    if folder:
        return Stream(streams.load_more(folder, vocabulary), vocabulary).part(0, len(stream)), False
    drawn = streams.draw_holdout(data, vocabulary, rng, count)
    if drawn is not None:
        return Stream(drawn, vocabulary), False
    rest = source.stream(len(stream), len(stream))
    return rest if len(rest) else None, True


def pick_seeds(entries: list[Entry], seed: int | None, quick: bool) -> list[Entry]:
    """--quick takes one at random where none is named."""
    if seed is not None:
        found = [entry for entry in entries if entry.seed == seed]
        if not found:
            known = ", ".join(str(entry.seed) for entry in entries)
            raise GolfError(f"no seed {seed} with an artifact; there are {known}", 2)
        return found
    return [entries[np.random.default_rng().integers(len(entries))]] if quick else entries


# ---- One seed


def score_entry(job: Job, entry: Entry) -> Result:
    """Feeds the stream, compares with the claim, audits; a Fault is a finding and ends it."""
    claimed = {name: number(entry.claim.get(name)) for name in ("val_loss", "val_bpb")}
    result = Result(entry.seed, entry.bytes_total, claimed)
    cap = job.rules["cap_bytes"]
    room = f"{entry.bytes_total:,} of {cap:,} bytes"
    result.add("bytes", entry.bytes_total <= cap, room, "script, artifact and what else counts")
    say(f"seed {entry.seed}: loading on {job.device}")
    remote = None
    try:
        with job.start(entry, job.device) as remote:
            result.load_seconds = remote.load_seconds
            (score_quick if job.quick else score_whole)(job, entry, remote, result)
    except Fault as fault:
        result.add(fault.rule, False, "ended", fault.message)
    if remote:
        result.peak_memory_bytes = remote.peak_memory_bytes
    return result


def score_whole(job: Job, entry: Entry, remote: Remote, result: Result) -> None:
    passed = feed(job, remote, job.stream)
    result.targets, result.fed, result.score_seconds = len(job.stream), len(job.stream), passed.seconds
    result.official = official_score(job.stream, passed.log_probs)
    compare_score(job, result)
    claimed = claimed_segments(entry)
    if not job.partial:
        compare_segments(result, claimed, result.official["segments"], range(SEGMENTS), exact=True)
    result.rules += audit_of(job, remote, job.stream, passed)


def score_quick(job: Job, entry: Entry, remote: Remote, result: Result) -> None:
    """Two segments against their claims. A short stream is fed from its start, as for a whole score;
    of a long one each segment is fed alone, after some context: the same but for scorers that
    learn, or look further back."""
    chosen = sorted(job.rng.choice(SEGMENTS, QUICK_SEGMENTS, replace=False).tolist())
    count, exact, found = len(job.stream), len(job.stream) <= QUICK_TARGETS, {}
    edges = {s: (-(-s * count // SEGMENTS), -(-(s + 1) * count // SEGMENTS)) for s in chosen}
    last = edges[chosen[-1]][1]
    for s, (start, stop) in edges.items():
        if not exact or not found:  # one pass from the start holds both
            first, end = (0, last) if exact else (max(0, start - QUICK_CONTEXT), stop)
            part = job.stream.part(first, end)
            passed = feed(job, remote, part)
            result.fed += len(part)
        scored = passed.log_probs[start - first : stop - first]
        found[s] = [-float(scored.sum()), int(job.stream.target_bytes[start:stop].sum())]
        result.targets += stop - start
    result.score_seconds = remote.seconds
    compare_segments(result, claimed_segments(entry), found, chosen, exact)
    result.rules += audit_of(job, remote, part, passed)


def audit_of(job: Job, remote: Remote, stream: Stream, passed: FirstPass) -> list[AuditRule]:
    options = dict(reference=job.control, holdout=job.holdout, size=job.again, log=say)
    return audit(remote, stream, passed, job.rng, **options)


def feed(job: Job, remote: Remote, stream: Stream) -> FirstPass:
    """Feeds a stream once, and takes each target's log-probability."""
    count, at, worst = len(stream), 0, 0.0
    log_probs = np.full(count, np.nan)
    remote.reset()
    progress = Progress(f"scoring {count:,} targets", count, job.again.fed(stream, job.holdout))
    sizes = iter(FIRST_CALLS)
    while at < count:
        end = at + min(next(sizes, remote.max_tokens), remote.max_tokens, count - at)
        rows = remote.log_probs(stream.tokens[at:end])
        log_probs[at:end], off = target_log_probs(rows, stream.tokens[at + 1 : end + 1])
        if not np.isfinite(log_probs[at:end]).all():
            first = at + int((~np.isfinite(log_probs[at:end])).argmax())
            raise Fault("finite", f"target {first} was given no probability: an infinite score")
        worst, at = max(worst, off), end
        progress.tell(at)
    return FirstPass(
        log_probs,
        seconds=remote.stream_seconds,  # with loading and reset
        budget_seconds=None if job.quick or job.partial else job.rules["eval_seconds"],
        same_device=job.lane == "record" and job.device == "cuda",
        worst_sum=worst,
    )


def official_score(stream: Stream, log_probs: np.ndarray) -> dict:
    """val_loss in nats a target, val_bpb in bits a byte, and the segments' [nats, bytes]."""
    count, nats, size = len(stream), -float(log_probs.sum()), int(stream.target_bytes.sum())
    parts = np.arange(count) * SEGMENTS // count
    sums = (np.bincount(parts, w, SEGMENTS).tolist() for w in (-log_probs, stream.target_bytes))
    segments = [[n, int(b)] for n, b in zip(*sums)]
    return dict(val_loss=nats / count, val_bpb=bits_a_byte(nats, size), segments=segments)


def bits_a_byte(nats: float, size: int) -> float:
    return nats / math.log(2) / max(size, 1)


# ---- Claims


def compare_score(job: Job, result: Result) -> None:
    official, claimed = result.official, result.claimed
    if job.partial:
        of = f"{result.targets:,} of {job.rules['targets']:,} targets"
        result.add("claim", None, of, "a part was scored; leave --targets out for a verdict")
    elif None in claimed.values():
        told = f"official {official['val_bpb']:.6f} bits a byte"
        result.add("claim", None, told, "it claims no val_loss or no val_bpb to compare with")
    else:
        nats = (official["val_loss"] - claimed["val_loss"]) * len(job.stream)
        by_loss = bits_a_byte(nats, int(job.stream.target_bytes.sum()))
        better = max(official["val_bpb"] - claimed["val_bpb"], by_loss)
        result.add(
            "claim",
            better <= SCORE_TOLERANCE,
            f"claimed {claimed['val_bpb']:.6f}, official {official['val_bpb']:.6f} bits a byte",
            f"val_bpb and val_loss may be claimed at most {SCORE_TOLERANCE:g} bits a byte better",
        )


def claimed_segments(entry: Entry) -> list[list[float]] | None:
    """64 pairs [nats, bytes], or None."""
    value = entry.claim.get("segments")
    if not isinstance(value, list) or len(value) != SEGMENTS:
        return None
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2]
    right = all(None not in map(number, pair) for pair in pairs) and len(pairs) == SEGMENTS
    return pairs if right else None


def compare_segments(result: Result, claimed, found, chosen, exact: bool) -> None:
    """Each chosen segment's claim; `found` maps a segment to its [nats, bytes]."""
    which = f"{len(chosen)} of {SEGMENTS} segments"
    if claimed is None:
        result.add("segments", None, which, "it claims no segments to compare with")
        return
    wrong = [s for s in chosen if claimed[s][1] != found[s][1]]
    if wrong:
        told = f"segment {wrong[0]}: {claimed[wrong[0]][1]} bytes claimed, {found[wrong[0]][1]} there"
        result.add("segments", False, told, "the bytes of the targets are not a matter of the model")
        return
    better = {s: bits_a_byte(found[s][0] - claimed[s][0], found[s][1]) for s in chosen}
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


def general_rules(job: Job, source: streams.Source, claim: dict, results: list[Result]) -> list[AuditRule]:
    """What holds for the submission as a whole."""
    rules = [job.control.rule()]
    for name, value in source.hashes.items():
        if job.rules["data"].get(name) is None:
            told = "as the claim's" if dig(claim, "data", name) == value else "NOT the claim's"
            rules.append(
                AuditRule("data-unpinned", None, f"{name} {value[:12]}, {told}", "the track pins none yet")
            )
    if job.public:
        figure = "public text alone: that an entry knows it by heart cannot be excluded"
        passed = None if job.lane == "record" else True
        rules.append(AuditRule("holdout-public", passed, figure, "score it with --holdout (golf.sh holdout)"))
    if not job.sandboxed:
        rules.append(AuditRule("sandbox", None, "none", "scored without a sandbox: read its code first"))
    scores = [result.official["val_bpb"] for result in results if result.official]
    claimed = number(claim.get("val_bpb"))
    if len(scores) == len(objects(claim, "seeds")) > 1 and not job.partial and claimed is not None:
        official = submission.mean(scores)
        figure = f"claimed {claimed:.6f}, official {official:.6f} bits a byte"
        right = official - claimed <= SCORE_TOLERANCE
        rules.append(AuditRule("claim-mean", right, figure, f"the mean of {len(scores)} seeds"))
    return rules


# ---- The report


def report_of(job: Job, folder: Path, source, claim: dict, results: list[Result], general) -> dict:
    found = [rule.passed for rule in general + [r for result in results for r in result.rules]]
    verdict = "FAIL" if False in found else "NEEDS-HUMAN" if None in found else "PASS"
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict,
        "ruling": RULING,
        "folder": shown(folder),
        "track": job.rules["name"],
        "lane": job.lane,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "mode": "quick" if job.quick else "part" if job.partial else "whole",
        "targets": len(job.stream),
        "device": job.device,
        "machine": f"{os.cpu_count()}-core {platform.machine()}, {platform.system()}",
        "sandbox": "bubblewrap" if job.sandboxed else "none",
        "data": {"name": job.rules["data"]["name"], **source.hashes},
        "rules": [asdict(rule) for rule in general],
        "seeds": [asdict(result) for result in results],
    }
