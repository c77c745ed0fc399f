"""What a running dispatcher serves over HTTP: probes, metrics, and the status page beside them or on its own port."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from dispatcher.config.settings import Settings
from dispatcher.web.guards import at_most, for_loopback, for_network, is_loopback
from dispatcher.web.health import HealthServer, Heartbeats, Readiness
from dispatcher.web.server import HttpServer, Route
from dispatcher.web.status_page import StatusPage

# Pages and rows that are put together at a time.
_PAGES = 8


class CannotListen(Exception):
    """A port cannot be used; the text names the setting."""


def listen(
    settings: Settings,
    heartbeats: Heartbeats,
    readiness: Callable[[], Readiness],
    registry: CollectorRegistry,
    page: StatusPage,
) -> list[HttpServer]:
    """The servers that the settings ask for, started. Raises CannotListen: none was started."""
    health, own = settings.health_port, settings.status_port
    route = at_most(_PAGES, page.route)
    servers: list[HttpServer] = []
    trying = f"HEALTH_PORT {health} on {settings.health_host}"
    try:
        if health:
            beside = [_guarded(route, settings, settings.health_host)] if own in (None, health) else []
            servers.append(HealthServer(settings.health_host, health, heartbeats, readiness, registry, beside))
        if own and own != health:
            trying = f"STATUS_PORT {own} on {settings.status_host}"
            paths, only = "/, /models/MODEL or /api/status", [_guarded(route, settings, settings.status_host)]
            servers.append(HttpServer(settings.status_host, own, only, name="status-page", paths=paths))
    except OSError as error:
        for server in servers:
            server.server_close()
        raise CannotListen(f"{trying} cannot be used: {error}") from None
    for server in servers:
        server.start()
    return servers


def _guarded(route: Route, settings: Settings, host: str) -> Route:
    return (for_loopback if is_loopback(host) else for_network)(route, settings.status_hostnames)
