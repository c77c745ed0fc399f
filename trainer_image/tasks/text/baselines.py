"""What a text classifier has to beat, fitted by scikit-learn on the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer_image.data.text_store import Bytes
from trainer_image.tasks.base import Figures
from trainer_image.tasks.baselines import linear_classes, most_frequent
from trainer_image.tasks.tensors import one_of

MOST_BYTES, LONGEST = 8 * 1024**2, 4096
# For a second of the time budget. A core takes some five seconds for a mebibyte: a third of the budget, at most.
BYTES_A_SECOND = 64 * 1024
Array = np.ndarray[Any, Any]


def most_bytes(time_budget: float) -> int:
    """Of a split that a training of so many seconds shows its baseline."""
    return int(min(MOST_BYTES, BYTES_A_SECOND * max(1.0, time_budget)))


def step(sizes: Array, most: int) -> int:
    """A baseline sees one of n texts of these sizes; this is n."""
    return -(-int(np.minimum(sizes, LONGEST).sum()) // most) or 1


def baselines(
    x: Sequence[Bytes], y: Array, test_x: Sequence[Bytes], test_y: Array, classes: int, most: int = MOST_BYTES
) -> dict[str, Figures]:
    """Most frequent class, and a linear model by stochastic gradient descent on hashed character n-grams.

    most: bytes of training text, evenly spaced, that are fitted on, and of test text that the linear model is tested
    on; of a text its first LONGEST bytes count
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    sizes = (np.array([len(text) for text in texts]) for texts in (x, test_x))
    fitted, tested = (one_of(step(given, most), len(given)) for given in sizes)
    model = make_pipeline(
        HashingVectorizer(
            preprocessor=lambda text: text[:LONGEST].lower(),
            analyzer="char",
            ngram_range=(1, 4),
            n_features=2**18,
            alternate_sign=False,
            norm=None,
        ),
        TfidfTransformer(sublinear_tf=True),
        SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=20, random_state=0),
    )
    seen, asked = _decoded([x[row] for row in fitted]), _decoded([test_x[row] for row in tested])
    return {
        "trivial": most_frequent(y, test_y, classes),
        "linear": linear_classes(model, seen, y[fitted], [asked], test_y[tested], classes),
    }


def _decoded(texts: Sequence[Bytes]) -> list[str]:
    return [bytes(text).decode(errors="replace") for text in texts]
