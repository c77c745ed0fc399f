"""Trainings whose program is a line of Python."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.world.training_data import run_inputs
from trainer_image import command, errors
from trainer_image.contract import RunInputs, RunResult

PYTHON = sys.executable
LEAVE = "import os; open(os.environ['OUTPUT_DIR'] + '/weights', 'w').write('w'); "


def inputs_for(tmp_path: Path, *argv: str, **options: Any) -> RunInputs:
    (tmp_path / "data").mkdir(exist_ok=True)
    config = json.dumps({"task": "command", "command": {"argv": list(argv)}, **options.pop("config", {})})
    return run_inputs(tmp_path / "data", tmp_path / secrets.token_hex(4) / "output", config, **options)


def python(tmp_path: Path, code: str, **options: Any) -> RunResult:
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, **options)
    inputs.output.mkdir(parents=True)
    return command.train(inputs)


def ending(tmp_path: Path, code: str, **options: Any) -> errors.TrainerError:
    with pytest.raises(errors.TrainerError) as told:
        python(tmp_path, code, **options)
    return told.value
