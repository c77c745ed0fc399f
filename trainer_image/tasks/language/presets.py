"""How large a language model is and how it is trained, from the bytes of training text alone.

The kinds of layers and AdamW with a cosine are the GPT recipe (arXiv 2005.14165; sizes as in its table 2.1 where the
text is large). Width, rows a batch and the n-gram table's learning rate (NGRAM_RATE) were compared on one development
text, each after 180 seconds of one CPU core; everything else, and everything larger, is plausible but not tuned.
"""

from __future__ import annotations

from trainer_image.tasks.base import Recipe
from trainer_image.tasks.language.network import MOST_CONTEXT, LanguageSizes

SMALL_BYTES = 32 * 1024**2
MEDIUM_BYTES = 512 * 1024**2
# Finding matches takes half an hour a gigabyte, and six bytes a byte; long contexts learn to copy without.
MOST_MATCHED_BYTES = 1024**3
ORDERS = (2, 3, 4, 5, 6, 8)
MATCHES = (5, 8, 16)


def preset(name: str, size: int) -> tuple[LanguageSizes, Recipe]:
    """(sizes, recipe) of preset "fast", "auto" or "best" for this many bytes of training text."""
    step = {"fast": 0, "auto": 1, "best": 2}[name]
    if size > SMALL_BYTES:
        step += 1 if size <= MEDIUM_BYTES else 2
    context, width, depth, heads, rows = [
        (256, 96, 1, 2, 16),
        (256, 128, 2, 2, 16),
        (512, 384, 6, 6, 32),
        (MOST_CONTEXT, 512, 8, 8, 64),
        (MOST_CONTEXT, 768, 12, 12, 128),
    ][step]
    # Buckets: one for every hundred bytes or so, a power of two.
    buckets = min(2**20, max(2**12, 1 << (max(1, size // 96).bit_length() - 1)))
    sizes = LanguageSizes(
        context=context,
        width=width,
        depth=depth,
        heads=heads,
        orders=ORDERS,
        buckets=buckets,
        hashed=24,
        matches=MATCHES if size <= MOST_MATCHED_BYTES else (),
        dropout=0.1 if step > 1 and size <= SMALL_BYTES else 0.0,
    )
    batch = max(2, min(rows, size // (context * 8)))
    # A small text is seen up to 30 times, unless validation stops it earlier; 60 MB are read at most by small ones.
    epochs = max(2, min(30, 60_000_000 // max(1, size)))
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch,
        learning_rate=3e-3 if step < 2 else 1e-3 if step == 2 else 6e-4,
        weight_decay=0.1,
        warmup=0.03,
        patience=3,
        small=step == 0 and size <= 2**20,
    )
    return sizes, recipe
