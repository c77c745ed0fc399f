"""Entries of the poison queue `<queue>-poison`: the original text, the reason, the time, the delivery count. Pure."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Any

# Azure Storage Queue: a message has at most 64 KiB.
MAX_ENTRY_BYTES = 64 * 1024


@dataclass(frozen=True)
class PoisonEntry:
    """One rejected message. poisoned_at, queued_at: RFC 3339, UTC."""

    code: str
    sentence: str
    message_id: str
    delivery_count: int
    queued_at: str
    poisoned_at: str
    original: str


def make_entry(entry: PoisonEntry) -> str:
    """The entry's text; an original too large for that is compressed, or if need be all that is kept."""
    fields = asdict(entry)
    plain = json.dumps(fields)
    if len(plain) <= MAX_ENTRY_BYTES:
        return plain
    original = fields.pop("original").encode("utf-8", "surrogatepass")
    fields["original_gzip"] = base64.b64encode(gzip.compress(original, mtime=0)).decode()
    compressed = json.dumps(fields)
    # What cannot be compressed enough is kept as it came: the bytes matter more than the reason, which is in the log.
    return compressed if len(compressed) <= MAX_ENTRY_BYTES else entry.original


def parse_entry(text: str) -> PoisonEntry:
    """Read an entry back. What somebody else put there becomes an entry with the code Unknown."""
    try:
        data = json.loads(text)
        if "original" not in data:
            data["original"] = _unpack(data["original_gzip"])
        read: dict[str, Any] = {field.name: str(data[field.name]) for field in fields(PoisonEntry)}
        return PoisonEntry(**{**read, "delivery_count": int(data["delivery_count"])})
    except (ValueError, KeyError, TypeError, OverflowError, OSError, EOFError, zlib.error, RecursionError):
        return PoisonEntry("Unknown", "No envelope of the dispatcher", "", 0, "", "", text)


def _unpack(packed: str) -> str:
    # Whatever lies there, no more of it is unpacked than an original can have.
    with gzip.open(io.BytesIO(base64.b64decode(packed))) as file:
        raw = file.read(MAX_ENTRY_BYTES + 1)
    if len(raw) > MAX_ENTRY_BYTES:
        raise ValueError("larger than a message")
    return raw.decode("utf-8", "surrogatepass")
