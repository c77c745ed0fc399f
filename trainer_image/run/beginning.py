"""What a run finds in its model's container: the published model, and the one that a warm start begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer_image.config.model_config import Config
from trainer_image.contract import Champion
from trainer_image.errors import ConfigInvalid
from trainer_image.storage.container import Container
from trainer_image.transfer import publish, runs
from trainer_image.transfer.fetch_model import NEEDED, ROWS, fetch_model
from trainer_image.transfer.publish import Latest
from trainer_image.transfer.sources import unreadable


@dataclass(frozen=True)
class Beginning:
    """before: latest.json as it is; champion: the published model, without a run where there is none; start: the model
    of a warm start; notes: for the report"""

    before: Latest
    champion: Latest
    start: Latest | None
    notes: tuple[str, ...]

    @property
    def start_digest(self) -> str | None:
        return self.start.manifest_sha256 if self.start else None


def look(models: Container, config: Config, before: Latest, run_id: str) -> Beginning:
    """Raises ConfigInvalid where init.from names no run, and access errors."""
    wanted = config.init.from_
    champion, notes, start = before, list[str](), None
    with unreadable(models):
        if wanted == "latest" or config.task != "command":
            champion, gone = runs.champion(models, before, without=run_id)
            notes += [gone] if gone else []
        if wanted == "latest":
            start = champion if champion.run_id is not None else None
            if start is None:
                why = "there is no earlier model" if before.etag is None else f"{publish.LATEST} is not readable"
                notes.append(f"Warm start: {why}; training starts afresh.")
        elif wanted != "none":
            sentence = f"Failed to read the model to start from (init.from) in container: {models.name}"
            start = runs.named(models, wanted, sentence)
    return Beginning(before, champion, start, tuple(notes))


def champion_of(models: Container, found: Beginning, config: Config, folder: Path) -> tuple[Champion | None, list[str]]:
    """The published model in `folder`, to be tested beside the new one, and notes where that cannot be.

    Raises PermissionDenied, StorageUnavailable.
    """
    run_id = found.champion.run_id
    if run_id is None or config.task == "command":
        return None, []
    sentence = f"The published model (run {run_id}) was not tested beside this one"
    try:
        fetch_model(models, found.champion, folder, sentence, only=(*NEEDED, ROWS))
    except ConfigInvalid as unusable:
        return None, [f"{unusable.sentence}."]
    return Champion(run_id, folder), []
