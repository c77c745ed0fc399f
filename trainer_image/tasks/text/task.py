"""Task `text_classification`: one class for each text, from hashed n-grams and, where wanted, its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.spill import Scratch
from trainer_image.data.splits import assign, group_numbers
from trainer_image.data.text_reader import Fields, find_texts, read_texts
from trainer_image.data.text_store import Ints, Text, TextKeeper, Texts
from trainer_image.errors import DatasetInvalid
from trainer_image.limits import Limits
from trainer_image.tasks import imbalance, metrics
from trainer_image.tasks.base import (
    Batch,
    Example,
    Figures,
    Json,
    Predictor,
    Problem,
    RowGroups,
    Rows,
    Task,
    TaskSettings,
    rows_in,
    take,
)
from trainer_image.tasks.labels import class_table, doubtful
from trainer_image.tasks.stretches import Stretch, Stretches
from trainer_image.tasks.text import baselines as text_baselines
from trainer_image.tasks.text import linear as text_linear
from trainer_image.tasks.text.network import TextNetwork, TextSizes
from trainer_image.tasks.text.presets import preset
from trainer_image.units import format_bytes

LABEL = "label"
MOST_CLASSES = 1000
# With a trained bag an n-gram of one training text only tells nothing of others; with few texts nearly all are of that
# kind. A linear model takes them all: naive Bayes wants them (`text_linear`).
LEAST_TEXTS, FEW_TEXTS = 2, 100
# The power of its inverse document frequencies: see `text_linear`.
LINEAR_POWER = 1.5
COUNTED_ROWS = 256
# Of more texts some are counted, evenly spaced: with 138,000 the count took longer than training was to. Which buckets
# are frequent, fewer tell as well.
MOST_COUNTED = 50_000
FITTED_RATE = 0.3
EXCERPT = 400


class TextClassification(Task):
    name = "text_classification"

    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        return TextProblem(data, settings)

    def restore(self, description: Json) -> Predictor:
        fields = description["fields"]
        return TextPredictor(
            TextSizes(**description["architecture"]), description["labels"], Fields(fields["text"], fields["label"])
        )


class TextPredictor(Predictor):
    """Tensors of a batch: texts (rows, longest) uint8, lengths (rows,) int64, target (rows,) int64."""

    def __init__(self, sizes: TextSizes, labels: Sequence[str], fields: Fields) -> None:
        self.sizes, self.labels, self.fields = sizes, tuple(labels), fields

    def build_model(self) -> nn.Module:
        return TextNetwork(self.sizes, len(self.labels))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Class probabilities (rows, classes)."""
        return functional.softmax(model(batch["texts"], batch["lengths"]).float(), dim=-1)

    def score(self, outputs: Tensor, batch: Batch) -> Figures:
        return metrics.classification(outputs, batch["target"])

    def tensors(self, texts: Texts, content: Tensor) -> Stretches:
        """Texts of `content` as a split, cut at `longest` bytes; with targets when every one has a known label."""
        lengths = torch.from_numpy(np.minimum(texts.sizes, self.sizes.longest))
        tensors = {"lengths": lengths}
        target = positions(texts, self.labels)
        if (target >= 0).all():
            tensors["target"] = torch.from_numpy(target)
        source = Stretch(content, self.sizes.longest)
        return Stretches({"texts": source}, torch.from_numpy(texts.starts), lengths, tensors)

    def read(self, data: Path, limits: Limits) -> Rows:
        found = find_texts(data, plain=data.is_file())
        keeper = TextKeeper(Scratch())
        read_texts(found.test or found.train, data, self.fields, limits, keeper, labelled=False)
        if not len(keeper):
            raise DatasetInvalid(f"Invalid dataset: {data.name}: holds no texts")
        texts = keeper.texts()
        tensors = self.tensors(texts, torch.from_numpy(texts.content))
        return Rows(tensors, texts.names(), "target" in tensors)

    def predictions(self, outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
        return class_table("label", self.labels, outputs)


class TextProblem(Problem):
    def __init__(self, data: Path, settings: TaskSettings) -> None:
        fields = Fields(settings.text or "text", settings.target or LABEL, settings.group)
        found = find_texts(data, plain=False)
        scratch = settings.scratch
        keeper = TextKeeper(scratch, lambda text: _wrong(text, fields))
        parts = {
            split: _read(files, data, fields, settings.limits, keeper)
            for split, files in (("train", found.train), ("validation", found.validation), ("test", found.test))
            if files
        }
        every = keeper.texts()
        given = {split: every.select(part) for split, part in parts.items()}
        train = given["train"]
        labels = self._labels(given, fields)
        targets = positions(train, labels)
        rows = assign(
            targets,
            settings.seed,
            has_validation="validation" in given,
            has_test="test" in given,
            groups=train.group_names() if settings.group else None,
        )
        texts = {
            split: given[split] if split in given and split != "train" else train.select(index)
            for split, index in (("train", rows.train), ("validation", rows.validation), ("test", rows.test))
        }
        longest = int(texts["train"].sizes.max())
        sizes, self.recipe = preset(settings.preset, len(texts["train"]), longest, len(labels))
        self.predictor = self._predictor = TextPredictor(sizes, labels, fields)
        # One tensor for all: a refit joins splits without a copy of their texts.
        content = torch.from_numpy(every.content)
        self.splits = {split: self._predictor.tensors(part, content) for split, part in texts.items()}
        self._texts, self._grouped = texts, bool(settings.group)
        if settings.group:
            groups = group_numbers(texts["test"].group_names())
            self.test_groups = RowGroups(torch.from_numpy(groups), f"groups by '{settings.group}'")
        figure, told = imbalance.figure(targets[rows.train], labels, f"The classes of '{fields.label}'")
        self.notes = [*rows.notes, *(told if settings.metric == "auto" else ())]
        self.warnings = doubtful(targets[rows.train], labels, f" of '{fields.label}'", "text")
        self.headline, self.selection = metrics.choose(
            settings.metric, metrics.CLASSIFICATION, figure or "accuracy", "log_loss"
        )
        cut = int((texts["train"].sizes > sizes.longest).sum())
        if cut:
            self.notes.append(f"{cut} training texts are longer than {sizes.longest} bytes: their beginnings are read.")
        if any(text_baselines.step(np.minimum(part.sizes, sizes.longest)) > 1 for part in texts.values()):
            self.notes.append(
                "The linear baseline is fitted and tested on evenly spaced texts, "
                f"{format_bytes(text_baselines.MOST_BYTES)} of a split at most."
            )
        if scratch.spilled_bytes:
            self.notes.append(
                f"The texts do not fit into memory: {format_bytes(scratch.spilled_bytes)} lie in files of the work"
                " folder."
            )
        counts = ", ".join(f"{len(part)} {split}" for split, part in texts.items())
        shown = ", ".join(labels[:5]) + (", …" if len(labels) > 5 else "")
        self.description = f"Texts in {len(labels)} classes ({shown}); rows: {counts}."

    @staticmethod
    def _labels(given: Mapping[str, Texts], fields: Fields) -> list[str]:
        train = given["train"]
        file = train.files[0].name
        labels = sorted(train.labels[number] for number in np.unique(train.label))
        if len(labels) == 1:
            raise DatasetInvalid(
                f"Invalid dataset: {file}: '{fields.label}' has one class only ('{labels[0]}'); at least two are needed"
            )
        if len(labels) > MOST_CLASSES:
            raise DatasetInvalid(
                f"Invalid dataset: {file}: '{fields.label}' has {len(labels)} different values; at most "
                f"{MOST_CLASSES} classes are supported"
            )
        for texts in (given[split] for split in ("validation", "test") if split in given):
            for row in np.flatnonzero(positions(texts, labels) < 0)[:1].tolist():
                label = texts.labels[texts.label[row]]
                raise texts.error(row, f"'{fields.label}' holds the label '{label}', which no training text has")
        return labels

    def begin(self, model: nn.Module, fit_on: Sequence[str]) -> None:
        """Weighs each bucket by how few training texts have it, and lets a small model begin as a linear one."""
        assert isinstance(model, TextNetwork)
        seen = torch.zeros(model.sizes.buckets)
        total = 0
        step = -(-sum(rows_in(self.splits[split]) for split in fit_on) // MOST_COUNTED)
        for split in fit_on:
            batch = self.splits[split]
            for start in range(0, rows_in(batch), COUNTED_ROWS * step):
                part = take(batch, slice(start, start + COUNTED_ROWS * step, step))
                total += rows_in(part)
                ordered = model.buckets(part["texts"], part["lengths"]).sort(1).values
                new = torch.ones_like(ordered, dtype=torch.bool)
                new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
                seen += torch.bincount(ordered[new & (ordered >= 0)], minlength=len(seen))
        linear = model.head is None
        least = LEAST_TEXTS if not linear and total > FEW_TEXTS else 1
        rarity = (((1 + total) / (1 + seen)).log() + 1) ** (LINEAR_POWER if linear else 1)
        model.weights.copy_(torch.where(seen >= least, rarity, 0.0))
        if linear:
            self._begin_linear(model, fit_on)

    def _begin_linear(self, model: TextNetwork, fit_on: Sequence[str]) -> None:
        indices, values, widths, targets = [], [], [0], []
        for split in fit_on:
            batch = self.splits[split]
            targets.append(batch["target"].numpy())
            for start in range(0, rows_in(batch), COUNTED_ROWS):
                part = take(batch, slice(start, start + COUNTED_ROWS))
                index, value = model.bags(part["texts"], part["lengths"])
                there = value > 0
                widths += there.sum(1).tolist()
                indices.append(index[there].numpy())
                values.append(value[there].numpy())
        rows = (np.concatenate(values), np.concatenate(indices), np.cumsum(widths))
        groups = None
        if self._grouped:
            groups = group_numbers(np.concatenate([self._texts[split].group_names() for split in fit_on]))
        sizes = model.sizes.buckets, len(model.bias)
        weight, bias = text_linear.first_weights(*rows, np.concatenate(targets), *sizes, groups)
        with torch.no_grad():
            model.table.weight.copy_(torch.from_numpy(weight.T))
            model.bias.copy_(torch.from_numpy(bias))

    def parameter_groups(self, model: nn.Module, weight_decay: float) -> list[Json]:
        assert isinstance(model, TextNetwork)
        fitted = [] if model.head is not None else [model.table.weight, model.bias]
        rest = [p for p in model.parameters() if all(p is not other for other in fitted)]
        groups: list[Json] = [{"params": rest, "weight_decay": weight_decay}] if rest else []
        # Fitted already: it follows slowly.
        return [*groups, {"params": fitted, "weight_decay": 0.0, "lr_factor": FITTED_RATE}] if fitted else groups

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(model(batch["texts"], batch["lengths"]).float(), batch["target"])

    def model_description(self) -> Json:
        predictor = self._predictor
        return {
            "architecture": asdict(predictor.sizes),
            "fields": {"text": predictor.fields.text, "label": predictor.fields.label},
            "labels": list(predictor.labels),
        }

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        longest, labels = self._predictor.sizes.longest, self._predictor.labels
        test = self._texts["test"]
        return text_baselines.baselines(
            [content for split in fit_on for content in self._texts[split].contents(longest)],
            np.concatenate([positions(self._texts[split], labels) for split in fit_on]),
            test.contents(longest),
            positions(test, labels),
            len(labels),
        )

    def findings(self, outputs: Tensor) -> Json:
        labels = self.splits["test"]["target"]
        return metrics.classification_findings(outputs, labels, self._predictor.labels, self.test_groups)

    def examples(self, rows: Sequence[int]) -> list[Example]:
        test = self._texts["test"].select(np.array(rows, np.int64))
        return [
            Example(name, text=content.tobytes().decode(errors="replace"))
            for name, content in zip(test.names(), test.contents(EXCERPT), strict=True)
        ]


def _read(files: Sequence[Path], data: Path, fields: Fields, limits: Limits, keeper: TextKeeper) -> slice:
    part = read_texts(files, data, fields, limits, keeper)
    if part.start == part.stop:
        name = files[0].relative_to(data).as_posix()
        raise DatasetInvalid(f"Invalid dataset: {name}: holds no texts")
    return part


def _wrong(text: Text, fields: Fields) -> str | None:
    if not text.content.strip():
        return f"'{fields.text}' is empty; every row needs a text"
    if text.label is None:
        return f"'{fields.label}' (data.target) is empty or missing; every row needs a label"
    return None


def positions(texts: Texts, labels: Sequence[str]) -> Ints:
    """The position of each text's label among `labels`, -1 where it is none of them: (rows,)."""
    known = {label: number for number, label in enumerate(labels)}
    return np.array([*(known.get(label, -1) for label in texts.labels), -1], np.int64)[texts.label]
