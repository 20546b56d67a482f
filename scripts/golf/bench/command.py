"""Time the trainer's parts on this device, each beside the least time it could take (its floor).

    golf.sh bench train --config configs/local_4090_baseline.env --json a.json
    golf.sh bench compare a.json b.json

train      whole steps; then forward, backward, optimizer, data and logging alone
score      scoring by sliding windows
optimizer  the update alone
data       reading batches
startup    from a process's start to its first training step: cold cache, warm cache, COMPILE=0
selftest   a report on a CUDA device to paste into an issue: what works and what falls back; two minutes
floor      counts the operators and computes their floor on an RTX 4090; measures nothing
all        the table of docs/floors.md, smaller on a CPU (the default)
compare    ratios of two --json files, and whether they are within noise

Nothing is begun after 7 minutes, so that `all` ends after about 8. Without --config it times the trainer's
defaults, the reference job. The environment overrides the file. Missing data is replaced by random tokens.
--script times another copy of train_gpt.py, such as a submission's: it runs as you, without a sandbox.
One process and one device. docs/floors.md says how the floor is derived.
"""

import json
import statistics
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from golf.bench import floor
from golf.core import envfile, text, trainers
from golf.core.errors import GolfError
from golf.core.files import read_bytes, sha256
from golf.core.json_io import mapping, number, parse_json
from golf.core.paths import REPO, path_argument, shown

PARTS = ("train", "score", "optimizer", "data", "startup")
LAST_START_SECONDS = 420  # a part takes a minute or so, and `all` should end within 8
SECONDS = {"cuda": 12.0, "cpu": 6.0}  # of one measurement


@dataclass(frozen=True)
class Benchmark:
    """One configuration and what of it is timed; `changes` win over its file."""

    label: str
    config: Path | None
    parts: tuple[str, ...]
    changes: dict[str, str] = field(default_factory=dict)


BASELINE = REPO / "configs" / "local_4090_baseline.env"
UPSTREAM = REPO / "configs" / "upstream_16mb_baseline.env"
# The shape and windows of configs/local_smoke.env, on which the figures of docs/floors.md were taken.
STARTER = {"NUM_HEADS": "6", "MLP_MULT": "3", "EVAL_SEQ_LEN": "1024", "EVAL_STRIDE": "64"}
SMALL = {**STARTER, "TRAIN_BATCH_TOKENS": "16384"}
ALL = {
    "cuda": [  # rows of docs/floors.md come first, since time may run out
        # startup before all: later its process would share the memory with this one
        Benchmark("local_4090_baseline", BASELINE, ("startup", "train")),
        Benchmark("starter", None, ("train", "score", "optimizer"), STARTER),  # windows at 1024/64
        Benchmark("upstream_16mb_baseline", UPSTREAM, ("train",)),
        Benchmark("local_4090_baseline", BASELINE, ("score", "data")),  # windows at 1024/512
        # a pass so small may stay in the card's cache
        Benchmark("passes of 16,384 tokens", BASELINE, ("train",), {"MICRO_BATCH_TOKENS": "16384"}),
    ],
    "cpu": [
        Benchmark("starter, 16,384 tokens a step", None, PARTS, SMALL),
        Benchmark("the same as 3 heads of 64", None, ("train",), {**SMALL, "NUM_HEADS": "3"}),
    ],
}


def add_arguments(parser) -> None:
    add, path = parser.add_argument, path_argument
    choices = [*PARTS, "selftest", "floor", "all", "compare"]
    what = f"{', '.join(choices)}; default: all"
    add("what", nargs="?", default="all", choices=choices, metavar="WHAT", help=what)
    add("files", nargs="*", default=[], type=path, metavar="FILE", help="for compare: two --json files")
    add("--config", type=path, metavar="CONFIG.env", help="default: the trainer's defaults")
    add("--json", type=path, metavar="FILE", help="write the results, a JSON object per line")
    add("--script", type=path, default=REPO / "train_gpt.py", metavar="PATH",
        help="the trainer; default: train_gpt.py")  # fmt: skip


def main(args) -> int:
    if len(args.files) != 2 * (args.what == "compare"):
        raise GolfError("compare takes two files made by --json, everything else takes none", 2)
    if args.json and args.what in ("floor", "compare", "selftest"):
        raise GolfError(f"{args.what} measures nothing, so it has no results for --json", 2)
    if args.what == "compare":
        print("\n".join(compare(*map(read_results, args.files))))
        return 0
    if args.what == "all" and args.config:
        raise GolfError("all has its own configurations; with --config name a part, such as train", 2)
    script = args.script.resolve()
    trainers.check_trainer(script)
    from golf.bench import measure  # torch takes seconds to import; compare does without

    label = args.config.stem if args.config else "defaults"
    benchmarks = [Benchmark(label, args.config, (args.what,))]
    if args.what == "all":
        benchmarks = ALL[measure.here().device.type]
    knobs = trainers.read_knobs(script)
    plan = [(benchmark, settings_of(benchmark, knobs)) for benchmark in benchmarks]
    results, trainer = Results(args.json, script), measure.load_trainer(script)
    with tempfile.TemporaryDirectory(prefix="golf-bench-") as folder:
        if args.what == "selftest":
            from golf.bench import selftest

            return selftest.main(trainer, plan[0][1], Path(folder))
        for benchmark, settings in plan:
            run_benchmark(benchmark, settings, trainer, Path(folder), results)
    if args.what == "all" and results.found:
        print("\n" + "\n".join(table(results.found)))
    return results.code


def settings_of(benchmark: Benchmark, knobs: dict[str, str]) -> dict[str, str]:
    """The environment's variables before the benchmark's, and these before the file's."""
    found = envfile.parse(benchmark.config, knobs) if benchmark.config else {}
    return envfile.settings(found | benchmark.changes, knobs)


class Results:
    """Prints each result as it comes, keeps it, and writes it as a line of the --json file."""

    def __init__(self, path: Path | None, script: Path):
        self.end, self.found, self.code = time.monotonic() + LAST_START_SECONDS, [], 0
        self.common = dict(schema=1, script=shown(script), script_sha256=sha256(script))
        self.path, self.file = path, None
        try:  # before minutes of measuring; what is there is kept until there is a result
            if path:
                path.open("ab").close()
        except OSError as error:
            raise GolfError(f"{shown(path)}: cannot be written ({error.strerror})", 2) from None

    def add(self, benchmark: Benchmark, what: str, result: dict) -> None:
        result = {**self.common, "what": what, "label": benchmark.label, "time": time.time(), **result}
        self.found.append(result)
        print("\n".join(lines(result)), flush=True)
        if self.path:
            self.file = self.file or self.path.open("w", encoding="utf-8")
            print(json.dumps(result), file=self.file, flush=True)

    def failed(self, benchmark: Benchmark, what: str, error: Exception) -> None:
        self.code = max(self.code, getattr(error, "code", 1))
        reason = str(error).partition("\n")[0]
        print(f"golf bench: error: {what}, {benchmark.label}: {reason}", file=sys.stderr)


def run_benchmark(
    benchmark: Benchmark, settings: dict[str, str], trainer, folder: Path, results: Results
) -> None:
    """Times the benchmark's parts. A part that fails is reported; the others go on."""
    from golf.bench import measure

    lab, seconds = None, SECONDS[measure.here().device.type]
    for part in benchmark.parts:
        try:
            if part == "floor":
                print("\n".join(floor_lines(benchmark.label, trainer.read_knobs(settings))))
                continue
            given = {**settings, **measure.usable_data(settings, trainer, folder)}
            if time.monotonic() > results.end:
                raise GolfError("left out: the time is up")
            if part == "startup":
                for found in measure.startup(trainer, given, folder, results.end):
                    results.add(benchmark, part, dict(measure.here().facts, config=settings, **found))
                continue
            lab = lab or measure.Lab(trainer, given, folder, seconds)
            found = getattr(measure, part)(lab)
            facts = dict(lab.device.facts, dtype=str(lab.dtype)[6:], config=settings)
            facts["peaks"] = lab.device.found_peaks(lab.dtype)
            results.add(benchmark, part, dict(facts, notes=lab.notes, **found))
        except BrokenPipeError:  # nobody reads on
            raise
        except Exception as error:  # also what a trainer raises for its user
            if not hasattr(error, "code"):
                traceback.print_exc()
            results.failed(benchmark, part, error)
    lab = None
    measure.forget()


# ---- What people read ----


def quartiles(samples: list[float]) -> tuple[float, float, float]:
    if len(samples) == 1:
        return (samples[0],) * 3
    return tuple(statistics.quantiles(samples, n=4, method="inclusive"))


def spread(samples: list[float]) -> str:
    """Half the distance between the quartiles, in percent of the median."""
    low, middle, high = quartiles(samples)
    return f"±{50 * (high - low) / middle:.1f} %" if len(samples) > 1 else "once"


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def share(floor_seconds: float | None, seconds: float) -> str:
    return f"{100 * floor_seconds / seconds:.1f} %" if floor_seconds and seconds else ""


def figure(result: dict) -> str:
    """The measured figure in its field's unit."""
    median, tokens = quartiles(result["samples"])[1], result.get("tokens")
    if result["what"] == "score":
        wanted = result["wanted_tokens"]
        whole = "" if tokens == wanted else f", extrapolated from {tokens:,}"
        return f"{median * wanted / tokens:.1f} s for {wanted:,} targets{whole}"
    if result["what"] in ("train", "data"):
        return f"{tokens / median:,.0f} tokens/s, {duration(median)} a step"
    return duration(median)


def title(result: dict) -> str:
    return ", ".join(filter(None, (result["what"], result.get("name"), result["label"])))


def rows(result: dict) -> list[tuple[str, str, str, str]]:
    """(what, figure, spread, share of the floor) of a result, then of its parts."""
    samples, memory = result["samples"], result.get("peak_reserved_bytes")
    of_floor = share(result.get("floor"), quartiles(samples)[1])
    found = [(title(result), figure(result), spread(samples), of_floor)]
    for name, seconds in result.get("parts", {}).items():
        of_floor = share(result["part_floors"].get(name), seconds)
        found.append((f"{name} alone", duration(seconds), "", of_floor))
    if memory:
        text = f"{memory / 1e9:.2f} GB reserved, in micro-batches of {result['micro_batch_tokens']:,} tokens"
        found.append(("its peak memory", text, "", ""))
    return found


def lines(result: dict) -> list[str]:
    """A result for the console, its parts and notes below it."""
    found = []
    for what, *figures, of_floor in rows(result):
        figures += [f"{of_floor} of the floor"] if of_floor else []
        found.append(f"{what}: {', '.join(filter(None, figures))}")
    return [found[0], *(f"    {line}" for line in [*found[1:], *result.get("notes", ())])]


def table(results: list[dict]) -> list[str]:
    """All results as a Markdown table, under the device and versions that it is true of."""
    names = ("device", "dtype", "torch", "cuda", "python")
    facts = {name: r[name] for r in results for name in names if r.get(name)}
    found = [", ".join(f"{n} {v}" for n, v in facts.items())]
    for p in {r["dtype"]: r["peaks"] for r in results if r.get("peaks")}.values():
        found.append(
            f"copies {p['copy_bandwidth'] / 1e9:,.0f} GB/s, products {p['lowest'] / 1e12:.3g} to "
            f"{p['highest'] / 1e12:.3g} TFLOP/s by shape, a large square {p['square'] / 1e12:.3g}"
        )
    all_rows = [row for result in results for row in rows(result)]
    return [*found, "", *text.table(["what", "measured", "spread", "of the floor"], all_rows)]


def floor_lines(label: str, k) -> list[str]:
    """The floor on an RTX 4090, by phase and by operator: Markdown."""
    peaks, size = floor.RTX_4090, 2  # bytes of bfloat16
    phases = floor.phase_rows(k, size, peaks)
    step = [row[1:] for row in phases if row[0] != "score"]
    phases.append(("a step", *(sum(column) for column in zip(*step))))
    per_token = "config", "phase", "operations a token", "bytes a token", "floor, ns a token"
    of_phases = [(label, p, f"{o:,.0f}", f"{b:,.0f}", f"{s * 1e9:.2f}") for p, o, b, s in phases]
    of_operators = [
        (op.phase, op.name, str(n), f"{op.operations:,}", f"{op.bytes:,}", f"{peaks.seconds(op) * 1e6:.2f}")
        for op, n in (floor.training(k, size) + floor.scoring(k, size)).items()
    ]
    return [
        f"{label}: computed for an RTX 4090 from its published peaks, not measured:",
        f"{peaks.square / 1e12:.0f} TFLOP/s in bfloat16, {peaks.bandwidth / 1e12:.1f} TB/s;",
        f"at most {1 / phases[-1][3]:,.0f} training tokens/s",
        "",
        *text.table(per_token, of_phases),
        "",
        *text.table(["phase", "operator", "times", "operations", "bytes", "floor, us"], of_operators),
    ]


# ---- compare ----


def read_results(path: Path) -> list[dict]:
    """The results of a --json file."""
    found = map(parse_json, read_bytes(path).splitlines())
    found = [r for r in found if isinstance(r, dict) and r.get("schema") == 1 and sound(r)]
    if not found:
        raise GolfError(f"{shown(path)}: no results there; `golf.sh bench --json FILE` makes them")
    return found


def sound(result: dict) -> bool:
    """Whether a result has the fields that `compare` reads."""
    samples, what = result.get("samples"), result.get("what")
    if what not in PARTS or not isinstance(samples, list) or not samples:
        return False
    names = {"score": ("tokens", "wanted_tokens"), "train": ("tokens",), "data": ("tokens",)}
    figures = [*samples, *(result.get(name) for name in names.get(what, ()))]
    words = [result.get("label"), result.get("name") or ""]
    return all((number(x) or 0) > 0 for x in figures) and all(isinstance(w, str) for w in words)


def pairs(before: list[dict], after: list[dict]) -> list[tuple[dict, dict]]:
    """Pairs of results of the same part and configuration; two single results pair whatever theirs is."""

    def key(result):
        return tuple(str(result.get(name, "")) for name in ("what", "name", "label"))

    if len(before) == len(after) == 1 and key(before[0])[:2] == key(after[0])[:2]:
        return [(before[0], after[0])]
    later = {key(result): result for result in after}
    return [(result, later[key(result)]) for result in before if key(result) in later]


def compare(before: list[dict], after: list[dict]) -> list[str]:
    """A line for each pair: how many times as fast the second is (per token, if both state their tokens).

    The range is that of the quartiles' ratios; if 1 lies in it, the two are within noise.
    """
    found = []
    for a, b in pairs(before, after):
        (a1, a2, a3), (b1, b2, b3) = quartiles(a["samples"]), quartiles(b["samples"])
        tokens = number(a.get("tokens")), number(b.get("tokens"))
        per_token = tokens[1] / tokens[0] if all(tokens) else 1.0
        low, ratio, high = (x * per_token for x in (a1 / b3, a2 / b2, a3 / b1))
        if 1 in (len(a["samples"]), len(b["samples"])):
            verdict = "measured once: its noise is unknown"
        else:
            verdict = "within noise" if low <= 1 <= high else "faster" if ratio > 1 else "slower"
        name = " -> ".join(dict.fromkeys(map(title, (a, b))))
        line = f"{name}: {figure(a)} -> {figure(b)}: "
        line += f"{ratio:.3f}x ({low:.3f} to {high:.3f}), {verdict}"
        found.append("; ".join([line, *differences(a, b)]))
    return found or ["nothing to compare: the files have no part and configuration in common"]


def differences(a: dict, b: dict) -> list[str]:
    """What differs between two results besides the script: each may explain a difference in speed."""
    names = [name for name in ("device", "dtype", "torch") if a.get(name) != b.get(name)]
    found = [f"{name} differs: {a.get(name)}, {b.get(name)}" for name in names]
    before, after = (mapping(r, "config") for r in (a, b))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            values = (c.get(name, "the default") for c in (before, after))
            found.append(f"{name} differs: {', '.join(map(str, values))}")
    return found
