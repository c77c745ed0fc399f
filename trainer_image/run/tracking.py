"""Whether and how a run's status is tracked: from the settings to a Tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable

from portal_client.log_lines import KEY_MISSING_WARNING
from portal_client.model_ids import InvalidContainerName, extract_and_log_model_id
from portal_client.protocol import Portal
from trainer_image.config.settings import Settings
from trainer_image.errors import ConfigInvalid, UsageError
from trainer_image.host.credentials import API_KEY, PATIENCE, CredentialFiles
from trainer_image.run.status_tracker import StatusTracker, Tracker
from trainer_image.stop import Stop
from training_common.redaction import redact
from training_common.text import one_line

log = logging.getLogger(__name__)

_OFF = "; STATUS_TRACKING=off trains without the portal"


def connect_portal(settings: Settings) -> Portal:
    from portal_client.client import PortalClient

    return PortalClient(
        settings.api_base_url or "",
        settings.api_key or "",
        auth_method=settings.auth_method,
        ca_bundle=settings.ca_bundle,
        pool_size=2,
        newer_key=_newer_key(settings),
    )


def _newer_key(settings: Settings) -> Callable[[str], str | None] | None:
    """Where the token of this run lies in a file: what has come there in place of one that is refused."""
    if settings.credentials_dir is None:
        return None
    files = CredentialFiles(settings.credentials_dir)
    # Not waited for here: the tracker tries again.
    return lambda refused: files.newer(API_KEY, refused, seconds=0.0)


def make_tracker(
    settings: Settings,
    stop: Stop,
    connect: Callable[[Settings], Portal],
    *,
    acknowledged: bool = False,
    age: float = 0.0,
) -> Tracker:
    """acknowledged, age: see StatusTracker.

    Raises UsageError where it is not known which model is to be tracked and where, ConfigInvalid for a setting of the
    portal's that cannot be used.
    """
    if not settings.tracking:
        log.warning("STATUS_TRACKING is off: the model's status is neither checked nor updated")
        return Tracker()
    if settings.model_container is None:
        raise UsageError(f"STATUS_TRACKING is on, but MODEL_CONTAINER does not say which model{_OFF}")
    if missing := _missing(settings):
        _model_id(settings.model_container)
        for line in missing:
            log.warning("%s", line)
        if not settings.dispatched:
            raise UsageError(f"{', '.join(missing)}: the portal cannot be asked whether the training may start{_OFF}")
        log.warning("The dispatcher reports this training: the trainer cannot")
        return Tracker()
    try:
        # Before the model's id is told: the documented order of the lines.
        portal = connect(settings)
    except ValueError as error:
        raise ConfigInvalid(str(error)) from None
    model_id = _model_id(settings.model_container)
    return StatusTracker(
        portal,
        model_id,
        stop,
        dispatched=settings.dispatched,
        interval=settings.progress_seconds,
        report_seconds=settings.report_retry_seconds,
        acknowledged=acknowledged,
        age=age,
        clean=lambda text: one_line(redact(text, settings.secrets)),
        before=settings.before,
        key_seconds=PATIENCE if settings.credentials_dir is not None else 0.0,
    )


def _model_id(container: str) -> str:
    try:
        return extract_and_log_model_id(container, log)
    except InvalidContainerName as error:
        raise UsageError(f"MODEL_CONTAINER: {error}") from None


def _missing(settings: Settings) -> list[str]:
    """A line for each setting that the portal cannot be called without."""
    lines = [] if settings.api_base_url else ["API_BASE_URL not configured"]
    return lines if settings.api_key else [*lines, KEY_MISSING_WARNING]
