"""The folder that one run works in: dataset, checkpoints, the model until it is published."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer_image.config.settings import Settings
from trainer_image.errors import Fenced, UsageError


@contextmanager
def work_folder(settings: Settings) -> Iterator[Path]:
    """An empty folder for one run, removed at its end. Raises UsageError when it cannot be written,
    Fenced when another process has it for the same run.
    """
    if settings.work_dir is None:
        with tempfile.TemporaryDirectory(prefix="training-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    # Of nodes that somebody starts on one machine each has its own.
    node = f"-node-{settings.node}" if settings.follows else ""
    path = settings.work_dir / f"run-{settings.run_id}{node}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder_lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder_lock)
            raise Fenced(
                f"Another process trains run {settings.run_id} in the work folder {settings.work_dir}"
            ) from None
        # What a killed attempt left; the folder itself stays, for its lock.
        for left in path.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    except OSError as error:
        raise UsageError(
            f"The work folder {settings.work_dir} (WORK_DIR) cannot be written: {error.strerror}"
        ) from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(folder_lock)
