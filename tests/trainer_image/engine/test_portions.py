"""A split is evaluated in portions that memory has room for, whose size the model and the rows' shape alone decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer_image.engine.steps import evaluation
from trainer_image.engine.steps.evaluation import evaluate

CPU = torch.device("cpu")


class Wide:
    """A predictor whose largest tensor has `width` numbers a row, beside a table of its own that has no rows."""

    def __init__(self, width: int) -> None:
        self.width, self.seen = width, []  # type: ignore[var-annotated]

    def outputs(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        self.seen.append(len(batch["x"]))
        table = torch.ones(1000, 1000) * 2
        return batch["x"].repeat(1, self.width).sum(1) + table[0, 0]


def portions(predictor: Any, rows: int) -> list[int]:
    outputs = evaluate(predictor, nn.Identity(), {"x": torch.ones(rows, 1)}, CPU)
    assert outputs.tolist() == [predictor.width + 2.0] * rows
    return [seen for seen in predictor.seen if seen > 2]


@pytest.mark.parametrize(("width", "rows", "expected"), [(10, 600, [512, 88]), (3000, 600, [256, 256, 88])])
def test_rows_that_make_large_tensors_are_evaluated_fewer_at_a_time(
    width: int, rows: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "EVALUATION_BYTES", 4 * 1024**2)
    assert portions(Wide(width), rows) == expected


def test_a_portion_is_no_other_for_fewer_rows_of_the_same_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "EVALUATION_BYTES", 4 * 1024**2)
    assert portions(Wide(3000), 300)[0] == portions(Wide(3000), 3000)[0] == 256
    assert portions(Wide(3000), 1) == []


def test_a_predictor_that_wants_more_than_one_row_is_given_as_many_as_ever() -> None:
    class Wants(Wide):
        def outputs(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            if len(batch["x"]) < 3:
                raise ValueError("too few rows")
            return super().outputs(model, batch)

    assert portions(Wants(10), 600) == [512, 88]
