"""What the tests of transfers share."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from trainer_image.storage.azure import open_container
from trainer_image.storage.container import Container
from trainer_image.storage.local import LocalContainer


@pytest.fixture(params=["azure", "local"])
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Container:
    if request.param == "local":
        (tmp_path / "container").mkdir()
        return LocalContainer(tmp_path / "container")
    connection = request.getfixturevalue("azurite").connection_string
    name = f"model-{secrets.token_hex(6)}"
    BlobServiceClient.from_connection_string(connection).create_container(name)
    return open_container(connection, None, name)
