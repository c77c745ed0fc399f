"""A portal that is away for an hour, at scale and on a simulated clock.

The real WorkQueue, Reconciler and Reporter with a thousand Jobs; only the ports and the clocks are simulated.
Workers are virtual: each call to the portal takes its time on the simulated clock.
"""

from __future__ import annotations

import contextlib
import heapq
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.errors import Listing
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.metadata_repair import MetadataRepair
from dispatcher.controller.pace import Pace
from dispatcher.controller.reconciler import Reconciler
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.decisions.waiting import Limits
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.telemetry.metrics import Metrics
from portal_client.errors import PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.world import json_objects as objects
from tests.world.builders import a_condition, a_pod, job_json, terminated
from tests.world.simulated.world import EPOCH
from training_common.times import rfc3339

S = ProcessingStatus
JOBS = 1000
WORKERS = 8
HOUR, QUARTER = 3600.0, 900.0
# How long one call takes while the portal answers, and while it does not.
ANSWER, TIME_OUT = 0.05, 30.0


class Sky:
    """A portal and a cluster for finished Jobs, on one clock; counts calls by second."""

    def __init__(self, seed: int, back_at: float, spoken: bool) -> None:
        random.seed(seed)
        self.now = 0.0
        self.back_at = back_at
        self.busy = 0.0  # what the calls of the current task have taken
        self.status = {str(n): S.PROCESSING for n in range(JOBS)}
        self.puts: Counter[str] = Counter()
        self.calls: Counter[int] = Counter()
        self.pod_lists: Counter[str] = Counter()
        self.failed_calls = 0
        self.jobs = {f"model-{n}": _finished(n, self.epoch()) for n in range(JOBS)}
        self.pods = [_pod(n, spoken) for n in range(JOBS)]

    def clock(self) -> float:
        return self.now + self.busy

    def epoch(self) -> float:
        return EPOCH + self.clock()

    def _answer(self) -> None:
        at = self.now + self.busy
        self.calls[int(at)] += 1
        if at < self.back_at:
            self.busy += TIME_OUT
            self.failed_calls += 1
            raise PortalUnavailable("down", ambiguous=True)
        self.busy += ANSWER

    def get_model_status(self, model_id: str) -> ModelStatus:
        self._answer()
        return ModelStatus(self.status[model_id], "")

    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        self._answer()
        assert self.status[model_id] is S.PROCESSING
        self.status[model_id] = status
        self.puts[model_id] += 1

    def get_job(self, name: str) -> Job:
        return objects.job(self.jobs[name])

    def patch_job(self, name: str, patch: Any) -> Job:
        job = self.jobs[name]
        wanted = patch["metadata"]
        job["metadata"]["finalizers"] = wanted.get("finalizers", job["metadata"]["finalizers"])
        for kind in ("annotations", "labels"):
            job["metadata"][kind] |= wanted.get(kind, {})
        job["spec"] |= patch.get("spec", {})
        job["metadata"]["resourceVersion"] = str(int(job["metadata"]["resourceVersion"]) + 1)
        return objects.job(job)

    def list_pods(self, selector: str) -> Listing[Pod]:
        self.pod_lists[selector] += 1
        return Listing(iter([([self.pods[int(selector.rpartition("-")[2])]], "1")]))

    def list_events(self, uid: str) -> list[Any]:
        return []


class Workers:
    """That number of workers of one dispatcher: each takes a key and is busy for as long as its calls take."""

    def __init__(self, sky: Sky) -> None:
        self.sky = sky
        self.work = _Work(clock=sky.clock)
        self.cache = ClusterCache(self.work.add, clock=sky.clock)
        ended = EndedJobs(86400)
        reporter = Reporter(sky, sky, Metrics(), ttl=86400, clock=sky.epoch)  # type: ignore[arg-type]
        self.reconciler = Reconciler(
            self.work,
            self.cache,
            sky,  # type: ignore[arg-type]
            SimpleNamespace(identity="this one"),  # type: ignore[arg-type] # nothing is launched
            reporter,
            ModelLocks(),
            MetadataRepair(sky, ended),  # type: ignore[arg-type]
            ended,
            limits=Limits(600, 300, 3600, 300, 3600),
            progress_every=30,
            pace=Pace(5, sky.clock),
            take_on_after=150,
            clock=sky.epoch,
            monotonic=sky.clock,
        )
        self.cache.replace("jobs", map(objects.job, sky.jobs.values()))
        self.cache.replace("pods", sky.pods)
        self.free_at = [0.0] * WORKERS
        self.most_at_once = 0

    def run(self, until: float) -> None:
        while self.sky.now < until:
            while self.free_at[0] <= self.sky.now and self._one():
                continue
            self.most_at_once = max(self.most_at_once, sum(at > self.sky.now for at in self.free_at))
            self.sky.now += 0.25

    def _one(self) -> bool:
        """One free worker's next key; the key is its own until its calls are over."""
        self.sky.busy = 0.0
        with contextlib.suppress(_Idle):
            self.reconciler.run(lambda: None)
        if self.work.taken is None:
            return False
        name, self.work.taken = self.work.taken, None
        known, job = self.cache.job(name), objects.job(self.sky.jobs[name])
        if known is not None and known.metadata.resource_version != job.metadata.resource_version:
            # With the label of a reported Job it leaves the selection, and is told of as it was before that.
            gone = job.labels.reported is not None
            self.cache.apply("DELETED" if gone else "MODIFIED", known if gone else job)
        heapq.heapreplace(self.free_at, self.sky.clock())
        self.sky.busy = 0.0
        return True


class _Idle(BaseException):
    pass


class _Work(WorkQueue):
    """Hands out one key for each turn of the reconciler's loop."""

    taken: str | None = None

    def get(self, timeout: float | None = None) -> str | None:
        if self.taken is not None:
            raise _Idle
        key = super().get(timeout=0)
        if key is None:
            raise _Idle
        self.taken = key
        return key


def _finished(number: int, now: float) -> dict[str, Any]:
    complete = a_condition("Complete", at=now - 60)
    job = job_json(complete, model_id=str(number), uid=f"job-{number}", status={"succeeded": 1})
    job["metadata"]["annotations"][names.LAUNCHED_AT] = rfc3339(now - 60)
    return job


def _pod(number: int, spoken: bool) -> Pod:
    word = '{"code": "Completed", "message": "Model training completed successfully"}' if spoken else None
    ended = terminated(0, word, "Completed")
    return a_pod(name=f"pod-{number}", model_id=str(number), job_uid=f"job-{number}", phase="Succeeded", state=ended)


def test_an_hour_without_the_portal_loses_no_outcome_of_a_thousand() -> None:
    sky = Sky(seed=1, back_at=HOUR, spoken=True)
    workers = Workers(sky)
    workers.run(HOUR + 300)
    assert set(sky.status.values()) == {S.COMPLETED}
    assert all(sky.puts[model] == 1 for model in sky.status)
    assert all(objects.is_reported(job) and not job["metadata"]["finalizers"] for job in sky.jobs.values())


def test_a_portal_that_returns_meets_no_stampede() -> None:
    sky = Sky(seed=2, back_at=HOUR, spoken=True)
    workers = Workers(sky)
    workers.run(HOUR + 300)
    # No second sees more calls than the workers can make one after the other, and never more of them at once.
    assert workers.most_at_once <= WORKERS
    returned = {second: calls for second, calls in sky.calls.items() if second >= HOUR}
    assert max(returned.values()) <= WORKERS / ANSWER
    # While it is away each worker waits for its time-out: a call in a few seconds, not one for each Job.
    assert sky.failed_calls <= WORKERS * (HOUR / TIME_OUT + 1)


def test_a_portal_that_refuses_at_once_is_not_asked_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer without its portal answers 503 in no time: only back-off holds the calls down."""
    monkeypatch.setattr("tests.dispatcher.controller.test_outage_scale.TIME_OUT", 0.01)
    sky = Sky(seed=3, back_at=QUARTER, spoken=True)
    workers = Workers(sky)
    workers.run(QUARTER + 300)
    assert set(sky.status.values()) == {S.COMPLETED}
    # A thousand Jobs, each at most once in 30 to 60 seconds after the first few tries, spread by jitter.
    settled = [sky.calls[second] for second in range(600, int(QUARTER))]
    assert sum(settled) / len(settled) <= JOBS / 30
    assert max(settled) <= 4 * JOBS / 45
    back = [sky.calls[second] for second in range(int(QUARTER), int(QUARTER) + 60)]
    assert max(back) <= WORKERS / ANSWER
    assert sky.pod_lists
    assert max(sky.pod_lists.values()) == 1, "the pods of a Job that a restart has found are asked for once"
