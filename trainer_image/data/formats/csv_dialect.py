"""How a CSV is written: its delimiter, guessed from a sample, or named by Excel's first line `sep=;`."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import pyarrow as pa

from trainer_image.data.formats.cells import TEXT, as_names
from trainer_image.data.formats.numbers import numbers

if TYPE_CHECKING:
    import _csv

# What the delimiter is guessed from.
SAMPLE_CHARACTERS = 65536
DELIMITERS = (",", ";", "\t", "|")
# Lines in which the header is looked for, and records below it.
_TOP, _BELOW = 50, 50
# Lines above it with as many fields, all of them filled: names of groups and of units.
_MOST_FULL = 2
_YEAR = re.compile(r"(?:19|20)\d\d")
_OF_TABS = re.compile(r"\.(?:tsv|tab)(?:\.|$)")
# One byte, as the reader of the rest wants it.
_NAMED = re.compile(r'"?sep=([\t !#-~])"?(?:\r\n|\r|\n)', re.IGNORECASE)


class Dialect(NamedTuple):
    """skip: lines before the header; quotes: whether they hold fields together, or are characters like others; below:
    whether the header was found below other lines"""

    delimiter: str
    skip: int = 0
    quotes: bool = True
    below: bool = False

    def records(self, lines: Iterable[str]) -> _csv.Reader:
        """Python's reader, which knows the line that it is at."""
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE)


def dialect_of(path: Path, sample: str, needed: Sequence[str] = ()) -> tuple[Dialect, str]:
    """The dialect of a file that begins so, and the sample from its header on.

    needed: columns of the header, which may stand below lines of other things
    """
    named = _NAMED.match(sample)
    if named:
        return Dialect(named[1], 1), sample[named.end() :]
    delimiters = ("\t",) if _OF_TABS.search(path.name.lower()) and "\t" in sample else DELIMITERS
    delimiter = delimiters[0] if len(delimiters) == 1 else sniff_delimiter(sample)
    skip, rest = 0, sample
    if needed and not set(needed) <= set(as_names(_record(sample, delimiter))):
        delimiter, skip, rest = next(_further(sample, delimiters, needed), (delimiter, skip, rest))
    return Dialect(delimiter, skip, delimiter != "\t" or not _quotes_swallow(rest), skip > 0), rest


def _further(sample: str, delimiters: Sequence[str], needed: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """(delimiter, lines above, the sample from there on) of each line that is a header with the columns that are needed
    by one of these delimiters: it has no number but years, a row of as many fields follows, none repeats one of these
    names, and hardly a line above is as full, as rows would be."""
    at, full = 0, Counter[tuple[str, int]]()
    for above, line in enumerate(islice(as_lines(sample), _TOP)):
        for delimiter in delimiters:
            header = as_names(_record(line, delimiter))
            before = full[delimiter, len(header)]
            full[delimiter, len(header)] += all(header)
            named = header[: max((place + 1 for place, column in enumerate(header) if column), default=0)]
            if len(named) < 2 or len(set(named)) < len(named) or not set(needed) <= set(named) or before > _MOST_FULL:
                continue
            if not numbers(pa.array([column for column in named if not _YEAR.fullmatch(column)], TEXT))[1].all():
                continue
            try:
                rows = list(islice(csv.reader(as_lines(sample[at:]), delimiter=delimiter), _BELOW))[1:]
            except csv.Error:
                continue
            places = [header.index(column) for column in needed]
            repeated = any(row[place : place + 1] == [header[place]] for row in rows for place in places)
            if rows and len(rows[0]) == len(header) and not repeated:
                yield delimiter, above, sample[at:]
        at += len(line)


def _record(sample: str, delimiter: str) -> list[str]:
    """The first one that is not blank, [] for what is none."""
    try:
        return next((record for record in csv.reader(as_lines(sample), delimiter=delimiter) if record), [])
    except csv.Error:
        return []


def _quotes_swallow(sample: str) -> bool:
    """Whether texts between tabs begin with quotes that nobody closes, as `csv.QUOTE_NONE` writes them: every line is a
    whole row, and by its quotes one would go on in the next."""
    lines = [line for line in as_lines(sample) if line.strip()]
    lines = lines[:-1] if len(sample) >= SAMPLE_CHARACTERS else lines  # the last one may be cut
    if '"' not in sample or not lines or any(line.count("\t") != lines[0].count("\t") for line in lines):
        return False
    try:
        return len(list(csv.reader(lines, delimiter="\t"))) < len(lines)
    except csv.Error:
        return True


def sniff_delimiter(sample: str) -> str:
    """The delimiter that splits the sample's records into the most columns, evenly; a comma when there is one column.

    Python's csv.Sniffer guesses from character frequencies and is fooled by text columns; agreement between records is
    what a reader needs in the end.
    """
    best, best_score = ",", (0, 0)
    for delimiter in DELIMITERS:
        try:
            records = [r for r in csv.reader(as_lines(sample), delimiter=delimiter) if r][:50]
        except csv.Error:
            continue
        if len(records) > 1:
            records = records[:-1] if len(sample) >= SAMPLE_CHARACTERS else records  # the last one may be cut
        width = len(records[0]) if records else 0
        even = sum(len(record) == width for record in records)
        score = (even * (width > 1), width)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def as_lines(content: str) -> TextIO:
    """Lines end as csv expects them: with a line feed, a carriage return or both, none of them translated."""
    return io.StringIO(content, newline="")
