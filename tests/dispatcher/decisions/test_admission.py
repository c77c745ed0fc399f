"""What becomes of a message, for every status and every state of the Job that has its name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.decisions.admission import Action, decide
from portal_client.statuses import ProcessingStatus
from tests.world.builders import T0, a_job, complete, failed, job_json
from training_common.times import rfc3339

MINE = "message-1"
OTHER = "message-0"
LONG_AFTER = T0 + 3600

# The Job's state → the arguments of the builder.
STATES: dict[str, dict[str, Any]] = {
    "half-launched": {"launched": False, "acknowledged": None},
    "half-launched, being deleted": {"launched": False, "acknowledged": None, "deleted_at": T0},
    "queued by Kueue": {"launched": True, "suspended": True},
    "running": {},
    "running, not acknowledged": {"acknowledged": False},
    "running, being deleted": {"deleted_at": T0},
}
ENDS: dict[str, tuple[tuple[dict[str, Any], ...], dict[str, Any]]] = {
    "complete": (complete(), {}),
    "failed": (failed(), {}),
    "failed, never launched": (failed("DeadlineExceeded"), {"launched": False, "acknowledged": None}),
    "complete, being deleted": (complete(), {"deleted_at": T0}),
    "complete and reported": (complete(), {"reported": True}),
    "failed and reported": (failed(), {"reported": True}),
    "complete, finalizer taken off by hand": (complete(), {"finalizer": False}),
}


def the_job(state: str, message_id: str) -> Job:
    if state in ENDS:
        conditions, arguments = ENDS[state]
        return a_job(*conditions, message_id=message_id, **arguments)
    return a_job(message_id=message_id, **STATES[state])


STARTABLE = (ProcessingStatus.CREATED, ProcessingStatus.RECONFIGURE)
OVER = (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)

# The Job of this very message: (state, action, action while the status is Completed or Failed).
OWN = [
    ("half-launched", Action.ADOPT, Action.ABANDON),
    ("half-launched, being deleted", Action.DONE, Action.DONE),
    ("queued by Kueue", Action.DONE, Action.DONE),
    ("running", Action.DONE, Action.DONE),
    ("running, not acknowledged", Action.DONE, Action.DONE),
    ("running, being deleted", Action.DONE, Action.DONE),
    *((state, Action.DONE, Action.DONE) for state in ENDS),
]

# The Job of another message: (state, action while the status is Created or Reconfigure); else it is refused.
OTHERS = [
    ("half-launched", Action.LATER),
    ("half-launched, being deleted", Action.LATER),
    ("queued by Kueue", Action.REPLACE),
    ("running", Action.REPLACE),
    ("running, not acknowledged", Action.DUPLICATE),
    ("running, being deleted", Action.LATER),
    ("complete", Action.LATER),
    ("failed", Action.LATER),
    ("failed, never launched", Action.LATER),
    ("complete, being deleted", Action.LATER),
    ("complete and reported", Action.LAUNCH),
    ("failed and reported", Action.LAUNCH),
    ("complete, finalizer taken off by hand", Action.LATER),
]


def test_the_tables_have_every_state() -> None:
    every = set(STATES) | set(ENDS)
    assert {row[0] for row in OWN} == every
    assert {row[0] for row in OTHERS} == every


@pytest.mark.parametrize("status", ProcessingStatus)
def test_without_a_job_only_the_status_decides(status: ProcessingStatus) -> None:
    expected = Action.LAUNCH if status in STARTABLE else Action.REFUSE
    assert decide(status, None, MINE, LONG_AFTER).action is expected


@pytest.mark.parametrize(("state", "under_way", "over"), OWN)
@pytest.mark.parametrize("status", ProcessingStatus)
def test_a_redelivered_message_goes_on_where_it_was(
    status: ProcessingStatus, state: str, under_way: Action, over: Action
) -> None:
    expected = over if status in OVER else under_way
    assert decide(status, the_job(state, MINE), MINE, LONG_AFTER).action is expected


@pytest.mark.parametrize(("state", "may_start"), OTHERS)
@pytest.mark.parametrize("status", ProcessingStatus)
def test_another_messages_job_is_never_taken_over(status: ProcessingStatus, state: str, may_start: Action) -> None:
    expected = may_start if status in STARTABLE else Action.REFUSE
    assert decide(status, the_job(state, OTHER), MINE, LONG_AFTER).action is expected


@pytest.mark.parametrize("status", ProcessingStatus)
@pytest.mark.parametrize(
    "foreign",
    [{"managed": False}, {"message_id": None}, {"managed": False, "message_id": None}],
    ids=["no label", "no annotation", "neither"],
)
def test_a_job_that_is_not_ours_is_left_alone(status: ProcessingStatus, foreign: dict[str, Any]) -> None:
    """It blocks a launch; a model that may not start is refused all the same, and is no poison."""
    expected = Action.BLOCKED if status in STARTABLE else Action.REFUSE
    assert decide(status, a_job(**foreign), MINE, LONG_AFTER).action is expected


@pytest.mark.parametrize("status", [s for s in ProcessingStatus if s not in STARTABLE])
def test_a_refusal_names_the_status(status: ProcessingStatus) -> None:
    sentence = decide(status, None, MINE, LONG_AFTER).sentence
    assert status.title in sentence
    assert "only Created and Reconfigure may start" in sentence


def test_a_model_that_is_processing_without_a_job_is_pointed_out() -> None:
    """The dispatcher cannot ask the portal for all its models: a second request is all the evidence that it gets."""
    hint = "there is no Job of it here"
    assert hint in decide(ProcessingStatus.PROCESSING, None, MINE, LONG_AFTER).sentence
    assert hint not in decide(ProcessingStatus.PROCESSING, a_job(message_id="another"), MINE, LONG_AFTER).sentence
    assert hint not in decide(ProcessingStatus.COMPLETED, None, MINE, LONG_AFTER).sentence


def test_a_foreign_jobs_name_is_said() -> None:
    assert "model-1" in decide(ProcessingStatus.CREATED, a_job(managed=False), MINE, LONG_AFTER).sentence


def test_a_condition_with_status_false_ends_nothing() -> None:
    job = a_job({"type": "Failed", "status": "False"}, {"type": "Complete", "status": "Unknown"}, message_id=OTHER)
    assert decide(ProcessingStatus.CREATED, job, MINE, LONG_AFTER).action is Action.REPLACE


@pytest.mark.parametrize(
    ("before", "status", "seconds", "action"),
    [
        ("Created", ProcessingStatus.CREATED, 30, Action.LATER),
        ("Created", ProcessingStatus.CREATED, 61, Action.REPLACE),
        ("Created", ProcessingStatus.RECONFIGURE, 1, Action.REPLACE),
        ("Reconfigure", ProcessingStatus.RECONFIGURE, 30, Action.LATER),
        ("Reconfigure", ProcessingStatus.RECONFIGURE, 61, Action.REPLACE),
    ],
)
def test_a_status_that_may_be_older_than_our_own_write_stops_nobody(
    before: str, status: ProcessingStatus, seconds: float, action: Action
) -> None:
    job = job_json(message_id=OTHER)
    job["metadata"]["annotations"] |= {names.STATUS_BEFORE: before, names.LAUNCHED_AT: rfc3339(T0)}
    assert decide(status, msgspec.convert(job, Job), MINE, T0 + seconds).action is action


def test_an_acknowledgement_that_came_late_is_our_last_write() -> None:
    job = job_json(message_id=OTHER)
    notes = {names.LAUNCHED_AT: rfc3339(T0), names.ACKNOWLEDGED_AT: rfc3339(T0 + 600)}
    job["metadata"]["annotations"] |= {names.STATUS_BEFORE: "Created", **notes}

    def action(seconds: float) -> Action:
        return decide(ProcessingStatus.CREATED, msgspec.convert(job, Job), MINE, T0 + seconds).action

    assert (action(630), action(661)) == (Action.LATER, Action.REPLACE)


@pytest.mark.parametrize("status", [s for s in ProcessingStatus if s not in STARTABLE])
@pytest.mark.parametrize("state", [None, "running", "complete and reported"])
def test_a_refusal_that_may_be_older_than_the_request_is_looked_at_again(
    status: ProcessingStatus, state: str | None
) -> None:
    job = None if state is None else the_job(state, OTHER)
    asked = [decide(status, job, MINE, LONG_AFTER + age, queued_at=LONG_AFTER) for age in (0, 2, 6, 10, 14, 15)]
    assert [found.action for found in asked] == [Action.LATER] * 5 + [Action.REFUSE]
    # Never later than when it is believed.
    assert [found.after for found in asked] == [0, 2, 6, 5, 1, 0]

    def patient(lag: float, doubt: float) -> Action:
        return decide(status, job, MINE, LONG_AFTER + 20, queued_at=LONG_AFTER, lag=lag, doubt=doubt).action

    assert (patient(60, 60), patient(10, 60), patient(60, 15)) == (Action.LATER, Action.REFUSE, Action.REFUSE)


def test_a_launch_is_abandoned_by_no_answer_that_may_be_older_than_the_request() -> None:
    job = the_job("half-launched", MINE)
    for status in OVER:
        asked = [decide(status, job, MINE, LONG_AFTER + age, queued_at=LONG_AFTER).action for age in (10, 15)]
        assert asked == [Action.LATER, Action.ABANDON]


def test_a_queue_whose_clock_is_ahead_holds_no_message_for_long() -> None:
    def action(ahead: float) -> Action:
        return decide(ProcessingStatus.FAILED, None, MINE, LONG_AFTER, queued_at=LONG_AFTER + ahead).action

    assert (action(2), action(3600)) == (Action.LATER, Action.REFUSE)


@pytest.mark.parametrize(
    ("portal", "seconds", "action"),
    [("reported", 30, Action.LATER), ("reported", 61, Action.LAUNCH), ("untracked", 1, Action.LAUNCH)],
)
def test_a_duplicate_beside_an_old_answer_trains_no_model_twice(portal: str, seconds: float, action: Action) -> None:
    job = job_json(*complete(), message_id=OTHER, acknowledged=False)
    report = json.dumps({"status": "Completed", "code": "Completed", "sentence": "", "portal": portal})
    notes = {names.REPORTED: report, names.REPORTED_AT: rfc3339(T0), names.STATUS_BEFORE: "Created"}
    job["metadata"]["annotations"] |= notes
    assert decide(ProcessingStatus.CREATED, msgspec.convert(job, Job), MINE, T0 + seconds).action is action


def test_a_model_that_another_namespace_may_train_is_not_advised_to_be_trained_twice() -> None:
    elsewhere = "perhaps a dispatcher of namespace lab, which reads this queue, too, has launched it: look there first"
    decision = decide(ProcessingStatus.PROCESSING, None, MINE, LONG_AFTER, elsewhere=elsewhere)
    assert decision.action is Action.REFUSE
    assert decision.sentence.endswith(f"here: {elsewhere}. If nothing trains it, set it to Reconfigure")
    assert elsewhere not in decide(ProcessingStatus.FAILED, None, MINE, LONG_AFTER, elsewhere=elsewhere).sentence
