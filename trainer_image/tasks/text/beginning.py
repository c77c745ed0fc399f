"""First weights of a text network: what each bucket weighs and, of few texts, a linear model (linear.py), both within
their share of the time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer_image.data.rows.division import group_numbers
from trainer_image.data.text_store import Texts
from trainer_image.tasks.base import Batch, rows_in, spaced, take
from trainer_image.tasks.tensors import of_each_class
from trainer_image.tasks.text import linear as linear_start
from trainer_image.tasks.text.network import TextNetwork

# For a trained bag, an n-gram of a single training text says nothing of other texts, unless texts are few: then nearly
# all n-grams are of that kind. A linear model takes them all: naive Bayes wants them (linear.py).
LEAST_TEXTS, FEW_TEXTS = 2, 100
# The power of its inverse document frequencies: see linear.py.
LINEAR_POWER = 1.5
COUNTED_ROWS = 256
# Of more texts, evenly spaced ones are counted: counting 138,000 took longer than training, and a sample shows as well
# which buckets are frequent.
MOST_COUNTED = 50_000
# How sure first weights are is chosen among these on so many validation texts at most, and bytes.
CERTAINTIES = tuple(1.25**power for power in range(-16, 5))
MOST_ASKED, MOST_ASKED_BYTES = 5_000, 2**22
# Of the time budget, what counting and a fit's first weights may take. Where texts have more bytes than that, a part of
# them tells first what all would take.
COUNT_SHARE, BEGIN_SHARE, FEW_BYTES, TRIED = 0.05, 0.15, 2**18, 16


class Beginning:
    """The first weights of one training, of its refit, too."""

    # What first weights that are fitted on the training texts are multiplied by; the refit's are so, too.
    certainty = 1.0

    def __init__(self, time_budget: float, grouped: Mapping[str, Texts] | None) -> None:
        """time_budget: seconds; grouped: the texts of each split, where they belong together in groups"""
        self._time_budget, self._grouped = time_budget, grouped

    def begin(self, model: TextNetwork, splits: Mapping[str, Batch], fit_on: Sequence[str]) -> None:
        """Weighs each bucket by how few training texts have it, and lets a small model begin as a linear one."""
        began = time.monotonic()
        seen = torch.zeros(model.sizes.buckets)
        total = 0
        step = -(-sum(rows_in(splits[split]) for split in fit_on) // MOST_COUNTED)
        for first in range(TRIED):
            for split in fit_on:
                given = splits[split]
                for _, part in _by_length(given, torch.arange(rows_in(given))[first * step :: TRIED * step]):
                    total += rows_in(part)
                    ordered = model.buckets(part["texts"], part["lengths"]).sort(1).values
                    new = torch.ones_like(ordered, dtype=torch.bool)
                    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
                    seen += torch.bincount(ordered[new & (ordered >= 0)], minlength=len(seen))
            if time.monotonic() - began > COUNT_SHARE * self._time_budget:
                break
        linear = model.head is None
        least = LEAST_TEXTS if not linear and total > FEW_TEXTS else 1
        rarity = (((1 + total) / (1 + seen)).log() + 1) ** (LINEAR_POWER if linear else 1)
        model.weights.copy_(torch.where(seen >= least, rarity, 0.0))
        if not linear:
            return
        every = 1
        if sum(int(splits[split]["lengths"].sum()) for split in fit_on) > FEW_BYTES:
            import sklearn.svm  # noqa: F401 that takes a second, and is no part of a fit

            at = time.monotonic()
            self._fit(model, splits, fit_on, TRIED)
            tried = time.monotonic() - at
            every = max(1, math.ceil(tried * TRIED / max(BEGIN_SHARE * self._time_budget - tried, tried)))
        if every < TRIED:
            self._fit(model, splits, fit_on, every)
        with torch.no_grad():
            if "validation" not in fit_on:
                self.certainty = _kept_promises(model, splits)
            model.table.weight.mul_(self.certainty)
            # A class without a text stays impossible.
            model.bias.copy_(torch.where(model.bias > linear_start.NEVER, self.certainty * model.bias, model.bias))

    def _fit(self, model: TextNetwork, splits: Mapping[str, Batch], fit_on: Sequence[str], every: int) -> None:
        """Fits the table to one of every so many texts."""
        indices, values, widths, targets, names = [], [], [0], [], []
        for split in fit_on:
            given = splits[split]
            for numbers, part in _by_length(given, torch.from_numpy(of_each_class(given["target"].numpy(), every))):
                targets.append(part["target"].numpy())
                if self._grouped:
                    names.append(self._grouped[split].group_names()[numbers.numpy()])
                index, value = model.bags(part["texts"], part["lengths"])
                there = value > 0
                widths += there.sum(1).tolist()
                indices.append(index[there].numpy())
                values.append(value[there].numpy())
        rows = (np.concatenate(values), np.concatenate(indices), np.cumsum(widths))
        groups = group_numbers(np.concatenate(names)) if names else None
        sizes = model.sizes.buckets, len(model.bias)
        weight, bias = linear_start.first_weights(*rows, np.concatenate(targets), *sizes, groups)
        with torch.no_grad():
            model.table.weight.copy_(torch.from_numpy(weight.T))
            model.bias.copy_(torch.from_numpy(bias))


def _by_length(split: Batch, rows: Tensor) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """These rows, the shortest texts first, some at a time: (their numbers, their tensors). In the order of the dataset
    each batch would be padded to the longest text that happens to be in it."""
    ordered = rows[split["lengths"][rows].argsort(stable=True)]
    for start in range(0, len(rows), COUNTED_ROWS):
        part = ordered[start : start + COUNTED_ROWS]
        yield part, take(split, part)


def _kept_promises(model: TextNetwork, splits: Mapping[str, Batch]) -> float:
    """By what first weights are multiplied so that they promise on the validation texts what they keep: margins
    that tell training texts apart say nothing of how sure a model may be of others."""
    longest = int(splits["validation"]["lengths"].max())
    asked = spaced(splits, ["validation"], min(MOST_ASKED, MOST_ASKED_BYTES // longest))
    rows, was_training = range(0, rows_in(asked), COUNTED_ROWS), model.training
    model.eval()
    parts = [take(asked, slice(start, start + COUNTED_ROWS)) for start in rows]
    logits = torch.cat([model(part["texts"], part["lengths"]) for part in parts])
    model.train(was_training)
    losses = [functional.cross_entropy(factor * logits, asked["target"]) for factor in CERTAINTIES]
    return CERTAINTIES[int(torch.stack(losses).argmin())]
