"""The task: what the trainer asks of a plug-in (trainer_image/tasks/base.py), answered for masks of images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path, PurePosixPath
from typing import Annotated

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from my_segmenter.images import VOID, samples, splits, tensors
from my_segmenter.network import LEVELS, UNet
from trainer_image.errors import ConfigInvalid
from trainer_image.limits import Limits
from trainer_image.tasks.base import (
    Augment,
    Batch,
    Example,
    Figures,
    Json,
    Labels,
    Loss,
    Metric,
    Predictor,
    Problem,
    Recipe,
    Rows,
    Task,
    TaskSettings,
    checked_params,
    restored,
)

METRICS = {name: Metric(name) for name in ("mean_IoU", "pixel_accuracy")}
# Okabe and Ito's eight colours, which people with any colour vision can tell apart: jfly.uni-koeln.de/color
COLOURS = {
    "black": (0, 0, 0),
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "blue": (0, 114, 178),
    "vermilion": (213, 94, 0),
    "purple": (204, 121, 167),
}
VOID_COLOUR = (160, 160, 160)
WORST = 8

# By name: pixels, mask and shape of `images.tensors`; outputs have a mask of their own, and the confidence in it.
Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Params:
    """custom.params. classes: names by the value of a mask's pixels, from 0; size: of the square that is looked at."""

    classes: Labels
    size: Annotated[int, Field(ge=16, le=1024)] = 64

    def __post_init__(self) -> None:
        if self.size % 2 ** (LEVELS - 1):
            raise ValueError(f"size must be a multiple of {2 ** (LEVELS - 1)}")
        if not 2 <= len(self.classes) <= VOID:
            raise ValueError(f"classes must be a list of 2 to {VOID} names")


@dataclass(frozen=True)
class Description:
    """All that a published model needs beside its weights."""

    params: Params
    width: Annotated[int, Field(ge=4, le=256, multiple_of=4)]


class Segmentation(Task):
    name = "segmentation"
    interface = 2

    def check(self, settings: TaskSettings) -> None:
        """Before the dataset is there: a wrong parameter is told in seconds."""
        checked_params(Params, settings.params)
        if settings.metric not in ("auto", *METRICS):
            raise ConfigInvalid(f"Invalid configuration: train.metric: must be auto or one of {', '.join(METRICS)}")

    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        return SegmentationProblem(data, settings)

    def restore(self, description: Json) -> Predictor:
        return Segmenter(restored(Description, description))


class Segmenter(Predictor):
    def __init__(self, description: Description) -> None:
        self.description, self.classes = description, description.params.classes

    def build_model(self) -> nn.Module:
        return UNet(len(self.classes), self.description.width)

    def outputs(self, model: nn.Module, batch: Batch) -> Named:
        """The class of each pixel, a byte instead of a number for each class, and the mean probability of these."""
        probability, mask = model(batch["pixels"] / 255).softmax(1).max(1)
        return {"mask": mask.to(torch.uint8), "confidence": probability.mean((1, 2))}

    def score(self, outputs: Named, batch: Batch) -> Figures:
        counts = confusion(outputs["mask"], batch["mask"], len(self.classes))
        found = {"pixel_accuracy": float(counts.diagonal().sum() / counts.sum())}
        return {"mean_IoU": float(iou(counts).nanmean()), **found}

    def read(self, data: Path, limits: Limits) -> Rows:
        found = samples(data / "test" if (data / "test").is_dir() else data)
        read = tensors(found, self.description.params.size, len(self.classes), TaskSettings(limits=limits))
        return Rows(read, [sample.name for sample in found], labelled="mask" in read)

    def predictions(self, outputs: Named) -> tuple[list[str], list[list[str | float]]]:
        shares = [(outputs["mask"] == k).float().mean((1, 2)) for k in range(len(self.classes))]
        header = ["confidence", *(f"share of {name}" for name in self.classes)]
        return header, torch.stack([outputs["confidence"], *shares], dim=1).tolist()

    def files(self, outputs: Named, rows: Rows) -> Iterator[tuple[str, bytes]]:
        """Each mask at the size of its image, as those to train on: a class a pixel, with colours to look at."""
        for name, mask, shape in zip(rows.names, outputs["mask"], rows.tensors["shape"].tolist(), strict=True):
            image = Image.fromarray(mask.numpy()).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
            image.putpalette([channel for colour in COLOURS.values() for channel in colour])
            file = io.BytesIO()
            image.save(file, "PNG")
            yield str(PurePosixPath(name).with_suffix(".png")), file.getvalue()


class SegmentationProblem(Problem):
    predictor: Segmenter

    def __init__(self, data: Path, settings: TaskSettings) -> None:
        params = checked_params(Params, settings.params)
        found = splits(data)
        self.splits = {
            name: tensors(split, params.size, len(params.classes), settings) for name, split in found.items()
        }
        self._names = [sample.name for sample in found["test"]]
        width = {"fast": 8, "auto": 12, "best": 32}[settings.preset]
        self.predictor = Segmenter(Description(params, width))
        self.headline = self.selection = METRICS["mean_IoU" if settings.metric == "auto" else settings.metric]
        self.recipe = Recipe(epochs=20, batch_size=8, learning_rate=8e-3, weight_decay=1e-2)
        rows = ", ".join(f"{len(split)} {name}" for name, split in found.items())
        self.description = f"Images with masks of {len(params.classes)} classes: {rows}."
        self.notes = [f"Images and masks of any size are seen at {params.size} by {params.size} pixels."]
        mask = self.splits["train"]["mask"]
        self.warnings = [
            f"No pixel to train on is of class '{name}'."
            for k, name in enumerate(params.classes)
            if not (mask == k).any()
        ]

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Cross entropy, and the overlap of each class, in which small ones have their say, too: Dice's loss (Milletari
        et al. 2016, arXiv 1606.04797)."""
        logits, mask = model(batch["pixels"] / 255).float(), batch["mask"].long()
        entropy = functional.cross_entropy(logits, mask, ignore_index=VOID)
        known = (mask != VOID).unsqueeze(1)
        truth = functional.one_hot(mask.where(mask != VOID, 0), logits.shape[1]).movedim(-1, 1) * known
        probability = logits.softmax(1) * known
        overlap, both = (probability * truth).sum((0, 2, 3)), (probability + truth).sum((0, 2, 3))
        dice = 1 - ((2 * overlap + 1) / (both + 1)).mean()
        return Loss(entropy + dice, {"cross entropy": entropy, "dice": dice})

    def augmentation(self) -> Augment:
        return augmented

    def model_description(self) -> Json:
        return asdict(self.predictor.description)

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        """What needs no network: the commonest class everywhere, and the commonest one of each of 512 colours."""
        classes, test = len(self.predictor.classes), self.splits["test"]
        colours = torch.cat([colour(self.splits[name]["pixels"]) for name in fit_on])
        mask = torch.cat([self.splits[name]["mask"] for name in fit_on]).long()
        seen = (colours * classes + mask)[mask != VOID].bincount(minlength=512 * classes).reshape(512, classes)
        commonest = seen.sum(0).argmax()
        by_colour = torch.where(seen.sum(1) > 0, seen.argmax(1), commonest)
        return {
            "trivial": self.predictor.score({"mask": commonest.expand(test["mask"].shape)}, test),
            "colour": self.predictor.score({"mask": by_colour[colour(test["pixels"])]}, test),
        }

    def findings(self, outputs: Named) -> Json:
        truth, classes = self.splits["test"]["mask"], self.predictor.classes
        counts = confusion(outputs["mask"], truth, len(classes))
        single = torch.stack(
            [iou(confusion(*pair, len(classes))).nanmean() for pair in zip(outputs["mask"], truth, strict=True)]
        )
        return {
            "kind": "segmentation",
            "by class": [
                {"class": name, "drawn in": drawn, "IoU": float(value), "share of pixels": float(share)}
                for name, drawn, value, share in zip(
                    classes, cycle(COLOURS), iou(counts), counts.sum(1) / counts.sum(), strict=False
                )
            ],
            "worst": [{"row": row, "mean IoU": float(single[row])} for row in single.argsort()[:WORST].tolist()],
        }

    def examples(self, rows: Sequence[int], outputs: Named) -> list[Example]:
        pixels, truth = (self.splits["test"][name][list(rows)] for name in ("pixels", "mask"))
        return [
            Example(
                self._names[row],
                {"confidence": f"{confidence:.3f}"},
                pictures={"image": image, "truth": painted(wanted), "prediction": painted(found)},
            )
            for row, image, wanted, found, confidence in zip(
                rows, pixels, truth, outputs["mask"], outputs["confidence"].tolist(), strict=True
            )
        ]


def augmented(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Each image turned, mirrored and lit at random, and its mask with it."""
    rows = len(batch["mask"])
    turns = torch.randint(4, (rows,), generator=generator).tolist()
    mirrored = torch.randint(2, (rows,), generator=generator).tolist()
    light = torch.empty(rows, 1, 1, 1).uniform_(0.7, 1.3, generator=generator)

    def moved(pictures: Tensor) -> Tensor:
        turned = (picture.rot90(turn, (-2, -1)) for picture, turn in zip(pictures, turns, strict=True))
        return torch.stack([t.flip(-1) if mirror else t for t, mirror in zip(turned, mirrored, strict=True)])

    pixels = (moved(batch["pixels"]) * light).clamp(0, 255).to(torch.uint8)
    return {"pixels": pixels, "mask": moved(batch["mask"])}


def confusion(found: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Pixels by true and predicted class, float64 (classes, classes)."""
    known = truth != VOID
    pairs = truth[known].long() * classes + found[known]
    return pairs.bincount(minlength=classes**2).reshape(classes, classes).double()


def iou(counts: Tensor) -> Tensor:
    """Intersection over union of each class, (classes,); NaN where a class is neither there nor predicted."""
    hits = counts.diagonal()
    return hits / (counts.sum(0) + counts.sum(1) - hits)


def colour(pixels: Tensor) -> Tensor:
    """Which of 512 colours each pixel has: int64 (rows, height, width)."""
    red, green, blue = pixels.long().div(32, rounding_mode="floor").unbind(1)
    return red * 64 + green * 8 + blue


def painted(mask: Tensor) -> Tensor:
    """A mask (height, width) in colours: uint8 (3, height, width)."""
    palette = torch.tensor([*COLOURS.values(), VOID_COLOUR], dtype=torch.uint8)
    return palette[torch.where(mask == VOID, len(COLOURS), mask.long() % len(COLOURS))].movedim(-1, 0)
