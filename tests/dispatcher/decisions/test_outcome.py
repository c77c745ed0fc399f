"""outcome: every row of the outcomes, from built Jobs and pods (test_outcome_recordings has real ones)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import outcome
from dispatcher.decisions.verdicts import Ended, Going, Outcome, Stop, Verdict, stop_verdict
from tests.world.builders import (
    LIMITS,
    T0,
    a_condition,
    a_job,
    a_pod,
    complete,
    failed,
    failing,
    pod_json,
    running,
    terminated,
)

LATE = T0 + 1e6
DONE_WORD = json.dumps({"message": "Model training completed successfully", "code": "Completed", "exit": 0})
DATASET_WORD = json.dumps(
    {"message": "Failed to download dataset from container: dataset-xyz", "code": "DatasetMissing", "exit": 66}
)


def decided(job: Job, *pods: Pod, now: float = LATE) -> Outcome:
    return outcome.decide(job, pods, (), now, LIMITS)


def failure(result: Outcome) -> tuple[str, str]:
    assert isinstance(result, Ended), result
    assert not result.completed
    return result.verdict.code, result.verdict.sentence


def is_completed(result: Outcome) -> bool:
    return isinstance(result, Ended) and result.completed


def a_failed_pod(exit_code: int, message: str | None = None, **arguments: Any) -> Pod:
    return a_pod(phase="Failed", state=terminated(exit_code, message), **arguments)


# Completed


def test_complete_is_completed_with_the_documented_sentence() -> None:
    result = decided(a_job(*complete()), a_pod(phase="Succeeded", state=terminated(0, DONE_WORD)))
    assert isinstance(result, Ended)
    assert (result.completed, result.verdict.code) == (True, "Completed")
    assert result.verdict.sentence == "Model training completed successfully"


STORED = (
    "Model training completed successfully; the model is stored and not published: NOT BETTER THAN THE PUBLISHED MODEL"
)


@pytest.mark.parametrize(
    ("message", "told"),
    [(STORED, STORED), ("It went well", "Model training completed successfully")],
    ids=["held back", "a program's own words"],
)
@pytest.mark.parametrize(
    ("job", "phase"),
    [
        (a_job(*complete()), "Succeeded"),
        (a_job(), "Succeeded"),
        (a_job(*failed("DeadlineExceeded")), "Failed"),
        (a_job(), "Failed"),
    ],
    ids=["complete", "not yet complete", "stopped", "to be stopped"],
)
def test_a_model_that_is_stored_and_not_published_is_told_so_also_where_its_trainer_cannot_tell_the_portal(
    job: Job, phase: str, message: str, told: str
) -> None:
    word = json.dumps({"message": message, "code": "Completed", "exit": 0})
    result = decided(job, a_pod(phase=phase, state=terminated(0, word)))
    assert isinstance(result, Ended | Stop)
    assert result.verdict == Verdict("Completed", told)


def test_complete_without_a_word_is_completed() -> None:
    assert is_completed(decided(a_job(*complete()), a_pod(phase="Succeeded", state=terminated(0))))


def test_complete_whose_pods_are_gone_is_completed() -> None:
    assert is_completed(decided(a_job(*complete())))


@pytest.mark.parametrize("status", ["False", "Unknown"])
@pytest.mark.parametrize("kind", ["Complete", "Failed", "FailureTarget"])
def test_a_condition_counts_by_its_status(kind: str, status: str) -> None:
    job = a_job(a_condition(kind, status))
    assert isinstance(decided(job, a_pod(phase="Running", state=running())), Going)


@pytest.mark.parametrize(
    "pod",
    [
        a_pod(phase="Succeeded", state=terminated(0, finished_at=T0 + 60), deleted_at=T0 + 50),
        a_pod(phase="Succeeded", state=terminated(0, "stopping\n", finished_at=T0 + 60), deleted_at=T0 + 50),
        # The kubelet's own last deletion, a second after the end.
        a_pod(phase="Succeeded", state=terminated(0, finished_at=T0 + 60), deleted_at=T0 + 61, grace=0),
        a_pod(a_condition("DisruptionTarget", reason="PreemptionByScheduler"), phase="Succeeded", state=terminated(0)),
        # A word that is not one of completion.
        a_pod(
            phase="Succeeded",
            state=terminated(0, json.dumps({"code": "Terminated", "message": "stopped"}), finished_at=T0 + 60),
            deleted_at=T0 + 50,
        ),
    ],
    ids=["deleted", "deleted, with a log", "the kubelet's last deletion", "preempted", "deleted, with another word"],
)
def test_a_program_that_exits_0_on_sigterm_has_not_completed(pod: Pod) -> None:
    code, sentence = failure(decided(a_job(*complete()), pod))
    assert code == "Interrupted"
    assert "before it finished" in sentence


@pytest.mark.parametrize(
    "pod",
    [
        a_pod(phase="Succeeded", state=terminated(0, DONE_WORD), deleted_at=T0 + 50),
        a_pod(phase="Succeeded", state=terminated(0, finished_at=T0 + 60), deleted_at=T0 + 65, grace=0),
        a_pod(a_condition("DisruptionTarget", "False"), phase="Succeeded", state=terminated(0)),
    ],
    ids=["it said so", "deleted afterwards", "not disrupted after all"],
)
def test_a_pod_that_really_completed_is_not_called_interrupted(pod: Pod) -> None:
    assert is_completed(decided(a_job(*complete()), pod))


@pytest.mark.parametrize(
    "job",
    [
        a_job(deleted_at=T0 + 100),
        a_job(failing("DeadlineExceeded")),
        a_job(*failed("DeadlineExceeded")),
        a_job(*failed("BackoffLimitExceeded")),
        a_job(*failed(), deleted_at=T0 + 100),
    ],
    ids=["deleted", "deadline announced", "deadline", "failed", "failed and deleted"],
)
def test_a_published_model_stays_completed_whatever_happens_to_its_job(job: Job) -> None:
    assert is_completed(decided(job, a_pod(phase="Succeeded", state=terminated(0, DONE_WORD))))


def test_a_word_of_completion_before_the_jobs_end_is_not_yet_an_end() -> None:
    """The Job controller may still start another pod; the trainer has told the portal itself."""
    assert decided(a_job(), a_pod(phase="Running", state=terminated(0, DONE_WORD))) == Going()


def test_a_word_of_completion_with_another_exit_code_is_not_believed() -> None:
    code, sentence = failure(decided(a_job(*failed()), a_failed_pod(139, DONE_WORD)))
    assert code == "Killed"
    assert "SIGSEGV" in sentence


# Failed


@pytest.mark.parametrize(
    ("reason", "pod", "code", "words"),
    [
        ("PodFailurePolicy", a_failed_pod(66, DATASET_WORD), "DatasetMissing", "container: dataset-xyz"),
        ("PodFailurePolicy", a_failed_pod(79, "loading\nRuntimeError: boom\n"), "UserCodeFailed", "RuntimeError: boom"),
        ("PodFailurePolicy", a_failed_pod(78), "ConfigInvalid", "exit code 78"),
        ("PodFailurePolicy", a_failed_pod(2, "usage\n"), "TrainerFailed", "exit code 2"),
        ("BackoffLimitExceeded", a_failed_pod(201), "StorageUnavailable", "exit code 201"),
        ("BackoffLimitExceeded", a_failed_pod(137), "Killed", "SIGKILL"),
        ("BackoffLimitExceeded", a_failed_pod(139, "core dumped"), "Killed", "SIGSEGV"),
        (
            "BackoffLimitExceeded",
            a_pod(phase="Failed", state=terminated(137, reason="OOMKilled"), limits={"memory": "4Gi"}),
            "OutOfMemory",
            "4Gi",
        ),
        (
            "BackoffLimitExceeded",
            a_pod(phase="Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage."),
            "Evicted",
            "ephemeral-storage",
        ),
        (
            "BackoffLimitExceeded",
            a_pod(phase="Failed", reason="UnexpectedAdmissionError", message="no GPU"),
            "NodeRejected",
            "no GPU",
        ),
    ],
)
def test_a_failed_job_is_told_in_its_last_pods_words(reason: str, pod: Pod, code: str, words: str) -> None:
    found, sentence = failure(decided(a_job(*failed(reason)), pod))
    assert found == code
    assert words in sentence


def test_the_last_of_several_pods_speaks() -> None:
    first = a_failed_pod(137, name="model-1-zzzzz", created_at=T0)
    last = a_failed_pod(201, name="model-1-aaaaa", created_at=T0 + 10)
    code, sentence = failure(decided(a_job(*failed(), status={"failed": 2}), last, first))
    assert code == "StorageUnavailable"
    assert sentence.endswith("(after 2 attempts)")


def test_one_attempt_is_not_counted_out() -> None:
    assert "attempts" not in failure(decided(a_job(*failed(), status={"failed": 1}), a_failed_pod(201)))[1]


def test_attempts_that_the_controller_has_not_counted_yet_are_counted() -> None:
    job = a_job(*failed(), status={"failed": 1, "uncountedTerminatedPods": {"failed": ["a"]}})
    assert "(after 2 attempts)" in failure(decided(job, a_failed_pod(201), a_failed_pod(201, name="b")))[1]


def test_pods_that_a_suspended_job_gave_up_have_used_up_no_attempt() -> None:
    """Kueue's preemption deletes them without a disruption, and the Job controller does not count them."""
    given_up = [
        a_failed_pod(143, name=f"model-1-{number}", created_at=T0 + number, deleted_at=T0 + 60) for number in range(3)
    ]
    last = a_failed_pod(137, name="model-1-last", created_at=T0 + 100)
    resumed = a_condition("Suspended", "False", "JobResumed")
    assert isinstance(decided(a_job(resumed), *given_up, last), Going)
    assert failure(decided(a_job(resumed, spec={"backoffLimit": 0}), last))[0] == "Killed"


@pytest.mark.parametrize(
    ("failures", "words"),
    [(0, "Interrupted, which costs no attempt: "), (1, "Attempt 1 of 3 failed: ")],
    ids=["given up by a suspended Job", "deleted by hand"],
)
def test_a_deleted_pod_is_told_as_an_attempt_only_where_kubernetes_counts_it(failures: int, words: str) -> None:
    gone = a_failed_pod(143, deleted_at=T0 + 60)
    following = a_pod(name="model-1-next", created_at=T0 + 100)
    result = decided(a_job(status={"failed": failures}), gone, following, now=T0 + 110)
    assert isinstance(result, Going)
    assert (result.progress or "").startswith(words)


def test_pods_that_were_taken_away_leave_a_hopeless_training_hopeless() -> None:
    """However many there were, Kubernetes would start it a few times more."""
    taken = [
        a_failed_pod(143, name=f"model-1-{number}", created_at=T0 + number, deleted_at=T0 + 60) for number in range(3)
    ]
    message = 'exec: "train": executable file not found in $PATH'
    state = terminated(128, message, reason="StartError")
    last = a_pod(phase="Failed", state=state, name="model-1-last", created_at=T0 + 100)
    result = decided(a_job(), *taken, last)
    assert isinstance(result, Stop)
    assert result.verdict.code == "CommandNotFound"


def test_a_passed_deadline_is_a_timeout_with_the_limit() -> None:
    job = a_job(*failed("DeadlineExceeded"), spec={"activeDeadlineSeconds": 900})
    code, sentence = failure(decided(job, a_failed_pod(137)))
    assert code == "Timeout"
    assert "900 seconds" in sentence


def test_a_failed_job_without_pods_is_told_in_kubernetes_words() -> None:
    job = a_job(*failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
    code, sentence = failure(decided(job))
    assert code == "JobFailed"
    assert "backoff limit" in sentence


def test_the_exit_code_survives_the_pod() -> None:
    text = "Container trainer for pod training/model-1-x failed with exit code 66 matching FailJob rule at index 1"
    killed_before = a_failed_pod(137, name="model-1-a")
    # Its end was not seen, nor why it was removed: the cache has what it was before.
    vanished = a_pod(phase="Failed", state=running(), name="model-1-x", deleted_at=T0 + 60)
    for pods in ([], [vanished], [killed_before, vanished]):
        code, sentence = failure(decided(a_job(*failed("PodFailurePolicy", text)), *pods))
        assert code == "DatasetMissing", pods
        assert "exit code 66" in sentence


def test_the_jobs_end_may_be_known_before_what_its_pod_said() -> None:
    """Jobs and pods are two watches: a pod that still runs, to our knowledge, will say more within seconds."""
    job = a_job(*failed("PodFailurePolicy"), status={"failed": 1})
    still_running = a_pod(phase="Running", state=running())
    soon = decided(job, still_running, now=T0 + 1)
    assert isinstance(soon, Going)
    assert soon.check_at is not None
    assert isinstance(decided(job, now=T0 + 1), Going), "nor is no pod an answer"
    assert isinstance(decided(job, still_running, now=soon.check_at), Ended), "but it is not waited for for ever"
    assert failure(decided(job, a_failed_pod(66, DATASET_WORD), now=T0 + 1))[0] == "DatasetMissing"


def test_the_last_of_two_pods_is_waited_for() -> None:
    job = a_job(*failed(), status={"failed": 2})
    first = a_failed_pod(137, name="model-1-a")
    assert isinstance(decided(job, first, now=T0 + 1), Going)
    assert isinstance(decided(job, first, a_failed_pod(201, name="model-1-b"), now=T0 + 1), Ended)


def test_a_completed_jobs_pod_is_waited_for_too() -> None:
    job = a_job(*complete(), status={"succeeded": 1})
    assert isinstance(decided(job, a_pod(phase="Running", state=running()), now=T0 + 1), Going)
    assert is_completed(decided(job, a_pod(phase="Running", state=running()), now=T0 + 60))


# FailureTarget: announced, not there yet


def test_an_announced_failure_waits_for_the_pods() -> None:
    job = a_job(failing("DeadlineExceeded"))
    assert decided(job, a_pod(phase="Running", state=running())) == Going()


def test_an_announced_failure_is_no_end_where_no_pod_is_known() -> None:
    assert decided(a_job(failing("DeadlineExceeded"))) == Going()


def test_an_announced_failure_does_not_wait_for_ever_for_a_lost_nodes_pod() -> None:
    job = a_job(failing("DeadlineExceeded"), spec={"activeDeadlineSeconds": 900})
    pod = a_pod(phase="Running", state=running(), deleted_at=T0, grace=30)
    waits = decided(job, pod, now=T0 + 31)
    assert isinstance(waits, Going)
    assert waits.check_at == T0 + 90
    assert failure(decided(job, pod, now=T0 + 90))[0] == "Timeout"


def test_a_lost_nodes_pod_is_told_as_such() -> None:
    lost = a_condition("DisruptionTarget", reason="DeletionByTaintManager")
    pod = a_pod(lost, phase="Running", state=running(), deleted_at=T0, grace=30)
    assert failure(decided(a_job(failing("BackoffLimitExceeded")), pod))[0] == "NodeLost"


# Deleted


def test_a_deleted_jobs_pods_are_removed_before_it_is_reported() -> None:
    job = a_job(deleted_at=T0 + 100)
    result = decided(job, a_pod(phase="Running", state=running()))
    assert result == Going(remove_pods=True)


def test_a_deleted_job_is_told_with_the_time() -> None:
    code, sentence = failure(decided(a_job(deleted_at=T0 + 100), a_failed_pod(137)))
    assert code == "JobDeleted"
    assert "2026-11-23T08:01:40Z" in sentence


def test_a_deleted_job_does_not_wait_for_ever_for_a_lost_nodes_pod() -> None:
    job = a_job(deleted_at=T0)
    pod = a_pod(phase="Running", state=running(), deleted_at=T0, grace=30)
    waits = decided(job, pod, now=T0 + 40)
    assert waits == Going(check_at=T0 + 90, remove_pods=True)
    assert failure(decided(job, pod, now=T0 + 90))[0] == "JobDeleted"


def test_one_pod_that_nobody_has_deleted_is_waited_for() -> None:
    lost = a_pod(name="a", phase="Running", state=running(), deleted_at=T0)
    other = a_pod(name="b", phase="Running", state=running())
    assert decided(a_job(deleted_at=T0), lost, other) == Going(remove_pods=True)


def test_a_failed_job_that_is_deleted_before_its_report_keeps_its_reason() -> None:
    job = a_job(*failed("PodFailurePolicy"), deleted_at=T0 + 100)
    assert failure(decided(job, a_failed_pod(66, DATASET_WORD)))[0] == "DatasetMissing"


def test_a_failing_job_that_is_deleted_keeps_its_reason() -> None:
    job = a_job(failing("DeadlineExceeded"), deleted_at=T0 + 100, spec={"activeDeadlineSeconds": 900})
    running_pod = a_pod(phase="Running", state=running())
    assert decided(job, running_pod) == Going(remove_pods=True)
    assert failure(decided(job, a_failed_pod(137)))[0] == "Timeout"


def test_a_completed_job_that_is_deleted_before_its_report_is_completed() -> None:
    assert is_completed(decided(a_job(*complete(), deleted_at=T0 + 100)))


# Stopped from outside beside another container that goes on: has the trainer come to an end of its own before?

STORAGE_WORD = json.dumps({"message": "Storage is out of reach", "code": "StorageUnavailable", "exit": 201})
STOPPED_WORD = json.dumps({"message": "Stopped by SIGTERM", "code": "Terminated", "exit": 143})


def beside_another(exit_code: int, word: str | None = None, at: float = T0 + 60, **arguments: Any) -> Pod:
    """A pod that another container kept when its trainer had ended `at`, and that was deleted for the Job's end."""
    arguments = {"phase": "Failed", "deleted_at": T0 + 150} | arguments
    return a_pod(state=terminated(exit_code, word, finished_at=at), **arguments)


def without_an_end() -> Pod:
    return msgspec.convert(pod_json(phase="Failed", deleted_at=T0 + 150, state={"terminated": {"exitCode": 79}}), Pod)


@pytest.mark.parametrize(
    ("pods", "code"),
    [
        ([beside_another(66, DATASET_WORD)], "DatasetMissing"),
        ([beside_another(66, DATASET_WORD, phase="Running", deleted_at=None)], "DatasetMissing"),
        ([beside_another(79)], "UserCodeFailed"),
        ([beside_another(79, at=T0 + 149)], "UserCodeFailed"),
        ([beside_another(66, DATASET_WORD, at=T0 + 152)], "DatasetMissing"),
        ([beside_another(79, at=T0 + 150, deleted_at=T0 + 200)], "Timeout"),
        ([beside_another(143, at=T0 + 152)], "Timeout"),
        ([beside_another(143, STOPPED_WORD, at=T0 + 152)], "Timeout"),
        ([beside_another(137, DONE_WORD, at=T0 + 152)], "Timeout"),
        ([beside_another(201, STORAGE_WORD, deleted_at=None)], "Timeout"),
        ([beside_another(0, at=T0 + 20, deleted_at=T0 + 10)], "Timeout"),
        ([without_an_end()], "Timeout"),
        ([a_failed_pod(201, STORAGE_WORD), beside_another(143, at=T0 + 152, created_at=T0 + 90)], "Timeout"),
    ],
    ids=[
        "its word counts",
        "though nobody has deleted its pod yet",
        "its end counts without a word",
        "until the second before",
        "its word counts whenever it was said",
        "no end in the same second",
        "nor after it",
        "that it was told to stop is no end of its own",
        "a word of success does not fit a kill",
        "an attempt that ended with its pod was the controllers to judge",
        "somebody had deleted its pod before that",
        "nobody knows when it ended",
        "the last pod speaks",
    ],
)
def test_a_trainers_own_end_before_its_deadline_is_told_in_place_of_the_deadline(pods: list[Pod], code: str) -> None:
    over = [a_condition(kind, "True", "DeadlineExceeded", at=T0 + 150) for kind in ("FailureTarget", "Failed")]
    assert failure(decided(a_job(*over), *pods))[0] == code


def test_a_deadline_without_a_time_is_told_as_a_deadline() -> None:
    over = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    assert failure(decided(a_job(over), beside_another(79)))[0] == "Timeout"


@pytest.mark.parametrize(("at", "code"), [(T0 + 60, "UserCodeFailed"), (T0 + 140, "JobDeleted")])
def test_a_trainers_own_end_before_its_jobs_deletion_is_told_in_place_of_the_deletion(at: float, code: str) -> None:
    pod = beside_another(79, at=at, deleted_at=T0 + 101)
    assert failure(decided(a_job(deleted_at=T0 + 100), pod))[0] == code


# Stopped by us

STOPPED = json.dumps({"code": "ImagePull", "sentence": "The trainer image x cannot be pulled"})


def test_a_stopped_job_tells_why_it_was_stopped() -> None:
    job = a_job(*failed("DeadlineExceeded"), stopped=STOPPED, spec={"activeDeadlineSeconds": 1})
    assert failure(decided(job)) == ("ImagePull", "The trainer image x cannot be pulled")


def test_a_stopped_job_is_not_stopped_again() -> None:
    assert decided(a_job(stopped=STOPPED), a_pod(scheduled_at=T0)) == Going()


def test_a_stopped_job_that_is_deleted_tells_why_it_was_stopped() -> None:
    assert failure(decided(a_job(stopped=STOPPED, deleted_at=T0 + 100)))[0] == "ImagePull"


def test_a_job_that_fails_by_itself_while_it_is_stopped_tells_its_own_story() -> None:
    job = a_job(*failed("PodFailurePolicy"), stopped=STOPPED)
    assert failure(decided(job, a_failed_pod(66, DATASET_WORD)))[0] == "DatasetMissing"


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "1", "null", '{"code": "X"}', "[" * 5000])
def test_a_stop_that_somebody_else_wrote_is_not_believed(text: str) -> None:
    job = a_job(*failed("DeadlineExceeded"), stopped=text, spec={"activeDeadlineSeconds": 900})
    assert stop_verdict(job) is None
    assert failure(decided(job))[0] == "Timeout"


# Suspended: all clocks stop


@pytest.mark.parametrize("pods", [(), (a_pod(),)], ids=["no pod", "a pod"])
def test_a_half_launched_job_is_not_ours_to_judge(pods: tuple[Pod, ...]) -> None:
    assert decided(a_job(launched=False, acknowledged=None), *pods) == Going()


def test_a_job_queued_by_kueue_says_where() -> None:
    job = a_job(suspended=True, labels={names.KUEUE_QUEUE_LABEL: "gpus"})
    assert decided(job) == Going("Queued by Kueue in gpus")


def test_a_job_suspended_by_hand_says_so() -> None:
    assert decided(a_job(suspended=True)) == Going("Suspended by an operator")


def test_no_clock_goes_while_a_job_is_suspended() -> None:
    unschedulable = a_condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")
    pod = a_pod(unschedulable, node=None)
    assert isinstance(decided(a_job(), pod), Stop)
    assert decided(a_job(suspended=True), pod) == Going("Suspended by an operator")


def test_a_resumed_job_starts_its_clocks_anew() -> None:
    resumed = a_condition("Suspended", "False", "JobResumed", at=T0 + 10_000)
    job = a_job(resumed, started_at=T0 + 10_000)
    unschedulable = a_condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")
    pod = a_pod(unschedulable, node=None, created_at=T0 + 10_001)
    early = decided(job, pod, now=T0 + 10_002)
    assert isinstance(early, Going)
    assert early.check_at == T0 + 10_001 + LIMITS.unschedulable


# Going on


def test_while_the_trainer_runs_only_it_speaks() -> None:
    assert decided(a_job(), a_pod(phase="Running", state=running())) == Going()


def test_the_order_of_pods_does_not_matter() -> None:
    pods = [a_failed_pod(137, name="a"), a_pod(name="b", phase="Running", state=running(), created_at=T0 + 20)]
    assert decided(a_job(), *pods) == decided(a_job(), *reversed(pods))


def test_nothing_known_is_nothing_decided() -> None:
    assert isinstance(outcome.decide(Job(), (), (), T0, LIMITS), Going)
