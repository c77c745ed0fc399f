"""What a body says against, or for, the success that its HTTP status claims (pure).

Many frameworks answer 200 to everything and put the truth into the body: {"success": false, "error": {"message": ...}}.
"""

from __future__ import annotations

import re

from portal_client.fields import Fields, words_of
from portal_client.statuses import ProcessingStatus

_FLAGS = ("success", "succeeded", "successful", "issuccess", "issuccessful", "ok", "acknowledged", "accepted")
_FAILURES = ("error", "errors", "exception", "errormessage", "error_message", "fault", "haserror", "iserror", "failed")
_CODES = ("statuscode", "status_code", "httpstatus", "code", "status")
_INSIDE = ("result", "data", "value", "response", "d")
_BAD_WORDS = re.compile(
    r"\W*(?:error|err|fail\w*|exception|denied|unauthori[sz]ed|forbidden|not found|false)\b", re.IGNORECASE
)
_GOOD = re.compile(r"\W*(?:ok|success\w*|succeeded|true|0|20[014])\W*", re.IGNORECASE)


def found(document: object) -> str | None:
    """The words in which the answer to a write denies that it was taken; None where it does not.

    document: the body's JSON, or its text where it is none.
    """
    if document is False:
        return "false"
    if isinstance(document, str):
        return document if _BAD_WORDS.match(document) else None
    if not isinstance(document, Fields):
        return None
    claims = [_claim(value) for name in _FLAGS for value in document.all(name)]
    failures = [value for name in _FAILURES for value in document.all(name) if _is_said(value)]
    if False in claims or (failures and True not in claims) or any(_is_bad(document, name) for name in _CODES):
        return words_of(document) or words_of(failures) or _shown(document)
    inner = (found(value) for name in _INSIDE for value in document.all(name) if isinstance(value, Fields))
    return next((words for words in inner if words is not None), None)


def confirmed(document: Fields, sent: ProcessingStatus | None) -> bool:
    """Whether an answer that denies nothing says that the write was taken, in words that leave no doubt.

    {"code": 1, "msg": "busy"} is how many APIs say that it was not; nobody knows all of their words. sent: the status.
    """
    statuses = [value for value in document.all("status") if _is_status(value)]
    if any(ProcessingStatus.parse(value) is not sent for value in statuses):
        return False
    if statuses or not document.pairs or any(_claim(value) for name in _FLAGS for value in document.all(name)):
        return True
    inner = [value for name in _INSIDE for value in document.all(name) if isinstance(value, Fields)]
    if any(confirmed(value, sent) for value in inner):
        return True
    codes = [value for name in _CODES for value in document.all(name)]
    failures = [value for name in _FAILURES for value in document.all(name)]
    return all(_GOOD.fullmatch(str(value)) for value in codes) and bool(codes or failures)


def _claim(value: object) -> bool | None:
    """What a flag says; None for what is no flag."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, bool | int) else None


def _is_said(value: object) -> bool:
    """{"error": null}, "", [], {} and 0 say that there is none."""
    if isinstance(value, Fields):
        return bool(value.pairs)
    return bool(value) and str(value).strip().lower() not in ("none", "null", "false", "0")


def _is_bad(document: Fields, name: str) -> bool:
    """A status that is an HTTP error, or a word for a failure that is no model's status."""
    for value in document.all(name):
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return True
        if name == "status" and isinstance(value, str) and _BAD_WORDS.match(value) and not _is_status(value):
            return True
    return False


def _is_status(value: object) -> bool:
    try:
        ProcessingStatus.parse(value)
    except ValueError:
        return False
    return True


def _shown(document: Fields) -> str:
    return ", ".join(f"{name}: {value}" for name, value in document.pairs if isinstance(value, str | int | None))
