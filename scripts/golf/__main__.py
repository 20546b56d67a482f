"""`python -m golf <command>`: finds the command's module and turns its errors into one line."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from . import GolfError, bench, check, ci, compare, leaderboard, missing, new, run, score, shown

COMMANDS = {
    "run": run,
    "new": new,
    "check": check,
    "score": score,
    "compare": compare,
    "leaderboard": leaderboard,
    "bench": bench,
    "ci": ci,
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="golf.sh",
        description="The tools of Parameter Golf Local; `golf.sh COMMAND -h` explains one.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        text = module.__doc__.strip()
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
    for stream in (sys.stdout, sys.stderr):  # a file name may hold anything: print it all the same
        stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return dispatch(argv)
        finally:
            sys.stdout.flush()  # here, where it can still be said what a failure means
    except BrokenPipeError:  # `golf.sh ... | head`: nobody reads on
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # or Python complains when it flushes them at exit
            os.dup2(nowhere, stream.fileno())
        return 128 + signal.SIGPIPE


def dispatch(argv: list[str] | None) -> int:
    top = parser()
    args = top.parse_args(argv)
    if args.command is None:
        top.print_help()
        return 0
    try:
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
    print(f"golf {args.command}: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
