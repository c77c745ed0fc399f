"""What a training may ask of the relay, what of it is passed on to the portal, and how the answer is told. Pure.

    GET  /api/external/models/{id}/status     the token's own model alone
    PUT  /api/external/models/status          the same; Processing, Completed or Failed
    POST /training/dataset                    {"container": NAME}: access to a dataset that only config.yaml names

Nothing that a training sends becomes part of a URL or a header: what is passed on is made from the token's model, one
of three statuses, and a text. It is passed on while the run is its Job's and that is not reported:

    shown                 asked for                our Processing was     then
    Processing            any of the three         -                      passed on
    Completed, Failed     the same                 -                      passed on
    Completed, Failed     another                  -                      409: an outcome is never overwritten
    Created, Reconfigure  any of the three         never acknowledged     passed on
    Created, Reconfigure  any of the three         acknowledged           409: somebody has moved on, or the portal lags
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from dispatcher.cluster.jobs import Job
from dispatcher.relay.tokens import Claims
from portal_client.auth import AUTO, BEARER, X_API_KEY
from portal_client.errors import (
    ModelUnknown,
    NotAcknowledged,
    NotFoundUnexplained,
    PortalError,
    PortalRefused,
    PortalUnauthorized,
    PortalUnavailable,
    StatusUnreadable,
    WriteConflict,
)
from portal_client.statuses import ModelStatus, ProcessingStatus

UPDATE = "/api/external/models/status"
DATASET = "/training/dataset"
_STATUS = "/api/external/models/{}/status"
_JSON = "application/json"
_MAY_BE_SENT = (ProcessingStatus.PROCESSING, ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)
# Answers of the portal's that mean the same to a training: what is no plain answer of the status API is none of these.
_PASSED_ON = {408, 421, 425, 429, 500, 501, 502, 503, 504}
_MOST_SENTENCE = 500


@dataclass(frozen=True)
class Read:
    """The model's status."""


@dataclass(frozen=True)
class Write:
    """A status and its message."""

    status: ProcessingStatus
    message: str


@dataclass(frozen=True)
class AskDataset:
    """A dataset that only the training has learned of."""

    container: str


@dataclass(frozen=True)
class Reply:
    """What the training is answered. result: for metrics and log, one of the metrics' RELAY_RESULTS."""

    status: int
    body: bytes
    result: str
    kind: str = _JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def token_of(headers: Mapping[str, Sequence[str]], method: str) -> str | None:
    """The one token of a request, in a header that MODEL_API_AUTH_METHOD uses; None: none, or several.

    headers: name in lower case → values.
    """
    found = list(headers.get("x-api-key", ())) if method in (AUTO, X_API_KEY) else []
    for value in headers.get("authorization", ()) if method in (AUTO, BEARER) else ():
        scheme, _, token = value.partition(" ")
        found.append(token if scheme.lower() == "bearer" else "")
    return found[0].strip() if len(found) == 1 else None


def wish_of(method: str, target: str, body: bytes, claims: Claims) -> Read | Write | AskDataset | Reply:
    """What is asked for, or why it is refused. target: path and query, not decoded: only one spelling is right."""
    match method, target:
        case "PUT", path if path == UPDATE:
            return _write_of(body, claims)
        case "POST", path if path == DATASET:
            return _dataset_of(body)
        case "GET", path if path == _STATUS.format(claims.model_id):
            return Read()
        case "GET", path if path.startswith("/api/external/models/") and path.endswith("/status") and path != UPDATE:
            return refusal(403, "forbidden", f"This token is for the model {claims.model_id} alone")
        case _, path if path in (UPDATE, DATASET, _STATUS.format(claims.model_id)):
            right = {UPDATE: "PUT", DATASET: "POST"}.get(path, "GET")
            return refusal(405, "malformed", f"Only {right} is served here", {"Allow": right})
    return refusal(404, "malformed", "Nothing is served under this path; a training reads and writes its status here")


class _Container(msgspec.Struct):
    container: str


class _Update(msgspec.Struct):
    ModelId: str
    Status: int | str
    Message: str | None = None


def _write_of(body: bytes, claims: Claims) -> Write | Reply:
    try:
        update = msgspec.json.decode(body, type=_Update)
        status = ProcessingStatus.parse(update.Status)
    except (ValueError, RecursionError):
        return refusal(400, "malformed", 'JSON {"ModelId": ..., "Status": ..., "Message": ...} would be right')
    if update.ModelId != claims.model_id:
        return refusal(403, "forbidden", f"This token is for the model {claims.model_id} alone")
    if status not in _MAY_BE_SENT:
        return refusal(403, "forbidden", f"A training tells Processing, Completed and Failed, and never {status.title}")
    return Write(status, update.Message or "")


def _dataset_of(body: bytes) -> AskDataset | Reply:
    try:
        return AskDataset(msgspec.json.decode(body, type=_Container).container)
    except (ValueError, RecursionError):
        return refusal(400, "malformed", 'JSON {"container": NAME} would be right')


def over(job: Job | None, claims: Claims) -> Reply | None:
    """Why nothing is passed on of this run, which may be the Job's no more; None where it is."""
    if job is None:
        return refusal(410, "over", f"There is no Job of run {claims.run_id} any more")
    if job.annotations.run_id not in (None, claims.run_id):
        return refusal(410, "over", f"Model {claims.model_id} is another run's by now, and not {claims.run_id}'s")
    if job.is_reported:
        return refusal(410, "over", f"Run {claims.run_id} has been reported: its outcome stands")
    if job.annotations.run_id is None or not (job.is_managed and job.has_finalizer):
        return unavailable("Somebody has taken the dispatcher's marks from the Job; they are put back")
    return None


def of_run(job: Job | None, claims: Claims) -> Job | Reply:
    """The Job, where this run may still speak for it; else why not."""
    if (refused := over(job, claims)) is not None:
        return refused
    assert job is not None, "one that is gone is over"
    return job


def before_write(wish: Write, shown: ProcessingStatus, job: Job, told: ProcessingStatus | None) -> Reply | None:
    """Why the status is not passed on; None where it is: see the table. told: the outcome that was passed on before."""
    if told is not None and wish.status is not told:
        return refusal(409, "conflict", f"This run has told {told.title} already: {wish.status.title} is not passed on")
    if shown.is_terminal and wish.status is not shown:
        return refusal(
            409, "conflict", f"The model is {shown.title} at the portal: {wish.status.title} is not passed on"
        )
    if shown.may_start and job.is_acknowledged:
        return refusal(409, "conflict", f"The model is {shown.title} at the portal by now, or the portal lags behind")
    return None


def shown(found: ModelStatus) -> Reply:
    return _json(200, {"status": found.status.title, "message": found.message}, "passed")


def written(wish: Write) -> Reply:
    return _json(200, {"status": wish.status.title}, "passed")


def dataset(url: str) -> Reply:
    return _json(200, {"url": url}, "passed")


def unauthorized() -> Reply:
    sentence = "No token of a run that is known here: the dispatcher's key may have changed, and the Secret with it"
    # RFC 9110: a 401 says what would be right.
    return refusal(401, "unauthorized", sentence, {"WWW-Authenticate": "Bearer"})


def paced(seconds: float) -> Reply:
    return refusal(429, "paced", "Progress of all trainings has one pace", _retry_after(seconds))


def too_many() -> Reply:
    return refusal(429, "paced", "One run may not ask that often", _retry_after(1.0))


def busy(seconds: float = 1.0) -> Reply:
    return refusal(503, "unavailable", "The dispatcher is busy with this model or with others", _retry_after(seconds))


def unavailable(sentence: str, retry_after: float | None = None) -> Reply:
    return refusal(503, "unavailable", sentence, _retry_after(retry_after))


def failed(error: PortalError, address: str) -> Reply:
    """The portal's failure, so that the training's client makes the same of it as of the portal's own answer.

    address: the portal's, which is no training's business.
    """
    code, wait = error.status_code, _retry_after(error.retry_after)
    said = str(error).replace(address, "API_BASE_URL")[:_MOST_SENTENCE]
    match error:
        case PortalUnauthorized():
            # The dispatcher's key, not the token. To the training it is an outage, which passes.
            return unavailable("The portal does not accept the dispatcher's key", error.retry_after)
        case StatusUnreadable():
            return _json(200, {"message": said}, "refused")
        case NotAcknowledged() if code is not None:
            return _json(code, {"success": False, "error": said}, "refused")
        case NotAcknowledged():
            # Taken, and not shown: the training looks itself.
            return _json(202, {"message": said}, "refused")
        case ModelUnknown():
            return refusal(404, "refused", "The portal does not know this model", wait)
        case NotFoundUnexplained():
            # In no words: they would say that the portal knows models, and not this one.
            return Reply(404, b"", "unavailable", headers=wait)
        case WriteConflict() if code is not None:
            return refusal(code, "conflict", said, wait)
        case PortalRefused() if code is not None and 400 <= code < 500:
            return refusal(code, "refused", said, wait)
        case PortalUnavailable() if code == 403:
            # A firewall's: a page is what tells it from a refused key.
            page = b"<!DOCTYPE html><title>403</title><p>A gateway or firewall before the portal forbids this call\n"
            return Reply(403, page, "unavailable", "text/html; charset=utf-8", wait)
        case _ if code in _PASSED_ON:
            return refusal(code, "unavailable", said, wait)
    if code is None:
        said = "The dispatcher gets no answer from the portal"
    return refusal(502, "unavailable", said, wait)


def shows_an_outage(error: PortalError) -> bool:
    """Whether the portal would take no outcome, whatever its words, which are the training's own."""
    if isinstance(error, PortalUnauthorized):
        return True
    # 403 and 500 may be a firewall's and a column's answer to the words.
    return (
        error.retryable
        and not isinstance(error, WriteConflict | NotAcknowledged)
        and error.status_code not in (403, 500)
    )


def refusal(status: int, result: str, sentence: str, headers: Mapping[str, str] | None = None) -> Reply:
    """As the portal itself words refusals (RFC 9457)."""
    body = json.dumps({"status": status, "detail": sentence}, ensure_ascii=False).encode()
    return Reply(status, body, result, "application/problem+json", headers or {})


def _json(status: int, document: Mapping[str, object], result: str) -> Reply:
    return Reply(status, json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"), result)


def _retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}
