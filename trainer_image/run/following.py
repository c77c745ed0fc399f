"""A node that is not the first: it fetches what it needs, trains along in each generation, and ends with the run.

It talks to no portal and writes nothing to storage. Its pod ends with 0 only when the model is published: node 0 says
so, or `latest.json` does where node 0 is gone.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.contract import Place, Progress, RunInputs
from trainer_image.errors import Fenced, Terminated, TrainerError, UsageError, invalid
from trainer_image.run import allowed, leading
from trainer_image.run.backend import Backend, Workers
from trainer_image.run.outcome import Outcome, completed
from trainer_image.run.work_folder import work_folder
from trainer_image.stop import Stop
from trainer_image.storage.container import StorageFault
from trainer_image.team import wire
from trainer_image.team.follower import Closed, Session
from trainer_image.transfer import lease, publish
from trainer_image.transfer.checkpoint_store import ContainerCheckpoints
from trainer_image.transfer.fetch_model import fetch_model
from trainer_image.transfer.publish import Latest
from trainer_image.transfer.sources import Dataset, Sources, open_models
from trainer_image.worker import messages

log = logging.getLogger(__name__)

# Between two tries to reach node 0; between two looks into the model's container while it is out of reach.
AGAIN_SECONDS, LOOK_SECONDS = 1.0, 5.0


@dataclass(eq=False)
class Following:
    """One further node, from its start to its end: what `attempt.Attempt` is for node 0.

    other: trains in this process, in place of the worker. last_step, published: as there; seconds: none of its own
    """

    settings: Settings
    stop: Stop
    other: Callable[[], Backend] | None
    last_step: int | None = field(default=None, init=False)
    published: Outcome | None = field(default=None, init=False)
    seconds: dict[str, float] = field(default_factory=dict, init=False)
    _workers: Workers | None = field(default=None, init=False)
    _sources: Sources | None = field(default=None, init=False)
    _dataset: Dataset | None = field(default=None, init=False)
    _wanted: tuple[str | None, ...] = field(default=(), init=False)  # what node 0 said of it
    _looked: float = field(default=-LOOK_SECONDS, init=False)
    _said: str = field(default="", init=False)

    def train(self) -> Outcome:
        """Raises TrainerError."""
        with work_folder(self.settings) as work:
            try:
                while self.published is None:
                    self._one_generation(work)
            finally:
                self._forget_dataset()
        return self.published

    def abandon(self) -> None:
        """Ends the work at once, from any thread: this process is about to end."""
        if self._workers is not None:
            self._workers.now.abandon()

    def _one_generation(self, work: Path) -> None:
        settings = self.settings
        if self.stop.is_set():
            raise Terminated("Stopped on request while this node waited for node 1")
        where = (settings.master_address or "", settings.team_port)
        try:
            session = Session(where, self._hello(), self.stop)
        except OSError as error:
            self._without_a_leader(f"node 1 is not there yet: {where[0]} port {where[1]}: {error.strerror or error}")
            return
        try:
            with session:
                self._along(session, work)
        except Closed as closed:
            self._after(closed)

    def _hello(self) -> wire.Hello:
        settings = self.settings
        pod = settings.pod_name or f"{socket.gethostname()}, process {os.getpid()}"
        return wire.Hello(settings.run_id, settings.node, settings.nodes, pod, leading.processes(settings))

    def _along(self, session: Session, work: Path) -> None:
        """Raises Closed at the generation's end, and what is this node's own failure."""
        welcome = session.hear(wire.Welcome)
        self._said = ""
        try:
            config = messages.config_of(welcome.config)
            allowed.check(config, self.settings)
            with Workers(config, self.settings, self.other) as self._workers:
                session.interrupt = self._workers.now.abandon
                dataset = self._fetched(config, welcome, session, work)
                session.say(wire.Ready())
                begin = session.hear(wire.Begin)
                self._train(session, self._inputs(config, dataset, welcome, begin, session, work))
        except TrainerError as error:
            session.look()
            if self.stop.is_set():
                raise
            session.judge(error)

    def _train(self, session: Session, inputs: RunInputs) -> NoReturn:
        assert self._workers is not None
        session.work()
        try:
            self._workers.now.follow(inputs)
        except TrainerError:
            if not self.stop.is_set():
                raise
        else:
            session.say(wire.Done())
            if not self.stop.is_set():
                session.hear(wire.Published)
        # Node 0 saves the state first, and would take a node that is gone for lost. The grace period ends this wait.
        session.wait()

    def _fetched(self, config: Config, welcome: wire.Welcome, session: Session, work: Path) -> Dataset:
        """The dataset that node 0 trains on; what an earlier generation has fetched is kept while it is the same."""
        dataset, wanted = self._dataset, (welcome.fingerprint, config.dataset, *config.command.shares)
        if dataset is None or self._wanted != wanted:
            self._forget_dataset()
            shutil.rmtree(work / "dataset", ignore_errors=True)
            self._sources = Sources(self.settings, self.stop, work)
            dataset = self._sources.start_download(config, lambda progress: session.say(wire.Doing(progress.message)))
            listed = dataset.wait_listed()
            # Copies of a local folder differ in their times.
            if self.settings.data is None and listed.fingerprint != welcome.fingerprint:
                raise invalid(listed.container, "it was changed after node 1 had read it; send the request again")
        try:
            dataset.wait()
        except TrainerError:
            self._forget_dataset()
            raise
        self._dataset, self._wanted = dataset, wanted
        return dataset

    def _forget_dataset(self) -> None:
        if self._sources is not None:
            self._sources.__exit__()
        self._sources = self._dataset = None

    def _inputs(
        self,
        config: Config,
        dataset: Dataset,
        welcome: wire.Welcome,
        begin: wire.Begin,
        session: Session,
        work: Path,
    ) -> RunInputs:
        settings = self.settings
        folder = work / "generation"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "output").mkdir(parents=True)
        program = config.task == "command"
        checkpoints = None
        if program and begin.checkpoint is not None:
            models = open_models(settings, self.stop)
            checkpoints = ContainerCheckpoints(models, welcome.run_key, work / "checkpoints", 1, begin.checkpoint)
        initial = None
        if welcome.initial is not None:
            # A program may begin with it; ours reads what its run was trained on.
            initial = work / "initial"
            shutil.rmtree(initial, ignore_errors=True)
            fetch_model(open_models(settings, self.stop), Latest(None, *welcome.initial), initial)
        return RunInputs(
            config=config,
            data=dataset.folder,
            output=folder / "output",
            run_id=settings.run_id,
            run_key=welcome.run_key,
            dataset_fingerprint=welcome.fingerprint,
            device=settings.device,
            limits=settings.limits,
            stop=session.stopping,
            progress=self._progress,
            checkpoints=checkpoints,
            initial=initial,
            grace_seconds=settings.grace_seconds,
            gpus=settings.gpus,
            processes=settings.processes,
            hang_seconds=settings.hang_seconds,
            place=Place(settings.node, settings.nodes, session.address, settings.master_port),
        )

    def _progress(self, progress: Progress) -> None:
        self.last_step = progress.step
        log.debug("%s", progress.message)

    def _after(self, closed: Closed) -> None:
        """What the leader's last word means here. Raises what ends this node."""
        settings = self.settings
        if self.stop.is_set() and not isinstance(closed.last, wire.Published):
            raise Terminated("Stopped on request; the training goes on without this node")
        match closed.last:
            case wire.Published():
                self.published = completed()
            case wire.Refused(why, run_id, for_good):
                if settings.dispatched and lease.newer(run_id, settings.run_id):
                    raise Fenced(f"A newer run ({run_id}) has taken over this model")
                if for_good and not settings.dispatched:
                    raise UsageError(f"Node 1 has refused this one: {why}")
                self._without_a_leader(f"node 1 does not take this node: {why}")
            case wire.Ended(failure):
                if failure.exit_code <= 127 and not settings.dispatched:
                    raise wire.elsewhere(failure, 0, settings.nodes)
                self._without_a_leader(f"node 1 has ended: {failure.sentence}")
            case None:
                self._without_a_leader(closed.why)
            case _:
                log.warning("All nodes begin anew from the newest checkpoint: %s", closed.why)

    def _without_a_leader(self, why: str) -> None:
        """Waits a moment. `published` is set where the run has done its work; raises Fenced where it never will."""
        if why != self._said:
            log.warning("Waiting for node 1: %s", why)
            self._said = why
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()
        if self.published is None:
            self.stop.event.wait(AGAIN_SECONDS)

    def _look(self) -> None:
        settings = self.settings
        if settings.model_container is None and settings.out is None:
            return
        try:
            models = open_models(settings, self.stop)
            if publish.ended(models, settings.run_id) is not None:
                log.info("The model of this run is stored")
                self.published = completed(f"{models.name}/runs/{settings.run_id}")
            elif (owner := lease.owner_of(models)) is not None and lease.newer(owner, settings.run_id):
                raise Fenced(f"A newer run ({owner}) has taken over this model")
        except StorageFault as fault:
            log.debug("Whether the model is published is not known: %s", fault.why)
