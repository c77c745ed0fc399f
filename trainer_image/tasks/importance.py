"""How much a model makes of each column: what its figure loses when the column's cells are exchanged among test rows.

Permutation importance (Breiman 2001, doi:10.1023/A:1010933404324; for any model: Fisher, Rudin and Dominici 2019,
arXiv 1801.01489), repeated, so that the spread of the loss shows what is chance. A column whose news others have as
well loses little. Pure but for the clock that bounds it: the same rows are exchanged in the same way every time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from trainer_image.tasks.base import Batch, Figures, Json, Metric, Outputs, rows_in, take

# Of more rows evenly spaced ones are predicted again and again.
MOST_ROWS, FEWEST_ROWS = 2000, 100
REPEATS, FEWEST_REPEATS = 5, 2

# Which columns of which tensors of a batch a column of the dataset has become.
Places = Mapping[str, Mapping[str, Sequence[int]]]


def measured(
    outputs: Callable[[Batch], Outputs],
    score: Callable[[Outputs, Batch], Figures],
    rows: Batch,
    places: Places,
    metric: Metric,
    seconds: float,
) -> Json | None:
    """{"figure", "whole": the figure untouched, "rows", "repeats", "columns": [{"column", "loss", "lowest", "highest"},
    …]}, the largest mean loss first; a loss above zero is one to the worse. None where the figure is not defined on
    these rows, or `seconds` do not hold a look at every column.

    outputs: as `Published.outputs`, on `rows`' device
    """
    # Once for whatever is slow once only; the second shows the pace.
    outputs(rows)
    began = time.monotonic()
    whole = score(outputs(rows), rows).get(metric.name)
    affordable = seconds / max(1e-6, time.monotonic() - began) / max(1, len(places))
    if whole is None or not places:
        return None
    if affordable < FEWEST_REPEATS:
        fewer = int(rows_in(rows) * affordable / FEWEST_REPEATS)
        if fewer < FEWEST_ROWS:
            return None
        rows = take(rows, torch.linspace(0, rows_in(rows) - 1, fewer, dtype=torch.float64).long())
        whole = score(outputs(rows), rows).get(metric.name)
        affordable = FEWEST_REPEATS
        if whole is None:
            return None
    repeats = min(REPEATS, int(affordable))
    random, worse = np.random.default_rng(0), 1 if metric.higher_is_better else -1
    found = []
    for column, at in places.items():
        losses = []
        for _ in range(repeats):
            order = torch.from_numpy(random.permutation(rows_in(rows)))
            value = score(outputs(_exchanged(rows, at, order)), rows).get(metric.name, math.nan)
            losses.append(worse * (whole - value))
        if math.isfinite(sum(losses)):
            mean = sum(losses) / repeats
            found.append({"column": column, "loss": mean, "lowest": min(losses), "highest": max(losses)})
    found.sort(key=lambda entry: -float(str(entry["loss"])))
    return {
        "figure": metric.name,
        "whole": whole,
        "rows": rows_in(rows),
        "repeats": repeats,
        "columns": found,
    }


def _exchanged(rows: Batch, at: Mapping[str, Sequence[int]], order: Tensor) -> dict[str, Tensor]:
    """The rows with one column's cells as they stand in other rows."""
    batch = dict(rows)
    for name, columns in at.items():
        there = torch.tensor(list(columns))
        batch[name] = batch[name].clone()
        batch[name][:, there] = rows[name][order][:, there]
    return batch
