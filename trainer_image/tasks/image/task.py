"""Task `image_classification`: one class for each image, by a small residual network trained from scratch, by kernel
machines on features that need no training, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.file_kinds import left_out
from trainer_image.data.rows.division import RowHashes, divide
from trainer_image.data.spill import Scratch
from trainer_image.errors import ConfigInvalid, DatasetInvalid, invalid
from trainer_image.limits import Limits
from trainer_image.tasks import baselines, muon
from trainer_image.tasks.base import (
    Batch,
    Example,
    Figures,
    ForAnother,
    Json,
    Labels,
    NetworkSize,
    Predictor,
    Problem,
    RowGroups,
    Rows,
    Task,
    TaskSettings,
    restored,
    spaced,
    told_alike,
)
from trainer_image.tasks.candidates import Candidate
from trainer_image.tasks.classes import (
    ClassPredictor,
    ClassProblem,
    in_short,
    judge,
    known_instead,
    quantities,
    same_classes,
)
from trainer_image.tasks.image import kernel
from trainer_image.tasks.image.files import bits_used, read_hashes, read_headers, read_pixels
from trainer_image.tasks.image.handedness import mirrored_alike
from trainer_image.tasks.image.labels import list_samples
from trainer_image.tasks.image.network import ImageNetwork, ImageSizes, Scaling
from trainer_image.tasks.image.presets import MUON_RATE, augmentation, input_size, networks
from trainer_image.tasks.image.remarks import (
    Sample,
    below_classes,
    check_folders,
    lost_classes,
    masks,
    missing_images,
    unknown_files,
    unread_images,
    way_out,
)
from trainer_image.tasks.image.sources import IMAGE_SUFFIXES, find_images
from trainer_image.tasks.recipe import Recipe

# So little that the network's probabilities are worth what the kernel machines' are, beside which they are weighed as
# they are: of 5,000 drawn digits the network got a tenth of the weight with 0.05 (accuracy of the blend 0.977), half of
# it with 0.01 (0.987); 90 s of one core each.
LABEL_SMOOTHING = 0.01
CANDIDATES_SHARE = 0.2
# What a row is told by, see `data.rows`: the bytes of its file, whatever its name and label.
CONTENT = ("bytes of an image",)
BASELINE_SIDE = 16
MIRRORED = "Training images are also shown mirrored: in a trial mirrored ones were recognised as well as the others."
NOT_MIRRORED = "Training images are not shown mirrored: in a trial mirrored ones were recognised worse than the others."
NO_IMAGES = f"holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"


class ImageClassification(Task):
    name = "image_classification"

    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        return ImageProblem(data, settings)

    def restore(self, description: Json) -> Predictor:
        sizes, scaling = (
            restored(ImageSizes, description["architecture"]),
            restored(Scaling, description["preprocessing"]),
        )
        if not len(scaling.mean) == len(scaling.spread) == sizes.channels:
            raise ValueError(f"Scaling: a mean and a spread for each of {sizes.channels} channels are expected")
        return ImagePredictor(sizes, restored(Labels, description["labels"]), scaling)


class ImagePredictor(ClassPredictor):
    """Tensors of a batch: pixels (rows, channels, height, width) uint8, target (rows,) int64."""

    def __init__(self, sizes: ImageSizes, labels: Sequence[str], scaling: Scaling) -> None:
        self.sizes, self.labels, self.scaling = sizes, tuple(labels), scaling

    def build_model(self) -> nn.Module:
        return ImageNetwork(self.sizes, len(self.labels), self.scaling.mean, self.scaling.spread)

    def build_candidate(self, name: str, chosen: Json) -> nn.Module:
        sizes, settings = self.sizes, restored(kernel.KernelSettings, chosen)
        return kernel.build(name, (sizes.channels, sizes.height, sizes.width), settings.landmarks, len(self.labels))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Class probabilities (rows, classes)."""
        return functional.softmax(model(batch["pixels"].float()).float(), dim=-1)

    def tensors(self, samples: Sequence[Sample], limits: Limits, scratch: Scratch) -> dict[str, Tensor]:
        """Images as a batch, with targets when every one has a label. DatasetInvalid for a label that is not known."""
        batch = {"pixels": torch.from_numpy(self._pixels(samples, limits, scratch, None))}
        if all(sample.label is not None for sample in samples):
            position = {label: number for number, label in enumerate(self.labels)}
            for sample in samples:
                if sample.label not in position:
                    instead = known_instead(str(sample.label), self.labels)
                    raise invalid(sample.name, f"has the label '{sample.label}', which no training image has{instead}")
            batch["target"] = torch.tensor([position[str(sample.label)] for sample in samples])
        return batch

    def _pixels(
        self, samples: Sequence[Sample], limits: Limits, scratch: Scratch, unread: dict[int, DatasetInvalid] | None
    ) -> np.ndarray[Any, np.dtype[np.uint8]]:
        size, white, bits = (self.sizes.height, self.sizes.width), self.scaling.over_white, self.scaling.bits
        channels = self.sizes.channels
        return read_pixels(samples, size, channels, limits, scratch, over_white=white, bits=bits, unread=unread)

    def read(self, data: Path, limits: Limits) -> Rows:
        scratch, notes = Scratch(), list[str]()
        found = find_images(data, limits, scratch, notes)
        files = found.get("test") or found["train"]
        missing: dict[str, set[int]] = {}
        samples = list_samples(files, limits, scratch, notes=notes, unknown=missing, alone=True)
        notes += [missing_images(table, len(rows)) for table, rows in missing.items() if rows]
        notes += unread_images(files)
        if not samples:
            hint = f"; {(unread_images(files) or [unknown_files(files)])[0].removesuffix('.')}"
            raise invalid(data.name, NO_IMAGES + hint)
        unread: dict[int, DatasetInvalid] = {}
        pixels = self._pixels(samples, limits, scratch, unread)
        if len(unread) == len(samples):
            raise unread[0]
        notes += left_out(len(samples), [unread[place] for place in sorted(unread)], "images")
        kept = [place for place in range(len(samples)) if place not in unread]
        samples = [samples[place] for place in kept]
        tensors = {"pixels": torch.from_numpy(pixels if not unread else pixels[kept])}
        position = {label: number for number, label in enumerate(self.labels)}
        known = [position[sample.label] for sample in samples if sample.label in position]
        if len(known) == len(samples):
            tensors["target"] = torch.tensor(known)
        elif known:
            unknown = f"{len(samples) - len(known)} of {len(samples)} images"
            notes.append(f"There are no figures: {unknown} have no label that the model knows.")
        return Rows(tensors, [sample.name for sample in samples], "target" in tensors, notes)


class ImageProblem(ClassProblem):
    predictor: ImagePredictor
    candidates_share = CANDIDATES_SHARE

    def __init__(self, data: Path, settings: TaskSettings) -> None:
        limits, scratch = settings.limits, settings.scratch
        decided: list[str] = []
        given, self.warnings = _listed(data, settings, decided)
        train = given["train"]
        labels = _labels(train)
        headers = read_headers(train, limits)
        size = input_size(settings.preset, headers)
        position = {label: number for number, label in enumerate(labels)}
        rows = divide(
            RowHashes(CONTENT, {split: read_hashes(samples) for split, samples in given.items()}),
            np.array([position[str(sample.label)] for sample in train]),
            settings.seed,
            groups=np.array([sample.group for sample in train], dtype=object) if settings.group else None,
            earlier=settings.earlier,
        )
        self.hashes, self.left_out = rows.hashes, rows.left_out
        self._networks = networks(settings.preset, size, len(rows.rows["train"]))
        self.recipe = self._networks[0].recipe
        bits = bits_used(train, headers, limits)
        if bits < 16:
            decided.append(f"Images of 16 bits hold values of {bits} bits only, and were read as such.")
        unscaled = ImagePredictor(self._networks[0].sizes, labels, Scaling((0.0,), (1.0,), over_white=True, bits=bits))
        parts = rows.of(given, lambda samples, index: [samples[row] for row in index])
        self.splits = {split: unscaled.tensors(samples, limits, scratch) for split, samples in parts.items()}
        self.predictor = ImagePredictor(unscaled.sizes, labels, _scaling(self.splits["train"]["pixels"], bits))
        alike = mirrored_alike(self.splits["train"], len(labels))
        # Where the data do not tell: photographs have no handedness, and are the ones with colour.
        self._mirror = size[2] == 3 if alike is None else alike
        self._augment = augmentation(self._networks[0].name, self._mirror)
        self._settings, self._test_samples = settings, parts["test"]
        if settings.group:
            self.test_groups = RowGroups.by(settings.group, [sample.group for sample in parts["test"]])
        self.notes = [*decided, *rows.notes]
        if alike is not None:
            self.notes.append(MIRRORED if alike else NOT_MIRRORED)
        judge(self, settings, self.splits["train"]["target"].numpy(), labels, "", "image")
        if len({(h.height, h.width) for h in headers}) > 1 or size[:2] != (headers[0].height, headers[0].width):
            self.notes.append(f"Images were resized to {size[1]} x {size[0]} pixels.")
        counts = ", ".join(f"{len(samples)} {split}" for split, samples in parts.items())
        kind = "grey" if size[2] == 1 else "colour"
        self.description = f"Images ({kind}, {size[1]} x {size[0]} pixels) in {in_short(labels)}; rows: {counts}."

    def sizes(self) -> Sequence[NetworkSize]:
        if len(self._networks) == 1:
            return ()
        return [NetworkSize(network.name, network.recipe, network.enough) for network in self._networks]

    def resize(self, name: str) -> None:
        [network] = [network for network in self._networks if network.name == name]
        self.recipe, self.predictor.sizes = network.recipe, network.sizes
        self._augment = augmentation(name, self._mirror)

    def candidates(self) -> Sequence[Candidate]:
        return [candidate(self.splits, len(self.predictor.labels)) for candidate in kernel.CANDIDATES]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        pixels = batch["pixels"].float()
        with torch.autocast(pixels.device.type, enabled=False):
            pixels = self._augment(pixels)
        return functional.cross_entropy(model(pixels).float(), batch["target"], label_smoothing=LABEL_SMOOTHING)

    def optimizers(self, model: nn.Module, recipe: Recipe) -> Sequence[torch.optim.Optimizer]:
        assert isinstance(model, ImageNetwork)
        groups = self.parameter_groups(model, recipe.weight_decay)
        return muon.within(model.blocks, groups, recipe, MUON_RATE)

    def model_description(self) -> Json:
        predictor = self.predictor
        return {
            "architecture": asdict(predictor.sizes),
            "preprocessing": asdict(predictor.scaling),
            "labels": list(predictor.labels),
        }

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        some = spaced(self.splits, fit_on, baselines.MOST_ROWS)
        x, y = _flat(some["pixels"]), some["target"].numpy()
        test = self.splits["test"]
        classes = len(self.predictor.labels)
        flats = (_flat(part) for part in torch.split(test["pixels"], baselines.MOST_ROWS))
        return baselines.classification(x, y, flats, test["target"].numpy(), classes)

    def for_another(self, other: Predictor, content: Sequence[str]) -> ForAnother:
        """Reads the test images again, in the other model's size."""
        assert isinstance(other, ImagePredictor)
        assert self.hashes is not None
        same_classes(self.predictor.labels, other.labels)
        of = told_alike(self.hashes, content)
        rows = other.tensors(self._test_samples, self._settings.limits, self._settings.scratch.anew())
        return ForAnother(rows, of, of)

    def examples(self, rows: Sequence[int], outputs: Tensor) -> list[Example]:
        """The pixels are those that the network sees."""
        pixels = self.splits["test"]["pixels"]
        return [Example(self._test_samples[row].name, pixels=pixels[row]) for row in rows]


def _listed(data: Path, settings: TaskSettings, notes: list[str]) -> tuple[dict[str, list[Sample]], list[str]]:
    """The images of each split that the dataset brings, every one labelled, and warnings about files that are none."""
    found = find_images(data, settings.limits, settings.scratch, notes)
    unread = unread_images(list({file.name: file for files in found.values() for file in files}.values()))
    listed: dict[str, list[Sample]] = {}
    refused: list[str] = []
    unknown: dict[str, set[int]] = {}
    for split, files in found.items():
        samples = list_samples(
            files,
            settings.limits,
            settings.scratch,
            label=settings.target,
            group=settings.group,
            notes=notes,
            split=split,
            refused=refused,
            unknown=unknown,
            alone=len(found) == 1,
        )
        if not samples:
            hint = f"; {(unread[0] if unread else unknown_files(files)).removesuffix('.')}"
            raise invalid(split, f"{NO_IMAGES} in folders named for their class{hint}")
        listed[split] = samples
    notes += [missing_images(table, len(rows)) for table, rows in unknown.items() if rows]
    if below := below_classes(listed["train"]):
        notes.append(below)
    if _unlabelled(listed.get("test", []), {sample.label for sample in listed["train"]}):
        count = len(listed.pop("test"))
        are = f"{count} images of the test split have no labels and are not used: `predict` labels them."
        are = "image of the test split has no label and is not used: `predict` labels it." if count == 1 else are
        notes.append(f"The {are}")
    for sample in (sample for samples in listed.values() for sample in samples):
        if sample.label is None:
            raise invalid(
                sample.name,
                "lies in no folder named for its class, and no table of labels names it; "
                + way_out(found["train"], refused),
            )
    check_folders(found["train"], listed["train"], refused)
    _check_rows(listed)
    unread += masks(listed["train"])
    if lost := lost_classes(found["train"], listed["train"]):
        unread.append(f"No image is left of the class {lost}.")
    if settings.group and all(sample.group is None for sample in listed["train"]):
        raise ConfigInvalid(
            f"Invalid configuration: data.group: images in folders have no '{settings.group}'; a metadata.csv or "
            "metadata.jsonl with this column is needed"
        )
    return listed, unread


def _check_rows(listed: Mapping[str, Sequence[Sample]]) -> None:
    """Raises DatasetInvalid where a row of a table above the splits names an image of each of two."""
    of: dict[tuple[str, int, str], str] = {}
    for split in (name for name in ("train", "validation", "test") if name in listed):
        for row in sorted({sample.row for sample in listed[split] if sample.row}):
            if row in of:
                table, number, named = row
                raise invalid(
                    table,
                    f"row {number}: '{named}' is the name of an image of the {of[row]} split and of one of the {split}"
                    " split; name images with their folders, or call the table for its split, such as train_labels.csv",
                )
            of[row] = split


def _unlabelled(test: Sequence[Sample], known: set[str | None]) -> bool:
    """Whether a contest keeps the test's labels: there are none, or one folder that is no class holds all images."""
    labels = {sample.label for sample in test}
    return bool(test) and len(labels) == 1 and not labels & (known - {None})


def _labels(train: Sequence[Sample]) -> list[str]:
    labels = sorted({str(sample.label) for sample in train})
    if len(labels) == 1:
        raise invalid(
            train[0].name,
            f"all {len(train)} training images are of one class ('{labels[0][:60]}'); at least two are needed",
        )
    if why := quantities(labels):
        raise invalid(train[0].name, why)
    return labels


def _scaling(pixels: Tensor, bits: int) -> Scaling:
    """Mean and standard deviation of each channel over the training images, from at most some ten million pixels."""
    some = pixels[:: max(1, pixels.numel() // 10_000_000)].double()
    mean, spread = some.mean((0, 2, 3)), some.std((0, 2, 3)) + 1e-3
    return Scaling(tuple(mean.tolist()), tuple(spread.tolist()), over_white=True, bits=bits)


def _flat(pixels: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Pixels for a linear model: (rows, features), images larger than BASELINE_SIDE shrunk to it."""
    height, width = (min(BASELINE_SIDE, side) for side in pixels.shape[2:])
    parts = [
        functional.adaptive_avg_pool2d(part.float(), (height, width)).flatten(1) for part in torch.split(pixels, 4096)
    ]
    flat: np.ndarray[tuple[int, int], np.dtype[np.float32]] = torch.cat(parts).numpy()
    return flat
