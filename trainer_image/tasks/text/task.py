"""Task `text_classification`: one class for each text, from hashed n-grams and, where wanted, its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.encodings import joined
from trainer_image.data.rows.division import RowHashes, divide
from trainer_image.data.rows.hashes import of_bytes
from trainer_image.data.spill import Scratch
from trainer_image.data.text_folders import Fields
from trainer_image.data.text_reader import find_labelled, find_unlabelled, read_readable, read_texts
from trainer_image.data.text_store import Ints, Text, TextKeeper, Texts
from trainer_image.data.unpacking import looked_into
from trainer_image.errors import DatasetInvalid, invalid
from trainer_image.limits import Limits
from trainer_image.tasks.base import (
    Batch,
    Example,
    Figures,
    ForAnother,
    Json,
    Labels,
    Predictor,
    Problem,
    RowGroups,
    Rows,
    Task,
    TaskSettings,
    restored,
    told_alike,
)
from trainer_image.tasks.candidates import Candidate, import_ahead
from trainer_image.tasks.classes import (
    ClassPredictor,
    ClassProblem,
    in_short,
    judge,
    known_instead,
    quantities,
    same_classes,
    unfit,
)
from trainer_image.tasks.stretches import Stretch, Stretches
from trainer_image.tasks.text import baselines as text_baselines
from trainer_image.tasks.text.beginning import Beginning
from trainer_image.tasks.text.candidates import LinearCandidate
from trainer_image.tasks.text.grams_model import MOST_FEATURES, GramsModel
from trainer_image.tasks.text.network import TextNetwork, TextSizes
from trainer_image.tasks.text.presets import preset
from trainer_image.units import format_bytes

LABEL = "label"
# What a row is told by, see `data.rows`: its bytes, whatever its label.
CONTENT = ("bytes of a text",)
FITTED_RATE = 0.3
# A network that does not begin as a linear model has learnt little where time is short: of 107,000 lines in 20 s and in
# 60 s it told next to nothing, and what the linear candidate would have told with its time was lost.
SHARE_BESIDE_LATE = 0.65
EXCERPT = 400


class TextClassification(Task):
    name = "text_classification"

    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        return TextProblem(data, settings)

    def restore(self, description: Json) -> Predictor:
        return TextPredictor(
            restored(TextSizes, description["architecture"]),
            restored(Labels, description["labels"]),
            restored(Fields, description["fields"]),
        )


class TextPredictor(ClassPredictor):
    """Tensors of a batch: texts (rows, longest) uint8, lengths (rows,) int64, target (rows,) int64."""

    def __init__(self, sizes: TextSizes, labels: Sequence[str], fields: Fields) -> None:
        self.sizes, self.labels, self.fields = sizes, tuple(labels), fields

    def build_model(self) -> nn.Module:
        return TextNetwork(self.sizes, len(self.labels))

    def build_candidate(self, name: str, chosen: Json) -> nn.Module:
        features = chosen.get("features")
        if name != LinearCandidate.name or type(features) is not int or not 1 <= features <= MOST_FEATURES:
            raise ValueError(f"'{name}' with {chosen} is no candidate of this task")
        return GramsModel(features, len(self.labels))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Class probabilities (rows, classes)."""
        if not len(batch["lengths"]):
            return torch.zeros(0, len(self.labels))
        return functional.softmax(model(batch["texts"], batch["lengths"]).float(), dim=-1)

    def tensors(self, texts: Texts, content: Tensor) -> Stretches:
        """Texts of `content` as a split, cut at `longest` bytes; with targets when every one has a known label."""
        lengths = torch.from_numpy(np.minimum(texts.sizes, self.sizes.longest))
        tensors = {"lengths": lengths}
        target = positions(texts, self.labels)
        if len(target) and (target >= 0).all():
            tensors["target"] = torch.from_numpy(target)
        source = Stretch(content, self.sizes.longest)
        return Stretches({"texts": source}, torch.from_numpy(texts.starts), lengths, tensors)

    def read(self, data: Path, limits: Limits) -> Rows:
        scratch = Scratch()
        data, notes = looked_into(data, limits, scratch, lambda name: True)
        given = find_unlabelled(data, self.fields, limits)
        keeper = TextKeeper(scratch)
        files = given.found.test or given.found.train
        notes += [*given.notes, *read_readable(files, data, self.fields, limits, keeper, given.classes)]
        texts = keeper.texts()
        tensors = self.tensors(texts, torch.from_numpy(texts.content))
        return Rows(tensors, texts.names(), "target" in tensors, [*notes, *self._odd(texts)])

    def _odd(self, texts: Texts) -> Iterator[str]:
        """What whoever reads the predictions of these texts should know of them."""
        empty = [row for row, content in enumerate(texts.contents()) if not content.tobytes().strip()]
        if empty:
            [first] = texts.names(np.array(empty[:1]))
            yield (
                f"{len(empty)} of {len(texts)} texts are empty, the first of them {first}: predicted is what is"
                " likeliest of any text."
            )
        if cut := int((texts.sizes > self.sizes.longest).sum()):
            yield f"{cut} of {len(texts)} texts are longer than {self.sizes.longest} bytes: their beginnings are read."
        labelled = texts.label >= 0
        unknown = np.flatnonzero(labelled & (positions(texts, self.labels) < 0))
        if len(unknown):
            label = texts.labels[texts.label[unknown[0]]]
            yield (
                f"There are no figures: {len(unknown)} of {len(texts)} texts have a label that the model does not know,"
                f" '{label}' say."
            )
        elif labelled.any() and not labelled.all():
            yield f"There are no figures: {int((~labelled).sum())} of {len(texts)} texts have no label."


class TextProblem(ClassProblem):
    predictor: TextPredictor

    def __init__(self, data: Path, settings: TaskSettings) -> None:
        fields = Fields(settings.text or "text", settings.target or LABEL, settings.group)
        if settings.candidates:
            import_ahead("sklearn.svm")
        given, content, notes = _read(data, fields, settings)
        train = given["train"]
        labels = _labels(given, fields)
        targets = positions(train, labels)
        rows = divide(
            RowHashes(CONTENT, {split: of_bytes(part.contents()) for split, part in given.items()}),
            targets,
            settings.seed,
            groups=train.group_names() if settings.group else None,
            earlier=settings.earlier,
        )
        self.hashes, self.left_out = rows.hashes, rows.left_out
        self._texts, self._content = rows.of(given, Texts.select), content
        texts = self._texts
        longest = int(texts["train"].sizes.max())
        sizes, self.recipe = preset(settings.preset, len(texts["train"]), longest, len(labels))
        if sizes.width:
            self.candidates_share = SHARE_BESIDE_LATE
        self.predictor = TextPredictor(sizes, labels, fields)
        self.splits = {split: self.predictor.tensors(part, content) for split, part in texts.items()}
        self._time_budget = settings.time_budget
        self._beginning = Beginning(settings.time_budget, texts if settings.group else None)
        if settings.group:
            self.test_groups = RowGroups.by(settings.group, texts["test"].group_names())
        self.notes, self.warnings = [*notes, *rows.notes], []
        judge(self, settings, targets[rows.rows["train"]], labels, f" of '{fields.label}'", "text")
        self.notes += [*self._cut_texts(), *settings.scratch.notes("The texts do")]
        counts = ", ".join(f"{len(part)} {split}" for split, part in texts.items())
        self.description = f"Texts in {in_short(labels)}; rows: {counts}."

    def _cut_texts(self) -> Iterator[str]:
        """Notes on texts that are not read whole, or not by every model."""
        longest = self.predictor.sizes.longest
        cut = int((self._texts["train"].sizes > longest).sum())
        if cut:
            yield f"{cut} training texts are longer than {longest} bytes: their beginnings are read."
        most = text_baselines.most_bytes(self._time_budget)
        if any(text_baselines.step(np.minimum(part.sizes, longest), most) > 1 for part in self._texts.values()):
            yield (
                "The linear baseline is fitted and tested on evenly spaced texts, "
                f"{format_bytes(most)} of a split at most."
            )

    def begin(self, model: nn.Module, fit_on: Sequence[str]) -> None:
        assert isinstance(model, TextNetwork)
        self._beginning.begin(model, self.splits, fit_on)

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
        predictor = self.predictor
        return {
            "architecture": asdict(predictor.sizes),
            "fields": {"text": predictor.fields.text, "label": predictor.fields.label},
            "labels": list(predictor.labels),
        }

    def candidates(self) -> Sequence[Candidate]:
        longest, labels = self.predictor.sizes.longest, self.predictor.labels
        texts = {split: part.contents(longest) for split, part in self._texts.items()}
        targets = {split: positions(part, labels) for split, part in self._texts.items()}
        return [LinearCandidate(texts, targets, len(labels))]

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        longest, labels = self.predictor.sizes.longest, self.predictor.labels
        test = self._texts["test"]
        return text_baselines.baselines(
            [content for split in fit_on for content in self._texts[split].contents(longest)],
            np.concatenate([positions(self._texts[split], labels) for split in fit_on]),
            test.contents(longest),
            positions(test, labels),
            len(labels),
            text_baselines.most_bytes(self._time_budget),
        )

    def for_another(self, other: Predictor, content: Sequence[str]) -> ForAnother:
        assert isinstance(other, TextPredictor)
        assert self.hashes is not None
        same_classes(self.predictor.labels, other.labels)
        of = told_alike(self.hashes, content)
        return ForAnother(other.tensors(self._texts["test"], self._content), of, of)

    def examples(self, rows: Sequence[int], outputs: Tensor) -> list[Example]:
        test = self._texts["test"].select(np.array(rows, np.int64))
        return [
            Example(name, text=content.tobytes().decode(errors="replace"))
            for name, content in zip(test.names(), test.contents(EXCERPT), strict=True)
        ]


def _read(data: Path, fields: Fields, settings: TaskSettings) -> tuple[dict[str, Texts], Tensor, list[str]]:
    """The texts of each split that the dataset brings, the one tensor that all of them are stretches of (a refit joins
    splits without a copy), and what is to be said about how they were read."""
    data, notes = looked_into(data, settings.limits, settings.scratch, lambda name: True)
    keeper = TextKeeper(settings.scratch, lambda text: _wrong(text, fields))
    parts = {}
    folders = find_labelled(data, fields, settings.limits)
    for split, files in folders.found.splits.items():
        labelled = split == "train"
        part = read_texts(files, data, fields, settings.limits, keeper, labelled=labelled, classes=folders.classes)
        left_out, keeper.left_out = keeper.left_out, {}
        if part.start < part.stop:
            parts[split] = part
            total = part.stop - part.start + sum(count for count, _ in left_out.values())
            notes += [_left_out(split, count, total, first) for count, first in left_out.values()]
        elif not labelled and list(left_out) == [_unlabelled(fields)]:
            [(count, _)] = left_out.values()
            of = f"The text of the {split} split has no label and is" if count == 1 else ""
            of = of or f"The {count} texts of the {split} split have no labels and are"
            notes.append(f"{of} not used: `predict` is what it is for.")
        else:
            first = next((error for _, error in left_out.values()), None)
            raise first or invalid(files[0].relative_to(data).as_posix(), "holds no texts")
    texts = keeper.texts()
    given = {split: texts.select(part) for split, part in parts.items()}
    return given, torch.from_numpy(texts.content), [*notes, *folders.notes, *joined(keeper.notes)]


def _wrong(text: Text, fields: Fields) -> str | None:
    if not text.content.strip():
        return f"'{fields.text}' is empty; every row needs a text"
    return _unlabelled(fields) if text.label is None else None


def _unlabelled(fields: Fields) -> str:
    none = "is empty or missing, or says that there is none, as NA does"
    return f"'{fields.label}' (data.target) {none}; every row needs a label"


def _left_out(split: str, count: int, total: int, first: DatasetInvalid) -> str:
    were = "were" if count > 1 else "was"
    why = first.sentence.removeprefix("Invalid dataset: ").partition(";")[0]
    return f"{count} of {total} texts of the {split} split {were} left out, the first of them for this: {why}."


def _labels(given: Mapping[str, Texts], fields: Fields) -> list[str]:
    """The classes, in order. DatasetInvalid where the training texts or another split's do not have them."""
    train = given["train"]
    labels = sorted(train.labels[number] for number in np.unique(train.label))
    if why := unfit(f"'{fields.label}'", labels, len(labels)):
        raise invalid(train.files[0].name, why)
    if why := quantities(labels):
        raise invalid(train.files[0].name, why)
    for texts in (given[split] for split in ("validation", "test") if split in given):
        for row in np.flatnonzero(positions(texts, labels) < 0)[:1].tolist():
            label = texts.labels[texts.label[row]]
            known = known_instead(label, labels)
            raise texts.error(row, f"'{fields.label}' holds the label '{label}', which no training text has{known}")
    return labels


def positions(texts: Texts, labels: Sequence[str]) -> Ints:
    """The position of each text's label among `labels`, -1 where it is none of them: (rows,)."""
    known = {label: number for number, label in enumerate(labels)}
    return np.array([*(known.get(label, -1) for label in texts.labels), -1], np.int64)[texts.label]
