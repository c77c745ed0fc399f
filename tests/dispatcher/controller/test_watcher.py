"""dispatcher.controller.watcher: one list, watches that go on where the last one ended, comparisons in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace as changed

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterUnavailable, WatchEvent, WatchExpired
from dispatcher.controller import watcher
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.watcher import Watcher
from tests.dispatcher.controller.scripted_cluster import ScriptedCluster, Step, bookmark
from tests.world.builders import FakeClock, a_job, a_pod, complete

RESYNC = 60.0
BROKEN = ClusterUnavailable("The watch of jobs broke off")
LIVING, FAILED, SUCCEEDED = (
    "status.phase!=Succeeded,status.phase!=Failed",
    "status.phase=Failed",
    "status.phase=Succeeded",
)


class Bench:
    """A watcher on a clock that stands, whose pauses take no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.stopping = FakeClock(), threading.Event()
        self.changed: list[str] = []
        self.cache = ClusterCache(self.changed.append, clock=self.clock)
        self.cluster = ScriptedCluster(self.stopping)
        self.beats = 0
        monkeypatch.setattr(self.stopping, "wait", lambda seconds=None: None)

    def watch(self, *watches: list[Step], kind: str = "jobs", alive: Callable[[], Any] | None = None) -> None:
        self.cluster.watches = list(watches)
        cluster: Any = self.cluster
        Watcher(kind, cluster, self.cache, RESYNC, self.stopping, monotonic=self.clock).run(alive or self.beat)

    def beat(self) -> None:
        self.beats += 1

    def resync_is_due(self) -> None:
        self.clock.advance(RESYNC)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_watch_goes_on_where_the_last_one_ended(bench: Bench) -> None:
    bench.cluster.have(a_job(), version="5")
    bench.watch([WatchEvent("MODIFIED", a_job(version="7"))], [], [bookmark("12")], [])
    assert bench.cluster.versions == ["5", "7", "7", "12"]
    assert bench.cluster.lists == ["list"], "once"
    assert bench.cache.job("model-1") == a_job(version="7")
    assert bench.beats == 4, "one listed, one event, one watch without a word, one bookmark"


def test_a_bookmark_changes_nothing_that_is_known(bench: Bench) -> None:
    bench.cluster.have(a_job())
    bench.watch([bookmark("12"), bookmark("")], [])
    assert bench.cluster.versions == ["1", "12"]
    assert bench.cache.jobs() == [a_job()]
    assert bench.changed == ["model-1"], "when it was listed"


def test_two_failures_are_no_gap_and_three_are(bench: Bench) -> None:
    bench.cluster.have(a_job(), version="5")
    bench.watch([bookmark("6"), BROKEN], [BROKEN], [lambda: bench.cluster.have(version="9"), BROKEN], [])
    assert bench.cluster.versions == ["5", "6", "6", "9"]
    assert bench.cluster.lists == ["list", "list"]
    assert bench.cache.jobs() == []
    assert bench.cache.tombstone("model-1") == a_job()


def test_a_watch_that_ends_as_it_should_begins_the_count_anew(bench: Bench) -> None:
    bench.watch([BROKEN], [BROKEN], [], [BROKEN], [BROKEN], [])
    assert bench.cluster.lists == ["list"]


def test_a_comparison_fetches_what_is_other_and_drops_what_is_gone(bench: Bench) -> None:
    same, older, gone, new = (a_job(model_id=name, uid=name) for name in ("same", "older", "gone", "new"))
    newer = a_job(*complete(), model_id="older", uid="older", version="2")
    bench.cluster.have(same, older, gone, version="5")

    def meanwhile() -> None:
        bench.cluster.have(same, newer, new, version="9")
        bench.resync_is_due()

    bench.watch([meanwhile], [])
    assert bench.cluster.lists == ["list", "metadata"]
    assert sorted(bench.cluster.fetched) == ["model-gone", "model-new", "model-older"]
    assert {job.name: job for job in bench.cache.jobs()} == {job.name: job for job in (same, newer, new)}
    assert bench.cache.tombstone("model-gone") == gone
    assert bench.cluster.versions == ["5", "9"], "from the older one the watch would go back to what was before"


def test_a_job_that_was_reported_meanwhile_is_no_difference_that_stays(bench: Bench) -> None:
    bench.cluster.have(a_job())

    def meanwhile() -> None:
        bench.cluster.have(a_job(reported=True, labels={names.REPORTED: "true"}, version="2"))
        bench.cluster.list_metadata = lambda *_: bench.cluster._listing([])  # type: ignore[method-assign]
        bench.resync_is_due()

    bench.watch([meanwhile], [])
    assert bench.cache.jobs() == []


def test_a_job_that_goes_while_it_is_compared_is_dropped(bench: Bench) -> None:
    bench.cluster.have(a_job())

    def meanwhile() -> None:
        bench.cluster.have(a_job(version="2"))
        bench.cluster.get_job = lambda name: None  # type: ignore[method-assign]
        bench.resync_is_due()

    bench.watch([meanwhile], [])
    assert bench.cache.jobs() == []
    assert bench.cache.tombstone("model-1") == a_job()


def test_a_job_of_the_same_name_is_another_one(bench: Bench) -> None:
    bench.cluster.have(a_job(uid="one"))

    def meanwhile() -> None:
        bench.cluster.have(a_job(uid="two", version="2"))
        bench.resync_is_due()

    bench.watch([meanwhile], [])
    assert bench.cache.jobs() == [a_job(uid="two", version="2")]
    assert bench.cache.tombstone("model-1") == a_job(uid="one")


def test_a_comparison_of_pods_asks_for_each_by_its_name(bench: Bench) -> None:
    bench.cache.replace("jobs", [a_job()])
    pod, gone = a_pod(name="a", phase="Running"), a_pod(name="b", phase="Running")
    newer = a_pod(name="a", phase="Succeeded", version="2")
    unknown = a_pod(name="c", phase="Succeeded", job_uid="reported long ago", model_id="2")
    bench.cluster.have(pod, gone)

    def meanwhile() -> None:
        bench.cluster.have(newer, unknown)
        bench.resync_is_due()

    bench.watch([meanwhile], [], kind="pods")
    assert sorted(bench.cluster.fetched) == ["a", "b"]
    first, second = bench.cache.pods_of(a_job())
    assert first == newer
    assert (second.name, second.is_over) == ("b", True), "the last that is known of it"


def test_a_pod_without_the_label_of_its_model_is_not_taken_for_gone(bench: Bench) -> None:
    pod = a_pod(phase="Running")
    bench.cache.replace("jobs", [a_job()])
    bench.cluster.have(pod)
    labels = changed(pod.labels, model_id=None)
    without = changed(pod, metadata=changed(pod.metadata, labels=labels, resource_version="2"))

    def meanwhile() -> None:
        bench.cluster.have(without)
        bench.resync_is_due()

    bench.watch([meanwhile], [], kind="pods")
    assert bench.cache.pods_of(a_job()) == [without]


def test_a_store_that_is_younger_than_what_is_known_is_listed_anew(bench: Bench) -> None:
    """A watch from a version that it has not reached yet is silent, and nothing says so."""
    bench.cluster.have(a_job(), version="500")

    def restored() -> None:
        bench.cluster.have(a_job(version="30"), version="40")
        bench.resync_is_due()

    bench.watch([restored], [])
    assert bench.cluster.versions == ["500", "40"]
    assert bench.cache.jobs() == [a_job(version="30")]


def test_a_comparison_that_finds_too_much_lists_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_MANY", 2)
    jobs = [a_job(model_id=str(number), uid=str(number)) for number in range(3)]

    def meanwhile() -> None:
        bench.cluster.have(*jobs, version="9")
        bench.resync_is_due()

    bench.watch([meanwhile], [])
    assert bench.cluster.lists == ["list", "metadata", "list"]
    assert bench.cluster.fetched == []
    assert bench.cluster.versions == ["1", "9"]
    assert bench.cache.jobs() == jobs


def test_comparisons_are_rare(bench: Bench) -> None:
    bench.watch([lambda: bench.clock.advance(0.7 * RESYNC)], [bench.resync_is_due], [], [])
    assert bench.cluster.lists == ["list", "metadata"]


def test_it_is_ready_before_the_pods_that_have_ended_are_listed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are as many as there are reported Jobs. Nobody asks for those that have succeeded."""
    waited = bench.cache.wait_listed
    monkeypatch.setattr(bench.cache, "wait_listed", lambda kind, timeout=None: waited(kind, 0))
    running, failed = a_pod(name="a", phase="Running"), a_pod(name="b", phase="Failed")
    foreign = a_pod(name="c", phase="Failed", job_uid="reported long ago", model_id="2")
    bench.cluster.have(running, failed, foreign, a_pod(name="d", phase="Succeeded"), version="5")
    beats: list[bool] = []

    def alive() -> None:
        beats.append(bench.cache.ready)
        if len(beats) == 5:
            assert bench.cluster.lists == [LIVING], "which of the others are wanted only the Jobs tell"
            bench.cache.replace("jobs", [a_job()])

    bench.watch([], kind="pods", alive=alive)
    assert bench.cluster.lists == [LIVING, FAILED]
    assert bench.cache.pods_of(a_job()) == [running, failed]
    assert list(bench.cache._pods) == [running.uid, failed.uid], "nobody asks for the pods of a reported Job"
    assert bench.cluster.versions == ["5"]
    assert not any(beats[:5]), "each is a sign of life, while there is nothing to be ready with"
    assert all(beats[5:])
    assert "model-2" not in bench.changed, "fifty thousand looks at nothing"


def test_after_a_gap_a_pod_that_has_succeeded_is_not_taken_for_deleted(bench: Bench) -> None:
    bench.cache.replace("jobs", [a_job()])
    bench.cluster.have(a_pod(phase="Running"), version="5")
    succeeded = a_pod(phase="Succeeded", version="2")
    bench.watch([lambda: bench.cluster.have(succeeded, version="9"), WatchExpired("410")], [], kind="pods")
    assert bench.cluster.lists == [LIVING, FAILED, LIVING, FAILED, SUCCEEDED]
    assert bench.cache.pods_of(a_job()) == [succeeded]


def test_a_comparison_leaves_out_the_pods_that_have_succeeded(bench: Bench) -> None:
    bench.cache.replace("jobs", [a_job()])
    known, ends = a_pod(name="a", phase="Succeeded"), a_pod(name="b", phase="Running")
    bench.cluster.have(ends)
    ended = a_pod(name="b", phase="Succeeded", version="2")

    def meanwhile() -> None:
        bench.cache.apply("MODIFIED", known)
        bench.cluster.have(known, ended)
        bench.resync_is_due()

    bench.watch([meanwhile], [], kind="pods")
    assert bench.cluster.fetched == ["b"], "what was running and is not listed has ended, or is gone"
    assert sorted(bench.cache.pods_of(a_job()), key=lambda pod: pod.name) == [known, ended]


@pytest.mark.parametrize("kind", ["jobs", "pods"])
def test_what_cannot_be_read_stays_as_it_was_known(bench: Bench, kind: str) -> None:
    """Taken for gone, it would be reported as deleted."""
    bench.cache.replace("jobs", [a_job()])
    known: Any = a_job(version="2") if kind == "jobs" else a_pod(phase="Running")
    bench.cluster.have(known)
    other = a_job(model_id="2", uid="2") if kind == "jobs" else a_pod(name="b", phase="Running")

    def meanwhile() -> None:
        bench.cluster.have(other, version="9")
        bench.cluster.left_out = [known.name]

    bench.watch([meanwhile, WatchExpired("410")], [], kind=kind)
    assert bench.cache.tombstones() == 0
    kept: list[Any] = bench.cache.jobs() if kind == "jobs" else bench.cache.pods_of(a_job())
    assert kept == [known, other]


@pytest.mark.parametrize("kind", ["jobs", "pods"])
def test_one_that_cannot_be_read_does_not_stop_a_comparison(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bench.cache.replace("jobs", [a_job()])
    known: Any = a_job(version="2") if kind == "jobs" else a_pod(phase="Running")
    changed_since: Any = a_job(version="3") if kind == "jobs" else a_pod(phase="Running", version="3")
    new: Any = a_job(model_id="2", uid="2") if kind == "jobs" else a_pod(name="b", phase="Running")
    bench.cluster.have(known)

    def meanwhile() -> None:
        bench.cluster.have(changed_since, new, version="9")
        bench.cluster.unreadable = [known.name]
        bench.resync_is_due()

    bench.watch([meanwhile], [], kind=kind)
    assert bench.cluster.lists.count("metadata") == 1
    assert bench.cluster.versions == ["1", "9"]
    kept: list[Any] = bench.cache.jobs() if kind == "jobs" else bench.cache.pods_of(a_job())
    assert kept == [known, new]


def test_who_waits_for_the_jobs_stops_when_he_is_told_to(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.cache, "wait_listed", lambda kind, timeout=None: False)
    bench.watch([], kind="pods", alive=bench.stopping.set)
    assert bench.cluster.versions == []
    assert not bench.cache.ready


def test_a_pod_that_ends_while_pods_are_listed_is_taken_as_it_ended(bench: Bench) -> None:
    """The three lists are one after the other, and the watch begins with the first."""
    bench.cache.replace("jobs", [a_job()])
    bench.cluster.have(a_pod(phase="Running"), version="5")
    listed = bench.cluster.list_pods

    def list_pods(selector: str, fields: str = "") -> Any:
        found = listed(selector, fields)
        bench.cluster.have(a_pod(phase="Failed", version="2"), version=str(int(bench.cluster.version) + 1))
        return found

    bench.cluster.list_pods = list_pods  # type: ignore[method-assign]
    bench.watch([], kind="pods")
    assert [pod.phase for pod in bench.cache.pods_of(a_job())] == ["Failed"]
    assert bench.cluster.versions == ["5"]
