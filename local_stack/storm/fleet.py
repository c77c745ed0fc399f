"""The parts of the storm as processes: Azurite, portal, cluster, and dispatchers that are killed and started again."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import yaml
from azure.storage.queue import QueueClient

from local_stack.storm.actors import LONGEST_HANG
from local_stack.storm.plan import DENIED, TOO_MANY_GPUS
from local_stack.storm.weather import NODES
from local_stack.surroundings import Surroundings, scoped_settings

IMAGE = "storm/trainer:1"
_GPUS_OF_A_NODE = 200
_BACKOFF_LIMIT = 6
# How the storm's dispatchers differ from an operator's: all waits are shorter.
VISIBILITY = 10.0
SETTINGS = {
    "VISIBILITY_TIMEOUT_SECONDS": f"{VISIBILITY:g}",
    "OUTAGE_PAUSE_SECONDS": "1",
    "RESYNC_SECONDS": "5",
    "POLL_MAX_SECONDS": "1",
    "STATUS_PROGRESS_SECONDS": "1",
    "STATUS_LAG_SECONDS": f"{LONGEST_HANG + 0.5:g}",
    "UNSCHEDULABLE_LIMIT_SECONDS": "8",
    "TTL_AFTER_REPORT_SECONDS": "150",
    "MAX_DELIVERIES": "2",
    "MAX_DISRUPTIONS": "0",
    "MAX_NODES": "2",
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
                "initContainers": [{"name": "mesh", "image": IMAGE, "restartPolicy": "Always"}],
                "containers": [
                    {"name": "trainer", "image": IMAGE, "resources": {"limits": {"nvidia.com/gpu": "1"}}},
                    {"name": "logs", "image": IMAGE},
                ],
            }
        },
    },
}


class World(Surroundings):
    """The parts of a storm: nodes with GPUs for all, and an image whose pods end without a process."""

    def __enter__(self) -> Self:
        try:
            options = [word for node in NODES for word in ("--node", f"{node}={_GPUS_OF_A_NODE}")]
            self.start_parts(*options, "--image", f"{IMAGE}=@instant", "--job-backoff", "0.1", "--bookmarks", "5")
            self.cluster.refuse_jobs("no such names here", name=DENIED)
            self.job_template.write_text(yaml.safe_dump(_TEMPLATE), encoding="utf-8")
        except BaseException:
            self.stop()
            raise
        return self

    def settings(self, name: str) -> dict[str, str]:
        """A dispatcher's environment for the queue and the namespace `name`; all else as by default."""
        return {**self.settings_for(name, name), "MAX_GPUS": str(TOO_MANY_GPUS), "HEALTH_PORT": "0"}


class Fleet:
    """Dispatchers side by side. `kill` ends one at once, `start_missing` restarts those that have ended."""

    def __init__(self, world: World, name: str, count: int, settings: dict[str, str], seed: int) -> None:
        self.ended: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        environment = world.settings(name) | settings
        # Side by side on one machine they cannot share a port.
        own = [scoped_settings() if environment.get("CREDENTIALS") == "scoped" else {} for _ in range(count)]
        # What a Service would lead to; none where trainings share their credentials.
        self.relays = [settings["RELAY_URL"] for settings in own if settings]
        self.members = [
            world.run_dispatcher(f"{name}-dispatcher-{number}", environment | settings)
            for number, settings in enumerate(own, 1)
        ]

    def begin_killing(self, kills: int, seconds: float) -> None:
        """Kill `kills` times, evenly spread over about `seconds`; each is restarted after up to two seconds."""
        self._thread = threading.Thread(target=self._kill_all, args=(kills, seconds / max(1, kills)), daemon=True)
        self._thread.start()

    @property
    def killing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def spare(self) -> None:
        """No more kills and no more restarts. Harmless twice."""
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
        """SIGKILL one that runs; False when none does."""
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
            # Now and then all of them at once.
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
