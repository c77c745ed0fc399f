"""Socket options that keep an idle TCP connection known to the load balancers on its way, and end one that is dead.

A load balancer forgets a connection that was silent for some minutes (Azure's for 4 by default), mostly without a word
to either side: the next request on it would wait for its whole time-out. tcp(7).
"""

from __future__ import annotations

import socket

_IDLE_SECONDS = 30
_PROBE_SECONDS = 5
_PROBES = 3
_UNANSWERED_MILLISECONDS = 15_000


def _options() -> list[tuple[int, int, int]]:
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
        # What is sent on a connection that nobody knows any more fails after this, not after a quarter of an hour.
        ("TCP_USER_TIMEOUT", _UNANSWERED_MILLISECONDS),
    ):
        # Not every system has all of them.
        if (number := getattr(socket, name, None)) is not None:
            options.append((socket.IPPROTO_TCP, number, value))
    return options


SOCKET_OPTIONS = _options()
"""(level, name, value) for `setsockopt`, as urllib3 and the clients built on it take them; TCP_NODELAY among them."""
