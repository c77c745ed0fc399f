"""Ours among the rivals on tables: one hold-out of a quarter each, equal threads, all rivals by their defaults.

`make quality` runs it after the gates: ours has `--seconds` for each table (30), a rival has as long as it takes. Exits
1 where ours is not first in mean rank, for AUC or for R². A rival that takes at most three seconds and is better by
more than chance (97.5 % of the resamples of the test rows) is named.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.ranking_tables import TARGET, RankedTable
from benchmarks.trained import trained
from trainer_image.host.devices import usable_cpus
from trainer_image.predict import predict

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]
OURS = "ours"
QUICK_SECONDS = 3.0
RESAMPLES = 500
MOST_CATEGORIES = 30
# Figures that differ by less are one and the same, and share a rank.
SAME = 1e-4


@dataclass(frozen=True)
class Placed:
    """One table: each model's figure and seconds, and the quick rivals that are better than ours beyond chance."""

    table: str
    figure: str
    figures: Mapping[str, float]
    seconds: Mapping[str, float]
    beaten_by: Sequence[str]

    def __str__(self) -> str:
        """The set's line of the table."""
        shown = "  ".join(f"{name} {value:.4f} ({self.seconds[name]:.1f} s)" for name, value in self.figures.items())
        beaten = f"  BEATEN BEYOND CHANCE by {', '.join(self.beaten_by)}" if self.beaten_by else ""
        return f"{self.table:18} {self.figure:8} {shown}; best: {self.best}{beaten}"

    @property
    def best(self) -> str:
        return max(self.figures.items(), key=lambda item: item[1])[0]


def ranks(figures: Mapping[str, float]) -> dict[str, float]:
    """1 for the highest figure; models whose figures are the same (`SAME`) share the mean of their ranks."""
    values = np.array(list(figures.values()))
    better = (values[None, :] > values[:, None] + SAME).sum(1)
    alike = (np.abs(values[None, :] - values[:, None]) <= SAME).sum(1)
    return dict(zip(figures, (better + (alike + 1) / 2).tolist(), strict=True))


def mean_ranks(placed: Iterable[Placed]) -> dict[str, float]:
    """Of each model over the tables, the best first."""
    every = [ranks(each.figures) for each in placed]
    found = {name: float(np.mean([each[name] for each in every])) for name in every[0]}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def record(placed: Iterable[Placed]) -> tuple[int, int, int]:
    """(wins, ties, losses) of ours against the best rival of each table."""
    ahead = [each.figures[OURS] - max(v for name, v in each.figures.items() if name != OURS) for each in placed]
    return sum(a > SAME for a in ahead), sum(abs(a) <= SAME for a in ahead), sum(a < -SAME for a in ahead)


def beyond_chance(mine: Array, other: Array, y: Array, score: Callable[[Array, Array], float]) -> bool:
    """Whether the other predictions are better in 97.5 % of resamples of the rows."""
    random = np.random.default_rng(0)
    won = 0
    for _ in range(RESAMPLES):
        rows = random.integers(0, len(y), len(y))
        while len(np.unique(y[rows])) < min(2, len(np.unique(y))):
            rows = random.integers(0, len(y), len(y))
        won += score(y[rows], other[rows]) > score(y[rows], mine[rows])
    return won >= 0.975 * RESAMPLES


def placed(table: RankedTable, seconds: float, threads: int) -> Placed:
    """Trains ours and all rivals on three quarters of the rows, and scores them on the others."""
    from sklearn.model_selection import train_test_split

    frame = table.frame().reset_index(drop=True)
    labels = None if table.regression else np.unique(frame[TARGET], return_inverse=True)[1]
    rows, held = train_test_split(np.arange(len(frame)), test_size=0.25, random_state=0, stratify=labels)
    y = frame[TARGET].to_numpy(float) if labels is None else labels
    score = _score(table, int(y.max()) + 1)
    outputs, took = {}, {}
    fits: dict[str, Callable[[], Array]] = {OURS: lambda: _ours(table, frame, rows, held, seconds)}
    fits |= _rivals(frame.drop(columns=TARGET), y, rows, held, regression=table.regression, threads=threads)
    for name, fit in fits.items():
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs[name] = fit()
        took[name] = time.monotonic() - began
    figures = {name: score(y[held], found) for name, found in outputs.items()}
    quick = [name for name in figures if name != OURS and took[name] <= QUICK_SECONDS and figures[name] > figures[OURS]]
    beaten = [name for name in quick if beyond_chance(outputs[OURS], outputs[name], y[held], score)]
    return Placed(table.name, table.figure, figures, took, beaten)


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
    written = frame.assign(**{name: frame[name].astype(str) for name in texts})

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
            kind(ensemble, "HistGradientBoosting", random_state=0, categorical_features="from_dtype"), coded
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


def rank(chosen: Sequence[RankedTable], seconds: float) -> bool:
    """Prints a line a table and what comes of them; True where ours is first for each figure that there is."""
    threads = usable_cpus()
    every: list[Placed] = []
    print(f"\nOurs ({seconds:g} s) among rivals by their defaults, {threads} threads each")
    for table in chosen:
        found = placed(table, seconds, threads)
        every.append(found)
        print(found, flush=True)
    first = True
    for figure in ("roc_auc", "r2"):
        of_figure = [each for each in every if each.figure == figure]
        if not of_figure:
            continue
        means = mean_ranks(of_figure)
        wins, ties, losses = record(of_figure)
        leads = means[OURS] <= min(means.values())
        first &= leads
        shown = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        print(
            f"{figure}, {len(of_figure)} tables: {wins} wins, {ties} ties, {losses} losses against the best rival; "
            f"mean rank: {shown}{'' if leads else '  NOT FIRST'}"
        )
    return first
