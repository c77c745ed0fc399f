"""Checkpoints: what is stored comes back, what is broken is passed over, a resumed run ends with the same weights."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.world.training_data import TABULAR, FolderStore, StopAtStep, class_table
from tests.world.training_data import run_inputs as inputs_of
from trainer_image.engine import checkpoint, preparing
from trainer_image.engine.checkpoint import Checkpointer, CheckpointInvalid, Snapshot
from trainer_image.engine.steps.state import TrainingState
from trainer_image.engine.training import train
from trainer_image.errors import StorageUnavailable, Terminated
from trainer_image.storage.manifest import fingerprint

REFITTING = TABULAR.replace("preset: fast", "preset: auto")


@pytest.fixture
def eager_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at every epoch's end, however much of the time that takes."""
    plan = preparing.Plan

    def eager(**settings):
        return plan(**settings, checkpoint_share=1e9)

    monkeypatch.setattr(preparing, "Plan", eager)


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (checkpoint.MANIFEST, "[" * 30_000 + "]" * 30_000),
        (checkpoint.STATE, "[" * 30_000 + "]" * 30_000),
        (checkpoint.STATE, json.dumps({"format": checkpoint.FORMAT, "step": 1e308}).replace("1e+308", "1e999")),
    ],
    ids=["manifest nested", "state nested", "endless step"],
)
def test_a_checkpoint_that_someone_wrote_to_harm_is_invalid(tmp_path: Path, name: str, content: str) -> None:
    folder = tmp_path / "step-3"
    checkpoint.write(folder, snapshot())
    (folder / name).write_text(content)
    if name == checkpoint.STATE:
        manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
        manifest["files"][name] = fingerprint(folder / name)
        (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointInvalid):
        checkpoint.read(folder)


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


@pytest.mark.usefixtures("eager_checkpoints")
def test_a_store_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    class Failing(FolderStore):
        def keep(self, folder: Path) -> None:
            raise OSError("no room")

    train(inputs_of(class_table(tmp_path / "data"), tmp_path / "out", store=Failing(tmp_path / "store")))
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["training"]["notes"]
    assert any(note.startswith("The checkpoint at step") for note in notes)


class FullAtFirst(FolderStore):
    """A disk that has room once older checkpoints are gone. freed: whether there are any"""

    def __init__(self, folder: Path, *, freed: bool) -> None:
        super().__init__(folder)
        self.freed, self.asked = freed, 0

    def make_room(self) -> bool:
        self.asked += 1
        return self.freed


@pytest.mark.parametrize("freed", [True, False])
def test_on_a_full_disk_a_checkpoint_is_written_again_where_something_could_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freed: bool
) -> None:
    store = FullAtFirst(tmp_path / "store", freed=freed)
    write, full = checkpoint.write, [OSError(errno.ENOSPC, "No space left on device")]

    def once(folder: Path, snapshot: checkpoint.Snapshot) -> None:
        if full:
            folder.mkdir(parents=True)
            raise full.pop()
        write(folder, snapshot)

    monkeypatch.setattr(checkpoint, "write", once)
    saver = checkpoint.Checkpointer(store, tmp_path, every=1.0)
    saver.save(lambda: checkpoint.Snapshot(3, {"w": torch.ones(2)}, {}))
    saver.close()
    assert (store.asked, [path.name for path in store.kept]) == (1, ["step-3"] if freed else [])
    assert saver.problems == ([] if freed else ["The checkpoint at step 3 failed (OSError)."])


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


def trained_state() -> TrainingState:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    state = TrainingState(model, lambda network: [torch.optim.AdamW(network.parameters())], average=True)
    model(torch.ones(4, 3)).sum().backward()
    state.optimizers.step(1.0)
    state.at.step = state.at.phase_step = state.at.micro_batch = 1
    state.at.best = 0.5
    state.at.history.append(EPOCH)
    state.keep_best()
    return state


EPOCH = {"phase": "search", "epoch": 1, "step": 3, "seconds": 0.5, "loss": 0.5, "validation": {"accuracy": 0.9}}
Change = Callable[[dict[str, Any], dict[str, Any]], object]
FOREIGN: dict[str, Change] = {
    "another kind of weight": lambda t, p: t.update({"model/weight": t["model/weight"].half()}),
    "weights that are no numbers": lambda t, p: t["model/bias"].fill_(float("nan")),
    "half an average": lambda t, p: t.pop("average/bias"),
    "best weights of another network": lambda t, p: t.update({"best/weight": torch.zeros(5)}),
    "no best weights": lambda t, p: [t.pop(name) for name in list(t) if name.startswith("best/")],
    "no optimizer": lambda t, p: [t.pop(name) for name in list(t) if name.startswith("optimizer/")],
    "another optimizer": lambda t, p: t.update({"optimizer/0/exp_avg": torch.zeros(5)}),
    "more parameters": lambda t, p: t.update({"optimizer/x/exp_avg": torch.zeros(5)}),
    "no random numbers": lambda t, p: t.pop("generator/cpu"),
    "another generator": lambda t, p: t.update({"generator/cpu": t["generator/cpu"][:10]}),
    "no loss": lambda t, p: t.pop("loss/sum"),
    "a new field": lambda t, p: p.update(pace=1),
    "a field that is gone": lambda t, p: p.pop("epoch"),
    "text for a number": lambda t, p: p.update(epoch="3"),
    "no time": lambda t, p: p.update(seconds=None),
    "no history": lambda t, p: p.update(history=5),
    "a phase that nobody knows": lambda t, p: p.update(phase="distil"),
    "a history of something else": lambda t, p: p.update(history=[{"epoch": 1}]),
    "a history of no figures": lambda t, p: p.update(history=[EPOCH | {"validation": {"accuracy": "high"}}]),
    "no numbers in the average": lambda t, p: t["average/bias"].fill_(float("inf")),
    "a number of steps for each weight": lambda t, p: t.update({"optimizer/0/step": torch.zeros(2, 3)}),
    "half of the moments": lambda t, p: t.pop("optimizer/1/exp_avg_sq"),
    "a counter of a parameter that is not there": lambda t, p: t.update({"optimizer/x/step": torch.zeros(())}),
    "a generator's state that is none": lambda t, p: t["generator/cpu"].fill_(255),
    "nothing at a time": lambda t, p: p.update(micro_batch=0),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_a_checkpoint_that_could_not_be_gone_on_from_is_passed_over(change: Change) -> None:
    state = trained_state()
    good = state.snapshot()
    state.check(good)
    tensors = {name: tensor.clone() for name, tensor in good.tensors.items()}
    position = dict(good.scalars["position"])
    change(tensors, position)
    with pytest.raises(CheckpointInvalid):
        state.check(Snapshot(good.step, tensors, {"position": position}))


def test_the_time_spent_before_counts_towards_the_budget(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    data = class_table(tmp_path / "data")
    config = TABULAR.replace("epochs: 3", "epochs: 100000, time_budget: 1h")
    with pytest.raises(Terminated):
        train(inputs_of(data, tmp_path / "one", config, store=store, stop=StopAtStep(3)))
    saved = checkpoint.read(store.newest_first()[0])
    position = {**saved.scalars["position"], "seconds": 3600.0}
    checkpoint.write(tmp_path / "step-4", Snapshot(4, saved.tensors, {"position": position}))
    store.keep(tmp_path / "step-4")
    result = train(inputs_of(data, tmp_path / "two", config, store=store))
    assert result.steps == 4, "the step that finds out that the hour is over, and no more"
    assert result.seconds > 3600


class SlowStore(FolderStore):
    """Takes a checkpoint only when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go_on = threading.Event()

    def keep(self, folder: Path) -> None:
        self.go_on.wait(60)
        super().keep(folder)


def saver(tmp_path: Path, store: FolderStore, **settings: float) -> Checkpointer:
    return Checkpointer(store, tmp_path, every=300.0, **settings)  # type: ignore[arg-type]


class BrokenStore(FolderStore):
    def keep(self, folder: Path) -> None:
        raise StorageUnavailable("storage does not answer")


def test_checkpoints_that_cannot_be_stored_do_not_fill_the_disk(tmp_path: Path) -> None:
    checkpoints = saver(tmp_path, BrokenStore(tmp_path / "store"))
    checkpoints.save(snapshot)
    checkpoints.close()
    assert checkpoints.problems == ["The checkpoint at step 3 failed (StorageUnavailable)."]
    assert list(tmp_path.iterdir()) == []


def test_a_stop_does_not_begin_a_save_that_would_outlast_the_grace(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    checkpoints = saver(tmp_path, store)
    assert not checkpoints.save_now(snapshot, size=10**12, within=30.0)
    checkpoints.close()
    assert store.kept == []


def test_a_stop_waits_for_a_slow_store_no_longer_than_the_grace(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "store")
    checkpoints = saver(tmp_path, store)
    checkpoints.save(snapshot)
    assert not checkpoints.save_now(lambda: snapshot(4), size=0, within=0.05), "one is still on its way"
    checkpoints.close()
    store.go_on.set()


def test_a_stop_finds_the_line_free_when_the_save_before_ends_in_time(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "store")
    checkpoints = saver(tmp_path, store)
    checkpoints.save(snapshot)
    store.go_on.set()
    assert checkpoints.save_now(lambda: snapshot(4), size=0, within=30.0)
    assert [path.name for path in store.kept] == ["step-3", "step-4"]


def test_saving_takes_at_most_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint, "monotonic", lambda: now[0])

    def copy() -> Snapshot:
        now[0] += 2.0  # the device does not train meanwhile
        return snapshot()

    checkpoints = saver(tmp_path, FolderStore(tmp_path / "store"), share=0.02)
    assert checkpoints.due(epoch_ended=True)
    assert not checkpoints.due(epoch_ended=False), "the epoch goes on, and five minutes are not over"
    checkpoints.save(copy)
    checkpoints.close()
    for seconds, epoch_ended, due in ((99, True, False), (101, True, True), (299, False, False), (300, False, True)):
        now[0] = seconds
        assert checkpoints.due(epoch_ended=epoch_ended) is due, seconds


def test_a_large_state_is_not_saved_at_the_first_short_epoch(tmp_path: Path) -> None:
    checkpoints = saver(tmp_path, FolderStore(tmp_path / "store"), size=10**10)
    assert not checkpoints.due(epoch_ended=True)
    checkpoints.close()
