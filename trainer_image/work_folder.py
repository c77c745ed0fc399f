"""The folder that one run works in: dataset, checkpoints, the model until it is published."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer_image.errors import UsageError
from trainer_image.settings import Settings


@contextmanager
def work_folder(settings: Settings) -> Iterator[Path]:
    """An empty folder for one run, removed at its end. Raises UsageError when it cannot be written."""
    if settings.work_dir is None:
        with tempfile.TemporaryDirectory(prefix="training-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    path = settings.work_dir / f"run-{settings.run_id}"
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    except OSError as error:
        raise UsageError(
            f"The work folder {settings.work_dir} (WORK_DIR) cannot be written: {error.strerror}"
        ) from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
