"""What the pull-request workflow runs: check the submission that a pull request adds, then score it.

`ci check BASE` compares the commit checked out in --root with BASE. A pull request that touches nothing
under records/ passes: the tests judge it. Any other may add one new entry folder and nothing else, which
this repository's tools check, never the pull request's own. github_id must be who opened the pull request
(PULL_LOGIN, PULL_ID). `ci score FOLDER` scores the entry in a sandbox, and fails if nothing was scored.
Findings become annotations (::error file=...::) and the job's page. Exit code 0: no error, 1: errors, 2:
wrong usage.
"""

import os
import re
import secrets
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

from golf.board import ci_changes, ci_summary
from golf.board.ci_changes import Change, fail, git, looks, same_name
from golf.check import command as check
from golf.check import names as check_names
from golf.check import record as check_record
from golf.core import submission, track
from golf.core.findings import FAIL, HUMAN, NOTE, RULING, Finding
from golf.core.json_io import dig, number, parse_json
from golf.core.paths import REPO, path_argument
from golf.core.text import printable

COMMANDS = {FAIL: "error", HUMAN: "warning", NOTE: "notice"}
WHOLE_IS_DUE = (
    "two parts of one seed were scored here; the whole score, of every seed, is due: a maintainer runs "
    "scripts/golf.sh score before or after merging"
)


def annotation(remark: Finding) -> str:
    place = f"file={escape(remark.path, ':,')},title={escape(remark.rule, ':,')}"
    return f"::{COMMANDS[remark.level]} {place}::{escape(remark.message)}"


def escape(text: str, more: str = "") -> str:
    """Text for a workflow command: its special characters and line ends as %XX."""
    text = re.sub(rf"[%\r\n{more}]", lambda c: f"%{ord(c[0]):02X}", text)
    return printable(text)


def say(line: str) -> None:
    """Prints a line in which untrusted text cannot act as a workflow command."""
    print(printable(line).replace("::", ": :").replace("##[", "# #["))


def add_arguments(parser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    one = steps.add_parser("check", help="the submission that HEAD adds to BASE")
    one.add_argument("base", metavar="BASE", help="a commit, or any name of one")
    one.add_argument("--root", type=path_argument, default=Path(), metavar="DIR", help="the checkout")
    one = steps.add_parser("score", help="two segments of one seed, by chance, on the CPU")
    one.add_argument("folder", type=path_argument, metavar="FOLDER", help="the submission's")


def main(args) -> int:
    return check_change(args.base, args.root) if args.step == "check" else score(args.folder)


# ---- check


def check_change(base: str, root: Path) -> int:
    root = Path(git(root, "rev-parse", "--show-toplevel").strip())
    commit = git(root, "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}").strip()
    changes = ci_changes.read_changes(root, commit)
    entries = ci_changes.entries_of(changes)
    remarks = ci_changes.remarks(root, commit, changes)
    if not entries and not remarks:
        print("nothing under records/ is touched: nothing to check here, the tests judge the rest")
        return 0
    bad = {remark.path for remark in remarks if remark.rule in ("track", "file-name")}
    for entry in entries[: ci_changes.SHOWN]:
        if entry not in bad and (root / entry).is_dir() and not (root / entry).is_symlink():
            remarks += check_folder(root, entry, changes)
    for remark in remarks:
        print(annotation(remark))
    failed = not entries or any(remark.level == FAIL for remark in remarks)
    verdict, names = "FAIL" if failed else "PASS", ", ".join(map(ascii, entries)) or "no entry"
    ci_summary.write(ci_summary.of_findings(names, verdict, remarks))
    if not failed:
        set_outputs(folder=entries[0], data=rules_of(entries[0])["data"]["name"])
    say(f"{verdict} {names[:500]}" + ("" if failed else f"; {RULING}"))
    return int(failed)


def check_folder(root: Path, entry: str, changes: list[Change]) -> list[Finding]:
    """The check's findings on a folder, by the track of this repository, not of the change."""
    claim_path = f"{entry}/submission.json"
    place = claim_path if (root / claim_path).is_file() else entry
    remarks = []
    for finding in check.check_folder(root / entry, rules_of(entry)).findings:
        # what is published already was so before this pull request
        again = finding.rule == "log-twice"
        remarks.append(replace(finding, level=FAIL if again else finding.level, path=place))
    for change in changes:
        if ci_changes.entry_of(change.path) == entry and check_names.left_behind(change.path):
            remarks.append(fail("file-unlisted", "a system or Python left it behind; delete it", change.path))
    return remarks + author(root / entry, place)


def rules_of(folder: str | Path) -> dict:
    return track.load(Path(folder).parent.name)


def author(folder: Path, place: str) -> list[Finding]:
    """github_id opened the pull request, and the author's name is nobody else's."""
    try:
        claim = submission.read_claim(folder)
    except submission.ClaimError:
        return []  # `json` says so
    if mixed(claim.get("author")):
        text = f"author {ascii(claim.get('author'))[:60]} has letters of two alphabets in a word; use one"
        return [fail("author", text, place)]
    stated = same_name(claim.get("github_id"))
    login, number = (same_name(os.environ.get(name)) for name in ("PULL_LOGIN", "PULL_ID"))
    login = "" if number and login.isdigit() else login  # such a login would be another's number
    if not number:
        if os.environ.get("GITHUB_ACTIONS") == "true":
            return [fail("author", "PULL_LOGIN and PULL_ID are not set: see submission.yml", place)]
        say("PULL_LOGIN and PULL_ID are not set: github_id is compared with nobody")
    elif not stated or stated not in (login, number):
        who = login or number
        text = f"github_id {ascii(claim.get('github_id'))[:60]} did not open this pull request, {who} did"
        return [fail("author", f"{text}; state your own, or have its author open it", place)]
    for other in (c for t in track.names() for _, c in submission.claims(track.RECORDS / t)):
        owner = same_name(other.get("github_id"))
        names = (looks(owner), looks(other.get("author")))
        if owner not in (stated, login, number) and looks(claim.get("author")) in names:
            text = f"author {ascii(claim.get('author'))[:60]} reads as the name of entries by"
            return [fail("author", f"{text} {ascii(owner)[:60]}; state your own", place)]
    return []


# Names of letters that words of Latin ones hold in some languages: of no look-alike of those.
WITH_LATIN = {*"LATIN MODIFIER FEMININE MASCULINE CJK HIRAGANA KATAKANA HANGUL BOPOMOFO".split()}


def mixed(value) -> bool:
    """Whether a word of a name has Latin letters beside others that may look like them."""
    words = re.findall(r"[^\W\d_]+", value if isinstance(value, str) else "")
    alphabets = ({unicodedata.name(c, "?").split()[0] for c in word} for word in words)
    return any("LATIN" in found and found - WITH_LATIN for found in alphabets)


def set_outputs(**values: str) -> None:
    """For later steps of the workflow; the values hold no line ends."""
    if path := os.environ.get("GITHUB_OUTPUT"):
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in values.items())


# ---- score


def score(folder: Path) -> int:
    """Runs `golf.sh score --quick` on the CPU. What was not scored fails: it must not look green."""
    from golf.score.command import level_of  # here: `check` does without what they need
    from golf.score.sandbox import bwrap as sandbox

    place = "/".join(folder.parts[-3:])
    try:
        seeds = dig(submission.read_claim(folder), "seeds")
    except submission.ClaimError as error:
        if error.reason == submission.MISSING:
            raise
        return not_scored(folder, place, f"submission.json {error.reason}")
    if not isinstance(seeds, list) or not any(dig(seed, "artifact") for seed in seeds):
        text = "it ships no artifact; a maintainer may merge such an entry, which has no rank, by hand"
        return not_scored(folder, place, text)
    if why := sandbox.why_not():
        return not_scored(folder, place, why)
    code, report = run_score(folder)
    if report is None or not any(number(dig(seed, "targets")) for seed in report["seeds"]):
        return not_scored(folder, place, "the score ended without a result; the log above says why")
    for rule in ci_summary.rules_of(report):
        level, text = level_of(rule), f"{rule['figure']}: {rule['sentence']}"
        if rule["passed"]:
            say(f"{level} {rule['id']}: {text}")
        else:
            print(annotation(Finding(level, rule["id"], text, path=place)))
    failed = code != 0 or dig(report, "verdict") not in ("PASS", HUMAN)
    if not failed:
        print(annotation(Finding(NOTE, "quick", WHOLE_IS_DUE, path=place)))
    verdict = FAIL if failed else report["verdict"]
    ci_summary.write([*ci_summary.of_score(folder, report, verdict, record_rule(folder)), "", WHOLE_IS_DUE])
    say(f"{verdict} {place}")
    return int(failed)


def not_scored(folder: Path, place: str, why: str) -> int:
    print(annotation(fail("not-scored", f"not scored: {why}", place)))
    verdict = f"not scored: {ci_summary.text(why, 300)}"
    ci_summary.write(ci_summary.of_score(folder, None, verdict, "not asked"))
    return 1


def record_rule(folder: Path) -> str:
    """What check --record says, in one line."""
    checked = check.check_folder(folder, rules_of(folder))
    if not checked.ranked:
        return "not asked: records are made in the record lane"
    check_record.against_best(checked, check.is_valid)
    return next((f"{f.level}: {f.message}" for f in checked.findings if f.rule == "record"), "not asked")


def run_score(folder: Path) -> tuple[int, dict | None]:
    """Exit code and report of golf score; what is printed meanwhile gives GitHub no commands."""
    place = str(folder.resolve())
    words = ["score", place, "--track", rules_of(folder)["name"], "--quick", "--json"]
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}", flush=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "golf.cli", *words, "--device", "cpu"],
            stdout=subprocess.PIPE,
            cwd=REPO,  # -m imports from where it stands, which may be the submission's folder
        )
    finally:
        print(f"\n::{token}::", flush=True)
    report = parse_json(done.stdout)
    whole = isinstance(dig(report, "seeds"), list) and isinstance(dig(report, "rules"), list)
    return done.returncode, report if whole else None
