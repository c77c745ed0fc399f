"""The garbage collector, the namespace controller and the orphaned pods' finalizers.

Listeners only note what changed; the work happens afterwards, so that every watcher sees the writes in their order.
"""

from __future__ import annotations

from functools import partial

from local_stack.cluster.controllers.job_policy import TRACKING, is_tracked
from local_stack.cluster.controllers.work_queue import WorkQueue
from local_stack.cluster.registry.errors import ApiError
from local_stack.cluster.registry.objects import Key, Obj
from local_stack.cluster.registry.resources import (
    JOBS,
    NAMESPACES,
    NETWORKPOLICIES,
    PODS,
    RESOURCES,
    SECRETS,
    Resource,
)
from local_stack.cluster.registry.rules import DeleteOptions
from local_stack.cluster.registry.store import Change
from local_stack.cluster.registry.writes import FOREGROUND, ORPHAN, Registry

# What belongs to Jobs beside their pods.
_BELONGINGS = (SECRETS, NETWORKPOLICIES)


class GarbageCollector:
    """Deletes, orphans or waits for what a deleted owner leaves behind."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store
        self._jobs = WorkQueue(self._job)
        self._pods = WorkQueue(self._pod)
        self._belongings = {kind.plural: WorkQueue(partial(self._belonging, kind)) for kind in _BELONGINGS}
        self._namespaces = WorkQueue(self._namespace)

    def start(self) -> None:
        """Begin to listen. Needs a running event loop."""
        self._store.listen("jobs", self._job_changed)
        self._store.listen("pods", self._pod_changed)
        for plural in self._belongings:
            self._store.listen(plural, partial(self._belonging_changed, plural))
        for plural in RESOURCES:
            self._store.listen(plural, self._anything_changed)

    def stop(self) -> None:
        """End all waits."""
        for queue in (self._jobs, self._pods, *self._belongings.values(), self._namespaces):
            queue.stop()

    def _job_changed(self, change: Change) -> None:
        meta = change.stored.obj["metadata"]
        if change.kind == "DELETED":
            for plural, queue in {"pods": self._pods, **self._belongings}.items():
                for owned in self._store.owned(plural, meta["uid"]):
                    queue.add((owned["metadata"]["namespace"], owned["metadata"]["name"]))
        elif meta.get("deletionTimestamp") and {FOREGROUND, ORPHAN} & set(meta.get("finalizers") or ()):
            self._jobs.add((meta["namespace"], meta["name"]))

    def _pod_changed(self, change: Change) -> None:
        meta = change.stored.obj["metadata"]
        if change.kind == "DELETED":
            for owner in meta.get("ownerReferences") or ():
                job = self._store.get("jobs", meta["namespace"], owner["name"])
                if job is not None and FOREGROUND in (job["metadata"].get("finalizers") or ()):
                    self._jobs.add((meta["namespace"], owner["name"]))
        elif is_tracked(change.stored.obj) and not self._owned(change.stored.obj):
            self._pods.add((meta["namespace"], meta["name"]))

    def _belonging_changed(self, plural: str, change: Change) -> None:
        meta = change.stored.obj["metadata"]
        if change.kind != "DELETED" and meta.get("ownerReferences") and not self._owned(change.stored.obj):
            self._belongings[plural].add((meta["namespace"], meta["name"]))  # its owner was gone before it came

    def _anything_changed(self, change: Change) -> None:
        meta = change.stored.obj["metadata"]
        name = meta.get("namespace") or (meta["name"] if change.stored.obj["kind"] == "Namespace" else "")
        namespace = self._store.get("namespaces", "", name)
        if namespace is not None and namespace["metadata"].get("deletionTimestamp"):
            self._namespaces.add(("", name))

    def _owned(self, obj: Obj) -> bool:
        meta = obj["metadata"]
        for owner in meta.get("ownerReferences") or ():
            if owner["kind"] != "Job":
                return True
            job = self._store.get("jobs", meta["namespace"], owner["name"])
            if job is not None and job["metadata"]["uid"] == owner["uid"]:
                return True
        return False

    def _pod(self, key: Key) -> None:
        """A pod whose owner is gone: let it go, and delete it unless it was orphaned on purpose."""
        pod = self._store.get("pods", *key)
        if pod is None or self._owned(pod):
            return
        meta = pod["metadata"]
        if is_tracked(pod):
            left = [name for name in meta["finalizers"] if name != TRACKING]
            self._registry.set_metadata(PODS, pod, finalizers=left or None)
        if meta.get("ownerReferences"):
            self._delete(PODS, pod)

    def _belonging(self, kind: Resource, key: Key) -> None:
        found = self._store.get(kind.plural, *key)
        if found is not None and found["metadata"].get("ownerReferences") and not self._owned(found):
            self._delete(kind, found)

    def _delete(self, resource: Resource, obj: Obj) -> None:
        meta = obj["metadata"]
        try:
            self._registry.delete(resource, meta["namespace"], meta["name"], DeleteOptions(uid=meta["uid"]))
        except ApiError:
            return

    def _job(self, key: Key) -> None:
        job = self._store.get("jobs", *key)
        if job is None:
            return
        meta = job["metadata"]
        finalizers = list(meta.get("finalizers") or ())
        kinds = (PODS, *_BELONGINGS)
        owned = [(kind, obj) for kind in kinds for obj in self._store.owned(kind.plural, meta["uid"])]
        if ORPHAN in finalizers:
            for kind, obj in owned:
                references = obj["metadata"]["ownerReferences"]
                others = [owner for owner in references if owner["uid"] != meta["uid"]]
                self._registry.set_metadata(kind, obj, ownerReferences=others or None)
            finalizers.remove(ORPHAN)
        elif FOREGROUND in finalizers:
            for kind, obj in owned:
                if not obj["metadata"].get("deletionTimestamp"):
                    self._delete(kind, obj)
            if self._store.owned("pods", meta["uid"]):
                return
            finalizers.remove(FOREGROUND)
        else:
            return
        self._registry.set_metadata(JOBS, job, finalizers=finalizers or None)

    def _namespace(self, key: Key) -> None:
        name = key[1]
        namespace = self._store.get("namespaces", *key)
        if namespace is None:
            return
        left = False
        for plural, resource in RESOURCES.items():
            if not resource.namespaced:
                continue
            for stored in self._store.all(plural, name):
                meta = stored.obj["metadata"]
                if not meta.get("deletionTimestamp"):
                    options = DeleteOptions(policy="Background")
                    self._registry.delete(resource, name, meta["name"], options)
                left = left or self._store.find(plural, name, meta["name"]) is not None
        if not left:
            bare = {key: value for key, value in namespace.items() if key != "spec"}
            self._registry.commit(NAMESPACES, namespace, {**bare, "metadata": dict(namespace["metadata"])})
