"""How the dispatcher's own settings are read, beside the parsers that both images share. Pure.

Each takes the text and raises ValueError with the end of a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from portal_client.model_ids import is_container_name
from training_common.redaction import redact

# Each queue costs a call for every poll.
_MOST_QUEUES = 16
# Without weights, how many messages a queue gives for one of the next.
_BEFORE_THE_NEXT = 10


class Numbered(NamedTuple):
    """A queue's name, and its weight or its cap."""

    name: str
    number: int


def queue_name(value: str) -> str:
    # Queue names obey the rule of container names; 63 less "-poison" leaves 56 characters.
    if not is_container_name(value) or len(value) > 56:
        raise ValueError(
            "must be an Azure queue name of 3 to 56 characters: lower-case letters, digits and single hyphens"
        )
    return value


def poison_name(queue: str) -> str:
    """The convention of Azure Functions."""
    return f"{queue}-poison"


def queue_weights(value: str) -> tuple[Numbered, ...]:
    """`urgent:4,normal:1`, or `urgent,normal`, which is the order of priority: each ten times the next."""
    rule = "names of queues separated by commas, each with a weight such as urgent:4,normal:1, or none with one"
    found = list(_numbered(value, rule))
    if len({number is None for _, number in found}) > 1:
        raise ValueError(f"must be {rule}")
    names = [name for name, _ in found]
    if len(names) > _MOST_QUEUES:
        raise ValueError(f"must be at most {_MOST_QUEUES} queues")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"must name each queue once, and names {name} again")
        if poison_name(name) in names:
            raise ValueError(f"must not name {poison_name(name)}, which is where {name} puts what it refuses")
    last = len(found) - 1
    return tuple(Numbered(name, number or _BEFORE_THE_NEXT ** (last - at)) for at, (name, number) in enumerate(found))


def queue_caps(value: str) -> tuple[Numbered, ...]:
    rule = "names of queues, each with a number, such as urgent:20,normal:80"
    found = [Numbered(name, number) for name, number in _numbered(value, rule) if number is not None]
    if len(found) != len(value.split(",")) or len({entry.name for entry in found}) != len(found):
        raise ValueError(f"must be {rule}, each once")
    return tuple(found)


def _numbered(value: str, rule: str) -> Iterator[tuple[str, int | None]]:
    for entry in value.split(","):
        name, colon, number = (part.strip() for part in entry.partition(":"))
        try:
            queue_name(name)
        except ValueError as error:
            raise ValueError(f"must be {rule}; {redact(name)[:80]!r} {error}") from None
        if colon and not (re.fullmatch(r"[0-9]{1,6}", number) and int(number)):
            raise ValueError(f"must be {rule}; the number of {name} is a whole one from 1 to 999999")
        yield name, int(number) if colon else None


def _names(value: str, right: str) -> tuple[str, ...]:
    """Names as DNS has them, separated by commas. right: what they must be, for the sentence."""
    found = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in found:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
            raise ValueError(f"must be {right}; {redact(name)[:80]!r} is none")
    return found


def priority_classes(value: str) -> tuple[str, ...]:
    return _names(value, "names of PriorityClasses separated by commas")


def hostnames(value: str) -> tuple[str, ...]:
    return _names(value.lower(), "host names separated by commas, without ports")


def relay_keys(value: str) -> str:
    for key in value.split(","):
        if not re.fullmatch(r"[\x21-\x7e]{32,256}", key.strip()):
            raise ValueError("must be keys of 32 to 256 printable ASCII characters, separated by commas")
    return value
