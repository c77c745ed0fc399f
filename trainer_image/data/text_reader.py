"""Reading texts: JSON Lines or tables with a text column, and plain files, each also as .gz.

A text is a document of its own: a row of a table, a line of JSON, or a whole plain file. Everything is UTF-8. What
cannot be read is a `DatasetInvalid` that says file and row; rows are counted as an editor counts lines. Files are read
piece by piece: they may be larger than memory, which text_store.py keeps the texts out of.
"""

from __future__ import annotations

import codecs
import difflib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainer_image.data import file_kinds
from trainer_image.data.encodings import joined, open_utf8, remark
from trainer_image.data.formats import cells
from trainer_image.data.formats.cells import Wanted, said_of
from trainer_image.data.formats.jsonl_reader import lines
from trainer_image.data.named_files import split_column
from trainer_image.data.splits import NAMES, NO_DATA, Found, by_split, is_table, visible
from trainer_image.data.table import is_json, is_jsonl, no_such_column, stream_table
from trainer_image.data.text_folders import ClassFolders, Fields, files_below, find_class_folders, find_named
from trainer_image.data.text_store import Source, Text, TextKeeper
from trainer_image.errors import DatasetInvalid, LimitExceeded, invalid
from trainer_image.limits import Limits

BLOCK_BYTES = 1024**2
# Cells of a table that are Python objects at a time.
CELLS = 1024


def find_texts(data: Path, *, plain: bool) -> Found:
    """The files of each split: `train.jsonl`, a folder `train/` of shards, or all there is when no split is named.

    plain: any other file counts as a text, too. Raises DatasetInvalid when there is no training text.
    """
    if data.is_file():
        return Found((data,))
    found = _split_files(data, plain)
    if not found.train:
        raise _nothing(data, "train.jsonl, train.csv" + (", train.txt" if plain else ""), "with such files")
    return found


def find_labelled(data: Path, fields: Fields, limits: Limits, *, labelled: bool = True) -> ClassFolders:
    """The files of each split as `find_texts` finds them, those that tables name, or, where there is no table, folders
    of classes. labelled: whether training texts have to have labels"""
    if data.is_file():
        return ClassFolders(Found((data,)))
    found = _split_files(data, plain=False)
    if found.train:
        return find_named(data, found, fields, limits, labelled=labelled) or ClassFolders(found, notes=found.notes)
    folders = find_class_folders(data)
    if folders is None:
        raise _nothing(data, "train.jsonl, train.csv", "with such files, or with a folder of text files for each class")
    return folders


def find_unlabelled(data: Path, fields: Fields, limits: Limits) -> ClassFolders:
    """What is to be predicted: a dataset as `find_labelled` finds it, or a folder of texts, one file each."""
    if not data.is_file() and not _split_files(data, plain=False).train and find_class_folders(data) is None:
        found = find_texts(data, plain=True)
        return ClassFolders(found, notes=found.notes)
    return find_labelled(data, fields, limits, labelled=False)


def _split_files(data: Path, plain: bool) -> Found:
    data = _top_of(data, plain)
    splits, rest, guessed = by_split(
        data,
        lambda path: [f for f in ([path] if path.is_file() else files_below(path)) if plain or is_table(f)],
        lambda path: path.name.lower().split(".")[0] if path.is_file() else path.name.lower(),
    )
    beside = tuple(path for path in rest if is_table(path) and not NO_DATA.search(path.name.lower()))
    return Found(**{"train": (), **splits}, guessed=guessed, beside=beside) if splits else Found(rest)


def _top_of(data: Path, plain: bool) -> Path:
    """The folder that holds the dataset: of one folder beside which nothing is read, the inner one."""
    while True:
        found = [path for path in visible(data) if path.is_dir() or plain or is_table(path)]
        if len(found) != 1 or found[0].is_file() or found[0].name.lower() in NAMES:
            return data
        [data] = found


def _nothing(data: Path, files: str, folder: str) -> DatasetInvalid:
    names = ", ".join(p.name for p in visible(data)[:5]) or "nothing"
    hint = next((f"; {said}" for p in visible(data) if (said := file_kinds.unread(p))), "")
    rows = "write it as CSV with the columns text and label, or each of its texts as a file in a folder for its class"
    hint = hint.replace(file_kinds.NAME_IT, rows)
    return DatasetInvalid(
        f"Invalid dataset: no training text found: expected {files} or a folder train/ {folder}, found {names}{hint}"
    )


def read_texts(
    files: Sequence[Path],
    root: Path,
    fields: Fields,
    limits: Limits,
    keeper: TextKeeper,
    *,
    labelled: bool = True,
    classes: Mapping[Path, str] | None = None,
) -> slice:
    """Hands all documents of a split to the keeper, in order; which of its texts they are. `root` is the dataset's
    folder, for the names in messages; labelled: a table must have the label's column; classes: of plain files."""
    first = len(keeper)
    for path in files:
        name = path.relative_to(root).as_posix() if path != root else path.name
        in_json = is_jsonl(path)
        # A JSON document is a table of labelled texts, and one text among many to learn to write from.
        in_table = is_table(path) and not in_json and (fields.label is not None or not is_json(path))
        keeper.begin(Source(name, path, in_table, (fields.text,)))
        if in_json:
            texts = _from_json(name, path, fields, limits)
        elif in_table:
            texts = _from_table(name, path, fields, limits, labelled, keeper.notes)
        else:
            texts = iter(())
            keeper.write_all(_plain(name, path, limits), (classes or {}).get(path), name if fields.group else None)
        for text in texts:
            keeper.add(text)
        keeper.notes += [] if in_table else remark(name, path, limits)
    return slice(first, len(keeper))


def read_readable(
    files: Sequence[Path],
    root: Path,
    fields: Fields,
    limits: Limits,
    keeper: TextKeeper,
    classes: Mapping[Path, str] | None = None,
) -> list[str]:
    """`read_texts` of what is to be predicted: one file among several that is no text is left out, with a note. Notes
    are the keeper's, too. Raises DatasetInvalid for a table, and where there is no text at all but a table
    without rows."""
    unread: list[DatasetInvalid] = []
    for path in files:
        try:
            read_texts([path], root, fields, limits, keeper, labelled=False, classes=classes)
        except DatasetInvalid as error:
            if is_table(path):
                raise
            unread.append(error)
    if not len(keeper):
        if unread or not all(map(is_table, files)) or not files:
            raise unread[0] if unread else invalid(root.name, "holds no texts")
        keeper.notes.append(f"{files[0].name} has no rows: there is nothing to predict.")
    return [*joined(keeper.notes), *file_kinds.left_out(len(files), unread, "texts")]


def _from_table(
    name: str, path: Path, fields: Fields, limits: Limits, labelled: bool, notes: list[str]
) -> Iterator[Text]:
    wanted = {key: column for key, column in vars(fields).items() if column}
    rows = itertools.count()
    read = Wanted((fields.text,), tuple(wanted.values()), others=False)
    for number, batch in enumerate(stream_table(name, path, limits, read)):
        known = batch.schema.names
        notes += said_of(batch)[1] if not number else []
        if labelled and fields.label and not number and (split := split_column([*said_of(batch)[0], *known])):
            why = "splits are told by files or folders that are named for them"
            notes.append(f"{name}: the column '{split}' was not used: {why}.")
        for key, column in [] if number else list(wanted.items()):
            if column in known:
                continue
            if key == "label" and not labelled:
                wanted.pop(key)
                continue
            option = {"text": "data.text", "label": "data.target", "group": "data.group"}[key]
            raise no_such_column(name, column, option, [*said_of(batch)[0], *known])
        for start in range(0, batch.num_rows, CELLS):
            part: pa.RecordBatch = batch.slice(start, CELLS)
            columns = [part.column(column).to_pylist() for column in wanted.values()]
            for row in zip(*columns, strict=True):
                values = dict(zip(wanted, row, strict=True))
                content = (values["text"] or "").encode()
                yield Text(content, next(rows), _stripped(values.get("label")), _stripped(values.get("group")))


def _stripped(value: str | None) -> str | None:
    return value.strip() or None if value is not None else None


def _from_json(name: str, path: Path, fields: Fields, limits: Limits) -> Iterator[Text]:
    # JSON may write a byte as six; other keys have room beside the text.
    longest = cells.BLOCK_BYTES + 6 * limits.field_bytes if limits.field_bytes else -1
    for row, line in lines(name, path, limits, longest):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            record = None
        except ValueError:  # Python turns no more than 4300 digits into a number
            raise invalid(name, f"row {row}: holds a number of thousands of digits; write it in quotes") from None
        if not isinstance(record, dict):
            raise invalid(name, f"row {row}: is no JSON object; one object a line is expected")
        if fields.text not in record:
            raise invalid(name, f"row {row}: {_missing(fields.text, list(record))}")
        text = record[fields.text] if record[fields.text] is not None else ""  # as an empty cell of a table
        if not isinstance(text, str):
            raise invalid(name, f"row {row}: '{fields.text}' holds no text")
        encoded = _encoded(name, row, fields.text, text)
        if limits.field_bytes and len(encoded) > limits.field_bytes:
            raise LimitExceeded(
                f"{name}: row {row}: '{fields.text}' has {len(encoded)} bytes; the limit is {limits.field_bytes}"
            )
        label = _scalar(name, row, fields.label, record)
        yield Text(encoded, row, label, _scalar(name, row, fields.group, record))


def _missing(field: str, keys: Sequence[str]) -> str:
    near = difflib.get_close_matches(field, keys, 1, 0.5)
    return f"has no '{field}' (data.text)" + (
        f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(keys[:8]) or 'no keys'}"
    )


def _scalar(name: str, row: int, field: str | None, record: dict[str, Any]) -> str | None:
    value = record.get(field) if field else None
    if isinstance(value, list) and len(value) == 1:
        [value] = value  # as programs write labels that could be several
    if isinstance(value, (dict, list)):
        many = f"holds {len(value)} labels" if isinstance(value, list) else "holds an object"
        raise invalid(name, f"row {row}: '{field}' {many}; one text or number is expected in each row")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 and 1 are one class, as in a table
    if isinstance(value, str):
        _encoded(name, row, str(field), value)
        return _stripped(value)
    return None if value is None else json.dumps(value)


def _encoded(name: str, row: int, field: str, value: str) -> bytes:
    r"""JSON may say half a character (`\ud800`), which neither a file nor a screen can hold."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise invalid(name, f"row {row}: '{field}' holds half of a surrogate pair, which is no text") from None


def _plain(name: str, path: Path, limits: Limits) -> Iterator[bytes]:
    """The file's bytes in blocks, unpacked where it is a .gz, without a byte order mark."""
    with open_utf8(name, path, limits, file_kinds.A_TEXT) as raw:
        decoder = codecs.getincrementaldecoder("utf-8")()
        lines = 0
        block = raw.read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8)
        while True:
            before = decoder.getstate()[0]  # the beginning of a character that the block before ended in
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                seen = before + block
                raise file_kinds.not_utf8(
                    name, lines + seen.count(b"\n", 0, error.start) + 1, seen[error.start]
                ) from None
            if not block:
                return
            yield block
            lines += block.count(b"\n")
            block = raw.read(BLOCK_BYTES)
