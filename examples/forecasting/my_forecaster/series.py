"""From a dataset folder to one series of numbers, and from a series to windows that respect time."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from trainer_image.errors import DatasetInvalid


@dataclass(frozen=True)
class Series:
    """values: (steps,) float64 in order of time; times: as the file writes them, or row numbers."""

    file: str
    values: Tensor
    times: list[str]


def read(data: Path, target: str, time: str | None) -> Series:
    """The one CSV file of the dataset. Raises DatasetInvalid with file, row and column."""
    files = [data] if data.is_file() else sorted(data.glob("*.csv"))
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise DatasetInvalid(f"Invalid dataset: one CSV file with the series is expected at its top, found: {found}")
    file = files[0].name
    values, times = [], []
    before: datetime | None = None
    with files[0].open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        for column in filter(None, (target, time)):
            if column not in (rows.fieldnames or ()):
                raise DatasetInvalid(f"Invalid dataset: {file}: there is no column '{column}'")
        for number, row in enumerate(rows, start=2):
            values.append(_number(file, number, target, row[target]))
            times.append(row[time] if time else str(number))
            if time:
                now = _moment(file, number, time, row[time])
                if before is not None and now <= before:
                    raise DatasetInvalid(f"Invalid dataset: {file}: row {number}: '{time}' is not after the row before")
                before = now
    return Series(file, torch.tensor(values, dtype=torch.float64), times)


def _number(file: str, row: int, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetInvalid(f"Invalid dataset: {file}: row {row}: '{column}' must be a number; it is '{text or ''}'")
    return value


def _moment(file: str, row: int, column: str, text: str | None) -> datetime:
    try:
        return datetime.fromisoformat(text or "").replace(tzinfo=None)
    except ValueError:
        raise DatasetInvalid(
            f"Invalid dataset: {file}: row {row}: '{column}' must be a date like 2026-01-31; it is '{text or ''}'"
        ) from None


def windows(values: Tensor, first: int, end: int, window: int, horizon: int) -> dict[str, Tensor]:
    """Every forecast whose `horizon` steps lie in values[first:end]: past (rows, window), target (rows, horizon).

    The past may begin before `first`: whoever forecasts knows it.
    """
    starts = torch.arange(max(first, window), end - horizon + 1)
    past = values[starts[:, None] + torch.arange(-window, 0)]
    target = values[starts[:, None] + torch.arange(horizon)]
    return {"past": past.float(), "target": target.float()}


def backtest(steps: int, window: int, horizon: int) -> tuple[int, int]:
    """(where validation begins, where the test begins): the last 15 % of the time tests, the 15 % before validate."""
    held = max(horizon, round(0.15 * steps))
    validation, test = steps - 2 * held, steps - held
    if validation < window + horizon:
        needed = window + 3 * horizon
        raise DatasetInvalid(
            f"Invalid dataset: the series has {steps} steps; a window of {window} and a horizon of {horizon} need at"
            f" least {needed}, better several times as many"
        )
    return validation, test
