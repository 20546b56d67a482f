"""Rules about claims: what submission.json says against what logs and metrics say."""

from __future__ import annotations

import datetime
import itertools
import math
import re
import statistics
from collections import Counter
from pathlib import PurePosixPath

from golf.check.folder import LIST_LIMIT, Case, quoted, seed_name
from golf.core import schema, submission
from golf.core.findings import FAIL, HUMAN
from golf.core.json_io import dig, number
from golf.core.paths import REPO
from golf.core.runlog import final_lines, read_metrics

DATE = re.compile(r"20\d\d-\d\d-\d\d", re.ASCII)

SCRIPT_PATH = re.compile(rb"records/[A-Za-z0-9._/+-]{1,200}/train_gpt(?:_mlx)?\.py")
COMMAND_SHAPE = "NAME=value ... python3 SCRIPT"
RUNNER = re.compile(r"python3?|torchrun --standalone --nproc_per_node=\d{1,3}", re.ASCII)
ACTIVE = re.compile(r"[;&|<>$`()\n\r]")  # in a shell, where no quotes stand around it
# Variables by which a shell, Python or the loader runs or imports what they name.
STARTING = re.compile(
    r"PYTHON(?!HASHSEED|UNBUFFERED).*|(LD|DYLD|GIT)_.*|PATH|HOME|ENV|BASH_.*|IFS|SHELL.*|PS4|PROMPT_COMMAND"
)
# What the events of a record's metrics must say, besides the figures that are claimed.
SAID = {"start": ("hardware", "script_sha256", "config"), "export": ("artifact_sha256",)}
SPOILT = ("resumed", "interrupted", "partial")
FINAL_LINES = {
    "sliding": "final_sliding_window_exact",
    "size": "total_submission_size_quant_zlib",
    "train": "train_seconds",
}


# ---- submission.json by itself


def read_claim(case: Case) -> None:
    """submission.json as an object; empty, with a finding, where it is none."""
    if "submission.json" not in case.files:
        return  # file-required says so, or what it is instead of a file
    try:
        case.claim = submission.read_claim(case.folder)
    except submission.ClaimError as error:
        text = f"submission.json {error.reason[:120]}; make it with golf.sh new"
        case.fail_file("json", "submission.json", text)
    else:
        check_shape(case)


def check_shape(case: Case) -> None:
    """The JSON schema, and what it cannot say."""
    for error in schema.errors("submission", case.claim):
        case.fail("json-schema", f"submission.json: {error}; see docs/submission_template.json")
    used = Counter(seed["seed"] for seed in case.seeds() if isinstance(seed.get("seed"), int))
    for seed, times in used.items():
        if times > 1:
            case.fail("seed-twice", f"seed {seed} is listed {times} times; list each once")
    for name, words in submission.PLACEHOLDERS.items():
        value = case.claim.get(name)
        unwritten = isinstance(value, str) and submission.is_unwritten(value, words)
        if unwritten and not (name == "github_id" and value == "-"):  # who has no account
            text = f"{name} still says {quoted(value)}; edit submission.json and README.md"
            case.fail("placeholder", text)


def readme(case: Case) -> None:
    """Text, which says something."""
    if not case.has("README.md"):
        return  # file-required says so
    if (size := case.files["README.md"]) > submission.JSON_LIMIT:
        case.fail("file-large", f"README.md has {size:,} bytes; put pictures beside it, with the role extra")
        return
    try:
        text = case.read("README.md", submission.JSON_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        case.fail("file-role", f"README.md is not UTF-8 at byte {error.start}; save it as UTF-8 text")
        return
    if "\0" in text:
        case.fail("file-role", "README.md holds NUL bytes; save it as UTF-8 text")
    words, idea = (submission.plain_words(one) for one in (text, submission.IDEA))
    if not {*words} - {*submission.LATER, *submission.UNWRITTEN} or " ".join(idea) in " ".join(words):
        case.fail("placeholder", "README.md says nothing of the idea yet; write what is new, why")


def date(case: Case) -> None:
    """A day of the calendar, since the track was opened and not to come (a day's grace for time zones)."""
    text = case.claim.get("date")
    if not isinstance(text, str) or not DATE.fullmatch(text):
        return  # json-schema says so
    try:
        claimed = datetime.date.fromisoformat(text)
    except ValueError:
        case.fail("date", f"date {text} is no day of the calendar; state the day of the run")
        return
    today = datetime.datetime.now(datetime.timezone.utc).date()
    if claimed > today + datetime.timedelta(days=1):
        case.fail("date", f"date {text} is to come, here it is {today}; state the day of the run")
    opened = case.track.get("opened")
    if opened is not None and text < opened:
        case.fail("date", f"date {text} is before {opened}, when the track began; state the day of the run")


# ---- Track, lane, data, hardware


def place(case: Case) -> None:
    """Track, lane and data are the track's."""
    rules, claim = case.track, case.claim
    if not claim:
        return
    if claim.get("track") != rules["name"]:
        case.fail("track", f"track {quoted(claim.get('track'))}: the folder is checked as {rules['name']}")
    if claim.get("lane") not in rules["lanes"]:
        case.fail("lane", f"lane {quoted(claim.get('lane'))}: choose {' or '.join(rules['lanes'])}")
    if own_tokenizer(case):
        case.human("own-tokenizer", "the tokenizer is the entry's own; compare decoded text and bytes")
    check_data(case)
    if case.ranked and 0 < len(case.seeds()) < rules["record_rule"]["min_seeds"]:
        needed = rules["record_rule"]["min_seeds"]
        case.note("seeds-few", f"{len(case.seeds())} seeds; a record needs {needed}")


def own_tokenizer(case: Case) -> bool:
    """A non-record entry that ships, counts and names a tokenizer of its own."""
    sha256 = dig(case.claim, "data", "tokenizer_sha256")
    shipped = any(e["role"] == "score" and e.get("sha256") == sha256 for e in case.listed())
    return case.claim.get("lane") == "non-record" and shipped


def check_data(case: Case) -> None:
    """`data` against the track's name and hashes; what is not pinned goes to a human."""
    pinned, data = case.track["data"], case.claim.get("data")
    if own_tokenizer(case):
        return
    if dig(data, "name") != pinned["name"]:
        claimed = quoted(dig(data, "name"))
        case.fail("data", f"data {claimed}: the track has {pinned['name']}; score on that")
    for name in ("val_sha256", "tokenizer_sha256"):
        if pinned[name] is None:
            case.human("data-unpinned", f"the track pins no {name} yet; compare with other entries")
        elif dig(data, name) != pinned[name]:
            case.fail("data", f"{name} is not the track's; score on the track's own data")


def hardware(case: Case) -> None:
    """The machine is the one that ran, and in the record lane of the track's class."""
    wanted = case.track.get("record_hardware") if case.ranked else None
    for where, events in runs(case).items():
        start = events.get("start", [{}])[-1]
        name, claimed = start.get("hardware"), case.claim.get("hardware")
        if isinstance(name, str) and isinstance(claimed, str) and name != claimed:
            case.differs("hardware", "hardware", quoted(claimed), quoted(name), f"in {where}")
        asked_for = wanted and [wanted["device"], wanted["world_size"]]
        if wanted and not same_values([start.get("device"), start.get("world_size")], asked_for):
            asked = f"device {wanted['device']}, world_size {wanted['world_size']}"
            case.fail("hardware", f"{where}: the record lane asks for {asked}; choose another lane")
        elif wanted and not any(is_model(name, model) for model in wanted["names"]):
            case.human("hardware", f"{where}: is {quoted(name)} of the class of {wanted['names'][0]}?")


def same_values(one: list, other: list) -> bool:
    """Equality for which true is not 1."""
    return one == other and [*map(type, one)] == [*map(type, other)]


def is_model(name, model: str) -> bool:
    """Whether a GPU's name is that model's: an RTX 4090 D or a laptop's is another."""
    maker = r"(NVIDIA )?(GeForce )?"
    return isinstance(name, str) and bool(re.fullmatch(maker + re.escape(model), name))


# ---- Each seed's figures against its log and metrics


def metrics_name(seed: dict) -> str:
    return f"metrics_seed{str(seed.get('seed'))[:40]}.jsonl"


def runs(case: Case) -> dict[str, dict[str, list[dict]]]:
    """Events by kind of each seed that ships its metrics, by path; each file is read once.

    A file that is not as listed says nothing: the finding about it is enough.
    """
    for path in {metrics_name(seed): None for seed in case.seeds()}:
        if case.has(path) and path not in case.told and path not in case.metrics:
            case.metrics[path] = read_metrics(case.folder / path)
    return case.metrics


def figures(case: Case) -> None:
    """Each seed's claims against its log and metrics, its budget, and its segments."""
    for seed in case.seeds():
        who, log, metrics = seed_name(seed), seed.get("log"), metrics_name(seed)
        if not case.has(log):
            if not case.is_told(log):
                case.fail("log", f"{who}: its log {quoted(log)} is missing; add it")
        elif log not in case.told:
            check_log(case, seed, log)
        if metrics in runs(case):
            check_metrics(case, seed, metrics)
        elif not case.is_told(metrics):
            case.note("metrics", f"{who}: {metrics} is missing; its claims rest on the log alone")
        for name in ("train_seconds", "eval_seconds"):
            check_budget(case, name, seed.get(name), who)
        if not {(who, "val_loss"), (who, "val_bpb")} & case.disputed:  # else a finding says enough
            check_segments(case, seed, who)
            divisor(case, seed, who)


def check_log(case: Case, seed: dict, log: str) -> None:
    by_kind = final_lines(case.folder / log)
    for kind, start in FINAL_LINES.items():
        count = len(by_kind[kind])
        if count == 0:
            case.fail("log-lines", f"{quoted(log)} has no {start} line; ship the finished run's log")
        elif count > 1:
            case.add(case.strictly(), "log-lines", f"{quoted(log)}: {count} {start} lines; one run has 1")
    sliding, size, train = (by_kind[kind][-1] if by_kind[kind] else {} for kind in FINAL_LINES)
    for rule, name, line, tolerance in (  # as far as the log prints them
        ("score", "val_loss", sliding, 1e-8),
        ("score", "val_bpb", sliding, 1e-8),
        ("bytes", "bytes_total", with_score_files(case, seed, size), 0),
        ("time", "train_seconds", train, 0.00051),
    ):
        if line:  # else log-lines says so
            figure = (seed_name(seed), name)
            same(case, rule, f"{log}: {name}", seed.get(name), line[name], "in the log", tolerance, figure)
    if size and case.has(seed.get("artifact")) and not case.is_told(seed["artifact"]):
        packed = case.files[seed["artifact"]]
        same(case, "bytes", f"{log}: model", packed, size["bytes_model"], "in the log")
    check_notes(case, sliding.get("note"), log)
    if sliding:
        check_targets(case, sliding["targets"], log)
    check_budget(case, "train_seconds", train.get("train_seconds"), log)


def check_metrics(case: Case, seed: dict, metrics: str) -> None:
    check_events(case, runs(case)[metrics], metrics)
    facts = {kind: listed[-1] for kind, listed in runs(case)[metrics].items()}
    if case.has(seed.get("artifact")) and not case.is_told(seed["artifact"]):
        packed = case.files[seed["artifact"]]
        same(case, "bytes", f"{metrics}: bytes_model", packed, dig(facts, "export", "bytes_model"), "there")
    facts["config"] = {"seed": config(facts.get("start", {})).get("SEED", seed.get("seed"))}
    facts["export"] = with_score_files(case, seed, facts.get("export", {}))
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
        if figure not in case.disputed:  # by the log
            found = dig(facts, event, name)
            same(case, rule, f"{metrics}: {name}", seed.get(name), found, "there", tolerance, figure)
    for event, name in (("train_end", "train"), ("export", "export"), ("end", "eval")):
        check_budget(case, f"{name}_seconds", dig(facts, event, f"{name}_seconds"), metrics)
    notes = dig(facts, "sliding", "notes")
    resumed = ["resumed"] * (dig(facts, "start", "resumed") not in (None, False))
    resumed += ["interrupted"] * (dig(facts, "end", "exit_code") not in (None, 0))
    check_notes(case, [*(notes if isinstance(notes, list) else []), *resumed], metrics)
    if "sliding" in facts:
        check_targets(case, facts["sliding"].get("targets"), metrics)
    if seed.get("segments") not in (None, dig(facts, "sliding", "segments")):
        case.fail("segments", f"{metrics}: the run's segments are others; state the run's")
    for name in ("name", "val_sha256", "tokenizer_sha256"):
        if "start" in facts and dig(facts, "start", "data", name) != dig(case.claim, "data", name):
            case.fail("data", f"{metrics}: the run's {name} of data is another; state the run's")


def check_events(case: Case, events: dict[str, list[dict]], metrics: str) -> None:
    """One run has one event of each kind, and in the record lane each says what others rest on."""
    for kind in ("start", "train_end", "export", "sliding", "end"):
        count = len(events.get(kind, []))
        if count == 0 and kind in ("start", "sliding"):
            case.fail("metrics", f"{metrics} has no {kind} event; ship the finished run's metrics.jsonl")
        elif count > 1:
            case.add(case.strictly(), "metrics", f"{metrics} has {count} {kind} events; one run has 1")
    for kind, names in SAID.items() if case.ranked else ():
        last = events.get(kind, [{}])[-1]
        for name in (n for n in names if not last.get(n)):
            case.fail("metrics", f"{metrics}: its {kind} event has no {name}; ship what the run wrote")


def with_score_files(case: Case, seed: dict, facts: dict) -> dict:
    """`facts` with the bytes of files of role score, where the run counted less than all of them.

    A run counts its script and model, perhaps the modules that it imports, never their names.
    """
    beside = [(e["path"], case.files[e["path"]]) for e in case.listed() if e["role"] == "score"]
    names = sum(submission.path_bytes(path, "score") for path, _ in beside)
    total, claimed = number(facts.get("bytes_total")), seed.get("bytes_total")
    if total is not None and claimed in (total + names, total + names + sum(size for _, size in beside)):
        return {**facts, "bytes_total": claimed}
    return facts


def same(
    case: Case, rule: str, what: str, claimed, found, where: str, tolerance: float = 0.0, figure=None
) -> None:
    """FAIL where two figures differ; a claim that is no number is json-schema's affair.

    figure: (seed, name of the figure), so that other rules on it need not say the same.
    """
    a, b = number(claimed), number(found)
    if a is not None and (b is None or abs(a - b) > tolerance):
        if figure:
            case.disputed.add(figure)
        case.differs(rule, what, f"{a:.10g}", "no number" if b is None else f"{b:.10g}", where)


def check_budget(case: Case, name: str, value, who: str) -> None:
    """Within the track's seconds, no tolerance; null in the track is no budget."""
    seconds, budget = number(value), number(case.track.get(name))
    if seconds is not None and (seconds < 0 or seconds == 0 and name == "train_seconds"):
        case.fail("time", f"{who}: {name} {seconds:.3f} is no time that passed; ship what was measured")
    elif seconds is not None and budget is not None and seconds > budget:
        case.fail("time-budget", f"{who}: {name} {seconds:.3f} is over the track's {budget:g}; do less")


def check_notes(case: Case, notes, where: str) -> None:
    for note in SPOILT:
        if isinstance(notes, list) and note in notes:
            text = f"{where}: the score is marked {note}; the record lane needs a whole run"
            case.add(case.strictly(), "score-note", text)


def check_targets(case: Case, targets, where: str) -> None:
    scored, wanted = number(targets), case.track["targets"]
    if scored != wanted and not own_tokenizer(case):
        told = "no number of" if scored is None else f"{scored:,.0f}"
        case.fail("targets", f"{where}: {told} targets scored, the track has {wanted:,}; score those")


def check_segments(case: Case, seed: dict, who: str) -> None:
    """SEGMENTS x [nats, bytes] that add up to the claimed val_loss and val_bpb."""
    segments = seed.get("segments")
    if segments is None:
        case.add(case.strictly(), "segments", f"{who}: no segments, so no part can be verified alone")
        return
    pairs = [s for s in segments if isinstance(s, list)] if isinstance(segments, list) else []
    values = [number(value) for pair in pairs for value in pair]
    right = len(pairs) == submission.SEGMENTS and all(len(pair) == 2 for pair in pairs)
    unlike = not right or None in values or min(values) < 0 or max(values) > submission.FIGURE_LIMIT
    if unlike or sum(values[1::2]) <= 0:
        case.fail("segments", f"{who}: segments must be {submission.SEGMENTS} pairs [nats, bytes]")
        return
    nats, size = math.fsum(values[::2]), math.fsum(values[1::2])
    found = {"val_loss": nats / case.track["targets"], "val_bpb": nats / math.log(2) / size}
    if own_tokenizer(case):
        del found["val_loss"]  # of other targets
    for name, value in found.items():
        same(case, "segments", f"{who}: {name}", seed.get(name), value, "by its segments", 1e-6)


def divisor(case: Case, seed: dict, who: str) -> None:
    """val_loss and val_bpb are of the same nats, so their ratio tells the bytes divided by."""
    loss, bpb = number(seed.get("val_loss")), number(seed.get("val_bpb"))
    wanted = number(case.track.get("target_bytes"))
    if loss and bpb and wanted and not own_tokenizer(case):
        size = loss * case.track["targets"] / math.log(2) / bpb
        if abs(size / wanted - 1) > 1e-6:
            text = f"{who}: val_loss and val_bpb divide by {size:,.0f} bytes"
            case.fail("divisor", f"{text}, the targets have {wanted:,.0f}; count as rule 3.2 says")


def means(case: Case) -> None:
    """The figures at the top are the means over all seeds; null where a seed has none."""
    for name in ("val_loss", "val_bpb", "train_seconds", "eval_seconds"):
        values = [seed.get(name) for seed in case.seeds()]
        if not values or any(what == name for _, what in case.disputed):
            continue  # a wrong part has a finding of its own
        if None in values and case.claim.get(name) is not None:
            text = f"{name} is null in a seed and a number on top; a mean is over all seeds: state null"
            case.fail("mean", text)
        elif None not in values and name in case.claim and case.claim[name] is None:
            case.fail("mean", f"{name} is a number in each seed and null on top; state their mean")
        elif all(number(value) is not None for value in values):
            average = statistics.fmean(values)
            tolerance = 1e-8 * max(1, abs(average))
            same(case, "mean", name, case.claim.get(name), average, "as the seeds' mean", tolerance)


# ---- The seeds are runs of one thing, each its own, and of what is shipped


def seeds_alike(case: Case) -> None:
    """All seeds share script, data and configuration, and the bytes of each part of the text."""
    sizes = {tuple(size for _, size in found) for seed in case.seeds() if (found := submission.parts(seed))}
    if len(sizes) > 1:
        case.fail("segments", "the seeds differ in the bytes of their segments, which are of the same text")
    starts = {path: events["start"][-1] for path, events in runs(case).items() if "start" in events}
    for path, start in list(starts.items())[1:]:
        first_path, first = next(iter(starts.items()))
        for name in ("script_sha256", "data"):
            if start.get(name) != first.get(name):
                case.fail("seeds-differ", f"{path} and {first_path} differ in {name}; run all seeds alike")
        mine, other = config(start), config(first)
        for name in sorted({*mine, *other} - {*submission.MAY_DIFFER})[:LIST_LIMIT]:
            if mine.get(name) != other.get(name):
                text = f"{path} and {first_path} differ in {quoted(name)}; run all seeds alike"
                case.fail("seeds-differ", text)


def config(start: dict) -> dict:
    value = start.get("config")
    return value if isinstance(value, dict) else {}


def logs_once(case: Case) -> None:
    """train.log is the first seed's; no other log, metrics or artifact appears twice."""
    seeds = case.seeds()
    first = seeds[0].get("log") if seeds else None
    if case.has(first) and case.has("train.log") and not {first, "train.log"} & case.told:
        sizes_differ = case.files[first] != case.files["train.log"]
        if sizes_differ or case.sha256(first) != case.sha256("train.log"):
            case.fail("log-first", f"train.log is not {quoted(first)}, the first seed's; copy that one")
    for one, other in itertools.combinations(seeds, 2):
        if submission.same_run(one, other):
            text = f"{seed_name(one)} and {seed_name(other)} score alike in every segment"
            level = FAIL if case.ranked else HUMAN
            case.add(level, "log-twice", f"{text}; each seed is a run of its own")
    for kind in (lambda s: s.get("log"), metrics_name, lambda s: s.get("artifact")):
        owner = {}
        for seed in (s for s in seeds if case.has(kind(s))):
            other = owner.setdefault(case.sha256(kind(seed)), seed)
            if other is not seed:
                text = f"{seed_name(seed)} and {seed_name(other)} have the same {quoted(kind(seed))}"
                case.fail("log-twice", f"{text}; each seed is a run of its own")
    names = [name for s in seeds for name in (s.get("log"), s.get("artifact")) if case.has(name)]
    mine = {case.sha256(name): name for name in names}
    for folder, claim in published(case):
        hashes = submission.hashes_of(claim, "log", "artifact")
        shared = sorted(mine[sha256] for sha256 in set(mine) & hashes)
        shared += [seed_name(seed) for seed in seeds if submission.has_run(claim, seed)] if not shared else []
        if shared:
            # not FAIL: a copy must not unrank the entry that it was made from; board and ci know
            # which was first
            more = f" and {len(shared) - 1} more" * (len(shared) > 1)
            text = f"{quoted(shared[0])}{more}: {quoted(folder)} has the same; see which was first"
            case.human("log-twice", text)


def published(case: Case):
    """(name, submission.json) of the other entries, for a folder among them."""
    home = case.folder.parent
    for folder, claim in submission.claims(home) if (home / "track.json").is_file() else []:
        if folder != case.folder:
            yield folder.name, claim


def same_files(case: Case) -> None:
    """The script and the artifacts are those of the runs, and the logs begin with the script."""
    others: dict[str, list[str]] = {}  # script -> the files that show another
    scripts = [entry["path"] for entry in case.listed() if entry["role"] == "script"]
    for seed in case.seeds():
        events = runs(case).get(metrics_name(seed), {})
        facts = {kind: listed[-1] for kind, listed in events.items()}
        script, ran = dig(facts, "start", "script"), dig(facts, "start", "script_sha256")
        packed, path = dig(facts, "export", "artifact_sha256"), seed.get("artifact")
        script = script if script in scripts else next(iter(scripts), None)
        if differs_from(case, script, ran):
            others.setdefault(script, []).append(metrics_name(seed))
        if differs_from(case, path, packed):
            text = f"{quoted(path)} is not the artifact of the run in {metrics_name(seed)}"
            case.fail("artifact-hash", f"{text}; ship the run's own")
    for script, where in others.items():
        text = f"{quoted(script)} is not the script of the runs in {quoted(', '.join(where))}; ship what ran"
        case.fail("script-hash", text)
    if not others:
        logs_begin_with_script(case)


def differs_from(case: Case, path, known) -> bool:
    return case.has(path) and path not in case.told and isinstance(known, str) and case.sha256(path) != known


def logs_begin_with_script(case: Case) -> None:
    scripts = [entry["path"] for entry in case.listed() if entry["role"] == "script"]
    if not scripts or scripts[0] in case.told:
        return
    source = case.read(scripts[0], submission.JSON_LIMIT)
    logs = {seed.get("log"): None for seed in case.seeds()}
    logs = [log for log in logs if case.has(log) and log not in case.told]
    others = [log for log in logs if source and not case.read(log, len(source)).startswith(source)]
    if others:
        text = f"{quoted(', '.join(others))}: begins with another source than {scripts[0]}; ship what ran"
        case.add(case.strictly(), "script-hash", text)


def repeatable(case: Case) -> None:
    """The command runs the folder's script with what `env` says, and that is what the runs had."""
    env, text = case.claim.get("env"), case.claim.get("command")
    env = dict(itertools.islice(env.items(), LIST_LIMIT)) if isinstance(env, dict) else {}
    if isinstance(text, str) and text:
        check_shell(case, text, env)
        check_command(case, text, env)
    for where, events in runs(case).items():
        ran = config(events.get("start", [{}])[-1])
        for name in (n for n in env if n in ran and not same_value(env[n], ran[n])):
            text = f"env has {quoted(name)}={quoted(env[name])}, the run in {where} had another value"
            case.fail("env", f"{text}; state the run's")


def check_shell(case: Case, text: str, env: dict) -> None:
    """FAIL for what a shell would do besides running the script, since people paste commands."""
    try:
        given, words = submission.parse_command(text)
    except ValueError:
        given, words = {}, []
    if ACTIVE.search(text) and submission.command_line(given, words) != text:
        text = f"command holds what a shell acts on; write {COMMAND_SHAPE}, odd values in quotes"
        case.fail("command", text)
    for name in sorted({n for n in (*env, *given) if STARTING.fullmatch(n)}):
        case.fail("env", f"{quoted(name)} changes how programs start; leave it out")


def check_command(case: Case, text: str, env: dict) -> None:
    scripts = [entry["path"] for entry in case.listed() if entry["role"] == "script"]
    try:
        given, words = submission.parse_command(text)
    except ValueError as error:
        case.note("command", f"command does not parse ({error}); write {COMMAND_SHAPE}")
        return
    if not any(word.endswith(path) for word in words for path in scripts):
        case.note("command", f"command does not run the folder's script; write {COMMAND_SHAPE}")
        return
    for name in [n for n in {**env, **given} if given.get(n) != env.get(n) and n != "SEED"][:LIST_LIMIT]:
        case.note("command", f"command does not set {quoted(name)} as env does; make them agree")
    first = next(iter(case.seeds()), {}).get("seed")
    if given.get("SEED") not in (None, str(first)):
        case.note("command", f"command does not set SEED to the first seed, {quoted(first)}")
    if not RUNNER.fullmatch(" ".join(words[:-1])):
        case.note("command", f"command runs more than the script; write {COMMAND_SHAPE}")
    right = [f"{place}/{script}" for place in places(case) for script in scripts]
    if not any(str(PurePosixPath(word)) in right for word in words):
        case.note("command", f"command runs another path than {quoted(right[0], 120)}; name that")
    readme = case.read("README.md", submission.JSON_LIMIT) if case.has("README.md") else b""
    named = {path.decode() for path in SCRIPT_PATH.findall(readme)}
    if named and not named & {*right}:
        text = f"README.md names {quoted(min(named), 120)}, the entry is {quoted(right[0], 120)}; name that"
        case.note("command", text)


def places(case: Case) -> list[str]:
    """Where the entry lies, or will, relative to a repository's root; the first is the right one."""
    found = [f"records/{case.track['name']}/{case.folder.name}"]
    if case.folder.is_relative_to(REPO):
        found.append(case.folder.relative_to(REPO).as_posix())
    return found


def same_value(text, value) -> bool:
    """Whether a variable's text means the value that a run had; a path may have become absolute."""
    try:
        return float(text) == float(value)
    except (ValueError, TypeError, OverflowError):
        return text == "auto" or f"/{value}".endswith(f"/{text}")


RULES = (
    readme, date, place, hardware, figures, means, seeds_alike, logs_once, same_files, repeatable,
)  # fmt: skip
