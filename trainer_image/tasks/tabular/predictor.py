"""What a published model of tables does: reads rows, builds its members, says what they predict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.formats.cells import Wanted
from trainer_image.data.spill import Scratch
from trainer_image.data.splits import find_tables, is_table_name
from trainer_image.data.table import Table, compare_columns
from trainer_image.data.unpacking import looked_into
from trainer_image.errors import DatasetInvalid
from trainer_image.limits import Limits
from trainer_image.tasks import metrics
from trainer_image.tasks.base import WEIGHT, Batch, Figures, Json, Predictor, Rows
from trainer_image.tasks.calibration import Calibration
from trainer_image.tasks.classes import class_table
from trainer_image.tasks.tabular import candidates, weights
from trainer_image.tasks.tabular.candidates import Linear
from trainer_image.tasks.tabular.columns import Ints, Preprocessing
from trainer_image.tasks.tabular.given import read
from trainer_image.tasks.tabular.network import TabularNetwork, TabularSizes
from trainer_image.tasks.tabular.target import Array, ClassTarget, Target, ValueTarget
from trainer_image.tasks.tabular.trees import boosted, forest
from trainer_image.tasks.tabular.trees.boosted import BoostedTrees
from trainer_image.tasks.tabular.trees.forest import RandomForest


class TabularPredictor(Predictor):
    """Tensors of a batch: dense (rows, d) float32, codes (rows, c) int64, target (rows,) int64 or float32, and
    WEIGHT where rows count differently. weight: the column that says it; predictions do without"""

    def __init__(
        self, preprocessing: Preprocessing, target: Target, sizes: TabularSizes, weight: str | None = None
    ) -> None:
        self.preprocessing = preprocessing
        self.target = target
        self.sizes = sizes
        self.weight = weight

    def build_model(self) -> nn.Module:
        columns = self.preprocessing
        numbers = sum(column.width for column in columns.measured)
        return TabularNetwork(columns.dense_width, numbers, columns.cardinalities, self.target.outputs, self.sizes)

    def build_candidate(self, name: str, chosen: Json) -> nn.Module:
        if name == Linear.name:
            return candidates.unfitted(chosen, self.preprocessing, self.target)
        if name == BoostedTrees.name:
            return boosted.unfitted(chosen, self.preprocessing, self.target)
        if name == RandomForest.name:
            return forest.unfitted(chosen, self.preprocessing, self.target)
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
            said = self.calibration.decide(outputs)
            return metrics.classification(outputs, batch["target"], said, batch.get(WEIGHT))
        return metrics.regression(outputs, batch["target"], batch.get(WEIGHT))

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
        found = find_tables(data, to_predict=True)
        columns = self.preprocessing.columns
        also = (self.target.column, *([self.weight] if self.weight else []))
        wanted = Wanted(tuple(columns), also, others=False)
        table = read(found.test or found.train, data, limits, None, wanted)
        unasked = set(also) - set(columns)
        there = [column for column in (*table.columns, *table.passed_over) if column not in unasked]
        compare_columns(table.name, there, "the model", columns)
        labels = None
        missing = table.columns[self.target.column].null_count if self.target.column in table.columns else table.rows
        if 0 < missing < table.rows:
            said = f"{missing} of {table.rows} rows have none"
            notes.append(f"The predictions were not compared with '{self.target.column}': {said}.")
        if not missing and table.rows:
            try:
                labels = self.target.encode(table, scratch)
            except DatasetInvalid as unknown:
                notes.append(f"The predictions were not compared with '{self.target.column}': {unknown.sentence}")
        rows = [str(number) for number in range(1, table.rows + 1)]
        tensors = self.tensors(table, {"all": None}, labels, scratch)["all"]
        if labels is not None and self.weight:
            tensors, said = self._weighed(table, tensors, self.weight)
            notes.append(said)
        notes += [*found.notes, *table.notes, *self.preprocessing.unlike_training(table)]
        if not table.rows:
            notes.append(f"{table.name} has no rows: there is nothing to predict.")
        return Rows(tensors, rows, labels is not None, notes)

    def _weighed(self, table: Table, batch: Batch, column: str) -> tuple[Batch, str]:
        """The rows with their weights, so that the figures are as a report's, and what they count by."""
        if column not in table.columns:
            return batch, f"The figures count all rows alike: {table.name} has no column '{column}', the weights' one."
        try:
            found = weights.read(table, column, np.arange(table.rows))
        except DatasetInvalid as wrong:
            return batch, f"The figures count all rows alike: {wrong.sentence}"
        return {**batch, WEIGHT: torch.from_numpy(weights.scaled(found))}, f"The figures are weighed by '{column}'."

    def predictions(self, outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
        column = self.target.column
        if isinstance(self.target, ValueTarget):
            return [column], [[float(value)] for value in outputs]
        return class_table(column, self.target.labels, outputs, self.calibration)
