"""Ranks the entries of a track by lane: those without a FAIL, with copies and records marked."""

import itertools
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from golf.check import command as check
from golf.core import submission, track
from golf.core.errors import GolfError
from golf.core.findings import FAIL
from golf.core.paths import shown
from golf.core.record_rule import compare
from golf.core.text import cell, plain

RECORD_LANE = "record"
SHOWN_NOTES = ("score-note", "own-tokenizer", "data-unpinned")
LAST = 1 << 62  # the order of what is not committed yet


@dataclass
class Entry:
    folder: Path
    claim: dict  # submission.json; empty where that is no object
    faults: list[str]  # rule ids of the check's FAIL findings; with any, no rank
    notes: list[str]
    record: bool = False  # set a record when it came
    merged: int = LAST  # its place in the history of main
    audit: dict | None = None  # what scoring it whole found; None if that was not done, or not so
    copy_of: str | None = None  # the entry, merged before, whose log or artifact it has

    def text(self, name: str, limit: int = 60) -> str:
        value = self.claim.get(name)
        return plain(value, limit) if isinstance(value, str) and value.strip() else "?"

    @property
    def title(self) -> str:
        return self.text("name") if "name" in self.claim else plain(self.folder.name, 60)

    @property
    def unranked(self) -> str | None:
        """Why the entry has no rank; None if it is ranked."""
        if self.faults:
            return f"fails: {', '.join(self.faults)}"
        if not submission.is_complete(self.claim):
            without = [s for s in self.claim.get("seeds", []) if not s.get("artifact")]
            seeds = ", ".join(str(s.get("seed")) for s in without[:9])
            return f"cannot be scored again: no artifact of seed {seeds}"
        if self.copy_of:
            return f"same log or artifact as {cell(self.copy_of)}, merged before"
        return None if self.audit is not None else "claimed: a maintainer has yet to score every seed whole"

    @property
    def order(self) -> tuple:
        """Sort key: entries in the order of merging, then uncommitted ones by date."""
        return self.merged, str(self.claim.get("date")), self.folder.name

    @property
    def scores(self) -> list[float]:
        return [seed["val_bpb"] for seed in self.claim["seeds"]]

    @property
    def losses(self) -> list[float]:
        return [seed["val_loss"] for seed in self.claim["seeds"]]


@dataclass
class Board:
    """A track's ranked entries by lane, best first, and its unranked ones."""

    rules: dict
    lanes: dict[str, list[Entry]]
    unranked: list[Entry]

    @property
    def page(self) -> Path:
        return track.RECORDS / self.rules["name"] / "README.md"

    @property
    def chart_scores(self) -> list[dict]:
        """Reference scores (not entries): name, val_bpb, how each was measured."""
        return self.rules.get("chart_scores", [])


def read_board(name: str) -> Board:
    rules, home = track.load(name), track.RECORDS / name
    merged = merge_order(home)
    entries = [read_entry(folder, rules) for folder in submission.entry_folders(home)]
    for entry in entries:
        entry.merged = merged.get(entry.folder.name, LAST)
        entry.audit = submission.audit_of(entry.folder)
    entries.sort(key=lambda entry: entry.order)
    mark_copies(entries)
    lanes: dict[str, list[Entry]] = {}
    for entry in (e for e in entries if not e.unranked):
        lanes.setdefault(entry.claim["lane"], []).append(entry)
    mark_records(lanes.get(RECORD_LANE, []), rules)
    for ranked in lanes.values():
        ranked.sort(key=lambda e: (e.claim["val_bpb"], e.order))
    lanes = {lane: lanes[lane] for lane in rules["lanes"] if lane in lanes}
    return Board(rules, lanes, [entry for entry in entries if entry.unranked])


def read_entry(folder: Path, rules: dict) -> Entry:
    """Checks a folder. Whatever it holds, the board goes on."""
    try:
        checked = check.check_folder(folder, rules)
    except GolfError:  # our setup is at fault
        raise
    except Exception as error:
        why = f"{type(error).__name__}; listed without a rank"
        print(f"leaderboard: {shown(folder)}: {why}", file=sys.stderr)
        return Entry(folder, {}, ["unreadable"], [])
    findings = [(finding.level, finding.rule) for finding in checked.findings]
    faults = sorted({rule for level, rule in findings if level == FAIL})
    notes = [rule for rule in SHOWN_NOTES if rule in {rule for _, rule in findings}]
    return Entry(folder, checked.claim, faults, notes)


def merge_order(home: Path) -> dict[str, int]:
    """Folder -> when it was merged: the index in main's history of the last commit that added its claim.

    By first-parent history, not by date: an author can write any date into a commit. A claim that was removed
    and comes back as it was keeps its place: the commits of a pull request that is rebased onto main could do
    that to another's entry. Empty outside git.
    """
    words = ["git", "-C", str(home), "log", "--first-parent", "-m", "--reverse", "--diff-filter=AM"]
    words += ["--no-renames", "--relative", "--raw", "--no-abbrev", "--format=%x01", "-z", "--"]
    words.append(":(glob)*/submission.json")
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="surrogateescape")
    except OSError:
        return {}
    commits = done.stdout.split("\x01") if done.returncode == 0 else []
    order, places = {}, {}  # of each folder; of each claim that it ever had
    for i, commit in enumerate(commits):
        for blob, status, name in re.findall(r":\S+ \S+ \S+ (\S+) ([AM])\0([^\0/]+)/", commit):
            order[name] = places.setdefault((name, blob), i if status == "A" else order.get(name, i))
    return order


def mark_copies(entries: list[Entry]) -> None:
    """Marks copies: entries with a log, an artifact or a run of an entry that was merged before.

    Of those alone that were scored whole: what others claim may be copied from an open pull request.
    """
    owner: dict[str, str] = {}
    own: list[Entry] = []
    for entry in (e for e in entries if not e.faults and e.audit is not None):
        hashes = submission.hashes_of(entry.claim)
        entry.copy_of = next((owner[h] for h in sorted(hashes) if h in owner), None)
        if entry.copy_of is None:
            pairs = itertools.product(own, entry.claim["seeds"])
            entry.copy_of = next((e.folder.name for e, s in pairs if submission.has_run(e.claim, s)), None)
        if entry.copy_of is None:
            owner.update(dict.fromkeys(hashes, entry.folder.name))
            own.append(entry)


def mark_records(entries: list[Entry], rules: dict) -> None:
    """Marks records, in the order of merging: each must beat the best before it, as in `check --record`.

    The first must beat the track's record_baseline; without one, the first with enough seeds is a record.
    """
    rule = rules["record_rule"]
    best = next((e for e in entries if e.folder.name == rules.get("record_baseline")), None)
    if best is None and rules.get("record_baseline"):
        return  # what is to be beaten cannot be scored again
    for entry in (e for e in entries if len(e.losses) >= rule["min_seeds"]):
        entry.record = best is None or compare(entry.losses, best.losses, rule).record
        if best is None or statistics.fmean(entry.losses) < statistics.fmean(best.losses):
            best = entry
