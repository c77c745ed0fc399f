"""The benchmark runs: its figures are looked at by people, never asserted."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu, latency, relay
from local_stack.azurite import Azurite
from tests.world.repository import ROOT

pytestmark = pytest.mark.long


def test_the_launch_benchmark_prints_both_rates_and_their_ratio(azurite: Azurite) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--requests", "5", "--rounds", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"5 requests .* bare loop [\d.]+ launches/s, dispatcher [\d.]+ launches/s, ratio .*", last)


def test_the_gpu_benchmark_measures_where_it_can_and_says_so_where_it_cannot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu.main(["--device", "cpu", "--only", "language model", "--markdown"]) == 0
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    measured = dict(zip(table[0], table[-1], strict=True))
    assert table[0] == gpu.HEADER
    assert float(measured["rows/s"].replace(",", "")) > 0
    assert (measured["load"], measured["precision"], measured["busy"]) == ("language model", "fp32", "–")
    monkeypatch.setattr(gpu, "MOST_SECONDS", 0.1)
    assert gpu.main(["--device", "cpu", "--only", "texts", "--only", "tabular"]) == 1
    assert capsys.readouterr().out.count("failed: not through after 0 s") == 2, "one that fails does not end the others"
    if not torch.cuda.is_available():
        assert gpu.main([]) == 1
        assert "Nothing was measured. Device 'cuda' was asked for, but none is visible" in capsys.readouterr().err


def test_the_latency_benchmark_prints_how_long_messages_and_outcomes_waited(
    azurite: Azurite, capsys: pytest.CaptureFixture[str]
) -> None:
    latency.run(2, apart=(0.0, 0.1))
    figures = r".*:\np50 [\d.]+ s, p99 [\d.]+ s, longest [\d.]+ s\nall: [\d.]+ [\d.]+\n"
    assert re.fullmatch(f"message {figures}container {figures}", capsys.readouterr().out)


def test_the_relay_benchmark_prints_what_each_call_and_ten_thousand_trainings_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    relay.run(2)
    figures = r"[\d.]+ ms without the relay, [\d.]+ ms through it, ratio [\d.]+; [\d.]+ ms of the relay's CPU\n"
    printed = capsys.readouterr().out
    assert re.match(f"status check: {figures}progress: {figures}10000 trainings, each asks once in 30 s: ", printed)
