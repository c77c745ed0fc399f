"""objects: what a Job's annotations say may be anybody's text, and nobody's text may end the dispatcher."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.cluster import names, objects
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.job_gauges import set_job_gauges
from dispatcher.decisions.phases import phase, since
from dispatcher.telemetry.metrics import Metrics
from tests.world.builders import T0, a_job, failed
from training_common.times import rfc3339


@pytest.mark.parametrize("job", [a_job(), a_job(suspended=True), a_job(*failed()), a_job(*failed(), reported=True)])
@pytest.mark.parametrize("text", ["yesterday", "2026-13-45T00:00:00Z", "0001-01-01T00:00:00+23:59", "\N{SNOWMAN}"])
def test_a_time_that_somebody_wrote_by_hand_does_not_end_the_sweep_of_every_dispatcher(
    job: dict[str, Any], text: str
) -> None:
    hand_written = dict.fromkeys((names.LAUNCHED_AT, names.REPORTED_AT, names.QUEUED_AT), text)
    job["metadata"]["annotations"] |= hand_written | {names.ACKNOWLEDGED: "false"}
    cache = ClusterCache(lambda name: None)
    cache.replace("jobs", [job])
    set_job_gauges(cache, Metrics(), T0)
    since(phase(job, ()), job, ())


@given(st.text() | st.datetimes(timezones=st.timezones() | st.none()).map(lambda when: when.isoformat()))
@example("9999-12-31T23:59:59.9999999Z")
@example("0001-01-01T00:00:00+23:59")
def test_every_time_that_is_read_can_be_written_again(text: str) -> None:
    seconds = objects.timestamp(text)
    if seconds is not None:
        assert objects.timestamp(rfc3339(seconds)) == seconds // 1
