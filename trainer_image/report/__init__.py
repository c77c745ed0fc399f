"""The report of a training: report.json has every figure, report.html and the model card README.md show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer_image.report.card import card
from trainer_image.report.page import page
from trainer_image.report.pictures import Shots
from trainer_image.storage.manifest import write_json


def write(
    folder: Path, content: dict[str, Any], worst: Mapping[int, Shots] | None = None, gallery: Sequence[Shots] = ()
) -> None:
    """Writes report.json, report.html and README.md.

    content: plain JSON; worst: pictures by row of the test split; gallery: of each of content["gallery"]
    """
    content = without_nan(content)
    write_json(folder / "report.json", content)
    (folder / "report.html").write_text(page(content, worst or {}, gallery), encoding="utf-8")
    (folder / "README.md").write_text(card(content), encoding="utf-8")


def without_nan(value: Any) -> Any:
    """The same with null for every number that JSON does not know: one odd figure of a plug-in costs no report."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return value
