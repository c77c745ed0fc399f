"""The `Message` of a status update: the documented ones (Processing, Completed), and what makes a text fit (pure)."""

from __future__ import annotations

import re

from training_common.redaction import redact

STARTED = "Model training started"
COMPLETED = "Model training completed successfully"

AGAIN = "Set the model to Reconfigure at the portal, then put the request on the queue again"
"""What a user does about most failures. A request alone starts nothing while the model is Failed."""

MESSAGE_LIMIT = 4000
"""UTF-16 code units, as .NET and an nvarchar(4000) column count; a longer message ends in an ellipsis."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def with_remark(sentence: str, remark: str) -> str:
    """`sentence` with the remark in brackets, before what is to be done where it ends with that."""
    said, again, more = sentence.partition(f". {AGAIN}")
    return f"{said.rstrip('.')} ({remark}){again}{more}"


def failed(sentence: str) -> str:
    """The message of a Failed whose request came from the queue: it ends with what comes first at the portal.

    A sentence that is too long for the portal is cut before that; one that says it anyhow is left as it is.
    """
    if "Reconfigure" in sentence:
        return sentence
    said = sentence.rstrip(".")
    end = "" if said.endswith(("?", "!", "…")) else "."
    first = f"{end} To train it again, s{AGAIN[1:]}"
    room = MESSAGE_LIMIT - len(first)
    units = said.encode("utf-16-le", "surrogatepass")
    if len(units) > 2 * room:
        units = units[: 2 * (room - 1)] + "…".encode("utf-16-le")
    return units.decode("utf-16-le", "replace") + first


def portal_message(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """What is fit for the portal's users: no secret, no control character, at most `limit` UTF-16 units."""
    text = _CONTROL.sub(" ", redact(text))
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) > 2 * limit:
        units = units[: 2 * (limit - 1)] + "…".encode("utf-16-le")
    # A lone surrogate, in the text or made by the cut, is what neither JSON readers nor databases take.
    return units.decode("utf-16-le", "replace")
