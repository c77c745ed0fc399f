"""What the built-in tasks train with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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

MADE = {
    "table": (class_table, TABULAR),
    "images": (image_folder, IMAGES),
    "texts": (text_rows, TEXTS),
    "language": (documents, LANGUAGE),
}


def test_a_training_that_compiles_nothing_waits_for_no_import_of_the_compiler(tmp_path: Path) -> None:
    """In a process of its own: in the tests' one, another test may have compiled something."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.trainer_image.tasks.test_optimizers", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr


if __name__ == "__main__":
    sys.modules["torch._dynamo"] = None  # type: ignore[assignment]  # whoever imports it fails
    for task, (make, config) in MADE.items():
        folder = Path(sys.argv[1]) / task
        assert train(run_inputs(make(folder / "data"), folder / "out", config)).steps > 0
