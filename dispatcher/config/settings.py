"""The dispatcher's settings: frozen, read once from a mapping, every problem in one error.

A new setting is one field here and its name in a table of docs/tables.py, which writes config.env.example and
docs/configure.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dispatcher.config import parsers, rules
from dispatcher.config.parsers import Numbered
from portal_client import settings as portal
from portal_client.reporting import PLAUSIBLE_LAG
from training_common.parsers import choice, file, matching, seconds, switch, text, url, whole
from training_common.settings import broken, read, safe_repr, setting

_RELAY_PORT = 8082
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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the operator decides. Durations are seconds. `Settings.read(os.environ)` is the only way in."""

    queue_name: str = setting(
        "QUEUE_NAME",
        parsers.queue_name,
        "Azure Storage Queue with the training requests",
        empty="",
        example="training-requests",
    )
    queue_weights: tuple[Numbered, ...] = setting(
        "QUEUE_NAMES",
        parsers.queue_weights,
        "In place of `QUEUE_NAME`: several queues, the first comes first, such as urgent,normal; with weights, such as "
        "urgent:4,normal:1, each has its share of what is received while the others wait, too",
        empty=(),
    )
    queue_caps: tuple[Numbered, ...] = setting(
        "QUEUE_MAX_ACTIVE_JOBS",
        parsers.queue_caps,
        "With `QUEUE_NAMES`: unfinished Jobs of a queue at which receiving from it pauses, such as urgent:20,normal:80",
        empty=(),
    )
    storage_connection_string: str = setting(
        "AZURE_STORAGE_CONNECTION_STRING",
        text,
        "Connection string of the storage account",
        secret=True,
        empty="",
        example="DefaultEndpointsProtocol=https;AccountName=ACCOUNT;AccountKey=KEY;EndpointSuffix=core.windows.net",
    )
    storage_account_url: str = setting(
        "AZURE_STORAGE_QUEUE_URL",
        url("https://ACCOUNT.queue.core.windows.net"),
        "Queue endpoint such as https://ACCOUNT.queue.core.windows.net, to use azure-identity instead",
        empty="",
    )
    credentials: str = setting(
        "CREDENTIALS",
        choice("shared", "scoped"),
        "scoped: a training gets credentials for its own model, run and dataset alone, in a Secret of its Job; shared: "
        "it has whatever the Job template gives it",
        "shared",
    )
    storage_blob_url: str = setting(
        "AZURE_STORAGE_BLOB_URL",
        url("https://ACCOUNT.blob.core.windows.net"),
        "Blob endpoint of the same account, for `CREDENTIALS=scoped`; empty: `AZURE_STORAGE_QUEUE_URL` with `blob` in "
        "place of `queue`",
        empty="",
    )
    api_base_url: str = setting(
        "API_BASE_URL", portal.portal_url, "Base URL of the portal's API", empty="", example="https://localhost:44302"
    )
    api_key: str = setting(
        "API_KEY", portal.api_key, "Key of the portal's API", secret=True, empty="", example="your_api_key_here"
    )
    api_auth_method: str = setting("MODEL_API_AUTH_METHOD", portal.auth_method, "Header that carries the key", "auto")
    api_ca_bundle: Path | None = setting(
        "API_CA_BUNDLE",
        file,
        "PEM file with the certificate authorities that the portal's certificate is checked against",
    )
    status_tracking: bool = setting(
        "STATUS_TRACKING",
        switch,
        "off launches without checking or updating the model's status: for debugging only",
        "on",
    )
    namespace: str = setting(
        "NAMESPACE",
        matching(
            r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a Kubernetes namespace: lower-case letters, digits and hyphens"
        ),
        "Namespace of the training Jobs; in a pod its own, else the kubeconfig's",
        empty="",
    )
    job_template: Path = setting(
        "JOB_TEMPLATE",
        file,
        "The operator's Job template, a batch/v1 Job in YAML",
        required=True,
        example="manifests/base/job-template.yaml",
    )
    trainer_image: str = setting(
        "TRAINER_IMAGE", text, "Image of the trainer container, where the template names none", empty=""
    )
    max_active_jobs: int = setting(
        "MAX_ACTIVE_JOBS", whole(1, 100_000), "Unfinished Jobs at which receiving pauses", "1000"
    )
    max_gpus: int = setting(
        "MAX_GPUS",
        whole(0, 1024),
        "Most GPUs that a request may ask for in `resources.gpus`, which are those of each node",
        "8",
    )
    max_nodes: int = setting(
        "MAX_NODES",
        whole(1, 1024),
        "Most nodes that a request may ask for in `resources.nodes`; 1: no training has more than one pod",
        "1",
    )
    team_network_policy: bool = setting(
        "TEAM_NETWORK_POLICY",
        switch,
        "on makes a NetworkPolicy for each training on several nodes, by which its pods are reached by each other "
        "alone; off for clusters where nothing keeps pods from each other",
        "on",
    )
    max_time_limit: float = setting(
        "MAX_TIME_LIMIT_SECONDS",
        seconds(60, 90 * 86400),
        "Longest time that a request may ask for in `time_limit_seconds`, and the limit of those that ask for none",
        "259200",
    )
    priority_classes: tuple[str, ...] = setting(
        "PRIORITY_CLASSES",
        parsers.priority_classes,
        "PriorityClasses that a request may name in `priority`, separated by commas; none: `priority` is rejected",
        empty=(),
    )
    kueue_queue: str = setting(
        "KUEUE_QUEUE",
        matching(
            r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?",
            "the name of a LocalQueue: lower-case letters, digits, hyphens and dots",
        ),
        "LocalQueue of Kueue; when set, Kueue alone resumes the Jobs",
        empty="",
    )
    launch_concurrency: int = setting("LAUNCH_CONCURRENCY", whole(1, 64), "Requests launched at the same time", "16")
    visibility_timeout: float = setting(
        "VISIBILITY_TIMEOUT_SECONDS",
        seconds(10, 3600),
        "How long a received message stays hidden from other dispatchers; a launch must fit into it",
        "180",
    )
    poll_min: float = setting("POLL_MIN_SECONDS", seconds(0.05, 60), "Pause between polls after work was found", "0.2")
    poll_max: float = setting(
        "POLL_MAX_SECONDS", seconds(0.1, _PROBE_MAX), "Longest pause between polls of an idle queue", "1"
    )
    outage_pause: float = setting(
        "OUTAGE_PAUSE_SECONDS",
        seconds(0.1, 600),
        "Longest pause between probes while the portal or the cluster is out of reach",
        "30",
    )
    max_deliveries: int = setting(
        "MAX_DELIVERIES",
        whole(1, 1000),
        "Message failures, outages not counted, after which a message goes to the poison queue",
        "5",
    )
    resync: float = setting(
        "RESYNC_SECONDS",
        seconds(1, 86400),
        "How often the names and versions of Jobs and pods are compared, whatever the watch has delivered",
        "600",
    )
    progress: float = setting(
        "STATUS_PROGRESS_SECONDS",
        seconds(1, 86400),
        "Shortest time between two progress messages of a model at the portal",
        "30",
    )
    progress_rate: int = setting(
        "STATUS_PROGRESS_PER_SECOND",
        whole(1, 1000),
        "Most progress messages sent to the portal in a second, of all models together",
        "5",
    )
    status_lag: float = setting(
        "STATUS_LAG_SECONDS",
        seconds(0, 3600),
        "How far the portal's answers may be behind its writes (a cache, a replica): for so long a status that "
        "contradicts our own write is looked at again before it is believed, and for 15 s at most one that forbids a "
        "new request",
        f"{PLAUSIBLE_LAG:.0f}",
    )
    image_pull_grace: float = setting(
        "IMAGE_PULL_GRACE_SECONDS",
        seconds(0, 86400),
        "How long an image may fail to pull before the model fails",
        "600",
    )
    container_config_grace: float = setting(
        "CONTAINER_CONFIG_GRACE_SECONDS",
        seconds(0, 86400),
        "How long a Secret or ConfigMap may be missing, or a native sidecar not start, before the model fails",
        "300",
    )
    unschedulable_limit: float = setting(
        "UNSCHEDULABLE_LIMIT_SECONDS",
        seconds(0, 90 * 86400),
        "How long a pod may wait for a node with free GPUs before the model fails; 0: for ever",
        "86400",
    )
    pod_create_grace: float = setting(
        "POD_CREATE_GRACE_SECONDS",
        seconds(0, 86400),
        "How long the API server may refuse the pod (webhook, service account) before the model fails",
        "300",
    )
    quota_limit: float = setting(
        "QUOTA_LIMIT_SECONDS",
        seconds(0, 90 * 86400),
        "How long a pod may wait for the namespace's quota before the model fails; 0: for ever",
        "86400",
    )
    max_disruptions: int = setting(
        "MAX_DISRUPTIONS",
        whole(0, 10_000),
        "Preempted, drained or lost pods of one Job after which its model fails; 0: no limit",
        "20",
    )
    lost_node_limit: float = setting(
        "LOST_NODE_LIMIT_SECONDS",
        seconds(0, 90 * 86400),
        "How long a pod on a lost node may take to stop before the model fails; 0: for ever",
        "3600",
    )
    team_wait: float = setting(
        "TEAM_WAIT_SECONDS",
        seconds(0, 90 * 86400),
        "How long a training may hold some of its nodes without having all before the model fails; 0: for ever",
        "900",
    )
    ttl_after_report: int = setting(
        "TTL_AFTER_REPORT_SECONDS",
        whole(0, 90 * 86400),
        "How long a reported Job is kept for kubectl before Kubernetes removes it",
        "86400",
    )
    shutdown_grace: float = setting(
        "SHUTDOWN_GRACE_SECONDS", seconds(1, 600), "Time after SIGTERM to finish what has begun", "25"
    )
    report_concurrency: int = setting("REPORT_CONCURRENCY", whole(1, 64), "Jobs reconciled at the same time", "8")
    gpu_resource: str = setting(
        "GPU_RESOURCE",
        matching(
            r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
            "an extended resource such as nvidia.com/gpu",
        ),
        "Extended resource that `resources.gpus` of a request asks for where the template has no GPU of its own",
        "nvidia.com/gpu",
    )
    health_host: str = setting(
        "HEALTH_HOST",
        text,
        "Address that probes and metrics are served on; :: is every one, of IPv6 and IPv4",
        "::",
    )
    health_port: int = setting(
        "HEALTH_PORT", whole(0, 65535), "Port of /livez, /readyz and /metrics; 0 switches them off", "8080"
    )
    status_host: str = setting(
        "STATUS_HOST", text, "Address of the status page where STATUS_PORT gives it a listener of its own", "127.0.0.1"
    )
    status_port: int | None = setting(
        "STATUS_PORT",
        whole(0, 65535),
        "Port of the status page; empty, or the same as HEALTH_PORT: beside the probes; 0 switches it off",
    )
    status_hostnames: tuple[str, ...] = setting(
        "STATUS_HOSTNAMES",
        parsers.hostnames,
        "Names, separated by commas, that browsers may open the status page under, such as an Ingress's; addresses, "
        "names without a dot and those of the cluster need not be listed",
        empty=(),
    )
    relay_url: str = setting(
        "RELAY_URL",
        portal.portal_url,
        "Base URL of the relay, as trainings with credentials of their own call it in place of API_BASE_URL",
        empty="",
    )
    relay_host: str = setting(
        "RELAY_HOST", text, "Address that the relay is served on; :: is every one, of IPv6 and IPv4", "::"
    )
    relay_port: int | None = setting(
        "RELAY_PORT",
        whole(0, 65535),
        "Port of the relay; empty: 8082 with CREDENTIALS=scoped, else none; 0 switches it off",
    )
    relay_key: str = setting(
        "RELAY_KEY",
        parsers.relay_keys,
        "Keys of the relay's tokens, separated by commas: the first signs, all are accepted; empty: one that follows "
        "from API_KEY",
        secret=True,
        empty="",
    )
    log_level: str = setting(
        "LOG_LEVEL", choice("debug", "info", "warning", "error"), "Least level that is logged", "info"
    )
    log_format: str = setting(
        "LOG_FORMAT", choice("text", "json"), "text for people, json for machines: one object a line", "text"
    )

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Parse and check `environ`. Raises SettingsError naming every variable that is missing or wrong."""
        values, problems = read(cls, environ)
        problems += broken(rules.ALL, values)
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    @property
    def scoped(self) -> bool:
        return self.credentials == "scoped"

    @property
    def blob_url(self) -> str:
        """Where blobs are, where an identity is used."""
        return self.storage_blob_url or self.storage_account_url.replace(".queue.", ".blob.", 1)

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues with requests; Jobs that name none are of the first."""
        return tuple(queue.name for queue in self.queue_weights) or (self.queue_name,)

    def envelope_secret(self, queue: str) -> str:
        """What the dispatchers of a queue know and its senders do not; "" where the settings have no secret at all.

        It changes with API_KEY: entries from before are then no longer proven.
        """
        known = self.api_key or self.storage_connection_string
        return known and f"{parsers.poison_name(queue)} {known}"

    @property
    def relay_keys(self) -> tuple[str, ...]:
        return tuple(key.strip() for key in self.relay_key.split(",")) if self.relay_key else ()

    @property
    def relay_listens_on(self) -> int:
        """The relay's port; 0 where it is not served."""
        if self.relay_port is None:
            return _RELAY_PORT if self.scoped else 0
        return self.relay_port

    @property
    def put_budget(self) -> float:
        """Seconds of a message's visibility timeout that must be left for a PUT to the portal to begin.

        65 is what a PUT and the look before it may take at worst, 30 each. Where the visibility timeout is too short
        for that, 60 % of it.
        """
        return min(65.0, self.visibility_timeout * 0.6)

    @property
    def take_on_after(self) -> float:
        """Seconds after which a half-launched Job is launched without its message.

        Longer than the visibility timeout, so that a redelivery of the message comes first.
        """
        return self.visibility_timeout * 1.5

    __repr__ = safe_repr
