"""data.weight: rows that count differently, wherever rows count."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.world.training_data import run_inputs, write_csv
from trainer_image.config.model_config import ConfigProblems, parse_config
from trainer_image.engine.training import train
from trainer_image.errors import DatasetInvalid
from trainer_image.predict import predict
from trainer_image.tasks import calibration, metrics
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.intervals import mean_interval, share_interval
from trainer_image.tasks.tabular import linear
from trainer_image.tasks.tabular.task import TabularProblem
from trainer_image.tasks.tabular.weights import scaled

RANDOM = np.random.default_rng(3)
SEEDS = range(5)


def weighted(seed: int, rows: int = 60, classes: int = 3) -> tuple[Any, Any, Any, Any]:
    """(inputs, classes, whole weights from 1, each row's number as often as it weighs)"""
    random = np.random.default_rng(seed)
    x, weights = random.normal(size=(rows, 3)), random.integers(1, 5, rows)
    y = (x @ [1.0, -2.0, 0.5] + random.normal(0, 0.4, rows) > 0).astype(np.int64) + (x[:, 2] > 1) * (classes > 2)
    return x, y, weights, np.repeat(np.arange(rows), weights)


@pytest.mark.parametrize("seed", SEEDS)
def test_figures_by_whole_weights_are_those_of_so_many_rows(seed: int) -> None:
    x, y, weights, again = weighted(seed)
    p = torch.softmax(torch.from_numpy(np.round(x, 1)), 1)
    w, labels, values = torch.from_numpy(weights), torch.from_numpy(y), torch.from_numpy(x[:, 0])
    ours = metrics.classification(p, labels, weights=w)
    assert ours == pytest.approx(metrics.classification(p[again], labels[again]))
    ours = metrics.regression(values, values + p[:, 1], w)
    assert ours == pytest.approx(metrics.regression(values[again], (values + p[:, 1])[again]))
    found = metrics.classification_findings(p, labels, ["a", "b", "c"], weights=w)
    copies = metrics.classification_findings(p[again], labels[again], ["a", "b", "c"])
    assert sum(entry["rows"] for entry in found["per_class"]) == len(y)
    for name in ("recall", "precision", "f1"):
        assert [e[name] for e in found["per_class"]] == pytest.approx([e[name] for e in copies["per_class"]])
    error = "expected_calibration_error"
    assert found["calibration"][error] == pytest.approx(copies["calibration"][error])


def test_a_row_of_weight_0_counts_in_no_figure_nor_does_its_class() -> None:
    w = torch.from_numpy(scaled(np.array([1.0, 3.0, 2.0, 0.0])))
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]])
    labels = torch.tensor([0, 1, 1, 2])
    ours, without = (
        metrics.classification(p, labels, weights=w),
        metrics.classification(p[:3], labels[:3], weights=w[:3]),
    )
    assert ours == pytest.approx(without)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_linear_model_by_whole_weights_is_that_of_so_many_rows(seed: int) -> None:
    x, y, weights, again = weighted(seed)
    share = weights / weights.mean()
    values = x @ [3.0, 1.0, -1.0]
    for fit, of in ((linear.ridge, values), (linear.log_linear, np.exp(values))):
        heavy, repeated = fit(x, of, share), fit(x[again], of[again])
        assert heavy is not None
        assert repeated is not None
        assert heavy.weight == pytest.approx(repeated.weight, abs=1e-6)
        assert heavy.bias == pytest.approx(repeated.bias, abs=1e-6)
    # Of more rows the same strength is a weaker penalty: a penalty is for so many rows.
    ours = linear.logistic(x, y, 3, 1.0, weights=share)
    theirs = linear.logistic(x[again], y[again], 3, len(y) / len(again))
    assert np.abs(ours[0] - theirs[0]).max() < 1e-3


@torch.no_grad()
def test_the_loss_by_whole_weights_is_that_of_so_many_rows_however_they_are_divided(tmp_path: Path) -> None:
    for target in ("class", "value"):
        made = problem(tmp_path / target, target)
        model = made.predictor.build_model().eval()
        made.begin(model, ["train"])
        split = dict(made.splits["train"])
        weights = np.tile([1, 2, 4], len(split["target"]))[: len(split["target"])]
        again = torch.from_numpy(np.repeat(np.arange(len(weights)), weights))
        split["row_weight"] = torch.from_numpy((weights / weights.mean()).astype(np.float32))
        copies = {name: tensor[again] for name, tensor in split.items() if name != "row_weight"}
        whole = made.loss(model, split)
        assert float(whole) == pytest.approx(float(made.loss(model, copies)), rel=1e-5)
        parts = [{name: tensor[part] for name, tensor in split.items()} for part in (slice(10), slice(10, None))]
        divided = sum(len(part["target"]) * float(made.loss(model, part)) for part in parts) / len(weights)
        assert float(whole) == pytest.approx(divided, rel=1e-5)


def problem(folder: Path, target: str = "class", weights: list[object] | None = None, **more: Any) -> TabularProblem:
    """Rows of a, w and a target, of which heavy ones say 1 and light ones 0, whatever the input."""
    random = np.random.default_rng(1)
    heavy = np.arange(300) % 2
    given = weights or [(1, 9)[n] for n in heavy]
    says = heavy if target == "value" else np.array(["no", "yes"])[heavy]
    cells = [[round(random.normal(), 3), given[n % len(given)], says[n]] for n in range(300)]
    write_csv(folder / "train.csv", ["a", "w", "y"], cells)
    types = {"y": "number"} if target == "value" else {}
    return TabularProblem(folder, TaskSettings(target="y", types=types, weight="w", **more))


@pytest.mark.parametrize("target", ["class", "value"])
def test_every_model_predicts_what_the_heavy_rows_say(target: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("trainer_image.tasks.tabular.trees.forest.TRIED_TREES", 5)
    monkeypatch.setattr("trainer_image.tasks.tabular.trees.boosted.PLANS", ((1, True, 0.2),))
    made = problem(tmp_path, target)
    test = made.splits["test"]

    def mean(outputs: torch.Tensor) -> float:
        return float((outputs if target == "value" else outputs[:, 1]).detach().mean())

    for candidate in made.candidates():
        fitted = candidate.fit(["train"], Allowance(60.0, 1, 0, threading.Event(), lambda: None), None)
        assert fitted is not None
        assert mean(made.predictor.outputs(fitted[0].eval(), test)) == pytest.approx(0.9, abs=0.06), candidate.name
    network = made.predictor.build_model().eval()
    made.begin(network, ["train"])
    assert mean(made.predictor.outputs(network, test)) == pytest.approx(0.9, abs=0.06)
    trivial = made.baselines(["train"])["trivial"]
    alike = metrics.classification(torch.full((len(test["target"]), 2), 0.5), test["target"].long())
    if target == "class":
        assert trivial["accuracy"] > 0.8 > alike["accuracy"]
        assert made.headline.name == "balanced_accuracy"
        assert "% of the training rows, by weight, are 'yes'" in " ".join(made.notes)
    else:
        assert trivial["rmse"] == pytest.approx(0.3, abs=0.05)


def test_the_column_is_no_input_and_no_content_of_a_row(tmp_path: Path) -> None:
    made = problem(tmp_path / "one", seed=4)
    assert made.predictor.preprocessing.columns == ["a"]
    assert made.weighed_by == "w"
    assert "weighed by 'w'" in made.description
    other = problem(tmp_path / "two", weights=[5, 1, 2], seed=4)
    assert made.hashes is not None
    assert other.hashes is not None
    assert "w" not in made.hashes.content
    assert all((made.hashes.of[split] == other.hashes.of[split]).all() for split in made.splits)


def test_rows_of_weight_0_are_left_out_and_said(tmp_path: Path) -> None:
    made = problem(tmp_path, weights=[0, 1, 3])
    assert sum(len(split["target"]) for split in made.splits.values()) == 200
    assert "100 of 300 rows of train.csv have the weight 0 (data.weight) and were left out." in made.notes
    assert all(float(split["row_weight"].min()) > 0 for split in made.splits.values())


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ([1, -2], "row 3: column 'w' (data.weight) holds '-2', which is below zero; the weight of a row is a number"),
        ([1, 2, None], "row 4: column 'w' (data.weight) has no value; the weight"),
        ([1, "?"], "row 3: column 'w' (data.weight) holds '?', which is no number"),
        ([1, "inf"], "row 3: column 'w' (data.weight) holds 'inf', which is not finite"),
        ([1, "heavy"], "row 3: column 'w' (data.weight) holds 'heavy', which is no number"),
        ([0], "column 'w' (data.weight) is 0 in every row: no row counts"),
    ],
)  # fmt: skip
def test_a_weight_that_is_none_is_named_with_its_row(weights: list[object], why: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid) as raised:
        problem(tmp_path, weights=weights)
    assert why in raised.value.sentence


def test_weights_with_a_decimal_comma_are_read(tmp_path: Path) -> None:
    made = problem(tmp_path, weights=["0,5", "1,5"])
    [light, heavy] = sorted(set(made.splits["train"]["row_weight"].tolist()))
    assert heavy / light == pytest.approx(3)


def test_every_split_needs_the_column(tmp_path: Path) -> None:
    write_csv(tmp_path / "test.csv", ["a", "y"], [[n, ("no", "yes")[n % 2]] for n in range(9)])
    with pytest.raises(DatasetInvalid, match=r"test.csv: has no column 'w' \(data.weight, which every split needs\)"):
        problem(tmp_path)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("task: tabular\ndata: {target: y, weight: y}", "data.weight: is the target 'y'"),
        ("task: tabular\ndata: {target: y, weight: [a]}", "data.weight: "),
        ("task: image_classification\ndata: {weight: w}", "data.weight: belongs to task tabular, not to image_class"),
        ("task: text_classification\ndata: {weight: w}", "data.weight: belongs to task tabular, not to text_class"),
    ],
)
def test_what_cannot_be_a_weight_is_said(config: str, why: str) -> None:
    with pytest.raises(ConfigProblems, match=r"Invalid configuration: data\.weight: ") as raised:
        parse_config(config.encode())
    assert why in str(raised.value)


def test_unequal_weights_make_intervals_wider_than_equal_ones_and_no_scale_changes_them() -> None:
    hits, weights = RANDOM.random(400) < 0.7, RANDOM.exponential(size=400)
    plain, equal = share_interval(hits), share_interval(hits, None, np.full(400, 3.0))
    assert equal == pytest.approx(plain, abs=5e-4)
    unequal, larger = share_interval(hits, None, weights), share_interval(hits, None, 1e6 * weights)
    assert unequal is not None
    assert plain is not None
    assert unequal == pytest.approx(larger)
    assert unequal[1] - unequal[0] > 1.2 * (plain[1] - plain[0])
    groups = np.arange(400) // 4
    assert share_interval(hits, groups, np.ones(400)) == pytest.approx(share_interval(hits, groups), abs=5e-4)
    low, high = mean_interval(hits.astype(float), groups, weights) or (1.0, 0.0)
    assert low < np.average(hits, weights=weights) < high


def test_probabilities_are_scaled_by_what_the_heavy_rows_show() -> None:
    y = torch.from_numpy(RANDOM.integers(0, 2, 600))
    sure = torch.where(y[:, None] == torch.arange(2), 0.8, 0.2).double()
    sure[300:] = sure[300:].flip(1)  # half are right, half wrong
    weights = torch.cat([torch.full((300,), 20.0), torch.full((300,), 1.0)])
    plain, heavy = calibration.fit(sure, y, "accuracy"), calibration.fit(sure, y, "accuracy", weights)
    assert heavy.temperature < 1 < plain.temperature
    assert calibration.fit(sure, y, "accuracy", 1e6 * weights) == heavy


def test_a_training_says_by_what_its_figures_count_and_predict_gives_the_same(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        problem(data, weights=[1, 3, 2, 8, 0])
        (data / "train.csv").rename(data / f"{split}.part")
    for path in data.iterdir():
        path.rename(path.with_suffix(".csv"))
    config = "task: tabular\ndata: {target: y, weight: w}\nmodel: {candidates: [linear]}\n"
    result = train(run_inputs(data, tmp_path / "out", config))
    predicted = predict(tmp_path / "out", data, tmp_path / "rows.csv")
    assert predicted["metrics"] == pytest.approx(dict(result.metrics), rel=1e-12)
    assert "The figures are weighed by 'w'." in predicted["notes"]
    for name in ("report.html", "README.md"):
        shown = (tmp_path / "out" / name).read_text().replace("&#x27;", "'").replace("\\", "")
        assert "240 rows, weighed by 'w'" in shown
    write_csv(tmp_path / "new.csv", ["a", "y"], [[0.5, "yes"], [0.1, "no"]])
    found = predict(tmp_path / "out", tmp_path / "new.csv", None)
    assert len(found["predictions"]) == 2
    assert any("count all rows alike: new.csv has no column 'w'" in note for note in found["notes"])
    write_csv(tmp_path / "odd.csv", ["a", "w"], [[0.5, "heavy"], [0.1, -1]])
    assert predict(tmp_path / "out", tmp_path / "odd.csv", None)["rows"] == 2
