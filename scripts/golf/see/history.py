"""A run as it went, step by step: the one reader that runs, watch, plot, report, export and the site share.

It reads a run's folder, an entry's, a metrics file, or a train.log with upstream's line shapes.
"""

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from golf.core import envfile
from golf.core.errors import GolfError
from golf.core.json_io import dig, mapping, number, read_json
from golf.core.lock import refuse_used
from golf.core.paths import REPO, shown
from golf.core.runlog import events, final_lines, lines, no_run
from golf.core.submission import MAY_DIFFER, NOT_REPEATED

LIMIT = 1_000_000  # points that are read
NUMBER = r"([-+0-9.eEnaif]+)"
STEP_LINE = re.compile(
    rf"step:(\d{{1,15}})/\d+ (train_loss|val_loss):{NUMBER}(?: val_bpb:{NUMBER})? train_time:{NUMBER}ms.*"
)
BATCH_LINE = re.compile(r"train_batch_tokens:(\d{1,15}) .*")
LABEL = 44  # characters of a run's label in a picture
SILENT_SECONDS = 120  # a run without a lock that has written nothing for so long has ended


@dataclass
class History:
    """A run's points over time, its folder, and the last event of every other kind since it last started."""

    place: Path
    steps: list[dict] = field(default_factory=list)  # step, train_seconds, tokens, train_loss, lr_scale
    vals: list[dict] = field(default_factory=list)  # the same, with val_loss and val_bpb
    facts: dict[str, dict] = field(default_factory=dict)
    written: float = 0.0  # when the file was last written, seconds since 1970

    @property
    def name(self) -> str:
        found, place = dig(self.facts, "start", "run_id"), self.place.resolve()
        if isinstance(found, str):
            return found
        return place.name if place.is_dir() else f"{place.parent.name}/{place.name}"

    @property
    def origin(self) -> dict:
        """supervisor.json: the run's config, trainer and settings; empty for a trainer that ran by itself."""
        with suppress(GolfError):  # a run whose file cannot be read is shown all the same
            return mapping(read_json(self.place / "supervisor.json"))
        return {}

    @property
    def config(self) -> dict:
        """The knobs by name, as the trainer read them; empty for a log of another trainer."""
        return mapping(self.facts, "start", "config")

    @property
    def val_bpb(self) -> float | None:
        """The packed artifact's val_bpb: the sliding score, else the one of plain windows."""
        for kind in ("sliding", "roundtrip"):
            if (value := number(dig(self.facts, kind, "val_bpb"))) is not None:
                return value
        return None

    def last(self, name: str) -> float | None:
        """`step`, `train_seconds` or `tokens` at the last point."""
        for event in (self.facts.get("train_end"), *self.steps[-1:], *self.vals[-1:]):
            if (value := number(dig(event, name))) is not None:
                return value
        return None

    def fraction(self) -> float:
        """How much of the training is done: of the time budget or the steps, the larger."""
        if "train_end" in self.facts:
            return 1.0
        pairs = (("train_seconds", "MAX_WALLCLOCK_SECONDS"), ("step", "ITERATIONS"))
        parts = [(self.last(have) or 0.0, number(self.config.get(limit))) for have, limit in pairs]
        return min(1.0, max([0.0, *(have / limit for have, limit in parts if limit)]))

    def seconds_left(self) -> float | None:
        """Seconds of training left; None if unknown."""
        part, seconds = self.fraction(), self.last("train_seconds")
        return seconds * (1 - part) / part if part > 1e-6 and seconds is not None else None

    def rates(self) -> list[tuple[dict, float]]:
        """(point, training tokens a second since the point before)."""
        found = []
        for before, now in zip(self.steps, self.steps[1:]):
            tokens = [number(point.get("tokens")) for point in (before, now)]
            seconds = [number(point.get("train_seconds")) for point in (before, now)]
            if None not in (*tokens, *seconds) and seconds[1] > seconds[0]:
                found.append((now, (tokens[1] - tokens[0]) / (seconds[1] - seconds[0])))
        return found

    def state(self) -> str:
        """running, finished, failed, stopped (by a person, or with a checkpoint to resume from), damaged (not
        running, and nothing can be read) or unknown (a log alone)."""
        code = number(dig(self.facts, "end", "exit_code"))
        if code is not None:
            asked = dig(self.facts, "train_end", "reason") == "interrupted"
            return "failed" if code else "stopped" if asked else "finished"
        if not self.facts and self.steps:  # a log alone
            return "unknown"
        try:
            left_a_lock = refuse_used(self.place)
        except GolfError:  # in use
            return "running"
        if not left_a_lock and time.time() - self.written < SILENT_SECONDS:
            return "running"
        if not (self.facts or self.steps or self.vals):
            return "damaged"
        return "stopped" if any(self.place.glob("checkpoint.*")) else "failed"


def read(place: Path) -> History:
    """The history at `place`. GolfError, code 2, where there is none."""
    if place.is_dir():
        names = ("metrics.jsonl", "metrics_seed*.jsonl", "train.log", "train_seed*.log")
        found = [path for name in names for path in sorted(place.glob(name)) if path.is_file()]
        if not found:
            seen = os.access(place, os.R_OK | os.X_OK)
            why = "no metrics.jsonl and no train.log there" if seen else "may not be looked into"
            raise GolfError(f"{shown(place)}: {why}", 2)
        file = found[0]
    else:
        file = place
    try:
        history = History(place, written=file.stat().st_mtime)
        (read_metrics if file.suffix == ".jsonl" else read_log)(file, history)
    except OSError as error:
        raise no_run(file, f"cannot be read ({error.strerror})") from None
    if not (history.steps or history.vals or history.facts):
        raise GolfError(f"{shown(file)}: no run's metrics and no trainer's log", 2)
    return history


def read_metrics(file: Path, history: History) -> None:
    for kind, event in events(file, steps=True):
        if kind in ("step", "val"):
            points = history.steps if kind == "step" else history.vals
            if number(event.get("step")) is not None:
                add(points, event)
        else:
            history.facts = {kind: event} if kind == "start" else {**history.facts, kind: event}


def add(points: list[dict], point: dict) -> None:
    """Appends a point; a run that was resumed, or begun anew, tells some steps again."""
    while points and points[-1]["step"] >= point["step"]:
        points.pop()
    if len(points) < LIMIT:
        points.append(point)


def read_log(file: Path, history: History) -> None:
    """A train.log of this challenge or the larger one: its step lines, and its final ones."""
    batch = None
    for line in lines(file):
        text = line.decode("utf-8", "replace").strip()
        if match := BATCH_LINE.fullmatch(text):
            batch = int(match[1])
        elif match := STEP_LINE.fullmatch(text):
            step, kind, loss, bpb, ms = match.groups()
            point = {"step": int(step), "train_seconds": parsed(ms, 1e-3), kind: parsed(loss)}
            point |= {"tokens": int(step) * batch} if batch else {}
            point |= {"val_bpb": parsed(bpb)} if bpb else {}
            add(history.steps if kind == "train_loss" else history.vals, point)
    for kind, found in final_lines(file).items():
        name = {"size": "export", "train": "train_end"}.get(kind, kind)
        history.facts |= {name: found[-1]} if found else {}
    tokens, steps = (number(dig(history.facts, "train_end", name)) for name in ("tokens", "steps"))
    if tokens and steps:  # this challenge's logs say the batch only so
        for point in [*history.steps, *history.vals]:
            point.setdefault("tokens", point["step"] * tokens / steps)


def parsed(text: str, factor: float = 1.0) -> float | None:
    try:
        return float(text) * factor
    except ValueError:
        return None


def all_runs(folder: Path) -> list[Path]:
    """The folders in `folder` that hold a run, also one that is only starting; or `folder`, if it is one."""
    try:
        places = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    except OSError as error:
        raise GolfError(f"{shown(folder)}: no runs there ({error.strerror})", 2) from None
    return sorted(p for p in places if os.path.exists(p / "metrics.jsonl"))  # False where it may not be asked


def differences(histories: list[History]) -> list[str]:
    """A label for each run: the knobs in which runs differ, or its name if those are none or too long."""
    ignored = {*MAY_DIFFER, "VAL_LOSS_EVERY", "TRAIN_LOG_EVERY", "DEVICE", "COMPILE"} - {"SEED"}
    names = sorted({name for h in histories for name in h.config} - ignored)
    apart = [n for n in names if len({str(h.config.get(n, "")) for h in histories}) > 1]
    texts = [" ".join(f"{n}={h.config[n]}" for n in apart if n in h.config) for h in histories]
    told = len(set(texts)) == len(texts) > 1 and max(map(len, texts)) <= LABEL
    return [text if told and text else h.name[:LABEL] for text, h in zip(texts, histories)]


def changes(history: History) -> str:
    """NAME=value ... of a run's settings that are not its config's, by supervisor.json."""
    settings, config = mapping(history.origin, "set"), history.origin.get("config")
    if not isinstance(config, str):
        return ""
    try:
        preset = envfile.parse(REPO / config)
    except GolfError:
        return "(its config is gone)"
    ignored = {*NOT_REPEATED, "VAL_DATA_PATH"} - {"SEED"}
    changed = {n: v for n, v in settings.items() if n not in ignored and preset.get(n) != v}
    return " ".join(f"{name}={value}" for name, value in changed.items())
