"""What a text classifier has to beat, fitted by scikit-learn on the same texts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer_image.data.text_store import Bytes
from trainer_image.tasks import metrics
from trainer_image.tasks.base import Figures

MOST_BYTES, LONGEST = 8 * 1024**2, 4096
Array = np.ndarray[Any, Any]


def step(sizes: Array) -> int:
    """Every how manieth text of these sizes a baseline sees."""
    return -(-int(np.minimum(sizes, LONGEST).sum()) // MOST_BYTES) or 1


def baselines(x: Sequence[Bytes], y: Array, test_x: Sequence[Bytes], test_y: Array, classes: int) -> dict[str, Figures]:
    """Most frequent class, and a linear model by stochastic gradient descent on hashed character n-grams.

    At most MOST_BYTES of training text, evenly spaced, are fitted on, and the linear model is tested on as many of test
    text; of a text its first LONGEST bytes count.
    """
    labels = torch.from_numpy(test_y)
    frequencies = torch.from_numpy(np.bincount(y, minlength=classes) / len(y)).expand(len(test_y), classes)
    every, tested = (step(np.array([len(text) for text in texts])) for texts in (x, test_x))
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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
        ).fit(_decoded(x[::every]), y[::every])
    linear = np.zeros((len(test_y[::tested]), classes))
    linear[:, model.classes_] = model.predict_proba(_decoded(test_x[::tested]))
    return {
        "trivial": metrics.classification(frequencies, labels),
        "linear": metrics.classification(torch.from_numpy(linear), labels[::tested]),
    }


def _decoded(texts: Sequence[Bytes]) -> list[str]:
    return [bytes(text).decode(errors="replace") for text in texts]
