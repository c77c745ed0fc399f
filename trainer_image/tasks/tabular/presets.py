"""How large a table's network is and how it is trained, from the number of training rows alone.

Written down before any gate was scored, and never by data set. Widths, k = 32 members, AdamW and patience 16 follow
TabM's defaults (arXiv 2410.24210, appendix on implementation details); less of everything for small tables, where a
step costs mostly overhead and an ensemble of 32 wide members gains nothing measurable. Averaged weights, the linear
start and the unclipped linear part were kept because they helped on the benchmark's development sets.
"""

from __future__ import annotations

from trainer_image.tasks.base import Recipe
from trainer_image.tasks.tabular.network import TabularSizes

SMALL_ROWS = 5_000
MEDIUM_ROWS = 50_000


def preset(name: str, rows: int) -> tuple[TabularSizes, Recipe]:
    """(sizes, recipe) of preset "fast", "auto" or "best" for this many training rows."""
    small = rows <= SMALL_ROWS
    batch = min(1024, max(32, 1 << max(0, (rows // 12).bit_length() - 1)))
    if name == "fast":
        sizes = TabularSizes(members=8, width=64, depth=2, dropout=0.1)
        return sizes, Recipe(
            epochs=40, batch_size=batch, learning_rate=3e-3, weight_decay=1e-2, patience=10, small=small
        )
    if small:
        sizes = TabularSizes(members=32 if name == "best" else 16, width=128, depth=2, dropout=0.15)
        recipe = Recipe(
            epochs=120 if name == "best" else 80,
            batch_size=batch,
            learning_rate=2e-3,
            weight_decay=3e-2,
            patience=20,
            ema_decay=0.98,
            refit=True,
            small=True,
        )
        return sizes, recipe
    medium = rows <= MEDIUM_ROWS
    width = (256 if medium else 384) + (128 if name == "best" else 0)
    sizes = TabularSizes(members=32 if name == "best" else 16, width=width, depth=2 if medium else 3, dropout=0.1)
    epochs = (100 if medium else 60) if name == "best" else (60 if medium else 30)
    return sizes, Recipe(epochs=epochs, batch_size=batch, learning_rate=2e-3, weight_decay=1e-2)
