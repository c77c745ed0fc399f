"""Ordinary scripts run with no change but the paths in their arguments: those of examples/scripts, as its page says."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.trainer_image.command.programs import inputs_for
from tests.world.pages import table_rows
from tests.world.repository import ROOT, read
from tests.world.training_data import FolderStore
from trainer_image import command
from trainer_image.contract import Progress

SCRIPTS = ROOT / "examples" / "scripts"
# script → (argv as the page has it, the module that it needs)
TABLE = {
    row[0].strip("`"): (yaml.safe_load(row[1].strip("`")), row[2])
    for row in table_rows(read("examples/scripts/README.md"))
}
# What it leaves, and what is told of it last: its own lines are what that is read from.
LEFT = {
    "plain_loop.py": ("model.pkl", r"Epoch 5 of 5, loss 0\.\d+, accuracy 0\.\d+"),
    "sklearn_fit.py": ("model.joblib", r"Epoch 20, Avg. loss [\d.]+, test accuracy .*"),
    "xgboost_trees.py": ("model.ubj", r"Step 9, train-logloss 0\.\d+, validation-logloss 0\.\d+"),
    "ddp_torchrun.py": ("model.pt", r"Epoch 3, loss 0\.\d+, world 1"),
    "lightning_fit.py": ("model.ckpt", r"Epoch 2(?: of 2)?, step 4 of 4, .*val_loss 0\.\d+"),
    "hf_trainer.py": ("model.safetensors", r"Epoch 2 of 2, step \d+ of \d+, .*"),
    "keras_fit.py": ("model.keras", r"Epoch 3 of 3, step 6 of 6, loss 0\.\d+, .*"),
    "tqdm_loop.py": ("weights.json", r"Epoch 3 of 3, step 120 of 120, loss [\d.e-]+"),
    "train.sh": ("best.txt", r"Epoch 3, accuracy 0\.\d+"),
    "Makefile": ("model.txt", r"Step 2, loss 0\.5, classes 2"),
}


def test_every_script_of_the_folder_is_on_its_page_and_tried() -> None:
    others = {"README.md", "make_flowers.py"}
    there = {path.name for path in SCRIPTS.iterdir() if path.is_file()} - others
    assert there == TABLE.keys() == LEFT.keys()


@pytest.mark.parametrize("script", LEFT)
def test_a_script_as_people_have_it_is_trained_with_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    argv, module = TABLE[script]
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: what it prints is in recorded/")
    if shutil.which(argv[0]) is None and argv[0] == "make":
        pytest.skip("there is no make here")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(SCRIPTS)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    said: list[Progress] = []
    inputs = inputs_for(tmp_path, *argv, said=said, store=FolderStore(tmp_path / "store"))
    make_flowers(tmp_path / "data")
    inputs.output.mkdir(parents=True)
    command.check_config(inputs.config, inputs.limits)
    assert not command._remarks(inputs)
    command.train(inputs)
    left, told = LEFT[script]
    assert (inputs.output / left).stat().st_size > 0
    assert re.fullmatch(told, said[-1].message), said[-1].message
    report = json.loads((inputs.output / "report.json").read_text())
    assert left in [file["name"] for file in report["files"]["largest"]]
    assert (inputs.output / "metrics.jsonl").read_text().count("\n") >= 1


def make_flowers(folder: Path) -> None:
    monkey = {"__name__": "make_flowers"}
    exec((SCRIPTS / "make_flowers.py").read_text(), monkey)
    monkey["main"](folder)  # type: ignore[operator]
