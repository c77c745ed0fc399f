"""Jobs, pods, Events, Jobs' Secrets and NetworkPolicies of one namespace: the only importer of kubernetes.

Replies are decoded into our own few fields (`objects`): the client's model objects would double the CPU of a launch.
Every call is bounded on the client's side, too, since a half-open connection stays silent for ever.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3
import yaml
from kubernetes import client
from kubernetes import config as _config
from kubernetes.config.config_exception import ConfigException

from dispatcher.cluster import decoding, names
from dispatcher.cluster.answers import error_of
from dispatcher.cluster.errors import (
    ClusterForbidden,
    ClusterUnavailable,
    Listing,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    ObjectUnreadable,
    RequestDenied,
    WatchEvent,
)
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event, KubeObject, Workload
from dispatcher.cluster.pods import Pod
from training_common.keep_alive import SOCKET_OPTIONS
from training_common.redaction import redact
from training_common.text import one_line

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_LOG_SECONDS = 86400.0
# A watch that is silent for so long after its end is a half-open connection.
_WATCH_SLACK = 15.0
# Objects of a list's first page, and of any at most; and the bytes that a page should have: a Job with a large request
# is 200 KiB, and a page is in memory as a whole.
_FIRST_PAGE, _LARGEST_PAGE = 50, 500
_PAGE_BYTES = 4 << 20
_JSON = "application/json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PATHS = {
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    "pods": "/api/v1/namespaces/{}/pods",
    "events": "/api/v1/namespaces/{}/events",
    "secrets": "/api/v1/namespaces/{}/secrets",
    "configmaps": "/api/v1/namespaces/{}/configmaps",
    "networkpolicies": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "workloads": "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads",
    "localqueues": "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/localqueues",
    "selfsubjectaccessreviews": "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
}

config: Any = _config  # its functions are not annotated


T = TypeVar("T")
Kind = TypeVar("Kind", bound=KubeObject)

_watched: Mapping[str, msgspec.json.Decoder[Any]] = {"jobs": decoding.JOBS.item, "pods": decoding.PODS.item}
# Names of objects that could not be read, of which the log has told: so many at most.
_UNREADABLE_NAMES = 1000
# What reading an answer raises: its connection's end, or JSON that is none, or not Kubernetes'.
_UNREADABLE = (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError)

log = logging.getLogger(__name__)

CallObserver = Callable[[str, str, int | None, float], None]
"""Called after every request: verb, resource, HTTP status (None: no answer), seconds. It must not raise."""


class KubernetesJobs:
    """The calls that the dispatcher makes. Thread-safe; one pool of connections."""

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
        self._api, found = _connect(pool_size)
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

    def create_job(self, job: Mapping[str, Any], *, dry_run: bool = False) -> Job:
        query = {"fieldValidation": "Strict", "dryRun": "All"} if dry_run else {}
        made = self._object(decoding.JOBS.item, "create", "jobs", body=job, query=query)
        if not made.uid:
            # Whatever says yes to this is no API server: nothing was created, and nobody is to be told of a launch.
            raise ObjectUnreadable("The API server's answer to create jobs has no Job in it; is it an API server?")
        return made

    def get_job(self, name: str) -> Job | None:
        """The Job, or None where the API server answers that there is none."""
        try:
            return self._object(decoding.JOBS.item, "get", "jobs", name)
        except ObjectNotFound:
            return None

    def get_environment(self, name: str) -> Mapping[str, str]:
        """The variables with a value of the Job's trainer container, as they stand in its pod template."""
        job = self._object(decoding.ANY, "get", "jobs", name)
        try:
            containers: list[dict[str, Any]] = job["spec"]["template"]["spec"]["containers"]
            variables = next((c.get("env", ()) for c in containers if c["name"] == names.TRAINER_CONTAINER), ())
            return {variable["name"]: variable["value"] for variable in variables if "value" in variable}
        except (LookupError, TypeError, AttributeError):
            raise ObjectUnreadable(f"The API server's answer to get jobs {name} has no container in it") from None

    def get_request(self, name: str) -> str | None:
        """The text of the message that the Job was made from; None where there is no Job, or it has none."""
        try:
            job = self._object(decoding.ANY, "get", "jobs", name)
        except ObjectNotFound:
            return None
        found = ((job.get("metadata") or {}).get("annotations") or {}).get(names.REQUEST)
        return found if isinstance(found, str) else None

    def patch_job(self, name: str, patch: Mapping[str, Any]) -> Job:
        """A JSON merge patch. `metadata.uid` in it makes sure that it is still the same Job (409 else)."""
        return self._object(decoding.JOBS.item, "patch", "jobs", name, body=patch)

    def delete_job(self, name: str, uid: str) -> None:
        """Delete in the background, if it is still the Job with this uid. Raises ObjectNotFound, ObjectConflict."""
        self._delete("jobs", name, {"propagationPolicy": "Background", "preconditions": {"uid": uid}})

    def apply_secret(self, secret: Mapping[str, Any], *, dry_run: bool = False) -> None:
        """Create the Secret of a Job, or put this data into the one that the same Job has.

        secret: its one ownerReference is the Job. Raises ObjectConflict where the Secret of this name is another's: of
        a former Job until the garbage collector has removed it. A Secret is never read.
        """
        metadata = secret["metadata"]
        query = {"dryRun": "All"} if dry_run else {}
        try:
            self._request("create", "secrets", body=secret, query=query)
        except ObjectConflict:
            owner = metadata["ownerReferences"][0]["uid"]
            # A process that has stood still must not give the next Job's Secret what it has for the last one.
            patch = [
                {"op": "test", "path": "/metadata/ownerReferences/0/uid", "value": owner},
                {"op": "replace", "path": "/data", "value": secret["data"]},
            ]
            try:
                self._request("patch", "secrets", metadata["name"], body=patch, query=query)
            except RequestDenied:
                raise
            except ObjectInvalid:
                raise ObjectConflict(
                    f"The Secret {metadata['name']} is not this Job's: a former Job's is removed by Kubernetes' garbage"
                    " collector; one that somebody made has to be removed by hand"
                ) from None

    def create_network_policy(self, policy: Mapping[str, Any], *, dry_run: bool = False) -> None:
        """Create a NetworkPolicy. Raises ObjectConflict where there is one of its name."""
        query = {"dryRun": "All"} if dry_run else {}
        self._request("create", "networkpolicies", body=policy, query=query)

    def list_jobs(self, selector: str) -> Listing[Job]:
        return self._list(decoding.JOBS, "jobs", {"labelSelector": selector})

    def list_pods(self, selector: str, fields: str = "") -> Listing[Pod]:
        """fields: a field selector."""
        return self._list(decoding.PODS, "pods", {"labelSelector": selector, "fieldSelector": fields})

    def list_metadata(self, kind: str, selector: str, fields: str = "") -> Listing[KubeObject]:
        """`jobs` or `pods` by their metadata alone, which is all that the API server sends of them."""
        selectors = {"labelSelector": selector, "fieldSelector": fields}
        return self._list(decoding.METADATA, kind, selectors, accept=_METADATA_ONLY)

    def delete_pod(self, name: str, uid: str) -> None:
        """Delete with the pod's own grace period, if it is still the pod with this uid."""
        self._delete("pods", name, {"preconditions": {"uid": uid}})

    def list_events(self, uid: str) -> list[Event]:
        """The Events about the object with this uid."""
        return list(self._list(decoding.EVENTS, "events", {"fieldSelector": f"involvedObject.uid={uid}"}))

    def pod_log(self, pod: str, container: str, *, follow: bool = False, tail: int | None = None) -> Iterator[bytes]:
        """What a container of the pod has written, in pieces; follow: also what it writes, until it ends.

        Raises ClusterError: ObjectInvalid (400) where the container has not started.
        """
        query = {"container": container, **({"follow": "true"} if follow else {})}
        query |= {"tailLines": str(tail)} if tail is not None else {}
        # A trainer may be silent for hours; the read of a log that grows is not cut for that.
        response = self._request("get", "pods", f"{pod}/log", query=query, read_seconds=_LOG_SECONDS, stream=True)
        try:
            yield from response.stream(65536)
        except _UNREADABLE as error:
            raise ClusterUnavailable(f"The log of pod {pod} broke off: {_why(error)}") from None
        finally:
            response.close()

    def create_event(self, event: Mapping[str, Any]) -> None:
        self._request("create", "events", body=event)

    def list_workloads(self) -> list[Workload]:
        """Kueue's Workloads, of the queues in our namespace. Raises ObjectNotFound where there is no Kueue (0.15)."""
        return list(self._list(decoding.WORKLOADS, "workloads", {}))

    def get_local_queue(self, name: str) -> Mapping[str, Any] | None:
        """Kueue's LocalQueue, None where there is none, or no Kueue (0.15)."""
        try:
            return self._object(decoding.ANY, "get", "localqueues", name)
        except ObjectNotFound:
            return None

    def get_config_map(self, name: str) -> Mapping[str, str] | None:
        """The ConfigMap's data, None where the API server answers that there is none."""
        try:
            data = self._object(decoding.ANY, "get", "configmaps", name).get("data") or {}
        except ObjectNotFound:
            return None
        if not isinstance(data, dict):
            raise ObjectUnreadable(f"The API server's answer to get configmaps {name} has no data in it")
        return {str(key): str(value) for key, value in data.items()}

    def patch_config_map(self, name: str, data: Mapping[str, str | None] | None) -> None:
        """Set these keys of the data and remove those that are None; None: all of it. Raises ObjectNotFound."""
        self._request("patch", "configmaps", name, body={"data": data})

    def may(self, verb: str, resource: str, name: str = "") -> bool:
        """Whether our identity may do `verb` on `resource` in the namespace (SelfSubjectAccessReview).

        name: on the one object of this name.
        """
        # "/apis/GROUP/…", or "/api/v1/…" of the core group.
        _, root, group, *_ = _PATHS[resource].split("/")
        group = group if root == "apis" else ""
        attributes = {"namespace": self.namespace, "verb": verb, "resource": resource, "group": group, "name": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._object(decoding.ANY, "create", "selfsubjectaccessreviews", body=review)
        return bool((answer.get("status") or {}).get("allowed"))

    def watch(self, kind: str, selector: str, resource_version: str, seconds: float) -> Iterator[WatchEvent]:
        """Events of `jobs` or `pods` from `resource_version` on, for at most `seconds`.

        Ends when the server ends it. Raises WatchExpired (410, also as an ERROR event inside a 200 response) and
        ClusterUnavailable; a read that stays silent for longer than the watch may last is cut.
        """
        query = {
            "watch": "true",
            "labelSelector": selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        response = self._request("watch", kind, query=query, read_seconds=seconds + _WATCH_SLACK)
        try:
            yield from self._events(response, kind)
        except _UNREADABLE as error:
            raise ClusterUnavailable(f"The watch of {kind} broke off: {_why(error)}") from None
        finally:
            response.close()

    def _events(self, response: Any, kind: str) -> Iterator[WatchEvent]:
        buffer = b""
        for chunk in response.stream(65536):
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in filter(bytes.strip, lines):
                event = decoding.LINE.decode(line)
                if event.type == "ERROR":
                    status = decoding.ANY.decode(event.object)
                    raise error_of("watch", kind, "", int(status.get("code") or 500), status, {})
                if event.type == "BOOKMARK":
                    yield WatchEvent(event.type, decoding.read(decoding.METADATA.item, event.object))
                    continue
                found = decoding.read_or_leave_out(_watched[kind], event.object, self._left_out(kind))
                if found is not None:
                    yield WatchEvent(event.type, found)

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
        path = _PATHS[kind].format(self.namespace) + (f"/{quote(name, safe='/')}" if name else "")
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
                f"The API server at {api.configuration.host} cannot be reached: {_why(error)}", ambiguous=not unsent
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
                self._api, _ = _connect(self._pool_size)
            return self._api


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise ObjectUnreadable(f"The API server's answer to {what} cannot be read: {_why(error)}") from None


def _connect(pool_size: int) -> tuple[Any, str]:
    """The client, and the namespace that the pod or the kubeconfig's context names."""
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = pool_size
    configuration.socket_options = SOCKET_OPTIONS
    namespace = "default"
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)
            namespace = NAMESPACE_FILE.read_text().strip()
        else:
            # Named, because the library reads the variable once, when it is imported; None is its own default.
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(file, client_configuration=configuration)
            _, context = config.list_kube_config_contexts(file)
            namespace = (context.get("context") or {}).get("namespace") or namespace
    except (
        ConfigException,
        OSError,
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        # The library does not check the file's shape: a list, a string or bytes raise whatever Python raises then.
        raise ClusterForbidden(
            f"No way to a Kubernetes API server: {_why(error)}; run in a pod, or set KUBECONFIG to a kubeconfig file"
        ) from None
    return client.ApiClient(configuration), namespace


def _why(error: Exception) -> str:
    return redact(one_line(str(error)))[:300]
