"""What an HTTP answer of the portal means: a status, an acceptance, or the right error (pure).

An answer counts only if the status API itself gave it. A proxy's login page, a gateway's error page or
another application under a wrong API_BASE_URL is "unavailable": an operator's mistake never condemns a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import responses

from portal_client.errors import (
    ModelUnknown,
    PortalError,
    PortalRefused,
    PortalUnauthorized,
    PortalUnavailable,
    StatusUnreadable,
)
from portal_client.statuses import ModelStatus, ProcessingStatus
from training_common.redaction import redact
from training_common.retry_after import parse_retry_after
from training_common.text import one_line

MAX_BODY_BYTES = 64 * 1024
"""More is never read: a proper answer has some hundred bytes."""

_ROUTERS_OWN_404 = (
    b"404 page not found",
    b"default backend - 404",
    b"404: not found",
    b"no healthy upstream",
)
"""How Go servers and Traefik, ingress-nginx, aiohttp and Envoy say that nothing is routed at this URL."""

_RETRYABLE_4XX = {407, 408, 421, 425, 429}
_EXPLANATION_KEYS = ("detail", "message", "error", "title")


@dataclass(frozen=True)
class Call:
    """One request, as far as its sentences need it. target: "model 123"."""

    method: str
    url: str
    target: str

    @property
    def writes(self) -> bool:
        return self.method == "PUT"

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


@dataclass(frozen=True)
class Answer:
    """status: HTTP status code; headers: case-insensitive; body: at most MAX_BODY_BYTES, too_large if
    there was more."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    too_large: bool = False

    @property
    def is_html(self) -> bool:
        content_type = self.headers.get("Content-Type", "").split(";")[0].strip().lower()
        return content_type in ("text/html", "application/xhtml+xml") or self.body.lstrip()[:1] == b"<"

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def document(self) -> object:
        """The JSON in the body, an object's names in lower case. Raises ValueError."""
        try:
            found = json.loads(self.body.decode("utf-8-sig"))
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        return {name.lower(): value for name, value in found.items()} if isinstance(found, dict) else found


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
    if not isinstance(document, dict) or "status" not in document:
        raise StatusUnreadable(
            f'The portal answered {call} without a status: expected JSON {{"status": ..., "message": ...}}',
            status_code=answer.status,
        )
    try:
        status = ProcessingStatus.parse(document["status"])
    except ValueError as error:
        raise StatusUnreadable(
            f"The portal answered {call} with a status that is not understood: {error}",
            status_code=answer.status,
        ) from None
    message = document.get("message")
    return ModelStatus(status, message if isinstance(message, str) else "")


def check_accepted(answer: Answer, call: Call, now: float) -> None:
    """Raises PortalError unless the portal accepted a PUT; it may say nothing, or anything but a web page."""
    if not answer.is_success:
        raise refusal(answer, call, now)
    if answer.is_html:
        raise _unusable(answer, call, "an HTML page")


def refusal(answer: Answer, call: Call, now: float) -> PortalError:
    status = answer.status
    retry_after = parse_retry_after(answer.headers.get("Retry-After"), now)
    kind, sentence = _refusal(answer, call, retry_after)
    return kind(
        sentence,
        detail=status_line(status),
        status_code=status,
        retry_after=retry_after,
        ambiguous=call.writes and (status >= 500 or status == 408),
    )


def _refusal(answer: Answer, call: Call, retry_after: float | None) -> tuple[type[PortalError], str]:
    status, said = answer.status, _explanation(answer)
    spelt = f"{status} {_phrase(status)}"
    if status == 401:
        return PortalUnauthorized, (
            f"The portal does not accept the API key (401 Unauthorized to {call}){said}: "
            "check API_KEY and MODEL_API_AUTH_METHOD"
        )
    if status == 403:
        return PortalUnauthorized, (
            f"The portal forbids this API key the call (403 Forbidden to {call}){said}: "
            "the key needs the right to read and write model statuses"
        )
    if status < 400:
        return PortalUnavailable, (
            f"The portal answered {status} to {call}: a redirect, which is not followed (a login page would look like "
            "success): check API_BASE_URL; https instead of http, or another host?"
        )
    if status >= 500 or status in _RETRYABLE_4XX:
        waiting = "" if retry_after is None else f"; it asks to wait {retry_after:.0f} s"
        return PortalUnavailable, f"The portal cannot answer now ({spelt} to {call}){said}{waiting}"
    if answer.is_html or answer.body.strip().lower().startswith(_ROUTERS_OWN_404):
        return PortalUnavailable, (
            f"There is no model status API at {call.url} ({spelt} to {call.method}, with "
            "a page that is not the API's): check API_BASE_URL"
        )
    if status == 404:
        return ModelUnknown, (
            f"The portal does not know {call.target} (404 Not Found to {call}){said}: "
            "check the model ID, and API_BASE_URL if it knows no model at all"
        )
    return PortalRefused, (
        f"The portal refuses this call for {call.target} ({spelt} to {call}){said}: repeating it would not help"
    )


def status_line(status: int) -> str:
    """As the documented error line has it: "401 Client Error: Unauthorized"."""
    kind = "" if status < 400 else " Client Error:" if status < 500 else " Server Error:"
    return f"{status}{kind} {_phrase(status)}"


def _unusable(answer: Answer, call: Call, what: str) -> PortalUnavailable:
    sentence = (
        f"The portal answered {answer.status} to {call} with {what} instead of JSON: "
        "is API_BASE_URL the portal itself, and not a login page or another application?"
    )
    return PortalUnavailable(sentence, status_code=answer.status, ambiguous=call.writes)


def _explanation(answer: Answer) -> str:
    """The portal's own words on a refusal, shortened; "" where it gave none that a person could use."""
    if answer.is_html:
        return ""
    try:
        document = answer.document()
    except ValueError:
        return ""
    if isinstance(document, dict):
        document = next((document[key] for key in _EXPLANATION_KEYS if isinstance(document.get(key), str)), None)
    if not isinstance(document, str) or not document.strip():
        return ""
    return f" saying {one_line(redact(document[:500]))[:200]!r}"


def _phrase(status: int) -> str:
    return responses.get(status, "Unknown")
