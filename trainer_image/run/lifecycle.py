"""One training from start to last words, in the pod and on a laptop.

    may we? → configuration → dataset ──────┐
                       import torch → lease ┴→ train → publish → report → termination message → exit code

Storage and reporter are the only differences between the two places. What goes wrong is a TrainerError here; its
exit code decides who speaks: a trainer that the dispatcher launched reports what no retry can mend, and leaves the
rest to the Job's retries and the dispatcher; a standalone one reports every failure.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from portal_client.messages import COMPLETED
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus
from trainer_image.config.model_config import Config, run_key
from trainer_image.config.settings import Settings
from trainer_image.contract import Progress, RunInputs
from trainer_image.errors import (
    Cancelled,
    Fenced,
    StatusRefused,
    StatusUnavailable,
    Terminated,
    TrainerError,
)
from trainer_image.host import exhaustion, memory
from trainer_image.run.backend import Inside, inside_for
from trainer_image.run.deadline import Deadline
from trainer_image.run.outcome import Outcome, failed, last_words, too_late, with_reason
from trainer_image.run.status_tracker import Tracker
from trainer_image.run.termination import write_termination
from trainer_image.run.tracking import connect_portal, make_tracker
from trainer_image.run.work_folder import work_folder
from trainer_image.stop import Stop
from trainer_image.storage.container import Container, StorageFault
from trainer_image.transfer import lease as fencing
from trainer_image.transfer import publish as artifacts
from trainer_image.transfer.checkpoint_store import ContainerCheckpoints
from trainer_image.transfer.download import DatasetLock
from trainer_image.transfer.metrics_stream import MetricsStream
from trainer_image.transfer.sources import Sources, unreadable, unwritable

log = logging.getLogger(__name__)

LOG_SECONDS = 1.0


def run(
    settings: Settings,
    stop: Stop,
    *,
    inside: Callable[[], Inside] | None = None,
    connect: Callable[[Settings], Portal] = connect_portal,
) -> Outcome:
    """Trains, publishes, reports and writes the termination message. Raises UsageError only, before it begins."""
    tracker = make_tracker(settings, stop, connect)
    steps = _Steps(tracker)
    deciding = threading.Lock()
    decided: Outcome | None = None

    def speak(outcome: Outcome) -> None:
        write_termination(settings.termination_path, last_words(settings.run_id, outcome, settings.secrets))

    def last_resort(error: TrainerError) -> None:
        """The end of a training whose main thread may be stuck in a call that never returns: no exception, no clean-up.

        Its lease runs out by itself, and so does its work folder with the pod.
        """
        outcome = failed(error, steps.last)
        speak(outcome)
        _report(settings, tracker, outcome)
        os._exit(outcome.exit_code)

    def out_of_time() -> None:
        # Held until the process ends: the main thread, should it come through after all, says nothing else.
        with deciding:
            if decided is None:
                outcome = steps.published or failed(too_late(settings.grace_seconds), steps.last)
                speak(outcome)
                # The dispatcher tells the portal itself, from the last words.
                if not settings.dispatched:
                    _report(settings, tracker, outcome)
                os._exit(outcome.exit_code)
            os._exit(decided.exit_code)

    with Deadline(stop, settings.grace_seconds, out_of_time):
        outcome = _outcome(settings, stop, tracker, steps, last_resort, inside)
        with deciding:
            decided = outcome
            speak(outcome)
        return _report(settings, tracker, outcome)


def _outcome(
    settings: Settings,
    stop: Stop,
    tracker: Tracker,
    steps: _Steps,
    last_resort: Callable[[TrainerError], None],
    inside: Callable[[], Inside] | None,
) -> Outcome:
    """Trains and publishes; whatever goes wrong is in what is returned."""
    killed_before = memory.kills()
    try:
        if not tracker.begin():
            log.info("The model is Completed at the portal: nothing to do")
            return Outcome(0, "Completed", COMPLETED)
        return _train(settings, stop, steps, last_resort, inside)
    except Exception as error:
        if lack := exhaustion.found(error, killed_before):
            return failed(lack, steps.last)
        if isinstance(error, TrainerError):
            return failed(with_reason(error, stop), steps.last)
        log.exception("The trainer itself failed")
        return Outcome(70, "InternalError", f"Internal error: {type(error).__name__}: {error}", steps.last)


def _train(
    settings: Settings,
    stop: Stop,
    steps: _Steps,
    last_resort: Callable[[TrainerError], None],
    inside: Callable[[], Inside] | None,
) -> Outcome:
    """Also where an earlier attempt had published already."""
    with work_folder(settings) as work, Sources(settings, stop, work) as sources:
        models = sources.models
        there = Outcome(0, "Completed", COMPLETED, location=f"{models.name}/runs/{settings.run_id}")
        if _latest(models).run_id == settings.run_id:
            log.info("An earlier attempt of this run has published its model")
            return there
        config = _paced(sources.config(), settings)
        load = inside_for(config, settings, inside)
        data = sources.start_download(config, steps.progress)
        data.wait_listed()
        module = load()
        module.check_config(config, settings.limits)
        with _one_writer(models, settings, stop) as lease:
            # Read again under the lease: the pod that held it before may have published meanwhile.
            before = _latest(models)
            if before.run_id == settings.run_id:
                log.info("An earlier attempt of this run has published its model")
                return there
            lock = data.wait()
            inputs = _inputs(settings, stop, steps, config, data.folder, lock, models, before, work)
            inputs = replace(inputs, last_resort=last_resort)
            if stop.is_set():
                raise Terminated("Training was stopped before it began", step=0)
            metrics = inputs.output / "metrics.jsonl"
            with MetricsStream(models, settings.run_id, metrics, stop, settings.progress_seconds) as stream:
                result = module.train(inputs)
            if stop.reason in ("cancelled", "fenced"):
                raise Terminated("Training was stopped after it ended", step=result.steps)
            _describe(inputs.output, config, lock, settings)
            steps.progress(Progress("Uploading the model", step=result.steps))
            where = artifacts.publish(models, inputs.output, settings.run_id, before, lease.confirm)
            steps.published = Outcome(0, "Completed", COMPLETED, result.steps, result, where)
            stream.remove()
            return steps.published


def _latest(models: Container) -> artifacts.Latest:
    try:
        return artifacts.read_latest(models)
    except StorageFault as fault:
        raise unreadable(models, fault) from None


@contextmanager
def _one_writer(models: Container, settings: Settings, stop: Stop) -> Iterator[fencing.RunLease]:
    try:
        lease = fencing.take(models, settings.run_id, stop)
    except StorageFault as fault:
        raise unwritable(models, fault) from None
    try:
        yield lease
    finally:
        lease.release()


def _inputs(
    settings: Settings,
    stop: Stop,
    steps: _Steps,
    config: Config,
    data: Path,
    lock: DatasetLock,
    models: Container,
    before: artifacts.Latest,
    work: Path,
) -> RunInputs:
    """What the inside gets. The model of a warm start is fetched on the way."""
    initial = None
    notes: list[str] = []
    if config.init.from_ == "latest":
        if before.run_id is None:
            why = "there is no earlier model" if before.etag is None else f"{artifacts.LATEST} is not readable"
            notes.append(f"Warm start: {why}; training starts afresh.")
        else:
            initial = artifacts.fetch_model(models, before, work / "initial")
    key = run_key(config, lock.fingerprint, before.manifest_sha256 if initial else None)
    output = work / "output"
    output.mkdir()
    checkpoints = ContainerCheckpoints(models, key, work / "checkpoints", keep_newest=config.checkpoint.keep)
    if checkpoints.only_of_others():
        notes.append("There are checkpoints of another configuration or dataset: this training starts afresh.")
    for note in notes:
        log.warning("%s", note)
    return RunInputs(
        config=config,
        data=data,
        output=output,
        run_id=settings.run_id,
        run_key=key,
        dataset_fingerprint=lock.fingerprint,
        device=settings.device,
        limits=settings.limits,
        stop=stop.event,
        progress=steps.progress,
        checkpoints=checkpoints,
        initial=initial,
        grace_seconds=settings.grace_seconds,
        gpus=settings.gpus,
        processes=settings.processes,
        hang_seconds=settings.hang_seconds,
        notes=tuple(notes),
    )


def _paced(config: Config, settings: Settings) -> Config:
    """The operator knows how long a node lasts; the model's own configuration wins. No part of the run key."""
    if "every" in config.checkpoint.model_fields_set:
        return config
    checkpoint = config.checkpoint.model_copy(update={"every": settings.checkpoint_seconds})
    return config.model_copy(update={"checkpoint": checkpoint})


def _describe(output: Path, config: Config, lock: DatasetLock, settings: Settings) -> None:
    (output / "config.resolved.yaml").write_text(config.resolved_yaml(), encoding="utf-8")
    artifacts.write_json(output / "dataset.lock.json", lock.as_json())
    artifacts.write_json(
        output / "environment.json", artifacts.environment(settings.device, settings.image, settings.run_id)
    )


def _report(settings: Settings, tracker: Tracker, outcome: Outcome) -> Outcome:
    silent = (Cancelled.code, Fenced.code, StatusRefused.code, StatusUnavailable.code)
    if outcome.code in silent or (settings.dispatched and outcome.exit_code > 127):
        tracker.close()
        return outcome
    status = ProcessingStatus.COMPLETED if outcome.exit_code == 0 else ProcessingStatus.FAILED
    told = tracker.report(status, outcome.sentence)
    return outcome if told else replace(outcome, reported=False)


class _Steps:
    """Hands progress on and remembers how far the training came, for the last words.

    last: the step that was told last; published: the outcome, once readers have the model, whatever comes after
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._lock = threading.Lock()
        self._logged = -LOG_SECONDS
        self.last: int | None = None
        self.published: Outcome | None = None

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        with self._lock:
            self.last = progress.step
            due = now - self._logged >= LOG_SECONDS
            if due:
                self._logged = now
        # A small model's epochs take milliseconds: not every one is a line.
        log.log(logging.INFO if due else logging.DEBUG, "%s", progress.message)
        self._tracker.progress(progress)
