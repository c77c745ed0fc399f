"""The plug-in interface: what a kind of training problem says about itself; the engine does the rest.

A `Task` turns a dataset folder into a `Problem` (tensors, loss, scores, recipe) and a published model's description
into a `Predictor` (network, reading, scoring). A problem carries the predictor that its own description yields, so the
network that trains is by construction the one that `predict` builds later.

The engine owns the loop, the device, precision, checkpoints, signals, the time budget and early stopping. A task never
moves tensors, opens no checkpoint, reads no environment and takes no random number but from torch's default generators
(which the engine seeds, saves and restores): that is what makes a resumed run end with the same weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trainer_image.data.rows.division import RowHashes, group_numbers
from trainer_image.data.rows.hashes import Hashes
from trainer_image.data.rows.known import Known
from trainer_image.data.spill import Scratch
from trainer_image.limits import Limits
from trainer_image.tasks.calibration import UNCALIBRATED, Calibration
from trainer_image.tasks.candidates import Candidate
from trainer_image.tasks.hooks import scored
from trainer_image.tasks.recipe import Augment, Loss, Moment, NetworkSize, Recipe, adamw, cosine, matrices_decay
from trainer_image.tasks.strictly import Labels, Share, Size, checked_params, restored
from trainer_image.tasks.tensors import Batch, Outputs, joined, rows_in, spaced, stored, take

# All that a task needs is found here.
__all__ = [
    "INTERFACE",
    "WEIGHT",
    "Augment",
    "Batch",
    "Example",
    "Figures",
    "ForAnother",
    "Json",
    "Labels",
    "Loss",
    "Metric",
    "Moment",
    "NetworkSize",
    "Outputs",
    "Predictor",
    "Problem",
    "Recipe",
    "RowGroups",
    "Rows",
    "Share",
    "Size",
    "Split",
    "Task",
    "TaskSettings",
    "adamw",
    "checked_params",
    "cosine",
    "joined",
    "matrices_decay",
    "restored",
    "rows_in",
    "scored",
    "spaced",
    "stored",
    "take",
    "told_alike",
]

Figures = dict[str, float]
Json = dict[str, Any]
# In the batches of a problem whose rows count differently: how much each does, float32 (rows,), 1 in the mean. It is no
# part of a row's content.
WEIGHT = "row_weight"


@dataclass(frozen=True)
class Metric:
    """A figure that a model is judged by: its name among `score`'s and which way is better."""

    name: str
    higher_is_better: bool = True

    def better(self, new: float, old: float) -> bool:
        return new > old if self.higher_is_better else new < old


@dataclass(frozen=True)
class Split:
    """`data.split`. by: "time" or "column"; validation, test: values of the column; none: it holds the splits' names"""

    by: str
    column: str
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskSettings:
    """The part of the user's configuration that is about the data and the model.

    preset: "auto", "fast" or "best"; metric: "auto" or a name among the task's figures;
    types: column → "number" or "category"; text: the column with the text;
    scratch: gives a task its large arrays: in memory while they fit, in files beyond that (see `scratch`)
    params: `custom.params`, for a task of one's own to check: plain JSON values under names, nothing checked yet
    earlier: of a warm start, what the run before knew of its rows; None: there was none, or it is not known
    weight: the column that says how much each row counts; it is no input
    candidates: those that are to be fitted once the data is read, as `model.candidates` has them: what they need can be
        loaded meanwhile
    time_budget: seconds of the training, first weights included (`train.time_budget`)
    """

    target: str | None = None
    text: str | None = None
    drop: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    preset: str = "auto"
    metric: str = "auto"
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    scratch: Scratch = field(default_factory=Scratch)
    params: Mapping[str, Any] = field(default_factory=dict)
    earlier: Known | None = None
    split: Split | None = None
    weight: str | None = None
    candidates: Sequence[str] | str = ()
    time_budget: float = float("inf")


@dataclass(frozen=True)
class Rows:
    """Rows to predict: tensors of equal first dimension, a name for each row, and whether labels came along.

    notes: what whoever reads the predictions should know of these rows
    """

    tensors: Batch
    names: Sequence[str]
    labelled: bool
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class RowGroups:
    """Rows of the test split that are not independent of each other, e.g. those of one patient: an interval that took
    them for independent would be too narrow.

    of:     the number of each row's group, int64 (rows,), from 0
    called: what a group is, for people, in the plural, e.g. "documents"
    """

    of: Tensor
    called: str

    @classmethod
    def by(cls, column: str, names: Sequence[str | None] | np.ndarray[Any, Any]) -> RowGroups:
        """Rows (rows,) of one name belong together, as `data.group` says; one without a name stands for itself."""
        return cls(torch.from_numpy(group_numbers(names)), f"groups by '{column}'")


@dataclass(frozen=True)
class ForAnother:
    """The test rows as another model of the same task reads them.

    rows: as its predictor's `outputs` and `score` take them; hashes: uint64 (rows,), of their content; own: of the rows
    of the problem's own test split, the same object where the rows are the same ones in the same order
    """

    rows: Batch
    hashes: Hashes
    own: Hashes


@dataclass(frozen=True)
class Example:
    """A row as the report shows it to a person; all of it may come from the dataset, the report escapes it.

    name:   where it is found, e.g. "test.csv, row 17" or "test/cat/3.png"
    cells:  a few columns and what they hold
    text:   an excerpt
    pixels: uint8 (channels, height, width), one channel or three
    pictures: caption → pixels, shown side by side, e.g. an image, what is true of it and what was predicted
    """

    name: str
    cells: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    pixels: Tensor | None = None
    pictures: Mapping[str, Tensor] = field(default_factory=dict)


class Predictor(ABC):
    """All that a published model needs: made from `model.json` alone.

    calibration: how probabilities are scaled before they are `score`'s, and how the answers are decided: see `use`
    """

    calibration: Calibration = UNCALIBRATED

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network with fresh weights, on the CPU, drawn from torch's default generator."""

    def pretrained(self) -> Mapping[str, Path]:
        """Modules of the network that `build_model` gives weights of a file of the image: name ("encoder") → the file.

        What is frozen there (`requires_grad` False) is stored neither in checkpoints nor with the model, which names
        the file and its hash instead: `predict` needs the same file. Where weights are trained further, `Problem.begin`
        is the place to read them, and nobody needs the file later.
        """
        return {}

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        """What is predicted for each row: float32 (rows, ...), e.g. probabilities or values in the target's unit; or a
        dict of such tensors, and of whole numbers. All hooks that take outputs take them as they are given here."""

    @abstractmethod
    def score(self, outputs: Any, batch: Batch) -> Figures:
        """The figures of `outputs` (all rows of a split, on the CPU) against the labels in `batch`."""

    @abstractmethod
    def read(self, data: Path, limits: Limits) -> Rows:
        """Reads a file or a dataset folder (its test split where it has one) as rows; raises DatasetInvalid."""

    @abstractmethod
    def predictions(self, outputs: Any) -> tuple[list[str], list[list[str | float]]] | None:
        """Outputs as a table for people: column names and one list of cells a row. None: `files` say it all."""

    def files(self, outputs: Any, rows: Rows) -> Iterable[tuple[str, bytes]]:
        """What no table holds, e.g. masks: pairs of a file's name and its content, one after the other.

        `predict` writes them into a folder beside its table. A name may have folders, separated by /; what `rows` are
        called may come from a stranger's files, and is looked at before anything is written.
        """
        return ()

    def build_candidate(self, name: str, chosen: Json) -> nn.Module:
        """An unfitted module of the candidate of this name, to load its tensors into; `outputs` takes it, too.

        chosen: what its fit returned, or a stranger's JSON: raises ValueError for what no fit returns.
        """
        raise ValueError(f"models of this task have no candidate '{name}'")

    def blend(self, outputs: Sequence[Any], weights: Sequence[float]) -> Outputs:
        """One prediction of several models' outputs for the same rows; the weights are positive and add up to 1.

        The weighted mean, which is right for probabilities and values; outputs of another kind need their own. Raises
        NotImplementedError, as for a dict of outputs here, where models cannot be blended: the best is published alone.
        """
        if not isinstance(outputs[0], Tensor):
            raise NotImplementedError
        return sum((weight * each for weight, each in zip(weights, outputs, strict=True)), torch.zeros(()))

    def mixture(self, models: Sequence[nn.Module], weights: Sequence[float]) -> nn.Module | None:
        """One module that `outputs` and `continuation` take in place of several; None: `blend` of their outputs does.

        For models whose outputs for people are sums over many predictions, which cannot be blended afterwards.
        """
        return None

    def use(self, calibration: Calibration) -> None:
        """Takes what `Problem.calibrate` found. Raises ValueError for one that is not for this model's classes."""
        if calibration != UNCALIBRATED:
            raise ValueError("models of this task have no calibration")

    def continuation(self, model: nn.Module, prompt: str, length: int, temperature: float, seed: int) -> str | None:
        """What the model writes after the prompt; None: models of this kind write nothing (`predict --prompt`).

        length: bytes of UTF-8, at most; temperature: 0 is always the likeliest, above 1 more daring than it predicts;
        seed: the same one gives the same text
        """
        return None


class Problem(ABC):
    """A dataset that is read, checked, split and ready to train.

    description: what was found, one sentence; notes: decisions made on the user's behalf; warnings: what looks wrong
    splits: "train", "validation" and "test", each a mapping of tensors with equal first dimension, on the CPU, or
        `Stretches` of longer ones
    selection: the figure by which validation chooses weights; headline: the one that people are shown
    test_groups: which rows of the test split belong together; None: each stands for itself
    hashes: of the content of each row of the test split, and of all that the others hold, by which later runs know what
        was trained on; None: of the rows' tensors
    left_out: rows of the test split that are none, because `TaskSettings.earlier` was trained on them
    moment: set before each call of `loss`: when in the fit it is
    weighed_by: the column by which rows count differently in loss and figures; None: all count alike
    candidates_share: of a short time budget, what fitting all candidates may take
    """

    description: str
    notes: list[str]
    warnings: list[str]
    splits: Mapping[str, Batch]
    selection: Metric
    headline: Metric
    recipe: Recipe
    predictor: Predictor
    test_groups: RowGroups | None = None
    hashes: RowHashes | None = None
    left_out: int = 0
    moment: Moment = Moment()
    weighed_by: str | None = None
    candidates_share: float = 0.35

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor | Loss:
        """Mean loss of a training batch, a scalar, or `Loss` with its parts. What is random on the batch's device, such
        as dropout and augmentation there, happens here."""

    @abstractmethod
    def model_description(self) -> Json:
        """What `Task.restore` needs: architecture, preprocessing, labels; plain JSON."""

    @abstractmethod
    def baselines(self, fit_on: Sequence[str]) -> dict[str, Figures]:
        """Test figures of "trivial" and "linear", fitted on the named splits."""

    @abstractmethod
    def findings(self, outputs: Any) -> Json:
        """What the report shows beside the test figures: {"kind": "classification" | "regression", ...}.

        Any other kind is shown as the tables that its JSON makes. A list "worst" of {"row": position in the test
        split, ...} shows these rows' `examples`.
        """

    def candidates(self) -> Sequence[Candidate]:
        """Models that compete with the network, the cheapest first; none by default. Each call may make new ones."""
        return ()

    def folds(self, seed: int) -> Tensor | None:
        """The fold of each row of training and validation split, in this order: int64 (rows,), from 0 on.

        For data whose validation rows are too few to tell models apart: these are compared by what they predict for
        rows of folds that they have not seen, candidates by their `unseen`. None, as here: by the validation split.
        """
        return None

    def sizes(self) -> Sequence[NetworkSize]:
        """Networks to choose from, the smallest first; none by default: there is one only.

        The engine measures a few steps of each on the device, calls `resize` with the largest that the time budget
        gives enough epochs of (the smallest where none gets them), and keeps the choice in the checkpoints. What does
        not depend on speed, such as the number of rows, is the problem's to say: by what it offers, and by `enough`.
        """
        return ()

    def resize(self, name: str) -> None:
        """Sets `recipe`, and what `predictor` builds, to the size of this name; called before a network is built, and
        several times."""
        raise ValueError(f"there is no size '{name}'")

    def calibrate(self, outputs: Any) -> Calibration:
        """What these outputs for the rows of the validation split show about probabilities and answers; none here:
        outputs may be anything."""
        return UNCALIBRATED

    def places(self) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """Where each column of the dataset is among the splits' tensors: column → tensor → its columns there. The
        report then says what the model makes of each; none: it does not."""
        return {}

    def for_another(self, other: Predictor, content: Sequence[str]) -> ForAnother:
        """The rows of the test split for a predictor that an earlier model's description made, and by which they are
        told: `content` is what that model's run hashed of its rows, e.g. a table's columns.

        So a new model is tested beside the published one. Raises ValueError, with a clause that says why, where the two
        do not answer the same question; NotImplementedError where only a model that was prepared in the same way can be
        tested, as here.
        """
        raise NotImplementedError

    def demonstrations(self, model: nn.Module) -> Json:
        """What only the trained network itself can show, to be added to the findings, e.g. texts that it writes."""
        return {}

    def examples(self, rows: Sequence[int], outputs: Any) -> list[Example]:
        """These rows of the test split, in order, for the report's worst mistakes; none: it says their numbers only.

        outputs: of these rows, in the same order. Written for interface 1, it takes the rows alone.
        """
        return []

    def gallery(self, model: nn.Module, outputs: Any) -> Sequence[Example]:
        """What the report shows in pictures beside the worst mistakes, e.g. what a generator makes; none by default.

        model: the network, on the CPU or the device that it was tested on; outputs: of all rows of the test split
        """
        return ()

    def begin(self, model: nn.Module, fit_on: Sequence[str]) -> None:
        """May set first weights from the rows of these splits, on the CPU; called before the first step of a fit."""
        return None  # noqa: RET501 (an optional hook, not an abstract method)

    def parameter_groups(self, model: nn.Module, weight_decay: float) -> list[Json]:
        """AdamW's groups: matrices decay, biases, scales and norms do not. `lr_factor` multiplies the learning rate."""
        return matrices_decay(model.parameters(), weight_decay)

    def optimizers(self, model: nn.Module, recipe: Recipe) -> Sequence[torch.optim.Optimizer]:
        """What steps on the gradients of each batch's loss, made anew for each fit: AdamW on `parameter_groups` here.

        recipe: the problem's, with what the configuration says in its place. A group's `lr` is its peak, which
        `schedule` multiplies. A parameter that a step's loss did not reach is left as it is: several optimizers take
        turns where `loss` goes by `moment.step`. A step takes no closure.
        """
        return [adamw(self.parameter_groups(model, recipe.weight_decay), recipe.learning_rate)]

    def schedule(self, moment: Moment, recipe: Recipe) -> float:
        """The factor of every learning rate at this moment: linear warm-up, then a cosine to zero, here."""
        return cosine(moment.done, recipe.warmup)

    def augmentation(self) -> Augment | None:
        """What makes a batch to train on of rows of the training split, on the CPU, in threads beside the training.
        None: rows are trained on as they are. Asked for at the beginning of each fit.

        It is called as (batch, generator) → batch: what is random is drawn from that generator alone, whose seed
        follows from `train.seed`, epoch and batch, so that a resumed training sees the same, however many threads there
        are. Tensors may change and come or go; each still has as many rows. The split is never changed.
        """
        return None


# Raised when a task may use what an earlier trainer does not have, so that one says so; what was written for the oldest
# still works as it is.
INTERFACE, OLDEST_INTERFACE = 2, 1


class Task(ABC):
    """One kind of problem, e.g. tabular. Stateless: `prepare` and `restore` make what has state.

    A task of a package of its own also says which version of this interface it was written for: `interface = 2`.
    """

    name: ClassVar[str]
    interface: ClassVar[int]

    def check(self, settings: TaskSettings) -> None:
        """May raise ConfigInvalid for what the configuration asks, `settings.params` above all; reads no data.

        Called before the dataset is there, which may take hours: `prepare` gets the same settings again.
        """
        return None  # noqa: RET501 (an optional hook, not an abstract method)

    @abstractmethod
    def prepare(self, data: Path, settings: TaskSettings) -> Problem:
        """Reads and checks the dataset; raises DatasetInvalid with file, row and column, ConfigInvalid for settings."""

    @abstractmethod
    def restore(self, description: Json) -> Predictor:
        """The inverse of `Problem.model_description`."""


def told_alike(hashes: RowHashes, content: Sequence[str]) -> Hashes:
    """The hashes of the test rows, where an earlier run told its rows by the same. Raises ValueError."""
    if hashes.content != tuple(content):
        raise ValueError("its run told rows by something else")
    return hashes.of["test"]
