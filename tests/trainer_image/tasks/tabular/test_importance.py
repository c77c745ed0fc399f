"""What the report says of columns and of repeated rows is what the data were made to show."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer_image.engine import looking
from trainer_image.tasks import metrics, repeated
from trainer_image.tasks.base import Batch
from trainer_image.tasks.importance import measured
from trainer_image.tasks.stretches import Stretch, Stretches

PLACES = {"counts": {"dense": [0]}, "helps": {"dense": [1, 2]}, "code": {"codes": [0]}, "none": {"dense": [3]}}


def outputs(batch: Batch) -> Tensor:
    return 3 * batch["dense"][:, 0] + batch["dense"][:, 1] + 0.5 * batch["codes"][:, 0]


def rows(count: int = 400) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = {
        "dense": torch.randn(count, 4, generator=generator),
        "codes": torch.randint(0, 2, (count, 1), generator=generator),
    }
    return batch | {"target": outputs(batch)}


def score(outputs: Tensor, batch: Batch) -> dict[str, float]:
    return metrics.regression(outputs, batch["target"])


@pytest.mark.parametrize("name", ["r2", "rmse"])
def test_columns_are_ordered_by_what_the_figure_loses_without_them(name: str) -> None:
    batch = rows()
    before = {key: tensor.clone() for key, tensor in batch.items()}
    found = measured(outputs, score, batch, PLACES, metrics.REGRESSION[name], 60)
    assert found is not None
    assert [entry["column"] for entry in found["columns"]] == ["counts", "helps", "code", "none"]
    assert found["columns"][-1]["loss"] == 0
    first = found["columns"][0]
    assert first["lowest"] < first["loss"] < first["highest"]
    if name == "r2":
        # Exchanged, a column's share of the variance is lost twice: 9 of 10.06.
        assert first["loss"] == pytest.approx(2 * 9 / 10.06, rel=0.1)
    assert found == measured(outputs, score, batch, PLACES, metrics.REGRESSION[name], 60)
    assert all(torch.equal(batch[key], tensor) for key, tensor in before.items())


def test_too_little_time_for_every_column_gives_none_and_no_half_a_picture() -> None:
    assert measured(outputs, score, rows(), PLACES, metrics.REGRESSION["r2"], 0) is None
    same = rows() | {"target": torch.ones(400)}
    assert measured(outputs, score, same, PLACES, metrics.REGRESSION["r2"], 60) is None


def test_figures_that_are_tensors_make_a_report_that_can_be_written() -> None:
    predictor = SimpleNamespace(
        score=lambda *given: {name: torch.tensor(value) for name, value in score(*given).items()}
    )
    problem: Any = SimpleNamespace(
        places=lambda: PLACES, splits={"test": rows()}, predictor=predictor, headline=metrics.REGRESSION["r2"]
    )
    fitted: Any = SimpleNamespace(published=SimpleNamespace(outputs=lambda batch, device: outputs(batch)))
    plan: Any = SimpleNamespace(time_budget=60.0)
    found = looking.importance(problem, fitted, plan, torch.device("cpu"))
    assert found is not None
    assert json.loads(json.dumps(found))["columns"][0]["column"] == "counts"


def _found(repeated: Tensor | None) -> list[bool]:
    assert repeated is not None
    return [bool(row) for row in repeated]


def test_rows_that_training_had_are_found_by_content_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    dense = torch.from_numpy(random.normal(size=(3000, 3)).astype(np.float32))
    target = torch.arange(3000) % 2
    test = {"dense": torch.cat([dense[7:9], dense[5:6], dense[:1] + 1]), "target": torch.tensor([1, 0, 0, 0])}
    splits = {
        "train": {"dense": dense[:8], "target": target[:8]},
        "validation": {"dense": dense[8:], "target": target[8:]},
    }
    splits["test"] = test
    # The third has another label than in training.
    assert _found(repeated.in_test(splits, ["train", "validation"])) == [True, True, False, False]
    assert _found(repeated.in_test(splits, ["train"])) == [True, False, False, False]
    assert repeated.in_test({"train": {"x": dense}, "test": {"x": dense}}, ["train"]) is None


def test_texts_are_compared_as_they_are_read() -> None:
    content = torch.tensor(list(b"onetwoonetwos"), dtype=torch.uint8)

    def split(starts: list[int], lengths: list[int]) -> Stretches:
        target = {"target": torch.zeros(len(starts), dtype=torch.int64)}
        return Stretches({"texts": Stretch(content, 4)}, torch.tensor(starts), torch.tensor(lengths), target)

    found = repeated.in_test({"train": split([0, 3], [3, 3]), "test": split([6, 9, 9], [3, 4, 3])}, ["train"])
    assert found is not None
    assert found.tolist() == [True, False, True]
