"""How to use a demo that was left running."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from local_stack.stack import NAMESPACE, QUEUE, ROOT


def how_to_use_it(folder: Path, up: Mapping[str, tuple[int, str]]) -> str:
    """Commands to copy, for a shell in the project's folder. up: name → (pid, starting mark)."""
    place = folder.relative_to(ROOT)
    settings = _settings(folder)
    portal = settings.get("API_BASE_URL", "")
    health = f"http://127.0.0.1:{settings.get('HEALTH_PORT', '')}"
    commands = Path(sys.executable).parent
    binary = commands.relative_to(ROOT) if commands.is_relative_to(ROOT) else commands
    dispatcher = f"{binary}/dispatcher --config {place}/dispatcher.env"
    return f"""
Still running: {", ".join(f"{name} (pid {pid})" for name, (pid, _) in up.items())}

the status page  {health}/
the cluster      export KUBECONFIG=$PWD/{place}/kubeconfig
                 kubectl -n {NAMESPACE} get jobs,pods
                 kubectl -n {NAMESPACE} logs job/model-tumours
the dispatcher   {dispatcher} check
                 {dispatcher} status
                 {dispatcher} submit model-tumours --dataset dataset-tumours
                 curl {health}/readyz {health}/metrics
the portal       curl {portal}/_stub/models
                 curl -X PUT {portal}/_stub/models/tumours -d '{{"status": "Reconfigure"}}'
the storage      queue {QUEUE}; the connection string is in {place}/dispatcher.env
logs             {place}/logs
stop it all      make demo-down
"""


def _settings(folder: Path) -> dict[str, str]:
    """The values of dispatcher.env, as far as they are not quoted."""
    try:
        lines = (folder / "dispatcher.env").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)
