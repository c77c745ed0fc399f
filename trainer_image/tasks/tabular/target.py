"""The column to predict: classes or values, decided from the training split's labels and `data.types`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from trainer_image.data.formats.numbers import PLAIN, Notation, in_words, marked, numbers
from trainer_image.data.spill import Scratch
from trainer_image.data.table import Table
from trainer_image.errors import invalid
from trainer_image.tasks.base import Json, Labels, restored
from trainer_image.tasks.classes import in_short, known_instead, unfit
from trainer_image.tasks.tabular.dates import CALENDAR, DURATIONS, FORMS, TIMES_OF_DAY, form_of
from trainer_image.tasks.tabular.notation import STRAY_SHARE, hidden_thousands, notation_of

# Whole numbers with at most this many different values are classes: grades and ratings are, counts and prices seldom.
MOST_WHOLE_CLASSES = 20
# Of labels that begin with a zero, how many make all of them codes.
_CODE, LEAST_CODES = re.compile(r"0\d+"), 2
# Of so many different labels it is looked at whether they are dates.
MOST_LOOKED_AT = 10_000
# More different texts than these are no classes where each has fewer rows than that.
FEW_CLASSES, LEAST_ROWS_OF_A_CLASS = 50, 4
# Different labels that are counted; more only means "many".
MOST_DISTINCT = 1_000_000
# Of fewer, chance would often hold out none.
ROWS_OF_A_PART = 40
# How far beyond the known values a prediction may go, as a share of their range, and where it stops before.
MARGIN = 0.1
NATURAL_ENDS = (0.0, 1.0, 100.0)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ClassTarget:
    """Class labels in sorted order (numbers by value); `encode` gives their positions, int64 (rows,), 0 where there is
    no label: such rows are for `unlabelled` to find."""

    column: str
    labels: Labels

    @property
    def outputs(self) -> int:
        return len(self.labels)

    @property
    def description(self) -> str:
        return f"classification of '{self.column}' into {in_short(self.labels)}"

    def encode(self, table: Table, scratch: Scratch) -> Array:
        encoded = scratch.array((table.rows,), np.int64)
        for start, given in table.cells(self.column):
            cells = canonical(given)
            codes = pc.index_in(cells, value_set=pa.array(self.labels, pa.large_string()))
            codes = pc.if_else(pc.is_null(cells), pa.scalar(0, codes.type), codes)
            if codes.null_count:
                index = _first(pc.is_null(codes))
                label = str(cells[index])
                instead = known_instead(label, self.labels)
                holds = f"column '{self.column}' holds the label '{label[:40]}', which no training row has{instead}"
                raise table.error(start + index, holds)
            encoded[start : start + len(cells)] = codes.to_numpy(zero_copy_only=False)
        return encoded

    def strata(self, labels: Array) -> Array:
        return labels

    def to_json(self) -> Json:
        return {"kind": "classes", **asdict(self)}


@dataclass(frozen=True)
class ValueTarget:
    """A number; the network learns (value - centre) / spread. `encode` gives values, float32 (rows,).

    notation: how the training rows write it, and all others have to
    low, high: what no prediction goes beyond
    """

    column: str
    centre: float = 0.0
    spread: float = 1.0
    notation: Notation = PLAIN
    low: float | None = None
    high: float | None = None
    outputs: ClassVar[int] = 1

    @property
    def description(self) -> str:
        return f"regression of '{self.column}'"

    def encode(self, table: Table, scratch: Scratch) -> Array:
        encoded = scratch.array((table.rows,), np.float32)
        for start, cells in table.cells(self.column):
            values, bad = _numbers(cells, self.notation)
            there = cells.is_valid().to_numpy(zero_copy_only=False)
            values, bad = np.where(there, values, 0.0), bad & there
            with np.errstate(over="ignore"):
                wrong = bad | ~np.isfinite(values.astype(np.float32))
            if wrong.any():
                index = int(wrong.argmax())
                why = (
                    f"is no {in_words(self.notation)}"
                    if bad[index]
                    else "is no finite number, or too large to compute with (beyond 3e38)"
                )
                cell = str(cells[index])[:40]
                raise table.error(start + index, f"the target column '{self.column}' holds '{cell}', which {why}")
            encoded[start : start + len(cells)] = values
        return encoded

    def fitted(self, values: Array) -> ValueTarget:
        """The same target with centre and spread of the training rows, and the range that they make believable."""
        spread = float(values.std(dtype=np.float64))
        low, high = _believable(float(values.min()), float(values.max()))
        return replace(self, centre=float(values.mean(dtype=np.float64)), spread=spread or 1.0, low=low, high=high)

    def possible(self, values: Tensor) -> Tensor:
        """Predictions (rows,) within what the training rows make believable: a count is never negative, and no price
        far above the highest that is known."""
        return values if self.low is None or self.high is None else values.clamp(self.low, self.high)

    def strata(self, labels: Array) -> Array:
        """Up to ten parts of the range, of so many rows that each has some held out: these span the whole range."""
        parts = max(1, min(10, len(labels) // ROWS_OF_A_PART))
        return np.searchsorted(np.quantile(labels, np.linspace(0, 1, parts + 1)[1:-1]), labels)

    def to_json(self) -> Json:
        return {"kind": "values", **asdict(self)}


def _believable(low: float, high: float) -> tuple[float, float]:
    """The range of known values, and a little more; never across an end that none of them crosses: 0 for counts and
    prices, 1 and 100 for shares and percentages from above."""
    margin = MARGIN * (high - low)
    least = max(low - margin, 0.0) if low >= 0 else low - margin
    return least, min([high + margin, *(end for end in NATURAL_ENDS if end >= high)])


Target = ClassTarget | ValueTarget


def target_from_json(value: Json) -> Target:
    """The inverse of `to_json`."""
    rest = {name: entry for name, entry in value.items() if name != "kind"}
    return restored(ClassTarget, rest) if value["kind"] == "classes" else restored(ValueTarget, rest)


def fit_target(train: Table, column: str, declared: str | None) -> tuple[Target, list[str]]:
    """Classes or values, and how that was decided. DatasetInvalid for labels that are missing or all the same."""
    seen = _Seen.of(train, column, PLAIN)
    notes: list[str] = []
    if declared != "category" and not seen.is_number:
        seen, notes = _written_otherwise(train, column, seen, declared)
    is_number = seen.is_number
    if is_number and seen.infinite is not None:
        cell = train.cell(column, seen.infinite)
        raise train.error(seen.infinite, f"the target column '{column}' holds '{cell}'; a finite label is needed")
    distinct = seen.numbers
    if declared is None:
        _refuse_what_is_no_target(train, column, seen)
        whole = is_number and bool((distinct == np.floor(distinct)).all())
        # Numbers of more digits than are computed with are the same and differ as texts.
        few = len(distinct) <= MOST_WHOLE_CLASSES and len(seen.labels) <= 2 * MOST_WHOLE_CLASSES
        codes = whole and sum(bool(_CODE.fullmatch(label)) for label in seen.labels) >= LEAST_CODES
        few_whole = whole and few
        as_classes = not is_number or few_whole or codes or (few and len(distinct) == 2)
        why = f"it has {seen.counted} different values" + (", all whole numbers" if few_whole else "")
        why = "some of its values begin with a zero, as codes do" if codes else why
        why = why if is_number else "its values are text"
        other = "number" if as_classes and is_number else "category"
        hint = "" if as_classes and not is_number else f" (data.types: {{{column}: {other}}} would change that)"
        note = f"'{column}' is predicted as {'a class' if as_classes else 'a number'}: {why}{hint}."
    else:
        as_classes = declared == "category"
        note = f"'{column}' is predicted as {'a class' if as_classes else 'a number'}: data.types says {declared}."
    if not as_classes:
        if is_number and len(distinct) == 1:
            raise invalid(train.name, f"the target column '{column}' is {distinct[0]:g} in every row")
        return ValueTarget(column, notation=seen.notation), [note, *notes]
    labels = sorted(seen.labels, key=float) if is_number and seen.notation == PLAIN else sorted(seen.labels)
    if fault := unfit(f"the target column '{column}'", labels, seen.counted):
        raise invalid(train.name, fault)
    return ClassTarget(column, tuple(labels)), [note]


def _refuse_what_is_no_target(train: Table, column: str, seen: _Seen) -> None:
    """Raises for dates, numbers that may be others, and texts that hardly repeat: no classes, whatever they are."""
    labels = sorted(seen.labels)
    classes = f"data.types: {{{column}: category}} makes a class of each value"
    if len(labels) > MOST_WHOLE_CLASSES:
        sample = pa.array(labels[:MOST_LOOKED_AT], pa.large_string())
        form = form_of(sample, [*FORMS, *CALENDAR])
        if form is not None:
            kind, instance = ("dates", "days from another date")
            if form in TIMES_OF_DAY or form in DURATIONS:
                kind, instance = ("durations" if form in DURATIONS else "times of day"), "minutes"
            number = f" and {{{column}: number}} takes them as numbers" if seen.is_number else ""
            raise invalid(
                train.name,
                f"the target column '{column}' holds {kind} ('{labels[0][:40]}'), which are neither classes nor "
                f"numbers; bring what is to be predicted as a number, {instance} for instance; {classes}{number}",
            )
    if seen.is_number:
        if seen.notation == PLAIN and (why := hidden_thousands(train, column)):
            raise invalid(train.name, f"the target column '{column}' {why}")
    elif len(labels) > max(FEW_CLASSES, seen.rows / LEAST_ROWS_OF_A_CLASS):
        raise invalid(
            train.name,
            f"the target column '{column}' holds {seen.counted} different texts in {seen.rows} rows, like "
            f"'{labels[0][:40]}': too many for classes, and no numbers; {classes}",
        )


def _written_otherwise(train: Table, column: str, seen: _Seen, declared: str | None) -> tuple[_Seen, list[str]]:
    """The labels in another notation, where they are numbers in it, with a note. DatasetInvalid for what is no class
    and no number: numbers with a slip among them, or such as may mean two things."""
    found = notation_of(train, column, seen.bad, seen.rows)
    notes = []
    if found is not None and found.notation is not None:
        seen, notes = _Seen.of(train, column, found.notation), [f"Column '{column}' {found.why}."]
    # A thousand different numbers and one "unknown" would else be a thousand classes.
    numeric = seen.bad - seen.marked <= STRAY_SHARE * seen.rows and len(seen.numbers) > MOST_WHOLE_CLASSES
    if seen.bad and numeric:
        cell = str(train.cell(column, seen.first_bad))[:40]
        raise train.error(
            seen.first_bad,
            f"the target column '{column}' holds '{cell}', which is no {in_words(seen.notation)}; the others are: "
            f"correct it or leave the row out (data.types: {{{column}: category}} makes a class of each value)",
        )
    if found is not None and found.notation is None and (declared or len(seen.labels) > MOST_WHOLE_CLASSES):
        raise invalid(train.name, f"the target column '{column}' {found.why}")
    return seen, notes


class _Seen:
    """The different labels, as numbers and as text, as far as they matter; a target has few, or is a number."""

    def __init__(self, notation: Notation) -> None:
        self.notation = notation
        self.rows = 0
        self.bad = 0
        self.marked = 0
        self.first_bad = -1
        self.infinite: int | None = None
        self.numbers: Array = np.empty(0)
        self.labels: set[str] = set()

    @classmethod
    def of(cls, table: Table, column: str, notation: Notation) -> _Seen:
        seen = cls(notation)
        for start, cells in table.cells(column):
            seen.add(start, cells)
        return seen

    @property
    def is_number(self) -> bool:
        return not self.bad

    def add(self, start: int, cells: pa.Array) -> None:
        values, bad = _numbers(cells, self.notation)
        there = cells.is_valid().to_numpy(zero_copy_only=False)
        bad &= there
        self.rows += int(there.sum())
        self.marked += pc.sum(marked(cells)).as_py() or 0
        if bad.any() and not self.bad:
            self.first_bad = start + int(bad.argmax())
        self.bad += int(bad.sum())
        known = there & ~bad
        if self.infinite is None and not np.isfinite(values[known]).all():
            self.infinite = start + int((~np.isfinite(values) & known).argmax())
        if len(self.numbers) <= MOST_DISTINCT:
            self.numbers = np.union1d(self.numbers, values[known])
        if len(self.labels) <= MOST_DISTINCT:
            self.labels.update(pc.unique(canonical(cells.drop_null())).to_pylist())

    @property
    def counted(self) -> str:
        """How many different ones, in words."""
        count = len(self.numbers) if self.is_number else len(self.labels)
        return str(count) if count <= MOST_DISTINCT else f"more than {MOST_DISTINCT}"


def labelled(table: Table, column: str) -> Array | None:
    """The rows that have a label, ascending indices; None where all of them do."""
    missing = [
        start + np.flatnonzero(cells.is_null().to_numpy(zero_copy_only=False))
        for start, cells in table.cells(column)
        if cells.null_count
    ]
    return np.delete(np.arange(table.rows), np.concatenate(missing)) if missing else None


def _numbers(cells: pa.Array, notation: Notation) -> tuple[Array, Array]:
    """As `numbers`, but a cell that says there is no value is none: a label has to be there."""
    values, _ = numbers(cells, notation)
    return values, np.isnan(values)


def _first(mask: pa.Array) -> int:
    return int(mask.to_numpy(zero_copy_only=False).argmax())


def canonical(column: pa.Array) -> pa.Array:
    """Labels as compared: trimmed, and whole numbers written alike (1.0 and 1 are one class)."""
    return pc.replace_substring_regex(pc.utf8_trim_whitespace(column), pattern=r"^([+-]?\d+)\.0+$", replacement=r"\1")
