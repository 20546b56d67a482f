"""Writes a track's control.npz and second_control.npz: how likely its controls find each target of the
stream and of public held-out text, so that nobody who scores an entry on a CPU has to run them. For tracks
with streams that --quick feeds whole, and without train shards to draw held-out text of.

    PYTHONPATH=scripts python3 dev/control.py track_sample_5min
"""

import sys

import numpy as np
from golf.core import track
from golf.core.submission import read_claim
from golf.score import stream
from golf.score.audit.control import KEPT, STEPS, key_of
from golf.score.audit.passes import Text, feed
from golf.score.audit.rules import FULL, QUICK
from golf.score.claims import read_entries
from golf.score.sandbox.client import Remote

rules = track.load(sys.argv[1])
home, count = track.RECORDS / rules["name"], rules["targets"]
source, _ = stream.load(rules)
rest = source.tokens[count : 2 * count + 1]
begin = np.flatnonzero(source.vocabulary.special[rest])[0]
texts = [
    Text((source.part(0, count),), rest[begin : begin + size.held_out_of(count) + 1])
    for size in (QUICK, FULL)  # the one begins the other
]
for role in (role for role in KEPT if rules.get(role)):
    folder = home / rules[role]
    entry = read_entries(folder, read_claim(folder), "cpu")[0]
    with Remote(entry.files, entry.script, entry.artifact, "cpu", len(source.vocabulary)) as remote:
        steps = np.rint(-STEPS * feed(remote, texts[-1]).log_probs).clip(0, 2**16 - 1)
    lengths = {key_of(entry, text): len(text) for text in texts}
    np.savez_compressed(home / KEPT[role], steps=steps.astype(np.uint16), **lengths)
