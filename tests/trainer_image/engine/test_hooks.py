"""What a task says of how its network is trained: several outputs, a loss of parts, optimizers that take turns,
augmentation in threads, weights that lie in the image. Killed and resumed, it ends with the same weights."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.world import task as world
from tests.world.task import CONFIG, Own, PointsProblem
from tests.world.training_data import FolderStore, StopAtStep, run_inputs
from trainer_image.engine import blend, checkpoint
from trainer_image.engine.helper import Helper
from trainer_image.engine.plan import Plan
from trainer_image.engine.steps.batches import PhaseRows
from trainer_image.engine.steps.optimizing import Optimizers
from trainer_image.engine.steps.row_order import epoch_order
from trainer_image.engine.steps.state import TrainingState
from trainer_image.engine.team import Command, Team
from trainer_image.engine.training import train
from trainer_image.errors import PeerLost, Terminated, UsageError, UserCodeFailed
from trainer_image.predict import predict
from trainer_image.tasks import hooks, plugins, registry
from trainer_image.tasks.base import Batch, Loss, Metric, Moment, Recipe
from trainer_image.tasks.calibration import Calibration
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.optimizers import AdamW

CPU = torch.device("cpu")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    task = Own(tmp_path / "encoder.safetensors")
    monkeypatch.setattr(plugins, "load", lambda entry_point: task)
    monkeypatch.setattr(registry, "registered", lambda: ["own:Own"])
    return task


def test_a_resumed_training_has_the_optimizers_parts_and_augmentation_of_one_that_nobody_interrupted(
    own: Own, tmp_path: Path
) -> None:
    whole = train(run_inputs(tmp_path, tmp_path / "whole", CONFIG, store=FolderStore(tmp_path / "whole-store")))
    store = FolderStore(tmp_path / "store")
    stopped = []
    for attempt, asks in enumerate((5, 12)):
        with pytest.raises(Terminated) as told:
            train(run_inputs(tmp_path, tmp_path / f"{attempt}", CONFIG, store=store, stop=StopAtStep(asks)))
        stopped.append(told.value.step)
    resumed = train(run_inputs(tmp_path, tmp_path / "resumed", CONFIG, store=store))
    assert stopped == [5, 16], "in the middle of an epoch, in the search and in the refit"
    assert resumed.steps == whole.steps
    tensors = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed")]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "resumed")]
    assert reports[1]["training"]["resumed_from_step"] == stopped[-1]
    histories = [[{**epoch, "seconds": 0} for epoch in report["history"]] for report in reports]
    assert histories[0] == histories[1]
    assert [set(epoch["parts"]) for epoch in histories[0]] == [{"kinds", "sizes", "epoch"}] * len(histories[0])
    assert {epoch["phase"] for epoch in histories[0]} == {"search", "refit"}


def test_a_figure_that_is_infinite_costs_no_checkpoint_and_its_epoch_is_not_the_best(own: Own, tmp_path: Path) -> None:
    def infinite_at_times(problem: PointsProblem) -> None:
        score, errors = problem.predictor.score, iter([math.inf, 3.0, math.inf])
        problem.predictor.score = lambda outputs, batch: {  # type: ignore[method-assign]
            **score(outputs, batch),
            "error": next(errors, 4.0),
            "odd": -math.inf,
        }

    own.changed = infinite_at_times
    store = FolderStore(tmp_path / "store")
    with pytest.raises(Terminated, match="the state was saved at step 10"):
        train(run_inputs(tmp_path, tmp_path / "stopped", CONFIG, store=store, stop=StopAtStep(10)))
    position = checkpoint.read(store.newest_first()[0]).scalars["position"]
    assert (position["best"], position["best_epoch"]) == (3.0, 2)
    assert [sorted(epoch["validation"]) for epoch in position["history"]] == [
        ["accuracy"],
        ["accuracy", "error"],
        ["accuracy"],
    ]
    train(run_inputs(tmp_path, tmp_path / "out", CONFIG, store=store))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["training"]["resumed_from_step"] == 10


def test_what_is_random_in_a_batch_follows_from_its_place_however_many_threads_there_are() -> None:
    problem = PointsProblem.__new__(PointsProblem)
    threads: set[str] = set()

    def shaken(batch: Batch, generator: torch.Generator) -> Batch:
        threads.add(threading.current_thread().name)
        return {"n": batch["n"] + torch.rand(len(batch["n"]), generator=generator)}

    problem.augmentation = lambda: shaken  # type: ignore[method-assign]
    made = []
    for count in (1, 4):
        rows = PhaseRows(
            {"n": torch.arange(50.0)}, 8, CPU, (7, False), augment=hooks.augment_of(problem), threads=count
        )
        with closing(rows):
            # As a resumed training asks, and one that goes on.
            made.append([rows.batch(*at)[0]["n"].tolist() for at in ((0, 5), (0, 6), (1, 0), (1, 1), (0, 0))])
    assert made[0] == made[1]
    assert len({tuple(value % 1 for value in batch) for batch in made[0]}) == 5, "each draws numbers of its own"
    assert {name.partition("_")[0] for name in threads} == {"rows"}, "never the one that trains"


def test_batches_are_made_while_the_one_before_is_trained_on() -> None:
    asked = threading.Barrier(3, timeout=30)
    problem = PointsProblem.__new__(PointsProblem)

    def waits(batch: Batch, generator: torch.Generator) -> Batch:
        if int(batch["n"][0]) != first:
            asked.wait()
        return batch

    problem.augmentation = lambda: waits  # type: ignore[method-assign]
    order = epoch_order(24, 7 * 1_000_003, 0)
    first = int(order[0])
    rows = PhaseRows({"n": torch.arange(24)}, 8, CPU, (7, False), augment=hooks.augment_of(problem), threads=2)
    with closing(rows):
        rows.batch(0, 0)
        asked.wait()  # both that follow are being made, by a thread each, before anybody has asked for them
        asked.abort()  # those of the next epoch need not wait


def test_a_helper_that_fails_leaves_no_threads_behind_that_make_batches(tmp_path: Path) -> None:
    save_file(world.encoder_weights(), tmp_path / "encoder")
    problem = PointsProblem(tmp_path / "encoder")
    problem.recipe = replace(problem.recipe, ema_decay=None)
    commands = iter([Command("begin", False, {}), Command("step", False, {})])
    running: list[set[str]] = []

    class Lonely(Team):
        def receive(self) -> Command:
            running.append({thread.name for thread in threading.enumerate() if thread.name.startswith("rows")})
            if (command := next(commands, None)) is None:
                raise PeerLost("Rank 0 is gone")
            return command

    member: Any = Lonely()
    with pytest.raises(PeerLost):
        Helper(problem, Plan(problem.recipe, 0, 60.0, CPU), member).follow()
    assert running[-1]
    assert running[-1].isdisjoint(thread.name for thread in threading.enumerate())


def test_an_exception_of_the_augmentation_is_the_plug_in_s(own: Own, tmp_path: Path) -> None:
    def raises(batch: Batch, generator: torch.Generator) -> Batch:
        raise KeyError("mask")

    own.changed = lambda problem: setattr(problem, "augmentation", lambda: raises)
    with pytest.raises(UserCodeFailed, match="The task own:Own failed: KeyError: 'mask'"):
        train(run_inputs(tmp_path, tmp_path / "out", CONFIG))


def test_frozen_weights_of_the_image_are_in_no_checkpoint_and_no_model(own: Own, tmp_path: Path) -> None:
    store, out = FolderStore(tmp_path / "store"), tmp_path / "out"
    with pytest.raises(Terminated):
        train(run_inputs(tmp_path, tmp_path / "stopped", CONFIG, store=store, stop=StopAtStep(5)))
    kept = checkpoint.read(store.newest_first()[0])
    assert {name for name in kept.tensors if "encoder" in name} == set()
    assert {"model/middle.weight", "average/middle.weight", "best/middle.weight"} <= set(kept.tensors)
    train(run_inputs(tmp_path, out, CONFIG, store=store))
    assert {name for name in load_file(out / "model.safetensors") if "encoder" in name} == set()
    [named] = json.loads((out / "model.json").read_text())["pretrained"]
    assert (named["module"], named["file"]) == ("encoder", "encoder.safetensors")
    report = json.loads((out / "report.json").read_text())
    assert any("The frozen weights of encoder are the image's" in note for note in report["training"]["notes"])
    assert predict(out, tmp_path, None)["metrics"] == report["metrics"], "of outputs by name, to the last bit"

    save_file(load_file(own.encoder), own.encoder, metadata={"other": "file"})
    with pytest.raises(UsageError, match=r"it needs the weights encoder.safetensors \(SHA-256 .*holds others here"):
        predict(out, tmp_path, None)
    own.encoder.unlink()
    with pytest.raises(UsageError, match="cannot be read: it needs the weights") as other:
        predict(out, tmp_path, None)
    assert other.value.sentence.endswith(f"; there is no {own.encoder} here")


def test_a_checkpoint_of_other_pretrained_weights_is_passed_over(own: Own, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    with pytest.raises(Terminated):
        train(run_inputs(tmp_path, tmp_path / "stopped", CONFIG, store=store, stop=StopAtStep(5)))
    own.encoder.unlink()
    save_file({name: tensor + 1 for name, tensor in world.encoder_weights().items()}, own.encoder)
    train(run_inputs(tmp_path, tmp_path / "out", CONFIG, store=store))
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["training"]["notes"]
    assert any(note.endswith("the checkpoint at step 5 is of other pretrained weights.") for note in notes)


def test_pretrained_weights_that_are_trained_further_are_stored(own: Own, tmp_path: Path) -> None:
    def thawed(problem: PointsProblem) -> None:
        problem.begin = lambda model, fit_on: model.requires_grad_()  # type: ignore[assignment,method-assign]
        problem.optimizers = lambda model, recipe: [torch.optim.SGD(model.parameters(), 0.01)]  # type: ignore[assignment,method-assign]

    own.changed = thawed
    out = tmp_path / "out"
    train(run_inputs(tmp_path, out, CONFIG))
    assert "network/encoder.weight" in load_file(out / "model.safetensors")
    assert "pretrained" not in json.loads((out / "model.json").read_text())


def test_weights_of_the_image_that_are_unfrozen_on_the_way_are_told_as_no_checkpoint_keeps_them(
    own: Own, tmp_path: Path
) -> None:
    def thaws(problem: PointsProblem) -> None:
        loss = problem.loss

        def thawing(model: torch.nn.Module, batch: Batch) -> Loss:
            return loss(model.requires_grad_() if problem.moment.step > 3 else model, batch)

        problem.loss = thawing  # type: ignore[method-assign]

    own.changed = thaws
    told = "'encoder.weight' of the network tests.world.task:Network was frozen when its training began, and is trained"
    with pytest.raises(UserCodeFailed, match=told):
        train(run_inputs(tmp_path, tmp_path / "out", CONFIG))


def test_the_loss_knows_step_and_epoch_and_its_parts_are_drawn(own: Own, tmp_path: Path) -> None:
    train(run_inputs(tmp_path, tmp_path / "out", CONFIG))
    moments = [moment for moment in own.made[0].moments if moment.step or moment.epoch]
    first_fit = moments[: 4 * 3 - 1]
    assert [moment.step for moment in first_fit] == list(range(1, 12))
    assert [moment.epoch for moment in first_fit] == [step // 3 for step in range(1, 12)]
    assert [round(12 * moment.done) for moment in first_fit] == list(range(1, 12))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Training kinds" in page
    assert "Training sizes" in page


class PointsCandidate(Candidate):
    name = "points"

    def fit(
        self, fit_on: Sequence[str], allowance: Allowance, chosen: dict[str, object] | None
    ) -> tuple[torch.nn.Module, dict[str, object]] | None:
        return None


@pytest.mark.parametrize(
    ("hook", "returns", "told"),
    [
        ("optimizers", [], "optimizers returned none; at least one is needed"),
        ("optimizers", AdamW([torch.zeros(1)]), "returned AdamW; a list of torch's optimizers is expected"),
        ("optimizers", [1], "returned a list with int; torch's optimizers are expected"),
        ("schedule", -1.0, "schedule returned -1.0; a factor of the learning rate from 0 on is expected"),
        ("schedule", None, "schedule returned None; a factor"),
        ("loss", None, "loss returned NoneType; a tensor of one number with a gradient is expected"),
        ("loss", torch.zeros(3, requires_grad=True), "loss returned Tensor of shape (3,); a tensor of one number"),
        ("loss", torch.zeros(()), "loss returned Tensor; a tensor of one number with a gradient"),
        ("loss", Loss(torch.zeros((), requires_grad=True), {"a": torch.zeros(2)}), "(2,) as the part 'a'; one number"),
        ("augmentation", 3, "augmentation returned int; a function of batch and generator, or None, is expected"),
        (
            "augmentation",
            lambda batch, generator: None,
            "a function that makes NoneType; a dict of tensors is expected",
        ),
        ("augmentation", lambda batch, generator: {"a": torch.zeros(1)}, "of shape (1,) as 'a'; a tensor of 2 rows on"),
        ("fit", 3, "fit returned int; a module and what was chosen, or None, is expected"),
        ("fit", (1, {}), "fit returned tuple; a module and what was chosen, or None, is expected"),
        ("fit", (torch.nn.Linear(1, 1), {"rows": {1, 2}}), "fit returned set as 'rows'; what JSON knows is expected"),
        ("fit", (torch.nn.Linear(1, 1), {"rate": math.nan}), "fit returned nan as 'rate', which JSON does not know"),
        ("calibrate", {"temperature": 2.0}, "calibrate returned dict; a Calibration is expected"),
        ("calibrate", Calibration(math.inf), "calibrate returned inf as 'temperature', which JSON does not know"),
        ("calibrate", Calibration(1e9), "calibrate returned what is none: Calibration: input should be less than"),
        ("outputs", {}, "outputs returned an empty dict; at least one tensor is expected"),
        ("outputs", torch.zeros(3, 1), "outputs returned Tensor of shape (3, 1); a tensor of 2 rows is expected"),
        ("outputs", {"a": torch.zeros(2), "b": 1}, "outputs returned int as 'b'; a tensor of 2 rows is expected"),
    ],
)
def test_what_a_hook_returns_that_it_must_not_is_one_sentence_that_names_it(
    hook: str, returns: object, told: str
) -> None:
    problem = PointsProblem.__new__(PointsProblem)
    problem.predictor = world.Points(Path())
    candidate = PointsCandidate()
    owner: object = {"outputs": problem.predictor, "fit": candidate}.get(hook, problem)
    setattr(owner, hook, lambda *given: returns)
    batch, recipe, model = {"points": torch.zeros(2, 2)}, Recipe(1, 1, 0.1), torch.nn.Linear(1, 1)
    asked: dict[str, Callable[[], object]] = {
        "optimizers": lambda: hooks.optimizers_of(problem, model, recipe),
        "schedule": lambda: hooks.rate_of(problem, Moment(), recipe),
        "loss": lambda: hooks.loss_of(problem, model, batch, Moment()),
        "augmentation": lambda: (hooks.augment_of(problem) or print)(batch, torch.Generator()),
        "fit": lambda: hooks.fit_of(candidate, ["train"], Allowance(1.0, 1, 0, threading.Event(), print), None),
        "calibrate": lambda: hooks.calibration_of(problem, torch.zeros(2, 2)),
        "outputs": lambda: hooks.outputs_of(problem.predictor, model, batch),
    }
    with pytest.raises(UserCodeFailed) as failed:
        asked[hook]()
    assert failed.value.sentence.startswith(f"{type(owner).__module__}:Points")
    assert told in failed.value.sentence


MADE: dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda of: torch.optim.SGD(of, lr=0.1),
    "momentum": lambda of: torch.optim.SGD(of, lr=0.1, momentum=0.9),
    "AdamW": lambda of: torch.optim.AdamW(of, lr=0.1, amsgrad=True, fused=True),
    "a rate that is a tensor": lambda of: torch.optim.AdamW(of, lr=torch.tensor(0.1)),
    "NAdam": lambda of: torch.optim.NAdam(of, lr=0.1),
    "Adafactor": lambda of: torch.optim.Adafactor(of, lr=0.1),
    "Muon": lambda of: torch.optim.Muon(of, lr=0.1),
    "one's own": lambda of: world.Drifting(iter(of)),
    "of no parameter": lambda of: world.Pooled(of, lr=0.1),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_any_optimizer_goes_on_from_what_was_kept_of_it(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
) -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(4, 3, generator=generator) for _ in range(6)]

    def begun() -> tuple[torch.nn.Parameter, Optimizers]:
        # Of two parameters the second one is never reached.
        first, second = (torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2))
        return first, Optimizers([make([first]), make([second])])

    def go_on(parameter: torch.nn.Parameter, optimizers: Optimizers, steps: slice) -> None:
        for step, gradient in list(enumerate(gradients))[steps]:
            parameter.grad = gradient.clone()
            optimizers.step(1 / (1 + step))

    whole, of_whole = begun()
    go_on(whole, of_whole, slice(6))
    stopped, of_stopped = begun()
    go_on(stopped, of_stopped, slice(3))
    tensors, plain = of_stopped.kept()
    tensors, plain = {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(plain))
    resumed, of_resumed = begun()
    stepped, of_stepped = begun()
    go_on(stepped, of_stepped, slice(1))
    assert of_resumed.fits(tensors, plain, of_stepped)
    assert not of_resumed.fits({**tensors, "0/else": torch.zeros(1)}, plain, of_stepped)
    assert not of_resumed.fits(tensors, {**plain, "group 0/else": 1}, of_stepped)
    with torch.no_grad():
        resumed.copy_(stopped)
    of_resumed.load(tensors, plain)
    go_on(resumed, of_resumed, slice(3, 6))
    assert torch.equal(whole, resumed)


class Locked(torch.nn.Linear):
    """Has what cannot be copied, and a weight in two places."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.lock = threading.Lock()
        self.tied = torch.nn.Linear(3, 3)
        self.tied.weight = self.weight


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_what_optimizers_will_remember_is_known_without_a_copy_of_the_network(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
) -> None:
    model = Locked()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = list(model.parameters())
    own[1].requires_grad_(requires_grad=False)  # a bias, of which Muon knows nothing

    def optimizers(model: torch.nn.Module) -> list[torch.optim.Optimizer]:
        return [make([p for p in model.parameters() if p.ndim > 1])]

    state = TrainingState(model, optimizers, average=False)
    like, _ = state.stepped().kept()
    assert [id(parameter) for parameter in model.parameters()] == [id(parameter) for parameter in own]
    assert model.tied.weight is model.weight
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in own)
    for parameter in own:
        parameter.grad = torch.ones_like(parameter)
    state.optimizers.step(1.0)
    stepped, _ = state.optimizers.kept()
    shapes = [{key: (t.shape, t.dtype) for key, t in of.items()} for of in (like, stepped)]
    assert shapes[0] == shapes[1]


def test_a_network_that_cannot_be_copied_for_its_moving_average_is_one_sentence() -> None:
    with pytest.raises(UserCodeFailed, match=r"engine.test_hooks:Locked cannot be copied \(TypeError: cannot pickle"):
        TrainingState(Locked(), lambda model: [], average=True)


def test_what_an_optimizer_remembers_that_no_file_can_hold_is_one_sentence() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    kept = Optimizers([optimizer])
    optimizer.param_groups[0]["seen"] = None
    optimizer.state[optimizer.param_groups[0]["params"][0]]["history"] = [1]
    with pytest.raises(UserCodeFailed, match=r"No checkpoint can hold the list that an optimizer .*'history'; tensors"):
        kept.kept()


def test_outputs_that_cannot_be_blended_leave_the_best_model_alone() -> None:
    split = world.drawn(3, 40)
    outputs = {
        name: {"answer": split["target"], "size": split["size"] + error}
        for name, error in (("far", 0.5), ("near", 0.1))
    }
    assert blend.choose(world.Points(Path()), outputs, split, Metric("error", higher_is_better=False)) == {"near": 1.0}
