"""Portal status x existing Job → what to do with a message. Pure; its test holds the table.

The status must have been read *after* the Job where a Job is given: only then does "Created" beside an acknowledged
Job mean that the portal has moved on, and not that the reading is older than the Job.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dispatcher.cluster import objects
from dispatcher.cluster.names import MESSAGE_ID
from dispatcher.cluster.objects import KubeObject
from portal_client.statuses import ProcessingStatus


class Action(Enum):
    """What becomes of the message and the Job."""

    LAUNCH = "launch"  # create the Job (remove a finished, reported one first), steps 3 to 6
    ADOPT = "adopt"  # our own half-launched Job: go on at step 4
    DONE = "done"  # launched under this very message: only step 6 is missing
    DUPLICATE = "duplicate"  # another message's training of this model is under way: consume this one
    REFUSE = "refuse"  # the status forbids it: consume the message
    ABANDON = "abandon"  # our half-launched Job, and the portal has a terminal status: remove it, consume
    REPLACE = "replace"  # the portal asks for a new training while the old Job runs: stop that, then come again
    LATER = "later"  # the name is about to be free: come again
    BLOCKED = "blocked"  # a Job of this name that is not ours: come again, poison in the end


@dataclass(frozen=True)
class Decision:
    """sentence: why, for the log."""

    action: Action
    sentence: str


def decide(status: ProcessingStatus, job: KubeObject | None, message_id: str) -> Decision:
    """The decision for one message of one model. status: PROCESSING etc.; job: the Job that has the model's name."""
    if job is None:
        if status.may_start:
            return Decision(Action.LAUNCH, f"status {status.title}")
        # Something else trains it (a trainer by hand, another cluster), or nothing does and it stays so for ever.
        lost = "; there is no Job of it here: if nothing trains it, set it to Reconfigure"
        return Decision(Action.REFUSE, _refusal(status) + (lost if status is ProcessingStatus.PROCESSING else ""))
    if not objects.is_managed(job):
        if not status.may_start:
            return Decision(Action.REFUSE, _refusal(status))
        return Decision(Action.BLOCKED, f"a Job named {objects.name_of(job)} exists that the dispatcher did not create")
    if objects.annotation(job, MESSAGE_ID) == message_id:
        return _own(status, job)
    return _other(status, job)


def _own(status: ProcessingStatus, job: KubeObject) -> Decision:
    if objects.is_launched(job) or objects.is_finished(job) or objects.is_deleting(job):
        return Decision(Action.DONE, "this message's Job was launched before")
    if status.is_terminal:
        return Decision(Action.ABANDON, _refusal(status))
    return Decision(Action.ADOPT, "this message's Job is half-launched")


def _other(status: ProcessingStatus, job: KubeObject) -> Decision:
    if not status.may_start:
        return Decision(Action.REFUSE, _refusal(status))
    if objects.is_finished(job):
        if objects.is_reported(job):
            return Decision(Action.LAUNCH, f"status {status.title}; the Job before has ended and is reported")
        return Decision(Action.LATER, "the Job before has ended; its outcome is reported first")
    if objects.is_deleting(job):
        return Decision(Action.LATER, "the Job before is being deleted")
    if objects.is_acknowledged(job):
        return Decision(Action.REPLACE, f"status {status.title} while the Job before runs: a new training is asked for")
    return Decision(Action.DUPLICATE, "a training of this model is already being launched for another message")


def _refusal(status: ProcessingStatus) -> str:
    return f"status {status.title}; only Created and Reconfigure may start"
