"""Whether text and bytes are what the tokenizer says: nothing lost, nothing counted twice."""

import numpy as np

from golf.core.findings import Finding, judged
from golf.score.stream import Stream


def tokenizer(stream: Stream) -> Finding:
    """No <unk>; each whole document survives decoding and encoding, and its table bytes are the
    bytes of its text."""
    vocabulary, tokens = stream.vocabulary, stream.tokens
    unknown = int(vocabulary.unknown[tokens].sum())
    edges = np.flatnonzero(vocabulary.special[tokens])  # the last document is cut off: left out
    documents = [tokens[a + 1 : b].tolist() for a, b in zip(edges, edges[1:])]
    texts = vocabulary.processor.decode(documents)
    again = vocabulary.processor.encode(texts)
    changed = sum(a != b for a, b in zip(documents, again))
    sums = np.concatenate(([0], np.cumsum(stream.target_bytes)))  # of targets before each place
    table = sums[edges[1:] - 1] - sums[edges[:-1]]
    miscounted = sum(len(text.encode()) != n for text, n in zip(texts, table))
    figure = (
        f"{unknown} <unk>; of {len(documents):,} documents {changed} change by decoding and encoding, "
        f"{miscounted} have other bytes than the table says"
    )
    passed = len(documents) > 0 and not (unknown or changed or miscounted)
    meaning = "the score is of the whole text, and its bytes are counted right"
    if not passed:
        meaning = "text was lost, or its bytes are miscounted: not a matter of the submission"
    return judged("tokenizer", passed if len(documents) else None, figure, meaning)
