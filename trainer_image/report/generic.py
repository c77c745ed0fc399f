"""Findings of a kind that the report has no pictures for: the tables that their JSON makes, bounded and escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainer_image.report import mistakes
from trainer_image.report.html import Content, block, facts, paragraph, plain, section, table, text
from trainer_image.report.pictures import Shots

MOST_ENTRIES = 100
MOST_COLUMNS = 20
LONGEST_BLOCK = 20_000
# Characters after which no further table begins.
LONGEST_SECTION = 300_000
LONGEST_CELL = 300


def sections(content: Content, pictures: Mapping[int, Shots]) -> list[str]:
    found = {name: value for name, value in content["findings"].items() if name not in ("kind", "worst", "intervals")}
    scalars = [(_called(name), _cell(value)) for name, value in found.items() if _scalar(value)]
    parts = [facts(scalars[:MOST_ENTRIES])]
    room = LONGEST_SECTION
    for name, value in found.items():
        if not _scalar(value) and room > 0:
            parts.append(f"<h3>{text(_called(name))}</h3>{_shown(name, value)}")
            room -= len(parts[-1])
    if room <= 0:
        parts.append(paragraph("What is left out here is in report.json.", "soft small"))
    worst = content["findings"].get("worst")
    entries = worst if isinstance(worst, list) else []
    # No bool, which is an int, too.
    listed = [entry for entry in entries if isinstance(entry, dict) and type(entry.get("row")) is int]
    made = [section("findings", "Findings", *parts)] if any(parts) else []
    if worst is None and "worst" in content["findings"]:
        made.append(mistakes.shown("Worst mistakes", "", None, {}, pictures))
    if listed:
        keys = {key: _called(key) for key in listed[0] if key not in ("row", "example") and _scalar(listed[0][key])}
        made.append(mistakes.shown("Worst mistakes", "As the task found them.", listed, keys, pictures))
    return made


def _scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _cell(value: object) -> object:
    shown = plain(value) if _scalar(value) else json.dumps(value, ensure_ascii=False)
    return shown[:LONGEST_CELL] if isinstance(shown, str) else shown


def _called(name: object) -> str:
    return str(name).replace("_", " ")[:LONGEST_CELL]


def _shown(name: object, value: Any) -> str:
    if isinstance(value, dict) and value and all(map(_scalar, value.values())):
        return facts((_called(key), _cell(entry)) for key, entry in list(value.items())[:MOST_ENTRIES])
    if isinstance(value, list) and value and all(isinstance(entry, dict) and entry for entry in value):
        header = list(dict.fromkeys(key for entry in value for key in entry))[:MOST_COLUMNS]
        entries = value[:MOST_ENTRIES]
        rows = [[_cell(entry.get(key)) for key in header] for entry in entries]
        textual = [
            k for k, key in enumerate(header) if any(isinstance(entry.get(key), str | list) for entry in entries)
        ]
        shown = table(_called(name), [_called(key) for key in header], rows, hide_caption=True, words_in=textual)
        return shown + _rest(value)
    if isinstance(value, list) and value and all(map(_scalar, value)):
        return paragraph(", ".join(str(_cell(entry)) for entry in value[:MOST_ENTRIES])) + _rest(value)
    dumped = json.dumps(value, indent=1, ensure_ascii=False)
    return block(dumped[:LONGEST_BLOCK] + ("\n…" if len(dumped) > LONGEST_BLOCK else ""))


def _rest(value: list[Any]) -> str:
    left = len(value) - MOST_ENTRIES
    return paragraph(f"And {left} more in report.json.", "soft small") if left > 0 else ""
