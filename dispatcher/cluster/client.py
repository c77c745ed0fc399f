"""Jobs, pods, Events, Jobs' Secrets and NetworkPolicies of one namespace: what the dispatcher asks of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dispatcher.cluster import decoding, names
from dispatcher.cluster.answers import error_of
from dispatcher.cluster.calls import PATHS, Calls, streamed
from dispatcher.cluster.errors import (
    Listing,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    ObjectUnreadable,
    RequestDenied,
    WatchEvent,
)
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event, KubeObject, Node, Workload
from dispatcher.cluster.pods import Pod

_LOG_SECONDS = 86400.0
# A watch that is silent for so long after its end is a half-open connection.
_WATCH_SLACK = 15.0
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

_watched: Mapping[str, msgspec.json.Decoder[Any]] = {"jobs": decoding.JOBS.item, "pods": decoding.PODS.item}


class KubernetesJobs(Calls):
    """The calls that the dispatcher makes. Thread-safe; one pool of connections."""

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
        with streamed(response, f"The log of pod {pod}"):
            yield from response.stream(65536)

    def create_event(self, event: Mapping[str, Any]) -> None:
        self._request("create", "events", body=event)

    def list_nodes(self) -> list[Node]:
        """The cluster's, which takes a right that the dispatcher need not have."""
        return list(self._list(decoding.NODES, "nodes", {}))

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
        _, root, group, *_ = PATHS[resource].split("/")
        group = group if root == "apis" else ""
        namespace = self.namespace if "{}" in PATHS[resource] else ""
        attributes = {"namespace": namespace, "verb": verb, "resource": resource, "group": group, "name": name}
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
        with streamed(response, f"The watch of {kind}"):
            yield from self._events(response, kind)

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
