"""Answers of the API server → our objects. One that cannot be read keeps no others from being read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event, KubeObject, Node, Workload
from dispatcher.cluster.pods import Pod

T = TypeVar("T")
Kind = TypeVar("Kind", bound=KubeObject)

LeftOut = Callable[[str, str], None]
"""Called for each object that cannot be read: its name, and why."""


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str | None = msgspec.field(name="continue", default=None)


class _Page(msgspec.Struct, Generic[T]):
    items: tuple[T, ...] | None = None
    metadata: _ListMetadata = msgspec.field(default_factory=_ListMetadata)


class Line(msgspec.Struct):
    """Of a watch. object: decoded by its type."""

    type: str
    object: msgspec.Raw


@dataclass(frozen=True)
class Decoders(Generic[Kind]):
    """Of one type of object: a page of a list, and one of its items."""

    page: msgspec.json.Decoder[_Page[Kind]]
    item: msgspec.json.Decoder[Kind]


JOBS = Decoders(msgspec.json.Decoder(_Page[Job]), msgspec.json.Decoder(Job))
PODS = Decoders(msgspec.json.Decoder(_Page[Pod]), msgspec.json.Decoder(Pod))
METADATA = Decoders(msgspec.json.Decoder(_Page[KubeObject]), msgspec.json.Decoder(KubeObject))
EVENTS = Decoders(msgspec.json.Decoder(_Page[Event]), msgspec.json.Decoder(Event))
WORKLOADS = Decoders(msgspec.json.Decoder(_Page[Workload]), msgspec.json.Decoder(Workload))
NODES = Decoders(msgspec.json.Decoder(_Page[Node]), msgspec.json.Decoder(Node))
ANY = msgspec.json.Decoder(dict[str, Any])
LINE = msgspec.json.Decoder(Line)
_raw_page = msgspec.json.Decoder(_Page[msgspec.Raw])


def read(decoder: msgspec.json.Decoder[T], answer: bytes | msgspec.Raw) -> T:
    """What a server answered. Raises ValueError or RecursionError.

    Kubernetes leaves out what is empty. A server in front of it may say null instead, which means the same.
    """
    try:
        return decoder.decode(answer)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nulls(msgspec.json.decode(answer)), decoder.type)


def read_page(decoders: Decoders[Kind], answer: bytes, left_out: LeftOut) -> tuple[Sequence[Kind], str, str | None]:
    """The objects of a page, the list's version, and where to continue. Raises ValueError or RecursionError.

    What has a name and cannot be read is left out; what has none is no answer of Kubernetes.
    """
    try:
        page = read(decoders.page, answer)
    except msgspec.ValidationError:
        raw = _raw_page.decode(answer)
        found = (read_or_leave_out(decoders.item, text, left_out) for text in raw.items or ())
        page = _Page(tuple(item for item in found if item is not None), raw.metadata)
    return page.items or (), page.metadata.resource_version, page.metadata.continue_


def read_or_leave_out(decoder: msgspec.json.Decoder[T], text: msgspec.Raw, left_out: LeftOut) -> T | None:
    """The object, None where it has a name and cannot be read. Raises ValueError or RecursionError."""
    try:
        return read(decoder, text)
    except msgspec.ValidationError as error:
        metadata = ANY.decode(text).get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(name, str):
            raise
        left_out(name, str(error))
        return None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
