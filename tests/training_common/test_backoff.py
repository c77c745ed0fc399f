"""Back-off doubles from its first pause up to its longest, whatever the count; jitter stays inside its bounds."""

from __future__ import annotations

import pytest

from training_common.backoff import exponential, jittered


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (60, 30.0), (10_000, 30.0)])
def test_pauses_double_up_to_the_longest_and_never_overflow(failures: int, seconds: float) -> None:
    assert exponential(failures, first=0.5, longest=30.0) == seconds


def test_jitter_spreads_callers_within_its_bounds() -> None:
    waits = {jittered(8.0, 0.75, 1.25) for _ in range(200)}
    assert min(waits) >= 6.0
    assert max(waits) <= 10.0
    assert len(waits) > 100
