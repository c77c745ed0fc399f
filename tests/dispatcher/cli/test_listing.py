"""`dispatcher list` beside thousands of Jobs: pages of rows, and calls for those on the page alone."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest
from click.testing import CliRunner

from dispatcher import factories
from dispatcher.cli import listing
from dispatcher.cli.main import main
from dispatcher.cluster.objects import KubeObject
from tests.dispatcher.web import status_world
from tests.world.builders import a_condition
from tests.world.repository import JOB_TEMPLATE

SETTINGS = {
    "QUEUE_NAME": "requests",
    "AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true",
    "STATUS_TRACKING": "off",
    "JOB_TEMPLATE": str(JOB_TEMPLATE),
}


class Many:
    """2,000 Jobs without a pod: only the Events of a Job say why. asked: the number of calls of each kind."""

    def __init__(self) -> None:
        one = status_world.job("w", at=time.time() - 3600, status={"active": 1})
        condition = a_condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available")
        pair = (one, [status_world.pod(one, time.time() - 3600, condition, node=None)])
        self.jobs = [status_world.another(pair, f"w-{n:04}")[0] for n in range(2000)]
        self.asked: Counter[str] = Counter()

    def list_pods(self, selector: str, fields: str) -> list[Any]:
        self.asked["pods"] += 1
        return []

    def list_jobs(self, selector: str) -> list[Any]:
        self.asked["jobs"] += 1
        return self.jobs

    def list_metadata(self, kind: str, selector: str) -> list[KubeObject]:
        self.asked["metadata"] += 1
        return []

    def list_events(self, uid: str) -> list[Any]:
        self.asked["events"] += 1
        return []

    def list_nodes(self) -> list[Any]:
        return []


class Queue:
    def peek(self) -> list[Any]:
        return []

    def depth(self) -> int:
        return 0


def test_of_thousands_only_the_rows_of_a_page_are_asked_about_and_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Many()
    monkeypatch.setattr(listing, "KubernetesJobs", lambda namespace: cluster)
    monkeypatch.setattr(factories, "open_queue", lambda settings, name: Queue())

    def listed(*options: str) -> str:
        cluster.asked.clear()
        done = CliRunner().invoke(main, ["list", *options], env=SETTINGS, catch_exceptions=False)
        assert done.exit_code == 0
        assert cluster.asked == {"pods": 1, "jobs": 1, "metadata": 1, "events": 20}
        return done.stdout

    lines = listed().splitlines()
    assert lines[:2] == ["running: 0", "waiting: 2000, 1980 more: --limit, --offset"]
    assert len(lines) == 4 + 1 + 20
    assert lines[3].startswith("  model-w-0000 ")
    assert "waiting: 2000, from number 1981 on" in listed("--offset", "1980").splitlines()
    rows = json.loads(listed("waiting", "--offset", "500", "--json"))["waiting"]["rows"]
    assert [row["model"] for row in rows] == [f"model-w-{n:04}" for n in range(500, 520)]
