"""The linear model on words and character n-grams (grams.py): support vector machines, one class against the rest,
their strength and how sure they are chosen on validation.

A feature counts 1 + log(occurrences), times its inverse document frequency; words and characters have length 1 each in
a text (scikit-learn's `sublinear_tf`; Salton and Buckley 1988). Fitted by scikit-learn (liblinear, Hsieh et al. 2008,
doi:10.1145/1390156.1390208); no library is needed at prediction time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer_image.tasks.text import grams
from trainer_image.tasks.text.grams import Counts
from trainer_image.tasks.text.linear import NEVER, PASSES

Array = np.ndarray[Any, Any]
# Numbers that a model may have at most, 32 MiB of them, and features: what is seen in more texts is kept.
MOST_WEIGHTS, MOST_FEATURES = 2**23, 2**20
# Of more text, evenly spaced rows are fitted on: some 100 bytes of memory are needed for a byte.
MOST_BYTES = 12 * 1024**2
PORTION_BYTES = 1024**2
# A feature of one text says nothing of other texts, where there are enough of them.
FEW_TEXTS = 300
# Tried from the first of STRENGTHS on upwards, and, where the second is no better, downwards: noisy labels want a weak
# one.
STRENGTHS, WEAKER = (0.3, 1.0, 3.0, 10.0), (0.1, 0.03)
# Margins divided by one of these are logits.
TEMPERATURES = tuple(2.0 ** (power / 2) for power in range(-12, 5))


class GramsModel(nn.Module):
    """texts (rows, length) uint8, lengths (rows,) → logits (rows, classes); on whatever device its weights lie."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.features: Tensor
        self.rarity: Tensor
        self.register_buffer("features", torch.zeros(features, dtype=torch.int64))  # ascending
        self.register_buffer("rarity", torch.zeros(features))
        self.weight = nn.Parameter(torch.zeros(features, classes), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(classes), requires_grad=False)

    def forward(self, texts: Tensor, lengths: Tensor) -> Tensor:
        rows = zip(texts.cpu().numpy(), lengths.tolist(), strict=True)
        counted = grams.counts([text[:length].tobytes() for text, length in rows])
        row, index, value = weighed(counted, len(texts), self.features.cpu().numpy(), self.rarity.cpu().numpy())
        offsets = np.searchsorted(row, np.arange(len(texts)))
        on = self.weight.device
        summed = nn.functional.embedding_bag(
            torch.from_numpy(index).to(on),
            self.weight,
            torch.from_numpy(offsets).to(on),
            per_sample_weights=torch.from_numpy(value).to(on),
            mode="sum",
        )
        return self.bias + summed


def weighed(counted: Counts, rows: int, features: Array, rarity: Array) -> tuple[Array, ...]:
    """Counts of `rows` texts → (row, place among `features`, weight), without what is not among them."""
    row, feature, occurrences = counted
    place = np.minimum(np.searchsorted(features, feature), max(0, len(features) - 1))
    known = features[place] == feature if len(features) else np.zeros(len(row), bool)
    row, place = row[known], place[known]
    value = (1 + np.log(occurrences[known])).astype(np.float32) * rarity[place]
    word = features[place] >= grams.WORDS
    part = 2 * row + word
    length = np.sqrt(np.bincount(part, value.astype(np.float64) ** 2, 2 * rows))
    return row, place, (value / np.maximum(length[part], 1e-9)).astype(np.float32)


@dataclass(frozen=True)
class Sparse:
    """Texts as weighed features: a scipy.sparse matrix (rows, features), and their classes (rows,)."""

    matrix: Any
    target: Array

    def of_class(self, kind: int) -> Sparse:
        """That class against the rest."""
        return Sparse(self.matrix, (self.target == kind).astype(np.int64))


def portions(texts: Iterable[bytes | memoryview]) -> Iterator[list[bytes]]:
    """The texts, some PORTION_BYTES at a time."""
    part: list[bytes] = []
    size = 0
    for text in texts:
        part.append(bytes(text))
        size += len(text)
        if size >= PORTION_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def vocabulary(counted: Sequence[Counts], texts: int, classes: int) -> tuple[Array, Array]:
    """(features, ascending; their inverse document frequencies) that a model of these texts is to know."""
    features, frequency = np.empty(0, np.int64), np.empty(0, np.int64)
    for _, feature, _ in counted:
        found, times = np.unique(feature, return_counts=True)
        features, place = np.unique(np.concatenate([features, found]), return_inverse=True)
        frequency = np.bincount(place, np.concatenate([frequency, times]), len(features)).astype(np.int64)
    kept = frequency >= (2 if texts > FEW_TEXTS else 1)
    features, frequency = features[kept], frequency[kept]
    most = min(MOST_FEATURES, max(1, MOST_WEIGHTS // classes))
    if len(features) > most:
        chosen = np.sort(np.argsort(-frequency, kind="stable")[:most])
        features, frequency = features[chosen], frequency[chosen]
    return features, (np.log((1 + texts) / (1 + frequency)) + 1).astype(np.float32)


def sparse(counted: Sequence[Counts], sizes: Sequence[int], features: Array, rarity: Array) -> Any:
    """A scipy.sparse matrix of the portions, of which each has so many texts."""
    from scipy.sparse import csr_matrix, vstack

    parts = []
    for part, rows in zip(counted, sizes, strict=True):
        row, place, value = weighed(part, rows, features, rarity)
        ends = np.searchsorted(row, np.arange(rows + 1))
        parts.append(csr_matrix((value, place.astype(np.int32), ends), shape=(rows, len(features))))
    return vstack(parts, format="csr")


def fit(data: Sparse, strength: float, weight: Tensor, bias: Tensor, go_on: Callable[[], bool]) -> bool:
    """Sets weight (features, classes) and bias (classes,) to machines of this C, a margin for each class.

    go_on: asked after each class; False ends the fit, of which nothing is of use then: False
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    kinds = np.unique(data.target)
    weight.zero_()
    bias.fill_(NEVER)
    # One plane between two classes: half for the one, half against the other.
    for kind in kinds[1:] if len(kinds) == 2 else kinds:
        machine = LinearSVC(C=strength, random_state=0, max_iter=PASSES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            machine.fit(data.matrix, data.target == kind)
        found, offset = torch.from_numpy(machine.coef_[0]).float(), float(machine.intercept_[0])
        if len(kinds) == 2:
            found, offset = found / 2, offset / 2
            weight[:, kinds[0]], bias[kinds[0]] = -found, -offset
        weight[:, kind], bias[kind] = found, offset
        if not go_on():
            return False
    return True
