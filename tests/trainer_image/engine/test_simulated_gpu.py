"""Every task on a simulated GPU: nothing of a batch is on the wrong device, no step waits for the device, what ran out
of memory leaves none taken for the second try, and a resumed training is the one that was interrupted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.world.repository import ROOT
from tests.world.simulated_gpu import GPU, SimulatedGpu, Stream
from tests.world.task import CONFIG, Own, PointsProblem
from tests.world.training_data import (
    IMAGES,
    LANGUAGE,
    TABULAR,
    TEXTS,
    FolderStore,
    StopAtStep,
    class_table,
    documents,
    image_folder,
    run_inputs,
    text_rows,
    value_table,
)
from trainer_image.contract import RunInputs
from trainer_image.engine.loop import Engine
from trainer_image.engine.plan import Fitted
from trainer_image.engine.preparing import make_plan, prepare
from trainer_image.engine.team import Team
from trainer_image.engine.training import train
from trainer_image.errors import GpuOutOfMemory, Terminated
from trainer_image.tasks.base import Problem, TaskSettings

Write = Callable[[Path], Path]
# The larger presets where they have layers that the small one lacks.
SHORT = TABULAR.replace("epochs: 3", "epochs: 1")
AUTO = TABULAR.replace("preset: fast", "preset: auto").replace("epochs: 3", "epochs: 2")
ALONE = IMAGES.replace("preset: fast", "preset: fast, candidates: [network]")
BEST = TEXTS.replace("preset: fast", "preset: best").replace("epochs: 2", "epochs: 1")


def colours(folder: Path) -> Path:
    return image_folder(folder, 32, (9, 8), "RGB")


def few_documents(folder: Path) -> Path:
    return documents(folder, 8)


def few_texts(folder: Path) -> Path:
    return text_rows(folder, 60)


TASKS: dict[str, tuple[Write, str]] = {
    "classes": (class_table, TABULAR),
    "values": (value_table, AUTO),
    "images": (colours, IMAGES),
    "texts": (few_texts, BEST),
    "language": (few_documents, LANGUAGE),
}


def fit(inputs: RunInputs, problem: Problem | None = None) -> Fitted:
    """The engine alone, without test and report."""
    torch.set_num_threads(1)  # operations this small only wait for each other's threads
    problem = problem or prepare(inputs)
    plan = make_plan(inputs, problem.recipe, GPU)
    return Engine(problem, plan, inputs, lambda record: None, Team()).run()


def waits_in_steps(gpu: SimulatedGpu) -> list[object]:
    return [seen for seen in (*gpu.waits, *gpu.uploads) if seen.inside("step", "probe")]


@pytest.mark.parametrize("task", TASKS)
def test_no_step_waits_for_the_gpu_and_nothing_is_on_the_wrong_device(task: str, tmp_path: Path) -> None:
    write, config = TASKS[task]
    inputs = run_inputs(write(tmp_path / "data"), tmp_path / "out", config, device="cuda")
    with SimulatedGpu() as gpu:
        fitted = fit(inputs)
    assert fitted.steps > 0
    assert waits_in_steps(gpu) == []
    # Beside the steps: divergence and mean loss at an epoch's end, and the outputs of the validation. A language model
    # looks for the bytes that are scored before it computes any: in these, and in one row and two that show their size.
    waits = [seen for seen in gpu.waits if seen.inside("_phase") and not seen.inside("after_step")]
    assert len(waits) <= 3 * len(fitted.history) + (task == "language") * (len(fitted.history) + 2)


def test_no_step_of_the_plug_in_example_waits_for_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples" / "forecasting")
    from my_forecaster.task import Forecasting

    (tmp_path / "series.csv").write_text("y\n" + "\n".join(f"{math.sin(step):.4f}" for step in range(300)))
    problem = Forecasting().prepare(tmp_path, TaskSettings(target="y"))
    inputs = run_inputs(tmp_path, tmp_path / "out", "task: custom\ncustom: {entry_point: a:B}\ntrain: {epochs: 1}\n")
    with SimulatedGpu() as gpu:
        assert fit(inputs, problem).steps > 0
    assert waits_in_steps(gpu) == []


def test_batches_that_threads_augment_and_optimizers_that_take_turns_let_no_step_wait(tmp_path: Path) -> None:
    problem = PointsProblem(Own(tmp_path / "encoder.safetensors").encoder)
    problem.optimizers = lambda model, recipe: [  # type: ignore[method-assign,assignment]
        torch.optim.Muon([model.middle.weight], lr=recipe.learning_rate),
        torch.optim.SGD([*model.kind.parameters(), *model.size.parameters()], lr=recipe.learning_rate, momentum=0.9),
    ]
    inputs = run_inputs(tmp_path, tmp_path / "out", CONFIG, device="cuda")
    with SimulatedGpu() as gpu:
        fitted = fit(inputs, problem)
    assert set(fitted.history[0]["parts"]) == {"kinds", "sizes", "epoch"}
    assert waits_in_steps(gpu) == []


def test_a_whole_training_on_a_gpu_ends_with_a_report_and_a_model(tmp_path: Path) -> None:
    with SimulatedGpu():
        result = train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", device="cuda"))
    assert result.metrics["accuracy"] > 0.8
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["training"]["bfloat16"], report["hardware"]["device"]) == (True, "cuda:0")


def test_what_a_language_model_writes_is_written_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer_image.tasks.language.task.SAMPLE_BYTES", 3)
    inputs = run_inputs(few_documents(tmp_path / "data"), tmp_path / "out", LANGUAGE)
    problem = prepare(inputs)
    model = problem.predictor.build_model()
    with SimulatedGpu():
        samples = problem.demonstrations(model.to(GPU))["samples"]
    assert samples


def test_a_training_that_is_resumed_on_a_gpu_ends_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    """Images: their weights are laid out in another way on a GPU, and the moments of a checkpoint must follow."""
    data = colours(tmp_path / "data")
    config = ALONE.replace("epochs: 2", "epochs: 3")
    (tmp_path / "store").mkdir()
    store = FolderStore(tmp_path / "store")

    def inputs(**more: object) -> RunInputs:
        return run_inputs(data, tmp_path / "out", config, device="cuda", **more)  # type: ignore[arg-type]

    with SimulatedGpu():
        whole = fit(inputs())
        with pytest.raises(Terminated):
            fit(inputs(store=store, stop=StopAtStep(3)))
        resumed = fit(inputs(store=store))
    assert resumed.resumed_from == 4
    for name, tensor in whole.published.foremost.state_dict().items():
        assert torch.equal(tensor, resumed.published.foremost.state_dict()[name]), name


def test_rows_that_do_not_fit_are_fetched_in_time_and_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = run_inputs(class_table(tmp_path / "data"), tmp_path / "out", SHORT, device="cuda")
    with SimulatedGpu() as plenty:
        resident = fit(inputs)
    with SimulatedGpu(free=0) as gpu:
        fetched = fit(inputs)
        assert waits_in_steps(gpu) == []
        assert [seen for seen in gpu.uploads if seen.inside("_fetch")] == [], "each batch comes from pinned memory"
        assert gpu.most < plenty.most
        # The check itself: without waiting for the copy, or without telling the allocator, it would have failed.
        for name in ("wait_event", "record_stream"):
            with monkeypatch.context() as broken:
                broken.setattr(Stream if name == "wait_event" else torch.Tensor, name, lambda *ignored: None)
                with pytest.raises(AssertionError, match="another stream"):
                    fit(inputs)
    for name, tensor in resident.published.foremost.state_dict().items():
        assert torch.equal(tensor, fetched.published.foremost.state_dict()[name]), name


class Wide(nn.Module):
    """A network whose rows cost far more memory than they take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, dense: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        wide = dense.sum(1, keepdim=True).expand(-1, 20_000)
        ballast = (wide * 1.5).sin().mean() * 1e-9
        result: torch.Tensor = self.model(dense, codes) + ballast
        return result


def test_a_batch_that_does_not_fit_is_halved_until_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try must have left nothing behind, or the halves would not fit either."""
    inputs = run_inputs(class_table(tmp_path / "data"), tmp_path / "out", SHORT, device="cuda")
    problem = prepare(inputs)
    real = problem.loss
    monkeypatch.setattr(problem, "loss", lambda model, batch: real(Wide(model), batch))
    with SimulatedGpu() as gpu:
        whole = fit(inputs, problem)
    with SimulatedGpu(memory=int(gpu.most * 0.6)):
        halved = fit(inputs, problem)
    rows = problem.recipe.batch_size
    assert whole.micro_batch == rows
    assert rows // 3 < halved.micro_batch < rows
    [note] = halved.notes
    assert re.search(r"Out of GPU memory with \d+ rows at a time", note)
    assert whole.best is not None
    assert halved.best == pytest.approx(whole.best, rel=0.05)


def test_a_row_that_does_not_fit_ends_the_training_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = run_inputs(class_table(tmp_path / "data"), tmp_path / "out", SHORT, device="cuda")
    problem = prepare(inputs)
    real = problem.loss
    monkeypatch.setattr(problem, "loss", lambda model, batch: real(Wide(model), batch))
    with SimulatedGpu(memory=170_000), pytest.raises(GpuOutOfMemory, match="at batch size 1"):
        fit(inputs, problem)


class Careless(nn.Module):
    """What a plug-in should not do, and a GPU would not let it do or would be slow at."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.what = what

    def step(self, x: torch.Tensor) -> torch.Tensor:
        match self.what:
            case "mixes":
                return x + torch.ones(3)
            case "reads":
                return x * float(x.detach().sum())
            case "masks":
                return x[x > 0]
            case "uploads":
                return x + torch.ones(3).to(x.device)
            case "makes":
                return x + torch.ones(3, device=x.device)
        raise AssertionError


@pytest.mark.parametrize(
    ("what", "waits", "uploads"), [("reads", 1, 0), ("masks", 1, 0), ("uploads", 0, 1), ("makes", 0, 0)]
)
def test_the_simulated_gpu_notes_what_a_real_one_would_wait_for(what: str, waits: int, uploads: int) -> None:
    with SimulatedGpu() as gpu:
        model = Careless(what).to(GPU)
        gpu.uploads.clear()
        model.step(model.weight).sum().backward()
        assert model.weight.grad is not None
        assert model.weight.grad.device == GPU
    assert (len(gpu.waits), len(gpu.uploads)) == (waits, uploads)


def test_the_simulated_gpu_refuses_what_lies_on_two_devices() -> None:
    with SimulatedGpu():
        model = Careless("mixes").to(GPU)
        with pytest.raises(RuntimeError, match="on the same device"):
            model.step(model.weight)
