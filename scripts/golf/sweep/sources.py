"""Which cell of a sweep comes next: the next unfinished one of a grid, or what Optuna asks for."""

import statistics
from dataclasses import replace

from golf.core.errors import GolfError
from golf.core.files import LARGE, read_bytes, replace_file
from golf.core.json_io import dig, parse_json
from golf.run.bar import Follower
from golf.sweep import table
from golf.sweep.plan import RANGE, Cell, Sweep, row_of

REPORTS = 20  # a run's loss is compared with the others' so often, at equal parts of its training
STARTUP, WARMUP = 4, 5  # so many trials are never pruned; none is before so many reports
LARGEST = 1e15  # of a range; beyond it Optuna does not count in whole numbers


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
    """`count` trials of Optuna, each a row with all seeds. A trial may be pruned by its loss so far.

    runs/<sweep>/search.journal holds the study, with which the same command continues.
    """

    def __init__(self, sweep: Sweep, count: int):
        import optuna  # of requirements-sweep.txt

        self.sweep, self.states = replace(sweep, rows=[]), optuna.trial.TrialState
        self.waiting, self.pruned = [], set()  # cells
        self.trial_of, self.reported = {}, {}  # by cell: its trial, until it has ended; its last report
        if not sweep.space:
            raise GolfError("--search: nothing to choose from; give NAME=low..high or NAME=a,b,c", 2)
        self.space = {name: choice(optuna.distributions, name, v) for name, v in sweep.space.items()}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = optuna.storages.journal.JournalFileBackend(str(mended(sweep.folder / "search.journal")))
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
        """Takes over a trial of an earlier call; one that was interrupted is queued again."""
        if trial.distributions and trial.distributions != self.space:
            told = f"{self.sweep.folder.name} was a search of {', '.join(trial.params)}, or of other values"
            raise GolfError(f"{told}; give another --name for another search", 2)
        if trial.state == self.states.RUNNING:
            self.study.tell(trial.number, state=self.states.FAIL)
            self.study.enqueue_trial(trial.params)
        elif trial.state in (self.states.COMPLETE, self.states.PRUNED):
            cells = self.cells_of(trial)
            self.pruned |= set(cells if trial.state == self.states.PRUNED else ())

    def cells_of(self, trial) -> list[Cell]:
        """The cells of a trial, whose values become a row of the table."""
        row = row_of({name: as_text(trial.params[name]) for name in self.sweep.space}, self.sweep.common)
        if row not in self.sweep.rows:
            self.sweep.rows.append(row)
        return [cell for cell in self.sweep.cells() if cell.row == row]

    def next(self) -> Cell | None:
        while not self.waiting and self.left:
            self.left -= 1
            trial = self.study.ask(self.space)
            cells = self.cells_of(trial)
            if any(cell in self.trial_of for cell in cells):  # these values are being tried now
                self.study.tell(trial, state=self.states.FAIL)
                continue
            self.waiting = [cell for cell in cells if not table.read_result(cell)]
            self.trial_of |= dict.fromkeys(self.waiting, trial)
            if not self.waiting:  # these values were tried before
                self.tell(trial)
        return self.waiting.pop(0) if self.waiting else None

    def goes_on(self, cell: Cell, run: Follower) -> bool:
        """Reports the loss so far. False if the trial does worse than the median of earlier ones."""
        trial, at = self.trial_of.get(cell), int(REPORTS * run.fraction())
        if trial is None or run.phase != "train" or run.loss is None or self.reported.get(cell) == at:
            return trial is not None
        self.reported[cell] = at
        trial.report(run.loss, REPORTS * self.sweep.seeds.index(cell.seed) + at)
        if not trial.should_prune():
            return True
        cells = {c for c, its_trial in self.trial_of.items() if its_trial is trial}
        for c in cells:
            del self.trial_of[c]
        self.pruned |= cells
        self.waiting = [c for c in self.waiting if c not in cells]
        self.study.tell(trial, state=self.states.PRUNED)
        return False

    def ended(self, cell: Cell) -> None:
        trial = self.trial_of.pop(cell)
        if not any(other is trial for other in self.trial_of.values()):
            self.tell(trial)

    def tell(self, trial) -> None:
        """Tells Optuna the mean score of a trial whose runs have ended."""
        results = [table.read_result(cell) for cell in self.cells_of(trial)]
        if all(results):
            self.study.tell(trial, statistics.fmean(result.val_bpb for result in results))
        else:
            self.study.tell(trial, state=self.states.FAIL)


def mended(journal):
    """Without what a search that was killed, or a full disk, left: a line that is cut, Optuna's own lock."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    found = read_bytes(journal, LARGE).split(b"\n") if journal.exists() else []
    whole = [line + b"\n" for line in found if dig(parse_json(line), "op_code") is not None]
    replace_file(journal, b"".join(whole))
    return journal


def choice(distributions, name: str, values: list[str]):
    """Optuna's, of a list or a range: of whole numbers if both ends are; on a log scale if above 0."""
    match = RANGE.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return distributions.CategoricalDistribution(values)
    try:
        low, high = map(float, match.groups())
        if not -LARGEST <= low <= high <= LARGEST:
            raise ValueError
        if all(text.strip().lstrip("-").isdigit() for text in match.groups()):
            return distributions.IntDistribution(int(low), int(high), log=low > 0)
        return distributions.FloatDistribution(low, high, log=low > 0)
    except ValueError:
        raise GolfError(f"{name}={values[0]}: a range is low..high, numbers up to {LARGEST:g}", 2) from None


def as_text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
