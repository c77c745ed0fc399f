"""What a standalone run left for the portal: `runs/<run_id>/unreported.json`, beside its model or in place of one.

It is written when the first try to report fails, and goes when the portal knows: whoever ends the run meanwhile, a
rerun with the same run id or the command `report` tells it later. For a rerun latest.json is enough where it published.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass
from typing import Any

from portal_client.model_ids import InvalidContainerName, extract_model_id
from portal_client.statuses import ProcessingStatus
from trainer_image.storage import untrusted_json
from trainer_image.storage.container import Container, StorageFault
from trainer_image.transfer.failures import failing_as
from training_common.text import one_line

log = logging.getLogger(__name__)

NAME = "unreported.json"
_RUN = re.compile(rf"runs/([A-Za-z0-9][A-Za-z0-9._-]{{0,63}})/{re.escape(NAME)}", re.ASCII)
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Unreported:
    """An outcome that the portal does not know.

    status: Completed or Failed; message: for the portal's users; code, exit: of the run
    acknowledged: whether the portal had taken Processing; before: its status before that, None where nobody knows
    ended: epoch seconds
    """

    run_id: str
    model_container: str
    status: str
    message: str
    code: str
    exit: int
    acknowledged: bool
    before: str | None
    ended: float

    @property
    def outcome(self) -> ProcessingStatus:
        return ProcessingStatus.parse(self.status)


def keep(models: Container, left: Unreported) -> None:
    """Never fails: the sentence in the log is left then."""
    try:
        models.write(f"runs/{left.run_id}/{NAME}", json.dumps(asdict(left), ensure_ascii=False, indent=1).encode())
    except StorageFault as fault:
        log.warning("What the portal is to be told could not be kept in %s: %s", models.name, fault.why)


def forget(models: Container, run_id: str) -> None:
    """Never fails: what is reported twice does no harm."""
    try:
        models.delete(f"runs/{run_id}/{NAME}")
    except StorageFault as fault:
        log.warning("runs/%s/%s is left behind: %s", run_id, NAME, fault.why)


def of_run(models: Container, run_id: str) -> Unreported | None:
    """What this run left. Raises StorageFault."""
    name = f"runs/{run_id}/{NAME}"
    return _read(models, name) if any(blob.name == name for blob in models.list(name)) else None


def newest(models: Container) -> Unreported | None:
    """What the run left that ended last. Raises TrainerError."""
    with failing_as(f"Failed to read what is to be reported in container: {models.name}"):
        names = [blob.name for blob in models.list("runs/") if _RUN.fullmatch(blob.name)]
        found = [left for name in names if (left := _read(models, name))]
    return max(found, key=lambda left: left.ended, default=None)


def _read(models: Container, name: str) -> Unreported | None:
    content, _ = models.read(name, _MOST_BYTES)
    try:
        return _parsed(untrusted_json.loads(content), name)
    except (ValueError, TypeError, KeyError, InvalidContainerName):
        log.warning("%s in %s is not readable: nothing is reported from it", name, models.name)
        return None


def _parsed(body: Any, name: str) -> Unreported:
    """Raises ValueError, TypeError, KeyError for what this file did not write."""
    run = _RUN.fullmatch(name)
    left = Unreported(
        run_id=run[1] if run else "",
        model_container=str(body["model_container"]),
        status=str(body["status"]),
        message=one_line(str(body["message"])),
        code=str(body["code"]),
        exit=int(body["exit"]),
        acknowledged=body["acknowledged"] is True,
        before=None if body["before"] is None else ProcessingStatus.parse(body["before"]).title,
        ended=float(body["ended"]),
    )
    extract_model_id(left.model_container)
    if not left.outcome.is_terminal or not 0 <= left.exit < 256 or body["run_id"] != left.run_id:
        raise ValueError("it is no outcome of this run")
    return left
