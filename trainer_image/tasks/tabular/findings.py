"""What was found of a table's columns, in sentences for the report: one for all columns of which the same is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainer_image.tasks.tabular.columns import SHOWN

# Columns of which the same is said are named in one sentence from this many on.
TOGETHER = 4
_MANY = {
    "mixes": "mix",
    "numbers": "number",
    "is": "are",
    "was": "were",
    "has": "have",
    "holds": "hold",
    "looks": "look",
}


@dataclass
class Findings:
    """Sentences for the report: notes are decisions made on the user's behalf, warnings what looks wrong."""

    _notes: list[tuple[str, str, str]] = field(default_factory=list)
    _warnings: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, column: str, what: str, kind: str = "") -> None:
        """kind: the same without what is the column's own, to be said of many at once"""
        self._notes.append((column, what, kind or what))

    def warn(self, column: str, what: str, kind: str = "") -> None:
        self._warnings.append((column, what, kind or what))

    def left_out(self, column: str) -> bool:
        return any(name == column and "left out" in what for name, what, _ in self._notes)

    @property
    def notes(self) -> list[str]:
        return _sentences(self._notes)

    @property
    def warnings(self) -> list[str]:
        return _sentences(self._warnings)


def _sentences(said: Sequence[tuple[str, str, str]]) -> list[str]:
    """One for each column, and one for all columns of a kind where they are many."""
    columns: dict[str, list[str]] = {}
    for column, _, kind in said:
        columns.setdefault(kind, []).append(column)
    sentences: dict[str, None] = {}
    for column, what, kind in said:
        alike = columns[kind]
        if len(alike) < TOGETHER:
            sentences[f"Column '{column}' {what}."] = None
            continue
        many = re.sub(r"(^|(?<= and ))\w+", lambda verb: _MANY.get(verb[0], verb[0]), kind)
        shown = ", ".join(alike[:SHOWN]) + (", …" if len(alike) > SHOWN else "")
        sentences[f"{len(alike)} columns {many}: {shown}."] = None
    return list(sentences)
