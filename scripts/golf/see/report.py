"""Write report.html into a run's folder: settings, curves, bytes and samples in one file, without network.

`golf.sh run` does this at the end of every run, unless REPORT=0; the command is for runs of a bare trainer.
"""

import base64
import shlex
import time
from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np

from golf.core.bar import Talker
from golf.core.errors import GolfError
from golf.core.files import replace_file
from golf.core.json_io import dig, mapping, number
from golf.core.paths import REPO, path_argument, shown
from golf.core.picture import drawn
from golf.core.runlog import no_run
from golf.core.submission import command_line
from golf.run.summary import summary
from golf.see import explain, history, page, plot, reader, sample
from golf.see.history import History

SAMPLES, SAMPLE_TOKENS, SAMPLE_SECONDS = 3, 80, 15.0  # a slow script's sample ends after so long
FEW_TOKENS = 20  # fewer are not shown
NAME = "report.html"


def add_arguments(parser) -> None:
    parser.add_argument("run", type=path_argument, metavar="RUN", help="a run's folder: runs/<RUN_ID>")


def main(args) -> int:
    if not (args.run / "metrics.jsonl").is_file():
        raise no_run(args.run, "no metrics.jsonl there; give a run's folder")
    with Talker("golf report") as talker:
        talker.begin("report")
        replace_file(args.run / NAME, build(args.run))
    print(f"wrote {shown(args.run / NAME)}")
    return 0


def build(run: Path) -> str:
    """The page. What cannot be told is said to be missing, and why."""
    h = history.read(run)
    lines = [line for line in summary(run) if not line.startswith(("score ", "files "))]
    text = page.render(
        "report.html",
        title=f"{h.name}: report",
        name=h.name,
        val_bpb=h.val_bpb,
        facts=[line.split(maxsplit=1) for line in lines],
        curves=page.section(lambda: pictures(plot.panels([h]))),
        samples=page.section(lambda: samples(reader.find(run))),
        bytes=page.section(lambda: where_bytes_went(run)),
        changes=history.changes(h),
        knobs=sorted(h.config.items()),
        command=command(h),
        hashes=hashes(h),
    )
    return text.replace(escape(f"{REPO}/"), "")  # whose home it lies in is private


def pictures(panels: list[Callable]) -> list[str]:
    """Each panel as the address of an image: nothing in it is run."""
    images = (base64.b64encode(drawn([panel])).decode() for panel in panels)
    return [f"data:image/svg+xml;base64,{image}" for image in images]


def samples(target: reader.Target) -> list[str]:
    """Three texts that the model writes from nothing, seeds 1 to 3."""
    tokenizer, found = reader.load_tokenizer(target.tokenizer), []
    with reader.opened(target, fast=True) as model:
        for seed in range(1, SAMPLES + 1):
            rng, end = np.random.default_rng(seed), time.monotonic() + SAMPLE_SECONDS
            parts = []
            for part in sample.write(model, tokenizer, "", SAMPLE_TOKENS, 0.8, 0, rng):
                parts.append(part)
                if time.monotonic() > end:
                    break
            if len(parts) < FEW_TOKENS:
                break
            found.append("".join(parts).strip())
    if not found:
        raise GolfError(f"its script gives {len(parts)} tokens in {SAMPLE_SECONDS:.0f} s")
    return found


def where_bytes_went(place: Path) -> dict:
    """The picture and table of explain, by kind, of a run or an entry."""
    found, budget = explain.read(place)
    parts = explain.parts_of(found)
    return dict(
        pictures=pictures(explain.panels(found, budget)),
        head=explain.HEAD,
        rows=[part.cells(found.file_bytes) for part in explain.by_kind(parts)],
        notes=["The last three columns: bits a weight.", *explain.growth(found, parts)],
    )


def command(h: History) -> str:
    """What to type to have the run again, from the repository's root."""
    config, trainer = h.origin.get("config"), h.origin.get("trainer")
    if not isinstance(config, str) or not isinstance(trainer, str):
        unset, own = ("", None), ("RUN_ID", "OUT_DIR")
        env = {n: str(v) for n, v in h.config.items() if v not in unset and n not in own}
        return command_line(env, ["python3", str(dig(h.facts, "start", "script"))])
    words = ["bash", "scripts/golf.sh", "run", config]
    words += [] if trainer == "train_gpt.py" else ["--trainer", trainer]
    return f"{shlex.join(words)} {history.changes(h)}".strip()


def hashes(h: History) -> list[tuple]:
    """Hardware, versions, and the SHA-256 of script, artifact and data."""
    start, names = h.facts.get("start", {}), {"name": "data", "val_sha256": "validation data"}
    rows = [("hardware", start.get("hardware")), ("device", start.get("device"))]
    rows += mapping(start, "versions").items()
    rows.append((start.get("script"), f"sha256 {start.get('script_sha256')}"))
    rows.append(("artifact", f"sha256 {dig(h.facts, 'export', 'artifact_sha256')}"))
    for name, value in mapping(start, "data").items():
        label = names.get(name, name.removesuffix("_sha256"))
        rows.append((label, f"sha256 {value}" if name.endswith("_sha256") else value))
    if 0 < (began := number(dig(start, "time")) or 0.0) < 1e11:
        rows.append(("began", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began))))
    return rows
