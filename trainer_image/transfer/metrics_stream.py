"""metrics.jsonl beyond the pod while a training goes on, to be followed: `runs/<run_id>/metrics.live.jsonl`.

It has a name of its own and never that of a published file: a pod that was cut off and comes back may write late, and
must not change a file that a manifest vouches for. Publication removes it; what a failed training leaves is its curve
up to the end.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Self

from trainer_image.host import beneath
from trainer_image.stop import Stop
from trainer_image.storage.container import Container, StorageFault

log = logging.getLogger(__name__)

NAME = "metrics.live.jsonl"
# The blob is written as a whole each time, hence: the end of a long file only, and a long one less often.
MOST_BYTES = 4 * 1024 * 1024
BYTES_PER_SECOND = 64 * 1024
# How long the end of a training waits for the last write: a SIGTERM's grace period is short.
LAST_WRITE_SECONDS = 5.0


class MetricsStream:
    """Copies `file` while it is entered, in the background; nothing that goes wrong here reaches the training.

    interval: seconds between two writes, at least
    """

    def __init__(self, container: Container, run_id: str, file: Path, stop: Stop, interval: float) -> None:
        self._container = container
        self._name = f"runs/{run_id}/{NAME}"
        self._file = file
        self._stop = stop
        self._interval = interval
        self._seen: int | None = None
        self._warned = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(LAST_WRITE_SECONDS)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(max(self._interval, (self._seen or 0) / BYTES_PER_SECOND))
            if self._stop.reason == "fenced":
                return  # whoever has the lease now writes here
            try:
                self._copy()
            except Exception as error:
                why = error.why if isinstance(error, StorageFault) else f"{type(error).__name__}: {error}"
                log.log(logging.DEBUG if self._warned else logging.WARNING, "%s was not written: %s", self._name, why)
                self._warned = True

    def _copy(self) -> None:
        try:
            lines = beneath.open_file(self._file.parent, self._file.name)
        except FileNotFoundError:
            return  # nothing was measured yet, or this kind of task measures nothing
        with lines:
            size = os.fstat(lines.fileno()).st_size
            if size in (0, self._seen):
                return
            start = max(0, size - MOST_BYTES)
            lines.seek(start)
            content = lines.read(size - start)
        if start:
            content = content[content.find(b"\n") + 1 :]
        content = content[: content.rfind(b"\n") + 1]  # the last line may be half written
        if content:
            self._container.write(self._name, content)
            self._seen = size


def remove(container: Container, run_id: str) -> None:
    """After publication: the same lines are in metrics.jsonl now."""
    name = f"runs/{run_id}/{NAME}"
    try:
        container.delete(name)
    except StorageFault as fault:
        log.info("%s is left behind: %s", name, fault.why)
