"""What the scenarios do on a ground: models with requests, looks at them, and what happens to their pods."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient

from dispatcher.cluster import names
from local_stack.demo import data
from local_stack.demo.requests import train_message
from local_stack.portal.client import StandInPortal
from local_stack.processes import wait_until
from tests.world.kube import Kube, is_running
from tests.world.manifests.kustomized import Object

# Runs until its pod is taken away; the next pod finds the checkpoint and ends.
ENDS_THE_SECOND_TIME = """
if [ -e "$CHECKPOINT_DIR/begun" ]; then echo trained > "$OUTPUT_DIR/model.txt"; exit 0; fi
touch "$CHECKPOINT_DIR/begun"; sleep 900
"""
ENDS_AT_ONCE = 'echo trained > "$OUTPUT_DIR/model.txt"'
RUNS_ON = "sleep 900"


class Ground(Protocol):
    """A cluster with all that a dispatcher works between; Installed and StandIn are the two there are.

    portal, storage (a connection string), kube (of the Jobs' namespace): as this machine reaches them, after `start`.
    template, trainer: the Job template and the image that `configure` is given. queue: its name. burst: how many
    requests at once. grace: seconds to wait for what does not come. storage_stays: the account outlives the run.
    cannot: what a scenario needs → why it cannot be.
    """

    portal: StandInPortal
    storage: str
    kube: Kube
    template: Object
    trainer: str
    queue: str
    burst: int
    grace: int
    storage_stays: bool
    cannot: Mapping[str, str]

    def start(self) -> None: ...
    def configure(self, settings: Mapping[str, str], template: Object, *, kueue: bool = False) -> None: ...
    def kill_dispatchers(self) -> None: ...
    def command(self, *words: str, seconds: float = 300.0) -> tuple[int, str]: ...
    def drain(self, pod: str) -> None: ...
    def contract_suite(self) -> list[str]: ...
    def keep_logs(self) -> None: ...
    def stop(self) -> list[str]: ...


class Unexpected(Exception):
    """Something else than the scenario expects was seen; the message says what."""


class Trial:
    """One run's models on a ground. patience: seconds to wait for anything. run: in the names of all that it makes."""

    def __init__(self, ground: Ground, run: str, patience: float) -> None:
        self.ground = ground
        self.kube = ground.kube
        self.portal = ground.portal
        self.patience = patience
        self.models: list[str] = []
        self._run = run
        self._blobs = BlobServiceClient.from_connection_string(ground.storage)
        self._queues = [
            QueueClient.from_connection_string(ground.storage, f"{ground.queue}{end}") for end in ("", "-poison")
        ]
        self.dataset = f"dataset-{run}"

    def prepare(self) -> None:
        """Queues and a dataset. Before the first dispatcher starts: it makes none."""
        for queue in self._queues:
            self._harmless(queue.create_queue)
        with tempfile.TemporaryDirectory() as folder:
            data.write_breast_cancer(Path(folder))
            data.upload_folder(self._blobs, self.dataset, Path(folder))

    def model(self, name: str, config: list[str], status: str = "Created") -> str:
        """A model with this `config.yaml`, known to the portal; returns its container."""
        model = f"model-{self._run}-{name}"
        data.upload_config(self._blobs, model, config)
        self.portal.set_model(model[6:], status)
        self.models.append(model)
        return model

    def program(self, name: str, script: str, **fields: Any) -> str:
        """A model whose training is this shell script, and its request."""
        argv = json.dumps({"argv": ["sh", "-c", script]})
        model = self.model(name, ["task: command", "checkpoint: {every: 1s}", f"command: {argv}"])
        self.send(model, **fields)
        return model

    def send(self, model: str, **fields: Any) -> None:
        """The request of a model."""
        self._queues[0].send_message(train_message(model, self.dataset, **fields))

    def poisoned(self) -> dict[str, str]:
        """Message as it came → code, of the poison queue."""
        entries = [json.loads(message.content) for message in self._queues[1].peek_messages(32)]
        return {entry["original"]: entry["code"] for entry in entries}

    def empty(self) -> bool:
        """Nothing is on the queue, visible or not."""
        return not self._queues[0].get_queue_properties().approximate_message_count

    def wait(self, condition: Callable[[], Any], what: str, model: str = "") -> Any:
        """What the condition returns once it is true. Raises Unexpected, with where the model stands."""

        def said() -> str:
            return f"{what}; {self.shown(model)}" if model else what

        try:
            return wait_until(condition, self.patience, what=said, interval=0.1)
        except AssertionError as why:
            raise Unexpected(str(why)) from None

    def shown(self, model: str) -> str:
        """The model at the portal, in words."""
        now = self.portal.model(model[6:])
        return f"{now.status}: {now.message}"

    def pod(self, model: str) -> Object:
        """The model's pod, once it runs and has saved a first checkpoint."""
        self.wait(lambda: self._saved(model), "a first checkpoint", model)
        pod = self.kube.pod(model)
        if pod is None or not is_running(pod):
            raise Unexpected(f"the pod does not run; {self.shown(model)}")
        return pod

    def ends(self, model: str, status: str, words: str = "") -> str:
        """What the portal shows, once the training is over and its Job let go; words: what has to stand there."""

        def over() -> bool:
            job = self.kube.get("jobs", model)
            let_go = job is None or names.REPORTED in job["metadata"].get("annotations", {})
            return let_go and self.portal.model(model[6:]).status in ("Completed", "Failed")

        self.wait(over, f"the end of {model}", model)
        shown = self.shown(model)
        if not shown.startswith(f"{status}:") or words not in shown:
            raise Unexpected(shown)
        if status == "Completed" and self.runs(model) < 1:
            raise Unexpected(f"{shown}, but nothing is published")
        return shown

    def runs(self, model: str) -> int:
        """Runs in the model's container; 0 where none is published."""
        found = list(self._blobs.get_container_client(model).list_blob_names())
        return len({name.split("/")[1] for name in found if name.startswith("runs/")}) if "latest.json" in found else 0

    def jobs(self) -> list[str]:
        """The names of the Jobs there are."""
        return [job["metadata"]["name"] for job in self.kube.list_all("jobs", labelSelector=names.SELECTOR)]

    def delete(self, plural: str, name: str, **options: Any) -> None:
        """DELETE with these DeleteOptions."""
        answer = self.kube.delete(plural, name, **options)
        if answer.code >= 300:
            raise Unexpected(f"{plural}/{name} cannot be deleted: {answer.message}")

    def evict(self, pod: str) -> None:
        """By the eviction API."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        answer = self.kube.call("POST", self.kube.path("pods", pod) + "/eviction", body)
        if answer.code >= 300:
            raise Unexpected(f"the eviction is refused: {answer.message}")

    def close(self) -> None:
        """Remove what was put into a storage account that stays."""
        if not self.ground.storage_stays:
            return
        for container in [*self.models, self.dataset]:
            self._harmless(self._blobs.get_container_client(container).delete_container)
        for queue in self._queues:
            self._harmless(queue.delete_queue)

    def _saved(self, model: str) -> bool:
        """Whether a whole checkpoint is there."""
        container = self._blobs.get_container_client(model)
        return any(
            name.endswith("MANIFEST.json") for name in container.list_blob_names(name_starts_with="checkpoints/")
        )

    def _harmless(self, act: Callable[[], object]) -> None:
        with contextlib.suppress(ResourceExistsError, ResourceNotFoundError):
            act()
