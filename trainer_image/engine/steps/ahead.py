"""Batches that are made by threads while the device works on the one before."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

from trainer_image.tasks.base import Batch

Key = TypeVar("Key", bound=Hashable)
Made = tuple[Batch, torch.cuda.Event | None]


class Ahead(Generic[Key]):
    """make: a batch on the CPU, pinned where the device is a GPU; called in any thread, in any order

    On CUDA it is copied from there on a stream of its own; elsewhere it is what `make` returns.
    alone: each thread computes with one CPU
    """

    def __init__(
        self, make: Callable[[Key], Batch], device: torch.device, threads: int = 1, *, alone: bool = False
    ) -> None:
        self._make, self._device, self._alone = make, device, alone
        self._workers = ThreadPoolExecutor(threads, "rows", self._begin)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._flights: dict[Key, Future[Made]] = {}

    def get(self, key: Key, following: Sequence[Key]) -> Batch:
        """The batch of `key`; begins to make those of `following`, the next one first."""
        known = self._flights
        self._flights = {k: known.get(k) or self._workers.submit(self._fetch, k) for k in (key, *following)}
        for unwanted in known.keys() - self._flights.keys():
            known[unwanted].cancel()
        batch, copied = self._flights.pop(key).result()
        if copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copied)
            for tensor in batch.values():
                # The allocator must not hand the memory to the other stream while this one still reads it.
                tensor.record_stream(stream)
        return batch

    def close(self) -> None:
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> None:
        if self._device.type == "cuda":
            # A thread begins with the first GPU as its own, whose memory it must not touch.
            torch.cuda.set_device(self._device)
        if self._alone:
            torch.set_num_threads(1)  # of this thread; one that computes already keeps its own number

    def _fetch(self, key: Key) -> Made:
        batch = self._make(key)
        if self._stream is None:
            return batch, None
        with torch.cuda.stream(self._stream):
            moved = {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()}
            return moved, self._stream.record_event()
