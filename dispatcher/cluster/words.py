"""What the API server's words mean, in its answers to us and in the Events of controllers that it answered. Pure."""

from __future__ import annotations


def is_quota(text: str) -> bool:
    """A ResourceQuota has no room; one that was just made has no status yet."""
    return "exceeded quota" in text or "status unknown for quota" in text


def is_webhook_down(text: str) -> bool:
    """It could not call an admission webhook, which has refused nothing (F59)."""
    return "failed calling webhook" in text or "failed to call webhook" in text


def is_not_ready(text: str) -> bool:
    """It has just started: its admission plug-ins say 403 "forbidden" until they know the cluster."""
    return "not yet ready to handle request" in text
