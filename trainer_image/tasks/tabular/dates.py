"""Dates as people write them → days since 1970, without a guess row by row: one form for the whole column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.numbers import marked

Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_CLOCK = (
    r"(?:[T ](?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d{1,9})?)?)?"
    r"(?: ?(?:Z|UTC|(?P<zone>[+-]\d\d:?\d\d)))?"
)
# In the order in which they are preferred where a column fits several.
FORMS = {
    "year-month-day": r"(?P<year>\d{4})[-/.](?P<month>\d\d?)[-/.](?P<day>\d\d?)",
    "day.month.year": r"(?P<day>\d\d?)\.(?P<month>\d\d?)\.(?P<year>\d{4})",
    "month/day/year": r"(?P<month>\d\d?)/(?P<day>\d\d?)/(?P<year>\d{4})",
    "day/month/year": r"(?P<day>\d\d?)/(?P<month>\d\d?)/(?P<year>\d{4})",
    "day-month-year": r"(?P<day>\d\d?)-(?P<month>\d\d?)-(?P<year>\d{4})",
}
# Dates that people write and `days` does not read: two digits for a year, names of months. English names only.
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_UNREAD = (
    rf"(?i)^(?:\d\d?[./\- ]{_MONTH},?[./\- ]\d{{2,4}}|{_MONTH} \d\d?,? \d{{2,4}}|\d\d?[./-]\d\d?[./-]\d\d"
    r"|\d{4}[./-]\d\d?[./-]\d\d?|\d\d?[./-]\d\d?[./-]\d{4})(?:[ T,].*)?$"
)
# Forms that only the values can tell apart: no day above 12 leaves both possible.
AMBIGUOUS = ("month/day/year", "day/month/year")


def days(cells: pa.Array, form: str) -> tuple[Floats, Mask]:
    """Days since 1970 in UTC, with the time of day as fraction, NaN where there is none; and where a cell is no date.

    Both (rows,). A date that does not exist (30 February) is none; a marker is NaN, and no stray, as among `numbers`.
    Without a zone a time counts as UTC.
    """
    trimmed = pc.utf8_trim_whitespace(cells)
    found = pc.extract_regex(trimmed, f"^{FORMS[form]}{_CLOCK}$")
    known = pc.is_valid(found).to_numpy(zero_copy_only=False)

    def field(name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        texts = pc.fill_null(pc.struct_field(found, name), "0")
        texts = pc.if_else(pc.equal(texts, ""), "0", texts)
        values: np.ndarray[Any, np.dtype[np.int64]] = pc.cast(texts, pa.int64()).to_numpy(zero_copy_only=False)
        return values

    year, month, day = field("year"), field("month"), field("day")
    hour, minute, second = field("hour"), field("minute"), field("second")
    zone = pc.replace_substring(pc.fill_null(pc.struct_field(found, "zone"), ""), ":", "")
    zone = pc.cast(pc.replace_substring_regex(pc.if_else(pc.equal(zone, ""), "0", zone), r"^\+", ""), pa.int64())
    offset = zone.to_numpy(zero_copy_only=False)
    offset_minutes = np.sign(offset) * (np.abs(offset) // 100 * 60 + np.abs(offset) % 100)
    months = (np.where(known, year, 1970) - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    following = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    exists = (month >= 1) & (month <= 12) & (day >= 1) & (day <= following - first)
    exists &= (hour < 24) & (minute < 60) & (second <= 60)
    values = first + day - 1 + (hour * 3600 + (minute - offset_minutes) * 60 + second) / 86400
    good = known & exists
    said = pc.or_(pc.is_null(cells), marked(cells).fill_null(False)).to_numpy(zero_copy_only=False)
    return np.where(good, values, np.nan), ~good & ~said


def look_like_dates(cells: pa.Array) -> Mask:
    """Which cells a person would take for dates, whether `days` reads them or not: (rows,)."""
    seen = pc.match_substring_regex(pc.utf8_trim_whitespace(cells), _UNREAD)
    found: Mask = pc.fill_null(seen, False).to_numpy(zero_copy_only=False)
    return found


def cycles(values: Floats, *, clock: bool) -> Floats:
    """Sine and cosine of the place in the year, in the week and, with `clock`, in the day: (rows, 4 or 6); 0 for NaN.

    The last of December lies beside the first of January, which no number of a month says.
    """
    filled = np.where(np.isfinite(values), values, 0.0)
    turns = [filled / 365.2425, filled / 7] + ([filled] if clock else [])
    waves = np.stack([wave(2 * np.pi * turn) for turn in turns for wave in (np.sin, np.cos)], axis=1)
    waves[~np.isfinite(values)] = 0.0
    return np.asarray(waves)
