"""Which code a configuration may choose: programs that the operator allows, tasks that are registered in the image."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.errors import ConfigInvalid
from trainer_image.storage.blob_names import printable
from trainer_image.tasks import registry


def check(config: Config, settings: Settings) -> None:
    """Raises ConfigInvalid for code that must not run here. Nothing is imported."""
    if config.task == "command":
        check_command(config.command.argv, settings.allow_command)
    if config.custom.entry_point is not None:
        registry.check_registered(config.custom.entry_point)


def check_command(argv: Sequence[str], allowed: str) -> None:
    """Raises ConfigInvalid where the operator does not allow this program, or where the image does not hold it.

    allowed: "off", "on", or the words that argv has to begin with. The configuration lies in the model's container:
    whoever may write there would otherwise choose what runs.
    """
    if allowed.lower() in ("off", "false", "0"):
        raise ConfigInvalid(
            "Invalid configuration: task: command is switched off here; ALLOW_COMMAND switches it on, in the image or"
            " in the operator's Job template"
        )
    if allowed.lower() not in ("on", "true", "1"):
        words = shlex.split(allowed)
        if list(argv[: len(words)]) != words:
            raise ConfigInvalid(
                f"Invalid configuration: command.argv: must begin with {shlex.join(words)}: nothing else is"
                " allowed here (ALLOW_COMMAND)"
            )
    if shutil.which(argv[0]) is None:
        why = f"there is no program {printable(argv[0])} in this image"
        if Path(argv[0]).is_file() and "\0" not in argv[0]:
            why = (
                f"{printable(argv[0])} may not be executed: make it executable (chmod +x), or name what runs it, as in"
                f" [sh, {printable(argv[0])}]"
            )
        raise ConfigInvalid(f"Invalid configuration: command.argv.0: {why}")
