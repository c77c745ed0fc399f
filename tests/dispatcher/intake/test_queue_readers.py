"""Dispatchers of two namespaces on one queue notice each other, by the metadata of a real queue."""

from __future__ import annotations

import threading

import pytest
from azure.storage.queue import generate_queue_sas

from dispatcher.decisions.readers import ALIVE, FORGET, RENEW, announced, others, perhaps
from dispatcher.intake.queue_readers import QueueReaders
from dispatcher.queue.azure import TrainingQueue
from local_stack.azurite import Azurite
from tests.world.builders import T0


@pytest.fixture
def queue(azurite: Azurite, queue_name: str) -> TrainingQueue:
    queue = TrainingQueue(queue_name, connection_string=azurite.connection_string)
    queue.create()
    return queue


def test_two_namespaces_see_each_other_and_say_so_once(queue: TrainingQueue, caplog: pytest.LogCaptureFixture) -> None:
    now = [T0]
    here, there = (
        QueueReaders([queue], place, name, stopping=threading.Event(), clock=lambda: now[0])
        for place, name in (("aaaa1111", "training"), ("bbbb2222", "lab"))
    )
    here.look()
    assert here.running == 0
    there.look()
    here.look()
    assert (here.running, there.running) == (1, 1)
    assert perhaps(here.others, "training").startswith("perhaps a dispatcher of namespace lab, which reads this queue")
    here.look()
    assert caplog.text.count("Dispatchers of namespace lab read this queue, too") == 1
    # The other is taken down: no dispatcher any more, and still perhaps whose training it is.
    now[0] += ALIVE + 1
    here.look()
    assert here.running == 0
    assert "namespace lab" in perhaps(here.others, "training")
    now[0] += FORGET
    here.look()
    assert here.others == ()
    assert set(queue.metadata()) == {"reader_aaaa1111"}, "what is forgotten is removed"


def test_replicas_of_one_namespace_are_one_reader(queue: TrainingQueue) -> None:
    first, second = (QueueReaders([queue], "aaaa1111", "training", stopping=threading.Event()) for _ in range(2))
    for replica in (first, second, first):
        replica.look()
    assert first.others == second.others == ()


def test_who_may_not_write_metadata_reads_it_and_goes_on(
    queue: TrainingQueue, azurite: Azurite, caplog: pytest.LogCaptureFixture
) -> None:
    QueueReaders([queue], "bbbb2222", "lab", stopping=threading.Event()).look()
    caplog.set_level("INFO")
    may_read = TrainingQueue(queue.name, connection_string=_read_only(queue, azurite))
    here = QueueReaders([may_read], "aaaa1111", "training", stopping=threading.Event())
    here.look()
    here.look()
    assert here.running == 1
    assert caplog.text.count("do not learn of this one") == 1


def _read_only(queue: TrainingQueue, azurite: Azurite) -> str:
    parts = dict(part.split("=", 1) for part in azurite.connection_string.split(";") if part)
    sas = generate_queue_sas(
        parts["AccountName"], queue.name, parts["AccountKey"], permission="r", expiry="2099-01-01T00:00:00Z"
    )
    return f"QueueEndpoint={parts['QueueEndpoint']};SharedAccessSignature={sas}"


def test_the_same_namespace_of_another_cluster_is_another_reader() -> None:
    metadata = announced({}, "cccc3333", "training", T0) or {}
    [found] = others(metadata, "aaaa1111", T0)
    assert found.words("training") == "namespace training of another cluster"


def test_what_others_keep_in_the_metadata_stays_and_is_not_believed() -> None:
    metadata = {"owner": "ada", "reader_x": "no time", "Reader_y": "BAD\nNAME 2026-01-01T00:00:00Z", "reader_z": ""}
    assert others(metadata, "aaaa1111", T0) == []
    assert (announced(metadata, "aaaa1111", "training", T0) or {})["owner"] == "ada"


def test_an_entry_is_written_once_in_a_while_whatever_case_the_service_gives_its_name() -> None:
    metadata = announced({}, "aaaa1111", "training", T0) or {}
    kept = {key.upper(): value for key, value in metadata.items()}
    assert announced(kept, "aaaa1111", "training", T0 + RENEW - 1) is None
    assert set(announced(kept, "aaaa1111", "training", T0 + RENEW) or {}) == set(metadata)
