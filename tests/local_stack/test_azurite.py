"""The real Azurite, started as the rest of the suite starts it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local_stack.azurite import Azurite, AzuriteMissing, install


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    try:
        install()
    except AzuriteMissing as error:
        pytest.skip(str(error))


def test_a_message_comes_back_with_its_delivery_count(azurite: Azurite, queue_name: str) -> None:
    queue = QueueServiceClient.from_connection_string(azurite.connection_string).create_queue(queue_name)
    queue.send_message("hello")
    first = queue.receive_message(visibility_timeout=1)
    assert first is not None
    assert (first.content, first.dequeue_count) == ("hello", 1)
    queue.delete_message(first)
    assert queue.receive_message() is None


def test_conditional_writes_are_refused_as_azure_refuses_them(azurite: Azurite, dataset_name: str) -> None:
    client = BlobServiceClient.from_connection_string(azurite.connection_string).create_container(dataset_name)
    etag = client.upload_blob("latest.json", b"1").get_blob_properties().etag
    with pytest.raises(ResourceExistsError):
        client.upload_blob("latest.json", b"2")
    blob = client.get_blob_client("latest.json")
    blob.upload_blob(b"3", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(ResourceModifiedError):
        blob.upload_blob(b"4", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified)


def test_a_folder_keeps_the_queue_across_a_restart(tmp_path: Path, queue_name: str) -> None:
    with Azurite(tmp_path / "data") as storage:
        queue = QueueServiceClient.from_connection_string(storage.connection_string).create_queue(queue_name)
        queue.send_message("kept")
    with Azurite(tmp_path / "data") as storage:
        queue = QueueServiceClient.from_connection_string(storage.connection_string).get_queue_client(queue_name)
        message = queue.receive_message()
        assert message is not None
        assert message.content == "kept"


def test_stopping_leaves_no_process_behind(tmp_path: Path) -> None:
    storage = Azurite(log=tmp_path / "azurite.log").start()
    pid = storage.pid
    storage.stop()
    storage.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
