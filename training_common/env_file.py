"""The file of NAME=value lines that settings are taken from where the environment lacks them: config.env."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

NAME = "config.env"


def read(path: Path) -> dict[str, str] | None:
    """The lines as python-dotenv reads them, None where there is no such file.

    Raises ValueError, with a whole sentence, for one that cannot be read: a line passed over would be another setting.
    """
    try:
        text = path.read_text(encoding="utf-8-sig") if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a settings file: {error}") from None
    if text is None:
        return None
    bindings = list(parse_stream(StringIO(text)))
    if wrong := [str(_line(binding)) for binding in bindings if binding.error]:
        raise ValueError(f"{path} is no settings file: no NAME=value in line {', '.join(wrong[:10])}")
    return {binding.key: binding.value for binding in bindings if binding.key and binding.value is not None}


def _line(binding: Binding) -> int:
    """The empty lines before a binding are part of it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
