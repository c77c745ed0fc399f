"""python -m tests.crashes --runs N --seed S: long random runs. Prints runs, calls, crashes and findings.

--deep goes first through what the suite does in part: all pairs of faults and of switches of the small scenarios, and
every single trouble and stall at every call: some ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections import Counter

from tests.crashes import explore, scenarios
from tests.crashes.chance import random_run
from tests.crashes.explore import DEFECTS, TALLY, Finding
from tests.crashes.test_explorer import TROUBLES


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crashes", description="Random worlds, beyond what the suite explores"
    )
    parser.add_argument("--runs", type=int, default=1000, help="how many random worlds (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="the first one's seed (default 1)")
    parser.add_argument("--deep", action="store_true", help="first all that the suite does in part (ten minutes)")
    arguments = parser.parse_args()
    log = logging.getLogger("dispatcher")
    log.setLevel(logging.ERROR)
    log.propagate = False
    log.addHandler(DEFECTS)
    troubles: Counter[str] = Counter()
    findings = 0
    began = time.monotonic()
    if arguments.deep:
        findings += _deep()
        print(
            f"all pairs: {TALLY.runs} runs, {TALLY.calls} calls, {findings} findings, {dict(TALLY.kinds)}", flush=True
        )
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        try:
            _, done = random_run(seed)
        except Finding as finding:
            findings += 1
            print(f"FINDING {finding}", flush=True)
            continue
        troubles.update(line.split(": ", 1)[1].split()[0] for line in done)
    crashes = troubles["Crash"]
    print(
        f"seeds {arguments.seed} to {arguments.seed + arguments.runs - 1}: {TALLY.runs} runs, {TALLY.calls} calls, "
        f"{crashes} crashes, {troubles['Fail']} failures, {troubles['Late']} late writes, "
        f"{TALLY.covered} outcomes covered and repaired, {TALLY.raced} races with a user, "
        f"{findings} findings, {time.monotonic() - began:.0f} s"
    )
    return 1 if findings else 0


def _deep() -> int:
    faults = [
        ("before", explore.crash),
        ("after", explore.crash),
        ("before", explore.fail),
        ("before", explore.late),
        ("before", explore.late_crash),
        ("before", explore.deleted),
    ]
    families = [
        explore.pairs(scenario, first, second)
        for scenario in scenarios.SMALL
        for first, second in itertools.product(faults, faults)
    ]
    families += [explore.two_switches(scenario) for scenario in (*scenarios.SMALL, scenarios.again)]
    # Whole here, in part in the suite.
    families += [
        explore.singles(scenario, troubles)
        for scenario in (*scenarios.SINGLE, *scenarios.SCOPED)
        for troubles in TROUBLES.values()
    ]
    families += [
        family(scenario) for scenario in scenarios.SINGLE for family in (explore.one_switch, explore.silent_watch)
    ]
    findings = 0
    for family in families:
        try:
            for _ in family:
                continue
        except Finding as finding:
            findings += 1
            print(f"FINDING {finding}", flush=True)
    return findings


if __name__ == "__main__":
    sys.exit(main())
