"""A real Prometheus scrapes a real dispatcher: every panel of the dashboard has data, every alert is evaluated."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from local_stack.http_json import OPENER
from local_stack.processes import Service, bare_environment, free_port, wait_until
from tests.world.dispatcher_process import Stage
from tests.world.manifests.monitoring import ALERTS, RULES, expressions, filled_in

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: apt-get install prometheus)"
)

VARIABLES = {"namespace": "training", "__rate_interval": "30s", "__range": "1m"}


class Prometheus:
    """Scrapes the stage's dispatcher twice a second, as the PodMonitor has it scraped."""

    def __init__(self, stage: Stage) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        target = {"targets": [f"127.0.0.1:{stage.port}"], "labels": {"namespace": "training", "pod": "dispatcher-1"}}
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "dispatcher", "static_configs": [target]}],
        }
        folder = stage.folder / "prometheus"
        folder.mkdir()
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (folder / "rules.yaml").write_text(yaml.safe_dump(RULES["spec"]), encoding="utf-8")
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        self.service = Service("prometheus", command, folder / "log", env=bare_environment(), cwd=folder).start()
        self.service.wait_ready(self._ready, 30)

    def _ready(self) -> bool:
        try:
            return OPENER.open(f"{self.url}/-/ready", timeout=2).status == 200
        except OSError:
            return False

    def get(self, path: str, **query: str) -> Any:
        with OPENER.open(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        return [float(found["value"][1]) for found in self.get("query", query=expression)["result"]]


@pytest.fixture
def relay() -> str:
    """Address of the dispatcher's relay, which is there although the stage's trainings share their credentials."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def prometheus(stage: Stage, relay: str) -> Iterator[Prometheus]:
    stage.start(RELAY_HOST="127.0.0.1", RELAY_PORT=relay.rpartition(":")[2])
    made = Prometheus(stage)
    yield made
    made.service.stop()


def test_every_panel_has_data_and_every_alert_can_be_evaluated(
    stage: Stage, prometheus: Prometheus, relay: str
) -> None:
    # Counters are seen at 0 before anything happens, else no increase would be seen.
    stage.wait(lambda: prometheus.values('training_dispatcher_messages_total{result="launch"}') == [0])
    good, bad, runs = stage.submit("done"), stage.submit("invalid"), stage.submit("runs")
    stage.queue.send("no json")
    stage.wait_status(good, "Completed")
    stage.wait_status(bad, "Failed")
    stage.wait(lambda: stage.running(runs))
    stage.wait(lambda: prometheus.values('training_dispatcher_jobs{phase="running"}') == [1])
    # A watch that lags behind makes a report idempotent, not its metric: then it is counted once more.
    stage.wait(lambda: sum(prometheus.values("sum(training_dispatcher_outcomes_total)")) >= 2)
    stage.wait(lambda: prometheus.values('training_dispatcher_poison_entries_total{code="NotJson"}') == [1])

    def without_data() -> list[str]:
        # Rates of what has happened once: on a busy machine it may be past.
        stage.queue.send("no json")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            OPENER.open(f"{relay}/api/external/models/1/status", timeout=10)
        return [
            f"{title}: {expression}"
            for title, expression in expressions()
            if not prometheus.values(filled_in(expression, VARIABLES))
        ]

    # A rate needs two scrapes of what it is the rate of.
    wait_until(lambda: not without_data(), 30.0, what=lambda: f"data of {without_data()}")
    assert prometheus.values(filled_in('{namespace="$namespace", __name__="up"}', VARIABLES)) == [1]

    rules = {rule["name"]: rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]}
    assert set(rules) == set(ALERTS)
    stage.wait(lambda: all(r["health"] == "ok" for g in prometheus.get("rules")["groups"] for r in g["rules"]))
    firing = {
        alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"] if alert["state"] == "firing"
    }
    assert firing == set(), "of a dispatcher that is well"
