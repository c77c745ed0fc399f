"""One step of the optimizers on the gradients of a batch."""

from __future__ import annotations

import logging
import math
import time
from functools import partial

import torch
from torch import Tensor, nn

from trainer_image.engine.plan import Plan
from trainer_image.engine.steps.compiling import Compiling
from trainer_image.engine.steps.position import Position
from trainer_image.engine.steps.pretrained import NOTHING, Pretrained
from trainer_image.engine.steps.state import TrainingState
from trainer_image.engine.team import Team, shared_buffers
from trainer_image.errors import GpuOutOfMemory, TrainerError, TrainingDiverged
from trainer_image.host import gpu_faults
from trainer_image.tasks import hooks
from trainer_image.tasks.base import Batch, Loss, Moment, Problem, rows_in, take

log = logging.getLogger(__name__)

# Of the learning rate's peak, where a network that has been trained goes on with more epochs.
AGAIN = 0.5


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, on a GPU with the memory layout that its convolutions are fastest with."""
    model.to(device)
    if device.type == "cuda":
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4:  # the layout has a meaning for these only
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model


def _moment(at: Position) -> Moment:
    return Moment(at.phase_step, at.epoch, (at.phase_step - at.cycle) / max(1, at.planned - at.cycle))


class Stepper:
    """Takes optimizer steps on a state. Divergence is noted on the device and looked at when `check` is called."""

    def __init__(self, problem: Problem, plan: Plan, model: nn.Module, team: Team, notes: list[str]) -> None:
        self._problem, self._plan, self._recipe, self._team = problem, plan, plan.recipe, team
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=plan.device)
        # Rank 0 decides for all.
        self.compiling = Compiling(model, plan.device, plan.compile if team.rank == 0 else False, notes)

    def fresh_state(self, model: nn.Module, pretrained: Pretrained = NOTHING) -> TrainingState:
        """A state at the first step, with optimizers of its own. pretrained: what of the network no checkpoint keeps"""
        make = partial(hooks.optimizers_of, self._problem, recipe=self._recipe)
        state = TrainingState(model, make, average=self._recipe.ema_decay is not None, pretrained=pretrained)
        state.at.micro_batch = self._recipe.batch_size
        return state

    def step(self, state: TrainingState, batch: Batch, share: float = 1.0) -> None:
        """One step on a batch that lies on the device; nothing here waits for the device.

        share: how much of the whole batch this is; other ranks have the rest
        """
        at = state.at
        moment = _moment(at)
        rate = hooks.rate_of(self._problem, moment, self._recipe) * (AGAIN if at.cycle else 1.0)
        loss = self._backward(state, batch, share, moment)
        if self._team.world > 1:
            self._add_up(state, loss, share)
        if self._recipe.gradient_clip:
            nn.utils.clip_grad_norm_(state.model.parameters(), self._recipe.gradient_clip)
        state.optimizers.step(rate)
        at.step += 1
        at.phase_step += 1
        at.batch += 1
        if self._recipe.ema_decay is not None:
            state.update_average(self._recipe.ema_decay)
        state.losses.add(loss)
        first_bad = (self._bad_step < 0) & ~torch.isfinite(loss.total)
        self._bad_step = torch.where(first_bad, at.step, self._bad_step)

    def probe(self, state: TrainingState, batch: Batch, share: float = 1.0) -> None:
        """Finds how many rows at a time fit into the device's memory beside the optimizer, without taking a step.

        The effective batch stays the recipe's, so that results do not depend on the device.
        """
        devices = [self._plan.device] if self._plan.device.type == "cuda" else []
        buffers = [(tensor, tensor.clone()) for tensor in state.model.buffers()]
        with torch.random.fork_rng(devices):
            # What the optimizers will remember from their first step on: room that must be left.
            remembered, _ = state.stepped().kept()
            room = [torch.empty_like(tensor, device=self._plan.device) for tensor in remembered.values()]
            self._backward(state, batch, share, _moment(state.at))
            del room
        state.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for tensor, before in buffers:
                tensor.copy_(before)
        state.at.probed = True

    def check(self) -> None:
        """Raises TrainingDiverged with the first step whose loss was not finite. Waits for the device."""
        bad = int(self._bad_step)
        if bad >= 0:
            raise TrainingDiverged(f"Training diverged at step {bad}", step=bad)

    def _add_up(self, state: TrainingState, loss: Loss, share: float) -> None:
        """Gradients, loss and changing buffers become those of the whole batch, on every rank."""
        gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
        parts = [part for part in loss.parts.values() if isinstance(part, Tensor)]
        buffers = shared_buffers(self._team, state.model, share)
        self._team.add([loss.total, *parts, *gradients, *(ours for _, ours in buffers)])
        with torch.no_grad():
            for buffer, summed in buffers:
                buffer.copy_(summed)

    def _backward(self, state: TrainingState, batch: Batch, share: float, moment: Moment) -> Loss:
        """Gradients of the batch's mean loss, times share; out of memory, the same batch in halves, accumulated."""
        at, rows = state.at, rows_in(batch)
        # Parts of one batch may differ by a row; every rank halves from the same number.
        largest = math.ceil(self._recipe.batch_size / self._team.world) if self._team.world > 1 else rows
        while True:
            micro = min(at.micro_batch, largest)
            loss, fits = self._try(state.model, batch, share, min(micro, rows), moment)
            parameters = list(state.model.parameters()) if self._team.world > 1 else []
            failed, *reached = self._team.any([not fits, *(p.grad is not None for p in parameters)])
            if not failed:
                assert loss is not None
                for parameter, elsewhere in zip(parameters, reached, strict=True):
                    # Not used by this rank's rows, but by another's: every rank must add the same tensors.
                    if elsewhere and parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                return loss
            if micro <= 1:
                raise GpuOutOfMemory(f"Out of GPU memory at batch size {micro}", step=at.step)
            at.micro_batch = micro // 2
            at.notes.append(
                f"Out of GPU memory with {micro} rows at a time; batches are computed in parts of {micro // 2}."
            )
            self.compiling.shapes_change()
            if self._plan.device.type == "cuda":
                torch.cuda.empty_cache()

    def _try(
        self, model: nn.Module, batch: Batch, share: float, micro: int, moment: Moment
    ) -> tuple[Loss | None, bool]:
        """(loss, whether it fitted into memory). A compiled network that fails is tried again as it is."""
        compiling = self.compiling
        began = time.monotonic()
        try:
            loss = self._accumulate(model, batch, share, micro, moment)
        except Exception as error:
            if gpu_faults.out_of_memory(error):
                return None, False
            if isinstance(error, TrainerError) or not compiling.unproven:
                raise
            compiling.failed(error)
            return self._try(model, batch, share, micro, moment)
        if compiling.unproven:
            compiling.proven(time.monotonic() - began)
        return loss, True

    def _accumulate(self, model: nn.Module, batch: Batch, share: float, micro: int, moment: Moment) -> Loss:
        rows = rows_in(batch)
        model.zero_grad(set_to_none=True)
        total, parts = torch.zeros((), device=self._plan.device), dict[str, Tensor]()
        for start in range(0, rows, micro):
            part = batch if micro == rows else take(batch, slice(start, start + micro))
            weight = share * rows_in(part) / rows
            with torch.autocast(self._plan.device.type, torch.bfloat16, enabled=self._plan.bfloat16):
                loss = hooks.loss_of(self._problem, self.compiling.network, part, moment)
            (loss.total * weight if weight < 1 else loss.total).backward()  # type: ignore[no-untyped-call]
            total += loss.total.detach() * weight
            for name, of_rows in loss.parts.items():
                value = of_rows.detach().float().reshape(()) if isinstance(of_rows, Tensor) else of_rows
                parts[name] = parts.get(name, torch.zeros_like(total)) + value * weight
        return Loss(total, parts)
