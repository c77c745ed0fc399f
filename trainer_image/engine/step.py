"""One optimizer step, and outputs for a whole split: what touches the device."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainer_image.engine.compiling import Compiling
from trainer_image.engine.plan import Plan
from trainer_image.engine.state import TrainingState
from trainer_image.engine.team import Team, shared_buffers
from trainer_image.errors import GpuOutOfMemory, TrainerError, TrainingDiverged
from trainer_image.host import gpu_faults
from trainer_image.host.devices import full_precision
from trainer_image.tasks.base import Batch, Predictor, Problem, rows_in, take

log = logging.getLogger(__name__)

# Rows at a time at most, and bytes of the largest tensor that they may make: what is alive at once is a few times that.
EVALUATION_ROWS, EVALUATION_BYTES = 512, 64 * 1024**2
# Of the learning rate's peak, where a network that has been trained goes on with more epochs.
AGAIN = 0.5


@torch.no_grad()
@full_precision()
def evaluate(
    predictor: Predictor,
    model: nn.Module,
    split: Batch,
    device: torch.device,
    beat: Callable[[], None] = lambda: None,
) -> Tensor:
    """Outputs for every row of a split, float32 on the CPU. In fp32 and in portions that the model and the shape of the
    rows alone decide, so that `predict` agrees.

    beat: called after each portion
    """
    was_training = model.training
    model.eval()
    total, start = rows_in(split), 0
    size = _portion(predictor, model, split, device)
    parts: list[Tensor] = []
    while start < total or not parts:  # of no rows, too, the outputs have their shape
        batch = {n: t.to(device) for n, t in take(split, slice(start, start + size)).items()}
        try:
            parts.append(predictor.outputs(model, batch))
        except RuntimeError as error:
            if not gpu_faults.out_of_memory(error):
                raise
            if size == 1:
                raise GpuOutOfMemory("Out of GPU memory at batch size 1") from None
            size //= 2
            continue
        start += size
        beat()
    model.train(was_training)
    return torch.cat(parts).float().cpu()


class _Sizes(TorchFunctionMode):
    """Notes the bytes of what each torch function returns."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.bytes.append(made.numel() * made.element_size())
        return made


def _portion(predictor: Predictor, model: nn.Module, split: Batch, device: torch.device) -> int:
    """How many rows to evaluate at a time, a power of two: by the tensor that grows most from one row to two."""
    known = _PORTIONS.setdefault(model, {})
    first = take(split, slice(0, 1))
    shape = (type(predictor), rows_in(split) > 1, *((name, t.shape, t.dtype) for name, t in first.items()))
    if shape not in known:
        known[shape] = _tried(predictor, model, split, device)
    return known[shape]


# Of a network that is evaluated again and again, after each epoch say.
_PORTIONS: WeakKeyDictionary[nn.Module, dict[Hashable, int]] = WeakKeyDictionary()


def _tried(predictor: Predictor, model: nn.Module, split: Batch, device: torch.device) -> int:
    sizes = []
    for rows in (1, 2)[: rows_in(split)]:
        batch = {n: t.to(device) for n, t in take(split, slice(0, rows)).items()}
        try:
            with _Sizes() as made:
                predictor.outputs(model, batch)
        except Exception:  # a plug-in's that wants more rows; what is really wrong is raised with all of them
            return EVALUATION_ROWS
        sizes.append(made.bytes)
    if len(sizes) < 2 or len(sizes[0]) != len(sizes[1]):
        return EVALUATION_ROWS
    growth = max((two - one for one, two in zip(*sizes, strict=True)), default=0)
    fitting = EVALUATION_BYTES // max(1, growth)
    return min(EVALUATION_ROWS, 1 << max(0, fitting.bit_length() - 1))


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, on a GPU with the memory layout that its convolutions are fastest with."""
    model.to(device)
    if device.type == "cuda":
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4:  # the layout has a meaning for these only
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model


def schedule(done: float, warmup: float) -> float:
    """Factor of the learning rate when this share of the phase is done: linear warm-up, then a cosine to zero."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


class Stepper:
    """Takes optimizer steps on a state. Divergence is noted on the device and looked at when `check` is called."""

    def __init__(self, problem: Problem, plan: Plan, model: nn.Module, team: Team, notes: list[str]) -> None:
        self._problem, self._plan, self._recipe, self._team = problem, plan, plan.recipe, team
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=plan.device)
        # Rank 0 decides for all.
        self.compiling = Compiling(model, plan.device, plan.compile if team.rank == 0 else False, notes)

    def fresh_state(self, model: nn.Module) -> TrainingState:
        """A state at the first step, with an optimizer of its own."""
        groups = self._problem.parameter_groups(model, self._recipe.weight_decay)
        self._factors = [group.pop("lr_factor", 1.0) for group in groups]
        optimizer = torch.optim.AdamW(groups, lr=self._recipe.learning_rate, betas=(0.9, 0.99), fused=True)
        state = TrainingState(model, optimizer, average=self._recipe.ema_decay is not None)
        state.at.micro_batch = self._recipe.batch_size
        return state

    def step(self, state: TrainingState, batch: Batch, share: float = 1.0) -> None:
        """One step on a batch that lies on the device; nothing here waits for the device.

        share: how much of the whole batch this is; other ranks have the rest
        """
        at = state.at
        rate = self._recipe.learning_rate * schedule(
            (at.phase_step - at.cycle) / max(1, at.planned - at.cycle), self._recipe.warmup
        )
        if at.cycle:
            rate *= AGAIN
        for group, factor in zip(state.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = rate * factor
        loss = self._backward(state, batch, share)
        if self._team.world > 1:
            self._add_up(state, loss, share)
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

    def probe(self, state: TrainingState, batch: Batch, share: float = 1.0) -> None:
        """Finds how many rows at a time fit into the device's memory beside the optimizer, without taking a step.

        The effective batch stays the recipe's, so that results do not depend on the device.
        """
        devices = [self._plan.device] if self._plan.device.type == "cuda" else []
        buffers = [(tensor, tensor.clone()) for tensor in state.model.buffers()]
        with torch.random.fork_rng(devices):
            # AdamW makes two moments of each parameter at its first step: room that must be left.
            moments = [torch.empty_like(p) for p in state.model.parameters() if p.requires_grad for _ in range(2)]
            self._backward(state, batch, share)
            del moments
        state.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for tensor, before in buffers:
                tensor.copy_(before)
        state.at.probed = True

    def check(self) -> None:
        """Raises TrainingDiverged with the first step whose loss was not finite. Waits for the device."""
        bad = int(self._bad_step)
        if bad >= 0:
            raise TrainingDiverged(f"Training diverged at step {bad}", step=bad)

    def _add_up(self, state: TrainingState, loss: Tensor, share: float) -> None:
        """Gradients, loss and changing buffers become those of the whole batch, on every rank."""
        parameters = [p for p in state.model.parameters() if p.requires_grad]
        for parameter in parameters:
            # Not used by this rank's rows, perhaps by another's: every rank must add the same tensors.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        buffers = shared_buffers(self._team, state.model, share)
        self._team.add([loss, *(p.grad for p in parameters if p.grad is not None), *(ours for _, ours in buffers)])
        with torch.no_grad():
            for buffer, summed in buffers:
                buffer.copy_(summed)

    def _backward(self, state: TrainingState, batch: Batch, share: float) -> Tensor:
        """Gradients of the batch's mean loss, times share; out of memory, the same batch in halves, accumulated."""
        at, rows = state.at, rows_in(batch)
        # Parts of one batch may differ by a row; every rank halves from the same number.
        largest = math.ceil(self._recipe.batch_size / self._team.world) if self._team.world > 1 else rows
        while True:
            micro = min(at.micro_batch, largest)
            loss, fits = self._try(state.optimizer, batch, share, min(micro, rows))
            if not self._team.any(not fits):
                assert loss is not None
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
        self, optimizer: torch.optim.Optimizer, batch: Batch, share: float, micro: int
    ) -> tuple[Tensor | None, bool]:
        """(loss, whether it fitted into memory). A compiled network that fails is tried again as it is."""
        compiling = self.compiling
        began = time.monotonic()
        try:
            loss = self._accumulate(optimizer, batch, share, micro)
        except Exception as error:
            if gpu_faults.out_of_memory(error):
                return None, False
            if isinstance(error, TrainerError) or not compiling.unproven:
                raise
            compiling.failed(error)
            return self._try(optimizer, batch, share, micro)
        if compiling.unproven:
            compiling.proven(time.monotonic() - began)
        return loss, True

    def _accumulate(self, optimizer: torch.optim.Optimizer, batch: Batch, share: float, micro: int) -> Tensor:
        rows = rows_in(batch)
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._plan.device)
        for start in range(0, rows, micro):
            part = batch if micro == rows else take(batch, slice(start, start + micro))
            weight = share * rows_in(part) / rows
            with torch.autocast(self._plan.device.type, torch.bfloat16, enabled=self._plan.bfloat16):
                loss = self._problem.loss(self.compiling.network, part)
            (loss * weight if weight < 1 else loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * weight
        return total
