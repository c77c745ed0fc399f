"""Settings from environment variables: a field says once what it is called, how it is read, its default and its effect.

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        queue_name: str = setting("QUEUE_NAME", parsers.text, "Queue with the requests", required=True)
        poll_max: float = setting("POLL_MAX_SECONDS", parsers.seconds(0.1, 120), "Longest pause between polls", "5")

    values, problems = read(Settings, os.environ)
    problems += broken([poll_max_is_not_smaller], values)

Nothing is raised here: each image reports all problems in one error of its own. The documentation's tables and
config.env.example are made from the same fields (docs/tables.py). Pure.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from training_common.redaction import redact

Rule = Callable[..., Iterable[str]]
"""Yields what is wrong with several settings together; its parameters are named as their fields are."""


@dataclass(frozen=True)
class Setting:
    """What a field says of itself.

    parse:   text, stripped and not empty → value; raises ValueError with the end of a sentence ("must be ...") that
             does not repeat the text, because it may be a secret
    help:    its effect, without a full stop
    default: as an operator would write it; "" where there is none
    example: what config.env.example sets it to
    flag:    the command-line option that overrides the variable
    """

    env: str
    parse: Callable[[str], Any]
    help: str
    default: str = ""
    required: bool = False
    secret: bool = False
    example: str = ""
    flag: str = ""


def setting(
    env: str, parse: Callable[[str], Any], help_: str, default: str = "", *, empty: Any = None, **more: Any
) -> Any:
    """A dataclass field that is read from the variable `env`. more: as in Setting.

    empty: the value where the variable is not set and there is no default.
    """
    said = Setting(env, parse, help_, default, **more)
    if said.required:
        return field(metadata={"setting": said})
    return field(default=parse(default) if default else empty, metadata={"setting": said})


def settings_of(kind: type) -> dict[str, Setting]:
    """Field name → setting, in the order of the fields; fields that are no settings are left out."""
    return {item.name: item.metadata["setting"] for item in fields(kind) if "setting" in item.metadata}


def read(kind: type, environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Field name → value for every setting that is right, and a sentence for each that is not.

    A blank variable counts as not set. A secret's text is never part of a sentence, nor is a URL or what may be
    meant as one: it can hold a password or a signature.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, said in settings_of(kind).items():
        raw = environ.get(said.env, "").strip()
        if raw:
            try:
                values[name] = said.parse(raw)
            except ValueError as error:
                shown = "" if said.secret or re.search(r"://|[@?]", raw) else f" {redact(raw)[:200]!r}"
                problems.append(f"{said.env}{shown} {error}")
        elif said.required:
            problems.append(f"{said.env} is not set: {said.help}")
        else:
            values[name] = getattr(kind, name)
    return values, problems


def broken(rules: Iterable[Rule], values: Mapping[str, Any]) -> list[str]:
    """The sentences of the rules that `values` break. A rule is skipped where a value that it takes is missing."""
    found: list[str] = []
    for rule in rules:
        names = inspect.signature(rule).parameters
        if names.keys() <= values.keys():
            found += rule(**{name: values[name] for name in names})
    return found


def safe_repr(settings: Any) -> str:
    """NAME=value of every setting, for the log; of secrets the length, without the "=" that redaction looks for."""
    shown = []
    for name, said in settings_of(type(settings)).items():
        value = getattr(settings, name)
        if said.secret:
            shown.append(f"{said.env} ({len(value)} characters)" if value else f"{said.env} (not set)")
        else:
            shown.append(f"{said.env}={'' if value is None else value}")
    return " ".join(shown)
