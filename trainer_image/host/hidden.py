"""Secrets of this process, and the one way out for its words: both output streams, whatever is written to them.

A secret is known from the environment (the portal's key, the storage account's, signatures) or by how it stands there
(an option `--api-key`, a connection string). Log, last words, reports and sentences for the portal use the same words.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from training_common.redaction import REDACTED, SECRET_OPTION, redact

_SIGNATURE = re.compile(r"(?:^|[?&;=])sig=([^&;\s]+)", re.IGNORECASE)
_ACCOUNT_KEY = re.compile(r"(?:AccountKey|SharedAccessKey)=([^;]+)", re.IGNORECASE)
# A line that does not end is passed on in pieces of this size.
_LONGEST_LINE = 64 * 1024


def secret_values(api_key: str | None, connection_string: str | None, *addresses: str | None) -> tuple[str, ...]:
    """The literals that none may see: key and connection string whole, and what is secret in them and in addresses."""
    found = [api_key, connection_string, *map(_password, addresses)]
    for setting in filter(None, (connection_string, *addresses)):
        for secret in (*_SIGNATURE.findall(setting), *_ACCOUNT_KEY.findall(setting)):
            found += [secret, unquote(secret)]
    return tuple(dict.fromkeys(filter(None, found)))


def _password(address: str | None) -> str | None:
    try:
        return urlsplit(address or "").password
    except ValueError:
        return None


def secrets(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Those of the settings in this environment."""
    names = ("API_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL", "API_BASE_URL")
    return secret_values(*(environment.get(name, "").strip() for name in names))


def text(words: str, more: Sequence[str] = ()) -> str:
    """more: secrets besides those of this process"""
    return redact(words, (*secrets(), *more))


def command(argv: Sequence[str]) -> list[str]:
    """A program's arguments, without the values of options that are named as secrets are."""
    shown, known = [], secrets()
    for before, word in zip(("", *argv), argv, strict=False):
        shown.append(REDACTED if SECRET_OPTION.fullmatch(before) else redact(word, known))
    return shown


def taken_out(argv: Sequence[str], shown: Sequence[str]) -> tuple[str, ...]:
    """The secrets of a program's arguments, by how they are shown: the program may say them, in whatever words."""
    found = []
    for word, said in zip(argv, shown, strict=True):
        before, _, behind = said.partition(REDACTED)
        if word != said:
            found.append(word.removeprefix(before).removesuffix(behind))
    return tuple(found)


def value(found: Any) -> Any:
    """The same for what JSON and YAML hold; of lists of texts each is taken for a command's."""
    if isinstance(found, str):
        return text(found)
    if isinstance(found, dict):
        return {name: value(item) for name, item in found.items()}
    if isinstance(found, list):
        return command(found) if all(isinstance(item, str) for item in found) else [value(item) for item in found]
    return found


def guard_streams() -> None:
    """From now on stdout and stderr show no secret of the environment, whoever writes to them in this process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        below = getattr(stream, "buffer", None)
        if below is None or isinstance(below, _Guard):
            continue
        guard: Any = _Guard(below)
        guarded = io.TextIOWrapper(guard, stream.encoding, stream.errors, line_buffering=True, write_through=True)
        setattr(sys, name, guarded)


def pass_on(source: int, name: str) -> None:
    """Writes what a child says to the stream of that name of this process, "stdout" or "stderr", with the same care.

    source: the descriptor that it comes from; returns at its end
    """
    below = getattr(getattr(sys, name), "buffer", None) or Path(os.devnull).open("wb")  # noqa: SIM115 (as long as it)
    guard = _Guard(below.beneath if isinstance(below, _Guard) else below)
    while content := os.read(source, _LONGEST_LINE):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more: that must not stop the child
            guard.write(content)
    with contextlib.suppress(OSError, ValueError):
        guard.flush()


class _Guard(io.BufferedIOBase):
    """Passes on whole lines, or what is there when it is flushed."""

    def __init__(self, below: BinaryIO) -> None:
        self.beneath = below
        self._line = b""
        self._secrets = secrets()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.beneath.isatty()

    def fileno(self) -> int:
        return self.beneath.fileno()

    def write(self, content: Any) -> int:
        data = bytes(content)
        # A progress bar ends its lines by a return only.
        *lines, self._line = re.split(rb"(?<=[\r\n])", self._line + data)
        if len(self._line) > _LONGEST_LINE:
            lines, self._line = [*lines, self._line], b""
        if lines:
            self._pass_on(b"".join(lines))
        return len(data)

    def flush(self) -> None:
        if self._line:
            line, self._line = self._line, b""
            self._pass_on(line)
        self.beneath.flush()

    def _pass_on(self, content: bytes) -> None:
        words = content.decode("utf-8", "surrogateescape")
        clean = "".join(redact(line, self._secrets) for line in words.splitlines(keepends=True))
        self.beneath.write(clean.encode("utf-8", "surrogateescape"))
        self.beneath.flush()
