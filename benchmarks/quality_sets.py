"""Data for the quality table: sets that ship in scikit-learn, each with its gate; and sets to develop on, without one.

Presets are chosen on the development sets only. The gates' folds are for scoring.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn import datasets
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class QualitySet:
    """inputs: (rows, features) or (rows, height, width) in 0..255; rival: scikit-learn's best known for it."""

    name: str
    task: str
    metric: str
    inputs: Array
    targets: Array
    rival_name: str
    rival: Callable[[], BaseEstimator]
    gate: float | None = None
    types: str = ""

    @property
    def regression(self) -> bool:
        return self.metric == "r2"


def logistic() -> BaseEstimator:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def support_vectors() -> BaseEstimator:
    return SVC(gamma=0.001, C=10)


def gated() -> list[QualitySet]:
    """The sets of the quality table with their gates."""
    cancer, wine, diabetes, digits = (
        datasets.load_breast_cancer(),
        datasets.load_wine(),
        datasets.load_diabetes(),
        datasets.load_digits(),
    )
    grey = np.round(digits.images * 255 / 16).astype(np.uint8)
    tabular, images = "tabular", "image_classification"
    return [
        QualitySet(
            "breast_cancer", tabular, "accuracy", cancer.data, cancer.target, "logistic regression", logistic, 0.970
        ),
        QualitySet("wine", tabular, "accuracy", wine.data, wine.target, "logistic regression", logistic, 0.975),
        QualitySet(
            "diabetes", tabular, "r2", diabetes.data, diabetes.target, "linear regression", LinearRegression, 0.48
        ),
        QualitySet("digits", images, "accuracy", grey, digits.target, "SVM", support_vectors, 0.992),
    ]


def development() -> list[QualitySet]:
    """Sets of similar size and kind that nothing is gated on."""
    iris = datasets.load_iris()
    friedman = datasets.make_friedman1(400, n_features=10, noise=3.0, random_state=7)
    noisy = datasets.make_regression(400, 10, n_informative=6, noise=150.0, random_state=3)
    two = datasets.make_classification(500, 25, n_informative=8, n_redundant=6, flip_y=0.03, random_state=5)
    three = datasets.make_classification(
        180, 12, n_informative=6, n_classes=3, n_clusters_per_class=1, class_sep=1.5, random_state=5
    )
    glyphs, letters = _glyphs()
    tabular = "tabular"
    return [
        QualitySet("iris", tabular, "accuracy", iris.data, iris.target, "logistic regression", logistic),
        QualitySet("two clusters", tabular, "accuracy", *two, "logistic regression", logistic),
        QualitySet("three clusters", tabular, "accuracy", *three, "logistic regression", logistic),
        QualitySet("friedman1", tabular, "r2", *friedman, "linear regression", LinearRegression),
        QualitySet("noisy line", tabular, "r2", *noisy, "linear regression", LinearRegression),
        QualitySet("glyphs", "image_classification", "accuracy", glyphs, letters, "SVM", support_vectors),
    ]


def _glyphs() -> tuple[Array, Array]:
    """1500 letters of 10 kinds, shifted, turned, sheared and blurred into 8 x 8 grey pixels."""
    random = np.random.default_rng(11)
    images, letters = [], []
    for number in range(1500):
        canvas = Image.new("L", (48, 48))
        font = ImageFont.load_default(float(random.uniform(30, 42)))
        ImageDraw.Draw(canvas).text((12, 2), "ABDGKORSXZ"[number % 10], 255, font)
        canvas = canvas.rotate(float(random.normal(0, 12)), Image.Resampling.BILINEAR)
        shear, dx, dy = random.normal(0, 0.15), random.normal(0, 2.5), random.normal(0, 2.5)
        canvas = canvas.transform(
            (48, 48), Image.Transform.AFFINE, (1, shear, dx - 24 * shear, 0, 1, dy), Image.Resampling.BILINEAR
        )
        small = np.asarray(canvas.resize((8, 8), Image.Resampling.BOX), float) + random.normal(0, 12, (8, 8))
        images.append(np.clip(small, 0, 255).astype(np.uint8))
        letters.append(number % 10)
    return np.stack(images), np.array(letters)


def write_split(folder: Path, split: str, data: QualitySet, rows: Array) -> None:
    """Writes rows as `{split}.csv`, or as images under `{split}/<class>/`."""
    folder.mkdir(parents=True, exist_ok=True)
    if data.task == "tabular":
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"f{n}" for n in range(data.inputs.shape[1])), "target"])
            writer.writerows([*map(repr, data.inputs[r].tolist()), data.targets[r]] for r in rows)
        return
    for r in rows:
        place = folder / split / str(data.targets[r])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.inputs[r]).save(place / f"{r:05}.png")
