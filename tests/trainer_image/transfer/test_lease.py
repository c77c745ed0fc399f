"""One writer for a model, also when a pod runs twice."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from local_stack.processes import wait_until
from trainer_image.errors import Fenced, Terminated
from trainer_image.stop import Stop
from trainer_image.storage.azure import open_container
from trainer_image.storage.container import Container, Lease, LeaseHeld, Unavailable
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer import lease

OLD, NEW = "20261123t081500-aaaaaaaa", "20261123t081501-00000000"


@pytest.fixture
def container(azurite: Any) -> Container:
    name = f"model-{secrets.token_hex(6)}"
    BlobServiceClient.from_connection_string(azurite.connection_string).create_container(name)
    return open_container(azurite.connection_string, None, name)


def take(container: Container, run_id: str, stop: Stop | None = None, wait: float = 0.0) -> lease.RunLease:
    return lease.take(container, run_id, stop or Stop(), wait_seconds=wait, renew_seconds=0.05)


def test_a_second_pod_of_the_same_run_is_fenced(container: Container) -> None:
    first = take(container, OLD)
    with pytest.raises(Fenced):
        take(container, OLD)
    first.confirm()
    first.release()


def test_the_replacement_waits_for_the_lease_of_the_pod_before(container: Container) -> None:
    first = take(container, OLD)
    first.release()
    take(container, OLD, wait=10).release()


def test_a_stop_ends_the_wait_for_an_earlier_pod(container: Container) -> None:
    first, stop = take(container, OLD), Stop()
    stop.set("terminated")
    with pytest.raises(Terminated):
        take(container, OLD, stop, wait=60)
    first.release()


def test_a_newer_run_takes_over_and_stops_the_older_one(container: Container) -> None:
    stop = Stop()
    zombie = take(container, OLD, stop)
    heir = take(container, NEW)
    wait_until(lambda: stop.reason == "fenced", timeout=10)
    with pytest.raises(Fenced):
        zombie.confirm()
    zombie.release()
    heir.confirm()
    heir.release()


def test_an_older_run_does_not_come_back_after_a_newer_one(container: Container) -> None:
    take(container, NEW).release()
    with pytest.raises(Fenced, match=NEW):
        take(container, OLD)


def test_a_clock_that_was_wrong_once_does_not_lock_every_later_run_out(container: Container) -> None:
    take(container, "20991231t000000-aaaaaaaa").release()
    take(container, NEW).release()


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    container = LocalContainer(tmp_path)
    first = take(container, "by-hand")
    with pytest.raises(Fenced, match="another training writes to this folder"):
        take(container, "by-hand-2")
    first.release()
    take(container, "by-hand-2").release()


class Shaky:
    def __init__(self, fault: Exception) -> None:
        self.fault = fault
        self.renewals = 0
        self.released = False

    def renew(self) -> None:
        self.renewals += 1
        raise self.fault

    def release(self) -> None:
        self.released = True


def test_storage_s_trouble_is_no_reason_to_stop_training() -> None:
    stop, shaky = Stop(), Shaky(Unavailable("storage does not answer"))
    held = lease.RunLease(shaky, stop, renew_seconds=0.001)
    wait_until(lambda: shaky.renewals > 3, timeout=10)
    held.confirm()
    held.release()
    assert not stop.is_set()
    assert shaky.released


def test_a_lost_lease_stops_the_training() -> None:
    stop = Stop()
    shaky: Lease = Shaky(LeaseHeld("another holder has it"))
    held = lease.RunLease(shaky, stop, renew_seconds=0.001)
    wait_until(lambda: stop.reason == "fenced", timeout=10)
    held.release()
