"""What a sweep runs: rows of settings, each with several seeds, from a TOML file or the command line."""

import itertools
import math
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from golf.core import envfile, schema, trainers
from golf.core.errors import GolfError
from golf.core.files import read_text
from golf.core.paths import REPO, shown
from golf.core.text import slug

RANGE = re.compile(r"(.*\d.*?)\.\.(.*\d.*)")  # .01..0.08
OWN = ("SEED", "SEEDS", "RUN_ID", "OUT_DIR", "RESUME")  # they would be lost, or make other runs
MOST_ROWS, LONGEST_NAME = 10_000, 120  # characters; a run's folder and its .out are named so


@dataclass(frozen=True)
class Row:
    """One line of the table: settings that all of its seeds share."""

    name: str
    settings: dict[str, str] = field(hash=False)


@dataclass(frozen=True)
class Cell:
    """One run: a row and a seed."""

    row: Row
    seed: int
    folder: Path

    @property
    def output(self) -> Path:
        """What the run prints."""
        return self.folder.with_name(f"{self.folder.name}.out")


@dataclass(frozen=True)
class Sweep:
    """rows[0] is what the others are compared with."""

    config: Path
    trainer: Path
    rows: list[Row]
    seeds: list[int]
    folder: Path
    space: dict[str, list[str]]  # what --search may choose: values, or one range as 0.01..0.08
    common: dict[str, str]  # settings of all rows
    knobs: dict[str, str] = field(default_factory=dict)  # of the trainer: its defaults

    def cells(self) -> list[Cell]:
        """In the order they run: every row gets its first seed before any gets its second."""
        return [
            Cell(row, seed, self.folder / f"{row.name}-s{seed}")
            for seed, row in itertools.product(self.seeds, self.rows)
        ]


def from_toml(path: Path, words: dict[str, str], name: str | None, search: bool) -> Sweep:
    """The sweep of a TOML file; words (NAME -> value) are set in every row and win over the file.

    core/sweep.schema.json says what the file holds. [rows.NAME]: a row; [grid]: NAME = [values], all
    combinations, where there are no rows. GolfError, code 2, for any other file.
    """
    if sys.version_info >= (3, 11):  # here: no other tool needs it
        import tomllib
    else:
        import tomli as tomllib
    try:
        found = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise GolfError(f"{shown(path)}: {error}", 2) from None
    if wrong := schema.errors("sweep", found):
        raise GolfError(f"{shown(path)}: {wrong[0]}; see sweep.schema.json", 2)
    if bool(found.get("rows")) == bool(found.get("grid")):
        raise GolfError(f"{shown(path)}: give either [rows.NAME] tables or one [grid]", 2)
    return make(found, words, name or path.stem, search)


def from_words(config: Path, words: dict[str, str], name: str | None, search: bool) -> Sweep:
    """The grid of an env file and NAME=a,b,c words; SEEDS=1,2,3 are its seeds."""
    values = {key: text.split(",") for key, text in words.items() if key != "SEEDS"}
    chosen = {key: found for key, found in values.items() if len(found) > 1 or RANGE.fullmatch(found[0])}
    common = {key: text for key, text in words.items() if key not in chosen}
    found = {"config": config.resolve(), "grid": chosen}
    return make(found, common, name or f"{config.stem}-sweep", search)


def make(found: dict, words: dict[str, str], name: str, search: bool) -> Sweep:
    """The sweep of a TOML file's object; words win over it. GolfError if two rows have the same name, a file
    is missing, or a variable is unknown."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise GolfError(f"--name {name!r}: give a name without slashes; results go to runs/<name>", 2)
    seeds = words.get("SEEDS") or ",".join(map(str, found.get("seeds", [])))
    seeds = [int(seed) for seed in envfile.read_seeds(seeds, "the sweep")] or [1337]
    words = {key: text for key, text in words.items() if key != "SEEDS"}
    common = as_text(found.get("set", {})) | words
    space = {key: v if isinstance(v, list) else [v] for key, v in found.get("grid", {}).items()}
    space = {key: list(map(str, values)) for key, values in space.items() if key not in words}
    tables = found.get("rows", {}).items()
    rows = [Row(slug(key, "row"), common | as_text(row) | words) for key, row in tables]
    rows = rows or grid(space, common, search)
    if not rows:
        raise GolfError("no rows: each name of a grid needs a value", 2)
    names = Counter(row.name for row in rows)
    if twice := sorted(name for name, times in names.items() if times > 1):
        raise GolfError(f"several rows have the same name: {', '.join(twice)}", 2)
    config, trainer = REPO / found["config"], REPO / found.get("trainer", "train_gpt.py")
    for path in (config, trainer):
        if not path.is_file():
            raise GolfError(f"{shown(path)}: no such file", 2)
    knobs = trainers.read_knobs(trainer)
    envfile.parse(config, knobs)
    for row in rows:
        for setting in row.settings:
            if setting in OWN:
                raise GolfError(f"row {row.name}: a sweep itself sets {setting}; give seeds as SEEDS=1,2", 2)
            envfile.require_known(setting, knobs, f"row {row.name}")
    return Sweep(config, trainer, rows, seeds, REPO / "runs" / name, space, common, knobs)


def grid(space: dict[str, list[str]], common: dict[str, str], search: bool = False) -> list[Row]:
    """A row for each combination; for a search, which makes its own rows, one to judge the names by."""
    space = {key: values[:1] for key, values in space.items()} if search else space
    if (count := math.prod(map(len, space.values()))) > MOST_ROWS:
        raise GolfError(f"{count:,} rows, over {MOST_ROWS:,}; give fewer values, or --search N", 2)
    return [row_of(dict(zip(space, chosen)), common) for chosen in itertools.product(*space.values())]


def row_of(chosen: dict[str, str], common: dict[str, str]) -> Row:
    """The row of chosen values, named by them."""
    name = "_".join(f"{key}-{value}" for key, value in chosen.items()) or "as-is"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
    return Row(slug(name, "row"), {**common, **chosen})


def as_text(settings: dict) -> dict[str, str]:
    """Numbers as the environment has them."""
    return {name: str(value) for name, value in settings.items()}
