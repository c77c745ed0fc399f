"""Who else reads our queue: dispatchers of other namespaces, which neither see our Jobs nor we theirs. Pure.

Each namespace's dispatchers keep an entry in the queue's metadata: `reader_PLACE` = "NAMESPACE TIME". The place is a
fingerprint of cluster and namespace; a name of the metadata has to be an identifier, and a value ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from training_common.times import rfc3339

_PREFIX = "reader_"
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# Seconds. An entry is written anew when it is so old; its dispatchers run when it is younger than the second; what they
# have launched may still train until the third, when it is removed.
RENEW, ALIVE, FORGET = 300.0, 900.0, 7 * 86400.0


@dataclass(frozen=True)
class Reader:
    """A namespace whose dispatchers read the queue. seen: epoch seconds."""

    namespace: str
    seen: float
    is_alive: bool

    def words(self, own_namespace: str) -> str:
        """For sentences: which namespace it is, seen from ours."""
        return f"namespace {self.namespace}{' of another cluster' if self.namespace == own_namespace else ''}"


def others(metadata: Mapping[str, str], place: str, now: float) -> list[Reader]:
    """The namespaces beside ours, those of running dispatchers first."""
    found = []
    for key, value in metadata.items():
        namespace, _, at = value.partition(" ")
        seen = _seconds(at)
        if not key.lower().startswith(_PREFIX) or key.lower() == _key(place) or not _NAMESPACE.fullmatch(namespace):
            continue
        if seen is not None and now - seen < FORGET:
            found.append(Reader(namespace, seen, now - seen < ALIVE))
    return sorted(found, key=lambda reader: (not reader.is_alive, reader.namespace, reader.seen))


def announced(metadata: Mapping[str, str], place: str, namespace: str, now: float) -> dict[str, str] | None:
    """The metadata with our entry, and without forgotten ones; None where ours is there and fresh."""
    mine = next((value for key, value in metadata.items() if key.lower() == _key(place)), "")
    seen = _seconds(mine.partition(" ")[2])
    if seen is not None and abs(now - seen) < RENEW:
        return None
    kept = {key: value for key, value in metadata.items() if not _is_forgotten(key, value, now)}
    return {
        **{key: value for key, value in kept.items() if key.lower() != _key(place)},
        _key(place): f"{namespace} {rfc3339(now)}",
    }


def perhaps(readers: Sequence[Reader], own_namespace: str) -> str:
    """The end of a sentence about a model that trains and has no Job here; "" where nobody else reads the queue."""
    if not readers:
        return ""
    names = " or ".join(reader.words(own_namespace) for reader in readers)
    return f"perhaps a dispatcher of {names}, which reads this queue, too, has launched it: look there first"


def _key(place: str) -> str:
    return f"{_PREFIX}{place}"


def _is_forgotten(key: str, value: str, now: float) -> bool:
    seen = _seconds(value.partition(" ")[2])
    return key.lower().startswith(_PREFIX) and (seen is None or now - seen >= FORGET)


def _seconds(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
