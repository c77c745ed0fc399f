"""What vouches for a folder of files: a MANIFEST.json that lists the size and SHA-256 of each, written last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from trainer_image.host import beneath
from trainer_image.storage.blob_names import printable, problem_of
from trainer_image.storage.container import BlobInfo, Container

MANIFEST = "MANIFEST.json"


def fingerprint(path: Path) -> dict[str, Any]:
    """The file's {size, sha256} as a manifest lists it."""
    with path.open("rb") as file:
        return fingerprint_of(file)


def fingerprint_of(file: BufferedIOBase) -> dict[str, Any]:
    """Of an open file, from where it stands."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": file.seek(0, os.SEEK_END), "sha256": digest}


def of_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """name → fingerprint of every file below the folder, by name, but for its manifest."""
    return {name: fingerprint(folder / name) for name in beneath.names(folder) if name != MANIFEST}


def entries(listed: Any) -> dict[str, dict[str, Any]]:
    """name → {size, sha256}, from what a container says is a manifest. Raises ValueError for what is none."""
    try:
        return {
            str(name): {"size": int(entry["size"]), "sha256": str(entry["sha256"])} for name, entry in listed.items()
        }
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("it is no manifest") from error


def fetch(container: Container, blob: BlobInfo, target: Path | None) -> dict[str, Any]:
    """Writes the blob to `target`, whose folder is made, None: nowhere; the fingerprint of what came. Raises
    StorageFault."""
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    size, digest = 0, hashlib.sha256()
    with contextlib.nullcontext() if target is None else target.open("wb") as file:
        for piece in container.pieces(blob, 0, blob.size):
            size += len(piece)
            digest.update(piece)
            if file is not None:
                file.write(piece)
    return {"size": size, "sha256": digest.hexdigest()}


def fetch_all(
    container: Container, blobs: Mapping[str, BlobInfo], listed: Mapping[str, dict[str, Any]], folder: Path | None
) -> str | None:
    """Writes what a manifest lists to the folder, None: only reads it. The first file that is not as it says, None
    where all are.

    blobs: by the names that the manifest has for them. Raises StorageFault.
    """
    for name, entry in listed.items():
        blob = blobs.get(name)
        if blob is None or blob.size != entry["size"] or problem_of(name):
            return printable(name)
        try:
            sound = fetch(container, blob, None if folder is None else folder / name) == entry
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            sound = False  # a file's name is a folder's, too
        if not sound:
            return printable(name)
    return None


def as_json(value: Any) -> bytes:
    """As all JSON files beside a model are written: for people, too. Raises ValueError for nan and infinity."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    path.write_bytes(as_json(value))
