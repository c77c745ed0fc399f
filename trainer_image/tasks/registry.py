"""Which tasks of others an image has: those that packages have registered, by Python's packaging metadata alone.

A configuration and a model's description are untrusted data, and importing a module runs it. So both can only choose
among the tasks in the group `trainer_image.tasks`; nothing else is ever imported on their word, and nothing from the
folder that the trainer was started in.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from trainer_image.errors import ConfigInvalid
from trainer_image.storage.blob_names import printable

GROUP = "trainer_image.tasks"


def registered() -> list[str]:
    """The tasks that installed packages have registered, as `module:Class`."""
    points = (
        point
        for distribution in importlib.metadata.distributions(path=installed_path())
        for point in distribution.entry_points
    )
    return sorted({f"{point.module}:{point.attr}" for point in points if point.group == GROUP})


def check_registered(entry_point: str) -> None:
    """Raises ConfigInvalid, with what is registered, where no package has registered this one. Imports nothing."""
    known = registered()
    if entry_point not in known:
        there = f"registered are {', '.join(known)}" if known else "no package in this image registers one"
        raise ConfigInvalid(
            f"Invalid configuration: custom.entry_point: {printable(entry_point)} is not registered as a task"
            f" (group {GROUP}); {there}"
        )


def installed_path() -> list[str]:
    """Where packages are installed: without the working directory, which `python -m` puts first."""
    here = Path.cwd().resolve()
    return [entry for entry in sys.path if entry and Path(entry).resolve() != here]
