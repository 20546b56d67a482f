"""Copy runs into an experiment tracker: trackio, tensorboard or wandb, whichever is installed.

For tensorboard, event files are written below --out, replacing earlier ones of the run. trackio and wandb get
one more run of that name in the project parameter-golf-local; their own settings say where (TRACKIO_DIR,
WANDB_MODE=offline).
"""

import importlib
import sys
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.json_io import dig, number
from golf.core.paths import path_argument, shown
from golf.core.text import slug
from golf.see import history
from golf.see.history import History

PROJECT = "parameter-golf-local"
POINTS = ("train_loss", "lr_scale", "val_loss", "val_bpb", "tokens", "train_seconds")
QUIET = {"trackio": {"auto_log_gpu": False, "auto_log_cpu": False}}  # this machine's load is not the run's


def add_arguments(parser) -> None:
    run = "a run's folder; the run may still be going"
    parser.add_argument("runs", nargs="+", type=path_argument, metavar="RUN", help=run)
    trackers = ("trackio", "tensorboard", "wandb")
    parser.add_argument("--to", required=True, choices=trackers, help="the tracker; install it first")
    parser.add_argument("--out", type=path_argument, default="tensorboard", metavar="DIR",
                        help="tensorboard's folder; default: tensorboard/")  # fmt: skip


def main(args) -> int:
    named = {}
    for h in map(history.read, args.runs):
        name = slug(h.name, "run")
        if named.setdefault(name, h) is not h:
            raise GolfError(f"two runs are called {name}; export them one by one, to another --out", 2)
    tracker = load(args.to)
    for name, h in named.items():
        if args.to == "tensorboard":
            to_tensorboard(tracker, h, args.out / name)
        else:
            to_tracker(tracker, h, name, **QUIET.get(args.to, {}))
        print(f"exported {name}: {len(rows(h))} points")
    if args.to == "tensorboard":
        print(f"next     tensorboard --logdir {shown(args.out)}")
    return 0


def load(name: str):
    """The tracker's module; GolfError, which says what to install, if there is none."""
    try:
        return importlib.import_module("tensorboard.summary" if name == "tensorboard" else name)
    except ImportError:
        raise GolfError(f"{name} is not installed; run `{sys.executable} -m pip install {name}`", 2) from None


def rows(h: History) -> list[tuple[int, dict[str, float], float | None]]:
    """(step, figures by name, seconds since 1970) of each point, in order; the score last."""
    found = []
    for point in sorted([*h.steps, *h.vals], key=lambda point: point["step"]):
        values = {name: value for name in POINTS if (value := number(point.get(name))) is not None}
        found.append((int(point["step"]), values, number(point.get("time"))))
    final = {"final_val_bpb": h.val_bpb, "bytes_total": number(dig(h.facts, "export", "bytes_total"))}
    final = {name: value for name, value in final.items() if value is not None}
    if final:
        found.append((int(h.last("step") or 0), final, number(dig(h.facts, "end", "time"))))
    return found


def to_tensorboard(summary, h: History, folder: Path) -> None:
    """Event files, in a folder of the run's name. Only earlier ones go from there: --out may be runs/."""
    for path in folder.glob("events.out.tfevents.*"):
        path.unlink()
    writer = summary.Writer(str(folder))
    for step, values, when in rows(h):
        for name, value in values.items():
            writer.add_scalar(name, value, step, wall_time=when)
    writer.close()


def to_tracker(tracker, h: History, name: str, **options) -> None:
    """trackio and wandb speak alike."""
    try:
        tracker.init(project=PROJECT, name=name, config=h.config, **options)
        for step, values, _ in rows(h):
            tracker.log(values, step=step)
        tracker.finish()
    except Exception as error:  # no login, no network, a full disk: each has classes of its own
        raise GolfError(f"{tracker.__name__}: {type(error).__name__}: {str(error)[:200]}") from None
