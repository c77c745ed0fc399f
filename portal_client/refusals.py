"""Which error an answer is that is no success: whose turn it is, and whether to try again (pure)."""

from __future__ import annotations

import re
from http.client import responses

from portal_client.errors import (
    ModelUnknown,
    NotFoundUnexplained,
    PortalError,
    PortalRefused,
    PortalUnauthorized,
    PortalUnavailable,
    WriteConflict,
)
from portal_client.exchange import Answer, Call
from portal_client.fields import words_of
from training_common.retry_after import parse_retry_after
from training_common.text import one_line

_ROUTERS_OWN_404 = (
    b"404 page not found",
    b"default backend - 404",
    b"404: not found",
    b"no healthy upstream",
)
"""How Go servers and Traefik, ingress-nginx, aiohttp and Envoy say that nothing is routed at this URL."""

_RETRYABLE_4XX = {407, 408, 421, 425, 429}
_CONFLICTS = {409, 412, 423}
# What a gateway or framework repeats of the request says nothing about the model.
_PATHS = re.compile(r"[^\s\"'<>]*/[^\s\"'<>]*")
_ABOUT_A_MODEL = re.compile(r"\bmodel", re.IGNORECASE)
# "No type was found that matches the controller named 'models'": nothing is routed there, whatever the model.
_ABOUT_A_ROUTE = re.compile(r"controller|\brout(?:e|ing|er)|endpoint|handler|upstream|request uri", re.IGNORECASE)


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
    if answer.refuses_key(call):
        there = one_line(answer.clean(answer.headers.get("Location", "").partition("?")[0]))[:200]
        return PortalUnauthorized, (
            f"The portal answered {spelt} to {call}: a redirect to {there}, as to a login page: it does not accept the "
            "API key: check API_KEY and MODEL_API_AUTH_METHOD, and API_BASE_URL if the key is right"
        )
    if status == 403 and answer.is_html:
        return PortalUnavailable, (
            f"A gateway or firewall before the portal forbids this call (403 Forbidden to {call}, with a web page that"
            " is not the API's): its operator can say which rule it was"
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
    words = _PATHS.sub(" ", answer.text())
    if status == 404 and _ABOUT_A_MODEL.search(words) and not _ABOUT_A_ROUTE.search(words):
        return ModelUnknown, (
            f"The portal does not know {call.target} (404 Not Found to {call}){said}: "
            "check the model ID, and API_BASE_URL if it knows no model at all"
        )
    if status == 404:
        return NotFoundUnexplained, (
            f"The portal answered {call} with 404 Not Found{said or ' without a word'}: it may not know {call.target}, "
            "or API_BASE_URL leads elsewhere, or the portal is being rolled out. Until it has answered for some model, "
            "this counts as an outage"
        )
    if status in _CONFLICTS:
        return WriteConflict, (
            f"The portal cannot take this call for {call.target} now ({spelt} to {call}){said}: somebody else may be "
            "writing; its status is read and compared before it is tried again"
        )
    return PortalRefused, (
        f"The portal refuses this call for {call.target} ({spelt} to {call}){said}: repeating it would not help"
    )


def known_elsewhere(error: PortalError, call: Call, witness: str) -> ModelUnknown:
    """What a 404 without a word means from a portal that has just answered for the model `witness`."""
    return ModelUnknown(
        f"The portal does not know {call.target} (404 Not Found to {call}, without a word; it knows model {witness}): "
        "check the model ID",
        detail=error.detail,
        status_code=error.status_code,
        retry_after=error.retry_after,
    )


def status_line(status: int) -> str:
    """As the documented error line has it: "401 Client Error: Unauthorized"."""
    kind = "" if status < 400 else " Client Error:" if status < 500 else " Server Error:"
    return f"{status}{kind} {_phrase(status)}"


def _explanation(answer: Answer) -> str:
    """The portal's own words on a refusal, shortened; "" where it gave none that a person could use."""
    if answer.is_html:
        return ""
    try:
        return answer.quoted(words_of(answer.document()))
    except ValueError:
        return ""


def _phrase(status: int) -> str:
    return responses.get(status, "Unknown")
