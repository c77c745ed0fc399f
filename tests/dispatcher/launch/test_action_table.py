"""Every row of the table Action → effect on the Job and on the message is carried out, by launcher and intake."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import MagicMock, Mock, create_autospec

import pytest

from dispatcher.cluster.errors import ClusterForbidden
from dispatcher.decisions import admission
from dispatcher.decisions.admission import Action, Decision, JobEffect, MessageEffect
from dispatcher.decisions.codes import CAUSES
from dispatcher.decisions.fairness import Lane
from dispatcher.intake.circuit_breaker import CircuitBreakers
from dispatcher.intake.loop import Intake
from dispatcher.intake.refusals import Refusals
from dispatcher.launch.creation import Creation
from dispatcher.launch.delivery import Delivery
from dispatcher.launch.job_spec import JobDefaults
from dispatcher.launch.launcher import Launcher
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.launch.request import Bounds, TrainingRequest, decode
from dispatcher.launch.teams import TeamNetworks
from dispatcher.ports import Cluster, Queue
from dispatcher.queue.messages import QueueMessage, QueuePair
from dispatcher.telemetry.metrics import Metrics
from portal_client.client import PortalClient
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.world.builders import TEMPLATE, a_job
from tests.world.simulated.dispatcher import SETTINGS
from tests.world.simulated.fakes import VirtualEvent
from tests.world.simulated.world import World

TEXT = json.dumps({"task": "train", "model_container_name": "model-1"})
BOUNDS = Bounds(8, 600)
# What each effect on a Job asks of the cluster, and whether the portal is sent Processing.
CALLS: dict[JobEffect, tuple[list[str], bool]] = {
    JobEffect.KEEP: ([], False),
    JobEffect.CREATE: (["create_job", "patch_job"], True),
    JobEffect.CONTINUE: (["patch_job"], True),
    JobEffect.REMOVE: (["delete_job"], False),
    JobEffect.STOP: (["delete_job"], False),
}


def request() -> TrainingRequest:
    return decode(TEXT, BOUNDS)


class Bench:
    """A launcher beside a half-launched Job, which decides as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, action: Action, nodes: int = 1) -> None:
        spec = {"completionMode": "Indexed", "completions": nodes} if nodes > 1 else {}
        self.job = a_job(launched=False, acknowledged=None, spec=spec)
        self.cluster = create_autospec(Cluster, instance=True)
        for call in (self.cluster.get_job, self.cluster.create_job, self.cluster.patch_job):
            call.return_value = self.job
        self.portal = create_autospec(PortalClient, instance=True)
        self.portal.get_model_status.return_value = ModelStatus(ProcessingStatus.FAILED, "")
        creation = Creation(self.cluster, TEMPLATE, JobDefaults({}, 600))
        self.launcher = Launcher(self.cluster, self.portal, creation, put_budget=0.0)
        monkeypatch.setattr(admission, "decide", lambda *_, **__: Decision(action, "why"))

    def calls(self) -> tuple[list[str], bool]:
        writes = [name for name, _, _ in self.cluster.method_calls if name != "get_job"]
        return writes, self.portal.update_model_status.called


@pytest.mark.parametrize("action", Action)
def test_launch_carries_out_the_effect_on_the_job(monkeypatch: pytest.MonkeyPatch, action: Action) -> None:
    bench = Bench(monkeypatch, action)
    decision = bench.launcher.launch(Delivery("message-1", 0.0, lambda: 60.0), request())
    assert decision == Decision(action, "why")
    writes, processing = CALLS[action.job]
    # A Job that is there makes room for the one to create.
    assert bench.calls() == ((["delete_job"] if action.job is JobEffect.CREATE else []) + writes, processing)


@pytest.mark.parametrize("action", [action for action in Action if action.job is not JobEffect.CREATE])
def test_take_on_carries_out_the_effect_on_the_job(monkeypatch: pytest.MonkeyPatch, action: Action) -> None:
    bench = Bench(monkeypatch, action)
    assert bench.launcher.take_on(bench.job) == Decision(action, "why")
    assert bench.calls() == CALLS[action.job]


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("action", [Action.LAUNCH, Action.ADOPT])
def test_no_pod_of_several_starts_before_they_may_reach_each_other(
    monkeypatch: pytest.MonkeyPatch, action: Action, nodes: int
) -> None:
    bench = Bench(monkeypatch, action, nodes)
    bench.launcher.networks = TeamNetworks(bench.cluster)
    bench.launcher.launch(Delivery("message-1", 0.0, lambda: 60.0), request())
    writes, _ = bench.calls()
    *before, resume = writes
    assert resume == "patch_job"
    assert ("create_network_policy" in before) is (nodes > 1)


def test_a_launch_that_waits_for_its_operator_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back until the policy may be made; no breaker opens, and it never becomes poison."""
    bench = Bench(monkeypatch, Action.ADOPT, nodes=2)
    bench.cluster.create_network_policy.side_effect = ClusterForbidden("may not")
    bench.launcher.networks = TeamNetworks(bench.cluster)
    assert bench.launcher.take_on(bench.job).action is Action.LATER
    queue, breakers = create_autospec(Queue, instance=True), CircuitBreakers(30)
    intake = an_intake(bench.launcher, queue, breakers)
    for delivery in range(1, 50):
        intake.handle(QueueMessage("message-1", TEXT, delivery, 0.0, "receipt", 1e12))
    assert not breakers.reasons
    assert queue.requeue.call_count == 49
    assert {call.args[1] for call in queue.requeue.call_args_list} == {60.0}
    assert not bench.cluster.patch_job.called, "it stays suspended"
    bench.cluster.create_network_policy.side_effect = None
    intake.handle(QueueMessage("message-1", TEXT, 50, 0.0, "receipt", 1e12))
    assert bench.cluster.patch_job.called
    assert queue.delete.called


def test_no_message_s_own_job_is_created_once_more() -> None:
    """take_on has a Job in front of it: to create one is never what becomes of it."""
    job = a_job(launched=False, acknowledged=None)
    message_id = job.annotations.message_id or ""
    decided = [admission.decide(status, job, message_id, 4e9).action.job for status in ProcessingStatus]
    assert JobEffect.CREATE not in decided


def an_intake(launcher: Mock, queue: Mock, breakers: Any) -> Intake:
    return Intake(
        {Lane("requests"): QueuePair("requests", queue, create_autospec(Queue, instance=True))},
        launcher,
        ModelLocks(),
        breakers,
        Metrics(),
        SETTINGS,
        bounds=BOUNDS,
        active=dict,
        probe=lambda _: None,
        stopping=VirtualEvent(World()),
    )


@pytest.mark.parametrize("action", Action)
def test_a_launch_closes_only_the_breakers_of_what_it_has_touched(action: Action) -> None:
    """A message that its status forbids has asked the portal, and no API server."""
    launcher, breakers = Mock(), MagicMock(is_open=lambda queue: False)
    launcher.launch.return_value = Decision(action, "why")
    parts = {cause: Mock() for cause in CAUSES}
    breakers.__getitem__.side_effect = parts.__getitem__
    intake = an_intake(launcher, create_autospec(Queue, instance=True), breakers)
    intake.handle(QueueMessage("message-1", TEXT, 1, 0.0, "receipt", 1e12))
    proved = {"portal"}
    proved |= {"cluster"} if action.job in (JobEffect.CREATE, JobEffect.CONTINUE) else set()
    proved |= {"template"} if action.job is JobEffect.CREATE else set()
    assert {cause for cause in ("portal", "cluster", "template") if parts[cause].record_success.called} == proved


@pytest.mark.parametrize(("in_flight", "tripped", "received"), [(0, True, 1), (1, True, 0), (1, False, 1)])
def test_while_a_breaker_is_half_open_one_message_is_in_hand(in_flight: int, tripped: bool, received: int) -> None:
    now = [0.0]
    queue, breakers = create_autospec(Queue, instance=True), CircuitBreakers(30, clock=lambda: now[0])
    if tripped:
        breakers["portal"].trip("no portal", Mock())
        now[0] += 1
    an_intake(Mock(), queue, breakers)._receive(in_flight)
    assert queue.receive.call_count == received


@pytest.mark.parametrize("action", Action)
def test_the_intake_carries_out_the_effect_on_the_message(action: Action) -> None:
    launcher, queue, poison = Mock(), create_autospec(Queue, instance=True), create_autospec(Queue, instance=True)
    launcher.launch.return_value = Decision(action, "why")
    metrics, refusals = Metrics(), Refusals()
    intake = Intake(
        {Lane("requests"): QueuePair("requests", queue, poison)},
        launcher,
        ModelLocks(),
        CircuitBreakers(30),
        metrics,
        SETTINGS,
        bounds=BOUNDS,
        active=dict,
        probe=lambda _: None,
        stopping=VirtualEvent(World()),
        refusals=refusals,
    )

    def deliver() -> list[str]:
        queue.reset_mock()
        intake.handle(QueueMessage("message-1", TEXT, 1, 0.0, "receipt", 1e12))
        return [name for name, _, _ in queue.method_calls]

    def counted(result: str) -> Any:
        return metrics.registry.get_sample_value("training_dispatcher_messages_total", {"result": result})

    expected = {
        MessageEffect.DELETE: (["delete"], 0, []),
        MessageEffect.REJECT: (["delete"], 0, [action.value]),
        MessageEffect.REQUEUE: (["requeue"], 0, []),
        MessageEffect.FAIL: (["requeue"], 1, []),
    }[action.message]
    assert (deliver(), counted("retry"), [refusal.code for refusal in refusals.latest()]) == expected
    assert counted(action.value) == 1
    if action.message is MessageEffect.FAIL:
        assert [deliver() for _ in range(SETTINGS.max_deliveries - 1)][-1] == ["delete"]
        poison.send.assert_called_once()
