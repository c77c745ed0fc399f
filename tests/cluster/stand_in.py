"""The ground of a stand-in cluster: the local stack, whose dispatcher, storage and portal are processes here."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from local_stack.processes import Service, bare_environment
from local_stack.stack import JOB_TEMPLATE, NAMESPACE, QUEUE, Stack, trainer_image_of, trainer_of
from tests.world.kube import Kube
from tests.world.manifests.kustomized import Object


class StandIn:
    """As Installed, whose words it has; what only a cluster with nodes and Deployments can do is named in `cannot`."""

    burst = 4
    grace = 1  # seconds
    queue = QUEUE
    storage_stays = False
    cannot: Mapping[str, str] = {
        "contracts": "`make test` holds the stand-in to it",
        "network": "its pods are processes of this machine, which no network policy keeps apart",
        # A program of a training is in another one, and would take what this machine has.
        "memory": "it limits the memory of a container's first process group alone",
        "drain": "it has no node of its own to drain",
        "kueue": "no Kueue in this cluster",
    }

    def __init__(self, folder: Path) -> None:
        self._stack = Stack(folder, gpus=self.burst, scoped=True)
        self._dispatchers: list[Service] = []
        self._settings: Mapping[str, str] = {}
        self.template: Object = yaml.safe_load(JOB_TEMPLATE.read_text(encoding="utf-8"))
        self.trainer = trainer_image_of(self.template)

    def start(self) -> None:
        self._stack.start()
        self.portal = self._stack.portal
        self.storage = self._stack.storage.connection_string
        self.kube = Kube(self._stack.cluster.kubeconfig, NAMESPACE, self.trainer)

    def configure(self, settings: Mapping[str, str], template: Object, *, kueue: bool = False) -> None:
        """One dispatcher with these settings and this Job template."""
        assert not kueue, "a scenario that needs it is skipped"
        for service in self._dispatchers:
            service.stop()
        template = copy.deepcopy(template)
        # Its GPUs are numbers.
        trainer_of(template)["env"].append({"name": "DEVICE", "value": "cpu"})
        self._stack.job_template.write_text(yaml.safe_dump(template, sort_keys=False), encoding="utf-8")
        self._settings = settings
        self._start_dispatcher()

    def kill_dispatchers(self) -> None:
        """SIGKILL, and another one in its place."""
        self._dispatchers[-1].send_signal(signal.SIGKILL)
        self._dispatchers[-1].wait(10)
        self._start_dispatcher()

    def command(self, *words: str, seconds: float = 300.0) -> tuple[int, str]:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "dispatcher", "--config", str(self._stack.write_environment()), *words],
                cwd=self._stack.folder,
                env={**bare_environment(), "KUBECONFIG": self._stack.settings["KUBECONFIG"]},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return 124, str(late)
        return done.returncode, done.stdout + done.stderr

    def drain(self, pod: str) -> None:
        raise NotImplementedError(self.cannot["drain"])

    def contract_suite(self) -> list[str]:
        raise NotImplementedError(self.cannot["contracts"])

    def keep_logs(self) -> None:
        """They lie in the stack's folder already."""

    def stop(self) -> list[str]:
        self._stack.stop()
        return []

    def _start_dispatcher(self) -> None:
        name = f"dispatcher-{len(self._dispatchers)}"
        self._dispatchers.append(self._stack.start_dispatcher(name=name, **self._settings))
