"""A small task of one's own that uses every hook of training: points of two kinds, told apart by several outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.limits import Limits
from trainer_image.tasks.base import (
    Augment,
    Batch,
    Figures,
    Json,
    Loss,
    Metric,
    Moment,
    Predictor,
    Problem,
    Recipe,
    Rows,
    Task,
    TaskSettings,
    cosine,
)

CONFIG = """
task: custom
custom: {entry_point: "own:Own", params: {}}
train: {epochs: 4, batch_size: 16, time_budget: 1h}
"""


class Drifting(torch.optim.Optimizer):
    """Remembers a number in its group, text with a parameter, and a tensor of another shape."""

    def __init__(self, parameters: Iterator[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.05, "count": 0, "drift": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["count"] += 1
            group["drift"] += 0.1 / group["count"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    sums = state.setdefault("sums", torch.zeros(2))
                    state["sign"] = "up" if float(parameter.grad.sum()) < 0 else "down"
                    sums += torch.stack([parameter.grad.sum(), parameter.grad.abs().sum()])
                    parameter.sub_(group["lr"] * parameter.grad * (1 + group["drift"]) / (1 + sums[1]))


class Pooled(torch.optim.SGD):
    """Remembers what belongs to no parameter, under names."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        [parameter] = self.param_groups[0]["params"]
        if parameter.grad is not None:
            self.state["steps"] = self.state.get("steps", 0) + 1
            pool = self.state.setdefault("all/of them", {"sums": torch.zeros(2), "last": 0.0})
            pool["sums"] += torch.stack([parameter.grad.sum(), parameter.grad.abs().sum()])
            pool["last"] = float(pool["sums"][1]) / self.state["steps"]
            parameter.sub_(self.param_groups[0]["lr"] * parameter.grad / (1 + pool["last"]))


class Network(nn.Module):
    def __init__(self, encoder: Path) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 8)
        self.encoder.load_state_dict(load_file(encoder))
        self.encoder.requires_grad_(requires_grad=False)
        self.middle, self.kind, self.size = nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        inner = torch.tanh(self.middle(torch.relu(self.encoder(points))))
        return self.kind(inner), self.size(inner).squeeze(1)


class Points(Predictor):
    def __init__(self, encoder: Path) -> None:
        self.encoder = encoder

    def build_model(self) -> nn.Module:
        return Network(self.encoder)

    def pretrained(self) -> Mapping[str, Path]:
        return {"encoder": self.encoder}

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        kind, size = model(batch["points"])
        return {"kind": functional.softmax(kind, -1), "size": size, "answer": kind.argmax(-1).to(torch.uint8)}

    def score(self, outputs: dict[str, Tensor], batch: Batch) -> Figures:
        hits = outputs["answer"].long() == batch["target"]
        return {"accuracy": float(hits.double().mean()), "error": float((outputs["size"] - batch["size"]).abs().mean())}

    def read(self, data: Path, limits: Limits) -> Rows:
        return Rows(drawn(3, 40), [str(row) for row in range(40)], labelled=True)

    def predictions(self, outputs: dict[str, Tensor]) -> tuple[list[str], list[list[str | float]]]:
        return ["kind", "size"], [
            [float(kind), float(size)] for kind, size in zip(outputs["answer"], outputs["size"], strict=True)
        ]


class PointsProblem(Problem):
    description, selection, headline = "points", Metric("error", higher_is_better=False), Metric("accuracy")

    def __init__(self, encoder: Path) -> None:
        self.notes, self.warnings = [], []
        self.splits = {name: drawn(seed, 40) for seed, name in enumerate(("train", "validation", "test"), start=1)}
        self.recipe = Recipe(4, 16, 0.02, ema_decay=0.9, refit=True)
        self.predictor = Points(encoder)
        self.moments: list[Moment] = []

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        self.moments.append(self.moment)
        kind, size = model(batch["points"])
        parts = {"kinds": functional.cross_entropy(kind, batch["target"]), "sizes": (size - batch["size"]).abs().mean()}
        # The two ends of the network take turns.
        part = "kinds" if self.moment.step % 2 else "sizes"
        return Loss(parts[part], {part: parts[part], "epoch": self.moment.epoch})

    def optimizers(self, model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
        assert isinstance(model, Network)
        return [
            torch.optim.Muon([model.middle.weight], lr=recipe.learning_rate),
            torch.optim.SGD([model.middle.bias, *model.kind.parameters()], lr=recipe.learning_rate, momentum=0.9),
            Drifting(model.size.parameters()),
        ]

    def schedule(self, moment: Moment, recipe: Recipe) -> float:
        return max(0.1, cosine(moment.done, 0.0))

    def augmentation(self) -> Augment:
        def shaken(batch: Batch, generator: torch.Generator) -> Batch:
            return {**batch, "points": batch["points"] + 0.1 * torch.randn(batch["points"].shape, generator=generator)}

        return shaken

    def model_description(self) -> Json:
        return {"encoder": str(self.predictor.encoder)}

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        return {}

    def findings(self, outputs: dict[str, Tensor]) -> Json:
        return {"kind": "points", "largest": float(outputs["size"].max())}

    predictor: Points


class Own(Task):
    """encoder: file of the weights that lie in the image; changed: what a test changes of each problem"""

    name = "own"
    interface = 2

    def __init__(self, encoder: Path, changed: Callable[[PointsProblem], object] = lambda problem: None) -> None:
        self.encoder, self.changed = encoder, changed
        self.made: list[PointsProblem] = []
        save_file(encoder_weights(), encoder)

    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        problem = PointsProblem(self.encoder)
        self.changed(problem)
        self.made.append(problem)
        return problem

    def restore(self, description: Json) -> Predictor:
        return Points(self.encoder)


def encoder_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {"weight": torch.randn(8, 2, generator=generator), "bias": torch.randn(8, generator=generator)}


def drawn(seed: int, rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(rows, 2, generator=generator)
    return {"points": points, "target": (points[:, 0] > points[:, 1]).long(), "size": points.norm(dim=1)}
