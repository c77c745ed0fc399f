"""What the end of a program means: whose fault it is, and whether another attempt could do better."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence

from trainer_image.config.model_config import format_duration
from trainer_image.contract import RunInputs
from trainer_image.errors import (
    ConfigInvalid,
    DatasetInvalid,
    DatasetMissing,
    GpuFault,
    GpuOutOfMemory,
    LimitExceeded,
    StorageUnavailable,
    TrainerError,
    TrainingDiverged,
    UserCodeFailed,
    UserCodeKilled,
)
from trainer_image.host import hidden
from trainer_image.storage.blob_names import printable

# What a program may say by its exit code. The others up to 127 mean: it failed, and would fail again.
MEANT = {
    kind.exit_code: kind
    for kind in (
        DatasetInvalid,
        DatasetMissing,
        ConfigInvalid,
        TrainingDiverged,
        GpuOutOfMemory,
        LimitExceeded,
        StorageUnavailable,
        GpuFault,
    )
}
MOST_CHARACTERS = 600


def failure(argv: Sequence[str], code: int, why: str, step: int) -> TrainerError:
    """What an exit code other than 0 means: permanent up to 127, to be tried again from 128 on and by a signal.

    why: as `last_words.why` tells it, without secrets
    """
    if len(why) > MOST_CHARACTERS:
        why = f"{why[: MOST_CHARACTERS - 1]}…"
    said = f": {why}" if why else "; it printed nothing"
    program = f"The program {shown(argv)}"
    if code < 0:
        how = f"signal {-code} ({signal.strsignal(-code) or 'of an unknown kind'})"
        return UserCodeKilled(f"{program} was killed by {how}{said}", step=step)
    if code in MEANT:
        return MEANT[code](f"{program} ended with exit code {code} ({MEANT[code].code}){said}", step=step)
    kind = UserCodeFailed if code <= 127 else UserCodeKilled
    return kind(f"{program} ended with exit code {code}{said}", step=step)


def budgeted(inputs: RunInputs) -> bool:
    """Whether train.time_budget ends the program. The default is passed on only: who set none asked for no end."""
    return "time_budget" in inputs.config.train.model_fields_set


def budget(inputs: RunInputs) -> str:
    return f"train.time_budget ({format_duration(float(inputs.config.train.time_budget))})"


def overdue(inputs: RunInputs, code: int, step: int) -> TrainerError:
    """No other attempt would have more time: what was spent counts."""
    how = f"ended with exit code {code} instead of 0"
    if code < 0:
        how = "was ended by SIGTERM" if code == -signal.SIGTERM else "had to be killed"
    return UserCodeFailed(
        f"The program {shown(inputs.config.command.argv)} ran beyond {budget(inputs)} and {how}, so there is no"
        " model; give it more time, or let it keep to TIME_BUDGET_SECONDS and end with exit code 0",
        step=step,
    )


def shown(argv: Sequence[str]) -> str:
    text = printable(shlex.join(hidden.command(argv)))
    return text if len(text) <= 80 else text[:79] + "…"
