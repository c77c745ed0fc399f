"""Which container a pod waits for, and a sidecar that keeps it: what the tests of F45 and F46 do not tell apart."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.cluster.pods import Pod
from dispatcher.decisions import containers, outcome
from dispatcher.decisions.verdicts import Going
from dispatcher.decisions.waiting import is_failing
from tests.world import json_objects as objects
from tests.world.builders import LIMITS, T0, a_job, pod_json, running, terminated, waiting

STARTING = waiting("PodInitializing")


def awaited(trainer: dict[str, Any], *init: tuple[dict[str, Any], str | None, bool]) -> str:
    """init: (state, restartPolicy, started), each named by its number."""
    pod = pod_json(state=trainer)
    pod["spec"]["initContainers"] = [
        {"name": str(number)} | ({"restartPolicy": policy} if policy else {})
        for number, (_, policy, _) in enumerate(init)
    ]
    pod["status"]["initContainerStatuses"] = [
        {"name": str(number), "state": state, "started": started} for number, (state, _, started) in enumerate(init)
    ]
    return containers.awaited(objects.pod(pod)).title


DONE = (terminated(0), None, False)
LATER = (STARTING, None, False)
MESH = (running(), "Always", True)
SLOW_MESH = (running(), "Always", False)
CRASHED_MESH = (waiting("CrashLoopBackOff"), "Always", False)


@pytest.mark.parametrize(
    ("init", "title"),
    [
        ([], "trainer container"),
        ([DONE, MESH], "trainer container"),
        ([DONE, LATER], "init container 1"),
        ([(terminated(1), None, False), LATER], "init container 0"),
        ([SLOW_MESH, LATER], "sidecar 0"),
        ([MESH, LATER], "init container 1"),
        ([CRASHED_MESH, (running(), None, False)], "init container 1"),
        ([CRASHED_MESH, LATER], "sidecar 0"),
    ],
)
def test_the_first_that_is_not_done_is_waited_for(
    init: list[tuple[dict[str, Any], str | None, bool]], title: str
) -> None:
    assert awaited(STARTING, *init) == title


@pytest.mark.parametrize("trainer", [running(), terminated(0), terminated(137)])
def test_a_sidecar_that_crashes_beside_a_trainer_or_after_it_keeps_nobody_waiting(trainer: dict[str, Any]) -> None:
    assert awaited(trainer, CRASHED_MESH) == "trainer container"


def kept_by_a_sidecar(**more: Any) -> Pod:
    pod = pod_json(phase="Running", state=terminated(201), **more)
    pod["spec"]["containers"].append({"name": "logs"})
    pod["status"]["containerStatuses"].append({"name": "logs", "state": running()})
    return objects.pod(pod)


def test_the_grace_of_a_sidecar_is_one_that_kubernetes_does_not_time() -> None:
    assert is_failing(kept_by_a_sidecar())
    assert not is_failing(objects.pod(pod_json(phase="Running", state=running())))


def test_a_pod_that_is_deleted_already_is_neither_deleted_nor_stopped_for_its_sidecar() -> None:
    leaving = kept_by_a_sidecar(deleted_at=T0 + 150)
    assert outcome.decide(a_job(), [leaving], (), T0 + 200, LIMITS) == Going()
    assert outcome.decide(a_job(), [kept_by_a_sidecar()], (), T0 + 200, LIMITS) == Going(remove_pods=True)
