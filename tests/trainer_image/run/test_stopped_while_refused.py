"""SIGTERM while storage refuses a signature, in every phase that asks storage: nobody replaces it, and nobody waits."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from dispatcher.storage.azure import AzureSignatures
from portal_client.statuses import ProcessingStatus
from tests.trainer_image.run.local_runs import start, termination
from tests.trainer_image.storage.blob_proxy import BlobProxy, error_body
from tests.world.trainer_fakes import FakePortal
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.errors import StorageUnavailable
from trainer_image.stop import Stop

# Phase → method and a part of the address of its first call.
PHASES = {
    "configuration": ("GET", "/config.yaml"),
    "download": ("GET", "/train.csv"),
    "checkpoint": ("PUT", "/state.json"),
    "publication": ("PUT", "/latest.json"),
}


class Refusing:
    """Storage that takes signatures until the phase begins; then it refuses them all, and the pod is told to end."""

    def __init__(self, phase: str) -> None:
        self.stop = Stop()
        self.refused_at = 0.0
        self._method, self._part = PHASES[phase]

    def __call__(self, method: str, path: str) -> tuple[int, str, bytes] | None:
        if not self.refused_at:
            if method != self._method or self._part not in path:
                return None
            self.refused_at = time.monotonic()
            threading.Timer(0.1, self.stop.set, ("terminated",)).start()
        return 403, "AuthenticationFailed", error_body("AuthenticationFailed")


@pytest.mark.parametrize("phase", PHASES)
def test_a_training_that_is_told_to_end_waits_for_no_other_signature(
    settings: Settings, azurite: Any, tmp_path: Path, phase: str
) -> None:
    name = secrets.token_hex(6)
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    service.create_container(f"model-{name}").upload_blob("config.yaml", b"task: tabular\ndata: {target: b}\n")
    service.create_container(f"dataset-{name}").upload_blob("train.csv", b"a,b\n1,2\n")
    storage = Refusing(phase)

    def during(inputs: RunInputs) -> None:
        if phase == "checkpoint":
            folder = inputs.output.parent / "step-7"
            folder.mkdir()
            (folder / "state.json").write_text("{}")
            assert inputs.checkpoints is not None
            with pytest.raises(StorageUnavailable):
                inputs.checkpoints.keep(folder)

    with BlobProxy(azurite.connection_string, instead=storage) as proxy:
        signed = AzureSignatures(connection_string=proxy.connection_string)
        folder = tmp_path / "credentials"
        folder.mkdir()
        for kind, write in (("model", True), ("dataset", False)):
            url = signed.sas(f"{kind}-{name}", write=write, until=time.time() + 3600)
            (folder / f"{kind.upper()}_URL").write_text(url)
        pod = replace(
            settings,
            data=None,
            out=None,
            config=None,
            credentials_dir=folder,
            model_container=f"model-{name}",
            dataset_container=f"dataset-{name}",
        )
        outcome = start(pod, FakePortal(ProcessingStatus.PROCESSING), during, stop=storage.stop)
        took = time.monotonic() - storage.refused_at
    assert storage.refused_at
    assert took < 3, "of the three minutes for which a signature is waited for"
    assert outcome.exit_code in (143, 201), "the next pod goes on"
    assert termination(pod)["code"] == outcome.code
