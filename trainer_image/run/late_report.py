"""The command `report`: tells the portal what a standalone run could not tell it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus
from trainer_image.config.settings import Settings
from trainer_image.errors import StatusUnavailable, UsageError
from trainer_image.run import unreported
from trainer_image.run.tracking import connect_portal, make_tracker
from trainer_image.stop import Stop
from trainer_image.transfer import lease
from trainer_image.transfer.failures import failing_as
from trainer_image.transfer.sources import open_models


def report(settings: Settings, stop: Stop, connect: Callable[[Settings], Portal] = connect_portal) -> str:
    """What was done, as a sentence. Raises StatusUnavailable where the portal still does not know; other TrainerErrors.

    The run is the one that the settings name (--run-id), else the one that ended last.
    """
    models = open_models(settings, stop)
    with failing_as(f"Failed to read what is to be reported in container: {models.name}"):
        left = unreported.of_run(models, settings.run_id) if settings.run_id else unreported.newest(models)
        newer = lease.owner_of(models)
    if left is None:
        return f"No run in {models.name} has left an outcome that the portal was not told"
    if settings.model_container not in (None, left.model_container):
        raise UsageError(f"Run {left.run_id} is of {left.model_container}, but MODEL_CONTAINER is another")
    if newer not in (None, left.run_id):
        unreported.forget(models, left.run_id)
        return f"Run {newer} has taken the model over from run {left.run_id}, whose outcome is not reported any more"
    before = ProcessingStatus.parse(left.before) if left.before else None
    settings = replace(settings, model_container=left.model_container, tracking=True, dispatched=False, before=before)
    age = max(0.0, time.time() - left.ended)
    tracker = make_tracker(settings, stop, connect, acknowledged=left.acknowledged, age=age)
    if (why := tracker.report(left.outcome, left.message, code=left.code)) is not None:
        raise StatusUnavailable(f"The portal was not told that {left.model_container} is {left.status}: {why}")
    unreported.forget(models, left.run_id)
    return f"The portal knows how run {left.run_id} of {left.model_container} ended: {left.status}, {left.message}"
