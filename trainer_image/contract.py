"""What a run (storage, portal, signals) and its backend (engine and tasks, or a program) know of each other.

They are two processes, and this crosses the pipe between them: see trainer_image.worker.

The run passes a `RunInputs` to the backend's `train` and gets a `RunResult`; anything that goes wrong is a
`trainer_image.errors.TrainerError`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainer_image.host import hidden
from trainer_image.limits import Limits

if TYPE_CHECKING:
    from trainer_image.config.model_config import Config
    from trainer_image.errors import TrainerError


__all__ = [
    "Beside",
    "Champion",
    "CheckpointStore",
    "Limits",
    "Place",
    "Progress",
    "RunInputs",
    "RunResult",
]  # plug-ins take Limits from here


@dataclass(frozen=True)
class Progress:
    """What a person waiting wants to know: one line, e.g. "Epoch 7 of 20, loss 0.312, validation accuracy 0.91".

    As `portal_client.progress_text` writes it, it becomes a bar and a curve on the dispatcher's status page.
    """

    message: str
    step: int


@dataclass(frozen=True)
class Place:
    """Where this pod stands in a training on several nodes. node: counted from 0; nodes: how many there are

    address, port: node 0 listens there for the others
    """

    node: int
    nodes: int
    address: str
    port: int


@dataclass(frozen=True)
class Champion:
    """The model that is published when a run begins. folder: its files, as far as a test of it needs them"""

    run_id: str
    folder: Path


@dataclass(frozen=True)
class Beside:
    """How a new model did beside the champion.

    better: by the headline figure, on rows that neither was trained on; None: they could not be compared
    sentence: says it, and why not
    """

    better: bool | None
    sentence: str


class CheckpointStore(Protocol):
    """Keeps checkpoints beyond the pod. A checkpoint is a folder of files, copied away and brought back."""

    def newest_first(self) -> list[Path]:
        """Local folders of the checkpoints that exist for this run key, newest first (fetched when asked)."""

    def keep(self, folder: Path) -> None:
        """Take over a finished local folder `step-N` (its manifest is written); returns when it is stored."""

    def make_room(self) -> bool:
        """A disk is full: remove what a training can do without, older checkpoints. Whether anything was removed."""


def _exit(error: TrainerError) -> None:
    os._exit(error.exit_code)


@dataclass(frozen=True)
class RunInputs:
    """All that a backend may use.

    data:    folder with the dataset as listed in the container, verified, read-only by convention
    output:  empty folder: model.safetensors, model.json, rows.safetensors, metrics.jsonl, report.json, report.html,
             README.md
    device:  "auto", "cpu", "cuda" or "cuda:N"
    gpus:    the number that was promised to this pod; 0: none
    processes: how many train together; 0: one for each GPU that is visible
    hang_seconds: without a step for this time the training hangs; 0: never
    last_resort: tells the failure and ends the process, from any thread; for what no exception can reach
    notes:   what the report should say besides
    shown:   the resolved configuration as everybody may read it, without secrets; by default without those that this
             process knows
    stop:    set on SIGTERM or when the portal took the model away; the engine ends the step, saves a
             checkpoint if it can and raises `errors.Terminated`
    progress: cheap, non-blocking, callable from any thread
    initial: the folder of the model of a warm start, `init.from`, else None
    champion: what the new model is to be tested beside; None: there is none
    place:   where several nodes train together; None: this one alone. Node 0 trains, the others follow it
    """

    config: Config
    data: Path
    output: Path
    run_id: str
    run_key: str
    dataset_fingerprint: str
    device: str
    limits: Limits
    stop: threading.Event
    progress: Callable[[Progress], None]
    checkpoints: CheckpointStore | None = None
    initial: Path | None = None
    grace_seconds: float = 30.0
    gpus: int = 0
    processes: int = 0
    hang_seconds: float = 0.0
    last_resort: Callable[[TrainerError], None] = _exit
    notes: tuple[str, ...] = ()
    shown: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = None
    champion: Champion | None = None

    def __post_init__(self) -> None:
        if not self.shown:
            object.__setattr__(self, "shown", hidden.value(self.config.resolved()))


@dataclass(frozen=True)
class RunResult:
    """metrics: the test split's figures by name, e.g. {"accuracy": 0.97}; the first one is the headline.

    baselines: the same figures of "trivial" and "linear"
    steps:     optimizer steps taken, earlier attempts included
    accelerator: what trained it: its name, and the version of CUDA
    verdict:   what the report says of the model beside its baselines
    champion:  what it says of the model beside the published one; None: there was none to test it beside
    """

    task: str
    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    steps: int
    seconds: float
    accelerator: Mapping[str, str] = field(default_factory=dict)
    verdict: str = ""
    champion: Beside | None = None
