"""Makes one run of a sweep by `golf run`; on a node of a cluster it also sends back what the run writes."""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from golf.core.paths import REPO
from golf.core.processes import start

EVERY_SECONDS = 1.0
GROWING = ("train.log", "metrics.jsonl")


def command(config: Path, trainer: Path, settings: dict[str, str], out_dir: Path) -> list[str]:
    words = [f"{name}={value}" for name, value in {**settings, "OUT_DIR": str(out_dir)}.items()]
    script = ["bash", str(REPO / "scripts/golf.sh"), "run", str(config), *words]
    return [*script, "--trainer", str(trainer), "--no-summary"]


def run(config: str, trainer: str, settings: dict, data: dict[str, str], fetch: list[str]) -> Iterator[tuple]:
    """Makes the run. Yields (file, bytes to append) as they come, file "" for what it prints; last (None,
    exit code).

    config, trainer: paths in the repository. data: paths by knob, on the machine that started the sweep. What
    this node lacks is looked for in its copy of the repository, or fetched into it.
    """
    here = {name: path for name, path in data.items() if os.path.exists(path)}
    with tempfile.TemporaryDirectory() as place:
        out, printed, sent = Path(place, "runs"), Path(place, "printed"), {}
        with printed.open("ab") as file:
            if len(here) < len(data):
                with (REPO / ".fetching").open("wb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # several runs may begin on a node at once
                    subprocess.run([sys.executable, *fetch], cwd=REPO, stdout=file, stderr=file)
            words = command(REPO / config, REPO / trainer, {**settings, **here}, out)
            env = {**os.environ, "PYTHON": sys.executable}
            process = start(words, env=env, stdout=file, stderr=file)
        folder = out / settings["RUN_ID"]
        while True:
            code = process.poll()  # first: what it wrote before its end is read below
            for name, path in [("", printed), *((name, folder / name) for name in GROWING)]:
                if part := added(path, sent):
                    yield name, part
            if code is not None:
                break
            time.sleep(EVERY_SECONDS)
        for path in sorted(folder.glob("*")):
            if path.is_file() and path.name not in GROWING and not path.name.startswith((".", "checkpoint")):
                yield path.name, path.read_bytes()
        yield None, code


def added(path: Path, sent: dict[Path, int]) -> bytes:
    """What was added to a file since it was last read."""
    try:
        with path.open("rb") as file:
            file.seek(sent.get(path, 0))
            part = file.read()
    except OSError:  # not there yet
        return b""
    sent[path] = sent.get(path, 0) + len(part)
    return part
