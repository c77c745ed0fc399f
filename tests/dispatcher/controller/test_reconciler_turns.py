"""Dispatchers side by side: who launched a Job reports it; the others step in when he does not."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterUnavailable, Listing
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.metadata_repair import MetadataRepair
from dispatcher.controller.pace import Pace
from dispatcher.controller.reconciler import Reconciler
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.launch.model_locks import ModelLocks
from portal_client.errors import ModelUnknown, PortalUnavailable
from tests.world.builders import JOB_UID, LIMITS, T0, FakeClock, a_job, a_pod, complete, failed, running, terminated
from training_common.times import rfc3339

OURS, THEIRS = "0a0a0a0a", "0b0b0b0b"


class Bench:
    """A reconciler before a cache that the test fills."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = ClusterCache(lambda name: None, clock=self.clock)
        self.cache.replace("pods", [])
        self.cluster = Mock()
        self.have()
        self.reporter = Mock(lag=60.0)
        self.reporter.report.return_value = None
        launcher = Mock()
        launcher.identity = OURS
        self.work = WorkQueue(clock=self.clock)
        self.ended = EndedJobs(3600)
        self.reconciler = Reconciler(
            self.work,
            self.cache,
            self.cluster,
            launcher,
            self.reporter,
            ModelLocks(),
            MetadataRepair(self.cluster, self.ended),
            self.ended,
            limits=LIMITS,
            progress_every=30,
            pace=Pace(5, self.clock),
            take_on_after=270,
            clock=lambda: T0 + self.clock.now,
            monotonic=self.clock,
        )

    def have(self, *pods: Pod) -> None:
        """What the API server answers, whatever the cache has."""
        self.cluster.list_pods.side_effect = lambda selector: Listing(iter([(pods, "1")]))

    def see(self, job: Job, *pods: Pod) -> None:
        self.cache.replace("jobs", [job])
        self.cache.replace("pods", pods)

    def reported(self) -> int:
        self.reconciler.reconcile("model-1")
        return int(self.reporter.report.call_count)

    def second(self) -> None:
        """One passes, and what is due then is done."""
        self.clock.advance(1)
        while (name := self.work.get(0)) is not None:
            self.reconciler.reconcile(name)
            self.work.done(name)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def noted(job: Job, **annotations: str) -> Job:
    return replace(job, metadata=replace(job.metadata, annotations=replace(job.annotations, **annotations)))


def _ended(launched_by: str | None) -> Job:
    job = a_job(*complete())
    return job if launched_by is None else noted(job, launched_by=launched_by)


@pytest.mark.parametrize("launched_by", [OURS, None], ids=["ours", "nobody's"])
def test_the_one_that_launched_a_job_reports_it_at_once(bench: Bench, launched_by: str | None) -> None:
    bench.see(_ended(launched_by), a_pod(phase="Succeeded"))
    assert bench.reported() == 1


def test_another_one_waits_for_its_report_and_steps_in_when_it_does_not_come(bench: Bench) -> None:
    bench.see(_ended(THEIRS), a_pod(phase="Succeeded"))
    assert bench.reported() == 0
    bench.clock.advance(4)
    assert bench.reported() == 1


def test_an_end_whose_pods_were_not_heard_of_is_told_in_the_trainers_words(bench: Bench) -> None:
    """The watch of pods is silent; the API server has them."""
    said = '{"message": "Invalid dataset: it is empty", "code": "DatasetInvalid", "exit": 65}'
    pod = a_pod(phase="Failed", state=terminated(65, said))
    bench.have(pod)
    bench.see(a_job(*failed("PodFailurePolicy", "Container trainer failed with exit code 65")))
    assert bench.reported() == 1
    ended = bench.reporter.report.call_args.args[1]
    assert (ended.verdict.code, ended.verdict.sentence) == ("DatasetInvalid", "Invalid dataset: it is empty")


def test_nothing_stays_of_jobs_that_were_deleted_or_taken_away(bench: Bench) -> None:
    # Such a Job is never seen as reported: a dispatcher that runs for months would keep a little of each.
    kept = vars(bench.reconciler).values()
    for taken_away in (False, True):
        waiting = noted(a_job(suspended=True), launched_by=THEIRS)
        bench.see(waiting)
        bench.reported()
        deleted = waiting if taken_away else noted(a_job(suspended=True, deleted_at=T0), launched_by=THEIRS)
        bench.see(deleted)
        bench.reported()
        bench.clock.advance(4)
        bench.reported()
        bench.cluster.get_job.return_value = None
        bench.cache.replace("jobs", [])
        bench.reported()
        bench.clock.advance(60)
        bench.reported()
        assert bench.reconciler.summaries.all() == {}
        assert [d for d in kept if isinstance(d, dict) and d] == []
    assert bench.reporter.report.call_count == 1
    assert bench.reporter.report_deleted.call_count == 1


@pytest.mark.parametrize(
    ("job", "seconds"),
    [(a_job(), 3600), (a_job(acknowledged=False), 600), (a_job(deleted_at=T0 + 900), 600)],
    ids=["it runs", "the portal was not told", "its pod is being deleted"],
)
def test_a_job_of_which_nothing_is_heard_is_looked_at_again_all_the_same(
    bench: Bench, job: Job, seconds: float
) -> None:
    bench.see(job, a_pod(phase="Running", state=running()))
    bench.reported()
    bench.clock.advance(0.74 * seconds)
    assert bench.work.get(0) is None
    bench.clock.advance(0.52 * seconds)
    assert bench.work.get(0) == "model-1", "more or less"


def test_a_reported_job_is_looked_at_once_more_for_a_late_processing(bench: Bench) -> None:
    bench.see(_ended(None), a_pod(phase="Succeeded"))
    bench.reporter.report.return_value = noted(_ended(None), reported="{}", reported_at=rfc3339(T0 + bench.clock.now))
    assert bench.reported() == 1
    bench.cache.replace("jobs", [])
    looks: list[int] = []
    for second in range(3600):
        bench.second()
        if bench.reporter.repair.call_count > len(looks):
            looks.append(second)
    assert [60 <= second <= 91 for second in looks] == [True]
    assert bench.reporter.report.call_count == 1
    assert bench.cache.tombstones() == 0


def test_a_place_in_kueues_queue_that_is_not_known_at_first_is_told_soon(bench: Bench) -> None:
    """Its Workload is made after the Job, and no event of the Job tells of it."""
    kueue = Mock()
    kueue.progress.return_value = None
    bench.reconciler.kueue = kueue
    bench.see(a_job(suspended=True, labels={names.KUEUE_QUEUE_LABEL: "gpus"}))
    bench.reconciler.reconcile("model-1")
    assert said(bench) == (None, "Queued by Kueue in gpus")
    for _ in range(20):
        bench.second()
    kueue.progress.return_value = "2 trainings are before this one"
    for _ in range(90):
        bench.second()
    told = [call.args[1] for call in bench.reporter.progress.call_args_list]
    assert told == ["Queued by Kueue in gpus", "2 trainings are before this one"]
    assert said(bench) == (None, "2 trainings are before this one")


def said(bench: Bench) -> tuple[str | None, str | None]:
    """What the status page says about the Job: code and sentence."""
    summary = bench.reconciler.summaries.all()["model-1"]
    return summary.code, summary.sentence


def test_the_page_has_an_outcome_that_the_portal_does_not_take_and_its_last_pods(bench: Bench) -> None:
    bench.reporter.report.side_effect = PortalUnavailable("The portal does not answer")
    bench.have(a_pod(phase="Failed", state=terminated(137, reason="OOMKilled")))
    bench.see(a_job(*failed()), a_pod(state=running()))
    bench.clock.advance(60)
    with pytest.raises(PortalUnavailable):
        bench.reconciler.reconcile("model-1")
    code, sentence = said(bench)
    assert code == "OutOfMemory"
    assert sentence == bench.reporter.report.call_args.args[1].verdict.sentence


def test_a_job_that_was_just_reported_is_left_alone_until_it_is_gone(bench: Bench) -> None:
    """Its pod is still told of, and the watch of Jobs is behind: nothing of it may stay."""
    bench.see(_ended(THEIRS), a_pod(phase="Succeeded"))
    bench.reported()
    bench.clock.advance(4)
    assert bench.reported() == 1
    bench.clock.advance(1)
    assert bench.reported() == 1
    bench.cache.replace("jobs", [])
    bench.reported()
    assert bench.reconciler.summaries.all() == {}
    assert bench.reconciler._patience._deferred == {}


def test_a_second_look_does_not_depend_on_how_many_others_are_remembered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage thousands are reported within a minute."""
    monkeypatch.setattr("dispatcher.controller.ended_jobs._MOST", 1)
    bench.see(_ended(None), a_pod(phase="Succeeded"))
    bench.reporter.report.return_value = noted(_ended(None), reported="{}", reported_at=rfc3339(T0 + bench.clock.now))
    assert bench.reported() == 1
    bench.cache.replace("jobs", [])
    for number in range(3):
        later = rfc3339(T0 + bench.clock.now + number)
        bench.ended.add(noted(a_job(*complete(), model_id=f"{number}0"), reported="{}", reported_at=later))
    assert bench.ended.get("model-1") is None
    for _ in range(100):
        bench.second()
    assert bench.reporter.repair.call_count == 1


def test_a_model_that_the_portal_has_no_more_is_not_looked_at_for_ever(bench: Bench) -> None:
    bench.see(_ended(None), a_pod(phase="Succeeded"))
    bench.reporter.report.return_value = noted(_ended(None), reported="{}", reported_at=rfc3339(T0 + bench.clock.now))
    bench.reported()
    bench.cache.replace("jobs", [])
    bench.reporter.repair.side_effect = ModelUnknown("The portal does not know model 1")
    for _ in range(300):
        bench.second()
    assert bench.reporter.repair.call_count == 1


def test_of_a_job_that_was_there_before_us_the_pods_are_asked_for_when_it_has_ended(bench: Bench) -> None:
    """At the start those that have succeeded are not listed."""
    said = '{"message": "Model training completed successfully", "code": "Completed", "exit": 0}'
    bench.have(a_pod(name="b", phase="Succeeded", state=terminated(0, said, reason="Completed")))
    bench.see(a_job(*failed("DeadlineExceeded")), a_pod(name="a", phase="Failed", state=terminated(137)))
    assert bench.reported() == 1
    assert bench.reporter.report.call_args.args[1].completed
    assert [call.args for call in bench.cluster.list_pods.call_args_list] == [(f"{names.POD_OF}={JOB_UID}",)]


def test_pods_that_cannot_be_read_are_no_pods_that_are_gone(bench: Bench) -> None:
    bench.cluster.list_pods.side_effect = lambda selector: Listing(iter([((), "1")]), left_out=["model-1-a"])
    bench.see(a_job(deleted_at=T0))
    with pytest.raises(ClusterUnavailable, match="model-1-a"):
        bench.reconciler.reconcile("model-1")
    assert not bench.reporter.report.called
