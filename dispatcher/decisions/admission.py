"""Portal status x existing Job → what becomes of a message and of the Job. Pure.

The status must have been read *after* the Job where a Job is given: only then does "Created" beside an acknowledged
Job mean that the portal has moved on, and not that the reading is older than the Job.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from dispatcher.cluster.jobs import Job
from dispatcher.decisions.own_writes import may_be_older
from portal_client.reporting import PLAUSIBLE_LAG
from portal_client.statuses import ProcessingStatus


class JobEffect(Enum):
    """What the launcher does with the Job that has the model's name."""

    KEEP = auto()
    CREATE = auto()  # launch steps 3 to 5; a finished, reported Job of the name is removed first
    CONTINUE = auto()  # launch steps 4 and 5
    REMOVE = auto()  # it was never launched, and must not be any more
    STOP = auto()  # it runs, and makes room for the next training


class MessageEffect(Enum):
    """What the intake does with the message."""

    DELETE = auto()  # launch step 6
    REJECT = auto()  # deleted, with a warning and an entry on the status page
    REQUEUE = auto()  # redelivered after a short delay
    FAIL = auto()  # a message failure: redelivered with back-off, dead-lettered after MAX_DELIVERIES


class Action(Enum):
    """What becomes of the Job and of the message, for each decision. value: the label of the metric `messages`."""

    #           label, effect on the Job, effect on the message
    LAUNCH = "launch", JobEffect.CREATE, MessageEffect.DELETE
    ADOPT = "adopt", JobEffect.CONTINUE, MessageEffect.DELETE  # this message's own half-launched Job
    DONE = "done", JobEffect.KEEP, MessageEffect.DELETE  # this message's Job was launched before
    DUPLICATE = "duplicate", JobEffect.KEEP, MessageEffect.REJECT  # another message's training runs, unacknowledged
    REFUSE = "refuse", JobEffect.KEEP, MessageEffect.REJECT  # the status forbids a start
    ABANDON = "abandon", JobEffect.REMOVE, MessageEffect.REJECT  # half-launched, and the status is terminal
    REPLACE = "replace", JobEffect.STOP, MessageEffect.REQUEUE  # the portal asks for a new training meanwhile
    LATER = "later", JobEffect.KEEP, MessageEffect.REQUEUE  # the name is about to be free
    BLOCKED = "blocked", JobEffect.KEEP, MessageEffect.FAIL  # a Job of this name that is not ours

    job: JobEffect
    message: MessageEffect

    def __new__(cls, label: str, job: JobEffect, message: MessageEffect) -> Action:
        action = object.__new__(cls)
        action._value_ = label
        action.job, action.message = job, message
        return action


# Seconds. Looks without a cache have renewed an old answer by then, and who sends a request twice, or too early, need
# not wait for long until the log says so.
REFUSAL_DOUBT = 15.0


@dataclass(frozen=True)
class Decision:
    """sentence: why, for the log. after: seconds until a requeued message is worth another look; 0: soon."""

    action: Action
    sentence: str
    after: float = 0.0


def decide(
    status: ProcessingStatus,
    job: Job | None,
    message_id: str,
    now: float,
    *,
    queued_at: float = 0.0,
    lag: float = PLAUSIBLE_LAG,
    doubt: float = REFUSAL_DOUBT,
    elsewhere: str = "",
) -> Decision:
    """The decision for one message of one model. status: PROCESSING etc.; job: the Job that has the model's name.

    now: when the status was asked for; queued_at: when the request was sent; epoch seconds. lag: seconds by which the
    portal's answers may be behind; doubt: of these, how many a new request is given: whoever sends one has just made
    its model ready, so a status that forbids it is believed when the request is older than that.

    elsewhere: of a model that is Processing without a Job here, who may have launched it (`readers.perhaps`).
    """
    decision = _decide(status, job, message_id, now, lag, elsewhere)
    age, doubted = now - queued_at, min(lag, doubt)
    if decision.action not in (Action.REFUSE, Action.ABANDON) or abs(age) >= doubted:
        return decision
    # Each look twice as late as the one before: most caches have forgotten it long before it is believed.
    after = max(0.0, min(age, doubted - age))
    return Decision(Action.LATER, f"status {status.title}, which may be older than the request", after)


def _decide(
    status: ProcessingStatus, job: Job | None, message_id: str, now: float, lag: float, elsewhere: str
) -> Decision:
    if job is None:
        if status.may_start:
            return Decision(Action.LAUNCH, f"status {status.title}")
        # Something else trains it (a trainer started by hand, another cluster), or nothing does and it would stay so.
        where = f"{elsewhere}. If" if elsewhere else "if"
        lost = f"; there is no Job of it here: {where} nothing trains it, set it to Reconfigure"
        return Decision(Action.REFUSE, _refusal(status) + (lost if status is ProcessingStatus.PROCESSING else ""))
    if not job.is_managed:
        if not status.may_start:
            return Decision(Action.REFUSE, _refusal(status))
        return Decision(Action.BLOCKED, f"a Job named {job.name} exists that the dispatcher did not create")
    if job.annotations.message_id == message_id:
        return _own(status, job)
    return _other(status, job, now, lag)


def _own(status: ProcessingStatus, job: Job) -> Decision:
    if job.is_launched or job.is_finished or job.is_deleting:
        return Decision(Action.DONE, "this message's Job was launched before")
    if status.is_terminal:
        return Decision(Action.ABANDON, _refusal(status))
    return Decision(Action.ADOPT, "this message's Job is half-launched")


def _other(status: ProcessingStatus, job: Job, now: float, lag: float) -> Decision:
    if not status.may_start:
        return Decision(Action.REFUSE, _refusal(status))
    if job.is_finished or job.is_reported:
        if job.is_reported and may_be_older(status, job, now, lag):
            return Decision(Action.LATER, f"status {status.title}, which may be older than what was just reported")
        if job.is_reported:
            return Decision(Action.LAUNCH, f"status {status.title}; the Job before has ended and is reported")
        return Decision(Action.LATER, "the Job before has ended; its outcome is reported first")
    if job.is_deleting:
        return Decision(Action.LATER, "the Job before is being deleted")
    if job.is_acknowledged and may_be_older(status, job, now, lag):
        return Decision(Action.LATER, f"status {status.title}, which may be older than our Processing")
    if not job.is_launched:
        # Its Processing may have reached the portal before a user asked anew: what is shown then decides.
        return Decision(Action.LATER, "a training of this model is being launched for another message")
    if job.is_acknowledged:
        return Decision(Action.REPLACE, f"status {status.title} while the Job before runs: a new training is requested")
    return Decision(Action.DUPLICATE, "a training of this model was launched for another message")


def _refusal(status: ProcessingStatus) -> str:
    return f"status {status.title}; only Created and Reconfigure may start"
