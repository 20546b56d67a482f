"""A submission folder under check: what lies in it, what it claims, and what was found.

The rules stand in files.py, names.py, claims.py and code.py: functions that take a Folder and add findings
to it. Every finding has one of the ids below, which docs/track_spec.md explains.
"""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from golf.core import submission
from golf.core.files import sha256_and_size
from golf.core.findings import FAIL, HUMAN, NOTE, Finding
from golf.core.json_io import dig
from golf.core.packed import source_name
from golf.core.text import printable

LIST_LIMIT = 200  # entries of a list in submission.json that anybody reads

# The rules of docs/track_spec.md, and the ids of the findings that belong to each.
FINDINGS = {
    "1.1": "bytes bytes-uncounted file-role",
    "1.2": "cap",
    "1.3": "file-listed file-unlisted file-hash",
    "2.1": "time",
    "2.2": "time-budget",
    "3.1": "targets data data-unpinned",
    "3.2": "divisor",
    "3.3": "score segments",
    "3.4": "code-val",
    "3.6": "score-note",
    "4.1": "track lane hardware",
    "4.3": "own-tokenizer",
    "5.1": "seed seed-twice seeds-differ",
    "5.2": "log-twice",
    "5.3": "mean",
    "5.4": "seeds-few record",
    "6.1": "file-required not-rescorable",
    "6.2": "file-name file-mode file-kind file-link file-count file-large unreadable",
    "6.3": "json json-schema date placeholder",
    "6.4": "log log-lines log-first metrics",
    "6.5": "script-hash artifact-hash env command",
    "7.1": "artifact artifact-format",
    "7.2": "file-pickle code-pickle",
    "7.3": "file-native code-native",
    "7.4": "code-packed code-syntax code-text code-import code-unlisted code-indirect code-exec code-opaque",
    "7.5": "code-network code-process code-outside",
}
RULES = {name: rule for rule, names in FINDINGS.items() for name in names.split()}


@dataclass
class Folder:
    """A submission's folder and its track. Rules read it and add findings."""

    path: Path
    track: dict = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)  # regular files: path -> bytes
    claim: dict = field(default_factory=dict)  # submission.json
    found: dict[Finding, None] = field(default_factory=dict)  # in order, each once
    hashes: dict[str, str] = field(default_factory=dict)  # of files read so far
    metrics: dict[str, dict[str, list[dict]]] = field(default_factory=dict)  # figures.runs
    reported_files: set[str] = field(default_factory=set)  # named by a FAIL; patterns for missing ones
    reported_figures: set[tuple[str, str]] = field(default_factory=set)  # (seed, figure) that a FAIL names

    def add(self, level: str, rule: str, message: str) -> None:
        self.found[Finding(level, rule, printable(message), section=RULES[rule])] = None

    def fail(self, rule: str, message: str) -> None:
        self.add(FAIL, rule, message)

    def fail_file(self, rule: str, path: str, message: str) -> None:
        """A FAIL about a file. Later rules skip that file: one fault, one finding."""
        self.reported_files.add(path)
        self.fail(rule, message)

    def is_reported(self, path) -> bool:
        """Whether a finding already names this file, or a missing file that this would be."""
        if not isinstance(path, str):
            return False
        patterns = (name for name in self.reported_files if "*" in name)
        return path in self.reported_files or any(map(PurePosixPath(path).match, patterns))

    def human(self, rule: str, message: str) -> None:
        self.add(HUMAN, rule, message)

    def note(self, rule: str, message: str) -> None:
        self.add(NOTE, rule, message)

    def mismatch(self, rule: str, what: str, claimed, found, where: str) -> None:
        """FAIL: a claim differs from the measurement."""
        self.fail(rule, f"{what} is claimed as {claimed}, {where} it is {found}; state what was measured")

    @property
    def findings(self) -> list[Finding]:
        return list(self.found)

    @property
    def ranked(self) -> bool:
        return self.claim.get("lane") == "record"

    def record_lane_level(self) -> str:
        """FAIL in the record lane, NOTE elsewhere."""
        return FAIL if self.ranked else NOTE

    def entries(self, name: str) -> list:
        """The first LIST_LIMIT entries of submission.json's list `name`; empty if it is not a list."""
        value = self.claim.get(name)
        return value[:LIST_LIMIT] if isinstance(value, list) else []

    def seeds(self) -> list[dict]:
        """The entries of `seeds` that are objects."""
        return [s for s in self.entries("seeds") if isinstance(s, dict)]

    def listed(self) -> list[dict]:
        """The entries of `files` that have a known role and a path that is a file of the folder."""
        return [e for e in self.entries("files") if self.has(dig(e, "path")) and known_role(e)]

    def has(self, path) -> bool:
        return isinstance(path, str) and path in self.files

    def role(self, path: str) -> str | None:
        return next((e["role"] for e in self.listed() if e["path"] == path), None)

    @property
    def scripts(self) -> list[str]:
        """The files of the role script, which count and score."""
        return [entry["path"] for entry in self.listed() if entry["role"] == "script"]

    @property
    def sources(self) -> list[str]:
        """The scripts as people read and run them: of a packed one what it was made from."""
        return [source_name(path) for path in self.scripts]

    def counted(self, path: str) -> bool:
        """Whether the file counts for every seed."""
        return self.role(path) in submission.CODE_ROLES

    @property
    def code_altered(self) -> bool:
        """Whether a counted file is missing or changed, so that no byte sum can match."""
        entries = [e for e in self.entries("files") if isinstance(dig(e, "path"), str)]
        roles = {e["path"]: e.get("role") for e in entries}
        return any(roles.get(path) in submission.CODE_ROLES for path in self.reported_files)

    def sha256(self, path: str) -> str:
        """SHA-256 of a file, computed once; "unlike its size" if it yields more bytes than it states."""
        if path not in self.hashes:
            digest, size = sha256_and_size(self.path / path, self.files[path] + 1)
            self.hashes[path] = digest if size == self.files[path] else "unlike its size"
        return self.hashes[path]

    def read(self, path: str, limit: int = -1) -> bytes:
        with (self.path / path).open("rb") as file:
            return file.read(limit)


def known_role(entry: dict) -> bool:
    return isinstance(entry.get("role"), str) and entry["role"] in submission.ROLES


def quoted(value, limit: int = 82) -> str:
    """Untrusted text for a message: short, one line, ASCII."""
    return ascii(value if isinstance(value, (str, int)) else type(value).__name__)[:limit]


def seed_name(seed: dict) -> str:
    return f"seed {quoted(seed.get('seed'))}"
