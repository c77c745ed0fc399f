"""The candidate of text classification: the linear model on words and character n-grams (grams_model.py)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.text_store import Bytes, Ints
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.tensors import of_each_class, one_of
from trainer_image.tasks.text import grams, grams_model
from trainer_image.tasks.text.grams import Counts
from trainer_image.tasks.text.grams_model import GramsModel, Sparse
from trainer_image.units import format_bytes

# Of what it may use, the rest is for what a fit does before and after it looks at the clock.
SHARE = 0.8
# What counting n-grams may take of it, weighing them takes as long again; of the time that is left then, what one fit
# may take. Where all texts would take longer, every so many is counted, and of those every so many fitted on.
COUNTING, PART, MOST_LEFT_OUT = 0.15, 0.7, 32
SHORT = "the time budget is too short for one fit"


class LinearCandidate(Candidate):
    name: ClassVar[str] = "linear"

    def __init__(self, texts: Mapping[str, Sequence[Bytes]], targets: Mapping[str, Ints], classes: int) -> None:
        """texts, targets: of each split, the positions of the classes."""
        self._texts, self._targets, self._classes = texts, targets, classes

    def fit(
        self, fit_on: Sequence[str], allowance: Allowance, chosen: dict[str, Any] | None
    ) -> tuple[nn.Module, dict[str, Any]] | None:
        begun = time.monotonic()

        def go_on() -> bool:
            allowance.beat()
            return not allowance.stop.is_set() and time.monotonic() - begun < SHARE * allowance.seconds

        first = None if chosen is None else int(chosen["counted"]) * int(chosen["every"])
        weighed = self._weighed(fit_on, allowance, go_on, first)
        if weighed is None:
            return None
        model, data, every = weighed
        # Before it is known how long a fit may take.
        asked = self._asked(model) if chosen is None else None
        step = 1
        if self._classes > 2 and (first is None or first > every):
            step = self._step(model, data, SHARE * allowance.seconds + begun)
        if first is not None:
            # With time left more texts than the first fit's; never fewer: that was found to be worth its weight.
            step = max(1, min(step, first // every))
        if step > MOST_LEFT_OUT or not go_on():
            self.note = SHORT
            return None
        if step > 1:
            self.note = f"the time budget is too short for all texts: it is fitted on one of every {step * every}"
            rows = of_each_class(data.target, step)
            data = Sparse(data.matrix[rows], data.target[rows])
        if asked is not None:
            found = self._chosen(data, asked, model, go_on, begun)
        else:
            assert chosen is not None
            found = _as_chosen(data, model, float(chosen["strength"]), float(chosen["temperature"]), go_on)
        if found is None or allowance.stop.is_set():
            self.note = SHORT
            return None
        said = {"strength": found[0], "temperature": found[1], "counted": every, "every": step}
        return model, said | {"features": len(model.features)}

    def _weighed(
        self, fit_on: Sequence[str], allowance: Allowance, go_on: Callable[[], bool], most: int | None
    ) -> tuple[GramsModel, Sparse, int] | None:
        """(a model that knows the n-grams of these splits, their texts as it sees them, one of every so many).

        most: no more than so many for one; None: as many as time wants
        """
        texts = [text for split in fit_on for text in self._texts[split]]
        target = np.concatenate([self._targets[split] for split in fit_on])
        every, counted = _spacing(texts, target, COUNTING * SHARE * allowance.seconds)
        if most is not None and every > most:
            every, counted = most, []
        rows = of_each_class(target, every)
        texts, target = [texts[row] for row in rows], target[rows]
        self.note = ""
        if every > 1:
            self.note = f"it is fitted on evenly spaced texts, {format_bytes(sum(map(len, texts)))} of them"
        parts = list(grams_model.portions(texts))
        for part in parts[len(counted) :]:
            counted.append(grams.counts(part))
            if not go_on():
                self.note = "the time budget is too short to count n-grams"
                return None
        features, rarity = grams_model.vocabulary(counted, sum(map(len, parts)), self._classes)
        if not len(features):
            self.note = "no n-gram is in two training texts"
            return None
        matrix = grams_model.sparse(counted, [len(part) for part in parts], features, rarity)
        model = GramsModel(len(features), self._classes)
        model.features.copy_(torch.from_numpy(features))
        model.rarity.copy_(torch.from_numpy(rarity))
        return model, Sparse(matrix, target), every

    def _step(self, model: GramsModel, data: Sparse, until: float) -> int:
        """Of every so many texts one can be fitted on, by what the machine of one class takes.

        until: a fit has to end, of `time.monotonic`
        """
        import sklearn.svm  # noqa: F401 that takes a second, and is no part of a fit

        at = time.monotonic()
        one = data.of_class(int(data.target[0]))
        grams_model.fit(one, grams_model.STRENGTHS[0], model.weight, model.bias, lambda: True)
        left = until - time.monotonic()
        return math.ceil((time.monotonic() - at) * self._classes / max(PART * left, 1e-3))

    def _asked(self, model: GramsModel) -> Sparse:
        """The validation texts as the model sees them."""
        texts = self._texts["validation"]
        rows = one_of(_fitting(sum(map(len, texts))), len(texts))
        parts = list(grams_model.portions(texts[row] for row in rows))
        known = model.features.numpy(), model.rarity.numpy()
        counted = [grams.counts(part) for part in parts]
        matrix = grams_model.sparse(counted, [len(part) for part in parts], *known)
        return Sparse(matrix, self._targets["validation"][rows])

    def _chosen(
        self, data: Sparse, asked: Sparse, model: GramsModel, go_on: Callable[[], bool], begun: float
    ) -> tuple[float, float] | None:
        """Fits the model with one strength after another while validation says that it is better; leaves the best
        weights and returns their strength and temperature. None: there was no time for one."""
        weight, bias = torch.zeros_like(model.weight), torch.zeros_like(model.bias)
        target = torch.from_numpy(asked.target)
        best, found = float("inf"), None
        before = time.monotonic() - begun
        for strengths in (grams_model.STRENGTHS, grams_model.WEAKER):
            if found and found[0] != grams_model.STRENGTHS[0]:
                break
            for strength in strengths:
                at = time.monotonic()
                if not grams_model.fit(data, strength, weight, bias, go_on):
                    return found
                loss, temperature = _tempered(torch.from_numpy(asked.matrix @ weight.numpy()) + bias, target)
                if loss >= best:
                    break
                best, found = loss, (strength, temperature)
                self.again = before + time.monotonic() - at
                torch.div(weight, temperature, out=model.weight)
                torch.div(bias, temperature, out=model.bias)
        return found


def _as_chosen(
    data: Sparse, model: GramsModel, strength: float, temperature: float, go_on: Callable[[], bool]
) -> tuple[float, float] | None:
    """Fits the model with what the first fit found. None: there was no time, and that fit, on fewer rows, stays."""
    if not grams_model.fit(data, strength, model.weight, model.bias, go_on):
        return None
    model.weight.div_(temperature)
    model.bias.div_(temperature)
    return strength, temperature


def _fitting(size: int) -> int:
    """Of how many texts of so many bytes altogether one fits into memory."""
    return -(-size // grams_model.MOST_BYTES) or 1


def _spacing(texts: Sequence[Bytes], target: Ints, seconds: float) -> tuple[int, list[Counts]]:
    """Of every so many texts one is counted, so that it takes no longer and fits into memory; and what is counted."""
    size = sum(map(len, texts))
    every = _fitting(size)
    asked = next(grams_model.portions(texts[row] for row in of_each_class(target, every)))
    at = time.monotonic()
    counted = grams.counts(asked)
    all_of_them = (time.monotonic() - at) * size / every / max(1, sum(map(len, asked)))
    more = max(1, math.ceil(all_of_them / max(seconds, 1e-3)))
    return every * more, [counted] if more == 1 else []


def _tempered(logits: Tensor, target: Tensor) -> tuple[float, float]:
    """The log loss at the best of some temperatures, and which it is."""
    losses = [functional.cross_entropy(logits / temperature, target) for temperature in grams_model.TEMPERATURES]
    best = int(torch.stack(losses).argmin())
    return float(losses[best]), grams_model.TEMPERATURES[best]
