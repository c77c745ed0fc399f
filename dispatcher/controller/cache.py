"""The informer's store: what this process knows of its Jobs and pods, filled by a list and kept fresh by a watch.

It may be minutes stale. Whatever cannot be undone asks the API server first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from dispatcher.cluster import names, objects
from dispatcher.cluster.objects import KubeObject


class ClusterCache:
    """Jobs by name and pods by uid. Thread-safe. `changed` is called with a Job's name, outside the lock."""

    def __init__(self, changed: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._changed = changed
        self._clock = clock
        self._jobs: dict[str, KubeObject] = {}
        self._pods: dict[str, KubeObject] = {}
        self._pods_of: dict[str, dict[str, KubeObject]] = {}  # pods and their tombstones, by their Job's uid
        self._first_seen: dict[str, float] = {}  # by the Job's uid
        self._tombstones: dict[str, KubeObject] = {}  # Jobs deleted before their outcome was reported, by name
        self._released: set[str] = set()  # uids of Jobs that were reported
        self._listed: set[str] = set()
        self._ready = threading.Event()

    def replace(self, kind: str, items: Iterable[KubeObject]) -> None:
        """Take a fresh list of `jobs` or `pods`: what is not in it is gone."""
        fresh = {_key(kind, item): item for item in items}
        with self._lock:
            known = dict(self._known(kind))
            touched = {
                _job_name(kind, item)
                for key, item in (known | fresh).items()
                if _version(known.get(key)) != _version(fresh.get(key))
            }
            for key, item in known.items():
                if key not in fresh:
                    self._remove(kind, item)
            for item in fresh.values():
                self._put(kind, item)
            self._listed.add(kind)
            if self._listed == {"jobs", "pods"}:
                self._ready.set()
        for name in touched:
            self._changed(name)

    def apply(self, kind: str, event_type: str, item: KubeObject) -> None:
        """Take one watch event: ADDED, MODIFIED or DELETED."""
        with self._lock:
            if event_type == "DELETED":
                self._remove(kind, item)
            else:
                self._put(kind, item)
        self._changed(_job_name(kind, item))

    def _known(self, kind: str) -> dict[str, KubeObject]:
        return self._jobs if kind == "jobs" else self._pods

    def _put(self, kind: str, item: KubeObject) -> None:
        known, key = self._known(kind), _key(kind, item)
        before = known.get(key)
        known[key] = item
        if kind == "pods":
            self._index(item, before)
        else:
            self._forget_other(before, item)
            self._first_seen.setdefault(objects.uid_of(item), self._clock())

    def _remove(self, kind: str, item: KubeObject) -> None:
        before = self._known(kind).pop(_key(kind, item), None)
        if kind == "pods":
            self._leave_tombstone(item, before)
        else:
            self._forget_other(before, item)
            self._forget(item)

    def _forget_other(self, before: KubeObject | None, job: KubeObject) -> None:
        """A Job of the same name whose deletion was missed, and so was the creation of its successor."""
        if before is not None and objects.uid_of(before) != objects.uid_of(job):
            self._forget(before)

    def _index(self, pod: KubeObject, before: KubeObject | None) -> None:
        """before: the last known state of the same pod."""
        # A Job releases a pod whose labels no longer match: a state of it that stayed in the index would never end.
        if before is not None and objects.owner_uid(before) != objects.owner_uid(pod):
            self._drop(before)
        self._pods_of.setdefault(objects.owner_uid(pod) or "", {})[objects.uid_of(pod)] = pod

    def _drop(self, pod: KubeObject) -> None:
        owner = objects.owner_uid(pod) or ""
        kept = self._pods_of.get(owner, {})
        kept.pop(objects.uid_of(pod), None)
        if not kept:
            self._pods_of.pop(owner, None)  # usually the Job goes first, and nothing else would remove the entry

    def _leave_tombstone(self, pod: KubeObject, before: KubeObject | None) -> None:
        """Keep a deleted pod's last state as long as its Job is known: an eviction, for one, deletes the pod."""
        if objects.owner_uid(pod) not in self._first_seen:
            for state in (before, pod):
                if state is not None:
                    self._drop(state)
            return
        if not objects.pod_is_over(pod):
            metadata = {**objects.meta(pod)}
            metadata.setdefault("deletionTimestamp", metadata.get("creationTimestamp"))
            pod = {**pod, "metadata": metadata, "status": {**(pod.get("status") or {}), "phase": "Failed"}}
        self._index(pod, before)

    def _forget(self, job: KubeObject) -> None:
        uid = objects.uid_of(job)
        self._first_seen.pop(uid, None)
        # The pods' tombstones go with their Job; pods that the API server still has stay.
        if kept := {key: pod for key, pod in self._pods_of.pop(uid, {}).items() if key in self._pods}:
            self._pods_of[uid] = kept
        # A Job that was being deleted when its finalizer was taken off arrives as DELETED in the state *before* that
        # patch (measured on 1.36): whether it was reported, only the reporter knows.
        if uid in self._released:
            self._released.discard(uid)
        elif not objects.is_reported(job):
            self._tombstones[objects.name_of(job)] = job

    def job(self, name: str) -> KubeObject | None:
        with self._lock:
            return self._jobs.get(name)

    def pods_of(self, job: KubeObject) -> list[KubeObject]:
        """The pods that this very Job (by uid) controls, with the tombstones of those that are gone."""
        uid = objects.uid_of(job)
        with self._lock:
            return list(self._pods_of.get(uid, {}).values())

    def tombstone(self, name: str) -> KubeObject | None:
        """The last state of a Job that was deleted, by force, before its outcome was reported."""
        with self._lock:
            return self._tombstones.get(name)

    def drop_tombstone(self, name: str) -> None:
        with self._lock:
            self._tombstones.pop(name, None)

    def released(self, job: KubeObject) -> None:
        """The Job was reported and its finalizer is off: its deletion leaves no tombstone."""
        name, uid = objects.name_of(job), objects.uid_of(job)
        with self._lock:
            if name in self._jobs and objects.uid_of(self._jobs[name]) == uid:
                self._released.add(uid)
            elif name in self._tombstones and objects.uid_of(self._tombstones[name]) == uid:
                del self._tombstones[name]

    def jobs(self) -> list[KubeObject]:
        with self._lock:
            return list(self._jobs.values())

    def names(self) -> list[str]:
        """Every Job that may need work: those that exist, and tombstones."""
        with self._lock:
            return [*self._jobs, *(name for name in self._tombstones if name not in self._jobs)]

    def unfinished(self) -> int:
        """The number of Jobs that hold or wait for a GPU: derived from the list, never counted up and down."""
        return sum(not objects.is_finished(job) for job in self.jobs())

    def seconds_known(self, job: KubeObject) -> float:
        """For how long this process has known the Job, by its own clock: no clock of another machine is compared."""
        with self._lock:
            seen = self._first_seen.get(objects.uid_of(job))
        return 0.0 if seen is None else self._clock() - seen

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Whether Jobs and pods were both listed once."""
        return self._ready.wait(timeout)

    @property
    def ready(self) -> bool:
        return self._ready.is_set()


def _key(kind: str, item: KubeObject) -> str:
    return objects.name_of(item) if kind == "jobs" else objects.uid_of(item)


def _job_name(kind: str, item: KubeObject) -> str:
    if kind == "jobs":
        return objects.name_of(item)
    return f"model-{objects.label(item, names.MODEL_ID)}"


def _version(item: KubeObject | None) -> object:
    return None if item is None else objects.meta(item).get("resourceVersion")
