"""What trains: the worker, with the engine or with a program."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

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

    def follow(self, inputs: RunInputs) -> None:
        """As a further node of several: trains along, without a model in the end."""

    def validate_dataset(self, inputs: RunInputs) -> str: ...

    def abandon(self) -> None:
        """Ends it at once, from any thread: what it was asked for raises Terminated."""


def start_worker(config: Config, settings: Settings) -> Worker:
    """At once it begins to import what the task needs, torch above all, which takes seconds."""
    return Worker(
        "command" if config.task == "command" else "engine",
        entry_point=config.custom.entry_point,
        hang_seconds=settings.hang_seconds,
    )


class Workers:
    """From `with` to its end one that trains; of several nodes each generation has one of its own.

    now: the one that there is. other: makes one that trains in this process, as tests do
    """

    def __init__(self, config: Config, settings: Settings, other: Callable[[], Backend] | None = None) -> None:
        self._config, self._settings, self._other = config, settings, other
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self.now = self._started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    def renew(self) -> None:
        """Another one, that knows nothing, when nothing is left of the one that there was."""
        self.now.abandon()
        self._running.close()
        self.now = self._started()

    def _started(self) -> Backend:
        if self._other is not None:
            return self._other()
        return self._running.enter_context(start_worker(self._config, self._settings))
