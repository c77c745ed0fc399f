"""Everything that a training needs on one machine, as processes: storage, portal, cluster, dispatcher.

    Azurite (queue, blob)  ←  dispatcher run  →  stand-in cluster (pods are local processes)
                                    ↓                    ↓
                                stand-in portal  ←   trainer_image

The dispatcher runs as an operator runs it: its own process, settings from the environment, a kubeconfig, the
Job template of manifests/base. The cluster's GPUs are numbers only, so the template says DEVICE=cpu on top.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient

from local_stack.azurite import Azurite
from local_stack.cluster.client import StandInCluster, start_cluster
from local_stack.http_json import OPENER
from local_stack.portal.client import StandInPortal, start_portal
from local_stack.processes import Service, started_at
from local_stack.serving import write_private

ROOT = Path(__file__).resolve().parent.parent
JOB_TEMPLATE = ROOT / "manifests" / "base" / "job-template.yaml"
QUEUE = "training-requests"
NAMESPACE = "training"
GPUS = 2
# Where the template names no image of its own.
TRAINER_IMAGE = "training-dispatcher/trainer:local"


class Stack:
    """One local stack in one folder: logs, data, kubeconfig, settings. A context manager; `stop` ends it all.

    gpus: the stand-in cluster's. After `start`: storage, portal, cluster, and settings: the environment with
    which `start_dispatcher` starts the dispatcher.
    """

    storage: Azurite
    portal: StandInPortal
    cluster: StandInCluster
    settings: dict[str, str]

    def __init__(self, folder: Path, *, gpus: int = GPUS, template: Path = JOB_TEMPLATE) -> None:
        self.folder = folder
        self.gpus = gpus
        self.template = template
        self.logs = folder / "logs"
        self.services: dict[str, Service] = {}
        self._azurite: Azurite | None = None
        self._dispatchers = 0

    def start(self) -> Self:
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._azurite = Azurite(self.folder / "azurite", self.logs / "azurite.log").start()
        self.storage = self._azurite
        template = yaml.safe_load(self.template.read_text(encoding="utf-8"))
        image = trainer_image_of(template)
        trainer_of(template).setdefault("env", []).append({"name": "DEVICE", "value": "cpu"})
        job_template = self.folder / "job-template.yaml"
        job_template.write_text(yaml.safe_dump(template, sort_keys=False), encoding="utf-8")
        self.portal = start_portal(self.folder, secrets.token_hex(24))
        self.services["portal"] = self.portal.service
        # By its bare name: a path of this machine could lie under a mountPath of the template.
        entry_point = ["python", "-m", "trainer_image"]
        self.cluster = start_cluster(self.folder, "--gpus", str(self.gpus), images={image: entry_point})
        self.services["cluster"] = self.cluster.service
        self.settings = {
            "QUEUE_NAME": QUEUE,
            "AZURE_STORAGE_CONNECTION_STRING": self.storage.connection_string,
            "API_BASE_URL": self.portal.url,
            "API_KEY": self.portal.api_key,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "NAMESPACE": NAMESPACE,
            "JOB_TEMPLATE": str(job_template),
            "TRAINER_IMAGE": image,
            "HEALTH_HOST": "127.0.0.1",
            "HEALTH_PORT": str(free_port()),
            # Often, because the demo's trainings are short.
            "STATUS_PROGRESS_SECONDS": "1",
            "POLL_MAX_SECONDS": "1",
            "RESYNC_SECONDS": "5",
        }
        values = {**self.settings, "API_KEY": self.portal.api_key}
        self.cluster.create_namespace(NAMESPACE)
        for name, keys in referenced_secrets(template).items():
            self.cluster.put_secret(name, {key: values[key] for key in keys if key in values}, NAMESPACE)
        if account := template["spec"]["template"]["spec"].get("serviceAccountName"):
            self.cluster.create_service_account(account, NAMESPACE)
        for name in (QUEUE, f"{QUEUE}-poison"):
            with contextlib.suppress(ResourceExistsError):
                self.queue(name).create_queue()
        return self

    def start_dispatcher(self, *, name: str = "dispatcher", timeout: float = 60.0, **settings: str) -> Service:
        """Start `dispatcher run` with `settings` over ours, and wait until it is ready. Each name once."""
        # A port of its own: of two that run at a time, each is to answer for itself.
        port = self.settings["HEALTH_PORT"] if not self._dispatchers else str(free_port())
        self._dispatchers += 1
        environment = {**self.settings, "HEALTH_PORT": port, **settings}
        service = Service(
            name,
            [sys.executable, "-m", "dispatcher", "run"],
            self.logs / f"{name}.log",
            env=bare_environment() | environment,
            # Not the project's folder: a config.env there is the developer's.
            cwd=self.folder,
        ).start()
        self.services[name] = service
        service.wait_ready(lambda: _ready(int(environment["HEALTH_PORT"])), timeout)
        return service

    def queue(self, name: str = QUEUE) -> QueueClient:
        return QueueClient.from_connection_string(self.storage.connection_string, name)

    @property
    def poison(self) -> QueueClient:
        return self.queue(f"{QUEUE}-poison")

    @property
    def blobs(self) -> BlobServiceClient:
        return BlobServiceClient.from_connection_string(self.storage.connection_string)

    def write_environment(self) -> Path:
        """`dispatcher.env`, for `dispatcher --config`; only we may read it."""
        path = self.folder / "dispatcher.env"
        write_private(path, "".join(f"{name}={shlex.quote(value)}\n" for name, value in self.settings.items()))
        return path

    def pids(self) -> dict[str, tuple[int, str]]:
        """name → (pid, its starting mark) of all that runs, in the order in which it is to be ended."""
        running = {name: service.pid for name, service in reversed(self.services.items()) if service.returncode is None}
        if self._azurite is not None:
            running["azurite"] = self._azurite.pid
        return {name: (pid, mark) for name, pid in running.items() if (mark := started_at(pid)) is not None}

    def stop(self) -> dict[str, int | None]:
        """End all, the last one started first: name → exit code. Harmless twice."""
        codes = {name: service.stop() for name, service in reversed(self.services.items())}
        if self._azurite is not None:
            self._azurite.stop()
        return codes

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def bare_environment() -> dict[str, str]:
    """What a container has before its settings: nothing of the caller's shell that changes how we behave."""
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def trainer_image_of(template: Mapping[str, Any]) -> str:
    """The image of the Job template's trainer container; TRAINER_IMAGE where it names none."""
    return str(trainer_of(template).get("image", TRAINER_IMAGE))


def trainer_of(template: Mapping[str, Any]) -> dict[str, Any]:
    """The Job template's trainer container."""
    containers: list[dict[str, Any]] = template["spec"]["template"]["spec"]["containers"]
    return next(container for container in containers if container["name"] == "trainer")


def referenced_secrets(template: Mapping[str, Any]) -> dict[str, set[str]]:
    """Secret name → the keys that the template's containers take from it by secretKeyRef."""
    found: dict[str, set[str]] = {}
    for reference in _values(template, "secretKeyRef"):
        found.setdefault(str(reference["name"]), set()).add(str(reference["key"]))
    return found


def _values(node: Any, key: str) -> Iterator[Any]:
    """Every value of `key` anywhere in a tree of dicts and lists."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from _values(item, key)


def _ready(port: int) -> bool:
    try:
        with OPENER.open(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return True
    except OSError:
        return False
