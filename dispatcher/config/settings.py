"""The dispatcher's settings: frozen, read once from a mapping, every problem in one error.

Each field carries its environment name, its default as an operator would write it, a parser and a line of help.
`config.env.example` and docs/configure.md are held equal to this list by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.redaction import redact
from dispatcher.config import parsers as parse

# A loop that is silent for longer than 180 seconds is called dead by /livez; what a loop sleeps stays well below.
_PROBE_MAX = 120


class SettingsError(ValueError):
    """One or more settings are missing or malformed; the message has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(
            f"{len(problems)} setting{'s are' if len(problems) > 1 else ' is'} missing or wrong:\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )


def _setting(env: str, parse: Callable[[str], Any], help_: str, default: str | None = "", secret: bool = False) -> Any:
    """A field read from `env`. default None: required; "": optional and empty."""
    return field(metadata={"env": env, "parse": parse, "help": help_, "default": default, "secret": secret})


@dataclass(frozen=True)
class Settings:
    """What the operator decides. Durations are seconds. `Settings.read(os.environ)` is the only way in."""

    queue_name: str = _setting("QUEUE_NAME", parse.queue, "Azure Storage Queue with the training requests", None)
    storage_connection_string: str = _setting(
        "AZURE_STORAGE_CONNECTION_STRING", parse.text, "Connection string of the storage account", secret=True
    )
    storage_account_url: str = _setting(
        "AZURE_STORAGE_QUEUE_URL",
        parse.url,
        "Queue endpoint such as https://ACCOUNT.queue.core.windows.net, to use azure-identity instead",
    )
    api_base_url: str = _setting("API_BASE_URL", parse.portal_url, "Base URL of the portal's API")
    api_key: str = _setting("API_KEY", parse.key, "Key of the portal's API", secret=True)
    api_auth_method: str = _setting(
        "MODEL_API_AUTH_METHOD", parse.choice("auto", "x-api-key", "bearer"), "auto, x-api-key or bearer", "auto"
    )
    api_ca_bundle: Path | None = _setting(
        "API_CA_BUNDLE",
        parse.file,
        "PEM file with the certificate authorities that the portal's certificate is checked against",
    )
    status_tracking: bool = _setting(
        "STATUS_TRACKING",
        parse.switch,
        "off launches without asking or telling the portal: for debugging only",
        "on",
    )
    namespace: str = _setting(
        "NAMESPACE", parse.namespace, "Namespace of the training Jobs; in a pod its own, else the kubeconfig's"
    )
    job_template: Path = _setting(
        "JOB_TEMPLATE", parse.file, "The operator's Job template, a batch/v1 Job in YAML", None
    )
    trainer_image: str = _setting(
        "TRAINER_IMAGE", parse.text, "Image of the trainer container, where the template leaves it to us"
    )
    max_active_jobs: int = _setting(
        "MAX_ACTIVE_JOBS", parse.whole(1, 100_000), "Unfinished Jobs at which receiving pauses", "1000"
    )
    max_gpus: int = _setting(
        "MAX_GPUS", parse.whole(0, 1024), "Most GPUs that a request may ask for in `resources.gpus`", "8"
    )
    max_time_limit: float = _setting(
        "MAX_TIME_LIMIT_SECONDS",
        parse.seconds(60, 90 * 86400),
        "Longest time that a request may ask for in `time_limit_seconds`, and the limit of those that ask for none",
        "259200",
    )
    priority_classes: tuple[str, ...] = _setting(
        "PRIORITY_CLASSES",
        parse.names,
        "PriorityClasses that a request may name in `priority`, separated by commas; none: `priority` is refused",
    )
    kueue_queue: str = _setting(
        "KUEUE_QUEUE", parse.queue_label, "LocalQueue of Kueue; when set, Kueue alone resumes the Jobs"
    )
    launch_concurrency: int = _setting(
        "LAUNCH_CONCURRENCY", parse.whole(1, 64), "Requests launched at the same time", "16"
    )
    visibility_timeout: float = _setting(
        "VISIBILITY_TIMEOUT_SECONDS",
        parse.seconds(10, 3600),
        "How long a received message stays hidden from other dispatchers; a launch must fit into it",
        "180",
    )
    poll_min: float = _setting(
        "POLL_MIN_SECONDS", parse.seconds(0.05, 60), "Pause between polls after work was found", "0.2"
    )
    poll_max: float = _setting(
        "POLL_MAX_SECONDS", parse.seconds(0.1, _PROBE_MAX), "Longest pause between polls of an idle queue", "5"
    )
    outage_pause: float = _setting(
        "OUTAGE_PAUSE_SECONDS",
        parse.seconds(0.1, 600),
        "Longest pause between probes while the portal or the cluster is out of reach",
        "30",
    )
    max_deliveries: int = _setting(
        "MAX_DELIVERIES",
        parse.whole(1, 1000),
        "Failures of a message's own (never an outage) after which it goes to the poison queue",
        "5",
    )
    resync: float = _setting(
        "RESYNC_SECONDS",
        parse.seconds(1, _PROBE_MAX),
        "How often Jobs and pods are listed anew whatever the watch says",
        "60",
    )
    progress: float = _setting(
        "STATUS_PROGRESS_SECONDS",
        parse.seconds(1, 86400),
        "Shortest time between two progress messages of a model at the portal",
        "30",
    )
    image_pull_grace: float = _setting(
        "IMAGE_PULL_GRACE_SECONDS",
        parse.seconds(0, 86400),
        "How long an image may fail to pull before the model fails",
        "600",
    )
    container_config_grace: float = _setting(
        "CONTAINER_CONFIG_GRACE_SECONDS",
        parse.seconds(0, 86400),
        "How long a Secret or ConfigMap may be missing before the model fails",
        "300",
    )
    unschedulable_limit: float = _setting(
        "UNSCHEDULABLE_LIMIT_SECONDS",
        parse.seconds(0, 90 * 86400),
        "How long a pod may wait for a node with free GPUs before the model fails; 0: for ever",
        "86400",
    )
    pod_create_grace: float = _setting(
        "POD_CREATE_GRACE_SECONDS",
        parse.seconds(0, 86400),
        "How long the API server may refuse the pod (webhook, service account) before the model fails",
        "300",
    )
    quota_limit: float = _setting(
        "QUOTA_LIMIT_SECONDS",
        parse.seconds(0, 90 * 86400),
        "How long a pod may wait for the namespace's quota before the model fails; 0: for ever",
        "86400",
    )
    max_disruptions: int = _setting(
        "MAX_DISRUPTIONS",
        parse.whole(0, 10_000),
        "Preempted, drained or lost pods of one Job after which its model fails; 0: no limit",
        "20",
    )
    lost_node_limit: float = _setting(
        "LOST_NODE_LIMIT_SECONDS",
        parse.seconds(0, 90 * 86400),
        "How long a pod that was told to stop may fail to do so, because its node is lost, before the model fails; "
        "0: for ever",
        "3600",
    )
    ttl_after_report: int = _setting(
        "TTL_AFTER_REPORT_SECONDS",
        parse.whole(0, 90 * 86400),
        "How long a reported Job is kept for kubectl before Kubernetes removes it",
        "86400",
    )
    shutdown_grace: float = _setting(
        "SHUTDOWN_GRACE_SECONDS", parse.seconds(1, 600), "Time to finish what is in hand after SIGTERM", "25"
    )
    sweep: float = _setting(
        "SWEEP_SECONDS",
        parse.seconds(1, _PROBE_MAX),
        "How often every unreported Job is looked at whether or not anything happened",
        "15",
    )
    report_concurrency: int = _setting(
        "REPORT_CONCURRENCY", parse.whole(1, 64), "Jobs looked at and reported at the same time", "8"
    )
    gpu_resource: str = _setting(
        "GPU_RESOURCE",
        parse.resource,
        "Extended resource that `resources.gpus` of a request asks for",
        "nvidia.com/gpu",
    )
    health_host: str = _setting(
        "HEALTH_HOST", parse.text, "Address that the probes and metrics are served on", "0.0.0.0"
    )
    health_port: int = _setting(
        "HEALTH_PORT", parse.whole(0, 65535), "Port of /livez, /readyz and /metrics; 0 switches them off", "8080"
    )
    status_host: str = _setting(
        "STATUS_HOST",
        parse.text,
        "Address of the status page where STATUS_PORT gives it a listener of its own",
        "127.0.0.1",
    )
    status_port: int | None = _setting(
        "STATUS_PORT",
        parse.whole(0, 65535),
        "Port of the status page; empty, or the same as HEALTH_PORT: beside the probes; 0 switches it off",
    )
    log_level: str = _setting(
        "LOG_LEVEL", parse.choice("debug", "info", "warning", "error"), "debug, info, warning or error", "info"
    )
    log_format: str = _setting(
        "LOG_FORMAT", parse.choice("text", "json"), "text for people, json for machines: one object a line", "text"
    )

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Parse and check `environ`. Raises SettingsError naming every variable that is missing or wrong."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for setting in fields(cls):
            meta = setting.metadata
            raw = environ.get(meta["env"], "").strip()
            if not raw and meta["default"] is None:
                problems.append(f"{meta['env']} is not set: {meta['help']}")
                continue
            raw = raw or meta["default"]
            if not raw:
                values[setting.name] = _EMPTY.get(setting.name, "")
                continue
            try:
                values[setting.name] = meta["parse"](raw)
            except ValueError as error:
                shown = "" if meta["secret"] or "://" in raw else f" {redact(raw)[:200]!r}"
                problems.append(f"{meta['env']}{shown} {error}")
        problems += _across(values)
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    @property
    def poison_queue_name(self) -> str:
        """The convention of Azure Functions."""
        return f"{self.queue_name}-poison"

    @property
    def put_budget(self) -> float:
        """Seconds of a message's visibility timeout that must be left for a PUT to the portal to begin.

        65 is what a PUT may take at worst: two authentication methods, connecting and reading. Where the visibility
        timeout is too short for that, 60 % of it.
        """
        return min(65.0, self.visibility_timeout * 0.6)

    @property
    def take_on_after(self) -> float:
        """Seconds after which a half-launched Job is launched without its message.

        Longer than the visibility timeout, so that a redelivery of the message comes first.
        """
        return self.visibility_timeout * 1.5

    def __repr__(self) -> str:
        """Safe to log: secrets as their length only."""
        shown = []
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.metadata["secret"]:
                value = f"({len(value)} characters)" if value else ""
            shown.append(f"{setting.metadata['env']}={value}")
        return " ".join(shown)


_EMPTY: dict[str, Any] = {"api_ca_bundle": None, "priority_classes": (), "status_port": None}


def _across(values: Mapping[str, Any]) -> list[str]:
    """Rules that take more than one setting."""
    problems = []
    connection, url = values.get("storage_connection_string"), values.get("storage_account_url")
    if connection == "" and url == "":
        problems.append(
            "AZURE_STORAGE_CONNECTION_STRING is not set: set it, or AZURE_STORAGE_QUEUE_URL to use azure-identity"
        )
    if connection and url:
        problems.append("AZURE_STORAGE_CONNECTION_STRING and AZURE_STORAGE_QUEUE_URL are both set: keep one")
    if values.get("status_tracking") and values.get("api_base_url") == "":
        problems.append("API_BASE_URL is not set: set it, or STATUS_TRACKING=off to launch without the portal")
    if values.get("poll_min", 0) > values.get("poll_max", 1e9):
        problems.append("POLL_MIN_SECONDS is larger than POLL_MAX_SECONDS")
    if values.get("ttl_after_report", 1e9) < values.get("visibility_timeout", 0):
        problems.append(
            "TTL_AFTER_REPORT_SECONDS is shorter than VISIBILITY_TIMEOUT_SECONDS: a Job must outlive its message, "
            "or a late delivery could train its model twice"
        )
    return problems
