"""Stand-ins for the trainer's neighbours: a portal in memory, a backend that trains nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from portal_client.errors import PortalError
from portal_client.statuses import ModelStatus, ProcessingStatus
from trainer_image.config.model_config import Config
from trainer_image.contract import Beside, Progress, RunInputs, RunResult
from trainer_image.limits import Limits


class FakePortal:
    """Keeps one model's status; `faults` holds an error or None for each of the next calls."""

    def __init__(self, status: ProcessingStatus = ProcessingStatus.CREATED) -> None:
        self.status = status
        self.message = ""
        self.calls: list[str] = []
        self.puts: list[tuple[str, str]] = []
        self.faults: list[PortalError | None] = []
        self.down: PortalError | None = None

    def get_model_status(self, model_id: str) -> ModelStatus:
        self.calls.append("GET")
        self._fail()
        return ModelStatus(self.status, self.message)

    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        self.calls.append(f"PUT {status.title}")
        self._fail()
        self.status, self.message = status, message
        self.puts.append((status.title, message))

    def _fail(self) -> None:
        fault = self.faults.pop(0) if self.faults else self.down
        if fault is not None:
            raise fault


class FakeBackend:
    """Writes two files and reports two steps of progress; `during` runs in between, with the inputs.

    abandoned: set when it is to end at once; beside: what it says of the published model
    """

    def __init__(self, during: Callable[[RunInputs], None] = lambda inputs: None, beside: Beside | None = None) -> None:
        self.during = during
        self.beside = beside
        self.inputs: list[RunInputs] = []
        self.checked: list[Config] = []
        self.abandoned = threading.Event()

    def check_config(self, config: Config, limits: Limits) -> None:
        self.checked.append(config)

    def train(self, inputs: RunInputs) -> RunResult:
        self.inputs.append(inputs)
        inputs.progress(Progress("Epoch 1 of 2", step=1))
        self.during(inputs)
        inputs.progress(Progress("Epoch 2 of 2", step=2))
        (inputs.output / "model.safetensors").write_bytes(b"weights")
        (inputs.output / "model.json").write_text("{}")
        figures, baselines = {"accuracy": 0.9}, {"trivial": {"accuracy": 0.5}}
        return RunResult("tabular", figures, baselines, steps=2, seconds=0.1, champion=self.beside)

    def follow(self, inputs: RunInputs) -> None:
        self.inputs.append(inputs)
        self.during(inputs)

    def abandon(self) -> None:
        self.abandoned.set()

    def validate_dataset(self, inputs: RunInputs) -> str:
        self.inputs.append(inputs)
        return "a table"


def write_dataset(folder: Path) -> Path:
    """A small table in `folder`/data."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "train.csv").write_text("a,b\n1,2\n3,4\n")
    return data


def write_config(folder: Path, text: str = "task: tabular\ndata: {target: b}\n") -> Path:
    config = folder / "config.yaml"
    config.write_text(text)
    return config
