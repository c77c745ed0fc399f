"""How to talk to a demo that was left running."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from local_stack.stack import NAMESPACE, QUEUE, ROOT


def how_to_talk_to_it(folder: Path, up: Mapping[str, tuple[int, str]]) -> str:
    """Commands to copy, for a shell in the project's folder. up: name → (pid, starting mark)."""
    place = folder.relative_to(ROOT)
    settings = _settings(folder)
    commands = Path(sys.executable).parent
    portal = settings.get("API_BASE_URL", "")
    binary = commands.relative_to(ROOT) if commands.is_relative_to(ROOT) else commands
    message = '{"task": "train", "model_container_name": "model-tumours"}'
    return f"""
Still running: {", ".join(f"{name} (pid {pid})" for name, (pid, _) in up.items())}

the cluster      export KUBECONFIG={place}/kubeconfig
                 kubectl -n {NAMESPACE} get jobs,pods
                 kubectl -n {NAMESPACE} logs job/model-tumours
the dispatcher   set -a; . {place}/dispatcher.env; set +a
                 {binary}/dispatcher check
                 {binary}/dispatcher status
                 {binary}/dispatcher status model-tumours
                 {binary}/dispatcher submit '{message}'
                 curl {_url(settings.get("HEALTH_PORT", ""))}/metrics
the portal stub  curl {portal}/_stub/models
                 curl -X PUT {portal}/_stub/models/tumours -d '{{"status": "Reconfigure"}}'
the storage      its connection string is in {place}/dispatcher.env; the queue is {QUEUE}
stop it all      make demo-down
"""


def _settings(folder: Path) -> dict[str, str]:
    """What dispatcher.env says; enough for values without quotes."""
    try:
        lines = (folder / "dispatcher.env").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _url(port: str) -> str:
    return f"http://127.0.0.1:{port}"
