"""The cache equals a simple model after any sequence of lists and watch events."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatcher.cluster import objects
from dispatcher.controller.cache import ClusterCache
from tests.world.builders import a_job, a_pod

IDS = st.sampled_from(["1", "2", "3"])


class CacheMachine(RuleBasedStateMachine):
    """`cluster` is the API server; the cache hears of it by events, of which some are lost until the next list."""

    @initialize()
    def start(self) -> None:
        self.version = 0
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()  # uids of Jobs that the cache knows of
        self.expected_tombstones: dict[str, str] = {}  # name → uid
        self.told: set[str] = set()
        self.cache = ClusterCache(self.told.add)
        self.behind = False

    def next_version(self) -> str:
        self.version += 1
        return str(self.version)

    def tell(self, kind: str, event: str, item: dict[str, Any], lost: bool) -> None:
        if lost:
            self.behind = True
            return
        self.told.clear()
        self.cache.apply(kind, event, item)
        assert len(self.told) == 1, "every event names its Job"

    @rule(model=IDS, lost=st.booleans())
    def create_or_change_job(self, model: str, lost: bool) -> None:
        name = f"model-{model}"
        version = self.next_version()
        known = self.jobs.get(name)
        uid = objects.uid_of(known) if known else f"uid-{version}"
        self.jobs[name] = a_job(model_id=model, uid=uid, version=version)
        self.tell("jobs", "MODIFIED" if known else "ADDED", self.jobs[name], lost)

    @rule(model=IDS, lost=st.booleans())
    def report_job(self, model: str, lost: bool) -> None:
        name = f"model-{model}"
        if name in self.jobs:
            uid = objects.uid_of(self.jobs[name])
            self.jobs[name] = a_job(model_id=model, uid=uid, version=self.next_version(), reported=True)
            self.tell("jobs", "MODIFIED", self.jobs[name], lost)

    @rule(model=IDS, lost=st.booleans())
    def remove_job(self, model: str, lost: bool) -> None:
        if (job := self.jobs.pop(f"model-{model}", None)) is not None:
            self.tell("jobs", "DELETED", job, lost)

    @rule(model=IDS, number=st.integers(0, 1), lost=st.booleans())
    def create_or_change_pod(self, model: str, number: int, lost: bool) -> None:
        if (job := self.jobs.get(f"model-{model}")) is None:
            return
        name = f"{objects.uid_of(job)}-{number}"
        event = "MODIFIED" if name in self.pods else "ADDED"
        self.pods[name] = a_pod(
            name=name, uid=name, model_id=model, job_uid=objects.uid_of(job), version=self.next_version()
        )
        self.tell("pods", event, self.pods[name], lost)

    @rule(data=st.data(), lost=st.booleans())
    def remove_pod(self, data: st.DataObject, lost: bool) -> None:
        if self.pods:
            pod = self.pods.pop(data.draw(st.sampled_from(sorted(self.pods))))
            self.tell("pods", "DELETED", pod, lost)

    @rule()
    def list_anew(self) -> None:
        before = {kind: self.known(kind) for kind in ("jobs", "pods")}
        self.told.clear()
        self.cache.replace("jobs", self.jobs.values())
        self.cache.replace("pods", self.pods.values())
        changed = {
            f"model-{objects.model_id_of(item)}"
            for kind, fresh in (("jobs", self.jobs), ("pods", self.pods))
            for key in set(before[kind]) | set(fresh)
            for item in [fresh.get(key) or before[kind][key]]
            if before[kind].get(key) != fresh.get(key)
        }
        assert self.told == changed, "a list names what changed, and nothing else"
        assert self.cache.ready
        self.behind = False

    def known(self, kind: str) -> dict[str, Any]:
        if kind == "jobs":
            return {objects.name_of(job): job for job in self.cache.jobs()}
        return {objects.name_of(pod): pod for pod in self.cache._pods.values()}

    @invariant()
    def it_is_what_the_cluster_has_unless_something_was_lost(self) -> None:
        if not self.behind:
            assert self.known("jobs") == self.jobs
            assert self.known("pods") == self.pods
            for job in self.jobs.values():
                uid = objects.uid_of(job)
                theirs = [pod for pod in self.pods.values() if objects.owner_uid(pod) == uid]
                shown = self.cache.pods_of(job)
                living = [pod for pod in shown if objects.name_of(pod) in self.pods]
                assert sorted(map(objects.name_of, living)) == sorted(map(objects.name_of, theirs))
                assert all(objects.pod_is_over(pod) for pod in shown if pod not in living), "the dead run nothing"

    @invariant()
    def whatever_there_is_to_do_is_named(self) -> None:
        named = self.cache.names()
        assert len(named) == len(set(named))
        assert set(named) >= {objects.name_of(job) for job in self.cache.jobs()}
        for name in ("model-1", "model-2", "model-3"):
            gone = self.cache.tombstone(name)
            assert (gone is None) or name in named
            assert (gone is None) or not objects.is_reported(gone), "only what was not reported is missed"

    @invariant()
    def nothing_is_remembered_of_jobs_that_are_gone(self) -> None:
        uids = {objects.uid_of(job) for job in self.cache.jobs()}
        assert set(self.cache._first_seen) == uids
        for uid, pods in self.cache._pods_of.items():
            assert uid in uids or (pods and pods.keys() <= self.cache._pods.keys()), "for days, a little of each Job"

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.list_anew()
            self.it_is_what_the_cluster_has_unless_something_was_lost()


CacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestTheCacheEqualsItsModel = CacheMachine.TestCase
