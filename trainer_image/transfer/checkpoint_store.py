"""Checkpoints beyond the pod: `checkpoints/<run_key>/step-N/…` in the model's container.

The engine calls `keep` from its own background thread and measures how long it takes, so `keep` returns when the
checkpoint is stored. The best weights so far are part of every checkpoint, hence keeping the newest keeps the best.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import threading
from pathlib import Path
from typing import Any

from trainer_image.errors import StorageUnavailable
from trainer_image.storage import untrusted_json
from trainer_image.storage.blob_names import problem_of
from trainer_image.storage.container import BlobInfo, Container, ContainerMissing, StorageFault
from trainer_image.transfer.download import RANGE_BYTES

log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
MANIFEST_BYTES = 1024 * 1024
_STEP = re.compile(r"step-([0-9]{1,18})", re.ASCII)


class ContainerCheckpoints:
    """See `contract.CheckpointStore`. keep_newest: how many stay; folder: where fetched ones are put."""

    def __init__(self, container: Container, run_key: str, folder: Path, keep_newest: int = 2) -> None:
        self._container = container
        self._prefix = f"checkpoints/{run_key}/"
        self._folder = folder
        self._keep_newest = keep_newest
        self._one_at_a_time = threading.Lock()

    def newest_first(self) -> list[Path]:
        """Local folders of the complete checkpoints. Incomplete or changed ones are passed over."""
        fetched = []
        try:
            for step, blobs in sorted(self._stored().items(), reverse=True):
                path = self._fetch(step, blobs)
                if path is not None:
                    fetched.append(path)
        except StorageFault as fault:
            # Without its checkpoint a training starts afresh and overwrites it: better to try again later.
            raise self._unread(fault) from None
        return fetched

    def only_of_others(self) -> bool:
        """Whether other run keys have checkpoints here and ours has none. Raises StorageUnavailable."""
        others = False
        try:
            for blob in self._container.list("checkpoints/"):
                if blob.name.startswith(self._prefix):
                    return False
                others = True
        except ContainerMissing:
            return False
        except StorageFault as fault:
            raise self._unread(fault) from None
        return others

    def keep(self, folder: Path) -> None:
        """Stores the folder, manifest last, and removes it and what is too old. Raises StorageUnavailable."""
        with self._one_at_a_time:
            try:
                self._store(folder)
                self._prune()
            except StorageFault as fault:
                raise StorageUnavailable(
                    f"Failed to store checkpoint {folder.name} in container: {self._container.name} ({fault.why})"
                ) from None
            shutil.rmtree(folder, ignore_errors=True)

    def _unread(self, fault: StorageFault) -> StorageUnavailable:
        return StorageUnavailable(f"Failed to read checkpoints from container: {self._container.name} ({fault.why})")

    def _store(self, folder: Path) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        files.sort(key=lambda path: path.name == MANIFEST)
        # An older attempt's manifest must not vouch for the new files while they arrive.
        self._container.delete(f"{self._prefix}{folder.name}/{MANIFEST}")
        for path in files:
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
            name = path.relative_to(folder).as_posix()
            self._container.upload(f"{self._prefix}{folder.name}/{name}", path, md5)

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
        try:
            for blob in self._container.list(self._prefix):
                folder, _, name = blob.name.removeprefix(self._prefix).partition("/")
                match = _STEP.fullmatch(folder)
                if match and name:
                    steps.setdefault(int(match[1]), {})[name] = blob
        except ContainerMissing:
            return {}
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
        for name, expected in _files(content).items():
            blob = blobs.get(name)
            if blob is None or blob.size != expected["size"] or problem_of(name):
                log.warning("Checkpoint step-%d lacks %s: passed over", step, name)
                return None
            digest = hashlib.sha256()
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with (target / name).open("wb") as file:
                for offset in range(0, blob.size, RANGE_BYTES):
                    block = self._container.read_range(blob, offset, min(RANGE_BYTES, blob.size - offset))
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != expected["sha256"]:
                log.warning("Checkpoint step-%d: %s is not what its manifest says: passed over", step, name)
                return None
        return target


def _files(manifest: bytes) -> dict[str, dict[str, Any]]:
    """name → {size, sha256} of a manifest; {} names nothing, so that the engine's own check refuses it."""
    try:
        files = untrusted_json.loads(manifest)["files"]
        return {
            str(name): {"size": int(entry["size"]), "sha256": str(entry["sha256"])} for name, entry in files.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return {}
