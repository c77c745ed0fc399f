"""One lock a model: within a process the portal calls for one model never overlap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ModelLocks:
    """Locks by model id, made when needed and dropped when nobody holds or waits for them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, model_id: str, patience: float = -1.0) -> Iterator[bool]:
        """Whether it is held. patience: seconds after which it is not waited for any longer; negative: for ever."""
        with self._guard:
            lock, users = self._locks.get(model_id, (threading.Lock(), 0))
            self._locks[model_id] = (lock, users + 1)
        held = False
        try:
            held = lock.acquire(timeout=patience)
            yield held
        finally:
            if held:
                lock.release()
            with self._guard:
                lock, users = self._locks[model_id]
                if users == 1:
                    del self._locks[model_id]
                else:
                    self._locks[model_id] = (lock, users - 1)
