"""Random worlds beyond the exhaustive depth; `python -m tests.crashes` runs many more. A failure prints its seed."""

from __future__ import annotations

import pytest

from tests.crashes.chance import random_run

RUNS = 60


@pytest.mark.parametrize("first", range(1, 5 * RUNS, RUNS))
def test_random_worlds_lose_and_double_nothing(first: int) -> None:
    print(f"seeds {first} to {first + RUNS - 1}")
    for seed in range(first, first + RUNS):
        random_run(seed)


@pytest.mark.parametrize(
    ("seed", "why"),
    [
        (103733, "a repeated PUT of Processing covered the outcome that it had just read"),
        (2701, "progress sent from an old reading covered an outcome"),
        (3277, "a late create after its model had ended"),
        (101619, "a late Processing landed on a reported outcome"),
        (6288, "an answer that was behind hid the Completed of a Job that was then deleted"),
        (17036, "a replica whose watch was behind took a reported Job for one that had vanished"),
    ],
)
def test_what_was_found_once_stays_mended(seed: int, why: str) -> None:
    print(why)
    random_run(seed)
