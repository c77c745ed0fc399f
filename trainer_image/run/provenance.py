"""How a model was made, published beside it: its configuration, the dataset's files, the software and the device."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

from trainer_image.config.model_config import Config, as_yaml
from trainer_image.config.settings import Settings
from trainer_image.host import hidden
from trainer_image.storage.manifest import as_json
from trainer_image.transfer.download import DatasetLock


def files(config: Config, lock: DatasetLock, settings: Settings, accelerator: Mapping[str, str]) -> dict[str, bytes]:
    """config.resolved.yaml, dataset.lock.json and environment.json. accelerator: see RunResult"""
    return {
        "config.resolved.yaml": as_yaml(hidden.value(config.resolved())).encode(),
        "dataset.lock.json": as_json(lock.as_json()),
        "environment.json": as_json(environment(settings.device, settings.image, settings.run_id, accelerator)),
    }


def environment(device: str, image: str | None, run_id: str, accelerator: Mapping[str, str]) -> dict[str, Any]:
    """What environment.json holds: enough to build the same surroundings again."""
    packages = {
        distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()
    }
    return {
        "run_id": run_id,
        "image": image,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": {"asked": device, **(accelerator or {"name": platform.processor() or platform.machine()})},
        "packages": dict(sorted(packages.items(), key=lambda item: str(item[0]).lower())),
    }
