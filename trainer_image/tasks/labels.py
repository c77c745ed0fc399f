"""Classes in words, whatever they are of: what was predicted, and what looks wrong with a dataset's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from trainer_image.data.numbers import MARKERS

SHOWN = 5


def class_table(column: str, labels: Sequence[str], outputs: Tensor) -> tuple[list[str], list[list[str | float]]]:
    """Class probabilities (rows, classes) as `Predictor.predictions`: the likeliest label, then what each one has."""
    header = [column, *(f"p({label})" for label in labels)]
    chosen = outputs.argmax(1).tolist()
    return header, [[labels[c], *p] for c, p in zip(chosen, outputs.tolist(), strict=True)]


def doubtful(targets: np.ndarray[Any, Any], labels: Sequence[str], of: str, noun: str) -> list[str]:
    """Warnings, for people to act on.

    targets: positions of the training rows' labels (rows,); of: " of 'y'", or ""; noun: what a row is
    """
    told = []
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(" ".join(label.casefold().split()), []).append(label)
    same = [" and ".join(f"'{label}'" for label in group) for group in alike.values() if len(group) > 1]
    if same:
        told.append(f"Classes{of} that differ in case or spaces only: {_listed(same)}; write alike what is one class.")
    missing = [f"'{label}'" for label in labels if label.strip().lower() in MARKERS]
    if missing:
        told.append(f"Classes{of} that may stand for a missing label: {_listed(missing)}; leave their rows out if so.")
    counts = np.bincount(targets, minlength=len(labels)).tolist()
    once = [f"'{label}'" for label, count in zip(labels, counts, strict=True) if count == 1]
    if once:
        told.append(f"Classes{of} with one training {noun} only: {_listed(once)}; one example teaches nothing.")
    return told


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
