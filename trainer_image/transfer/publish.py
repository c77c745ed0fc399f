"""A finished model → the model's container, published by one conditional write.

    runs/<run_id>/…            every file, then MANIFEST.json {name: {size, sha256}}
    latest.json                {run_id, manifest_sha256}: readers follow it only
    runs/<run_id>/unpublished.json   {"sentence"}: in place of that, where the model is not to be published

One blob is written atomically, a set of them is not: hence the manifest last, and then `latest.json`, If-Match the
ETag it had when the run started.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trainer_image.errors import Fenced, UploadFailed, UserCodeFailed, shown
from trainer_image.host import beneath
from trainer_image.storage import untrusted_json
from trainer_image.storage.blob_names import first_problem, printable
from trainer_image.storage.container import BlobChanged, BlobMissing, Container, Full, StorageFault, TooLarge
from trainer_image.storage.manifest import MANIFEST, fingerprint_of
from trainer_image.transfer.failures import failing_as

log = logging.getLogger(__name__)

LATEST, RUNS, UNPUBLISHED = "latest.json", "runs/", "unpublished.json"
# How often a pod that holds the lease begins again when one that was believed dead writes beside it.
ATTEMPTS = 3
_SMALL = 64 * 1024
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Latest:
    """What latest.json said. run_id and manifest_sha256 are None where it is not there or not readable."""

    etag: str | None
    run_id: str | None = None
    manifest_sha256: str | None = None


def read_latest(container: Container) -> Latest:
    """Raises StorageFault other than BlobMissing."""
    try:
        content, etag = container.read(LATEST, _SMALL)
    except BlobMissing:
        return Latest(None)
    except TooLarge as large:
        log.warning("%s in %s is not readable (%s): it names no model", LATEST, container.name, large.why)
        return Latest(large.etag)
    try:
        body = untrusted_json.loads(content)
        run_id, digest = body["run_id"], body["manifest_sha256"]
        if not (RUN_ID.fullmatch(run_id) and isinstance(digest, str)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        log.warning("%s in %s is not readable: it names no model", LATEST, container.name)
        return Latest(etag)
    return Latest(etag, run_id, digest)


def pointer(run_id: str, manifest_sha256: str) -> bytes:
    """The content of latest.json."""
    return json.dumps({"run_id": run_id, "manifest_sha256": manifest_sha256}).encode()


@dataclass(frozen=True)
class End:
    """A run has come to its end with a model. held_back: why that is not the published one, None where it is"""

    held_back: str | None = None


def ended(container: Container, run_id: str) -> End | None:
    """How this run has ended, None where it has not. Raises StorageFault.

    Where latest.json names another run, this one has published unless it was written before this one's model was
    whole, and a rollback came after that: a pod that died before anybody saw its exit code must not have its next one
    undo that.
    """
    latest = read_latest(container)
    if latest.run_id == run_id:
        return End()
    try:
        body = untrusted_json.loads(container.read(f"{RUNS}{run_id}/{UNPUBLISHED}", _SMALL)[0])
        return End(shown(str(body["sentence"])))
    except (BlobMissing, TooLarge, ValueError, KeyError, TypeError):
        pass
    if latest.run_id is None:
        return None
    whole, pointed = (_modified(container, name) for name in (f"{RUNS}{run_id}/{MANIFEST}", LATEST))
    # Storage tells times in whole seconds: a rollback may follow within the same one. Had the other run published just
    # before in it, this one would not have been let to.
    since = whole is not None and pointed is not None and pointed >= whole
    return End(f"run {latest.run_id} has been published since") if since else None


def _modified(container: Container, name: str) -> float | None:
    return next((blob.modified for blob in container.list(name) if blob.name == name), None)


def publish(
    container: Container,
    folder: Path,
    run_id: str,
    before: Latest,
    confirm: Callable[[], None] = lambda: None,
    beside: Mapping[str, bytes] = MappingProxyType({}),
    make_room: Callable[[int], bool] = lambda size: False,
    instead: str | None = None,
    stays: Latest | None = None,
) -> str:
    """Uploads the folder as runs/<run_id>/ and makes it the latest model. Returns where it is.

    instead: why it is not to be the latest one: this sentence stays beside it then; stays: the run that is the latest
    one in its place, also where latest.json was lost

    before: latest.json as read when the run started; confirm: raises Fenced where this is no longer the pod that may
    publish; beside: files that take the place of those of their names; make_room: called with the bytes of the model
    where the disk is full: whether it has removed anything. Raises Fenced when another run has published since, too,
    PermissionDenied, LimitExceeded for a full disk, UploadFailed.

    A pod may stand still for a while in here, and its replacement have the same run id: what is written is therefore
    written over what was there at the start only, and latest.json only when nothing came between.
    """
    where = f"{RUNS}{run_id}"
    ours: str | None = None
    sentence = f"Failed to upload model to container: {container.name}"
    with failing_as(sentence, {StorageFault: UploadFailed}):
        for _ in range(ATTEMPTS):
            confirm()
            now = read_latest(container)
            if now.run_id == run_id and ours in (None, now.manifest_sha256):
                # Published by a pod of this run that was believed dead; or by this one, and the answer got lost.
                return f"{container.name}/{where}"
            if now.run_id != run_id and now.etag != before.etag:
                raise Fenced(f"Another run ({now.run_id}) has published to {container.name} since this one started")
            ours = ""
            with contextlib.suppress(BlobChanged):
                try:
                    ours = _upload(container, folder, where, beside)
                except Full:
                    if make_room(_removed(container, folder, where)):
                        continue
                    raise
                confirm()
                if instead is None:
                    container.write_if(LATEST, pointer(run_id, ours), now.etag)
                else:
                    # A crash between the two: the next attempt comes to the same end. The other way round it would take
                    # this run for ended, and readers had no model.
                    if now.run_id is None and stays is not None and stays.run_id and stays.manifest_sha256:
                        container.write_if(LATEST, pointer(stays.run_id, stays.manifest_sha256), now.etag)
                    container.write(f"{where}/{UNPUBLISHED}", json.dumps({"sentence": instead}).encode())
                return f"{container.name}/{where}"
            log.warning("Another pod has written to %s: it is uploaded again", where)
        raise Fenced(f"Another pod of this run writes to {container.name}/{where} at the same time")


def _removed(container: Container, folder: Path, where: str) -> int:
    """Takes back what has come of the folder so far, which is no model. How many bytes the whole folder has."""
    names = beneath.names(folder)
    for name in names:
        container.delete(f"{where}/{name}")
    return sum((folder / name).lstat().st_size for name in names)


def _upload(container: Container, folder: Path, where: str, beside: Mapping[str, bytes]) -> str:
    """The folder's files and those beside it, then their manifest; its SHA-256.

    Raises BlobChanged where others wrote there meanwhile, UserCodeFailed for what cannot be a file of a model.
    """
    names = [name for name in beneath.names(folder) if name not in (MANIFEST, UNPUBLISHED) and name not in beside]
    if wrong := first_problem(names):
        raise UserCodeFailed(f"Nothing is published: {printable(wrong[0])}: {wrong[1]}")
    listed = {blob.name: blob.etag for blob in container.list(f"{where}/")}
    stored: dict[str, str] = {}

    def store(name: str, content: BufferedIOBase) -> dict[str, Any]:
        # One open file for both: what the manifest vouches for is what was stored, whatever has the name by now.
        entry = fingerprint_of(content)
        blob = f"{where}/{name}"
        stored[blob] = container.upload(blob, content, listed.get(blob))
        return entry

    manifest = {name: store(name, io.BytesIO(content)) for name, content in beside.items()}
    for name in names:
        with _opened(folder, name) as content:
            manifest[name] = store(name, content)
    digest = store(MANIFEST, io.BytesIO(json.dumps(manifest, indent=1, sort_keys=True).encode()))["sha256"]
    listed = {blob.name: blob.etag for blob in container.list(f"{where}/")}
    if any(listed.get(blob) != etag for blob, etag in stored.items()):
        raise BlobChanged("another pod has written to it")
    return str(digest)


def _opened(folder: Path, name: str) -> BufferedIOBase:
    try:
        return beneath.open_file(folder, name)
    except OSError as error:
        why = f"{printable(name)} is no file of its own, or not any more ({error.strerror}); links are not followed"
        raise UserCodeFailed(f"Nothing is published: {why}") from None
