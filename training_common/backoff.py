"""Exponential back-off with jitter: how long to wait before another try."""

from __future__ import annotations

import random


def exponential(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after this many failures in a row (1 or more): `first`, doubled each time, at most `longest`."""
    return min(longest, first * 2.0 ** min(failures - 1, 60))


def jittered(seconds: float, low: float = 0.5, high: float = 1.0) -> float:
    """`seconds` times a random factor from `low` to `high`: callers that failed together do not return together."""
    return seconds * random.uniform(low, high)  # noqa: S311 (spreads load, hides nothing)
