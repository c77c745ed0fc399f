"""The relay of these settings, and its port: connections bounded in number and time, requests in size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from dispatcher.cluster.jobs import Job
from dispatcher.config.settings import Settings
from dispatcher.controller.pace import Pace
from dispatcher.launch.credentials import ScopedCredentials
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.ports import Cluster
from dispatcher.relay.relay import Relay
from dispatcher.relay.tokens import RelayTokens, keys_from
from dispatcher.telemetry.metrics import Metrics
from dispatcher.web.listen import CannotListen
from dispatcher.web.server import HttpServer
from portal_client.errors import PortalError
from portal_client.protocol import Portal

# More than trainings of thousands need, which ask for a moment every half minute; each has a thread.
_MOST_CONNECTIONS = 256
# A message of the longest, each of its characters escaped as JSON may, and as much again.
_MOST_BODY = 64 * 1024


def open_relay(
    settings: Settings,
    portal: Portal | None,
    cluster: Cluster,
    locks: ModelLocks,
    pace: Pace,
    known: Callable[[str], Job | None],
    metrics: Metrics,
    *,
    credentials: ScopedCredentials | None,
    on_outcome: Callable[[str, PortalError | None], None],
    stopping: threading.Event,
) -> Relay | None:
    """None where the settings ask for none. The arguments are Relay's."""
    if not settings.relay_listens_on:
        return None
    return Relay(
        tokens_of(settings),
        portal,
        cluster,
        locks,
        pace,
        known,
        address=settings.api_base_url,
        auth_method=settings.api_auth_method,
        credentials=credentials,
        on_call=lambda call, result: metrics.relay_calls.labels(call, result).inc(),
        on_outcome=on_outcome,
        stopping=stopping,
    )


def tokens_of(settings: Settings) -> RelayTokens:
    """Signs and checks the tokens of these settings' trainings."""
    return RelayTokens(keys_from(settings.relay_keys, settings.api_key or settings.storage_connection_string))


def listen_to_trainings(
    settings: Settings, relay: Relay | None, beside: Sequence[HttpServer] = ()
) -> HttpServer | None:
    """The relay's server, started; None without one. Raises CannotListen, after ending the servers `beside` it."""
    if relay is None:
        return None
    host, port = settings.relay_host, settings.relay_listens_on
    try:
        server = RelayServer(host, port, relay)
    except OSError as error:
        for other in beside:
            other.stop()
        raise CannotListen(f"RELAY_PORT {port} on {host} cannot be used: {error}") from None
    server.start()
    return server


class RelayServer(HttpServer):
    """Raises OSError where the port is taken."""

    def __init__(self, host: str, port: int, relay: Relay) -> None:
        super().__init__(
            host,
            port,
            [relay.route],
            name="relay",
            paths="",
            methods=("GET", "PUT", "POST"),
            most_body=_MOST_BODY,
            most=_MOST_CONNECTIONS,
            keep_alive=True,
        )
