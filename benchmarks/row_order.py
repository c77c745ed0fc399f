"""Rows of a file that nothing has cached: how many a second in random order, and how many in blocks?

    python -m benchmarks.row_order --mib 1024 --folder /var/tmp

What memory would cache is dropped on the way: after each batch of the random order, as if the file were endless, and
after each buffer of the other one, which memory has room for. `--folder` must lie on the disk that is asked about.
"""

from __future__ import annotations

import argparse
import mmap
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from trainer_image.engine.steps.row_order import BLOCK_BYTES, BUFFERED_BLOCKS, epoch_order

COLUMNS, BATCH, SECONDS = 22, 4096, 8.0


def measure(path: Path, block: int) -> tuple[float, float]:
    """(rows a second, bytes read from the disk for each) of about SECONDS; block: rows of a block, 0: random order."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        rows = torch.from_numpy(np.frombuffer(mapped, np.float32).reshape(-1, COLUMNS))
        before, began, done = _read_bytes(), time.monotonic(), 0
        for batch, cold in _batches(len(rows), block):
            if cold:
                mapped.madvise(mmap.MADV_DONTNEED)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            done += len(rows.index_select(0, batch))
            if time.monotonic() - began > SECONDS:
                break
        return done / (time.monotonic() - began), (_read_bytes() - before) / done


def _batches(count: int, block: int) -> Iterator[tuple[torch.Tensor, bool]]:
    order = epoch_order(count, 0, block)
    per_buffer = max(1, block * BUFFERED_BLOCKS // BATCH)
    for number, batch in enumerate(order.split(BATCH)):
        yield batch, number % per_buffer == 0


def _read_bytes() -> int:
    found = re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.row_order", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file (1024)")
    parser.add_argument("--folder", type=Path, help="where it is made (the system's for temporary files)")
    options = parser.parse_args()
    width = COLUMNS * 4
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "rows"
        with path.open("wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(BLOCK_BYTES // width * width))
            file.flush()
            os.fsync(file.fileno())  # dirty pages cannot be dropped
        for name, block in (("random", 0), ("in blocks", BLOCK_BYTES // width)):
            pace, read = measure(path, block)
            print(f"{name}: {pace:,.0f} rows of {width} bytes a second, {read:,.0f} bytes read for each", flush=True)


if __name__ == "__main__":
    main()
