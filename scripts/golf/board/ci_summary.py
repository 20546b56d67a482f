"""The page that a reviewer sees in the pull request's job: score, verdict, record rule, what is new.

All of it is foreign text or holds some: tables take entities, and the rest stands in <pre>.
"""

import html
import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from golf.core import submission, track
from golf.core.findings import LEVELS
from golf.core.paths import REPO, shown
from golf.core.text import cell, plain, printable, table

SCRIPT_LIMIT = 1 << 20  # bytes of a script that is compared
DIFF_LINES = 800
DIFF_BYTES = 700_000  # of a page's 1 MiB, beyond which GitHub shows none of it
LINE_LIMIT = 300  # characters


def write(lines: list[str]) -> None:
    """Appends to the job's page, where GitHub gives one."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(path, "a", encoding="utf-8", errors="replace") as file:
            file.write("\n".join([*lines, "", ""]))


def of_findings(folder: str, verdict: str, remarks: list) -> list[str]:
    rows = [[r.level, cell(r.rule), text(r.path, 100), text(r.message, 300)] for r in remarks[:50]]
    lines = [f"## {verdict}: {text(folder, 120)}", ""]
    return lines + (table(["level", "rule", "where", "what"], rows) if rows else ["The check found nothing."])


def of_score(folder: Path, report: dict | None, verdict: str, record: str) -> list[str]:
    """What was scored and what the record rule says; then the script against its nearest."""
    lines = [f"## Score of {text(folder.name, 80)}: {verdict}", ""]
    if report is not None:
        rows = [[str(seed["seed"]), figure(seed["claimed"], "val_bpb"), figure(seed["official"], "val_bpb"),
                 f"{seed['targets']:,}"] for seed in report["seeds"]]  # fmt: skip
        lines += table(["seed", "claimed val_bpb", "official val_bpb", "targets compared"], rows)
        rows = [[LEVELS[r["passed"]], cell(str(r["id"])), text(r["figure"], 200), text(r["sentence"], 300)]
                for r in rules_of(report) if r["passed"] is not True]  # fmt: skip
        lines += ["", *(table(["level", "rule", "figure", "what"], rows) if rows else ["Every rule passed."])]
    head, diff = against_nearest(folder)
    diff = ["<pre>" + html.escape("\n".join(diff)) + "</pre>"] if diff else []
    return [*lines, "", f"Record rule: {text(record, 400)}", "", cell(head), "", *diff]


def rules_of(report: dict) -> list[dict]:
    return [rule for holder in (report, *report["seeds"]) for rule in holder.get("rules", [])]


def text(value, limit: int) -> str:
    return cell(plain(str(value), limit))


def figure(values, name: str) -> str:
    value = values.get(name) if isinstance(values, dict) else None
    return f"{value:.6f}" if isinstance(value, float) else "-"


# ---- The script against what it builds on


def against_nearest(folder: Path) -> tuple[str, list[str]]:
    """A sentence, and a diff of the entry's script against the published script that shares most lines with
    it. Foreign text, not escaped.

    Nobody has to name what an entry builds on: the nearest among this repository's trainers and
    entries is found.
    """
    mine = next((folder / n for n in ("train_gpt.py", "train_gpt_mlx.py") if is_script(folder / n)), None)
    nearest = mine and max(candidates(mine), key=lambda path: shared_lines(mine, path), default=None)
    if nearest is None:
        return "It ships no script.", []
    lines = difference(nearest, mine)
    head = f"The script against {plain(shown(nearest), 120)}, of all published ones the nearest:"
    return head if lines else f"{head} no difference.", limited(lines)


def limited(lines: list[str]) -> list[str]:
    """The first lines and their beginnings, as many as a page takes in HTML; what is left out is said."""
    kept, size = [], 0
    for line in lines[:DIFF_LINES]:
        kept.append(printable(beginning(line), keep="\t"))
        size += len(html.escape(kept[-1]).encode())
        if size > DIFF_BYTES:
            break
    return kept + [f"... and {len(lines) - len(kept):,} lines more"] * (len(lines) > len(kept))


def beginning(line: str) -> str:
    more = len(line) - LINE_LIMIT
    return line if more <= 0 else f"{line[:LINE_LIMIT]}... and {more:,} characters more"


def is_script(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= SCRIPT_LIMIT


def candidates(mine: Path) -> list[Path]:
    """Trainers in the root first, then entries in the order of their names; never the script itself."""
    folders = [f for name in track.names() for f in submission.entry_folders(track.RECORDS / name)]
    paths = [place / mine.name for place in (REPO, *folders)]
    return [path for path in paths if is_script(path) and path.resolve() != mine.resolve()]


def shared_lines(one: Path, other: Path) -> int:
    counts = (Counter(path.read_bytes().splitlines()) for path in (one, other))
    return sum((next(counts) & next(counts)).values())


def difference(old: Path, new: Path) -> list[str]:
    """git's unified diff without its head; it stays quick on whatever text."""
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / name for name in ("old", "new")]
        for path, copy in zip((old, new), copies):
            copy.write_bytes(path.read_bytes())
        words = ["git", "-c", "core.attributesFile=/dev/null", "diff", "--no-index", "--no-color"]
        words += ["--no-ext-diff", "--no-textconv", "--text", "--", *map(str, copies)]
        done = subprocess.run(words, capture_output=True, cwd=folder, timeout=120)
    lines = done.stdout.decode("utf-8", "replace").split("\n")
    begin = next((i for i, line in enumerate(lines) if line.startswith("@@")), len(lines))
    return lines[begin:]
