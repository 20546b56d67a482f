"""What the pull-request workflow runs: check the submission that a pull request adds, then score it.

`ci check BASE` compares the commit that is checked out in --root with BASE. A pull request that
touches no submission's folder passes: the tests judge it. One that does may touch a single folder
and nothing else, and that folder is checked by this repository's tools, not by the pull request's.
`ci score FOLDER` scores it in a sandbox, or says why it does not. Findings are annotations
(::error file=...::) for GitHub Actions. Exit code 0: no error, 1: errors, 2: used wrongly.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import REPO, GolfError, check, shown, track
from .runlog import dig, parse_json

COMMANDS = {check.FAIL: "error", check.HUMAN: "warning", check.NOTE: "notice"}
FOLDERS_CHECKED = 5
OUTSIDE_SHOWN = 5


@dataclass(frozen=True)
class Remark:
    """One annotation: a finding's level and rule, at a path of the pull request."""

    level: str
    rule: str
    message: str
    path: str

    def __str__(self) -> str:
        place = f"file={escape(self.path, ':,')},title={escape(self.rule, ':,')}"
        return f"::{COMMANDS[self.level]} {place}::{escape(self.message)}"


def escape(text: str, more: str = "") -> str:
    """Text for a workflow command: its special characters and line ends as %XX."""
    text = re.sub(rf"[%\r\n{more}]", lambda c: f"%{ord(c[0]):02X}", text)
    return "".join(c if c.isprintable() else "?" for c in text)


def add_arguments(parser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    one = steps.add_parser("check", help="the submission that HEAD adds to BASE")
    one.add_argument("base", metavar="BASE", help="a commit, or any name of one")
    one.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="the checkout")
    one = steps.add_parser("score", help="two segments of one seed, by chance, on the CPU")
    one.add_argument("folder", type=Path, metavar="FOLDER", help="the submission's")


def main(args) -> int:
    return check_change(args.base, args.root) if args.step == "check" else score(args.folder)


# ---- check


def check_change(base: str, root: Path) -> int:
    root = Path(git(root, "rev-parse", "--show-toplevel").strip())
    commit = git(root, "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}").strip()
    paths = changed_paths(root, commit)
    folders = submission_folders(paths)
    if not folders:
        print("no submission's folder is touched: nothing to check here, the tests judge the rest")
        return 0
    remarks = list(misplaced(paths, folders))
    for folder in folders[:FOLDERS_CHECKED]:
        remarks += check_folder(root, folder, commit)
    for remark in remarks:
        print(remark)
    failed = any(remark.level == check.FAIL for remark in remarks)
    if not failed:
        set_outputs(folder=folders[0], data=rules_of(folders[0])["data"]["name"])
    print(f"{'FAIL' if failed else 'PASS'} {', '.join(map(ascii, folders))}; {check.RULING}")
    return int(failed)


def git(root: Path, *args: str) -> str:
    """What a git command prints. File names may hold any byte."""
    command = ["git", "-C", str(root), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape")
    except OSError as error:
        raise GolfError(f"git cannot be run: {error.strerror}", 2) from None
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["it found nothing"])[-1]
        hint = "BASE must be a commit here, with the history between (fetch-depth: 0)"
        raise GolfError(f"git {args[0]} in {shown(root)}: {why}; {hint}", 2)
    return done.stdout


def changed_paths(root: Path, base: str) -> list[str]:
    """Every path that HEAD adds, changes or deletes since it parted from `base`."""
    fork = git(root, "merge-base", base, "HEAD").strip()
    listed = git(root, "diff", "--name-only", "--no-renames", "-z", fork, "HEAD")
    return [path for path in listed.split("\0") if path]


def submission_folders(paths: Iterable[str]) -> list[str]:
    """records/<track>/<folder> of each path below such a folder."""
    parts = (path.split("/") for path in paths)
    return sorted({"/".join(p[:3]) for p in parts if p[0] == "records" and len(p) > 3})


def misplaced(paths: list[str], folders: list[str]) -> Iterable[Remark]:
    if len(folders) > 1:
        message = f"{len(folders)} submission folders are touched; one pull request adds one"
        for folder in folders[:OUTSIDE_SHOWN]:
            yield Remark(check.FAIL, "one-folder", message, folder)
    outside = [path for path in paths if not path.startswith(tuple(f"{f}/" for f in folders))]
    for path in outside[:OUTSIDE_SHOWN]:
        message = f"outside the submission's folder, with {len(outside)} such files in all; "
        message += "leave them out, or send them as a pull request of their own"
        yield Remark(check.FAIL, "outside", message, path)


def check_folder(root: Path, folder: str, base: str) -> list[Remark]:
    """The check's findings on a folder, by the track of this repository, not of the change."""
    _, track_name, name = folder.split("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        message = "the folder's name needs letters, digits, dots, - and _ alone; rename it"
        return [Remark(check.FAIL, "file-name", message, folder)]
    if track_name not in track.names():
        message = f"there is no such track; there are: {', '.join(track.names())}"
        return [Remark(check.FAIL, "track", message, folder)]
    if not (root / folder).is_dir():
        return [Remark(check.FAIL, "removed", "removes an entry; maintainers do that", folder)]
    remarks = []
    if git(root, "ls-tree", base, "--", folder):
        message = "changes an entry that is there already; is it its author's own, and why?"
        remarks.append(Remark(check.HUMAN, "changed", message, folder))
    claim = f"{folder}/submission.json"
    place = claim if (root / claim).is_file() else folder
    found = check.check_folder(root / folder, rules_of(folder)).findings
    return remarks + [Remark(f.level, f.rule, f.message, place) for f in found]


def rules_of(folder: str | Path) -> dict:
    return track.load(Path(folder).parent.name)


def set_outputs(**values: str) -> None:
    """For later steps of the workflow; the values hold no line ends."""
    if path := os.environ.get("GITHUB_OUTPUT"):
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in values.items())


# ---- score


def score(folder: Path) -> int:
    """`golf.sh score --quick` on the CPU; not scoring is a warning, which a reviewer sees."""
    from . import sandbox  # here: `check` does without what it needs

    place = "/".join(folder.parts[-3:])
    path = folder / "submission.json"
    if not path.is_file():
        raise GolfError(f"{shown(path)}: no such file; give a submission's folder", 2)
    seeds = dig(parse_json(path.read_bytes()), "seeds")
    if not isinstance(seeds, list) or not any(dig(seed, "artifact") for seed in seeds):
        print(Remark(check.NOTE, "not-rescorable", "ships no artifact, so it is not scored", place))
        return 0
    if why := sandbox.why_not():
        print(Remark(check.HUMAN, "not-scored", f"not scored: {why}", place))
        return 0
    code, report = run_score(folder)
    if report is None:
        level = check.FAIL if code == 1 else check.HUMAN
        print(Remark(level, "not-scored", "could not be scored; the log above says why", place))
        return int(level == check.FAIL)
    for rule in report_rules(report):
        text = f"{rule['figure']}: {rule['sentence']}"
        if rule["passed"]:
            print(f"PASS {rule['id']}: {text}")
        else:
            level = check.HUMAN if rule["passed"] is None else check.FAIL
            print(Remark(level, rule["id"], text, place))
    print(f"{report['verdict']} {place}; {report['ruling']}")
    return code


def run_score(folder: Path) -> tuple[int, dict | None]:
    """Exit code and report of golf score; what is printed meanwhile gives GitHub no commands."""
    place = str(folder.resolve())
    words = ["score", place, "--track", rules_of(folder)["name"], "--quick", "--json"]
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}", flush=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "golf", *words, "--device", "cpu"],
            stdout=subprocess.PIPE,
            cwd=REPO,  # -m imports from where it stands, which may be the submission's folder
        )
    finally:
        print(f"\n::{token}::", flush=True)
    report = parse_json(done.stdout)
    return done.returncode, report if isinstance(report, dict) else None


def report_rules(report: dict) -> list[dict]:
    return [*report["rules"], *(rule for seed in report["seeds"] for rule in seed.get("rules", []))]
