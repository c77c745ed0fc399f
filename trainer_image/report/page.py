"""report.html: one file, no outside assets, no script; light and dark by the reader's preference."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from trainer_image.report import (
    champion,
    classification,
    columns,
    curves,
    generic,
    language,
    pictures,
    regression,
    summary,
)
from trainer_image.report.document import document
from trainer_image.report.html import Content
from trainer_image.report.pictures import Shots

log = logging.getLogger(__name__)

# Kind of findings → its sections. Another kind, or one that is not shaped as its name promises, is shown as tables.
KINDS: Mapping[str, Callable[[Content, Mapping[int, Shots]], list[str]]] = {
    "classification": classification.sections,
    "regression": regression.sections,
    "language_model": language.sections,
}


def page(content: Content, worst: Mapping[int, Shots], gallery: Sequence[Shots] = ()) -> str:
    """The whole page. worst: pictures by row of the test split; gallery: those of the task's own examples."""
    title = f"Training report: {summary.task_of(content).replace('_', ' ')}"
    sections = [
        summary.verdict(content),
        champion.beside(content),
        summary.data(content),
        summary.figures(content),
        summary.candidates(content),
        curves.curves(content),
        *_findings(content, worst),
        pictures.gallery(content.get("gallery", []), gallery),
        columns.importance(content.get("importance")),
        summary.times(content),
        summary.training(content),
        summary.surroundings(content),
        summary.use(content),
    ]
    hardware = content["hardware"]
    where = hardware.get("gpu") or f"{hardware.get('cpus', '?')} CPU cores"
    head = summary.heading(content, summary.model_of(summary.task_of(content)), f" on {where}")
    return document(title, head, sections, summary.footer(content))


def _findings(content: Content, worst: Mapping[int, Shots]) -> list[str]:
    kind = content["findings"].get("kind")
    render = KINDS.get(kind) if isinstance(kind, str) else None
    if render is not None:
        try:
            return render(content, worst)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
            # A plug-in may call its findings what they are not: the figures are worth more than the picture.
            log.warning("The findings of kind %s are shown as tables: %s", kind, type(error).__name__)
    return generic.sections(content, worst)
