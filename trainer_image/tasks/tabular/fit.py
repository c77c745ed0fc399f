"""What each column of a table is, decided on the training rows alone, and said where it is no matter of course.

A column is looked at batch by batch, so that its size does not matter: counts are exact, quantiles too up to
SAMPLE_ROWS rows and from that many evenly spaced ones beyond, categories up to MOST_COUNTED different ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from trainer_image.data.formats.numbers import PLAIN, Notation
from trainer_image.data.splits import says_splits
from trainer_image.data.table import Table
from trainer_image.errors import invalid
from trainer_image.tasks.tabular import categories, texts
from trainer_image.tasks.tabular.column_rows import ColumnRows, few_units, measure, of_many
from trainer_image.tasks.tabular.column_stats import MOST_DIGITS, STAND_INS, Values
from trainer_image.tasks.tabular.columns import (
    ONE_HOT_CATEGORIES,
    CategoryColumn,
    DateColumn,
    Ints,
    NumberColumn,
    Preprocessing,
    stray,
)
from trainer_image.tasks.tabular.dates import (
    ALL_FORMS,
    AMBIGUOUS,
    DURATIONS,
    FORMS,
    TIMES_OF_DAY,
    days,
)
from trainer_image.tasks.tabular.findings import Findings
from trainer_image.tasks.tabular.notation import hidden_thousands, notation_of
from trainer_image.tasks.tabular.texts import Array, TextColumn

ID_SHARE = 0.95
# Categories that begin with a number; of fewer nothing is said.
MANY_MEASURES, MOST_MEASURES = 20, 0.8
ID_ROWS = 50
# A text is seldom the same twice, and has words; names and titles, all of them different, may have two.
TEXT_SHARE = 0.5
LEAST_WORDS, LEAST_WORDS_OF_IDS = 3, 2
# Shuffled numbers from 1 to n span n; of those, at least 72 % are training rows.
ID_SPREAD = 1.5
# What programs call a column that only numbers the rows: pandas' index, R's row names.
_UNNAMED = re.compile(r"Unnamed: ?\d+(\.\d+)*|__index_level_\d+__")
_INDEX_NAME = re.compile(r"(?i:index|level_\d|row\.?_?names?)|X")
_ID_NAME = re.compile(r"(?i)(^|[\W_])(id|ids|uuid|guid|key|index|row|nr|no)$|(?-i:[a-z](Id|ID|Key|Nr|No))$|^unnamed")
# Cells with a leading zero that make digits codes.
LEAST_CODES = 2
# Days that programs write where they know none.
LAST_DAYS = {
    float(np.datetime64(day, "D").astype(np.int64)): day
    for day in ("9999-12-31", "2999-12-31", "2099-12-31", "1900-01-01", "1899-12-30", "1899-12-31", "0001-01-01")
}


def fit(
    table: Table, rows: Ints, features: Sequence[str], types: Mapping[str, str], labels: Array
) -> tuple[Preprocessing, list[str], list[str]]:
    """Fits on the given rows (ascending) of the training table. Returns (preprocessing, notes, warnings).

    labels: of these rows, positions of classes or values: which words of a text are telling is seen by them.
    Raises DatasetInvalid when a column declared a number holds something else.
    """
    findings = Findings()
    fitted: list[NumberColumn | DateColumn | CategoryColumn | TextColumn | None] = []
    for name in features:
        room = texts.MOST_OF_ALL - sum(column.width for column in fitted if isinstance(column, TextColumn))
        fitted.append(_Column(table, name, rows, findings, labels, room).fitted(types.get(name)))
    preprocessing = Preprocessing(
        tuple(c for c in fitted if isinstance(c, NumberColumn)),
        tuple(c for c in fitted if isinstance(c, DateColumn)),
        tuple(c for c in fitted if isinstance(c, CategoryColumn)),
        tuple(c for c in fitted if isinstance(c, TextColumn)),
    )
    return preprocessing, findings.notes, findings.warnings


class _Column(ColumnRows):
    """A column, and the inputs that there is room for should it hold texts."""

    def __init__(self, table: Table, name: str, rows: Ints, findings: Findings, labels: Array, room: int) -> None:
        super().__init__(table, name, rows, findings, labels)
        self.room = room

    def fitted(self, declared: str | None) -> NumberColumn | DateColumn | CategoryColumn | TextColumn | None:
        """Number, date, category, text or None (of no use); adds a sentence where the choice is not obvious."""
        read = self.read(PLAIN)
        if read.filled == 0:
            self.note("is empty and was left out")
            return None
        if declared == "date":
            return self._declared_date()
        if declared == "text":
            return self._declared_text()
        if declared == "category":
            return self._category(read, declared, "")
        read, notation, unclear = self._written(read, declared)
        if declared == "number":
            if unclear:
                raise invalid(self.table.name, f"column '{self.name}' {unclear}")
            if read.bad:
                raise stray(self.table, self.name, read.first_bad)
            return self._number(read, notation)
        if unclear or not read.is_numeric:
            return self._worded(read, unclear)
        if read.zeros >= LEAST_CODES and read.whole and notation == PLAIN:
            self.note("has leading zeros, like a code, and was read as categories")
            return self._category(read, "category", "")
        if form := self.date_in_numbers(read):
            return self._date((form,))
        if not read.whole and max(abs(read.low), abs(read.high)) < 1000 and notation == PLAIN:
            unclear = hidden_thousands(self.table, self.name) or ""
        return self._category(read, None, unclear) if unclear else self._number(read, notation)

    def _written(self, read: Values, declared: str | None) -> tuple[Values, Notation, str]:
        """(the column as numbers, their notation, a clause where that may be one of two)"""
        found = notation_of(self.table, self.name, read.bad, read.all_filled) if read.bad else None
        if found is None:
            return read, PLAIN, ""
        if found.notation is None:
            return read, PLAIN, found.why
        again = self.read(found.notation)
        if declared != "number" and not again.is_numeric:
            return read, PLAIN, ""
        self.note(found.why, "was read as numbers that a spreadsheet printed")
        return again, found.notation, ""

    def _worded(self, read: Values, unclear: str) -> DateColumn | CategoryColumn | TextColumn | None:
        """What is no number. unclear: why it may be one, and is not read as such"""
        if not unclear:
            date = self._date(FORMS)
            if date is not None:
                return date
            unclear = self.unread_dates(read)
        return self._category(read, None, unclear)

    def _declared_date(self) -> DateColumn | None:
        date = self._date(ALL_FORMS)
        if date is None and not self.findings.left_out(self.name):
            cell = next(
                str(cells.drop_null()[0])[:40]
                for _, cells in self.table.cells(self.name)
                if cells.null_count < len(cells)
            )
            raise invalid(
                self.table.name,
                f"column '{self.name}' holds no dates in one form that is known, as data.types says; its first value "
                f"is '{cell}'; write them all like 2026-01-31",
            )
        return date

    def _number(self, read: Values, notation: Notation) -> NumberColumn | None:
        self.cells_without(read, "number")
        if read.infinite:
            self.warn("holds infinite values; they are treated as missing")
        if read.whole and read.digits > MOST_DIGITS:
            self.warn(
                f"has whole numbers of {read.digits} digits, like an id, of which {MOST_DIGITS} are read: list it "
                f"under data.drop, or read it as categories (data.types: {{{self.name}: category}})",
                f"has more digits than the {MOST_DIGITS} that are read, like an id: list such under data.drop, or read"
                " them as categories by data.types",
            )
        if _is_index(self.name, read):
            self.note("only numbers the rows and was left out")
            return None
        if read.whole and read.finite == read.rows >= ID_ROWS and read.differ:
            if read.rising:
                self.warn("looks like a row number; list it under data.drop if it is one")
            elif read.high - read.low < ID_SPREAD * read.rows or _ID_NAME.search(self.name):
                self.warn("has a different whole number in every row, like an id; list it under data.drop if it is one")
        self.outcast(read, STAND_INS, "{:g}".format)
        scaled = self._scaling(read)
        return None if scaled is None else NumberColumn(self.name, *scaled, strays=read.bad > 0, notation=notation)

    def _scaling(self, read: Values) -> tuple[float, float, bool] | None:
        """(centre, scale, indicator), None for a constant."""
        scaled = read.scaling
        if scaled is None and read.digits <= MOST_DIGITS:
            self.note("is constant and was left out")
        return scaled

    def _date(self, forms: Iterable[str]) -> DateColumn | None:
        reads = {form: Values() for form in forms}
        clock = False
        for start, cells, chosen in self.cells():
            for form, read in list(reads.items()):
                read.add(start, cells, chosen, *days(cells, form), self.step)
                if read.bad > read.strays_allowed * self.table.rows:
                    del reads[form]
            if not reads:
                return None
            clock = clock or any(bool((read.parts[-1] % 1 > 0).any()) for read in reads.values())
        form = min(reads, key=lambda form: reads[form].bad)
        read = reads[form]
        if read.bad > read.strays_allowed * (read.all_filled - read.marked):
            return None
        scaled = self._scaling(read)
        if scaled is None:
            return None
        kind = "times of day" if form in TIMES_OF_DAY else "durations" if form in DURATIONS else f"dates ({form})"
        self.note(f"was read as {kind}")
        if all(other in reads and reads[other].bad == read.bad for other in AMBIGUOUS):
            self.warn("holds dates that could be month/day or day/month; they were read as month/day/year")
        self.cells_without(read, "date")
        self.outcast(read, LAST_DAYS, lambda day: str(np.datetime64(int(day), "D")))
        return DateColumn(self.name, form, *scaled, clock=clock, strays=read.bad > 0)

    def _category(self, read: Values, declared: str | None, unclear: str) -> CategoryColumn | TextColumn | None:
        parts = self.cells(written=True)
        counts, distinct = categories.counted(cells.take(pa.array(chosen)) for _, cells, chosen in parts)
        distinct -= self.without_null_words(counts)
        if declared is None and not unclear and read.filled >= ID_ROWS and distinct > TEXT_SHARE * read.filled:
            cells, labels = self.sample()
            least = LEAST_WORDS if distinct <= ID_SHARE * read.filled else LEAST_WORDS_OF_IDS
            if (
                not (measure(cells) and few_units(cells))
                and texts.words_in(cells) >= least
                and (text := self._text(cells, labels))
            ):
                return text
        if declared is None and says_splits(list(counts)):
            self.warn(
                "says which split a row is of, and is no input: left out; rows are divided by it with data.split: "
                f"{{by: column, column: {self.name}}}"
            )
            return None
        if declared is None and read.filled >= ID_ROWS and distinct > ID_SHARE * read.filled:
            why, kind = (unclear, of_many(unclear)) if unclear else self.why_an_id(read)
            self.warn(f"{why}; left out", f"{kind}; left out")
            return None
        if unclear and distinct > 1:
            self.warn(f"{unclear}; read as categories", f"{of_many(unclear)}; read as categories")
        elif declared is None and 0 < read.bad < read.all_filled - read.marked:
            self.mixture(read)
        elif declared is None and distinct > MANY_MEASURES and (like := measure(self.sample()[0], MOST_MEASURES)):
            self.note(
                f"holds {distinct} different values like '{like}', read as categories: should they be measures, bring"
                " them as numbers",
                "hold many values that begin with a number, read as categories: should they be measures, bring them as"
                " numbers",
            )
        folded = categories.folded(counts)
        if folded is not None:
            counts = folded
        if len(counts) < 2 and read.filled == read.rows:
            self.note("is constant and was left out")
            return None
        kept = categories.kept(counts)
        if len(kept) < distinct and len(counts) > ONE_HOT_CATEGORIES:
            self.note(
                f"has {distinct} categories; {distinct - len(kept)} rare ones are treated as one",
                "has many categories; rare ones are treated as one",
            )
        return CategoryColumn(self.name, kept, folded=folded is not None)

    def _text(self, cells: pa.Array, labels: Array) -> TextColumn | None:
        text = texts.chosen(self.name, cells, labels, self.room)
        if text is not None:
            self.note(
                f"was read as text, by the {text.width} words and pairs of words that tell most of the target",
                "was read as text, by the words and pairs of words that tell most of the target",
            )
        return text

    def _declared_text(self) -> TextColumn | None:
        text = self._text(*self.sample())
        if text is None:
            self.note("holds no words that are frequent enough to learn from and was left out")
        return text


def _is_index(name: str, read: Values) -> bool:
    """An index that a program wrote beside the columns: pandas' without a name, or a count under a usual name."""
    if not read.whole or read.bad or read.finite < read.rows or read.low < 0:
        return False
    if _UNNAMED.fullmatch(name):
        return True
    counts = read.differ and read.high - read.low < ID_SPREAD * read.rows + 1
    return counts and bool(_INDEX_NAME.fullmatch(name))
