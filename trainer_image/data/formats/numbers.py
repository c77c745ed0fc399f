"""Cells → float64, in the notation of their column: as programs write numbers, or as spreadsheets print them.

    3.14  -5  1e-3         PLAIN
    1,234.50  $ 12  1'000  a decimal point; comma, space or apostrophe between thousands; a unit before or after
    (1,234.50)  1,234.50-  negative, as accountants and mainframes write it
    1.234,50 €  12,5 kg    a decimal comma; point, space or apostrophe between thousands

A notation holds for a whole column, and is a part of the model: what was learnt as 3,14 is read as 3,14 ever after.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from trainer_image.data.formats.cells import TEXT

Values = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

PERCENT = "%"
_CODES = (
    "EUR|USD|GBP|CHF|JPY|AUD|BRL|CAD|CNY|CZK|DKK|HKD|HUF|INR|KRW|MXN|NOK|NZD|PLN|RUB|SEK|SGD|TRY|ZAR"
    r"|US\$|A\$|C\$|R\$|Rs\.?|kr\.?|" + "z\u0142|K\u010d|Ft"
)
_CURRENCY = re.compile(_CODES)
# The last are ratings: 4.5/5, 7/10, 4 out of 5 stars.
_WORD = (
    r"[A-Za-z\x{B0}\x{B5}\x{B2}\x{B3}/]{1,8}"
    r"|(?:/|out of|of|von|sur|de) ?\d{1,3}(?: (?:stars?|points?|Sternen|Punkten|\x{E9}toiles))?"
)
_UNIT = rf"{PERCENT}|\p{{Sc}}|{_CODES}"
_SPACES = r" \x{A0}\x{2009}\x{202F}"
_APOSTROPHES = r"'\x{2019}"
# The last two are a minus sign and a dash, which typesetters take for it.
_MINUS = ("-", "\u2212", "\u2013")
_SIGN = r"[+\-\x{2212}\x{2013}]?"
# Negative numbers of accountants, "(1,234.50)", and of mainframes, "1234-".
_IN_BRACKETS = r"^(\p{Sc}?) ?\(([^()+\-]+)\)$"
_MINUS_BEHIND = r"^(\p{Sc}?)([\d.,' ]*\d)-$"


@dataclass(frozen=True)
class Notation:
    """How the numbers of a column are written.

    decimal: "." or ",", each with the other one between thousands; "": plain, as programs write numbers
    unit:    what stands beside them: "%" or a word like "kg" beside each, a currency beside those that have one, "":
             nothing
    """

    decimal: Annotated[str, Field(pattern=r"^[.,]?$")] = ""
    unit: str = ""


PLAIN = Notation()
# What people, spreadsheets and databases write into a column of numbers where there is none, besides NULL_WORDS: among
# categories these words may be categories of their own.
MARKERS = frozenset(
    {
        "-",
        "--",
        "---",
        "\u2013",
        "\u2014",
        "?",
        ".",
        "..",
        "...",
        "none",
        "nil",
        "missing",
        "unknown",
        "n.a.",
        "n.d.",
        "nd",
    }
    | {
        "not available",
        "not applicable",
        "no data",
        "(na)",
        "(n/a)",
        "*",
        "nat",
        "1.#qnan",
        "-1.#ind",
        "1.#ind",
        "n.b.",
    }
    | {"k.a.", "\\n", "(null)", "(blank)", "#div/0!", "#ref!", "#value!", "#name?", "#num!", "#null!"}
)


def in_words(notation: Notation) -> str:
    """For a cell that "is no …"."""
    if not notation.decimal:
        return "number"
    shown = {".": "1,234.5", ",": "1.234,5"}[notation.decimal]
    return f"number written as in training, like {shown}{' ' * bool(notation.unit)}{notation.unit}"


def numbers(column: pa.Array, notation: Notation = PLAIN) -> tuple[Values, Mask]:
    """Cells as float64, NaN where null or no number, and a mask of those that are no number: both (rows,).

    A marker is NaN, too, and no stray: it says that there is no number.
    """
    if notation.decimal:
        values, units = measured(column, notation.decimal)
        fits = pc.equal(units, notation.unit)
        if is_currency(notation.unit):  # "12" beside "12 €" is the same money; beside "12 %" nobody knows
            fits = pc.or_(fits, pc.equal(units, ""))
        values = pc.if_else(fits, values, pa.scalar(None, pa.float64()))
        return _filled(column, pc.if_else(marked(column), float("nan"), values))
    trimmed = pc.utf8_trim_whitespace(column)
    try:
        values = pc.cast(trimmed, pa.float64())
    except pa.ArrowInvalid:
        # Some cell is no number: each different text is looked at once.
        coded = pc.dictionary_encode(trimmed)
        values = pa.array([_number(cell) for cell in coded.dictionary.to_pylist()], pa.float64()).take(coded.indices)
    return _filled(column, values)


def is_currency(unit: str) -> bool:
    """Whether it is a currency's sign or code."""
    return bool(_CURRENCY.fullmatch(unit)) or (len(unit) == 1 and unicodedata.category(unit) == "Sc")


def marked(column: pa.Array) -> pa.Array:
    """Which cells are markers; null where a cell is."""
    lowered = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    return pc.and_(pc.is_in(lowered, value_set=pa.array(sorted(MARKERS), column.type)), pc.is_valid(column))


def measured(column: pa.Array, decimal: str) -> tuple[pa.Array, pa.Array]:
    """(float64, the unit beside it, "" for none), both null for a cell that is no number with this decimal sign."""
    trimmed = pc.utf8_trim_whitespace(column)
    for written in (_IN_BRACKETS, _MINUS_BEHIND):
        trimmed = pc.replace_substring_regex(trimmed, written, r"-\1\2")
    found = pc.extract_regex(trimmed, _pattern(decimal))
    digits = pc.replace_substring_regex(
        pc.struct_field(found, "digits"), rf"[{',' if decimal == '.' else '.'}{_APOSTROPHES}{_SPACES}]", ""
    )
    digits = pc.replace_substring(digits, ",", ".")
    signs = _joined(found, "sign", "inner")
    negative = pc.is_in(signs, value_set=pa.array(_MINUS, signs.type))
    values = pc.cast(digits, pa.float64())
    values = pc.if_else(negative, pc.negate(values), values)
    units = _joined(found, "before", "after")
    # Two signs, or units on both sides, are no number.
    fine = pc.and_(pc.less_equal(pc.utf8_length(signs), 1), pc.match_substring_regex(units, f"^(?:{_UNIT}|{_WORD})?$"))
    return pc.if_else(fine, values, pa.scalar(None, pa.float64())), pc.if_else(fine, units, pa.scalar(None, TEXT))


def _joined(found: pa.Array, one: str, other: str) -> pa.Array:
    texts = (pc.cast(pc.struct_field(found, name), TEXT) for name in (one, other))
    return pc.binary_join_element_wise(*texts, pa.scalar("", TEXT))


def _pattern(decimal: str) -> str:
    thousands = [rf"[1-9]\d{{0,2}}(?:{between}\d{{3}})+" for between in (f"[{_SPACES}]", f"[{_APOSTROPHES}]")]
    thousands.append(rf"[1-9]\d{{0,2}}(?:\{',' if decimal == '.' else '.'}\d{{3}})+")
    if decimal == ".":  # lakhs and crores: 12,34,567
        thousands.append(r"[1-9]\d?(?:,\d\d)+,\d{3}")
    # An exponent of three digits would leave the range of float64.
    digits = rf"(?:(?:{'|'.join(thousands)}|\d+)(?:\{decimal}\d*)?|\{decimal}\d+)(?:[eE][+\-]?\d{{1,2}})?"
    space = rf"[{_SPACES}]*"
    return (
        rf"^(?P<sign>{_SIGN})(?P<before>(?:{_UNIT})?){space}(?P<inner>{_SIGN})(?P<digits>{digits}){space}"
        rf"(?P<after>(?:{_UNIT}|{_WORD})?)$"
    )


def _filled(column: pa.Array, values: pa.Array) -> tuple[Values, Mask]:
    bad = pc.and_(pc.is_valid(column), pc.is_null(values)).to_numpy(zero_copy_only=False)
    return pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False).copy(), bad


def _number(cell: str | None) -> float | None:
    if cell is None or "_" in cell:  # Python's float() takes 1_000; no file format does
        return None
    if cell.lower() in MARKERS:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None
