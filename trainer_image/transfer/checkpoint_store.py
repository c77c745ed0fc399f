"""Checkpoints beyond the pod: `checkpoints/<run_key>/step-N/…` in the model's container.

The engine calls `keep` from its own background thread and measures how long it takes, so `keep` returns when the
checkpoint is stored. The best weights so far are part of every checkpoint, hence keeping the newest keeps the best.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from trainer_image.errors import StorageUnavailable
from trainer_image.host import beneath
from trainer_image.storage import untrusted_json
from trainer_image.storage.container import AccessDenied, BlobInfo, Container, ContainerMissing, Full
from trainer_image.storage.manifest import MANIFEST, entries, fetch_all
from trainer_image.transfer.failures import failing_as

log = logging.getLogger(__name__)

MANIFEST_BYTES = 1024 * 1024
_STEP = re.compile(r"step-([0-9]{1,18})", re.ASCII)


class ContainerCheckpoints:
    """See `contract.CheckpointStore`. keep_newest: how many stay; folder: where fetched ones are put.

    latest: to read only: the step of the newest one that counts
    """

    def __init__(
        self, container: Container, run_key: str, folder: Path, keep_newest: int, latest: int | None = None
    ) -> None:
        self._container = container
        self._prefix = f"checkpoints/{run_key}/"
        self._folder = folder
        self._keep_newest = keep_newest
        self._latest = latest
        self._one_at_a_time = threading.Lock()

    def newest_first(self) -> list[Path]:
        """Local folders of the complete checkpoints. Incomplete or changed ones are passed over.

        Raises StorageUnavailable: a training that started afresh would overwrite the checkpoint it could not read.
        """
        with self._failing("read checkpoints from"):
            stored = sorted(self._stored().items(), reverse=True)
            found = (self._fetch(step, blobs) for step, blobs in stored if self._latest is None or step <= self._latest)
            return [path for path in found if path is not None]

    def newest(self) -> int | None:
        """The step of the newest complete checkpoint, after one that is on its way. Raises StorageUnavailable."""
        with self._one_at_a_time, self._failing("read checkpoints from"):
            return max((step for step, blobs in self._stored().items() if MANIFEST in blobs), default=None)

    def only_of_others(self) -> bool:
        """Whether other run keys have checkpoints here and ours has none. Raises StorageUnavailable."""
        others = False
        with self._failing("read checkpoints from"), contextlib.suppress(ContainerMissing):
            for blob in self._container.list("checkpoints/"):
                if blob.name.startswith(self._prefix):
                    return False
                others = True
        return others

    def keep(self, folder: Path) -> None:
        """Stores the folder, manifest last, and removes it and what is too old. Raises StorageUnavailable."""
        if self._latest is not None:
            raise StorageUnavailable("This node keeps no checkpoints: node 1 does")
        with self._one_at_a_time:
            with self._failing(f"store checkpoint {folder.name} in"):
                self._store(folder)
                self._prune()
            shutil.rmtree(folder, ignore_errors=True)

    def _failing(self, what: str) -> AbstractContextManager[None]:
        meanings = dict.fromkeys((AccessDenied, Full), StorageUnavailable)
        return failing_as(f"Failed to {what} container: {self._container.name}", meanings)

    def _store(self, folder: Path) -> None:
        files = sorted(beneath.names(folder), key=lambda name: name.rpartition("/")[2] == MANIFEST)
        # An older attempt's manifest must not vouch for the new files while they arrive.
        self._container.delete(f"{self._prefix}{folder.name}/{MANIFEST}")
        for name in files:
            with beneath.open_file(folder, name) as content:
                self._container.upload(f"{self._prefix}{folder.name}/{name}", content)

    def _prune(self) -> None:
        stored = self._stored()
        complete = sorted((step for step, blobs in stored.items() if MANIFEST in blobs), reverse=True)
        kept = set(complete[: self._keep_newest])
        for step in set(stored) - kept:
            for name in sorted(stored[step], key=lambda name: name != MANIFEST):
                self._container.delete(stored[step][name].name)

    def _stored(self) -> dict[int, dict[str, BlobInfo]]:
        """step → name below its folder → blob."""
        steps: dict[int, dict[str, BlobInfo]] = {}
        with contextlib.suppress(ContainerMissing):
            for blob in self._container.list(self._prefix):
                folder, _, name = blob.name.removeprefix(self._prefix).partition("/")
                match = _STEP.fullmatch(folder)
                if match and name:
                    steps.setdefault(int(match[1]), {})[name] = blob
        return steps

    def _fetch(self, step: int, blobs: dict[str, BlobInfo]) -> Path | None:
        if MANIFEST not in blobs:
            log.warning("Checkpoint step-%d is incomplete: passed over", step)
            return None
        target = self._folder / f"step-{step}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        if blobs[MANIFEST].size > MANIFEST_BYTES:
            log.warning("Checkpoint step-%d has no manifest of ours: passed over", step)
            return None
        content, _ = self._container.read(blobs[MANIFEST].name, MANIFEST_BYTES)
        (target / MANIFEST).write_bytes(content)
        try:
            files = entries(untrusted_json.loads(content)["files"])
        except (ValueError, KeyError, TypeError):
            files = {}  # the engine's own check refuses the checkpoint then
        if (wrong := fetch_all(self._container, blobs, files, target)) is not None:
            log.warning("Checkpoint step-%d: %s is not what its manifest says: passed over", step, wrong)
            return None
        return target
