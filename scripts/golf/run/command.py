"""Train, pack and score a configuration.

CONFIG.env holds NAME=value lines, as the files in configs/ do. A variable in the environment, or an argument
NAME=value, overrides the file. `python3 train_gpt.py --knobs` lists all names; `run` itself reads these:
  SEEDS=1337,42,2025                 one run per seed, in runs/<RUN_ID>-s<seed>
  NPROC_PER_NODE=2                   two devices
  NNODES=2 RDZV_ENDPOINT=HOST:PORT   the same command on two machines; HOST is one of them
  REPORT=0                           no report.html in a finished run's folder
Ctrl-C once (or SIGTERM, SIGHUP, SIGUSR1) ends training early: the model is saved, packed and scored.
Ctrl-C or SIGTERM again ends the run at once; RESUME=1 then continues from its last checkpoint.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from golf.core import envfile, lock, machine, size, track, trainers
from golf.core.bar import Talker
from golf.core.errors import GolfError
from golf.core.files import replace_file
from golf.core.json_io import dig, number
from golf.core.paths import REPO, path_argument, shown
from golf.core.runlog import read_run
from golf.core.text import last_line, slug
from golf.run import preflight
from golf.run import summary as summaries
from golf.run.child import OUT_OF_MEMORY, STOPPED, Supervisor
from golf.run.view import train_shards_alone


@dataclass(frozen=True)
class SeedRun:
    """One run: what a trainer is given and where it writes."""

    trainer: Path
    settings: dict[str, str]
    seed: str
    run_dir: Path
    world: int  # processes on this machine
    report: bool = True
    nodes: int = 1
    endpoint: str = ""  # HOST:PORT where several nodes meet

    @property
    def command(self) -> list[str]:
        if self.world == self.nodes == 1:
            return [sys.executable, str(self.trainer)]
        # One node by address: whatever this machine is called, a resolver may not know it.
        meet = ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
        if self.nodes > 1:
            meet = [f"--rdzv-endpoint={self.endpoint}", f"--rdzv-id=golf-{self.seed}"]
        meet.append("--log-dir=/dev/null")  # else a folder stays in /tmp
        launcher = ["-m", "torch.distributed.run", f"--nnodes={self.nodes}", "--rdzv-backend=c10d", *meet]
        return [sys.executable, *launcher, f"--nproc_per_node={self.world}", str(self.trainer)]


def add_job(parser) -> None:
    """The arguments that read_job() reads."""
    parser.add_argument("config", metavar="CONFIG.env", help="for example configs/quickstart.env")
    parser.add_argument("settings", nargs="*", default=[], metavar="NAME=value", help="overrides the file")
    parser.add_argument("--trainer", type=path_argument, default=REPO / "train_gpt.py", metavar="PATH",
                        help="the script to run; default: train_gpt.py")  # fmt: skip


def read_job(args, defaults=()) -> tuple[Path, Path, dict[str, str], dict[str, str]]:
    """The trainer, the config, the trainer's knobs with their defaults, and what is set of them.

    defaults: (name, value) of what is set if neither the file nor the environment does.
    """
    trainer = args.trainer.resolve()
    config, words = envfile.config_and_words([args.config, *args.settings])
    trainers.check_trainer(trainer)
    knobs = trainers.read_knobs(trainer)
    found = envfile.parse(config, knobs)
    envfile.set_words(words, knobs)
    return trainer, config, knobs, envfile.settings(found, knobs, dict(defaults))


def add_arguments(parser) -> None:
    add_job(parser)
    parser.add_argument("--default", action="append", default=[], type=name_and_value, metavar="NAME=VALUE",
                        help="used if neither the file nor the environment sets NAME")  # fmt: skip
    parser.add_argument("--no-summary", action="store_true", help="do not print the results at the end")


def name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(text)
    return name, value


def main(args) -> int:
    trainer, config, knobs, settings = read_job(args, args.default)
    runs = plan(trainer, settings, config.stem)
    check(runs, knobs)
    supervisor = Supervisor()
    tell_size(trainer, {**knobs, **runs[0].settings}, supervisor)
    summary = not (args.no_summary or runs[0].settings.get("EVAL_ONLY"))  # that writes nothing to sum up
    return run_all(runs, config, knobs, supervisor, summary)


def tell_size(trainer: Path, knobs: dict[str, str], supervisor: Supervisor) -> None:
    """What the model is expected to pack to, where it is the starter's; a warning where that will not do."""
    if trainer.parent != REPO or knobs.get("EVAL_ONLY"):
        return
    try:
        text, warning = size.line(knobs, size.code_bytes(trainer, knobs))
    except (KeyError, ValueError, ArithmeticError):  # another model's knobs; the trainer judges its own
        return
    supervisor.print(f"fit      {text}")
    if warning:
        supervisor.say(f"warning: {warning}")


def run_all(
    runs: list[SeedRun], config: Path, knobs: dict[str, str], supervisor: Supervisor, summary: bool
) -> int:
    """Runs one after another until one fails or is stopped. Returns the worst exit code."""
    done, code = [], 0
    for run in runs:
        done.append((run.seed, run.run_dir))
        if len(runs) > 1 and finished(run.run_dir):
            supervisor.print(f"run      {shown(run.run_dir)} (seed {run.seed}) is finished: kept")
            continue
        given = {**knobs, **run.settings}
        view = train_shards_alone(given, run.trainer, run.run_dir)
        with lock.locked(run.run_dir), view as places, kept_origin(run.run_dir):
            last = run_one(run, config, supervisor, places, given.get("DATA_PATH", ""))
        if last == 0 and not (run.run_dir / "metrics.jsonl").is_file():
            summary = False
            if run.nodes > 1:
                supervisor.print("run      done; the node of rank 0 holds its files")
            elif not given.get("EVAL_ONLY"):
                supervisor.say(f"error: {shown(run.trainer)} ended without metrics.jsonl; is it whole?")
                last = 1
        elif last == 0 and run.report and not run.settings.get("EVAL_ONLY"):
            write_report(run.run_dir, supervisor)
        code = max(code, last)
        if last not in (0, 1) or (supervisor.stops and run is not runs[-1]):
            code = last or 130
            break
    if summary:
        print_results(supervisor, done, len(runs) > 1, code)
    return code


def write_report(run_dir: Path, supervisor: Supervisor) -> None:
    """report.html, by `golf.sh report`; a run is as good without it, whatever goes wrong."""
    words = ["bash", str(REPO / "scripts" / "golf.sh"), "report", str(run_dir)]
    env = {**os.environ, "PYTHON": sys.executable}
    text = {"encoding": "utf-8", "errors": "replace"}
    with Talker("golf run") as talker:
        talker.begin("report")
        done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, **text)
    if done.returncode == 0:
        supervisor.print(f"report   {shown(run_dir / 'report.html')}")
    else:
        supervisor.say(f"no report.html: {last_line(done.stderr, 'it ended')}")


def print_results(supervisor: Supervisor, done: list[tuple[str, Path]], several: bool, code: int) -> None:
    """Prints the results and the next command."""
    lines = summaries.seed_table(done) if several else []
    if code == 0:
        lines = lines or summaries.summary(done[0][1])
        folders = " ".join(shlex.quote(shown(folder)) for _, folder in done)
        if fits_a_track(done[0][1]):
            lines.append(f"next     bash scripts/golf.sh new {folders}")
    if lines:
        supervisor.print("\n".join(["", *lines]))


def fits_a_track(run_dir: Path) -> bool:
    """Whether `golf new` finds a track for the run: not for one on a person's own texts."""
    facts = read_run(run_dir)
    measured = dig(facts, "start", "data", "name"), dig(facts, "sliding", "targets")
    try:
        return bool(track.guess(*measured, number(dig(facts, "train_end", "train_seconds")) or 0.0))
    except GolfError:
        return False


def plan(trainer: Path, settings: dict[str, str], stem: str) -> list[SeedRun]:
    """The runs that the settings ask for, in order: one for each of SEEDS, or one. stem: the config's name.

    GolfError, code 2, for a variable of `run` itself whose value makes no sense.
    """
    world = whole(settings, "NPROC_PER_NODE", max(16, machine.usable_cpus()))
    nodes = whole(settings, "NNODES", 1024)
    report, resume = settings.get("REPORT") or "1", settings.get("RESUME") or "0"
    endpoint = settings.get("RDZV_ENDPOINT") or ""
    if report not in ("0", "1"):
        raise GolfError(f"REPORT={report!r}: set 1 (write report.html at the end) or 0", 2)
    if resume not in ("0", "1", "auto"):
        raise GolfError(f"RESUME={resume!r}: set 0, 1 or auto (resume if there is a checkpoint)", 2)
    if nodes > 1 and not re.fullmatch(r"\S+:\d+", endpoint):
        raise GolfError(f"NNODES={nodes}: set RDZV_ENDPOINT=HOST:PORT of one node, the same on all", 2)
    if nodes > 1 and resume != "0":
        raise GolfError(f"RESUME={resume}: only one node has the checkpoint, so several cannot resume", 2)
    if resume != "0" and not settings.get("RUN_ID"):
        raise GolfError(f"RESUME={resume}: set RUN_ID to the run to resume; golf.sh runs lists them", 2)
    seeds = envfile.read_seeds(settings.get("SEEDS", ""), f"SEEDS={settings.get('SEEDS')!r}")
    run_id = settings.get("RUN_ID") or f"{slug(stem, 'run')}-{time.strftime('%Y%m%d-%H%M%S')}"
    out_dir = REPO / (settings.get("OUT_DIR") or "runs")
    passed = {k: v for k, v in settings.items() if k not in envfile.OWN_NAMES} | {"OUT_DIR": str(out_dir)}
    runs, shared = [], (world, report == "1", nodes, endpoint)
    for seed in seeds or [None]:
        own = {**passed, "RUN_ID": f"{run_id}-s{seed}" if seed else run_id}
        run_dir = out_dir / own["RUN_ID"]
        if seed:
            own["SEED"] = seed
            if resume != "0" and not (run_dir / "train.log").exists():
                own["RESUME"] = "0"  # a seed that was not reached begins
        runs.append(SeedRun(trainer, own, own.get("SEED", ""), run_dir, *shared))
    return runs


def whole(settings: dict[str, str], name: str, most: int) -> int:
    """A number of processes or nodes, 1 by default. More than `most` would only fill the memory."""
    text = settings.get(name) or "1"
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise GolfError(f"{name}={text[:60]!r}: give a whole number from 1 to {most}", 2)
    return int(text)


def finished(run_dir: Path) -> bool:
    """Whether its last run ended well; with RESUME=1 several seeds go on from there."""
    return dig(read_run(run_dir), "end", "exit_code") == 0


def check(runs: list[SeedRun], knobs: dict[str, str]) -> None:
    """GolfError for anything that would stop a run, before any file is made."""
    first = runs[0]
    if first.world * first.nodes > 1 and trainers.imports(first.trainer, "mlx"):
        name = "NPROC_PER_NODE" if first.world > 1 else "NNODES"
        text = f"{name}={max(first.world, first.nodes)}: {first.trainer.name} is one process, on one device"
        raise GolfError(text, 2)
    given = {**knobs, **first.settings}
    for run in runs:
        resume = run.settings.get("RESUME") in ("1", "auto")
        preflight.check_run_id(run.settings["RUN_ID"], run.run_dir, resume)
        lock.refuse_used(run.run_dir)
        preflight.check_checkpoint(run.trainer, run.run_dir)
    if given.get("DATA_PATH") and given.get("TOKENIZER_PATH"):
        paths = (trainers.find_path(given[n], first.trainer) for n in ("DATA_PATH", "TOKENIZER_PATH"))
        val = given.get("VAL_DATA_PATH")
        val = trainers.find_path(val, first.trainer) if val else None
        trainers.check_data(*paths, splits=("val",) if given.get("EVAL_ONLY") else ("train", "val"), val=val)
    if trainers.imports(first.trainer, "torch"):
        check_torch(runs, given)
    preflight.check_out_dir(first.run_dir.parent)


def check_torch(runs: list[SeedRun], given: dict[str, str]) -> None:
    """Is there the CUDA device that was asked for, and what torch.compile needs?

    A processor's training is not compiled where that cannot work, so the runs get COMPILE=0.
    """
    first, device = runs[0], given.get("DEVICE", "auto")
    env = trainers.child_env(first.settings)
    if device == "cuda":
        trainers.check_cuda(first.trainer, env, first.world)
    if given.get("EVAL_ONLY"):
        return
    gpu = device == "cuda" or (device == "auto" and machine.has_nvidia())
    if warning := preflight.check_compiler(env, given.get("COMPILE", "0"), gpu):
        print(f"golf run: warning: {warning}", file=sys.stderr)
        for run in runs:
            run.settings.update({} if gpu else {"COMPILE": "0"})


def write_origin(run: SeedRun, settings: dict[str, str], config: Path) -> None:
    """Writes supervisor.json: the run's settings, from which `golf new` writes the command to repeat it."""
    origin = {
        "schema": 1,
        "config": shown(config.resolve()),
        "trainer": str(run.trainer.relative_to(REPO) if run.trainer.is_relative_to(REPO) else run.trainer),
        "nproc_per_node": run.world,
        "set": dict(sorted(settings.items())),
    }
    replace_file(run.run_dir / "supervisor.json", json.dumps(origin, indent=1) + "\n")


@contextmanager
def kept_origin(run_dir: Path) -> Iterator[None]:
    """Puts a run's supervisor.json back if the trainer adds nothing to that run, as when it refuses."""
    log, origin = run_dir / "train.log", run_dir / "supervisor.json"
    length = log.stat().st_size if log.is_file() else 0
    text = origin.read_bytes() if origin.is_file() else b""
    try:
        yield
    finally:
        if text and length and log.is_file() and log.stat().st_size == length:
            replace_file(origin, text)


def run_one(run: SeedRun, config: Path, supervisor: Supervisor, places: dict[str, str], data: str) -> int:
    """Runs the trainer. Out of memory, it starts again with a smaller micro-batch. Returns the exit code.

    places: data paths that replace those of the settings; what it prints names `data` all the same.
    """
    settings, extra = dict(run.settings), machine.thread_settings(run.world)
    was_finished = finished(run.run_dir)
    if run.world > 1 and run.nodes == 1:
        extra |= machine.loopback()
    while True:
        write_origin(run, settings, config)  # each time: a smaller micro-batch is told as it was
        supervisor.print(f"run      {shown(run.run_dir)}" + f" (seed {run.seed})" * bool(run.seed))
        env = trainers.child_env({**extra, **settings, **places})
        spelt = (places.get("DATA_PATH", ""), data if places else "")
        code = supervisor.run(run.command, env, run.run_dir / "metrics.jsonl", spelt)
        if code != OUT_OF_MEMORY or supervisor.stops or run.nodes > 1:  # nodes would have to agree
            break
        if not (smaller := with_less_memory(run, settings, supervisor)):
            break
        settings |= smaller
    if code == STOPPED and not was_finished and finished(run.run_dir):
        return 0  # the signal came after its last line
    if code == STOPPED:
        supervisor.say(how_to_go_on(run.run_dir))
    elif code and not (supervisor.told_why and not (run.run_dir / "train.log").exists()):
        supervisor.say(f"{shown(run.run_dir)} ended with exit code {code}; see the error above")
    return code


def with_less_memory(run: SeedRun, settings: dict[str, str], supervisor: Supervisor) -> dict[str, str]:
    """The setting to start again with after an out-of-memory error; empty if none would help: says why."""
    facts = read_run(run.run_dir)
    if artifact := scored_artifact(run, facts):  # training again would not help
        ends = "" if settings.get("EVAL_ONLY") else ", RESUME=1 ends the run from its last checkpoint"
        supervisor.say(
            "out of memory while scoring; with a smaller VAL_BATCH_SIZE "
            f"EVAL_ONLY={shlex.quote(artifact)} scores what was trained{ends}"
        )
        return {}
    used, smaller = smaller_micro_batch(facts, settings)
    if dig(facts, "warm_up", "graph") is False and settings.get("COMPILE") != "nograph":
        why, name, value = "after a failed CUDA graph, whose memory is not freed", "COMPILE", "nograph"
    elif smaller is not None:
        why, name, value = f"with MICRO_BATCH_TOKENS={used}", "MICRO_BATCH_TOKENS", str(smaller)
    else:
        supervisor.say(
            f"out of memory with MICRO_BATCH_TOKENS={used}, the smallest: train a smaller "
            "model, shorter sequences, or on a device with more memory"
        )
        return {}
    log = f"attempt{set_aside(run.run_dir)}.train.log"
    supervisor.say(f"out of memory {why}: starting again with {name}={value} (log of this attempt: {log})")
    return {name: value}


def how_to_go_on(run_dir: Path) -> str:
    """How to resume a killed run, or that it left no checkpoint."""
    saved = sorted(run_dir.glob("checkpoint*"))
    if not saved:
        return f"{shown(run_dir)} was ended before its first checkpoint: there is nothing to go on from"
    return (
        f"{shown(run_dir)} was ended; the same command with RUN_ID={run_dir.name} RESUME=1 goes on "
        f"from {saved[0].name}"
    )


def scored_artifact(run: SeedRun, facts: dict) -> str | None:
    """The artifact that was being scored when the run ended; None if it had none yet."""
    if run.settings.get("EVAL_ONLY"):
        return run.settings["EVAL_ONLY"]
    name = dig(facts, "export", "artifact")
    return shown(run.run_dir / name) if isinstance(name, str) else None


def smaller_micro_batch(facts: dict, settings: dict[str, str]) -> tuple[str, int | None]:
    """Tokens of the micro-batch that failed and of the next smaller one, None if there is none.

    The latter is half of it, or for an odd number of sequences its largest divisor, so that a step's batch is
    still a whole number of micro-batches.
    """
    given = settings.get("MICRO_BATCH_TOKENS", "")
    used = number(dig(facts, "start", "micro_batch_tokens")) or (float(given) if given.isdigit() else 0)
    length = number(dig(facts, "start", "config", "TRAIN_SEQ_LEN")) or float(
        settings.get("TRAIN_SEQ_LEN") or settings.get("TRAIN_MAX_SEQ_LEN") or 1
    )
    count = int(used // length)
    fewer = next((n for n in range(count // 2, 0, -1) if count % n == 0), None)
    return f"{used:.0f}", fewer and int(fewer * length)


def set_aside(run_dir: Path) -> int:
    """Renames a failed attempt's train.log and metrics.jsonl to attempt<k>.*; k, from 1."""
    k = 1
    while any(run_dir.glob(f"attempt{k}.*")):
        k += 1
    for name in ("train.log", "metrics.jsonl"):
        if (run_dir / name).exists():
            (run_dir / name).rename(run_dir / f"attempt{k}.{name}")
    return k
