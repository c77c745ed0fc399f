"""One attempt at a run: from its configuration to the published model; or only the check of what it would train on.

configuration → dataset ────────────────┐
      start the worker → one writer ────┴→ train → publish

On several nodes this is node 0, and train is what leading.py makes of it; the others follow it (following.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer_image.config.model_config import Config, identity, run_key
from trainer_image.config.settings import Settings
from trainer_image.contract import Progress, RunInputs, RunResult
from trainer_image.errors import Fenced, Terminated
from trainer_image.run import allowed, beginning, checkpointing, code, leading, provenance
from trainer_image.run.backend import Backend, Workers
from trainer_image.run.beginning import Beginning
from trainer_image.run.outcome import Outcome, completed
from trainer_image.run.status_tracker import Tracker
from trainer_image.run.work_folder import work_folder
from trainer_image.stop import Stop
from trainer_image.storage.container import Container
from trainer_image.team.leader import Leader
from trainer_image.transfer import lease, metrics_stream, publish
from trainer_image.transfer.checkpoint_store import ContainerCheckpoints
from trainer_image.transfer.download import DatasetLock
from trainer_image.transfer.failures import failing_as
from trainer_image.transfer.fetch_model import fetch_model
from trainer_image.transfer.lease import RunLease
from trainer_image.transfer.metrics_stream import MetricsStream
from trainer_image.transfer.publish import Latest
from trainer_image.transfer.sources import Sources, unreadable

log = logging.getLogger(__name__)

LOG_SECONDS = 1.0


@dataclass(eq=False)
class Attempt:
    """Trains and publishes, once.

    other: trains in this process, in place of the worker
    last_step: the one that was reported last; published: the outcome, once readers have the model, whatever comes after
    seconds: how long "download" (until the dataset is there), "training" and "upload" took, as far as it has come
    """

    settings: Settings
    stop: Stop
    tracker: Tracker
    other: Callable[[], Backend] | None
    last_step: int | None = field(default=None, init=False)
    published: Outcome | None = field(default=None, init=False)
    seconds: dict[str, float] = field(default_factory=dict, init=False)
    _workers: Workers | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _logged: float = field(default=-LOG_SECONDS, init=False)

    def train(self) -> Outcome:
        """Also where an earlier attempt had published already. Raises TrainerError."""
        settings, began = self.settings, time.monotonic()
        with work_folder(settings) as work, Sources(settings, self.stop, work) as sources:
            models = sources.models
            known = _latest(models)
            if done := self._ended_before(models):
                return done
            config = _paced(sources.config(), settings)
            allowed.check(config, settings)
            data = sources.start_download(config, self._progress)
            with Workers(config, settings, self.other) as self._workers:
                listed = data.wait_listed()
                self._workers.now.check_config(config, settings.limits)
                with _one_writer(models, settings, self.stop) as held:
                    # Read again under the lease: the pod that held it before may have published meanwhile.
                    before = _latest(models)
                    if done := self._ended_before(models):
                        return done
                    if not settings.dispatched and before.etag != known.etag:
                        raise Fenced(
                            f"Another training (run {before.run_id}) has published to {models.name} while this one"
                            " waited for it to end: there is nothing to do; start this one again to train once more"
                        )
                    found = beginning.look(models, config, before, settings.run_id)
                    what: Mapping[str, Any] = identity(
                        config, listed.fingerprint, found.start_digest, code.of(config, settings)
                    )
                    if config.task == "command":
                        what = checkpointing.begun_as(models, what)
                    key = run_key(what)
                    with leading.leader(settings, self.stop, config, key, listed.fingerprint, found.start) as leader:
                        lock = data.wait()
                        self.seconds["download"] = time.monotonic() - began
                        inputs = self._inputs(config, data.folder, lock, models, found, what, work)
                        return self._train_and_publish(leader, inputs, lock, models, found, held)

    def _ended_before(self, models: Container) -> Outcome | None:
        run_id = self.settings.run_id
        with unreadable(models):
            end = publish.ended(models, run_id)
        if end is None:
            return None
        log.info("An earlier attempt of this run has %s its model", "published" if end.held_back is None else "stored")
        return completed(f"{models.name}/runs/{run_id}", held_back=end.held_back)

    def _inputs(
        self,
        config: Config,
        data: Path,
        lock: DatasetLock,
        models: Container,
        found: Beginning,
        what: Mapping[str, Any],
        work: Path,
    ) -> RunInputs:
        """What the backend gets. The models of a warm start, and to test this one beside, are fetched on the way."""
        settings = self.settings
        initial = fetch_model(models, found.start, work / "initial") if found.start else None
        champion, unusable = beginning.champion_of(models, found, config, work / "champion")
        notes = [*found.notes, *unusable]
        output = work / "output"
        output.mkdir()
        checkpoints, said = checkpointing.opened(models, what, settings, work / "checkpoints", config.checkpoint.keep)
        notes += said
        for note in notes:
            log.warning("%s", note)
        return RunInputs(
            config=config,
            data=data,
            output=output,
            run_id=settings.run_id,
            run_key=run_key(what),
            dataset_fingerprint=lock.fingerprint,
            device=settings.device,
            limits=settings.limits,
            stop=self.stop.event,
            progress=self._progress,
            checkpoints=checkpoints,
            initial=initial,
            grace_seconds=settings.grace_seconds,
            gpus=settings.gpus,
            processes=settings.processes,
            hang_seconds=settings.hang_seconds,
            notes=tuple(notes),
            champion=champion,
        )

    def _train_and_publish(
        self,
        leader: Leader | None,
        inputs: RunInputs,
        lock: DatasetLock,
        models: Container,
        found: Beginning,
        held: RunLease,
    ) -> Outcome:
        settings, stop, workers = self.settings, self.stop, self._workers
        assert workers is not None
        if stop.is_set():
            raise Terminated("Training was stopped before it began", step=0)

        def train(given: RunInputs) -> RunResult:
            metrics = given.output / "metrics.jsonl"
            with MetricsStream(models, settings.run_id, metrics, stop, settings.progress_seconds):
                return workers.now.train(given)

        with self._timed("training"):
            if leader is None:
                result = train(inputs)
            else:
                result, inputs = leading.train(leader, workers, settings, inputs, train)
        if stop.reason in ("cancelled", "fenced"):
            raise Terminated("Training was stopped after it ended", step=result.steps)
        files = provenance.files(inputs.config, lock, settings, result.accelerator)
        self._progress(Progress("Uploading the model", step=result.steps))
        beside = result.champion
        held_back = None
        if inputs.config.publish == "if_better" and beside is not None and beside.better is False:
            held_back = beside.sentence
        with self._timed("upload"):
            checkpoints = inputs.checkpoints
            assert isinstance(checkpoints, ContainerCheckpoints)
            where = publish.publish(
                models,
                inputs.output,
                settings.run_id,
                found.before,
                held.confirm,
                files,
                checkpoints.make_room_for_the_model,
                held_back,
                found.champion,
            )
        self.published = completed(where, result, held_back)
        if leader is not None:
            leader.published()
        metrics_stream.remove(models, settings.run_id)
        checkpoints.done()
        return self.published

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = time.monotonic() - began

    def abandon(self) -> None:
        """Ends the work at once, from any thread: this process is about to end."""
        if self._workers is not None:
            self._workers.now.abandon()

    def _progress(self, progress: Progress) -> None:
        now = time.monotonic()
        with self._lock:
            self.last_step = progress.step
            due = now - self._logged >= LOG_SECONDS
            if due:
                self._logged = now
        # A small model's epochs take milliseconds: not every one is a line.
        log.log(logging.INFO if due else logging.DEBUG, "%s", progress.message)
        self.tracker.progress(progress)


def check(settings: Settings, stop: Stop) -> tuple[DatasetLock, str]:
    """Configuration and dataset without a training, what `validate` does: what was read, and what the backend says the
    dataset is. Raises TrainerError for whatever is wrong with it."""
    with work_folder(settings) as work, Sources(settings, stop, work) as sources:
        config = sources.config()
        allowed.check(config, settings)
        data = sources.start_download(config, lambda progress: None)
        with Workers(config, settings) as workers:
            backend = workers.now
            backend.check_config(config, settings.limits)
            lock = data.wait()
            output = work / "output"
            output.mkdir()
            inputs = RunInputs(
                config=config,
                data=data.folder,
                output=output,
                run_id=settings.run_id,
                run_key="",
                dataset_fingerprint=lock.fingerprint,
                device=settings.device,
                limits=settings.limits,
                stop=stop.event,
                progress=lambda progress: None,
            )
            return lock, backend.validate_dataset(inputs)


def _latest(models: Container) -> Latest:
    with unreadable(models):
        return publish.read_latest(models)


@contextmanager
def _one_writer(models: Container, settings: Settings, stop: Stop) -> Iterator[RunLease]:
    with failing_as(f"Failed to write to container: {models.name}"):
        # The dispatcher launches one training of a model at a time: what still holds the lease is on a lost node. Two
        # that people start are both meant, and the first one is not to be stopped.
        held = lease.take(models, settings.run_id, stop, take_over=settings.dispatched)
    try:
        yield held
    finally:
        held.release()


def _paced(config: Config, settings: Settings) -> Config:
    """The operator knows how long a node lasts; the model's own configuration wins. No part of the run key."""
    if "every" in config.checkpoint.model_fields_set:
        return config
    checkpoint = config.checkpoint.model_copy(update={"every": settings.checkpoint_seconds})
    return config.model_copy(update={"checkpoint": checkpoint})
