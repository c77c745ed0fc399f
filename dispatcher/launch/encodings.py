"""What senders do to the JSON of a message before it is put on the queue: base64 is read, all else is named. Pure."""

from __future__ import annotations

import base64
import re

# White space and byte order marks, in whatever order they come.
EDGES = "\ufeff \t\r\n"
# How the JSON text of an object or array begins.
OPENINGS = ("{", "[")
_IN_TEXT = ('"{', '"[')
# How it begins after what some senders do to it; no JSON begins so.
_MISTAKEN = (
    (re.compile(r"[{\[]\s*'"), "an object of Python or JavaScript with single quotes; send JSON, with double ones"),
    (re.compile(r"[{\[]\s*&(?:quot|#0*34|#x0*22);", re.IGNORECASE), "JSON that was escaped for HTML; send it as it is"),
    (re.compile(r'[{\[]\s*\\"'), "JSON that was escaped as a text; send the object itself"),
    (re.compile(r"%(?:7b|5b)", re.IGNORECASE), "JSON that was encoded for a URL; send it as it is"),
    (re.compile(r"(?:7b|5b)(?:20|0[ad9])*(?:22|7b|5b)", re.IGNORECASE), "JSON in hexadecimal digits; send it as it is"),
)


def json_in_base64(text: str) -> str | None:
    """The UTF-8 text that `text` encodes if it holds JSON's opening of an object or array, else None."""
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True).decode().strip(EDGES)
    except ValueError:  # neither base64 nor UTF-8
        return None
    # "1234" and "true" are base64 as well; what they decode to is no JSON document.
    return decoded if decoded.startswith(OPENINGS) else None


def looks_like(text: str, *, known: bool) -> str:
    """What a sender most likely did to the JSON, for the person who has to find it; "" where nothing is recognised.

    known: the text is JSON, or base64 of it, by its opening.
    """
    opening = text.replace("\x00", "").lstrip("\ufeff\ufffd\xff\xfe").startswith(OPENINGS)
    if 3 * text.count("\x00") > len(text) and opening:
        return "UTF-16 that was read as UTF-8; send UTF-8"
    for beginning, what in _MISTAKEN:
        if beginning.match(text):
            return what
    return "" if known else _looks_encoded("".join(text.split()))


def _looks_encoded(packed: str) -> str:
    """The same for text without white space that may be some kind of base64, also of base64."""
    standard = packed.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError:
        return ""
    # UTF-32 first: its little end begins as that of UTF-16 does.
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        if raw.removeprefix("\ufeff".encode(encoding)).startswith(tuple(o.encode(encoding) for o in OPENINGS)):
            return f"base64 of JSON in {encoding[:6].upper()}; encode it in UTF-8"
    if raw.startswith(b"\x1f\x8b"):
        return "base64 of gzip; send the JSON uncompressed"
    inner = raw.decode("utf-8", "replace").strip(EDGES)
    if inner.startswith(_IN_TEXT):
        return "base64 of JSON that was encoded twice, as a text; encode the object itself"
    if not inner.startswith(OPENINGS):
        nested = inner.strip('"')
        return (
            "base64 of base64; encode it once" if nested and (json_in_base64(nested) or _looks_encoded(nested)) else ""
        )
    if "\ufffd" in inner:
        return "base64 of JSON that is not in UTF-8; encode it in UTF-8"
    if standard != packed.rstrip("="):
        return 'base64 of the kind for URLs, with "-" and "_"; use standard base64'
    if not inner.endswith(("}", "]")):
        return "base64 of JSON that is cut off"
    return 'base64 of JSON with the wrong padding; it ends with as many "=" as make its length a multiple of four'
