"""Checkpoints: what is stored comes back, what is broken is passed over, a resumed run ends with the same weights."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import pytest
import torch

from tests.training_data import IMAGES, TABULAR, FolderStore, KillAtStep, Killed, StopAtStep, class_table, image_folder
from tests.training_data import run_inputs as inputs_of
from trainer_image import checkpoint, training
from trainer_image.checkpoint import CheckpointInvalid, Snapshot
from trainer_image.errors import Terminated
from trainer_image.training import train

REFITTING = TABULAR.replace("preset: fast", "preset: auto")


def snapshot(step: int = 3) -> Snapshot:
    return Snapshot(step, {"model/w": torch.arange(6.0).view(2, 3), "n": torch.tensor(4)}, {"position": {"step": step}})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "step-3", snapshot())
    read = checkpoint.read(tmp_path / "step-3")
    assert read.step == 3
    assert read.scalars == snapshot().scalars
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in snapshot().tensors.items())


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "gone", "flipped"])
def test_a_damaged_file_makes_the_checkpoint_invalid(tmp_path: Path, name: str, damage: str) -> None:
    checkpoint.write(tmp_path / "step-3", snapshot())
    path = tmp_path / "step-3" / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    with pytest.raises(CheckpointInvalid):
        checkpoint.read(tmp_path / "step-3")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    for step in (1, 2):
        checkpoint.write(tmp_path / f"step-{step}", snapshot(step))
        store.keep(tmp_path / f"step-{step}")
    (store.kept[-1] / checkpoint.TENSORS).write_bytes(b"x")
    found, passed_over = checkpoint.resume(store, lambda snapshot: None)
    assert found is not None
    assert found.step == 1
    assert len(passed_over) == 1


def test_a_store_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    class Failing(FolderStore):
        def keep(self, folder: Path) -> None:
            raise OSError("no room")

    train(inputs_of(class_table(tmp_path / "data"), tmp_path / "out", store=Failing(tmp_path / "store")))
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["training"]["notes"]
    assert any(note.startswith("The checkpoint at step") for note in notes)


CASES = [("tabular", class_table, REFITTING, 60), ("images", image_folder, IMAGES.replace("fast", "auto"), 10)]


@pytest.fixture
def eager_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at every epoch's end, however much of the time that takes."""
    plan = training.Plan

    def eager(**settings):
        return plan(**settings, checkpoint_share=1e9)

    monkeypatch.setattr(training, "Plan", eager)


@pytest.mark.parametrize(("name", "make", "config", "steps"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("kind", [StopAtStep, KillAtStep])
@pytest.mark.usefixtures("eager_checkpoints")
def test_a_resumed_run_ends_with_the_same_weights_bit_by_bit(
    tmp_path: Path, name: str, make, config: str, steps: int, kind: type[StopAtStep]
) -> None:
    data = make(tmp_path / "data")
    whole = train(inputs_of(data, tmp_path / "whole", config))
    expected = (tmp_path / "whole" / "model.safetensors").read_bytes()
    for seed in range(2):
        chance = random.Random(seed)
        store = FolderStore(tmp_path / f"store-{seed}")
        attempts = 0
        while attempts < 5:
            attempts += 1
            stop = kind(chance.randint(2, whole.steps // 2)) if attempts < 4 else threading.Event()
            output = tmp_path / f"{seed}-{attempts}"
            try:
                result = train(inputs_of(data, output, config, store=store, stop=stop))
            except (Terminated, Killed):
                continue
            break
        assert (output / "model.safetensors").read_bytes() == expected
        assert result.steps == whole.steps
        resumed, uninterrupted = (
            [(r["phase"], r["epoch"], r["loss"]) for r in json.loads((o / "report.json").read_text())["history"]]
            for o in (output, tmp_path / "whole")
        )
        assert resumed == uninterrupted


def test_a_stop_saves_the_state_at_that_very_step(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    data = class_table(tmp_path / "data")
    with pytest.raises(Terminated) as caught:
        train(inputs_of(data, tmp_path / "out", store=store, stop=StopAtStep(3)))
    assert caught.value.sentence == "Stopped on request; the state was saved at step 3"
    assert checkpoint.read(store.newest_first()[0]).step == 3


def test_a_checkpoint_of_another_network_is_passed_over(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    data = class_table(tmp_path / "data")
    with pytest.raises(Terminated):
        train(inputs_of(data, tmp_path / "one", store=store, stop=StopAtStep(3)))
    train(inputs_of(data, tmp_path / "two", REFITTING, store=store))
    training_notes = json.loads((tmp_path / "two" / "report.json").read_text())["training"]["notes"]
    assert "A checkpoint was passed over: the checkpoint at step 3 is of another network." in training_notes
