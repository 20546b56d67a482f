"""Which cell of a sweep comes next: of a grid the next that is not finished, or what Optuna asks for."""

import statistics
from dataclasses import replace

from golf.core.errors import GolfError
from golf.run.bar import Follower
from golf.sweep import table
from golf.sweep.plan import RANGE, Cell, Sweep, row_of

REPORTS = 20  # how often a run's loss is compared with the others', in equal parts of its training
STARTUP, WARMUP = 4, 5  # trials that are never pruned; reports before which none is


class Grid:
    """All rows with all seeds."""

    def __init__(self, sweep: Sweep):
        self.sweep, cells, self.pruned = sweep, sweep.cells(), set()
        self.waiting = [cell for cell in cells if not table.read_result(cell)]
        self.total, self.kept = len(cells), len(cells) - len(self.waiting)

    def next(self) -> Cell | None:
        return self.waiting.pop(0) if self.waiting else None

    def goes_on(self, cell: Cell, run: Follower) -> bool:
        return True

    def ended(self, cell: Cell) -> None:
        pass


class Search:
    """`count` trials of Optuna, each a row with all seeds; its loss on the way may end a trial early.

    runs/<sweep>/search.journal holds the study: the same command goes on with it.
    """

    def __init__(self, sweep: Sweep, count: int):
        import optuna  # of requirements-sweep.txt

        self.sweep, self.states = replace(sweep, rows=[]), optuna.trial.TrialState
        self.waiting, self.open, self.pruned = [], {}, set()  # cells; the trials of those not ended; cells
        self.reported: dict[Cell, int] = {}
        if not sweep.space:
            raise GolfError("--search: nothing to choose; give NAME=low..high or NAME=a,b,c (or a [grid])", 2)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = optuna.storages.journal.JournalFileBackend(str(sweep.folder / "search.journal"))
        self.study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=sweep.folder.name,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(STARTUP, WARMUP),
        )
        for trial in self.study.trials:
            self.recall(trial)
        done = len(self.sweep.rows)
        self.left, self.total = max(0, count - done), max(count, done) * len(sweep.seeds)
        self.kept = done * len(sweep.seeds)

    def recall(self, trial) -> None:
        """A trial of an earlier call: one that was broken off comes again, with the same values."""
        if trial.params and trial.params.keys() != self.sweep.space.keys():
            told = f"{self.sweep.folder.name} was a search of {', '.join(trial.params)}"
            raise GolfError(f"{told}; give another --name for another search", 2)
        if trial.state == self.states.RUNNING:
            self.study.tell(trial.number, state=self.states.FAIL)
            self.study.enqueue_trial(trial.params)
        elif trial.state in (self.states.COMPLETE, self.states.PRUNED):
            cells = self.cells_of(trial)
            self.pruned |= set(cells if trial.state == self.states.PRUNED else ())

    def cells_of(self, trial) -> list[Cell]:
        """Its values become a row of the table."""
        row = row_of({name: as_text(trial.params[name]) for name in self.sweep.space}, self.sweep.common)
        if row not in self.sweep.rows:
            self.sweep.rows.append(row)
        return [cell for cell in self.sweep.cells() if cell.row == row]

    def next(self) -> Cell | None:
        while not self.waiting and self.left:
            self.left -= 1
            trial = self.study.ask()
            for name, values in self.sweep.space.items():
                suggest(trial, name, values)
            cells = self.cells_of(trial)
            if any(cell in self.open for cell in cells):  # the same values are being tried
                self.study.tell(trial, state=self.states.FAIL)
                continue
            self.waiting = [cell for cell in cells if not table.read_result(cell)]
            self.open |= dict.fromkeys(self.waiting, trial)
            if not self.waiting:  # they were tried before
                self.tell(trial)
        return self.waiting.pop(0) if self.waiting else None

    def goes_on(self, cell: Cell, run: Follower) -> bool:
        """Reports the loss so far. False where the trial does worse than the median of those before."""
        trial, at = self.open.get(cell), int(REPORTS * run.fraction())
        if trial is None or run.phase != "train" or run.loss is None or self.reported.get(cell) == at:
            return trial is not None
        self.reported[cell] = at
        trial.report(run.loss, REPORTS * self.sweep.seeds.index(cell.seed) + at)
        if not trial.should_prune():
            return True
        mine = {other for other, of in self.open.items() if of is trial}
        self.pruned |= mine
        self.open = {other: of for other, of in self.open.items() if of is not trial}
        self.waiting = [other for other in self.waiting if other not in mine]
        self.study.tell(trial, state=self.states.PRUNED)
        return False

    def ended(self, cell: Cell) -> None:
        trial = self.open.pop(cell)
        if not any(of is trial for of in self.open.values()):
            self.tell(trial)

    def tell(self, trial) -> None:
        """What Optuna is to learn from a trial whose runs have ended: the mean score."""
        results = [table.read_result(cell) for cell in self.cells_of(trial)]
        if all(results):
            self.study.tell(trial, statistics.fmean(result.val_bpb for result in results))
        else:
            self.study.tell(trial, state=self.states.FAIL)


def suggest(trial, name: str, values: list[str]) -> None:
    """One of several values, or of a range: whole numbers where both ends are, by its logarithm above 0."""
    match = RANGE.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        trial.suggest_categorical(name, values)
        return
    try:
        low, high = map(float, match.groups())
        if all(text.strip().lstrip("-").isdigit() for text in match.groups()):
            trial.suggest_int(name, int(low), int(high), log=low > 0)
        else:
            trial.suggest_float(name, low, high, log=low > 0)
    except ValueError:
        raise GolfError(f"{name}={values[0]}: a range is low..high, two numbers", 2) from None


def as_text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
