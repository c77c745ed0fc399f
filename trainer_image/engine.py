"""The training loop, the only one: precision, schedule, validation, best weights, checkpoints, signals, time budget.

Data lies on the device where it fits and is drawn by index there; nothing in the loop waits for the device except what
must be known on the host now and then (divergence every CHECK_STEPS steps, figures at an epoch's end).
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer_image.checkpoint import Checkpointer, Snapshot, resume
from trainer_image.contract import CheckpointStore, Progress
from trainer_image.engine_state import DONE, REFIT, SEARCH, TrainingState, warm_start
from trainer_image.errors import GpuOutOfMemory, Terminated, TrainingDiverged
from trainer_image.tasks.base import Batch, Figures, Predictor, Problem, Recipe, joined, rows_in, take

log = logging.getLogger(__name__)

CHECK_STEPS = 50
EVALUATION_ROWS = 512
PROGRESS_SECONDS = 5.0
# Of the budget, what the search may use when a refit follows, and what is kept for the test and the report.
SEARCH_SHARE, RESERVE = 0.5, 0.05


@dataclass(frozen=True)
class Plan:
    """A recipe with the configuration's overrides applied, and where it runs. time_budget: seconds of training."""

    recipe: Recipe
    seed: int
    time_budget: float
    device: torch.device
    bfloat16: bool = False
    compile: bool = False
    checkpoint_every: float = 300.0
    checkpoint_share: float = 0.02


@dataclass(frozen=True)
class Surroundings:
    """What the engine is given from outside. metrics: takes one JSON-able record for metrics.jsonl."""

    stop: threading.Event
    progress: Callable[[Progress], None]
    metrics: Callable[[dict[str, Any]], None]
    work: Path
    checkpoints: CheckpointStore | None = None
    initial: Path | None = None
    grace_seconds: float = 30.0


@dataclass(frozen=True)
class Fitted:
    """The trained network (evaluation mode, on the device) and how it came about. fit_on: the splits it has seen."""

    model: nn.Module
    fit_on: tuple[str, ...]
    steps: int
    epochs: int
    best_epoch: int
    best: float | None
    seconds: float
    resumed_from: int | None
    micro_batch: int
    history: list[dict[str, Any]]
    notes: list[str]


@torch.no_grad()
def evaluate(predictor: Predictor, model: nn.Module, split: Batch, device: torch.device) -> Tensor:
    """Outputs for every row of a split, float32 on the CPU. In fp32 and in fixed portions, so that `predict` agrees."""
    was_training = model.training
    model.eval()
    total, size, start = rows_in(split), EVALUATION_ROWS, 0
    parts: list[Tensor] = []
    while start < total:
        batch = {n: t.to(device) for n, t in take(split, slice(start, start + size)).items()}
        try:
            parts.append(predictor.outputs(model, batch))
        except torch.OutOfMemoryError:
            if size == 1:
                raise GpuOutOfMemory("Out of GPU memory at batch size 1") from None
            size //= 2
            continue
        start += size
    model.train(was_training)
    return torch.cat(parts).float().cpu()


class Engine:
    """Trains one problem. `run` raises TrainingDiverged, GpuOutOfMemory or Terminated."""

    def __init__(self, problem: Problem, plan: Plan, surroundings: Surroundings) -> None:
        self.problem, self.plan, self.recipe, self.out = problem, plan, plan.recipe, surroundings
        self._began = self._phase_began = self._told = time.monotonic()
        self._phase_steps_before = 0
        self._seconds_before = 0.0
        torch.manual_seed(plan.seed)
        model = problem.predictor.build_model()
        notes = warm_start(model, surroundings.initial) if surroundings.initial else []
        model.to(plan.device)
        if plan.device.type == "cuda":
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state = self._fresh_state(model)
        self.state.at.notes += notes
        self._initial = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=plan.device)
        self._saver = (
            Checkpointer(surroundings.checkpoints, surroundings.work, plan.checkpoint_every, plan.checkpoint_share)
            if surroundings.checkpoints
            else None
        )

    def _fresh_state(self, model: nn.Module) -> TrainingState:
        groups = self.problem.parameter_groups(model, self.recipe.weight_decay)
        self._factors = [group.pop("lr_factor", 1.0) for group in groups]
        optimizer = torch.optim.AdamW(groups, lr=self.recipe.learning_rate, betas=(0.9, 0.99), fused=True)
        state = TrainingState(model, optimizer, average=self.recipe.ema_decay is not None)
        state.at.micro_batch = self.recipe.batch_size
        self._callable = self._compiled(model)
        return state

    def _compiled(self, model: nn.Module) -> nn.Module:
        if not self.plan.compile:
            return model
        if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
            log.warning("torch.compile needs a C compiler and there is none; training goes on without it")
            return model
        compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
        return compiled

    def run(self) -> Fitted:
        resumed = self._resume()
        try:
            if self.state.at.phase == SEARCH:
                self._phase(self._resident(self.problem.splits["train"]))
                self._begin_refit_or_end()
            if self.state.at.phase == REFIT:
                both = joined(self.problem.splits["train"], self.problem.splits["validation"])
                self._phase(self._resident(both))
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
            notes=at.notes + (self._saver.problems if self._saver else []),
        )

    def _resume(self) -> int | None:
        if not self.out.checkpoints:
            return None
        snapshot, notes = resume(self.out.checkpoints, self.state.check)
        if snapshot:
            self.state.load(snapshot)
            self._seconds_before = self.state.at.seconds
            log.info("Resuming at step %d", snapshot.step)
        self.state.at.notes += notes
        for record in self.state.at.history:
            self.out.metrics(record)
        return snapshot.step if snapshot else None

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _resident(self, split: Batch) -> Batch:
        """The split on the device when it fits in a quarter of the free memory, else in pinned host memory."""
        if self.plan.device.type != "cuda":
            return split
        size = sum(t.numel() * t.element_size() for t in split.values())
        free, _ = torch.cuda.mem_get_info(self.plan.device)
        if size <= free / 4:
            return {name: tensor.to(self.plan.device) for name, tensor in split.items()}
        return {name: tensor.pin_memory() for name, tensor in split.items()}

    def _phase(self, rows: Batch) -> None:
        at, count = self.state.at, rows_in(rows)
        per_epoch = math.ceil(count / self.recipe.batch_size)
        if not at.planned:
            at.planned = at.stop_at = self.recipe.epochs * per_epoch
        self._phase_began, self._phase_steps_before = time.monotonic(), at.phase_step
        self.state.model.train()
        idle = 0 if at.best is None else at.epoch - at.best_epoch
        device = next(iter(rows.values())).device
        # `at.batch`: an epoch whose last step is done but whose end is not, after a stop just there.
        while at.batch or (at.phase_step < at.stop_at and (at.phase == REFIT or idle < self.recipe.patience)):
            order = self._order(count).to(device)
            # Batches of one epoch are as equal as can be: no small last one with noisy statistics.
            while at.batch < per_epoch and at.phase_step < at.stop_at:
                index = order[at.batch * count // per_epoch : (at.batch + 1) * count // per_epoch]
                self._step({n: t.to(self.plan.device, non_blocking=True) for n, t in take(rows, index).items()})
                self._after_step(per_epoch)
            self._end_epoch(per_epoch)
            idle = at.epoch - at.best_epoch

    def _order(self, count: int) -> Tensor:
        """This epoch's order of rows, drawn afresh from seed, phase and epoch: a resumed run needs no stored one."""
        at = self.state.at
        generator = torch.Generator().manual_seed(
            (self.plan.seed * 1_000_003 + at.epoch * 2 + (at.phase == REFIT)) % 2**63
        )
        return torch.randperm(count, generator=generator)

    def _step(self, batch: Batch) -> None:
        at = self.state.at
        rate = self._schedule(at.phase_step / max(1, at.planned))
        for group, factor in zip(self.state.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = self.recipe.learning_rate * rate * factor
        loss = self._backward(batch)
        if self.recipe.gradient_clip:
            nn.utils.clip_grad_norm_(self.state.model.parameters(), self.recipe.gradient_clip)
        self.state.optimizer.step()
        at.step += 1
        at.phase_step += 1
        at.batch += 1
        if self.recipe.ema_decay is not None:
            self.state.update_average(self.recipe.ema_decay)
        self.state.loss_sum += loss
        first_bad = (self._bad_step < 0) & ~torch.isfinite(loss)
        self._bad_step = torch.where(first_bad, at.step, self._bad_step)

    def _schedule(self, done: float) -> float:
        """Factor of the learning rate when this share of the phase is done: linear warm-up, then a cosine to zero."""
        if done < self.recipe.warmup:
            return (done + 1e-3) / (self.recipe.warmup + 1e-3)
        return 0.5 * (1 + math.cos(math.pi * (done - self.recipe.warmup) / (1 - self.recipe.warmup)))

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of the batch's mean loss; out of memory, the same batch in halves, accumulated."""
        at, rows = self.state.at, rows_in(batch)
        while True:
            micro = min(at.micro_batch, rows)
            try:
                return self._accumulate(batch, rows, micro)
            except torch.OutOfMemoryError:
                if micro <= 1:
                    raise GpuOutOfMemory(f"Out of GPU memory at batch size {micro}", step=at.step) from None
            at.micro_batch = micro // 2
            at.notes.append(
                f"Out of GPU memory at {micro} rows at a time; batches are computed in parts of {micro // 2}."
            )
            if self.plan.device.type == "cuda":
                torch.cuda.empty_cache()

    def _accumulate(self, batch: Batch, rows: int, micro: int) -> Tensor:
        self.state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.plan.device)
        for start in range(0, rows, micro):
            part = batch if micro == rows else take(batch, slice(start, start + micro))
            share = rows_in(part) / rows
            with torch.autocast(self.plan.device.type, torch.bfloat16, enabled=self.plan.bfloat16):
                loss = self.problem.loss(self._callable, part)
            (loss * share if share < 1 else loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * share
        return total

    def _after_step(self, per_epoch: int) -> None:
        at = self.state.at
        if self.plan.device.type == "cpu" or at.step % CHECK_STEPS == 0:
            self._check_divergence()
        self._fit_budget()
        if self.out.stop.is_set():
            self._terminate()
        if at.batch < per_epoch:
            self._save_if_due(epoch_ended=False)
            if time.monotonic() - self._told > PROGRESS_SECONDS:
                self._tell(
                    f"Epoch {at.epoch + 1} of {math.ceil(at.stop_at / per_epoch)}, step {at.batch} of {per_epoch}"
                )

    def _check_divergence(self) -> None:
        bad = int(self._bad_step)
        if bad >= 0:
            raise TrainingDiverged(f"Training diverged at step {bad}", step=bad)

    def _fit_budget(self) -> None:
        """Shortens the schedule to what the time budget holds. Never before a tenth of it: first steps are slow ones."""
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
        self._check_divergence()
        record: dict[str, Any] = {
            "phase": at.phase,
            "epoch": at.epoch + 1,
            "step": at.step,
            "seconds": round(self._seconds(), 3),
            "loss": float(self.state.loss_sum) / max(1, at.batch),
        }
        of = max(at.epoch + 1, math.ceil(at.stop_at / per_epoch))
        at.epoch += 1
        message = f"Epoch {at.epoch} of {of}"
        figures: Figures = {}
        if at.phase == SEARCH:
            figures = self._validate()
            record["validation"] = figures
            shown = self.problem.headline.name
            message += f", validation {shown.replace('_', ' ')} {figures[shown]:.3g}"
        else:
            message += ", training on all rows"
        at.batch = 0
        self.state.loss_sum.zero_()
        at.history.append(record)
        self.out.metrics(record)
        self._tell(message, figures)
        self._save_if_due(epoch_ended=True)

    def _validate(self) -> Figures:
        at, split = self.state.at, self.problem.splits["validation"]
        outputs = evaluate(self.problem.predictor, self.state.judged, split, self.plan.device)
        if not torch.isfinite(outputs).all():
            raise TrainingDiverged(f"Training diverged at step {at.step}", step=at.step)
        figures = self.problem.predictor.score(outputs, split)
        value = figures[self.problem.selection.name]
        if at.best is None or self.problem.selection.better(value, at.best):
            at.best, at.best_epoch, at.best_step = value, at.epoch, at.phase_step
            self.state.keep_best()
        return figures

    def _begin_refit_or_end(self) -> None:
        at = self.state.at
        per_epoch = math.ceil(rows_in(self.problem.splits["train"]) / self.recipe.batch_size)
        rows = sum(rows_in(self.problem.splits[name]) for name in ("train", "validation"))
        growth = math.ceil(rows / self.recipe.batch_size) / per_epoch
        steps = round(at.best_step * growth)
        pace = self._seconds() / max(1, at.step)
        left = self.plan.time_budget * (1 - RESERVE) - self._seconds()
        if not self.recipe.refit or pace * steps > left:
            if self.recipe.refit:
                at.notes.append("No time was left to train once more on training and validation rows together.")
            at.phase = DONE
            return
        # The same start, order of magnitude and schedule; only the rows are more.
        torch.manual_seed(self.plan.seed)
        old = self.state
        old.model.load_state_dict(self._initial)
        self.state = self._fresh_state(old.model)
        self.state.at, self.state.best = at, old.best
        at.phase, at.search_planned = REFIT, at.planned
        at.planned, at.stop_at = round(at.planned * growth), max(1, steps)
        at.phase_step = at.epoch = at.batch = 0

    def _tell(self, message: str, figures: Figures | None = None) -> None:
        at = self.state.at
        self._told = time.monotonic()
        done = at.phase_step / max(1, at.stop_at)
        if self.recipe.refit:
            done = done / 2 + (0.5 if at.phase != SEARCH else 0)
        self.out.progress(Progress(message, at.step, min(1.0, done), figures or {}))

    def _snapshot(self) -> Snapshot:
        self.state.at.seconds = self._seconds()
        return self.state.snapshot()

    def _save_if_due(self, *, epoch_ended: bool) -> None:
        if self._saver and self._saver.due(epoch_ended=epoch_ended):
            self._check_divergence()
            self._saver.save(self._snapshot())

    def _terminate(self) -> None:
        step = self.state.at.step
        saved = False
        if self._saver:
            self._check_divergence()
            saved = self._saver.save_now(self._snapshot(), self.out.grace_seconds / 2)
        where = f"the state was saved at step {step}" if saved else "the state since the last checkpoint was not saved"
        raise Terminated(f"Stopped on request; {where}", step=step)
