"""The candidate of language models, n-grams (kneser_ney.py) with copying, and how it and the network predict
together."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer_image.data.text_store import Bytes
from trainer_image.tasks.base import Share, restored
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.language import copying, kneser_ney, ngrams
from trainer_image.tasks.language.copying import Copying, Passages
from trainer_image.tasks.language.kneser_ney import KneserNey
from trainer_image.tasks.language.windows import stream
from trainer_image.units import format_bytes

# Bytes counted for each second of the allowance: half of what one core counted, contexts of all lengths together
# (7.5 MB of source text in 29 s).
BYTES_A_SECOND = 130_000
Shapes = Annotated[
    tuple[tuple[Annotated[int, Field(ge=1, le=2**26)], Annotated[int, Field(ge=1, le=2**28)]], ...],
    Field(min_length=1, max_length=kneser_ney.MOST_ORDER + 1),
]
Shares = Annotated[
    tuple[Annotated[tuple[Share, ...], Field(max_length=66)], ...], Field(max_length=65 * (len(copying.LENGTHS) + 1))
]
Tokens = Annotated[int, Field(ge=2, le=2**26)]


class NgramCandidate(Candidate):
    name: ClassVar[str] = "n-grams"

    def __init__(self, documents: Mapping[str, Sequence[Bytes]], sought: Sequence[int]) -> None:
        """documents: of each split; sought: orders of a batch's matches"""
        self._documents, self._sought = documents, sought

    def fit(
        self, fit_on: Sequence[str], allowance: Allowance, chosen: dict[str, Any] | None
    ) -> tuple[nn.Module, dict[str, Any]] | None:
        begun = time.monotonic()
        # While the order is chosen, the other half is for what is asked of the model afterwards.
        seconds = allowance.seconds / 2 if chosen is None else allowance.seconds

        def go_on() -> bool:
            allowance.beat()
            return not allowance.stop.is_set() and time.monotonic() - begun < seconds

        train = [text for split in fit_on for text in self._documents[split]]
        size = sum(map(len, train))
        most = min(kneser_ney.MOST_BYTES, int(BYTES_A_SECOND * allowance.seconds))
        if chosen is not None:
            most = int(chosen["bytes"])
        self.note = "" if size <= most else f"counted on {format_bytes(most)} of the text, in evenly spaced documents"
        train = ngrams.sample(train, most)
        validation = ngrams.sample(self._documents["validation"], most) if chosen is None else None
        order = kneser_ney.MOST_ORDER if chosen is None else int(chosen["order"])
        orders = kneser_ney.counted(train, validation, order, go_on) if train and go_on() else []
        # Once more with shorter contexts than validation chose would be a worse model.
        if not orders or (chosen is not None and len(orders) <= order) or allowance.stop.is_set():
            self.note = "the time budget is too short to count n-grams"
            return None
        order = len(orders) - 1
        orders = kneser_ney.pruned(orders)
        shapes = [(len(order.contexts), len(order.following)) for order in orders]
        model = KneserNey(shapes)
        for table, found in zip(model.orders, orders, strict=True):
            assert isinstance(table, kneser_ney.OrderTable)
            table.fill(found)
        passages = None
        if chosen is None or chosen["passages"]:
            tokens, _ = stream(train)
            passages = Passages(len(tokens))
            passages.fill(tokens)
        if chosen is None:
            assert passages is not None
            asked = ngrams.sample(self._documents["validation"], min(copying.MOST_ASKED, most // 4))
            shares, worth = copying.fitted(orders, passages, asked, self._sought)
            passages = passages if worth else None
        else:
            shares = chosen["shares"]
        if passages is not None:
            held = f"it holds {format_bytes(len(passages.text))} of the training text, word for word"
            self.note = f"{self.note}; {held}" if self.note else held
        return Copying(model, shares, passages), {
            "order": order,
            "bytes": most,
            "shapes": [list(shape) for shape in shapes],
            "passages": 0 if passages is None else len(passages.text),
            "shares": shares,
        }


def build(chosen: Mapping[str, Any], matches: int) -> nn.Module:
    """The empty module; raises ValueError for what no fit returns. matches: how many orders a batch's have"""
    ngrams = KneserNey(restored(Shapes, chosen.get("shapes")))
    if "shares" not in chosen:  # of a model before 0.2
        return ngrams
    shares = restored(Shares, chosen["shares"])
    size = 0 if chosen.get("passages") == 0 else restored(Tokens, chosen.get("passages"))
    wanted = copying.known(matches, size > 0).shape
    if np.shape(shares) != wanted:
        raise ValueError(f"its shares are not {wanted[0]} rows of {wanted[1]}")
    return Copying(ngrams, shares, Passages(size) if size else None)


class Mixture(nn.Module):
    """Several models of one text as one: the weighted mean of their probabilities, as logarithms."""

    def __init__(self, models: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.weights = tuple(weights)

    def forward(self, tokens: Tensor, matches: Tensor, places: Tensor) -> Tensor:
        logs = [
            predicted(model, tokens, matches, places) + math.log(weight)
            for model, weight in zip(self.models, self.weights, strict=True)
        ]
        return torch.stack(logs).logsumexp(0)


def predicted(model: nn.Module, tokens: Tensor, matches: Tensor, places: Tensor) -> Tensor:
    """(n, VOCABULARY): logarithms of the probabilities of what follows the places (n,), which are counted from the
    first of the rows on, by a model of any kind."""
    if isinstance(model, Mixture | Copying):
        logs: Tensor = model(tokens, matches, places)
    elif isinstance(model, KneserNey):
        logs = model(tokens, places)
    else:
        logs = model(tokens, matches).flatten(0, 1).index_select(0, places).float().log_softmax(-1)
    return logs


def blended(outputs: Sequence[Tensor], weights: Sequence[float], first: int) -> Tensor:
    """Outputs of a language model of which the columns from `first` on are logarithms of the true bytes' chances."""
    heaviest = max(range(len(weights)), key=lambda number: weights[number])
    logs = torch.stack([each[:, first:] + math.log(w) for each, w in zip(outputs, weights, strict=True)]).logsumexp(0)
    found = outputs[heaviest].clone()
    found[:, first:] = logs
    found[:, 2] = -logs.sum(1)
    return found
