"""Small tables, read and prepared for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.world.training_data import write_csv
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.tabular.task import Tabular, TabularProblem


def prepared(tmp_path: Path, columns: dict[str, list[Any]], **settings: Any) -> TabularProblem:
    """train.csv with these columns, prepared for the target y; settings: of TaskSettings."""
    header, rows = list(columns), zip(*columns.values(), strict=True)
    write_csv(tmp_path / "train.csv", header, rows)
    problem = Tabular().prepare(tmp_path, TaskSettings(target="y", **settings))
    assert isinstance(problem, TabularProblem)
    return problem


def noise(rows: int) -> list[str]:
    """A target without any relation to its row: yes or no."""
    return [str(value) for value in np.random.default_rng(1).choice(["no", "yes"], rows)]
