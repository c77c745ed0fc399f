"""How large a text classifier is and how it is trained: by the number of training texts and their length alone.

Few texts begin as a linear model on the same n-grams (linear.py) and are trained one slow pass further, so that a
warm start learns, too: a support vector machine on these n-grams had an accuracy of 0.739 where a bag of 32 dimensions
that began at random had 0.721 (`benchmarks.quality_texts`). Many texts are trained by fastText's recipe (arXiv
1607.01759): few dimensions, a high learning rate, few epochs. Rates, epochs and preset `best` were not compared.
"""

from __future__ import annotations

from trainer_image.tasks.base import Recipe
from trainer_image.tasks.text.network import MOST_BYTES, TextSizes

LONGEST = {"fast": 1024, "auto": 2048, "best": MOST_BYTES}
SMALL_TEXTS = 20_000
# Up to here a number for each class and bucket is worth its memory, and a linear model is quickly fitted.
FEW_CLASSES = 64


def preset(name: str, texts: int, longest: int, classes: int) -> tuple[TextSizes, Recipe]:
    """(sizes, recipe) for this many training texts in this many classes, the longest of them `longest` bytes."""
    small = texts <= SMALL_TEXTS
    linear = small and classes <= FEW_CLASSES
    # Of the linear model on all n-grams 440,000 buckets of 2^20 were used by 6200 texts of eight lines.
    buckets = 2**20 if linear else 2**19
    sizes = TextSizes(
        longest=max(8, min(LONGEST[name], longest)),
        buckets=buckets // 8 if name == "fast" else buckets,
        width=0 if linear else 64,
        filters=128 if name == "best" else 0,
        dropout=0.1,
    )
    batch = min(256, max(8, 1 << max(0, (texts // 40).bit_length() - 1)))
    recipe = Recipe(
        epochs={"fast": 1, "auto": 1, "best": 10}[name] if linear else {"fast": 5, "auto": 8, "best": 12}[name],
        batch_size=batch,
        learning_rate=1e-3 if linear else 1e-2,
        patience=4,
        refit=name != "fast" and small,
        small=texts <= 2000,
    )
    return sizes, recipe
