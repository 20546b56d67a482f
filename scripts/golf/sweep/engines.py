"""Where a sweep's runs are made: on this machine, one after another, or on a Ray cluster.

An engine has `slots` (how many runs at once) and `running` (by cell). It starts a cell, says which cells have
ended since it was last asked, and stops a cell at once.
"""

import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from golf.core import envfile, trainers
from golf.core.errors import GolfError
from golf.core.paths import REPO, shown
from golf.core.processes import kill_tree, start
from golf.sweep import node
from golf.sweep.plan import Cell, Sweep

WAIT_SECONDS, TRY_SECONDS = 0.5, 10.0  # between looks; for an answer of the cluster
TRIES = 4  # of a cell whose node dies
NOT_SENT = ["/.git", "/.venv", "/runs", "/docs", "/tests", "final_model*", "*.log", "metrics_seed*"]


def settings_of(cell: Cell) -> dict[str, str]:
    """The variables of a cell's run; one that was interrupted resumes from its last checkpoint."""
    return {**cell.row.settings, "SEED": str(cell.seed), "RUN_ID": cell.folder.name, "RESUME": "auto"}


class Local:
    slots = 1

    def __init__(self, sweep: Sweep):
        self.sweep, self.running = sweep, {}

    def start(self, cell: Cell) -> None:
        words = node.command(self.sweep.config, self.sweep.trainer, settings_of(cell), cell.folder.parent)
        with cell.output.open("wb") as file:
            self.running[cell] = start(words, signal.SIGTERM, stdout=file, stderr=file)

    def ended(self) -> list[tuple[Cell, int]]:
        """Cells with their exit codes; waits a moment where there is none."""
        time.sleep(WAIT_SECONDS)
        found = [(cell, code) for cell, p in self.running.items() if (code := p.poll()) is not None]
        for cell, _ in found:
            del self.running[cell]
        return found

    def stop(self, cell: Cell) -> None:
        process = self.running.pop(cell)
        kill_tree(process.pid)
        process.wait()

    def close(self) -> None:
        for cell in list(self.running):
            self.stop(cell)


class Cluster:
    """Cells as Ray tasks. Each takes `each` GPUs, or CPUs if the cluster has no GPU or DEVICE=cpu."""

    def __init__(self, sweep: Sweep, address: str, each: float):
        import ray  # of requirements-sweep.txt

        self.ray, self.sweep, self.running, self.tries = ray, sweep, {}, {}
        for path in (sweep.config, sweep.trainer):
            if not path.is_relative_to(REPO):
                raise GolfError(f"{shown(path)}: put it into the repository: only that is sent to nodes", 2)
        code = {"working_dir": str(REPO), "excludes": NOT_SENT}
        try:
            if told := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address):  # Ray itself would try for minutes
                socket.create_connection((told[1], int(told[2])), TRY_SECONDS).close()
            self.ray.init(address=address, runtime_env=code, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, OSError, OverflowError) as error:
            told = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise GolfError(
                f"--ray {address}: no cluster there ({told}); start one with `ray start --head`", 2
            ) from None
        self.given = {**sweep.knobs, **envfile.parse(sweep.config)}
        on_cpu = self.given.get("DEVICE") == "cpu" or not self.ray.cluster_resources().get("GPU")
        self.kind, self.each = ("CPU" if on_cpu else "GPU"), each
        self.ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self.task = self.ray.remote(on_node).options(max_retries=0, **{f"num_{self.kind.lower()}s": each})

    @property
    def slots(self) -> int:
        """As many as the cluster's nodes have room for now."""
        return max(1, int(self.ray.cluster_resources().get(self.kind, 0) / self.each))

    def start(self, cell: Cell) -> None:
        shutil.rmtree(cell.folder, ignore_errors=True)  # sent by a node that died
        cell.output.unlink(missing_ok=True)
        settings = settings_of(cell)
        if self.kind == "CPU":
            settings["OMP_NUM_THREADS"] = str(max(1, int(self.each)))
        given = {**self.given, **settings}
        names = [n for n in ("DATA_PATH", "VAL_DATA_PATH", "TOKENIZER_PATH") if given.get(n)]
        data = {name: str(trainers.find_path(given[name], self.sweep.trainer)) for name in names}
        paths = [str(path.relative_to(REPO)) for path in (self.sweep.config, self.sweep.trainer)]
        folder = Path(data.get("DATA_PATH", ""))
        shards = len(list(folder.glob("fineweb_train_*.bin")))
        fetch = trainers.fetch_command(folder, shards or 2)
        self.running[cell] = self.task.remote(*paths, settings, data, fetch)
        self.tries[cell] = self.tries.get(cell, 0) + 1

    def ended(self) -> list[tuple[Cell, int]]:
        """Writes what came back from the nodes. Cells that ended, with their exit codes."""
        found, cells = [], {task: cell for cell, task in self.running.items()}
        ready, _ = self.ray.wait(list(cells), num_returns=len(cells), timeout=WAIT_SECONDS)
        for task in ready:
            cell = cells[task]
            try:
                name, content = self.ray.get(next(task))
            except (self.ray.exceptions.RayError, StopIteration) as error:
                del self.running[cell]
                if self.tries[cell] < TRIES:
                    self.start(cell)
                else:
                    cell.output.write_bytes(f"{TRIES} nodes died or failed: {str(error)[:300]}\n".encode())
                    found.append((cell, 1))
                continue
            if name is None:  # the last: its exit code
                del self.running[cell]
                found.append((cell, content))
            else:
                path = cell.folder / name if name else cell.output
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(content)
        if not ready:
            time.sleep(WAIT_SECONDS)
        return found

    def stop(self, cell: Cell) -> None:
        self.ray.cancel(self.running.pop(cell), force=True)

    def close(self) -> None:
        for cell in list(self.running):
            self.stop(cell)
        self.ray.shutdown()


def on_node(*args):
    """Ray sends this function by value; the rest of the code is in the node's copy of the repository."""
    sys.path.insert(0, os.path.join(os.getcwd(), "scripts"))
    from golf.sweep import node

    yield from node.run(*args)
