"""The `Message` of a status update: the documented ones (Processing, Completed), and what makes a text fit (pure)."""

from __future__ import annotations

import re

from training_common.redaction import redact

STARTED = "Model training started"
COMPLETED = "Model training completed successfully"

MESSAGE_LIMIT = 4000
"""UTF-16 code units, as .NET and an nvarchar(4000) column count; a longer message ends in an ellipsis."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def portal_message(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """What is fit for the portal's users: no secret, no control character, at most `limit` UTF-16 units."""
    text = _CONTROL.sub(" ", redact(text))
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) > 2 * limit:
        units = units[: 2 * (limit - 1)] + "…".encode("utf-16-le")
    # A lone surrogate, in the text or made by the cut, is what neither JSON readers nor databases take.
    return units.decode("utf-16-le", "replace")
