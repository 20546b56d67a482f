"""Make a submission folder from one finished run, or from several seeds of one config.

Writes records/<track>/<date>_<name>/ (or --out DIR): the script that ran, its modules, logs, artifacts and
metrics, and a submission.json and README.md made from them. If the script ran from a folder under records/,
or --out names a folder that holds it, that folder is completed and nothing in it is overwritten. Then the
folder is checked.
"""

import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from golf.check import command as check
from golf.core import submission, track
from golf.core.errors import GolfError
from golf.core.files import sha256, unfinished
from golf.core.findings import FAIL
from golf.core.json_io import dig, mapping, number, read_json
from golf.core.packed import fault, packed_name
from golf.core.paths import REPO, path_argument, shown
from golf.core.runlog import read_run, run_folders
from golf.core.text import printable, slug

REPORT = "report.html"  # for people, of the first run
MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.py")
# Metrics may hold half a surrogate pair: UTF-8 has none, but JSON has its escape.
TEXT = {"encoding": "utf-8", "errors": "backslashreplace"}


@dataclass
class Run:
    """A finished run: its folder, its facts (runlog.read_run) and its seed."""

    folder: Path
    facts: dict[str, dict]
    seed: int
    script: str

    @property
    def config(self) -> dict:
        return mapping(self.facts, "start", "config")

    @property
    def scripts(self) -> dict[str, str]:
        """The script's role by its name; with PACK_SCRIPT=1 the packed one counts, not its source."""
        if self.config.get("PACK_SCRIPT") not in (True, 1, "1"):
            return {self.script: "script"}
        return {packed_name(self.script): "script", self.script: "source"}

    @property
    def modules(self) -> dict[str, str]:
        """Files beside the script that it imports, with their SHA-256."""
        return mapping(self.facts, "start", "modules")

    @property
    def origin(self) -> dict:
        """supervisor.json: what was asked for; empty for a trainer that ran by itself."""
        return mapping(read_json(self.folder / "supervisor.json"))

    @property
    def artifact(self) -> str:
        return Path(self.facts["export"]["artifact"]).name  # in the run's folder, whatever it says

    @property
    def seed_artifact(self) -> str:
        """final_model.int8.zlib as final_model_seed<S>.int8.zlib."""
        stem, _, rest = self.artifact.partition(".")
        return f"{stem}_seed{self.seed}.{rest}"


def add_arguments(parser) -> None:
    run = "a finished run's folder, one for each seed; or runs/<RUN_ID> for all of SEEDS=..."
    parser.add_argument("runs", nargs="+", type=path_argument, metavar="RUN_DIR", help=run)
    parser.add_argument("--out", type=path_argument, metavar="DIR", help="the folder to make or complete")
    parser.add_argument("--track", metavar="NAME", help="default: by the run's data, targets and seconds")
    parser.add_argument("--lane", metavar="LANE", help="one of the track's; default: by the run's hardware")
    parser.add_argument("--name", help="the entry's name; default: the run's")
    parser.add_argument("--author", metavar="NAME", help="default: git config user.name")
    parser.add_argument("--github-id", metavar="ID", help="default: git config github.user")
    parser.add_argument("--blurb", metavar="TEXT", help="one sentence on what is new")


def main(args) -> int:
    runs = [read_finished(folder) for place in args.runs for folder in run_folders(place)]
    refuse_mixed(runs)
    worked_in = args.out or entry_folder(runs[0])
    rules = track.load(args.track) if args.track else worked_in and track.of_folder(worked_in)
    if rules is None:
        slowest = max(number(run.facts["train_end"].get("train_seconds")) or 0.0 for run in runs)
        measured = dig(runs[0].facts, "start", "data", "name"), runs[0].facts["sliding"].get("targets")
        rules = track.guess(*measured, slowest, args.lane)
    lane = args.lane or guess_lane(rules, runs[0])
    if lane not in rules["lanes"]:
        raise GolfError(f"lane {lane!r}: {rules['name']} has {', '.join(rules['lanes'])}", 2)
    name = args.name or re.sub(r"-s\d+$", "", str(dig(runs[0].facts, "start", "run_id") or ""))
    date = datetime.fromtimestamp(runs[0].facts["start"]["time"], timezone.utc).date().isoformat()
    out = worked_in or track.RECORDS / rules["name"] / f"{date}_{slug(name, 'submission')}"
    out = out.resolve()
    if os.path.lexists(out):
        refuse_other_script(out, runs[0])
    words = {
        "author": args.author or git_config("user.name") or submission.PLACEHOLDERS["author"],
        "github_id": args.github_id or git_config("github.user") or submission.PLACEHOLDERS["github_id"],
        "name": name,
        "blurb": args.blurb or submission.PLACEHOLDERS["blurb"],
        "date": date,
        "track": rules["name"],
        "lane": lane,
    }
    with unfinished(out.parent) as temporary:
        folder = temporary / "folder"
        folder.mkdir()
        fill(folder, out, runs, words)
        put(folder, out)
    print(f"made     {shown(out)}/ from {len(runs)} run{'s' * (len(runs) > 1)}")
    return tell_check(out, rules)


def tell_check(out: Path, rules: dict) -> int:
    """Prints the check's findings. Placeholders left for the author do not fail this command."""
    checked = check.check_folder(out, rules)
    code = check.report(checked, as_json=False)
    left = {finding.rule for finding in checked.findings if finding.level == FAIL}
    if left == {"placeholder"}:
        print("next     write what these lines name, then check again: bash "
              f"scripts/check_submission_folder.sh {shlex.quote(shown(out))}")  # fmt: skip
        return 0
    return code


def entry_folder(run: Run) -> Path | None:
    """records/<track>/<folder>, if the script ran from one, as supervisor.json says."""
    noted = run.origin.get("trainer")
    if not isinstance(noted, str) or "\0" in noted:
        return None
    folder = (REPO / noted).parent.resolve()
    in_a_track = folder.parent.parent == track.RECORDS.resolve()
    return folder if in_a_track and (folder.parent / "track.json").is_file() else None


def refuse_other_script(out: Path, run: Run) -> None:
    """An existing folder is completed only if it holds the script that ran."""
    script = out / run.script
    if script.is_file() and script.read_bytes() == (run.folder / run.script).read_bytes():
        return
    why = f"its {run.script} is not the one that ran" if script.is_file() else f"holds no {run.script}"
    raise GolfError(f"{shown(out)} is there already, and {why}; choose another --name or --out, or remove it")


def put(made: Path, out: Path) -> None:
    """Moves the new files into place. An existing folder gets only what it lacks, all or nothing."""
    if not out.exists():
        made.rename(out)
        return
    new = []
    for path in sorted(made.iterdir()):
        there = out / path.name
        if not os.path.lexists(there):
            new.append(path)
        elif not there.is_file() or there.read_bytes() != path.read_bytes():
            why = "is there already and is not what this run makes"
            raise GolfError(f"{shown(there)} {why}; move it away, or choose another --out")
    for path in sorted(new, key=lambda path: path.name == "submission.json"):  # it last
        path.rename(out / path.name)


def read_finished(folder: Path) -> Run:
    """Reads a finished run. Raises GolfError if it is not a run, is unfinished or has changed since."""
    facts = read_run(folder)
    if not facts:
        what = "give a run's folder, or runs/<RUN_ID> for runs with SEEDS=..."
        raise GolfError(f"{shown(folder)}: no metrics.jsonl with events there; {what}", 2)
    needed = ("start", "train_end", "export", "sliding", "end")
    missing = [name for name in needed if name not in facts]
    code = dig(facts, "end", "exit_code")
    if missing or code != 0:
        why = f"metrics.jsonl has no {missing[0]} event" if missing else f"it ended with exit code {code}"
        raise GolfError(f"{shown(folder)} is not finished: {why}; run it to its end (RESUME=1 resumes it)")
    seed, script = facts["start"].get("seed"), facts["start"].get("script")
    artifact, began = facts["export"].get("artifact"), number(facts["start"].get("time"))
    kinds = isinstance(seed, int) and isinstance(script, str) and isinstance(artifact, str)
    if not kinds or began is None or not 0 <= began < 1e11:
        raise GolfError(f"{shown(folder)}: metrics.jsonl lacks seed, time, script or artifact; run it again")
    run = Run(folder, facts, seed, Path(script).name)
    odd = [n for n, digest in run.modules.items() if not MODULE.fullmatch(n) or not isinstance(digest, str)]
    if odd:
        raise GolfError(f"{shown(folder)}: metrics.jsonl names a module {odd[0][:60]!r}; run it again")
    known = {**dict.fromkeys((*run.scripts, "train.log", "metrics.jsonl")), **run.modules}
    known[run.script] = facts["start"].get("script_sha256")
    known[run.artifact] = facts["export"].get("artifact_sha256")
    for name, digest in known.items():
        refuse_changed(folder / name, digest)
    for name in (n for n, role in run.scripts.items() if role == "script" and n != run.script):
        if why := fault((folder / name).read_bytes(), (folder / run.script).read_bytes()):
            raise GolfError(f"{shown(folder / name)} {why}; run it again")
    return run


def refuse_changed(path: Path, known: str | None) -> None:
    """GolfError where a file of a run is gone, a link, or not the one of this SHA-256."""
    if path.is_symlink():
        raise GolfError(f"{shown(path)} is a link; put back the file that the run wrote")
    if not path.is_file():
        raise GolfError(f"{shown(path)} is gone; the run cannot be submitted without it")
    if known and sha256(path) != known:
        raise GolfError(f"{shown(path)} was changed after the run; run it again")


def refuse_mixed(runs: list[Run]) -> None:
    """All runs have the same script, data and configuration, and different seeds."""
    for seed, times in Counter(run.seed for run in runs).items():
        if times > 1:
            raise GolfError(f"seed {seed} is given {times} times; give one run for each seed")
    first, config = runs[0], runs[0].config
    for run in runs[1:]:
        told, other = f"{shown(run.folder)} and {shown(first.folder)} differ in", run.config
        for what in ("script_sha256", "modules", "data"):
            if run.facts["start"].get(what) != first.facts["start"].get(what):
                raise GolfError(f"{told} {what}")
        for name in sorted({*config, *other} - {*submission.MAY_DIFFER}):
            if config.get(name) != other.get(name):
                raise GolfError(f"{told} {name}: {other.get(name)} and {config.get(name)}")


def guess_lane(rules: dict, run: Run) -> str:
    """The track's first lane; the record lane only on record hardware."""
    start, wanted = run.facts["start"], rules.get("record_hardware")
    fits = not wanted or (
        all(start.get(key) == wanted[key] for key in ("device", "world_size"))
        and any(part in str(start.get("hardware")) for part in wanted["names"])
    )
    usable = [lane for lane in rules["lanes"] if lane != "record" or fits]
    return (usable or rules["lanes"])[0]


def git_config(key: str) -> str:
    """git's setting, in whatever encoding it was written; nothing without git or the setting."""
    try:
        said = subprocess.run(["git", "config", key], cwd=REPO, capture_output=True).stdout
    except OSError:
        return ""
    try:
        text = said.decode("utf-8")
    except UnicodeDecodeError:
        text = said.decode("latin-1")  # of an old system
    return printable(text.strip(), instead="")


def fill(folder: Path, out: Path, runs: list[Run], words: dict) -> None:
    """Writes the whole submission into `folder`. `out` is its final place, whose own files are kept."""
    first = runs[0]
    roles = {**first.scripts, **dict.fromkeys(first.modules, "score"), "train.log": "log"}
    if (first.folder / REPORT).is_file():
        roles[REPORT] = "extra"
    sources = {name: first.folder / name for name in roles}
    for run in runs:
        logs = {f"train_seed{run.seed}.log": "train.log", f"metrics_seed{run.seed}.jsonl": "metrics.jsonl"}
        sources |= {name: run.folder / log for name, log in logs.items()}
        sources[run.seed_artifact] = run.folder / run.artifact
        roles |= {**dict.fromkeys(logs, "log"), run.seed_artifact: "artifact"}
    for name, source in sources.items():
        copy(source, folder / name, roles[name])
    roles["README.md"] = "readme"
    value = claim(folder, out, runs, roles, words)
    if (out / "README.md").is_file():
        shutil.copyfile(out / "README.md", folder / "README.md")
    else:
        (folder / "README.md").write_text(readme(value, first.facts["start"]), **TEXT)
    places = {path: folder / path for path in roles} | extras(out, roles)
    for path, place in sorted(places.items()):
        entry = {"path": path, "role": roles.get(path, "extra"), "bytes": place.stat().st_size}
        value["files"].append({**entry, "sha256": sha256(place)})
    (folder / "submission.json").write_text(dump(value), **TEXT)


def extras(out: Path, roles: dict[str, str]) -> dict[str, Path]:
    """Files that the author put into the folder and that a submission may hold, by path."""
    found = {}
    for path in sorted(out.rglob("*")) if out.is_dir() else []:
        name = path.relative_to(out)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        plain = path.is_file() and not path.is_symlink() and path.suffix != ".py"
        if plain and not hidden and name.as_posix() not in {*roles, "submission.json"}:
            found[name.as_posix()] = path
    return found


def claim(folder: Path, out: Path, runs: list[Run], roles: dict[str, str], words: dict) -> dict:
    """The object of submission.json, without `files`."""
    first = runs[0]
    listed = [{"path": path, "role": role} for path, role in roles.items()]
    counts = [submission.count_bytes(folder, listed, run.seed_artifact) for run in runs]
    seeds = [describe_seed(run, count) for run, count in zip(runs, counts)]
    largest = max(counts, key=lambda count: count.total)
    start = first.facts["start"]
    env = repeat_env(first)
    return {
        "schema_version": submission.SCHEMA_VERSION,
        **words,
        "hardware": start.get("hardware"),
        "command": repeat_command(first, home(out, words["track"]), env),
        "env": env,
        "val_loss": statistics.fmean([s["val_loss"] for s in seeds]),
        "val_bpb": statistics.fmean([s["val_bpb"] for s in seeds]),
        "bytes_total": largest.total,
        "bytes_code": largest.code,
        "bytes_model": largest.model,
        "train_seconds": statistics.fmean([s["train_seconds"] for s in seeds]),
        "eval_seconds": statistics.fmean([s["eval_seconds"] for s in seeds]),
        "files": [],
        "data": {name: dig(start, "data", name) for name in ("name", "val_sha256", "tokenizer_sha256")},
        "seeds": seeds,
    }


def copy(source: Path, target: Path, role: str) -> None:
    """Copies a file. In logs, paths become relative to the repository: home folders are private."""
    content = source.read_bytes()
    target.write_bytes(content.replace(os.fsencode(f"{REPO}/"), b"") if role == "log" else content)


def describe_seed(run: Run, count: submission.Count) -> dict:
    score, facts = run.facts["sliding"], run.facts
    figures = {
        "val_loss": score.get("val_loss"),
        "val_bpb": score.get("val_bpb"),
        "bytes_total": count.total,
        "train_seconds": facts["train_end"].get("train_seconds"),
        "eval_seconds": facts["end"].get("eval_seconds"),
    }
    for name, value in figures.items():
        if number(value) is None:
            raise GolfError(f"{shown(run.folder)}: metrics.jsonl has no {name}; run it again")
    files = {"log": f"train_seed{run.seed}.log", "artifact": run.seed_artifact}
    return {"seed": run.seed, **figures, **files, "segments": score.get("segments")}


def repeat_env(run: Run) -> dict[str, str]:
    """The variables that repeat the run: those that were set, or else the whole configuration."""
    given = run.origin.get("set")
    values = given if isinstance(given, dict) else run.config
    env = {}
    for name, value in sorted(values.items()):
        private = name in submission.NOT_REPEATED or name.startswith("HF_")  # HF_TOKEN
        if not private and value not in (None, ""):
            text = str(int(value)) if isinstance(value, bool) else str(value)
            env[name] = text.removeprefix(f"{REPO}/")
    return env


def home(out: Path, track_name: str) -> Path:
    """The folder's place in a clone, relative to its root."""
    if out.is_relative_to(REPO):
        return out.relative_to(REPO)
    return track.RECORDS.relative_to(REPO) / track_name / out.name


def repeat_command(run: Run, folder: Path, env: dict[str, str]) -> str:
    """The shell command that repeats the first seed, from the repository's root."""
    world = run.facts["start"].get("world_size")
    launcher = ["python3"]
    if isinstance(world, int) and world > 1:
        launcher = ["torchrun", "--standalone", f"--nproc_per_node={world}"]
    return submission.command_line({**env, "SEED": str(run.seed)}, [*launcher, str(folder / run.script)])


def dump(value: dict) -> str:
    """Indented JSON with each segment on one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    figure = r"\n\s+([-+.\deE]+)"  # a line end: no text in the JSON holds one
    return re.sub(rf"\[{figure},{figure}\n\s+\]", r"[\1, \2]", text) + "\n"


def readme(value: dict, start: dict) -> str:
    """README.md: a table of the measurements, and a place for the idea."""
    import jinja2  # late: other commands do without it

    text = Path(__file__).with_name("templates").joinpath("readme.md").read_text(encoding="utf-8")
    how = dict(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return jinja2.Template(text, **how).render(
        value,
        idea=submission.IDEA,
        software=", ".join(f"{name} {version}" for name, version in mapping(start, "versions").items()),
        stdev=lambda name: statistics.stdev(seed[name] for seed in value["seeds"]),
    )
