"""One column's rows as they are looked at, batch by batch, and what is said about them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.formats.cells import NULL_WORDS
from trainer_image.data.formats.numbers import Notation, marked, numbers
from trainer_image.data.table import Table
from trainer_image.tasks.tabular import categories, texts
from trainer_image.tasks.tabular.column_stats import Values, outcast
from trainer_image.tasks.tabular.columns import Ints
from trainer_image.tasks.tabular.dates import CALENDAR, EPOCH_DAYS, EPOCHS, EXCEL, days, look_like_dates
from trainer_image.tasks.tabular.findings import Findings
from trainer_image.tasks.tabular.notation import STRAY_SHARE
from trainer_image.tasks.tabular.texts import Array
from trainer_image.tasks.tensors import evenly

SAMPLE_ROWS = 1_000_000
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# What a value looks like that was measured.
_MEASURE = r"^[^\p{L}\p{N}]{0,2}\d.{0,18}$"
# Numbers that look like dates and do not by chance; and from which share on dates among words are told as such.
LEAST_DATES, MOST_DATES = 10, 0.5
MANY_UNITS = 20
# Names that say that a count of days or seconds is a time.
_DATE_NAME = re.compile(r"(?i)date(?<!update)(?<!candidate)(?<!mandate)(?<!validate)(s|time)?([\W\d_]|$)")
_TIME_NAME = re.compile(r"(?i)time|date|stamp|epoch|created|updated|modified|(^|_)(ts|at|on|when)$")


def of_many(clause: str) -> str:
    """What is said of a column, without the cell that it names and what is its own: to be said of many at once."""
    told, _, advice = clause.partition("; ")
    return "; ".join([re.split(r"[:,] ", told)[0], *([advice.partition(", or say")[0]] if advice else [])])


def measure(cells: pa.Array, share: float = 1 - STRAY_SHARE) -> str:
    """The first cell where this share of them looks like something that was measured, "" otherwise."""
    there = cells.drop_null()
    measures = pc.match_substring_regex(there, _MEASURE)
    if not len(there) or pc.mean(pc.cast(measures, pa.float64())).as_py() < share:
        return ""
    return str(there.filter(measures)[0]).strip()[:40]


def few_units(cells: pa.Array) -> bool:
    """Whether cells that look like something that was measured have few things beside their numbers, as units are, and
    no words to learn from."""
    rest = pc.replace_substring_regex(pc.utf8_lower(cells.drop_null()), r"[\p{N}\p{P}\s]+", "")
    return len(pc.unique(rest)) <= MANY_UNITS


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
        some = evenly(len(self.rows), texts.SAMPLE_ROWS)
        wanted = self.rows[some]
        parts = []
        for start, cells in self.table.cells(self.name):
            first, last = np.searchsorted(wanted, [start, start + len(cells)])
            parts.append(cells.take(pa.array(wanted[first:last] - start)))
        return pa.concat_arrays(parts), self.labels[some]

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

    def outcast(self, read: Values, known: Mapping[float, str], shown: Callable[[float], str]) -> None:
        """Warns of a value that seems to stand for none."""
        if found := outcast(read.sample, known):
            value, share, low, high = found
            self.warn(
                f"holds {known.get(value) or shown(value)} in {share:.1%} of its training rows, far from all others"
                f" ({shown(low)} to {shown(high)}): should it say that there is no value, leave these cells empty",
                "holds a value again and again that lies far from all others; should it say that there is none, leave"
                " these cells empty",
            )

    def without_null_words(self, counts: Counter[str]) -> int:
        """Takes words for "no value" from the counts but for those that are values here, which is said."""
        words = [word for word in counts if word.lower() in NULL_WORDS]
        values = [word for word in words if categories.is_value(word, counts)]
        for word in words:
            if word not in values:
                del counts[word]
        others = [other for other, _ in counts.most_common(len(values) + 2) if other not in values]
        for word in values:
            like = " and ".join(f"'{other[:40]}'" for other in others[:2])
            self.note(
                f"holds '{word}' in {counts[word]} training cells, which is a value here, like {like}, and not missing;"
                " where there is no value, leave the cell empty",
                f"holds '{word}', which is a value there and not missing",
            )
        return len(words) - len(values)

    def why_an_id(self, read: Values) -> tuple[str, str]:
        """What is to be said of a column of different values that are no numbers, and of several such columns."""
        id_like = "has a different value in nearly every row, like an id"
        if 2 * read.bad < read.all_filled:
            return self._mixed(read), "mixes numbers and text"
        if like := measure(self.sample()[0]):
            several = len(_NUMBER.findall(like)) > 1
            bring = "each of its numbers as a column of its own" if several else "it as one number"
            return f"{id_like} (should '{like}' be a measure, bring {bring})", id_like
        return id_like, id_like

    def _mixed(self, read: Values) -> str:
        file, row = self.table.locate(read.first_bad)
        cell = str(self.table.cell(self.name, read.first_bad))[:40]
        share = f"{read.all_filled - read.bad - read.marked} of its {read.all_filled} values are numbers"
        return f"mixes numbers and text: {share}, {file}, row {row} holds '{cell}'"

    def mixture(self, read: Values) -> None:
        sentence = f"{self._mixed(read)}; read as categories"
        kind = "mixes numbers and text; read as categories"
        (self.warn if 2 * read.bad < read.all_filled else self.note)(sentence, kind)

    def date_in_numbers(self, read: Values) -> str | None:
        """The form of dates that are written as one number, where chance would not make them."""
        if read.bad or read.finite < LEAST_DATES or read.low == read.high:
            return None
        if _TIME_NAME.search(self.name):
            forms = [
                form
                for form, day in EPOCHS.items()
                if EPOCH_DAYS[0] * day <= read.low <= read.high < EPOCH_DAYS[1] * day
            ]
            if _DATE_NAME.search(self.name) and read.whole and not self._bad_days(EXCEL):
                forms.append(EXCEL)
            if forms:
                return forms[0]
        forms = [form for form, (low, high) in CALENDAR.items() if read.whole and low <= read.low <= read.high <= high]
        return next((form for form in forms if not self._bad_days(form)), None)

    def _bad_days(self, form: str) -> bool:
        return any(days(cells, form)[1].any() for _, cells in self.table.cells(self.name))

    def unread_dates(self, read: Values) -> str:
        """A clause about dates that are not all written in one form that is known, or that stand among words; "" where
        there are none."""
        count, first, other = 0, -1, -1
        for start, cells, _ in self.cells():
            seen = look_like_dates(cells)
            none = pc.or_(cells.is_null(), marked(cells).fill_null(False)).to_numpy(zero_copy_only=False)
            word = ~seen & ~none
            first = start + int(seen.argmax()) if first < 0 and seen.any() else first
            other = start + int(word.argmax()) if other < 0 and word.any() else other
            count += int(seen.sum())
        there = read.all_filled - read.marked
        if first < 0 or count < MOST_DATES * there:
            return ""
        if count < (1 - STRAY_SHARE) * there:
            file, row = self.table.locate(other)
            cell = str(self.table.cell(self.name, other))[:40]
            return (
                f"mixes dates and words: {count} of its {there} values are dates, {file}, row {row} holds '{cell}';"
                " leave cells empty that have none"
            )
        file, row = self.table.locate(first)
        cell = str(self.table.cell(self.name, first))[:40]
        return (
            f"holds dates that are not written in one form that is known, like '{cell}' in {file}, row {row}; write"
            " them all like 2026-01-31"
        )

    def note(self, what: str, kind: str = "") -> None:
        self.findings.note(self.name, what, kind)

    def warn(self, what: str, kind: str = "") -> None:
        self.findings.warn(self.name, what, kind)
