"""Runs whose backend trains nothing, with a portal in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.world.trainer_fakes import FakeBackend, FakePortal
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.errors import Terminated
from trainer_image.run import lifecycle
from trainer_image.run.outcome import Outcome
from trainer_image.stop import Stop
from trainer_image.storage.manifest import fingerprint

RUN = "20261123t081500-1a2b3c4d"


def start(
    settings: Settings, portal: FakePortal, during: Callable[[RunInputs], None] = lambda inputs: None, **options: Any
) -> Outcome:
    """One run to its end; during: what happens while it trains. options: another backend, a Stop of the test's own."""
    backend = options.pop("backend", None) or FakeBackend(during)
    return lifecycle.run(
        settings, options.pop("stop", None) or Stop(), backend=lambda: backend, connect=lambda settings: portal
    )


def termination(settings: Settings) -> dict[str, Any]:
    """The termination message."""
    words: dict[str, Any] = json.loads(settings.termination_path.read_bytes())
    return words


def raising(error: BaseException) -> Callable[[RunInputs], None]:
    """A training that fails so."""

    def during(inputs: RunInputs) -> None:
        raise error

    return during


def write_metrics(inputs: RunInputs) -> None:
    (inputs.output / "metrics.jsonl").write_text('{"epoch": 1}\n')


def save(inputs: RunInputs, step: int) -> None:
    """Stores a checkpoint, as a backend does."""
    folder = inputs.output.parent / "checkpoint-x" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    (folder / "MANIFEST.json").write_text(json.dumps({"files": {"state.json": fingerprint(folder / "state.json")}}))
    assert inputs.checkpoints is not None
    inputs.checkpoints.keep(folder)


def dying(inputs: RunInputs) -> None:
    """A training that is killed after its checkpoint at step 7."""
    save(inputs, 7)
    raise Terminated("Stopped", step=7)


class Finding:
    """A training that notes which checkpoints it finds, and what it is told for the report."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.notes: list[str] = []

    def __call__(self, inputs: RunInputs) -> None:
        assert inputs.checkpoints is not None
        self.found = [path.name for path in inputs.checkpoints.newest_first()]
        self.notes = list(inputs.notes)
