"""One column's rows as they are looked at, batch by batch, and what is said about them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from trainer_image.data.formats.numbers import Notation, numbers
from trainer_image.data.table import Table
from trainer_image.tasks.tabular import texts
from trainer_image.tasks.tabular.column_stats import Values
from trainer_image.tasks.tabular.columns import Ints
from trainer_image.tasks.tabular.findings import Findings
from trainer_image.tasks.tabular.texts import Array

SAMPLE_ROWS = 1_000_000


class ColumnRows:
    """A column of the table; `rows`, ascending, are those to train on, with their labels (rows,).

    findings: gets the sentences; step: every how many rows are sampled
    """

    def __init__(self, table: Table, name: str, rows: Ints, findings: Findings, labels: Array) -> None:
        self.table, self.name, self.rows, self.findings, self.labels = table, name, rows, findings, labels
        self.step = -(-len(rows) // SAMPLE_ROWS)

    def read(self, notation: Notation) -> Values:
        read = Values()
        for start, cells, chosen in self.cells():
            read.add(start, cells, chosen, *numbers(cells, notation), self.step)
        return read

    def cells(self, *, written: bool = False) -> Iterator[tuple[int, pa.Array, Ints]]:
        """Batch by batch: index of the first row, all cells, and which of them are of training rows.

        written: as `Table.batches`
        """
        for start, cells in self.table.cells(self.name, written=written):
            first, last = np.searchsorted(self.rows, [start, start + len(cells)])
            yield start, cells, self.rows[first:last] - start

    def sample(self) -> tuple[pa.Array, Array]:
        """Evenly spaced training rows' cells and labels, few enough to look for words in them."""
        step = -(-len(self.rows) // texts.SAMPLE_ROWS)
        wanted = self.rows[::step]
        parts = []
        for start, cells in self.table.cells(self.name):
            first, last = np.searchsorted(wanted, [start, start + len(cells)])
            parts.append(cells.take(pa.array(wanted[first:last] - start)))
        return pa.concat_arrays(parts), self.labels[::step]

    def cells_without(self, read: Values, kind: str) -> None:
        if read.marked:
            verb = "says" if read.marked == 1 else "say"
            self.note(
                f"holds {self.cells_of(read.marked, f'{verb} that there is no value', read.first_marked)}",
                "holds cells that say that there is no value; they are treated as missing",
            )
        if read.bad:
            verb = "is" if read.bad == 1 else "are"
            self.warn(
                f"holds {self.cells_of(read.bad, f'{verb} no {kind}', read.first_bad)}",
                f"holds some cells that are no {kind}; they are treated as missing",
            )

    def cells_of(self, count: int, what: str, first: int) -> str:
        file, row = self.table.locate(first)
        cell = str(self.table.cell(self.name, first))[:40]
        if count == 1:
            return f"1 cell that {what}, in {file}, row {row}: '{cell}'; it is treated as missing"
        return f"{count} cells that {what}, the first in {file}, row {row}: '{cell}'; they are treated as missing"

    def note(self, what: str, kind: str = "") -> None:
        self.findings.note(self.name, what, kind)

    def warn(self, what: str, kind: str = "") -> None:
        self.findings.warn(self.name, what, kind)
