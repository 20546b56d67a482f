"""What windows and strides score and cost: an artifact's val_bpb and targets a second on this device.
docs/benchmarks.md has figures.

    VAL_MAX_TOKENS=65536 DATA_PATH=… TOKENIZER_PATH=… PYTHONPATH=. python3 dev/scoring.py ARTIFACT
"""

import os
import sys
from dataclasses import replace

import train_gpt as T

stream = T.read_stream(T.read_knobs(os.environ))
model = T.load_scorer(sys.argv[1]).model
length = model.k.train_seq_len
rope = T.rope_tables(replace(model.k, eval_seq_len=2048), model.dtype)  # for windows longer than its own
model.rope = rope.to(model.skip_weights.device)
for seq_len, stride in ((length, length), (length, 64), (1024, 64), (1024, 256), (1024, 512), (2048, 1536)):
    scorer = T.Scorer(model, seq_len, stride)
    scorer.log_probs(stream.tokens[: 4 * seq_len])  # a first pass is slower
    score = T.score_stream(scorer, stream)
    rate = score["targets"] / score["seconds"]
    print(f"{seq_len}/{stride}\tval_bpb {score['val_bpb']:.6f}\t{rate:,.0f} targets/s", flush=True)
