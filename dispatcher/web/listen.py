"""What a running dispatcher serves over HTTP: probes, metrics, and the status page beside them or on its own port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from dispatcher.config.settings import Settings
from dispatcher.web.health import HealthServer, Heartbeats
from dispatcher.web.server import HttpServer, for_loopback, is_loopback
from dispatcher.web.status_page import StatusPage


class CannotListen(Exception):
    """A port cannot be used; the text names the setting."""


def listen(
    settings: Settings,
    heartbeats: Heartbeats,
    not_ready: Callable[[], list[str]],
    registry: CollectorRegistry,
    page: StatusPage,
) -> list[HttpServer]:
    """The servers that the settings ask for, started. Raises CannotListen: none was started."""
    health, own = settings.health_port, settings.status_port
    servers: list[HttpServer] = []
    if health:
        beside = [page.route] if own in (None, health) else []
        with _naming("HEALTH_PORT", health, settings.health_host, servers):
            servers.append(HealthServer(settings.health_host, health, heartbeats, not_ready, registry, beside))
    if own and own != health:
        with _naming("STATUS_PORT", own, settings.status_host, servers):
            route = for_loopback(page.route) if is_loopback(settings.status_host) else page.route
            paths = "/ or /api/status"
            servers.append(HttpServer(settings.status_host, own, [route], name="status-page", paths=paths))
    for server in servers:
        server.start()
    return servers


@contextmanager
def _naming(setting: str, port: int, host: str, opened: list[HttpServer]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        for server in opened:
            server.server_close()
        raise CannotListen(f"{setting} {port} on {host} cannot be used: {error}") from None
