"""Draw how runs went: loss, val_bpb, learning rate and tokens a second, several runs in one picture.

Each RUN is the folder of a run or an entry, a metrics.jsonl, or a train.log of this challenge or the larger
one. The legend says what differs between them. The picture has no background, and its colours can be read on
white and on dark pages.
"""

from collections.abc import Callable
from functools import partial

from golf.core.errors import GolfError
from golf.core.files import replace_file
from golf.core.json_io import number
from golf.core.paths import path_argument, shown
from golf.core.picture import COLOURS, drawable, drawn, picture_path, tidy
from golf.core.runlog import run_folders
from golf.see import history
from golf.see.history import History

AXES = {
    "time": ("train_seconds", "minutes of training", 1 / 60),
    "tokens": ("tokens", "training tokens, millions", 1e-6),
    "steps": ("step", "steps", 1.0),
}
SETTLED = 0.05  # of the picture's width: the loss before it would flatten the rest
SHORT_SECONDS = 180  # the axis of runs shorter than this is in seconds, not minutes
MANY = 300  # points; more are drawn faintly, with their running mean


def add_arguments(parser) -> None:
    run = "a folder or a file; or runs/<RUN_ID> for all of SEEDS=..."
    parser.add_argument("runs", nargs="+", type=path_argument, metavar="RUN", help=run)
    parser.add_argument("-o", "--out", type=picture_path, default="plot.svg", metavar="FILE",
                        help="the picture, .svg or .png; default: plot.svg")  # fmt: skip
    parser.add_argument("--x", choices=list(AXES), default="time", help="the horizontal axis; default: time")


def main(args) -> int:
    histories = [history.read(run) for place in args.runs for run in run_folders(place)]
    replace_file(args.out, draw(panels(histories, args.x), args.out.suffix))
    print(f"wrote {shown(args.out)}")
    return 0


def draw(some: list[Callable], kind: str = ".svg") -> bytes:
    return drawn(some, kind, columns=3 if len(some) == 3 else 2)


def panels(histories: list[History], x: str = "time") -> list[Callable]:
    """What draws each panel that has a point. GolfError where none has."""
    key, label, factor = AXES[x]
    if x == "time" and max(h.last(key) or 0.0 for h in histories) < SHORT_SECONDS:
        label, factor = "seconds of training", 1.0
    found = [each for each in series_of(histories, key, factor) if any(xs for xs, _ in each[1])]
    if not found:
        raise GolfError(f"nothing to draw: these runs' steps do not state {key}; try --x steps", 2)
    end = max(xs[-1] for _, series in found for xs, _ in series if xs) or 1
    names = history.differences(histories) if len(histories) > 1 else None
    return [partial(draw_panel, title=t, series=s, label=label, end=end, names=names) for t, s in found]


def series_of(histories: list[History], key: str, factor: float) -> list[tuple[str, list]]:
    """(title, for each run its x and y values)."""

    def series(points: list[tuple[dict, float | None]]) -> tuple[list, list]:
        pairs = [(number(p.get(key)), value) for p, value in points]
        kept = [(a * factor, b) for a, b in pairs if None not in (a, b) and abs(a) + abs(b) < 1e15]
        return [a for a, _ in kept], [b for _, b in kept]

    def of(points: str, name: str):
        return [series([(p, number(p.get(name))) for p in getattr(h, points)]) for h in histories]

    rates = [series([(p, r / 1e3) for p, r in h.rates()]) for h in histories]
    return [
        ("training loss, nats a token", of("steps", "train_loss")),
        ("validation on the way, bits a byte", of("vals", "val_bpb")),
        ("learning rate, share of its peak", of("steps", "lr_scale")),
        ("training tokens a second, thousands", rates),
    ]


def draw_panel(
    axes, title: str, series: list, label: str, end: float, names: list[str] | None = None
) -> None:
    """end: where all panels of a picture end; names: of the runs, for a legend."""
    tidy(axes, title, label)
    settled = []
    for i, (xs, ys) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        if len(xs) > MANY:
            axes.plot(xs, ys, color=colour, alpha=0.3, linewidth=0.6)
            ys = smoothed(ys)
        marker = {"marker": "o", "markersize": 3} if len(xs) < 12 else {}
        name = drawable(names[i]) if names else None
        axes.plot(xs, ys, color=colour, linewidth=1.4, label=name, **marker)
        settled += [y for x, y in zip(xs, ys) if x >= SETTLED * end]
    axes.set_xlim(0, 1.02 * end)
    if "loss" in title and len(settled) > 1 and max(settled) > min(settled):
        room = 0.06 * (max(settled) - min(settled))
        axes.set_ylim(min(settled) - room, max(settled) + room)
    elif "bits" not in title:
        axes.set_ylim(bottom=0)


def smoothed(values: list[float]) -> list[float]:
    """A running mean over about a fiftieth of the points."""
    keep, mean, found = 1 - 1 / max(1.0, len(values) / 50), None, []
    for value in values:
        mean = value if mean is None else keep * mean + (1 - keep) * value
        found.append(mean)
    return found
