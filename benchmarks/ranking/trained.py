"""One training of ours as a ranking needs it: from a dataset's folder to the model's."""

from __future__ import annotations

import threading
from pathlib import Path

from trainer_image.config.model_config import parse_config
from trainer_image.contract import RunInputs
from trainer_image.engine.training import train
from trainer_image.limits import Limits


def trained(data: Path, config: str) -> Path:
    """The folder that the trainer leaves of the dataset in `data`, beside it."""
    inputs = RunInputs(
        config=parse_config(config.encode()),
        data=data,
        output=data.parent / "out",
        run_id="ranking",
        run_key="ranking",
        dataset_fingerprint="ranking",
        device="cpu",
        limits=Limits(),
        stop=threading.Event(),
        progress=lambda progress: None,
    )
    train(inputs)
    return data.parent / "out"
