"""Jobs, pods and Events of one namespace: the only importer of kubernetes.

Objects are plain dicts of the API server's JSON: turning replies into the client's model objects would double the CPU
of a launch. Every call is bounded on the client's side, too, since a half-open connection stays silent for ever.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes import client
from kubernetes import config as _config
from kubernetes.config.config_exception import ConfigException

from dispatcher.cluster.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterUnavailable,
    Listing,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    QuotaExceeded,
    RequestDenied,
    WatchExpired,
)
from dispatcher.cluster.objects import KubeObject
from training_common.redaction import redact
from training_common.retry_after import parse_retry_after
from training_common.text import one_line

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
# A watch that is silent for so long after its end is a half-open connection.
_WATCH_SLACK = 15.0
_PAGE = 500
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PATHS = {
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    "pods": "/api/v1/namespaces/{}/pods",
    "events": "/api/v1/namespaces/{}/events",
    "workloads": "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads",
    "selfsubjectaccessreviews": "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
}

config: Any = _config  # its functions are not annotated


CallObserver = Callable[[str, str, int | None, float], None]
"""Called after every request: verb, resource, HTTP status (None: no answer), seconds. It must not raise."""


class KubernetesJobs:
    """The calls that the dispatcher makes. Thread-safe; one pool of connections."""

    def __init__(self, namespace: str = "", pool_size: int = 32, on_call: CallObserver | None = None) -> None:
        """Connect as kubectl would: in a pod with its service account, else by KUBECONFIG. Raises ClusterForbidden."""
        self._pool_size = pool_size
        self._on_call = on_call
        self._lock = threading.Lock()
        self.server_date: str | None = None  # the Date of the newest answer, for `dispatcher check`
        self._api, found = _connect(pool_size)
        self.namespace = namespace or found

    def create_job(self, job: Mapping[str, Any], *, dry_run: bool = False) -> KubeObject:
        query = {"fieldValidation": "Strict", "dryRun": "All"} if dry_run else {}
        return self._json("create", "jobs", body=job, query=query)

    def get_job(self, name: str) -> KubeObject | None:
        """The Job, or None where the API server answers that there is none."""
        try:
            return self._json("get", "jobs", name)
        except ObjectNotFound:
            return None

    def patch_job(self, name: str, patch: Mapping[str, Any]) -> KubeObject:
        """A JSON merge patch. `metadata.uid` in it makes sure that it is still the same Job (409 else)."""
        return self._json("patch", "jobs", name, body=patch)

    def delete_job(self, name: str, uid: str) -> None:
        """Delete in the background, if it is still the Job with this uid. Raises ObjectNotFound, ObjectConflict."""
        self._delete("jobs", name, {"propagationPolicy": "Background", "preconditions": {"uid": uid}})

    def list_jobs(self, selector: str) -> Listing:
        return self._list("jobs", selector)

    def list_pods(self, selector: str) -> Listing:
        return self._list("pods", selector)

    def delete_pod(self, name: str, uid: str) -> None:
        """Delete with the pod's own grace period, if it is still the pod with this uid."""
        self._delete("pods", name, {"preconditions": {"uid": uid}})

    def list_events(self, uid: str) -> list[KubeObject]:
        """The Events about the object with this uid."""
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(_PAGE)}
        return cast(list[KubeObject], self._json("list", "events", query=query).get("items") or [])

    def create_event(self, event: Mapping[str, Any]) -> None:
        self._json("create", "events", body=event)

    def list_workloads(self) -> list[KubeObject]:
        """Kueue's Workloads, of the queues in our namespace. Raises ObjectNotFound where there is no Kueue (0.15)."""
        return self._list("workloads", "").items

    def may(self, verb: str, resource: str) -> bool:
        """Whether our identity may do `verb` on `resource` in the namespace (SelfSubjectAccessReview)."""
        # "/apis/GROUP/…", or "/api/v1/…" of the core group.
        _, root, group, *_ = _PATHS[resource].split("/")
        group = group if root == "apis" else ""
        attributes = {"namespace": self.namespace, "verb": verb, "resource": resource, "group": group}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._json("create", "selfsubjectaccessreviews", body=review)
        return bool((answer.get("status") or {}).get("allowed"))

    def watch(self, kind: str, selector: str, resource_version: str, seconds: float) -> Iterator[KubeObject]:
        """Events {type, object} of `jobs` or `pods` from `resource_version` on, for at most `seconds`.

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
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ClusterUnavailable(f"The watch of {kind} broke off: {_why(error)}") from None
        finally:
            response.close()

    def _events(self, response: Any, kind: str) -> Iterator[KubeObject]:
        buffer = b""
        for chunk in response.stream(65536):
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                if not line.strip():
                    continue
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise _error("watch", kind, "", int(status.get("code") or 500), status, {})
                yield event

    def _list(self, kind: str, selector: str) -> Listing:
        items: list[KubeObject] = []
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = self._json("list", kind, query=query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Listing(items, str(metadata.get("resourceVersion") or ""))
            query = {**query, "continue": metadata["continue"]}

    def _delete(self, kind: str, name: str, options: Mapping[str, Any]) -> None:
        self._json("delete", kind, name, body={"apiVersion": "v1", "kind": "DeleteOptions", **options})

    def _json(self, verb: str, kind: str, name: str = "", **options: Any) -> dict[str, Any]:
        """The answer's JSON object. options: `_request`'s."""
        response = self._request(verb, kind, name, **options)
        try:
            parsed = json.loads(response.data)
        except (ValueError, urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterUnavailable(
                f"The API server's answer to {verb} {kind} cannot be read: {_why(error)}"
            ) from None
        if not isinstance(parsed, dict):
            raise ClusterUnavailable(f"The API server's answer to {verb} {kind} is no object")
        return parsed

    def _request(
        self,
        verb: str,
        kind: str,
        name: str = "",
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        read_seconds: float = _READ_SECONDS,
    ) -> Any:
        """One call, bounded in time. Raises ClusterError for everything but a 2xx answer."""
        path = _PATHS[kind].format(self.namespace) + (f"/{quote(name, safe='')}" if name else "")
        if query:
            path += f"?{urlencode(query)}"
        api = self._api
        response = self._send(api, verb, kind, path, body, read_seconds)
        if response.status == 401:
            # A rotated service account token: read it anew, once (F39).
            response = self._send(self._reconnect(api), verb, kind, path, body, read_seconds)
        self.server_date = response.headers.get("Date")
        if 200 <= response.status < 300:
            return response
        try:
            status = json.loads(response.data)
        except (ValueError, urllib3.exceptions.HTTPError, OSError):
            status = {}
        raise _error(verb, kind, name, response.status, status if isinstance(status, dict) else {}, response.headers)

    def _send(
        self, api: Any, verb: str, kind: str, path: str, body: Mapping[str, Any] | None, read_seconds: float
    ) -> Any:
        method = {"create": "POST", "patch": "PATCH", "delete": "DELETE"}.get(verb, "GET")
        headers = {"Accept": "application/json", "User-Agent": "training-dispatcher"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if verb == "patch" else "application/json"
        api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        began = time.monotonic()
        answered: int | None = None
        try:
            response = api.rest_client.pool_manager.request(
                method,
                f"{api.configuration.host}{path}",
                body=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                preload_content=verb != "watch",
                retries=False,
            )
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


def _connect(pool_size: int) -> tuple[Any, str]:
    """The client, and the namespace that the pod or the kubeconfig's context names."""
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = pool_size
    namespace = "default"
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)
            namespace = _NAMESPACE_FILE.read_text().strip()
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


# A denial is known by its words alone: a webhook chooses its status code, a policy is one of 401, 403, 413 and 422.
_DENIED = re.compile(
    r'(?:.* is forbidden: )?(?:admission webhook ".*" denied the request|[A-Z]\w+AdmissionPolicy .* denied request)'
)
_RBAC = re.compile(r'User ".*" cannot [a-z]+ resource "')


def _error(
    verb: str, kind: str, name: str, code: int, status: Mapping[str, Any], headers: Mapping[str, str]
) -> ClusterError:
    """The API server's Status object → our error."""
    text = redact(one_line(str(status.get("message") or f"HTTP {code}")))[:1000]
    cannot = f"Cannot {verb} {kind}" + (f" {name}" if name else "")
    said = f"{cannot}: {text}"
    retry_after = parse_retry_after(headers.get("Retry-After"), time.time())
    if status.get("kind") != "Status" and code not in (401, 408, 429) and code < 500:
        # A proxy's page, or another server's: it knows nothing about our objects, so it is no proof that one is absent,
        # nor about our rights.
        return ClusterUnavailable(f"{cannot}: HTTP {code} without a Status of Kubernetes; is it an API server?")
    if _DENIED.match(text) and code not in (408, 429) and code < 500:  # these are a webhook's own trouble
        return RequestDenied(said)
    if "failed calling webhook" in text:
        # Admission comes before storage: nothing was changed.
        why = "The cluster's admission webhook does not answer: tell who runs it"
        return ClusterUnavailable(f"{said}. {why}", retry_after=retry_after, ambiguous=False)
    match code:
        case 404:
            return ObjectNotFound(said)
        case 409:
            return ObjectConflict(said)
        case 410:
            return WatchExpired(said)
        case 401:
            return ClusterForbidden(f"{cannot}: the API server does not accept our credentials")
        case 403:
            return _forbidden(said, verb, kind, status)
        case 408 | 429:
            return ClusterUnavailable(said, retry_after=retry_after, ambiguous=code != 429)
    return ClusterUnavailable(said, retry_after=retry_after) if code >= 500 else ObjectInvalid(said)


def _forbidden(said: str, verb: str, kind: str, status: Mapping[str, Any]) -> ClusterError:
    """A 403 is RBAC's or an admission plug-in's; only their words tell which."""
    details = status.get("details")
    causes = (details.get("causes") if isinstance(details, dict) else None) or []
    reasons = [cause.get("reason") for cause in causes if isinstance(cause, dict)]
    if "NamespaceTerminating" in reasons or "because it is being terminated" in said:
        return ClusterForbidden(f"{said}. The namespace is being deleted: create it anew, or set NAMESPACE to another")
    if _RBAC.search(said) or verb not in ("create", "patch", "delete"):
        return ClusterForbidden(f'{said}. The Role must allow the verb "{verb}" on "{kind}"')
    # A quota that was just made has no status yet.
    is_quota = "exceeded quota" in said or "status unknown for quota" in said
    return QuotaExceeded(said) if is_quota else RequestDenied(said)


def _why(error: Exception) -> str:
    return redact(one_line(str(error)))[:300]
