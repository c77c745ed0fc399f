"""The worst mistakes as a person can look at them: pictures, excerpts, or rows of a table."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer_image.report.html import Content, number, paragraph, section, shortened, table, text

if TYPE_CHECKING:  # the report of `task: command` needs neither torch nor pictures
    from trainer_image.tasks.base import Example, Problem

log = logging.getLogger(__name__)

# Bounds of what a plug-in may put into the report: rows, pixels of a picture's side, characters, columns.
MOST_ROWS = 24
LONGEST_SIDE = 96
LONGEST_TEXT = 600
LONGEST_CELL = 80
MOST_CELLS = 12


def withheld(findings: Content) -> Content:
    """The same without what single rows of the test split say: `report: {examples: false}`."""
    return {name: value for name, value in findings.items() if name not in ("points", "worst", "samples")} | (
        {"worst": None} if "worst" in findings else {}
    )


def named(problem: Problem, findings: Content) -> dict[int, bytes]:
    """Writes into every entry of findings["worst"] its "example" and returns the pictures, PNG files by row.

    A picture is encoded here from decoded pixels: no byte of a user's file gets into the page.
    """
    worst = findings.get("worst")
    if not isinstance(worst, list):
        return {}
    del worst[MOST_ROWS:]
    try:
        rows = [int(entry["row"]) for entry in worst]
        examples = problem.examples(rows) if rows else []
        pictures = {}
        for entry, row, example in zip(worst, rows, examples, strict=False):
            entry["example"] = _as_json(example)
            if example.pixels is not None:
                pictures[row] = thumbnail(example.pixels.cpu().numpy())
    except Exception as error:  # the model is trained and tested: rows without names are no reason to lose it
        log.warning("The report names the worst mistakes by number only: %s: %s", type(error).__name__, error)
        return {}
    return pictures


def _as_json(example: Example) -> Content:
    cells = list(example.cells.items())[:MOST_CELLS]
    found: Content = {"name": str(example.name)[:300]}
    if cells:
        found["cells"] = {str(column)[:LONGEST_CELL]: str(cell)[:LONGEST_CELL] for column, cell in cells}
    if example.text:
        found["text"] = str(example.text)[:LONGEST_TEXT]
    return found


def thumbnail(pixels: Any) -> bytes:
    """A PNG file of an array uint8 (channels, height, width), shrunk to LONGEST_SIDE."""
    import numpy as np
    from PIL import Image

    grey = len(pixels) == 1
    image = Image.fromarray(np.ascontiguousarray(pixels[0] if grey else pixels[:3].transpose(1, 2, 0), np.uint8))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def shown(
    title: str,
    sentence: str,
    worst: Sequence[Content] | None,
    columns: Mapping[str, str],
    pictures: Mapping[int, bytes],
) -> str:
    """The section. columns: key of an entry → what it is called; what an entry's example has decides the form.
    worst: None where config.yaml wants no rows in the report."""
    if worst is None:
        return section("mistakes", title, paragraph("Not shown: config.yaml says report: {examples: false}."))
    if not worst:
        return section("mistakes", title, paragraph("There is none."))
    lead = paragraph(sentence)
    if any(entry["row"] in pictures for entry in worst):
        return section("mistakes", title, lead, _pictures(worst, columns, pictures))
    if any("text" in entry.get("example", {}) for entry in worst):
        return section("mistakes", title, lead, "".join(_excerpt(entry, columns) for entry in worst))
    return section("mistakes", title, lead, _rows(worst, columns))


def _name(entry: Content) -> str:
    return str(entry.get("example", {}).get("name") or f"test row {entry['row'] + 1}")


def _said(entry: Content, columns: Mapping[str, str]) -> list[str]:
    return [f"{called}: {_cell(entry, key)}" for key, called in columns.items()]


def _cell(entry: Content, key: str) -> str:
    value = entry.get(key)
    if key.startswith("probability") and isinstance(value, float):
        return f"{value:.3f}"
    return number(value) if isinstance(value, int | float) else shortened(value, LONGEST_CELL)


def _pictures(worst: Sequence[Content], columns: Mapping[str, str], pictures: Mapping[int, bytes]) -> str:
    items = []
    for entry in worst:
        png = pictures.get(entry["row"])
        said = _said(entry, columns)
        image = (
            f'<img alt="{text(_name(entry))}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            if png
            else ""
        )
        lines = "<br>".join(text(line) for line in said)
        items.append(f'<li>{image}{lines}<br><span class="soft">{text(_name(entry))}</span></li>')
    return f'<ul class="pictures">{"".join(items)}</ul>'


def _excerpt(entry: Content, columns: Mapping[str, str]) -> str:
    said = " · ".join([*_said(entry, columns), _name(entry)])
    excerpt = entry.get("example", {}).get("text", "")
    return f'<div class="excerpt"><p class="soft small">{text(said)}</p><p>{text(excerpt)}</p></div>'


def _rows(worst: Sequence[Content], columns: Mapping[str, str]) -> str:
    cells = list(dict.fromkeys(column for entry in worst for column in entry.get("example", {}).get("cells", {})))
    rows = [
        [
            _name(entry),
            *(_cell(entry, key) for key in columns),
            *(entry.get("example", {}).get("cells", {}).get(column, "") for column in cells),
        ]
        for entry in worst
    ]
    textual = [k for k, key in enumerate(columns, 1) if isinstance(worst[0].get(key), str)]
    return table("Rows of the test split", ["row", *columns.values(), *cells], rows, words_in=textual)
