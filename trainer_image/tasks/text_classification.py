"""Task `text_classification`: one class for each text, from hashed n-grams and, where wanted, its bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.contract import Limits
from trainer_image.errors import DatasetInvalid
from trainer_image.splits import assign, group_numbers
from trainer_image.tasks import imbalance, metrics, text_baselines, text_linear
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
from trainer_image.tasks.text_files import Fields, Text, find_texts, read_texts
from trainer_image.tasks.text_network import TextNetwork, TextSizes
from trainer_image.tasks.text_presets import preset

LABEL = "label"
MOST_CLASSES = 1000
# An n-gram of one training text only tells nothing of others; with few texts nearly all are of that kind.
LEAST_TEXTS, FEW_TEXTS = 2, 100
COUNTED_ROWS = 256
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

    def tensors(self, texts: Sequence[Text]) -> dict[str, Tensor]:
        """Texts as a batch, cut at `longest` bytes; with targets when every one has a known label."""
        longest = self.sizes.longest
        cut = [text.content[:longest] for text in texts]
        whole = np.frombuffer(b"".join(content.ljust(longest, b"\0") for content in cut), np.uint8)
        batch = {
            "texts": torch.from_numpy(whole.reshape(len(cut), longest).copy()),
            "lengths": torch.tensor([len(content) for content in cut]),
        }
        position = {label: number for number, label in enumerate(self.labels)}
        if all(text.label in position for text in texts):
            batch["target"] = torch.tensor([position[str(text.label)] for text in texts])
        return batch

    def read(self, data: Path, limits: Limits) -> Rows:
        found = find_texts(data, plain=data.is_file())
        texts = read_texts(found.test or found.train, data, self.fields, limits, labelled=False)
        if not texts:
            raise DatasetInvalid(f"Invalid dataset: {data.name}: holds no texts")
        tensors = self.tensors(texts)
        return Rows(tensors, [text.name for text in texts], "target" in tensors)

    def predictions(self, outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
        header = ["label", *(f"p({label})" for label in self.labels)]
        chosen = outputs.argmax(1).tolist()
        return header, [[self.labels[c], *p] for c, p in zip(chosen, outputs.tolist(), strict=True)]


class TextProblem(Problem):
    def __init__(self, data: Path, settings: TaskSettings) -> None:
        fields = Fields(settings.text or "text", settings.target or LABEL, settings.group)
        found = find_texts(data, plain=False)
        given = {
            split: _checked(read_texts(files, data, fields, settings.limits), files, data, fields)
            for split, files in (("train", found.train), ("validation", found.validation), ("test", found.test))
            if files
        }
        train = given["train"]
        labels = self._labels(given, fields)
        position = {label: number for number, label in enumerate(labels)}
        targets = np.array([position[str(text.label)] for text in train])
        rows = assign(
            targets,
            settings.seed,
            has_validation="validation" in given,
            has_test="test" in given,
            groups=np.array([text.group for text in train], dtype=object) if settings.group else None,
        )
        texts = {
            split: given[split] if split in given and split != "train" else [train[row] for row in index]
            for split, index in (("train", rows.train), ("validation", rows.validation), ("test", rows.test))
        }
        longest = max(len(text.content) for text in texts["train"])
        sizes, self.recipe = preset(settings.preset, len(texts["train"]), longest, len(labels))
        self.predictor = self._predictor = TextPredictor(sizes, labels, fields)
        self.splits = {split: self._predictor.tensors(part) for split, part in texts.items()}
        self._test = texts["test"]
        if settings.group:
            groups = group_numbers([text.group for text in texts["test"]])
            self.test_groups = RowGroups(torch.from_numpy(groups), f"groups by '{settings.group}'")
        figure, told = imbalance.figure(targets[rows.train], labels, f"The classes of '{fields.label}'")
        self.notes, self.warnings = [*rows.notes, *told], _rare(texts["train"], fields)
        self.headline, self.selection = metrics.choose(
            settings.metric, metrics.CLASSIFICATION, figure or "accuracy", figure or "log_loss"
        )
        cut = sum(len(text.content) > sizes.longest for text in texts["train"])
        if cut:
            self.notes.append(f"{cut} training texts are longer than {sizes.longest} bytes: their beginnings are read.")
        counts = ", ".join(f"{len(part)} {split}" for split, part in texts.items())
        shown = ", ".join(labels[:5]) + (", …" if len(labels) > 5 else "")
        self.description = f"Texts in {len(labels)} classes ({shown}); rows: {counts}."

    @staticmethod
    def _labels(given: dict[str, list[Text]], fields: Fields) -> list[str]:
        train = given["train"]
        labels = sorted({str(text.label) for text in train})
        if len(labels) == 1:
            raise DatasetInvalid(
                f"Invalid dataset: {train[0].file}: '{fields.label}' has one class only ('{labels[0]}'); at least two "
                "are needed"
            )
        if len(labels) > MOST_CLASSES:
            raise DatasetInvalid(
                f"Invalid dataset: {train[0].file}: '{fields.label}' has {len(labels)} different values; at most "
                f"{MOST_CLASSES} classes are supported"
            )
        known = set(labels)
        for split in ("validation", "test"):
            for text in given.get(split, ()):
                if text.label not in known:
                    raise text.error(f"'{fields.label}' holds the label '{text.label}', which no training text has")
        return labels

    def begin(self, model: nn.Module, fit_on: Sequence[str]) -> None:
        """Weighs each bucket by how few training texts have it, and lets a small model begin as a linear one."""
        assert isinstance(model, TextNetwork)
        seen = torch.zeros(model.sizes.buckets)
        total = 0
        for split in fit_on:
            texts, lengths = self.splits[split]["texts"], self.splits[split]["lengths"]
            total += len(texts)
            for start in range(0, len(texts), COUNTED_ROWS):
                part, these = texts[start : start + COUNTED_ROWS], lengths[start : start + COUNTED_ROWS]
                ordered = model.buckets(part, these).sort(1).values
                new = torch.ones_like(ordered, dtype=torch.bool)
                new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
                seen += torch.bincount(ordered[new & (ordered >= 0)], minlength=len(seen))
        least = LEAST_TEXTS if total > FEW_TEXTS else 1
        model.weights.copy_(torch.where(seen >= least, ((1 + total) / (1 + seen)).log() + 1, 0.0))
        if model.head is None:
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
        weight, bias = text_linear.support_vectors(*rows, np.concatenate(targets), model.sizes.buckets, len(model.bias))
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
        train = [self.splits[split] for split in fit_on]
        y = np.concatenate([split["target"].numpy() for split in train])
        test = self.splits["test"]
        return text_baselines.baselines(
            [content for split in train for content in _contents(split)],
            y,
            _contents(test),
            test["target"].numpy(),
            len(self._predictor.labels),
        )

    def findings(self, outputs: Tensor) -> Json:
        labels = self.splits["test"]["target"]
        return metrics.classification_findings(outputs, labels, self._predictor.labels, self.test_groups)

    def examples(self, rows: Sequence[int]) -> list[Example]:
        return [
            Example(self._test[row].name, text=self._test[row].content[:EXCERPT].decode(errors="replace"))
            for row in rows
        ]


def _checked(texts: list[Text], files: Sequence[Path], data: Path, fields: Fields) -> list[Text]:
    if not texts:
        name = files[0].relative_to(data).as_posix()
        raise DatasetInvalid(f"Invalid dataset: {name}: holds no texts")
    for text in texts:
        if not text.content.strip():
            raise text.error(f"'{fields.text}' is empty; every row needs a text")
        if text.label is None:
            raise text.error(f"'{fields.label}' (data.target) is empty or missing; every row needs a label")
    return texts


def _rare(train: Sequence[Text], fields: Fields) -> list[str]:
    once = sorted(label for label, count in Counter(str(text.label) for text in train).items() if count == 1)
    if not once:
        return []
    shown = ", ".join(f"'{label}'" for label in once[:5]) + (f" and {len(once) - 5} more" if len(once) > 5 else "")
    return [f"Labels of '{fields.label}' with one training text only: {shown}; nothing can be learnt from one example."]


def _contents(split: Batch) -> list[bytes]:
    return [bytes(row[:length]) for row, length in zip(split["texts"].numpy(), split["lengths"].tolist(), strict=True)]
