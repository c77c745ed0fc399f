"""What trains: the worker, with the engine or with a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs, RunResult
from trainer_image.limits import Limits
from trainer_image.worker.child import Worker


class Backend(Protocol):
    """What a run wants done: a Worker does it by the modules trainer_image.engine.training or trainer_image.command."""

    def check_config(self, config: Config, limits: Limits) -> None:
        """What only the task's own code can see in the configuration. Raises ConfigInvalid, UserCodeFailed."""

    def train(self, inputs: RunInputs) -> RunResult: ...

    def validate_dataset(self, inputs: RunInputs) -> str: ...


def start_worker(config: Config, settings: Settings) -> Worker:
    """At once it begins to import what the task needs, torch above all, which takes seconds."""
    return Worker(
        "command" if config.task == "command" else "engine",
        entry_point=config.custom.entry_point,
        hang_seconds=settings.hang_seconds,
    )


@contextmanager
def backend_for(config: Config, settings: Settings, other: Callable[[], Backend] | None = None) -> Iterator[Backend]:
    """Ended on leaving, with all that it started. other: trains in this process instead, as tests do"""
    if other is not None:
        yield other()
        return
    with start_worker(config, settings) as worker:
        yield worker
