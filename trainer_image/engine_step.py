"""One optimizer step, and outputs for a whole split: what touches the device."""

from __future__ import annotations

import logging
import math
import shutil

import torch
from torch import Tensor, nn

from trainer_image.devices import full_precision
from trainer_image.engine_plan import Plan
from trainer_image.engine_state import Position, TrainingState
from trainer_image.errors import GpuOutOfMemory, TrainingDiverged
from trainer_image.tasks.base import Batch, Predictor, Problem, rows_in, take

log = logging.getLogger(__name__)

EVALUATION_ROWS = 512


@torch.no_grad()
@full_precision()
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


def resident(split: Batch, device: torch.device) -> Batch:
    """The split on the device when it fits in a quarter of the free memory, else in pinned host memory."""
    if device.type != "cuda":
        return split
    size = sum(t.numel() * t.element_size() for t in split.values())
    free, _ = torch.cuda.mem_get_info(device)
    if size <= free / 4:
        return {name: tensor.to(device) for name, tensor in split.items()}
    return {name: tensor.pin_memory() for name, tensor in split.items()}


def schedule(done: float, warmup: float) -> float:
    """Factor of the learning rate when this share of the phase is done: linear warm-up, then a cosine to zero."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


class Stepper:
    """Takes optimizer steps on a state. Divergence is noted on the device and looked at when `check` is called."""

    def __init__(self, problem: Problem, plan: Plan, model: nn.Module) -> None:
        self._problem, self._plan, self._recipe = problem, plan, plan.recipe
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=plan.device)
        self._network = self._compiled(model)

    def fresh_state(self, model: nn.Module) -> TrainingState:
        """A state at the first step, with an optimizer of its own."""
        groups = self._problem.parameter_groups(model, self._recipe.weight_decay)
        self._factors = [group.pop("lr_factor", 1.0) for group in groups]
        optimizer = torch.optim.AdamW(groups, lr=self._recipe.learning_rate, betas=(0.9, 0.99), fused=True)
        state = TrainingState(model, optimizer, average=self._recipe.ema_decay is not None)
        state.at.micro_batch = self._recipe.batch_size
        return state

    def _compiled(self, model: nn.Module) -> nn.Module:
        if not self._plan.compile:
            return model
        if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
            log.warning("torch.compile needs a C compiler and there is none; training goes on without it")
            return model
        compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
        return compiled

    def step(self, state: TrainingState, batch: Batch) -> None:
        """One step on a batch that lies on the device; nothing here waits for the device."""
        at = state.at
        rate = self._recipe.learning_rate * schedule(at.phase_step / max(1, at.planned), self._recipe.warmup)
        for group, factor in zip(state.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = rate * factor
        loss = self._backward(state, batch)
        if self._recipe.gradient_clip:
            nn.utils.clip_grad_norm_(state.model.parameters(), self._recipe.gradient_clip)
        state.optimizer.step()
        at.step += 1
        at.phase_step += 1
        at.batch += 1
        if self._recipe.ema_decay is not None:
            state.update_average(self._recipe.ema_decay)
        state.loss_sum += loss
        first_bad = (self._bad_step < 0) & ~torch.isfinite(loss)
        self._bad_step = torch.where(first_bad, at.step, self._bad_step)

    def check(self) -> None:
        """Raises TrainingDiverged with the first step whose loss was not finite. Waits for the device."""
        bad = int(self._bad_step)
        if bad >= 0:
            raise TrainingDiverged(f"Training diverged at step {bad}", step=bad)

    def _backward(self, state: TrainingState, batch: Batch) -> Tensor:
        """Gradients of the batch's mean loss; out of memory, the same batch in halves, accumulated."""
        at, rows = state.at, rows_in(batch)
        while True:
            micro = min(at.micro_batch, rows)
            try:
                return self._accumulate(state.optimizer, batch, rows, micro)
            except torch.OutOfMemoryError:
                if micro <= 1:
                    raise GpuOutOfMemory(f"Out of GPU memory at batch size {micro}", step=at.step) from None
            self._halve(at, micro)

    def _halve(self, at: Position, micro: int) -> None:
        at.micro_batch = micro // 2
        at.notes.append(
            f"Out of GPU memory with {micro} rows at a time; batches are computed in parts of {micro // 2}."
        )
        if self._plan.device.type == "cuda":
            torch.cuda.empty_cache()

    def _accumulate(self, optimizer: torch.optim.Optimizer, batch: Batch, rows: int, micro: int) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._plan.device)
        for start in range(0, rows, micro):
            part = batch if micro == rows else take(batch, slice(start, start + micro))
            share = rows_in(part) / rows
            with torch.autocast(self._plan.device.type, torch.bfloat16, enabled=self._plan.bfloat16):
                loss = self._problem.loss(self._network, part)
            (loss * share if share < 1 else loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * share
        return total
