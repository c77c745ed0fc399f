"""How a model was made, written beside it: its configuration, the dataset's files, the software and the device."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any

from trainer_image.config.model_config import Config, as_yaml
from trainer_image.config.settings import Settings
from trainer_image.host import hidden
from trainer_image.storage.manifest import write_json
from trainer_image.transfer.download import DatasetLock


def write(output: Path, config: Config, lock: DatasetLock, settings: Settings) -> None:
    """config.resolved.yaml, dataset.lock.json and environment.json in the folder `output`."""
    (output / "config.resolved.yaml").write_text(as_yaml(hidden.value(config.resolved())), encoding="utf-8")
    write_json(output / "dataset.lock.json", lock.as_json())
    write_json(output / "environment.json", environment(settings.device, settings.image, settings.run_id))


def environment(device: str, image: str | None, run_id: str) -> dict[str, Any]:
    """What environment.json holds: enough to build the same surroundings again."""
    packages = {
        distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()
    }
    return {
        "run_id": run_id,
        "image": image,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": {"asked": device, **_accelerator()},
        "packages": dict(sorted(packages.items(), key=lambda item: str(item[0]).lower())),
    }


def _accelerator() -> dict[str, Any]:
    """Asks torch only where the training has loaded it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"name": platform.processor() or platform.machine()}
    return {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
