"""The texts of a dataset, one after another: in memory while they fit, in a file of the work folder beyond that.

What is kept of each text beside its bytes (place, label, group) are six numbers, 48 bytes a text.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from trainer_image.data.spill import Scratch, mapped
from trainer_image.data.table import Part
from trainer_image.errors import DatasetInvalid, invalid

BLOCK_BYTES = 1024**2
Bytes = bytes | memoryview
Array = np.ndarray[Any, np.dtype[np.uint8]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Source:
    """A file of texts. in_table: its rows are counted from 0 and without the header, until somebody asks for a name;
    needed: by which columns this header was found"""

    name: str
    path: Path
    in_table: bool = False
    needed: tuple[str, ...] = ()

    def rows(self, rows: Sequence[int]) -> list[int]:
        """As an editor numbers them; reads a table once more."""
        return Part(self.name, self.path, 0, self.needed).rows_at(rows) if self.in_table else list(rows)

    def error(self, row: int, why: str) -> DatasetInvalid:
        """A `DatasetInvalid` that names file and row."""
        found = self.rows([row])[0]
        return invalid(self.name, f"row {found}: {why}" if found else why)


@dataclass(frozen=True)
class Text:
    """One document: its bytes (UTF-8), its label and group where they were asked for and there; row 0: a whole file."""

    content: bytes
    row: int = 0
    label: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Texts:
    """Documents as stretches of `content`, uint8. The other arrays have an element a text.

    label, group: positions in `labels` and `groups`, -1: none; file: position in `files`
    """

    content: Array
    starts: Ints
    sizes: Ints
    files: tuple[Source, ...]
    file: Ints
    rows: Ints
    labels: tuple[str, ...]
    label: Ints
    groups: tuple[str, ...]
    group: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, index: Ints | slice) -> Texts:
        """These of them; their bytes are not copied."""
        chosen = {name: getattr(self, name)[index] for name in ("starts", "sizes", "file", "rows", "label", "group")}
        return replace(self, **chosen)

    def contents(self, most: int | None = None) -> Contents:
        """The texts alone, or the first `most` bytes of each."""
        return Contents(self, most)

    def group_names(self) -> np.ndarray[Any, Any]:
        """The group of each text, None where it has none."""
        return np.array([*self.groups, None], object)[self.group]

    def names(self, index: Ints | None = None) -> list[str]:
        """Where they are found, for people: "train.csv, row 7"; every table is read once."""
        some = self if index is None else self.select(index)
        names = [""] * len(some)
        for number in np.unique(some.file).tolist():
            at = np.flatnonzero(some.file == number).tolist()
            source = self.files[number]
            for place, row in zip(at, source.rows(some.rows[at].tolist()), strict=True):
                names[place] = f"{source.name}, row {row}" if row else source.name
        return names

    def error(self, index: int, why: str) -> DatasetInvalid:
        """A `DatasetInvalid` that names the text's file and row."""
        source: Source = self.files[int(self.file[index])]
        return source.error(int(self.rows[index]), why)


class Contents(Sequence[memoryview]):
    """The bytes of texts, read when they are looked at."""

    def __init__(self, texts: Texts, most: int | None = None) -> None:
        self._texts, self._most = texts, most
        self._view = texts.content.data

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> Contents: ...
    def __getitem__(self, index: int | slice) -> memoryview | Contents:
        if isinstance(index, slice):
            return Contents(self._texts.select(index), self._most)
        start, size = int(self._texts.starts[index]), int(self._texts.sizes[index])
        return self._view[start : start + (size if self._most is None else min(size, self._most))]


class TextKeeper:
    """Takes texts, and moves to a file when they become too many for memory.

    check: says why a text is left out, None where it is taken
    """

    def __init__(self, scratch: Scratch, check: Callable[[Text], str | None] = lambda text: None) -> None:
        self._scratch, self._check = scratch, check
        self._buffer = bytearray()
        self._out: BinaryIO | None = None
        self._taken = self._size = self._begun = 0
        self._files: list[Source] = []
        # What is to be said about how the files were read.
        self.notes: list[str] = []
        # Why texts were left out: how many, and an error that names the first.
        self.left_out: dict[str, tuple[int, DatasetInvalid]] = {}
        self._labels: dict[str | None, int] = {None: -1}
        self._groups: dict[str | None, int] = {None: -1}
        self._columns = {name: array("q") for name in ("starts", "sizes", "file", "rows", "label", "group")}

    def __len__(self) -> int:
        return len(self._columns["starts"])

    def begin(self, source: Source) -> None:
        """What follows is of this file."""
        self._files.append(source)

    def add(self, text: Text) -> None:
        if self._takes(text):
            self.write(text.content)
            self.end(text.row, text.label, text.group)

    def write_all(self, blocks: Iterable[bytes], label: str | None, group: str | None) -> None:
        """A whole file: what is wrong with it is found by its first block that is not empty."""
        takes, checked = True, False
        try:
            for block in blocks:
                if not checked and block.strip():
                    checked, takes = True, self._takes(Text(block, label=label, group=group))
                if not takes:
                    break
                self.write(block)
            if not checked:
                takes = self._takes(Text(b"", label=label, group=group))
        except DatasetInvalid:
            takes = False
            raise
        finally:
            if takes:
                self.end(0, label, group)
            else:
                self._begun = self._size  # what was written of it belongs to no text

    def _takes(self, text: Text) -> bool:
        why = self._check(text)
        if why:
            count, first = self.left_out.get(why) or (0, self._files[-1].error(text.row, why))
            self.left_out[why] = count + 1, first
        return not why

    def write(self, block: bytes) -> None:
        """A part of the text that `end` ends."""
        self._size += len(block)
        self._buffer += block
        if self._out is None and len(self._buffer) > self._taken:
            more = max(BLOCK_BYTES, len(self._buffer) - self._taken)
            if self._scratch.take(more):
                self._taken += more
                return
            self._out = self._scratch.file(len(self._buffer)).open("wb")
            self._scratch.release(self._taken)
        if self._out is not None and len(self._buffer) >= BLOCK_BYTES:
            self._flush()

    def end(self, row: int, label: str | None = None, group: str | None = None) -> None:
        values = {
            "starts": self._begun,
            "sizes": self._size - self._begun,
            "file": len(self._files) - 1,
            "rows": row,
            # None has -1; the first name after it has 0.
            "label": self._labels.setdefault(label, len(self._labels) - 1),
            "group": self._groups.setdefault(group, len(self._groups) - 1),
        }
        for name, value in values.items():
            self._columns[name].append(value)
        self._begun = self._size

    def texts(self) -> Texts:
        """All of them; the keeper is used up."""
        columns = {name: np.frombuffer(column or array("q", [0]), np.int64) for name, column in self._columns.items()}
        columns = {name: column[: len(self)] for name, column in columns.items()}
        return Texts(
            content=self._content(),
            files=tuple(self._files),
            labels=tuple(name for name in self._labels if name is not None),
            groups=tuple(name for name in self._groups if name is not None),
            **columns,
        )

    def _content(self) -> Array:
        if self._out is None:
            return np.frombuffer(self._buffer or bytearray(1), np.uint8)
        self._flush()
        self._out.close()
        self._scratch.spilled_bytes += self._size
        # As an ordinary array: each of many small slices of a memmap costs microseconds more.
        return np.asarray(mapped(Path(self._out.name), np.uint8))

    def _flush(self) -> None:
        assert self._out is not None
        self._scratch.room_for(len(self._buffer))
        self._out.write(self._buffer)
        self._buffer.clear()
