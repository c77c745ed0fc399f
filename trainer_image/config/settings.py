"""The trainer's settings: environment first, flags override; frozen; every problem in one error.

A new setting is one field here and its name in a table of docs/tables.py, which writes docs/configure.md.
"""

from __future__ import annotations

import json
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from portal_client import settings as portal
from portal_client.statuses import ProcessingStatus
from trainer_image.errors import ConfigInvalid, UsageError
from trainer_image.host.credentials import API_KEY, CredentialFiles
from trainer_image.host.hidden import secret_values
from trainer_image.limits import Limits
from training_common.parsers import choice, file, matching, seconds, text, url, whole, word
from training_common.settings import broken, read, safe_repr, setting
from training_common.times import run_stamp

Purpose = Literal["train", "read", "report"]


def _request(value: str) -> Mapping[str, Any]:
    try:
        request = json.loads(value)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise ValueError("must be a JSON object")
    return request


def _allowed_command(value: str) -> str:
    try:
        words = shlex.split(value)
    except ValueError:
        words = []
    if not words:
        raise ValueError("must be off, on, or words as a shell quotes them")
    return value


def _host(value: str) -> str:
    try:
        text(value).encode("idna")
    except ValueError:  # what no name server can be asked for
        raise ValueError("must be a host's name or address") from None
    return value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the data is, where the model goes, whom to report to. Times in seconds.

    data, out, config: local folders and file instead of containers; flags alone set them
    tracking, work_dir: `from_mapping` puts what the help says in place of None
    """

    run_id: str = setting(
        "RUN_ID",
        matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "letters, digits, dots, hyphens"),
        "Names the run's folder; the same for all attempts of one Job; empty: time and random digits",
        empty="",
        flag="--run-id",
    )
    dispatched: bool = setting(
        "LAUNCHED_BY",
        word({"dispatcher": True}, "dispatcher"),
        "`dispatcher`: the model is validated and marked Processing already",
        empty=False,
    )
    before: ProcessingStatus | None = setting(
        "STATUS_BEFORE",
        ProcessingStatus.parse,
        "What the portal showed before Processing: the same soon afterwards may only be an answer that lags behind",
    )
    fresh: bool = setting(
        "FRESH",
        word({"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}, "on or off"),
        "on: goes on from no checkpoint of another run, and removes those of this configuration; a request may ask for "
        'it, too: `"fresh": true`',
        "off",
        flag="--fresh",
    )
    model_container: str | None = setting(
        "MODEL_CONTAINER", portal.container_name, "Container with config.yaml; gets the model", flag="--model-container"
    )
    dataset_container: str | None = setting(
        "DATASET_CONTAINER",
        portal.container_name,
        "Container with the dataset; empty: the one that `dataset` in config.yaml names",
        flag="--dataset-container",
    )
    credentials_dir: Path | None = setting(
        "CREDENTIALS_DIR",
        Path,
        "Folder with credentials for this training alone, as files that may change while it runs: `API_KEY`, "
        "`MODEL_URL`, `DATASET_URL`",
    )
    connection_string: str | None = setting(
        "AZURE_STORAGE_CONNECTION_STRING", str, "Connection string of the storage account", secret=True
    )
    account_url: str | None = setting(
        "AZURE_STORAGE_ACCOUNT_URL",
        url("https://ACCOUNT.blob.core.windows.net"),
        "Blob endpoint, to use azure-identity instead",
    )
    tracking: bool | None = setting(
        "STATUS_TRACKING",
        word({"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}, "on or off"),
        "off: the status is neither checked nor updated; empty: on where a model container or the portal is given",
    )
    api_base_url: str | None = setting("API_BASE_URL", portal.portal_url, "Base URL of the portal's API")
    api_key: str | None = setting("API_KEY", portal.api_key, "Key of the portal's API", secret=True)
    auth_method: str = setting("MODEL_API_AUTH_METHOD", portal.auth_method, "Header that carries the key", "auto")
    ca_bundle: Path | None = setting(
        "API_CA_BUNDLE",
        file,
        "PEM file with the certificate authorities that the portal's certificate is checked against",
    )
    progress_seconds: float = setting(
        "STATUS_PROGRESS_SECONDS", seconds(0.05, 86400), "Shortest time between two progress messages", "30"
    )
    report_retry_seconds: float = setting(
        "REPORT_RETRY_SECONDS",
        seconds(0, 86400),
        "How long the report of the outcome is retried while the portal does not answer",
        "120",
    )
    termination_path: Path = setting(
        "TERMINATION_MESSAGE_PATH", Path, "File that the termination message is written to", "/dev/termination-log"
    )
    grace_seconds: float = setting("GRACE_SECONDS", seconds(0, 86400), "Time to save a checkpoint after SIGTERM", "30")
    checkpoint_seconds: float = setting(
        "CHECKPOINT_SECONDS",
        seconds(1, 86400),
        "Longest time between two checkpoints; a `checkpoint.every` in config.yaml wins",
        "300",
    )
    pod_name: str | None = setting("POD_NAME", str, "Name of the pod, for the log")
    image: str | None = setting("TRAINER_IMAGE", str, "Image of the container, written into `environment.json`")
    work_dir: Path | None = setting(
        "WORK_DIR",
        Path,
        "Scratch space for dataset and checkpoints; empty: /work in a Job, else a temporary folder",
        flag="--work-dir",
    )
    device: str = setting(
        "DEVICE",
        matching(r"auto|cpu|cuda(:[0-9]{1,2})?", "auto, cpu, cuda or cuda:N"),
        "auto, cpu, cuda or cuda:N; auto takes the GPUs that it sees, and the CPU only where none was promised",
        "auto",
        flag="--device",
    )
    gpus: int = setting(
        "GPUS",
        whole(0, 1024),
        "Number of GPUs that the pod was promised: if none is visible then, the training ends with exit code 203 "
        "instead of taking days on the CPU",
        "0",
    )
    processes: int = setting(
        "PROCESSES",
        whole(0, 64),
        "Number of processes that train one model together, a GPU each; 0: one for each visible GPU, one on the CPU",
        "0",
        flag="--processes",
    )
    nodes: int = setting(
        "NNODES",
        whole(1, 1024),
        "Number of nodes that train one model together, each in a pod of its own; all but 1 need RUN_ID and "
        "MASTER_ADDR, too",
        "1",
    )
    node: int = setting("NODE_RANK", whole(0, 1023), "Which of them this is, from 0; node 0 leads", "0")
    master_address: str | None = setting("MASTER_ADDR", _host, "Name or address of node 0")
    master_port: int = setting("MASTER_PORT", whole(1, 65535), "Port of node 0 for what trains", "29500")
    team_port: int = setting("TEAM_PORT", whole(1, 65535), "Port of node 0 for the trainers of the others", "29400")
    pod_ip: str | None = setting(
        "POD_IP", _host, "Address that node 0 listens on for the others; empty: what MASTER_ADDR is"
    )
    hang_seconds: float = setting(
        "HANG_SECONDS",
        seconds(0, 86400),
        "No step for so long is a hang, and ends the training with exit code 203; 0: never",
        "600",
    )
    download_connections: int = setting("DOWNLOAD_CONNECTIONS", whole(1, 64), "Connections for the download", "8")
    allow_command: str = setting(
        "ALLOW_COMMAND",
        _allowed_command,
        "What `task: command` may run: `off` nothing, `on` any program in the image, else the words that "
        "`command.argv` has to begin with",
        "off",
    )
    log_level: str = setting(
        "LOG_LEVEL", choice("DEBUG", "INFO", "WARNING", "ERROR"), "Least level that is logged", "INFO"
    )
    request: Mapping[str, Any] | None = setting("TRAINING_REQUEST", _request, "The whole message, as JSON", secret=True)
    limits: Limits = field(default_factory=Limits)
    data: Path | None = None
    out: Path | None = None
    config: Path | None = None

    @property
    def follows(self) -> bool:
        """Whether another node leads."""
        return self.nodes > 1 and self.node > 0

    @property
    def afresh(self) -> bool:
        """Whether checkpoints of other runs are to be left."""
        return self.fresh or (self.request or {}).get("fresh") is True

    @property
    def secrets(self) -> tuple[str, ...]:
        """Literals that no log line and no message may hold."""
        return secret_values(self.api_key, self.connection_string, self.account_url)

    def __repr__(self) -> str:
        """One line for the log, without secrets."""
        local = "".join(f" --{name} {path}" for name in ("data", "out", "config") if (path := getattr(self, name)))
        return f"{safe_repr(self)} {safe_repr(self.limits)}{local}"


# What a Secret or a volume brings. A sentence about a setting begins with its name.
_CREDENTIALS = ("API_KEY", "API_CA_BUNDLE", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL")


def from_mapping(
    environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None, *, purpose: Purpose = "train"
) -> Settings:
    """Settings from environment names; `flags` uses the same names and wins.

    `flags` also knows DATA, OUT and CONFIG, which have no environment name. purpose: to "read", for `validate` and
    `predict`, needs no place for a model and talks to no portal; to "report" needs only that place.

    Raises UsageError with all problems; ConfigInvalid where what is wrong are secrets and files that cannot be used.
    """
    overrides = {name: value for name, value in (flags or {}).items() if value is not None}
    values, problems = read(Settings, {**environment, **overrides})
    limits, malformed = read(Limits, {**environment, **overrides})
    for name in ("DATA", "OUT", "CONFIG"):
        values[name.lower()] = Path(overrides[name]) if name in overrides else None
    _fill_in(values, purpose)
    problems += malformed + broken(_RULES, {**values, "purpose": purpose})
    if problems:
        unusable = all(problem.split()[0] in _CREDENTIALS for problem in problems)
        raise (ConfigInvalid if unusable else UsageError)("; ".join(problems))
    return Settings(**values, limits=Limits(**limits))


def _fill_in(values: dict[str, Any], purpose: Purpose) -> None:
    """What a setting that is empty follows from others."""
    if values.get("credentials_dir") is not None and values.get("api_key") is None:
        values["api_key"] = CredentialFiles(values["credentials_dir"]).read(API_KEY)
    dispatched = values.get("dispatched")
    if values.get("tracking") is None:
        given = (values.get(name) for name in ("model_container", "api_base_url", "api_key"))
        values["tracking"] = bool(dispatched or any(given))
    values["tracking"] = values["tracking"] and purpose == "train"
    if dispatched and values["work_dir"] is None:
        values["work_dir"] = Path("/work")  # the volume of the Job template
    if purpose != "train":  # whatever the environment says of a team: this process is alone
        values["nodes"], values["node"] = 1, 0
    if values.get("run_id") == "" and purpose != "report" and values.get("nodes", 1) == 1:
        values["run_id"] = f"{run_stamp(time.time())}-{secrets.token_hex(4)}"


def _place_for_the_model(
    purpose: Purpose, model_container: str | None, out: Path | None, config: Path | None, nodes: int, node: int
) -> Iterator[str]:
    if nodes > 1 and node > 0:
        return  # node 0 has it
    if purpose != "read" and model_container is None and out is None:
        yield "MODEL_CONTAINER is not set, nor is a local folder given (--out)"
    if purpose == "read" and model_container is None and config is None:
        yield "MODEL_CONTAINER is not set, nor is a configuration file given (--config)"
    if purpose == "report":
        return
    if model_container is None and config is None and out is not None and not (out / "config.yaml").exists():
        yield "a local training needs its configuration (--config)"


def _local_paths(data: Path | None, config: Path | None) -> Iterator[str]:
    if data is not None and not data.is_dir():
        yield f"--data {data} is no folder" + (
            ": put the file into one of its own, and name that" if data.is_file() else ""
        )
    if config is not None and not config.is_file():
        yield f"--config {config} is no file"


def _way_into_storage(
    purpose: Purpose,
    dataset_container: str | None,
    model_container: str | None,
    out: Path | None,
    config: Path | None,
    connection_string: str | None,
    account_url: str | None,
    credentials_dir: Path | None,
) -> Iterator[str]:
    needed = out is None if purpose == "report" else out is None or config is None
    remote = (dataset_container and purpose != "report") or (model_container and needed)
    if remote and not (connection_string or account_url or credentials_dir):
        yield "neither AZURE_STORAGE_CONNECTION_STRING nor AZURE_STORAGE_ACCOUNT_URL is set"


def _request_is_for_this_model(request: Mapping[str, Any] | None, model_container: str | None) -> Iterator[str]:
    asked = (request or {}).get("model_container_name")
    if asked is not None and model_container is not None and asked != model_container:
        yield f"TRAINING_REQUEST is for {asked!r}, but MODEL_CONTAINER is {model_container!r}"


def _fresh_is_yes_or_no(request: Mapping[str, Any] | None) -> Iterator[str]:
    if not isinstance((request or {}).get("fresh"), bool | None):
        yield "TRAINING_REQUEST: fresh must be true or false"


def _a_team_finds_together(
    nodes: int, node: int, run_id: str, master_address: str | None, master_port: int, team_port: int
) -> Iterator[str]:
    if nodes == 1:
        return
    if node >= nodes:
        yield f"NODE_RANK {node} must be less than NNODES, which is {nodes}"
    if not run_id:
        yield "RUN_ID is not set: the nodes of one training know each other by it"
    if master_address is None:
        yield "MASTER_ADDR is not set: the other nodes need the address of node 0"
    if master_port == team_port:
        yield f"TEAM_PORT and MASTER_PORT must differ; both are {team_port}"


_RULES = (
    _place_for_the_model,
    _local_paths,
    _way_into_storage,
    _request_is_for_this_model,
    _fresh_is_yes_or_no,
    _a_team_finds_together,
)
