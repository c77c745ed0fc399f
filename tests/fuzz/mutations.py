"""Bytes and JSON values that are nearly right: what a fuzzer tries. The same `Random` gives the same ones."""

from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 65_535, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 10**18, 10**30)
WORDS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"1e18", b"1" * 5000, b"null", b"true", b'"', b"[",
    b"{", b"[" * 3000, b"\\ud800", b"\\u0000", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x1b[31m", b"..",
    b"../../x", b"", b"\r", b"\n", b"\r\n", b",", b";", b"\t", b"sep=;\n", b"sep=\xc3\xa9\n", b"a" * 70_000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 10**6, 10**9, 10**18, 10**30, 2**31, 0.5, -0.5, 1e300, float("nan"), float("inf"),
    "", "x", "\ud800", "\0", "\x1b[31mred", "\u202eabc", "../x", "a" * 5000, [], {}, [[]], [None], ["x"] * 1000,
    [10**9], {"x": 1}, {"": None},
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_LINE = re.compile(rb"[^\n]*\n")


def damaged(content: bytes, samples: Sequence[bytes], random: Random, *, text: bool) -> bytes:
    """A few changes of the content; `samples`: others of its kind, of which pieces may come. text: lines and numbers
    are known as such."""
    changed = bytearray(content)
    for _ in range(1 + int(random.expovariate(0.7))):
        change = random.choice(_TEXT if text else _BINARY)
        change(changed, samples, random)
    return bytes(changed)


def _place(content: bytearray, random: Random) -> int:
    """Headers and footers more often than what lies between."""
    size = len(content)
    edge = min(size, 256)
    return random.choice(
        (random.randint(0, size), random.randint(0, edge), size - random.randint(0, edge), random.randint(0, size))
    )


def _range(content: bytearray, random: Random) -> slice:
    first = _place(content, random)
    return slice(first, first + random.choice((1, 2, 4, 8, random.randint(0, 64), random.randint(0, len(content)))))


def _flip(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    if content:
        content[random.randrange(len(content)) if random.random() < 0.5 else _place(content, random) - 1] ^= (
            1 << random.randrange(8)
        )


def _cut(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    del content[_range(content, random)]


def _end(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    del content[_place(content, random) :]


def _insert(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    place = _place(content, random)
    content[place:place] = random.choice((random.randbytes(random.randint(1, 16)), random.choice(WORDS)))


def _double(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    place = _place(content, random)
    content[place:place] = content[_range(content, random)] * random.choice((1, 1, 2, 50))


def _graft(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    other = bytearray(random.choice(samples))
    content[_range(content, random)] = other[_range(other, random)]


def _integer(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    """Over some bytes, as a size or an offset may be written in a header."""
    kind = random.choice(("<B", "<H", "<I", "<Q", ">H", ">I", ">Q"))
    place = _place(content, random)
    size = struct.calcsize(kind)
    number = random.choice((*NUMBERS, len(content), random.getrandbits(64))) % 256**size
    content[place : place + size] = struct.pack(kind, number)


def _varint(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    """As Thrift and Protocol Buffers write integers."""
    number = random.choice(NUMBERS) % 2**64
    written = bytearray()
    while number >= 128:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    content[_range(content, random)] = written


def _number(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    found = list(_NUMBER.finditer(content))
    if found:
        place = random.choice(found)
        new = random.choice((str(random.choice(NUMBERS)).encode(), random.choice(WORDS), b"-" + place[0]))
        content[place.start() : place.end()] = new


def _line(content: bytearray, samples: Sequence[bytes], random: Random) -> None:
    found = list(_LINE.finditer(content))
    if found:
        place = random.choice(found)
        new = random.choice((b"", place[0] * 2, place[0][:-1], random.choice(found)[0]))
        content[place.start() : place.end()] = new


_ANY = (_flip, _flip, _cut, _end, _insert, _double, _graft)
_BINARY = (*_ANY, _integer, _integer, _integer, _varint)
_TEXT = (*_ANY, _number, _number, _line, _insert)


def lying(value: Any, random: Random) -> str:
    """The JSON value with some of it replaced, left out, added or said twice, as JSON (also what only Python takes)."""
    value = json.loads(json.dumps(value))
    for _ in range(1 + int(random.expovariate(1.0))):
        holder, key = random.choice(_places(value) or [([value], 0)])
        other = copy.deepcopy(random.choice(VALUES))
        change = random.random()
        if change < 0.65:
            holder[key] = _near(holder[key], random) if random.random() < 0.4 else other
        elif change < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[random.choice(("x", "", "__class__", f"{key} "))] = other
        else:
            holder.extend([copy.deepcopy(holder[key])] * random.choice((1, 1, 20, 1000)))
    written = json.dumps(value)
    if random.random() < 0.1:
        written = re.sub(r'("\w+": )', r"\1 1, \1", written, count=1)
    return written


def _near(value: Any, random: Random) -> Any:
    """Of the same type, and wrong all the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return random.choice((*NUMBERS, -value, value + 1, value * 2, value / 2, value * 1000))
    if isinstance(value, str):
        return random.choice((value.upper(), value + "x", value * 100, *(v for v in VALUES if isinstance(v, str))))
    if isinstance(value, list):
        return random.choice((value[1:], value * 2, value * 100, list(reversed(value)), [*value, None]))
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key or position) below the value."""
    if not isinstance(value, (dict, list)):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]
