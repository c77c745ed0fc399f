"""The monitoring component's parts: the Grafana dashboard's panels and their expressions, Prometheus' alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.world.repository import read

DASHBOARD: dict[str, Any] = json.loads(read("manifests/components/monitoring/dashboard.json"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES: dict[str, Any] = yaml.safe_load(read("manifests/components/monitoring/prometheusrule.yaml"))
ALERTS: dict[str, str] = {
    rule["alert"]: rule["expr"] for group in RULES["spec"]["groups"] for rule in group["rules"] if "alert" in rule
}
"""Each alert's expression, by the alert's name."""


def expressions() -> Iterator[tuple[str, str]]:
    """(title of the panel, PromQL with Grafana's variables)."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def filled_in(expression: str, values: Mapping[str, str]) -> str:
    """PromQL as Grafana sends it; values: by the variable's name."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values[found[1] or found[2]], expression)
