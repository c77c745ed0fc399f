"""What an HTTP answer of the portal means: a status, an acceptance, or the right error (pure).

An answer counts only if the status API itself gave it. A proxy's login page, a gateway's error page or
another application under a wrong API_BASE_URL is "unavailable": an operator's mistake never condemns a model.
"""

from __future__ import annotations

from portal_client import denials
from portal_client.errors import NotAcknowledged, PortalUnavailable, StatusUnreadable
from portal_client.exchange import MAX_BODY_BYTES, Answer, Call
from portal_client.fields import Fields
from portal_client.refusals import refusal
from portal_client.statuses import ModelStatus, ProcessingStatus
from training_common.text import one_line


def read_status(answer: Answer, call: Call, now: float) -> ModelStatus:
    """The model's status in the answer to a GET. Raises PortalError.

    now: seconds since 1970, for a Retry-After that is a date.
    """
    if not answer.is_success:
        raise refusal(answer, call, now)
    if answer.too_large:
        raise _unusable(answer, call, f"more than {MAX_BODY_BYTES // 1024} KiB")
    if answer.is_html:
        raise _unusable(answer, call, "an HTML page")
    if not answer.body.strip():
        raise _unusable(answer, call, "an empty body")
    try:
        document = answer.document()
    except ValueError:
        raise _unusable(answer, call, "a body that is no JSON") from None
    if not isinstance(document, Fields) or not document.all("status"):
        raise StatusUnreadable(
            f'The portal answered {call} without a status: expected JSON {{"status": ..., "message": ...}}',
            status_code=answer.status,
        )
    given = document.all("status")
    try:
        found = {ProcessingStatus.parse(value) for value in given}
    except ValueError:
        found = set()
    if len(found) != 1:
        raise StatusUnreadable(_unreadable(given, answer, call), status_code=answer.status)
    message = next((value for value in document.all("message") if isinstance(value, str)), "")
    return ModelStatus(found.pop(), answer.clean(message))


def _unreadable(given: list[object], answer: Answer, call: Call) -> str:
    """The sentence about a status that is not understood, or about several of them that differ."""
    said = [answer.clean(value) if isinstance(value, str) else value for value in given]
    if len(said) > 1:
        shown = " and ".join(one_line(ascii(value))[:60] for value in said[:4])
        return f"The portal answered {call} with statuses that contradict each other: {shown}"
    try:
        ProcessingStatus.parse(said[0])
    except ValueError as error:
        return f"The portal answered {call} with a status that is not understood: {error}"
    return f"The portal answered {call} with a status that is not understood"


def check_accepted(answer: Answer, call: Call, now: float) -> bool:
    """Raises PortalError unless the portal accepted a PUT; it may say nothing, or anything but a web page or a denial.

    Whether the answer leaves no doubt: else the status is to be read before it counts as acknowledged.
    """
    if not answer.is_success:
        raise refusal(answer, call, now)
    if answer.is_html:
        raise _unusable(answer, call, "an HTML page")
    try:
        document = answer.document()
    except ValueError:
        document = answer.text()
    if (denial := denials.found(document)) is not None:
        raise NotAcknowledged(
            f"The portal answered {answer.status} to {call} and did not take the status{answer.quoted(denial)}",
            status_code=answer.status,
            ambiguous=True,
        )
    if answer.status not in (200, 201, 204):  # such as 202: it will be looked at later
        return False
    return not answer.body.strip() or (isinstance(document, Fields) and denials.confirmed(document, call.sets))


def _unusable(answer: Answer, call: Call, what: str) -> PortalUnavailable:
    sentence = (
        f"The portal answered {answer.status} to {call} with {what} instead of JSON: "
        "is API_BASE_URL the portal itself, and not a login page or another application?"
    )
    return PortalUnavailable(sentence, status_code=answer.status, ambiguous=call.writes)
