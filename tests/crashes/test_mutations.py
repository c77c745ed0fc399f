"""Breaking any one step of the protocol on purpose makes the explorer fail: it would see it if we did."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, ObjectConflict
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Metadata
from dispatcher.cluster.pods import Pod
from dispatcher.controller.reconciler import Reconciler
from dispatcher.controller.reporter import Reporter
from dispatcher.decisions import admission
from dispatcher.decisions.admission import Action, Decision
from dispatcher.decisions.verdicts import Ended, Going
from dispatcher.intake.loop import Intake
from dispatcher.launch.creation import Creation
from dispatcher.launch.delivery import Delivery
from dispatcher.launch.launcher import Launcher
from dispatcher.launch.request import TrainingRequest
from dispatcher.queue.messages import QueueMessage
from dispatcher.relay import rules
from dispatcher.relay.relay import Relay
from dispatcher.relay.rules import Reply, Write
from dispatcher.relay.tokens import Claims
from dispatcher.web.server import Answer, Request
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus
from tests.crashes import explore, scenarios
from tests.crashes.explore import Finding
from tests.world.simulated.dispatcher import Parts
from tests.world.simulated.world import World

S = ProcessingStatus
DECIDE = admission.decide


def calm(parts: Parts) -> Iterator[World]:
    for scenario in scenarios.SINGLE:
        yield explore.explored("mutant", scenario, "calm", lambda world: explore.live(world, parts))


def crashes(parts: Parts) -> Iterator[World]:
    for scenario in scenarios.SINGLE:
        yield from explore.singles(scenario, [("before", explore.crash), ("after", explore.crash)], parts)


def calm_scoped(parts: Parts) -> Iterator[World]:
    for scenario in scenarios.SCOPED:
        yield explore.explored("mutant", scenario, "calm", lambda world: explore.live(world, parts))


def crashes_scoped(parts: Parts) -> Iterator[World]:
    for scenario in scenarios.SCOPED:
        yield from explore.singles(scenario, [("after", explore.crash)], parts)


def outages(parts: Parts) -> Iterator[World]:
    for scenario in scenarios.OUTAGES:
        yield explore.explored("mutant", scenario, "calm", lambda world: explore.live(world, parts))


def failures(parts: Parts) -> Iterator[World]:
    for scenario in scenarios.SINGLE:
        yield from explore.singles(scenario, [("before", explore.fail), ("after", explore.fail)], parts)


def people(parts: Parts) -> Iterator[World]:
    troubles = [explore.deleted_and_crash, explore.purged_and_crash, explore.asked_again, explore.pods_deleted]
    for scenario in scenarios.SINGLE:
        yield from explore.singles(scenario, [("before", trouble) for trouble in troubles], parts)


def late(parts: Parts) -> Iterator[World]:
    for scenario in scenarios.SINGLE:
        yield from explore.singles(scenario, [("before", explore.late), ("before", explore.late_crash)], parts)


def two(parts: Parts) -> Iterator[World]:
    for scenario in (scenarios.twice_apart, scenarios.again):
        yield from explore.one_switch(scenario, parts)


def two_twice(parts: Parts) -> Iterator[World]:
    for scenario in (scenarios.again,):
        yield from explore.two_switches(scenario, parts, [("delivery", "ever")])


# The broken steps


class CreatedRunning(Creation):
    """The Job is created un-suspended."""

    def build(self, delivery: Delivery, request: TrainingRequest) -> dict[str, Any]:
        job = super().build(delivery, request)
        job["spec"]["suspend"] = False
        return job


class ResumedFirst(Launcher):
    """Processing after the resume."""

    def _mark_processing(self, model_id: str, delivery: Delivery) -> bool:
        return False

    def _resume(self, job: Job, acknowledged: bool, notes: Mapping[str, str] | None = None) -> Job:
        job = super()._resume(job, acknowledged, notes)
        super()._mark_processing(job.model_id, Delivery("", 0.0, lambda: 1000.0))
        return job


class DeletedFirst(Intake):
    """The message is deleted before its Job exists."""

    def handle(self, message: QueueMessage) -> None:
        self._delete(message)
        super().handle(message)


class Forgetful(Creation):
    """The message's id is not kept."""

    def build(self, delivery: Delivery, request: TrainingRequest) -> dict[str, Any]:
        job = super().build(delivery, request)
        job["metadata"]["annotations"][names.MESSAGE_ID] = "unknown"
        return job


class AnyMessage(Launcher):
    """The message's id is not compared: every Job of the model counts as its own."""

    def launch(self, delivery: Delivery, request: TrainingRequest) -> Decision:
        def decide(status: ProcessingStatus, job: Job | None, message_id: str, now: float) -> Decision:
            return DECIDE(status, job, message_id if job is None else job.annotations.message_id or "", now)

        with mock.patch.object(admission, "decide", decide):
            return super().launch(delivery, request)


class Unheld(Creation):
    """The finalizer is left out."""

    def build(self, delivery: Delivery, request: TrainingRequest) -> dict[str, Any]:
        job = super().build(delivery, request)
        job["metadata"]["finalizers"].remove(names.FINALIZER)
        return job


class EarlyTtl(Creation):
    """The TTL is set before the report."""

    def build(self, delivery: Delivery, request: TrainingRequest) -> dict[str, Any]:
        job = super().build(delivery, request)
        job["spec"]["ttlSecondsAfterFinished"] = 60
        return job


class BlindReport(Reporter):
    """PUT without GET."""

    def _send(self, job: Job, ended: Ended) -> str:
        wanted = S.COMPLETED if ended.completed else S.FAILED
        if self.portal is not None:
            self.portal.update_model_status(job.model_id, wanted, ended.verdict.sentence)
        return "reported"


class EarlyRelease(Reporter):
    """The finalizer goes before the PUT."""

    def report(self, job: Job, ended: Ended, pods: Sequence[Pod] = ()) -> Job | None:
        released = self._release(job, ended, "reported")
        self._send(job, ended)
        return released


class NoAdoption(Launcher):
    """409 is taken for a duplicate, whoever made the Job."""

    def _apply(self, decision: Decision, *rest: Any) -> Decision:
        if decision.action is Action.ADOPT:
            return Decision(Action.DUPLICATE, "taken")
        return super()._apply(decision, *rest)

    def take_on(self, cached: Job) -> Decision:
        return Decision(Action.LATER, "never")


class AnyJob(Launcher):
    """Resume and deletion of whatever has the name now."""

    def _resume(self, job: Job, acknowledged: bool, notes: Mapping[str, str] | None = None) -> Job:
        stamped = {names.LAUNCHED_AT: "2026-11-23T08:00:00Z", names.ACKNOWLEDGED: "true"}
        return self.cluster.patch_job(job.name, {"metadata": {"annotations": stamped}, "spec": {"suspend": False}})


class NeverTakesOn(Reconciler):
    """A half-launched Job waits for its message for ever."""

    def _half_launched(self, name: str, job: Job) -> None:
        return


class NeverLooksAgain(Reconciler):
    """What a late Processing has covered stays covered."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._second_looks.look = lambda name: True  # type: ignore[method-assign]


class OldStatus(Launcher):
    """After a 409 the first status is believed, however soon after our own write."""

    def launch(self, delivery: Delivery, request: TrainingRequest) -> Decision:
        first = super()._status(request.model_id)
        self._first = {request.model_id: first}
        try:
            with mock.patch.object(admission, "may_be_older", return_value=False):
                return super().launch(delivery, request)
        finally:
            self._first = {}

    def _status(self, model_id: str) -> ProcessingStatus:
        first = getattr(self, "_first", {}).get(model_id)
        return super()._status(model_id) if first is None else first


class DeletedBeforePoison(Intake):
    """The message is deleted before its poison entry is there."""

    def _poison(self, message: QueueMessage, code: str, sentence: str) -> None:
        self._delete(message)
        super()._poison(message, code, sentence)


class NeverLooksUp(Creation):
    """An ambiguous create counts as done."""

    def create(self, delivery: Delivery, request: TrainingRequest) -> Job | None:
        job = self.build(delivery, request)
        try:
            return self.cluster.create_job(job)
        except ObjectConflict:
            return None
        except ClusterError:
            return Job(metadata=Metadata(name=job["metadata"]["name"], uid="unknown"))


class TellsNobody(Launcher):
    """A Job that a policy denies is dead-lettered, and the portal goes on showing Created."""

    def tell_refused(self, delivery: Delivery, request: TrainingRequest, sentence: str) -> None:
        return


class ResumedWithoutItsSecret(Launcher):
    """The Secret comes after the resume."""

    def _give_credentials(self, job: Job) -> dict[str, str]:
        return {}

    def _resume(self, job: Job, acknowledged: bool, notes: Mapping[str, str] | None = None) -> Job:
        job = super()._resume(job, acknowledged)
        super()._give_credentials(job)
        return job


class PassesOnAnything(Relay):
    """Whatever stands at the portal."""

    def _write(self, wish: Write, claims: Claims, job: Job, portal: Portal) -> Reply:
        portal.get_model_status(claims.model_id)
        portal.update_model_status(claims.model_id, wish.status, wish.message)
        return rules.written(wish)


class BelievesTheModel(Relay):
    """It writes to the model that the body names."""

    def route(self, request: Request) -> Answer:
        if request.method == "PUT" and self.portal is not None:
            asked = json.loads(request.body)
            self.portal.get_model_status(asked["ModelId"])
            self.portal.update_model_status(asked["ModelId"], S(asked["Status"]), asked["Message"])
            return Answer(200, b"")
        return super().route(request)


class NeverRenews(Reconciler):
    """A Secret is made once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._renewals.credentials = None


class NeverPauses(Intake):
    """No breaker opens: a message is tried again and again while the portal is away."""

    def _outage(self, message: QueueMessage, request: TrainingRequest, error: Exception, what: str = "") -> None:
        self._requeue(message, 1.0)


class ReceivesWhileOpen(Intake):
    """The breakers are asked, and not heeded."""

    def _receive(self, in_flight: int) -> list[QueueMessage]:
        self.breakers.limit(1)
        [pair] = self.queues.values()
        return pair.requests.receive(1, self.settings.visibility_timeout)


class KeepsTheDeadAttemptsWords(Reconciler):
    """Nobody tells that an attempt has failed while the next one waits."""

    def _go_on(self, name: str, job: Job, pods: list[Pod], going: Going, now: float) -> None:
        super()._go_on(name, job, pods, replace(going, progress=None) if job.status.failed else going, now)


MUTANTS: list[tuple[Parts, Callable[[Parts], Iterator[World]], str]] = [
    (Parts(creation=CreatedRunning), crashes, "before Processing was attempted"),
    (Parts(launcher=ResumedFirst), crashes, "before Processing was attempted"),
    (Parts(intake=DeletedFirst), calm, "was deleted without"),
    (Parts(creation=Forgetful), calm, "does not tell which message"),
    (Parts(launcher=AnyMessage), calm, "ends as"),
    (Parts(creation=Unheld), people, "ends as"),
    (Parts(creation=EarlyTtl), calm, "a TTL comes before"),
    (Parts(reporter=BlindReport), people, "over Completed|contradicts|never asked|ends as"),
    (Parts(reporter=EarlyRelease), calm, "the finalizer goes before"),
    (Parts(launcher=NoAdoption), crashes, "ends as|not settled"),
    (Parts(launcher=AnyJob), two_twice, "before Processing|ends as|not settled|trains"),
    (Parts(reconciler=NeverTakesOn), people, "not settled"),
    (Parts(reconciler=NeverLooksAgain), two, "ends as Processing"),
    (Parts(launcher=OldStatus), two, "nobody asked"),
    (Parts(intake=DeletedBeforePoison), calm, "was deleted without"),
    (Parts(creation=NeverLooksUp), failures, "ends as|not settled|was deleted without"),
    (Parts(launcher=TellsNobody), calm, "ends as Created"),
    (Parts(launcher=ResumedWithoutItsSecret), crashes_scoped, "there before its Secret"),
    (Parts(reconciler=NeverRenews), calm_scoped, "have run out"),
    (Parts(relay=PassesOnAnything), calm_scoped, "is put over Completed knowingly"),
    (Parts(intake=NeverPauses), outages, "knows of the outage"),
    (Parts(intake=ReceivesWhileOpen), outages, "knows of the outage"),
    (Parts(reconciler=KeepsTheDeadAttemptsWords), calm, "waits for its next attempt"),
    (Parts(relay=BelievesTheModel), calm_scoped, "the dispatcher sends|is put over Completed|model 2 ends as"),
]


def _name(value: object) -> str:
    if isinstance(value, Parts):
        return next(part.__name__ for part in vars(value).values() if part.__module__ == __name__)
    return "" if isinstance(value, str) else getattr(value, "__name__", "")


@pytest.mark.parametrize(("parts", "family", "what"), MUTANTS, ids=_name)
def test_the_explorer_finds_a_broken_step(parts: Parts, family: Callable[[Parts], Iterator[World]], what: str) -> None:
    with pytest.raises(Finding, match=what):
        list(family(parts))
