"""Rules about claims: what submission.json says against what logs and metrics say."""

from __future__ import annotations

import datetime
import itertools
import math
import re
import statistics
from collections import Counter
from pathlib import PurePosixPath

from golf.check.folder import LIST_LIMIT, Folder, quoted, seed_name
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


def read_claim(folder: Folder) -> None:
    """submission.json as an object; empty, with a finding, where it is none."""
    if "submission.json" not in folder.files:
        return  # file-required says so, or what it is instead of a file
    try:
        folder.claim = submission.read_claim(folder.path)
    except submission.ClaimError as error:
        text = f"submission.json {error.reason[:120]}; make it with golf.sh new"
        folder.fail_file("json", "submission.json", text)
    else:
        check_shape(folder)


def check_shape(folder: Folder) -> None:
    """The JSON schema, and what it cannot say."""
    for error in schema.errors("submission", folder.claim):
        folder.fail("json-schema", f"submission.json: {error}; see docs/submission_template.json")
    used = Counter(seed["seed"] for seed in folder.seeds() if isinstance(seed.get("seed"), int))
    for seed, times in used.items():
        if times > 1:
            folder.fail("seed-twice", f"seed {seed} is listed {times} times; list each once")
    for name, words in submission.PLACEHOLDERS.items():
        value = folder.claim.get(name)
        unwritten = isinstance(value, str) and submission.is_unwritten(value, words)
        if unwritten and not (name == "github_id" and value == "-"):  # who has no account
            text = f"{name} still says {quoted(value)}; edit submission.json and README.md"
            folder.fail("placeholder", text)


def readme(folder: Folder) -> None:
    """Text, which says something."""
    if not folder.has("README.md"):
        return  # file-required says so
    if (size := folder.files["README.md"]) > submission.JSON_LIMIT:
        text = f"README.md has {size:,} bytes; put pictures beside it, with the role extra"
        folder.fail("file-large", text)
        return
    try:
        text = folder.read("README.md", submission.JSON_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        folder.fail("file-role", f"README.md is not UTF-8 at byte {error.start}; save it as UTF-8 text")
        return
    if "\0" in text:
        folder.fail("file-role", "README.md holds NUL bytes; save it as UTF-8 text")
    words, idea = (submission.plain_words(one) for one in (text, submission.IDEA))
    if not {*words} - {*submission.LATER, *submission.UNWRITTEN} or " ".join(idea) in " ".join(words):
        folder.fail("placeholder", "README.md says nothing of the idea yet; write what is new, why")


def date(folder: Folder) -> None:
    """A day of the calendar, since the track was opened and not to come (a day's grace for time zones)."""
    text = folder.claim.get("date")
    if not isinstance(text, str) or not DATE.fullmatch(text):
        return  # json-schema says so
    try:
        claimed = datetime.date.fromisoformat(text)
    except ValueError:
        folder.fail("date", f"date {text} is no day of the calendar; state the day of the run")
        return
    today = datetime.datetime.now(datetime.timezone.utc).date()
    if claimed > today + datetime.timedelta(days=1):
        folder.fail("date", f"date {text} is to come, here it is {today}; state the day of the run")
    opened = folder.track.get("opened")
    if opened is not None and text < opened:
        folder.fail("date", f"date {text} is before {opened}, when the track began; state the day of the run")


# ---- Track, lane, data, hardware


def place(folder: Folder) -> None:
    """Track, lane and data are the track's."""
    rules, claim = folder.track, folder.claim
    if not claim:
        return
    if claim.get("track") != rules["name"]:
        folder.fail("track", f"track {quoted(claim.get('track'))}: the folder is checked as {rules['name']}")
    if claim.get("lane") not in rules["lanes"]:
        folder.fail("lane", f"lane {quoted(claim.get('lane'))}: choose {' or '.join(rules['lanes'])}")
    if own_tokenizer(folder):
        folder.human("own-tokenizer", "the tokenizer is the entry's own; compare decoded text and bytes")
    check_data(folder)
    if folder.ranked and 0 < len(folder.seeds()) < rules["record_rule"]["min_seeds"]:
        needed = rules["record_rule"]["min_seeds"]
        folder.note("seeds-few", f"{len(folder.seeds())} seeds; a record needs {needed}")


def own_tokenizer(folder: Folder) -> bool:
    """A non-record entry that ships, counts and names a tokenizer of its own."""
    sha256 = dig(folder.claim, "data", "tokenizer_sha256")
    shipped = any(e["role"] == "score" and e.get("sha256") == sha256 for e in folder.listed())
    return folder.claim.get("lane") == "non-record" and shipped


def check_data(folder: Folder) -> None:
    """`data` against the track's name and hashes; what is not pinned goes to a human."""
    pinned, data = folder.track["data"], folder.claim.get("data")
    if own_tokenizer(folder):
        return
    if dig(data, "name") != pinned["name"]:
        claimed = quoted(dig(data, "name"))
        folder.fail("data", f"data {claimed}: the track has {pinned['name']}; score on that")
    for name in ("val_sha256", "tokenizer_sha256"):
        if pinned[name] is None:
            folder.human("data-unpinned", f"the track pins no {name} yet; compare with other entries")
        elif dig(data, name) != pinned[name]:
            folder.fail("data", f"{name} is not the track's; score on the track's own data")


def hardware(folder: Folder) -> None:
    """The machine is the one that ran, and in the record lane of the track's class."""
    wanted = folder.track.get("record_hardware") if folder.ranked else None
    for where, events in runs(folder).items():
        start = events.get("start", [{}])[-1]
        name, claimed = start.get("hardware"), folder.claim.get("hardware")
        if isinstance(name, str) and isinstance(claimed, str) and name != claimed:
            folder.differs("hardware", "hardware", quoted(claimed), quoted(name), f"in {where}")
        asked_for = wanted and [wanted["device"], wanted["world_size"]]
        if wanted and not same_values([start.get("device"), start.get("world_size")], asked_for):
            asked = f"device {wanted['device']}, world_size {wanted['world_size']}"
            folder.fail("hardware", f"{where}: the record lane asks for {asked}; choose another lane")
        elif wanted and not any(is_model(name, model) for model in wanted["names"]):
            folder.human("hardware", f"{where}: is {quoted(name)} of the class of {wanted['names'][0]}?")


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


def runs(folder: Folder) -> dict[str, dict[str, list[dict]]]:
    """Events by kind of each seed that ships its metrics, by path; each file is read once.

    A file that is not as listed says nothing: the finding about it is enough.
    """
    for path in {metrics_name(seed): None for seed in folder.seeds()}:
        if folder.has(path) and path not in folder.told and path not in folder.metrics:
            folder.metrics[path] = read_metrics(folder.path / path)
    return folder.metrics


def figures(folder: Folder) -> None:
    """Each seed's claims against its log and metrics, its budget, and its segments."""
    for seed in folder.seeds():
        who, log, metrics = seed_name(seed), seed.get("log"), metrics_name(seed)
        if not folder.has(log):
            if not folder.is_told(log):
                folder.fail("log", f"{who}: its log {quoted(log)} is missing; add it")
        elif log not in folder.told:
            check_log(folder, seed, log)
        if metrics in runs(folder):
            check_metrics(folder, seed, metrics)
        elif not folder.is_told(metrics):
            folder.note("metrics", f"{who}: {metrics} is missing; its claims rest on the log alone")
        for name in ("train_seconds", "eval_seconds"):
            check_budget(folder, name, seed.get(name), who)
        if not {(who, "val_loss"), (who, "val_bpb")} & folder.disputed:  # else a finding says enough
            check_segments(folder, seed, who)
            divisor(folder, seed, who)


def check_log(folder: Folder, seed: dict, log: str) -> None:
    by_kind = final_lines(folder.path / log)
    for kind, start in FINAL_LINES.items():
        count = len(by_kind[kind])
        if count == 0:
            folder.fail("log-lines", f"{quoted(log)} has no {start} line; ship the finished run's log")
        elif count > 1:
            folder.add(folder.strictly(), "log-lines", f"{quoted(log)}: {count} {start} lines; one run has 1")
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
    if size and folder.has(seed.get("artifact")) and not folder.is_told(seed["artifact"]):
        packed = folder.files[seed["artifact"]]
        same(folder, "bytes", f"{log}: model", packed, size["bytes_model"], "in the log")
    check_notes(folder, sliding.get("note"), log)
    if sliding:
        check_targets(folder, sliding["targets"], log)
    check_budget(folder, "train_seconds", train.get("train_seconds"), log)


def check_metrics(folder: Folder, seed: dict, metrics: str) -> None:
    check_events(folder, runs(folder)[metrics], metrics)
    facts = {kind: listed[-1] for kind, listed in runs(folder)[metrics].items()}
    if folder.has(seed.get("artifact")) and not folder.is_told(seed["artifact"]):
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
        if figure not in folder.disputed:  # by the log
            found = dig(facts, event, name)
            same(folder, rule, f"{metrics}: {name}", seed.get(name), found, "there", tolerance, figure)
    for event, name in (("train_end", "train"), ("export", "export"), ("end", "eval")):
        check_budget(folder, f"{name}_seconds", dig(facts, event, f"{name}_seconds"), metrics)
    notes = dig(facts, "sliding", "notes")
    resumed = ["resumed"] * (dig(facts, "start", "resumed") not in (None, False))
    resumed += ["interrupted"] * (dig(facts, "end", "exit_code") not in (None, 0))
    check_notes(folder, [*(notes if isinstance(notes, list) else []), *resumed], metrics)
    if "sliding" in facts:
        check_targets(folder, facts["sliding"].get("targets"), metrics)
    if seed.get("segments") not in (None, dig(facts, "sliding", "segments")):
        folder.fail("segments", f"{metrics}: the run's segments are others; state the run's")
    for name in ("name", "val_sha256", "tokenizer_sha256"):
        if "start" in facts and dig(facts, "start", "data", name) != dig(folder.claim, "data", name):
            folder.fail("data", f"{metrics}: the run's {name} of data is another; state the run's")


def check_events(folder: Folder, events: dict[str, list[dict]], metrics: str) -> None:
    """One run has one event of each kind, and in the record lane each says what others rest on."""
    for kind in ("start", "train_end", "export", "sliding", "end"):
        count = len(events.get(kind, []))
        if count == 0 and kind in ("start", "sliding"):
            folder.fail("metrics", f"{metrics} has no {kind} event; ship the finished run's metrics.jsonl")
        elif count > 1:
            folder.add(folder.strictly(), "metrics", f"{metrics} has {count} {kind} events; one run has 1")
    for kind, names in SAID.items() if folder.ranked else ():
        last = events.get(kind, [{}])[-1]
        for name in (n for n in names if not last.get(n)):
            folder.fail("metrics", f"{metrics}: its {kind} event has no {name}; ship what the run wrote")


def with_score_files(folder: Folder, seed: dict, facts: dict) -> dict:
    """`facts` with the bytes of files of role score, where the run counted less than all of them.

    A run counts its script and model, perhaps the modules that it imports, never their names.
    """
    beside = [(e["path"], folder.files[e["path"]]) for e in folder.listed() if e["role"] == "score"]
    names = sum(submission.path_bytes(path, "score") for path, _ in beside)
    total, claimed = number(facts.get("bytes_total")), seed.get("bytes_total")
    if total is not None and claimed in (total + names, total + names + sum(size for _, size in beside)):
        return {**facts, "bytes_total": claimed}
    return facts


def same(
    folder: Folder, rule: str, what: str, claimed, found, where: str, tolerance: float = 0.0, figure=None
) -> None:
    """FAIL where two figures differ; a claim that is no number is json-schema's affair.

    figure: (seed, name of the figure), so that other rules on it need not say the same.
    """
    a, b = number(claimed), number(found)
    if a is not None and (b is None or abs(a - b) > tolerance):
        if figure:
            folder.disputed.add(figure)
        folder.differs(rule, what, f"{a:.10g}", "no number" if b is None else f"{b:.10g}", where)


def check_budget(folder: Folder, name: str, value, who: str) -> None:
    """Within the track's seconds, no tolerance; null in the track is no budget."""
    seconds, budget = number(value), number(folder.track.get(name))
    if seconds is not None and (seconds < 0 or seconds == 0 and name == "train_seconds"):
        folder.fail("time", f"{who}: {name} {seconds:.3f} is no time that passed; ship what was measured")
    elif seconds is not None and budget is not None and seconds > budget:
        folder.fail("time-budget", f"{who}: {name} {seconds:.3f} is over the track's {budget:g}; do less")


def check_notes(folder: Folder, notes, where: str) -> None:
    for note in SPOILT:
        if isinstance(notes, list) and note in notes:
            text = f"{where}: the score is marked {note}; the record lane needs a whole run"
            folder.add(folder.strictly(), "score-note", text)


def check_targets(folder: Folder, targets, where: str) -> None:
    scored, wanted = number(targets), folder.track["targets"]
    if scored != wanted and not own_tokenizer(folder):
        told = "no number of" if scored is None else f"{scored:,.0f}"
        folder.fail("targets", f"{where}: {told} targets scored, the track has {wanted:,}; score those")


def check_segments(folder: Folder, seed: dict, who: str) -> None:
    """SEGMENTS x [nats, bytes] that add up to the claimed val_loss and val_bpb."""
    segments = seed.get("segments")
    if segments is None:
        folder.add(folder.strictly(), "segments", f"{who}: no segments, so no part can be verified alone")
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
    """val_loss and val_bpb are of the same nats, so their ratio tells the bytes divided by."""
    loss, bpb = number(seed.get("val_loss")), number(seed.get("val_bpb"))
    wanted = number(folder.track.get("target_bytes"))
    if loss and bpb and wanted and not own_tokenizer(folder):
        size = loss * folder.track["targets"] / math.log(2) / bpb
        if abs(size / wanted - 1) > 1e-6:
            text = f"{who}: val_loss and val_bpb divide by {size:,.0f} bytes"
            folder.fail("divisor", f"{text}, the targets have {wanted:,.0f}; count as rule 3.2 says")


def means(folder: Folder) -> None:
    """The figures at the top are the means over all seeds; null where a seed has none."""
    for name in ("val_loss", "val_bpb", "train_seconds", "eval_seconds"):
        values = [seed.get(name) for seed in folder.seeds()]
        if not values or any(what == name for _, what in folder.disputed):
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


# ---- The seeds are runs of one thing, each its own, and of what is shipped


def seeds_alike(folder: Folder) -> None:
    """All seeds share script, data and configuration, and the bytes of each part of the text."""
    sizes = {tuple(size for _, size in found) for seed in folder.seeds() if (found := submission.parts(seed))}
    if len(sizes) > 1:
        folder.fail("segments", "the seeds differ in the bytes of their segments, which are of the same text")
    starts = {path: events["start"][-1] for path, events in runs(folder).items() if "start" in events}
    for path, start in list(starts.items())[1:]:
        first_path, first = next(iter(starts.items()))
        for name in ("script_sha256", "data"):
            if start.get(name) != first.get(name):
                folder.fail("seeds-differ", f"{path} and {first_path} differ in {name}; run all seeds alike")
        mine, other = config(start), config(first)
        for name in sorted({*mine, *other} - {*submission.MAY_DIFFER})[:LIST_LIMIT]:
            if mine.get(name) != other.get(name):
                text = f"{path} and {first_path} differ in {quoted(name)}; run all seeds alike"
                folder.fail("seeds-differ", text)


def config(start: dict) -> dict:
    value = start.get("config")
    return value if isinstance(value, dict) else {}


def logs_once(folder: Folder) -> None:
    """train.log is the first seed's; no other log, metrics or artifact appears twice."""
    seeds = folder.seeds()
    first = seeds[0].get("log") if seeds else None
    if folder.has(first) and folder.has("train.log") and not {first, "train.log"} & folder.told:
        sizes_differ = folder.files[first] != folder.files["train.log"]
        if sizes_differ or folder.sha256(first) != folder.sha256("train.log"):
            folder.fail("log-first", f"train.log is not {quoted(first)}, the first seed's; copy that one")
    for one, other in itertools.combinations(seeds, 2):
        if submission.same_run(one, other):
            text = f"{seed_name(one)} and {seed_name(other)} score alike in every segment"
            level = FAIL if folder.ranked else HUMAN
            folder.add(level, "log-twice", f"{text}; each seed is a run of its own")
    for kind in (lambda s: s.get("log"), metrics_name, lambda s: s.get("artifact")):
        owner = {}
        for seed in (s for s in seeds if folder.has(kind(s))):
            other = owner.setdefault(folder.sha256(kind(seed)), seed)
            if other is not seed:
                text = f"{seed_name(seed)} and {seed_name(other)} have the same {quoted(kind(seed))}"
                folder.fail("log-twice", f"{text}; each seed is a run of its own")
    names = [name for s in seeds for name in (s.get("log"), s.get("artifact")) if folder.has(name)]
    mine = {folder.sha256(name): name for name in names}
    for other, claim in published(folder):
        hashes = submission.hashes_of(claim, "log", "artifact")
        shared = sorted(mine[sha256] for sha256 in set(mine) & hashes)
        shared += [seed_name(seed) for seed in seeds if submission.has_run(claim, seed)] if not shared else []
        if shared:
            # not FAIL: a copy must not unrank the entry that it was made from; board and ci know
            # which was first
            more = f" and {len(shared) - 1} more" * (len(shared) > 1)
            text = f"{quoted(shared[0])}{more}: {quoted(other)} has the same; see which was first"
            folder.human("log-twice", text)


def published(folder: Folder):
    """(name, submission.json) of the other entries, for a folder among them."""
    home = folder.path.parent
    for place, claim in submission.claims(home) if (home / "track.json").is_file() else []:
        if place != folder.path:
            yield place.name, claim


def same_files(folder: Folder) -> None:
    """The script and the artifacts are those of the runs, and the logs begin with the script."""
    others: dict[str, list[str]] = {}  # script -> the files that show another
    for seed in folder.seeds():
        events = runs(folder).get(metrics_name(seed), {})
        facts = {kind: listed[-1] for kind, listed in events.items()}
        script, ran = dig(facts, "start", "script"), dig(facts, "start", "script_sha256")
        packed, path = dig(facts, "export", "artifact_sha256"), seed.get("artifact")
        script = script if script in folder.sources else next(iter(folder.sources), None)
        if differs_from(folder, script, ran):
            others.setdefault(script, []).append(metrics_name(seed))
        if differs_from(folder, path, packed):
            text = f"{quoted(path)} is not the artifact of the run in {metrics_name(seed)}"
            folder.fail("artifact-hash", f"{text}; ship the run's own")
    for script, where in others.items():
        text = f"{quoted(script)} is not the script of the runs in {quoted(', '.join(where))}; ship what ran"
        folder.fail("script-hash", text)
    if not others:
        logs_begin_with_script(folder)


def differs_from(folder: Folder, path, known) -> bool:
    readable = folder.has(path) and path not in folder.told
    return readable and isinstance(known, str) and folder.sha256(path) != known


def logs_begin_with_script(folder: Folder) -> None:
    script = next(iter(folder.sources), None)
    if not folder.has(script) or script in folder.told:
        return
    source = folder.read(script, submission.JSON_LIMIT)
    logs = {seed.get("log"): None for seed in folder.seeds()}
    logs = [log for log in logs if folder.has(log) and log not in folder.told]
    others = [log for log in logs if source and not folder.read(log, len(source)).startswith(source)]
    if others:
        text = f"{quoted(', '.join(others))}: begins with another source than {script}; ship what ran"
        folder.add(folder.strictly(), "script-hash", text)


def repeatable(folder: Folder) -> None:
    """The command runs the folder's script with what `env` says, and that is what the runs had."""
    env, text = folder.claim.get("env"), folder.claim.get("command")
    env = dict(itertools.islice(env.items(), LIST_LIMIT)) if isinstance(env, dict) else {}
    if isinstance(text, str) and text:
        check_shell(folder, text, env)
        check_command(folder, text, env)
    for where, events in runs(folder).items():
        ran = config(events.get("start", [{}])[-1])
        for name in (n for n in env if n in ran and not same_value(env[n], ran[n])):
            text = f"env has {quoted(name)}={quoted(env[name])}, the run in {where} had another value"
            folder.fail("env", f"{text}; state the run's")


def check_shell(folder: Folder, text: str, env: dict) -> None:
    """FAIL for what a shell would do besides running the script, since people paste commands."""
    try:
        given, words = submission.parse_command(text)
    except ValueError:
        given, words = {}, []
    if ACTIVE.search(text) and submission.command_line(given, words) != text:
        text = f"command holds what a shell acts on; write {COMMAND_SHAPE}, odd values in quotes"
        folder.fail("command", text)
    for name in sorted({n for n in (*env, *given) if STARTING.fullmatch(n)}):
        folder.fail("env", f"{quoted(name)} changes how programs start; leave it out")


def check_command(folder: Folder, text: str, env: dict) -> None:
    scripts = folder.sources
    try:
        given, words = submission.parse_command(text)
    except ValueError as error:
        folder.note("command", f"command does not parse ({error}); write {COMMAND_SHAPE}")
        return
    if not any(word.endswith(path) for word in words for path in scripts):
        folder.note("command", f"command does not run the folder's script; write {COMMAND_SHAPE}")
        return
    for name in [n for n in {**env, **given} if given.get(n) != env.get(n) and n != "SEED"][:LIST_LIMIT]:
        folder.note("command", f"command does not set {quoted(name)} as env does; make them agree")
    first = next(iter(folder.seeds()), {}).get("seed")
    if given.get("SEED") not in (None, str(first)):
        folder.note("command", f"command does not set SEED to the first seed, {quoted(first)}")
    if not RUNNER.fullmatch(" ".join(words[:-1])):
        folder.note("command", f"command runs more than the script; write {COMMAND_SHAPE}")
    right = [f"{place}/{script}" for place in places(folder) for script in scripts]
    if not any(str(PurePosixPath(word)) in right for word in words):
        folder.note("command", f"command runs another path than {quoted(right[0], 120)}; name that")
    readme = folder.read("README.md", submission.JSON_LIMIT) if folder.has("README.md") else b""
    named = {path.decode() for path in SCRIPT_PATH.findall(readme)}
    if named and not named & {*right}:
        text = f"README.md names {quoted(min(named), 120)}, the entry is {quoted(right[0], 120)}; name that"
        folder.note("command", text)


def places(folder: Folder) -> list[str]:
    """Where the entry lies, or will, relative to a repository's root; the first is the right one."""
    found = [f"records/{folder.track['name']}/{folder.path.name}"]
    if folder.path.is_relative_to(REPO):
        found.append(folder.path.relative_to(REPO).as_posix())
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
