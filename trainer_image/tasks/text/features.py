"""Bytes of texts → hashed n-grams with their weights, on whatever device the batch lies.

Features are byte n-grams, and words and pairs of words, each kind hashed into buckets of its own (arXiv 1607.01759, and
0902.2206 for hashing). A bucket counts 1 + log(occurrences), times its inverse document frequency: the weighting under
which linear models on n-grams are strong (Salton and Buckley 1988, as `sublinear_tf` in scikit-learn). The weights of
the n-grams have length 1 in a text, those of the words WORDS_LENGTH.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Odd, so that it has an inverse modulo 2^64: hashes of any stretch come from prefix sums.
_BASE = 0x5851F42D4C957F2D
_MIX = 0x2545F4914F6CDD1D
ORDERS = (1, 2, 3, 4, 5)
# First fold of the development chunks, linear start alone, 2^18 buckets: accuracy 0.740 with 0.5, 0.732 with 1.
WORDS_LENGTH = 0.5


def _signed(value: int) -> int:
    """The two's complement of 64 bits."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def powers(length: int) -> tuple[Tensor, Tensor]:
    """(length + 1) int64 powers of the base and of its inverse, modulo 2^64."""
    inverse = pow(_BASE, -1, 2**64)
    up, down = [1], [1]
    for _ in range(length):
        up.append(up[-1] * _BASE & (2**64 - 1))
        down.append(down[-1] * inverse & (2**64 - 1))
    return torch.tensor([_signed(v) for v in up]), torch.tensor([_signed(v) for v in down])


def word_bytes() -> Tensor:
    """Which bytes belong to words, bool (256): letters, digits, the underscore, and all beyond ASCII."""
    return torch.tensor([chr(b).isalnum() or b == 0x5F if b < 128 else True for b in range(256)])


def buckets_of(texts: Tensor, lengths: Tensor, up: Tensor, down: Tensor, is_word: Tensor, count: int) -> Tensor:
    """uint8 (rows, length), lengths (rows,) → (rows, features) int64: buckets below `count`, -1 where there is none."""
    length, first_word = texts.shape[1], word_buckets(count)
    at = torch.arange(length, device=texts.device)
    inside = at < lengths[:, None]
    values = (texts.long() + 1) * inside
    prefix = functional.pad((values * up[:length]).cumsum(1), (1, 0))
    found = []
    for order in ORDERS:
        if order > length:
            continue
        stretch = (prefix[:, order:] - prefix[:, :-order]) * down[: length + 1 - order]
        found.append(torch.where(inside[:, order - 1 :], _bucket(stretch, order, first_word), -1))
    word = is_word[texts.long()] & inside
    starts = torch.where(word, -1, at).cummax(1).values + 1  # where the word at this position begins
    ends = word & ~functional.pad(word, (0, 1))[:, 1:]
    hashed = (prefix[:, 1:] - prefix.gather(1, starts.clamp(max=length))) * down[starts.clamp(max=length)]
    found.append(torch.where(ends, first_word + _bucket(hashed, 101, count - first_word), -1))
    # The end of the word before: the last end before this word's start.
    last_end = functional.pad(torch.where(ends, at, -1).cummax(1).values, (1, 0), value=-1)
    before = last_end.gather(1, starts.clamp(max=length))
    pair = hashed * _MIX + hashed.gather(1, before.clamp(min=0))
    found.append(torch.where(ends & (before >= 0), first_word + _bucket(pair, 102, count - first_word), -1))
    return torch.cat(found, 1)


def word_buckets(count: int) -> int:
    """The first of the `count` buckets that belongs to words: the last quarter does."""
    return count - count // 4


def _bucket(hashed: Tensor, salt: int, count: int) -> Tensor:
    mixed = (hashed + salt * 0x9E3779B9) * _MIX
    mixed = mixed ^ (mixed >> 29)
    return ((mixed * _MIX) >> 33) % count


def bags(buckets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, features) buckets, and weights (count,) of buckets → each row's buckets sorted and what each weighs there:
    a repeated one in its first place only, the others 0; a row's n-grams have length 1, its words WORDS_LENGTH."""
    ordered = buckets.sort(1).values
    width = ordered.shape[1]
    at = torch.arange(width, device=ordered.device)
    new = functional.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)
    # Where the next run begins, seen from each place: the smallest such place to its right.
    following = torch.where(functional.pad(new, (0, 1), value=True)[:, 1:], at + 1, width)
    run_end = following.flip(1).cummin(1).values.flip(1)
    occurrences = (run_end - at).float()
    index = ordered.clamp(min=0)
    value = torch.where(new & (ordered >= 0), (1 + occurrences.log()) * weights[index], 0.0)
    words = ordered >= word_buckets(len(weights))
    lengths = [(value * kind).norm(dim=1, keepdim=True).clamp(min=1e-6) for kind in (words, ~words)]
    return index, value * torch.where(words, WORDS_LENGTH / lengths[0], 1 / lengths[1])
