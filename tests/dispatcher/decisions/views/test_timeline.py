"""dispatcher.decisions.views.timeline: what the objects show of a training, and nothing else."""

from __future__ import annotations

import json

import msgspec
import pytest

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions.views.timeline import Step, gpu_seconds, steps, trainer_seconds
from tests.world.builders import T0, a_condition, a_pod, a_team, complete, job_json, running, terminated
from training_common.times import rfc3339

SECONDS = {"download": 10.0, "training": 60.0, "upload": 3.0}


def a_job(*conditions: object, gpus: str = "2", **more: object) -> Job:
    made = job_json(*conditions, **more)  # type: ignore[arg-type]
    made["metadata"]["annotations"][names.QUEUED_AT] = rfc3339(T0 - 12)
    env = [{"name": "GPUS", "value": gpus}]
    made["spec"]["template"] = {"spec": {"containers": [{"name": names.TRAINER_CONTAINER, "env": env}]}}
    return msgspec.convert(made, Job)


def ended(name: str, at: float, code: int, message: str = "", phase: str = "Failed", **more: object) -> Pod:
    """Created at `at`, on a node after 5 s, its trainer from 20 s to 100 s."""
    state = terminated(code, message)
    state["terminated"] |= {"startedAt": rfc3339(at + 20), "finishedAt": rfc3339(at + 100)}
    about = {"name": name, "uid": name, "created_at": at, "scheduled_at": at + 5, "node": "gpu-1", **more}
    return a_pod(phase=phase, state=state, **about)  # type: ignore[arg-type]


def named(found: list[Step], *wanted: str) -> list[tuple[str, float | None, int | None]]:
    return [(step.name, step.seconds, step.attempt) for step in found if step.name in wanted or not wanted]


def test_a_training_that_went_well_is_told_from_its_message_to_its_report() -> None:
    job = a_job(*complete(), reported=True, status={"succeeded": 1})
    word = json.dumps({"message": "done", "code": "Completed", "seconds": SECONDS})
    found = steps(job, [ended("a", T0, 0, word, phase="Succeeded")])
    assert named(found) == [
        ("queue", 12.0, None),
        ("launch", 0.0, None),
        ("schedule", 5.0, 1),
        ("prepare", 15.0, 1),
        ("run", 80.0, 1),
        ("download", 10.0, 1),
        ("training", 60.0, 1),
        ("upload", 3.0, 1),
        ("report", None, None),
    ]
    assert not any(step.lasts for step in found)


def test_each_attempt_has_its_node_and_its_end_and_the_pause_between_them() -> None:
    first, second = ended("a", T0, 201), a_pod(name="b", uid="b", created_at=T0 + 110, phase="Running", state=running())
    found = steps(a_job(), [second, first])
    assert ("pod", 10.0, 2) in named(found)
    runs = [step for step in found if step.name == "run"]
    assert [(step.attempt, step.lasts) for step in runs] == [(1, False), (2, True)]
    assert runs[0].node == "gpu-1"
    assert runs[0].note.startswith("StorageUnavailable: The training ended with exit code 201")


def test_what_waits_lasts_and_its_end_is_not_made_up() -> None:
    unscheduled = a_condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")
    last = steps(a_job(), [a_pod(unscheduled)])[-1]
    assert (last.name, last.began, last.ended, last.seconds, last.lasts) == ("schedule", T0, None, None, True)
    nothing = steps(a_job(), [])[-1]
    assert (nothing.name, nothing.lasts) == ("pod", True)


def test_of_a_team_each_node_has_its_steps() -> None:
    pods = [ended(f"n{index}", T0, 0, phase="Succeeded", index=index) for index in range(2)]
    assert [(step.index, step.attempt) for step in steps(a_team(2), pods) if step.name == "run"] == [(0, 1), (1, 1)]


def test_gpu_seconds_are_those_that_pods_held_and_retries_are_told_apart() -> None:
    pods = [ended("a", T0, 201), ended("b", T0 + 200, 0, phase="Succeeded")]
    spent = gpu_seconds(a_job(*complete()), pods)
    assert (spent.last, spent.retries) == (2 * 95.0, 2 * 95.0)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"seconds": "long"},
        {"seconds": {"training": -1}},
        {"seconds": {"training": 1e9}},
        {"seconds": {"download": True}},
        {"code": "Completed", "message": "from an older trainer"},
    ],
)
def test_a_trainers_word_that_cannot_be_true_says_nothing(said: object) -> None:
    assert trainer_seconds(ended("a", T0, 0, json.dumps(said))) == {}


def test_no_time_is_made_up_where_the_objects_show_none() -> None:
    job = a_job(*complete(), reported=True)
    bare = replace_annotations(job)
    assert all(step.seconds is None for step in steps(bare, []) if step.name != "launch")


def replace_annotations(job: Job) -> Job:
    notes = msgspec.structs.replace(job.annotations, queued_at=None, reported_at=None)
    return msgspec.structs.replace(job, metadata=msgspec.structs.replace(job.metadata, annotations=notes))
