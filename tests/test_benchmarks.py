"""The benchmark runs: its figures are looked at by people, never asserted."""

from __future__ import annotations

import re
import subprocess
import sys

from local_stack.azurite import Azurite
from local_stack.stack import ROOT


def test_the_launch_benchmark_prints_both_rates_and_their_ratio(azurite: Azurite) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--requests", "5", "--rounds", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"5 requests .* bare loop [\d.]+ launches/s, dispatcher [\d.]+ launches/s, ratio .*", last)
