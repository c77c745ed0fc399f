"""Settings of what the dispatcher serves, where, and of its log."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.config import parsers
from portal_client import settings as portal
from training_common.parsers import choice, text, whole
from training_common.settings import setting


@dataclass(frozen=True, kw_only=True)
class Service:
    """Part of `Settings`."""

    health_host: str = setting(
        "HEALTH_HOST",
        text,
        "Address that probes and metrics are served on; :: is every one, of IPv6 and IPv4",
        "::",
    )
    health_port: int = setting(
        "HEALTH_PORT", whole(0, 65535), "Port of /livez, /readyz and /metrics; 0 switches them off", "8080"
    )
    status_host: str = setting(
        "STATUS_HOST", text, "Address of the status page where STATUS_PORT gives it a listener of its own", "127.0.0.1"
    )
    status_port: int | None = setting(
        "STATUS_PORT",
        whole(0, 65535),
        "Port of the status page; empty, or the same as HEALTH_PORT: beside the probes; 0 switches it off",
    )
    status_hostnames: tuple[str, ...] = setting(
        "STATUS_HOSTNAMES",
        parsers.hostnames,
        "Names, separated by commas, that browsers may open the status page under, such as an Ingress's; addresses, "
        "names without a dot and those of the cluster need not be listed",
        empty=(),
    )
    relay_url: str = setting(
        "RELAY_URL",
        portal.portal_url,
        "Base URL of the relay, as trainings with credentials of their own call it in place of API_BASE_URL",
        empty="",
    )
    relay_host: str = setting(
        "RELAY_HOST", text, "Address that the relay is served on; :: is every one, of IPv6 and IPv4", "::"
    )
    relay_port: int | None = setting(
        "RELAY_PORT",
        whole(0, 65535),
        "Port of the relay; empty: 8082 with CREDENTIALS=scoped, else none; 0 switches it off",
    )
    relay_key: str = setting(
        "RELAY_KEY",
        parsers.relay_keys,
        "Keys of the relay's tokens, separated by commas: the first signs, all are accepted; empty: one that follows "
        "from API_KEY",
        secret=True,
        empty="",
    )
    log_level: str = setting(
        "LOG_LEVEL", choice("debug", "info", "warning", "error"), "Least level that is logged", "info"
    )
    log_format: str = setting(
        "LOG_FORMAT", choice("text", "json"), "text for people, json for machines: one object a line", "text"
    )
