"""Keeps secrets out of texts: exception sentences, status messages, log records (pure).

Both images install `RedactSecrets` on their log *handlers*: a logger's filter does not see its children's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from training_common.secret_forms import MIN_SECRET_LENGTH, REDACTED, hide

__all__ = ["MIN_SECRET_LENGTH", "REDACTED", "SECRET_OPTION", "RedactSecrets", "redact"]

# What stands already redacted is left alone: a record passes one filter for each handler.
_VALUE = r"(?!\[redacted\])[^\s'\",;)}\]&]+"
# A comma separates only after a quoted name, as in a tuple; in prose it begins the next word.
_SEPARATOR = r"(?:['\"]?\s*[:=]|['\"]\s*,)\s*(?:b?['\"])?+"
_SCHEMES = "bearer|basic|sharedkey|sharedkeylite|token|api-?key|negotiate"
_OPTION = (
    r"--?(?:[a-z0-9]+[-_])*(?:api[-_]?key|access[-_]?key|account[-_]?key|secret|secret[-_]?key|token|password|passwd|pwd"
    r"|connection[-_]?string|sas)"
)
SECRET_OPTION = re.compile(_OPTION, re.IGNORECASE)
"""An option of a command line whose value is a secret, such as --api-key."""

# Words, in lower case, of which one stands in whatever the pattern finds: most lines have none, and cost nothing.
_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = tuple(
    (words, re.compile(pattern, re.IGNORECASE), replacement)
    for words, pattern, replacement in (
        # Azure connection strings; a SharedAccessSignature is a whole query string.
        (
            ("accountkey", "sharedaccess"),
            r"((?:AccountKey|SharedAccessKey|SharedAccessSignature)\s*=\s*)[^;\s'\"]+",
            rf"\1{REDACTED}",
        ),
        # The signature of a SAS URL or token.
        (("sig",), r"((?:^|[?&;\s'\"=]|%26|%3F)sig(?:=|%3D))[^&\s;'\"]+", rf"\1{REDACTED}"),
        # Request headers as text, dict or tuple. A bare three-digit value is the HTTP status of the
        # documented line "... successful with x-api-key: 200".
        (("x-api-key",), rf"(x-api-key{_SEPARATOR})(?![0-9]{{3}}(?:\s|$)){_VALUE}", rf"\1{REDACTED}"),
        (("authorization",), rf"(authorization{_SEPARATOR}(?:(?:{_SCHEMES})\s+)?+){_VALUE}", rf"\1{REDACTED}"),
        (("bearer",), r"(\bbearer\s+)[A-Za-z0-9_+/=~-][A-Za-z0-9._~+/=-]{15,}", rf"\1{REDACTED}"),
        # Also the end of a longer name, such as WANDB_API_KEY or PGPASSWORD. A pad_token is no secret.
        (
            ("key", "secret", "passw", "pwd", "token"),
            r"((?:(?:(?<!x-)api|access|account|functions|subscription)[-_]?key|client_?secret|passw(?:or)?d|\bpwd"
            rf"|(?:access|auth|refresh|api|hf|hub|session)[-_]token){_SEPARATOR}){_VALUE}",
            rf"\1{REDACTED}",
        ),
        # A JSON Web Token, by its first letters: an object in base64.
        (("eyj",), r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", REDACTED),
        # An option with its value, as a usage or a shell shows it.
        (
            ("key", "secret", "token", "passw", "pwd", "string", "sas"),
            rf"((?:^|(?<=[\s'\"])){_OPTION}(?:=|['\"]?\s+)['\"]?){_VALUE}",
            rf"\1{REDACTED}",
        ),
        # The token of one run (dispatcher/relay): model and run are no secrets, the proof is.
        (("v1.",), r"(\bv1\.[a-z0-9-]{1,63}\.[a-z0-9_-]{1,64}\.)[0-9a-f]{64}\b", rf"\1{REDACTED}"),
        # User and password in a URL.
        (("://",), r"(\b[a-z][a-z0-9+.-]{1,20}://)[^/\s@'\"]+@", rf"\1{REDACTED}@"),
    )
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without account keys, SAS signatures, API keys, Authorization headers and passwords in URLs.

    secrets: literals to hide as well, in every form that they may have taken on the way (see secret_forms)
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = hide(text, secret)
    lower = text.lower()
    for words, pattern, replacement in _RULES:
        if any(word in lower for word in words):
            text = pattern.sub(replacement, text)
    return text


class RedactSecrets(logging.Filter):
    """Redacts each record's message with its arguments, its exception's text and its stack.

    secrets: literal values to hide besides what `redact` knows, e.g. API_KEY.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        message = _message(record)
        clean = redact(message, self._secrets)
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)
            clean = redact(text, self._secrets)
            if clean != text:
                # Formatters prefer exc_text; without exc_info none can format the original again.
                record.exc_text, record.exc_info = clean, None
        elif record.exc_text:
            record.exc_text = redact(record.exc_text, self._secrets)
        if record.stack_info:
            record.stack_info = redact(record.stack_info, self._secrets)
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # Arguments that do not fit the template would be printed raw by logging's own error report.
        record.msg, record.args = f"{record.msg} {record.args!r}", None
        return record.getMessage()
