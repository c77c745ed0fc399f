"""The candidates that are fitted, and what a checkpoint keeps of them: killed, a training fits none of them again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer_image.engine.checkpoint import CheckpointInvalid, Snapshot
from trainer_image.engine.published import build, under
from trainer_image.engine.steps.state import finite
from trainer_image.tasks.base import Json, Predictor

# Before the names of a candidate's tensors in a snapshot; of a refit that is ready, those that differ from its first
# fit's.
FITTED, READY = "candidate/", "refit/"


class Fits:
    """By name, what the candidates' fits have left.

    modules: in evaluation mode, never trained further; tensors: of all, as a snapshot has them
    """

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.tensors: dict[str, Tensor] = {}
        self._ready: dict[str, nn.Module] = {}

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def keep(self, name: str, module: nn.Module) -> None:
        """In place of what is there of this name."""
        self.remove(name)
        self.modules[name] = _at_rest(module)
        self.tensors |= {f"{FITTED}{name}/{key}": tensor for key, tensor in _copied(module).items()}

    def keep_ready(self, name: str, module: nn.Module) -> None:
        """The refit of a candidate that is kept, made beforehand, of tensors of the same names."""
        self._ready[name] = _at_rest(module)
        first = under(FITTED + name, self.tensors)
        changed = {key: tensor for key, tensor in _copied(module).items() if not torch.equal(tensor, first[key])}
        self.tensors |= {f"{READY}{name}/{key}": tensor for key, tensor in changed.items()}

    def ready(self, name: str) -> nn.Module | None:
        """The refit, where it was made beforehand."""
        return self._ready.get(name)

    def remove(self, name: str) -> None:
        """Whatever is there of this name."""
        self.modules.pop(name, None)
        self._ready.pop(name, None)
        of = f"{FITTED}{name}/", f"{READY}{name}/"
        self.tensors = {key: tensor for key, tensor in self.tensors.items() if not key.startswith(of)}


def read(snapshot: Snapshot, names: set[str], predictor: Predictor) -> Fits:
    """What the snapshot has of the candidates of these names. CheckpointInvalid where that is not theirs."""
    found, step = Fits(), f"the checkpoint at step {snapshot.step}"
    for entry in snapshot.scalars["position"]["candidates"]:
        name = entry["name"]
        if name not in names:
            raise CheckpointInvalid(f"{step} has a candidate that is none")
        if entry["chosen"] is None:
            continue
        first = under(FITTED + name, snapshot.tensors)
        found.keep(name, _built(predictor, name, entry["chosen"], first, step))
        if changed := under(READY + name, snapshot.tensors):
            found.keep_ready(name, _built(predictor, name, entry["chosen"], first | changed, step))
    return found


def _built(predictor: Predictor, name: str, chosen: Json, tensors: dict[str, Tensor], step: str) -> nn.Module:
    try:
        module = build(predictor, name, chosen)
    except Exception as error:  # whatever a stranger's JSON makes it stumble over
        raise CheckpointInvalid(f"{step} has another {name}: {error}") from None
    shapes = [{key: (t.shape, t.dtype) for key, t in of.items()} for of in (module.state_dict(), tensors)]
    if shapes[0] != shapes[1]:
        raise CheckpointInvalid(f"{step} has another {name}")
    if not all(map(finite, tensors.values())):
        raise CheckpointInvalid(f"{step} has weights that are no numbers")
    module.load_state_dict(tensors)
    return module


def _at_rest(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(requires_grad=False)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in module.state_dict().items()}
