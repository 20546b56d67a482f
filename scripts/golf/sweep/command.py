"""Run many configurations with several seeds each, and say which differ.

FILE.toml lists the configurations (configs/sweeps has examples). Or give a CONFIG.env and lists of values, of
which all combinations are run: golf.sh sweep configs/cpu_10min.env MATRIX_LR=.01,.02 SEEDS=1337,42,2025.
With a FILE.toml, NAME=value is set in every row. All rows are compared with the first.
With --search N Optuna chooses N rows from lists or ranges (MATRIX_LR=.01..0.08) and stops early what does
worse than the median. With --ray the runs are tasks of a Ray cluster, to which this code is sent.
runs/<sweep>/ gets a folder for each run, results.csv, table.md and plot.svg. The same command continues a
sweep that was stopped and repeats no finished run; it ends with an error where the config, the script or the
data's shards have changed since. A run that fails is skipped, and tried again next time.
--search and --ray need requirements-sweep.txt.
"""

import hashlib
import json
import sys
import time

from golf.core import envfile, lock, trainers
from golf.core.bar import Bar
from golf.core.errors import GolfError
from golf.core.files import replace_file, sha256
from golf.core.json_io import dig, mapping, read_json
from golf.core.paths import shown
from golf.core.runlog import read_run
from golf.core.submission import NOT_REPEATED
from golf.core.text import last_line, printable
from golf.core.units import between, so_far
from golf.run.bar import Follower
from golf.sweep import engines, plan, table
from golf.sweep.plan import Cell, Sweep
from golf.sweep.sources import Grid, Search

STOPPED = 130  # an exit code of golf run
# What is not a run's to choose, changes nothing in it, or what golf run itself sets for a machine.
MAY_CHANGE = {*NOT_REPEATED, "TRAIN_LOG_EVERY", "MICRO_BATCH_TOKENS", "COMPILE"}
RENAME = "give the row another name, or the sweep by --name"
SHARDS = "shards.json"  # in the sweep's folder: by a run's folder, what lay in its data's when it began


def add_arguments(parser) -> None:
    parser.add_argument("what", metavar="FILE.toml|CONFIG.env", help="what to run")
    parser.add_argument("settings", nargs="*", default=[], metavar="NAME=value",
                        help="overrides the file; or a list of values: NAME=a,b")  # fmt: skip
    parser.add_argument("--name", help="results go to runs/NAME; default: the file's name")
    parser.add_argument("--for", dest="seconds", type=between(0, kind=float), metavar="SECONDS",
                        help="start no run after so many seconds")  # fmt: skip
    parser.add_argument("--search", type=between(1), metavar="N", help="let Optuna choose N rows")
    parser.add_argument("--ray", metavar="auto|ADDRESS", help="run on this Ray cluster, not on this machine")
    parser.add_argument("--each", type=between(1e-3, 1024, float), default=1.0, metavar="N",
                        help="with --ray: GPUs for each run, or CPUs without GPUs; default: 1")  # fmt: skip


def main(args) -> int:
    what, words = envfile.config_and_words([args.what, *args.settings])
    read = plan.from_toml if what.suffix == ".toml" else plan.from_words
    sweep = read(what, dict(word.split("=", 1) for word in words), args.name, bool(args.search))
    if not args.search and any(plan.RANGE.fullmatch(v) for values in sweep.space.values() for v in values):
        raise GolfError("a range low..high needs --search N; or give a list of values: NAME=a,b,c", 2)
    with lock.locked(sweep.folder, "wait for it, or choose another --name"):
        source = Search(sweep, args.search) if args.search else Grid(sweep)
        refuse_other_settings(source.sweep)
        engine = engines.Cluster(sweep, args.ray, args.each) if args.ray is not None else engines.Local(sweep)
        failed, code = Sweeping(source, engine, args.seconds).run()
        print(table.write(source.sweep, failed, source.pruned), end="")
    made = [name for name in table.FILES if (sweep.folder / name).is_file()]
    print(f"results  {shown(sweep.folder)}/{', '.join(made)}")
    return code


class Sweeping:
    """A source's cells, run by an engine."""

    def __init__(self, source: Grid | Search, engine, seconds: float | None):
        self.source, self.engine, self.seconds = source, engine, seconds
        self.began, self.bar, self.failed = time.monotonic(), Bar(), set()
        self.ended, self.runs = 0, {}  # how many cells have ended; a Follower for each that runs

    def say(self, text: str) -> None:
        self.bar.say(f"sweep    {text}", sys.stdout)

    def run(self) -> tuple[set[Cell], int]:
        """The cells that failed, and the exit code."""
        self.say(f"{self.source.total} runs, {self.source.kept} finished before")
        try:
            while self.fill() or self.engine.running:
                for cell, code in self.engine.ended():
                    if code == STOPPED:
                        print(last_words(cell), file=sys.stderr)
                        return self.failed, code
                    self.end(cell, code)
                self.look()
        except KeyboardInterrupt:
            self.say("stopped; the same command continues")
            return self.failed, STOPPED
        finally:
            self.bar.draw("close")
            self.engine.close()
        if self.over() and (left := self.source.total - self.source.kept - self.ended):
            self.say(f"{self.seconds:g} s are over, {left} runs are left; the same command continues")
        return self.failed, int(bool(self.failed))

    def fill(self) -> bool:
        """Starts as many cells as there is room for; whether it began one."""
        started = False
        while len(self.engine.running) < self.engine.slots and not self.over():
            cell = self.source.next()
            if cell is None:
                break
            self.runs[cell] = Follower(cell.folder / "metrics.jsonl")
            note_shards(self.source.sweep, cell)
            self.engine.start(cell)
            started = True
            self.say(f"begins {cell.row.name}, seed {cell.seed}")
        return started

    def over(self) -> bool:
        return self.seconds is not None and time.monotonic() - self.began >= self.seconds

    def end(self, cell: Cell, code: int) -> None:
        del self.runs[cell]
        self.ended += 1
        result = table.read_result(cell)
        if result:
            cell.output.unlink(missing_ok=True)
            self.say(f"{cell.folder.name}: val_bpb {result.val_bpb:.4f}")
        else:
            self.failed.add(cell)
            self.say(f"{cell.folder.name} failed (exit code {code}): {last_words(cell)}; skipped")
        self.source.ended(cell)
        table.write(self.source.sweep, self.failed, self.source.pruned)

    def look(self) -> None:
        """Stops what does worse than the median, and shows how far the sweep is."""
        for cell, run in list(self.runs.items()):
            run.look()
            if not self.source.goes_on(cell, run):
                self.engine.stop(cell)
                del self.runs[cell]
                self.ended += 1
                self.say(f"{cell.folder.name} pruned: its loss is worse than the median at that point")
        here = self.source.total - self.source.kept
        done = self.ended + sum(run.trained() for run in self.runs.values())
        seconds, part = time.monotonic() - self.began, min(1.0, done / max(here, 1))
        title = f"{self.source.kept + self.ended} of {self.source.total} runs"
        status = so_far(seconds, part)
        for cell, run in list(self.runs.items())[:2]:
            status += f", {cell.folder.name} {run.title()} {100 * run.fraction():.0f}%"
        if line := self.bar.show(title, part, status):
            self.say(line)


def last_words(cell: Cell) -> str:
    """The last line that a run printed, and the file that has all of them."""
    try:
        printed = cell.output.read_text(encoding="utf-8", errors="replace")
    except OSError:
        printed = ""
    return f"{printable(last_line(printed, 'it printed nothing')[:300])} ({shown(cell.output)})"


def refuse_other_settings(sweep: Sweep) -> None:
    """GolfError where a run that is kept, or resumed, was made by another script or with other settings."""
    noted = mapping(read_json(sweep.folder / SHARDS))
    for cell in sweep.cells():
        if not table.read_result(cell) and not any(cell.folder.glob("checkpoint.*")):
            continue
        start = mapping(read_run(cell.folder), "start")
        scripts = {sweep.trainer: dig(start, "script_sha256")}
        scripts |= {
            sweep.trainer.with_name(name): digest for name, digest in mapping(start, "modules").items()
        }
        for path, digest in scripts.items():
            if not path.is_file() or sha256(path) != digest:
                raise GolfError(f"{shown(path)} has changed since {shown(cell.folder)} was run; {RENAME}", 2)
        used = {**sweep.knobs, **mapping(read_json(cell.folder / "supervisor.json"), "set")}
        wanted = knobs_of(sweep, cell)
        compared = sweep.knobs.keys() - MAY_CHANGE | cell.row.settings.keys()
        for name in sorted(compared - {*envfile.OWN_NAMES}):  # which no trainer was given
            was, now = used.get(name), wanted.get(name)
            if name in envfile.PATH_NAMES:  # a node's, or a working folder's, spelling of the same place
                was, now = (shown(trainers.find_path(path or "", sweep.trainer)) for path in (was, now))
            if was != now:
                text = f"{shown(cell.folder)} was run with {name}={was}, its row now has {now}"
                raise GolfError(f"{text}; {RENAME}", 2)
        if noted.get(cell.folder.name, now := shards_of(sweep, wanted)) != now:
            told = f"the shards of its data have changed since {shown(cell.folder)} was run"
            raise GolfError(f"{told}; {RENAME}", 2)


def knobs_of(sweep: Sweep, cell: Cell) -> dict[str, str]:
    """The variables of a cell's run, with the trainer's defaults."""
    file = envfile.settings(envfile.parse(sweep.config), sweep.knobs)
    return {**sweep.knobs, **file, **cell.row.settings}


def note_shards(sweep: Sweep, cell: Cell) -> None:
    path = sweep.folder / SHARDS
    noted = {**mapping(read_json(path)), cell.folder.name: shards_of(sweep, knobs_of(sweep, cell))}
    replace_file(path, json.dumps(noted, indent=1))


def shards_of(sweep: Sweep, settings: dict[str, str]) -> str:
    """A hash of the names, sizes and times of a run's shards."""
    places = [settings[name] for name in ("DATA_PATH", "VAL_DATA_PATH") if settings.get(name)]
    folders = [trainers.find_path(place, sweep.trainer) for place in places]
    found = sorted(path for folder in folders for path in folder.glob("fineweb_*.bin"))
    stats = [(path.name, path.stat()) for path in found]
    facts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
