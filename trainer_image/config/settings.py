"""The trainer's settings: environment first, flags override; frozen; every problem in one error."""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.redaction import REDACTED
from portal_client.address import PortalAddress
from portal_client.model_ids import is_container_name
from trainer_image.errors import UsageError
from trainer_image.host.child_environment import secret_values
from trainer_image.limits import Limits

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?", re.ASCII)
_SECRET = ("connection_string", "api_key", "request")

# The environment's names beside those that one Setting each has; docs and config.env.example list both.
LIMIT_NAMES = {
    "MAX_DATASET_BYTES": "dataset_bytes",
    "MAX_DATASET_FILES": "dataset_files",
    "MAX_IMAGE_PIXELS": "image_pixels",
    "MAX_TABLE_COLUMNS": "table_columns",
    "MAX_FIELD_BYTES": "field_bytes",
    "MAX_OUTPUT_BYTES": "output_bytes",
}


@dataclass(frozen=True)
class Settings:
    """Where the data is, where the model goes, whom to tell. Times in seconds.

    dispatched: launched by the dispatcher, which has validated the model and marked it Processing
    tracking:   the model's status is checked and updated at the portal
    data, out, config: local folders and file instead of containers
    work_dir:   None: a temporary folder
    gpus:       how many the pod was promised
    processes:  how many train together; 0: one for each GPU
    hang_seconds: no step for so long is a hang; 0: never
    allow_command: what `task: command` may run: "off", "on", or the words that its argv has to begin with
    """

    run_id: str
    dispatched: bool = False
    model_container: str | None = None
    dataset_container: str | None = None
    connection_string: str | None = field(default=None, repr=False)
    account_url: str | None = None
    tracking: bool = False
    api_base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    auth_method: str = "auto"
    ca_bundle: str | None = None
    progress_seconds: float = 30.0
    report_retry_seconds: float = 120.0
    termination_path: Path = Path("/dev/termination-log")
    grace_seconds: float = 30.0
    checkpoint_seconds: float = 300.0
    pod_name: str | None = None
    image: str | None = None
    work_dir: Path | None = None
    device: str = "auto"
    gpus: int = 0
    processes: int = 0
    hang_seconds: float = 600.0
    download_connections: int = 8
    allow_command: str = "off"
    log_level: str = "INFO"
    limits: Limits = field(default_factory=Limits)
    data: Path | None = None
    out: Path | None = None
    config: Path | None = None
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Literals that no log line and no message may hold."""
        return secret_values(self.api_key, self.connection_string)

    def __str__(self) -> str:
        """One line for the log."""
        shown = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or item.name == "request":
                continue
            if item.name in _SECRET:
                value = REDACTED
            shown.append(f"{item.name}={value}")
        return ", ".join(shown)


def from_mapping(
    environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None, *, training: bool = True
) -> Settings:
    """Settings from environment names; `flags` uses the same names and wins. Raises UsageError with all problems.

    `flags` also knows DATA, OUT and CONFIG, which have no environment name. training: False for `validate`,
    which needs no place for a model and talks to no portal.
    """
    overrides = {name: value for name, value in (flags or {}).items() if value is not None}
    reader = _Reader({**environment, **overrides})
    local = {name: Path(overrides[name]) if name in overrides else None for name in ("DATA", "OUT", "CONFIG")}
    dispatched = reader.text("LAUNCHED_BY", check=lambda v: v == "dispatcher", right="dispatcher") is not None
    storage = (
        reader.text("AZURE_STORAGE_CONNECTION_STRING"),
        reader.text(
            "AZURE_STORAGE_ACCOUNT_URL",
            check=_is_account_url,
            right="https://<account>.blob.core.windows.net",
        ),
    )
    name_rule = "3 to 63 lower-case letters, digits and single hyphens"
    model = reader.text("MODEL_CONTAINER", check=is_container_name, right=name_rule)
    dataset = reader.text("DATASET_CONTAINER", check=is_container_name, right=name_rule)
    api_url = reader.portal("API_BASE_URL")
    tracking = reader.switch("STATUS_TRACKING", default=dispatched or (api_url is not None and model is not None))
    settings = Settings(
        run_id=reader.text("RUN_ID", check=_RUN_ID.fullmatch, right="letters, digits, dots, hyphens") or _new_run_id(),
        dispatched=dispatched,
        model_container=model,
        dataset_container=dataset,
        connection_string=storage[0],
        account_url=storage[1],
        tracking=tracking and training,
        api_base_url=api_url,
        api_key=reader.text("API_KEY"),
        auth_method=(
            reader.text(
                "MODEL_API_AUTH_METHOD",
                check=lambda v: v.lower() in ("auto", "x-api-key", "bearer"),
                right="auto, x-api-key or bearer",
            )
            or "auto"
        ).lower(),
        ca_bundle=reader.text("API_CA_BUNDLE", check=lambda v: Path(v).is_file(), right="a file of certificates"),
        progress_seconds=reader.number("STATUS_PROGRESS_SECONDS", 30.0, low=0.05),
        report_retry_seconds=reader.number("REPORT_RETRY_SECONDS", 120.0, low=0.0),
        termination_path=Path(reader.text("TERMINATION_MESSAGE_PATH") or "/dev/termination-log"),
        grace_seconds=reader.number("GRACE_SECONDS", 30.0, low=0.0),
        checkpoint_seconds=reader.number("CHECKPOINT_SECONDS", 300.0, low=1.0, high=86400.0),
        pod_name=reader.text("POD_NAME"),
        image=reader.text("TRAINER_IMAGE"),
        work_dir=_work_dir(reader.text("WORK_DIR"), dispatched),
        device=reader.text("DEVICE", check=_DEVICE.fullmatch, right="auto, cpu, cuda or cuda:N") or "auto",
        gpus=int(reader.number("GPUS", 0, low=0, high=1024, whole=True)),
        processes=int(reader.number("PROCESSES", 0, low=0, high=64, whole=True)),
        hang_seconds=reader.number("HANG_SECONDS", 600.0, low=0.0),
        download_connections=int(reader.number("DOWNLOAD_CONNECTIONS", 8, low=1, high=64, whole=True)),
        allow_command=reader.text("ALLOW_COMMAND", check=_splits, right="off, on, or words as a shell quotes them")
        or "off",
        log_level=(
            reader.text("LOG_LEVEL", check=lambda v: v.upper() in _LEVELS, right=", ".join(_LEVELS)) or "INFO"
        ).upper(),
        limits=Limits(
            **{
                limit: int(reader.number(name, getattr(Limits, limit), low=0, high=1e15, whole=True))
                for name, limit in LIMIT_NAMES.items()
            }
        ),
        data=local["DATA"],
        out=local["OUT"],
        config=local["CONFIG"],
        request=reader.request("TRAINING_REQUEST"),
    )
    reader.problems += _across(settings, training)
    if reader.problems:
        raise UsageError("; ".join(reader.problems))
    return settings


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def _across(s: Settings, training: bool) -> list[str]:
    """What is wrong with the settings together."""
    problems = []
    if training and s.model_container is None and s.out is None:
        problems.append("MODEL_CONTAINER is not set, nor is a local folder given (--out)")
    if not training and s.model_container is None and s.config is None:
        problems.append("MODEL_CONTAINER is not set, nor is a configuration file given (--config)")
    if s.out is not None and s.config is None and s.model_container is None and not (s.out / "config.yaml").exists():
        problems.append("a local training needs its configuration (--config)")
    remote = s.dataset_container or (s.model_container and (s.out is None or s.config is None))
    if remote and not (s.connection_string or s.account_url):
        problems.append("neither AZURE_STORAGE_CONNECTION_STRING nor AZURE_STORAGE_ACCOUNT_URL is set")
    if s.data is not None and not s.data.is_dir():
        problems.append(f"--data {s.data} is no folder")
    if s.config is not None and not s.config.is_file():
        problems.append(f"--config {s.config} is no file")
    asked = s.request.get("model_container_name")
    if asked is not None and s.model_container is not None and asked != s.model_container:
        problems.append(f"TRAINING_REQUEST is for {asked!r}, but MODEL_CONTAINER is {s.model_container!r}")
    if s.tracking and not s.dispatched:
        off = "; STATUS_TRACKING=off trains without the portal"
        if s.model_container is None:
            problems.append(f"STATUS_TRACKING is on, but MODEL_CONTAINER does not say which model{off}")
        if s.api_base_url is None:
            problems.append(f"STATUS_TRACKING is on, but API_BASE_URL is not set{off}")
        if s.api_key is None:
            problems.append(f"API_KEY not configured: the portal cannot be asked{off}")
    return problems


class _Reader:
    """Reads names and collects what is wrong with their values. An empty value counts as not set."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.problems: list[str] = []

    def text(self, name: str, check: Callable[[str], object] | None = None, right: str = "") -> str | None:
        value = self._values.get(name, "").strip()
        if not value:
            return None
        if check is not None and not check(value):
            self.problems.append(f"{name} is {ascii(value)[:100]}; it must be {right}")
            return None
        return value

    def portal(self, name: str) -> str | None:
        value = self.text(name)
        try:
            return value and PortalAddress.parse(value).base_url
        except ValueError as error:
            self.problems.append(str(error))
            return None

    def switch(self, name: str, default: bool) -> bool:
        words = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
        value = self.text(name, check=lambda v: v.lower() in words, right="on or off")
        return default if value is None else words[value.lower()]

    def number(self, name: str, default: float, *, low: float, high: float = 86400.0, whole: bool = False) -> float:
        def check(value: str) -> bool:
            pattern = r"[0-9]{1,16}" if whole else r"[0-9]{1,10}(\.[0-9]{1,6})?"
            return re.fullmatch(pattern, value, re.ASCII) is not None and low <= float(value) <= high

        kind = "a whole number" if whole else "a number"
        value = self.text(name, check=check, right=f"{kind} from {low:g} to {high:g}")
        return default if value is None else float(value)

    def request(self, name: str) -> Mapping[str, Any]:
        value = self.text(name)
        if value is None:
            return {}
        try:
            request = json.loads(value)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            self.problems.append(f"{name} is not a JSON object")
            return {}
        return request


def _is_account_url(value: str) -> bool:
    """No query: a SAS belongs into the connection string, which is treated as a secret."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.username or parts.query)
    except ValueError:
        return False


def _splits(value: str) -> bool:
    try:
        return bool(shlex.split(value))
    except ValueError:
        return False


def _work_dir(value: str | None, dispatched: bool) -> Path | None:
    """In a pod a volume is mounted at /work; elsewhere a temporary folder will do."""
    if value is not None:
        return Path(value)
    return Path("/work") if dispatched else None


def _new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(4)}"
