"""Finds a known secret in a text, in whatever form it stands there (pure).

Another program repeats what it was sent as it likes: as JSON (`\\u002B` for `+`), in a URL (`%2B`), in HTML (`&#43;`),
as base64 of a whole header (`Bearer ...`), in hexadecimal digits, shortened, broken into lines, or several at once.
"""

from __future__ import annotations

import base64
import functools
import html
import re
from collections.abc import Iterator

REDACTED = "[redacted]"

MIN_SECRET_LENGTH = 6
"""A shorter literal is hidden only where it stands by itself: it could be a part of many an ordinary word."""

# What one program escapes another may escape again.
_LEVELS = 4
_ESCAPE = re.compile(
    r"(?:\\|%)u(?P<u>[0-9a-fA-F]{4})|\\(?:u\{|U00)(?P<long>[0-9a-fA-F]{1,6})\}?|\\x(?P<x>[0-9a-fA-F]{2})|\\(?P<octal>[0-7]{3})|\\(?P<itself>[^\sa-zA-Z0-9])"
    r"|%(?P<percent>[0-9a-fA-F]{2})"
    r"|(?P<entity>&(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,12});?)"
)
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_=-]*")
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
# The soft hyphen, and characters of no width.
_NO_WIDTH = dict.fromkeys([0xAD, *range(0x200B, 0x200E), 0x2060, 0xFEFF])


def hide(text: str, secret: str) -> str:
    """`text` with REDACTED for `secret`, for any half of it, and for what it looks like when it is encoded."""
    if len(secret) < 2:
        return text
    hidden: list[tuple[int, int]] = []
    level, places = text, None
    for _ in range(_LEVELS):
        for start, end in _found(level, secret):
            hidden.append((start, end) if places is None else (places[start][0], places[end - 1][1]))
        if not _ESCAPE.search(level):
            break
        level, places = _decoded(level, places)
    hidden += _across_gaps(text, secret)
    # From the end: what stands before keeps its place.
    for start, end in reversed(_merged(hidden)):
        text = text[:start] + REDACTED + text[end:]
    return text


def _found(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Where `secret` stands in a text in which nothing is escaped (any more)."""
    if len(secret) < MIN_SECRET_LENGTH:
        for match in re.finditer(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", text):
            yield match.span()
    else:
        yield from _literally(text, secret)
    for core in _base64_cores(secret):
        for start, end in _pieces(text, core):
            # The rest of the run is the same header, or the secret's first and last bits.
            run = _BASE64_RUN.match(text, end)
            before = text[:start]
            yield len(before.rstrip(_BASE64_CHARACTERS)), run.end() if run else end


def _literally(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """In any letter case, and in hexadecimal digits."""
    lower = _lower(text)
    for form in (secret, secret.encode().hex()):
        yield from _pieces(lower, _lower(form))


def _lower(text: str) -> str:
    """Of ASCII letters alone: each character keeps its place."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def _across_gaps(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Where it is broken into lines or columns, or has been given places to break at."""
    packed = "".join(text.split())
    if not text.isascii():
        packed = packed.translate(_NO_WIDTH)
    if len(secret) >= MIN_SECRET_LENGTH and (found := list(_literally(packed, secret))):
        kept = [at for at, character in enumerate(text) if not character.isspace() and ord(character) not in _NO_WIDTH]
        for start, end in found:
            yield kept[start], kept[end - 1] + 1


def _pieces(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Where at least half of `form`, and at least eight characters of it, stand in one piece."""
    least = min(len(form), max(8, (len(form) + 1) // 2))
    # Every piece of that length holds one of these blocks whole.
    size = (least + 1) // 2
    for offset in range(0, len(form) - size + 1, size):
        block, at = form[offset : offset + size], -1
        while (at := text.find(block, at + 1)) >= 0:
            start, first = at, offset
            while start and first and text[start - 1] == form[first - 1]:
                start, first = start - 1, first - 1
            end, last = at + size, offset + size
            while end < len(text) and last < len(form) and text[end] == form[last]:
                end, last = end + 1, last + 1
            if end - start >= least:
                yield start, end


_BASE64_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_=-"


@functools.lru_cache(maxsize=64)
def _base64_cores(secret: str) -> tuple[str, ...]:
    """What stands in every base64 text of bytes in which `secret` stands, by its place in a group of three."""
    cores = set()
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + secret.encode())
        bits = 8 * (offset + len(secret.encode()))
        core = coded[-(-8 * offset // 6) : bits // 6].decode()
        if len(core) >= 4:
            cores |= {core, core.translate({ord("+"): "-", ord("/"): "_"})}
    return tuple(cores)


def _decoded(text: str, places: list[tuple[int, int]] | None) -> tuple[str, list[tuple[int, int]]]:
    """`text` with one layer of escapes undone, and where each of its characters stands in the original."""
    known = places if places is not None else [(number, number + 1) for number in range(len(text))]
    parts: list[str] = []
    found: list[tuple[int, int]] = []
    done = 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[done : match.start()])
        found += known[done : match.start()]
        character = _unescaped(match)
        parts.append(character)
        found += [(known[match.start()][0], known[match.end() - 1][1])] * len(character)
        done = match.end()
    parts.append(text[done:])
    found += known[done:]
    return "".join(parts), found


def _unescaped(match: re.Match[str]) -> str:
    if digits := match["u"] or match["long"] or match["x"] or match["percent"]:
        return chr(min(int(digits, 16), 0x10FFFF))
    if match["octal"]:
        return chr(int(match["octal"], 8))
    return match["itself"] or html.unescape(match["entity"])


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
