"""Labels and annotations that somebody took from a Job of ours are put back; nobody is fought, nothing is invented."""

from __future__ import annotations

import logging
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterUnavailable, Listing, ObjectInvalid, WatchExpired
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject, Metadata
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.metadata_repair import MetadataRepair, is_damaged, repaired_metadata
from dispatcher.launch.job_spec import JobDefaults, build_job
from dispatcher.launch.job_template import load_template
from dispatcher.launch.request import Bounds, decode
from tests.world import json_objects as objects
from tests.world.builders import T0, TEMPLATE, FakeClock, a_job, complete, job_json
from training_common.times import rfc3339

MESSAGE = '{"task": "train", "model_container_name": "model-1", "note": "$(API_KEY)"}'


def _json(without: tuple[str, ...] = (), **wishes: Any) -> dict[str, Any]:
    """A running Job as it was launched, without some of its labels and annotations."""
    request = decode(MESSAGE, Bounds(8, 3600))
    built = build_job(
        load_template(yaml.safe_dump(TEMPLATE), ""),
        request,
        message_id="message-1",
        queued_at=T0,
        defaults=JobDefaults({}, 3600),
    )
    job = job_json(**wishes)
    job["spec"]["template"] = built["spec"]["template"]
    job["metadata"]["annotations"] = built["metadata"]["annotations"] | job["metadata"]["annotations"]
    for kind in ("labels", "annotations"):
        for key in without:
            job["metadata"][kind].pop(key, None)
    return job


def _job(without: tuple[str, ...] = (), **wishes: Any) -> Job:
    return objects.job(_json(without, **wishes))


def _environment(job: dict[str, Any]) -> dict[str, str]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def _repaired(job: dict[str, Any], now: float = T0) -> dict[str, Any]:
    """Its metadata's repair merged into it."""
    metadata = {**job["metadata"]}
    patch = repaired_metadata(objects.job(job), _environment(job), now)
    for kind in ("labels", "annotations"):
        metadata[kind] = {key: value for key, value in (metadata[kind] | patch[kind]).items() if value is not None}
    return {**job, "metadata": metadata}


ALL = tuple(
    key for key in (*_json()["metadata"]["labels"], *_json()["metadata"]["annotations"]) if key.startswith("training-")
)


@pytest.mark.parametrize(
    ("without", "damaged"),
    [
        ((), False),
        ((names.MANAGED_BY,), True),
        ((names.MODEL_ID,), True),
        ((names.MESSAGE_ID,), True),
        (ALL, True),
        # One patch writes both at a launch's end: without both it is not over, one alone was left by a hand.
        ((names.LAUNCHED_AT,), True),
        ((names.ACKNOWLEDGED,), True),
        ((names.LAUNCHED_AT, names.ACKNOWLEDGED), False),
    ],
)
def test_a_job_is_ours_by_its_finalizer(without: tuple[str, ...], damaged: bool) -> None:
    assert is_damaged(_job(without)) is damaged
    assert not is_damaged(_job(without, finalizer=False)), "it was taken out of our hands"


@pytest.mark.parametrize("lost", [names.LAUNCHED_AT, names.ACKNOWLEDGED])
def test_a_launch_of_which_a_hand_took_half_is_neither_begun_anew_nor_told_again(lost: str) -> None:
    whole = objects.job(_repaired(_json((lost,)), T0 + 60.0))
    assert whole.is_launched
    assert whole.is_acknowledged, "Processing sent now could cover a Reconfigure"
    assert not is_damaged(whole)


@pytest.mark.parametrize("without", [(names.MANAGED_BY,), (names.MODEL_ID,), (names.MESSAGE_ID,), ALL])
def test_a_mended_job_is_reported_like_any_other(without: tuple[str, ...]) -> None:
    mended = _repaired(_json(without), T0 + 99)
    job = objects.job(mended)
    assert not is_damaged(job)
    assert job.is_managed
    assert job.model_id == "1"
    assert job.is_launched
    assert job.is_acknowledged, "a Reconfigure since then must not be covered"
    whole = _json()["metadata"]["annotations"]
    for key in (names.RUN_ID, names.REQUEST):
        assert objects.annotation(mended, key) == whole[key]
    assert job.annotations.launched_at == rfc3339(T0)


def test_what_is_still_there_stays_as_it_is() -> None:
    damaged = _job((names.MANAGED_BY,), acknowledged=False)
    assert repaired_metadata(damaged, {}, T0)["annotations"] == {}


def test_an_id_that_was_changed_is_that_of_the_name_again() -> None:
    job = _job(labels={names.MODEL_ID: "another"})
    assert is_damaged(job)
    assert repaired_metadata(job, {}, T0)["labels"][names.MODEL_ID] == "1"


def test_a_job_that_somebody_hid_from_us_while_it_runs_is_shown_again() -> None:
    job = _json(labels={names.REPORTED: "true"})
    assert is_damaged(objects.job(job))
    assert objects.label(_repaired(job), names.REPORTED) is None
    assert not is_damaged(_job(labels={names.REPORTED: "true"}, reported=True)), "it was reported"


def test_a_job_that_was_never_started_is_launched_by_the_usual_way() -> None:
    assert not objects.is_launched(_repaired(_json(ALL, launched=False)))
    queued = _json(ALL, suspended=True, labels={names.KUEUE_QUEUE_LABEL: "training"})
    assert objects.is_launched(_repaired(queued)), "only Kueue resumes it"


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = Mock()
        self.cluster.get_environment.return_value = _environment(_json())
        self.events, self.look_at = Mock(), Mock()
        self.ended = EndedJobs(3600)
        self.repairer = MetadataRepair(self.cluster, self.ended, self.events, clock=lambda: T0, monotonic=self.clock)
        self.repairer.look_at = self.look_at

    def repair(self, seen: Job, live: Job | None = None) -> float:
        self.cluster.get_job.return_value = live or seen
        return self.repairer.repair(seen)


def test_it_is_logged_and_told_by_an_event(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.WARNING):
        assert bench.repair(_job((names.MESSAGE_ID,))) == 0.0
    assert "removed or changed training-dispatcher/message-id" in caplog.text
    assert bench.events.record.call_args.args[1] == "Mended"


def test_whoever_takes_them_away_again_and_again_is_not_raced() -> None:
    bench = Bench()
    bench.repair(_job(ALL))
    assert bench.repair(_job(ALL)) == 60.0
    assert bench.cluster.patch_job.call_count == 1
    bench.clock.advance(60)
    assert bench.repair(_job(ALL)) == 0.0
    assert bench.cluster.patch_job.call_count == 2


def test_nothing_is_put_back_that_is_there_by_now() -> None:
    bench = Bench()
    bench.repair(_job(ALL), live=_job())
    bench.repair(_job(ALL), live=_job(ALL, uid="the next one"))
    assert not bench.cluster.patch_job.called


def listed(*jobs: Job) -> Listing[KubeObject]:
    """As a list of metadata has them."""
    return Listing(iter([([KubeObject(job.metadata) for job in jobs], "1")]))


def test_its_environment_is_asked_for_only_where_it_is_needed() -> None:
    bench = Bench()
    bench.repair(_job((names.MANAGED_BY,)))
    assert not bench.cluster.get_environment.called
    bench.clock.advance(60)
    bench.repair(_job(ALL))
    assert bench.cluster.get_environment.call_count == 1
    (_, patch), _ = bench.cluster.patch_job.call_args
    assert patch["metadata"]["annotations"][names.REQUEST] == objects.annotation(_json(), names.REQUEST)


def test_at_its_start_a_dispatcher_looks_for_jobs_that_no_watch_shows() -> None:
    bench = Bench()
    lost, ended = _job((names.MANAGED_BY,)), a_job(*complete(), managed=False, finalizer=False, model_id="2")
    bench.cluster.list_metadata.return_value = listed(lost, ended, Job(Metadata(name="foreign")))
    bench.cluster.get_job.return_value = lost
    bench.repairer.once()
    assert [call.args[0] for call in bench.cluster.patch_job.call_args_list] == ["model-1"]
    bench.cluster.list_metadata.side_effect = ClusterUnavailable("The API server cannot be reached")
    bench.repairer.once()


def test_one_that_cannot_be_mended_keeps_nobody_from_the_others_and_each_is_a_sign_of_life() -> None:
    bench = Bench()
    jobs = {f"model-{n}": _job((names.MANAGED_BY,), model_id=str(n), uid=f"u{n}") for n in (1, 2, 3)}
    bench.cluster.list_metadata.return_value = listed(*jobs.values())
    bench.cluster.get_job.side_effect = jobs.get
    refused = ObjectInvalid("Cannot patch jobs model-1: admission webhook denied the request")
    bench.cluster.patch_job.side_effect = [refused, {}, ClusterUnavailable("The API server cannot be reached")]
    alive = Mock()
    bench.repairer.once(alive)
    assert [call.args[0] for call in bench.cluster.patch_job.call_args_list] == list(jobs)
    assert alive.call_count == 3, "hundreds at a slow API server are no hang that /livez should end"


def test_at_its_start_it_learns_of_the_reported_jobs_and_mends_those_that_somebody_hid() -> None:
    bench = Bench()
    label = {names.REPORTED: "true"}
    reported = a_job(*complete(), model_id="2", reported=True, labels=label)
    hidden = _job(labels=label)
    bench.cluster.list_metadata.return_value = listed(reported, hidden)
    bench.cluster.get_job.return_value = hidden
    assert bench.repairer.fill_ended()
    assert bench.cluster.list_metadata.call_args.args == ("jobs", names.REPORTED_JOBS)
    assert [call.args for call in bench.look_at.call_args_list] == [("model-2",)]
    assert bench.ended.get("model-1") is None
    ((name, patch), _) = bench.cluster.patch_job.call_args
    assert (name, patch["metadata"]["labels"][names.REPORTED]) == ("model-1", None)
    bench.cluster.list_metadata.side_effect = ClusterUnavailable("The API server cannot be reached")
    assert not bench.repairer.fill_ended(), "and tries again later"


def test_a_list_that_became_too_old_while_it_was_read_is_begun_anew_soon() -> None:
    """Fifty thousand reported Jobs on a slow API server: the status page would be without them for ten minutes."""
    bench = Bench()
    asked: list[tuple[float, str]] = []
    began = bench.clock()

    def list_metadata(kind: str, selector: str) -> Listing[KubeObject]:
        asked.append((bench.clock() - began, selector))
        if selector == names.REPORTED_JOBS and len(asked) < 4:
            raise WatchExpired("The provided continue parameter is too old")
        return listed()

    def wait(seconds: float) -> bool:
        bench.clock.advance(seconds)
        if bench.clock() - began > 500:
            bench.repairer.stopping.set()
        return False

    bench.cluster.list_metadata.side_effect = list_metadata
    bench.repairer.stopping.wait = wait  # type: ignore[assignment,method-assign]
    bench.repairer.run(lambda: None)
    filled = [when for when, selector in asked if selector == names.REPORTED_JOBS]
    assert len(filled) == 3, "twice in vain"
    assert filled[-1] <= 90
    assert [selector for _, selector in asked].count(names.REPORTED_JOBS) + 2 >= len(asked), "the others are rare"
