"""Rules about claims: what submission.json and README.md say, and against the track."""

import datetime
import re
from collections import Counter

from golf.check.folder import Folder, quoted
from golf.core import schema, submission
from golf.core.json_io import StrictError, dig, refuse_characters

# A page's tags, not a vocabulary's: <s>, </s>, <unk>.
MARKUP = re.compile(r"<(?!/?(s|unk|pad|[be]os|mask|sep|cls)>)[A-Za-z/!?][^<>]*>")
# Blanks of a README: those of a keyboard and a typesetter, and a hyphen where a word may be parted.
BLANKS = " \t\n\u00a0\u00ad\u2002\u2003\u2009\u202f\u3000"
DATE = re.compile(r"20\d\d-\d\d-\d\d", re.ASCII)


# ---- submission.json by itself


def read_claim(folder: Folder) -> None:
    """Reads submission.json into folder.claim; adds a finding if it is not a valid JSON object."""
    if "submission.json" not in folder.files:
        return  # file-required says so, or what it is instead of a file
    try:
        folder.claim = submission.read_claim(folder.path)
    except submission.ClaimError as error:
        text = f"submission.json {error.reason[:120]}; make it with golf.sh new"
        folder.fail_file("json", "submission.json", text)
    else:
        check_shape(folder)


def check_shape(folder: Folder) -> None:
    """Checks the JSON schema, then what a schema cannot express."""
    for error in schema.errors("submission", folder.claim):
        folder.fail("json-schema", f"submission.json: {error}; see docs/submission_template.json")
    used = Counter(seed["seed"] for seed in folder.seeds() if isinstance(seed.get("seed"), int))
    for seed, times in used.items():
        if times > 1:
            folder.fail("seed-twice", f"seed {seed} is listed {times} times; list each once")
    for name, words in submission.PLACEHOLDERS.items():
        value = folder.claim.get(name)
        unwritten = isinstance(value, str) and submission.is_unwritten(value, words)
        if unwritten and not (name == "github_id" and value == "-"):  # who has no account
            places = "submission.json" if name == "github_id" else "submission.json and README.md"
            text = f"{name} still says {quoted(value)}; edit {places}"
            folder.fail("placeholder", text)
        elif isinstance(value, str) and MARKUP.search(value):
            folder.fail("json-schema", f"{name} holds markup, {quoted(value)}; write it in plain words")


def readme(folder: Folder) -> None:
    """README.md is UTF-8 text that describes the idea."""
    if not folder.has("README.md"):
        return  # file-required says so
    if (size := folder.files["README.md"]) > submission.JSON_LIMIT:
        text = f"README.md has {size:,} bytes; put pictures beside it, with the role extra"
        folder.fail("file-large", text)
        return
    try:
        text = folder.read("README.md", submission.JSON_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        folder.fail("file-role", f"README.md is not UTF-8 at byte {error.start}; save it as UTF-8 text")
        return
    try:
        refuse_characters(text.replace("\r\n", "\n"), BLANKS)
    except StrictError as error:  # it would steer a terminal, or show other words than it holds
        folder.fail("file-role", f"README.md {error}")
    words, idea = (submission.plain_words(one) for one in (text, submission.IDEA))
    if not {*words} - {*submission.LATER, *submission.UNWRITTEN} or " ".join(idea) in " ".join(words):
        folder.fail("placeholder", "README.md does not describe the idea yet; write what is new and why")


def date(folder: Folder) -> None:
    """The date exists and is neither before the track opened nor in the future (by over a day)."""
    text = folder.claim.get("date")
    if not isinstance(text, str) or not DATE.fullmatch(text):
        return  # json-schema says so
    try:
        claimed = datetime.date.fromisoformat(text)
    except ValueError:
        folder.fail("date", f"date {text} does not exist; state the day of the run")
        return
    today = datetime.datetime.now(datetime.timezone.utc).date()
    if claimed > today + datetime.timedelta(days=1):
        folder.fail("date", f"date {text} is in the future, today is {today}; state the day of the run")
    opened = folder.track.get("opened")
    if opened is not None and text < opened:
        folder.fail("date", f"date {text} is before the track opened, {opened}; state the day of the run")


# ---- Track, lane, data


def place(folder: Folder) -> None:
    """Track, lane and data match track.json."""
    rules, claim = folder.track, folder.claim
    if not claim:
        return
    if claim.get("track") != rules["name"]:
        folder.fail("track", f"track {quoted(claim.get('track'))}: the folder is checked as {rules['name']}")
    if claim.get("lane") not in rules["lanes"]:
        folder.fail("lane", f"lane {quoted(claim.get('lane'))}: choose {' or '.join(rules['lanes'])}")
    if own_tokenizer(folder):
        folder.human("own-tokenizer", "the tokenizer is the entry's own; compare decoded text and bytes")
    check_data(folder)
    if folder.ranked and 0 < len(folder.seeds()) < rules["record_rule"]["min_seeds"]:
        needed = rules["record_rule"]["min_seeds"]
        folder.note("seeds-few", f"{len(folder.seeds())} seeds; a record needs {needed}")


def own_tokenizer(folder: Folder) -> bool:
    """A non-record entry that ships, counts and names a tokenizer of its own."""
    sha256 = dig(folder.claim, "data", "tokenizer_sha256")
    shipped = any(e["role"] == "score" and e.get("sha256") == sha256 for e in folder.listed())
    return folder.claim.get("lane") == "non-record" and shipped


def check_data(folder: Folder) -> None:
    """`data` has the track's name and hashes; unpinned hashes go to a reviewer."""
    pinned, data = folder.track["data"], folder.claim.get("data")
    if own_tokenizer(folder):
        return
    if dig(data, "name") != pinned["name"]:
        claimed = quoted(dig(data, "name"))
        folder.fail("data", f"data {claimed}: the track has {pinned['name']}; score on that")
    for name in ("val_sha256", "tokenizer_sha256"):
        if pinned[name] is None:
            folder.human("data-unpinned", f"the track pins no {name} yet; compare with other entries")
        elif dig(data, name) != pinned[name]:
            folder.fail("data", f"{name} is not the track's; score on the track's own data")


RULES = (readme, date, place)
