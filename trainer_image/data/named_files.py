"""Tables that say what files are: `labels.csv` beside a folder of images or of texts.

They call a file by its path from anywhere, by its name alone, or by its name without the suffix, in any case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from trainer_image.errors import invalid

# How columns are called, without what is no letter: the first one that a table has counts.
FILE_COLUMNS = (
    *("filename", "file", "filepath", "filepaths", "imagepath", "imagefile", "imagename", "image", "imageid"),
    *("imageindex", "imgname", "imgpath", "imgid", "img", "textfile", "textid", "document", "documentid", "docid"),
    *("path", "id", "name", "dateiname", "datei", "bild", "fichier", "archivo"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "classname", "target", "category", "labelname", "classlabel", "categoryname"),
    *("classid", "labelid", "categoryid", "klasse", "kategorie", "classe", "clase"),
)
# What says no label, but which split a row is of.
SPLIT_COLUMNS = ("split", "splits", "subset", "set", "dataset", "partition", "fold", "usage", "istrain", "istraining")
T = TypeVar("T")


def file_column(columns: Sequence[str]) -> str | None:
    """The column with the files' names; None: there is none."""
    return _called(columns, FILE_COLUMNS)


def label_column(
    table: str, columns: Sequence[str], file: str, label: str | None, *, needed: bool = True
) -> str | None:
    """The column with the labels; None for a table that has none. label: as data.target says it

    Raises DatasetInvalid where one is needed: for a column that is not there, and where it is not to be seen which one
    is meant.
    """
    listed = ", ".join(columns[:10])
    if label is not None and (needed or label in columns):
        if label not in columns:
            raise invalid(table, f"has no column '{label}' (data.target; found {listed})")
        return label
    others = [column for column in columns if column != file]
    found = _called(others, LABEL_COLUMNS)
    if found is None and len(others) == 1 and not split_column(others):
        found = others[0]
    if found is None and others and needed:
        raise invalid(table, f"has no column 'label' (found {listed}); name the column with the classes in data.target")
    return found


def split_column(columns: Sequence[str]) -> str | None:
    """The column that says which split a row is of."""
    return _called(columns, SPLIT_COLUMNS)


def _called(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that has the first of these names that one has."""
    plain = {re.sub("[^a-z0-9]", "", column.lower()): column for column in reversed(columns)}
    return next((plain[name] for name in names if name in plain), None)


class Index(Generic[T]):
    """Files by what a table may call them."""

    def __init__(self, files: Iterable[tuple[str, T]], kind: str) -> None:
        """files: each with its path within the split; kind: what they are, in the plural"""
        self._kind = kind
        self._found: dict[str, T | None] = {}
        without: dict[str, T | None] = {}
        for path, file in files:
            place = plain(path).casefold()
            bare = _without_suffix(place)
            while place:
                for names, name in ((self._found, place), (without, bare)):
                    names[name] = None if name in names else file  # None: several are called so
                place, bare = place.partition("/")[2], bare.partition("/")[2]
        self._found = without | self._found

    def find(self, table: str, row: int, named: str) -> T | None:
        """The file that this row of the table names: by its whole path where that is known, else by the end of it.

        Raises DatasetInvalid for a name that several have.
        """
        # As Windows writes it; a backslash is in no name of a dataset's file.
        name = re.sub(r"(^|/)(\./)+", r"\1", plain(named).strip().replace("\\", "/")).casefold()
        while name:
            if name in self._found:
                file = self._found[name]
                if file is None:
                    raise invalid(
                        table, f"row {row}: several {self._kind} are called '{named}'; name them with their folder"
                    )
                return file
            name = name.partition("/")[2]
        return None


def plain(name: str) -> str:
    """Letters with accents as one character each, as tables have them: a Mac's folders and zips have them as two."""
    return unicodedata.normalize("NFC", name)


def _without_suffix(place: str) -> str:
    head, slash, name = place.rpartition("/")
    return head + slash + (name.rpartition(".")[0] or name)
