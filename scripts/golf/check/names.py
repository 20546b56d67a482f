"""Rules about file names: valid on every system, hiding nothing, holding no data."""

import re
import sys
import unicodedata
from pathlib import PurePosixPath

from golf.check import allowed
from golf.check.folder import Folder, quoted

NAME_LIMIT, PATH_LIMIT = 64, 128  # bytes; names of files that do not count could hold text
COUNTED_LIMIT = 12  # files that count for one seed
GOOD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
# What Windows keeps for itself, with any extension.
DEVICES = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|com\d|lpt\d)(\..*)?", re.IGNORECASE)
MODULE_SUFFIX = re.compile(r"\.(py|pyw|pyc|pyi|pyd|so)\Z")
# Modules that scoring imports: Python's, the requirements', and the scorer's own. A file of such a name
# beside the script would be imported instead.
OWN = "nvidia cuda safetensors distutils sitecustomize usercustomize golf host feeder".split()
SHADOWED = {name.lower() for name in (*OWN, *allowed.PACKAGES, *sys.stdlib_module_names)}
# What systems and Python leave behind: skipped here, ignored by git, refused by ci.
LEFT_BEHIND = re.compile(r"(.*/)?(\.DS_Store|\._[^/]*|Thumbs\.db|desktop\.ini|__pycache__/[^/]*\.pyc)")
# What Python's tools, and those here, read as their settings, run, or take for an entry, wherever it lies.
SETTINGS = re.compile(
    r"(?i)(.*/)?((pyproject|ruff|pytest|tox)\.toml|(conftest|noxfile|setup)\.py|(track|verified)\.json)"
    r"|.+/submission\.json"
)
EDITORS_OWN = re.compile(r"\..*\.sw[op]|.*~|\.(git|idea|vscode|ipynb_checkpoints|(pytest|ruff)_cache)")


def left_behind(path: str) -> bool:
    """Whether a system or Python left this file behind."""
    return bool(LEFT_BEHIND.fullmatch(path))


def fault(path: str, is_folder: bool = False) -> str | None:
    """What is wrong with the last part of a path in a submission's folder; None: nothing."""
    name = PurePosixPath(path).name
    if EDITORS_OWN.fullmatch(name):
        return "an editor or a program left it behind: delete it"
    if not GOOD_NAME.fullmatch(name):
        return "rename it: use letters, digits, '_', '-', '.' only"
    if SETTINGS.fullmatch(path):
        return "rename it: tools take a file of this name for their own"
    if name.endswith("."):
        return "rename it: Windows drops a dot at the end"
    if DEVICES.fullmatch(name):
        return "rename it: Windows keeps this name for a device"
    if len(name) > NAME_LIMIT or len(path) > PATH_LIMIT:
        return f"rename it: at most {NAME_LIMIT} characters, and {PATH_LIMIT} with its folders"
    if is_folder or MODULE_SUFFIX.search(name):
        module = name.lower() if is_folder else name.lower().split(".")[0]
        if module in SHADOWED:
            return f"rename it: Python would import it instead of its own {module}"
    return None


def key(path: str) -> str:
    """A key that is equal for names that some file system confuses."""
    return unicodedata.normalize("NFKC", path).casefold()


def names_apart(folder: Folder) -> None:
    """No two names differ only in case; no module is both a file and a folder."""
    known: dict[str, str] = {}
    folders = {str(parent) for path in folder.files for parent in PurePosixPath(path).parents} - {"."}
    for path in (*sorted(folder.files), *sorted(folders)):
        other = known.setdefault(key(path), path)
        if other != path:
            text = f"{quoted(path)} and {quoted(other)} are one file on other systems; rename one"
            folder.fail("file-name", text)
        if path.endswith(".py") and path.removesuffix(".py") in folders:
            text = f"{quoted(path)} has a folder of its name beside it, which Python imports instead"
            folder.fail("file-name", f"{text}; rename one")


def counted_few(folder: Folder) -> None:
    counted = [path for path in folder.files if folder.counted(path)]
    if len(counted) + 1 > COUNTED_LIMIT:
        text = f"{len(counted)} files of the roles script and score, and the artifact"
        folder.fail("file-count", f"{text}; put them into {COUNTED_LIMIT} at most, including the artifact")


RULES = (names_apart, counted_few)
