"""Calls to one API server.

Replies are decoded into our own few fields (`objects`): the client's model objects would double the CPU of a launch.
Every call is bounded on the client's side, too, since a half-open connection stays silent for ever.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3

from dispatcher.cluster import decoding
from dispatcher.cluster.answers import error_of
from dispatcher.cluster.connection import connect, why
from dispatcher.cluster.errors import ClusterForbidden, ClusterUnavailable, Listing, ObjectUnreadable
from dispatcher.cluster.objects import KubeObject
from training_common.redaction import redact
from training_common.text import one_line

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
# Objects of a list's first page, and of any at most; and the bytes that a page should have: a Job with a large request
# is 200 KiB, and a page is in memory as a whole.
_FIRST_PAGE, _LARGEST_PAGE = 50, 500
_PAGE_BYTES = 4 << 20
_JSON = "application/json"
PATHS = {
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    "pods": "/api/v1/namespaces/{}/pods",
    "events": "/api/v1/namespaces/{}/events",
    "secrets": "/api/v1/namespaces/{}/secrets",
    "configmaps": "/api/v1/namespaces/{}/configmaps",
    "networkpolicies": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "nodes": "/api/v1/nodes",
    "workloads": "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads",
    "localqueues": "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/localqueues",
    "selfsubjectaccessreviews": "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
}

T = TypeVar("T")
Kind = TypeVar("Kind", bound=KubeObject)

# Names of objects that could not be read, of which the log has told: so many at most.
_UNREADABLE_NAMES = 1000
# What reading an answer raises: its connection's end, or JSON that is none, or not Kubernetes'.
_UNREADABLE = (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError)

log = logging.getLogger(__name__)

CallObserver = Callable[[str, str, int | None, float], None]
"""Called after every request: verb, resource, HTTP status (None: no answer), seconds. It must not raise."""


class Calls:
    """Thread-safe; one pool of connections. What is called, by which name and with what, is `KubernetesJobs`'."""

    def __init__(
        self,
        namespace: str = "",
        pool_size: int = 32,
        on_call: CallObserver | None = None,
        on_defect: Callable[[], None] = lambda: None,
    ) -> None:
        """Connect as kubectl would: in a pod with its service account, else by KUBECONFIG. Raises ClusterForbidden.

        on_defect: called for each object that cannot be read.
        """
        self._pool_size = pool_size
        self._on_call = on_call
        self._on_defect = on_defect
        self._lock = threading.Lock()
        self._told: set[tuple[str, str]] = set()  # objects that cannot be read
        self.server_date: str | None = None  # the Date of the newest answer, for `dispatcher check`
        self._api, found = connect(pool_size)
        self.namespace = namespace or found

    @property
    def place(self) -> str:
        """A fingerprint of cluster and namespace, the same in a pod and by a kubeconfig: by the cluster's own CA.

        The API server's address is another one in a pod; it stands in where there is no CA.
        """
        configuration = self._api.configuration
        try:
            ca = Path(configuration.ssl_ca_cert).read_text(encoding="ascii")
        except (OSError, TypeError, ValueError):
            ca = str(configuration.host)
        return hashlib.sha256(f"{''.join(ca.split())} {self.namespace}".encode()).hexdigest()[:8]

    def _list(
        self, decoders: decoding.Decoders[Kind], kind: str, selectors: Mapping[str, str], accept: str = _JSON
    ) -> Listing[Kind]:
        left_out: list[str] = []

        def pages() -> Iterator[tuple[Sequence[Kind], str]]:
            query, limit = {key: value for key, value in selectors.items() if value}, _FIRST_PAGE
            while True:
                response = self._request("list", kind, query={**query, "limit": str(limit)}, accept=accept)
                size = len(response.data)
                with _readable(f"list {kind}"):
                    items, version, following = decoding.read_page(
                        decoders, response.data, self._left_out(kind, left_out)
                    )
                del response  # the text of a page and the next one need not be in memory together
                yield items, version
                if not following:
                    return
                query["continue"] = following
                limit = max(1, min(_LARGEST_PAGE, _PAGE_BYTES * max(1, len(items)) // size))

        return Listing(pages(), left_out=left_out)

    def _left_out(self, kind: str, found: list[str] | None = None) -> decoding.LeftOut:
        """Tells once of each object that cannot be read, and goes on. found: to which its name is added."""

        def tell(name: str, why: str) -> None:
            if found is not None:
                found.append(name)
            self._on_defect()
            with self._lock:
                if (kind, name) in self._told or len(self._told) >= _UNREADABLE_NAMES:
                    return
                self._told.add((kind, name))
            log.error(
                "%s %s cannot be read and is left out until it can: %s. If nobody has changed it by hand, this "
                "dispatcher does not know the cluster's version of Kubernetes: update it",
                kind.removesuffix("s").title(),
                name,
                redact(one_line(why))[:300],
            )

        return tell

    def _object(self, decoder: msgspec.json.Decoder[T], verb: str, kind: str, name: str = "", **options: Any) -> T:
        """The answer. options: `_request`'s."""
        response = self._request(verb, kind, name, **options)
        with _readable(f"{verb} {kind}"):
            return decoding.read(decoder, response.data)

    def _delete(self, kind: str, name: str, options: Mapping[str, Any]) -> None:
        self._request("delete", kind, name, body={"apiVersion": "v1", "kind": "DeleteOptions", **options})

    def _request(
        self,
        verb: str,
        kind: str,
        name: str = "",
        *,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        query: Mapping[str, str] | None = None,
        read_seconds: float = _READ_SECONDS,
        accept: str = _JSON,
        stream: bool = False,
    ) -> Any:
        """One call, bounded in time. Raises ClusterError for everything but a 2xx answer. stream: not read here."""
        path = PATHS[kind].format(self.namespace) + (f"/{quote(name, safe='/')}" if name else "")
        if query:
            path += f"?{urlencode(query)}"
        api = self._api
        stream = stream or verb == "watch"
        response = self._send(api, verb, kind, path, body, read_seconds, accept, stream)
        if response.status == 401:
            # A rotated service account token: read it anew, once (F39).
            response = self._send(self._reconnect(api), verb, kind, path, body, read_seconds, accept, stream)
        self.server_date = response.headers.get("Date")
        if 200 <= response.status < 300:
            return response
        try:
            status = decoding.ANY.decode(response.data)
        except _UNREADABLE:
            status = {}
        raise error_of(verb, kind, name, response.status, status, response.headers)

    def _send(
        self,
        api: Any,
        verb: str,
        kind: str,
        path: str,
        body: object,
        read_seconds: float,
        accept: str,
        stream: bool,
    ) -> Any:
        method = {"create": "POST", "patch": "PATCH", "delete": "DELETE"}.get(verb, "GET")
        headers = {"Accept": accept, "User-Agent": "training-dispatcher"}
        if body is not None:
            patch = "json-patch" if isinstance(body, list) else "merge-patch"
            headers["Content-Type"] = f"application/{patch}+json" if verb == "patch" else "application/json"
        api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        data = None if body is None else msgspec.json.encode(body)
        began = time.monotonic()
        answered: int | None = None

        def send() -> Any:
            return api.rest_client.pool_manager.request(
                method,
                f"{api.configuration.host}{path}",
                body=data,
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                preload_content=not stream,
                retries=False,
            )

        try:
            try:
                response = send()
            except urllib3.exceptions.ProtocolError:
                # A pooled connection that the other side had closed while it was idle is no outage (F56). Each of our
                # calls may be repeated: should the first have been carried out, the second finds that.
                response = send()
            answered = response.status
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # A connection that was never made cannot have changed anything.
            unsent = isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
            raise ClusterUnavailable(
                f"The API server at {api.configuration.host} cannot be reached: {why(error)}", ambiguous=not unsent
            ) from None
        except ValueError:
            # http.client repeats the header's value, which is the token, in its sentence.
            raise ClusterForbidden(
                f"Cannot {verb} {kind}: the token of the service account or kubeconfig does not fit into a header"
            ) from None
        finally:
            if self._on_call is not None:
                self._on_call(verb, kind, answered, time.monotonic() - began)
        return response

    def _reconnect(self, stale: Any) -> Any:
        with self._lock:
            if self._api is stale:
                self._api, _ = connect(self._pool_size)
            return self._api


@contextmanager
def streamed(response: Any, what: str) -> Iterator[None]:
    """While an answer is read that was asked for as a stream. Raises ClusterUnavailable where it breaks off."""
    try:
        yield
    except _UNREADABLE as error:
        raise ClusterUnavailable(f"{what} broke off: {why(error)}") from None
    finally:
        response.close()


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise ObjectUnreadable(f"The API server's answer to {what} cannot be read: {why(error)}") from None
