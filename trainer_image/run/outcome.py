"""How a training ended, as the exit code, the log and the termination message say it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainer_image.contract import RunResult
from trainer_image.errors import Cancelled, Fenced, Terminated, TrainerError
from trainer_image.run.termination import termination_message
from trainer_image.stop import Stop

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How it ended. `location`: where the published model is; `reported`: the portal knows, or need not."""

    exit_code: int
    code: str
    sentence: str
    step: int | None = None
    result: RunResult | None = None
    location: str | None = None
    reported: bool = True
    problems: tuple[str, ...] = field(default=())

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.result.metrics if self.result else {}


def last_words(run_id: str, outcome: Outcome, secrets: Iterable[str]) -> bytes:
    """The outcome as termination message."""
    return termination_message(
        message=outcome.sentence,
        code=outcome.code,
        exit_code=outcome.exit_code,
        retryable=outcome.exit_code > 127,
        run_id=run_id,
        step=outcome.step,
        metrics=outcome.metrics,
        secrets=secrets,
    )


def failed(error: TrainerError, last: int | None) -> Outcome:
    """Says it in the log. last: the step that was told last, where the error names none"""
    problems = tuple(getattr(error, "problems", ()))
    step = error.step if error.step is not None else last
    for sentence in problems or (error.sentence,):
        log.error("%s", sentence)
    return Outcome(error.exit_code, error.code, error.sentence, step, problems=problems)


def too_late(grace_seconds: float) -> Terminated:
    return Terminated(
        f"Stopped on request; the training did not end within {grace_seconds:g} s and was ended; its last stored"
        " checkpoint stays"
    )


def with_reason(error: TrainerError, stop: Stop) -> TrainerError:
    """Engine and download know that they were stopped; only `stop` knows why."""
    if not isinstance(error, Terminated):
        return error
    if stop.reason == "cancelled":
        return Cancelled("Training was cancelled: the portal took the model out of Processing", step=error.step)
    if stop.reason == "fenced":
        return Fenced("Another pod owns this run: training was stopped", step=error.step)
    return error
