"""Which label an image has: its class folder says it, a table of names and labels, or a file beside it.

How a table names images: see named_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer_image.data.formats.jsonl_reader import cell, objects
from trainer_image.data.named_files import Index, file_column, label_column, plain, split_column
from trainer_image.data.spill import Scratch
from trainer_image.data.splits import split_by_word
from trainer_image.data.table import read_table
from trainer_image.errors import TrainerError, invalid
from trainer_image.limits import Limits
from trainer_image.tasks.image.remarks import Sample, contradictions, missing_images
from trainer_image.tasks.image.sources import IMAGE_SUFFIXES, Stored, is_table, split_of

# A label beside an image; what is longer is none.
LABEL_BYTES = 64 * 1024


def list_samples(
    files: Sequence[Stored],
    limits: Limits,
    scratch: Scratch,
    *,
    label: str | None = None,
    group: str | None = None,
    notes: list[str] | None = None,
    split: str | None = None,
    refused: list[str] | None = None,
    unknown: dict[str, set[int]] | None = None,
    alone: bool = False,
) -> list[Sample]:
    """All images of a split in the order of its files. Raises DatasetInvalid for a table that does not fit the files.

    label, group: columns of the table; None: a label's column is found by its name, there are no groups. A table in an
    archive describes what lies in it, one at the dataset's top also what lies in archives without one. `notes` gets a
    sentence for what is left out, `refused` why a table was not used, `unknown` the rows of a table above the splits
    that name no image of any of them so far. split: which one it is, for tables that name images of several; alone:
    whether the dataset has no other
    """
    notes, refused = [] if notes is None else notes, [] if refused is None else refused
    unknown = {} if unknown is None else unknown
    reading = _Reading(limits, scratch, label, group, notes, split, refused, unknown, alone)
    origins: dict[str, list[Stored]] = {}
    for stored in files:
        if not stored.above:
            origins.setdefault(stored.origin, []).append(stored)
    samples: list[Sample] = []
    without: list[Stored] = []
    for inside in origins.values():
        found = reading.labelled(_tables(inside), inside)
        if found is None:
            without += inside
        else:
            samples += found
    above = _tables(stored for stored in files if stored.above)
    # What is named for the split comes first: Meta.csv beside Test.csv may name images that are called the same.
    found = reading.labelled(sorted(above, key=lambda table: split_by_word(table.place[0]) is None), without)
    if found is None:
        beside = {(stored.origin, stored.place): stored for stored in without}
        images = (stored for stored in without if stored.suffix in IMAGE_SUFFIXES)
        found = [Sample(stored, _label(stored, beside, label or "label")) for stored in images]
    samples += found
    return samples if len(origins) == 1 else sorted(samples, key=lambda sample: (sample.stored.place, sample.name))


def _tables(files: Iterable[Stored]) -> list[Stored]:
    """Tables that may say labels, the likeliest first."""
    found = [stored for stored in files if len(stored.place) == 1 and is_table(stored)]
    return sorted(found, key=lambda stored: (not _meant(stored), stored.place))


def _meant(table: Stored) -> bool:
    """Whether its name says that it is nothing else: what is wrong with it is an error."""
    return table.place[0].lower() in ("metadata.csv", "metadata.jsonl")


def _label(stored: Stored, beside: Mapping[tuple[str, tuple[str, ...]], Stored], label: str) -> str | None:
    """The class folder, or in an archive without folders what the file of the same name with .cls or .json says."""
    if len(stored.place) > 1:
        return plain(stored.place[0])
    stem = Path(stored.place[0]).stem
    if named := beside.get((stored.origin, (f"{stem}.cls",))):
        return _small(named).strip() or None
    if named := beside.get((stored.origin, (f"{stem}.json",))):
        try:
            record = json.loads(_small(named), parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            raise invalid(named.name, "is no JSON object") from None
        text = cell(named.name, 1, label, record.get(label)) if isinstance(record, dict) else None
        if not text:
            keys = f" (found {', '.join(record)[:80]}; data.target says another)" if isinstance(record, dict) else ""
            raise invalid(named.name, f"has no '{label}'{keys}")
        return text
    return None


def _small(stored: Stored) -> str:
    with stored.open() as file:
        try:
            return file.read(LABEL_BYTES).decode()
        except UnicodeDecodeError:
            raise invalid(stored.name, "is not UTF-8") from None


@dataclass(frozen=True)
class _Reading:
    """Reads tables of labels; see `list_samples`."""

    limits: Limits
    scratch: Scratch
    label: str | None
    group: str | None
    notes: list[str]
    split: str | None
    refused: list[str]
    unknown: dict[str, set[int]]
    alone: bool

    def labelled(self, tables: Sequence[Stored], files: Sequence[Stored]) -> list[Sample] | None:
        """The images with what the first table that names any of them says; None where there is no such table."""
        images = [stored for stored in files if stored.suffix in IMAGE_SUFFIXES]
        folders = {stored.place[0] for stored in images if len(stored.place) > 1}
        for table in tables:
            if _meant(table):
                return self._samples(table, images, strictly=not table.above)
            if self.label is None and len(folders) > 1:
                continue  # folders are classes, and the table may be about anything
            try:
                samples = self._samples(table, images, strictly=False)
            except TrainerError as error:
                why = error.sentence.removeprefix("Invalid dataset: ")
                self.notes.append(f"{table.name} was not used for labels: {why}.")
                self.refused.append(error.sentence)
                continue
            if samples:
                return samples
        return None

    def _samples(self, table: Stored, images: Sequence[Stored], *, strictly: bool) -> list[Sample]:
        """strictly: every row has to name an image that is there."""
        columns, records, read_as = self._records(table)
        records = list(records)
        file = file_column(columns)
        if file is None:
            listed = ", ".join(columns[:10])
            raise invalid(table.name, f"has no column with the images' names (file_name is expected, found {listed})")
        one_hot = self._one_hot(columns, file, records)
        label = None if one_hot else label_column(table.name, columns, file, self.label)
        index = Index((("/".join(stored.place), stored) for stored in images), "images")
        if split := split_column(columns):
            why = "splits are told by folders or tables that are named for them"
            self.notes.append(f"{table.name}: the column '{split}' was not used: {why}.")
        samples: list[Sample] = []
        unlabelled = rows = 0
        unknown: set[int] = set()
        named = None
        for row, record in records:
            rows += 1
            named = cell(table.name, row, file, record.get(file))
            if not named:
                raise invalid(table.name, f"row {row}: has no '{file}'")
            folders = named.replace("\\", "/").split("/")[:-1]
            elsewhere = self.split and any(split_of(folder) not in (None, self.split) for folder in folders)
            stored = None if elsewhere else index.find(table.name, row, named)
            if stored is None:
                if strictly:
                    raise invalid(table.name, f"row {row}: there is no file '{named}'")
                unknown.add(row)
                continue
            said = cell(table.name, row, label, record.get(label)) if label else one_hot.get(row)
            of = cell(table.name, row, self.group, record.get(self.group)) if self.group else None
            if self.group and not of:
                raise invalid(table.name, f"row {row}: has no '{self.group}'")
            unlabelled += not said
            above = (table.name, row, named) if table.above else None
            samples.append(Sample(stored, plain(said) if said else None, of, above))
        labelled = [sample for sample in samples if sample.label is not None]
        if labelled and unlabelled:
            have = "1 row has" if unlabelled == 1 else f"{unlabelled} rows have"
            were = "was" if unlabelled == 1 else "were"
            self.notes.append(f"{table.name}: {have} no '{label}' and {were} left out.")
            samples = labelled
        if rows and len(unknown) == rows and images:
            place = "/".join(images[0].place)
            self.refused.append(f"{table.name} names no image that is there (its last row '{named}'; there is {place})")
        self._remark(table, samples, unknown, read_as)
        unnamed = len(images) - len({sample.stored.name for sample in samples}) - unlabelled
        if samples and unnamed > 0 and (self.alone or not table.above or split_by_word(table.place[0])):
            were = "image that {} does not name was" if unnamed == 1 else "images that {} does not name were"
            self.notes.append(f"{unnamed} {were.format(table.name)} left out.")
        return samples

    def _remark(self, table: Stored, samples: Sequence[Sample], unknown: set[int], read_as: Sequence[str]) -> None:
        """Notes of how it was read, and of rows that name no image, or one image with several labels."""
        self.notes.extend(read_as if samples else [])
        if table.above and (samples or table.name in self.unknown):
            self.unknown[table.name] = self.unknown.get(table.name, unknown) & unknown
        elif unknown and samples:
            self.notes.append(missing_images(table.name, len(unknown)))
        self.notes.extend(contradictions(table.name, samples))

    def _one_hot(
        self, columns: Sequence[str], file: str, records: Iterable[tuple[int, dict[str, Any]]]
    ) -> dict[int, str]:
        """The class of each row where each has a column, which is 1 in its rows and 0 in all others; else empty."""
        classes = [column for column in columns if column and column != file and not column.startswith("Unnamed")]
        found: dict[int, str] = {}
        if self.label is not None or len(classes) < 2:
            return {}
        for row, record in records:
            said = [column for column in classes if str(record.get(column)).strip() in ("1", "1.0")]
            if len(said) != 1 or any(str(record.get(c)).strip() not in ("0", "1", "0.0", "1.0") for c in classes):
                return {}
            found[row] = said[0]
        if found:
            self.notes.append(f"Each of the columns {', '.join(classes[:5])} is a class, 1 in the rows of its images.")
        return found

    def _records(self, table: Stored) -> tuple[list[str], Iterable[tuple[int, dict[str, Any]]], Sequence[str]]:
        """(columns, rows with their numbers, what is to be said of how it was read)"""
        path = table.local(self.scratch)
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            first = next(iter(objects(table.name, path, self.limits)), None)
            return list(first[1]) if first else [], objects(table.name, path, self.limits), []
        read = read_table([(table.name, path)], self.limits)
        columns = {column: cells.to_pylist() for column, cells in read.columns.items()}

        def rows() -> Iterator[tuple[int, dict[str, Any]]]:
            for index, (_, row) in enumerate(read.locate_all(range(read.rows))):
                yield row, {column: cells[index] for column, cells in columns.items()}

        return list(columns), rows(), read.notes
