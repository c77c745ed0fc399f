"""What a dispatcher works between, as processes on this machine: storage, portal and cluster."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.queue import QueueClient

from local_stack.azurite import Azurite
from local_stack.cluster.client import StandInCluster, start_cluster
from local_stack.portal.client import StandInPortal, start_portal
from local_stack.processes import Service, Stoppable, bare_environment, free_port


class Surroundings(Stoppable):
    """Azurite, a stand-in portal and a stand-in cluster in one folder: logs, data, kubeconfig, Job template.

    services: all that was started after Azurite, dispatchers too, by name. `stop` ends it all, the last one first.
    kubeconfig: the stand-in's once it is started; whoever works on another cluster sets it.
    """

    portal: StandInPortal
    cluster: StandInCluster
    kubeconfig: Path | str

    def __init__(self, folder: Path, storage: Path | None = None) -> None:
        """storage: where Azurite keeps its data; None: in memory."""
        self.folder = folder
        self.logs = folder / "logs"
        self.job_template = folder / "job-template.yaml"
        self.storage = Azurite(storage, self.logs / "azurite.log")
        self.services: dict[str, Service] = {}

    def start_parts(self, *options: str, images: Mapping[str, Sequence[str] | None] | None = None) -> None:
        """options, images: the cluster's. Whoever calls it calls `stop` if it fails."""
        self.start_without_cluster()
        self.cluster = start_cluster(self.folder, *options, images=images)
        self.services["cluster"] = self.cluster.service
        self.kubeconfig = self.cluster.kubeconfig

    def start_without_cluster(self) -> None:
        """Storage and portal alone. Whoever calls it calls `stop` if it fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.storage.start()
        self.portal = start_portal(self.folder, secrets.token_hex(24))
        self.services["portal"] = self.portal.service

    def stop(self) -> dict[str, int | None]:
        """End all, the last one started first: name → exit code. Harmless twice."""
        codes = {name: service.stop() for name, service in reversed(self.services.items())}
        self.storage.stop()
        return codes

    def queue(self, name: str) -> QueueClient:
        """The queue; its poison queue is NAME-poison."""
        return QueueClient.from_connection_string(self.storage.connection_string, name)

    def create(self, queue: str, namespace: str) -> None:
        """A namespace, a queue and its poison queue."""
        self.cluster.create_namespace(namespace)
        self.create_queue(queue)

    def create_queue(self, queue: str) -> None:
        """A queue and its poison queue. Harmless where they exist."""
        for name in (queue, f"{queue}-poison"):
            with contextlib.suppress(ResourceExistsError):
                self.queue(name).create_queue()

    def settings_for(self, queue: str, namespace: str) -> dict[str, str]:
        """The environment of a dispatcher of this queue and namespace; all else as by default."""
        return {
            "QUEUE_NAME": queue,
            "AZURE_STORAGE_CONNECTION_STRING": self.storage.connection_string,
            "API_BASE_URL": self.portal.url,
            "API_KEY": self.portal.api_key,
            "KUBECONFIG": str(self.kubeconfig),
            "NAMESPACE": namespace,
            "JOB_TEMPLATE": str(self.job_template),
            # The stand-in's answers are never behind its writes.
            "STATUS_LAG_SECONDS": "0",
        }

    def run_dispatcher(self, name: str, settings: Mapping[str, str]) -> Service:
        """Start `dispatcher run`; it may not be ready yet. `name`, each once, is its log's too."""
        service = Service(
            name,
            [sys.executable, "-m", "dispatcher", "run"],
            self.logs / f"{name}.log",
            env={**bare_environment(), **settings},
            # Not the project's folder: a config.env there is the developer's.
            cwd=self.folder,
        )
        self.services[name] = service
        return service.start()


def scoped_settings() -> dict[str, str]:
    """What a dispatcher has besides, for trainings with credentials of their own: its relay, on a loopback port."""
    port = free_port()
    relay = {"RELAY_HOST": "127.0.0.1", "RELAY_PORT": str(port), "RELAY_URL": f"http://127.0.0.1:{port}"}
    return {"CREDENTIALS": "scoped", **relay}
