"""The linear model on words and character n-grams (grams.py): logistic regression, its strength chosen on validation.

A feature counts 1 + log(occurrences), times its inverse document frequency; words and characters have length 1 each in
a text (scikit-learn's `sublinear_tf`; Salton and Buckley 1988). The objective is scikit-learn's LogisticRegression:
C times the summed log loss and half the squared weights, here without a library at prediction time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer_image.tasks.text import grams

Array = np.ndarray[Any, Any]
# Numbers that a model may have at most, 32 MiB of them, and features: what is seen in more texts is kept.
MOST_WEIGHTS, MOST_FEATURES = 2**23, 2**20
# Of more text, evenly spaced rows are fitted on: some 100 bytes of memory are needed for a byte.
MOST_BYTES = 12 * 1024**2
PORTION_BYTES = 1024**2
# A feature of one text says nothing of other texts, where there are enough of them.
FEW_TEXTS = 300
# Tried upwards from the first on, and, where the second is no better, downwards.
STRENGTHS, WEAKER = (3.0, 10.0, 30.0, 100.0, 300.0), (1.0, 0.3)
# A fit ends where the last LOOKED_BACK iterations together brought less than this share of the objective.
ITERATIONS, TOLERANCE, LOOKED_BACK, HISTORY = 60, 2e-3, 4, 5
TEMPERATURES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)


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


def weighed(counted: tuple[Array, Array, Array], rows: int, features: Array, rarity: Array) -> tuple[Array, ...]:
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


def portions(texts: Sequence[bytes | memoryview]) -> Iterator[list[bytes]]:
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


def vocabulary(counted: Sequence[tuple[Array, Array, Array]], texts: int, classes: int) -> tuple[Array, Array]:
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


def sparse(counted: Sequence[tuple[Array, Array, Array]], sizes: Sequence[int], features: Array, rarity: Array) -> Any:
    """A scipy.sparse matrix of the portions, of which each has so many texts."""
    from scipy.sparse import csr_matrix, vstack

    parts = []
    for part, rows in zip(counted, sizes, strict=True):
        row, place, value = weighed(part, rows, features, rarity)
        ends = np.searchsorted(row, np.arange(rows + 1))
        parts.append(csr_matrix((value, place.astype(np.int32), ends), shape=(rows, len(features))))
    return vstack(parts, format="csr")


def fit(data: Sparse, strength: float, weight: Tensor, bias: Tensor, go_on: Callable[[float], bool]) -> bool:
    """Moves weight (features, classes) and bias (classes,) to the optimum for this C, by L-BFGS (Liu and Nocedal 1989).

    go_on: asked after each iteration with the objective; False ends the fit, which is then not at the optimum: False
    """
    matrix, target = data.matrix, torch.from_numpy(data.target)
    transposed = matrix.T.tocsr()
    decay = 1 / (strength * len(target))
    one_hot = torch.nn.functional.one_hot(target, len(bias)).float()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=1, max_eval=20, history_size=HISTORY, line_search_fn="strong_wolfe"
    )

    def objective() -> float:
        logits = torch.from_numpy(matrix @ weight.detach().numpy()) + bias.detach()
        logs = logits.log_softmax(1)
        slope = (logs.exp() - one_hot) / len(target)
        weight.grad = torch.from_numpy(transposed @ slope.numpy()).add_(weight.detach(), alpha=decay)
        bias.grad = slope.sum(0)
        return float(-(logs * one_hot).sum() / len(target) + decay / 2 * weight.detach().square().sum())

    objectives: list[float] = []
    for _ in range(ITERATIONS):
        objectives.append(float(optimizer.step(objective)))  # type: ignore[no-untyped-call]
        if not go_on(objectives[-1]):
            return False
        # Of several iterations: one alone may be a short step of the line search.
        if (
            len(objectives) > LOOKED_BACK
            and objectives[-1 - LOOKED_BACK] - objectives[-1] <= TOLERANCE * objectives[-1]
        ):
            break
    return True
