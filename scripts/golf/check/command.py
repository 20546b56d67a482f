"""Check a submission folder against its track, without running anything in it.

Prints all findings at once, each as `LEVEL rule-id: what to do (rule n.m of docs/track_spec.md)`. FAIL
blocks the submission. NEEDS-HUMAN asks a reviewer. NOTE is advice. --record also tests the record rule
against the track's best entry. Exit code 0: no FAIL, 1: FAIL, 2: wrong usage.
"""

import json
from pathlib import Path

from golf.check import claims, code, figures, files, repeat
from golf.check import record as check_record
from golf.check.folder import Folder
from golf.core import submission, track
from golf.core.errors import GolfError
from golf.core.findings import FAIL, HUMAN, NOTE, ORDER, RULING, verdict
from golf.core.paths import path_argument, shown


def add_arguments(parser) -> None:
    parser.add_argument("folder", type=path_argument, metavar="FOLDER", help="a submission's")
    parser.add_argument("--track", metavar="NAME", help="for a folder outside records/<track>/")
    parser.add_argument("--json", action="store_true", help="findings as one JSON object")
    parser.add_argument("--record", action="store_true", help="ask the record rule as well")


def main(args) -> int:
    submission.require_folder(args.folder)
    rules = track.load(args.track) if args.track else None
    folder = check_folder(args.folder, rules)
    table = check_record.against_best(folder, is_valid) if args.record else []
    if table and not args.json:
        print("\n".join(table), end="\n\n")
    return report(folder, args.json)


def check_folder(place: Path, rules: dict | None = None) -> Folder:
    """Applies every rule to a folder. Raises GolfError (code 2) if it belongs to no track."""
    folder = Folder(place.resolve())
    apply(folder, files.scan_folder, claims.read_claim)
    folder.track = rules or track.of_submission(place, folder.claim)
    apply(folder, *files.RULES, *claims.RULES, *figures.RULES, *repeat.RULES, *code.RULES)
    return folder


def apply(folder: Folder, *rules) -> None:
    for rule in rules:
        try:
            rule(folder)
        except GolfError:  # our setup is at fault, not the folder
            raise
        except Exception as error:  # unforeseen junk must give a finding, not a traceback
            reason = f"{type(error).__name__}: {error}"
            folder.fail("unreadable", f"{rule.__name__} gave up: {reason}; mend or remove what it read")


def is_valid(place: Path, rules: dict) -> bool:
    return all(finding.level != FAIL for finding in check_folder(place, rules).findings)


def report(folder: Folder, as_json: bool) -> int:
    """Prints findings and verdict; returns the exit code."""
    found = sorted(folder.findings, key=lambda finding: ORDER.index(finding.level))
    result = verdict(found)
    if as_json:
        value = {
            "folder": shown(folder.path),
            "track": folder.track["name"],
            "verdict": result,
            "ruling": RULING,
        }
        names = ("level", "rule", "message", "section")
        value["findings"] = [{name: getattr(one, name) for name in names} for one in folder.findings]
        print(json.dumps(value, indent=1))
        return int(result == FAIL)
    for finding in found:
        print(finding)
    levels = [finding.level for finding in found]
    counts = ", ".join(f"{levels.count(level)} {level}" for level in (FAIL, HUMAN, NOTE))
    lane = folder.claim["lane"] if folder.claim.get("lane") in folder.track["lanes"] else "no lane"
    ruling = "" if result == FAIL else f"; {RULING}"
    print(f"{result} {shown(folder.path)} on {folder.track['name']}, {lane} ({counts}){ruling}")
    return int(result == FAIL)
