"""What a pull request changes, and whether that is one new entry and nothing else.

Names are compared as the laxest file system would, and as people do: `Records/`, `RECORDS.`,
`rec\\u200cords` and `r\\u0435cords` (a Cyrillic letter) are all the records' folder of somebody.
"""

import os
import re
import subprocess
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from golf.core import track
from golf.core.errors import GolfError
from golf.core.findings import FAIL, Finding
from golf.core.paths import shown
from golf.core.text import last_line

SHOWN = 5  # remarks of one kind
PLAIN = "100644"
MODES = {"120000": "a link", "160000": "a submodule", "100755": "executable"}
# What changes how git checks out other files or whom it names, or what runs here; maintainers change these
# by hand.
GITS_OWN = (".gitattributes", ".gitmodules", ".lfsconfig", ".mailmap", ".git-blame-ignore-revs")
SETTINGS = (*GITS_OWN, ".github", "codeowners")
SHORT_SETTINGS = re.compile(r"git(att|mod|hub)~\d+")  # the same by Windows' short names
TRACKS_OWN = "track.json verified.json readme.md control.npz second_control.npz".split()  # beside the entries
ENTRY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Change:
    """A line of `git diff --raw`."""

    mode: str  # after; 000000: removed
    blob: str
    status: str  # A, M, D or T
    path: str


def git(root: Path, *args: str, given: str = "") -> str:
    """What a git command prints, `given` on its input. File names may hold any byte."""
    command = ["git", "--no-replace-objects", "-C", str(root), *args]
    words = {"encoding": "utf-8", "errors": "surrogateescape"}
    done = subprocess.run(command, input=given, capture_output=True, **words)
    if done.returncode != 0:
        why = last_line(done.stderr, "it found nothing")
        hint = "BASE must be a commit here, with the history between (fetch-depth: 0)"
        raise GolfError(f"git {args[0]} in {shown(root)}: {why}; {hint}", 2)
    return done.stdout


def read_changes(root: Path, base: str) -> list[Change]:
    """Every path that HEAD adds, changes or removes since it parted from `base`.

    GolfError where they parted more than once: a merge then goes by a mixture of all these commits, and can
    undo what differs between them, which no single comparison shows. A history that is cut off may hide that.
    """
    if git(root, "rev-parse", "--is-shallow-repository").strip() != "false":
        raise GolfError(f"{shown(root)}: its history is cut off; fetch all of it (fetch-depth: 0)", 2)
    fork, *more = git(root, "merge-base", "--all", base, "HEAD").split()
    if more:
        raise GolfError(f"HEAD merged old commits of {base[:12]} crosswise; rebase it, or squash it")
    words = ("--raw", "--no-renames", "--no-abbrev", "--ignore-submodules=none", "-z")
    fields = git(root, "diff", *words, fork, "HEAD").split("\0")
    changes = []
    for facts, path in zip(fields[::2], fields[1::2]):
        _, mode, _, blob, status = facts.lstrip(":").split(" ")
        changes.append(Change(mode, blob, status[:1], path))
    return changes


def key(part: str) -> str:
    """A key that is equal for names that some system confuses: case, width, invisible characters, streams."""
    text = unicodedata.normalize("NFKC", part)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc", "Cs"))
    return unicodedata.normalize("NFKC", text.casefold()).split(":")[0].rstrip(". ")


def same_name(value) -> str:
    return " ".join(key(value).split()) if isinstance(value, str) else ""


# Letters and digits that look like Latin ones: Cyrillic, Greek, and what people type for them; then Lisu,
# Cherokee, Armenian and Coptic.
LOOKS = str.maketrans(
    "авекмнорстухіјѕԁӏαβεικνορτυχω01|34578ꓐꓑꓒꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴᎪᏴᏟᎠᎬᎳᏀᎻᎥᎫᏦᏞᎷᏢᏒᏚᎢᏙᏃᎩօսհոցգզյլⲁⲃⲉⲏⲓⲕⲙⲛⲟⲣⲥⲧⲩⲭ",
    "abekmhopctyxijsdlabeiknoptuxwolleastbbpddtgkjczfmnlsrvhwxyaeiouabcdewghijklmprstvzyouhngqqjlabehikmnopctyx",
)
LATIN = re.compile("LATIN (?:(?:SMALL|CAPITAL) )?LETTER (?:[A-Z]+ )*?([A-Z])[A-Z]*(?: WITH .*)?")


def looks(value) -> str:
    """A key that is equal for names that look alike: without accents, spaces and punctuation."""
    text = unicodedata.normalize("NFKD", same_name(value)).translate(LOOKS)
    found = ((c, LATIN.fullmatch(unicodedata.name(c, ""))) for c in text if c.isalnum())
    text = "".join(latin[1].lower() if latin else c for c, latin in found)
    for letters, like in (("i", "l"), ("rn", "m"), ("vv", "w")):
        text = text.replace(letters, like)
    return text or same_name(value)


def parts_of(path: str) -> list[str]:
    return path.replace("\\", "/").split("/")


def in_records(path: str) -> bool:
    first = parts_of(path)[0]
    return looks(first) == "records" or bool(re.fullmatch(r"record~\d+", key(first)))


def entry_of(path: str) -> str | None:
    """records/<track>/<folder> of a path below such a folder, spelt as it must be."""
    parts = path.split("/")
    return "/".join(parts[:3]) if parts[0] == "records" and len(parts) > 3 else None


def entries_of(changes: Iterable[Change]) -> list[str]:
    return sorted({entry for change in changes if (entry := entry_of(change.path))})


def remarks(root: Path, base: str, changes: list[Change]) -> list[Finding]:
    """Findings unless the change is one new folder of a known track, or touches no entry at all."""
    entries = entries_of(changes)
    found = [*modes(changes, entries), *settings(changes), *misplaced(changes, entries)]
    for entry in entries[:SHOWN]:
        found += place(root, base, entry)
        found += not_added(changes, entry)
        found += unlike_checkout(root, changes, entry)
    return found


def fail(rule: str, message: str, path: str) -> Finding:
    return Finding(FAIL, rule, message, path=path)


def modes(changes: list[Change], entries: list[str]) -> Iterable[Finding]:
    """No links or submodules anywhere; only plain files in an entry."""
    for change in changes:
        what = MODES.get(change.mode)
        inside = entry_of(change.path) in entries or in_records(change.path)
        if what is not None and (inside or change.mode != "100755"):
            yield fail("mode", f"is {what}; a pull request brings plain files (mode {PLAIN})", change.path)
        elif inside and change.mode not in (PLAIN, "000000", *MODES):
            yield fail("mode", f"has mode {change.mode}; bring plain files (mode {PLAIN})", change.path)


def settings(changes: list[Change]) -> Iterable[Finding]:
    for change in changes:
        parts = {key(part) for part in parts_of(change.path)}
        if parts & {*SETTINGS} or any(map(SHORT_SETTINGS.fullmatch, parts)):
            text = "sets how git or the workflows work; maintainers read that and merge it by hand"
            yield fail("settings", text, change.path)


def misplaced(changes: list[Change], entries: list[str]) -> Iterable[Finding]:
    """Nothing is changed outside the one entry; without an entry, nothing under records/."""
    if len(entries) > 1:
        message = f"{len(entries)} submission folders are touched; one pull request adds one"
        yield from (fail("one-folder", message, entry) for entry in entries[:SHOWN])
    outside = [c.path for c in changes if entry_of(c.path) is None and (entries or in_records(c.path))]
    for path in outside[:SHOWN]:
        message = f"outside the submission's folder, with {len(outside)} such files in all; "
        message += "leave them out, or send them as a pull request of their own"
        if in_records(path):
            message = "under records/ a pull request adds one new folder of a track; maintainers do the rest"
        yield fail("outside", message, path)


def place(root: Path, base: str, entry: str) -> Iterable[Finding]:
    """The track exists here, and no entry has this name in any case."""
    _, track_name, name = entry.split("/")
    if not ENTRY_NAME.fullmatch(name):
        text = "the folder's name needs letters, digits, dots, - and _ alone, 64 at most; rename it"
        yield fail("file-name", text, entry)
        return
    if key(name) in TRACKS_OWN:
        yield fail("file-name", "the track's folder has a file of this name; choose another", entry)
        return
    if track_name not in track.names():
        yield fail("track", f"there is no such track; there are: {', '.join(track.names())}", entry)
        return
    there = git(root, "ls-tree", "-z", "--name-only", base, "--", f"records/{track_name}/").split("\0")
    for other in (path for path in there if path and key(path) == key(entry)):
        text = "changes an entry that is there already; maintainers do that"
        if other != entry:
            text = f"has the name of {ascii(other)[:100]}, in other letters; choose another"
        yield fail("changed", text, entry)


def not_added(changes: list[Change], entry: str) -> Iterable[Finding]:
    """All files of a new folder are new; removed or renamed ones belong to someone else's entry."""
    for change in [c for c in changes if entry_of(c.path) == entry and c.status != "A"][:SHOWN]:
        rule = "removed" if change.status == "D" else "changed"
        yield fail(rule, f"{rule} by this pull request; entries stay as they were merged", change.path)


def unlike_checkout(root: Path, changes: list[Change], entry: str) -> Iterable[Finding]:
    """The checked files equal the commit's: no attribute or filter has changed them."""
    mine = [c for c in changes if entry_of(c.path) == entry and c.mode in (PLAIN, "100755")]
    # os.path, which takes a name that is too long for a file system as that of no file
    here = [c for c in mine if os.path.isfile(root / c.path) and not os.path.islink(root / c.path)]
    for change in [c for c in mine if c not in here][:SHOWN]:
        yield fail("checkout", "is in the commit and not in its checkout; leave it out", change.path)
    if any("\n" in c.path for c in here):  # which file-name refuses
        return
    paths = "".join(f"{root / c.path}\n" for c in here)
    found = git(root, "hash-object", "--no-filters", "--stdin-paths", given=paths).split()
    for change, blob in zip(here, found):
        if blob != change.blob:
            text = "differs from the commit once checked out; remove git attributes"
            yield fail("checkout", text, change.path)
