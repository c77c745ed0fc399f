"""kubectl with one kubeconfig: what an operator would type."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from local_stack.processes import Service, free_port
from tests.world.manifests.kustomized import Object


class CommandFailed(Exception):
    """kubectl ended with another code than 0; the message has its own words."""


class Kubectl:
    """Commands end within `timeout` seconds each, or as said."""

    def __init__(self, kubeconfig: Path, logs: Path) -> None:
        self._command = ["kubectl", "--kubeconfig", str(kubeconfig)]
        self._logs = logs

    def __call__(self, *words: str, stdin: object = None, timeout: float = 120.0) -> str:
        """Its output. stdin: an object, handed over as JSON. Raises CommandFailed."""
        code, out, err = self.tried(*words, stdin=stdin, timeout=timeout)
        if code:
            raise CommandFailed(f"kubectl {' '.join(words)}: {err.strip() or out.strip()}")
        return out

    def tried(self, *words: str, stdin: object = None, timeout: float = 120.0) -> tuple[int, str, str]:
        """(exit code, output, errors); a command that takes too long has ended with 124."""
        text = None if stdin is None else json.dumps(stdin)
        try:
            done = subprocess.run(
                [*self._command, *words], input=text, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return 124, "", f"no end within {timeout:g} s"
        return done.returncode, done.stdout, done.stderr

    def get(self, *words: str) -> Any:
        """`kubectl get` as an object; None where there is none."""
        return json.loads(self("get", *words, "--ignore-not-found", "-o", "json") or "null")

    def names(self, kinds: str, *words: str) -> list[str]:
        """ "kind/name" of what `kubectl get` finds; nothing where the cluster does not know the kind."""
        return self.tried("get", kinds, *words, "-o", "name")[1].split()

    def apply(self, things: Iterable[Object]) -> None:
        """Create or change. Raises CommandFailed with all that was refused."""
        if items := list(things):
            self("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": items})

    def forward(self, namespace: str, service: str, *ports: int) -> tuple[Service, list[int]]:
        """Local ports that lead to a Service's, in its order, and the process that keeps them so."""
        local = [free_port() for _ in ports]
        pairs = [f"{here}:{there}" for here, there in zip(local, ports, strict=True)]
        # It ends when a connection breaks at a bad moment: then it begins again.
        again = 'while :; do "$@"; sleep 1; done'
        argv = ["sh", "-c", again, "forward", *self._command, "-n", namespace, "port-forward", f"service/{service}"]
        log = self._logs / f"forward-{service}.log"
        log.unlink(missing_ok=True)
        process = Service(f"the way to {service}", [*argv, *pairs], log).start()
        process.wait_ready(lambda: len(re.findall(r"Forwarding from 127", log.read_text())) >= len(ports), 60)
        return process, local
