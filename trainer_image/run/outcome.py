"""How a run ended, as the exit code, the log and the termination message say it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from portal_client.messages import COMPLETED
from trainer_image.contract import RunResult
from trainer_image.errors import Cancelled, Fenced, StatusUnavailable, Terminated, TrainerError
from trainer_image.stop import Stop

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    location: where the published model is; untold: why the portal does not know, None where it does, or need not
    held_back: why the model was stored and not published, None where that is not so
    """

    exit_code: int
    code: str
    sentence: str
    step: int | None = None
    result: RunResult | None = None
    location: str | None = None
    untold: str | None = None
    held_back: str | None = None


def completed(location: str | None = None, result: RunResult | None = None, held_back: str | None = None) -> Outcome:
    """result: None where another attempt has trained it; held_back: why it was stored and not published"""
    sentence = COMPLETED if held_back is None else f"{COMPLETED}; the model is stored and not published: {held_back}"
    return Outcome(0, "Completed", sentence, result.steps if result else None, result, location, held_back=held_back)


def published_untold(outcome: Outcome, why: str) -> Outcome:
    """A standalone training that published or stored its model, while the portal was out of reach."""
    where = "published, but" if outcome.held_back is None else "stored and not published, and"
    sentence = f"The model is {where} the portal was not told that it is Completed: {why}"
    return replace(outcome, exit_code=StatusUnavailable.exit_code, sentence=sentence, untold=why)


def failed(error: TrainerError, last_step: int | None = None) -> Outcome:
    """Logs the error. last_step: the one that was reported last, where the error names none"""
    for sentence in error.problems or (error.sentence,):
        log.error("%s", sentence)
    return Outcome(error.exit_code, error.code, error.sentence, last_step if error.step is None else error.step)


def with_reason(error: TrainerError, stop: Stop) -> TrainerError:
    """Engine and download know that they were stopped; only `stop` knows why."""
    if not isinstance(error, Terminated):
        return error
    if stop.reason == "cancelled":
        return Cancelled("Training was cancelled: the portal took the model out of Processing", step=error.step)
    if stop.reason == "fenced":
        return Fenced("Another pod owns this run: training was stopped", step=error.step)
    return error
