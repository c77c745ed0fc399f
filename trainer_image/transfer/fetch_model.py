"""A published model → a folder to predict from: a run's folder, a container's local copy, or a container in Azure.

What is read is what `latest.json` names and its manifest vouches for, to the last byte. A run's folder on its own, say
a copy of one, is checked against the manifest in it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from portal_client.model_ids import is_container_name
from trainer_image.config import settings
from trainer_image.errors import ConfigInvalid, UsageError
from trainer_image.storage import untrusted_json
from trainer_image.storage.container import BlobChanged, BlobMissing, Container, ContainerMissing, Refused, StorageFault
from trainer_image.storage.local import LocalContainer
from trainer_image.storage.manifest import MANIFEST, entries, fetch_all, fingerprint
from trainer_image.transfer import runs
from trainer_image.transfer.failures import failing_as
from trainer_image.transfer.publish import LATEST, RUNS, Latest, read_latest

_MANIFEST_BYTES = 16 * 1024 * 1024
# What a prediction reads; a report or a metrics file that someone has edited is no reason to refuse the model.
NEEDED = ("model.json", "model.safetensors")
# What a run knew of its rows, beside newer models: the name that data/rows/known.py gives it.
ROWS = "rows.safetensors"


@contextmanager
def model_folder(model: str, run_id: str | None = None) -> Iterator[Path]:
    """The folder of the model that `model` names: a folder, else a container that the environment gives access to.

    run_id: of a run in it, in place of the published one. Raises UsageError where it is neither, ConfigInvalid where it
    holds no model or another than it says, PermissionDenied and StorageUnavailable.
    """
    if Path(model).is_dir():
        yield local_folder(Path(model), run_id)
        return
    if not is_container_name(model):
        raise UsageError(f"--model {model}: there is no such folder, and it is no name of a container")
    if not any(os.environ.get(name) for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL")):
        raise UsageError(
            f"--model {model}: there is no such folder; for a container of that name set"
            " AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT_URL"
        )
    chosen = settings.from_mapping(os.environ, {"MODEL_CONTAINER": model}, purpose="read")
    from trainer_image.storage.azure import open_container

    container = open_container(chosen.connection_string, chosen.account_url, model)
    with tempfile.TemporaryDirectory(prefix="model-", ignore_cleanup_errors=True) as folder:
        yield fetched(container, Path(folder), run_id)


def local_folder(path: Path, run_id: str | None = None) -> Path:
    """The folder of the run, of the one that latest.json names, or the folder itself. Raises ConfigInvalid."""
    digest = None
    if run_id is not None:
        digest = _named(LocalContainer(path), run_id, f"Failed to read the model in {path}").manifest_sha256
        path = path / RUNS / run_id
    elif (path / LATEST).exists():
        try:
            latest = read_latest(LocalContainer(path))
        except StorageFault as fault:
            raise ConfigInvalid(f"{path / LATEST} is not readable: {fault.why}") from None
        if latest.run_id is None:
            raise ConfigInvalid(f"{path / LATEST} is not readable: no model can be found by it")
        path, digest = path / "runs" / latest.run_id, latest.manifest_sha256
    if not (path / "model.json").exists():
        hint = _other_runs(LocalContainer(path))
        raise ConfigInvalid(f"{path} holds no model: there is neither latest.json nor model.json in it{hint}")
    _check(path, digest)
    return path


def _check(folder: Path, digest: str | None) -> None:
    """Against the manifest, where there is one. digest: the manifest's SHA-256 in latest.json."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            content = file.read(_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        if digest is not None:
            raise ConfigInvalid(f"{folder} holds no {MANIFEST}, which {LATEST} names: copy the whole folder") from None
        return
    except OSError as error:
        raise ConfigInvalid(f"{folder / MANIFEST} is not readable: {error.strerror}") from None
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise ConfigInvalid(f"{folder / MANIFEST} is not the one that {LATEST} names")
    try:
        if len(content) > _MANIFEST_BYTES:
            raise ValueError
        listed = entries(untrusted_json.loads(content))
        expected = {name: listed[name] for name in NEEDED}
    except (ValueError, KeyError):
        raise ConfigInvalid(f"{folder / MANIFEST} is not readable") from None
    for name, entry in expected.items():
        try:
            sound = (folder / name).stat().st_size == entry["size"] and fingerprint(folder / name) == entry
        except FileNotFoundError:
            raise ConfigInvalid(f"{folder} lacks {name}: copy the whole folder") from None
        except OSError as error:
            raise ConfigInvalid(f"{folder / name} is not readable: {error.strerror}") from None
        if not sound:
            raise ConfigInvalid(f"{folder / name} is not what {MANIFEST} says: it was changed, or copied badly")


def _named(container: Container, run_id: str, sentence: str) -> Latest:
    with failing_as(sentence, dict.fromkeys((ContainerMissing, Refused), ConfigInvalid)):
        return runs.named(container, run_id, sentence)


def _other_runs(container: Container) -> str:
    """What to do where latest.json is gone, as the end of a sentence."""
    try:
        whole = [run.run_id for run in runs.stored(container) if run.ended is not None]
    except StorageFault:
        return ""
    if not whole:
        return ""
    return f"; run {whole[0]} ended last: name it with --run, or publish it with rollback --run"


def fetched(container: Container, folder: Path, run_id: str | None = None) -> Path:
    """The container's latest model, or that of a run in it, verified, in `folder`."""
    sentence = f"Failed to read the model in container: {container.name}"
    if run_id is not None:
        return fetch_model(container, _named(container, run_id, sentence), folder, sentence)
    with failing_as(sentence, dict.fromkeys((ContainerMissing, Refused), ConfigInvalid)):
        latest = read_latest(container)
    if latest.run_id is None:
        why = "there is no latest.json: nothing was published" if latest.etag is None else f"{LATEST} is not readable"
        raise ConfigInvalid(f"{sentence} ({why}{_other_runs(container)})")
    return fetch_model(container, latest, folder, sentence)


def fetch_model(
    container: Container,
    latest: Latest,
    folder: Path,
    sentence: str | None = None,
    *,
    only: Collection[str] | None = None,
) -> Path:
    """The latest model's files in `folder`, verified against its manifest.

    sentence: how an error begins, where it is not the model of a warm start; only: the names of those files that are
    wanted, as far as they are there. Raises ConfigInvalid, PermissionDenied,
    StorageUnavailable.
    """
    sentence = sentence or f"Failed to read the model to start from (init.from) in container: {container.name}"
    where = f"runs/{latest.run_id}/"
    with failing_as(sentence, dict.fromkeys((BlobMissing, BlobChanged, Refused), ConfigInvalid)):
        content, _ = container.read(where + MANIFEST, _MANIFEST_BYTES)
        if hashlib.sha256(content).hexdigest() != latest.manifest_sha256:
            raise ConfigInvalid(f"{sentence} ({MANIFEST} is not the one that {LATEST} names)")
        blobs = {blob.name.removeprefix(where): blob for blob in container.list(where)}
        try:
            expected = entries(untrusted_json.loads(content))
        except ValueError:
            raise ConfigInvalid(f"{sentence} ({MANIFEST} is not readable)") from None
        if only is not None:
            expected = {name: entry for name, entry in expected.items() if name in only}
        if (wrong := fetch_all(container, blobs, expected, folder)) is not None:
            raise ConfigInvalid(f"{sentence} ({wrong} is not what its manifest says)")
    return folder
