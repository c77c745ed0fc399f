"""Settings of how much, how long and how often: what may be asked for, what is waited for, and the pace of it all."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.config import parsers
from portal_client.reporting import PLAUSIBLE_LAG
from training_common.parsers import seconds, switch, whole
from training_common.settings import setting

# A loop that is silent for longer than 180 seconds is called dead by /livez; what a loop sleeps stays well below.
_PROBE_MAX = 120


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Part of `Settings`. Durations are seconds."""

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
    launch_concurrency: int = setting("LAUNCH_CONCURRENCY", whole(1, 64), "Requests launched at the same time", "16")
    report_concurrency: int = setting("REPORT_CONCURRENCY", whole(1, 64), "Jobs reconciled at the same time", "8")
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
