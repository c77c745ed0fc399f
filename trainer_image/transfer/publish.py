"""A finished model → the model's container, published by one conditional write.

    runs/<run_id>/…            every file, then MANIFEST.json {name: {size, sha256}}
    latest.json                {run_id, manifest_sha256}: readers follow it only

One blob is written atomically, a set of them is not: hence the manifest last, and then `latest.json`, If-Match the
ETag it had when the run started.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer_image.errors import (
    ConfigInvalid,
    Fenced,
    LimitExceeded,
    PermissionDenied,
    StorageUnavailable,
    TrainerError,
    UploadFailed,
)
from trainer_image.storage import untrusted_json
from trainer_image.storage.container import (
    AccessDenied,
    BlobChanged,
    BlobMissing,
    Container,
    Full,
    StorageFault,
    TooLarge,
)
from trainer_image.transfer.download import RANGE_BYTES

log = logging.getLogger(__name__)

LATEST = "latest.json"
MANIFEST = "MANIFEST.json"
# How often a pod that holds the lease begins again when one that was believed dead writes beside it.
ATTEMPTS = 3
_SMALL = 64 * 1024
_MANIFEST_BYTES = 16 * 1024 * 1024
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


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
        if not (_RUN_ID.fullmatch(run_id) and isinstance(digest, str)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        log.warning("%s in %s is not readable: it names no model", LATEST, container.name)
        return Latest(etag)
    return Latest(etag, run_id, digest)


def publish(
    container: Container, folder: Path, run_id: str, before: Latest, confirm: Callable[[], None] = lambda: None
) -> str:
    """Uploads the folder as runs/<run_id>/ and makes it the latest model. Returns where it is.

    before: latest.json as read when the run started; confirm: raises Fenced where this is no longer the pod that may
    publish. Raises Fenced when another run has published since, too, PermissionDenied, LimitExceeded for a full disk,
    UploadFailed.

    A pod may stand still for a while in here, and its replacement have the same run id: what is written is therefore
    written over what was there at the start only, and latest.json only when nothing came between.
    """
    where = f"runs/{run_id}"
    ours: str | None = None
    try:
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
                ours = _upload(container, folder, where)
                confirm()
                pointer = {"run_id": run_id, "manifest_sha256": ours}
                container.write_if(LATEST, json.dumps(pointer).encode(), now.etag)
                return f"{container.name}/{where}"
            log.warning("Another pod has written to %s: it is uploaded again", where)
        raise Fenced(f"Another pod of this run writes to {container.name}/{where} at the same time")
    except StorageFault as fault:
        raise _upload_failed(container, fault) from None


def _upload(container: Container, folder: Path, where: str) -> str:
    """The folder's files, then their manifest; its SHA-256. Raises BlobChanged where others wrote there meanwhile."""
    listed = {blob.name: blob.etag for blob in container.list(f"{where}/")}
    stored: dict[str, str] = {}
    manifest: dict[str, dict[str, Any]] = {}

    def put(name: str, path: Path) -> str:
        md5, sha256 = _digests(path)
        blob = f"{where}/{name}"
        stored[blob] = container.upload(blob, path, md5, listed.get(blob))
        return sha256

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST:
            manifest[name] = {"sha256": put(name, path), "size": path.stat().st_size}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    digest = put(MANIFEST, folder / MANIFEST)
    listed = {blob.name: blob.etag for blob in container.list(f"{where}/")}
    if any(listed.get(blob) != etag for blob, etag in stored.items()):
        raise BlobChanged("another pod has written to it")
    return digest


def fetch_model(container: Container, latest: Latest, folder: Path, sentence: str | None = None) -> Path:
    """The latest model's files in `folder`, verified against its manifest. Raises ConfigInvalid, Storage…

    sentence: how an error begins, where it is not the model of a warm start
    """
    sentence = sentence or f"Failed to read the model to start from (init.from: latest) in container: {container.name}"
    where = f"runs/{latest.run_id}/"
    try:
        content, _ = container.read(where + MANIFEST, _MANIFEST_BYTES)
        if hashlib.sha256(content).hexdigest() != latest.manifest_sha256:
            raise ConfigInvalid(f"{sentence} ({MANIFEST} is not the one that {LATEST} names)")
        blobs = {blob.name: blob for blob in container.list(where)}
        for name, entry in untrusted_json.loads(content).items():
            blob = blobs.get(where + name)
            target = folder / name
            if blob is None or blob.size != entry["size"] or folder.resolve() not in target.resolve().parents:
                raise ConfigInvalid(f"{sentence} ({name} is not what its manifest says)")
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with target.open("wb") as file:
                for offset in range(0, blob.size, RANGE_BYTES):
                    block = container.read_range(blob, offset, min(RANGE_BYTES, blob.size - offset))
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != entry["sha256"]:
                raise ConfigInvalid(f"{sentence} ({name} is not what its manifest says)")
    except (BlobMissing, BlobChanged) as fault:
        raise ConfigInvalid(f"{sentence} ({fault.why})") from None
    except AccessDenied as fault:
        raise PermissionDenied(f"{sentence} ({fault.why})") from None
    except StorageFault as fault:
        raise StorageUnavailable(f"{sentence} ({fault.why})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigInvalid(f"{sentence} ({MANIFEST} is not readable)") from None
    return folder


def environment(device: str, image: str | None, run_id: str) -> dict[str, Any]:
    """What environment.json holds: enough to build the same surroundings again."""
    packages = {
        distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()
    }
    return {
        "run_id": run_id,
        "image": image,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": {"asked": device, **_accelerator()},
        "packages": dict(sorted(packages.items(), key=lambda item: str(item[0]).lower())),
    }


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _accelerator() -> dict[str, Any]:
    """Asks torch only where the training has loaded it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"name": platform.processor() or platform.machine()}
    return {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


def _digests(path: Path) -> tuple[bytes, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1024 * 1024):
            md5.update(block)
            sha256.update(block)
    return md5.digest(), sha256.hexdigest()


def _upload_failed(container: Container, fault: StorageFault) -> TrainerError:
    sentence = f"Failed to upload model to container: {container.name} ({fault.why})"
    if isinstance(fault, Full):
        return LimitExceeded(sentence)
    return PermissionDenied(sentence) if isinstance(fault, AccessDenied) else UploadFailed(sentence)
