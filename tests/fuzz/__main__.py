"""python -m tests.fuzz [--seconds 60] [--seed N] [FORMAT…]: damaged files of every format, a minute a format.

Each is read as a training or `predict` reads it. It is read, or refused by one of the trainer's errors, whose sentence
names the file. Another exception, an abort, much memory or much time is a finding, told with the command that repeats
it.
--runs instead of --seconds: so many damaged files of each format, the same ones every time.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.formats import FORMATS
from tests.fuzz.run import fuzz, trials


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Damaged files of every format")
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"{', '.join(FORMATS)}; without: all of them")
    parser.add_argument("--seconds", type=float, default=60, help="for each format (default 60)")
    parser.add_argument("--runs", type=int, help="for each format, instead of --seconds")
    parser.add_argument("--seed", type=int, help="the first one's (default: by the clock)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.formats if name not in FORMATS]:
        parser.error(f"{unknown[0]} is no format; known: {', '.join(FORMATS)}")
    seed = chosen.seed if chosen.seed is not None else int(time.time()) % 10**6 * 1000
    if chosen.here:
        trials(chosen.formats, seed, chosen.first, chosen.runs, chosen.seconds)
        return 0
    findings = 0
    for name in chosen.formats or FORMATS:
        done = fuzz([name], seed, chosen.runs, chosen.seconds)[name]
        print(f"{name}: {done.summary}", flush=True)
        for finding in done.findings:
            print(f"  FINDING {finding}", flush=True)
        findings += len(done.findings)
    print(f"{findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
