"""The state of a training between two steps: everything that a resumed run needs to end with the same weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import ConfigDict, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainer_image.engine.checkpoint import CheckpointInvalid, Snapshot

SEARCH: Final = "search"
REFIT: Final = "refit"
DONE: Final = "done"
# What AdamW keeps of each parameter.
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Position:
    """Where the training stands; all plain numbers.

    phase:   SEARCH (validation chooses the weights), REFIT (training and validation rows together), DONE
    step:    optimizer steps of all phases; phase_step: of this one
    planned: steps after which this phase's schedule ends; stop_at: steps after which this phase ends
    batch:   batches done of the current epoch; block_rows: of this phase, see row_order.py
    best:    validation figure of the best epoch, None before the first
    micro_batch: rows that are computed at a time; probed: that was tried out on this device
    seconds: training time, earlier attempts included
    full:    what `planned` is without a time budget; most: what `stop_at` is
    cycle:   steps of this phase after which the present schedule began: more epochs begin another one
    reached: the best figure when it began
    size:    the network's, of `Problem.sizes`; empty where there is one only
    candidates: one `Entry` each; weights: of those that will be published, by name, once they are chosen
    calibration: of what is published, for `Predictor.use`; empty before that is chosen
    again:   names of those that are to be fitted once more in the refit
    stopped: why the search ended
    """

    # Checked when a checkpoint is read.
    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    phase: Literal["search", "refit", "done"] = SEARCH
    step: NonNegativeInt = 0
    phase_step: NonNegativeInt = 0
    planned: NonNegativeInt = 0
    stop_at: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    batch: NonNegativeInt = 0
    block_rows: NonNegativeInt = 0
    best: float | None = None
    best_epoch: NonNegativeInt = 0
    best_step: NonNegativeInt = 0
    micro_batch: PositiveInt = 1
    probed: bool = False
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    full: NonNegativeInt = 0
    most: NonNegativeInt = 0
    cycle: NonNegativeInt = 0
    reached: float | None = None
    size: str = ""
    candidates: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)
    stopped: str = ""


@dataclass
class Entry:
    """How a candidate fares.

    validation: its figure there, None where it sat out; seconds: that its fits took; chosen: what its fit returned
    again: seconds that a fit of as many rows takes where nothing is to be chosen
    refitted: it has seen training and validation rows
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    name: str
    validation: float | None = None
    seconds: float = 0.0
    note: str = ""
    chosen: dict[str, Any] | None = None
    again: float = 0.0
    refitted: bool = False


class TrainingState:
    """Network, its moving average, the best weights, optimizer, generators and position."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, average: bool) -> None:
        self.model = model
        self.optimizer = optimizer
        self.average: nn.Module | None = copy.deepcopy(model) if average else None
        self.best: dict[str, Tensor] | None = None
        self.loss_sum = torch.zeros((), dtype=torch.float64 if next(model.parameters()).is_cpu else torch.float32)
        self.loss_sum = self.loss_sum.to(next(model.parameters()).device)
        self.at = Position()

    @property
    def size(self) -> int:
        """Bytes of a snapshot, nearly: weights, their average and the best ones, two moments of each parameter."""
        weights: int = sum(tensor.nbytes for tensor in self.model.state_dict().values())
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
        ours, theirs = self.average.state_dict(), self.model.state_dict()
        floats = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[n] for n in floats], [theirs[n] for n in floats], weight)
        for name, tensor in ours.items():
            if not tensor.is_floating_point():
                tensor.copy_(theirs[name])

    def keep_best(self) -> None:
        self.best = {name: tensor.detach().clone() for name, tensor in self.judged.state_dict().items()}

    def snapshot(self) -> Snapshot:
        """A copy of the state in host memory."""
        tensors: dict[str, Tensor] = {}

        def add(prefix: str, values: Mapping[str, Tensor]) -> None:
            for name, tensor in values.items():
                tensors[f"{prefix}/{name}"] = tensor.detach().to("cpu", copy=True).contiguous()

        add("model", self.model.state_dict())
        if self.average is not None:
            add("average", self.average.state_dict())
        if self.best is not None:
            add("best", self.best)
        for index, moments in self.optimizer.state_dict()["state"].items():
            add(f"optimizer/{index}", moments)
        add("generator", {"cpu": torch.get_rng_state()})
        if self.loss_sum.is_cuda:
            add("generator", {"cuda": torch.cuda.get_rng_state(self.loss_sum.device)})
        add("loss", {"sum": self.loss_sum})
        position = {f.name: copy.copy(getattr(self.at, f.name)) for f in fields(Position)}
        return Snapshot(self.at.step, tensors, {"position": position})

    def check(self, snapshot: Snapshot) -> None:
        """CheckpointInvalid unless the snapshot belongs to this very network and optimizer, and `load` can take it."""
        name = f"the checkpoint at step {snapshot.step}"
        own = self.model.state_dict()
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
        if not _is_position(position):
            raise CheckpointInvalid(f"{name} is of another version")
        trained = position["best"] is not None or (position["phase"] == DONE and not position["weights"])
        if trained and not given["best"]:
            raise CheckpointInvalid(f"{name} lacks the best weights")
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        fits = {
            f"{n}/{part}": torch.Size() if part == "step" else p.shape
            for n, p in enumerate(parameters)
            for part in _MOMENTS
        }
        moments = {key: tensor.shape for key, tensor in _under("optimizer", snapshot.tensors).items()}
        # A parameter that no row has needed yet has no moments.
        if not moments.items() <= fits.items() or (not moments and position["phase_step"]):
            raise CheckpointInvalid(f"{name} is of another optimizer")
        if any({f"{key.partition('/')[0]}/{part}" for part in _MOMENTS} - moments.keys() for key in moments):
            raise CheckpointInvalid(f"{name} lacks a part of its optimizer")
        generator, loss = snapshot.tensors.get("generator/cpu"), snapshot.tensors.get("loss/sum")
        if generator is None or loss is None or loss.shape or not _starts(generator):
            raise CheckpointInvalid(f"{name} lacks the random generator or the loss")
        weights = dict(self.model.named_parameters())
        found = [group[key] for group in groups.values() if group for key in weights]
        if not all(map(finite, found)):
            raise CheckpointInvalid(f"{name} has weights that are no numbers")

    def load(self, snapshot: Snapshot) -> None:
        """Continues from a snapshot that `check` accepted."""
        tensors = snapshot.tensors
        device = self.loss_sum.device
        self.model.load_state_dict(_under("model", tensors))
        if self.average is not None:
            self.average.load_state_dict(_under("average", tensors))
        best = _under("best", tensors)
        self.best = {name: tensor.to(device) for name, tensor in best.items()} or None
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer", tensors).items():
            index, key = name.split("/", 1)
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        _lay_out_as_weights(self.optimizer)
        self.loss_sum = tensors["loss/sum"].to(device)
        self.at = Position(**snapshot.scalars["position"])
        torch.set_rng_state(tensors["generator/cpu"])
        if device.type == "cuda" and "generator/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator/cuda"], device)


def _lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Moments from a file are laid out row by row; beside weights of another layout CUDA's fused AdamW refuses them."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix + "/"): t for n, t in tensors.items() if n.startswith(prefix + "/")}


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


@dataclass
class _Epoch:
    """What a position's history has of an epoch, and the report shows."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    phase: Literal["search", "refit"]
    epoch: PositiveInt
    step: NonNegativeInt
    seconds: float
    loss: float
    validation: dict[str, float] = field(default_factory=dict)


def _is_position(given: Any) -> bool:
    """Whether these are the fields of a Position, each of its kind: another version's may mean other things."""
    try:
        # As JSON: strictly, pydantic takes no dict for a dataclass.
        position = TypeAdapter(Position).validate_json(json.dumps(given))
        TypeAdapter(list[_Epoch]).validate_json(json.dumps(position.history))
        TypeAdapter(list[Entry]).validate_json(json.dumps(position.candidates))
    except ValidationError:
        return False
    return isinstance(given, dict) and set(given) == {f.name for f in fields(Position)}


def warm_start(model: nn.Module, folder: Path) -> list[str]:
    """Copies the tensors of a published model that fit by name and shape; returns notes for the report."""
    path = folder / "model.safetensors"
    if not path.is_file():
        return ["Warm start: the previous model has no model.safetensors; training starts afresh."]
    try:
        given = load_file(path)
    except (SafetensorError, OSError, ValueError):
        # A program of the user's may have left anything under this name.
        return ["Warm start: the previous model's model.safetensors is not readable; training starts afresh."]
    # Before models had members, the network's tensors were alone, and their names without a "/".
    if any("/" in name for name in given):
        given = {n.removeprefix("network/"): tensor for n, tensor in given.items() if n.startswith("network/")}
        if not given:
            return ["Warm start: the previous model has no network; training starts afresh."]
    own = model.state_dict()
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape and finite(tensor)
    }
    model.load_state_dict(fitting, strict=False)
    fresh = sorted(set(own) - set(fitting))
    note = f"Warm start: {len(fitting)} of {len(own)} tensors were taken from the previous model"
    return [note + (f"; fresh ones: {', '.join(fresh)}." if fresh else ".")]
