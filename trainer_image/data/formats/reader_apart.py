"""Readers of tables in a process of their own (apart.py): rows go over the pipe as Arrow's batches of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainer_image.data import apart
from trainer_image.data.formats.cells import TEXT, Wanted
from trainer_image.errors import invalid
from trainer_image.limits import Limits

# (name, path, limits, wanted) → batches, the first one without rows.
Reader = Callable[[str, Path, Limits, Wanted], Iterator[pa.RecordBatch]]


def batches(module: str, name: str, path: Path, limits: Limits, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """What the reader in `module`, which serves, finds. Raises DatasetInvalid, LimitExceeded, OutOfMemory."""
    request = {
        "name": name,
        "path": str(path.absolute()),
        "limits": asdict(limits),
        "wanted": asdict(wanted) | {"dropped": sorted(wanted.dropped)},
    }
    for part in apart.asked(module, name, request):
        try:
            batch = pa.ipc.open_stream(part).read_next_batch()
            batch.validate(full=True)  # what damaged its reader may have made it answer nonsense
            if any(kind != TEXT for kind in batch.schema.types):
                raise pa.ArrowInvalid("its cells are no text")
        except pa.ArrowInvalid:
            raise invalid(name, "cannot be read: it is so damaged that its reader answers nonsense") from None
        yield batch


def serve(read: Reader) -> None:
    """The child's side."""

    def answer(request: dict[str, Any]) -> Iterator[pa.Buffer]:
        wanted = request["wanted"]
        columns = {key: tuple(wanted[key]) for key in ("needed", "also")}
        asked = Wanted(**columns, others=wanted["others"], dropped=frozenset(wanted["dropped"]))
        for batch in read(request["name"], Path(request["path"]), Limits(**request["limits"]), asked):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            yield sink.getvalue()

    apart.serve(answer)
