"""How large a language model is and how it is trained, from the bytes of training text alone; preset "auto" offers
several sizes, of which the engine takes the largest that the device and the time budget give enough passes.

The kinds of layers and the cosine are the GPT recipe (arXiv 2005.14165; sizes as in its table 2.1 where the
text is large). Width, rows a batch and the n-gram table's learning rate (NGRAM_RATE) were compared on one development
text, each after 180 seconds of one CPU core; everything else, and everything larger, is plausible but not tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer_image.tasks.base import NetworkSize, Recipe
from trainer_image.tasks.language.network import MOST_CONTEXT, LanguageSizes

# Times AdamW's rate, what rows of the blocks' matrices change by (`Muon`). Of 350 KB of sources the smallest network
# came in 40 s of one core to 1.54 bits a byte, with AdamW alone to 1.76; in 100 s to 1.53 and 1.63. Half as fast, 1.56.
MUON_RATE = 7.0
SMALL_BYTES = 32 * 1024**2
MEDIUM_BYTES = 512 * 1024**2
# Finding matches takes half an hour a gigabyte, and six bytes a byte; long contexts learn to copy without.
MOST_MATCHED_BYTES = 1024**3
ORDERS = (2, 3, 4, 5, 6, 8)
MATCHES = (5, 8, 16)
# Sought for the n-grams beside these, in texts that are soon searched: with them a network came less far in its time.
FURTHER = (2, 3, 4, 24)


@dataclass(frozen=True)
class Shape:
    """width, depth, heads: of the network; rows: a batch; rate: its learning rate; seen: bytes, counted each time that
    they are read, with which it is better than the next smaller one; text: bytes of training text that it is for."""

    name: str
    width: int
    depth: int
    heads: int
    rows: int
    rate: float
    seen: int = 0
    text: int = 0


SHAPES = (
    Shape("tiny", 96, 1, 2, 16, 3e-3),
    Shape("small", 128, 2, 2, 16, 3e-3, 1_500_000),
    Shape("medium", 256, 4, 4, 32, 2e-3, 16_000_000, 1_000_000),
    Shape("large", 384, 6, 6, 32, 1e-3, 100_000_000, 8_000_000),
    Shape("very large", 512, 8, 8, 64, 6e-4, 1_000_000_000, 64_000_000),
    Shape("largest", 768, 12, 12, 128, 6e-4, 4_000_000_000, 256_000_000),
)


@dataclass(frozen=True)
class Network:
    """One network that may be trained."""

    sizes: LanguageSizes
    size: NetworkSize


def networks(name: str, size: int) -> Sequence[Network]:
    """Those of preset "fast", "auto" or "best" for this many bytes of training text, the smallest first; all see
    windows of the same length."""
    larger = 0 if size <= SMALL_BYTES else 1 if size <= MEDIUM_BYTES else 2
    context = (256, 512, MOST_CONTEXT)[larger]
    if name == "auto":
        return [_network(shape, size, context) for shape in SHAPES if size >= shape.text]
    if name == "best":
        return [_network(SHAPES[3 + larger], size, min(MOST_CONTEXT, 2 * context))]
    return [_network(SHAPES[(0, 1, 3)[larger]], size, context)]


def usual(offered: Sequence[Network]) -> Network:
    """What a problem has until the engine has measured: the second smallest."""
    return offered[min(1, len(offered) - 1)]


def _network(shape: Shape, size: int, context: int) -> Network:
    # Buckets: one for every hundred bytes or so, a power of two.
    buckets = min(2**20, max(2**12, 1 << (max(1, size // 96).bit_length() - 1)))
    sizes = LanguageSizes(
        context=context,
        width=shape.width,
        depth=shape.depth,
        heads=shape.heads,
        orders=ORDERS,
        buckets=buckets,
        hashed=24,
        matches=MATCHES if size <= MOST_MATCHED_BYTES else (),
        dropout=0.1 if shape.depth > 2 and size <= SMALL_BYTES else 0.0,
        further=FURTHER if size <= SMALL_BYTES else (),
    )
    recipe = Recipe(
        # A small text is seen up to 30 times, unless validation stops it earlier; 60 MB are read at most by small ones.
        epochs=max(2, min(30, max(60_000_000, 2 * shape.seen) // max(1, size))),
        batch_size=max(2, min(shape.rows, size // (context * 8))),
        learning_rate=shape.rate,
        weight_decay=0.1,
        warmup=0.03,
        patience=3,
        small=shape.depth == 1 and size <= 2**20,
    )
    return Network(sizes, NetworkSize(shape.name, recipe, shape.seen / max(1, size)))
