"""Frozen weights that lie in the image: no checkpoint and no model stores them, each names their file instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer_image.storage.blob_names import printable
from trainer_image.storage.manifest import fingerprint
from trainer_image.tasks.base import Predictor, restored
from trainer_image.tasks.hooks import failed


@dataclass(frozen=True)
class File:
    """A module of the network whose weights are a file's, told by its name and content; as JSON in model.json."""

    module: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Pretrained:
    """names: of the network's tensors that are not stored; files: where they are"""

    names: frozenset[str] = frozenset()
    files: tuple[File, ...] = ()

    @property
    def said(self) -> list[str]:
        """A sentence for each file, for the report."""
        return [
            f"The frozen weights of {file.module} are the image's, from {file.file} (SHA-256 {file.sha256[:12]}…), and"
            " are not stored again: predict needs the same file."
            for file in self.files
        ]


NOTHING = Pretrained()


def found(predictor: Predictor, model: nn.Module, built: Mapping[str, Tensor]) -> Pretrained:
    """What of the model need not be stored: frozen parameters of the modules that `Predictor.pretrained` names, as far
    as they are what `build_model` gave them (built) and nothing has changed them since. Raises UserCodeFailed."""
    names, files = set(), []
    for module, path in predictor.pretrained().items():
        try:
            parameters = model.get_submodule(module).named_parameters(prefix=module)
        except AttributeError:
            raise failed(predictor, "pretrained", f"'{module}', which is no module of the network") from None
        frozen = {name for name, p in parameters if not p.requires_grad and torch.equal(p.cpu(), built[name].cpu())}
        if frozen:
            names |= frozen
            if not Path(path).is_file():
                raise failed(predictor, "pretrained", f"{path}, which is no file of this image")
            files.append(File(module, Path(path).name, fingerprint(Path(path))["sha256"]))
    return Pretrained(frozenset(names), tuple(files))


def check(predictor: Predictor, described: Any) -> tuple[str, ...]:
    """The modules whose weights a stored model leaves to the image, as its description says it (a stranger's JSON).

    Raises ValueError where the image has other files or none.
    """
    files = restored(tuple[File, ...], described)
    own = predictor.pretrained() if files else {}
    for file in files:
        name = printable(file.file)[:100]
        needed = f"it needs the weights {name} (SHA-256 {printable(file.sha256)[:12]}…) of the image that trained it"
        if file.module not in own:
            raise ValueError(f"{needed}, of which its task knows nothing here")
        path = Path(own[file.module])
        if not path.is_file():
            raise ValueError(f"{needed}; there is no {path} here")
        if fingerprint(path)["sha256"] != file.sha256:
            raise ValueError(f"{needed}; {path} holds others here")
    return tuple(file.module for file in files)
