"""`make bench`: figures to know while building. Nothing here asserts anything."""

from __future__ import annotations

import argparse

from benchmarks import latency, launch_rate, relay


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=launch_rate.__doc__)
    parser.add_argument("--requests", type=int, default=600, help="waiting requests a round (600)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, in turn (3)")
    parser.add_argument("--latency", type=int, metavar="N", help=latency.__doc__)
    parser.add_argument("--relay", type=int, metavar="N", help=relay.__doc__)
    options = parser.parse_args()
    if options.latency is not None:
        latency.run(options.latency)
    elif options.relay is not None:
        relay.run(options.relay)
    else:
        launch_rate.run(options.requests, options.rounds)


if __name__ == "__main__":
    main()
