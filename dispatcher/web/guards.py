"""Which requests a route is closed to: by the name in their Host header, and by how many there are at a time."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Collection

from dispatcher.web.server import Answer, Request, Route

# A Host header, or a host alone. urllib and browsers send a name in lower case, curl as it was typed.
_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_PORT = re.compile(r":[0-9]{1,5}$", re.ASCII)
# Names that only a cluster's own DNS answers for.
_CLUSTERS = (".svc", ".svc.cluster.local")


def for_loopback(route: Route, hostnames: Collection[str] = ()) -> Route:
    """`route` for a listener on loopback, closed to browsers that another site's name led here (DNS rebinding).

    Such a name resolves to the viewer's own machine, where `kubectl port-forward` listens. hostnames: allowed besides.
    """

    def guarded(request: Request) -> Answer | None:
        if request.host and not (_LOOPBACK.fullmatch(request.host) or _name(request.host) in hostnames):
            return Answer(421, b"This is served on loopback; http://localhost:PORT/ would be right\n")
        return route(request)

    return guarded


def for_network(route: Route, hostnames: Collection[str] = ()) -> Route:
    """`route` for a listener that others reach. Rebinding takes a name that its owner lets resolve to us.

    So addresses, names without a dot and names of a cluster's own are allowed, and hostnames (lower case) besides.
    """

    def guarded(request: Request) -> Answer | None:
        name = _name(request.host)
        if not (_is_address(name) or "." not in name or name.endswith(_CLUSTERS) or name in hostnames):
            text = b"This is not served under that name; STATUS_HOSTNAMES lists those that it has besides addresses\n"
            return Answer(421, text)
        return route(request)

    return guarded


def at_most(number: int, route: Route) -> Route:
    """`route`, with at most `number` answers under way: a flood of pages leaves the probes their share."""
    slots = threading.BoundedSemaphore(number)

    def bounded(request: Request) -> Answer | None:
        if not slots.acquire(blocking=False):
            return Answer(503, b"Too many requests at a time; try again\n", headers={"Retry-After": "1"})
        try:
            return route(request)
        finally:
            slots.release()

    return bounded


def _name(host: str) -> str:
    """A Host header without its port, in lower case."""
    return _PORT.sub("", host).strip("[]").removesuffix(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine (in a pod: this pod) reaches a listener on `host`."""
    return _LOOPBACK.fullmatch(f"[{host}]" if ":" in host else host) is not None
