"""How a CSV is written: its delimiter, guessed from a sample, or named by Excel's first line `sep=;`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

if TYPE_CHECKING:
    import _csv

# What the delimiter is guessed from.
SAMPLE_CHARACTERS = 65536
DELIMITERS = (",", ";", "\t", "|")
# One byte, as the reader of the rest wants it.
_NAMED = re.compile(r'"?sep=([\t !#-~])"?(?:\r\n|\r|\n)', re.IGNORECASE)


class Dialect(NamedTuple):
    """skip: lines before the header; quotes: whether they hold fields together, or are characters like others"""

    delimiter: str
    skip: int = 0
    quotes: bool = True

    def records(self, lines: Iterable[str]) -> _csv.Reader:
        """Python's reader, which knows the line that it is at."""
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE)


def dialect_of(path: Path, sample: str) -> tuple[Dialect, str]:
    """The dialect of a file that begins so, and the sample from its header on."""
    named = _NAMED.match(sample)
    if named:
        return Dialect(named[1], 1), sample[named.end() :]
    delimiter = "\t" if ".tsv" in path.name.lower() else sniff_delimiter(sample)
    return Dialect(delimiter, quotes=delimiter != "\t" or not _quotes_swallow(sample)), sample


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
