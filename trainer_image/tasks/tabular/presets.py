"""How large a table's network is and how it is trained: by the number of training rows, and by measured steps.

Written down before any gate was scored, and never by data set. Members that share their weights and AdamW follow TabM
(arXiv 2410.24210). With waves of few columns the learning rate is high and the schedule short: at a quarter of it the
network hardly leaves the linear model that it begins as. Rates, waves and sizes were chosen on tables that no benchmark
scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer_image.tasks.base import NetworkSize, Recipe
from trainer_image.tasks.tabular.network import TabularSizes

SMALL_ROWS = 5_000
# Up to so many rows it is worth a second training to learn from the validation rows, too.
REFITTED_ROWS = 20_000
# Of few rows an epoch is so few steps that more epochs are needed.
STEPS, LEAST_EPOCHS = 500, 24
# Waves of more measured columns are more noise than they are bends.
MOST_WAVED = 12
WAVES = 8
CERTAIN = 0.4


@dataclass(frozen=True)
class Network:
    """A size that `auto` may choose, and what it makes of the network."""

    size: NetworkSize
    sizes: TabularSizes


def networks(name: str, rows: int, numbers: int) -> Sequence[Network]:
    """What preset "fast", "auto" or "best" offers for so many training rows and measured inputs, smallest first."""
    small, few = rows <= SMALL_ROWS, numbers <= MOST_WAVED
    # Steps teach more than rows do; without waves each of them may be surer.
    batch = min(1024, max(32, 1 << max(0, (rows // (24 if few and name != "fast" else 12)).bit_length() - 1)))
    if name == "fast":
        recipe = Recipe(epochs=40, batch_size=batch, learning_rate=3e-3, weight_decay=1e-2, patience=10, small=small)
        return [_network("fast", recipe, TabularSizes(members=8, width=64, depth=2, dropout=0.1))]
    slow = Recipe(
        epochs=80 if small else 60,
        batch_size=batch,
        learning_rate=2e-3,
        weight_decay=3e-2,
        patience=20,
        ema_decay=0.98,
        refit=rows <= REFITTED_ROWS,
        small=small,
    )
    epochs = min(slow.epochs, max(LEAST_EPOCHS, STEPS * batch // rows))
    quick = replace(slow, epochs=epochs, learning_rate=1e-2, weight_decay=1e-2, patience=16)
    usual = replace(quick, epochs=3 * epochs // 2, learning_rate=5e-3) if few else slow
    waves = WAVES if few else 0
    offered = [
        _network("small", quick, TabularSizes(members=8, width=64, depth=2, dropout=0.1, waves=waves)),
        _network("medium", usual, TabularSizes(members=16, width=128, depth=2, dropout=0.15, waves=waves)),
        _network("large", slow, TabularSizes(members=16, width=256, depth=3, dropout=0.1, waves=waves)),
    ]
    if small:
        # Without waves the network is nearly linear, and better so, the slower it learns.
        offered = offered[:2] if few else offered[1:2]
    return offered if name == "auto" else offered[-1:]


def _network(name: str, recipe: Recipe, sizes: TabularSizes) -> Network:
    """The time has to last for its whole schedule, else a smaller one is better. What is certain before candidates are
    fitted is a part of it: they mostly need less than they may."""
    return Network(NetworkSize(name, recipe, CERTAIN * recipe.epochs), sizes)
