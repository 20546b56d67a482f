"""Which entries a maintainer has scored whole: records/<track>/verified.json.

It maps a folder's name to what was found, with the SHA-256 of the submission.json that was scored, so a
claim that changes later is only a claim again. `golf.sh leaderboard --verified FOLDER` writes it from
the report of `golf.sh score FOLDER`, and submission.audit_of reads it. A pull request with an entry cannot
change it (rule 6.6).
"""

import json
from pathlib import Path

from golf.core import submission
from golf.core.errors import GolfError
from golf.core.files import replace_file, sha256
from golf.core.findings import HUMAN, LEVELS
from golf.core.json_io import dig, number, objects, read_json
from golf.core.paths import shown
from golf.core.submission import RUN_TOLERANCE, SCORE_TOLERANCE, same_run
from golf.score.command import report_path


def summary(report: dict, claim_sha256: str) -> dict:
    """The parts of audit.json that are kept: (seed, rule, outcome, figure) a line, and the circumstances."""
    kept = {name: report.get(name) for name in ("verdict", "time", "device", "machine")}
    rules = [("", rule) for rule in objects(report, "rules")]
    for seed in objects(report, "seeds"):
        rules += [(str(dig(seed, "seed")), rule) for rule in objects(seed, "rules")]
    lines = [[seed, str(dig(r, "id")), LEVELS.get(dig(r, "passed"), HUMAN), str(dig(r, "figure"))]
             for seed, r in rules]  # fmt: skip
    return {"submission_sha256": claim_sha256, **kept, "rules": lines}


def enter(folder: Path) -> None:
    """Notes that FOLDER was scored whole and passed. Raises GolfError if its report says otherwise."""
    folder = folder.resolve()
    path = report_path(folder)
    if not path.is_file():
        raise GolfError(f"{shown(path)}: no report there; run golf.sh score {shown(folder)} first", 2)
    claim = submission.read_claim(folder)
    report = read_json(path)
    why = why_not(report, claim)
    if dig(report, "submission_sha256") != sha256(folder / "submission.json"):
        why = why or "the score of another submission.json"
    if why:
        raise GolfError(f"{shown(path)}: {why}; run golf.sh score {shown(folder)} again")
    home = folder.parent
    if not (home / "track.json").is_file():
        raise GolfError(f"{shown(folder)}: lies in no track's folder", 2)
    place = home / submission.VERIFIED
    known = read_json(place) if place.exists() else {}
    if not isinstance(known, dict):  # else what it says of other entries would be lost
        raise GolfError(f"{shown(place)}: not an object of JSON, or has a key twice; git restores it")
    known[folder.name] = summary(report, sha256(folder / "submission.json"))
    kept = {name: known[name] for name in sorted(known) if (home / name).is_dir()}
    replace_file(place, json.dumps(kept, indent=1) + "\n")


def why_not(report, claim: dict) -> str | None:
    """Why a report does not verify a claim; None: every seed was scored whole, in a sandbox, as claimed."""
    if dig(report, "mode") != "whole" or dig(report, "verdict") not in ("PASS", "NEEDS-HUMAN"):
        return f"a {dig(report, 'mode')} score with the verdict {dig(report, 'verdict')}"
    if dig(report, "sandbox") == "none" or dig(report, "track") != claim.get("track"):
        return "scored without a sandbox, or on another track"
    scored = {dig(s, "seed"): s for s in objects(report, "seeds")}
    for seed in objects(claim, "seeds"):
        found = scored.get(dig(seed, "seed"))
        if number(dig(found, "official", "val_bpb")) is None:
            return f"seed {dig(seed, 'seed')} was not scored"
        if dig(found, "claimed", "val_bpb") != dig(seed, "val_bpb"):
            return f"seed {dig(seed, 'seed')} claims another score now"
        worse = dig(seed, "val_bpb") - dig(found, "official", "val_bpb")
        if worse > SCORE_TOLERANCE:  # seeds would seem more alike than they are
            return f"seed {dig(seed, 'seed')} claims {worse:.4f} too bad a score, and the board ranks claims"
        if not same_run(seed, dig(found, "official"), RUN_TOLERANCE / 2):
            return f"seed {dig(seed, 'seed')} claims no or other segments, by which the board knows copies"
    return None
