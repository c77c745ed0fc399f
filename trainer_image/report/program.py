"""report.html of `task: command`: what the program reported, and how it went."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from typing import IO

from trainer_image.report import charts, summary
from trainer_image.report.charts import Axis, Chart, Point
from trainer_image.report.document import document
from trainer_image.report.html import Content, block, bullets, columns, number, paragraph, section, table, text
from trainer_image.units import format_bytes

MOST_CURVES = 12
MOST_FIGURES = 100
# Beyond it, axes run out of digits.
LARGEST = 1e200
LINE_BYTES = 64 * 1024
# Points of a curve that are kept while a history of any length is read.
MOST_POINTS = 2 * charts.MOST_POINTS


def page(content: Content, history: IO[bytes]) -> str:
    """The whole page. history: metrics.jsonl."""
    sections = [
        figures(content),
        curves(iter(lambda: history.readline(LINE_BYTES), b"")),
        section(
            "program",
            "Program",
            block(shlex.join(content["training"]["program"])),
            paragraph(f"Fingerprint of the dataset: {content['dataset']['fingerprint']}.", "soft small"),
        ),
        files(content),
        resources(content["resources"]),
        last_lines(content["last_lines"]),
        summary.times(content),
        summary.surroundings(content),
    ]
    head = summary.heading(content, "Model of a program")
    return document("Training report: command", head, sections, summary.footer(content))


def figures(content: Content) -> str:
    """What the program wrote into metrics.json, the headline large."""
    reported, headline = content["metrics"], content["headline"]
    if not reported:
        lead = paragraph("The program reported none (metrics.json).")
    else:
        lead = (
            f'<p class="big">{text(number(reported[headline]))}</p><p class="soft">{text(headline)}, as the program '
            "tells it; nobody has compared it with a baseline</p>"
        )
    rows = [[name, number(value)] for name, value in reported.items() if name != headline]
    printed = [[name, number(value)] for name, value in content["printed"].items()]
    return section(
        "figures",
        "Figures",
        lead,
        table("Other figures", ["figure", "value"], rows, hide_caption=True) if rows else "",
        table("What it printed last of each figure", ["figure", "value"], printed) if printed else "",
        bullets(content["training"]["notes"], "remarks"),
    )


def curves(history: Iterable[bytes]) -> str:
    """A curve by step for each figure that was reported more than once."""
    series = _series(history)
    drawn = [_curve(name, points) for name, points in series.items() if len(points) > 1]
    if not drawn:
        return ""
    left = len(drawn) - MOST_CURVES
    more = paragraph(f"And {left} more in metrics.jsonl.", "soft small") if left > 0 else ""
    return section("curves", "Learning curves", columns(*drawn[:MOST_CURVES]), more)


def files(content: Content) -> str:
    """What the program left, the largest first."""
    found = content["files"]
    left = found["count"] - len(found["largest"])
    rows = [[file["name"], format_bytes(file["bytes"])] for file in found["largest"]]
    counted = f"{number(found['count'])} {'file' if found['count'] == 1 else 'files'}, {format_bytes(found['bytes'])}."
    return section(
        "files",
        "Files",
        paragraph(counted),
        table("Files of the model", ["file", "size"], rows, hide_caption=True),
        paragraph(f"And {number(left)} smaller ones in MANIFEST.json.", "soft small") if left else "",
    )


# Series of the resources: what it is, in which unit, what one of the unit is.
_RESOURCES = {
    "cpus": ("CPUs in use", "CPUs", 1.0),
    "memory_bytes": ("Memory", "GiB", 2.0**30),
    "gpu_percent": ("GPUs in use", "percent of the time", 1.0),
    "gpu_memory_bytes": ("Memory of the GPUs", "GiB", 2.0**30),
}


def resources(series: dict[str, Sequence[float]]) -> str:
    """A curve over time for each resource; nothing for a program that was over before it was looked at twice."""
    seconds = series.get("seconds", [])
    if len(seconds) < 2:
        return ""
    units = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
    unit, each = next((found for found in units if seconds[-1] > 2 * found[1]), units[-1])
    across = Axis(0.0, seconds[-1] / each, unit)
    drawn = []
    for name, (title, counted, one) in _RESOURCES.items():
        if name in series:
            points = [(at / each, value / one) for at, value in zip(seconds, series[name], strict=True)]
            up = Axis(0.0, max(1e-3, 1.08 * max(value for _, value in points)), counted)
            chart = Chart(title, f"By time: {charts.course(points)} {counted}.", across, up)
            chart.line(points)
            drawn.append(charts.figure(title, chart.svg()))
    return section(
        "resources",
        "Resources over time",
        columns(*drawn),
        paragraph(
            "Of the program and all that it started, in this attempt. Memory that processes share is counted in each"
            " of them.",
            "soft small",
        ),
    )


def last_lines(lines: Sequence[str]) -> str:
    return section("last-lines", "Last lines", block("\n".join(lines))) if lines else ""


def _series(history: Iterable[bytes]) -> dict[str, list[Point]]:
    """Figure → (step, value), of a long history every second, fourth, … line."""
    found: dict[str, list[Point]] = {}
    stride, longest = 1, 0
    for position, line in enumerate(history):
        if position % stride:
            continue
        for name, step, value in _figures(line):
            if name in found or len(found) < MOST_FIGURES:
                found.setdefault(name, []).append((step, value))
                longest = max(longest, len(found[name]))
        if longest >= MOST_POINTS:
            found = {name: points[::2] for name, points in found.items()}
            stride, longest = 2 * stride, longest // 2
    return found


def _figures(line: bytes) -> list[tuple[str, float, float]]:
    """(name, step, value) of each figure in a line; none in one that the program wrote itself, in another form."""
    try:
        record = json.loads(line)
        step = float(record.pop("step"))
        reported = [(name, step, float(value)) for name, value in record.items() if isinstance(value, int | float)]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return []
    return [(name, step, value) for name, step, value in reported if math.isfinite(step) and abs(value) < LARGEST]


def _curve(name: str, points: list[Point]) -> str:
    steps, values = [x for x, _ in points], [y for _, y in points]
    across = Axis(min(steps), max(steps) or 1, "step", whole=True)
    chart = Chart(name, f"By step: {charts.course(points)}.", across, Axis.of_curve(values, ""))
    chart.line(points)
    return charts.figure(name, chart.svg())
