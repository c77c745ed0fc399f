"""The state of a training between two steps: everything that a resumed run needs to end with the same weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer_image.engine.checkpoint import CheckpointInvalid, Snapshot
from trainer_image.engine.steps.optimizing import Optimizers, Plain
from trainer_image.engine.steps.position import DONE, Position, is_position
from trainer_image.engine.steps.pretrained import NOTHING, Pretrained
from trainer_image.errors import UserCodeFailed
from trainer_image.tasks.base import Loss

# Before the name of a part of the loss, among a snapshot's tensors.
PART = "loss/part"


class Losses:
    """Sums over the steps of an epoch, on the device: reading them waits for it.

    total: of the losses; parts: (sum, number of steps) of each part that a step's loss had
    """

    def __init__(self, device: torch.device) -> None:
        self.total = torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        self.parts: dict[str, Tensor] = {}

    def add(self, loss: Loss) -> None:
        """loss: tensors without gradients"""
        self.total += loss.total
        for name, part in loss.parts.items():
            if name not in self.parts:
                self.parts[name] = torch.zeros(2, dtype=self.total.dtype, device=self.total.device)
            self.parts[name][0] += part
            self.parts[name][1] += 1

    def means(self, steps: int) -> tuple[float, dict[str, float]]:
        """Of the loss over so many steps, and of each part over those that had it; what is no number is left out."""
        parts = {name: float(part[0] / part[1]) for name, part in self.parts.items()}
        return float(self.total) / max(1, steps), {name: mean for name, mean in parts.items() if math.isfinite(mean)}

    def clear(self) -> None:
        self.total.zero_()
        self.parts.clear()


class TrainingState:
    """Network, its moving average, the best weights, optimizers, generators and position.

    make: the optimizers of a network; pretrained: what of it nothing has to keep
    """

    def __init__(
        self,
        model: nn.Module,
        make: Callable[[nn.Module], Sequence[Optimizer]],
        *,
        average: bool,
        pretrained: Pretrained = NOTHING,
    ) -> None:
        self.model = model
        self.pretrained = pretrained
        self._make = make
        self.optimizers = Optimizers(make(model))
        self.average: nn.Module | None = _copied(model) if average else None
        self.best: dict[str, Tensor] | None = None
        self._device = next(model.parameters()).device
        self.losses = Losses(self._device)
        self.at = Position()

    @property
    def size(self) -> int:
        """Bytes of a snapshot, nearly: weights, their average and the best ones, two moments of each parameter."""
        weights: int = sum(tensor.nbytes for tensor in self._own(self.model).values())
        return weights * (4 if self.average is None else 5)

    @property
    def judged(self) -> nn.Module:
        """The network whose weights count: the moving average where there is one."""
        return self.average if self.average is not None else self.model

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        if self.average is None:
            return
        # Early weights are far from good: the average's memory grows with the steps taken.
        weight = 1 - min(decay, (1 + self.at.phase_step) / (10 + self.at.phase_step))
        ours, theirs = self._own(self.average), self._own(self.model)
        floats = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[n] for n in floats], [theirs[n] for n in floats], weight)
        for name, tensor in ours.items():
            if not tensor.is_floating_point():
                tensor.copy_(theirs[name])

    def stepped(self) -> Optimizers:
        """The like of the optimizers after a step, on the CPU: only they know what they will remember."""
        parameters = list(self.model.parameters())
        # All have the memory of the largest one: of their values nothing is asked.
        most = {each.dtype: max(p.numel() for p in parameters if p.dtype == each.dtype) for each in parameters}
        values, gradients = (
            {dtype: torch.zeros(count, dtype=dtype) for dtype, count in most.items()} for _ in range(2)
        )

        def part(of: Mapping[torch.dtype, Tensor], parameter: Tensor) -> Tensor:
            return of[parameter.dtype][: parameter.numel()].view(parameter.shape)

        like = {p: nn.Parameter(part(values, p), requires_grad=p.requires_grad) for p in parameters}
        with _in_place(self.model, like):
            optimizers = Optimizers(self._make(self.model))
        for parameter in like.values():
            parameter.grad = part(gradients, parameter) if parameter.requires_grad else None
        optimizers.step(1.0)
        return optimizers

    def train_only(self, trained: Sequence[bool]) -> None:
        """Which parameters train, before `load` in another process than the one that `Problem.begin` ran in."""
        for parameter, here in zip(self.model.parameters(), trained, strict=True):
            parameter.requires_grad_(here)
        self.optimizers = Optimizers(self._make(self.model))

    def keep_best(self) -> None:
        """The weights that count become the best ones. Raises UserCodeFailed as `snapshot` does."""
        self._check_frozen()
        self.best = {name: tensor.detach().clone() for name, tensor in self._own(self.judged).items()}

    def take_best(self) -> None:
        """The network whose weights count gets the best ones, where there are any."""
        if self.best is not None:
            _put(self.judged, self.best)

    def _own(self, model: nn.Module) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in model.state_dict().items() if name not in self.pretrained.names}

    def _check_frozen(self) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and name in self.pretrained.names:
                raise UserCodeFailed(
                    f"'{name}' of the network {_named(self.model)} was frozen when its training began, and is trained:"
                    " what Predictor.pretrained leaves to a file of the image is not kept while it is frozen; let"
                    " Problem.begin unfreeze it, or pretrained not name its module"
                )

    def snapshot(self) -> Snapshot:
        """A copy of the state in host memory. Raises UserCodeFailed for pretrained weights that were unfrozen since."""
        self._check_frozen()
        tensors: dict[str, Tensor] = {}

        def add(prefix: str, values: Mapping[str, Tensor]) -> None:
            for name, tensor in values.items():
                tensors[f"{prefix}/{name}"] = tensor.detach().to("cpu", copy=True).contiguous()

        add("model", self._own(self.model))
        if self.average is not None:
            add("average", self._own(self.average))
        if self.best is not None:
            add("best", self.best)
        remembered, plain = self.optimizers.kept()
        add("optimizer", remembered)
        add("generator", {"cpu": torch.get_rng_state()})
        if self._device.type == "cuda":
            add("generator", {"cuda": torch.cuda.get_rng_state(self._device)})
        add("loss", {"sum": self.losses.total})
        add(PART, self.losses.parts)
        position = {f.name: copy.copy(getattr(self.at, f.name)) for f in fields(Position)}
        files = [asdict(file) for file in self.pretrained.files]
        return Snapshot(self.at.step, tensors, {"position": position, "optimizer": plain, "pretrained": files})

    def check(self, snapshot: Snapshot) -> None:
        """CheckpointInvalid unless the snapshot belongs to this very network and optimizer, and `load` can take it."""
        name = f"the checkpoint at step {snapshot.step}"
        if snapshot.scalars.get("pretrained", []) != [asdict(file) for file in self.pretrained.files]:
            raise CheckpointInvalid(f"{name} is of other pretrained weights")
        own = self._own(self.model)
        expected = {key: (tensor.shape, tensor.dtype) for key, tensor in own.items()}
        groups: dict[str, Mapping[str, Tensor]] = {
            group: _under(group, snapshot.tensors) for group in ("model", "average", "best")
        }
        given = {group: {k: (t.shape, t.dtype) for k, t in tensors.items()} for group, tensors in groups.items()}
        if given["model"] != expected or given["best"] not in ({}, expected):
            raise CheckpointInvalid(f"{name} is of another network")
        if given["average"] != (expected if self.average is not None else {}):
            raise CheckpointInvalid(f"{name} is of another recipe")
        position: Any = snapshot.scalars.get("position")
        if not is_position(position):
            raise CheckpointInvalid(f"{name} is of another version")
        trained = position["best"] is not None or (position["phase"] == DONE and not position["weights"])
        if trained and not given["best"]:
            raise CheckpointInvalid(f"{name} lacks the best weights")
        remembered, plain = _under("optimizer", snapshot.tensors), _plain(snapshot)
        stepped = self.stepped()
        # A parameter that no row has needed yet has nothing.
        lacking = not remembered and not plain and position["phase_step"] and any(stepped.kept())
        if lacking or plain is None or not self.optimizers.fits(remembered, plain, stepped):
            raise CheckpointInvalid(f"{name} is of another optimizer")
        generator, loss = snapshot.tensors.get("generator/cpu"), snapshot.tensors.get("loss/sum")
        if generator is None or loss is None or loss.shape or not _starts(generator):
            raise CheckpointInvalid(f"{name} lacks the random generator or the loss")
        if any(part.shape != (2,) for part in _under(PART, snapshot.tensors).values()):
            raise CheckpointInvalid(f"{name} has a part of the loss that is none")
        weights = own.keys() & {key for key, _ in self.model.named_parameters()}
        found = [group[key] for group in groups.values() if group for key in weights]
        if not all(map(finite, found)):
            raise CheckpointInvalid(f"{name} has weights that are no numbers")

    def load(self, snapshot: Snapshot) -> None:
        """Continues from a snapshot that `check` accepted."""
        tensors = snapshot.tensors
        device = self._device
        _put(self.model, _under("model", tensors))
        if self.average is not None:
            _put(self.average, _under("average", tensors))
        best = _under("best", tensors)
        self.best = {name: tensor.to(device) for name, tensor in best.items()} or None
        self.optimizers.load(_under("optimizer", tensors), _plain(snapshot) or {})
        self.losses.total = tensors["loss/sum"].to(device)
        self.losses.parts = {name: part.to(device) for name, part in _under(PART, tensors).items()}
        self.at = Position(**snapshot.scalars["position"])
        torch.set_rng_state(tensors["generator/cpu"])
        if device.type == "cuda" and "generator/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator/cuda"], device)


@contextmanager
def _in_place(model: nn.Module, others: Mapping[nn.Parameter, nn.Parameter]) -> Iterator[None]:
    """The network has these parameters in place of its own. No copy of it is made: not every network can be copied."""
    own = [(module, dict(module._parameters)) for module in model.modules()]
    try:
        for module, parameters in own:
            module._parameters.update({name: p if p is None else others[p] for name, p in parameters.items()})
        yield
    finally:
        for module, parameters in own:
            module._parameters.update(parameters)


def _copied(model: nn.Module) -> nn.Module:
    """For the moving average. Raises UserCodeFailed for a plug-in's network that cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise UserCodeFailed(
            f"The network {_named(model)} cannot be copied"
            f" ({type(error).__name__}: {error}), as a moving average of its weights (Recipe.ema_decay) needs it;"
            " ema_decay=None or modules that copy.deepcopy takes would be right"
        ) from error


def _named(model: nn.Module) -> str:
    return f"{type(model).__module__}:{type(model).__qualname__}"


def _put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """What is not among them stays: it is pretrained."""
    model.load_state_dict(tensors, strict=False)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix + "/"): t for n, t in tensors.items() if n.startswith(prefix + "/")}


def _plain(snapshot: Snapshot) -> dict[str, Plain] | None:
    """What optimizers remember beside tensors; None: it is something else."""
    found = snapshot.scalars.get("optimizer", {})
    fits = isinstance(found, dict) and all(isinstance(value, Plain) for value in found.values())
    return found if fits else None


def finite(tensor: Tensor) -> bool:
    """In float32, which every type that a file can hold becomes; what is complex is none."""
    return not tensor.is_complex() and bool(torch.isfinite(tensor.float()).all())


def _starts(generator: Tensor) -> bool:
    """Whether a generator can go on from this state."""
    try:
        torch.Generator().set_state(generator)
    except (RuntimeError, TypeError):
        return False
    return True
