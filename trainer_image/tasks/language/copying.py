"""What n-grams cannot hold: what has stood before in the same document, and long passages of the training text.

A text repeats itself, and others: behind the same few bytes often comes what came there the last time. How often is
counted on validation documents, for each *state*: how many of a document's matches (windows.py) there are, the shortest
first, and how long the passage of the training text is that ends here. In each state the model's chances are a mean of
the n-grams' and of the tokens that matches and passage suggest, whose shares expectation maximization finds (Jelinek
and Mercer 1980; static shares by the length of a match in place of the adaptive ones of the lpaq compressors).

The longest passage is sought in the text's places sorted by what stands before each, nearest byte first: a suffix array
(Manber and Myers 1993) of the reversed text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.data.text_store import Bytes
from trainer_image.tasks.language import kneser_ney
from trainer_image.tasks.language.kneser_ney import Array, KneserNey, Order
from trainer_image.tasks.language.windows import MARK, VOCABULARY, find_matches, stream

# Lengths from which a passage counts as longer. Shorter ones the n-grams know.
LENGTHS = (5, 7, 9, 12, 16, 24, 32)
# Passages are compared up to 32 bytes, eight in a number.
WORD, WORDS = 8, 4
# Bytes of validation text by which shares are found, and how often.
MOST_ASKED, ROUNDS = 2**17, 40
# What is taken to have been seen in each state beforehand, in positions: the n-grams were right once.
BEFORE, BEFORE_COPIES = 1.0, 0.02


class Passages(nn.Module):
    """A text in which the longest passages are found that end as a context does."""

    def __init__(self, size: int) -> None:
        """size: tokens of the text"""
        super().__init__()
        self.text: Tensor
        self.places: Tensor
        self.words: Tensor
        self.register_buffer("text", torch.zeros(size, dtype=torch.int16))
        # Those that a token follows.
        self.register_buffer("places", torch.zeros(size - 1, dtype=torch.int32))
        self.register_buffer("words", torch.zeros(size, dtype=torch.int64), persistent=False)
        self.register_load_state_dict_post_hook(Passages._look_at)  # type: ignore[no-untyped-call]

    def _look_at(self, keys: object) -> None:
        """Raises ValueError for a stranger's tensors that point beyond their text."""
        last = len(self.text) - 1
        within = (self.places >= 0) & (self.places < last)
        if not within.all() or not ((self.text >= 0) & (self.text < VOCABULARY)).all():
            raise ValueError("its passages point beyond their text")
        self.words.copy_(words(self.text[None])[0])

    def fill(self, tokens: Array) -> None:
        self.text.copy_(torch.from_numpy(tokens))
        self.words.copy_(words(self.text[None])[0])
        keys = before(self.words[None])[0, :-1].numpy()
        self.places.copy_(torch.from_numpy(np.lexsort([keys[:, word] for word in reversed(range(WORDS))])))

    def find(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """contexts (n, WORDS), as `before` makes them → the token that followed the longest passage, and its length in
        bytes, int64 (n,)."""
        low = torch.zeros(len(contexts), dtype=torch.int64, device=contexts.device)
        high = torch.full_like(low, len(self.places))
        for _ in range(len(self.places).bit_length()):
            middle = (low + high) // 2
            smaller = (low < high) & _smaller(self._before(middle), contexts)
            low, high = torch.where(smaller, middle + 1, low), torch.where(smaller, high, middle)
        # Here it would be inserted: the longest is on one side or the other.
        sides = [(low - 1).clamp(min=0), low.clamp(max=len(self.places) - 1)]
        lengths = torch.stack([_alike(self._before(side), contexts) for side in sides])
        longest, which = lengths.max(0)
        place = self.places[torch.where(which == 0, *sides)].long()
        return self.text[place + 1].long(), longest

    def _before(self, at: Tensor) -> Tensor:
        """(n, WORDS): what stands before these of the sorted places (n,), clamped to them."""
        place = self.places[at.clamp(max=len(self.places) - 1)].long()[:, None]
        place = place - torch.arange(0, WORD * WORDS, WORD, device=place.device)
        return torch.where(place >= 0, self.words[place.clamp(min=0)], 0)


def words(tokens: Tensor) -> Tensor:
    """(rows, length) → int64 of this shape: the eight bytes that end at each token, the nearest in the highest bits. A
    MARK, and what stands before a row, count as 0."""
    padded = functional.pad(tokens.long() & 255, (WORD - 1, 0))
    found = torch.zeros_like(tokens, dtype=torch.int64)
    for back in range(WORD):
        first = WORD - 1 - back
        found |= padded[:, first : first + tokens.shape[1]] << (WORD * (WORD - 1 - back))
    return found


def before(found: Tensor) -> Tensor:
    """(rows, length) of `words` → (rows, length, WORDS): what stands before, nearest first."""
    length = found.shape[1]
    return torch.stack([functional.pad(found, (WORD * word, 0))[:, :length] for word in range(WORDS)], -1)


def _smaller(left: Tensor, right: Tensor) -> Tensor:
    """Which of the rows (n, WORDS) come before those of the other, compared from the first word on."""
    smaller, equal = left[:, 0] < right[:, 0], left[:, 0] == right[:, 0]
    for word in range(1, WORDS):
        smaller = smaller | (equal & (left[:, word] < right[:, word]))
        equal = equal & (left[:, word] == right[:, word])
    return smaller


def _alike(left: Tensor, right: Tensor) -> Tensor:
    """How many bytes of each row (n, WORDS) are the other's, from the nearest on."""
    differ = (left ^ right)[:, :, None] >> torch.arange(WORD * (WORD - 1), -1, -WORD, device=left.device)
    return (differ & 255 == 0).flatten(1).long().cumprod(1).sum(1)


class Copying(nn.Module):
    """n-grams, and what is copied: tokens (rows, length) int64, matches (rows, length, orders) int64, places (n,) →
    logarithms of probabilities (n, VOCABULARY) of what follows these positions, counted from the first row on."""

    def __init__(self, ngrams: KneserNey, shares: Sequence[Sequence[float]], passages: Passages | None) -> None:
        """shares: of each state, see `fitted`"""
        super().__init__()
        self.ngrams, self.passages = ngrams, passages
        self.shares: Tensor
        self.register_buffer("shares", torch.tensor(shares, dtype=torch.float32), persistent=False)

    def forward(self, tokens: Tensor, matches: Tensor, places: Tensor) -> Tensor:
        found = suggested = matches.flatten(0, 1).index_select(0, places)
        length = None
        if self.passages is not None:
            contexts = before(words(tokens)).flatten(0, 1).index_select(0, places)
            token, length = self.passages.find(contexts)
            suggested = torch.cat([found, token[:, None]], 1)
        shares = self.shares[state(found, length)]
        chance: Tensor = self.ngrams(tokens, places).exp_().mul_(shares[:, :1])
        return chance.scatter_add_(1, suggested, shares[:, 1:]).clamp_(min=1e-12).log_()


def state(matches: Tensor, length: Tensor | None) -> Tensor:
    """(n,): of positions with these matches (n, orders), and passages of these lengths (n,) where they are sought.

    A match of many bytes is one of fewer bytes, too: counting them tells which there are.
    """
    found = (matches != MARK).sum(1)
    if length is None:
        return found
    return found * (len(LENGTHS) + 1) + torch.bucketize(length, torch.tensor(LENGTHS, device=length.device), right=True)


def known(orders: int, passages: bool) -> Array:
    """(states, 1 + suggestions): what says anything in each state."""
    levels = len(LENGTHS) + 1 if passages else 1
    numbers = np.arange((orders + 1) * levels)
    copied = numbers[:, None] // levels > np.arange(orders)
    found = [np.ones((len(numbers), 1), bool), copied]
    return np.concatenate([*found, (numbers % levels > 0)[:, None]] if passages else found, 1)


def fitted(
    orders: Sequence[Order], passages: Passages, validation: Sequence[Bytes], sought: Sequence[int]
) -> tuple[list[list[float]], bool]:
    """Shares (states, 1 + suggestions) that predict the validation documents best beside these n-grams, and whether
    passages are worth their memory.

    sought: orders of the matches that there will be, ascending
    """
    following, chance = kneser_ney.chances(orders, validation)
    tokens, starts = stream(validation)
    matches = torch.from_numpy(find_matches(tokens, starts, sought)).long()
    row = torch.from_numpy(tokens)[None, :-1]
    token, length = passages.find(before(words(row))[0])
    counted = following != MARK
    found = []
    for suggested, long in ((matches, None), (torch.cat([matches, token[:, None]], 1), length)):
        right = (suggested == torch.from_numpy(following)[:, None]).numpy()
        chances = np.concatenate([chance[:, None], right], 1)[counted]
        found.append(_shares(chances, state(matches, long).numpy()[counted], known(len(sought), long is not None)))
    (alone, bits), (together, fewer) = found
    worth = fewer < bits - kneser_ney.WORTH
    return (together if worth else alone).round(6).tolist(), worth


def _shares(chances: Array, states: Array, possible: Array) -> tuple[Array, float]:
    """Of each state and source, and the bits a token that they come to; chances: (n, sources) of the true token."""
    already = np.where(possible, BEFORE_COPIES, 0.0)
    already[:, 0] = BEFORE
    shares = possible / possible.sum(1, keepdims=True)
    for _ in range(ROUNDS):
        part = chances * shares[states]
        part /= part.sum(1, keepdims=True)
        mass = already + np.stack([np.bincount(states, column, len(shares)) for column in part.T], 1)
        shares = mass / mass.sum(1, keepdims=True)
    return shares, float(-np.log2((chances * shares[states]).sum(1)).mean())
