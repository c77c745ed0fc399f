"""Whole trainings on small data: the artifacts, what is said, limits, failures."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from portal_client.progress_text import parse
from tests.world.training_data import (
    IMAGES,
    LANGUAGE,
    TABULAR,
    TEXTS,
    FolderStore,
    StopAtStep,
    class_rows,
    class_table,
    documents,
    image_folder,
    run_inputs,
    text_rows,
    value_table,
    write_csv,
)
from trainer_image.contract import Progress
from trainer_image.engine import preparing, training
from trainer_image.engine.plan import Plan
from trainer_image.engine.steps.step import Stepper
from trainer_image.engine.training import train
from trainer_image.errors import DatasetInvalid, GpuFault, GpuOutOfMemory, Terminated, TrainingDiverged, UsageError
from trainer_image.predict import predict
from trainer_image.tasks.image.task import ImageProblem
from trainer_image.tasks.tabular.task import TabularProblem

pytestmark = pytest.mark.long

EVERYBODY = TABULAR.replace(", candidates: [network]", "")
CASES = {
    "classes": (class_table, EVERYBODY),
    "values": (value_table, EVERYBODY),
    "images": (image_folder, IMAGES),
    "texts": (text_rows, TEXTS),
    "language": (documents, LANGUAGE),
}
ARTIFACTS = {"model.safetensors", "model.json", "metrics.jsonl", "report.json", "report.html", "README.md"}
ARTIFACTS |= {"rows.safetensors"}


@pytest.mark.parametrize(("make", "config"), [*CASES.values()], ids=list(CASES))
def test_the_model_folder_alone_reproduces_the_test_figures(tmp_path: Path, make, config: str) -> None:
    data = make(tmp_path / "data")
    [split] = data.iterdir()
    split.rename(data / split.name.replace("train", "test"))
    make(data)
    said: list[Progress] = []
    result = train(run_inputs(data, tmp_path / "out", config, said=said))
    assert {path.name for path in (tmp_path / "out").iterdir()} == ARTIFACTS
    first = next(found for p in said if (found := parse(p.message)) and found.step is None)
    assert (first.epoch, first.epochs, first.more.split()[0]) == (1, int(config[-3]), "validation")
    assert first.loss is not None
    data.rename(tmp_path / "elsewhere")
    predicted = predict(tmp_path / "out", tmp_path / "elsewhere", tmp_path / "rows.csv")
    assert predicted["metrics"] == dict(result.metrics)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["metrics"] == dict(result.metrics)
    assert set(report["baselines"]) == {"trivial", "n-gram" if "language" in config else "linear"}
    assert next(iter(report["metrics"])) == report["headline"]
    assert report["verdict"]["sentence"] == result.verdict
    if make in (class_table, value_table):
        assert {entry["column"] for entry in report["importance"]["columns"]} == {"a", "b", "colour"}
    if make is not documents:
        # The test split is the training split's own file.
        trained = sum(report["dataset"]["rows"][name] for name in report["training"]["fit_on"])
        assert report["dataset"]["repeated"]["share"] == trained / report["dataset"]["rows"]["test"] > 0.75
        assert "it may know the answer by heart" in (tmp_path / "out" / "README.md").read_text()
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == predicted["rows"] + 1


def test_one_test_row_has_no_r2_and_no_nan_anywhere(tmp_path: Path) -> None:
    data = value_table(tmp_path / "data", 60)
    write_csv(data / "test.csv", ["a", "b", "colour", "y"], [[0.1, 0.2, "red", 10.1]])
    said: list[Progress] = []
    result = train(run_inputs(data, tmp_path / "out", TABULAR, said=said))
    assert list(result.metrics) == ["rmse", "mae"]
    assert result.verdict.startswith("Test R² is not defined: all test rows have the same target. Test RMSE")
    content = (tmp_path / "out" / "report.json").read_text()
    assert json.loads(content)["importance"] is None
    for text in (content, (tmp_path / "out" / "README.md").read_text(), *(p.message for p in said)):
        assert "nan" not in text.lower()


def test_no_price_is_predicted_below_zero_or_far_above_the_highest_known(tmp_path: Path) -> None:
    rows = [[k, "x" if k % 2 else "y", 0.5 * k] for k in range(80)]
    write_csv(tmp_path / "data" / "train.csv", ["size", "kind", "price"], rows)
    config = TABULAR.replace("target: y", "target: price")
    train(run_inputs(tmp_path / "data", tmp_path / "out", config))
    write_csv(tmp_path / "new.csv", ["size", "kind"], [[-500, "x"], [2000, "y"]])
    low, high = (row["price"] for row in predict(tmp_path / "out", tmp_path / "new.csv", None)["predictions"])
    assert 0 <= low < high <= 1.1 * 39.5 + 1e-5  # in single precision


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    data = class_table(tmp_path / "data")
    for name in ("one", "two"):
        train(run_inputs(data, tmp_path / name))
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()


def test_a_hostile_label_stays_text_in_report_and_card(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    rows = [[*row[:3], evil if row[3] == "yes" else "[x](http://x) | `no`"] for row in class_rows()]
    write_csv(tmp_path / "data" / "train.csv", ["a", "b", "colour", "y"], rows)
    train(run_inputs(tmp_path / "data", tmp_path / "out"))
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    page = (tmp_path / "out" / "report.html").read_text()
    parser.feed(page)
    assert "script" not in tags
    assert "http" not in page.replace("http://x", "").replace("http-equiv", "")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "<script>" not in card
    assert "[x](" not in card


@pytest.mark.parametrize(("make", "config"), [(class_table, TABULAR), (image_folder, IMAGES)])
def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path, make, config: str, monkeypatch) -> None:
    steps = []
    for problem in (TabularProblem, ImageProblem):
        loss = problem.loss

        def broken(self, model, batch, loss=loss):
            steps.append(1)
            return loss(self, model, batch) * (float("nan") if len(steps) == 3 else 1.0)

        monkeypatch.setattr(problem, "loss", broken)
    with pytest.raises(TrainingDiverged) as caught:
        train(run_inputs(make(tmp_path / "data"), tmp_path / "out", config))
    assert caught.value.sentence == "Training diverged at step 3"
    assert caught.value.step == 3


def out_of_memory_above(rows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    loss = TabularProblem.loss

    def limited(self, model, batch):
        seen.append(len(batch["dense"]))
        if seen[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(self, model, batch)

    monkeypatch.setattr(TabularProblem, "loss", limited)
    return seen


def test_out_of_memory_halves_what_is_computed_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = class_table(tmp_path / "data")
    whole = train(run_inputs(data, tmp_path / "whole"))
    seen = out_of_memory_above(10, monkeypatch)
    halved = train(run_inputs(data, tmp_path / "out"))
    assert max(seen[5:]) <= 10
    assert halved.steps == whole.steps
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["training"]["notes"]
    assert any("Out of GPU memory" in note for note in notes)


@pytest.fixture
def probing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows at a time are tried out before the first step, as on a GPU."""
    plan = preparing.Plan
    monkeypatch.setattr(preparing, "Plan", lambda **settings: plan(**{**settings, "probe": True}))


@pytest.mark.usefixtures("probing")
@pytest.mark.parametrize(("make", "config"), [(class_table, TABULAR), (image_folder, IMAGES)])
def test_trying_out_how_many_rows_fit_leaves_no_trace(
    tmp_path: Path, make, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(tmp_path / "data")
    train(run_inputs(data, tmp_path / "probed", config))
    monkeypatch.undo()
    train(run_inputs(data, tmp_path / "plain", config))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("probed", "plain")]
    assert weights[0] == weights[1]


@pytest.mark.usefixtures("probing")
def test_how_many_rows_fit_is_found_before_the_first_step_and_goes_on_with_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = out_of_memory_above(10, monkeypatch)
    store = FolderStore(tmp_path / "store")
    data = class_table(tmp_path / "data")
    with pytest.raises(Terminated):
        train(run_inputs(data, tmp_path / "one", store=store, stop=StopAtStep(3)))
    found = seen.index(next(rows for rows in seen if rows <= 10))
    assert all(rows > 10 for rows in seen[:found])
    assert all(rows <= 10 for rows in seen[found:])
    del seen[:]
    train(run_inputs(data, tmp_path / "two", store=store))
    assert max(seen) <= 10, "what was found is not tried out again"


def test_a_network_that_does_not_fit_at_all_is_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, model: object, pretrained: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "fresh_state", full)
    with pytest.raises(GpuOutOfMemory, match="the network and its optimizer do not fit"):
        train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out"))


def test_out_of_memory_with_one_row_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory_above(0, monkeypatch)
    with pytest.raises(GpuOutOfMemory, match="Out of GPU memory at batch size 1"):
        train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out"))


def test_the_time_budget_shortens_the_schedule_instead_of_cutting_it_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = training.make_plan

    def patient(*arguments: Any) -> Plan:
        made = plan(*arguments)
        return replace(made, recipe=replace(made.recipe, patience=10**6))

    monkeypatch.setattr(training, "make_plan", patient)
    config = "task: tabular\ndata: {target: y}\ntrain: {epochs: 100000, time_budget: 2s}\n"
    result = train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", config))
    assert 0 < result.steps < 100_000
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    history = report["history"]
    assert history[-1]["step"] == result.steps
    told = "The time budget of 2 s (train.time_budget) was used up: training ended with epoch "
    assert [note for note in report["training"]["notes"] if note.startswith(told)]


def test_a_training_that_came_to_its_own_end_does_not_speak_of_its_budget(tmp_path: Path) -> None:
    train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out"))
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["training"]["notes"]
    assert not [note for note in notes if "time budget" in note]


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    config = TABULAR.replace("epochs: 3", "epochs: 200")
    train(run_inputs(value_table(tmp_path / "data", 60), tmp_path / "out", config))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    figures = [record["validation"]["rmse"] for record in report["history"]]
    assert report["training"]["best_epoch"] == figures.index(min(figures)) + 1
    assert report["training"]["best_validation"] == min(figures)


def test_a_stop_before_the_first_step_is_terminated(tmp_path: Path) -> None:
    with pytest.raises(Terminated):
        train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", stop=StopAtStep(0)))


def test_a_gpu_that_is_not_there_is_a_clear_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)  # an image that sees none is at fault itself
    with pytest.raises(GpuFault, match=r"Device .cuda. was asked for, but none is visible"):
        train(run_inputs(tmp_path, tmp_path / "out", device="cuda"))


def test_a_warm_start_from_what_only_has_the_name_of_weights_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "model.safetensors").write_bytes(b"weights of a program of the user's own")
    train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", initial=tmp_path / "first"))
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["training"]["notes"]
    assert "Warm start: the previous model's model.safetensors is not readable; training starts afresh." in notes


def test_a_warm_start_takes_what_fits_and_lists_the_rest(tmp_path: Path) -> None:
    data = class_table(tmp_path / "data")
    train(run_inputs(data, tmp_path / "first"))
    wider = TABULAR.replace("preset: fast", "preset: auto")
    train(run_inputs(data, tmp_path / "same", initial=tmp_path / "first"))
    train(run_inputs(data, tmp_path / "wider", wider, initial=tmp_path / "first"))
    notes = [
        json.loads((tmp_path / name / "report.json").read_text())["training"]["notes"][0] for name in ("same", "wider")
    ]
    assert notes[0].startswith("Warm start: 12 of 12 tensors")
    assert "fresh ones: " in notes[1]


def test_a_folder_without_a_model_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.json is missing"):
        predict(tmp_path, tmp_path, None)


def test_predicting_a_table_that_lacks_a_column_names_it(tmp_path: Path) -> None:
    train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out"))
    write_csv(tmp_path / "new.csv", ["a", "colour"], [[1, "red"]])
    with pytest.raises(DatasetInvalid, match=r"new\.csv: lacks the column 'b' that the model has"):
        predict(tmp_path / "out", tmp_path / "new.csv", None)


def test_rows_without_labels_are_predicted(tmp_path: Path) -> None:
    train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out"))
    write_csv(tmp_path / "new.csv", ["colour", "b", "a"], [["red", 2, 2], ["blue", -2, -2], ["violet", "", 1]])
    result = predict(tmp_path / "out", tmp_path / "new.csv", None)
    assert "metrics" not in result
    assert [row["y"] for row in result["predictions"]][:2] == ["yes", "no"]
