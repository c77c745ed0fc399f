"""An n-gram model of bytes: interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999), counted by sorting.

The longest contexts have the counts of what followed them, shorter ones how many different bytes stood before: a byte
that only ever follows one other says little after a third. Discounts follow from the counts (their equation 26).

Tokens are those of windows.py; before a document's MARK stand MARKs. A context is its hash, of 54 bits: of the
millions that fit into memory hardly two are one. With the token behind it, it is a *pair*, one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer_image.data.text_store import Bytes
from trainer_image.tasks.language.windows import MARK, VOCABULARY, stream

Array = np.ndarray[Any, Any]
MOST_ORDER = 12
# Counting takes some 150 bytes of memory for a byte.
MOST_BYTES = 8 * 1024**2
# Contexts that a model may have: at rest each takes 16 bytes, and each pair 6; there are about twice as many pairs. Of
# 7.5 MB of source text, with 8.6 million contexts, 1.7 million were left, 48 MB, for 0.012 bits a byte.
MOST_CONTEXTS = 2**21
# Contexts up to this length are few: they are kept whatever their counts.
KEPT_ORDER = 3
# Bits a byte that a longer context has to bring, for which a model is twice as large.
WORTH = 0.004
TOKEN_BITS = 9
# Positions whose distributions are computed at a time: 4 MiB of them. Contexts up to SHARED tokens have their
# distribution computed once for all of these.
PORTION, SHARED = 4096, 2
_BASE = 0x5851F42D4C957F2D
_MIX = 0x2545F4914F6CDD1D


@dataclass(frozen=True)
class Order:
    """What is known of contexts of one length.

    contexts: (n,) ascending hashes; ends: (n + 1,) the stretch of each among the pairs; following, chance: of each pair
    the token and its discounted probability; backoff: (n,) the share of the shorter context's distribution; seen: (n,)
    the counts of each, which a model has no need of
    """

    contexts: Array
    ends: Array
    following: Array
    chance: Array
    backoff: Array
    seen: Array

    def kept(self, which: Array) -> Order:
        """The contexts where `which` (n,) is True."""
        sizes = np.diff(self.ends)
        pairs = np.repeat(which, sizes)
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[which])])
        following, chance = self.following[pairs], self.chance[pairs]
        return Order(self.contexts[which], ends, following, chance, self.backoff[which], self.seen[which])


class Text:
    """Documents with the hash of what stands before each token, of one length after another."""

    def __init__(self, documents: Sequence[Bytes]) -> None:
        tokens, starts = stream(documents)
        self._tokens = tokens.astype(np.int64)
        count = len(tokens) - 1
        self._start = np.repeat(starts, np.diff(np.append(starts, count)))
        self.following = self._tokens[1:]
        self._hash = np.zeros(count, np.uint64)
        self._length = 0

    def longer(self) -> None:
        """The contexts become longer by a token."""
        at = np.maximum(np.arange(len(self._hash)) - self._length, self._start)
        self._length += 1
        factor = np.uint64(pow(_BASE, self._length, 2**64))
        self._hash += (self._tokens[at] + 1).astype(np.uint64) * factor

    def contexts(self) -> Array:
        mixed = (self._hash ^ (self._hash >> np.uint64(31))) * np.uint64(_MIX)
        return (mixed >> np.uint64(1 + TOKEN_BITS)).astype(np.int64)

    def pairs(self) -> Array:
        return (self.contexts() << TOKEN_BITS) | self.following


def order_of(pairs: Array, counts: Array) -> Order:
    """Discounted probabilities; pairs: ascending, all different; counts: of each."""
    contexts, first = np.unique(pairs >> TOKEN_BITS, return_index=True)
    ends = np.append(first, len(pairs))
    total = np.add.reduceat(counts, first).astype(np.float64)
    discount = _discounts(counts)[np.minimum(counts, 3)]
    return Order(
        contexts,
        ends,
        (pairs & (1 << TOKEN_BITS) - 1).astype(np.int16),
        ((counts - discount) / np.repeat(total, np.diff(ends))).astype(np.float32),
        (np.add.reduceat(discount, first) / total).astype(np.float32),
        total,
    )


def _discounts(counts: Array) -> Array:
    """(4,): taken off a count of 0, 1, 2, and 3 or more."""
    n1, n2, n3, n4 = (float(n) for n in np.bincount(np.minimum(counts, 5), minlength=6)[1:5])
    if not (n1 and n2):
        return np.array([0, 0.75, 0.75, 0.75])
    y = n1 / (n1 + 2 * n2)
    found = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3 if n3 else 1.5]
    return np.clip(found, [0, 0.01, 0.01, 0.01], [0, 0.95, 1.5, 2.0])  # of few counts it may be anything


def refined(order: Order, pairs: Array, shorter: Array) -> Array:
    """Probabilities of the tokens of these pairs, from those that the shorter contexts gave."""
    context = pairs >> TOKEN_BITS
    place = np.minimum(np.searchsorted(order.contexts, context), len(order.contexts) - 1)
    known = order.contexts[place] == context
    owner = np.repeat(np.arange(len(order.contexts)), np.diff(order.ends))
    all_pairs = (order.contexts[owner] << TOKEN_BITS) | order.following
    at = np.minimum(np.searchsorted(all_pairs, pairs), len(all_pairs) - 1)
    chance = np.where(all_pairs[at] == pairs, order.chance[at], 0.0)
    return np.where(known, chance + order.backoff[place] * shorter, shorter)


def chances(orders: Sequence[Order], documents: Sequence[Bytes]) -> tuple[Array, Array]:
    """(the tokens that follow each position of these documents, the probabilities of these tokens)"""
    text = Text(documents)
    chance = np.full(len(text.following), 1 / VOCABULARY)
    for order in orders:
        chance = refined(order, text.pairs(), chance)
        text.longer()
    return text.following, chance


def counted(
    train: Sequence[Bytes], validation: Sequence[Bytes] | None, most: int, go_on: Callable[[], bool]
) -> list[Order]:
    """What is known of contexts of 0, 1, … tokens: as far as each longer one is worth its memory on the validation
    documents, or, without them, up to `most`. go_on: asked before each longer one."""
    text = Text(train)
    asked = Text(validation) if validation is not None else None
    chance = np.full(len(asked.following), 1 / VOCABULARY) if asked else np.empty(0)
    best, shorter = math.inf, list[Order]()
    before: Order | None = None
    unique, _, place, counts = _unique(text.pairs())
    for length in range(most + 1):
        longest = order_of(unique, counts)
        if asked:
            bits = float(-np.log2(refined(longest, asked.pairs(), chance)[asked.following != MARK]).mean())
            if before and bits > best - WORTH:
                return [*shorter[:-1], before]
            best = bits
        if length == most or not go_on():
            break
        text.longer()
        more, first, more_place, more_counts = _unique(text.pairs())
        # How many different tokens stood before each pair: the longer pairs that end in it.
        shorter.append(order_of(unique, np.bincount(place[first], minlength=len(unique))))
        if asked:
            chance = refined(shorter[-1], asked.pairs(), chance)
            asked.longer()
        before, unique, place, counts = longest, more, more_place, more_counts
    return [*shorter, longest]


def _unique(pairs: Array) -> tuple[Array, Array, Array, Array]:
    """The pairs, ascending and once each; where each first is, which of them each is, and how often it is there."""
    unique, first, place, counts = np.unique(pairs, return_index=True, return_inverse=True, return_counts=True)
    return unique, first, place.astype(np.int32), counts


def pruned(orders: Sequence[Order]) -> list[Order]:
    """Without the longer contexts that were seen least, so that MOST_CONTEXTS are left at most (about): what was after
    them is then told by shorter ones."""
    least = 1
    while sum(len(order.contexts) for order in orders) > MOST_CONTEXTS and least < 2**40:
        least *= 2
        orders = [*orders[: KEPT_ORDER + 1], *(order.kept(order.seen >= least) for order in orders[KEPT_ORDER + 1 :])]
    return [order for order in orders if len(order.contexts)]


class OrderTable(nn.Module):
    """An `Order` as tensors."""

    def __init__(self, contexts: int, pairs: int) -> None:
        super().__init__()
        for name, size, kind in (
            ("contexts", contexts, torch.int64),
            ("ends", contexts + 1, torch.int32),
            ("following", pairs, torch.int16),
            ("chance", pairs, torch.float32),
            ("backoff", contexts, torch.float32),
        ):
            self.register_buffer(name, torch.zeros(size, dtype=kind))
        self.register_load_state_dict_post_hook(OrderTable._look_at)  # type: ignore[no-untyped-call]

    def _look_at(self, keys: object) -> None:
        """Raises ValueError for a stranger's tensors by which one context would have more pairs than there are."""
        ends, following = self.get_buffer("ends"), self.get_buffer("following")
        sizes = ends.diff()
        if (
            int(ends[0])
            or int(ends[-1]) != len(following)
            or not ((sizes >= 0) & (sizes <= VOCABULARY)).all()
            or not ((following >= 0) & (following < VOCABULARY)).all()
        ):
            raise ValueError("its n-grams point beyond their tables")

    def fill(self, order: Order) -> None:
        for name, tensor in self.named_buffers():
            tensor.copy_(torch.from_numpy(getattr(order, name)))

    def find(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """(positions among these contexts (n,) that are known; where each of those is in the tables)"""
        sought: Tensor = self.get_buffer("contexts")
        place = torch.searchsorted(sought, contexts).clamp(max=len(sought) - 1)
        known = (sought[place] == contexts).nonzero().flatten()
        return known, place[known]

    def pairs(self, known: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of contexts at these places in the tables, one after another: (whose, of `known`; token; probability) of each
        pair."""
        first, end = self.get_buffer("ends")[place].long(), self.get_buffer("ends")[place + 1].long()
        sizes = end - first
        before = sizes.cumsum(0) - sizes
        pair = torch.arange(int(sizes.sum()), device=place.device) + torch.repeat_interleave(first - before, sizes)
        row = torch.repeat_interleave(known, sizes)
        return row, self.get_buffer("following")[pair].long(), self.get_buffer("chance")[pair]

    def refine(self, contexts: Tensor, chance: Tensor) -> None:
        """Turns the distributions (n, VOCABULARY) that shorter contexts gave into those after these contexts (n,)."""
        known, place = self.find(contexts)
        chance[known] *= self.get_buffer("backoff")[place][:, None]
        _add(chance, *self.pairs(known, place))


class KneserNey(nn.Module):
    """tokens (rows, length) int64, places (n,) → logarithms of probabilities (n, VOCABULARY) of what follows these
    positions, which are counted from the first row on."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        """shapes: contexts and pairs of each order."""
        super().__init__()
        self.orders = nn.ModuleList(OrderTable(*shape) for shape in shapes)
        # The device of the module, for who asks; nothing is trained.
        self.base = nn.Parameter(torch.full((VOCABULARY,), 1 / VOCABULARY), requires_grad=False)

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        contexts = self._contexts(tokens, places)
        found = self.base.new_empty(len(places), VOCABULARY)
        portions = (torch.split(each, PORTION) for each in (found, *contexts))
        for logs, *part in zip(*portions, strict=True):
            torch.log(self._chances(part).clamp_(min=1e-12), out=logs)
        return found

    def _contexts(self, tokens: Tensor, places: Tensor) -> list[Tensor]:
        """The hashes (n,) of what stands before, of one length after another."""
        padded = tokens + 1
        hashed = torch.zeros_like(tokens)
        contexts = []
        for size in range(len(self.orders)):
            here = hashed.flatten().index_select(0, places)
            contexts.append(_shifted((here ^ _shifted(here, 31)) * _MIX, 1 + TOKEN_BITS))
            hashed = hashed + padded * _signed(pow(_BASE, size + 1, 2**64))
            # Before the window's first token, a MARK where it begins a document, stands the same again.
            padded = torch.cat([padded[:, :1], padded[:, :-1]], 1)
        return contexts

    def _chances(self, contexts: Sequence[Tensor]) -> Tensor:
        """(n, VOCABULARY); contexts: (n,) of each length. What a short context is followed by is much, and the same
        wherever it stands: computed once. A long one's is little, and only that is touched."""
        orders = list(self.orders)
        chance, owner = self.base[None].clone(), torch.zeros_like(contexts[0])
        for order, context in zip(orders[: SHARED + 1], contexts, strict=False):
            assert isinstance(order, OrderTable)
            kinds, place = torch.unique(context, return_inverse=True)
            # The shorter context of each kind, by any position that has it: all have the same.
            chance = chance.index_select(0, torch.zeros_like(kinds).scatter_(0, place, owner))
            order.refine(kinds, chance)
            owner = place
        added = []
        factor = self.base.new_ones(len(owner))
        for order, context in zip(orders[:SHARED:-1], contexts[:SHARED:-1], strict=True):
            assert isinstance(order, OrderTable)
            known, place = order.find(context)
            row, token, found = order.pairs(known, place)
            added.append((row, token, found * factor[row]))
            factor[known] *= order.get_buffer("backoff")[place]
        chance = chance.index_select(0, owner).mul_(factor[:, None])
        for row, token, found in added:
            _add(chance, row, token, found)
        return chance


def _add(chance: Tensor, row: Tensor, token: Tensor, found: Tensor) -> None:
    """Adds to places of a table (n, VOCABULARY), none of them twice."""
    chance.view(-1).index_add_(0, row * VOCABULARY + token, found)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted to the right as if without a sign."""
    return (values >> bits) & ((1 << 64 - bits) - 1)
