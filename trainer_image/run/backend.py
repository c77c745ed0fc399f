"""What trains, by the task: the engine, which needs torch, or a program (task `command`), which does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from trainer_image import command
from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs, RunResult
from trainer_image.limits import Limits
from trainer_image.tasks import plugins


class Backend(Protocol):
    """The module trainer_image.engine.training, or trainer_image.command."""

    def check_config(self, config: Config, limits: Limits) -> None:
        """What only the task's own code can see in the configuration. Raises ConfigInvalid, UserCodeFailed."""

    def train(self, inputs: RunInputs) -> RunResult: ...

    def validate_dataset(self, inputs: RunInputs) -> str: ...


def load_engine() -> Backend:
    """Imports torch, which takes seconds: never before the download has begun."""
    from trainer_image.engine import training

    return training


def backend_for(
    config: Config, settings: Settings, engine: Callable[[], Backend] | None = None
) -> Callable[[], Backend]:
    """What trains this task, to be loaded when it is needed. Raises ConfigInvalid for code that must not run here.

    engine: loads another one than ours
    """
    if config.task == "command":
        command.check_allowed(config.command.argv, settings.allow_command)
        return lambda: command
    if config.custom.entry_point is not None:
        plugins.check_registered(config.custom.entry_point)
    return engine or load_engine
