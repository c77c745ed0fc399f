"""Which checkpoints a run goes on with: those of its own key, unless they are to be left, or their run has ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer_image.config.model_config import run_key
from trainer_image.config.settings import Settings
from trainer_image.run import code
from trainer_image.storage.container import Container
from trainer_image.transfer import checkpoint_store, publish
from trainer_image.transfer.checkpoint_store import ContainerCheckpoints
from trainer_image.transfer.failures import failing_as

log = logging.getLogger(__name__)

MOST_NAMES = 3


def begun_as(models: Container, identity: Mapping[str, Any]) -> Mapping[str, Any]:
    """The identity that a program's training has begun with which this one goes on with; its own where there is none.

    identity: see `model_config.identity`, of a program. Raises StorageUnavailable.
    """
    with failing_as(f"Failed to read checkpoints from container: {models.name}"):
        written = checkpoint_store.written(models)
        if run_key(identity) in written:
            return identity
        for key in sorted(written, key=lambda key: written[key], reverse=True):
            earlier = {part: checkpoint_store.note_of(models, key).get(part) for part in identity}
            before, now = earlier["code"], identity["code"]
            # What a stranger has written into a note must be what its key was made of.
            if earlier != {**identity, "code": before} or run_key(earlier) != key or not isinstance(before, dict):
                continue
            if code.is_still(before, now):
                new = sorted(now.keys() - before.keys())
                log.info("New beside the program since its training began: %s", _named(new))
                return earlier
    return identity


def opened(
    models: Container, identity: Mapping[str, Any], settings: Settings, folder: Path, keep: int
) -> tuple[ContainerCheckpoints, list[str]]:
    """The store of this run, and what the report is to say about it. Raises StorageUnavailable.

    identity: see `model_config.identity`; folder: where fetched ones are put; keep: how many of the newest stay
    """
    note = {"run_id": settings.run_id, **identity}
    store = ContainerCheckpoints(models, run_key(identity), folder, keep_newest=keep, note=note)
    notes = []
    owner = store.written_by()
    # What this run's own earlier attempts have saved is gone on with in any case.
    if owner != settings.run_id:
        if settings.afresh:
            # A crash here leaves a part of them, without their manifests: they are no checkpoints, and removed next.
            store.forget()
            notes.append("The checkpoints of earlier runs were removed, as was asked for: this training starts afresh.")
        elif owner is not None and _has_ended(models, owner):
            # It died before it could remove them: to go on from its end would publish its model once more.
            store.forget()
    if (other := store.only_of_others()) is not None:
        notes.append(f"There are checkpoints of {_unlike(identity, other)}: this training starts afresh.")
    return store, notes


def _has_ended(models: Container, run_id: str) -> bool:
    with failing_as(f"Failed to read checkpoints from container: {models.name}"):
        return publish.ended(models, run_id) is not None


def _unlike(identity: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What is different about the training that the others are of. other: its note, or nothing, or a stranger's"""
    found = []
    if other.get("configuration") != identity["configuration"]:
        found.append("another configuration")
    if other.get("dataset") != identity["dataset"]:
        found.append("another dataset")
    theirs = other.get("code")
    if not isinstance(theirs, dict):
        return "another configuration, dataset or code"
    if names := code.changed(identity["code"], theirs):
        found.append(f"other code ({_named(names)})")
    if other.get("start") != identity["start"]:
        found.append("another model to start from")
    return ", ".join(found) or "another training"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"
