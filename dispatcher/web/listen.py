"""What a running dispatcher serves over HTTP: probes, metrics, and the status page beside them or on its own port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from common.times import rfc3339
from dispatcher.cluster import objects
from dispatcher.config.settings import Settings
from dispatcher.controller.cache import ClusterCache
from dispatcher.intake.refusals import Refusals
from dispatcher.web.health import HealthServer, Heartbeats
from dispatcher.web.server import HttpServer, for_loopback, is_loopback
from dispatcher.web.status_feeds import PeekedQueue, StatusFeeds
from dispatcher.web.status_page import Process, StatusPage, running
from dispatcher.web.status_rows import Rules
from portal_client.protocol import Portal


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


def status_page(
    settings: Settings,
    cache: ClusterCache,
    queue: PeekedQueue,
    poison_queue: PeekedQueue,
    portal: Portal | None,
    refusals: Refusals,
    *,
    rules: Rules,
    namespace: str,
    identity: str,
    not_ready: Callable[[], list[str]],
    waiting_for: Callable[[], Mapping[str, str]],
    stopping: threading.Event,
) -> StatusPage:
    """The page of this process. portal: for reading alone; identity: the launcher's; waiting_for: see StatusPage."""
    feeds = StatusFeeds(
        queue,
        poison_queue,
        portal,
        running=lambda: running(cache),
        known=lambda: {objects.uid_of(job) for job in cache.jobs()},
        progress_every=settings.progress,
        stopping=stopping,
    )
    process = Process(
        name=socket.gethostname(),
        identity=identity,
        version=version("training-dispatcher"),
        namespace=namespace,
        started_at=rfc3339(time.time()),
    )
    return StatusPage(
        cache,
        feeds,
        refusals,
        rules=rules,
        process=process,
        queue=settings.queue_name,
        not_ready=not_ready,
        waiting_for=waiting_for,
    )


@contextmanager
def _naming(setting: str, port: int, host: str, opened: list[HttpServer]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        for server in opened:
            server.server_close()
        raise CannotListen(f"{setting} {port} on {host} cannot be used: {error}") from None
