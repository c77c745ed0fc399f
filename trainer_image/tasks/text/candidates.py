"""The candidate of text classification: the linear model on words and character n-grams (grams_model.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.text_store import Bytes, Ints
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.text import grams, grams_model
from trainer_image.tasks.text.grams_model import GramsModel, Sparse
from trainer_image.units import format_bytes

# Of what it may use, the rest is for what a fit does before and after it looks at the clock.
SHARE = 0.8


class LinearCandidate(Candidate):
    name: ClassVar[str] = "linear"

    def __init__(self, texts: Mapping[str, Sequence[Bytes]], targets: Mapping[str, Ints], classes: int) -> None:
        """texts, targets: of each split, the positions of the classes."""
        self._texts, self._targets, self._classes = texts, targets, classes

    def fit(
        self, fit_on: Sequence[str], allowance: Allowance, chosen: dict[str, Any] | None
    ) -> tuple[nn.Module, dict[str, Any]] | None:
        begun = time.monotonic()

        def go_on(objective: float = 0.0) -> bool:
            allowance.beat()
            return not allowance.stop.is_set() and time.monotonic() - begun < SHARE * allowance.seconds

        texts = [text for split in fit_on for text in self._texts[split]]
        target = np.concatenate([self._targets[split] for split in fit_on])
        every = -(-sum(map(len, texts)) // grams_model.MOST_BYTES) or 1
        self.note = ""
        if every > 1:
            most = format_bytes(grams_model.MOST_BYTES)
            self.note = f"it is fitted on evenly spaced texts, {most} of them"
        parts = list(grams_model.portions(texts[::every]))
        counted = []
        for part in parts:
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
        data = Sparse(matrix, target[::every])
        strength: float | None
        if chosen is None:
            strength = self._chosen(data, model, go_on)
        else:
            strength = float(chosen["strength"])
            if not grams_model.fit(data, strength, model.weight, model.bias, go_on):
                strength = None  # the first fit, on fewer rows, is the better one
        if strength is None or allowance.stop.is_set():
            self.note = "the time budget is too short for one fit"
            return None
        return model, {"strength": strength, "features": len(features)}

    def _chosen(self, data: Sparse, model: GramsModel, go_on: Callable[[float], bool]) -> float | None:
        """Fits the model with one strength after another, each fit from where the one before ended, until validation
        says that it was enough; leaves the best weights and returns their strength."""
        weight, bias = torch.zeros_like(model.weight), torch.zeros_like(model.bias)
        texts, target = self._texts["validation"], torch.from_numpy(self._targets["validation"])
        every = -(-sum(map(len, texts)) // grams_model.MOST_BYTES) or 1
        parts = list(grams_model.portions(texts[::every]))
        known = model.features.numpy(), model.rarity.numpy()
        asked = grams_model.sparse([grams.counts(part) for part in parts], [len(part) for part in parts], *known)
        best, found = float("inf"), None
        for strengths in (grams_model.STRENGTHS, grams_model.WEAKER):
            if found not in (None, grams_model.STRENGTHS[0]):
                break
            for strength in strengths:
                whole = grams_model.fit(data, strength, weight, bias, go_on)
                loss = _tempered(torch.from_numpy(asked @ weight.numpy()) + bias, target[::every])
                if loss < best:
                    best, found = loss, strength
                    with torch.no_grad():
                        model.weight.copy_(weight)
                        model.bias.copy_(bias)
                if not whole:
                    return found
                if loss > best:
                    break
        return found


def _tempered(logits: Tensor, target: Tensor) -> float:
    """The log loss at the best of some temperatures: what is published is scaled on validation, too."""
    losses = [functional.cross_entropy(logits / temperature, target) for temperature in grams_model.TEMPERATURES]
    return float(torch.stack(losses).min())
