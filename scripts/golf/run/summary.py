"""Show what a finished run came to: score, bytes, seconds, files."""

import statistics
from pathlib import Path

from golf.core.json_io import dig, number
from golf.core.paths import path_argument, shown
from golf.core.runlog import no_run, packing, read_run
from golf.core.text import columns, printable

ENOUGH_STEPS = 20  # fewer, and a model has learned next to nothing
NOTES = {
    "partial": "fewer targets than the challenge scores",
    "resumed": "went on from a checkpoint",
    "interrupted": "training was stopped early",
}


def add_arguments(parser) -> None:
    parser.add_argument("run", type=path_argument, metavar="RUN_DIR", help="a run's folder: runs/<RUN_ID>")
    parser.add_argument("--expect", metavar="RANGE", help="the val_bpb to expect: printed beside the score")


def main(args) -> int:
    if not read_run(args.run):
        raise no_run(args.run, "no metrics.jsonl with events there; give the folder of a run")
    print("\n".join(["", headline(args.run), *summary(args.run, args.expect)]))
    return 0


def summary(run_dir: Path, expect: str | None = None) -> list[str]:
    """Lines of a run's score, bytes, seconds and folder, by metrics.jsonl; what is missing is left out."""
    facts = read_run(run_dir)
    score = facts.get("sliding") or facts.get("roundtrip") or {}
    export, lines = facts.get("export", {}), []
    if number(dig(score, "val_bpb")) is not None:
        aside = f"  (expect {expect})" if expect else "  (bits per byte, lower is better)"
        lines.append(f"score    val_bpb {score['val_bpb']:.4f}{aside}")
    notes = dig(score, "notes")
    if isinstance(notes, list) and notes:
        lines.append(f"noted    {'; '.join(map(in_words, notes))}")
    if found := packing(facts):
        figures = "{:.4f} unpacked, {:.4f} packed (plain windows as in training)".format(*found)
        lines.append(f"packing  val_bpb {figures}: {found[1] - found[0]:+.4f}")
    names = ("bytes_total", "bytes_code", "bytes_model", "cap", "headroom")
    total, code, model, cap, room = (number(dig(export, name)) for name in names)
    if None not in (total, code, model):
        text = f"bytes    {total:,.0f} = code {code:,.0f} + model {model:,.0f}"
        if cap and room is not None:
            text += f"; cap {cap:,.0f}, {room:,.0f} to spare"
        lines.append(text)
    phases = {"setup": "end", "train": "train_end", "export": "export", "eval": "end"}
    seconds = [(p, number(dig(facts, event, f"{p}_seconds"))) for p, event in phases.items()]
    if any(s is not None for _, s in seconds):
        text = ", ".join(f"{p} {s:.1f}" for p, s in seconds if s is not None)
        lines.append(f"seconds  {text}; on {dig(facts, 'start', 'hardware')}")
    lines.append(f"files    {shown(run_dir)}/ (train.log, metrics.jsonl, the artifact, the script)")
    return list(map(printable, lines))


def headline(run_dir: Path) -> str:
    """One sentence for a newcomer: it worked, or the training was too short for the score to mean much."""
    facts = read_run(run_dir)
    end = facts.get("train_end")
    steps, seconds = number(dig(end, "step")), number(dig(end, "train_seconds"))
    if not (facts.get("sliding") or facts.get("roundtrip")):
        return "Not scored: the run is still going, or ended before; the end of its train.log says which."
    if steps is None or steps >= ENOUGH_STEPS or dig(end, "reason") == "iterations":
        return "Done: a language model was trained, packed into one small file, and that file was scored."
    begin = f"Only {steps:.0f} steps" + (f" in {seconds:.0f} s" if seconds else "")
    if dig(end, "reason") == "interrupted":
        return f"{begin}, since training was stopped early: the score means little."
    return (
        f"{begin}: this machine was too busy or too slow to learn in that time. All parts work, but the\n"
        "score means little; call this again when it is idle, or with MAX_WALLCLOCK_SECONDS=300 before it."
    )


def in_words(note) -> str:
    kind, _, name = str(note).partition("=")
    if kind == "data":
        return f"scored on {name}: compare with scores on the same data only"
    return NOTES.get(kind, kind)


def seed_table(rows: list[tuple[str, Path]]) -> list[str]:
    """One line per seed (val_bpb, bytes, training seconds), then mean and standard deviation."""
    table, scores = [["seed", "val_bpb", "bytes", "seconds"]], []
    for seed, run_dir in rows:
        facts = read_run(run_dir)
        bpb = number(dig(facts, "sliding", "val_bpb"))
        size = number(dig(facts, "export", "bytes_total"))
        seconds = number(dig(facts, "train_end", "train_seconds"))
        if bpb is None or size is None or seconds is None:
            table.append([seed, "no score", "", f"see {shown(run_dir)}/train.log"])
            continue
        scores.append(bpb)
        table.append([seed, f"{bpb:.6f}", f"{size:,.0f}", f"{seconds:.1f}"])
    if scores:
        table.append(["mean", f"{statistics.fmean(scores):.6f}", "", ""])
    if len(scores) > 1:
        table.append(["std", f"{statistics.stdev(scores):.6f}", "", ""])
    return columns(table, right=range(4))
