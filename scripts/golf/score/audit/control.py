"""The audit's control models: the entries that a track names as its audit_control and its second_control. A
bigram model stands in where it names none, or one that cannot be used."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256 as new_sha256
from pathlib import Path

import numpy as np

from golf.core import track, trainers
from golf.core.bar import Talker
from golf.core.errors import GolfError
from golf.core.files import sha256
from golf.core.findings import Finding, judged
from golf.core.paths import shown
from golf.core.submission import read_claim
from golf.core.text import plain
from golf.score.audit.passes import Pass, Text, feed
from golf.score.audit.reference import bigram_log_probs
from golf.score.claims import SeedEntry, read_entries
from golf.score.feeder import Fault
from golf.score.sandbox.client import Remote

BIGRAM = "a bigram model, counted over the audited text"
# Roles in track.json: the files beside the entries, made by dev/control.py, that hold the log-probabilities
# of public text.
KEPT = {"audit_control": "control.npz", "second_control": "second_control.npz"}
STEPS = 2048  # a nat there, so up to 32 nats


class Control:
    """Another model's log-probabilities of the same targets: the audit's Reference.

    rules: track.json; role: its name there. folder: the submission's, beside which the control lies where the
    track is not the repository's. start: loads an entry on a device, in a sandbox. A control that cannot be
    used is replaced by the bigram model, and rule() says so.
    """

    def __init__(
        self,
        rules: dict,
        role: str,
        folder: Path,
        device: str,
        vocab: int,
        start: Callable[[SeedEntry, str], Remote],
        talker: Talker,
    ):
        self.role, self.name = role, rules.get(role)
        self.rule_id = role.removeprefix("audit_").replace("_", "-")  # control, second-control
        self.talker, self.vocab, self.start = talker, vocab, start
        self.device = "cpu" if device == "mlx" else device  # with either script
        self.entry, self.trouble, self.kept = None, None, None
        self.asked, self.answer = None, None  # the last question: every seed asks the same
        self.lock = threading.Lock()  # and waits for one answer
        if self.name:
            home = track.home(rules, folder.resolve()) / self.name
            try:
                entry = read_entries(home, read_claim(home), self.device)[0]
                trainers.check_trainer(home / entry.script)
                self.entry, self.kept = entry, home.parent / KEPT[role]
            except GolfError as error:
                self.give_up(str(error))

    def __call__(self, text: Text) -> np.ndarray:
        """float64 [n]: natural logarithms of the probabilities of the text's targets."""
        with self.lock:
            if text is not self.asked:
                self.asked, self.answer = text, self.score(text)
            return self.answer

    def score(self, text: Text) -> np.ndarray:
        if self.entry:
            try:
                return self.run(text)
            except Fault as fault:
                self.give_up(fault.message)
        return bigram_log_probs(text.inputs, text.targets, self.vocab)

    def run(self, text: Text) -> np.ndarray:
        """The entry's own answer. Raises Fault."""
        self.talker.say(f"audit: {len(text):,} targets by the control, {self.name}")
        with self.start(self.entry, self.device) as remote:
            return feed(remote, text).log_probs

    def run_beside(self, text: Text) -> None:
        """Answers beside submissions. They could take the memory and the processes that it needs, so that a
        weaker control stands in: where it fails, it is asked again when they have ended."""
        with self.lock, suppress(Fault):
            self.asked, self.answer = text, self.run(text)

    def look_up(self, text: Text) -> None:
        """Takes the answer from the track's file, if that is of the control's files and this text. Only on a
        CPU: there a pass takes long, and rounds as the file's did. From a damaged file it takes nothing."""
        if self.due(text) and self.device == "cpu" and self.kept.is_file():
            try:
                with np.load(self.kept) as kept:  # arrays alone: nothing is unpickled
                    if (key := key_of(self.entry, text)) in kept:
                        steps = kept["steps"][: kept[key]]
                        if steps.shape != (len(text),) or steps.dtype != np.uint16:
                            raise ValueError(f"{len(text):,} targets, steps {steps.dtype}{[*steps.shape]}")
                        self.asked, self.answer = text, steps / -STEPS
            except Exception as error:  # zipfile, zlib and numpy raise many kinds
                why = plain(f"{type(error).__name__}: {error}", 80)
                where = f"{shown(self.kept)} is damaged ({why}); git restores it"
                self.talker.say(f"{where}; the control runs instead")

    def recall(self, entry: SeedEntry, text: Text, passed: Pass) -> None:
        """Reuses a pass: an entry with the control's own files was just fed this text."""
        if self.is_it(entry):
            self.asked, self.answer = text, passed.log_probs

    def due(self, text: Text) -> bool:
        """Whether an entry would have to be fed this text."""
        return self.entry is not None and text is not self.asked

    def is_it(self, entry: SeedEntry) -> bool:
        return self.entry is not None and contents(entry) == contents(self.entry)

    def give_up(self, why: str) -> None:
        self.entry, self.trouble = None, f"the track's {self.role} {self.name} cannot be used: {why}"
        self.talker.say(f"{self.trouble}; a bigram model stands in, which shows less")

    def rule(self) -> Finding:
        """Which model the submission was compared with."""
        if self.entry:
            figure = f"{self.name}, seed {self.entry.seed}"
            kept = KEPT[self.role]
            sentence = f"the track's {self.role}, run as a submission is, now or for its track's {kept}"
            return judged(self.rule_id, True, figure, sentence)
        sentence = self.trouble or f"the track names no {self.role}"
        return judged(self.rule_id, None if self.trouble else True, BIGRAM, sentence)


def contents(entry: SeedEntry) -> dict[str, str]:
    """The SHA-256 of each counted file."""
    return {path: sha256(source) for path, source in entry.files.items()}


def key_of(entry: SeedEntry, text: Text) -> str:
    """The SHA-256 of the control's files and of all that it is fed and asked."""
    digest = new_sha256(json.dumps(contents(entry), sort_keys=True).encode())
    for part in (text.inputs, text.targets, text.begins):
        digest.update(part.tobytes())
    return digest.hexdigest()
