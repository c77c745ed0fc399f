"""`make bench`: figures to know while building. Nothing here asserts anything."""

from __future__ import annotations

import argparse

from benchmarks import launch_rate


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=launch_rate.__doc__)
    parser.add_argument("--requests", type=int, default=600, help="waiting requests a round (600)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, in turn (3)")
    options = parser.parse_args()
    launch_rate.run(options.requests, options.rounds)


if __name__ == "__main__":
    main()
