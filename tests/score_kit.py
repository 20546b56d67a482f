"""What tests of the scorer share: a small track with real text, and folders to score on it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO, real_tokens, write_shard
from golf.core.files import sha256
from golf.score import scorer as official
from golf.score.sandbox import bwrap as sandbox
from golf.verify import retrain

TARGETS = 6400
HOSTILE = REPO / "tests" / "fixtures" / "hostile.py"
# scripts/test.sh installs bubblewrap where it may. Elsewhere conftest.py counts what is skipped.
WHY_NOT = sandbox.why_not()
needs_sandbox = pytest.mark.skipif(WHY_NOT is not None, reason=f"NOT TESTED: {WHY_NOT}")
# Root's sandbox does without one; a training, and the sandbox of anyone else, do not.
NO_NAMESPACE = retrain.why_not()
needs_user_namespace = pytest.mark.skipif(NO_NAMESPACE is not None, reason=f"NOT TESTED: {NO_NAMESPACE}")

ECHO = '''"""Says that the last token comes again with probability 1/2; the others share the rest."""
import numpy as np

class Scorer:
    def reset(self):
        self.seen = 0

    def log_probs(self, tokens):
        rows = np.full((len(tokens), 1024), 0.5 / 1023, np.float64)
        rows[np.arange(len(tokens)), tokens] = 0.5
        self.seen += len(tokens)
        return np.log(rows)

def load_scorer(artifact_path, device):
    return Scorer()
'''


def echo_log_probs(inputs, targets):
    """The echo's, by plain arithmetic."""
    return np.where(inputs == targets, math.log(0.5), math.log(0.5 / 1023))


def make_track(folder: Path, tokens: int = 2 * TARGETS + 1, audit_control=None, **more) -> Path:
    """track.json of a track with TARGETS targets; its shard, of real text, lies in folder/data."""
    shard = write_shard(folder / "data" / "fineweb_val_000000.bin", real_tokens(tokens))
    rules = json.loads((REPO / "records" / "track_sample_5min" / "track.json").read_text())
    rules.pop("second_control")
    rules.update(name="track_small", targets=TARGETS, target_bytes=None, audit_control=audit_control, **more)
    rules["data"].update(name="small", val_sha256=sha256(shard))
    (folder / "track.json").write_text(json.dumps(rules))
    return folder / "track.json"


def hostile(name: str) -> str:
    """A script whose scorer is this class of fixtures/hostile.py."""
    return f"from hostile import {name} as load_scorer\n"


def make_submission(folder: Path, script: str, artifact=b"-", seeds=(1,), **claim) -> Path:
    """A folder with a script, its source or the name of a class of hostile.py, and an artifact a seed."""
    folder.mkdir(parents=True)
    (folder / "train_gpt.py").write_text(script if "\n" in script else hostile(script))
    shutil.copy(HOSTILE, folder)
    files = [("train_gpt.py", "script"), ("hostile.py", "score")]
    for seed in seeds:
        (folder / f"final_model_seed{seed}.bin").write_bytes(artifact)
        files.append((f"final_model_seed{seed}.bin", "artifact"))
    told = dict(val_loss=None, val_bpb=None, segments=None)
    told.update(claim)
    listed = [dict(path=p, role=r, sha256=sha256(folder / p)) for p, r in files]
    claims = [dict(seed=s, artifact=f"final_model_seed{s}.bin", **told) for s in seeds]
    value = dict(lane="open-hardware", val_bpb=told["val_bpb"], files=listed, seeds=claims)
    (folder / "submission.json").write_text(json.dumps(value))
    return folder


def score(track: Path, folder: Path, sandboxed=False, **options) -> dict:
    """The report on a folder. What needs no sandbox is tested without one, so on every machine."""
    options = dict(data=track.parent / "data", device="cpu") | options
    return official.score(folder, track_name=str(track), sandboxed=sandboxed, **options)


def failed(report: dict) -> dict[str, str]:
    """The failed rules of a report's first seed: id -> sentence."""
    return {r["id"]: r["sentence"] for r in report["seeds"][0]["rules"] if r["passed"] is False}
