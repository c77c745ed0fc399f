"""HTTP connections on which no wait outlives the call's deadline, however slowly the other side drips.

    one call ──▶ Attempt (deadline) ──▶ name, connect, TLS, proxy, send, status line, headers, body: each waits for
                                        what is left of it, and no longer

A time-out of `requests` is one of each read of the socket: a server that sends a byte now and again (of its status
line, a header, "100 Continue", a chunk's size, a trailer) keeps a call for ever. Here the sockets ask what is left.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3.connection
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs

from portal_client.exchange import MAX_BODY_BYTES
from training_common.keep_alive import SOCKET_OPTIONS

# Below this a socket's time-out would be read as "do not block".
_LEAST = 0.001
_CHUNK_BYTES = 1024


@dataclass
class Attempt:
    """One request on the wire. deadline: monotonic seconds; fresh: on a new connection, never a pooled one."""

    deadline: float
    fresh: bool = False
    pooled: bool = field(default=False, init=False)  # it went out on a connection that had carried another
    sent: bool = field(default=False, init=False)  # some of the request has left us
    answered: bool = field(default=False, init=False)  # some of an answer has come
    _asking: bool = field(default=False, init=False)

    def left(self) -> float:
        """Seconds until the deadline. Raises TimeoutError once it has passed."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return max(left, _LEAST)

    def may_repeat(self, reads: bool) -> bool:
        """Whether its failure only shows that the other side had closed a pooled connection, and asking once more on a
        new one changes nothing there: a read without an answer, or a write of which nothing was sent.
        """
        return self.pooled and not self.answered and (reads or not self.sent) and time.monotonic() < self.deadline

    @contextmanager
    def running(self) -> Iterator[None]:
        """Bounds the connections that this thread uses meanwhile."""
        token = _attempt.set(self)
        try:
            yield
        finally:
            _attempt.reset(token)


_attempt: ContextVar[Attempt | None] = ContextVar("portal_attempt", default=None)


class _Bounded(socket.socket):
    """Every wait of this socket gets what is left of the attempt."""

    def _bound(self) -> Attempt:
        attempt = _current()
        self.settimeout(attempt.left())
        return attempt

    def recv(self, *arguments: Any) -> bytes:
        attempt = self._bound()
        data = super().recv(*arguments)
        attempt.answered |= attempt._asking and bool(data)
        return data

    def recv_into(self, *arguments: Any) -> int:
        attempt = self._bound()
        count = super().recv_into(*arguments)
        attempt.answered |= attempt._asking and count > 0
        return count

    def send(self, *arguments: Any) -> int:
        attempt = self._bound()
        count = super().send(*arguments)
        attempt.sent |= attempt._asking and count > 0
        return count

    def sendall(self, data: Any, flags: int = 0) -> None:
        """By `send`, so that it is known whether anything has left."""
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                done += self.send(rest[done:], flags)


class _BoundedTls(_Bounded, ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        self._bound()
        super().do_handshake(block)


class _Final(http.client.HTTPResponse):
    """The standard library takes 102 and 103 for the answer, and the true one for that of the next call on the
    connection: of another model.
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        while status in (102, 103):
            http.client.parse_headers(self.fp)
            version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status, reason


# An error's text begins with the class of its pool, and the documented log line quotes it: hence urllib3's names.
class HTTPConnection(urllib3.connection.HTTPConnection):
    """Connects within the deadline, whatever the name resolves to."""

    response_class = _Final
    _carried = 0  # the requests that this socket has carried

    def _new_conn(self) -> socket.socket:
        attempt = _current()
        self._carried = 0
        try:
            addresses = _resolve(self._dns_host, self.port or self.default_port, attempt)
            return _connect(addresses, attempt)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error

    @property
    def is_connected(self) -> bool:
        """Asked by the pool before it hands the connection out again."""
        attempt = _attempt.get()
        return not (attempt is not None and attempt.fresh) and super().is_connected

    def request(self, *arguments: Any, **options: Any) -> None:
        attempt = _current()
        attempt.pooled = self.sock is not None and self._carried > 0
        attempt._asking = True
        super().request(*arguments, **options)
        self._carried += 1


class HTTPSConnection(HTTPConnection, urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        # As urllib3 makes them itself, but for the sockets.
        if self.ssl_context is None:
            self.ssl_context = self._context()
        if self.proxy_config is not None and self.proxy_config.ssl_context is None:
            self.proxy_config = self.proxy_config._replace(ssl_context=self._context())
        super().connect()

    def _context(self) -> ssl.SSLContext:
        context = create_urllib3_context(cert_reqs=resolve_cert_reqs(self.cert_reqs))
        if self.ca_certs or self.ca_cert_dir:
            context.load_verify_locations(self.ca_certs, self.ca_cert_dir)
        context.sslsocket_class = _BoundedTls
        return context


class HTTPConnectionPool(urllib3.HTTPConnectionPool):
    ConnectionCls = HTTPConnection


class HTTPSConnectionPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = HTTPSConnection


_POOLS = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


class _Adapter(HTTPAdapter):
    """`requests` over the connections above."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Session(requests.Session):
    """Looks at no redirect: requests would read the whole body of one, and trip over a Location that is no URL."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def open_session(pool_size: int, *, is_loopback: bool) -> requests.Session:
    """pool_size: connections that are kept. Each request has to run in an Attempt."""
    session = _Session()
    adapter = _Adapter(pool_connections=1, pool_maxsize=pool_size)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers["Accept"] = "application/json"
    session.headers["Accept-Encoding"] = "identity"
    # The key alone says who calls; a load balancer's cookie would tie all threads to one back end.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    if is_loopback:
        # A proxy of the environment cannot reach our own loopback.
        session.trust_env = False
        # urllib3 warns at every unverified request. Only these hosts' warning is muted.
        warnings.filterwarnings(
            "ignore",
            message=r"Unverified HTTPS request is being made to host '(localhost|127\.[0-9.]+|\[?::1\]?)'",
            category=urllib3.exceptions.InsecureRequestWarning,
        )
    return session


def read_body(response: requests.Response) -> tuple[bytes, bool]:
    """At most MAX_BODY_BYTES of the body, and whether there was more."""
    body = b""
    # What one read of the socket brings: waiting for a full chunk of a drip would take all the time there is.
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return body[:MAX_BODY_BYTES], True
    return body, False


def _current() -> Attempt:
    attempt = _attempt.get()
    if attempt is None:
        raise RuntimeError("a connection of the portal's client is used outside of an attempt")
    return attempt


def _resolve(host: str, port: int | None, attempt: Attempt) -> list[Any]:
    """`getaddrinfo`, which knows no time-out: a resolver may take minutes. Its thread ends when the resolver does."""
    found: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM))
        except UnicodeError:  # a label of no or too many characters
            found.set_exception(socket.gaierror(socket.EAI_NONAME, "this cannot be a host's name"))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=look_up, name="portal-name", daemon=True).start()
    try:
        return found.result(attempt.left())
    except FutureTimeout:
        raise TimeoutError(f"the name {host} was not resolved in time") from None


def _connect(addresses: list[Any], attempt: Attempt) -> socket.socket:
    """The first address that takes a connection; each gets its share of the time, so that one that is silent does not
    take that of the others.
    """
    failure: OSError = OSError("the name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        share = attempt.left() / (len(addresses) - number)
        try:
            connection = _Bounded(family, kind, protocol)
        except OSError as error:  # this machine has no IPv6, for instance
            failure = error
            continue
        try:
            for option in SOCKET_OPTIONS:
                connection.setsockopt(*option)
            connection.settimeout(share)
            connection.connect(address)
            return connection
        except OSError as error:
            failure = error
            connection.close()
    raise failure
