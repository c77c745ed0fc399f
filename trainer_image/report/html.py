"""Pieces of HTML. Every text is escaped here, whether it came from a dataset or not; nothing else writes tags."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

# Part of a report.json.
Content = dict[str, Any]
# An interval, or none where there is none: as report.json has it.
Interval = Sequence[float] | None


# A label may be a whole field of a table, a configuration may list ten thousand columns: none of it may flood the page.
_LONGEST_TEXT = 20_000
_MOST_BULLETS = 20


def text(value: object) -> str:
    """Escaped, for content and quoted attributes; control characters, which no document may hold, are shown as ·."""
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "·", shortened(value, _LONGEST_TEXT)))


def shortened(value: object, most: int) -> str:
    shown = str(value)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def words(name: str) -> str:
    """A figure's name as people read it."""
    special = {"r2": "R²", "rmse": "RMSE", "mae": "MAE", "roc_auc": "ROC AUC", "macro_f1": "macro F1"}
    return special.get(name, name.replace("_", " "))


def number(value: object) -> str:
    """At most four significant digits, no exponent where people would write none; "–" where there is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    shown = f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"
    return shown.replace("-", "−").replace("e+", "e")


def interval(value: Interval) -> str:
    return " to ".join(number(float(f"{end:.3g}")) for end in value) if value else "–"


def seconds(value: float) -> str:
    """A duration in the unit that people would use."""
    if value < 0.995:
        return f"{max(1, round(value * 1000))} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def section(anchor: str, title: str, *parts: str) -> str:
    """A part of the page with its heading; `page` finds it for the table of contents."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{text(anchor)}" aria-labelledby="{text(anchor)}-title">\n' + (
        f'<h2 id="{text(anchor)}-title">{text(title)}</h2>\n{body}\n</section>'
    )


def paragraph(sentence: object, kind: str = "") -> str:
    return f"<p{_class(kind)}>{text(sentence)}</p>"


def bullets(sentences: Sequence[object], kind: str = "") -> str:
    items = "".join(f"<li>{text(shortened(sentence, 1000))}</li>" for sentence in sentences[:_MOST_BULLETS])
    left = len(sentences) - _MOST_BULLETS
    more = paragraph(f"And {left:,} more in report.json.", "soft small") if left > 0 else ""
    return f"<ul{_class(kind)}>{items}</ul>{more}" if items else ""


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values, one under the other."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    hide_caption: bool = False,
    words_in: Sequence[int] = (),
) -> str:
    """A table that scrolls by itself where it is too wide. The first cell of a row names it; the cells at `words_in`
    are text, all others are figures. A `Marked` cell stands out."""
    head = "".join(
        f'<th scope="col"{_class("text" if k in words_in or k == 0 else "")}>{text(cell)}</th>'
        for k, cell in enumerate(header)
    )
    body = "".join(_row(row, words_in) for row in rows)
    hidden = ' class="hidden"' if hide_caption else ""
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{text(caption)}"><table>'
        f"<caption{hidden}>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


class Marked(str):
    """A cell that stands out, e.g. the best of its row."""

    __slots__ = ()


# A cell with more characters is broken into lines, and cut in the end.
_LINE, _LONGEST_CELL = 36, 120


def _row(row: Sequence[object], words_in: Sequence[int]) -> str:
    first, *rest = row
    cells = "".join(
        f"<td{_kind(cell, textual=k in words_in)}>"
        + (f"<strong>{text(cell)}</strong>" if isinstance(cell, Marked) else text(shortened(cell, _LONGEST_CELL)))
        + "</td>"
        for k, cell in enumerate(rest, 1)
    )
    return f'<tr><th scope="row"{_kind(first, textual=True)}>{text(shortened(first, _LONGEST_CELL))}</th>{cells}</tr>'


def _kind(cell: object, *, textual: bool) -> str:
    return _class(" ".join(["text"] * textual + ["long"] * (len(str(cell)) > _LINE)))


def details(summary: str, body: str) -> str:
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def block(value: object) -> str:
    """Preformatted text."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="text"><pre>{text(value)}</pre></div>'


def columns(*parts: str) -> str:
    """Side by side where there is room."""
    return '<div class="columns">' + "".join(f"<div>{part}</div>" for part in parts if part) + "</div>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def plain(value: Any) -> object:
    """A scalar of JSON as a cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else value
