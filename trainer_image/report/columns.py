"""What the model makes of each column of a table."""

from __future__ import annotations

from collections.abc import Sequence

from trainer_image.report import charts
from trainer_image.report.html import Content, columns, number, paragraph, section, shortened, table, words

DRAWN, LISTED = 15, 100
LONGEST_NAME = 60


def importance(found: Content | None) -> str:
    """Columns by what the headline figure loses without them; nothing where that was not measured."""
    if not found or not found["columns"]:
        return ""
    entries: Sequence[Content] = found["columns"]
    figure, drawn = words(found["figure"]), entries[:DRAWN]
    rows = [(entry["column"], entry["loss"], (entry["lowest"], entry["highest"])) for entry in drawn]
    said = "; ".join(f"{shortened(name, LONGEST_NAME)} {number(loss)}" for name, loss, _ in rows)
    left = len(entries) - len(drawn)
    more = f" The {DRAWN} largest of {len(entries)}." if left > 0 else ""
    return section(
        "importance",
        "Importance of columns",
        paragraph(
            f"By how much {figure} gets worse when a column's cells are exchanged among {number(found['rows'])} test "
            f"rows: the mean of {found['repeats']} times, and the range of them. About zero: the model does as well "
            f"without it, perhaps because other columns say the same.{more}"
        ),
        columns(
            charts.figure(
                f"Loss of {figure} without a column",
                charts.comparison("Importance of columns", said, rows, f"loss of {figure}", ranked=True),
            ),
            table(
                f"Loss of test {figure} ({number(found['whole'])} on these rows)",
                ["column", "mean loss", "lowest", "highest"],
                [
                    [entry["column"], *(number(entry[key]) for key in ("loss", "lowest", "highest"))]
                    for entry in entries[:LISTED]
                ],
            ),
        ),
    )
