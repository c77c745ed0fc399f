"""Decision trees as tensors, and torch alone to evaluate them: what boosted trees and forests are at rest.

A tree's inputs are what the network sees, with two differences. A number that is missing is NaN, and each split says to
which side such a row goes. A column of three and more categories has further inputs: what the target was in training
rows of the category, and, where it has no input for each category, the category's place by frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer_image.tasks.base import Size
from trainer_image.tasks.calibration import LEAST
from trainer_image.tasks.tabular.columns import Preprocessing
from trainer_image.tasks.tabular.target import ValueTarget

MOST_DEPTH = 64
# Places in trees (rows times trees) that are followed at a time.
_AT_ONCE = 2**21
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TreeShape:
    """How many trees and nodes there are, and steps from a root at most; values: of a leaf.

    Trees times values are a multiple of the target's outputs.
    """

    trees: Size
    nodes: Size
    depth: Annotated[int, Field(ge=0, le=MOST_DEPTH)]
    values: Size = 1


@dataclass(frozen=True)
class Trees:
    """The nodes of all trees, each array (nodes,); a leaf is its own child on both sides, and alone has a value.

    A row goes left where its feature is below the threshold. roots (trees,): tree t adds to output t modulo the number
    of outputs; where leaves have a value for each output, value (nodes, outputs), it adds to all of them.
    """

    roots: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    value: Array
    depth: int

    @classmethod
    def joined(cls, ensembles: Sequence[Trees]) -> Trees:
        """The mean of several."""
        starts = np.cumsum([0, *(len(each.feature) for each in ensembles)])
        moved = list(zip(ensembles, starts, strict=False))
        return cls(
            roots=np.concatenate([each.roots + start for each, start in moved]),
            feature=np.concatenate([each.feature for each in ensembles]),
            threshold=np.concatenate([each.threshold for each in ensembles]),
            left=np.concatenate([each.left + start for each, start in moved]),
            right=np.concatenate([each.right + start for each, start in moved]),
            missing_left=np.concatenate([each.missing_left for each in ensembles]),
            value=np.concatenate([each.value for each in ensembles]) / len(ensembles),
            depth=max(each.depth for each in ensembles),
        )

    @property
    def shape(self) -> TreeShape:
        return TreeShape(len(self.roots), len(self.feature), self.depth, *self.value.shape[1:])


class TreeInputs(nn.Module):
    """dense (rows, dense_width) and codes (rows, embedded columns) → what trees split by, (rows, width)."""

    def __init__(self, columns: Preprocessing, statistics: int) -> None:
        super().__init__()
        # Which inputs of `dense` say that another one is missing.
        self.missing: list[tuple[int, int]] = []
        at = 0
        for column in columns.measured:
            if column.indicator:
                self.missing.append((at, at + 1))
            at += column.width
        # Where in `dense` the categories of a column stand, the first and how many.
        self.hot: list[tuple[int, int]] = []
        for category in columns.categories:
            if not category.embedded:
                if len(category.categories) >= 3:
                    self.hot.append((at, len(category.categories)))
                at += len(category.categories)
        # Of each column with statistics: its categories, and at 0 the unknown.
        self.counts = [*(count + 1 for _, count in self.hot), *columns.cardinalities]
        self.statistics = nn.ParameterList(
            nn.Parameter(torch.zeros(count, statistics), requires_grad=False) for count in self.counts
        )
        self.width = columns.dense_width + len(columns.cardinalities) + statistics * len(self.counts)

    def categories(self, dense: Tensor, codes: Tensor) -> Tensor:
        """The category of each column with statistics: int64 (rows, columns), below its count."""
        shown = [dense[:, at : at + count] for at, count in self.hot]
        known = [(each.argmax(1) + 1) * (each > 0).any(1) for each in shown]
        return torch.cat([*(each.unsqueeze(1) for each in known), codes], dim=1)

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        found = self.categories(dense, codes)
        return self.of(dense, codes, [table[found[:, number]] for number, table in enumerate(self.statistics)])

    def of(self, dense: Tensor, codes: Tensor, means: Sequence[Tensor]) -> Tensor:
        """The same with each column's statistics (rows, statistics) given, not looked up."""
        dense = dense.clone()
        for value, indicator in self.missing:
            dense[:, value].masked_fill_(dense[:, indicator] > 0, torch.nan)
        return torch.cat([dense, codes.float(), *means], dim=1)


class TreeEnsemble(nn.Module):
    """dense and codes → (rows, 1, outputs): what the trees add up to, from `base` on.

    two: there are two classes and one output, the log odds of the second; the first one's is zero
    chances: the sums are the classes' probabilities, of which the logarithms are wanted
    log: of what target they are the logarithms of values, in its unit; None: they are what the network learns
    """

    roots: Tensor
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    missing_left: Tensor
    value: Tensor
    base: Tensor

    def __init__(
        self,
        columns: Preprocessing,
        outputs: int,
        statistics: int,
        shape: TreeShape,
        *,
        two: bool = False,
        chances: bool = False,
        log: ValueTarget | None = None,
    ) -> None:
        super().__init__()
        if shape.trees * shape.values % outputs:
            raise ValueError(f"{shape.trees} trees of {shape.values} values for {outputs} outputs")
        self.inputs = TreeInputs(columns, statistics)
        self.shape, self.outputs, self.two, self.chances, self.log = shape, outputs, two, chances, log
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(shape.nodes, dtype=torch.int32))
        self.register_buffer("roots", torch.zeros(shape.trees, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(shape.nodes))
        self.register_buffer("missing_left", torch.zeros(shape.nodes, dtype=torch.bool))
        self.register_buffer("value", torch.zeros((shape.nodes, shape.values) if shape.values > 1 else shape.nodes))
        self.register_buffer("base", torch.zeros(outputs))
        self.register_load_state_dict_post_hook(_check)  # type: ignore[no-untyped-call]

    def fill(self, trees: Trees, base: Array, statistics: Sequence[Array]) -> None:
        """Takes over what was fitted. base: (outputs,); statistics: (count, statistics) of each column."""
        filled = {
            f"inputs.statistics.{number}": torch.from_numpy(table.astype(np.float32))
            for number, table in enumerate(statistics)
        }
        for name in ("roots", "feature", "threshold", "left", "right", "missing_left", "value"):
            filled[name] = torch.from_numpy(getattr(trees, name))
        self.load_state_dict({**filled, "base": torch.from_numpy(base.astype(np.float32))})

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        x = self.inputs(dense, codes)
        portion = max(1, _AT_ONCE // max(len(self.roots) * self.shape.values, x.shape[1]))
        children = torch.stack([self.right, self.left], dim=1).flatten()
        parts = [self._sums(part, children) for part in x.split(portion)] if len(x) else []
        sums = torch.cat(parts) if parts else x.new_zeros(0, self.outputs)
        if self.two:
            sums = torch.cat([torch.zeros_like(sums), sums], dim=1)
        if self.chances:
            sums = sums.clamp_min(LEAST).log()
        if self.log is not None:
            sums = ((sums.double().exp() - self.log.centre) / self.log.spread).float()
        return sums.unsqueeze(1)

    def _sums(self, x: Tensor, children: Tensor) -> Tensor:
        """(rows, outputs). As many steps as the deepest tree has: whoever has arrived at a leaf stays there.

        children: of each node the right one and the left one, int32. By flat indices: they take a third of the time.
        """
        cells, lacking = x.flatten(), bool(x.isnan().any())
        first = torch.arange(0, x.numel(), x.shape[1], dtype=torch.int32, device=x.device).repeat_interleave(
            len(self.roots)
        )
        nodes = self.roots.repeat(len(x))
        for _ in range(self.shape.depth):
            values = cells.index_select(0, self.feature.index_select(0, nodes) + first)
            goes_left = values < self.threshold.index_select(0, nodes)
            if lacking:
                goes_left |= values.isnan() & self.missing_left.index_select(0, nodes)
            nodes = children.index_select(0, 2 * nodes + goes_left)
        # In double precision, so that the order of hundreds of small terms does not matter.
        added = self.value.index_select(0, nodes).double().view(len(x), -1, self.outputs).sum(1)
        return (added + self.base).float()


def _check(module: nn.Module, _: object) -> None:
    """Raises ValueError where a tensor, which may be a stranger's, points outside of what is there."""
    assert isinstance(module, TreeEnsemble)
    nodes = module.shape.nodes
    for name, bound in (("roots", nodes), ("left", nodes), ("right", nodes), ("feature", module.inputs.width)):
        tensor = getattr(module, name)
        if not tensor.is_meta and not bool(((tensor >= 0) & (tensor < bound)).all()):
            raise ValueError(f"the trees' tensor '{name}' points beyond {bound}")
