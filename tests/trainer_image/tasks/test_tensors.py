"""Rows by number: samples of a dataset that stand for all of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.tasks.tensors import evenly, of_each_class


@given(st.integers(0, 500), st.integers(1, 300))
def test_a_sample_is_spread_over_all_rows_and_none_comes_twice(count: int, most: int) -> None:
    rows = evenly(count, most)
    assert len(rows) == min(count, most)
    assert (np.diff(rows) > 0).all()
    stretches = np.linspace(0, count, len(rows) + 1)
    assert all(low - 1 < row < high + 1 for row, low, high in zip(rows, stretches, stretches[1:], strict=False))


@given(st.integers(2, 6), st.integers(2, 6))
def test_a_sample_of_rows_whose_classes_take_turns_has_each_class_as_often(classes: int, every: int) -> None:
    targets = np.arange(2_400) % classes
    counts = np.bincount(targets[of_each_class(targets, every)], minlength=classes)
    assert counts.min() > 0.6 * 2_400 / every / classes


def test_a_sample_has_a_row_of_every_class_however_rare() -> None:
    targets = np.zeros(1_000, np.int64)
    targets[[17, 501]] = 1, 2
    assert set(targets[of_each_class(targets, 100)]) == {0, 1, 2}
    assert len(of_each_class(targets, 1)) == 1_000
