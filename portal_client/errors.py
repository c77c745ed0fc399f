"""Every way a call to the portal ends badly. Callers ask the error, never the status code."""

from __future__ import annotations


class PortalError(Exception):
    """One failed call.

    `str(error)` is a sentence for people: what, where, what would be right; it never holds a secret.
    detail:      the technical half of the documented line "Error updating model status: {detail}"
    retryable:   the same call may succeed later without a change to the request
    retry_after: seconds (>= 0) that the portal asked to wait, or None
    status_code: the HTTP status, or None where no answer came
    ambiguous:   a write may have been applied although an error was seen (time-out, cut connection, 5xx)
    """

    retryable = False

    def __init__(
        self,
        sentence: str,
        *,
        detail: str | None = None,
        status_code: int | None = None,
        retry_after: float | None = None,
        ambiguous: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.detail = sentence if detail is None else detail
        self.status_code = status_code
        self.retry_after = retry_after
        self.ambiguous = ambiguous


class PortalUnavailable(PortalError):
    """No usable answer: no connection, time-out, 5xx, 429, redirect, HTML, no body. Try again later."""

    retryable = True


class NotFoundUnexplained(PortalUnavailable):
    """404 in nobody's words, from a portal that has not shown that it knows models: the model may be unknown, or
    API_BASE_URL wrong, or the portal being rolled out. Only this model's calls may be concerned.
    """


class WriteConflict(PortalUnavailable):
    """409, 412, 423: somebody else writes this model's status. Read it, compare, write again."""


class StatusInDoubt(PortalUnavailable):
    """The portal shows what may have stood there before our own write: a cache or a replica may lag behind."""


class NotAcknowledged(PortalUnavailable):
    """A write was answered with success, and not confirmed: by the answer's own words, or by the status afterwards."""


class PortalUnauthorized(PortalError):
    """401, 403, a redirect to a login: calls succeed once a person has corrected API_KEY. Nothing is lost meanwhile."""

    retryable = True


class PortalRefused(PortalError):
    """Any other 4xx: the portal understood this request and refuses it; repeating it changes nothing."""


class ModelUnknown(PortalRefused):
    """404 in the API's words, or from a portal that knows other models: it has no model of this id."""


class StatusUnreadable(PortalError):
    """The portal answered with a status that is none of the documented ones, or with two that contradict each other."""
