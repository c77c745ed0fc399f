"""What the built-in tasks train with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.world.training_data import (
    IMAGES,
    LANGUAGE,
    TABULAR,
    TEXTS,
    class_table,
    documents,
    image_folder,
    run_inputs,
    text_rows,
)
from trainer_image.engine.training import train


@pytest.mark.parametrize(
    ("make", "config"),
    [(class_table, TABULAR), (image_folder, IMAGES), (text_rows, TEXTS), (documents, LANGUAGE)],
    ids=["table", "images", "texts", "language"],
)
def test_a_training_that_compiles_nothing_waits_for_no_import_of_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], config: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    assert train(run_inputs(make(tmp_path / "data"), tmp_path / "out", config)).steps > 0
