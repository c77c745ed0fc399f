"""Task `tabular`: classification and regression on tables."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.cells import Wanted
from trainer_image.data.spill import Scratch
from trainer_image.data.splits import Assignment, assign, find_tables, is_table_name
from trainer_image.data.table import Table, compare_columns, no_such_column, read_table
from trainer_image.data.unpacking import looked_into
from trainer_image.errors import ConfigInvalid, DatasetInvalid, invalid
from trainer_image.limits import Limits
from trainer_image.tasks import baselines, calibration, metrics
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
    matrices_decay,
    restored,
    rows_in,
    spaced,
    take,
)
from trainer_image.tasks.calibration import UNCALIBRATED, Calibration
from trainer_image.tasks.candidates import Candidate
from trainer_image.tasks.classes import class_table, judge
from trainer_image.tasks.tabular import boosted, fit, leakage, linear
from trainer_image.tasks.tabular.boosted import BoostedTrees
from trainer_image.tasks.tabular.candidates import Linear
from trainer_image.tasks.tabular.columns import FURTHEST, Ints, Preprocessing
from trainer_image.tasks.tabular.network import TabularNetwork, TabularSizes
from trainer_image.tasks.tabular.presets import preset
from trainer_image.tasks.tabular.target import (
    Array,
    ClassTarget,
    Target,
    ValueTarget,
    fit_target,
    labelled,
    target_from_json,
)

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
            restored(Preprocessing, description["preprocessing"]),
            target_from_json(description["target"]),
            restored(TabularSizes, description["architecture"]),
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

    def build_candidate(self, name: str, chosen: Json) -> nn.Module:
        if name == Linear.name:
            return linear.LinearModel(self.preprocessing, self.target.outputs)
        if name == BoostedTrees.name:
            return boosted.unfitted(chosen, self.preprocessing, self.target)
        return super().build_candidate(name, chosen)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Class probabilities (rows, classes), or values in the target's unit (rows,)."""
        members: Tensor = model(batch["dense"], batch["codes"]).float()
        if isinstance(self.target, ClassTarget):
            return functional.softmax(members, dim=-1).mean(1)
        return self.target.possible(members.mean(1).squeeze(-1) * self.target.spread + self.target.centre)

    def use(self, calibration: Calibration) -> None:
        if isinstance(self.target, ValueTarget):
            super().use(calibration)
        else:
            self.calibration = calibration.of(self.target.outputs)

    def score(self, outputs: Tensor, batch: Batch) -> Figures:
        if isinstance(self.target, ClassTarget):
            return metrics.classification(outputs, batch["target"], self.calibration.decide(outputs))
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
        scratch = Scratch()
        data, notes = looked_into(data, limits, scratch, is_table_name)
        found = find_tables(data)
        columns = self.preprocessing.columns
        wanted = Wanted(tuple(columns), (self.target.column,), others=False)
        table = _read(found.test or found.train, data, limits, None, wanted)
        compare_columns(table.name, [*table.columns, *table.passed_over], "the model", columns)
        labels = None
        if self.target.column in table.columns and table.rows and not table.columns[self.target.column].null_count:
            try:
                labels = self.target.encode(table, scratch)
            except DatasetInvalid as unknown:
                notes.append(f"The predictions were not compared with '{self.target.column}': {unknown.sentence}")
        rows = [str(number) for number in range(1, table.rows + 1)]
        tensors = self.tensors(table, {"all": None}, labels, scratch)["all"]
        notes += [*found.notes, *table.notes, *self.preprocessing.unlike_training(table)]
        if not table.rows:
            notes.append(f"{table.name} has no rows: there is nothing to predict.")
        return Rows(tensors, rows, labels is not None, notes)

    def predictions(self, outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
        column = self.target.column
        if isinstance(self.target, ValueTarget):
            return [column], [[float(value)] for value in outputs]
        return class_table(column, self.target.labels, outputs, self.calibration)


class TabularProblem(Problem):
    predictor: TabularPredictor

    def __init__(self, data: Path, settings: TaskSettings) -> None:
        if not settings.target:
            raise ConfigInvalid("Invalid configuration: data.target: the column to predict is missing")
        self._settings = settings
        self._data, notes = looked_into(data, settings.limits, settings.scratch, is_table_name)
        found = find_tables(self._data)
        self._wanted = Wanted(
            tuple(column for column in (settings.target, settings.group) if column), dropped=frozenset(settings.drop)
        )
        tables = {
            split: _read(files, self._data, settings.limits, settings.scratch, self._wanted)
            for split, files in found.splits.items()
        }
        _check_names(tables["train"], settings)
        notes += [*found.notes, *(note for table in tables.values() for note in table.notes)]
        notes += _without_unlabelled(tables, settings.target)
        _check(tables, settings.target)
        train = tables["train"]
        target, target_notes = fit_target(train, settings.target, settings.types.get(settings.target))
        labels = target.encode(train, settings.scratch)
        usable = {split: labelled(table, settings.target) for split, table in tables.items()}
        notes += [_left_out(tables[split], settings.target, rows) for split, rows in usable.items() if rows is not None]
        known = usable["train"]
        groups = train.text(settings.group) if settings.group else None
        rows = assign(
            target.strata(labels if known is None else labels[known]),
            settings.seed,
            has_validation="validation" in tables,
            has_test="test" in tables,
            groups=groups if known is None or groups is None else groups[known],
        )
        if known is not None:
            rows = replace(rows, train=known[rows.train], validation=known[rows.validation], test=known[rows.test])
        preprocessing, fitted_notes, self.warnings = _preprocessing(train, rows.train, labels[rows.train], settings)
        for table in tables.values():
            others = [column for column in table.columns if column != settings.target]
            compare_columns(table.name, others, train.name, preprocessing.columns)
        if isinstance(target, ValueTarget):
            target = target.fitted(labels[rows.train])
        self.notes = [*notes, *target_notes, *rows.notes, *fitted_notes]
        sizes, self.recipe = preset(settings.preset, len(rows.train))
        self.predictor = TabularPredictor(preprocessing, target, sizes)
        self.splits = self._tensors(tables, usable, rows, labels, settings.scratch)
        test = tables.get("test", train)
        self._test_files = found.test if "test" in tables else found.train
        self._test_rows = _all_of(test, usable["test"]) if "test" in tables else rows.test
        if settings.group and settings.group in test.columns:
            self.test_groups = RowGroups.by(settings.group, test.text(settings.group)[self._test_rows])
        self._judge(labels[rows.train])
        self.notes += settings.scratch.notes("The table does")
        counts = ", ".join(f"{len(batch['dense'])} {split}" for split, batch in self.splits.items())
        self.description = f"A table with {preprocessing.in_words}, {target.description}; rows: {counts}."

    def _judge(self, labels: Array) -> None:
        """Chooses the figures to judge by, and warns of what the training rows' labels (rows,) show."""
        target, metric = self.predictor.target, self._settings.metric
        dense, codes, encoded = (self.splits["train"][name].numpy() for name in ("dense", "codes", "target"))
        self.warnings += leakage.warnings(self.predictor.preprocessing, dense, codes, encoded, target)
        if isinstance(target, ClassTarget):
            judge(self, self._settings, labels, target.labels, f" of '{target.column}'", "row")
        else:
            self.headline, self.selection = metrics.choose(metric, metrics.REGRESSION, "r2", "rmse")

    def _tensors(
        self,
        tables: Mapping[str, Table],
        usable: Mapping[str, Ints | None],
        rows: Assignment,
        labels: Array,
        scratch: Scratch,
    ) -> dict[str, Batch]:
        held = {"train": rows.train, "validation": rows.validation, "test": rows.test}
        inside = {split: index for split, index in held.items() if split == "train" or split not in tables}
        found = self.predictor.tensors(tables["train"], inside, labels, scratch)
        for split, table in tables.items():
            if split != "train":
                own = self.predictor.target.encode(table, scratch)
                found |= self.predictor.tensors(table, {split: usable[split]}, own, scratch)
        return {split: found[split] for split in held}

    def begin(self, model: nn.Module, fit_on: Sequence[str]) -> None:
        assert isinstance(model, TabularNetwork)
        some = spaced(self.splits, fit_on, linear.MOST_ROWS)
        x, y = some["dense"].double().clamp(-FURTHEST, FURTHEST).numpy(), some["target"].numpy()
        if not x.shape[1]:
            return
        target = self.predictor.target
        if isinstance(target, ClassTarget):
            weight, bias = linear.logistic(x, y, target.outputs)
        else:
            weight, bias = linear.ridge(x, (y.astype(np.float64) - target.centre) / target.spread)
        with torch.no_grad():
            model.skip.weight[:, : x.shape[1]] = torch.from_numpy(weight)
            model.skip.bias.copy_(torch.from_numpy(bias))

    def candidates(self) -> Sequence[Candidate]:
        parts = self.splits, self.predictor.preprocessing, self.predictor.target
        return Linear(*parts), BoostedTrees(*parts)

    def parameter_groups(self, model: nn.Module, weight_decay: float) -> list[Json]:
        assert isinstance(model, TabularNetwork)
        rest = (p for name, p in model.named_parameters() if not name.startswith("skip."))
        return [
            *matrices_decay(rest, weight_decay),
            # Fitted already: the linear part follows the others slowly, and is not drawn to zero.
            {"params": list(model.skip.parameters()), "weight_decay": 0.0, "lr_factor": SKIP_RATE},
        ]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        members: Tensor = model(batch["dense"], batch["codes"]).float()
        if isinstance(self.predictor.target, ClassTarget):
            k = members.shape[1]
            return functional.cross_entropy(members.flatten(0, 1), batch["target"].repeat_interleave(k))
        target = self.predictor.target
        scaled = (batch["target"] - target.centre) / target.spread
        return functional.mse_loss(members.squeeze(-1), scaled.unsqueeze(1).expand(members.shape[:2]))

    def model_description(self) -> Json:
        return {
            "architecture": asdict(self.predictor.sizes),
            "preprocessing": asdict(self.predictor.preprocessing),
            "target": self.predictor.target.to_json(),
        }

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        some = spaced(self.splits, fit_on, baselines.MOST_ROWS)
        x, y = self._flat(some), some["target"].numpy()
        test = self.splits["test"]
        target = self.predictor.target
        if isinstance(target, ClassTarget):
            return baselines.classification(x, y, self._flats(test), test["target"].numpy(), target.outputs)
        return baselines.regression(x, y, self._flats(test), test["target"].numpy(), target.possible)

    def _flats(self, batch: Batch) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        """`_flat` in portions that memory has room for."""
        for start in range(0, rows_in(batch), baselines.MOST_ROWS):
            yield self._flat(take(batch, slice(start, start + baselines.MOST_ROWS)))

    def _flat(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Inputs of a linear model: what the network sees, embedded columns one-hot up to their 30 first categories."""
        parts = [batch["dense"].clamp(-FURTHEST, FURTHEST).numpy()]
        for column, count in enumerate(self.predictor.preprocessing.cardinalities):
            shown = min(count, 30)
            codes = batch["codes"][:, column].clamp(max=shown)
            parts.append(functional.one_hot(codes, shown + 1)[:, :shown].float().numpy())
        return np.concatenate(parts, axis=1)

    def examples(self, rows: Sequence[int]) -> list[Example]:
        """Reads the test split's table again: the text of every cell is not worth its memory while training."""
        scratch = self._settings.scratch.anew()
        table = _read(self._test_files, self._data, self._settings.limits, scratch, self._wanted)
        shown = [name for name in table.columns if name in self.predictor.preprocessing.columns][:SHOWN_COLUMNS]
        indices = [int(self._test_rows[row]) for row in rows]
        examples = []
        for cells, (file, number) in zip(table.take(indices, shown), table.locate_all(indices), strict=True):
            shortened = {column: (cell or "")[:SHOWN_CHARACTERS] for column, cell in cells.items()}
            examples.append(Example(f"{file}, row {number}", shortened))
        return examples

    def findings(self, outputs: Tensor) -> Json:
        labels, target = self.splits["test"]["target"], self.predictor.target
        if isinstance(target, ClassTarget):
            calibrated = self.predictor.calibration
            return metrics.classification_findings(outputs, labels, target.labels, self.test_groups, calibrated)
        return metrics.regression_findings(outputs, labels, self.test_groups)

    def places(self) -> dict[str, dict[str, list[int]]]:
        return self.predictor.preprocessing.places

    def calibrate(self, outputs: Tensor) -> Calibration:
        if isinstance(self.predictor.target, ValueTarget):
            return UNCALIBRATED
        return calibration.fit(outputs, self.splits["validation"]["target"], self.headline.name)


def _read(files: Sequence[Path], data: Path, limits: Limits, scratch: Scratch | None, wanted: Wanted) -> Table:
    """The files as one table, called as they are within the dataset."""
    root = data if data.is_dir() else data.parent
    return read_table([(path.relative_to(root).as_posix(), path) for path in files], limits, scratch, wanted)


def _check_names(train: Table, settings: TaskSettings) -> None:
    """Whether the columns that the configuration names are there."""
    for key, wanted in (
        ("target", [settings.target]),
        ("group", [settings.group] if settings.group else []),
        ("drop", settings.drop),
        ("types", settings.types),
    ):
        for column in wanted:
            if column not in train.columns and column not in train.passed_over:
                raise no_such_column(train.name, str(column), f"data.{key}", list(train.columns))


def _without_unlabelled(tables: dict[str, Table], target: str) -> list[str]:
    """Takes the splits beside the training split away that have no labels at all, as Kaggle's test.csv; and says so."""
    notes = []
    for split in [split for split in tables if split != "train"]:
        table = tables[split]
        if target in table.columns and (not table.rows or table.columns[target].null_count < table.rows):
            continue
        if target not in table.columns and (near := difflib.get_close_matches(target, table.columns, 1, 0.8)):
            raise no_such_column(table.name, target, "data.target", [*near, *table.columns])
        what = "no label" if target in table.columns else f"no column '{target}'"
        notes.append(
            f"{table.name} has {what}: nothing can be tested on it, and it was not used; `predict` is what it is for."
        )
        del tables[split]
    return notes


def _left_out(table: Table, target: str, rows: Ints) -> str:
    """rows: those that have a label"""
    missing = np.setdiff1d(np.arange(table.rows), rows)
    file, row = table.locate(int(missing[0]))
    if len(missing) == 1:
        return f"1 of {table.rows} rows of {table.name} has no '{target}' and was left out: row {row} of {file}."
    return (
        f"{len(missing)} of {table.rows} rows of {table.name} have no '{target}' and were left out, the first of them "
        f"row {row} of {file}."
    )


def _all_of(table: Table, rows: Ints | None) -> Ints:
    return np.arange(table.rows) if rows is None else rows


def _check(tables: Mapping[str, Table], target: str) -> None:
    """Whether the splits have rows, and the training split labels."""
    for table in tables.values():
        if table.rows == 0:
            raise invalid(table.name, "has a header but no rows")
    train = tables["train"]
    if train.columns[target].null_count == train.rows:
        raise invalid(train.name, f"the target column '{target}' is empty: no row has a label")


def _preprocessing(
    train: Table, rows: Ints, labels: Array, settings: TaskSettings
) -> tuple[Preprocessing, list[str], list[str]]:
    """Fitted on the training rows, with notes and warnings. DatasetInvalid where no column is of use."""
    left_out = {settings.target, settings.group, *settings.drop}
    features = [column for column in train.columns if column not in left_out]
    fitted, notes, warnings = fit.fit(train, rows, features, settings.types, labels)
    if not fitted.columns:
        # The columns' own sentences are all that says what to change; of many, a few are enough.
        reasons = "; ".join(note.removesuffix(".") for note in [*notes, *warnings][:SHOWN_REASONS])
        hint = f" ({reasons})" if reasons else ""
        raise invalid(train.name, f"has no usable column beside the target '{settings.target}'{hint}")
    return fitted, notes, warnings
