"""Rules about figures: what submission.json says of each seed against its log and metrics."""

import math
import statistics

from golf.check.claims import own_tokenizer
from golf.check.folder import Folder, quoted, seed_name
from golf.core import submission
from golf.core.json_io import dig, number
from golf.core.runlog import events, final_lines, lines, read_metrics

# What the events of a record's metrics must say, besides the figures that are claimed.
SAID = {"start": {"hardware": str, "script_sha256": str, "config": dict}, "export": {"artifact_sha256": str}}
SPOILT = ("resumed", "interrupted", "partial")
FINAL_LINES = {
    "sliding": "final_sliding_window_exact",
    "size": "total_submission_size_quant_zlib",
    "train": "train_seconds",
}


def metrics_name(seed: dict) -> str:
    return f"metrics_seed{str(seed.get('seed'))[:40]}.jsonl"


def runs(folder: Folder) -> dict[str, dict[str, list[dict]]]:
    """Events by kind of each seed's metrics file, by path. Each file is read once.

    Files that already have a finding are skipped: one fault, one finding.
    """
    for path in {metrics_name(seed): None for seed in folder.seeds()}:
        if folder.has(path) and path not in folder.reported_files and path not in folder.metrics:
            folder.metrics[path] = read_metrics(folder.path / path)
    return folder.metrics


def figures(folder: Folder) -> None:
    """Compares each seed's claims with its log and metrics; checks budget and segments."""
    for seed in folder.seeds():
        who, log, metrics = seed_name(seed), seed.get("log"), metrics_name(seed)
        if not folder.has(log):
            if not folder.is_reported(log):
                folder.fail("log", f"{who}: its log {quoted(log)} is missing; add it")
        elif log not in folder.reported_files:
            check_log(folder, seed, log)
        if metrics in runs(folder):
            check_metrics(folder, seed, metrics)
        elif not folder.is_reported(metrics):
            folder.note("metrics", f"{who}: {metrics} is missing; its claims rest on the log alone")
        for name in ("train_seconds", "eval_seconds"):
            check_budget(folder, name, seed.get(name), who)
        wrong = {(who, name) for name in ("val_loss", "val_bpb", "targets")} & folder.reported_figures
        if not wrong:  # else a finding says enough
            check_segments(folder, seed, who)
            divisor(folder, seed, who)


def check_log(folder: Folder, seed: dict, log: str) -> None:
    by_kind = final_lines(folder.path / log)
    for kind, start in FINAL_LINES.items():
        count = len(by_kind[kind])
        if count == 0:
            folder.fail("log-lines", f"{quoted(log)} has no {start} line; ship the finished run's log")
        elif count > 1:
            text = f"{quoted(log)}: {count} {start} lines; one run has 1"
            folder.add(folder.record_lane_level(), "log-lines", text)
    sliding, size, train = (by_kind[kind][-1] if by_kind[kind] else {} for kind in FINAL_LINES)
    for rule, name, line, tolerance in (  # as far as the log prints them
        ("score", "val_loss", sliding, 1e-8),
        ("score", "val_bpb", sliding, 1e-8),
        ("bytes", "bytes_total", with_score_files(folder, seed, size), 0),
        ("time", "train_seconds", train, 0.00051),
    ):
        if line:  # else log-lines says so
            figure = (seed_name(seed), name)
            same(folder, rule, f"{log}: {name}", seed.get(name), line[name], "in the log", tolerance, figure)
    if size and folder.has(seed.get("artifact")) and not folder.is_reported(seed["artifact"]):
        packed = folder.files[seed["artifact"]]
        same(folder, "bytes", f"{log}: model", packed, size["bytes_model"], "in the log")
    check_notes(folder, sliding.get("note"), log)
    if sliding:
        check_targets(folder, seed, sliding["targets"], log)
    check_budget(folder, "train_seconds", train.get("train_seconds"), log)


def check_metrics(folder: Folder, seed: dict, metrics: str) -> None:
    check_events(folder, runs(folder)[metrics], metrics)
    facts = {kind: listed[-1] for kind, listed in runs(folder)[metrics].items()}
    if folder.has(seed.get("artifact")) and not folder.is_reported(seed["artifact"]):
        packed = folder.files[seed["artifact"]]
        same(folder, "bytes", f"{metrics}: bytes_model", packed, dig(facts, "export", "bytes_model"), "there")
    facts["config"] = {"seed": config(facts.get("start", {})).get("SEED", seed.get("seed"))}
    facts["export"] = with_score_files(folder, seed, facts.get("export", {}))
    for rule, name, event, tolerance in (
        ("score", "val_loss", "sliding", 1e-8),
        ("score", "val_bpb", "sliding", 1e-8),
        ("bytes", "bytes_total", "export", 0),
        ("time", "train_seconds", "train_end", 1e-6),
        ("time", "eval_seconds", "end", 1e-6),
        ("seed", "seed", "start", 0),
        ("seed", "seed", "config", 0),
    ):
        figure = (seed_name(seed), name)
        if figure not in folder.reported_figures:  # by the log
            found = dig(facts, event, name)
            same(folder, rule, f"{metrics}: {name}", seed.get(name), found, "there", tolerance, figure)
    check_steps(folder, seed, metrics)
    for event, name in (("train_end", "train"), ("export", "export"), ("end", "eval")):
        required = folder.ranked and name == "export"  # the others are compared with claims
        check_budget(folder, f"{name}_seconds", dig(facts, event, f"{name}_seconds"), metrics, required)
    notes = dig(facts, "sliding", "notes")
    resumed = ["resumed"] * (dig(facts, "start", "resumed") not in (None, False))
    resumed += ["interrupted"] * (dig(facts, "end", "exit_code") not in (None, 0))
    check_notes(folder, [*(notes if isinstance(notes, list) else []), *resumed], metrics)
    if "sliding" in facts:
        check_targets(folder, seed, facts["sliding"].get("targets"), metrics)
    if seed.get("segments") not in (None, dig(facts, "sliding", "segments")):
        folder.fail("segments", f"{metrics}: the run has other segments; state the run's")
    for name in ("name", "val_sha256", "tokenizer_sha256"):
        if "start" in facts and dig(facts, "start", "data", name) != dig(folder.claim, "data", name):
            folder.fail("data", f"{metrics}: the run's data has another {name}; state the run's")


def check_steps(folder: Folder, seed: dict, metrics: str) -> None:
    """Each line is an event; the steps' numbers and clock go on, to the claimed time at most."""
    path, told = folder.path / metrics, {"step": [], "train_seconds": []}
    odd = sum(1 for _ in lines(path))
    for kind, event in events(path, steps=True):
        odd -= 1
        for name, values in told.items() if kind in ("step", "val") else ():
            values += [event[name]] if name in event else []
    if odd:
        text = f"{metrics}: {odd} lines are no events, or have a key twice; ship what the run wrote"
        folder.add(folder.record_lane_level(), "metrics", text)
    if any(number(value) is None or value < 0 for value in [*told["step"], *told["train_seconds"]]):
        folder.fail("time", f"{metrics}: a step has no possible number or time; ship what the run wrote")
        return
    most, claimed = max(told["train_seconds"], default=0.0), number(seed.get("train_seconds"))
    if claimed is not None and most > claimed + 1e-6:
        folder.mismatch("time", f"{metrics}: train_seconds", f"{claimed:.10g}", f"{most:.10g}", "at a step")
    elif any(values != sorted(values) for values in told.values()):
        text = f"{metrics}: the number or the clock of its steps goes back; one run has one clock"
        folder.add(folder.record_lane_level(), "time", text)


def check_events(folder: Folder, events: dict[str, list[dict]], metrics: str) -> None:
    """A run has one event of each kind. In the record lane the events hold the facts that other rules use."""
    for kind in ("start", "train_end", "export", "sliding", "end"):
        count = len(events.get(kind, []))
        if count == 0 and kind in ("start", "sliding"):
            folder.fail("metrics", f"{metrics} has no {kind} event; ship the finished run's metrics.jsonl")
        elif count > 1:
            text = f"{metrics} has {count} {kind} events; one run has 1"
            folder.add(folder.record_lane_level(), "metrics", text)
    for kind, said in SAID.items() if folder.ranked else ():
        last = events.get(kind, [{}])[-1]
        lacking = [n for n, form in said.items() if not isinstance(last.get(n), form) or last[n] in ("", {})]
        for name in lacking:
            folder.fail("metrics", f"{metrics}: its {kind} event has no {name}; ship what the run wrote")


def with_score_files(folder: Folder, seed: dict, facts: dict) -> dict:
    """`facts` with the bytes of the `score` files added, if the run did not count them.

    A run counts its script and model, sometimes imported modules, never file names.
    """
    beside = [(e["path"], folder.files[e["path"]]) for e in folder.listed() if e["role"] == "score"]
    names = sum(submission.path_bytes(path, "score") for path, _ in beside)
    total, claimed = number(facts.get("bytes_total")), seed.get("bytes_total")
    if total is not None and claimed in (total + names, total + names + sum(size for _, size in beside)):
        return {**facts, "bytes_total": claimed}
    return facts


def same(
    folder: Folder, rule: str, what: str, claimed, found, where: str, tolerance=0.0, figure=None
) -> None:
    """FAIL if two figures differ. Claims that are not numbers are left to json-schema.

    figure: (seed, name); recorded so that later rules do not report the same figure again.
    """
    a, b = number(claimed), number(found)
    if a is not None and (b is None or abs(a - b) > tolerance):
        if figure:
            folder.reported_figures.add(figure)
        folder.mismatch(rule, what, f"{a:.10g}", "no number" if b is None else f"{b:.10g}", where)


def check_budget(folder: Folder, name: str, value, who: str, required: bool = False) -> None:
    """The time is within the track's budget, without tolerance; null means no budget."""
    seconds, budget = number(value), number(folder.track.get(name))
    if seconds is None and (value is not None or required and budget is not None):
        folder.fail("time", f"{who}: {name} {quoted(value)} is no number; state what was measured")
    elif seconds is not None and (seconds < 0 or seconds == 0 and name == "train_seconds"):
        folder.fail("time", f"{who}: {name} {seconds:.3f} is not a possible time; state what was measured")
    elif seconds is not None and budget is not None and seconds > budget:
        folder.fail("time-budget", f"{who}: {name} {seconds:.3f} is over the track's {budget:g}; do less")


def check_notes(folder: Folder, notes, where: str) -> None:
    for note in SPOILT:
        if isinstance(notes, list) and note in notes:
            text = f"{where}: the score is marked {note}; the record lane needs a whole run"
            folder.add(folder.record_lane_level(), "score-note", text)


def check_targets(folder: Folder, seed: dict, targets, where: str) -> None:
    scored, wanted, figure = number(targets), folder.track["targets"], (seed_name(seed), "targets")
    if scored != wanted and not own_tokenizer(folder) and figure not in folder.reported_figures:
        folder.reported_figures.add(figure)
        count = "no number of" if scored is None else f"{scored:,.0f}"
        folder.fail("targets", f"{where}: {count} targets scored, the track has {wanted:,}; score those")


def check_segments(folder: Folder, seed: dict, who: str) -> None:
    """The segments, SEGMENTS pairs [nats, bytes], add up to the claimed val_loss and val_bpb."""
    segments = seed.get("segments")
    if segments is None:
        text = f"{who}: no segments, so no part can be verified alone"
        folder.add(folder.record_lane_level(), "segments", text)
        return
    pairs = [s for s in segments if isinstance(s, list)] if isinstance(segments, list) else []
    values = [number(value) for pair in pairs for value in pair]
    right = len(pairs) == submission.SEGMENTS and all(len(pair) == 2 for pair in pairs)
    unlike = not right or None in values or min(values) < 0 or max(values) > submission.FIGURE_LIMIT
    if unlike or sum(values[1::2]) <= 0:
        folder.fail("segments", f"{who}: segments must be {submission.SEGMENTS} pairs [nats, bytes]")
        return
    nats, size = math.fsum(values[::2]), math.fsum(values[1::2])
    found = {"val_loss": nats / folder.track["targets"], "val_bpb": nats / math.log(2) / size}
    if own_tokenizer(folder):
        del found["val_loss"]  # of other targets
    for name, value in found.items():
        same(folder, "segments", f"{who}: {name}", seed.get(name), value, "by its segments", 1e-6)


def divisor(folder: Folder, seed: dict, who: str) -> None:
    """val_loss and val_bpb come from the same nats: their ratio gives the bytes, which the track pins."""
    loss, bpb = number(seed.get("val_loss")), number(seed.get("val_bpb"))
    wanted = number(folder.track.get("target_bytes"))
    if loss and bpb and wanted and not own_tokenizer(folder):
        size = loss * folder.track["targets"] / math.log(2) / bpb
        if abs(size / wanted - 1) > 1e-6:
            text = f"{who}: val_loss and val_bpb divide by {size:,.0f} bytes"
            folder.fail("divisor", f"{text}, the targets have {wanted:,.0f}; count as rule 3.2 says")


def means(folder: Folder) -> None:
    """The top-level figures are means over all seeds; null if any seed lacks the figure."""
    for name in ("val_loss", "val_bpb", "train_seconds", "eval_seconds"):
        values = [seed.get(name) for seed in folder.seeds()]
        if not values or any(what == name for _, what in folder.reported_figures):
            continue  # a wrong part has a finding of its own
        if None in values and folder.claim.get(name) is not None:
            text = f"{name} is null in a seed and a number on top; a mean is over all seeds: state null"
            folder.fail("mean", text)
        elif None not in values and name in folder.claim and folder.claim[name] is None:
            folder.fail("mean", f"{name} is a number in each seed and null on top; state their mean")
        elif all(number(value) is not None for value in values):
            average = statistics.fmean(values)
            tolerance = 1e-8 * max(1, abs(average))
            same(folder, "mean", name, folder.claim.get(name), average, "as the seeds' mean", tolerance)


def config(start: dict) -> dict:
    value = start.get("config")
    return value if isinstance(value, dict) else {}


RULES = (figures, means)
