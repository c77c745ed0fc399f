"""How far a figure may be from what more test rows would say: 95 % confidence intervals.

Proportions have Wilson's interval (Wilson 1927, doi:10.1080/01621459.1927.10502953; recommended for small samples by
Brown, Cai and DasGupta 2001, doi:10.1214/ss/1009213286). Every other figure has a percentile bootstrap over the test
rows (Efron and Tibshirani 1993, chapter 13), drawn with a fixed seed: the same outputs give the same interval. Both
take rows for independent of each other, unless groups are given, whose rows are alike (one patient's visits, say):
then whole groups are drawn, and a share counts as many rows as its groups are worth.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer_image.tasks.base import Batch, Figures, Outputs, rows_in, take
from trainer_image.tasks.tensors import each

log = logging.getLogger(__name__)

Interval = tuple[float, float]
Floats = np.ndarray[Any, np.dtype[np.float64]]
# The number of each row's group, (rows,), from 0.
Groups = np.ndarray[Any, np.dtype[np.int64]]

Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
LEVEL = (2.5, 97.5)
RESAMPLES = 1000
FEWEST_RESAMPLES = 200
# Outputs in all resamples together, which decides how many there are: by work, not by time, so that another machine
# draws the same.
WORK = 20_000_000
# Rows, and outputs of these rows, of one resample at most. Beyond, the m out of n bootstrap (Bickel, Götze and van Zwet
# 1997): smaller resamples spread more, by the square root of n / m, which is taken off again, as is their bias.
MOST_ROWS = 5000
FEWEST_ROWS = 1000
MOST_OUTPUTS = 50_000
# Groups of one resample at least, where there are so many.
FEWEST_GROUPS = 50
# A plug-in's own `score` may be slow: then no interval is given.
MOST_SECONDS = 20.0


def wilson(hits: float, rows: float) -> Interval | None:
    """The interval of the share hits / rows; None without rows."""
    if not rows:
        return None
    share, zz = hits / rows, Z * Z / rows
    centre = (share + zz / 2) / (1 + zz)
    half = Z / (1 + zz) * math.sqrt(share * (1 - share) / rows + zz / (4 * rows))
    # At the ends rounding would leave the possible range by a last digit.
    return (0.0 if hits == 0 else centre - half, 1.0 if hits == rows else centre + half)


def share_interval(
    hits: np.ndarray[Any, np.dtype[np.bool_]], groups: Groups | None = None, weights: Floats | None = None
) -> Interval | None:
    """The interval of the share of hits among (rows,); None without rows, and with fewer than two groups.

    With groups it is Wilson's for the effective number of rows, with Student's quantile for so few groups (Korn and
    Graubard 1998, Survey Methodology 24; compared by Franco et al. 2019, doi:10.1093/jssam/smy019); so it is for rows
    that count differently: weights, (rows,).
    """
    count, rows = int(hits.sum()), len(hits)
    if (groups is None and weights is None) or not rows:
        return wilson(count, rows)
    known = len(np.unique(groups)) if groups is not None else rows
    if known < 2 and groups is not None:
        return None
    share = float(np.average(hits, weights=weights))
    most = float(rows) if weights is None else worth_of(weights)
    # Where all rows are the same nothing shows how alike a group's rows are: then a group counts as one.
    worth = float(known) if weights is None else worth_of(weights, groups)
    if 0 < count < rows:
        error = _standard_error(hits.astype(np.float64), groups, weights)
        worth = share * (1 - share) / error**2 if error > 0 else most
    if groups is not None:
        worth *= (Z / student(known - 1)) ** 2
    worth = min(most, worth)
    return wilson(share * worth if count < rows else worth, worth)


def worth_of(weights: Floats, groups: Groups | None = None) -> float:
    """How many rows, or groups, of equal weight these are worth (Kish 1965, Survey Sampling, section 11.7)."""
    masses = _summed(weights, groups)
    return float(masses.sum() ** 2 / (masses**2).sum())


def mean_interval(values: Floats, groups: Groups | None = None, weights: Floats | None = None) -> Interval | None:
    """The interval of the mean of (rows,): mean ± 1.96 standard errors; None below two rows or groups. With groups
    Student's quantile of their number takes the place of 1.96. weights: how much each row counts, (rows,)"""
    known = len(values) if groups is None else len(np.unique(groups))
    if known < 2:
        return None
    if groups is None and weights is None:
        half = Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    else:
        half = (Z if groups is None else student(known - 1)) * _standard_error(values, groups, weights)
    mean = float(values.mean() if weights is None else np.average(values, weights=weights))
    return mean - half, mean + half


def _standard_error(values: Floats, groups: Groups | None, weights: Floats | None) -> float:
    """Of the mean, from sums over groups, or rows (Cochran 1977, Sampling Techniques, chapter 9: the ratio
    estimate)."""
    weights = np.ones(len(values)) if weights is None else weights
    sums = _summed(weights * (values - np.average(values, weights=weights)), groups)
    return math.sqrt(len(sums) / (len(sums) - 1) * float((sums**2).sum())) / float(weights.sum())


def _summed(values: Floats, groups: Groups | None) -> Floats:
    """Over each group, (groups,); the values themselves where rows stand for themselves."""
    return values if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], values).astype(float)


def student(freedom: int) -> float:
    """Student's 97.5 % quantile, as a series in 1 / freedom (Abramowitz and Stegun 1964, 26.7.5): within 0.5 % from 3
    degrees of freedom on."""
    z, v = Z, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


class _Drawn(Mapping[str, Tensor]):
    """A batch of which a tensor's rows are gathered when it is asked for: `score` wants labels, seldom the inputs."""

    def __init__(self, batch: Batch, index: Tensor) -> None:
        self._batch, self._index = batch, index

    def __getitem__(self, name: str) -> Tensor:
        return self._batch[name].index_select(0, self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch)

    def __len__(self) -> int:
        return len(self._batch)


def bootstrap(
    score: Callable[[Outputs, Batch], Figures],
    outputs: Outputs,
    batch: Batch,
    point: Figures,
    *,
    groups: Groups | None = None,
    seconds: float = MOST_SECONDS,
) -> tuple[dict[str, Interval], int]:
    """Intervals of the figures in `point` = score(outputs, batch), and from how many resamples.

    A figure that cannot be computed in every tenth resample, e.g. because a class is missing there, has no interval.
    """
    rows = rows_in(outputs)
    members = None if groups is None else _members(groups)
    units = rows if members is None else len(members)
    if units < 2:
        return {}, 0
    width = max(1, sum(tensor[0].numel() for tensor in each(outputs)))
    size = min(rows, MOST_ROWS, max(FEWEST_ROWS, MOST_OUTPUTS // width))
    if members is not None:
        size = min(units, max(FEWEST_GROUPS, size * units // rows))
    resamples = max(FEWEST_RESAMPLES, min(RESAMPLES, WORK // (max(1, size * rows // units) * width)))
    random = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {name: [] for name in point}
    deadline = time.monotonic() + seconds
    done = 0
    while done < resamples:
        if time.monotonic() > deadline:
            return {}, done
        chosen = random.integers(0, units, size)
        index = torch.from_numpy(chosen if members is None else np.concatenate([members[unit] for unit in chosen]))
        try:
            figures = score(take(outputs, index), _Drawn(batch, index))
        except Exception as error:  # a plug-in's score that expects all rows: no interval, and no reason to fail
            log.info("No bootstrap intervals: score raised %s on a resample", type(error).__name__)
            return {}, 0
        done += 1
        for name, values in drawn.items():
            value = figures.get(name)
            if value is not None and math.isfinite(value):
                values.append(value)
    level = LEVEL if members is None else _expanded(units)
    return {
        name: _percentiles(values, point[name], size / units, level)
        for name, values in drawn.items()
        if len(values) > 0.9 * done
    }, done


def _members(groups: Groups) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The rows of each group."""
    order = np.argsort(groups, kind="stable")
    _, first = np.unique(groups[order], return_index=True)
    return np.split(order, first[1:])


def _expanded(units: int) -> tuple[float, float]:
    """Percentiles further out where there are few groups: of nine unlike ones the plain interval held the
    truth 87 times in 100, this one 92 (the expanded percentile interval: Hesterberg 2015,
    doi:10.1080/00031305.2015.1089789)."""
    tail = 50 * math.erfc(math.sqrt(units / (units - 1)) * student(units - 1) / math.sqrt(2))
    return tail, 100 - tail


def _percentiles(values: list[float], point: float, share: float, level: tuple[float, float]) -> Interval:
    low, middle, high = (float(value) for value in np.percentile(np.array(values), (level[0], 50, level[1])))
    if share == 1:
        return low, high
    return point + math.sqrt(share) * (low - middle), point + math.sqrt(share) * (high - middle)


def calibration_by_chance(
    confidence: np.ndarray[Any, Any], bins: np.ndarray[Any, Any], count: int, weights: Floats | None = None
) -> float:
    """The expected calibration error that a perfectly calibrated model stays below on these rows in 95 of 100 cases.

    confidence: (rows,) of the predicted class; bins: (rows,) positions below `count`; weights: how much each row
    counts, (rows,). The idea is the consistency bar's (Bröcker and Smith 2007, doi:10.1175/WAF993.1): labels are drawn
    as the confidences say, 200 times.
    """
    random = np.random.default_rng(0)
    step = -(-len(confidence) // MOST_ROWS) or 1
    confidence, bins = confidence[::step], bins[::step]
    masses = np.ones(len(bins)) if weights is None else weights[::step]
    wanted = np.bincount(bins, masses * confidence, count)
    errors = [
        np.abs(np.bincount(bins, masses * (random.random(len(bins)) < confidence), count) - wanted).sum() / masses.sum()
        for _ in range(200)
    ]
    return float(np.percentile(errors, 95)) / math.sqrt(step)
