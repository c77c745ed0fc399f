"""One training from start to last words, in the pod and on a laptop.

    may we? → lease → configuration → dataset ┐
                               import torch ──┴→ train → publish → report → termination message → exit code

Storage and reporter are the only differences between the two places. What goes wrong is a TrainerError here; its
exit code decides who speaks: a trainer that the dispatcher launched reports what no retry can mend, and leaves the
rest to the Job's retries and the dispatcher; a standalone one reports every failure.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from portal_client.model_ids import InvalidContainerName, extract_and_log_model_id
from portal_client.statuses import ProcessingStatus
from trainer_image import artifacts, fencing
from trainer_image.checkpoint_store import ContainerCheckpoints
from trainer_image.config import Config, run_key
from trainer_image.contract import Progress, RunInputs, RunResult
from trainer_image.errors import (
    Cancelled,
    Fenced,
    StatusRefused,
    StatusUnavailable,
    Terminated,
    TrainerError,
    UsageError,
)
from trainer_image.progress import COMPLETED, NoTracking, Portal, StatusTracker, Tracker
from trainer_image.settings import Settings
from trainer_image.sources import Sources, unreadable
from trainer_image.storage import Stop, StorageFault
from trainer_image.termination import termination_message, write_termination

logger = logging.getLogger(__name__)

LOG_SECONDS = 1.0


class Inside(Protocol):
    """The module trainer_image.training."""

    def train(self, inputs: RunInputs) -> RunResult: ...

    def validate_dataset(self, inputs: RunInputs) -> str: ...


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


def load_inside() -> Inside:
    """Imports torch, which takes seconds: never before the download has begun."""
    from trainer_image import training

    return training


def connect_portal(settings: Settings) -> Portal:
    from portal_client.client import PortalClient

    return PortalClient(
        settings.api_base_url or "",
        settings.api_key or "",
        auth_method=settings.auth_method,
        ca_bundle=settings.ca_bundle,
        pool_size=2,
    )


def run(
    settings: Settings,
    stop: Stop,
    *,
    inside: Callable[[], Inside] = load_inside,
    connect: Callable[[Settings], Portal] = connect_portal,
) -> Outcome:
    """Trains, publishes, reports and writes the termination message. Raises UsageError only, before it begins."""
    tracker = make_tracker(settings, stop, connect)
    steps = _Steps(tracker)
    try:
        if tracker.begin():
            result, location = _train(settings, stop, steps, inside)
            outcome = Outcome(0, "Completed", COMPLETED, result.steps if result else None, result, location)
        else:
            logger.info("The model is Completed at the portal: nothing to do")
            outcome = Outcome(0, "Completed", COMPLETED)
    except TrainerError as error:
        outcome = _failed(_with_reason(error, stop), steps)
    except Exception as error:
        logger.exception("The trainer itself failed")
        outcome = Outcome(70, "InternalError", f"Internal error: {type(error).__name__}: {error}", steps.last)
    write_termination(settings.termination_path, last_words(settings.run_id, outcome, settings.secrets))
    return _report(settings, tracker, outcome)


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


def make_tracker(settings: Settings, stop: Stop, connect: Callable[[Settings], Portal]) -> Tracker:
    """Raises UsageError where the model's container has no model id to track."""
    if not settings.tracking:
        logger.warning("STATUS_TRACKING is off: the model's status is neither checked nor updated")
        return NoTracking()
    try:
        model_id = extract_and_log_model_id(settings.model_container, logger)
    except InvalidContainerName as error:
        raise UsageError(f"MODEL_CONTAINER: {error}") from None
    if not settings.api_key or not settings.api_base_url:
        logger.warning("%s not configured", "API_KEY" if not settings.api_key else "API_BASE_URL")
        logger.warning("The dispatcher reports this training: the trainer cannot")
        return NoTracking()
    return StatusTracker(
        connect(settings),
        model_id,
        stop,
        dispatched=settings.dispatched,
        interval=settings.progress_seconds,
        report_seconds=settings.report_retry_seconds,
    )


def _train(settings: Settings, stop: Stop, steps: _Steps, inside: Callable[[], Inside]) -> tuple[RunResult | None, str]:
    """(result, where the model is); result is None when an earlier attempt had published already."""
    with work_folder(settings) as work, Sources(settings, stop, work) as sources:
        models = sources.models
        try:
            before = artifacts.read_latest(models)
            if before.run_id == settings.run_id:
                logger.info("An earlier attempt of this run has published its model")
                return None, f"{models.name}/runs/{settings.run_id}"
            lease = fencing.take(models, settings.run_id, stop)
        except StorageFault as fault:
            raise unreadable(models, fault) from None
        try:
            config = sources.config()
            data = sources.start_download(config, steps.progress)
            data.wait_listed()
            module = inside()
            lock = data.wait()
            warm = config.init.from_ == "latest"
            if warm and before.run_id is None:
                logger.warning("init.from is latest, but there is no earlier model: training starts afresh")
            initial = artifacts.fetch_model(models, before, work / "initial") if warm and before.run_id else None
            key = run_key(config, lock.fingerprint, before.manifest_sha256 if initial else None)
            output = work / "output"
            output.mkdir()
            inputs = RunInputs(
                config=config,
                data=data.folder,
                output=output,
                run_id=settings.run_id,
                run_key=key,
                dataset_fingerprint=lock.fingerprint,
                device=settings.device,
                limits=settings.limits,
                stop=stop.event,
                progress=steps.progress,
                checkpoints=ContainerCheckpoints(models, key, work / "checkpoints", keep_newest=config.checkpoint.keep),
                initial=initial,
                grace_seconds=settings.grace_seconds,
            )
            if stop.is_set():
                raise Terminated("Training was stopped before it began", step=0)
            result = module.train(inputs)
            if stop.reason in ("cancelled", "fenced"):
                raise Terminated("Training was stopped after it ended", step=result.steps)
            _describe(output, config, lock.as_json(), settings)
            steps.progress(Progress("Uploading the model", step=result.steps))
            lease.confirm()
            return result, artifacts.publish(models, output, settings.run_id, before)
        finally:
            lease.release()


def _describe(output: Path, config: Config, lock: Mapping[str, Any], settings: Settings) -> None:
    (output / "config.resolved.yaml").write_text(config.resolved_yaml(), encoding="utf-8")
    artifacts.write_json(output / "dataset.lock.json", lock)
    artifacts.write_json(
        output / "environment.json", artifacts.environment(settings.device, settings.image, settings.run_id)
    )


def _with_reason(error: TrainerError, stop: Stop) -> TrainerError:
    """Engine and download know that they were stopped; why, only this file does."""
    if not isinstance(error, Terminated):
        return error
    if stop.reason == "cancelled":
        return Cancelled("Training was cancelled: the portal took the model out of Processing", step=error.step)
    if stop.reason == "fenced":
        return Fenced("Another pod owns this run: training was stopped", step=error.step)
    return error


def _failed(error: TrainerError, steps: _Steps) -> Outcome:
    problems = tuple(getattr(error, "problems", ()))
    step = error.step if error.step is not None else steps.last
    for sentence in problems or (error.sentence,):
        logger.error("%s", sentence)
    return Outcome(error.exit_code, error.code, error.sentence, step, problems=problems)


def _report(settings: Settings, tracker: Tracker, outcome: Outcome) -> Outcome:
    silent = (Cancelled.code, Fenced.code, StatusRefused.code, StatusUnavailable.code)
    if outcome.code in silent or (settings.dispatched and outcome.exit_code > 127):
        tracker.close()
        return outcome
    status = ProcessingStatus.COMPLETED if outcome.exit_code == 0 else ProcessingStatus.FAILED
    told = tracker.report(status, outcome.sentence)
    return outcome if told else Outcome(**{**outcome.__dict__, "reported": False})


class _Steps:
    """Hands progress on and remembers the last step, for the last words."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._lock = threading.Lock()
        self._logged = -LOG_SECONDS
        self.last: int | None = None

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        with self._lock:
            self.last = progress.step
            due = now - self._logged >= LOG_SECONDS
            if due:
                self._logged = now
        # A small model's epochs take milliseconds: not every one is a line.
        logger.log(logging.INFO if due else logging.DEBUG, "%s", progress.message)
        self._tracker.progress(progress)


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
