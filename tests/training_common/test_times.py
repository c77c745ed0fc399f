"""training_common.times: the texts that Kubernetes, annotations and run ids hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training_common.times import rfc3339, run_stamp

NOON = 1769860800.9


def test_a_time_is_written_in_whole_seconds_of_utc() -> None:
    assert rfc3339(NOON) == "2026-01-31T12:00:00Z"
    assert run_stamp(NOON) == "20260131t120000"


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_runs_sort_by_time_as_text(one: float, other: float) -> None:
    assert (int(one) < int(other)) == (run_stamp(one) < run_stamp(other))
