"""`python -m golf <command>`: finds the command's module and turns its errors into one line."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

from golf.core.errors import GolfError
from golf.core.packages import missing
from golf.core.paths import shown
from golf.core.processes import handle_stops

COMMANDS = {  # name -> its module in this package, imported when it is asked for
    "run": "run.command",
    "summary": "run.summary",
    "sweep": "sweep.command",
    "new": "submit.new",
    "check": "check.command",
    "score": "score.command",
    "holdout": "score.holdout",
    "verify": "verify.command",
    "compare": "board.compare",
    "leaderboard": "board.leaderboard",
    "sample": "see.sample",
    "runs": "see.runs",
    "watch": "see.watch",
    "plot": "see.plot",
    "explain": "see.explain",
    "report": "see.report",
    "bench": "bench.command",
    "ci": "board.ci",
}


def parser(names: Iterable[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Of these commands alone: to import all of them takes longer than most of them do."""
    top = argparse.ArgumentParser(
        prog="golf.sh",
        description="The tools of Parameter Golf Local; `golf.sh COMMAND -h` explains one.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name in names:
        module = importlib.import_module(f"golf.{COMMANDS[name]}")
        text = (module.__doc__ or name).strip()  # python -OO strips docstrings
        one = commands.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(one)
        one.set_defaults(main=module.main)
    return top


def main(argv: list[str] | None = None) -> int:
    open_missing_streams()
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


def open_missing_streams() -> None:
    """Streams that whoever started us has closed (`>&-`) lead nowhere."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def dispatch(argv: list[str] | None) -> int:
    command = ""
    try:
        args = parse(argv)
        if args.command is None:
            parser().print_help()
            return 0
        command = f" {args.command}"
        return args.main(args)
    except GolfError as error:
        message, code = f"error: {error}", error.code
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:  # compare and leaderboard import what they need late
        if (error.name or "").partition(".")[0] == "golf":
            raise
        message, code = f"error: {missing(error.name or str(error))}", 2
    except OSError as error:  # a disk that is full, a file that may not be read
        where = f"{shown(str(error.filename))}: " if error.filename else ""
        message, code = f"error: {where}{error.strerror or error}", 2
    except KeyboardInterrupt:
        message, code = "stopped", 130
    print(f"golf{command}: {message}", file=sys.stderr)
    return code


def parse(argv: list[str] | None) -> argparse.Namespace:
    """As argparse does, but `run CONFIG --trainer T NAME=value` has its settings behind an option."""
    words = sys.argv[1:] if argv is None else argv
    top = parser(words[:1] if words and words[0] in COMMANDS else COMMANDS)
    args, rest = top.parse_known_args(words)
    if not hasattr(args, "settings") or any(word.startswith("-") for word in rest):
        if rest:
            top.error(f"unrecognized arguments: {' '.join(rest)}")
    elif rest:
        args.settings += rest
    return args


if __name__ == "__main__":
    sys.exit(main())
