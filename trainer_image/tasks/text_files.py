"""Reading texts: JSON Lines or tables with a text column, and plain files, each also as .gz.

A text is a document of its own: a row of a table, a line of JSON, or a whole plain file. Everything is UTF-8. What
cannot be read is a `DatasetInvalid` that says file and row; rows are counted as an editor counts lines.
"""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from trainer_image.contract import Limits
from trainer_image.errors import DatasetInvalid, LimitExceeded
from trainer_image.splits import NAMES, Found, visible
from trainer_image.tables import invalid, no_such_column, read_table

JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
ROW_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
BLOCK_BYTES = 1024**2
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Text:
    """One document: its bytes (UTF-8), its label and group where they were asked for and there; row 0: a whole file."""

    content: bytes
    file: str
    row: int = 0
    label: str | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        """Where it is found, for people: "train.csv, row 7"."""
        return f"{self.file}, row {self.row}" if self.row else self.file

    def error(self, why: str) -> DatasetInvalid:
        """A `DatasetInvalid` that names file and row."""
        return invalid(self.file, f"row {self.row}: {why}" if self.row else why)


@dataclass(frozen=True)
class Fields:
    """The columns, or keys of JSON objects, that are read; None: not asked for."""

    text: str = "text"
    label: str | None = None
    group: str | None = None


def find_texts(data: Path, *, plain: bool) -> Found:
    """The files of each split: `train.jsonl`, a folder `train/` of shards, or all there is when no split is named.

    plain: any other file counts as a text, too. Raises DatasetInvalid when there is no training text.
    """
    if data.is_file():
        return Found((data,))
    splits: dict[str, tuple[Path, ...]] = {}
    rest: list[Path] = []
    for path in visible(data):
        files = tuple(f for f in ([path] if path.is_file() else _files(path)) if plain or _has_rows(f))
        split = NAMES.get(path.name.lower().split(".")[0] if path.is_file() else path.name.lower())
        if not files:
            continue
        if split is None:
            rest += files
        elif split in splits:
            raise invalid(path.name, f"is a second {split} split beside {splits[split][0].name}; keep one of them")
        else:
            splits[split] = files
    if "train" not in splits and not splits:
        splits["train"] = tuple(rest)
    if not splits.get("train"):
        names = ", ".join(p.name for p in visible(data)[:5]) or "nothing"
        expected = "train.jsonl, train.csv" + (", train.txt" if plain else "")
        raise DatasetInvalid(
            f"Invalid dataset: no training text found: expected {expected} or a folder train/ with such files, "
            f"found {names}"
        )
    return Found(splits["train"], splits.get("validation", ()), splits.get("test", ()))


def _files(folder: Path) -> list[Path]:
    """All files below the folder, by path, without hidden ones and what programs leave behind."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts[:-1])
        and not path.name.startswith(".")
    ]


def _has_rows(path: Path) -> bool:
    return path.name.lower().endswith(ROW_SUFFIXES)


def read_texts(
    files: Sequence[Path], root: Path, fields: Fields, limits: Limits, *, labelled: bool = True
) -> list[Text]:
    """All documents of a split, in order. `root` is the dataset's folder, for the names in messages; labelled: a table
    must have the label's column."""
    texts: list[Text] = []
    for path in files:
        name = path.relative_to(root).as_posix() if path != root else path.name
        lower = path.name.lower()
        if lower.endswith(JSON_SUFFIXES):
            texts += _from_json(name, path, fields, limits)
        elif _has_rows(path):
            texts += _from_table(name, path, fields, limits, labelled)
        else:
            content = _unpacked(name, path, limits).removeprefix(BYTE_ORDER_MARK)
            _check_utf8(name, content)
            texts.append(Text(content, name, group=name if fields.group else None))
    return texts


def _from_table(name: str, path: Path, fields: Fields, limits: Limits, labelled: bool) -> Iterator[Text]:
    table = read_table([(name, path)], limits)
    known = list(table.columns)
    wanted = {key: column for key, column in vars(fields).items() if column}
    if not labelled and fields.label not in known:
        wanted.pop("label", None)
    for key, column in wanted.items():
        if column not in known:
            option = {"text": "data.text", "label": "data.target", "group": "data.group"}[key]
            raise no_such_column(name, column, option, known)
    cells = {key: table.columns[column].to_pylist() for key, column in wanted.items()}
    places = table.locate_all(range(table.rows))
    for index, (file, row) in enumerate(places):
        values = {key: column[index] for key, column in cells.items()}
        yield Text(
            (values["text"] or "").encode(), file, row, _stripped(values.get("label")), _stripped(values.get("group"))
        )


def _stripped(value: str | None) -> str | None:
    return value.strip() or None if value is not None else None


def _from_json(name: str, path: Path, fields: Fields, limits: Limits) -> Iterator[Text]:
    content = _unpacked(name, path, limits).removeprefix(BYTE_ORDER_MARK)
    _check_utf8(name, content)
    # Lines end with \n alone: U+2028 and their like may stand within a JSON string.
    for row, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise invalid(name, f"row {row}: is no JSON object; one object a line is expected")
        if fields.text not in record:
            raise invalid(name, f"row {row}: {_missing(fields.text, list(record))}")
        text = record[fields.text]
        if not isinstance(text, str):
            raise invalid(name, f"row {row}: '{fields.text}' holds no text")
        try:
            encoded = text.encode()
        except UnicodeEncodeError:
            raise invalid(
                name, f"row {row}: '{fields.text}' holds half of a surrogate pair, which is no text"
            ) from None
        if limits.field_bytes and len(encoded) > limits.field_bytes:
            raise LimitExceeded(
                f"{name}: row {row}: '{fields.text}' has {len(encoded)} bytes; the limit is {limits.field_bytes}"
            )
        label = _scalar(name, row, fields.label, record)
        yield Text(encoded, name, row, label, _scalar(name, row, fields.group, record))


def _missing(field: str, keys: Sequence[str]) -> str:
    near = difflib.get_close_matches(field, keys, 1, 0.5)
    return f"has no '{field}' (data.text)" + (
        f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(keys[:8]) or 'no keys'}"
    )


def _scalar(name: str, row: int, field: str | None, record: dict[str, Any]) -> str | None:
    value = record.get(field) if field else None
    if isinstance(value, (dict, list)):
        raise invalid(name, f"row {row}: '{field}' is no single value")
    return _stripped(value if isinstance(value, str) else json.dumps(value)) if value is not None else None


def _unpacked(name: str, path: Path, limits: Limits) -> bytes:
    """The file's bytes, unpacked where it is a .gz; a bomb is stopped at the limit of a whole dataset."""
    if not path.name.lower().endswith(".gz"):
        return path.read_bytes()
    parts: list[bytes] = []
    size = 0
    try:
        with gzip.open(path, "rb") as packed:
            while block := cast(BinaryIO, packed).read(BLOCK_BYTES):
                size += len(block)
                if limits.dataset_bytes and size > limits.dataset_bytes:
                    raise LimitExceeded(f"{name} unpacks to more than the limit of {limits.dataset_bytes} bytes")
                parts.append(block)
    except (OSError, EOFError, zlib.error) as error:
        raise invalid(name, f"cannot be unpacked as gzip ({error})") from None
    return b"".join(parts)


def _check_utf8(name: str, content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise invalid(name, f"row {row} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8") from None
