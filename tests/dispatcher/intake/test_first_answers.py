"""Readiness: one answer of portal and queue that nobody else gives, since the start; and never taken back."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock, create_autospec

import pytest

from dispatcher.cluster.errors import Listing
from dispatcher.cluster.objects import KubeObject, Metadata
from dispatcher.intake.circuit_breaker import CircuitBreakers
from dispatcher.intake.first_answers import NO_MODEL, FirstAnswers, known_models, prove_portal, prove_queue
from dispatcher.ports import Cluster, Queue
from dispatcher.queue.messages import QueueForbidden, QueueUnavailable
from portal_client.errors import (
    ModelUnknown,
    NotFoundUnexplained,
    PortalError,
    PortalRefused,
    PortalUnauthorized,
    PortalUnavailable,
    StatusUnreadable,
)
from portal_client.protocol import Portal
from portal_client.statuses import ModelStatus, ProcessingStatus

SHOWN = ModelStatus(ProcessingStatus.PROCESSING, "")


def a_portal(answer: Callable[[str], PortalError | None]) -> Mock:
    """answer: what it raises for a model's id."""

    def get(model_id: str) -> ModelStatus:
        if error := answer(model_id):
            raise error
        return SHOWN

    portal: Mock = create_autospec(Portal, instance=True)
    portal.get_model_status.side_effect = get
    return portal


@pytest.mark.parametrize("error", [None, ModelUnknown("no such model"), PortalRefused("no id of a model")])
def test_an_answer_about_a_model_that_there_is_not_is_proof(error: PortalError | None) -> None:
    assert prove_portal(a_portal(lambda _: error), [])


@pytest.mark.parametrize("error", [PortalUnauthorized("wrong key"), PortalUnavailable("a login page")])
def test_a_wrong_key_or_another_server_is_none(error: PortalError) -> None:
    with pytest.raises(type(error)):
        prove_portal(a_portal(lambda _: error), ["7"])


@pytest.mark.parametrize("doubt", [NotFoundUnexplained("404"), StatusUnreadable("no status")])
def test_an_answer_in_nobodys_words_is_compared_with_models_that_were_trained(doubt: PortalError) -> None:
    portal = a_portal(lambda model_id: None if model_id == "8" else doubt)
    assert prove_portal(portal, ["7", "8"])
    with pytest.raises(PortalUnavailable, match="so for 2 models that have been trained here"):
        prove_portal(a_portal(lambda _: doubt), ["7", "8"])
    asked = a_portal(lambda _: doubt)
    assert not prove_portal(asked, []), "on a cluster without Jobs there is nothing to compare with"
    asked.get_model_status.assert_called_once_with(NO_MODEL)


def test_the_newest_jobs_of_one_page_are_asked_for() -> None:
    cluster = create_autospec(Cluster, instance=True)
    times = [f"2026-01-0{number + 1}T00:00:00Z" for number in range(5)]
    jobs = [KubeObject(Metadata(name=f"model-{n}", creation_timestamp=at)) for n, at in enumerate(times)]
    cluster.list_metadata.return_value = Listing(iter([(jobs, "1")]))
    assert known_models(cluster) == ["4", "3", "2"]


def test_a_queue_that_may_not_be_asked_for_its_length_is_tried_for_what_is_needed() -> None:
    queue = create_autospec(Queue, instance=True)
    prove_queue(queue)
    assert not queue.try_rights.called
    queue.depth.side_effect = QueueForbidden("AuthorizationPermissionMismatch")
    prove_queue(queue)
    assert queue.try_rights.called
    queue.depth.side_effect = QueueUnavailable("no address")
    with pytest.raises(QueueUnavailable):
        prove_queue(queue)


def test_what_has_not_answered_is_named_pauses_the_intake_and_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    breakers = CircuitBreakers(30, clock=lambda: now[0])
    portal = Mock(side_effect=PortalUnauthorized("The portal refuses API_KEY"))
    first = FirstAnswers(breakers, {"queue": Mock(), "portal": portal})
    assert len(first.missing) == 2, "nothing was asked yet"
    first.ask(lambda: None)
    assert first.missing == ["no answer of the portal since the start: The portal refuses API_KEY"]
    assert breakers.limit(8) == 0
    assert "Not ready" in caplog.text
    for _ in range(3):
        now[0] += 40
        breakers.limit(8)
    assert caplog.text.count("Not ready") == 1
    portal.side_effect = None
    now[0] += 40
    assert breakers.limit(8) == 1
    assert not first.missing


def test_an_outage_after_the_first_answers_takes_nothing_back() -> None:
    breakers = CircuitBreakers(30)
    first = FirstAnswers(breakers, {"portal": Mock()})
    first.ask(lambda: None)
    breakers["portal"].trip("The portal is out of reach", Mock(side_effect=PortalUnavailable("still")))
    assert breakers.reasons
    assert not first.missing
