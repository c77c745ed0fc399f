"""The Grafana dashboard: made for people, and every metric in it is one that a dispatcher has."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from dispatcher.telemetry.metrics import PREFIX, Metrics
from tests.world.manifests.kustomized import config_map, needs_kubectl
from tests.world.manifests.monitoring import DASHBOARD, PANELS, expressions

# Of Prometheus itself.
ALERTS = "ALERTS"


def _sample_names() -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name + suffix for family in Metrics().registry.collect() for suffix in suffixes.get(family.type, ("",))
    }


def _named(expression: str) -> set[str]:
    return set(re.findall(rf"\b(?:{PREFIX}|process|python|kube)_\w+|\b{ALERTS}\b", expression))


def test_every_metric_of_the_dashboard_exists() -> None:
    for title, expression in expressions():
        assert _named(expression), title
        assert _named(expression) <= _sample_names() | {ALERTS}, title


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {name for _, expression in expressions() for name in _named(expression)}
    families = {family.name for family in Metrics().registry.collect() if family.name.startswith(PREFIX)}
    assert [family for family in sorted(families) if not any(name.startswith(family) for name in shown)] == []


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_every_selector_asks_for_the_chosen_namespace(title: str, expression: str) -> None:
    selectors = re.findall(r"\{([^}]*)\}", expression)
    assert len(selectors) == len(re.findall(rf"\b(?:{PREFIX}|process)_\w+|\b{ALERTS}\b", expression)), title
    assert all('namespace="$namespace"' in selector for selector in selectors), title


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_in_which_unit_and_from_the_chosen_prometheus(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"].get("thresholds") or panel["type"] == "table"
    for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
        assert source == {"type": "prometheus", "uid": "${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    # Several lines of one panel are told apart by their words.
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert len(set(legends)) == len(legends)


def test_no_panel_covers_another_or_leaves_the_screen() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        assert 0 <= panel["gridPos"]["x"] < panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in everything), 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)


def test_the_rows_ask_what_an_operator_asks() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is it healthy?",
        "What waits?",
        "What runs?",
        "What ended, and why?",
        "Portal and API server",
        "The process",
    ]


@needs_kubectl
def test_grafanas_sidecar_finds_the_dashboard_under_one_name() -> None:
    found = config_map("production+monitoring", "grafana-training-dispatcher")
    assert found["metadata"]["name"] == "grafana-training-dispatcher"
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert '"uid": "training-dispatcher"' in found["data"]["dashboard.json"]
