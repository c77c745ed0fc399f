"""The optimizers of a network, as one: how they step, and what of them a checkpoint keeps, whatever they are."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer_image.errors import UserCodeFailed

# Where something is remembered: "3", the fourth parameter, or "group 1"; of no parameter, "optimizer 1", and of a dict
# under a name of its own, "optimizer 1 NAME"; and there, name → value. Parameters and groups are counted through all
# optimizers.
Remembered = dict[str, dict[str, Any]]
Plain = bool | int | float | str | None


class Optimizers:
    """made: as the task made them, none of which has stepped"""

    def __init__(self, made: Sequence[Optimizer]) -> None:
        self._made = list(made)
        groups = [group for each in made for group in each.param_groups]
        # One that knows no learning rate, or finds it by itself, goes without a schedule.
        self._peaks = [
            float(rate) if isinstance(rate := group.get("lr"), float | int | Tensor) else None for group in groups
        ]
        self._settings = [
            copy.deepcopy({name: value for name, value in group.items() if name not in ("params", "lr")})
            for group in groups
        ]

    def step(self, factor: float) -> None:
        """On the gradients that are there. factor: of every learning rate's peak"""
        groups = [group for each in self._made for group in each.param_groups]
        for group, peak in zip(groups, self._peaks, strict=True):
            if peak is not None and isinstance(group["lr"], Tensor):
                group["lr"].fill_(peak * factor)
            elif peak is not None:
                group["lr"] = peak * factor
        for each in self._made:
            each.step()

    def kept(self) -> tuple[dict[str, Tensor], dict[str, Plain]]:
        """All that they remember, by "place/name": tensors, and what JSON can hold. Raises UserCodeFailed for anything
        else."""
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Plain] = {}
        for place, values in self._remembered().items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"{place}/{name}"] = value
                elif isinstance(value, Plain):
                    plain[f"{place}/{name}"] = value
                else:
                    who = ", ".join(f"{type(each).__module__}:{type(each).__qualname__}" for each in self._made)
                    raise UserCodeFailed(
                        f"No checkpoint can hold the {type(value).__name__} that an optimizer ({who}) remembers as"
                        f" '{name}'; tensors, numbers and text would be right"
                    )
        return tensors, plain

    def fits(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Plain], stepped: Optimizers) -> bool:
        """Whether `load` can take what `kept` once returned. stepped: the like of these, after a step"""
        settings = {f"group {number}": values for number, values in enumerate(self._settings)}
        wanted = {**stepped._remembered(), **settings}
        for place, values in _by_place(tensors, plain).items():
            like = wanted.get(place, {})
            if not (values.keys() <= like.keys() if place in settings else values.keys() == like.keys()):
                return False
            if not all(_alike(value, like[name]) for name, value in values.items()):
                return False
        return True

    def load(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Plain]) -> None:
        """Goes on from what `kept` returned and `fits` accepted."""
        given, parameter, group = _by_place(tensors, plain), 0, 0
        for number, each in enumerate(self._made):
            device = each.param_groups[0]["params"][0].device
            at, groups = f"optimizer {number}", []
            own: dict[Any, Any] = _moved(given.get(at, {}), device)
            own |= {
                unquote(place.removeprefix(f"{at} ")): _moved(values, device)
                for place, values in given.items()
                if place.startswith(f"{at} ")
            }
            for settings in each.state_dict()["param_groups"]:
                groups.append({**settings, **given.get(f"group {group}", {})})
                group += 1
            for index in range(sum(len(settings["params"]) for settings in groups)):
                if str(parameter) in given:
                    own[index] = given[str(parameter)]
                parameter += 1
            each.load_state_dict({"state": own, "param_groups": groups})
            _lay_out_as_weights(each)

    def _remembered(self) -> Remembered:
        found: Remembered = {}
        parameters = group = 0
        for number, each in enumerate(self._made):
            said = each.state_dict()
            for index, values in said["state"].items():
                if isinstance(index, int):
                    found[str(parameters + index)] = values
                elif isinstance(values, dict):
                    found[f"optimizer {number} {quote(str(index), safe='')}"] = values
                else:
                    found.setdefault(f"optimizer {number}", {})[str(index)] = values
            for settings in said["param_groups"]:
                before = self._settings[group]
                changed = {k: v for k, v in settings.items() if k in before and not _equal(v, before[k])}
                if changed:
                    found[f"group {group}"] = changed
                parameters, group = parameters + len(settings["params"]), group + 1
        return found


def _moved(values: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """As torch places what belongs to a parameter: on its device, but for counters."""
    return {
        name: value.to(device) if isinstance(value, Tensor) and value.ndim else value for name, value in values.items()
    }


def _by_place(*kept: Mapping[str, Any]) -> Remembered:
    found: Remembered = {}
    for values in kept:
        for key, value in values.items():
            place, _, name = key.partition("/")
            found.setdefault(place, {})[name] = value
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one is other or bool(one == other)


def _alike(value: Any, like: Any) -> bool:
    """Whether it may stand in this one's place: a tensor of its shape and type, a number for a number."""
    if isinstance(value, Tensor) and isinstance(like, Tensor):
        return value.shape == like.shape and value.dtype == like.dtype
    if isinstance(value, float | int) and isinstance(like, float | int):
        return True
    return like is None or type(value) is type(like)


def _lay_out_as_weights(optimizer: Optimizer) -> None:
    """Moments from a file are laid out row by row; beside weights of another layout CUDA's fused AdamW refuses them."""
    of_parameters = {place: state for place, state in optimizer.state.items() if isinstance(place, Tensor)}
    for parameter, state in of_parameters.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
