"""The parts of the storm as processes: Azurite, portal, cluster, and dispatchers that are killed and started again."""

from __future__ import annotations

import json
import random
import secrets
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from azure.storage.queue import QueueClient

from local_stack.azurite import Azurite
from local_stack.cluster.client import StandInCluster, start_cluster
from local_stack.portal.client import StandInPortal, start_portal
from local_stack.processes import Service
from local_stack.stack import bare_environment
from local_stack.storm.plan import TOO_MANY_GPUS
from local_stack.storm.weather import NODES

IMAGE = "storm/trainer:1"
_GPUS_OF_A_NODE = 200
_BACKOFF_LIMIT = 6
# How the storm's dispatchers differ from an operator's: everything that waits waits shorter.
VISIBILITY = 10.0
SETTINGS = {
    "VISIBILITY_TIMEOUT_SECONDS": f"{VISIBILITY:g}",
    "OUTAGE_PAUSE_SECONDS": "1",
    "SWEEP_SECONDS": "2",
    "RESYNC_SECONDS": "5",
    "POLL_MAX_SECONDS": "1",
    "STATUS_PROGRESS_SECONDS": "1",
    "UNSCHEDULABLE_LIMIT_SECONDS": "8",
    "TTL_AFTER_REPORT_SECONDS": "150",
    "MAX_DELIVERIES": "2",
    "MAX_DISRUPTIONS": "0",
}
_TEMPLATE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "backoffLimit": _BACKOFF_LIMIT,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 2,
                "containers": [
                    {"name": "trainer", "image": IMAGE, "resources": {"limits": {"nvidia.com/gpu": "1"}}},
                ],
            }
        },
    },
}


class World:
    """Storage, portal and cluster in one folder. A context manager: whatever was started is ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.services: list[Service] = []
        self.storage: Azurite
        self.portal: StandInPortal
        self.cluster: StandInCluster
        self._azurite: Azurite | None = None

    def __enter__(self) -> World:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "job-template.yaml").write_text(yaml.safe_dump(_TEMPLATE), encoding="utf-8")
        self.storage = self._azurite = Azurite(log=self.logs / "azurite.log").start()
        self.portal = start_portal(self.folder, secrets.token_hex(16))
        self.services.append(self.portal.service)
        options = [word for node in NODES for word in ("--node", f"{node}={_GPUS_OF_A_NODE}")]
        options += ["--image", f"{IMAGE}=@instant", "--job-backoff", "0.1"]
        self.cluster = start_cluster(self.folder, *options)
        self.services.append(self.cluster.service)

    def stop(self) -> None:
        for service in reversed(self.services):
            service.stop()
        if self._azurite is not None:
            self._azurite.stop()

    def queue(self, name: str) -> QueueClient:
        """The queue; its poison queue is NAME-poison."""
        return QueueClient.from_connection_string(self.storage.connection_string, name)

    def settings(self, name: str) -> dict[str, str]:
        """A dispatcher's environment for the queue and the namespace `name`; all else as by default."""
        return {
            "QUEUE_NAME": name,
            "AZURE_STORAGE_CONNECTION_STRING": self.storage.connection_string,
            "API_BASE_URL": self.portal.url,
            "API_KEY": self.portal.api_key,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "NAMESPACE": name,
            "JOB_TEMPLATE": str(self.folder / "job-template.yaml"),
            "MAX_GPUS": str(TOO_MANY_GPUS),
            "HEALTH_PORT": "0",
        }

    def make(self, name: str) -> None:
        """A namespace and two queues of this name."""
        self.cluster.create_namespace(name)
        for queue in (name, f"{name}-poison"):
            self.queue(queue).create_queue()

    def dispatcher(self, name: str, settings: dict[str, str]) -> Service:
        """A dispatcher process, started; `name` is its log's."""
        service = Service(
            name,
            [sys.executable, "-m", "dispatcher", "run"],
            self.logs / f"{name}.log",
            env=bare_environment() | settings,
            cwd=self.folder,
        )
        self.services.append(service)
        return service.start()


class Fleet:
    """Dispatchers side by side. `kill` ends one at once, `start_missing` brings back whoever is gone."""

    def __init__(self, world: World, name: str, count: int, settings: dict[str, str], seed: int) -> None:
        self.ended: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        environment = world.settings(name) | settings
        self.members = [world.dispatcher(f"{name}-dispatcher-{number}", environment) for number in range(1, count + 1)]

    def begin_killing(self, kills: int, seconds: float) -> None:
        """Kill `kills` times, evenly spread over about `seconds`; each comes back after up to two seconds."""
        self._thread = threading.Thread(target=self._kill_all, args=(kills, seconds / max(1, kills)), daemon=True)
        self._thread.start()

    @property
    def killing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def spare(self) -> None:
        """No more kills, and nobody is brought back by itself. Harmless twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def start_missing(self) -> None:
        for member in self.members:
            if member.returncode is not None:
                if member.returncode != -signal.SIGKILL:
                    self.ended[f"ended with code {member.returncode}"] += 1
                member.start()

    def kill(self) -> bool:
        """One that runs, by SIGKILL; False when none does."""
        running = [member for member in self.members if member.returncode is None]
        if not running:
            return False
        chosen = self._chance.choice(running)
        chosen.send_signal(signal.SIGKILL)
        chosen.wait(10)
        self.ended["killed"] += 1
        return True

    def _kill_all(self, kills: int, every: float) -> None:
        left = kills
        while left and not self._stop.wait(self._chance.uniform(0.2, 1.2) * every):
            # Now and then all of them within an instant.
            for _ in range(min(left, len(self.members) if self._chance.random() < 0.1 else 1)):
                left -= self.kill()
            if not self._stop.wait(self._chance.uniform(0.0, min(2.0, every))):
                self.start_missing()

    def log_lines(self, word: str) -> Iterator[tuple[str, str]]:
        """(dispatcher, line) of every line that has `word` in it."""
        for member in self.members:
            with member.log.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if word in line:
                        yield member.name.rpartition("-")[2], line.rstrip()


def poison_entries(queue: QueueClient) -> list[dict[str, Any]]:
    """Every entry of the poison queue, taken off it for ten minutes."""
    return [json.loads(m.content) for m in queue.receive_messages(messages_per_page=32, visibility_timeout=600)]
