"""golf.sh COMMAND: finds the command's module and turns its errors into one line."""

import argparse
import ast
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from golf.core.errors import GolfError
from golf.core.packages import missing
from golf.core.paths import REPO, shown
from golf.core.processes import handle_stops
from golf.core.text import printable

# By group, in the order in which a user meets them: command -> its module, imported when it is used.
GROUPS = {
    "run": {
        "doctor": "run.doctor",
        "run": "run.command",
        "summary": "run.summary",
        "sweep": "sweep.command",
        "bench": "bench.command",
    },
    "see": {
        "fit": "see.fit",
        "runs": "see.runs",
        "watch": "see.watch",
        "plot": "see.plot",
        "sample": "see.sample",
        "explain": "see.explain",
        "report": "see.report",
        "export": "see.export",
        "pictures": "see.pictures",
    },
    "submit": {"new": "submit.new", "check": "check.command", "compare": "board.compare"},
    "judge": {
        "score": "score.command",
        "holdout": "score.holdout",
        "verify": "verify.command",
        "leaderboard": "board.leaderboard",
        "ci": "board.ci",
    },
}
COMMANDS = {name: module for group in GROUPS.values() for name, module in group.items()}
DATA = ("build_sample_dataset.py", "cached_challenge_fineweb.py", "tokenize_docs.py")  # in data/


def overview() -> str:
    """The commands by group, each with the first line of its module, read without importing it."""
    lines = ["usage: golf.sh COMMAND ...; golf.sh COMMAND -h explains one", "", "data"]
    paths = [REPO / "data" / name for name in DATA]
    lines += [f"  python3 data/{path.name:<28} {purpose(path)}" for path in paths if path.is_file()]
    for group, commands in GROUPS.items():
        lines += ["", group]
        for name, module in commands.items():
            path = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
            lines.append(f"  {name:<12} {purpose(path)}")
    return "\n".join(lines)


def purpose(path: Path) -> str:
    """The first line of a module's docstring, up to a colon."""
    text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    return text.partition("\n")[0].partition(": ")[0].removesuffix(".")


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        super().error(printable(message))


def parser(names: Iterable[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """A parser for these commands only: importing all would take longer than most commands run."""
    top = Parser(prog="golf.sh")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("help", description="List the commands.")
    for name in names:
        module = importlib.import_module(f"golf.{COMMANDS[name]}")
        text = (module.__doc__ or name).strip()  # python -OO strips docstrings
        form = argparse.RawDescriptionHelpFormatter
        one = commands.add_parser(name, description=text, formatter_class=form)
        module.add_arguments(one)
        one.set_defaults(main=module.main)
    return top


def main(argv: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):  # a file name may hold anything: print it all the same
        stream.reconfigure(errors="backslashreplace")
    handle_stops(interrupt)
    code = 0
    try:
        try:
            code = dispatch(argv)
        except SystemExit as end:  # argparse's, after a help text or an error
            code = end.code
        sys.stdout.flush()  # here, where it can still be said what a failure means
    except BrokenPipeError:  # `golf.sh ... | head`: nobody reads on
        code = 128 + signal.SIGPIPE
    except OSError as error:  # a full disk, a terminal that is gone
        with suppress(OSError):
            if code in (0, 1):  # else it was said already
                print(f"golf: error: the output: {error.strerror}", file=sys.stderr, flush=True)
        code = max(code, 2)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        return code
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):  # or Python complains when it flushes them at exit
        os.dup2(nowhere, number)
    return code


def interrupt(signum, frame) -> None:
    """Any signal that asks to stop ends a command as Ctrl-C does, so that it tidies up."""
    raise KeyboardInterrupt


def dispatch(argv: list[str] | None) -> int:
    command = ""
    try:
        words = sys.argv[1:] if argv is None else argv
        if words[:1] == ["help"] and words[1:]:  # help COMMAND
            words = [words[1], "-h"]
        if not words or words[0] in ("help", "-h", "--help"):
            print(overview())
            return 0
        if words[0] not in COMMANDS:
            near = difflib.get_close_matches(words[0], COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else "golf.sh help lists them"
            raise GolfError(f"unknown command {words[0][:40]!r}; {hint}", 2)
        args = parse(words)
        command = f" {args.command}"
        require_working_directory()
        return args.main(args)
    except GolfError as error:
        message, code = f"error: {error}", error.code
    except BrokenPipeError:
        raise
    except ImportError as error:  # commands import what not every one needs late
        if (error.name or "").partition(".")[0] == "golf":
            raise
        message, code = f"error: {missing(error.name or str(error))}", 2
    except OSError as error:  # a disk that is full, a file that may not be read
        where = error.filename2 or error.filename  # a copy's target
        where = f"{shown(str(where))}: " if where else "writing: "
        message, code = f"error: {where}{error.strerror or error}", 2
    except KeyboardInterrupt:
        message, code = "stopped", 130
    except RuntimeError as error:  # Path.resolve() before Python 3.13
        if not str(error).startswith("Symlink loop"):
            raise
        message, code = f"error: {error}; remove that link", 2
    print(f"golf{command}: {printable(message)[:2000]}", file=sys.stderr)  # an argument may hold a line end
    return code


def require_working_directory() -> None:
    try:
        os.getcwd()
    except OSError:
        raise GolfError("the working directory was removed; cd to another", 2) from None


def parse(words: list[str]) -> argparse.Namespace:
    """As argparse does, but NAME=value may also follow an option: `run CONFIG --trainer T NAME=value`."""
    top = parser([name for name in words[:1] if name in COMMANDS])
    args, rest = top.parse_known_args(words)
    if not hasattr(args, "settings") or any(word.startswith("-") for word in rest):
        if rest:
            top.error(f"unrecognized arguments: {' '.join(rest)}")
    elif rest:
        args.settings += rest
    return args


if __name__ == "__main__":
    sys.exit(main())
