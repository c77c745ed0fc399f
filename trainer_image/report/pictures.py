"""Pictures for people: of rows of the test split, or what a task draws. Encoded from pixels, bounded, side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from trainer_image.report.html import paragraph, section, text

if TYPE_CHECKING:  # the report of `task: command` needs neither torch nor pictures
    from trainer_image.tasks.base import Example

# The pictures of one example: caption → PNG file, "" for one that needs no words.
Shots = Mapping[str, bytes]

# Bounds of what a plug-in may put into the report: examples, pictures of each, pixels of a side (of one alone, and of
# those that stand side by side), characters and bytes of all together.
MOST_EXAMPLES, MOST_SHOTS = 24, 6
LONGEST_SIDE, LONGEST_SIDE_OF_SEVERAL = 96, 192
LONGEST_NAME, LONGEST_CAPTION, LONGEST_TEXT, LONGEST_CELL, MOST_CELLS = 300, 40, 600, 80, 12
MOST_BYTES = 8 * 1024**2


def encoded(examples: Sequence[Example]) -> list[Shots]:
    """The pictures of each example; of those after MOST_BYTES none.

    Encoded here from decoded pixels: no byte of a user's file gets into the page. Raises ValueError for what is no
    picture.
    """
    found: list[Shots] = []
    room = MOST_BYTES
    for example in examples:
        single = {"": example.pixels} if example.pixels is not None else {}
        wanted = list((single | dict(example.pictures)).items())[:MOST_SHOTS]
        longest = LONGEST_SIDE if len(wanted) == 1 else LONGEST_SIDE_OF_SEVERAL
        shots = {str(caption)[:LONGEST_CAPTION]: thumbnail(pixels, longest) for caption, pixels in wanted}
        room -= sum(map(len, shots.values()))
        found.append(shots if room >= 0 else {})
    return found


def thumbnail(pixels: Any, longest: int = LONGEST_SIDE) -> bytes:
    """A PNG file of uint8 (channels, height, width), a tensor or an array, shrunk where a side is longer. Raises
    ValueError."""
    import numpy as np
    from PIL import Image

    array = np.asarray(pixels.cpu() if hasattr(pixels, "cpu") else pixels)
    channels_last = array.ndim == 3 and len(array) > 4 and array.shape[2] in (1, 3, 4)  # as pillow has them
    if array.dtype != np.uint8 or array.ndim != 3 or len(array) in (0, 2) or not array.size or channels_last:
        raise ValueError(
            f"a picture is uint8 (1 or 3 channels, height, width); one of {array.dtype} {array.shape} was given"
        )
    grey = len(array) == 1
    image = Image.fromarray(np.ascontiguousarray(array[0] if grey else array[:3].transpose(1, 2, 0)))
    image.thumbnail((longest, longest))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def as_json(example: Example) -> dict[str, Any]:
    """What of an example is no picture, for report.json."""
    cells = list(example.cells.items())[:MOST_CELLS]
    found: dict[str, Any] = {"name": str(example.name)[:LONGEST_NAME]}
    if cells:
        found["cells"] = {str(column)[:LONGEST_CELL]: str(cell)[:LONGEST_CELL] for column, cell in cells}
    if example.text:
        found["text"] = str(example.text)[:LONGEST_TEXT]
    return found


def listed(entries: Sequence[tuple[str, Sequence[str], Shots]]) -> str:
    """(name, lines, pictures) of each, in a grid."""
    several = any(len(shots) > 1 for _, _, shots in entries)
    items = "".join(f"<li>{_entry(*entry)}</li>" for entry in entries)
    return f'<ul class="pictures{" several" if several else ""}">{items}</ul>'


def _entry(name: str, lines: Sequence[str], shots: Shots) -> str:
    shown = "".join(
        f'<figure aria-label="{text(caption)}"><figcaption>{text(caption)}</figcaption>'
        f"{_image(f'{name}: {caption}', png)}</figure>"
        if caption
        else _image(name, png)
        for caption, png in shots.items()
    )
    if len(shots) > 1 or any(shots):
        shown = f'<div class="shots">{shown}</div>'
    said = "".join(f"{text(line)}<br>" for line in lines)
    return f'{shown}{said}<span class="soft">{text(name)}</span>'


def _image(name: str, png: bytes) -> str:
    return f'<img alt="{text(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def cells_of(example: Mapping[str, Any]) -> list[str]:
    return [f"{column}: {cell}" for column, cell in example.get("cells", {}).items()]


def gallery(examples: Sequence[Mapping[str, Any]], shots: Sequence[Shots]) -> str:
    """The section of what a task shows beside the worst mistakes. shots: of the examples, of the first ones at least"""
    if not examples:
        return ""
    entries = [
        (example["name"], [*cells_of(example), *([example["text"]] if "text" in example else [])], pictures)
        for example, pictures in zip(examples, chain(shots, repeat({})), strict=False)
    ]
    return section("pictures", "Pictures", paragraph("As the task drew them."), listed(entries))
