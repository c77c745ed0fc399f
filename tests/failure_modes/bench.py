"""The crash explorer's world, for scenarios that are written down by hand.

`Bench` holds one dispatcher's real stages in front of Jobs and pods that only a test changes; `live` lets the world's
controllers, kubelet and trainers go on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import yaml

from dispatcher.cluster import names
from dispatcher.decisions import outcome
from dispatcher.decisions.verdicts import Outcome
from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.builders import LIMITS, T0, job_json
from tests.world.json_objects import JsonObject
from tests.world.repository import MANIFESTS
from tests.world.simulated.dispatcher import Process
from tests.world.simulated.faults import Crash
from tests.world.simulated.kubernetes import JobNote
from tests.world.simulated.world import EPOCH, Model, World

S = ProcessingStatus
TEMPLATES = sorted(MANIFESTS.rglob("job-template.yaml"))


def decided(*pods: dict[str, Any], job: dict[str, Any] | None = None, now: float = T0, **more: Any) -> Outcome:
    """What `outcome.decide` makes of these pods."""
    known = [objects.pod(pod) for pod in pods]
    return outcome.decide(objects.job(job or job_json()), known, more.get("events", ()), now, LIMITS)


def a_world(*script: str, status: ProcessingStatus = S.CREATED, model: str = "1") -> World:
    """One model with one request on the queue; script: what its pods do, attempt by attempt."""
    world = World({model: list(script or ("complete",))})
    world.set_status(model, status)
    world.enqueue(model)
    return world


def disturb(world: World, call: str, side: str, error: BaseException, times: int | None = 1, skip: int = 0) -> None:
    """Raise `error` before or after the next calls of this name; times None: as long as the director stays."""
    count = itertools.count()

    def director(process: str, name: str, now: str) -> None:
        if name == call and now == side:
            number = next(count) - skip
            if number >= 0 and (times is None or number < times):
                raise error

    world.director = director


def undisturbed(world: World) -> None:
    world.director = lambda process, call, side: None


def live(world: World, *processes: Process, most: int = 60, until_settled: bool = True) -> None:
    """Ticks with 30 seconds after each. A process that crashes is replaced by a new one."""
    players = list(processes) or [Process(world)]
    for _ in range(most):
        for number, player in enumerate(players):
            try:
                player.tick()
            except Crash:
                players[number] = Process(world)
        world.advance(30)
        if until_settled and world.settled:
            return


def calls(world: World, *wanted: str) -> list[str]:
    """The calls so far, of these names where any are given."""
    return [call for _, call in world.calls if not wanted or call in wanted]


def statuses(world: World, model: str = "1") -> list[str]:
    return [status.title for _, status, _ in world.models[model].history]


class Bench:
    """One dispatcher before Jobs and pods that stay as they are put there. It begins at `builders.T0`."""

    def __init__(self, **limits: float) -> None:
        self.world = World()
        self.world.now = T0 - EPOCH
        self.world.check_let_go = lambda job, what: None  # type: ignore[method-assign] # its Jobs have no history
        self.process = Process(self.world)
        self.process.reconciler.limits = replace(self.process.reconciler.limits, **limits)  # type: ignore[arg-type]

    def put(self, job: dict[str, Any], *pods: dict[str, Any], status: ProcessingStatus | None = S.PROCESSING) -> None:
        """Have this Job and these pods; status: the portal's, None: a model that it does not know."""
        model = objects.model_id_of(job)
        self.world.jobs[objects.name_of(job)] = job
        self.world.notes.setdefault(objects.uid_of(job), JobNote(model, 0, 0))
        for pod in pods:
            self.world.pods[objects.uid_of(pod)] = pod
        if status is not None:
            known = self.world.models.setdefault(model, Model(status))
            known.status = status

    def job(self, model: str = "1") -> JsonObject:
        return self.world.jobs[f"model-{model}"]

    def portal(self, model: str = "1") -> tuple[str, str]:
        found = self.world.models[model]
        return found.status.title, found.message

    def look(self, model: str = "1") -> list[str]:
        """List, look at the Job once; returns the calls that this made. Errors pass through."""
        before = len(self.world.calls)
        self.process.refresh()
        self.process.reconciler.reconcile(f"model-{model}")
        return [call for _, call in self.world.calls[before:]]

    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds


def released(job: JsonObject) -> bool:
    """The one patch has come: finalizer off, TTL set."""
    finalizers = objects.meta(job).get("finalizers") or ()
    return names.FINALIZER not in finalizers and job["spec"].get("ttlSecondsAfterFinished") is not None


def templates() -> Iterable[tuple[str, dict[str, Any]]]:
    """Every Job template that is shipped, by its folder below manifests."""
    for path in TEMPLATES:
        yield path.parent.relative_to(MANIFESTS).as_posix(), yaml.safe_load(path.read_text(encoding="utf-8"))
