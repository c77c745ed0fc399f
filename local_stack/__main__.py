"""`python -m local_stack demo [--keep] [--scoped] [--nodes N] | up | down`: the local stack from the command line."""

from __future__ import annotations

import argparse
import sys

from local_stack.demo import run


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local_stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo_parser = commands.add_parser("demo", help="train real models from queue messages, show what happens")
    demo_parser.add_argument("--keep", action="store_true", help="leave everything running afterwards")
    scoped = (
        "trainings have credentials of their own, and the portal through the dispatcher's relay (CREDENTIALS=scoped)"
    )
    demo_parser.add_argument("--scoped", action="store_true", help=scoped)
    demo_parser.add_argument(
        "--nodes", type=int, default=1, metavar="N", help="one more request: for a training on N nodes"
    )
    commands.add_parser("up", help="start everything, send no request, leave it running")
    down_parser = commands.add_parser("down", help="stop what was left running")
    down_parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    if options.command == "down":
        return run.down(quiet=options.quiet)
    if options.command == "up":
        return run.run(keep=True, send=False)
    return run.run(keep=options.keep, scoped=options.scoped, nodes=options.nodes)


if __name__ == "__main__":
    sys.exit(main())
