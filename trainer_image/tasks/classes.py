"""What every classification shares, whatever its rows are: figures, tables of predictions, and doubts about the labels.

With classes of very different size accuracy flatters, so another figure is the headline. Weights are still chosen by
the log loss: a figure that counts a few rare rows stands still for many epochs. On 12 tables of scikit-learn's
make_classification, 85 to 95 % of them one class, the balanced accuracy on the test was the same or better in each when
the log loss chose: 0.749 in the mean against 0.709.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from trainer_image.data.formats.numbers import MARKERS
from trainer_image.tasks import calibration, metrics
from trainer_image.tasks.base import Batch, Figures, Json, Predictor, Problem, TaskSettings, rows_in
from trainer_image.tasks.calibration import Calibration

MOST_CLASSES = 1000
SHOWN = 5
# Characters of a label in a sentence.
LONGEST = 60
# From this share of the largest class on, a constant answer looks good by accuracy.
LARGEST_SHARE = 0.8
# What stands between several labels of one row.
_SEVERAL = re.compile(r"\s*[|;,]\s*")
# So many different numbers some of which are no whole ones are quantities, not classes.
MOST_NUMBERS = 20
Array = np.ndarray[Any, Any]


class ClassPredictor(Predictor):
    """Predicts classes: outputs are probabilities (rows, classes), in the order of `labels`."""

    labels: tuple[str, ...]

    def use(self, calibration: Calibration) -> None:
        self.calibration = calibration.of(len(self.labels))

    def score(self, outputs: Tensor, batch: Batch) -> Figures:
        return metrics.classification(outputs, batch["target"], self.calibration.decide(outputs))

    def predictions(self, outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
        return class_table("label", self.labels, outputs, self.calibration)


class ClassProblem(Problem):
    """A dataset whose rows have classes, in its splits' "target": positions in the predictor's labels."""

    predictor: ClassPredictor

    def findings(self, outputs: Tensor) -> Json:
        target, predictor = self.splits["test"]["target"], self.predictor
        return metrics.classification_findings(
            outputs, target, predictor.labels, self.test_groups, predictor.calibration
        )

    def calibrate(self, outputs: Tensor) -> Calibration:
        return calibration.fit(outputs, self.splits["validation"]["target"], self.headline.name)


def class_table(
    column: str, labels: Sequence[str], outputs: Tensor, calibrated: Calibration
) -> tuple[list[str], list[list[str | float]]]:
    """Class probabilities (rows, classes) as `Predictor.predictions`: the answer, then what each label has."""
    header = [column, *(f"p({label})" for label in labels)]
    chosen = calibrated.decide(outputs).tolist()
    return header, [[labels[c], *p] for c, p in zip(chosen, outputs.tolist(), strict=True)]


def judge(
    problem: Problem,
    settings: TaskSettings,
    targets: Array,
    labels: Sequence[str],
    of: str,
    noun: str,
    weights: Array | None = None,
) -> None:
    """Chooses the problem's headline and selection, and adds notes and warnings about its classes.

    targets: (rows,) positions in `labels`, of the training rows; of: " of 'y'", or ""; noun: what a row is
    weights: how much each row counts, (rows,)
    """
    figure = "accuracy"
    counts = np.bincount(targets, minlength=len(labels))
    masses = counts if weights is None else np.bincount(targets, weights, minlength=len(labels))
    share = float(masses.max() / (masses.sum() or 1))
    if share >= LARGEST_SHARE:
        figure = "balanced_accuracy" if len(labels) == 2 else "macro_f1"
        if settings.metric == "auto":
            by = "" if weights is None else ", by weight,"
            problem.notes.append(
                f"The classes{of} are imbalanced: {share:.1%} of the training rows{by} are "
                f"'{labels[int(masses.argmax())]}', so that always answering the same would be as accurate. The model "
                f"is judged by {figure.replace('_', ' ')} instead (train.metric changes that)."
            )
    problem.headline, problem.selection = metrics.choose(settings.metric, metrics.CLASSIFICATION, figure, "log_loss")
    validation = problem.splits["validation"]
    if problem.selection.name == "roc_auc" and rows_in(validation) and len(np.unique(validation["target"].numpy())) < 2:
        problem.selection = metrics.CLASSIFICATION["log_loss"]
        problem.notes.append(
            f"The validation split has {noun}s of one class only, on which ROC AUC is not defined: the log loss "
            "chooses the weights."
        )
    problem.warnings += _doubtful(counts.tolist(), labels, of, noun)


def _doubtful(counts: Sequence[int], labels: Sequence[str], of: str, noun: str) -> list[str]:
    warnings = []
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(" ".join(label.casefold().split()), []).append(label)
    same = [" and ".join(f"'{label}'" for label in group) for group in alike.values() if len(group) > 1]
    if same:
        differ = f"Classes{of} that differ in case or spaces only: {_listed(same)}"
        warnings.append(f"{differ}; write alike what is one class.")
    parts = {label: set(_SEVERAL.split(label.strip())) - {""} for label in labels}
    several = [f"'{label}'" for label in labels if len(parts[label]) > 1 and parts[label] & (set(labels) - {label})]
    if several:
        joined = f"Classes{of} that join others: {_listed(several)}"
        warnings.append(f"{joined}; each is a class of its own: there is one answer for a {noun}, not several.")
    missing = [f"'{label}'" for label in labels if label.strip().lower() in MARKERS]
    if missing:
        stand = f"Classes{of} that may stand for a missing label: {_listed(missing)}"
        warnings.append(f"{stand}; leave their rows out if so.")
    once = [f"'{label}'" for label, count in zip(labels, counts, strict=True) if count == 1]
    if once:
        warnings.append(f"Classes{of} with one training {noun} only: {_listed(once)}; one example teaches nothing.")
    return warnings


def unfit(column: str, labels: Sequence[str], counted: object) -> str | None:
    """Why these labels, of which `counted` are different, are no classes to train on; None where they are."""
    if len(labels) == 1:
        return f"{column} has one class only ('{labels[0][:LONGEST]}'); at least two are needed"
    if len(labels) > MOST_CLASSES:
        return f"{column} has {counted} different values; at most {MOST_CLASSES} classes are supported"
    return None


def known_instead(label: str, labels: Sequence[str]) -> str:
    """For a label that is none of these: "; training has 'Yes': write them alike"."""
    alike = [known for known in labels if known.casefold() == label.casefold()]
    if alike:
        return f"; training has '{alike[0][:LONGEST]}': write them alike"
    return f"; training has {_listed(labels, LONGEST)}"


def quantities(labels: Sequence[str]) -> str | None:
    """Why labels are quantities rather than classes, and what to do; None where they may be classes."""
    if len(labels) <= MOST_NUMBERS:
        return None
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return None
    if all(number.is_integer() for number in numbers):
        return None
    return (
        f"the labels are {len(labels)} different numbers ('{labels[0]}', '{labels[1]}', …), which this task could only"
        " tell apart as classes: write ranges of them ('low', 'high')"
    )


def same_classes(ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Raises ValueError, with what is different, where two models tell other classes apart."""
    if tuple(ours) == tuple(theirs):
        return
    new, gone = [sorted(set(a) - set(b)) for a, b in ((ours, theirs), (theirs, ours))]
    said = [f"{what} {_listed(names)}" for what, names in (("does not know", new), ("also knows", gone)) if names]
    raise ValueError(f"it tells other classes apart: it {' and '.join(said) or 'has them in another order'}")


def in_short(labels: Sequence[str]) -> str:
    """ "4 classes (a, b, c, d)", the first few of them by name."""
    shown = ", ".join(label if len(label) <= LONGEST else f"{label[:LONGEST]}…" for label in labels[:SHOWN])
    return f"{len(labels)} classes ({shown}{', …' if len(labels) > SHOWN else ''})"


def _listed(names: Sequence[str], longest: int | None = None) -> str:
    return ", ".join(name[:longest] for name in names[:SHOWN]) + (
        f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )
