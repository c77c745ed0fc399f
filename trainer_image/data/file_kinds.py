"""Files that were brought as a text and are none: recognised by their first bytes, with advice on what to do."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

from trainer_image.errors import DatasetInvalid, TrainerError, invalid

_BLANKS = dict.fromkeys(map(ord, "\t\r\n\ufeff"))
# Enough bytes to recognise them.
START_BYTES = 24
A_TEXT = "a text"
ZIP = b"PK\x03\x04"
OLD_OFFICE = b"\xd0\xcf\x11\xe0"
_AS_CSV = "save it as CSV"
_OF_R = 'in R: write.csv(table, "train.csv", row.names = FALSE)'
_OF_SPSS = "save it as CSV (in SPSS: File, Export; in Python: pandas.read_spss)"
_OF_STATA = "save it as CSV (in Stata: export delimited; in Python: pandas.read_stata)"
_OF_HDF = "save the table as Parquet or CSV (in Python: pandas.read_hdf, to_parquet)"
_UNPACK = "unpack it, or pack it as .zip, .tar.gz or .gz"
_PICKLE = "reading one runs what it holds, so it is never read; save the table as Parquet (in Python: to_parquet)"
_NUMPY = "save it as CSV with a header that names the columns"
_EXPORT = "export the table as CSV"
_AS_PNG = "write each image as a PNG into a folder for its class"
NAME_IT = "a table as text needs a name like train.csv"
_ROWS = "write it as CSV with a header, a row for each text"
# First bytes → (what it is, what would be right).
_KINDS = {
    b"%PDF-": ("a PDF", "save its text as a text file"),
    b"\x89PNG\r\n": ("a PNG image", ""),
    b"\xff\xd8\xff": ("a JPEG image", ""),
    b"GIF8": ("a GIF image", ""),
    ZIP: (
        "a zip archive, or a workbook or document of an office program",
        "give it the name that it has (.zip, .xlsx, .ods), or save it as {what}",
    ),
    OLD_OFFICE: ("a workbook or document of an old office program", "give it the name .xls, or save it as {what}"),
    b"\x1f\x8b": ("packed with gzip", "give it a name that ends in .gz"),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "give it a name that ends in .zst"),
    b"PAR1": ("a Parquet file", "give it a name that ends in .parquet"),
    b"ARROW1": ("a Feather file", "give it a name that ends in .feather"),
    b"\xff\xff\xff\xff": ("an Arrow stream", "give it a name that ends in .arrow"),
    b"ORC": ("an ORC file", "give it a name that ends in .orc"),
    b"SQLite format 3": ("a SQLite database", "export the table as {what}"),
    b"\x7fELF": ("a program", ""),
    b"{\\rtf": ("a document in Rich Text Format", "save it as {what}"),
    b"version https://git-lfs": ("a pointer of Git LFS", "the file itself was not fetched: `git lfs pull` does it"),
    b"7z\xbc\xaf": ("a 7-Zip archive", _UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    b"\xfd7zXZ": ("packed with xz", _UNPACK),
    b"BZh": ("packed with bzip2", _UNPACK),
    b"$FL2@": ("a file of SPSS", _OF_SPSS),
    b"$FL3@": ("a file of SPSS", _OF_SPSS),
    b"<stata_dta>": ("a file of Stata", _OF_STATA),
    b"\x89HDF\r\n": ("an HDF5 file", _OF_HDF),
    b"RDX": ("a file of R", _OF_R),
    b"RDA": ("a file of R", _OF_R),
    b"\x93NUMPY": ("a NumPy array", _NUMPY),
    b"MATLAB 5.0": ("a file of MATLAB", _EXPORT),
    b"Obj\x01": ("an Avro file", "save it as Parquet"),
    b"\0\1\0\0Standard": ("an Access database", _EXPORT),
    **{b"\x80" + bytes([version]) + b"\x95": ("a pickle of Python", _PICKLE) for version in (4, 5)},
    **{b"\x80" + bytes([version, sign]): ("a pickle of Python", _PICKLE) for version in (2, 3) for sign in b"}](cX"},
    b"\0\0\x08\x03": ("an IDX file of images, as of MNIST", _AS_PNG),
    b"\0\0\x08\x01": ("an IDX file of labels, as of MNIST", _AS_PNG),
    b"__label__": ("a file of fastText", _ROWS),
}
# The same by the ends of their names, and some that have no bytes of their own.
_ENDS = {
    (".sav", ".zsav", ".por"): ("a file of SPSS", _OF_SPSS),
    (".dta",): ("a file of Stata", _OF_STATA),
    (".sas7bdat", ".xpt"): ("a file of SAS", "save it as CSV (in SAS: proc export; in Python: pandas.read_sas)"),
    (".rds", ".rdata", ".rda"): ("a file of R", _OF_R),
    (".pkl", ".pickle", ".joblib"): ("a pickle of Python", _PICKLE),
    (".h5", ".hdf5", ".hdf"): ("an HDF5 file", _OF_HDF),
    (".npy", ".npz"): ("a NumPy array", _NUMPY),
    (".mat",): ("a file of MATLAB", _EXPORT),
    (".sqlite", ".sqlite3", ".db"): ("a database", _EXPORT),
    (".mdb", ".accdb"): ("an Access database", _EXPORT),
    (".7z",): ("a 7-Zip archive", _UNPACK),
    (".rar",): ("a RAR archive", _UNPACK),
    (".xz", ".bz2", ".z", ".lz4", ".br"): ("packed in a way that is not read", _UNPACK),
    (".pdf",): ("a PDF", "bring the table that it shows as CSV"),
    (".doc", ".docx", ".odt", ".rtf", ".pages"): ("a document", "bring the table in it as CSV"),
    (".epub", ".mobi", ".azw3", ".djvu"): ("a book", "save its text as a text file"),
    (".conll", ".conllu", ".bio", ".iob"): ("a text in columns, as of CoNLL", _ROWS),
    (".mbox", ".eml", ".msg", ".pst"): ("mail", _ROWS),
    (".sgm", ".sgml"): ("a text in SGML", _ROWS),
    (".tfrecord", ".tfrecords"): ("a file of TensorFlow", "write its rows as a table, its images as PNG"),
    (".pt", ".pth", ".safetensors"): ("a file of tensors", "save rows as a table, images as PNG"),
    (".ppt", ".pptx", ".odp", ".key"): ("a presentation", "bring the table in it as CSV"),
    (".numbers",): ("a workbook of Numbers", "export it as CSV or Excel"),
    (".avro",): ("an Avro file", "save it as Parquet"),
    (".xml", ".html", ".htm", ".yaml", ".yml", ".toml"): ("no table", _AS_CSV),
    (".libsvm", ".svm", ".svmlight"): ("a file of LIBSVM", _AS_CSV),
    (".geojson", ".shp", ".kml", ".gpkg"): ("a map", "export its attributes as CSV"),
    (".sql", ".dump"): ("a dump of a database", _EXPORT),
    (".msgpack", ".bson", ".pb"): ("a file of binary records", _AS_CSV),
    (".ipynb",): ("a notebook", "bring the table that it reads or makes"),
    (".gsheet",): ("a link to a sheet of Google", "download the sheet as CSV or Excel"),
    (".part", ".partial", ".crdownload", ".download"): ("a download that did not end", "fetch it again"),
    (".gpg", ".pgp", ".enc", ".age"): ("encrypted", "decrypt it"),
    (".duckdb", ".lance"): ("a database", "export the table as CSV or Parquet"),
    (".md", ".tex"): ("a text", "bring the table in it as CSV"),
    (".arff",): ("a file of Weka", _AS_CSV),
    (".txt", ".dat", ".data", ".log"): (A_TEXT, NAME_IT),
}


def unread(path: Path, start: bytes | None = None) -> str:
    """A clause about a file that was brought in place of a table: what it is and the way out; "": unknown.

    start: its first START_BYTES, where it is no file by itself
    """
    unknown = ("", "")
    if start is None:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            start = file.read(START_BYTES)
        unknown = (A_TEXT, NAME_IT) if _is_text(start) else unknown
    of_its_own = by_start(start) if start.startswith(b"__label__") else None
    kind, advice = of_its_own or _by_name(path.name) or by_start(start) or unknown
    return f"{path.name} is {kind}: {_way_out(path.name, kind, advice).format(what='CSV')}" if kind else ""


def _is_text(start: bytes) -> bool:
    """Whether a file that begins so may be a text in UTF-8."""
    try:
        return bool(start) and codecs.getincrementaldecoder("utf-8")().decode(start).translate(_BLANKS).isprintable()
    except UnicodeDecodeError:
        return False


def _way_out(name: str, kind: str, advice: str) -> str:
    if kind.startswith("packed with") and name.lower().endswith((".gz", ".zst")):
        return "unpack it, or name it for what it holds, like train.csv.gz"
    return advice or "leave it out"


def by_start(start: bytes) -> tuple[str, str] | None:
    """What a file is by its first START_BYTES, and what would be right ("{what}": what was expected); None: unknown."""
    if start[4:8] == b"ftyp":  # what phones and cameras write
        brand = start[8:12]
        kind = "a HEIC image" if brand in (b"heic", b"heix", b"mif1", b"msf1") else "a video, or an image in AVIF"
        return kind, "save it as PNG or JPEG"
    if start.lower().startswith((b"<!doctype html", b"<html")):
        return "a web page", "was the page saved that asks for a password?"
    return next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)


def _by_name(name: str) -> tuple[str, str] | None:
    # Shards have their number behind the suffix: flowers.tfrecord-00000-of-00002.
    name = re.sub(r"-\d+-of-\d+$", "", name.lower())
    return next((kind for ends, kind in _ENDS.items() if name.endswith(ends)), None)


def check(name: str, start: bytes, what: str) -> None:
    """Raises DatasetInvalid for a file that begins like no text.

    start: its first START_BYTES; what: it was expected to be, e.g. "CSV"
    """
    kind, instead = by_start(start) or ("", "")
    if (kind == "a web page" and what == A_TEXT) or not kind:
        return
    if start.startswith((ZIP, OLD_OFFICE)) and (named := _by_name(name)) and named[0] != A_TEXT:
        kind, instead = named[0], "save its text as a text file" if what == A_TEXT else named[1]
    raise invalid(name, f"is {kind}, not {what}; {_way_out(name, kind, instead).format(what=what)}")


def not_utf8(name: str, row: int, byte: int) -> DatasetInvalid:
    """The error for a text in another encoding."""
    return invalid(name, f"row {row} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8 (in Excel: CSV UTF-8)")


def left_out(count: int, unread: Sequence[TrainerError], kind: str) -> list[str]:
    """A note where some of `count` files to be predicted are none of a kind, which is in the plural."""
    if not unread:
        return []
    why = unread[0].sentence.removeprefix("Invalid dataset: ")
    return [f"{len(unread)} of {count} files are no {kind} and have no prediction, the first of them: {why}."]
