"""dispatcher.web.health: what Kubernetes' probes and Prometheus are answered."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.telemetry.metrics import Metrics
from dispatcher.web.health import HealthServer, Heartbeats, Readiness


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def details() -> list[str]:
    return []


@pytest.fixture
def heartbeats() -> Heartbeats:
    return Heartbeats(silence=1e9)


@pytest.fixture
def url(problems: list[str], details: list[str], heartbeats: Heartbeats) -> Iterator[str]:
    metrics = Metrics()
    metrics.messages.labels("launch").inc()
    server = HealthServer("127.0.0.1", 0, heartbeats, lambda: Readiness(problems, details), metrics.registry)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.stop()


def asked(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers["Content-Type"]


def test_a_healthy_dispatcher_is_live_and_ready(url: str) -> None:
    assert asked(f"{url}/livez")[:2] == (200, "ok\n")
    assert asked(f"{url}/readyz")[:2] == (200, "ok\n")


def test_readiness_says_what_is_missing_and_liveness_does_not_care(url: str, problems: list[str]) -> None:
    problems += ["API_KEY not configured", "intake pauses"]
    assert asked(f"{url}/readyz")[:2] == (503, "API_KEY not configured\nintake pauses\n")
    assert asked(f"{url}/livez")[0] == 200


def test_an_outage_or_a_pause_is_told_and_takes_no_readiness_away(
    url: str, problems: list[str], details: list[str]
) -> None:
    details.append("intake pauses: the portal is out of reach")
    assert asked(f"{url}/readyz")[:2] == (200, "ok\nintake pauses: the portal is out of reach\n")
    problems.append("stopping")
    assert asked(f"{url}/readyz")[:2] == (503, "stopping\nintake pauses: the portal is out of reach\n")


def test_metrics_are_served_in_prometheus_format(url: str) -> None:
    status, body, kind = asked(f"{url}/metrics")
    assert status == 200
    assert 'training_dispatcher_messages_total{result="launch"} 1.0' in body
    assert kind.startswith("text/plain")


def test_a_query_does_not_hide_a_path(url: str) -> None:
    assert asked(f"{url}/readyz?verbose")[0] == 200


def test_another_path_names_the_right_ones(url: str) -> None:
    status, body, _ = asked(f"{url}/healthz")
    assert status == 404
    assert "/livez" in body


def test_a_probe_that_breaks_is_an_answer_not_a_hang(heartbeats: Heartbeats) -> None:
    def broken() -> Readiness:
        raise RuntimeError("defect")

    server = HealthServer("127.0.0.1", 0, heartbeats, broken, Metrics().registry)
    server.start()
    try:
        status, body, _ = asked(f"http://127.0.0.1:{server.port}/readyz")
        assert status == 503
        assert "RuntimeError" in body
    finally:
        server.stop()


def test_a_loop_that_is_silent_is_named(url: str) -> None:
    heartbeats = Heartbeats(silence=-1.0)
    heartbeats.beat("reconcile")
    heartbeats.beat("intake")
    assert heartbeats.stuck() == ["intake", "reconcile"]


def test_a_loop_that_beats_is_not_stuck(heartbeats: Heartbeats) -> None:
    alive = heartbeats.beat("intake")
    alive()
    assert heartbeats.stuck() == []


def test_a_taken_port_is_an_error_at_start(heartbeats: Heartbeats) -> None:
    first = HealthServer("127.0.0.1", 0, heartbeats, Readiness, Metrics().registry)
    try:
        with pytest.raises(OSError, match="in use"):
            HealthServer("127.0.0.1", first.port, heartbeats, Readiness, Metrics().registry)
    finally:
        first.server_close()


def test_probes_are_served_where_pods_have_ipv6_addresses_only() -> None:
    server = HealthServer("::1", 0, Heartbeats(), Readiness, CollectorRegistry())
    server.start()
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.port}/livez", timeout=5) as answer:
            assert answer.status == 200
    finally:
        server.stop()


def test_a_host_that_is_none_is_an_error_of_the_operating_systems_kind() -> None:
    with pytest.raises(OSError, match="is no host"):
        HealthServer("h\u2603..", 0, Heartbeats(), Readiness, CollectorRegistry())


def test_work_that_never_ends_is_stuck_and_work_that_ended_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("dispatcher.web.health.time.monotonic", lambda: now[0])
    hearts = Heartbeats(silence=180.0)
    with hearts.work("launch", 60.0):
        pass
    with hearts.work("launch", 60.0):
        now[0] = 200.0
        assert hearts.silence("launch") == 200.0
        assert hearts.stuck() == []
        now[0] = 241.0
        assert hearts.stuck() == ["launch-1"]
    assert hearts.stuck() == []
    assert hearts.silence("launch") == 0.0
