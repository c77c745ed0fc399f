"""Entries of the poison queue `<queue>-poison`: the original text, the reason, the time, the delivery count. Pure."""

from __future__ import annotations

import base64
import gzip
import hmac
import io
import json
import zlib
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

# Azure Storage Queue: a message has at most 64 KiB.
MAX_ENTRY_BYTES = 64 * 1024


@dataclass(frozen=True)
class PoisonEntry:
    """One rejected message. poisoned_at, queued_at: RFC 3339, UTC; proven: see `parse_entry`.

    queue: the name of the queue with requests that it comes from, as its reader knows it.
    """

    code: str
    sentence: str
    message_id: str
    delivery_count: int
    queued_at: str
    poisoned_at: str
    original: str
    proven: bool = False
    queue: str = ""


# What the reader adds: no part of an entry's text, and none of its proof.
_READERS = ("proven", "queue")


def make_entry(entry: PoisonEntry, secret: str = "") -> str:
    """The entry's text; an original too large for that is compressed, or if need be all that is kept.

    secret: the dispatchers' own; with it the entry can be told from one that somebody else puts there.
    """
    content = {name: value for name, value in asdict(entry).items() if name not in _READERS}
    if secret:
        content["proof"] = _proof(entry, secret)
    plain = json.dumps(content)
    if len(plain) <= MAX_ENTRY_BYTES:
        return plain
    original = content.pop("original").encode("utf-8", "surrogatepass")
    content["original_gzip"] = base64.b64encode(gzip.compress(original, mtime=0)).decode()
    compressed = json.dumps(content)
    if len(compressed) <= MAX_ENTRY_BYTES:
        return compressed
    # What cannot be compressed enough is kept as it came: the bytes matter more than the reason, which is in the log.
    if parse_entry(entry.original).message_id:
        # It would be read as an entry of the sender's making: without its last brace it is none.
        return entry.original.rstrip()[:-1]
    return entry.original


def parse_entry(text: str, secret: str = "", queue: str = "") -> PoisonEntry:
    """Read an entry back. What somebody else put there becomes an entry with the code Unknown.

    An entry that was made with `secret` is proven: anybody who may send could have written any other, whatever it says.
    """
    try:
        data = json.loads(text)
        if "original" not in data:
            data["original"] = _unpack(data["original_gzip"])
        names = [field.name for field in fields(PoisonEntry) if field.name not in _READERS]
        read: dict[str, Any] = {name: str(data[name]) for name in names}
        entry = PoisonEntry(**{**read, "delivery_count": int(data["delivery_count"])})
        proof = str(data.get("proof")).encode("utf-8", "replace")
    except (ValueError, KeyError, TypeError, OverflowError, OSError, EOFError, zlib.error, RecursionError):
        return PoisonEntry("Unknown", "No envelope of the dispatcher", "", 0, "", "", text, queue=queue)
    proven = bool(secret) and hmac.compare_digest(proof, _proof(entry, secret).encode())
    return replace(entry, proven=proven, queue=queue)


def _proof(entry: PoisonEntry, secret: str) -> str:
    """A keyed hash over everything that the entry says."""
    content = {name: value for name, value in asdict(entry).items() if name not in _READERS}
    said = json.dumps({**content, "proven": False}, sort_keys=True)  # as it was hashed before there were several queues
    return hmac.new(secret.encode("utf-8", "surrogatepass"), said.encode(), "sha256").hexdigest()


def _unpack(packed: str) -> str:
    # Whatever lies there, no more of it is unpacked than an original can have.
    with gzip.open(io.BytesIO(base64.b64decode(packed))) as file:
        raw = file.read(MAX_ENTRY_BYTES + 1)
    if len(raw) > MAX_ENTRY_BYTES:
        raise ValueError("larger than a message")
    return raw.decode("utf-8", "surrogatepass")
