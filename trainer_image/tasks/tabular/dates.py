"""Dates as people write them → days since 1970, without a guess row by row: one form for the whole column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.formats.numbers import marked, numbers

Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_TIME = r"(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d{1,9})?)?(?: ?(?P<half>[ap])\.?m\.?)?"
# The colon is SAS's, and Apache's.
_CLOCK = rf"(?:(?:[T :]|, ){_TIME})?(?: ?(?:Z|UTC|GMT|(?P<zone>[+-]\d\d(?::?\d\d)?)))?"
_DAYS = r"(?:(?P<passed>\d{1,6}) ?d(?:ays?)?,? ?)?"
# English names only.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAME = rf"(?P<name>{'|'.join(_MONTHS)})[a-z]*\.?"
_DAY_OF_WEEK = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?"
# In the order in which they are preferred where a column fits several. The signs between are Chinese and Japanese ones.
FORMS = {
    "year-month-day": _DAY_OF_WEEK
    + r"(?P<year>\d{4})[-/.\x{5E74}](?P<month>\d\d?)[-/.\x{6708}](?P<day>\d\d?)\x{65E5}?"
    + _CLOCK,
    "20260131T170500": r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)T(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?Z?",
    "day.month.year": _DAY_OF_WEEK + r"(?P<day>\d\d?)\.(?P<month>\d\d?)\.(?P<year>\d{4})" + _CLOCK,
    "month/day/year": _DAY_OF_WEEK + r"(?P<month>\d\d?)/(?P<day>\d\d?)/(?P<year>\d{4})" + _CLOCK,
    "day/month/year": _DAY_OF_WEEK + r"(?P<day>\d\d?)/(?P<month>\d\d?)/(?P<year>\d{4})" + _CLOCK,
    "day-month-year": _DAY_OF_WEEK + r"(?P<day>\d\d?)-(?P<month>\d\d?)-(?P<year>\d{4})" + _CLOCK,
    "31 Jan 2026": rf"{_DAY_OF_WEEK}(?P<day>\d\d?)(?:st|nd|rd|th)?[ ./-]*{_NAME}[ ,./-]*(?P<year>\d{{4}}|\d\d){_CLOCK}",
    "Jan 31, 2026": rf"{_DAY_OF_WEEK}{_NAME}[ ./-]+(?P<day>\d\d?)(?:st|nd|rd|th)?(?:, ?| )(?P<year>\d{{4}}){_CLOCK}",
    "year-month": r"(?P<year>\d{4})[-/](?P<month>\d\d?)",
    "month/year": r"(?P<month>\d\d?)[-/](?P<year>\d{4})",
    "Jan 2026": rf"{_NAME}[ ,./'-]*(?P<year>\d{{4}}|\d\d)",
    "2026 Jan": rf"(?P<year>\d{{4}})[ ./-]?{_NAME}",
    "year-Wweek": r"(?P<year>\d{4})[- ]?W(?P<week>\d\d?)(?:-?(?P<weekday>[1-7]))?",
    "year-Qquarter": r"(?P<year>\d{4})[- /]?Q(?P<quarter>[1-4])",
    "Qquarter year": r"Q(?P<quarter>[1-4])[- /]?(?P<year>\d{4})",
    "hour:minute": _TIME,
    "9 PM": r"(?P<hour>\d\d?) ?(?P<half>[ap])\.?m\.?",
    "hours:minutes": rf"{_DAYS}(?P<hours>\d{{1,4}}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d{{1,9}})?)?",
    "2h 5m": (
        rf"P?{_DAYS}T?(?:(?P<hours>\d{{1,4}}) ?h(?:(?:ou)?rs?)?)?[ ,:]*(?:(?P<minutes>\d{{1,5}}) ?m(?:in(?:ute)?s?)?)?"
        r"[ ,:]*(?:(?P<seconds>\d{1,6}) ?s(?:ec(?:ond)?s?)?)?"
    ),
}
TIMES_OF_DAY = frozenset({"hour:minute", "9 PM"})
# How long something took, and when in no day: no place in the year, the week or the day.
DURATIONS = frozenset({"hours:minutes", "2h 5m"})
# The same in columns of numbers. Seconds and their parts are since 1970, for dates from 1990 to 2099.
EPOCHS = {
    "epoch seconds": 86_400.0,
    "epoch milliseconds": 86_400_000.0,
    "epoch microseconds": 86_400_000_000.0,
    "epoch nanoseconds": 86_400_000_000_000.0,
}
# Excel counts days from before 1900; 25569 is the first of January 1970.
EXCEL, _EXCEL_1970 = "days of Excel", 25_569.0
EPOCH_DAYS = (7305.0, 47482.0)
NUMBER_FORMS = {
    "yearmonthday": r"(?P<year>19\d\d|20\d\d)(?P<month>\d\d)(?P<day>\d\d)(?:\.0+)?",
    "yearmonth": r"(?P<year>19\d\d|20\d\d)(?P<month>\d\d)(?:\.0+)?",
    **dict.fromkeys((*EPOCHS, EXCEL), ""),
}
# Between which numbers they lie.
CALENDAR = {"yearmonthday": (19000101, 20991231), "yearmonth": (190001, 209912)}
ALL_FORMS = FORMS | NUMBER_FORMS
# Dates that people write, whether `days` reads them or not: those with two digits for a year it does not.
_MONTH = rf"(?:{'|'.join(_MONTHS)})[a-z]*\.?"
_UNREAD = (
    rf"(?i)^(?:\d\d?[./\- ]{_MONTH},?[./\- ]\d{{2,4}}|{_MONTH} \d\d?,? \d{{2,4}}|\d\d?[./-]\d\d?[./-]\d\d"
    r"|\d{4}[./-]\d\d?[./-]\d\d?|\d\d?[./-]\d\d?[./-]\d{4}"
    # Months in other languages, and Java's own way: Sat Jan 31 17:05:00 CET 2026.
    r"|\d\d?\.? (?:de )?\p{L}{3,10}\.?(?: de)? \d{4}"
    rf"|{_DAY_OF_WEEK}{_MONTH} \d\d? \d\d:\d\d:\d\d (?:\w+ )?\d{{4}})(?:[ T,].*)?$"
)
# What MySQL writes where there is no date.
_NO_DAY = r"^\s*0000-00-00(?:[ T]|\s*$)"
# Forms that only the values can tell apart: no day above 12 leaves both possible.
AMBIGUOUS = ("month/day/year", "day/month/year")


def days(cells: pa.Array, form: str) -> tuple[Floats, Mask]:
    """Days since 1970 in UTC, with the time of day as fraction, NaN where there is none; and where a cell is no date.

    Both (rows,). A date that does not exist (30 February) is none; a marker is NaN, and no stray, as among `numbers`.
    Without a zone a time counts as UTC.
    """
    said = pc.or_(pc.is_null(cells), marked(cells).fill_null(False)).to_numpy(zero_copy_only=False)
    said |= pc.match_substring_regex(cells, _NO_DAY).fill_null(False).to_numpy(zero_copy_only=False)
    if form in EPOCHS or form == EXCEL:
        values = numbers(cells)[0]
        values = values - _EXCEL_1970 if form == EXCEL else values / EPOCHS[form]
        good = (values >= EPOCH_DAYS[0]) & (values < EPOCH_DAYS[1])
    else:
        found = pc.extract_regex(pc.utf8_trim_whitespace(cells), f"^(?i:{ALL_FORMS[form]})$")
        if found.null_count == len(found):  # most columns are none of most forms
            return np.full(len(cells), np.nan), ~said
        values, good = _read(found)
        if form in DURATIONS:  # all of its parts may lack, and then P and T are letters
            good &= pc.match_substring_regex(cells, r"\d").fill_null(False).to_numpy(zero_copy_only=False)
    return np.where(good, values, np.nan), ~good & ~said


def _read(found: pa.Array) -> tuple[Floats, Mask]:
    """(days, whether there is such a day) of what a form's pattern has found, null where it has not."""
    known: Mask = pc.is_valid(found).to_numpy(zero_copy_only=False)

    def text(name: str, instead: str) -> pa.Array | None:
        if found.type.get_field_index(name) < 0:
            return None
        texts = pc.fill_null(pc.struct_field(found, name), instead)
        return pc.if_else(pc.equal(texts, ""), instead, texts)

    def field(name: str, instead: int = 0) -> Ints:
        texts = text(name, str(instead))
        if texts is None:
            return np.full(len(found), instead, np.int64)
        values: Ints = pc.cast(texts, pa.int64()).to_numpy(zero_copy_only=False)
        return values

    year = field("year", 1970)
    # As POSIX has it: 69 to 99 are of the last century.
    year = np.where(year < 69, year + 2000, np.where(year < 100, year + 1900, year))
    month, day = field("month", 1), field("day", 1)
    if (names := text("name", _MONTHS[0])) is not None:
        months = pc.index_in(pc.utf8_lower(names), value_set=pa.array(_MONTHS, names.type))
        month = months.to_numpy(zero_copy_only=False).astype(np.int64) + 1
    if found.type.get_field_index("quarter") >= 0:
        month = 3 * field("quarter", 1) - 2
    hour, minute, second = field("hour"), field("minute"), field("second")
    exists = np.ones(len(found), bool)
    if (half := text("half", "-")) is not None:
        halves = pc.utf8_lower(half).to_numpy(zero_copy_only=False)
        exists &= (halves == "-") | ((hour >= 1) & (hour <= 12))
        hour = np.where(halves == "-", hour, hour % 12 + 12 * (halves == "p"))
    zone = text("zone", "0")
    offset_minutes = np.zeros(len(found), np.int64)
    if zone is not None:
        digits = pc.replace_substring_regex(pc.replace_substring(zone, ":", ""), r"^\+", "")
        offset = pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False)
        hours_alone = pc.less_equal(pc.utf8_length(zone), 3).to_numpy(zero_copy_only=False)  # "+02"
        offset = np.where(hours_alone, offset * 100, offset)
        offset_minutes = np.sign(offset) * (np.abs(offset) // 100 * 60 + np.abs(offset) % 100)
    passed = (np.where(known, year, 1970) - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = passed.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    following = (passed + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    exists &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= following - first)
    exists &= (hour < 24) & (minute < 60) & (second <= 60)
    if found.type.get_field_index("week") >= 0:
        # ISO 8601: week 1 is the one with the fourth of January; 1970 began on a Thursday.
        week = field("week", 1)
        begin = first + 3 - (first + 3 + 3) % 7
        exists &= (week >= 1) & (week <= 53)
        first = begin + 7 * (week - 1) + field("weekday", 1) - 1
    hour, minute = hour + 24 * field("passed") + field("hours"), minute + field("minutes")
    second = second + field("seconds")
    values = first + day - 1 + (hour * 3600 + (minute - offset_minutes) * 60 + second) / 86400
    return values, known & exists


def form_of(cells: pa.Array, forms: Iterable[str]) -> str | None:
    """The form in which all of these cells are dates, None where there is none. Cells: a few of each kind will do."""
    return next((form for form in forms if len(cells) and not days(cells, form)[1].any()), None)


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
