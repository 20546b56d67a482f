"""Retrain an entry without validation data, and compare its score with the claimed one.

A score does not show how the artifact was made. This trains the entry's own script again, with its own
variables and seeds, for as long as the track allows, in a sandbox without validation text. Then the official
scorer scores the new artifact. docs/scoring.md has the rules. Exit code 0: no FAIL, 1: FAIL, 2: this machine
cannot tell. Needs Linux with bubblewrap.
"""

import json

from golf.core.files import replace_file
from golf.core.findings import LEVELS, RULING
from golf.core.paths import REPO, path_argument, shown
from golf.core.submission import require_folder


def add_arguments(parser) -> None:
    add = parser.add_argument
    add("folder", type=path_argument, metavar="FOLDER", help="an entry's folder")
    add("--seed", type=int, metavar="N", help="retrain this seed only; default: all")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: what the entry used")
    add("--data", type=path_argument, metavar="DIR", help="the token shards; default: data/datasets/<name>")
    add("--steps", action="store_true", help="train for as many steps as its log states, without a clock")


def main(args) -> int:
    from golf.verify.comparison import verify  # here: other commands do without its packages

    require_folder(args.folder)
    out = REPO / "runs" / f"verify-{args.folder.resolve().name}"
    report = verify(args.folder, out, seed=args.seed, device=args.device, data=args.data, by_steps=args.steps)
    replace_file(out / "verify.json", json.dumps(report, indent=1) + "\n")
    print("\n".join(table(report)))
    print(f"{report['verdict']} {report['folder']} retrained; {shown(out)}/verify.json; {RULING}")
    return int(report["verdict"] == "FAIL")


def table(report: dict) -> list[str]:
    lines = [f"{report['folder']}: retrained on {report['device']}, {report['machine']}"]
    lines.append(f"{'seed':>8} {'claimed':>9} {'retrained':>9} {'steps':>13} {'seconds':>8}")
    for s in report["seeds"]:
        steps = "/".join("?" if n is None else f"{n:.0f}" for n in (s["steps"], s["claimed_steps"]))
        scores = f"{s['claimed']:>9.4f} {s['retrained']:>9.4f}"
        lines.append(f"{s['seed']:>8} {scores} {steps:>13} {s['seconds']:>8.0f}")
    return lines + [f"{LEVELS[r['passed']]:<11} {r['id']:<14} {r['figure']}" for r in report["rules"]]
