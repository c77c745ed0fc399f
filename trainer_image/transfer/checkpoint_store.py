"""Checkpoints beyond the pod: `checkpoints/<run_key>/step-N/…` in the model's container.

`checkpoints/<run_key>/run.json` says which run wrote there last, and what its key was made of. They go when the run has
ended with a model, those of other keys a while after they were written, and all but the newest when the disk is full.

The engine calls `keep` from its own background thread and measures how long it takes, so `keep` returns when the
checkpoint is stored. The best weights so far are part of every checkpoint, hence keeping the newest keeps the best.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trainer_image.errors import StorageUnavailable
from trainer_image.host import beneath, exhaustion
from trainer_image.storage import untrusted_json
from trainer_image.storage.container import (
    AccessDenied,
    BlobInfo,
    BlobMissing,
    Container,
    ContainerMissing,
    Full,
    StorageFault,
    TooLarge,
)
from trainer_image.storage.local import disk_of
from trainer_image.storage.manifest import MANIFEST, entries, fetch_all
from trainer_image.transfer.failures import failing_as

log = logging.getLogger(__name__)

# A run's note names every file of its code.
MANIFEST_BYTES, NOTE_BYTES = 1024 * 1024, 16 * 1024 * 1024
# What a model takes of a disk beside its bytes, at most: its manifest, and the last block of each file.
BESIDE_BYTES = 16 * 1024 * 1024
FOLDER, NOTE = "checkpoints/", "run.json"
# How long those of other keys stay: whoever has tried another configuration may come back to this one.
STAY_SECONDS = 7 * 86400.0
_STEP = re.compile(r"step-([0-9]{1,18})", re.ASCII)


def written(container: Container) -> dict[str, float]:
    """Run key → when the last of its checkpoints was written, epoch seconds. Raises StorageFault."""
    found: dict[str, float] = {}
    with contextlib.suppress(ContainerMissing):
        for blob in container.list(FOLDER):
            key, _, rest = blob.name.removeprefix(FOLDER).partition("/")
            if rest and rest != NOTE:
                found[key] = max(found.get(key, 0.0), blob.modified)
    return found


def note_of(container: Container, key: str) -> dict[str, Any]:
    """What run.json says of a run key's checkpoints; nothing where that is none of ours. Raises StorageFault."""
    try:
        note = untrusted_json.loads(container.read(f"{FOLDER}{key}/{NOTE}", NOTE_BYTES)[0])
    except (BlobMissing, ContainerMissing, TooLarge, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


class ContainerCheckpoints:
    """See `contract.CheckpointStore`. keep_newest: how many stay; folder: where fetched ones are put.

    latest: to read only: the step of the newest one that counts
    note: {"run_id", …}, what run.json gets: plain JSON
    """

    def __init__(
        self,
        container: Container,
        run_key: str,
        folder: Path,
        keep_newest: int,
        latest: int | None = None,
        note: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._container = container
        self._key = run_key
        self._prefix = f"{FOLDER}{run_key}/"
        self._folder = folder
        self._keep_newest = keep_newest
        self._latest = latest
        self._note = note
        self._noted = not note
        self._one_at_a_time = threading.Lock()

    def newest_first(self) -> list[Path]:
        """Local folders of the complete checkpoints. Incomplete or changed ones are passed over.

        Raises StorageUnavailable: a training that started afresh would overwrite the checkpoint it could not read;
        OSError where the disk has no room for them.
        """
        with self._failing("read checkpoints from"):
            return exhaustion.with_room(self.make_room, self._fetch_all)

    def _fetch_all(self) -> list[Path]:
        stored = sorted(self._stored().items(), reverse=True)
        found = (self._fetch(step, blobs) for step, blobs in stored if self._latest is None or step <= self._latest)
        return [path for path in found if path is not None]

    def newest(self) -> int | None:
        """The step of the newest complete checkpoint, after one that is on its way. Raises StorageUnavailable."""
        with self._one_at_a_time, self._failing("read checkpoints from"):
            return max((step for step, blobs in self._stored().items() if MANIFEST in blobs), default=None)

    def written_by(self) -> str | None:
        """The run that wrote the last one of this key; None where nobody knows. Raises StorageUnavailable."""
        with self._failing("read checkpoints from"):
            run_id = note_of(self._container, self._key).get("run_id")
        return run_id if isinstance(run_id, str) else None

    def only_of_others(self) -> dict[str, Any] | None:
        """Where other run keys have checkpoints here and ours has none: the note of the newest of them, empty where it
        has none. Raises StorageUnavailable."""
        with self._failing("read checkpoints from"):
            found = written(self._container)
            if self._key in found or not found:
                return None
            return note_of(self._container, max(found, key=lambda key: found[key]))

    def forget(self) -> None:
        """Removes all of this key. Raises StorageUnavailable."""
        with self._one_at_a_time, self._failing("remove checkpoints from"):
            self._remove(self._key)

    def done(self) -> None:
        """The run has ended with a model: its checkpoints go, and those of other keys that are old. Never fails."""
        try:
            with self._one_at_a_time:
                self._remove(self._key)
                old = time.time() - STAY_SECONDS
                for key in [key for key, last in written(self._container).items() if 0 < last < old]:
                    log.info("Checkpoints of another configuration, dataset or code are old, and removed: %s", key)
                    self._remove(key)
        except StorageFault as fault:
            log.warning("Checkpoints are left behind in %s: %s", self._container.name, fault.why)

    def keep(self, folder: Path) -> None:
        """Stores the folder, manifest last, and removes it and what is too old. Raises StorageUnavailable."""
        if self._latest is not None:
            raise StorageUnavailable("This node keeps no checkpoints: node 1 does")
        with self._one_at_a_time:
            # Whoever saves has begun: what was fetched to go on from is of no more use.
            shutil.rmtree(self._folder, ignore_errors=True)
            with self._failing(f"store checkpoint {folder.name} in"):
                try:
                    self._store(folder)
                except Full:
                    if not self._free():
                        raise
                    try:
                        self._store(folder)
                    except Full:
                        self._prune(1)  # half a checkpoint is of no use to anybody
                        raise
                self._prune(self._keep_newest)
            shutil.rmtree(folder, ignore_errors=True)

    def make_room(self) -> bool:
        """See `contract.CheckpointStore`."""
        ours, theirs = disk_of(self._folder), self._container.disk()
        with self._one_at_a_time, self._failing("remove checkpoints from"):
            here = ours is not None and theirs is not None and ours.device == theirs.device
            # Those that are stored are node 1's, which may be writing one now.
            return self._free(stored=here and self._latest is None)

    def make_room_for_the_model(self, size: int) -> bool:
        """It has so many bytes, and is made: now the newest one may go, too, where that is what it takes."""
        with self._one_at_a_time, self._failing("remove checkpoints from"):
            if self._free():
                return True
            disk = self._container.disk()
            newest = sum(blob.size for blobs in self._stored().values() for blob in blobs.values())
            if disk is None or not newest or not disk.free - BESIDE_BYTES <= size < disk.free + newest:
                # Whoever makes room by hand and starts again goes on from it. Where the disk has room it is something
                # else that is full, such as a quota, or no file may be so large.
                return False
            self._remove(self._key)
            return True

    def _free(self, *, stored: bool = True) -> bool:
        """Removes all but the newest sound one, and what was fetched. Whether there was anything to remove.

        stored: False: those in the container lie elsewhere, and take no room from the disk that is full
        """
        others = [key for key in written(self._container) if key != self._key] if stored else []
        for key in others:
            self._remove(key)
        pruned = stored and self._prune(1, sound=True)
        freed = pruned or bool(others) or self._folder.exists()
        shutil.rmtree(self._folder, ignore_errors=True)
        log.warning("The disk is full: %s", "older checkpoints were removed" if freed else "there is nothing to remove")
        return freed

    def _failing(self, what: str) -> AbstractContextManager[None]:
        meanings = dict.fromkeys((AccessDenied, Full), StorageUnavailable)
        return failing_as(f"Failed to {what} container: {self._container.name}", meanings)

    def _store(self, folder: Path) -> None:
        files = sorted(beneath.names(folder), key=lambda name: name.rpartition("/")[2] == MANIFEST)
        if not self._noted:
            self._container.write(f"{self._prefix}{NOTE}", json.dumps(dict(self._note)).encode())
            self._noted = True
        # An older attempt's manifest must not vouch for the new files while they arrive.
        self._container.delete(f"{self._prefix}{folder.name}/{MANIFEST}")
        for name in files:
            with beneath.open_file(folder, name) as content:
                self._container.upload(f"{self._prefix}{folder.name}/{name}", content)

    def _prune(self, newest: int, *, sound: bool = False) -> bool:
        """Leaves so many of the complete ones. Whether there was anything to remove.

        sound: of those that are as their manifests say, read as a whole: a damaged newest one is nothing to go on from
        """
        stored = self._stored()
        complete = sorted((step for step, blobs in stored.items() if MANIFEST in blobs), reverse=True)
        if sound and len(complete) > newest:
            kept = itertools.islice((step for step in complete if self._is_sound(stored[step])), newest)
            too_many = set(stored) - set(kept)
        else:
            too_many = set(stored) - set(complete[:newest])
        for step in too_many:
            for name in sorted(stored[step], key=lambda name: name != MANIFEST):
                self._container.delete(stored[step][name].name)
        return bool(too_many)

    def _remove(self, key: str) -> None:
        """Manifests first: what is removed in part is no checkpoint any more."""
        with contextlib.suppress(ContainerMissing):
            names = [blob.name for blob in self._container.list(f"{FOLDER}{key}/")]
            for name in sorted(names, key=lambda name: not name.endswith(f"/{MANIFEST}")):
                self._container.delete(name)

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
        # The engine's own check refuses a checkpoint of no files.
        files = _listed(content)
        if (wrong := fetch_all(self._container, blobs, files, target)) is not None:
            log.warning("Checkpoint step-%d: %s is not what its manifest says: passed over", step, wrong)
            return None
        return target

    def _is_sound(self, blobs: dict[str, BlobInfo]) -> bool:
        if blobs[MANIFEST].size > MANIFEST_BYTES:
            return False
        files = _listed(self._container.read(blobs[MANIFEST].name, MANIFEST_BYTES)[0])
        return bool(files) and fetch_all(self._container, blobs, files, None) is None


def _listed(content: bytes) -> dict[str, dict[str, Any]]:
    """What a manifest lists; nothing where it is none."""
    try:
        return entries(untrusted_json.loads(content)["files"])
    except (ValueError, KeyError, TypeError):
        return {}
