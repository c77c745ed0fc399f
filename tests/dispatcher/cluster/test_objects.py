"""objects: what a Job's annotations say may be anybody's text, which may not end the dispatcher; what is not read."""

from __future__ import annotations

import gc
import json
import threading
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.cluster import names, objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.job_gauges import JobGauges
from dispatcher.controller.summaries import Summaries, summarise
from dispatcher.decisions import outcome
from dispatcher.decisions.verdicts import Ended
from dispatcher.decisions.views.phases import phase, since
from dispatcher.telemetry.metrics import Metrics
from tests.world.builders import LIMITS, T0, a_job, a_pod, failed, job_json, pod_json
from training_common.times import rfc3339


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00 and more"])
def test_half_a_character_in_an_annotation_is_not_passed_on_to_what_cannot_take_it(half: str) -> None:
    said = f'{{"code": "Killed", "sentence": "{half}", "status": "Failed", "portal": "reported"}}'
    stopped = outcome.decide(a_job(*failed("DeadlineExceeded"), stopped=said), (), (), T0 + 1e6, LIMITS)
    assert isinstance(stopped, Ended)
    job = a_job(*failed(), reported=True)
    job = replace(job, metadata=replace(job.metadata, annotations=replace(job.annotations, reported=said)))
    assert f"{stopped.verdict.sentence} {summarise(job, ()).sentence}".encode()


@pytest.mark.parametrize(
    "made", [job_json(), job_json(suspended=True), job_json(*failed()), job_json(*failed(), reported=True)]
)
@pytest.mark.parametrize("text", ["yesterday", "2026-13-45T00:00:00Z", "0001-01-01T00:00:00+23:59", "\N{SNOWMAN}"])
def test_a_time_that_somebody_wrote_by_hand_does_not_end_the_loops_of_every_dispatcher(
    made: dict[str, Any], text: str
) -> None:
    hand_written = dict.fromkeys((names.LAUNCHED_AT, names.REPORTED_AT, names.QUEUED_AT), text)
    annotations = made["metadata"]["annotations"] | hand_written | {names.ACKNOWLEDGED: "false"}
    job = msgspec.convert(made | {"metadata": made["metadata"] | {"annotations": annotations}}, Job)
    cache, summaries, ended = ClusterCache(lambda name: None), Summaries(), EndedJobs(ttl=60)
    cache.replace("jobs", [job])
    if job.is_reported:
        ended.add(job)
    else:
        summaries.note(job.name, summarise(job, ()))
    JobGauges(cache, summaries, ended, Metrics(), stopping=threading.Event(), clock=lambda: T0).set_job_gauges()
    since(phase(job, ()), job, ())


@given(st.text() | st.datetimes(timezones=st.timezones() | st.none()).map(lambda when: when.isoformat()))
@example("9999-12-31T23:59:59.9999999Z")
@example("0001-01-01T00:00:00+23:59")
def test_every_time_that_is_read_can_be_written_again(text: str) -> None:
    seconds = objects.timestamp(text)
    if seconds is not None:
        assert objects.timestamp(rfc3339(seconds)) == seconds // 1


def a_large_job() -> dict[str, Any]:
    """With a request of 64 KiB in its environment, secrets, and 1 MiB of what only the API server needs."""
    job = job_json(labels={"team": "x" * 9000})
    job["metadata"]["managedFields"] = [{"manager": f"m{n}", "fieldsV1": {"f:spec": {}}} for n in range(32_000)]
    job["metadata"]["annotations"][names.REQUEST] = json.dumps({"note": "y" * 65536})
    variables = {
        "TRAINING_REQUEST": "z" * 65536,
        "DATASET_CONTAINER": "dataset-xyz",
        "GPUS": "4",
        "API_KEY": "hunter2secret",
    }
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in variables.items()]
    env.append({"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})
    job["spec"]["template"] = {"spec": {"containers": [{"name": names.TRAINER_CONTAINER, "env": env}], "new": [1]}}
    return job


def test_of_a_jobs_environment_two_variables_are_kept_and_no_secret() -> None:
    job = msgspec.convert(a_large_job(), Job)
    [trainer] = job.spec.template.spec.containers
    assert [(variable.name, variable.value) for variable in trainer.env] == [
        ("DATASET_CONTAINER", "dataset-xyz"),
        ("GPUS", "4"),
    ]
    assert (job.dataset, job.gpus) == ("dataset-xyz", 4)
    assert "hunter2secret" not in repr(job)


@pytest.mark.parametrize(
    ("text", "gpus"),
    [(None, 0), ("", 0), ("0", 0), ("16", 16), ("1k", None), ("-1", None), ("٣", None), ("9" * 99, None)],
)
def test_gpus_are_a_plain_number_or_not_known(text: str | None, gpus: int | None) -> None:
    env = [] if text is None else [{"name": "GPUS", "value": text}]
    containers = [{"name": "istio-proxy", "env": [{"name": "GPUS", "value": "7"}]}, {"name": "trainer", "env": env}]
    job = msgspec.convert(job_json(spec={"template": {"spec": {"containers": containers}}}), Job)
    assert job.gpus == gpus
    assert job.dataset is None


@pytest.mark.parametrize(
    ("spec", "nodes"),
    [
        ({}, 1),
        ({"completions": 1, "completionMode": "NonIndexed"}, 1),
        ({"completions": 5, "completionMode": "NonIndexed"}, 1),
        ({"completions": 4, "completionMode": "Indexed"}, 4),
        ({"completions": 0, "completionMode": "Indexed"}, 1),
        ({"completionMode": "Indexed"}, 1),
    ],
)
def test_only_an_indexed_job_is_a_team_of_as_many_nodes_as_it_has_completions(spec: dict[str, Any], nodes: int) -> None:
    assert a_job(spec=spec).nodes == nodes


@pytest.mark.parametrize(
    ("text", "done"),
    [("", set()), ("0", {0}), ("0,2-4", {0, 2, 3}), ("1-99999999999", set()), ("2-x,-,,1", {1}), ("0-8", {0, 1, 2, 3})],
)
def test_which_nodes_have_done_their_part_is_read_from_the_job_whatever_stands_there(text: str, done: set[int]) -> None:
    spec = {"completions": 4, "completionMode": "Indexed"}
    assert a_job(spec=spec, status={"completedIndexes": text}).done == done
    assert a_job(status={"completedIndexes": text}).done == set()


@pytest.mark.parametrize("where", ["labels", "annotations"])
@pytest.mark.parametrize(
    ("text", "index"), [("0", 0), ("11", 11), ("", None), ("-1", None), ("1.5", None), ("٣", None), ("9" * 99, None)]
)
def test_the_index_of_a_pod_is_its_labels_or_its_annotations_plain_number(
    where: str, text: str, index: int | None
) -> None:
    made = pod_json()
    made["metadata"][where] = {**made["metadata"].get(where, {}), names.INDEX: text}
    assert msgspec.convert(made, Pod).index == index
    assert a_pod().index is None


def test_what_nobody_reads_of_a_job_costs_no_memory() -> None:
    text = msgspec.json.encode(a_large_job())
    assert len(text) > 1 << 20
    decoder = msgspec.json.Decoder(Job)
    decoder.decode(text)
    tracemalloc.start()
    try:
        job = decoder.decode(text)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert job.is_managed
    assert kept < 8_000
    # A variable is a string before it is thrown away; the rest is never anything.
    assert peak < 80_000


def test_a_job_that_waits_in_memory_is_no_work_for_the_garbage_collector() -> None:
    assert not gc.is_tracked(msgspec.convert(a_large_job(), Job))
