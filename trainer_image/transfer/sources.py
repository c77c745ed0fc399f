"""Where a run reads from and writes to: containers, or the folders that stand in for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from trainer_image.config import strict_yaml
from trainer_image.config.model_config import Config, ConfigProblems, parse_config
from trainer_image.config.settings import Settings
from trainer_image.contract import Progress
from trainer_image.errors import ConfigInvalid, StorageUnavailable, Terminated, UsageError
from trainer_image.host.credentials import DATASET_URL, MODEL_URL, CredentialFiles
from trainer_image.stop import Stop
from trainer_image.storage.container import BlobChanged, BlobMissing, Container, ContainerMissing, Refused
from trainer_image.storage.local import LocalContainer
from trainer_image.storage.signature import is_for, signature_of
from trainer_image.transfer.download import DatasetLock, Download, lock_dataset, share_of
from trainer_image.transfer.failures import failing_as
from trainer_image.units import format_bytes

log = logging.getLogger(__name__)

CONFIG = "config.yaml"


class Sources:
    """The containers that the settings name, opened when they are first asked for."""

    def __init__(self, settings: Settings, stop: Stop, work: Path) -> None:
        self._settings = settings
        self._stop = stop
        self._work = work
        self._dataset: Dataset | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._dataset is not None:
            self._dataset.abandon()

    @property
    def models(self) -> Container:
        """Where the model goes."""
        return open_models(self._settings, self._stop)

    def config(self) -> Config:
        """From --config, else config.yaml in the model's container. Raises ConfigInvalid and access errors."""
        if self._settings.config is not None:
            try:
                with self._settings.config.open("rb") as file:
                    return parse_config(file.read(strict_yaml.MAX_BYTES + 1))
            except OSError as error:
                raise UsageError(f"--config {self._settings.config}: {error.strerror}") from None
        container = self.models
        with unreadable(container):
            try:
                content, _ = container.read(CONFIG, strict_yaml.MAX_BYTES)
            except BlobChanged as fault:
                raise ConfigProblems([f"{CONFIG}: {fault.why}"]) from None
            except BlobMissing:
                raise BlobMissing(f"no {CONFIG} in it") from None
        return parse_config(content)

    def start_download(self, config: Config, progress: Callable[[Progress], None]) -> Dataset:
        """Begins to fetch the dataset in the background. Raises ConfigInvalid when nothing names one."""
        settings = self._settings
        local = settings.data
        container = LocalContainer(local) if local else self._open_dataset(self._dataset_name(config))
        folder = local or self._work / "dataset"
        self._dataset = Dataset(container, folder, config.command.shares, settings, self._stop, progress)
        return self._dataset

    def _open_dataset(self, name: str) -> Container:
        """With credentials of its own a training asks the dispatcher for a dataset that it does not know of."""
        settings = self._settings
        if not (files := _scoped(settings)):
            return _open(settings, name, self._stop)
        from trainer_image.storage.azure import open_signed
        from trainer_image.storage.dataset_access import dataset_url

        asked = None
        if not is_for(files.read(DATASET_URL), name):
            asked = dataset_url(settings.api_base_url, name, files, settings.auth_method, wait=self._wait_for_access)
            ours = urlsplit(files.read(MODEL_URL) or asked)
            if urlsplit(asked)[:2] != ours[:2]:
                # The relay speaks plain HTTP: who changes packets must not choose what is trained on.
                raise StorageUnavailable(
                    f"Failed to download dataset from container: {name} (its address is not on {ours.hostname})"
                )
        return open_signed(signature_of(files, DATASET_URL, name, asked, self._stop), name)

    def _wait_for_access(self, seconds: float) -> None:
        if self._stop.event.wait(seconds):
            raise Terminated("Training was stopped while it waited for access to its dataset", step=0)

    def _dataset_name(self, config: Config) -> str:
        asked, configured = self._settings.dataset_container, config.dataset
        if asked and configured and asked != configured:
            log.warning("The request names dataset %s, config.yaml names %s: the request decides", asked, configured)
        name = asked or configured
        if name is None:
            raise ConfigInvalid(
                "Invalid configuration: dataset: is required: neither the request nor DATASET_CONTAINER names"
                " the dataset's container"
            )
        return name


def open_models(settings: Settings, stop: Stop) -> Container:
    """Where a run's model goes, and what else it leaves. Raises UsageError, ConfigInvalid."""
    if settings.out is not None:
        try:
            settings.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {settings.out}: {error.strerror}") from None
        return LocalContainer(settings.out)
    return _open(settings, settings.model_container or "", stop)


def _open(settings: Settings, name: str, stop: Stop) -> Container:
    if files := _scoped(settings):
        from trainer_image.storage.azure import open_signed

        return open_signed(signature_of(files, MODEL_URL, name, stop=stop), name)
    if not (settings.connection_string or settings.account_url):
        raise UsageError(
            f"Container {name} cannot be opened: neither AZURE_STORAGE_CONNECTION_STRING nor"
            " AZURE_STORAGE_ACCOUNT_URL is set; --data and --out name local folders"
        )
    from trainer_image.storage.azure import open_container

    return open_container(settings.connection_string, settings.account_url, name)


def _scoped(settings: Settings) -> CredentialFiles | None:
    """The credentials of this training alone; None where the settings have some of the account."""
    if settings.credentials_dir is None or settings.connection_string or settings.account_url:
        return None
    return CredentialFiles(settings.credentials_dir)


class Dataset:
    """A dataset on its way into `folder`; local folders are listed and checked, and used where they are.

    shares: see `download.share_of`
    """

    def __init__(
        self,
        container: Container,
        folder: Path,
        shares: Sequence[str],
        settings: Settings,
        stop: Stop,
        progress: Callable[[Progress], None],
    ) -> None:
        self.folder = folder
        self._container = container
        self._shares = shares
        self._settings = settings
        self._stop = stop
        self._progress = progress
        self._listed: Future[DatasetLock] = Future()
        self._lock: Future[DatasetLock] = Future()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name="dataset", daemon=True)
        self._thread.start()

    def wait_listed(self) -> DatasetLock:
        """Until its listing has been checked: the time to fail, before torch is imported. Raises as `wait`."""
        return self._listed.result()

    def wait(self) -> DatasetLock:
        """Until it is there and verified. Raises what went wrong on the way."""
        return self._lock.result()

    def abandon(self) -> None:
        """Ends the download, so that its folder can be removed: nobody waits for it any more."""
        self._abandoned.set()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        try:
            lock = lock_dataset(self._container, self._settings.limits)
            mine = share_of(lock, self._shares, self._settings.node, self._settings.nodes)
            self._listed.set_result(lock)
            if self._settings.data is None:
                self._download(mine)
            self._lock.set_result(lock)
        except BaseException as error:
            if not self._listed.done():
                self._listed.set_exception(error)
            self._lock.set_exception(error)

    def _download(self, lock: DatasetLock) -> None:
        log.info("Dataset %s: %d files, %s", lock.container, len(lock.blobs), format_bytes(lock.size))
        reported = -1

        def report(done: int, total: int) -> None:
            nonlocal reported
            tenth = 10 * done // max(total, 1)
            if tenth > reported:
                reported = tenth
                text = f"Downloading the dataset: {format_bytes(done)} of {format_bytes(total)}"
                self._progress(Progress(text, step=0))

        Download(
            self._container,
            lock,
            self.folder,
            lambda: self._stop.is_set() or self._abandoned.is_set(),
            connections=self._settings.download_connections,
            progress=report,
        ).run()


def unreadable(container: Container) -> AbstractContextManager[None]:
    """What goes wrong within is that the model's container cannot be read."""
    sentence = f"Failed to read configuration from container: {container.name}"
    return failing_as(sentence, dict.fromkeys((ContainerMissing, BlobMissing, Refused), ConfigInvalid))
