"""The Grafana dashboard as its parts: panels, expressions, the metrics in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.world.kustomized import MANIFESTS

DASHBOARD: dict[str, Any] = json.loads(
    (MANIFESTS / "components" / "monitoring" / "dashboard.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """(title of the panel, PromQL with Grafana's variables)."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def filled_in(expression: str, values: Mapping[str, str]) -> str:
    """PromQL as Grafana sends it; values: by the variable's name."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values[found[1] or found[2]], expression)
