"""How a setting's text is read: each parser takes the text and raises ValueError with the end of a sentence. Pure.

The sentences never repeat the text: the caller decides whether it may be shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

_T = TypeVar("_T")


def text(value: str) -> str:
    if re.search(r"\s", value):
        raise ValueError("must have no white space")
    return value


def matching(pattern: str, rule: str) -> Callable[[str], str]:
    """Text that `pattern` matches as a whole. rule: what it then is, after "must be"."""

    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {rule}")
        return value

    return parse


def word(meanings: Mapping[str, _T], rule: str) -> Callable[[str], _T]:
    """One of some words, in any letter case → what it means."""
    known = {name.lower(): meaning for name, meaning in meanings.items()}

    def parse(value: str) -> _T:
        if value.lower() not in known:
            raise ValueError(f"must be {rule}")
        return known[value.lower()]

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    """One of `allowed`, in any letter case → as it stands there."""
    return word(dict(zip(allowed, allowed, strict=True)), f"one of {', '.join(allowed)}")


switch = word({"on": True, "off": False}, "on or off")


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,16}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", value) or not low <= float(value) <= high:
            raise ValueError(f"must be a number of seconds from {low:.10g} to {high:.10g}")
        return float(value)

    return parse


def url(example: str) -> Callable[[str], str]:
    """http or https, without anything that may be a secret → without slashes at the end."""

    def parse(value: str) -> str:
        try:
            parts = urlsplit(text(value))
            parts.port  # noqa: B018  (reading it checks it)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"must be a URL such as {example}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must be a plain URL without user, password, query or fragment")
        return value.rstrip("/")

    return parse


def file(value: str) -> Path:
    path = Path(value)
    try:
        found = path.is_file()
    except OSError as error:
        raise ValueError(f"names a file that cannot be looked at: {error.strerror}") from None
    if not found:
        raise ValueError("names a file that is not there")
    return path
