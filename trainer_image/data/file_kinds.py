"""Files that were brought as a text and are none: recognised by their first bytes, with advice on what to do."""

from __future__ import annotations

import codecs

from trainer_image.errors import DatasetInvalid, invalid

# Enough bytes to recognise them.
START_BYTES = 24
A_TEXT = "a text"
# First bytes → (what it is, what would be right).
_KINDS = {
    b"%PDF-": ("a PDF", "save its text as a text file"),
    b"\x89PNG\r\n": ("a PNG image", ""),
    b"\xff\xd8\xff": ("a JPEG image", ""),
    b"GIF8": ("a GIF image", ""),
    b"PK\x03\x04": ("a zip archive, or a workbook or document of an office program", "unpack it, or save it as {what}"),
    b"\xd0\xcf\x11\xe0": ("a workbook or document of an old office program", "save it as {what}"),
    b"\x1f\x8b": ("packed with gzip", "give it a name that ends in .gz"),
    b"PAR1": ("a Parquet file", "give it a name that ends in .parquet"),
    b"SQLite format 3": ("a SQLite database", "export the table as {what}"),
    b"\x7fELF": ("a program", ""),
    b"{\\rtf": ("a document in Rich Text Format", "save it as {what}"),
    b"version https://git-lfs": ("a pointer of Git LFS", "the file itself was not fetched: `git lfs pull` does it"),
    codecs.BOM_UTF16_LE: ("UTF-16", "save the file as UTF-8"),
    codecs.BOM_UTF16_BE: ("UTF-16", "save the file as UTF-8"),
}


def check(name: str, start: bytes, what: str) -> None:
    """Raises DatasetInvalid for a file that begins like no text.

    start: its first START_BYTES; what: it was expected to be, e.g. "CSV"
    """
    for magic, (kind, instead) in _KINDS.items():
        if start.startswith(magic):
            advice = instead.format(what=what) or "leave it out"
            raise invalid(name, f"is {kind}, not {what}; {advice}")
    if what != A_TEXT and start.lower().startswith((b"<!doctype html", b"<html")):
        raise invalid(name, f"is a web page, not {what}; was the page saved that asks for a password?")


def not_utf8(name: str, row: int, byte: int) -> DatasetInvalid:
    """The error for a text in another encoding."""
    return invalid(name, f"row {row} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8 (in Excel: CSV UTF-8)")
