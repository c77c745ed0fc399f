"""A model as it is published: its members, each with a weight, written, read and evaluated.

The test at the end of a training, its report and `predict` all evaluate here: so one says what the other said.

    model.safetensors   "network/…", "boosted trees/…": the tensors of each member
    model.json          {"format": 2, "task", "run_id", "model", "members": [{"name", "weight", "chosen"}, …],
                         "calibration": {"temperature", "offsets"}, "pretrained": [{"module", "file", "sha256"}, …]}

In format 1 the network is the only member, and its tensors' names have nothing before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer_image.engine.steps import pretrained
from trainer_image.engine.steps.evaluation import evaluate
from trainer_image.engine.steps.pretrained import NOTHING, Pretrained
from trainer_image.storage.manifest import write_json
from trainer_image.tasks.base import Batch, Json, Outputs, Predictor, restored
from trainer_image.tasks.calibration import Calibration

FORMAT = 2
NETWORK = "network"
TENSORS, DESCRIPTION = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Member:
    """chosen: what the candidate's fit returned, for `Predictor.build_candidate`; of the network nothing

    pretrained: tensors that are not stored
    """

    name: str
    weight: float
    module: nn.Module
    chosen: Json
    pretrained: Pretrained = NOTHING


@dataclass(frozen=True)
class Published:
    """Members in evaluation mode, whose weights add up to 1, and what their outputs mean."""

    predictor: Predictor
    members: Sequence[Member]

    def outputs(self, split: Batch, device: torch.device, beat: Callable[[], None] = lambda: None) -> Outputs:
        """What is predicted for every row of a split: see `evaluate`."""
        predictor = self.predictor
        if self._mixture is not None:
            mixed = evaluate(predictor, self._mixture.to(device), split, device, beat)
        else:
            found = [evaluate(predictor, member.module.to(device), split, device, beat) for member in self.members]
            mixed = predictor.blend(found, [member.weight for member in self.members])
        scaled: Outputs = predictor.calibration.apply(mixed)
        return scaled

    @property
    def foremost(self) -> nn.Module:
        """Where one module has to do, to write a text say: all members' mixture, else the network where it is a member,
        else the weightiest."""
        if self._mixture is not None:
            return self._mixture
        return max(self.members, key=lambda member: (member.name == NETWORK, member.weight)).module

    @cached_property
    def _mixture(self) -> nn.Module | None:
        """The one module that predicts what is published; None: outputs are blended."""
        if len(self.members) == 1:
            return self.members[0].module
        mixed = self.predictor.mixture(
            [member.module for member in self.members], [member.weight for member in self.members]
        )
        return None if mixed is None else mixed.eval()

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{member.name}/{name}": tensor.detach().cpu().contiguous().clone()
            for member in self.members
            for name, tensor in member.module.state_dict().items()
            if name not in member.pretrained.names
        }

    @property
    def numbers(self) -> int:
        """How many there are in all tensors, those that are not stored included."""
        return sum(tensor.numel() for member in self.members for tensor in member.module.state_dict().values())

    def write(self, folder: Path, described: Json) -> None:
        """described: what else model.json says"""
        save_file(self.tensors, folder / TENSORS, metadata={"format": "pt"})
        members = [{"name": each.name, "weight": each.weight, "chosen": each.chosen} for each in self.members]
        calibration = asdict(self.predictor.calibration)
        found = {"format": FORMAT, **described, "members": members, "calibration": calibration}
        if files := [asdict(file) for member in self.members for file in member.pretrained.files]:
            found["pretrained"] = files
        write_json(folder / DESCRIPTION, found)


@dataclass(frozen=True)
class _Described:
    """A member as model.json has it."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern="^[^/]+$")]
    weight: Annotated[float, Field(gt=0, le=1)]
    chosen: Json


def read(folder: Path, description: Json, predictor: Predictor, *, trusted: bool) -> Published:
    """The model in the folder. Raises ValueError, FileNotFoundError and whatever a stranger's description leads to.

    description: model.json; trusted: of a task whose code may need real tensors while it builds a network
    """
    if description["format"] == 1:
        described = [_Described(NETWORK, 1.0, {})]
        tensors = {f"{NETWORK}/{name}": tensor for name, tensor in load_file(folder / TENSORS).items()}
    else:
        listed = description["members"]
        if not isinstance(listed, list) or not listed:
            raise ValueError("model.json lists no members")
        described = [restored(_Described, member) for member in listed]
        if len({member.name for member in described}) < len(described):
            raise ValueError("model.json lists a member twice")
        predictor.use(restored(Calibration, description["calibration"]))
        tensors = load_file(folder / TENSORS)
    if not trusted:
        with torch.device("meta"):  # so that no memory is taken but for what the file holds as well
            _compare({member.name: _built(predictor, member) for member in described}, tensors)
    elsewhere = pretrained.check(predictor, description.get("pretrained", []))
    modules = {member.name: _built(predictor, member) for member in described}
    _compare(modules, tensors, elsewhere)
    members = []
    for member in described:
        module = modules[member.name]
        module.load_state_dict(under(member.name, tensors), strict=False)
        members.append(Member(member.name, member.weight, module.eval(), member.chosen))
    return Published(predictor, members)


def _built(predictor: Predictor, member: _Described) -> nn.Module:
    return build(predictor, member.name, member.chosen)


def build(predictor: Predictor, name: str, chosen: Json) -> nn.Module:
    """A module for the tensors of the member of this name. Raises ValueError."""
    return predictor.build_model() if name == NETWORK else predictor.build_candidate(name, chosen)


def under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one member, by their names within it."""
    return {key.removeprefix(name + "/"): tensor for key, tensor in tensors.items() if key.startswith(name + "/")}


def _compare(modules: Mapping[str, nn.Module], found: Mapping[str, Tensor], elsewhere: Sequence[str] = ()) -> None:
    """Raises ValueError, which names the first tensor that is not as the description wants it.

    elsewhere: modules of the network whose parameters may lack: they are in the image
    """
    may_lack = {
        f"{NETWORK}/{name}"
        for module in elsewhere
        for name, _ in modules[NETWORK].get_submodule(module).named_parameters(prefix=module)
    }
    wanted = {
        name: tensor
        for member, module in modules.items()
        for key, tensor in module.state_dict().items()
        if (name := f"{member}/{key}") in found or name not in may_lack
    }
    for name in sorted(wanted.keys() | found.keys()):
        shapes = [tuple(them[name].shape) if name in them else None for them in (wanted, found)]
        if shapes[0] != shapes[1]:
            there = "no tensor" if shapes[1] is None else f"a tensor of shape {shapes[1]}"
            right = "none" if shapes[0] is None else f"shape {shapes[0]}"
            shown = name.removeprefix(f"{NETWORK}/")
            raise ValueError(f"{TENSORS} holds {there} '{shown}'; {DESCRIPTION} describes {right}")
