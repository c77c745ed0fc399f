"""Which container a pod waits for: what the rules of tests/failure_modes (F45, F46, F50) do not tell apart."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.decisions import containers
from tests.world import json_objects as objects
from tests.world.builders import pod_json, running, terminated, waiting

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
