"""Texts as one file each: in a folder for each class, `train/pos/1.txt`, or `pos/1.txt` where no split is named; or
named by a table that says their labels, `labels.csv` beside them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from trainer_image.data.formats import jsonl_reader
from trainer_image.data.formats.cells import Wanted, said_of
from trainer_image.data.named_files import Index, file_column, label_column
from trainer_image.data.splits import LEFT_BEHIND, NAMES, Found, alike, is_table, taken_for, unlike_classes, visible
from trainer_image.data.table import is_json, read_table, stream_table
from trainer_image.errors import DatasetInvalid, invalid
from trainer_image.limits import Limits

# Folders beside those of the classes that say of themselves that nobody has labelled what is in them.
UNLABELLED = frozenset({"unsup", "unsupervised", "unlabeled", "unlabelled", "unlab"})


@dataclass(frozen=True)
class Fields:
    """The columns, or keys of JSON objects, that are read; None: not asked for."""

    text: str = "text"
    label: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class ClassFolders:
    """Files of each split, the class of each, and what is to be said about them."""

    found: Found
    classes: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_class_folders(data: Path) -> ClassFolders | None:
    """None where there are not at least two folders of training texts. Raises DatasetInvalid for folders of splits."""
    inside = _folders(data)
    while len(inside) == 1 and inside[0].name.lower() not in NAMES:  # what an archive was packed as
        inside = _folders(inside[0])
    named = {split: [folder] for folder in inside if (split := NAMES.get(folder.name.lower()))}
    guessed = {split: names for split, names in alike([f.name for f in inside]).items() if split not in named}
    named |= {split: [folder for folder in inside if folder.name in names] for split, names in guessed.items()}
    splits = {split: [below for folder in folders for below in _folders(folder)] for split, folders in named.items()}
    if not splits:
        splits["train"] = inside
    classes: dict[Path, str] = {}
    files: dict[str, tuple[Path, ...]] = {}
    left_out: list[str] = []
    for split, folders in splits.items():
        for folder in folders:
            texts = files_below(folder)
            if folder.name.lower() in UNLABELLED:
                left_out.append(f"{folder.relative_to(data).as_posix()} ({len(texts)} files)")
                continue
            classes |= dict.fromkeys(texts, unicodedata.normalize("NFC", folder.name))
            files[split] = (*files.get(split, ()), *texts)
    known = {classes[path] for path in files.get("train", ())}
    if len(known) < 2:
        return None
    if why := unlike_classes(known):
        raise DatasetInvalid(f"Invalid dataset: {why}")
    notes = [note for split, names in guessed.items() for note in taken_for(split, names)]
    notes += [f"Texts without a label were not used: {', '.join(left_out)}."] if left_out else []
    return ClassFolders(Found(**files), classes, notes)


def find_named(data: Path, tables: Found, fields: Fields, limits: Limits, *, labelled: bool) -> ClassFolders | None:
    """The files that the tables of each split name; None where those of the training split hold the texts themselves,
    or name no file. labelled: whether the training split has to have labels

    Raises DatasetInvalid for a table that cannot be read, or that labels one file in two ways.
    """
    texts = [path for path in files_below(data) if not is_table(path)]
    if not texts:
        return None
    index = Index(((path.relative_to(data).as_posix(), path) for path in texts), "texts")
    files: dict[str, tuple[Path, ...]] = {}
    classes: dict[Path, str] = {}
    notes = list(tables.notes)
    for split, of in tables.splits.items():
        named: dict[Path, str | None] = {}
        for table in of:
            name = table.relative_to(data).as_posix()
            named |= _named(name, table, index, fields, limits, notes, needed=labelled and split == "train")
        if not named and split == "train":
            return None
        if named:
            files[split] = tuple(named)
            classes |= {path: label for path, label in named.items() if label is not None}
    if unnamed := len(texts) - len({path for found in files.values() for path in found}):
        files_were = "1 file that no table names was" if unnamed == 1 else f"{unnamed} files that no table names were"
        notes.append(f"{files_were} left out.")
    return ClassFolders(Found(**files), classes, notes)


def _named(
    name: str, path: Path, index: Index[Path], fields: Fields, limits: Limits, notes: list[str], *, needed: bool
) -> dict[Path, str | None]:
    """The files that a table names, in its order, and their labels; none where it is a table of something else."""
    columns = _columns(name, path, limits)
    file = file_column(columns)
    if fields.text in columns or file is None:
        return {}
    label = label_column(name, columns, file, None if fields.label == "label" else fields.label, needed=needed)
    wanted = Wanted(also=(file, label) if label else (file,), others=False)
    table = read_table([(name, path)], limits, wanted=wanted)
    labels = table.columns[label].to_pylist() if label else [None] * table.rows
    found: dict[Path, str | None] = {}
    unknown = 0
    for row, (cell, given) in enumerate(zip(table.columns[file].to_pylist(), labels, strict=True), 1):
        file_named = index.find(name, row, cell) if cell else None
        if file_named is None:
            unknown += 1
        elif found.setdefault(file_named, given) != given:
            labelled = " and as ".join(f"'{(label or '')[:60]}'" for label in (found[file_named], given))
            raise invalid(name, f"labels '{cell}' as {labelled}")
    if found:
        notes += table.notes
    if found and unknown:
        rows = "row names no file that is there and was" if unknown == 1 else "rows name no file that is there and were"
        notes.append(f"{name}: {unknown} {rows} left out.")
    return found


def _columns(name: str, path: Path, limits: Limits) -> list[str]:
    if is_json(path):
        first = next(jsonl_reader.records(name, path, limits), None)
        return list(first[1]) if first else []
    return said_of(next(stream_table(name, path, limits, Wanted(others=False))))[0]


def files_below(folder: Path) -> list[Path]:
    """All files below the folder, by path, without hidden ones and what programs leave behind."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts[:-1])
        and not path.name.startswith(".")
        and not LEFT_BEHIND & {part.lower() for part in path.relative_to(folder).parts}
    ]


def _folders(data: Path) -> list[Path]:
    return [path for path in visible(data) if path.is_dir()]
