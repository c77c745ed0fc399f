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
from typing import Any

import torch

from portal_client.progress_text import EpochProgress
from trainer_image.contract import Progress, RunInputs
from trainer_image.engine.batches import PhaseRows, phase_rows, phase_split
from trainer_image.engine.checkpoint import Checkpointer, Snapshot, resume
from trainer_image.engine.plan import Fitted, Plan
from trainer_image.engine.row_order import block_rows
from trainer_image.engine.state import DONE, REFIT, SEARCH, warm_start
from trainer_image.engine.step import Stepper, evaluate, on_device
from trainer_image.engine.team import Team
from trainer_image.engine.watchdog import Watchdog
from trainer_image.errors import Terminated, TrainingDiverged
from trainer_image.tasks.base import Figures, Problem, rows_in

log = logging.getLogger(__name__)

CHECK_STEPS = 50
PROGRESS_SECONDS = 5.0
# Of the budget, what the search may use when a refit follows, and what is kept for the test and the report.
SEARCH_SHARE, RESERVE = 0.5, 0.05


class Engine:
    """Trains one problem. `run` raises TrainingDiverged, GpuOutOfMemory or Terminated.

    record: takes one JSON-able record for metrics.jsonl; team: who else trains it; notes: said in the report
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        inputs: RunInputs,
        record: Callable[[dict[str, Any]], None],
        team: Team,
        notes: Sequence[str] = (),
    ) -> None:
        self.problem, self.plan, self.recipe, self.inputs = problem, plan, plan.recipe, inputs
        self._record, self._team = record, team
        self._watchdog = Watchdog(inputs.hang_seconds, inputs.last_resort)
        self._began = self._phase_began = self._reported = time.monotonic()
        self._phase_steps_before = 0
        self._seconds_before = 0.0
        torch.manual_seed(plan.seed)
        model = problem.predictor.build_model()
        self._initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        problem.begin(model, ["train"])
        warm = warm_start(model, inputs.initial) if inputs.initial else []
        # What is true of this process only, not of the training that later ones go on with.
        self._notes = list(notes)
        self._stepper = Stepper(problem, plan, on_device(model, plan.device), team, self._notes)
        self.state = self._stepper.fresh_state(model)
        self.state.at.notes += warm
        store, near, size = inputs.checkpoints, inputs.output.parent, self.state.size
        self._saver = Checkpointer(store, near, plan.checkpoint_every, plan.checkpoint_share, size) if store else None

    def run(self) -> Fitted:
        """Trains to the end, from the newest usable checkpoint where there is one."""
        try:
            resumed = self._resume()
            if self.state.at.phase == SEARCH:
                self._phase()
                self._begin_refit_or_end()
            if self.state.at.phase == REFIT:
                self._phase()
                self.state.at.phase = DONE
                self.state.keep_best()
                self._save_if_due(epoch_ended=True)
        finally:
            if self._saver:
                self._saver.close()
        at = self.state.at
        refitted = any(record["phase"] == REFIT for record in at.history)
        model = self.state.judged
        assert self.state.best is not None
        model.load_state_dict(self.state.best)
        return Fitted(
            model=model.eval(),
            fit_on=("train", "validation") if refitted else ("train",),
            steps=at.step,
            epochs=sum(record["phase"] == SEARCH for record in at.history),
            best_epoch=at.best_epoch,
            best=at.best,
            seconds=self._seconds(),
            resumed_from=resumed,
            micro_batch=at.micro_batch,
            history=at.history,
            notes=at.notes + self._notes + (self._saver.problems if self._saver else []),
        )

    def _resume(self) -> int | None:
        if not self.inputs.checkpoints:
            return None
        snapshot, notes = resume(self.inputs.checkpoints, self.state.check)
        if snapshot:
            self.state.load(snapshot)
            self._seconds_before = self.state.at.seconds
            log.info("Resuming at step %d", snapshot.step)
        self.state.at.notes += notes
        for record in self.state.at.history:
            self._record(record)
        return snapshot.step if snapshot else None

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

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
        rows = phase_rows(split, self.plan, at, team)
        per_epoch = rows.per_epoch
        if not at.planned:
            at.planned = at.stop_at = self.recipe.epochs * per_epoch
        team.begin(self.state)
        self._phase_began, self._phase_steps_before = time.monotonic(), at.phase_step
        self.state.model.train()
        idle = 0 if at.best is None else at.epoch - at.best_epoch
        with closing(rows), self._watchdog:
            # `at.batch`: an epoch whose last step is done but whose end is not, after a stop just there.
            while at.batch or (at.phase_step < at.stop_at and (refit or idle < self.recipe.patience)):
                while at.batch < per_epoch and at.phase_step < at.stop_at:
                    self._step(rows)
                    self._after_step(per_epoch)
                self._end_epoch(per_epoch)
                idle = at.epoch - at.best_epoch

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
            self._phase_began += time.monotonic() - began
        else:
            self._stepper.step(self.state, batch, share)
        self._watchdog.beat(at.step)
        if decided := compiling.after_step(at.stop_at - at.phase_step):
            team.broadcast(decided)

    def _after_step(self, per_epoch: int) -> None:
        at = self.state.at
        if self.plan.device.type == "cpu" or at.step % CHECK_STEPS == 0:
            self._stepper.check()
        self._fit_budget()
        if self.inputs.stop.is_set():
            self._terminate()
        if at.batch < per_epoch:
            self._save_if_due(epoch_ended=False)
            if time.monotonic() - self._reported > PROGRESS_SECONDS:
                of = math.ceil(at.stop_at / per_epoch)
                self._report(EpochProgress(at.epoch + 1, of, at.batch, per_epoch))

    def _fit_budget(self) -> None:
        """Shortens the schedule to what the time budget holds, never before a tenth of it: first steps are slow."""
        at, now = self.state.at, time.monotonic()
        share = SEARCH_SHARE if self.recipe.refit and at.phase == SEARCH else 1.0
        budget = self.plan.time_budget * share * (1 - RESERVE)
        spent, here = self._seconds(), now - self._phase_began
        if here < 0.1 * budget and spent < budget:
            return
        pace = here / max(1, at.phase_step - self._phase_steps_before)
        fitting = at.phase_step + max(0, int((budget - spent) / pace))
        if fitting < at.stop_at:
            at.planned = at.stop_at = fitting

    def _end_epoch(self, per_epoch: int) -> None:
        at = self.state.at
        self._stepper.check()
        record: dict[str, Any] = {
            "phase": at.phase,
            "epoch": at.epoch + 1,
            "step": at.step,
            "seconds": round(self._seconds(), 3),
            "loss": float(self.state.loss_sum) / max(1, at.batch),
        }
        of = max(at.epoch + 1, math.ceil(at.stop_at / per_epoch))
        at.epoch += 1
        said = "training on all rows"
        if at.phase == SEARCH:
            figures = self._validate()
            record["validation"] = figures
            shown = self.problem.headline.name
            said = f"validation {shown.replace('_', ' ')} {figures[shown]:.3g}"
        at.batch = 0
        self.state.loss_sum.zero_()
        at.history.append(record)
        self._record(record)
        self._report(EpochProgress(at.epoch, of, loss=record["loss"], more=said))
        self._save_if_due(epoch_ended=True)

    def _validate(self) -> Figures:
        at, split = self.state.at, self.problem.splits["validation"]
        beat = self._watchdog.beat
        outputs = evaluate(self.problem.predictor, self.state.judged, split, self.plan.device, beat)
        if not torch.isfinite(outputs).all():
            raise TrainingDiverged(f"Training diverged at step {at.step}", step=at.step)
        figures = self.problem.predictor.score(outputs, split)
        value = figures[self.problem.selection.name]
        if at.best is None or self.problem.selection.better(value, at.best):
            at.best, at.best_epoch, at.best_step = value, at.epoch, at.phase_step
            self.state.keep_best()
        return figures

    def _begin_refit_or_end(self) -> None:
        """After the search: the same schedule once more on all rows, as far as validation chose, where time allows."""
        at = self.state.at
        per_epoch = math.ceil(rows_in(self.problem.splits["train"]) / self.recipe.batch_size)
        if at.phase_step >= at.planned < self.recipe.epochs * per_epoch:
            at.notes.append(
                f"The time budget of {self.plan.time_budget:g} s (train.time_budget) was used up: training ended with "
                f"epoch {at.epoch} of at most {self.recipe.epochs}. More time may give a better model."
            )
        rows = sum(rows_in(self.problem.splits[name]) for name in ("train", "validation"))
        growth = math.ceil(rows / self.recipe.batch_size) / per_epoch
        steps = max(1, round(at.best_step * growth))
        left = self.plan.time_budget * (1 - RESERVE) - self._seconds()
        if not self.recipe.refit or self._seconds() / max(1, at.step) * steps > left:
            if self.recipe.refit:
                at.notes.append("No time was left to train once more on training and validation rows together.")
            at.phase = DONE
            return
        torch.manual_seed(self.plan.seed)
        old = self.state
        model = old.model
        model.load_state_dict(self._initial)
        self.problem.begin(model.cpu(), ["train", "validation"])
        if self.inputs.initial:
            warm_start(model, self.inputs.initial)
        on_device(model, self.plan.device)
        self.state = self._stepper.fresh_state(model)
        self.state.at, self.state.best = at, old.best
        at.phase = REFIT
        at.planned, at.stop_at = round(at.planned * growth), steps
        at.phase_step = at.epoch = at.batch = 0

    def _report(self, progress: EpochProgress) -> None:
        self._reported = time.monotonic()
        self.inputs.progress(Progress(str(progress), self.state.at.step))

    def _snapshot(self) -> Snapshot:
        self.state.at.seconds = self._seconds()
        return self.state.snapshot()

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
                saved = self._saver.save_now(self._snapshot, self.state.size, self.inputs.grace_seconds / 2)
        where = f"the state was saved at step {step}" if saved else "the state since the last checkpoint was not saved"
        raise Terminated(f"Stopped on request; {where}", step=step)
