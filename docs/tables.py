"""Writes the tables of docs/configure.md that repeat what the code says: `python docs/tables.py` after a change.

A generated table stands between `<!-- table: NAME -->` and `<!-- end -->`. tests/docs/test_settings.py fails where a
table and the code differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from dispatcher.config.settings import Settings

PAGE = Path(__file__).with_name("configure.md")
_TABLE = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

# No setting takes it: what a parser says of it is the rule that the operator needs.
_IMPOSSIBLE = "! "
# Parsers whose rule is better said in other words.
_RULES = {"file": "a file that is there", "text": "no white space"}
_UNITS = {"_SECONDS": "s"}

_SETTINGS_GROUPS: Mapping[str, tuple[str, ...]] = {
    "storage-settings": ("QUEUE_NAME", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_QUEUE_URL"),
    "portal-settings": (
        "API_BASE_URL",
        "API_KEY",
        "MODEL_API_AUTH_METHOD",
        "API_CA_BUNDLE",
        "STATUS_TRACKING",
        "STATUS_PROGRESS_SECONDS",
    ),
    "job-settings": (
        "NAMESPACE",
        "JOB_TEMPLATE",
        "TRAINER_IMAGE",
        "GPU_RESOURCE",
        "KUEUE_QUEUE",
        "TTL_AFTER_REPORT_SECONDS",
    ),
    "bound-settings": (
        "MAX_ACTIVE_JOBS",
        "MAX_GPUS",
        "MAX_TIME_LIMIT_SECONDS",
        "PRIORITY_CLASSES",
        "MAX_DELIVERIES",
    ),
    "patience-settings": (
        "IMAGE_PULL_GRACE_SECONDS",
        "CONTAINER_CONFIG_GRACE_SECONDS",
        "UNSCHEDULABLE_LIMIT_SECONDS",
        "POD_CREATE_GRACE_SECONDS",
        "QUOTA_LIMIT_SECONDS",
        "MAX_DISRUPTIONS",
        "LOST_NODE_LIMIT_SECONDS",
    ),
    "pace-settings": (
        "LAUNCH_CONCURRENCY",
        "REPORT_CONCURRENCY",
        "VISIBILITY_TIMEOUT_SECONDS",
        "POLL_MIN_SECONDS",
        "POLL_MAX_SECONDS",
        "OUTAGE_PAUSE_SECONDS",
        "RESYNC_SECONDS",
        "SWEEP_SECONDS",
        "SHUTDOWN_GRACE_SECONDS",
    ),
    "process-settings": ("HEALTH_HOST", "HEALTH_PORT", "STATUS_HOST", "STATUS_PORT", "LOG_LEVEL", "LOG_FORMAT"),
}


def settings() -> dict[str, Field[Any]]:
    """Environment name → field of the dispatcher's settings."""
    return {setting.metadata["env"]: setting for setting in fields(Settings)}


def grouped() -> set[str]:
    """The environment names that stand in one of the tables."""
    return {name for group in _SETTINGS_GROUPS.values() for name in group}


def render(name: str) -> str:
    """The generated table of that name, in Markdown, with a line end."""
    known = settings()
    rows = [_row(known[env]) for env in _SETTINGS_GROUPS[name]]
    return _markdown(("setting", "default", "unit", "allowed", "effect"), rows)


def filled(page: str) -> str:
    """The page with every generated table as the code has it now."""
    return _TABLE.sub(lambda found: f"{found[1]}{render(found['name'])}{found[3]}", page)


def _row(setting: Field[Any]) -> tuple[str, ...]:
    meta = setting.metadata
    env: str = meta["env"]
    default = "**required**" if meta["default"] is None else f"`{meta['default']}`" if meta["default"] else "–"
    unit = next((unit for suffix, unit in _UNITS.items() if env.endswith(suffix)), "")
    secret = " Secret: only its length is ever logged." if meta["secret"] else ""
    return f"`{env}`", default, unit, _rule(meta["parse"]), f"{meta['help']}.{secret}"


def _rule(parse: Callable[[str], Any]) -> str:
    if parse.__name__ in _RULES:
        return _RULES[parse.__name__]
    try:
        parse(_IMPOSSIBLE)
    except ValueError as error:
        return _shorter(str(error).split(";")[0].removeprefix("must be "))
    raise AssertionError(f"{parse.__name__} takes {_IMPOSSIBLE!r}")


def _shorter(rule: str) -> str:
    """ "a number of seconds from 1 to 7.776e+06" → "1 to 7776000"."""
    found = re.fullmatch(r"a (whole )?number(?: of seconds)? from (\S+) to (\S+)", rule)
    if not found:
        return rule
    low, high = (f"{float(bound):.10g}" for bound in found.groups()[1:])
    return f"{'whole, ' if found[1] else ''}{low} to {high}"


def _markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *[list(row) for row in rows]]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
