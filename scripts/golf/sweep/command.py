"""Run many configurations with several seeds each, and say which differ.

FILE.toml says what (configs/sweeps has examples); or CONFIG.env and NAME=a,b,c make a grid, and
SEEDS=1,2,3 its seeds: golf.sh sweep configs/cpu_10min.env MATRIX_LR=.01,.02 SEEDS=1337,42,2025.
With a FILE.toml, NAME=value is set in every row. The first row is what the others are compared with.
runs/<sweep>/ gets a folder a run, results.csv, table.md and plot.svg. The same command goes on where
it was stopped and repeats no finished run. A run that fails is skipped, and tried again next time.
"""

from __future__ import annotations

import subprocess
import time

from golf.core import envfile
from golf.core.errors import GolfError
from golf.core.json_io import dig, parse_json
from golf.core.paths import REPO, path_argument, shown
from golf.sweep import plan, table
from golf.sweep.plan import Cell, Sweep

USED_WRONGLY, STOPPED = 2, 130  # exit codes of golf run


def add_arguments(parser) -> None:
    parser.add_argument("what", type=path_argument, metavar="FILE.toml|CONFIG.env", help="what to run")
    parser.add_argument("settings", nargs="*", metavar="NAME=value", help="wins over the file")
    parser.add_argument("--name", help="results go to runs/NAME; default: the file's name")
    parser.add_argument(
        "--for", dest="seconds", type=float, metavar="SECONDS", help="begin no run after so long"
    )
    parser.add_argument("--table", action="store_true", help="run nothing: write the tables, print one")


def main(args) -> int:
    sweep = read(args.what, args.settings, args.name)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    failed, code = (set(), 0) if args.table else run_cells(sweep, args.seconds)
    print(table.write(sweep, failed), end="")
    print(f"results  {shown(sweep.folder)}/results.csv, table.md, plot.svg")
    return code


def read(what, words: list[str], name: str | None) -> Sweep:
    """The sweep that the arguments ask for."""
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not plan.NAME.fullmatch(key):
            raise GolfError(f"{word!r}: NAME=value is needed (no spaces around =)", 2)
        pairs[key] = value
    if not what.is_file():
        raise GolfError(f"{shown(what)}: no such file", 2)
    if what.suffix == ".toml":
        return plan.from_toml(what, pairs, name)
    return plan.from_words(what.resolve(), pairs, name)


def run_cells(sweep: Sweep, seconds: float | None) -> tuple[set, int]:
    """Runs what is not finished yet; the folders of runs that failed, and the exit code."""
    began, cells, failed = time.monotonic(), sweep.cells(), set()
    waiting = [cell for cell in cells if not table.read_result(cell)]
    refuse_other_settings(sweep, [cell for cell in cells if cell not in waiting])
    print(f"sweep    {len(cells)} runs, {len(cells) - len(waiting)} finished before", flush=True)
    for place, cell in enumerate(waiting):
        spent = time.monotonic() - began
        if seconds is not None and spent >= seconds:
            print(
                f"sweep    {seconds:g} s are over; the same command goes on with {len(waiting) - place} runs"
            )
            break
        left = f", about {(len(waiting) - place) * spent / place / 60:.0f} min left" if place else ""
        print(f"sweep    {place + 1} of {len(waiting)}{left}: {cell.row.name}, seed {cell.seed}", flush=True)
        code = run_cell(sweep, cell)
        if code in (USED_WRONGLY, STOPPED):  # the next would end the same way
            return failed, code
        if not table.read_result(cell):
            failed.add(cell.folder)
            print(f"sweep    {cell.folder.name} failed (exit code {code}); the next one", flush=True)
        table.write(sweep, failed)
    return failed, 1 if failed else 0


def refuse_other_settings(sweep: Sweep, finished: list[Cell]) -> None:
    """GolfError where a finished run was made with other settings than its row has now."""
    in_file = {name: value for name, (value, _) in envfile.parse(sweep.config).items()}
    names = {name for row in sweep.rows for name in row.settings}
    for cell in finished:
        path = cell.folder / "supervisor.json"
        used = dig(parse_json(path.read_bytes()) if path.is_file() else None, "set")
        wanted = {**in_file, **cell.row.settings}
        for name in sorted(names):
            was, now = dig(used, name), wanted.get(name)
            if was != now:
                text = f"{shown(cell.folder)} was run with {name}={was}, its row says {now}"
                raise GolfError(f"{text}; rename the row, or the sweep by --name", 2)


def run_cell(sweep: Sweep, cell: Cell) -> int:
    """Has `golf run` make the run; its exit code. An unfinished run goes on from its checkpoint."""
    wanted = {**cell.row.settings, "SEED": str(cell.seed), "OUT_DIR": str(sweep.folder)}
    wanted |= {"RUN_ID": cell.folder.name, "RESUME": "auto"}
    words = [f"{key}={value}" for key, value in wanted.items()]
    command = ["bash", str(REPO / "scripts/golf.sh"), "run", str(sweep.config), *words]
    command += ["--trainer", str(sweep.trainer), "--no-summary"]
    return subprocess.run(command, check=False).returncode
