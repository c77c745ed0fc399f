"""A training that begins with the tensors of a model that is there."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from trainer_image.engine.steps.state import finite


def warm_start(model: nn.Module, folder: Path, pretrained: Collection[str] = ()) -> list[str]:
    """Copies the tensors of a published model that fit by name and shape; returns notes for the report.

    pretrained: names of tensors that it has already, and keeps
    """
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
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in pretrained}
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape and finite(tensor)
    }
    model.load_state_dict(fitting, strict=False)
    fresh = sorted(set(own) - set(fitting))
    note = f"Warm start: {len(fitting)} of {len(own)} tensors were taken from the previous model"
    return [note + (f"; fresh ones: {', '.join(fresh)}." if fresh else ".")]
