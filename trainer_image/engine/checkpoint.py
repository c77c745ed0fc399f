"""Checkpoints: a killed training resumes from one as if nothing had happened. No pickle anywhere.

A checkpoint is a folder `step-N` with `tensors.safetensors`, `state.json` and, written last, `MANIFEST.json` with the
size and SHA-256 of the two. A folder whose manifest does not fit is no checkpoint: the one before it is taken.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer_image.contract import CheckpointStore
from trainer_image.host import exhaustion
from trainer_image.storage import untrusted_json
from trainer_image.storage.manifest import MANIFEST, fingerprint

log = logging.getLogger(__name__)

TENSORS, STATE = "tensors.safetensors", "state.json"
FORMAT = 1
# Of scalars and an epoch's figures each: some hundred thousand epochs.
STATE_BYTES = 64 * 1024**2
# A first guess of what storing takes, bytes a second, until a save has been measured.
ASSUMED_RATE = 50e6


class CheckpointInvalid(Exception):
    """The folder holds no usable checkpoint; the message says why."""


@dataclass(frozen=True)
class Snapshot:
    """State at the end of a step: tensors by name, in host memory and the snapshot's own; plain JSON scalars."""

    step: int
    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def write(folder: Path, snapshot: Snapshot) -> None:
    """Writes the snapshot into a new folder, the manifest last."""
    folder.mkdir(parents=True)
    save_file(dict(snapshot.tensors), folder / TENSORS)
    state = {"format": FORMAT, "step": snapshot.step, **snapshot.scalars}
    (folder / STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
    files = {}
    for name in (TENSORS, STATE):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
        files[name] = fingerprint(folder / name)
    partial = folder / (MANIFEST + ".partial")
    partial.write_text(json.dumps({"files": files}), encoding="utf-8")
    partial.replace(folder / MANIFEST)


def read(folder: Path) -> Snapshot:
    """The snapshot in the folder; CheckpointInvalid when it is incomplete, changed or of another format."""
    try:
        manifest = untrusted_json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name in (TENSORS, STATE):
            if manifest["files"][name] != fingerprint(folder / name):
                raise CheckpointInvalid(f"{folder.name}/{name} is not what its manifest says")
        if (folder / STATE).stat().st_size > STATE_BYTES:
            raise CheckpointInvalid(f"{folder.name}/{STATE} is larger than any of ours")
        state = untrusted_json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state.pop("format") != FORMAT:
            raise CheckpointInvalid(f"{folder.name} has another format than {FORMAT}")
        return Snapshot(int(state.pop("step")), load_file(folder / TENSORS), state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, SafetensorError) as error:
        raise CheckpointInvalid(f"{folder.name} cannot be read ({type(error).__name__}: {error})") from error


def resume(store: CheckpointStore, accept: Callable[[Snapshot], None]) -> tuple[Snapshot | None, list[str]]:
    """The newest checkpoint that is whole and that `accept` takes (it raises CheckpointInvalid otherwise).

    Returns (snapshot or None, a sentence for each that was passed over).
    """
    passed_over = []
    for folder in store.newest_first():
        try:
            snapshot = read(folder)
            accept(snapshot)
        except CheckpointInvalid as why:
            log.warning("Checkpoint passed over: %s", why)
            passed_over.append(f"A checkpoint was passed over: {why}.")
            continue
        return snapshot, passed_over
    return None, passed_over


class Checkpointer:
    """Decides when a save is due and writes it in the background, one at a time.

    Due at an epoch's end or `every` seconds after the last one, but never so often that saving takes more than `share`
    of the time. `near` is a folder beside which the temporary ones are made: the store may then move instead of copy.
    size: bytes of a snapshot, for a first guess of what saving costs.
    """

    def __init__(self, store: CheckpointStore, near: Path, every: float, share: float = 0.02, size: int = 0) -> None:
        self._store = store
        self._near = near
        self._every = every
        self._share = share
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._flight: Future[None] | None = None
        self._lock = threading.Lock()
        self._last = monotonic()
        self._rate = ASSUMED_RATE
        self._cost = size / ASSUMED_RATE
        self._given_up = False
        self.problems: list[str] = []

    def due(self, *, epoch_ended: bool) -> bool:
        if self._flight is not None and not self._flight.done():
            return False
        since = monotonic() - self._last
        with self._lock:
            affordable = since * self._share >= self._cost
        return (epoch_ended or since >= self._every) and affordable

    def save(self, make: Callable[[], Snapshot]) -> None:
        """Copies the state by `make` and starts writing it; call only when `due`."""
        began = self._last = monotonic()
        snapshot = make()
        self._flight = self._worker.submit(self._write, snapshot, began)

    def save_now(self, make: Callable[[], Snapshot], size: int, within: float) -> bool:
        """Writes and waits, when size over measured rate fits into `within` seconds. True when it is stored in time."""
        deadline = monotonic() + within
        if self._flight is not None and not self._flight.done():
            # One that was begun is nearly as good, and its end frees the line.
            with contextlib.suppress(TimeoutError):
                self._flight.result(within)
        before = len(self.problems)
        if monotonic() + size / self._rate <= deadline:
            self.save(make)
            with contextlib.suppress(TimeoutError):
                assert self._flight is not None
                self._flight.result(max(0.0, deadline - monotonic()))
                return len(self.problems) == before
        self._given_up = True
        return False

    def close(self) -> None:
        """No more saves; waits for one in flight, unless it was found to take longer than there is time."""
        self._worker.shutdown(wait=not self._given_up)

    def _write(self, snapshot: Snapshot, began: float) -> None:
        def store() -> None:
            # Removed in any case: during an outage of the storage, one copy every five minutes would fill the disk.
            with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=self._near, ignore_cleanup_errors=True) as place:
                folder = Path(place) / f"step-{snapshot.step}"
                write(folder, snapshot)
                self._store.keep(folder)

        try:
            exhaustion.with_room(self._store.make_room, store)
        except Exception as error:
            # The training is worth more than one checkpoint: it goes on, and the report says so.
            log.warning("Checkpoint at step %d failed: %s", snapshot.step, error)
            self.problems.append(f"The checkpoint at step {snapshot.step} failed ({type(error).__name__}).")
        with self._lock:
            # From before the copy: a device that was busy with it did not train.
            self._cost = monotonic() - began
            self._rate = max(1e6, snapshot.size / max(self._cost, 1e-3))
