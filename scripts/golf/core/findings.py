"""What check, score, verify and ci find: one type, one way to print it."""

from collections.abc import Iterable
from dataclasses import dataclass

from golf.core.text import printable

PASS, FAIL, HUMAN, NOTE = "PASS", "FAIL", "NEEDS-HUMAN", "NOTE"
ORDER = (FAIL, HUMAN, NOTE, PASS)  # the worst first
LEVELS = {True: PASS, False: FAIL, None: HUMAN}  # of a rule that was passed, broken, or needs a person
RULING = "passing is not a ruling: reviewers still read the idea, the code and the score"


@dataclass(frozen=True)
class Finding:
    level: str  # FAIL blocks, NEEDS-HUMAN asks a reviewer, NOTE is advice, PASS holds
    rule: str  # its id, which docs/track_spec.md or docs/scoring.md explains
    message: str  # one line: what is wrong, where, what to do
    figure: str = ""  # what was measured, with its unit
    section: str = ""  # of docs/track_spec.md
    path: str = ""  # the file in the repository, for ci

    def __str__(self) -> str:
        """LEVEL rule: figure: message (rule n.m); what passes needs no message beside its figure."""
        message = "" if self.level == PASS and self.figure else self.message
        text = ": ".join(filter(None, (self.figure, message)))
        return printable(f"{self.level} {self.rule}: {text}" + f" (rule {self.section})" * bool(self.section))

    @property
    def passed(self) -> bool | None:
        """As in audit.json and verify.json: true, false, or null if a person must judge."""
        return {PASS: True, NOTE: True, FAIL: False}.get(self.level)


def judged(rule: str, passed: bool | None, figure: str, message: str = "") -> Finding:
    """The finding of a rule that measures something."""
    return Finding(LEVELS[passed], rule, message, figure)


def as_json(finding: Finding) -> dict:
    """As audit.json has it."""
    return dict(id=finding.rule, passed=finding.passed, figure=finding.figure, sentence=finding.message)


def verdict(findings: Iterable[Finding]) -> str:
    """FAIL, NEEDS-HUMAN or PASS: the worst of the levels."""
    levels = {finding.level for finding in findings}
    return FAIL if FAIL in levels else HUMAN if HUMAN in levels else PASS
