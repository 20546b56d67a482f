"""Renders the HTML pages: templates of Jinja, in which every text is escaped."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.text import printable

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Section:
    """What a section of a page shows, or why there is nothing."""

    content: object = None
    missing: str = ""


def section(make: Callable) -> Section:
    """What make() returns; what cannot be told is said to be missing, and why."""
    try:
        return Section(make())
    except (GolfError, ImportError, OSError) as error:
        return Section(missing=str(error))
    except Exception as error:  # of foreign junk that nobody foresaw: the page's other sections stand
        return Section(missing=f"{type(error).__name__}: {error}")


def render(template: str, *folders: Path, **facts) -> str:
    """The page of a template that lies in one of the folders or in TEMPLATES; only Markup is not escaped, and
    no other text holds what no one sees: controls, marks that turn its direction."""
    import jinja2  # late: other commands do without it

    loader = jinja2.FileSystemLoader([*folders, TEMPLATES])
    how = dict(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    how["finalize"] = lambda value: printable(value, keep="\n\t") if type(value) is str else value
    return jinja2.Environment(loader=loader, **how).get_template(template).render(facts)
