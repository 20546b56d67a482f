"""Where the repository lies, and paths as people type them."""

from pathlib import Path

from golf.core.errors import GolfError
from golf.core.text import printable

REPO = Path(__file__).resolve().parents[3]


def shown(path) -> str:
    """A path as people type it, relative to the working directory or the repository, in one line."""
    path = Path(path)
    for base in (Path.cwd(), REPO):
        if path.is_relative_to(base):
            path = path.relative_to(base)
    return printable(str(path))


def path_argument(text: str) -> Path:
    """For argparse: a path with a leading ~ expanded, which shells do not do in --out=~/x."""
    if not text:  # as "$RUN" is where nothing set it; Path("") would be the working directory
        raise GolfError("an empty path is given; name a file or a folder", 2)
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody's home
        raise GolfError(f"{text}: there is no such home folder; write the whole path", 2) from None
