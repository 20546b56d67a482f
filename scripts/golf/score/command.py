"""Score a submission again from its artifact, in a sandbox, and audit the score.

The scorer owns the stream, the targets and the byte counts. The submission's script only predicts
the next token, in a sandbox. The result is the official score beside the claimed one, and the audit's
findings. Exit code 0: no FAIL, 1: FAIL, 2: wrong usage.
"""

import json
from pathlib import Path

from golf.core.files import replace_file
from golf.core.findings import LEVELS, NOTE, PASS
from golf.core.paths import REPO, path_argument, shown
from golf.core.submission import require_folder

NO_SANDBOX = (
    "NO SANDBOX: this submission's code runs as you. It can read, change and send whatever you can. "
    "Run only code that you have read."
)

DUE = "whole-score-due"  # passes, and names what scoring a part cannot show


def add_arguments(parser) -> None:
    add = parser.add_argument
    add("folder", type=path_argument, metavar="FOLDER", help="a submission's")
    add("--track", metavar="NAME", help="for a folder outside records/<track>/")
    add("--data", type=path_argument, metavar="DIR", help="the shards' folder")
    add("--device", choices=("auto", "cpu", "cuda", "mlx"), default="auto",
        help="where its script runs; auto: cuda if there, else cpu; mlx")  # fmt: skip
    add("--seed", type=int, metavar="N", help="this seed alone (default: all)")
    add("--targets", type=int, metavar="N", help="only the first N targets; no verdict")
    add("--quick", action="store_true", help="one random seed, parts of a long stream, a shorter audit")
    add("--holdout", type=path_argument, metavar="DIR",
        help="private validation shards for the held-out test (golf.sh holdout)")  # fmt: skip
    add("--no-sandbox", action="store_true", help="run its code as yourself: only code that you read")
    add("--json", action="store_true", help="audit.json on stdout, no file")


def main(args) -> int:
    from golf.score.scorer import score  # here: other commands do without its packages

    require_folder(args.folder)
    # In runs/: nothing is written into a submission's folder. A disk that refuses does so before hours pass.
    path = report_path(args.folder)
    if not args.json:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
    report = score(args.folder, track_name=args.track, data=args.data, device=args.device, seed=args.seed,
                   targets=args.targets, quick=args.quick, holdout=args.holdout,
                   sandboxed=not args.no_sandbox)  # fmt: skip
    if args.json:
        print(json.dumps(report, indent=1, allow_nan=False))
    else:
        path.parent.mkdir(exist_ok=True)  # a folder that is refused leaves none
        replace_file(path, json.dumps(report, indent=1, allow_nan=False) + "\n")
        print(table(report))  # last: whoever reads it may end before it does
        where = f"{report['folder']} on {report['track']}; {shown(path)}"
        print(f"{report['verdict']} {where}; {report['ruling']}")
    return int(report["verdict"] == "FAIL")


def report_path(folder: Path) -> Path:
    return REPO / "runs" / f"score-{folder.resolve().name}" / "audit.json"


def table(report: dict) -> str:
    lines = [f"{report['folder']}: {report['mode']} score on {report['device']}, {report['machine']}"]
    if report["sandbox"] == "none":
        lines.append(NO_SANDBOX)
    lines += map(rule_line, report["rules"])
    for seed in report["seeds"]:
        lines.append(f"\nseed {seed['seed']}   {'claimed':>12} {'official':>12}")
        for name in ("val_loss", "val_bpb"):
            official = seed["official"][name] if seed["official"] else None
            cells = ("-" if v is None else f"{v:.8f}" for v in (seed["claimed"][name], official))
            lines.append("{:<11} {:>12} {:>12}".format(name, *cells))
        lines.append(
            f"{seed['targets']:,} targets scored, {seed['fed']:,} fed in {seed['score_seconds']:.1f} s after "
            f"{seed['load_seconds']:.1f} s of loading; {seed['peak_memory_bytes'] >> 20:,} MiB at most"
        )
        lines += map(rule_line, seed["rules"])
    return "\n".join(lines)


def level_of(rule: dict) -> str:
    return NOTE if rule["id"] == DUE else LEVELS[rule["passed"]]


def rule_line(rule: dict) -> str:
    level = level_of(rule)
    sentence = "" if level == PASS else f": {rule['sentence']}"  # audit.json has all of them
    return f"{level:<11} {rule['id']:<14} {rule['figure']}{sentence}"
