"""Writes what repeats the code: the tables of docs/configure.md and config.env.example. `python docs/tables.py`

A generated table stands between `<!-- table: NAME -->` and `<!-- end -->`. tests/docs/test_settings.py fails where a
file and the code differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dispatcher.config.settings import Settings as DispatcherSettings
from trainer_image.config.settings import Settings as TrainerSettings
from trainer_image.limits import Limits
from training_common.settings import Setting, settings_of

PAGE = Path(__file__).with_name("configure.md")
EXAMPLE = Path(__file__).parents[1] / "config.env.example"
_TABLE = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_EXAMPLE_HEAD = """\
# Settings of the dispatcher: copy this file to config.env and edit it, or set the same names in the environment, which
# comes first. A line that begins with # shows the default.
"""

# No setting takes it: what a parser says of it is the rule that the operator needs.
_IMPOSSIBLE = '! "'
# Parsers whose rule is better said in other words, or that take any text.
_RULES = {"file": "a file that is there", "text": "no white space", "str": "", "Path": ""}

DISPATCHER = {said.env: said for said in settings_of(DispatcherSettings).values()}
TRAINER = {said.env: said for kind in (TrainerSettings, Limits) for said in settings_of(kind).values()}

# Table → names of the settings in it.
DISPATCHER_TABLES = {
    "storage-settings": "QUEUE_NAME QUEUE_NAMES QUEUE_MAX_ACTIVE_JOBS AZURE_STORAGE_CONNECTION_STRING"
    " AZURE_STORAGE_QUEUE_URL",
    "scope-settings": "CREDENTIALS AZURE_STORAGE_BLOB_URL RELAY_URL RELAY_HOST RELAY_PORT RELAY_KEY",
    "portal-settings": "API_BASE_URL API_KEY MODEL_API_AUTH_METHOD API_CA_BUNDLE STATUS_TRACKING"
    " STATUS_PROGRESS_SECONDS STATUS_PROGRESS_PER_SECOND STATUS_LAG_SECONDS",
    "job-settings": "NAMESPACE JOB_TEMPLATE TRAINER_IMAGE GPU_RESOURCE KUEUE_QUEUE TTL_AFTER_REPORT_SECONDS",
    "bound-settings": "MAX_ACTIVE_JOBS MAX_GPUS MAX_NODES TEAM_NETWORK_POLICY MAX_TIME_LIMIT_SECONDS"
    " PRIORITY_CLASSES MAX_DELIVERIES",
    "patience-settings": "IMAGE_PULL_GRACE_SECONDS CONTAINER_CONFIG_GRACE_SECONDS UNSCHEDULABLE_LIMIT_SECONDS"
    " POD_CREATE_GRACE_SECONDS QUOTA_LIMIT_SECONDS MAX_DISRUPTIONS LOST_NODE_LIMIT_SECONDS TEAM_WAIT_SECONDS",
    "pace-settings": "LAUNCH_CONCURRENCY REPORT_CONCURRENCY VISIBILITY_TIMEOUT_SECONDS POLL_MIN_SECONDS"
    " POLL_MAX_SECONDS OUTAGE_PAUSE_SECONDS RESYNC_SECONDS SHUTDOWN_GRACE_SECONDS",
    "process-settings": "HEALTH_HOST HEALTH_PORT STATUS_HOST STATUS_PORT STATUS_HOSTNAMES LOG_LEVEL LOG_FORMAT",
}
TRAINER_TABLES = {
    "dispatched-settings": "MODEL_CONTAINER DATASET_CONTAINER RUN_ID LAUNCHED_BY TRAINING_REQUEST POD_NAME GPUS"
    " GRACE_SECONDS STATUS_BEFORE CREDENTIALS_DIR STATUS_TRACKING API_BASE_URL MODEL_API_AUTH_METHOD"
    " STATUS_PROGRESS_SECONDS TRAINER_IMAGE",
    "template-settings": "AZURE_STORAGE_CONNECTION_STRING AZURE_STORAGE_ACCOUNT_URL API_KEY API_CA_BUNDLE"
    " CHECKPOINT_SECONDS FRESH REPORT_RETRY_SECONDS HANG_SECONDS WORK_DIR DEVICE PROCESSES DOWNLOAD_CONNECTIONS"
    " ALLOW_COMMAND LOG_LEVEL TERMINATION_MESSAGE_PATH",
    "team-settings": "NNODES NODE_RANK MASTER_ADDR MASTER_PORT POD_IP TEAM_PORT",
    "limit-settings": " ".join(said.env for said in settings_of(Limits).values()),
}


def render(table: str) -> str:
    """The generated table of that name, in Markdown, with a line end."""
    known, tables = (DISPATCHER, DISPATCHER_TABLES) if table in DISPATCHER_TABLES else (TRAINER, TRAINER_TABLES)
    rows = [_row(known[env]) for env in tables[table].split()]
    return _markdown(("setting", "default", "unit", "allowed", "effect"), rows)


def filled(page: str) -> str:
    """The page with every generated table as the code has it now."""
    return _TABLE.sub(lambda found: f"{found[1]}{render(found['name'])}{found[3]}", page)


def example() -> str:
    """config.env.example: every setting of the dispatcher, with an example or, commented out, its default."""
    entries = []
    for said in DISPATCHER.values():
        line = f"{said.env}={said.example}" if said.example else f"#{said.env}={said.default}"
        entries.append(f"\n# {said.help}.\n{line}\n")
    return _EXAMPLE_HEAD + "".join(entries)


def _row(said: Setting) -> tuple[str, ...]:
    name = f"`{said.env}`" + (f" or `{said.flag}`" if said.flag else "")
    default = "**required**" if said.required else f"`{said.default}`" if said.default else "–"
    unit = "s" if said.env.endswith("_SECONDS") else ""
    secret = " Secret: only its length is ever logged." if said.secret else ""
    return name, default, unit, _rule(said.parse), f"{said.help}.{secret}"


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
    low, high = (f"{float(bound):.16g}" for bound in found.groups()[1:])
    return f"{'whole, ' if found[1] else ''}{low} to {high}"


def _markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *[list(row) for row in rows]]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    EXAMPLE.write_text(example(), encoding="utf-8")
