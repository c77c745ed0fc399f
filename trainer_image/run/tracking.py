"""Whether and how a run's status is tracked: from the settings to a Tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable

from portal_client.model_ids import InvalidContainerName, extract_and_log_model_id
from portal_client.protocol import Portal
from trainer_image.config.settings import Settings
from trainer_image.errors import UsageError
from trainer_image.run.status_tracker import StatusTracker, Tracker
from trainer_image.stop import Stop

log = logging.getLogger(__name__)


def connect_portal(settings: Settings) -> Portal:
    from portal_client.client import PortalClient

    return PortalClient(
        settings.api_base_url or "",
        settings.api_key or "",
        auth_method=settings.auth_method,
        ca_bundle=settings.ca_bundle,
        pool_size=2,
    )


def make_tracker(settings: Settings, stop: Stop, connect: Callable[[Settings], Portal]) -> Tracker:
    """Raises UsageError where the model's container has no model id to track."""
    if not settings.tracking:
        log.warning("STATUS_TRACKING is off: the model's status is neither checked nor updated")
        return Tracker()
    try:
        model_id = extract_and_log_model_id(settings.model_container, log)
    except InvalidContainerName as error:
        raise UsageError(f"MODEL_CONTAINER: {error}") from None
    if not settings.api_key or not settings.api_base_url:
        log.warning("%s not configured", "API_KEY" if not settings.api_key else "API_BASE_URL")
        log.warning("The dispatcher reports this training: the trainer cannot")
        return Tracker()
    return StatusTracker(
        connect(settings),
        model_id,
        stop,
        dispatched=settings.dispatched,
        interval=settings.progress_seconds,
        report_seconds=settings.report_retry_seconds,
    )
