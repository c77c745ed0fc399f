"""The signature (SAS) by which one container is open to this training: read from a file that the dispatcher renews.

The file is looked at now and again, so that a signature that is about to run out is not met; one that is refused is
waited for to be replaced, and believed only then.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from trainer_image.errors import ConfigInvalid
from trainer_image.host.credentials import PATIENCE, CredentialFiles
from trainer_image.stop import Stop

# Seconds between two looks at the file while nothing is refused.
_LOOK_EVERY = 15.0


class Signature:
    """Thread-safe. name: of the file; asked: what it will hold, where it does not yet, as the relay has answered; stop:
    a training that ends waits for nothing.

    Raises ConfigInvalid where there is no URL of the container.
    """

    def __init__(
        self,
        files: CredentialFiles,
        name: str,
        container: str,
        asked: str | None = None,
        stop: Stop | None = None,
        *,
        patience: float = PATIENCE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files, self._name, self._patience, self._monotonic = files, name, patience, monotonic
        self._wait: Callable[[float], object] = stop.event.wait if stop is not None else time.sleep
        self._lock = threading.Lock()
        self._looked_at = monotonic()
        self._refused: str | None = None  # nobody has replaced it in time
        text = asked or files.read(name)
        if text is None or not is_for(text, container):
            raise ConfigInvalid(f"{files.folder / name} holds no address of the container {container}")
        self.url, _, self._query = text.partition("?")

    def current(self) -> str:
        """The signature as it is now: the query of a URL."""
        with self._lock:
            if self._monotonic() >= self._looked_at + _LOOK_EVERY:
                self._looked_at = self._monotonic()
                self._take(self._files.read(self._name))
            return self._query

    def replaced(self, refused: str) -> bool:
        """Whether there is another one than `refused`, which is waited for once. It may take minutes."""
        with self._lock:
            if self._query != refused:
                return True  # another thread has waited for it
            if self._refused == refused:
                return False
            used = f"{self.url}?{refused}"
            self._take(self._files.newer(self._name, used, seconds=self._patience, wait=self._wait))
            if self._query == refused:
                self._refused = refused
            return self._query != refused

    def _take(self, text: str | None) -> None:
        """Where the file is gone, or is for another container, the signature that we have is as good as any."""
        url, _, query = (text or "").partition("?")
        if url == self.url and query:
            self._query = query


@functools.cache
def signature_of(
    files: CredentialFiles, name: str, container: str, asked: str | None = None, stop: Stop | None = None
) -> Signature:
    """One for the whole process, however often the container is opened: what was waited for once is believed."""
    return Signature(files, name, container, asked, stop)


def is_for(text: str | None, container: str) -> bool:
    """Whether it is the URL of this container, with a signature."""
    parts = urlsplit(text or "")
    return parts.scheme in ("http", "https") and bool(parts.query) and parts.path.rpartition("/")[2] == container
