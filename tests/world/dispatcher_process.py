"""Dispatcher processes between a real Azurite, the stand-in portal and the stand-in cluster.

Each `Stage` has a namespace and a queue of its own; the trainers are shell scripts that do what the model's id says.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sys
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.cli.checks import pod_check
from dispatcher.cli.main import main
from dispatcher.cluster import names
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.poison import PoisonEntry, parse_entry
from dispatcher.telemetry.metrics import PREFIX
from local_stack.azurite import Azurite
from local_stack.cluster.client import StandInCluster
from local_stack.http_json import OPENER
from local_stack.portal.client import StandInPortal
from local_stack.processes import Service, WaitedTooLong, bare_environment, free_port, wait_until
from tests.world import json_objects as objects
from tests.world.forked import ForkedDispatcher

SCRIPT_IMAGE = "script:local"

# What a trainer does, by the word in front of its model's id.
SCRIPT = r"""
say() { printf '{"message":"%s","code":"%s","exit":%d}' "$1" "$2" "$3" > "$TERMINATION_MESSAGE_PATH"; exit "$3"; }
case "$MODEL_CONTAINER" in
    model-done-*) say "Model training completed successfully" Completed 0 ;;
    model-invalid-*) say "Invalid dataset: train.csv: it is empty" DatasetInvalid 65 ;;
    model-tail-*) echo "Traceback"; echo "ValueError: secret sauce missing"; exit 79 ;;
    model-retry-*) say "Storage is out of reach" StorageUnavailable 201 ;;
    model-runs-*) trap 'exit 143' TERM; while :; do sleep 0.1; done ;;
    *) exit 3 ;;
esac
"""

TEMPLATE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "backoffLimit": 1,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 5,
                "containers": [
                    {
                        "name": "trainer",
                        "image": SCRIPT_IMAGE,
                        "command": ["sh", "-c", SCRIPT],
                        "resources": {"limits": {"nvidia.com/gpu": "1"}},
                    }
                ],
            }
        },
    },
}


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """What a command sets up ends with it."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


class Stage:
    """The parts around one dispatcher, and the dispatcher itself once started."""

    def __init__(self, folder: Path, azurite: Azurite, portal: StandInPortal, cluster: StandInCluster) -> None:
        self.folder = folder
        self.portal = portal
        self.cluster = cluster
        self.namespace = f"ns-{secrets.token_hex(4)}"
        self.name = f"q-{secrets.token_hex(6)}"
        cluster.create_namespace(self.namespace)
        cluster.create_config_map(names.PAUSE, self.namespace)
        self.queue = TrainingQueue(self.name, connection_string=azurite.connection_string)
        self.poison_queue = TrainingQueue(f"{self.name}-poison", connection_string=azurite.connection_string)
        self.queue.create()
        self.poison_queue.create()
        self.template = json.loads(json.dumps(TEMPLATE))
        self.port = free_port()
        self.settings = {
            "QUEUE_NAME": self.name,
            "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
            "API_BASE_URL": portal.url,
            "API_KEY": portal.api_key,
            "KUBECONFIG": str(cluster.kubeconfig),
            "NAMESPACE": self.namespace,
            "JOB_TEMPLATE": str(folder / "job-template.yaml"),
            "HEALTH_HOST": "127.0.0.1",
            "HEALTH_PORT": str(self.port),
            "POLL_MAX_SECONDS": "0.5",
            "OUTAGE_PAUSE_SECONDS": "1",
            "STATUS_PROGRESS_SECONDS": "1",
            "STATUS_LAG_SECONDS": "0",
        }
        # What `dispatcher check --in-pod` must not reach; port 1 of this machine is closed.
        self.forbidden: dict[str, tuple[str, int]] = {"the cloud's metadata service": ("127.0.0.1", 1)}
        self.processes: list[Service] = []
        self._has_port: Service | None = None

    def start(self, ready: bool = True, **settings: str) -> Service:
        """Start a dispatcher with `settings` over the usual ones; only one at a time has `self.port`."""
        self.write_template()
        if self._has_port is not None and self._has_port.returncode is None:
            settings = {"HEALTH_PORT": "0"} | settings
        number = len(self.processes)
        name, log = f"dispatcher-{number}", self.folder / f"dispatcher-{number}.log"
        env = bare_environment() | self.settings | settings
        if "PYTHONPATH" in settings:  # another version's
            argv = [sys.executable, "-m", "dispatcher", "run"]
            service = Service(name, argv, log, env=env, cwd=self.folder).start()
        else:
            service = ForkedDispatcher(name, log, env=env, cwd=self.folder).start()
        self.processes.append(service)
        if "HEALTH_PORT" not in settings:
            self._has_port = service
        if ready:
            service.wait_ready(lambda: self.log(number).count("Settings:") or None)
        return service

    def cli(self, *arguments: str, text: str | None = None, **settings: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of `dispatcher` with these arguments; text: its stdin.

        In the tests' own process, which has read the libraries already: nothing for `run`, which ends its process. An
        exception that a person would see as a traceback is raised.
        """
        self.write_template()
        environment = bare_environment() | self.settings | settings
        patches = (
            mock.patch.dict(os.environ, environment, clear=True),
            # Not those of the cloud that the tests run in.
            mock.patch.object(pod_check, "FORBIDDEN", self.forbidden),
        )
        with _own_logging(), contextlib.chdir(self.folder), patches[0], patches[1]:
            done = CliRunner().invoke(main, arguments, input=text, prog_name="dispatcher", catch_exceptions=False)
        return done.exit_code, done.stdout, done.stderr

    def write_template(self) -> None:
        Path(self.settings["JOB_TEMPLATE"]).write_text(yaml.safe_dump(self.template))

    def submit(self, kind: str, status: str = "Created", **fields: Any) -> str:
        """Put a request on the queue for a new model, known to the portal; returns its id."""
        model_id = f"{kind}-{secrets.token_hex(4)}"
        self.portal.set_model(model_id, status)
        self.send(model_id, **fields)
        return model_id

    def send(self, model_id: str, **fields: Any) -> str:
        return self.queue.send(json.dumps({"task": "train", "model_container_name": f"model-{model_id}", **fields}))

    def status(self, model_id: str) -> str:
        return self.portal.model(model_id).status

    def message(self, model_id: str) -> str:
        return self.portal.model(model_id).message

    def wait_status(self, model_id: str, status: str, seconds: float = 30) -> None:
        self.wait(lambda: self.status(model_id) == status, seconds)

    def wait(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        """wait_until, with the dispatchers' logs where it does not come true."""
        try:
            return wait_until(condition, seconds)
        except WaitedTooLong:
            for number in range(len(self.processes)):
                print(f"--- dispatcher {number}\n{self.log(number)[-6000:]}")
            raise

    def job(self, model_id: str) -> dict[str, Any] | None:
        found = [j for j in self.cluster.jobs(self.namespace) if objects.name_of(j) == f"model-{model_id}"]
        return found[0] if found else None

    def pods(self, model_id: str) -> list[dict[str, Any]]:
        return [p for p in self.cluster.pods(self.namespace) if objects.label(p, names.MODEL_ID) == model_id]

    def running(self, model_id: str) -> bool:
        return any("running" in objects.trainer_state(pod) for pod in self.pods(model_id))

    def evict(self, model_id: str) -> None:
        """kubectl drain: the eviction API."""
        [pod] = [p for p in self.pods(model_id) if not objects.pod_is_over(p) and not objects.is_deleting(p)]
        name = objects.name_of(pod)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        self.cluster.api("POST", f"/api/v1/namespaces/{self.namespace}/pods/{name}/eviction", body)

    def delete_job(self, model_id: str) -> None:
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/model-{model_id}"
        self.cluster.api("DELETE", path, {"propagationPolicy": "Background"})

    def poison(self) -> list[PoisonEntry]:
        return [parse_entry(message.text) for message in self.poison_queue.peek()]

    def drained(self) -> bool:
        """Nothing on the queue, visible or not."""
        return self.queue.depth() == 0

    def log(self, number: int = -1) -> str:
        service = self.processes[number]
        return service.log.read_text(encoding="utf-8") if service.log.exists() else ""

    def scraped(self) -> str:
        """What the dispatcher on our port answers to Prometheus."""
        with OPENER.open(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """One sample, without the prefix of our metrics. Raises ValueError where there is none."""
        for family in text_string_to_metric_families(self.scraped()):
            for sample in family.samples:
                if sample.name == f"{PREFIX}_{name}" and sample.labels == labels:
                    return sample.value
        raise ValueError(f"no {name} {labels}")

    def stop(self) -> None:
        """End the dispatchers, and give the GPUs back: the next test's pods need them."""
        for service in self.processes:
            service.stop()
        jobs = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        for job in self.cluster.jobs(self.namespace):
            self._gone("DELETE", f"{jobs}/{objects.name_of(job)}", {"propagationPolicy": "Background"})
        # Pods of a Job that is being deleted are not replaced.
        for pod in self.cluster.pods(self.namespace):
            path = f"/api/v1/namespaces/{self.namespace}/pods/{objects.name_of(pod)}"
            self._gone("DELETE", path, {"gracePeriodSeconds": 0})

    def _gone(self, *call: Any) -> None:
        with contextlib.suppress(urllib.error.HTTPError):
            self.cluster.api(*call)
