"""What the tests of the trainer share."""

from __future__ import annotations

from typing import Any, Self

import pytest

from trainer_image import cli
from trainer_image import predict as predicting
from trainer_image.engine import training
from trainer_image.run import backend


class _Here:
    """In the worker's place: what it would do, in this process, which has imported torch already."""

    check_config = staticmethod(training.check_config)
    validate_dataset = staticmethod(training.validate_dataset)
    predict = staticmethod(predicting.show_predictions)
    write = staticmethod(predicting.show_continuation)

    def __init__(self, *of: object, **settings: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def without_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """`validate` and `predict` of the command line start no process: for what a worker adds nothing to but seconds.

    That the same sentences come out of a worker is tests/trainer_image/worker's to show.
    """
    monkeypatch.setattr(backend, "start_worker", _Here)
    monkeypatch.setattr(cli, "Worker", _Here)
