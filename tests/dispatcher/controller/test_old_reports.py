"""An upgrade finds tens of thousands of Jobs that an older version has reported: they cost a label each, no memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from dispatcher.cluster import names
from dispatcher.cluster.errors import Item, Listing, ObjectNotFound, WatchExpired
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.old_reports import OldReports
from tests.world.builders import T0, FakeClock, a_job, complete
from training_common.times import rfc3339


def an_old(model_id: str, reported_at: float = T0, finalizer: bool = False, **annotations: str) -> Job:
    job = a_job(*complete(), model_id=model_id, uid=f"uid-{model_id}", reported=True)
    notes = replace(job.annotations, reported_at=rfc3339(reported_at), **annotations)
    kept = (names.FINALIZER,) if finalizer else ()
    return replace(job, metadata=replace(job.metadata, annotations=notes, finalizers=kept))


class Bench(threading.Event):
    """Jobs without the label, the cluster that has them, and the event that stops the dispatcher: its waits pass time.

    labelled: when each got it. expires: how many objects a list can be read for.
    """

    def __init__(self, *jobs: Job) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.jobs = {job.name: job for job in jobs}
        self.labelled: dict[str, float] = {}
        self.expires = 10**9
        self.lists = 0
        self.ended = EndedJobs(ttl=86400)
        cluster: Any = self
        self.old = OldReports(cluster, self.ended, self, lambda: T0 + 7200, self.clock)
        self.cache = ClusterCache(lambda name: None, self.clock, self.old.leaves_out)

    def wait(self, timeout: float | None = None) -> bool:
        self.clock.advance(timeout or 0.0)
        return self.is_set()

    def list_jobs(self) -> Listing[Job]:
        return _listing(list(self.jobs.values()))

    def list_metadata(self, kind: str, selector: str) -> Listing[KubeObject]:
        assert (kind, selector) == ("jobs", names.UNREPORTED_JOBS)
        self.lists += 1
        items = [KubeObject(job.metadata) for job in self.jobs.values()]

        def pages() -> Iterator[tuple[list[KubeObject], str]]:
            yield items[: self.expires], "1"
            if len(items) > self.expires:
                raise WatchExpired("The provided continue parameter is too old")

        return Listing(pages())

    def patch_job(self, name: str, patch: dict[str, Any]) -> None:
        if name not in self.jobs:
            raise ObjectNotFound(name)
        assert patch == {"metadata": {"uid": self.jobs[name].uid, "labels": {names.REPORTED: "true"}}}
        self.labelled[name] = self.clock()
        del self.jobs[name]


def _listing(items: Sequence[Item]) -> Listing[Item]:
    return Listing(iter([(items, "1")]))


def test_none_of_them_becomes_known_and_all_get_their_label_at_a_bounded_pace() -> None:
    running = a_job(model_id="running", uid="running")
    bench = Bench(running, *(an_old(str(number)) for number in range(1000)))
    bench.cache.replace("jobs", bench.list_jobs())
    assert bench.cache.jobs() == [running]
    began = bench.clock()
    while not bench.old.label():
        pass
    assert len(bench.labelled) == 1000
    assert list(bench.jobs) == [running.name]
    assert bench.clock() - began >= 1000 / 25, "twenty-five a second at most"
    assert bench.ended.get("model-7") is not None, "the status page shows the newest"


def test_a_pass_takes_minutes_and_the_next_goes_on_where_it_was() -> None:
    bench = Bench(*(an_old(str(number)) for number in range(6000)))
    bench.cache.replace("jobs", bench.list_jobs())
    began = bench.clock()
    assert not bench.old.label()
    assert bench.clock() - began <= 300
    assert bench.old.label()
    assert len(bench.labelled) == 6000


def test_a_list_that_is_too_old_to_go_on_is_begun_anew_with_those_that_are_left() -> None:
    bench = Bench(*(an_old(str(number)) for number in range(25)))
    bench.expires = 10
    bench.cache.replace("jobs", bench.list_jobs())
    assert [bench.old.label() for _ in range(3)] == [False, False, True]
    assert len(bench.labelled) == 25


def test_nothing_is_listed_where_there_is_none() -> None:
    bench = Bench(a_job())
    bench.cache.replace("jobs", bench.list_jobs())
    assert bench.old.label()
    assert bench.lists == 0


def test_one_that_a_watch_shows_later_is_labelled_then() -> None:
    """Somebody took the label off."""
    bench = Bench()
    bench.cache.replace("jobs", [])
    assert bench.old.label()
    bench.jobs["model-1"] = an_old("1")
    bench.cache.apply("ADDED", bench.jobs["model-1"])
    assert bench.cache.jobs() == []
    assert bench.old.label()
    assert list(bench.labelled) == ["model-1"]


def test_who_needs_more_than_a_label_becomes_known() -> None:
    recent = an_old("recent", reported_at=T0 + 7000)
    late = an_old("late", launched_at=rfc3339(T0 + 60))
    held = an_old("held", finalizer=True)
    bench = Bench(recent, late, held)
    bench.cache.replace("jobs", bench.list_jobs())
    assert len(bench.cache.jobs()) == 3
    assert bench.old.label()
    assert bench.labelled == {}


def test_it_ends_when_the_dispatcher_does_and_one_that_is_gone_holds_up_nobody() -> None:
    bench = Bench(*(an_old(str(number)) for number in range(3)))
    bench.cache.replace("jobs", bench.list_jobs())
    listed = bench.list_metadata("jobs", names.UNREPORTED_JOBS)
    del bench.jobs["model-0"]
    bench.list_metadata = lambda kind, selector: listed  # type: ignore[method-assign]
    assert bench.old.label()
    assert list(bench.labelled) == ["model-1", "model-2"]
    bench.cache.apply("ADDED", an_old("4"))
    bench.set()
    bench.jobs = {"model-4": an_old("4")}
    bench.list_metadata = lambda kind, selector: _listing([KubeObject(an_old("4").metadata)])  # type: ignore[method-assign]
    assert not bench.old.label()
    assert "model-4" not in bench.labelled
