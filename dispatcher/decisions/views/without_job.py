"""Where a model stands that has no training Job of ours: by its message, its poison entry, and the portal's word. Pure.

What `dispatcher explain` and a model's own page say. Nothing here is known for sure: a message may be hidden, and a Job
may be of another namespace or gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.decisions.verdicts import Holder
from dispatcher.decisions.views.standing import Standing
from portal_client.errors import ModelUnknown, PortalError
from portal_client.messages import AGAIN
from portal_client.model_ids import MODEL_PREFIX
from portal_client.statuses import ModelStatus, ProcessingStatus

UNKNOWN = "unknown"
"""The phase of a name that nobody has heard of."""

_MAY_START = tuple(status.title for status in ProcessingStatus if status.may_start)
_CHECK = "`dispatcher check` says what is wrong with the portal"


@dataclass(frozen=True)
class PortalWord:
    """What the portal has for a model. status: its word, "" where there is none; answered: whether it answered for this
    model, if only that it has none of that name.
    """

    status: str
    message: str
    answered: bool = True

    @property
    def progress(self) -> str:
        """The message of a training that runs; that of an earlier status says nothing of it."""
        return self.message if self.status == ProcessingStatus.PROCESSING.title else ""

    @property
    def may_start(self) -> bool:
        """Whether it lets a training begin."""
        return self.status in _MAY_START


NOT_TRACKED = PortalWord("", "not asked: STATUS_TRACKING=off")
NOT_ASKED_YET = PortalWord("", "it is being asked", answered=False)


def heard(answer: ModelStatus | PortalError) -> PortalWord:
    """What the portal's answer, or its failure, says of the model."""
    if isinstance(answer, ModelStatus):
        return PortalWord(answer.status.title, answer.message)
    if isinstance(answer, ModelUnknown):
        return PortalWord("", "the portal has no such model")
    return PortalWord("", str(answer), answered=False)


@dataclass(frozen=True)
class Trace:
    """A message on the queue, or an entry of the poison queue. since: epoch seconds, None where it does not say."""

    sentence: str
    code: str | None
    since: float | None
    message_id: str = ""


@dataclass(frozen=True)
class Traces:
    """All that is known of a model without a Job of ours.

    namespace: that was looked in; message: the first visible one; poison: its latest entry; paused: `Pause.sentence` of
    the intake, "" where it is not paused; hidden: how many messages, whose ever, cannot be seen; foreign: whether a Job
    that no dispatcher has made has the name; elsewhere: who else may have launched it (`readers.perhaps`), "" where
    nobody else is known to read the queues.
    """

    name: str
    namespace: str
    portal: PortalWord
    message: Trace | None = None
    poison: Trace | None = None
    paused: str = ""
    hidden: int = 0
    foreign: bool = False
    elsewhere: str = ""


def standing(found: Traces) -> Standing:
    """In the order of what is surest: a Job that has the name, a message, a poison entry, the portal."""
    name, portal, status = found.name, found.portal, found.portal.status
    if found.foreign:
        sentence = f"A Job {name} in namespace {found.namespace} has the name, and no dispatcher has made it"
        whose = f"Look whose it is: `kubectl -n {found.namespace} describe job {name}`; then remove it"
        return _says("foreign", sentence, whose)
    if found.message is not None:
        return _on_the_queue(found, found.message)
    if found.poison is not None and status not in ("Processing", "Completed"):
        entry = found.poison
        advice = f"Mend what it names, then `dispatcher poison requeue {entry.message_id}`, or send a new request"
        return _says("refused", entry.sentence, advice, code=entry.code, since=entry.since)
    if portal == NOT_ASKED_YET:
        return _says("not known", "There is no Job and no visible message, and the portal is being asked",
                     "Wait a moment: it is asked within seconds")  # fmt: skip
    if not portal.answered:
        sentence = f"There is no Job and no visible message, and the portal is out of reach: {portal.message}"
        return _says("not known", sentence, _CHECK)
    if status in ("Completed", "Failed"):
        gone = "Its Job is gone (TTL_AFTER_REPORT_SECONDS), and with it the times of its training"
        advice = "Nothing: the model is stored" if status == "Completed" else AGAIN
        return _says(status.lower(), f"{status} at the portal: {portal.message or 'no message'}. {gone}", advice)
    if status == "Processing":
        perhaps = found.elsewhere or (
            "perhaps another dispatcher's, of another namespace or cluster, or its Job was removed by hand"
        )
        sentence = f"Processing at the portal, and no Job in namespace {found.namespace}: {perhaps}"
        where = f"`kubectl get jobs -A -l training-dispatcher/model-id={name.removeprefix(MODEL_PREFIX)}`"
        advice = f"Look in all namespaces before it is trained twice: {where}. Only where there is none: {_low(AGAIN)}"
        return _says("elsewhere", sentence, advice)
    if status:
        sentence = f"{status} at the portal, without a Job, and no message is for it"
        if found.hidden:
            sentence = (
                f"{status} at the portal, without a Job, and no message of those that can be seen is for it; about "
                f"{found.hidden} cannot be seen: they are being received, wait to be tried again, or lie behind"
            )
        return _says("not requested", sentence, f"Look again in a minute, then send it: `dispatcher submit {name}`")
    sentence = f"Neither portal, queue nor cluster (namespace {found.namespace}) know {name}: {portal.message}"
    return _says(UNKNOWN, sentence, "Look at the name: `dispatcher list` has those that are known")


def _on_the_queue(found: Traces, message: Trace) -> Standing:
    portal, status = found.portal, found.portal.status
    holder, sentence = Holder.DISPATCHER, message.sentence
    if status and not portal.may_start:
        sentence += f"; it will be rejected then: the model is {status} at the portal"
        advice = f"{AGAIN}, unless its training is wanted as it ended"
    elif found.paused:
        holder, sentence = Holder.PERSON, f"{sentence}: the intake is {found.paused}"
        advice = "`dispatcher resume`, once what it was paused for is done"
    elif not portal.answered and portal != NOT_ASKED_YET:
        holder, sentence = (
            Holder.PORTAL,
            f"{sentence}: requests wait while the portal is out of reach: {portal.message}",
        )
        advice = _CHECK
    else:
        advice = (
            "Wait. If it stays: /readyz and `dispatcher check` say why no request is taken (MAX_ACTIVE_JOBS, an outage)"
        )
    return _says("on the queue", sentence, advice, code=message.code, since=message.since, holder=holder)


def _says(
    phase: str,
    sentence: str,
    advice: str,
    *,
    code: str | None = None,
    since: float | None = None,
    holder: str | None = None,
) -> Standing:
    return Standing(phase, code, sentence, holder, since, None, None, advice)


def _low(text: str) -> str:
    return text[:1].lower() + text[1:]
