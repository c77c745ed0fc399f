"""The informer's store: what this process knows of its Jobs and pods, filled by a list and kept fresh by a watch.

It may be minutes stale. Whatever cannot be undone asks the API server first. It holds the Jobs that are not reported,
or were just now, and of the others nothing but pods that still run.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace as changed

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.cluster.pods import Pod

# Seconds for which a Job that was created counts unseen: a watch needs milliseconds.
_EXPECTED = 5.0


class _Known(NamedTuple):
    """A Job. since: when it was first seen (the cache's clock); adopted: it was there when this process began."""

    name: str
    since: float
    adopted: bool


class ClusterCache:
    """Jobs by name and pods by uid. Thread-safe. `changed` is called with a Job's name, outside the lock.

    leaves_out(job): whether a Job that is not known need not become so.
    """

    def __init__(
        self,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        leaves_out: Callable[[KubeObject], bool] = lambda job: False,
    ) -> None:
        self._lock = threading.Lock()
        self._changed = changed
        self._clock = clock
        self._leaves_out = leaves_out
        self._jobs: dict[str, Job] = {}
        self._unfinished: dict[str, str] = {}  # name → queue
        self._expected: dict[str, tuple[str, float]] = {}  # name → queue, and until when (the cache's clock)
        self._pods: dict[str, Pod] = {}
        self._pods_of: dict[str, dict[str, Pod]] = {}  # pods and their tombstones, by their Job's uid
        self._known_jobs: dict[str, _Known] = {}  # by the Job's uid
        self._tombstones: dict[str, Job] = {}  # Jobs deleted before their outcome was reported, by name
        self._released: set[str] = set()  # uids of Jobs that were reported
        self._listed = {"jobs": threading.Event(), "pods": threading.Event()}

    def replace(self, kind: str, items: Iterable[KubeObject], left_out: Collection[str] = ()) -> None:
        """Take a fresh list of `jobs` or `pods`: what is not in it is gone. It is read outside the lock.

        left_out: names that are there all the same, looked at when all is read.
        """
        fresh = {_key(item): item for item in items if self._is_wanted(item)}
        with self._lock:
            known = {key: item for key, item in self._known(kind).items() if item.name not in left_out}
            touched = {
                self._job_name(item)
                for key, item in (known | fresh).items()
                if _version(known.get(key)) != _version(fresh.get(key))
            }
            for key, item in known.items():
                if key not in fresh:
                    self._remove(item)
            for item in fresh.values():
                self._put(item)
        self._listed[kind].set()
        for name in touched:
            self._changed(name)

    def apply(self, event_type: str, item: KubeObject) -> None:
        """Take one watch event: ADDED, MODIFIED or DELETED."""
        with self._lock:
            if event_type == "DELETED" or not self._is_wanted(item):
                self._remove(item)
            else:
                self._put(item)
        self._changed(self._job_name(item))

    def add(self, pods: Iterable[Pod]) -> None:
        """Take pods that have ended, where their Jobs are known, from a list that was read after the others."""
        for pod in pods:
            with self._lock:
                if wanted := self._is_wanted(pod):
                    self._put(pod)
            if wanted:
                self._changed(self._job_name(pod))

    def differing(self, kind: str, items: Iterable[KubeObject]) -> Sequence[KubeObject]:
        """What a fresh list of metadata has in another version than the cache, or one of the two has not at all.

        Each of the list's objects is dropped as it is compared. Pods that have succeeded are not compared.
        """
        with self._lock:
            gone = {item.uid: item for item in self._known(kind).values() if not _has_succeeded(item)}
        stale: list[KubeObject] = []
        missing: list[KubeObject] = []
        for item in items:
            known = gone.pop(item.uid, None)
            if known is not None and _version(known) != _version(item):
                stale.append(known)
            # Ended pods of Jobs that are not known are not wanted.
            elif known is None and (not self._leaves_out(item) if kind == "jobs" else _owner(item) in self._known_jobs):
                missing.append(item)
        return [*gone.values(), *stale, *missing]

    def _known(self, kind: str) -> Mapping[str, KubeObject]:
        return self._jobs if kind == "jobs" else self._pods

    def _is_wanted(self, item: KubeObject) -> bool:
        """No pod that has ended, unless its Job is known: there are as many as there are reported Jobs.

        Its Job may become known later: that is found incomplete when it ends, and its pods are asked for.
        """
        if isinstance(item, Pod):
            return not item.is_over or item.owner_uid in self._known_jobs
        return item.uid in self._known_jobs or not self._leaves_out(item)

    def _job_name(self, item: KubeObject) -> str:
        """A pod's label is what anybody may have made of it; its Job is known by uid."""
        if not isinstance(item, Pod):
            return item.name
        known = self._known_jobs.get(item.owner_uid or "")
        return known.name if known else f"model-{item.labels.model_id}"

    def _put(self, item: KubeObject) -> None:
        if isinstance(item, Pod):
            before, self._pods[item.uid] = self._pods.get(item.uid), item
            self._index(item, before)
        elif isinstance(item, Job):
            self._forget_other(item)
            self._jobs[item.name] = item
            self._expected.pop(item.name, None)
            if item.uid not in self._known_jobs:
                adopted = not self._listed["jobs"].is_set()
                self._known_jobs[item.uid] = _Known(item.name, self._clock(), adopted)
            if item.is_finished:
                self._unfinished.pop(item.name, None)
            else:
                self._unfinished[item.name] = item.labels.queue or ""

    def _remove(self, item: KubeObject) -> None:
        if isinstance(item, Pod):
            self._leave_tombstone(item, self._pods.pop(item.uid, None))
        elif isinstance(item, Job):
            self._forget_other(item)
            self._jobs.pop(item.name, None)
            self._unfinished.pop(item.name, None)
            self._forget(item)

    def _forget_other(self, job: Job) -> None:
        """A Job of the same name whose deletion was missed, and so was the creation of its successor."""
        before = self._jobs.get(job.name)
        if before is not None and before.uid != job.uid:
            self._forget(before)

    def _index(self, pod: Pod, before: Pod | None) -> None:
        """before: the last known state of the same pod."""
        # A Job releases a pod whose labels no longer match: a state of it that stayed in the index would never end.
        if before is not None and before.owner_uid != pod.owner_uid:
            self._drop(before)
        self._pods_of.setdefault(pod.owner_uid or "", {})[pod.uid] = pod

    def _drop(self, pod: Pod) -> None:
        owner = pod.owner_uid or ""
        kept = self._pods_of.get(owner, {})
        kept.pop(pod.uid, None)
        if not kept:
            self._pods_of.pop(owner, None)  # usually the Job goes first, and nothing else would remove the entry

    def _leave_tombstone(self, pod: Pod, before: Pod | None) -> None:
        """Keep a deleted pod's last state as long as its Job is known: an eviction, for one, deletes the pod."""
        if pod.owner_uid not in self._known_jobs:
            for state in (before, pod):
                if state is not None:
                    self._drop(state)
            return
        if not pod.is_over:
            when = pod.metadata.deletion_timestamp or pod.metadata.creation_timestamp
            metadata = changed(pod.metadata, deletion_timestamp=when)
            pod = changed(pod, metadata=metadata, status=changed(pod.status, phase="Failed"))
        self._index(pod, before)

    def _forget(self, job: Job) -> None:
        uid = job.uid
        self._known_jobs.pop(uid, None)
        # Its ended pods and the tombstones go with it; what still runs stays until it ends.
        for key, pod in self._pods_of.pop(uid, {}).items():
            if pod.is_over:
                self._pods.pop(key, None)
            elif key in self._pods:
                self._index(pod, None)
        # A Job that leaves the selection, or was being deleted, by the patch that reports it arrives as DELETED in the
        # state *before* that patch (measured on 1.36): whether it was reported, only the reporter knows.
        if uid in self._released:
            self._released.discard(uid)
        elif not job.is_reported:
            self._tombstones[job.name] = job

    def job(self, name: str) -> Job | None:
        with self._lock:
            return self._jobs.get(name)

    def pods_of(self, job: Job) -> list[Pod]:
        """The pods that this very Job (by uid) controls, with the tombstones of those that are gone."""
        with self._lock:
            return list(self._pods_of.get(job.uid, {}).values())

    def tombstone(self, name: str) -> Job | None:
        """The last state of a Job that was deleted by force before its outcome was reported, or left the selection."""
        with self._lock:
            return self._tombstones.get(name)

    def drop_tombstone(self, name: str) -> None:
        with self._lock:
            self._tombstones.pop(name, None)

    def tombstones(self) -> int:
        """The number of Jobs whose deletion is not reconciled yet."""
        return len(self._tombstones)

    def released(self, job: Job) -> None:
        """The Job was reported and its finalizer is off: its deletion leaves no tombstone."""
        with self._lock:
            if job.name in self._jobs and self._jobs[job.name].uid == job.uid:
                self._released.add(job.uid)
            elif job.name in self._tombstones and self._tombstones[job.name].uid == job.uid:
                del self._tombstones[job.name]

    def is_behind(self, job: Job) -> bool:
        """Whether this state of the Job is from before we reported it."""
        with self._lock:
            return job.uid in self._released and not job.is_reported

    def jobs(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())

    def seen(self) -> list[tuple[Job, *tuple[Pod, ...]]]:
        """Every Job, followed by what `pods_of` has of it, at one moment."""
        none: dict[str, Pod] = {}
        with self._lock:
            return [(job, *self._pods_of.get(job.metadata.uid, none).values()) for job in self._jobs.values()]

    def unfinished(self) -> int:
        """The number of Jobs that hold or wait for a GPU: counted anew each time, never up and down."""
        return len(self._unfinished)

    def unfinished_by_queue(self) -> Counter[str]:
        """The same by queue; "" where the Job names none. With those that were just created, and are not seen yet."""
        with self._lock:
            self._expected = {name: entry for name, entry in self._expected.items() if entry[1] > self._clock()}
            return Counter([*self._unfinished.values(), *(queue for queue, _ in self._expected.values())])

    def expect(self, name: str, queue: str) -> None:
        """Count a Job that was just created until it is seen. One that never comes is forgotten by itself."""
        with self._lock:
            if name not in self._jobs:
                self._expected[name] = queue, self._clock() + _EXPECTED

    def seconds_known(self, job: Job) -> float:
        """For how long this process has known the Job, by its own clock: no clock of another machine is compared."""
        with self._lock:
            known = self._known_jobs.get(job.uid)
        return 0.0 if known is None else self._clock() - known.since

    def is_adopted(self, job: Job) -> bool:
        """Whether it was there when this process began: pods of it that had succeeded by then were not listed."""
        with self._lock:
            known = self._known_jobs.get(job.uid)
        return known is not None and known.adopted

    def complete(self, job: Job, pods: Iterable[Pod]) -> None:
        """These are all pods of the Job that there are: an outcome that is tried again and again asks for them once."""
        with self._lock:
            seen = self._pods_of.get(job.uid, {})
            fresh = [pod for pod in pods if seen.get(pod.uid) is not pod]
        self.add(fresh)
        with self._lock:
            if (known := self._known_jobs.get(job.uid)) is not None:
                self._known_jobs[job.uid] = known._replace(adopted=False)

    def may_have_ended(self, name: str) -> bool:
        """Whether the Job's outcome may be due: it, or a pod of it, is over, or it is being deleted, or was."""
        with self._lock:
            job = self._jobs.get(name)
            if job is None or name in self._tombstones:
                return name in self._tombstones
            pods = self._pods_of.get(job.uid, {}).values()
            return job.is_finished or job.is_deleting or any(pod.is_over for pod in pods)

    def wait_listed(self, kind: str, timeout: float | None = None) -> bool:
        """Whether `jobs` or `pods` were listed once."""
        return self._listed[kind].wait(timeout)

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Whether Jobs, and the pods that had not ended, were both listed once; the timeout is for each."""
        return self._listed["pods"].wait(timeout) and self._listed["jobs"].wait(timeout)

    @property
    def ready(self) -> bool:
        return all(listed.is_set() for listed in self._listed.values())


def _key(item: KubeObject) -> str:
    return item.uid if isinstance(item, Pod) else item.name


def _owner(item: KubeObject) -> str | None:
    return next((owner.uid for owner in item.metadata.owner_references if owner.controller), item.labels.pod_of)


def _has_succeeded(item: KubeObject) -> bool:
    return isinstance(item, Pod) and item.phase == "Succeeded"


def _version(item: KubeObject | None) -> str | None:
    return None if item is None else item.metadata.resource_version
