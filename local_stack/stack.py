"""Everything that a training needs on one machine, as processes: storage, portal, cluster, dispatcher.

    Azurite (queue, blob)  ←  dispatcher run  →  stand-in cluster (pods are local processes)
                                    ↓                    ↓
                             stand-in portal   ←   trainer_image

The dispatcher runs as an operator runs it: its own process, settings from the environment, a kubeconfig, the
Job template of manifests/base. The cluster's GPUs exist only as numbers, so DEVICE=cpu is added to the template.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient

from local_stack.http_json import OPENER
from local_stack.processes import Service, free_port, started_at
from local_stack.serving import write_private
from local_stack.surroundings import Surroundings, scoped_settings

ROOT = Path(__file__).resolve().parent.parent
JOB_TEMPLATE = ROOT / "manifests" / "base" / "job-template.yaml"
QUEUE = "training-requests"
NAMESPACE = "training"
GPUS = 2
# For a template that names no image.
TRAINER_IMAGE = "training-dispatcher/trainer:local"


class Stack(Surroundings):
    """One local stack in one folder.

    gpus: the stand-in cluster's. scoped: trainings have credentials of their own, and the Job template's Secrets are
    not even there. settings, after `start`: the environment with which `start_dispatcher` starts the dispatcher.
    """

    settings: dict[str, str]

    def __init__(self, folder: Path, *, gpus: int = GPUS, template: Path = JOB_TEMPLATE, scoped: bool = False) -> None:
        super().__init__(folder, storage=folder / "azurite")
        self.gpus = gpus
        self.template = template
        self.scoped = scoped

    def start(self) -> Self:
        try:
            template = yaml.safe_load(self.template.read_text(encoding="utf-8"))
            image = trainer_image_of(template)
            # By its bare name: a path of this machine could lie under a mountPath of the template.
            entry_point = ["python", "-m", "trainer_image"]
            self.start_parts("--gpus", str(self.gpus), images={image: entry_point})
            self.create(QUEUE, NAMESPACE)
            self.settings = {
                **self.settings_for(QUEUE, NAMESPACE),
                "TRAINER_IMAGE": image,
                "HEALTH_HOST": "127.0.0.1",
                "HEALTH_PORT": str(free_port()),
                # Often, because the demo's trainings are short.
                "STATUS_PROGRESS_SECONDS": "1",
                "POLL_MAX_SECONDS": "1",
                "RESYNC_SECONDS": "5",
                **(scoped_settings() if self.scoped else {}),
            }
            self._prepare_cluster(template)
        except BaseException:
            self.stop()
            raise
        return self

    def _prepare_cluster(self, template: dict[str, Any]) -> None:
        """What manifests bring: the switch of `dispatcher pause`, and what the template takes for granted.

        The template gets DEVICE=cpu.
        """
        self.cluster.create_config_map("training-dispatcher-pause", NAMESPACE)
        for name, keys in ({} if self.scoped else referenced_secrets(template)).items():
            values = {key: self.settings[key] for key in keys if key in self.settings}
            self.cluster.put_secret(name, values, NAMESPACE)
        if account := template["spec"]["template"]["spec"].get("serviceAccountName"):
            self.cluster.create_service_account(account, NAMESPACE)
        trainer_of(template).setdefault("env", []).append({"name": "DEVICE", "value": "cpu"})
        self.job_template.write_text(yaml.safe_dump(template, sort_keys=False), encoding="utf-8")

    def start_dispatcher(self, *, name: str = "dispatcher", timeout: float = 60.0, **settings: str) -> Service:
        """Start `dispatcher run` with `settings` over ours, and wait until it is ready. Each name once."""
        environment = {**self.settings, **settings}
        others = [service for name, service in self.services.items() if name not in ("portal", "cluster")]
        if others:
            environment = {**environment, "HEALTH_PORT": str(free_port()), **settings}
        if self.scoped and any(service.returncode is None for service in others):
            # Trainings call the first one; that which takes its place has its port.
            environment = {**environment, "RELAY_PORT": str(free_port()), **settings}
        service = self.run_dispatcher(name, environment)
        service.wait_ready(lambda: _ready(int(environment["HEALTH_PORT"])), timeout)
        return service

    def queue(self, name: str = QUEUE) -> QueueClient:
        return super().queue(name)

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
        running["azurite"] = self.storage.pid
        return {name: (pid, mark) for name, pid in running.items() if (mark := started_at(pid)) is not None}

    def __enter__(self) -> Self:
        return self.start()


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
