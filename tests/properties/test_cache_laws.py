"""The cache equals a simple model after any sequence of lists and watch events."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from tests.world.builders import a_job, a_pod

IDS = st.sampled_from(["1", "2", "3"])


class CacheMachine(RuleBasedStateMachine):
    """`cluster` is the API server; the cache hears of it by events, of which some are lost until the next list."""

    @initialize()
    def start(self) -> None:
        self.version = 0
        self.jobs: dict[str, Job] = {}
        self.pods: dict[str, Pod] = {}
        self.seen: set[str] = set()  # uids of Jobs that the cache knows of
        self.expected_tombstones: dict[str, str] = {}  # name → uid
        self.told: set[str] = set()
        self.cache = ClusterCache(self.told.add)
        self.behind = False

    def next_version(self) -> str:
        self.version += 1
        return str(self.version)

    def tell(self, event: str, item: KubeObject, lost: bool) -> None:
        if lost:
            self.behind = True
            return
        self.told.clear()
        self.cache.apply(event, item)
        assert len(self.told) == 1, "every event names its Job"

    @rule(model=IDS, lost=st.booleans())
    def create_or_change_job(self, model: str, lost: bool) -> None:
        name = f"model-{model}"
        version = self.next_version()
        known = self.jobs.get(name)
        uid = known.uid if known else f"uid-{version}"
        self.jobs[name] = a_job(model_id=model, uid=uid, version=version)
        self.tell("MODIFIED" if known else "ADDED", self.jobs[name], lost)

    @rule(model=IDS, lost=st.booleans())
    def report_job(self, model: str, lost: bool) -> None:
        name = f"model-{model}"
        if name in self.jobs:
            uid = self.jobs[name].uid
            self.jobs[name] = a_job(model_id=model, uid=uid, version=self.next_version(), reported=True)
            self.tell("MODIFIED", self.jobs[name], lost)

    @rule(model=IDS, lost=st.booleans())
    def remove_job(self, model: str, lost: bool) -> None:
        if (job := self.jobs.pop(f"model-{model}", None)) is not None:
            self.tell("DELETED", job, lost)

    @rule(model=IDS, number=st.integers(0, 1), lost=st.booleans())
    def create_or_change_pod(self, model: str, number: int, lost: bool) -> None:
        if (job := self.jobs.get(f"model-{model}")) is None:
            return
        name = f"{job.uid}-{number}"
        event = "MODIFIED" if name in self.pods else "ADDED"
        self.pods[name] = a_pod(name=name, uid=name, model_id=model, job_uid=job.uid, version=self.next_version())
        self.tell(event, self.pods[name], lost)

    @rule(data=st.data(), lost=st.booleans())
    def remove_pod(self, data: st.DataObject, lost: bool) -> None:
        if self.pods:
            pod = self.pods.pop(data.draw(st.sampled_from(sorted(self.pods))))
            self.tell("DELETED", pod, lost)

    @rule()
    def list_anew(self) -> None:
        before = {kind: self.known(kind) for kind in ("jobs", "pods")}
        self.told.clear()
        self.cache.replace("jobs", self.jobs.values())
        self.cache.replace("pods", self.pods.values())
        changed = {
            f"model-{item.model_id}"
            for kind, fresh in (("jobs", self.jobs), ("pods", self.pods))
            for key in set(before[kind]) | set(fresh)
            for item in [fresh.get(key) or before[kind][key]]
            if before[kind].get(key) != fresh.get(key)
        }
        assert self.told == changed, "a list names what changed, and nothing else"
        assert self.cache.ready
        self.behind = False

    def known(self, kind: str) -> Mapping[str, KubeObject]:
        if kind == "jobs":
            return {job.name: job for job in self.cache.jobs()}
        return {pod.name: pod for pod in self.cache._pods.values()}

    @invariant()
    def it_is_what_the_cluster_has_unless_something_was_lost(self) -> None:
        if not self.behind:
            assert self.known("jobs") == self.jobs
            assert self.known("pods") == self.pods
            for job in self.jobs.values():
                uid = job.uid
                theirs = [pod for pod in self.pods.values() if pod.owner_uid == uid]
                shown = self.cache.pods_of(job)
                living = [pod for pod in shown if pod.name in self.pods]
                assert sorted(pod.name for pod in living) == sorted(pod.name for pod in theirs)
                assert all(pod.is_over for pod in shown if pod not in living), "the dead run nothing"

    @invariant()
    def only_what_was_not_reported_is_missed(self) -> None:
        gone = [self.cache.tombstone(f"model-{model}") for model in ("1", "2", "3")]
        missed = [job for job in gone if job is not None]
        assert self.cache.tombstones() == len(missed)
        assert not any(job.is_reported for job in missed)

    @invariant()
    def nothing_is_remembered_of_jobs_that_are_gone(self) -> None:
        uids = {job.uid for job in self.cache.jobs()}
        assert set(self.cache._known_jobs) == uids
        for uid, pods in self.cache._pods_of.items():
            assert uid in uids or (pods and pods.keys() <= self.cache._pods.keys()), "for days, a little of each Job"

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.list_anew()
            self.it_is_what_the_cluster_has_unless_something_was_lost()


CacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestTheCacheEqualsItsModel = CacheMachine.TestCase
