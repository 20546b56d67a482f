"""Whether an entry's own training, without validation data, reaches what it claims."""

import json
import math
import re
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from golf.check import command as check
from golf.core import machine, runlog, submission, track
from golf.core.errors import GolfError
from golf.core.files import sha256
from golf.core.findings import FAIL, Finding, judged, verdict
from golf.core.json_io import dig, number, objects, read_json
from golf.core.paths import REPO, shown
from golf.score import stream
from golf.score.claims import MLX, TORCH, SeedEntry, read_entries
from golf.score.sandbox.client import copy_files
from golf.score.scorer import pick_seeds, score
from golf.verify import retrain

SIGMAS = 3  # of the seeds' spread that a retrained mean may be worse by
LEAST_SPREAD, MOST_SPREAD, USUAL_SPREAD = 0.002, 0.01, 0.005  # bits a byte
BY_ITSELF = 0.8  # of the budget: a training that took less was not ended by the clock
SAME_STEPS = (0.95, 1.1)  # retrained steps / claimed: outside, machines were not equally fast
ENV_BYTES = 4096  # a configuration is short; text or weights in it are not
GRACE_SECONDS = 1800.0  # and four times what scoring took: then a training is ended
PLACES = ("DATA_PATH", "VAL_DATA_PATH", "TOKENIZER_PATH", "EVAL_ONLY", *submission.NOT_REPEATED)


@dataclass(frozen=True)
class Seed:
    seed: int
    claimed: float  # val_bpb
    retrained: float
    claimed_steps: float | None
    steps: float | None
    seconds: float  # until the artifact was there, by our clock
    in_time: bool  # neither the claimed training nor this one was ended by the clock
    failed: tuple[str, ...]  # the official scorer's rules that failed


def verify(
    folder: Path, out: Path, *, seed: int | None, device: str, data: Path | None, by_steps: bool
) -> dict:
    """Retrains the entry's seeds, with logs and artifacts in `out`, and scores them. Returns the report.

    GolfError if this machine cannot tell.
    """
    if why := retrain.why_not():
        raise GolfError(f"{why}. Without it validation data cannot be kept away from training", 2)
    claim, folder = submission.read_claim(folder), folder.resolve()
    rules = track.of_submission(folder, claim)
    refuse_failing(folder, rules)
    device = pick_device(folder, claim, device)
    entries = pick_seeds(read_entries(folder, claim, device), seed, quick=False)
    plans = [make_plan(folder, claim, rules, entry, device, data, by_steps) for entry in entries]
    seeds = []
    for plan in plans:
        place = out / f"seed{plan.entry.seed}"
        shutil.rmtree(place, ignore_errors=True)
        how = f"{plan.env['ITERATIONS']} steps" if by_steps else f"up to {plan.budget:g} s of training"
        say(f"seed {plan.entry.seed}: {how}, without validation data; its output: {shown(place)}/output.log")
        trained = retrain.train(plan, place)
        say(f"seed {plan.entry.seed}: trained; now the official score")
        seeds.append(score_again(folder, claim, rules, plan, trained, data))
    found = [*judge(rules, claim, seeds), *clock(plans, seeds, by_steps), *extras(entries[0])]
    return {
        "schema_version": 1,
        "verdict": verdict(found),
        "folder": shown(folder),
        "track": rules["name"],
        "device": device,
        "machine": machine.described(),
        "rules": [dict(id=f.rule, passed=f.passed, figure=f.figure) for f in found],
        "seeds": [asdict(each) for each in seeds],
    }


def say(text: str) -> None:
    print(f"golf verify: {text}", flush=True)


# ---- Whether and how


def refuse_failing(folder: Path, rules: dict) -> None:
    """GolfError if golf.sh check fails: an invalid entry is not trained."""
    failed = [f for f in check.check_folder(folder, rules).findings if f.level == FAIL]
    if failed:
        raise GolfError(f"{shown(folder)}: golf.sh check fails ({failed[0].rule}); fix that first")


def pick_device(folder: Path, claim: dict, asked: str) -> str:
    """The device that the entry was trained on; GolfError if this machine has none."""
    runs = map(runlog.read_run, sorted(folder.glob("metrics_seed*.jsonl")))
    told = next((dig(run, "start", "device") for run in runs if "start" in run), None)
    hardware = ascii(claim.get("hardware"))[:80]
    if told is None:
        told = "cpu" if "cpu" in hardware.lower() else "cuda"
    if told == "mlx" or not (folder / TORCH).is_file() and (folder / MLX).is_file() and told != "cpu":
        raise GolfError(f"{shown(folder)}: trained by MLX on {hardware}; there is no sandbox for MLX", 2)
    if told == "cuda" and (not machine.has_nvidia() or asked == "cpu"):
        why = "on a CPU it would take days" if asked != "cpu" else "a CPU's result would show nothing"
        raise GolfError(f"{shown(folder)}: trained on {hardware}; {why}: verify it on such a device", 2)
    return told if asked == "auto" else asked


def make_plan(
    folder: Path, claim: dict, rules: dict, entry: SeedEntry, device: str, data: Path | None, by_steps: bool
) -> retrain.Plan:
    """How to retrain a seed; GolfError if it cannot be trained here as it was."""
    stream.load(rules, data)  # before training: the validation data is whole, and the track's
    data = data or stream.default_folder(rules)
    tokenizer = stream.find_tokenizer(data, rules["data"]["tokenizer_file"])
    retrain.refuse_shown(data, REPO / "data")
    env, world, arguments = configuration(folder, claim, entry)
    claimed = number(entry.claim.get("train_seconds")) or 0.0
    budget = rules["train_seconds"] or claimed
    limit = budget + retrain.OTHER_SECONDS + GRACE_SECONDS
    limit += 4 * (number(entry.claim.get("eval_seconds")) or 0.0)
    if by_steps:
        env |= steps_instead(folder, entry, env)
        limit += 20 * claimed
    return retrain.Plan(entry=entry, env=env, arguments=arguments, world=world, device=device,
                        shards=train_shards(folder, data, entry),
                        stand_in=max(rules["targets"], targets_asked(env)) + 1, tokenizer=tokenizer,
                        data_name=rules["data"]["name"], budget=budget, limit=limit)  # fmt: skip


def configuration(folder: Path, claim: dict, entry: SeedEntry) -> tuple[dict[str, str], int, list[str]]:
    """(variables, processes, arguments) of the entry's command; the check held it against its env."""
    where = f"{shown(folder)}: command"
    try:
        env, words = submission.parse_command(str(claim.get("command")))
    except ValueError:
        raise GolfError(f"{where} leaves a quote open; it cannot be run again") from None
    size = sum(len(name) + len(value) for name, value in env.items()) + sum(map(len, words))
    if size > ENV_BYTES:
        raise GolfError(f"{where} is {size:,} bytes long; a configuration has {ENV_BYTES:,} at most")
    place = next((i for i, word in enumerate(words) if Path(word).name == Path(entry.script).name), None)
    launcher = words[:1]
    if place is None or launcher not in (["python3"], ["python"], ["torchrun"]):
        raise GolfError(f"{where} is not python3 or torchrun with {entry.script}; run it by hand")
    world = next((int(n[1]) for w in words if (n := re.fullmatch(r"--nproc[_-]per[_-]node=(\d+)", w))), 1)
    return {n: v for n, v in env.items() if n not in PLACES}, world, words[place + 1 :]


def targets_asked(env: dict[str, str]) -> int:
    """Validation targets that the entry's run scored; 0 where it does not say."""
    text = env.get("VAL_MAX_TOKENS", "")
    return int(text) if re.fullmatch(r"[0-9]{1,8}", text) else 0


def train_shards(folder: Path, data: Path, entry: SeedEntry) -> list[Path]:
    """The first train shards, as many as the entry had."""
    found = sorted(data.glob("fineweb_train_*.bin"))
    facts = runlog.read_run(folder / f"metrics_seed{entry.seed}.jsonl")
    wanted = max(1, int(number(dig(facts, "start", "train_files")) or len(found)))
    if len(found) < wanted:
        text = f"{len(found)} train shards; the entry had {wanted}; fetch them (data/README.md)"
        raise GolfError(f"{shown(data)}: {text}", 2)
    return found[:wanted]


def claimed_steps(folder: Path, entry: SeedEntry) -> float | None:
    return runlog.trained_steps(folder / str(entry.claim.get("log")))


def steps_instead(folder: Path, entry: SeedEntry, env: dict[str, str]) -> dict[str, str]:
    """The variables that make a run end by its steps, not by the clock."""
    steps = claimed_steps(folder, entry)
    script = entry.files[entry.script].read_text("utf-8", "replace").lower()
    if not steps or "iterations" not in script or "max_wallclock_seconds" not in script:
        raise GolfError(f"{shown(folder)}: --steps needs a log with steps and a script with ITERATIONS", 2)
    return {"ITERATIONS": str(int(steps)), "MAX_WALLCLOCK_SECONDS": "0"}


# ---- The score


def score_again(folder: Path, claim: dict, rules: dict, plan, trained, data: Path | None) -> Seed:
    """The official score of what was trained, with the audit of it."""
    entry = plan.entry
    with tempfile.TemporaryDirectory(prefix="golf-verify-") as temporary:
        place = copy_files(entry.files | {entry.artifact: trained.artifact}, Path(temporary) / folder.name)
        listed = [f for f in objects(claim, "files") if f.get("path") in entry.files]
        files = [{**f, "sha256": sha256(place / f["path"])} for f in listed]
        told = dict(lane=claim.get("lane"), track=claim.get("track"), files=files)
        told["seeds"] = [dict(seed=entry.seed, artifact=entry.artifact)]
        (place / "submission.json").write_text(json.dumps(told), encoding="utf-8")
        report = score(place, track_name=str(track.home(rules, folder)), data=data, device=plan.device)
    (result,) = report["seeds"]
    failed = tuple(rule["id"] for rule in result["rules"] if rule["passed"] is False)
    if result["official"] is None:
        raise GolfError(f"seed {entry.seed}: what was trained cannot be scored ({', '.join(failed)})")
    claimed_seconds = number(entry.claim.get("train_seconds"))
    return Seed(
        seed=entry.seed,
        claimed=number(entry.claim.get("val_bpb")),
        retrained=result["official"]["val_bpb"],
        claimed_steps=claimed_steps(folder, entry),
        steps=trained.steps,
        seconds=trained.seconds,
        in_time=claimed_seconds < BY_ITSELF * plan.budget and trained.seconds < plan.budget,
        failed=failed,
    )


# ---- The verdict


def spread_of(rules: dict, claim: dict) -> tuple[float, str]:
    """The standard deviation over seeds, bits a byte, and which seeds it is from."""
    control = track.RECORDS / rules["name"] / str(rules.get("audit_control")) / "submission.json"
    others = read_json(control)
    for value, whose in ((claim, "its own seeds"), (others, "the audit control's seeds")):
        scores = [number(s.get("val_bpb")) for s in objects(value, "seeds")]
        if len(scores) >= 3 and None not in scores:
            return min(max(statistics.stdev(scores), LEAST_SPREAD), MOST_SPREAD), whose
    return USUAL_SPREAD, "no seeds to tell it by"


def judge(rules: dict, claim: dict, seeds: list[Seed]) -> list[Finding]:
    """Whether the retrained mean is as good as the claimed one."""
    claimed = statistics.fmean(s.claimed for s in seeds)
    got = statistics.fmean(s.retrained for s in seeds)
    spread, whose = spread_of(rules, claim)
    allowed = SIGMAS * spread * math.sqrt(2 / len(seeds))
    known = all(s.steps and s.claimed_steps for s in seeds)
    ratio = sum(s.steps for s in seeds) / sum(s.claimed_steps for s in seeds) if known else None
    worse = round(got - claimed, 4) + 0.0  # no -0.0000
    figure = (
        f"claimed {claimed:.4f}, retrained {got:.4f} bits a byte: {worse:+.4f}, {allowed:.4f} "
        f"allowed ({SIGMAS} x {spread:.4f} x sqrt(2/{len(seeds)}), by {whose})"
    )
    if all(seed.in_time for seed in seeds):
        ratio, speed = 1.0, "both ended before the clock"
    elif ratio is None:
        speed = "the steps are not told, so the speed of this machine is not known"
    else:
        speed = f"{ratio:.2f} times the steps that are claimed"
    low, high = SAME_STEPS
    if got - claimed <= allowed:
        passed = True if ratio is None or ratio <= high else None
    else:
        passed = False if ratio is not None and ratio >= low else None
    if passed is None and ratio is not None:
        speed += ": another speed, compare with --steps"
    failed = [f"seed {seed.seed} retrained: {', '.join(seed.failed)} failed" for seed in seeds if seed.failed]
    return [judged("retrained", passed, f"{figure}; {speed}"), *(judged("audit", False, f) for f in failed)]


def clock(plans: list[retrain.Plan], seeds: list[Seed], by_steps: bool) -> list[Finding]:
    """Whether the artifacts were written within the budget, by this machine's clock."""
    if by_steps:
        return [judged("clock", True, "not judged: --steps trains without a clock")]
    allowed = plans[0].budget + retrain.OTHER_SECONDS
    worst = max(seed.seconds for seed in seeds)
    text = f"artifact after {worst:.0f} s; {allowed:g} s for training and what comes before and after"
    return [judged("clock", True if worst <= allowed else None, text)]


def extras(entry: SeedEntry) -> list[Finding]:
    """Counted files that are neither script, artifact nor Python: they may hold trained weights."""
    others = [n for n in entry.files if n not in (entry.script, entry.artifact) and not n.endswith(".py")]
    if not others:
        return []
    text = f"{', '.join(map(ascii, others))[:200]} was there while it trained: what is in it?"
    return [judged("score-files", None, text)]
