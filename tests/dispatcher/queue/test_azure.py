"""The queue's adapter against a real Azurite: receipts, visibility, errors as sentences."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.queue import generate_queue_sas

from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import QueueForbidden, QueueUnavailable
from dispatcher.queue.poison import MAX_ENTRY_BYTES
from local_stack.azurite import Azurite
from local_stack.processes import wait_until


@pytest.fixture
def queue(azurite: Azurite, queue_name: str) -> TrainingQueue:
    queue = TrainingQueue(queue_name, connection_string=azurite.connection_string)
    queue.create()
    return queue


def test_creating_a_queue_twice_changes_nothing(queue: TrainingQueue) -> None:
    queue.send("one")
    queue.create()
    assert [message.text for message in queue.peek()] == ["one"]


def test_one_receive_brings_a_whole_batch_with_text_as_it_was_sent(queue: TrainingQueue) -> None:
    texts = [f'{{"n": {n}, "text": "<&é\\n>"}}' for n in range(40)]
    for text in texts:
        queue.send(text)
    first, second = queue.receive(99, 60), queue.receive(32, 60)
    assert len(first) == 32
    assert sorted(m.text for m in first + second) == sorted(texts)
    assert all(m.delivery_count == 1 and abs(m.queued_at - time.time()) < 60 for m in first)
    assert all(0 < m.remaining() <= 60 for m in first)


def test_an_empty_queue_is_no_error(queue: TrainingQueue) -> None:
    assert queue.receive(32, 30) == []
    assert queue.peek() == []
    assert queue.depth() == 0


def test_a_requeued_message_is_redelivered_and_its_old_receipt_is_not_used(queue: TrainingQueue) -> None:
    queue.send("again")
    [message] = queue.receive(1, 300)
    before = message.pop_receipt
    assert queue.requeue(message, 0)
    assert message.pop_receipt != before
    [second] = queue.receive(1, 300)
    assert (second.id, second.delivery_count) == (message.id, 2)


def test_a_message_that_somebody_else_holds_is_left_alone(queue: TrainingQueue) -> None:
    queue.send("theirs")
    [stale] = queue.receive(1, 1)
    newest = wait_until(lambda: queue.receive(1, 300), 10)[0]
    assert not queue.delete(stale)
    assert not queue.requeue(stale, 0)
    assert queue.delete(newest)
    assert not queue.delete(newest), "deleting twice is no error"


def test_the_largest_poison_entry_fits_into_the_queue(queue: TrainingQueue) -> None:
    entry = json.dumps({"original": "x"}).ljust(MAX_ENTRY_BYTES)
    queue.send(entry)
    assert [m.text for m in queue.receive(1, 30)] == [entry]


def test_a_missing_queue_is_named(azurite: Azurite) -> None:
    queue = TrainingQueue("not-there", connection_string=azurite.connection_string)
    with pytest.raises(QueueForbidden, match="receive from queue not-there: it does not exist"):
        queue.receive(1, 30)


def test_a_wrong_key_is_said_without_showing_it(azurite: Azurite, queue_name: str) -> None:
    wrong = "d3Jvbmcta2V5LXdyb25nLWtleQ=="
    key = azurite.connection_string.split("AccountKey=")[1].split(";")[0]
    queue = TrainingQueue(queue_name, connection_string=azurite.connection_string.replace(key, wrong))
    with pytest.raises(QueueForbidden) as caught:
        queue.send("text")
    assert "check the credentials" in str(caught.value) or "Cannot send to" in str(caught.value)
    assert wrong not in str(caught.value)


def test_the_rights_are_tried_on_a_message_that_nobody_sees(queue: TrainingQueue) -> None:
    queue.send("one")
    queue.try_rights()
    assert queue.depth() == 1
    (message,) = queue.receive(32, 30)
    assert (message.text, message.delivery_count) == ("one", 1)
    assert queue.server_date is not None


@pytest.mark.parametrize(
    ("rights", "missing"),
    [("rau", "delete from"), ("rap", "update a message in"), ("rup", "send to"), ("raup", None)],
)
def test_a_right_that_a_signature_lacks_is_named(
    azurite: Azurite, queue: TrainingQueue, rights: str, missing: str | None
) -> None:
    """r: read, a: add, u: update, p: process, which is receiving and deleting."""
    parts = dict(part.split("=", 1) for part in azurite.connection_string.strip(";").split(";"))
    signature = generate_queue_sas(
        parts["AccountName"],
        queue.name,
        parts["AccountKey"],
        permission=rights,
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    endpoint = parts["QueueEndpoint"]
    signed = TrainingQueue(queue.name, connection_string=f"QueueEndpoint={endpoint};SharedAccessSignature={signature}")
    if missing is None:
        signed.try_rights()
        return
    with pytest.raises(QueueForbidden, match=f"Cannot {missing} queue") as caught:
        signed.try_rights()
    assert signature.split("sig=")[1] not in str(caught.value)


def test_a_text_that_is_no_connection_string_is_refused_without_showing_it() -> None:
    with pytest.raises(QueueForbidden, match="DefaultEndpointsProtocol") as caught:
        TrainingQueue("queue", connection_string="AccountKey=c2VjcmV0")
    assert "c2VjcmV0" not in str(caught.value)


def test_an_unreachable_service_is_unavailable_not_forbidden() -> None:
    connection = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;QueueEndpoint=http://127.0.0.1:9/a;"
    queue = TrainingQueue("queue", connection_string=connection)
    with pytest.raises(QueueUnavailable, match="Cannot receive from queue queue"):
        queue.receive(1, 30)
