"""What a text classifier has to beat, fitted by scikit-learn on the same texts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer_image.tasks import metrics
from trainer_image.tasks.base import Figures

MOST_BYTES, LONGEST = 8 * 1024**2, 4096
Array = np.ndarray[Any, Any]


def baselines(x: Sequence[bytes], y: Array, test_x: Sequence[bytes], test_y: Array, classes: int) -> dict[str, Figures]:
    """Most frequent class, and a linear model by stochastic gradient descent on hashed character n-grams.

    At most MOST_BYTES of training text, evenly spaced, are fitted on; of a text its first LONGEST bytes count.
    """
    labels = torch.from_numpy(test_y)
    frequencies = torch.from_numpy(np.bincount(y, minlength=classes) / len(y)).expand(len(test_y), classes)
    step = -(-sum(min(len(text), LONGEST) for text in x) // MOST_BYTES) or 1
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
        ).fit([text.decode(errors="replace") for text in x[::step]], y[::step])
    linear = np.zeros((len(test_y), classes))
    linear[:, model.classes_] = model.predict_proba([text.decode(errors="replace") for text in test_x])
    return {
        "trivial": metrics.classification(frequencies, labels),
        "linear": metrics.classification(torch.from_numpy(linear), labels),
    }
