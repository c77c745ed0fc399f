"""Prometheus metrics of the dispatcher, on a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Names follow the Prometheus conventions: base units, `_total` for counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "training_dispatcher"
        self.messages = Counter(
            f"{prefix}_messages",
            "Messages handled, by what became of them",
            ["result"],
            registry=self.registry,
        )
        self.poisoned = Counter(
            f"{prefix}_poison_entries",
            "Messages put on the poison queue, by reason",
            ["code"],
            registry=self.registry,
        )
        self.launch_seconds = Histogram(
            f"{prefix}_launch_seconds", "From a received message to its resumed Job", registry=self.registry
        )
        self.outcomes = Counter(
            f"{prefix}_outcomes", "Jobs reported to the portal, by code", ["code"], registry=self.registry
        )
        self.active_jobs = Gauge(f"{prefix}_active_jobs", "Unfinished Jobs", registry=self.registry)
        self.unreported_jobs = Gauge(
            f"{prefix}_unreported_jobs",
            "Finished Jobs whose outcome the portal has not acknowledged",
            registry=self.registry,
        )
        self.longest_suspended = Gauge(
            f"{prefix}_longest_suspended_seconds",
            "How long a launched Job has waited, suspended, for Kueue or a person to resume it; the longest",
            registry=self.registry,
        )
        self.oldest_message = Gauge(
            f"{prefix}_oldest_message_seconds",
            "Age of the oldest message that is visible on the queue",
            registry=self.registry,
        )
        self.refused_reports = Counter(
            f"{prefix}_refused_reports", "Outcomes that the portal refused for good", registry=self.registry
        )
