"""The task: what the trainer asks of a plug-in (trainer_image/tasks/base.py), answered for a time series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from my_forecaster.series import backtest, read, windows
from trainer_image.contract import Limits
from trainer_image.errors import ConfigInvalid, DatasetInvalid
from trainer_image.tasks.base import (
    Batch,
    Example,
    Figures,
    Json,
    Metric,
    Predictor,
    Problem,
    Recipe,
    RowGroups,
    Rows,
    Task,
    TaskSettings,
    checked_params,
)

METRICS = {name: Metric(name, higher_is_better=False) for name in ("mase", "mae", "rmse")}
WORST = 8

Steps = Annotated[int, Field(ge=1, le=10_000)]


@dataclass(frozen=True)
class Params:
    """custom.params. window: steps that the network sees; season: steps after which the series repeats itself."""

    horizon: Steps = 12
    season: Steps = 12
    window: Steps = 36
    time: str | None = None

    def __post_init__(self) -> None:
        if self.window < self.season:
            raise ValueError("window must not be shorter than season")


class Forecasting(Task):
    name = "forecasting"
    interface = 2

    def check(self, settings: TaskSettings) -> None:
        """Before the dataset is there: a wrong parameter is told in seconds."""
        if settings.target is None:
            raise ConfigInvalid("Invalid configuration: data.target: name the column to forecast")
        if settings.metric not in ("auto", *METRICS):
            raise ConfigInvalid(f"Invalid configuration: train.metric: must be auto or one of {', '.join(METRICS)}")
        checked_params(Params, settings.params)

    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        return ForecastingProblem(data, settings)

    def restore(self, description: Json) -> Predictor:
        params = checked_params(Params, description["params"])
        return Forecaster(params, str(description["target"]), float(description["scale"]), int(description["width"]))


class Network(nn.Module):
    """A linear forecast and what a small network adds to it: (rows, window) → (rows, horizon)."""

    def __init__(self, window: int, horizon: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(window, horizon)
        self.deep = nn.Sequential(
            nn.Linear(window, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, horizon)
        )

    def forward(self, past: Tensor) -> Tensor:
        forecast: Tensor = self.linear(past) + self.deep(past)
        return forecast


class Forecaster(Predictor):
    """Sees each window relative to its own mean and spread, so that a trend leads nowhere it has not been."""

    def __init__(self, params: Params, target: str, scale: float, width: int) -> None:
        self.params, self.target, self.scale, self.width = params, target, scale, width

    def build_model(self) -> nn.Module:
        return Network(self.params.window, self.params.horizon, self.width)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        relative, mean, spread = normalised(batch["past"])
        forecast: Tensor = model(relative).float() * spread + mean
        return forecast

    def score(self, outputs: Tensor, batch: Batch) -> Figures:
        error = (outputs - batch["target"]).double()
        mae = float(error.abs().mean())
        return {"mase": mae / self.scale, "mae": mae, "rmse": float((error**2).mean().sqrt())}

    def read(self, data: Path, limits: Limits) -> Rows:
        """One forecast: of the steps that follow the last row."""
        series = read(data, self.target, self.params.time)
        if len(series.values) < self.params.window:
            raise DatasetInvalid(
                f"Invalid dataset: {series.file}: {len(series.values)} rows; a forecast looks at the last"
                f" {self.params.window}"
            )
        past = series.values[-self.params.window :].float().unsqueeze(0)
        return Rows({"past": past}, [f"after {series.times[-1]}"], labelled=False)

    def predictions(self, outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
        return [f"{self.target} +{step + 1}" for step in range(self.params.horizon)], outputs.tolist()


class ForecastingProblem(Problem):
    predictor: Forecaster

    def __init__(self, data: Path, settings: TaskSettings) -> None:
        assert settings.target is not None  # `check` has seen to it
        self.params = params = checked_params(Params, settings.params)
        series = read(data, settings.target, params.time)
        values, steps = series.values, len(series.values)
        validation, test = backtest(steps, params.window, params.horizon)
        bounds = {"train": (0, validation), "validation": (validation, test), "test": (test, steps)}
        self.splits = {
            name: windows(values, first, end, params.window, params.horizon) for name, (first, end) in bounds.items()
        }
        # What a forecast of the test is told by: the last step that it knows.
        self._known_until = series.times[test - 1 : steps - params.horizon]
        # Windows that overlap share most of what they forecast: what is told of their errors counts by stretches.
        stretches = torch.arange(len(self.splits["test"]["past"])) // params.horizon
        self.test_groups = RowGroups(stretches, f"stretches of {params.horizon} steps")
        # One is the error of repeating the last season, on the training part: the usual unit (MASE).
        known = values[:validation]
        scale = float((known[params.season :] - known[: -params.season]).abs().mean())
        width = {"fast": 32, "auto": 64, "best": 128}[settings.preset]
        self.predictor = Forecaster(params, settings.target, scale or 1.0, width)
        self.headline = self.selection = METRICS["mase" if settings.metric == "auto" else settings.metric]
        self.recipe = Recipe(
            epochs=300, batch_size=32, learning_rate=2e-3, weight_decay=1e-2, patience=30, ema_decay=0.98, small=True
        )
        rows = ", ".join(f"{len(split['past'])} {name}" for name, split in self.splits.items())
        self.description = f"A series of {steps} steps, {params.horizon} ahead; forecasts: {rows}."
        self.notes = [
            f"Split by time: validation begins with {series.times[validation]}, the test with {series.times[test]}."
        ]
        self.warnings = [] if scale > 0 else [f"'{settings.target}' repeats itself exactly: there is nothing to learn."]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        relative, mean, spread = normalised(batch["past"])
        return functional.smooth_l1_loss(model(relative).float(), (batch["target"] - mean) / spread)

    def model_description(self) -> Json:
        made = self.predictor
        return {"params": asdict(self.params), "target": made.target, "scale": made.scale, "width": made.width}

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        """What needs no network: the last season again, and a linear forecast of the same windows."""
        test, season, horizon = self.splits["test"], self.params.season, self.params.horizon
        again = test["past"][:, -season:].repeat(1, -(-horizon // season))[:, :horizon]
        relative, mean, spread = normalised(torch.cat([self.splits[name]["past"] for name in fit_on]))
        wanted = (torch.cat([self.splits[name]["target"] for name in fit_on]) - mean) / spread
        weights = _ridge(relative.double(), wanted.double())
        relative, mean, spread = normalised(test["past"])
        linear = (_with_one(relative.double()) @ weights).float() * spread + mean
        return {
            "seasonal naive": self.predictor.score(again, test),
            "linear": self.predictor.score(linear, test),
        }

    def findings(self, outputs: Tensor) -> Json:
        error = (outputs - self.splits["test"]["target"]).abs()
        worst = error.mean(1).argsort(descending=True)[:WORST].tolist()
        return {
            "kind": "forecast",
            "mean absolute error": {f"{step + 1} ahead": float(value) for step, value in enumerate(error.mean(0))},
            "worst": [{"row": row, "mean absolute error": float(error[row].mean())} for row in worst],
        }

    def examples(self, rows: Sequence[int], outputs: Tensor) -> list[Example]:
        """Each forecast beside what came."""
        came = self.splits["test"]["target"][list(rows)].tolist()
        return [
            Example(
                f"after {self._known_until[row]}",
                {f"{step} ahead": f"{ours:.4g}, came {theirs:.4g}" for step, (ours, theirs) in enumerate(pairs, 1)},
            )
            for row, pairs in zip(rows, map(zip, outputs.tolist(), came), strict=True)
        ]


def normalised(past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(past relative to its own mean and spread, mean, spread): (rows, window), (rows, 1), (rows, 1)."""
    mean = past.mean(1, keepdim=True)
    spread = past.std(1, keepdim=True).clamp_min(1e-6)
    return (past - mean) / spread, mean, spread


def _ridge(x: Tensor, y: Tensor, penalty: float = 1.0) -> Tensor:
    x = _with_one(x)
    weight = torch.eye(x.shape[1], dtype=x.dtype) * penalty
    weight[-1, -1] = 0.0  # the mean is not drawn to zero
    solution: Tensor = torch.linalg.solve(x.T @ x + weight, x.T @ y)
    return solution


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
