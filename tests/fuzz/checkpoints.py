"""Checkpoints and warm starts, by what a resumed training reads of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _snapshot() -> Any:
    state = _training_state()
    return state.snapshot()


def _training_state() -> Any:
    import torch

    from trainer_image.engine.steps.state import TrainingState

    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    state = TrainingState(model, lambda network: [torch.optim.AdamW(network.parameters())], average=True)
    model(torch.ones(1, 3)).sum().backward()
    state.optimizers.step(1.0)
    state.keep_best()
    state.at.step = state.at.phase_step = 1
    epoch = {"phase": "search", "epoch": 1, "step": 1, "seconds": 0.1, "loss": 0.5, "validation": {"accuracy": 0.9}}
    state.at.history.append(epoch)
    return state


@cache
def scalar_files() -> Sequence[bytes]:
    snapshot = _snapshot()
    return [json.dumps({"format": 1, "step": snapshot.step, **snapshot.scalars}).encode()]


@cache
def tensor_files() -> Sequence[bytes]:
    from safetensors.torch import save

    return [save(dict(_snapshot().tensors))]


def checkpoint(*, tensors: bool) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.engine import checkpoint
        from trainer_image.storage.manifest import fingerprint

        (folder / checkpoint.TENSORS).write_bytes(content if tensors else tensor_files()[0])
        (folder / checkpoint.STATE).write_bytes(scalar_files()[0] if tensors else content)
        files = {name: fingerprint(folder / name) for name in (checkpoint.TENSORS, checkpoint.STATE)}
        (folder / checkpoint.MANIFEST).write_text(json.dumps({"files": files}))
        state = _training_state()
        store = _Store(folder)
        snapshot, _ = checkpoint.resume(store, state.check)
        if snapshot is not None:
            state.load(snapshot)
        return snapshot

    return read


@dataclass(frozen=True)
class _Store:
    folder: Path

    def newest_first(self) -> Iterator[Path]:
        yield self.folder

    def keep(self, folder: Path) -> None:
        raise NotImplementedError


def warm(folder: Path, content: bytes) -> object:
    from trainer_image.engine.warm_start import warm_start

    (folder / "model.safetensors").write_bytes(content)
    return warm_start(_training_state().model, folder)


@cache
def warm_tensors() -> Sequence[bytes]:
    from safetensors.torch import save

    return [save(_training_state().model.state_dict())]
