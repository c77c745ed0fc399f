"""Ours among the rivals on tables: one hold-out of a quarter each, equal threads, all rivals by their defaults."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.ranking.places import OURS, Placed, Ranked, judged, timed
from benchmarks.ranking.table_sets import TARGET, RankedTable, tables
from benchmarks.ranking.trained import trained
from trainer_image.predict import predict

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]
MOST_CATEGORIES, MOST_NATIVE = 30, 255
FIGURES = {"roc_auc": "tables, ROC AUC", "r2": "tables, R²"}


def ranked() -> list[Ranked]:
    """All tables."""
    return [Ranked(table.name, FIGURES[table.figure], partial(_placed, table)) for table in tables()]


def _placed(table: RankedTable, seconds: float, threads: int) -> Placed:
    """Trains ours and all rivals on three quarters of the rows, and scores them on the others."""
    from sklearn.model_selection import train_test_split

    frame = table.frame().reset_index(drop=True)
    labels = None if table.regression else np.unique(frame[TARGET], return_inverse=True)[1]
    rows, held = train_test_split(np.arange(len(frame)), test_size=0.25, random_state=0, stratify=labels)
    y = frame[TARGET].to_numpy(float) if labels is None else labels
    fits: dict[str, Callable[[], Array]] = {OURS: lambda: _ours(table, frame, rows, held, seconds)}
    fits |= _rivals(frame.drop(columns=TARGET), y, rows, held, regression=table.regression, threads=threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs, took = timed(fits)
    return judged(table.name, FIGURES[table.figure], outputs, took, y[held], _score(table, int(y.max()) + 1))


def _score(table: RankedTable, classes: int) -> Callable[[Array, Array], float]:
    from sklearn.metrics import r2_score, roc_auc_score

    if table.regression:
        return lambda y, found: float(r2_score(y, found))
    if classes == 2:
        return lambda y, found: float(roc_auc_score(y, found[:, 1]))
    return lambda y, found: float(roc_auc_score(y, found, multi_class="ovr", labels=np.arange(classes)))


def _ours(table: RankedTable, frame: pandas.DataFrame, rows: Array, held: Array, seconds: float) -> Array:
    """Values, or class probabilities in the order of the classes, of the held rows, by `train` and `predict`."""
    kind = "number" if table.regression else "category"
    metric = "auto" if table.regression else "log_loss"
    config = (
        f"task: tabular\ndata: {{target: {TARGET}, types: {{{TARGET}: {kind}}}}}\n"
        f"train: {{time_budget: {seconds:g}s, metric: {metric}}}\n"
    )
    with tempfile.TemporaryDirectory(prefix="ranking-") as folder:
        place = Path(folder)
        (place / "data").mkdir()
        frame.iloc[rows].to_csv(place / "data" / "train.csv", index=False)
        frame.iloc[held].to_csv(place / "data" / "test.csv", index=False)
        trained(place / "data", config)
        found = predict(place / "out", place / "data" / "test.csv", None)["predictions"]
    if table.regression:
        return np.array([float(row[TARGET]) for row in found])
    chances = {name: [row[name] for row in found] for name in found[0] if name.startswith("p(")}
    ordered = sorted(chances, key=lambda name: float(name[2:-1]))
    return np.array([chances[name] for name in ordered]).T


def _rivals(
    frame: pandas.DataFrame, y: Array, rows: Array, held: Array, *, regression: bool, threads: int
) -> dict[str, Callable[[], Array]]:
    """Each as its users would begin: native categories where it has them, else one-hot; defaults otherwise."""
    import catboost
    import lightgbm
    import xgboost
    from sklearn import ensemble, linear_model
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    texts = [name for name in frame if frame[name].dtype.kind not in "bif"]
    hot, coded = _one_hot(frame, texts, rows), frame.assign(**{name: frame[name].astype("category") for name in texts})
    # HistGradientBoosting takes at most 255 categories: of a column with more it has their numbers.
    many = [name for name in texts if coded[name].nunique() > MOST_NATIVE]
    numbered = coded.assign(**{name: coded[name].cat.codes for name in many})
    # CatBoost takes words alone, none of them missing.
    written = frame.assign(**{name: frame[name].astype(object).fillna("").astype(str) for name in texts})

    def fit(model: Any, inputs: Any, **more: Any) -> Array:
        take = inputs.iloc if hasattr(inputs, "iloc") else inputs
        model.fit(take[rows], y[rows], **more)
        return np.asarray(model.predict(take[held]) if regression else model.predict_proba(take[held]))

    def kind(module: Any, name: str, **settings: Any) -> Any:
        return getattr(module, name + ("Regressor" if regression else "Classifier"))(**settings)

    line = linear_model.RidgeCV() if regression else linear_model.LogisticRegression(max_iter=500)
    return {
        "linear": lambda: fit(make_pipeline(StandardScaler(), line), hot),
        "random forest": lambda: fit(kind(ensemble, "RandomForest", n_jobs=threads, random_state=0), hot),
        "HistGradientBoosting": lambda: fit(
            kind(ensemble, "HistGradientBoosting", random_state=0, categorical_features="from_dtype"), numbered
        ),
        "LightGBM": lambda: fit(kind(lightgbm, "LGBM", n_jobs=threads, verbose=-1), coded),
        "XGBoost": lambda: fit(kind(xgboost, "XGB", n_jobs=threads, enable_categorical=True), coded),
        "CatBoost": lambda: fit(
            kind(catboost, "CatBoost", thread_count=threads, verbose=0, allow_writing_files=False),
            written,
            cat_features=texts,
        ),
    }


def _one_hot(frame: pandas.DataFrame, texts: Sequence[str], rows: Array) -> Array:
    """Numbers with the median for what is missing, and which were; the most frequent categories."""
    parts = []
    for name in frame:
        if name in texts:
            often = frame[name].iloc[rows].value_counts().index[:MOST_CATEGORIES]
            parts += [(frame[name] == word).to_numpy(float) for word in often]
            continue
        values = frame[name].to_numpy(float)
        missing = np.isnan(values)
        parts.append(np.where(missing, np.nanmedian(values[rows]), values))
        if missing.any():
            parts.append(missing.astype(float))
    return np.stack(parts, axis=1)
