"""Check a submission folder against its track, without running anything in it.

All findings come at once, each `LEVEL rule-id: what to do`. FAIL must be mended; NEEDS-HUMAN is for
a reviewer; NOTE is worth knowing. Exit code 0: no FAIL, 1: FAIL, 2: used wrongly.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from . import GolfError, shown, submission, track
from .runlog import dig, final_lines, last_events, number, parse_json, read_metrics

FAIL, HUMAN, NOTE = "FAIL", "NEEDS-HUMAN", "NOTE"
JSON_LIMIT = 16 << 20
FILE_LIMIT = 2000
LIST_LIMIT = 200
RULING = "passing is not a ruling: reviewers still read the idea, the code and the score"


@dataclass(frozen=True)
class Finding:
    level: str
    rule: str
    message: str


@dataclass
class Case:
    """A folder under check: what lies in it, what it claims, and what was found."""

    folder: Path
    track: dict = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)  # regular files: path -> bytes
    claim: dict = field(default_factory=dict)  # submission.json
    found: dict[Finding, None] = field(default_factory=dict)  # in order, each once

    def add(self, level: str, rule: str, message: str) -> None:
        message = "".join(c if c.isprintable() else "?" for c in message)
        self.found[Finding(level, rule, message)] = None

    @property
    def findings(self) -> list[Finding]:
        return list(self.found)

    def fail(self, rule: str, message: str) -> None:
        self.add(FAIL, rule, message)

    def human(self, rule: str, message: str) -> None:
        self.add(HUMAN, rule, message)

    def note(self, rule: str, message: str) -> None:
        self.add(NOTE, rule, message)

    def listed(self) -> list[dict]:
        """The entries of `files` that have a known role and a path that is a file of the folder."""
        return [
            e
            for e in self.entries("files")
            if isinstance(dig(e, "path"), str)
            and e["path"] in self.files
            and dig(e, "role") in submission.ROLES
        ]

    def seeds(self) -> list[dict]:
        """The entries of `seeds` that are objects."""
        return [s for s in self.entries("seeds") if isinstance(s, dict)]

    def entries(self, name: str) -> list:
        """submission.json's list `name`, as far as anybody will read it; empty if it is no list."""
        value = self.claim.get(name)
        return value[:LIST_LIMIT] if isinstance(value, list) else []

    @property
    def ranked(self) -> bool:
        return self.claim.get("lane") == "record"


def add_arguments(parser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--track", metavar="NAME", help="for a folder outside records/<track>/")
    parser.add_argument("--json", action="store_true", help="findings as one JSON object")


def main(args) -> int:
    rules = track.load(args.track) if args.track else None
    return report(check_folder(args.folder, rules), args.json)


def check_folder(folder: Path, rules: dict | None = None) -> Case:
    """Applies every rule. GolfError, code 2, where there is no folder or no track to check by."""
    if not folder.is_dir():
        raise GolfError(f"{shown(folder)}: no folder there; give a submission's folder", 2)
    case = Case(folder.resolve())
    scan_folder(case)
    read_claim(case)
    case.track = rules or track.of_folder(folder) or claimed_track(case)
    for rule in RULES:
        try:
            rule(case)
        except Exception as error:  # junk must give a finding, whatever a rule did not foresee
            case.fail("unreadable", f"{rule.__name__} gave up: {type(error).__name__}: {error}")
    return case


def claimed_track(case: Case) -> dict:
    name = case.claim.get("track")
    if isinstance(name, str) and name in track.names():
        return track.load(name)
    raise GolfError(
        f"{shown(case.folder)}: lies under no track's folder and submission.json names none; "
        f"give --track ({', '.join(track.names())})",
        2,
    )


def report(case: Case, as_json: bool) -> int:
    """Prints the findings and the verdict; the exit code."""
    levels = [finding.level for finding in case.findings]
    verdict = FAIL if FAIL in levels else HUMAN if HUMAN in levels else "PASS"
    if as_json:
        value = {
            "folder": shown(case.folder),
            "track": case.track["name"],
            "verdict": verdict,
            "ruling": RULING,
            "findings": [asdict(finding) for finding in case.findings],
        }
        print(json.dumps(value, indent=1))
        return int(verdict == FAIL)
    for level in (FAIL, HUMAN, NOTE):
        for finding in case.findings:
            if finding.level == level:
                print(f"{level} {finding.rule}: {finding.message}")
    counts = ", ".join(f"{levels.count(level)} {level}" for level in (FAIL, HUMAN, NOTE))
    print(f"{verdict} {shown(case.folder)} on {case.track['name']} ({counts}); {RULING}")
    return int(verdict == FAIL)


# ---- What lies in the folder


def scan_folder(case: Case) -> None:
    """All regular files; links are not followed, except a link to a file inside the folder."""
    for root, folders, files in os.walk(case.folder):
        for name in sorted(folders + files):
            path = Path(root, name)
            relative = path.relative_to(case.folder).as_posix()
            try:
                inside = path.resolve().is_relative_to(case.folder)
                mode = path.stat() if inside else path.lstat()
            except (OSError, RuntimeError) as error:
                case.fail("unreadable", f"{quoted(relative)}: {error}; remove or mend it")
                continue
            if path.is_symlink() and (not inside or stat.S_ISDIR(mode.st_mode)):
                case.fail(
                    "link", f"{quoted(relative)} is a link out of the folder; put the file itself"
                )
            elif stat.S_ISREG(mode.st_mode):
                case.files[relative] = mode.st_size
            elif not stat.S_ISDIR(mode.st_mode):
                case.fail("file-kind", f"{quoted(relative)} is no plain file; remove it")
            if len(case.files) > FILE_LIMIT:
                case.fail("file-count", f"over {FILE_LIMIT} files; a submission holds a dozen")
                return
        folders[:] = [f for f in folders if not Path(root, f).is_symlink()]


def read_claim(case: Case) -> None:
    """submission.json as an object; empty with a finding where it is none."""
    size = case.files.get("submission.json")
    if size is None:
        return  # required_files says so
    if size > JSON_LIMIT:
        case.fail("json", f"submission.json has {size:,} bytes; make it with golf.sh new")
        return
    value = parse_json((case.folder / "submission.json").read_bytes())
    if isinstance(value, dict):
        case.claim = value
    else:
        case.fail("json", "submission.json is not a JSON object; make it with golf.sh new")


def required_files(case: Case) -> None:
    """The files that track.json names: always, one script, and those of the lane for each seed."""
    rules = case.track["required_files"]
    for name in rules["always"]:
        if name not in case.files:
            case.fail("file-required", f"{name} is missing; add it (golf.sh new makes it)")
    scripts = rules.get("script", [])
    if scripts and not any(name in case.files for name in scripts):
        case.fail("file-required", f"the script that ran is missing; add {' or '.join(scripts)}")
    lane = case.claim.get("lane")
    patterns = rules.get(lane, []) if isinstance(lane, str) else []
    for seed in (s.get("seed") for s in case.seeds()):
        for pattern in patterns:
            wanted = pattern.replace("{seed}", str(seed)[:40])
            if not any(PurePosixPath(name).match(wanted) for name in case.files if "/" not in name):
                case.fail("file-required", f"{wanted} is missing; the {lane} lane ships it")
    for name in case.files:
        if any(c.isspace() for c in name):
            case.fail("file-name", f"{quoted(name)}: a name without spaces is needed; rename it")


# ---- submission.json by itself


def keys(case: Case) -> None:
    """Every key of the template, each of its type."""
    if not case.claim:
        return
    check_keys(case, case.claim, submission.KEYS, "submission.json")
    if case.claim.get("schema_version") != submission.SCHEMA_VERSION:
        case.fail("json-key", f"schema_version: {submission.SCHEMA_VERSION} is the one known")
    if isinstance(case.claim.get("data"), dict):
        check_keys(case, case.claim["data"], submission.DATA_KEYS, "data")
    for name, kinds in (("files", submission.FILE_KEYS), ("seeds", submission.SEED_KEYS)):
        for i, entry in enumerate(case.entries(name)):
            check_keys(case, entry, kinds, f"{name}[{i}]")
        if isinstance(case.claim.get(name), list) and len(case.claim[name]) > LIST_LIMIT:
            case.fail(
                "json-key", f"{name} has over {LIST_LIMIT} entries; list what a submission has"
            )
    if case.claim.get("seeds") == []:
        case.fail("json-key", "seeds is empty; list each seed's figures (golf.sh new does)")
    used = [s.get("seed") for s in case.seeds()]
    if any(used.count(seed) > 1 for seed in used):
        case.fail("seed-twice", "a seed is listed twice; list each once")
    for name, words in submission.PLACEHOLDERS.items():
        if case.claim.get(name) == words:
            case.note("placeholder", f"{name} still says {words!r}; edit submission.json")


def check_keys(case: Case, value, kinds: dict[str, str], where: str) -> None:
    if not isinstance(value, dict):
        case.fail("json-key", f"{where} is not an object; see docs/submission_template.json")
        return
    for name, kind in kinds.items():
        if name not in value:
            case.fail("json-key", f"{where} lacks {name}; see docs/submission_template.json")
        elif not has_kind(value[name], kind):
            case.fail("json-key", f"{where}: {name} must be {kind.replace('?', ' or null')}")


def has_kind(value, kind: str) -> bool:
    if kind.endswith("?") and value is None:
        return True
    if kind.startswith(("number", "integer")) and number(value) is None:
        return False  # also an integer that no float holds
    types = {"text": str, "integer": int, "number": (int, float), "object": dict, "list": list}[
        kind.rstrip("?")
    ]
    return isinstance(value, types) and not isinstance(value, bool)


def placed(case: Case) -> None:
    """Track, lane and data are the track's."""
    rules, claim = case.track, case.claim
    if not claim:
        return
    if claim.get("track") != rules["name"]:
        case.fail(
            "track",
            f"submission.json names track {quoted(claim.get('track'))}, not {rules['name']}",
        )
    if claim.get("lane") not in rules["lanes"]:
        case.fail("lane", f"lane {quoted(claim.get('lane'))}: choose {' or '.join(rules['lanes'])}")
    check_data(case, claim.get("data"), "submission.json")


def check_data(case: Case, data, where: str) -> None:
    """A `data` object against the track's name and hashes; hashes not pinned yet go to a human."""
    pinned = case.track["data"]
    if dig(data, "name") != pinned["name"]:
        case.fail(
            "data", f"{where}: data {quoted(dig(data, 'name'))}, the track has {pinned['name']}"
        )
    for name in ("val_sha256", "tokenizer_sha256"):
        if pinned.get(name) is None:
            case.human("data-unpinned", f"the track pins no {name} yet; compare with other entries")
        elif dig(data, name) != pinned[name]:
            case.fail("data", f"{where}: {name} is not the track's; score on the track's own data")


def listed_files(case: Case) -> None:
    """`files` names what is there, with its size and hash, and all of it."""
    entries = case.entries("files")
    if not entries:
        return
    for entry in (e for e in entries if isinstance(dig(e, "path"), str)):
        path = entry["path"]
        if path not in case.files:
            case.fail("file-listed", f"files names {quoted(path)}, which is no file of this folder")
            continue
        if entry.get("role") not in submission.ROLES:
            known = ", ".join(submission.ROLES)
            case.fail("file-listed", f"{quoted(path)}: role must be one of {known}")
        if entry.get("role") == "readme":
            continue  # written by hand after the run
        if entry.get("bytes") != case.files[path]:
            case.fail("file-hash", f"{quoted(path)} has {case.files[path]:,} bytes, not as listed")
        elif entry.get("sha256") != submission.sha256(case.folder / path):
            case.fail("file-hash", f"{quoted(path)} is not the file whose sha256 is listed")
    known = {e["path"] for e in entries if isinstance(dig(e, "path"), str)} | {"submission.json"}
    for path in sorted(set(case.files) - known):
        case.fail(
            "file-unlisted", f"{quoted(path)} is not in files; list it with its role, or remove it"
        )
    paths = [e["path"] for e in case.listed()]
    for path in sorted({p for p in paths if paths.count(p) > 1}):
        case.fail("file-listed", f"{quoted(path)} is listed twice")
    if case.listed() and not any(e["role"] == "script" for e in case.listed()):
        case.fail("file-listed", "no file has the role script; the trainer always counts")


# ---- Claims against what the run wrote


def roles(case: Case) -> None:
    """What counts cannot be listed as something that does not."""
    artifacts = [seed.get("artifact") for seed in case.seeds()]
    for entry in case.listed():
        path, role = entry["path"], entry["role"]
        fits = {
            "readme": path == "README.md",
            "log": path.endswith((".log", ".jsonl")),
            "artifact": path in artifacts,
        }.get(role, True)
        if not fits:
            case.fail(
                "file-role", f"{quoted(path)} is no {role}; what scoring reads has role score"
            )


def counted_bytes(case: Case) -> None:
    """Bytes recounted from disk: under the cap for each seed, and as claimed."""
    counts = []
    for seed in case.seeds():
        artifact = seed.get("artifact")
        if artifact is None:
            case.note(
                "not-rescorable",
                f"seed {quoted(seed.get('seed'))} ships no artifact: cannot be re-scored",
            )
            continue
        if not isinstance(artifact, str) or artifact not in case.files:
            case.fail(
                "artifact",
                f"seed {quoted(seed.get('seed'))}: its artifact {quoted(artifact)} is missing",
            )
            continue
        if {"path": artifact, "role": "artifact"} not in [
            {"path": e["path"], "role": e["role"]} for e in case.listed()
        ]:
            case.fail("artifact", f"{quoted(artifact)} is not in files with the role artifact")
        count = submission.count_bytes(case.folder, case.listed(), artifact)
        counts.append(count)
        same(
            case,
            "bytes",
            f"seed {seed.get('seed')}: bytes_total",
            seed.get("bytes_total"),
            count.total,
            "on disk",
        )
        check_cap(case, count.total, f"seed {seed.get('seed')}")
    if counts:
        most = max(counts, key=lambda count: count.total)
        for name, value in (("total", most.total), ("code", most.code), ("model", most.model)):
            same(case, "bytes", f"bytes_{name}", case.claim.get(f"bytes_{name}"), value, "on disk")
    else:
        check_cap(case, number(case.claim.get("bytes_total")) or 0, "submission.json")


def check_cap(case: Case, total: float, who: str) -> None:
    over = total - case.track["cap_bytes"]
    if over > 0:
        case.fail(
            "cap", f"{who}: {total:,.0f} bytes are {over:,.0f} over the cap; pack coarser or shrink"
        )


def same(
    case: Case, rule: str, what: str, claimed, found, where: str, tolerance: float = 0.0
) -> None:
    """FAIL where two figures differ; what is no number is the business of the key rules."""
    a, b = number(claimed), number(found)
    if a is not None and b is not None and abs(a - b) > tolerance:
        case.fail(
            rule, f"{what} is claimed as {a:.10g}, {where} it is {b:.10g}; claim what was measured"
        )


def seed_figures(case: Case) -> None:
    """Each seed's claims against its log and metrics, its budget, and its segments."""
    for seed in case.seeds():
        who, log = f"seed {quoted(seed.get('seed'))}", seed.get("log")
        if not isinstance(log, str) or log not in case.files:
            case.fail("log", f"{who}: its log {quoted(log)} is missing from the folder")
        else:
            check_log(case, seed, log)
        metrics = f"metrics_seed{seed.get('seed')}.jsonl"
        if metrics in case.files:
            check_metrics(case, seed, metrics)
        else:
            case.note("metrics", f"{who}: {metrics} is missing; its claims rest on the log alone")
        check_budget(case, seed.get("train_seconds"), seed.get("eval_seconds"), who)
        check_segments(case, seed, who)


def check_log(case: Case, seed: dict, log: str) -> None:
    found, must = final_lines(case.folder / log), FAIL if case.ranked else NOTE
    shapes = {"sliding": "final_sliding_window_exact", "size": "total_submission_size_quant_zlib"}
    for kind, start in {**shapes, "train": "train_seconds"}.items():
        if not found[kind]:
            case.fail("log", f"{quoted(log)} has no {start} line; ship the log of the finished run")
        elif len(found[kind]) > 1:
            case.add(
                must,
                "log",
                f"{quoted(log)} has {len(found[kind])} {start} lines; ship one run's log",
            )
    sliding, size, train = (found[k][-1] if found[k] else {} for k in (*shapes, "train"))
    for rule, name, line, tolerance in (  # as far as the log prints them
        ("score", "val_loss", sliding, 1e-8),
        ("score", "val_bpb", sliding, 1e-8),
        ("bytes", "bytes_total", size, 0),
        ("time", "train_seconds", train, 0.00051),
    ):
        same(case, rule, f"{log}: {name}", seed.get(name), line.get(name), "in the log", tolerance)
    check_notes(case, sliding.get("note"), log)
    check_targets(case, sliding.get("targets"), log)
    check_budget(case, train.get("train_seconds"), None, log)


def check_metrics(case: Case, seed: dict, metrics: str) -> None:
    facts = last_events(read_metrics(case.folder / metrics))
    if "sliding" not in facts:
        case.fail(
            "metrics", f"{metrics} has no sliding score; ship the finished run's metrics.jsonl"
        )
    for rule, name, event, tolerance in (
        ("score", "val_loss", "sliding", 1e-8),
        ("score", "val_bpb", "sliding", 1e-8),
        ("bytes", "bytes_total", "export", 0),
        ("time", "train_seconds", "train_end", 1e-6),
        ("time", "eval_seconds", "end", 1e-6),
        ("seed", "seed", "start", 0),
    ):
        found = dig(facts, event, name)
        same(case, rule, f"{metrics}: {name}", seed.get(name), found, "there", tolerance)
    train, evaluation = dig(facts, "train_end", "train_seconds"), dig(facts, "end", "eval_seconds")
    check_budget(case, train, evaluation, metrics)
    check_notes(case, dig(facts, "sliding", "notes"), metrics)
    check_targets(case, dig(facts, "sliding", "targets"), metrics)
    if "start" in facts:
        check_data(case, facts["start"].get("data"), metrics)
    for path, known, what in (
        (dig(facts, "start", "script"), dig(facts, "start", "script_sha256"), "script"),
        (seed.get("artifact"), dig(facts, "export", "artifact_sha256"), "artifact"),
    ):
        if isinstance(path, str) and path in case.files and isinstance(known, str):
            if submission.sha256(case.folder / path) != known:
                case.fail(
                    f"{what}-hash", f"{quoted(path)} is not the {what} of the run in {metrics}"
                )


def check_budget(case: Case, train, evaluation, who: str) -> None:
    """Within the track's seconds, no tolerance; null in the track is no budget."""
    for name, value in (("train_seconds", train), ("eval_seconds", evaluation)):
        seconds, budget = number(value), number(case.track.get(name))
        if seconds is not None and budget is not None and seconds > budget:
            case.fail("time-budget", f"{who}: {name} {seconds:.3f} is over the track's {budget:g}")
        elif seconds is not None and seconds < 0:
            case.fail("time", f"{who}: {name} is negative")


def check_notes(case: Case, notes, where: str) -> None:
    for note in notes if isinstance(notes, list) else []:
        if note in ("resumed", "interrupted", "partial"):
            level = FAIL if case.ranked else NOTE
            case.add(
                level,
                "score-note",
                f"{where}: the score is marked {note}; the record lane needs a whole run",
            )


def check_targets(case: Case, targets, where: str) -> None:
    if number(targets) is not None and targets != case.track["targets"]:
        case.fail(
            "targets",
            f"{where}: {targets:,.0f} targets scored, the track has {case.track['targets']:,}",
        )


def check_segments(case: Case, seed: dict, who: str) -> None:
    """64 x [nats, bytes] that add up to the claimed val_loss and val_bpb."""
    segments = seed.get("segments")
    if not isinstance(segments, list):
        if segments is None and "segments" in seed:
            case.note("segments", f"{who}: no segments, so no part can be verified alone")
        return
    pairs = [(number(s[0]), number(s[1])) for s in segments if isinstance(s, list) and len(s) == 2]
    if len(pairs) != len(segments) or len(pairs) != submission.SEGMENTS or None in sum(pairs, ()):
        case.fail("segments", f"{who}: segments must be {submission.SEGMENTS} pairs [nats, bytes]")
        return
    nats, size = math.fsum(p[0] for p in pairs), math.fsum(p[1] for p in pairs)
    if min(p[1] for p in pairs) < 0 or size <= 0:
        case.fail("segments", f"{who}: the segments' bytes cannot be")
        return
    for name, value in (
        ("val_loss", nats / case.track["targets"]),
        ("val_bpb", nats / math.log(2) / size),
    ):
        same(case, "segments", f"{who}: {name}", seed.get(name), value, "by its segments", 1e-6)


def means(case: Case) -> None:
    """The figures at the top are the means over the seeds."""
    for name in ("val_loss", "val_bpb", "train_seconds", "eval_seconds"):
        values = [number(seed.get(name)) for seed in case.seeds()]
        if values and None not in values:
            average = submission.mean(values)
            same(
                case,
                "mean",
                name,
                case.claim.get(name),
                average,
                "as the seeds' mean",
                1e-8 * max(1, abs(average)),
            )


def first_log(case: Case) -> None:
    """train.log is the first seed's log."""
    seeds = case.seeds()
    log = seeds[0].get("log") if seeds else None
    if not isinstance(log, str) or not {log, "train.log"} <= set(case.files):
        return
    sizes_differ = case.files[log] != case.files["train.log"]
    if sizes_differ or submission.sha256(case.folder / log) != submission.sha256(
        case.folder / "train.log"
    ):
        case.fail("log", f"train.log is not {quoted(log)}, the first seed's; copy that one")


RULES = (
    required_files,
    keys,
    placed,
    listed_files,
    roles,
    counted_bytes,
    seed_figures,
    means,
    first_log,
)


def quoted(value) -> str:
    """Foreign text for a message: short, on one line, with nothing that moves a cursor."""
    return ascii(value if isinstance(value, (str, int)) else type(value).__name__)[:82]
