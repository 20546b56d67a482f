"""The record rule for `check --record`: the folder against the best valid entry of its track."""

from collections.abc import Callable
from pathlib import Path

from golf.check.folder import Folder
from golf.core import submission, track
from golf.core.errors import GolfError
from golf.core.findings import FAIL
from golf.core.json_io import number
from golf.core.record_rule import compare, refuse_incomparable, result_lines, seed_table, side_of_submission


def against_best(folder: Folder, is_valid: Callable[[Path, dict], bool]) -> list[str]:
    """Adds the finding `record`: is this a record, by track.json's rule?

    Returns the table of seeds and what the test says, as `golf.sh compare` shows it.
    """
    if not folder.ranked:
        folder.fail("record", "only the lane 'record' sets records; enter that lane, or leave out --record")
        return []
    if any(finding.level == FAIL for finding in folder.findings):
        folder.fail("record", "not tested: the folder has FAIL findings; fix them first")
        return []
    best = best_entry(folder, is_valid) or baseline(folder, is_valid)
    if best is None:
        text = "there is no valid, complete record or baseline to compare with; a reviewer decides"
        folder.human("record", text)
        return []
    try:
        mine, other = map(side_of_submission, (folder.path, best))
        refuse_incomparable(mine, other)
        found = compare(mine.losses, other.losses, folder.track["record_rule"])
    except GolfError as error:
        folder.human("record", f"{best.name}: {error}")
        return []
    text = f"against {best.name}: {found.verdict}"
    if found.record:
        folder.note("record", text)
    else:
        folder.fail("record", f"{text}; run more seeds, or enter it without the claim of a record")
    return [*seed_table(mine, other), *result_lines(found, folder.track)]


def best_entry(folder: Folder, is_valid) -> Path | None:
    """The best other entry: valid, in the record lane, scored whole by a maintainer, lowest mean val_loss."""
    needed, entries = folder.track["record_rule"]["min_seeds"], []
    for place, claim in submission.claims(track.home(folder.track, folder.path)):
        seeds, loss = claim.get("seeds"), number(claim.get("val_loss"))
        enough = submission.is_complete(claim) and len(seeds) >= needed and loss is not None
        enough = enough and submission.audit_of(place) is not None
        if place.resolve() != folder.path and claim.get("lane") == "record" and enough:
            entries.append((loss, place))
    return next((place for _, place in sorted(entries) if is_valid(place, folder.track)), None)


def baseline(folder: Folder, is_valid) -> Path | None:
    """The entry that track.json names as record_baseline, if it is valid and can be scored again."""
    name, home = folder.track.get("record_baseline"), track.home(folder.track, folder.path)
    found = {place.name: (place, claim) for place, claim in submission.claims(home)} if name else {}
    place, claim = found.get(name, (None, {}))
    return place if submission.is_complete(claim) and is_valid(place, folder.track) else None
