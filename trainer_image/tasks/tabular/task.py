"""Task `tabular`: classification and regression on tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.spill import Scratch
from trainer_image.data.splits import Assignment, assign, find_tables, group_numbers
from trainer_image.data.table import Table, compare_columns, invalid, no_such_column, read_table
from trainer_image.errors import ConfigInvalid
from trainer_image.limits import Limits
from trainer_image.tasks import baselines, imbalance, metrics
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
    spaced,
    take,
)
from trainer_image.tasks.labels import class_table, doubtful
from trainer_image.tasks.tabular import fit, leakage, linear
from trainer_image.tasks.tabular.columns import Ints, Preprocessing
from trainer_image.tasks.tabular.network import TabularNetwork, TabularSizes
from trainer_image.tasks.tabular.presets import preset
from trainer_image.tasks.tabular.target import Array, ClassTarget, Target, ValueTarget, fit_target, target_from_json
from trainer_image.units import format_bytes

SKIP_RATE = 0.1
# Columns of a row that the report shows of a mistake, and characters of a cell.
SHOWN_REASONS = 3
SHOWN_COLUMNS = 8
SHOWN_CHARACTERS = 60


class Tabular(Task):
    name = "tabular"

    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        return TabularProblem(data, settings)

    def restore(self, description: Json) -> Predictor:
        return TabularPredictor(
            Preprocessing.from_json(description["preprocessing"]),
            target_from_json(description["target"]),
            TabularSizes(**description["architecture"]),
        )


class TabularPredictor(Predictor):
    """Tensors of a batch: dense (rows, d) float32, codes (rows, c) int64, target (rows,) int64 or float32."""

    def __init__(self, preprocessing: Preprocessing, target: Target, sizes: TabularSizes) -> None:
        self.preprocessing = preprocessing
        self.target = target
        self.sizes = sizes

    def build_model(self) -> nn.Module:
        columns = self.preprocessing
        return TabularNetwork(columns.dense_width, columns.cardinalities, self.target.outputs, self.sizes)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Class probabilities (rows, classes), or values in the target's unit (rows,)."""
        members: Tensor = model(batch["dense"], batch["codes"]).float()
        if isinstance(self.target, ClassTarget):
            return functional.softmax(members, dim=-1).mean(1)
        return members.mean(1).squeeze(-1) * self.target.spread + self.target.centre

    def score(self, outputs: Tensor, batch: Batch) -> Figures:
        if isinstance(self.target, ClassTarget):
            return metrics.classification(outputs, batch["target"])
        return metrics.regression(outputs, batch["target"])

    def tensors(
        self, table: Table, wanted: Mapping[str, Ints | None], labels: Array | None, scratch: Scratch
    ) -> dict[str, Batch]:
        """The wanted rows (None: all) as a batch under each name, with their share of the table's `labels` (rows,)."""
        batches: dict[str, Batch] = {}
        for name, (dense, codes) in self.preprocessing.apply(table, scratch, wanted).items():
            batch = {"dense": torch.from_numpy(dense), "codes": torch.from_numpy(codes)}
            if labels is not None:
                rows = wanted[name]
                batch["target"] = torch.from_numpy(labels if rows is None else labels[rows])
            batches[name] = batch
        return batches

    def read(self, data: Path, limits: Limits) -> Rows:
        found = find_tables(data)
        files = found.test or found.train
        root = data if data.is_dir() else data.parent
        table = read_table([(p.relative_to(root).as_posix(), p) for p in files], limits)
        compare_columns(table.name, list(table.columns), "the model", self.preprocessing.columns)
        labelled = self.target.column in table.columns and not table.columns[self.target.column].null_count
        rows = [str(number) for number in range(1, table.rows + 1)]
        scratch = Scratch()
        labels = self.target.encode(table, scratch) if labelled else None
        return Rows(self.tensors(table, {"all": None}, labels, scratch)["all"], rows, labelled)

    def predictions(self, outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
        column = self.target.column
        if isinstance(self.target, ValueTarget):
            return [column], [[float(value)] for value in outputs]
        return class_table(column, self.target.labels, outputs)


class TabularProblem(Problem):
    def __init__(self, data: Path, settings: TaskSettings) -> None:
        if not settings.target:
            raise ConfigInvalid("Invalid configuration: data.target: the column to predict is missing")
        found = find_tables(data)
        root = data if data.is_dir() else data.parent
        tables = {
            split: read_table([(p.relative_to(root).as_posix(), p) for p in files], settings.limits, settings.scratch)
            for split, files in (("train", found.train), ("validation", found.validation), ("test", found.test))
            if files
        }
        train = tables["train"]
        self._check(tables, settings)
        target, notes = fit_target(train, settings.target, settings.types.get(settings.target))
        labels = target.encode(train, settings.scratch)
        groups = train.text(settings.group) if settings.group else None
        rows = assign(
            target.strata(labels),
            settings.seed,
            has_validation="validation" in tables,
            has_test="test" in tables,
            groups=groups,
        )
        left_out = {settings.target, settings.group, *settings.drop}
        features = [column for column in train.columns if column not in left_out]
        preprocessing, found_notes, self.warnings = fit.fit(train, rows.train, features, settings.types)
        if not preprocessing.columns:
            # The columns' own sentences are all that says what to change; of many, a few are enough.
            reasons = "; ".join(note.removesuffix(".") for note in [*found_notes, *self.warnings][:SHOWN_REASONS])
            hint = f" ({reasons})" if reasons else ""
            raise invalid(train.name, f"has no usable column beside the target '{settings.target}'{hint}")
        if isinstance(target, ValueTarget):
            target = target.fitted(labels[rows.train])
        self.notes = [*notes, *rows.notes, *found_notes]
        sizes, self.recipe = preset(settings.preset, len(rows.train))
        self.predictor = self._predictor = TabularPredictor(preprocessing, target, sizes)
        self.splits = self._tensors(tables, rows, labels, settings.scratch)
        held_out = "test" not in tables
        self._test_files = found.train if held_out else found.test
        self._test_rows = rows.test if held_out else np.arange(tables["test"].rows)
        if settings.group and settings.group in tables["train" if held_out else "test"].columns:
            column = groups[rows.test] if held_out and groups is not None else tables["test"].text(settings.group)
            self.test_groups = RowGroups(torch.from_numpy(group_numbers(column)), f"groups by '{settings.group}'")
        self._root, self._limits, self._scratch = root, settings.limits, settings.scratch
        known, headline, selection = target.figures
        split = self.splits["train"]
        dense, codes, encoded = (split[name].numpy() for name in ("dense", "codes", "target"))
        self.warnings += leakage.warnings(preprocessing, dense, codes, encoded, target)
        if isinstance(target, ClassTarget):
            figure, told = imbalance.figure(labels[rows.train], target.labels, f"The classes of '{target.column}'")
            headline = figure or headline
            self.notes += told if settings.metric == "auto" else []
            self.warnings += doubtful(labels[rows.train], target.labels, f" of '{target.column}'", "row")
        if settings.scratch.spilled_bytes:
            size = format_bytes(settings.scratch.spilled_bytes)
            self.notes.append(f"The table does not fit into memory: {size} of it lie in files of the work folder.")
        self.headline, self.selection = metrics.choose(settings.metric, known, headline, selection)
        counts = ", ".join(f"{len(batch['dense'])} {split}" for split, batch in self.splits.items())
        self.description = f"A table with {preprocessing.in_words}, {target.description}; rows: {counts}."

    def _check(self, tables: dict[str, Table], settings: TaskSettings) -> None:
        train = tables["train"]
        names = list(train.columns)
        for key, wanted in (
            ("target", [settings.target]),
            ("group", [settings.group] if settings.group else []),
            ("drop", list(settings.drop)),
            ("types", list(settings.types)),
        ):
            for column in wanted:
                if column not in train.columns:
                    raise no_such_column(train.name, str(column), f"data.{key}", names)
        for split, table in tables.items():
            if table.rows == 0:
                raise invalid(table.name, "has a header but no rows")
            if split != "train":
                needed = [n for n in names if n not in settings.drop and n != settings.group]
                compare_columns(table.name, list(table.columns), train.name, needed)

    def _tensors(self, tables: dict[str, Table], rows: Assignment, labels: Array, scratch: Scratch) -> dict[str, Batch]:
        held = {"train": rows.train, "validation": rows.validation, "test": rows.test}
        inside = {split: index for split, index in held.items() if split == "train" or split not in tables}
        found = self._predictor.tensors(tables["train"], inside, labels, scratch)
        for split, table in tables.items():
            if split != "train":
                own = self._predictor.target.encode(table, scratch)
                found |= self._predictor.tensors(table, {split: None}, own, scratch)
        return {split: found[split] for split in held}

    def begin(self, model: nn.Module, fit_on: Sequence[str]) -> None:
        assert isinstance(model, TabularNetwork)
        some = spaced(self.splits, fit_on, linear.MOST_ROWS)
        x, y = some["dense"].double().numpy(), some["target"].numpy()
        if not x.shape[1]:
            return
        target = self._predictor.target
        if isinstance(target, ClassTarget):
            weight, bias = linear.logistic(x, y, target.outputs)
        else:
            weight, bias = linear.ridge(x, (y.astype(np.float64) - target.centre) / target.spread)
        with torch.no_grad():
            model.skip.weight[:, : x.shape[1]] = torch.from_numpy(weight)
            model.skip.bias.copy_(torch.from_numpy(bias))

    def parameter_groups(self, model: nn.Module, weight_decay: float) -> list[Json]:
        assert isinstance(model, TabularNetwork)
        rest = [p for name, p in model.named_parameters() if not name.startswith("skip.")]
        return [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
            # Fitted already: the linear part follows the others slowly, and is not drawn to zero.
            {"params": list(model.skip.parameters()), "weight_decay": 0.0, "lr_factor": SKIP_RATE},
        ]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        members: Tensor = model(batch["dense"], batch["codes"]).float()
        if isinstance(self._predictor.target, ClassTarget):
            k = members.shape[1]
            return functional.cross_entropy(members.flatten(0, 1), batch["target"].repeat_interleave(k))
        target = self._predictor.target
        scaled = (batch["target"] - target.centre) / target.spread
        return functional.mse_loss(members.squeeze(-1), scaled.unsqueeze(1).expand(members.shape[:2]))

    def model_description(self) -> Json:
        return {
            "architecture": asdict(self._predictor.sizes),
            "preprocessing": self._predictor.preprocessing.to_json(),
            "target": self._predictor.target.to_json(),
        }

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        some = spaced(self.splits, fit_on, baselines.MOST_ROWS)
        x, y = self._flat(some), some["target"].numpy()
        test = self.splits["test"]
        target = self._predictor.target
        if isinstance(target, ClassTarget):
            return baselines.classification(x, y, self._flats(test), test["target"].numpy(), target.outputs)
        return baselines.regression(x, y, self._flats(test), test["target"].numpy())

    def _flats(self, batch: Batch) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        """`_flat` in portions that memory has room for."""
        for start in range(0, rows_in(batch), baselines.MOST_ROWS):
            yield self._flat(take(batch, slice(start, start + baselines.MOST_ROWS)))

    def _flat(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Inputs of a linear model: what the network sees, embedded columns one-hot up to their 30 first categories."""
        parts = [batch["dense"].numpy()]
        for column, count in enumerate(self._predictor.preprocessing.cardinalities):
            shown = min(count, 30)
            codes = batch["codes"][:, column].clamp(max=shown)
            parts.append(functional.one_hot(codes, shown + 1)[:, :shown].float().numpy())
        return np.concatenate(parts, axis=1)

    def examples(self, rows: Sequence[int]) -> list[Example]:
        """Reads the test split's table again: the text of every cell is not worth its memory while training."""
        files = [(p.relative_to(self._root).as_posix(), p) for p in self._test_files]
        table = read_table(files, self._limits, self._scratch.anew())
        shown = [name for name in table.columns if name in self._predictor.preprocessing.columns][:SHOWN_COLUMNS]
        indices = [int(self._test_rows[row]) for row in rows]
        examples = []
        for cells, (file, number) in zip(table.take(indices, shown), table.locate_all(indices), strict=True):
            shortened = {column: (cell or "")[:SHOWN_CHARACTERS] for column, cell in cells.items()}
            examples.append(Example(f"{file}, row {number}", shortened))
        return examples

    def findings(self, outputs: Tensor) -> Json:
        labels = self.splits["test"]["target"]
        if isinstance(self._predictor.target, ClassTarget):
            return metrics.classification_findings(outputs, labels, self._predictor.target.labels, self.test_groups)
        return metrics.regression_findings(outputs, labels, self.test_groups)
