"""Task `tabular`: classification and regression on tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.formats.cells import Wanted
from trainer_image.data.rows.hashes import of_table
from trainer_image.data.table import Table, compare_columns
from trainer_image.errors import ConfigInvalid, invalid
from trainer_image.tasks import baselines, calibration, metrics
from trainer_image.tasks.base import (
    WEIGHT,
    Batch,
    Example,
    Figures,
    ForAnother,
    Json,
    NetworkSize,
    Predictor,
    Problem,
    Task,
    TaskSettings,
    joined,
    matrices_decay,
    restored,
    rows_in,
    spaced,
    take,
)
from trainer_image.tasks.calibration import UNCALIBRATED, Calibration
from trainer_image.tasks.candidates import Candidate, import_ahead
from trainer_image.tasks.classes import judge, same_classes
from trainer_image.tasks.tabular import fit, leakage, linear, weights
from trainer_image.tasks.tabular.candidates import Linear, fold_of, row_weights
from trainer_image.tasks.tabular.column_stats import STAND_INS, alone_far_out, outcast
from trainer_image.tasks.tabular.columns import FURTHEST, Ints, Preprocessing
from trainer_image.tasks.tabular.given import Given
from trainer_image.tasks.tabular.network import TabularNetwork, TabularSizes
from trainer_image.tasks.tabular.predictor import TabularPredictor
from trainer_image.tasks.tabular.presets import networks
from trainer_image.tasks.tabular.target import (
    Array,
    ClassTarget,
    ValueTarget,
    target_from_json,
)
from trainer_image.tasks.tabular.told import split_column, times_split
from trainer_image.tasks.tabular.trees.boosted import BoostedTrees
from trainer_image.tasks.tabular.trees.forest import RandomForest

SKIP_RATE = 0.1
# Up to so many rows of training and validation split models are told apart by folds, where there is time for them. Of
# values a few that are far from the others decide what hundreds of validation rows say.
FEW_ROWS, FEW_VALUES = 2_000, 10_000
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
            restored(str, description["weight"]) if "weight" in description else None,
        )


class TabularProblem(Problem):
    predictor: TabularPredictor

    def __init__(self, data: Path, settings: TaskSettings) -> None:
        if not settings.target:
            raise ConfigInvalid("Invalid configuration: data.target: the column to predict is missing")
        self._settings = settings
        if settings.candidates == "auto" or BoostedTrees.name in settings.candidates:
            import_ahead("trainer_image.tasks.tabular.trees.boosting")
        given = Given(data, settings, settings.target)
        train, labels = given.tables["train"], given.labels[given.rows["train"]]
        preprocessing, fitted_notes, self.warnings = _preprocessing(train, given.rows["train"], labels, settings)
        for table in given.tables.values():
            others = [column for column in table.columns if column != settings.target]
            compare_columns(table.name, others, train.name, preprocessing.columns)
        target = given.target.fitted(labels) if isinstance(given.target, ValueTarget) else given.target
        self.notes = [*given.notes, *fitted_notes]
        numbers = sum(column.width for column in preprocessing.measured)
        self._networks = networks(settings.preset, len(labels), numbers)
        self.recipe = self._networks[0].size.recipe
        self.predictor = TabularPredictor(preprocessing, target, self._networks[0].sizes, settings.weight)
        self.weighed_by = settings.weight
        self.splits = self._tensors(given)
        # The tables themselves are not kept: they may be as large as memory.
        self._test_rows, self._test_again = given.rows["test"], given.test_again
        self.hashes, self.left_out = given.division.hashes, given.division.left_out
        self.test_groups = given.test_groups
        # Rows that belong together, or that somebody has held out on purpose, are not to be mixed.
        self._mixed = not (settings.group or settings.split or "validation" in given.division.brought)
        self._judge(labels)
        if isinstance(target, ValueTarget):
            self.warnings += _slip(train, target.column, given.rows["train"], labels)
        self.notes += settings.scratch.notes("The table does")
        counts = ", ".join(f"{len(batch['dense'])} {split}" for split, batch in self.splits.items())
        by = f", weighed by '{settings.weight}'" if settings.weight else ""
        self.description = f"A table with {preprocessing.in_words}, {target.description}{by}; rows: {counts}."

    def _judge(self, labels: Array) -> None:
        """Chooses the figures to judge by, and warns of what the training rows' labels (rows,) show."""
        target, metric = self.predictor.target, self._settings.metric
        dense, codes, encoded = (self.splits["train"][name].numpy() for name in ("dense", "codes", "target"))
        self.warnings += leakage.warnings(self.predictor.preprocessing, dense, codes, encoded, target)
        if isinstance(target, ClassTarget):
            heavy = row_weights(self.splits["train"])
            judge(self, self._settings, labels, target.labels, f" of '{target.column}'", "row", heavy)
        else:
            self.headline, self.selection = metrics.choose(metric, metrics.REGRESSION, "r2", "rmse")
            if found := outcast(labels.astype(np.float64), STAND_INS):
                value, share, low, high = found
                self.warnings.append(
                    f"The target '{target.column}' is {value:g} in {share:.1%} of the training rows, far from all"
                    f" others ({low:g} to {high:g}): should it say that there is no label, leave these cells empty."
                )

    def _tensors(self, given: Given) -> dict[str, Batch]:
        found: dict[str, Batch] = {}
        for source, table in given.tables.items():
            scratch = self._settings.scratch
            labels = given.labels if source == "train" else self.predictor.target.encode(table, scratch)
            inside = {split: rows for split, rows in given.rows.items() if given.division.source(split) == source}
            found |= self.predictor.tensors(table, inside, labels, scratch)
        if given.weights:
            for split, each in given.weights.items():
                # A refit joins training and validation rows; the test is what `predict` reads by itself.
                scaled = weights.scaled(each, None if split == "test" else given.weights["train"])
                found[split] = {**found[split], WEIGHT: torch.from_numpy(scaled)}
        return {split: found[split] for split in given.rows}

    def begin(self, model: nn.Module, fit_on: Sequence[str]) -> None:
        assert isinstance(model, TabularNetwork)
        some = spaced(self.splits, fit_on, linear.MOST_ROWS)
        x, y = some["dense"].double().clamp(-FURTHEST, FURTHEST).numpy(), some["target"].numpy()
        if not x.shape[1]:
            return
        target = self.predictor.target
        heavy = row_weights(some)
        if isinstance(target, ClassTarget):
            weight, bias = linear.logistic(x, y, target.outputs, weights=heavy)
        else:
            weight, bias, _ = linear.ridge(x, (y.astype(np.float64) - target.centre) / target.spread, heavy)
        with torch.no_grad():
            model.skip.weight[:, : x.shape[1]] = torch.from_numpy(weight)
            model.skip.bias.copy_(torch.from_numpy(bias))

    def sizes(self) -> Sequence[NetworkSize]:
        return [network.size for network in self._networks] if len(self._networks) > 1 else []

    def resize(self, name: str) -> None:
        [network] = [network for network in self._networks if network.size.name == name]
        self.recipe, self.predictor.sizes = network.size.recipe, network.sizes

    def candidates(self) -> Sequence[Candidate]:
        parts = self.splits, self.predictor.preprocessing, self.predictor.target
        return Linear(*parts), RandomForest(*parts), BoostedTrees(*parts)

    def folds(self, seed: int) -> Tensor | None:
        most = FEW_VALUES if isinstance(self.predictor.target, ValueTarget) else FEW_ROWS
        few = sum(rows_in(self.splits[name]) for name in ("train", "validation")) <= most
        return fold_of(joined(self.splits["train"], self.splits["validation"]), seed) if few and self._mixed else None

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
            labels = batch["target"].repeat_interleave(k)
            losses = functional.cross_entropy(members.flatten(0, 1), labels, reduction="none").view(-1, k)
        else:
            scaled = (batch["target"] - self.predictor.target.centre) / self.predictor.target.spread
            losses = (members.squeeze(-1) - scaled.unsqueeze(1)).square()
        return linear.weighed(losses.mean(1), batch.get(WEIGHT))

    def model_description(self) -> Json:
        return {
            "architecture": asdict(self.predictor.sizes),
            "preprocessing": asdict(self.predictor.preprocessing),
            "target": self.predictor.target.to_json(),
            **({"weight": self.weighed_by} if self.weighed_by else {}),
        }

    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        some = spaced(self.splits, fit_on, baselines.MOST_ROWS)
        x, y = self._flat(some), some["target"].numpy()
        test = self.splits["test"]
        target, heavy = self.predictor.target, baselines.Weights(row_weights(some), test.get(WEIGHT))
        if isinstance(target, ClassTarget):
            return baselines.classification(x, y, self._flats(test), test["target"].numpy(), target.outputs, heavy)
        return baselines.regression(x, y, self._flats(test), test["target"].numpy(), target.possible, heavy)

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

    def examples(self, rows: Sequence[int], outputs: Tensor) -> list[Example]:
        """Reads the test split's table again: the text of every cell is not worth its memory while training."""
        table = self._test_again(scratch=self._settings.scratch.anew())
        shown = [name for name in table.columns if name in self.predictor.preprocessing.columns][:SHOWN_COLUMNS]
        indices = [int(row) for row in self._test_rows[rows]]
        examples = []
        for cells, (file, number) in zip(table.take(indices, shown), table.locate_all(indices), strict=True):
            shortened = {column: (cell or "")[:SHOWN_CHARACTERS] for column, cell in cells.items()}
            examples.append(Example(f"{file}, row {number}", shortened))
        return examples

    def for_another(self, other: Predictor, content: Sequence[str]) -> ForAnother:
        """Reads the test split's table again, with the columns of the other model."""
        assert isinstance(other, TabularPredictor)
        ours, theirs = self.predictor.target, other.target
        if ours.column != theirs.column or type(ours) is not type(theirs):
            raise ValueError(f"it is for the {theirs.description}, this one for the {ours.description}")
        if isinstance(ours, ClassTarget) and isinstance(theirs, ClassTarget):
            same_classes(ours.labels, theirs.labels)
        scratch, columns = self._settings.scratch.anew(), [*other.preprocessing.columns, *content]
        wanted = Wanted((theirs.column,), tuple(columns), others=False)
        table = self._test_again(scratch=scratch, wanted=wanted)
        if lacking := [column for column in columns if column not in table.columns]:
            raise ValueError(f"it was trained with column '{lacking[0]}', which the test rows do not have")
        batch = other.tensors(table, {"test": self._test_rows}, theirs.encode(table, scratch), scratch)["test"]
        if self.weighed_by:
            batch = {**batch, WEIGHT: self.splits["test"][WEIGHT]}
        hashes = of_table(table, content)[self._test_rows]
        return ForAnother(batch, hashes, hashes)

    def findings(self, outputs: Tensor) -> Json:
        labels, target = self.splits["test"]["target"], self.predictor.target
        heavy = self.splits["test"].get(WEIGHT)
        if isinstance(target, ClassTarget):
            calibrated = self.predictor.calibration
            return metrics.classification_findings(outputs, labels, target.labels, self.test_groups, calibrated, heavy)
        return metrics.regression_findings(outputs, labels, self.test_groups, heavy)

    def places(self) -> dict[str, dict[str, list[int]]]:
        return self.predictor.preprocessing.places

    def calibrate(self, outputs: Tensor) -> Calibration:
        if isinstance(self.predictor.target, ValueTarget):
            return UNCALIBRATED
        held = self.splits["validation"]
        return calibration.fit(outputs, held["target"], self.headline.name, held.get(WEIGHT))


def _slip(train: Table, target: str, rows: Ints, labels: Array) -> list[str]:
    """A warning of the one label of the training rows (rows,) that is far from all others."""
    if (place := alone_far_out(labels)) is None:
        return []
    file, row = train.locate(int(rows[place]))
    rest = np.delete(labels, place)
    return [
        f"The target '{target}' is {labels[place]:g} in {file}, row {row}, far from all others ({rest.min():g} to"
        f" {rest.max():g}): is it a slip?"
    ]


def _preprocessing(
    train: Table, rows: Ints, labels: Array, settings: TaskSettings
) -> tuple[Preprocessing, list[str], list[str]]:
    """Fitted on the training rows, with notes and warnings. DatasetInvalid where no column is of use."""
    left_out = {settings.target, settings.group, settings.weight, *settings.drop}
    if not times_split(settings):
        left_out.add(split_column(settings))
    features = [column for column in train.columns if column not in left_out]
    fitted, notes, warnings = fit.fit(train, rows, features, settings.types, labels)
    if not fitted.columns:
        # The columns' own sentences are all that says what to change; of many, a few are enough.
        reasons = "; ".join(note.removesuffix(".") for note in [*notes, *warnings][:SHOWN_REASONS])
        hint = f" ({reasons})" if reasons else ""
        raise invalid(train.name, f"has no usable column beside the target '{settings.target}'{hint}")
    return fitted, notes, warnings
