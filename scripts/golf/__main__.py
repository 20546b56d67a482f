"""`python -m golf <command>`: finds the command's module and turns its errors into one line."""

from __future__ import annotations

import argparse
import sys

from . import GolfError, bench, check, ci, compare, leaderboard, new, run, score

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
    top = parser()
    args = top.parse_args(argv)
    if args.command is None:
        top.print_help()
        return 0
    try:
        return args.main(args)
    except GolfError as error:
        print(f"golf {args.command}: error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print(f"golf {args.command}: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
