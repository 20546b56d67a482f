"""Rules about runs: all seeds ran the shipped script with one configuration, each once, as `command` says."""

import itertools
import re
from pathlib import PurePosixPath

from golf.check.figures import config, metrics_name, runs
from golf.check.folder import LIST_LIMIT, Folder, quoted, seed_name
from golf.check.texts import STARTING
from golf.core import submission
from golf.core.findings import FAIL, HUMAN
from golf.core.json_io import dig
from golf.core.paths import REPO

SCRIPT_PATH = re.compile(rb"records/[A-Za-z0-9._/+-]{1,200}/train_gpt(?:_mlx)?\.py")
COMMAND_SHAPE = "NAME=value ... python3 SCRIPT"
RUNNER = re.compile(
    r"python3?(\.\d\d)?( -[uB]+)?|torchrun --standalone --nproc[_-]per[_-]node=\d{1,3}", re.ASCII
)
ACTIVE = re.compile(r"[;&|<>$`()\n\r]")  # in a shell, where no quotes stand around it


def hardware(folder: Folder) -> None:
    """`hardware` is what the log shows; in the record lane it is the track's record hardware."""
    wanted = folder.track.get("record_hardware") if folder.ranked else None
    for where, events in runs(folder).items():
        start = events.get("start", [{}])[-1]
        name, claimed = start.get("hardware"), folder.claim.get("hardware")
        if name is not None and isinstance(claimed, str) and name != claimed:
            folder.mismatch("hardware", "hardware", quoted(claimed), quoted(name), f"in {where}")
        asked_for = wanted and [wanted["device"], wanted["world_size"]]
        if wanted and not same_values([start.get("device"), start.get("world_size")], asked_for):
            asked = f"device {wanted['device']}, world_size {wanted['world_size']}"
            folder.fail("hardware", f"{where}: the record lane asks for {asked}; choose another lane")
        elif wanted and not any(is_model(name, model) for model in wanted["names"]):
            folder.human("hardware", f"{where}: is {quoted(name)} of the class of {wanted['names'][0]}?")


def same_values(one: list, other: list) -> bool:
    """Equality in which true differs from 1."""
    return one == other and [*map(type, one)] == [*map(type, other)]


def is_model(name, model: str) -> bool:
    """Whether a GPU's name is that model's: an RTX 4090 D or a laptop's is another."""
    maker = r"(NVIDIA )?(GeForce )?"
    return isinstance(name, str) and bool(re.fullmatch(maker + re.escape(model), name))


def seeds_alike(folder: Folder) -> None:
    """All seeds have the same script, data, configuration and segment bytes."""
    sizes = {tuple(size for _, size in found) for seed in folder.seeds() if (found := submission.parts(seed))}
    if len(sizes) > 1:
        folder.fail("segments", "the seeds' segments differ in bytes although the text is the same")
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


def logs_once(folder: Folder) -> None:
    """train.log is the first seed's; no other log, metrics or artifact appears twice."""
    seeds = folder.seeds()
    first = seeds[0].get("log") if seeds else None
    if folder.has(first) and folder.has("train.log") and not {first, "train.log"} & folder.reported_files:
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
        hashes = submission.hashes_of(claim)
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
    readable = folder.has(path) and path not in folder.reported_files
    return readable and known is not None and folder.sha256(path) != known


def logs_begin_with_script(folder: Folder) -> None:
    script = next(iter(folder.sources), None)
    if not folder.has(script) or script in folder.reported_files:
        return
    source = folder.read(script, submission.JSON_LIMIT)
    named = [seed.get("log") for seed in folder.seeds()]
    logs = dict.fromkeys(log for log in named if folder.has(log) and log not in folder.reported_files)
    others = [log for log in logs if source and not folder.read(log, len(source)).startswith(source)]
    if others:
        text = f"{quoted(', '.join(others))}: begins with another source than {script}; ship what ran"
        folder.add(folder.record_lane_level(), "script-hash", text)


def repeatable(folder: Folder) -> None:
    """`command` runs the folder's script with the variables in `env`, and the runs had those values."""
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
    """FAIL if a shell would do more than run the script: people paste commands."""
    try:
        given, words = submission.parse_command(text)
    except ValueError:
        given, words = {}, []
    if ACTIVE.search(text) and submission.command_line(given, words) != text:
        text = f"command contains shell syntax; write {COMMAND_SHAPE}, odd values in quotes"
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
    place = next(i for i, word in enumerate(words) if word.endswith(tuple(scripts)))
    if not RUNNER.fullmatch(" ".join(words[:place])):
        folder.fail("command", f"command runs more than the script; write {COMMAND_SHAPE}")
    elif words[place + 1 :]:
        folder.note("command", f"command gives the script arguments; write {COMMAND_SHAPE}")
    right = [f"{place}/{script}" for place in places(folder) for script in scripts]
    if not any(str(PurePosixPath(word)) in right for word in words):
        folder.note("command", f"command runs another path than {quoted(right[0], 120)}; name that")
    readme = folder.read("README.md", submission.JSON_LIMIT) if folder.has("README.md") else b""
    named = {path.decode() for path in SCRIPT_PATH.findall(readme)}
    if named and not named & {*right}:
        text = f"README.md names {quoted(min(named), 120)}, the entry is {quoted(right[0], 120)}; name that"
        folder.note("command", text)


def places(folder: Folder) -> list[str]:
    """Where the entry is or will be, relative to the repository's root; the first is the proper place."""
    found = [f"records/{folder.track['name']}/{folder.path.name}"]
    if folder.path.is_relative_to(REPO):
        found.append(folder.path.relative_to(REPO).as_posix())
    return found


def same_value(text, value) -> bool:
    """Whether a variable's text equals the run's value; paths may have become absolute."""
    try:
        return float(text) == float(value)
    except (ValueError, TypeError, OverflowError):
        return text == "auto" or f"/{value}".endswith(f"/{text}")


RULES = (hardware, seeds_alike, logs_once, same_files, repeatable)
