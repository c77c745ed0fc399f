"""Which figure tells the truth about classes of very different size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# From here on a constant answer looks good by accuracy.
LARGEST_SHARE = 0.8


def figure(labels: np.ndarray[Any, Any], names: Sequence[str], subject: str) -> tuple[str | None, list[str]]:
    """The figure to judge by instead of accuracy, None where accuracy will do, and the note that says so.

    labels: (rows,) positions in `names`, of the training rows; subject: what the note calls the labels
    """
    counts = np.bincount(labels, minlength=len(names))
    share = float(counts.max() / max(1, counts.sum()))
    if share < LARGEST_SHARE:
        return None, []
    chosen = "balanced_accuracy" if len(names) == 2 else "macro_f1"
    return chosen, [
        f"{subject} are imbalanced: {share:.1%} of the training rows are '{names[int(counts.argmax())]}', and as "
        f"accurate is an answer that is always the same. The model is chosen and judged by {chosen.replace('_', ' ')} "
        "instead (train.metric decides otherwise)."
    ]
