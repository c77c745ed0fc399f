"""The Job controller: makes pods for Jobs, counts them, decides when a Job is done, and clears up after its TTL."""

from __future__ import annotations

import time

from local_stack.cluster.controllers import job_policy as policy
from local_stack.cluster.controllers.job_context import BATCH, Controller
from local_stack.cluster.controllers.job_sync import JobSync
from local_stack.cluster.controllers.work_queue import WorkQueue
from local_stack.cluster.registry.events import Recorder
from local_stack.cluster.registry.objects import Key, Obj, seconds_of
from local_stack.cluster.registry.resources import JOBS
from local_stack.cluster.registry.rules import DeleteOptions
from local_stack.cluster.registry.store import Change
from local_stack.cluster.registry.writes import Registry


class JobController:
    """Acts on every Job of the registry. `backoff`: seconds of the wait after a first failure."""

    def __init__(self, registry: Registry, *, backoff: float) -> None:
        self._registry = registry
        self._store = registry.store
        self._queue = WorkQueue(self._sync)
        recorder = Recorder(self._store, "job-controller")
        self._shared = Controller(registry, self._queue, recorder, backoff)
        self._syncing = False

    def start(self) -> None:
        """Begin to listen. Needs a running event loop."""
        self._store.listen("jobs", self._job_changed)
        self._store.listen("pods", self._pod_changed)

    def stop(self) -> None:
        """End all waits."""
        self._queue.stop()

    def _job_changed(self, change: Change) -> None:
        meta = change.stored.obj["metadata"]
        if change.kind == "DELETED":
            self._shared.forget(meta["uid"])
        if not self._syncing:
            self._queue.add((meta["namespace"], meta["name"]))

    def _pod_changed(self, change: Change) -> None:
        pod = change.stored.obj
        if self._syncing and change.kind == "ADDED":
            return
        for owner in pod["metadata"].get("ownerReferences") or ():
            if owner["kind"] == "Job" and owner.get("controller"):
                self._queue.add((pod["metadata"]["namespace"], owner["name"]), BATCH)

    def _sync(self, key: Key) -> None:
        job = self._store.get("jobs", *key)
        if job is None:
            return
        done = policy.finished(job["status"])
        self._syncing = True
        try:
            if done:
                self._expire(job, done)
            else:
                JobSync(self._shared, job).run()
        finally:
            self._syncing = False

    def _expire(self, job: Obj, done: Obj) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        meta = job["metadata"]
        if ttl is None or meta.get("deletionTimestamp"):
            return
        left = seconds_of(done["lastTransitionTime"]) + ttl - time.time()
        if left > 0:
            self._queue.add((meta["namespace"], meta["name"]), left)
            return
        options = DeleteOptions(policy="Foreground", uid=meta["uid"])
        self._registry.delete(JOBS, meta["namespace"], meta["name"], options)
