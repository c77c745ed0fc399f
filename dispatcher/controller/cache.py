"""What the dispatcher knows of its Jobs and pods: rebuilt from a list, kept fresh by a watch, never trusted alone.

A destructive act asks the API server first; everything else may be a few seconds old.
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
        self._pods_of: dict[str, dict[str, KubeObject]] = {}  # the same pods by their Job's uid
        self._first_seen: dict[str, float] = {}
        self._tombstones: dict[str, KubeObject] = {}
        self._released: set[str] = set()
        self._listed: set[str] = set()
        self._ready = threading.Event()

    def replace(self, kind: str, items: Iterable[KubeObject]) -> None:
        """A fresh list of `jobs` or `pods`: what is not in it is gone."""
        with self._lock:
            before = self._jobs if kind == "jobs" else self._pods
            fresh = {_key(kind, item): item for item in items}
            touched = {
                _job_name(kind, item)
                for key, item in (before | fresh).items()
                if _version(before.get(key)) != _version(fresh.get(key))
            }
            if kind == "jobs":
                for name, job in before.items():
                    if name not in fresh or objects.uid_of(fresh[name]) != objects.uid_of(job):
                        self._forget(job)
                self._jobs = fresh
                for job in fresh.values():
                    self._first_seen.setdefault(objects.uid_of(job), self._clock())
            else:
                self._pods = fresh
                for uid, pod in before.items():
                    if uid not in fresh:
                        self._leave_tombstone(pod)
                for uid, pod in fresh.items():
                    self._index(pod, before.get(uid))
            self._listed.add(kind)
            if self._listed == {"jobs", "pods"}:
                self._ready.set()
        for name in touched:
            self._changed(name)

    def apply(self, kind: str, event_type: str, item: KubeObject) -> None:
        """One watch event: ADDED, MODIFIED or DELETED."""
        key = _key(kind, item)
        with self._lock:
            known = self._jobs if kind == "jobs" else self._pods
            if event_type == "DELETED":
                before = known.pop(key, None)
                if kind == "jobs":
                    if before is not None and objects.uid_of(before) != objects.uid_of(item):
                        self._forget(before)  # the one that we knew went unheard, and so did the coming of this one
                    self._forget(item)
                else:
                    self._leave_tombstone(item, before)
            else:
                before = known.get(key)
                known[key] = item
                if kind == "jobs":
                    if before is not None and objects.uid_of(before) != objects.uid_of(item):
                        self._forget(before)
                    self._first_seen.setdefault(objects.uid_of(item), self._clock())
                else:
                    self._index(item, before)
        self._changed(_job_name(kind, item))

    def _index(self, pod: KubeObject, before: KubeObject | None = None) -> None:
        """before: what was known of the same pod."""
        self._unlink(pod, before)
        self._pods_of.setdefault(objects.owner_uid(pod) or "", {})[objects.uid_of(pod)] = pod

    def _unlink(self, pod: KubeObject, before: KubeObject | None) -> None:
        # A pod whose labels no longer match is let go by its Job: an old state of it that stayed would never end.
        if before is not None and objects.owner_uid(before) != objects.owner_uid(pod):
            self._drop(objects.owner_uid(before) or "", pod)

    def _drop(self, owner: str, pod: KubeObject) -> None:
        kept = self._pods_of.get(owner, {})
        kept.pop(objects.uid_of(pod), None)
        if not kept:
            self._pods_of.pop(owner, None)  # usually the Job goes first, and nothing else would

    def _leave_tombstone(self, pod: KubeObject, before: KubeObject | None = None) -> None:
        """A pod is gone; what it last said is remembered as long as its Job is there (an eviction deletes the pod)."""
        self._unlink(pod, before)
        if objects.owner_uid(pod) not in self._first_seen:
            self._drop(objects.owner_uid(pod) or "", pod)
            return
        if objects.pod_is_over(pod):
            self._index(pod)
            return
        status = {**(pod.get("status") or {}), "phase": "Failed"}
        metadata = {**objects.meta(pod)}
        metadata.setdefault("deletionTimestamp", metadata.get("creationTimestamp"))
        self._index({**pod, "metadata": metadata, "status": status})

    def _forget(self, job: KubeObject) -> None:
        uid = objects.uid_of(job)
        self._first_seen.pop(uid, None)
        self._pods_of_gone(uid)
        # A Job that was being deleted when its finalizer was taken off arrives as DELETED in the state *before* that
        # patch (measured on 1.36): whether it was reported, only the reporter knows.
        if uid in self._released:
            self._released.discard(uid)
            return
        # Taken away by force, and unreported.
        if not objects.is_reported(job):
            self._tombstones[objects.name_of(job)] = job

    def _pods_of_gone(self, uid: str) -> None:
        """Keep only those that the API server still has."""
        kept = {key: pod for key, pod in self._pods_of.get(uid, {}).items() if key in self._pods}
        if kept:
            self._pods_of[uid] = kept
        else:
            self._pods_of.pop(uid, None)

    def job(self, name: str) -> KubeObject | None:
        with self._lock:
            return self._jobs.get(name)

    def pods_of(self, job: KubeObject) -> list[KubeObject]:
        """The pods that this very Job controls."""
        uid = objects.uid_of(job)
        with self._lock:
            return list(self._pods_of.get(uid, {}).values())

    def tombstone(self, name: str) -> KubeObject | None:
        """The last state of a Job that disappeared before it was reported."""
        with self._lock:
            return self._tombstones.get(name)

    def released(self, job: KubeObject) -> None:
        """The Job was reported and its finalizer is off: when it disappears, nothing is missing."""
        with self._lock:
            known = self._jobs.get(objects.name_of(job))
            if known is not None and objects.uid_of(known) == objects.uid_of(job):
                self._released.add(objects.uid_of(job))
            elif self._gone(job):
                del self._tombstones[objects.name_of(job)]

    def _gone(self, job: KubeObject) -> bool:
        gone = self._tombstones.get(objects.name_of(job))
        return gone is not None and objects.uid_of(gone) == objects.uid_of(job)

    def drop_tombstone(self, name: str) -> None:
        with self._lock:
            self._tombstones.pop(name, None)

    def jobs(self) -> list[KubeObject]:
        with self._lock:
            return list(self._jobs.values())

    def names(self) -> list[str]:
        """Every Job that there may be something to do for."""
        with self._lock:
            return [*self._jobs, *(name for name in self._tombstones if name not in self._jobs)]

    def unfinished(self) -> int:
        """How many Jobs hold or wait for a GPU: derived from the list, never counted."""
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
