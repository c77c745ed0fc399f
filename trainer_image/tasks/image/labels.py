"""Which label an image has: its class folder says it, a table of names and labels, or a file beside it.

How a table names images: see named_files.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer_image.data.file_kinds import START_BYTES, unread
from trainer_image.data.formats.jsonl_reader import cell, objects
from trainer_image.data.named_files import Index, file_column, label_column, plain, split_column
from trainer_image.data.spill import Scratch
from trainer_image.data.table import read_table
from trainer_image.errors import TrainerError, invalid
from trainer_image.limits import Limits
from trainer_image.tasks.image.sources import IMAGE_SUFFIXES, Stored, is_table, split_of

# A label beside an image; what is longer is none.
LABEL_BYTES = 64 * 1024
# What people take for images, or bring instead of them, and what would be read.
CONVERT = "convert them to PNG"
OTHER_SUFFIXES = {
    **dict.fromkeys((".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".svg"), CONVERT),
    **dict.fromkeys((".psd", ".dng", ".cr2", ".nef", ".arw", ".dcm", ".nii", ".tga", ".exr", ".ico"), CONVERT),
    **dict.fromkeys((".npy", ".npz", ".h5", ".hdf5", ".mat", ".pkl", ".pickle"), "write each image as a PNG"),
    **dict.fromkeys((".idx", ".tfrecord", ".mdb", ".parquet", ".arrow", ".bin"), "write each image as a PNG"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "write frames of the videos as PNG"),
    **dict.fromkeys((".rar", ".7z", ".bz2", ".xz", ".gz"), "pack them as .zip or .tar"),
    **dict.fromkeys((".zip", ".tar", ".tgz"), "unpack them: archives within archives are not looked into"),
    **dict.fromkeys((".csv", ".tsv", ".jsonl"), "a table of pixels is for task: tabular, or write each row as a PNG"),
}
# Files that often hold the labels, in as many ways as there are programs.
LABEL_SUFFIXES = (".json", ".xml", ".txt", ".yaml", ".yml", ".mat", ".names")
# What is passed over without a word where there are images that are read.
UNREMARKED = {".csv", ".tsv", ".jsonl", ".parquet", ".bin"}


@dataclass(frozen=True)
class Sample:
    """One image: where it is, its label (None: unlabelled), its group (None: of its own), and which row of a table
    above the splits names it."""

    stored: Stored
    label: str | None
    group: str | None = None
    row: tuple[str, int, str] | None = None

    @property
    def name(self) -> str:
        """Its name within the dataset."""
        return self.stored.name


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
) -> list[Sample]:
    """All images of a split in the order of its files. Raises DatasetInvalid for a table that does not fit the files.

    label, group: columns of the table; None: a label's column is found by its name, there are no groups. A table in an
    archive describes what lies in it, one at the dataset's top also what lies in archives without one. `notes` gets a
    sentence for what is left out, `refused` why a table was not used. split: which one it is, for tables that name
    images of several
    """
    notes, refused = [] if notes is None else notes, [] if refused is None else refused
    reading = _Reading(limits, scratch, label, group, notes, split, refused)
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
    found = reading.labelled(_tables(stored for stored in files if stored.above), without)
    if found is None:
        beside = {(stored.origin, stored.place): stored for stored in without}
        images = (stored for stored in without if stored.suffix in IMAGE_SUFFIXES)
        found = [Sample(stored, _label(stored, beside, label or "label")) for stored in images]
    samples += found
    return samples if len(origins) == 1 else sorted(samples, key=lambda sample: (sample.stored.place, sample.name))


def way_out(files: Sequence[Stored], refused: Sequence[str]) -> str:
    """What is to be said where images have no labels: why tables were not used, and how labels are brought."""
    found = sorted({stored.suffix for stored in files} & set(LABEL_SUFFIXES))
    said = [why.removeprefix("Invalid dataset: ") for why in refused]
    if found and not refused:
        said.append(f"{', '.join(found)} files beside them are not read for labels")
    return "; ".join(
        [*said, "put the images into a folder for each class, or write labels.csv with the columns file_name and label"]
    )


def unknown_files(files: Sequence[Stored]) -> str:
    """What was found where there is no image, and what the first file is, by its bytes."""
    if not files:
        return "found nothing"
    first = files[0]
    with first.open() as file:
        start = file.read(START_BYTES)
    said = unread(Path(first.place[-1]), start)
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        said = f"{first.place[-1]} is an image: give images names that end in .png or .jpg"
    return f"found {', '.join(stored.name for stored in files[:3])}" + (f"; {said}" if said else "")


def unread_images(files: Sequence[Stored]) -> list[str]:
    """A warning where there are pictures in formats that are not read; none for other files."""
    found = Counter(stored.suffix for stored in files)
    several = any(found[suffix] for suffix in IMAGE_SUFFIXES)
    unread = sorted(found.keys() & OTHER_SUFFIXES.keys() - (UNREMARKED if several else set()))
    return [
        f"{sum(found[s] for s in suffixes)} files ({', '.join(suffixes)}) are in formats that are not read, and left "
        f"out; {advice}."
        for advice in dict.fromkeys(OTHER_SUFFIXES[suffix] for suffix in unread)
        if (suffixes := [suffix for suffix in unread if OTHER_SUFFIXES[suffix] == advice])
    ]


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
                self.notes.append(f"{table.name} was not used for labels. {error.sentence}")
                self.refused.append(error.sentence)
                continue
            if samples:
                return samples
        return None

    def _samples(self, table: Stored, images: Sequence[Stored], *, strictly: bool) -> list[Sample]:
        """strictly: every row has to name an image that is there."""
        columns, records = self._records(table)
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
        unlabelled = unknown = rows = 0
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
                unknown += 1
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
            self.notes.append(f"{table.name}: {unlabelled} rows have no '{label}' and were left out.")
            samples = labelled
        if rows and unknown == rows and images:
            place = "/".join(images[0].place)
            self.refused.append(f"{table.name} names no image that is there (its last row '{named}'; there is {place})")
        if unknown and samples and not table.above:
            self.notes.append(f"{table.name}: {unknown} rows name no image that is there and were left out.")
        unnamed = len(images) - len({sample.stored.name for sample in samples}) - unlabelled
        if samples and unnamed > 0 and not table.above:
            self.notes.append(f"{unnamed} images that {table.name} does not name were left out.")
        return samples

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

    def _records(self, table: Stored) -> tuple[list[str], Iterable[tuple[int, dict[str, Any]]]]:
        path = table.local(self.scratch)
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            first = next(iter(objects(table.name, path, self.limits)), None)
            return list(first[1]) if first else [], objects(table.name, path, self.limits)
        read = read_table([(table.name, path)], self.limits)
        columns = {column: cells.to_pylist() for column, cells in read.columns.items()}

        def rows() -> Iterator[tuple[int, dict[str, Any]]]:
            for index, (_, row) in enumerate(read.locate_all(range(read.rows))):
                yield row, {column: cells[index] for column, cells in columns.items()}

        return list(columns), rows()
