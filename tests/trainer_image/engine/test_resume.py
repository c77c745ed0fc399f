"""Real trainings, really killed: the sweep of benchmarks.resume, in small."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from benchmarks.resume import CASES, draw
from tests.world.repository import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(520)]


# Each of these ends with a SIGTERM that damages nothing, so that the last attempt has a checkpoint to go on from
# however slow the machine was to store the others, and waits for no file that a slow one never stores.
# `python -m benchmarks.resume` sweeps over many.
SEEDS = {"tabular": 7, "image_classification": 23, "text_classification": 10, "language_model": 22}


def test_killed_and_resumed_trainings_of_every_task_end_bit_by_bit_like_the_uninterrupted_one() -> None:
    # All in one process, which reads the libraries once.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.resume", "--seed", *(str(SEEDS[task]) for task in CASES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for task, line in zip(CASES, done.stdout.splitlines(), strict=True):
        assert re.fullmatch(rf"{task}: 1 trainings .*, [23] interruptions, 1 resumed .* 0 wrong;.*", line)


def test_the_sweep_draws_every_way_to_be_interrupted() -> None:
    drawn = [one for seed in range(50) for one in draw(random.Random(seed), 30)]
    assert {one.way for one in drawn} == {"kill", "term", "store"}
    assert {one.damage for one in drawn} == {None, "cut", "flip", "lose the manifest"}
    assert {one.step for one in drawn} <= set(range(1, 31))
    assert len({one.step for one in drawn}) > 20
