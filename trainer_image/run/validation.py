"""The check of a configuration and its dataset, without a training: what `validate` does."""

from __future__ import annotations

from trainer_image.config.model_config import run_key
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.run.backend import backend_for
from trainer_image.run.work_folder import work_folder
from trainer_image.stop import Stop
from trainer_image.transfer.download import DatasetLock
from trainer_image.transfer.sources import Sources


def check(settings: Settings, stop: Stop) -> tuple[DatasetLock, str]:
    """What was read, and what the backend says the dataset is. Raises TrainerError for whatever is wrong with it."""
    with work_folder(settings) as work, Sources(settings, stop, work) as sources:
        config = sources.config()
        load = backend_for(config, settings)
        data = sources.start_download(config, lambda progress: None)
        backend = load()
        backend.check_config(config, settings.limits)
        lock = data.wait()
        output = work / "output"
        output.mkdir()
        inputs = RunInputs(
            config=config,
            data=data.folder,
            output=output,
            run_id=settings.run_id,
            run_key=run_key(config, lock.fingerprint, None),
            dataset_fingerprint=lock.fingerprint,
            device=settings.device,
            limits=settings.limits,
            stop=stop.event,
            progress=lambda progress: None,
        )
        return lock, backend.validate_dataset(inputs)
