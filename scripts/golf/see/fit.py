"""Estimate before training what a config's model will come to: bytes, packing step, memory, minutes.

Prints the parameters by kind; then for each packing step the expected bytes with each coder, whether they fit
the cap, and what the rounding is expected to cost (core/size.py says how this is known). Then it times 20
steps and a short score on this device, for memory and minutes. It knows this repository's model only.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from golf.core import envfile, size, trainers
from golf.core.bar import Talker
from golf.core.errors import GolfError
from golf.core.json_io import dig, number
from golf.core.paths import REPO, shown
from golf.core.text import columns, last_line
from golf.core.units import duration
from golf.run.command import add_job, read_job
from golf.see import history

STEPS = (12, 8, 5, 4, 3, 2, 1.5, 1, 0.7)
TIMED = 20
TRIAL_TARGETS = 16384
PLAN = ("TRAIN_BATCH_TOKENS", "MAX_WALLCLOCK_SECONDS", "ITERATIONS", "VAL_MAX_TOKENS")


def add_arguments(parser) -> None:
    add_job(parser)
    parser.add_argument("--quick", action="store_true", help="only the bytes: time no steps")


def main(args) -> int:
    trainer, _, knobs, settings = read_job(args)
    given = {**knobs, **settings}
    try:
        code = size.code_bytes(trainer, given)
        text, warning = size.line(given, code)
        lines = table(size.model(given), given, code)
        plan = {name: float(given[name]) for name in PLAN}
    except (KeyError, ValueError, ArithmeticError) as error:
        raise GolfError(f"{shown(trainer)}: not this repository's model: {error}", 2) from None
    if not (plan["MAX_WALLCLOCK_SECONDS"] or plan["ITERATIONS"]):
        raise GolfError("ITERATIONS and MAX_WALLCLOCK_SECONDS are both 0: set one of them", 2)
    print("\n".join(lines))
    if not args.quick:
        print("\n".join(trial(trainer, settings, plan)))
    print(f"fit      {text}")
    if warning:
        print(f"golf fit: warning: {warning}", file=sys.stderr)
    return int(warning is not None)


def table(model: size.Model, knobs: dict[str, str], code_bytes: int) -> list[str]:
    """Parameters, then a line for each step: bytes with each coder, and where the cap is."""
    cap = int(float(knobs["ARTIFACT_CAP_BYTES"]))
    kinds = f"blocks {model.block:,}, embedding {model.embedding:,}, vectors {model.vectors:,}"
    rows = [["  step", "bits", "cost", *size.CODERS]]
    for steps in STEPS:
        cells = []
        for coder in size.CODERS:
            one = size.packed(model, steps, coder)
            fits = "" if not cap else "  fits" if one.model_bytes + code_bytes <= cap else "  over"
            cells.append(f"{one.model_bytes:,}{fits}")
        rows.append([f"  1/{steps}", f"{one.bits:.1f}", f"+{one.cost:.3f}", *cells])
    weights, code = f"weights  {model.weights:,}: {kinds}", f"code     {code_bytes:,} bytes"
    note = f"(steps in a mean weight; bits of a weight, by {coder}; cost in bits a byte, as one model had it)"
    table = columns(rows, right=range(1, len(rows[0])))
    return [weights, code + f"; cap {cap:,}" * bool(cap), "", *table, note, ""]


def trial(trainer: Path, settings: dict[str, str], plan: dict[str, float]) -> list[str]:
    """Twenty timed steps, packing and a short score on this device: memory and minutes of this plan."""
    with tempfile.TemporaryDirectory() as folder, Talker("golf fit") as talker:
        talker.say(f"timing {TIMED} steps here ...")
        talker.begin("timing")
        passed = {k: v for k, v in settings.items() if k not in envfile.OWN_NAMES}
        passed |= {"RUN_ID": "fit", "OUT_DIR": folder, "ITERATIONS": str(TIMED + 2), "TRAIN_LOG_EVERY": "1"}
        passed |= {"MAX_WALLCLOCK_SECONDS": "0", "VAL_LOSS_EVERY": "0", "RESUME": "0", "EVAL_ONLY": ""}
        passed["VAL_MAX_TOKENS"] = f"{min(plan['VAL_MAX_TOKENS'] or TRIAL_TARGETS, TRIAL_TARGETS):.0f}"
        passed["ARTIFACT_CAP_BYTES"] = "0"
        done = subprocess.run([sys.executable, str(trainer)], env=trainers.child_env(passed), cwd=REPO,
                              capture_output=True, encoding="utf-8", errors="replace")  # fmt: skip
        if done.returncode:
            said = last_line(done.stderr, "no reason given")
            raise GolfError(f"{shown(trainer)} could not be timed: {said}")
        h = history.read(Path(folder) / "fit")
        return minutes(h, plan, peak_memory(h))


def peak_memory(h: history.History) -> float:
    """Peak memory in bytes: the device's if the trainer logged it, else the process's."""
    if (told := number(dig(h.facts, "end", "peak_memory_bytes"))) is not None:
        return told
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024)


def minutes(h: history.History, plan: dict[str, float], memory: float) -> list[str]:
    """What the timed steps say about the whole run."""
    marks = [point["train_seconds"] for point in h.steps][-TIMED - 1 :]
    step = statistics.median(b - a for a, b in zip(marks, marks[1:]))
    batch, budget, steps, targets = (plan[name] for name in PLAN)
    train = min(seconds for seconds in (budget, steps * step) if seconds)
    why = f"{train / step:,.0f} steps" if train == budget else f"all {steps:,.0f} steps"
    score = dig(h.facts, "sliding", "seconds") or 0.0
    scored = number(dig(h.facts, "sliding", "targets")) or 1.0
    whole = score * max(targets, scored) / scored
    device = dig(h.facts, "start", "hardware")
    return [
        f"memory   {memory / 2**20:,.0f} MiB at most ({device})",
        f"train    {duration(train)}: {why} of {1000 * step:,.0f} ms, {batch / step:,.0f} tokens/s",
        f"score    {duration(whole)} for {max(targets, scored):,.0f} targets",
    ]
