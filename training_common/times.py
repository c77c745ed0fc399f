"""Times as text."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as Kubernetes writes a time: UTC, whole seconds, such as 2026-01-31T12:00:00Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_stamp(seconds: float) -> str:
    """Seconds since the epoch as the beginning of a run's id, such as 20260131t120000: as text, runs sort by time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dt%H%M%S")
