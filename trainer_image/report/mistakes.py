"""The worst mistakes as a person can look at them: pictures, excerpts, or rows of a table."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer_image.report import pictures
from trainer_image.report.html import Content, number, paragraph, section, shortened, table, text
from trainer_image.report.pictures import LONGEST_CELL, Shots
from trainer_image.tasks import plugins
from trainer_image.units import format_bytes

if TYPE_CHECKING:  # the report of `task: command` needs neither torch nor pictures
    from torch import nn

    from trainer_image.tasks.base import Example, Problem

log = logging.getLogger(__name__)


def withheld(findings: Content) -> Content:
    """The same without what single rows of the test split say: `report: {examples: false}`."""
    return {name: value for name, value in findings.items() if name not in ("points", "worst", "samples")} | (
        {"worst": None} if "worst" in findings else {}
    )


def named(problem: Problem, findings: Content, outputs: Any) -> dict[int, Shots]:
    """Writes into every entry of findings["worst"] its "example" and returns the pictures by row.

    outputs: of all rows of the test split. Where the task fails at it, that is a note of the problem's.
    """
    worst = findings.get("worst")
    if not isinstance(worst, list):
        return {}
    del worst[pictures.MOST_EXAMPLES :]
    try:
        rows = [int(entry["row"]) for entry in worst]
        examples = list(_examples(problem, rows, outputs)) if rows else []
        for entry, example in zip(worst, examples, strict=False):
            entry["example"] = pictures.as_json(example)
        return {row: shots for row, shots in zip(rows, _drawn(problem, examples), strict=False) if shots}
    except Exception as error:  # the model is trained and tested: rows without names are no reason to lose it
        _left_out(problem, "examples", error, "names the worst mistakes by number only")
        return {}


def gallery(problem: Problem, model: nn.Module, outputs: Any) -> list[tuple[Content, Shots]]:
    """What the task shows beside the worst mistakes, and the pictures of each.

    model: the foremost of the published ones; outputs: of all rows of the test split
    """
    try:
        examples = list(problem.gallery(model, outputs))[: pictures.MOST_EXAMPLES]
        return list(zip(map(pictures.as_json, examples), _drawn(problem, examples), strict=True))
    except Exception as error:  # as above
        _left_out(problem, "gallery", error, "has no pictures of the task's")
        return []


def _examples(problem: Problem, rows: Sequence[int], outputs: Any) -> list[Example]:
    """What was written for the first version of the interface takes the rows alone."""
    parameters = inspect.signature(problem.examples).parameters.values()
    if sum(each.default is each.empty and each.kind is not each.VAR_POSITIONAL for each in parameters) == 1:
        return problem.examples(rows)  # type: ignore[call-arg]
    of_rows = {name: tensor[rows] for name, tensor in outputs.items()} if isinstance(outputs, dict) else outputs[rows]
    return problem.examples(rows, of_rows)


def _drawn(problem: Problem, examples: Sequence[Example]) -> list[Shots]:
    drawn = pictures.encoded(examples)
    wanted = [
        shots for shots, example in zip(drawn, examples, strict=True) if example.pictures or example.pixels is not None
    ]
    if left := sum(not shots for shots in wanted):
        problem.notes.append(
            f"The report lacks the pictures of {left} of {len(wanted)} examples: all together may take"
            f" {format_bytes(pictures.MOST_BYTES)}."
        )
    return drawn


def _left_out(problem: Problem, hook: str, error: Exception, lacks: str) -> None:
    said = plugins.last_line(error, type(problem).__module__)
    sentence = f"The report {lacks}: {type(problem).__module__}:{type(problem).__qualname__}.{hook} failed: {said}"
    log.warning("%s", sentence, exc_info=error)
    problem.notes.append(sentence)


def shown(
    title: str,
    sentence: str,
    worst: Sequence[Content] | None,
    columns: Mapping[str, str],
    shots: Mapping[int, Shots],
) -> str:
    """The section. columns: key of an entry → what it is called; what an entry's example has decides the form.
    worst: None where config.yaml wants no rows in the report."""
    if worst is None:
        return section("mistakes", title, paragraph("Not shown: config.yaml says report: {examples: false}."))
    if not worst:
        return section("mistakes", title, paragraph("There is none."))
    lead = paragraph(sentence)
    if any(entry["row"] in shots for entry in worst):
        drawn = [
            (
                _name(entry),
                [*_said(entry, columns), *pictures.cells_of(entry.get("example", {}))],
                shots.get(entry["row"], {}),
            )
            for entry in worst
        ]
        return section("mistakes", title, lead, pictures.listed(drawn))
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
