"""The training loop, the only one: validation, best weights, checkpoints, signals, time budget.

Nothing in the loop waits for the device except what must be known on the host now and then (divergence every
CHECK_STEPS steps, figures at an epoch's end). With several GPUs this is rank 0 of a team (team.py): the workers follow
it step by step, and all decisions are made here.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from portal_client.progress_text import EpochProgress
from trainer_image.contract import Progress, RunInputs
from trainer_image.engine import folds
from trainer_image.engine.checkpoint import Checkpointer, Snapshot, resume
from trainer_image.engine.contest import Contest
from trainer_image.engine.course import Course
from trainer_image.engine.folds import Folded
from trainer_image.engine.plan import Fitted, Plan
from trainer_image.engine.published import NETWORK, Published
from trainer_image.engine.steps import pretrained
from trainer_image.engine.steps.batches import PhaseRows, phase_rows, phase_split
from trainer_image.engine.steps.position import DONE, REFIT, SEARCH, Entry
from trainer_image.engine.steps.pretrained import Pretrained
from trainer_image.engine.steps.row_order import block_rows
from trainer_image.engine.steps.state import finite
from trainer_image.engine.steps.step import Stepper, on_device
from trainer_image.engine.team import Team
from trainer_image.engine.warm_start import warm_start
from trainer_image.engine.watchdog import Watchdog
from trainer_image.errors import Terminated, TrainingDiverged
from trainer_image.tasks.base import Figures, Problem, scored
from trainer_image.tasks.metrics import first
from trainer_image.tasks.tensors import each

log = logging.getLogger(__name__)

CHECK_STEPS = 50
PROGRESS_SECONDS = 5.0


class Engine:
    """Trains one problem. `run` raises TrainingDiverged, GpuOutOfMemory, ConfigInvalid or Terminated.

    record: takes one JSON-able record for metrics.jsonl; team: who else trains it; notes: said in the report;
    size: of the network, where the problem has several; began: when the time budget did, of `time.monotonic`
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        inputs: RunInputs,
        record: Callable[[dict[str, Any]], None],
        team: Team,
        notes: Sequence[str] = (),
        size: str = "",
        began: float | None = None,
    ) -> None:
        self.problem, self.plan, self.recipe, self.inputs = problem, plan, plan.recipe, inputs
        self._record, self._team = record, team
        self._watchdog = Watchdog(inputs.hang_seconds, inputs.last_resort)
        self._reported = time.monotonic()
        self._began = self._reported if began is None else began
        self._seconds_before = 0.0
        torch.manual_seed(plan.seed)
        model = problem.predictor.build_model()
        self._initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        problem.begin(model, ["train"])
        kept = self._pretrained(model)
        warm = warm_start(model, inputs.initial, kept.names) if inputs.initial else []
        # What is true of this process only, not of the training that later ones go on with.
        self._notes = [*notes, *kept.said]
        self._stepper = Stepper(problem, plan, on_device(model, plan.device), team, self._notes)
        self.state = self._stepper.fresh_state(model, kept)
        self.state.at.notes += warm
        self.state.at.size = size
        store, near = inputs.checkpoints, inputs.output.parent
        every, share = plan.checkpoint_every, plan.checkpoint_share
        self._saver = Checkpointer(store, near, every, share, self.state.size) if store else None
        save = partial(self._save_if_due, epoch_ended=True)
        self._contest = Contest(problem, plan, inputs, self._watchdog, record, save, self._terminate)
        self._course = Course(problem, plan, self._contest, self._seconds)

    def run(self) -> Fitted:
        """Trains to the end, from the newest usable checkpoint where there is one."""
        try:
            resumed = self._resume()
            if self.state.at.phase == SEARCH:
                self._search()
            if self.state.at.phase == REFIT:
                self._refit()
        finally:
            if self._saver:
                self._saver.close()
        at = self.state.at
        self.state.take_best()
        network = self.state.judged
        members = self._contest.members(at, network, self._pretrained(network))
        return Fitted(
            published=Published(self.problem.predictor, members),
            fit_on=("train", "validation") if at.again else ("train",),
            steps=at.step,
            epochs=sum(record["phase"] == SEARCH for record in at.history),
            best_epoch=at.best_epoch,
            best=at.best,
            seconds=self._seconds(),
            resumed_from=resumed,
            micro_batch=at.micro_batch,
            history=at.history,
            notes=at.notes + self._notes + (self._saver.problems if self._saver else []),
            candidates=[Entry(**entry) for entry in at.candidates],
            stopped=at.stopped,
        )

    def _pretrained(self, network: nn.Module) -> Pretrained:
        return pretrained.found(self.problem.predictor, network, self._initial)

    def _resume(self) -> int | None:
        if not self.inputs.checkpoints:
            return None
        snapshot, notes = resume(self.inputs.checkpoints, self._accept)
        if snapshot:
            self.state.load(snapshot)
            self._contest.load(snapshot)
            self._seconds_before = self.state.at.seconds
            log.info("Resuming at step %d", snapshot.step)
        self.state.at.notes += notes
        for entry in self.state.at.candidates:
            self._contest.tell(Entry(**entry))
        for record in self.state.at.history:
            self._record(record)
        return snapshot.step if snapshot else None

    def _accept(self, snapshot: Snapshot) -> None:
        self.state.check(snapshot)
        self._contest.check(snapshot)

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _search(self) -> None:
        """The candidates, then the network, each on the training rows; then who of them is published."""
        at, contest = self.state.at, self._contest
        if not at.phase_step:
            contest.search(at, self._course.budget, self._course.left)
        self._course.share(at)
        if contest.network:
            self._phase()
            self.state.take_best()
        contest.weights(at, self.state.judged if contest.network else None, self._fold)
        self._begin_refit_or_end()

    def _fold(self, fold_of: Tensor) -> Folded | None:
        """What networks like the best one predict for rows of folds that they have not seen, of as many as time is left
        for."""
        count = self._course.folds(self.state.at, int(fold_of.max()) + 1)
        if self.inputs.initial or not count:
            return None

        def go_on() -> bool:
            self._watchdog.beat()
            return not self.inputs.stop.is_set()

        return folds.network(self.problem, self.plan, self.state.at, self._initial, fold_of, count, go_on)

    def _refit(self) -> None:
        """What is published, once more on training and validation rows together."""
        at = self.state.at
        self._course.share(at)
        self._contest.refit(at, time.monotonic() + self._course.left - self._course.again(at))
        if NETWORK in at.again:
            self._phase()
            self.state.keep_best()
        at.phase = DONE
        self._save_if_due(epoch_ended=True)

    def _phase(self) -> None:
        at, team = self.state.at, self._team
        refit = at.phase == REFIT
        split = phase_split(self.problem, at)
        if not at.phase_step:
            # Once for the phase, in the checkpoint from then on: resumed where memory is larger, the order is the same.
            at.block_rows = max(block_rows(split, team.here), team.block_rows)
            if at.block_rows:
                at.notes.append(
                    f"The rows lie in files larger than memory: they are shuffled in blocks of {at.block_rows}."
                )
        rows = phase_rows(self.problem, split, self.plan, at, team)
        per_epoch = rows.per_epoch
        self._course.begin(at, per_epoch)
        team.begin(self.state)
        self.state.model.train()
        with closing(rows), self._watchdog:
            # `at.batch`: an epoch whose last step is done but whose end is not, after a stop just there.
            while (
                at.batch
                or (at.phase_step < at.stop_at and (refit or not self._course.idle(at)))
                or self._course.more(at, per_epoch)
            ):
                while at.batch < per_epoch and at.phase_step < at.stop_at:
                    self._step(rows)
                    self._after_step(per_epoch)
                self._end_epoch(per_epoch)

    def _step(self, rows: PhaseRows) -> None:
        at, team, compiling = self.state.at, self._team, self._stepper.compiling
        equal = compiling.on
        batch, share = rows.batch(at.epoch, at.batch, equal=equal)
        if self.plan.probe and not at.probed:
            team.broadcast("probe", at, equal=equal)
            self._stepper.probe(self.state, batch, share)
        team.broadcast("step", at, equal=equal)
        began = time.monotonic()
        if compiling.unproven:
            with self._watchdog.paused():
                self._stepper.step(self.state, batch, share)
            # Compiling is not what steps cost: the schedule must not be shortened for it.
            self._course.leave_out(time.monotonic() - began)
        else:
            self._stepper.step(self.state, batch, share)
        self._watchdog.beat(at.step)
        if decided := compiling.after_step(at.stop_at - at.phase_step):
            team.broadcast(decided)

    def _after_step(self, per_epoch: int) -> None:
        at = self.state.at
        if self.plan.device.type == "cpu" or at.step % CHECK_STEPS == 0:
            self._stepper.check()
        self._course.fit(at)
        if self.inputs.stop.is_set():
            self._terminate()
        if at.batch < per_epoch:
            self._save_if_due(epoch_ended=False)
            if time.monotonic() - self._reported > PROGRESS_SECONDS:
                of = math.ceil(at.stop_at / per_epoch)
                self._report(EpochProgress(at.epoch + 1, of, at.batch, per_epoch))

    def _end_epoch(self, per_epoch: int) -> None:
        at = self.state.at
        self._stepper.check()
        loss, parts = self.state.losses.means(at.batch)
        record: dict[str, Any] = {
            "phase": at.phase,
            "epoch": at.epoch + 1,
            "step": at.step,
            "seconds": round(self._seconds(), 3),
            "loss": loss,
            **({"parts": parts} if parts else {}),
        }
        of = max(at.epoch + 1, math.ceil(at.stop_at / per_epoch))
        at.epoch += 1
        said = "training on all rows"
        if at.phase == SEARCH:
            figures = self._validate()
            record["validation"] = figures
            for shown, value in list(first(self.problem.headline.name, figures).items())[:1]:
                said = f"validation {shown.replace('_', ' ')} {value:.3g}"
        at.batch = 0
        self.state.losses.clear()
        at.history.append(record)
        self._record(record)
        self._report(EpochProgress(at.epoch, of, loss=record["loss"], more=said))
        self._save_if_due(epoch_ended=True)

    def _validate(self) -> Figures:
        at, split = self.state.at, self.problem.splits["validation"]
        outputs = self._contest.ask(NETWORK, self.state.judged)
        self._course.share(at)
        if not all(map(finite, each(outputs))):
            raise TrainingDiverged(f"Training diverged at step {at.step}", step=at.step)
        figures = scored(self.problem.predictor, outputs, split, self.problem.selection)
        # A figure may have no meaning for these rows: then the last epoch is as good as any. One that only some epochs
        # lack, because it is infinite, is no better than those of the others.
        value = figures.get(self.problem.selection.name)
        if at.best is None or (value is not None and self.problem.selection.better(value, at.best)):
            at.best, at.best_epoch, at.best_step = value, at.epoch, at.phase_step
            self._contest.best = outputs
            self.state.keep_best()
        return figures

    def _begin_refit_or_end(self) -> None:
        """After the search: what is published once more on all rows, as far as validation chose and time allows."""
        at = self.state.at
        if self._course.begin_refit(at, self._course.after_search(at)):
            self._fresh_network()
        lacking = [name for name in at.weights if name not in at.again and (name != NETWORK or self.recipe.refit)]
        if lacking:
            who = "" if len(lacking) == len(at.weights) else f" ({', '.join(lacking)})"
            at.notes.append(f"No time was left to train once more on training and validation rows together{who}.")
        at.phase = REFIT if at.again else DONE

    def _fresh_network(self) -> None:
        """For the refit: a network that has seen nothing yet, but for what all are given."""
        at = self.state.at
        torch.manual_seed(self.plan.seed)
        old = self.state
        model = old.model
        model.load_state_dict(self._initial)
        self.problem.begin(model.cpu(), ["train", "validation"])
        if self.inputs.initial:
            warm_start(model, self.inputs.initial, old.pretrained.names)
        on_device(model, self.plan.device)
        self.state = self._stepper.fresh_state(model, old.pretrained)
        self.state.at, self.state.best = at, old.best

    def _report(self, progress: EpochProgress) -> None:
        self._reported = time.monotonic()
        self.inputs.progress(Progress(str(progress), self.state.at.step))

    def _snapshot(self) -> Snapshot:
        self.state.at.seconds = self._seconds()
        snapshot = self.state.snapshot()
        return replace(snapshot, tensors={**snapshot.tensors, **self._contest.tensors})

    def _save_if_due(self, *, epoch_ended: bool) -> None:
        if self._saver and self._saver.due(epoch_ended=epoch_ended):
            self._stepper.check()
            with self._watchdog.paused():
                self._saver.save(self._snapshot)

    def _terminate(self) -> None:
        step = self.state.at.step
        saved = False
        if self._saver:
            self._stepper.check()
            with self._watchdog.paused():
                size = self.state.size + self._contest.size
                saved = self._saver.save_now(self._snapshot, size, self.inputs.grace_seconds / 2)
        where = f"the state was saved at step {step}" if saved else "the state since the last checkpoint was not saved"
        raise Terminated(f"Stopped on request; {where}", step=step)
