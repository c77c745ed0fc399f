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
from trainer_image.tasks.tensors import evenly, of_each_class
from trainer_image.tasks.text import grams, grams_model
from trainer_image.tasks.text.grams import Counts
from trainer_image.tasks.text.grams_model import GramsModel, Sparse
from trainer_image.units import format_bytes

# Of what it may use, the rest is for what a fit does before and after it looks at the clock.
SHARE = 0.8
# What counting n-grams may take of it, weighing them takes as long again; of the time that is left then, what one fit
# may take. Where all texts would take longer, every so many is counted, and of those every so many fitted on.
COUNTING, PART, MOST_LEFT_OUT = 0.15, 0.7, 32


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

        texts = [text for split in fit_on for text in self._texts[split]]
        target = np.concatenate([self._targets[split] for split in fit_on])
        seconds = COUNTING * SHARE * allowance.seconds
        every, counted = _spacing(texts, target, seconds) if chosen is None else (int(chosen["counted"]), [])
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
        del counted
        model = GramsModel(len(features), self._classes)
        model.features.copy_(torch.from_numpy(features))
        model.rarity.copy_(torch.from_numpy(rarity))
        data = Sparse(matrix, target)
        step = 1 if chosen is None else int(chosen["every"])
        if chosen is None and self._classes > 2:
            import sklearn.svm  # noqa: F401 that takes a second, and is no part of a fit

            at = time.monotonic()
            one = data.of_class(int(data.target[0]))
            grams_model.fit(one, grams_model.STRENGTHS[0], model.weight, model.bias, lambda: True)
            left = SHARE * allowance.seconds - (time.monotonic() - begun)
            step = math.ceil((time.monotonic() - at) * self._classes / max(PART * left, 1e-3))
        if step > MOST_LEFT_OUT or not go_on():
            self.note = "the time budget is too short for one fit"
            return None
        if step > 1:
            self.note = f"the time budget is too short for all texts: it is fitted on one of every {step * every}"
            rows = of_each_class(target, step)
            data = Sparse(data.matrix[rows], data.target[rows])
        if chosen is None:
            found = self._chosen(data, model, go_on, begun)
        else:
            found = float(chosen["strength"]), float(chosen["temperature"])
            # Without the time the first fit, on fewer rows, stays.
            if grams_model.fit(data, found[0], model.weight, model.bias, go_on):
                model.weight.div_(found[1])
                model.bias.div_(found[1])
            else:
                found = None
        if found is None or allowance.stop.is_set():
            self.note = "the time budget is too short for one fit"
            return None
        return model, {
            "strength": found[0],
            "temperature": found[1],
            "counted": every,
            "every": step,
            "features": len(features),
        }

    def _chosen(
        self, data: Sparse, model: GramsModel, go_on: Callable[[], bool], begun: float
    ) -> tuple[float, float] | None:
        """Fits the model with one strength after another while validation says that it is better; leaves the best
        weights and returns their strength and temperature. None: there was no time for one."""
        weight, bias = torch.zeros_like(model.weight), torch.zeros_like(model.bias)
        texts, target = self._texts["validation"], torch.from_numpy(self._targets["validation"])
        every = -(-sum(map(len, texts)) // grams_model.MOST_BYTES) or 1
        rows = evenly(len(texts), -(-len(texts) // every))
        parts = list(grams_model.portions([texts[row] for row in rows]))
        known = model.features.numpy(), model.rarity.numpy()
        asked = grams_model.sparse([grams.counts(part) for part in parts], [len(part) for part in parts], *known)
        best, found = float("inf"), None
        before = time.monotonic() - begun
        for strengths in (grams_model.STRENGTHS, grams_model.WEAKER):
            if found and found[0] != grams_model.STRENGTHS[0]:
                break
            for strength in strengths:
                at = time.monotonic()
                if not grams_model.fit(data, strength, weight, bias, go_on):
                    return found
                loss, temperature = _tempered(torch.from_numpy(asked @ weight.numpy()) + bias, target[rows])
                if loss >= best:
                    break
                best, found = loss, (strength, temperature)
                self.again = before + time.monotonic() - at
                torch.div(weight, temperature, out=model.weight)
                torch.div(bias, temperature, out=model.bias)
        return found


def _spacing(texts: Sequence[Bytes], target: Ints, seconds: float) -> tuple[int, list[Counts]]:
    """Of every so many texts one is counted, so that it takes no longer and fits into memory; and what is counted."""
    size = sum(map(len, texts))
    every = -(-size // grams_model.MOST_BYTES) or 1
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
