"""Sections of a language model.

findings: {"kind": "language_model", "files": [{"name", "bytes", "bits_per_byte"}], "samples": [{"prompt", "text"}]},
each of them optional; what else there is, is shown as tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainer_image.report import charts, generic
from trainer_image.report.charts import Axis
from trainer_image.report.html import Content, number, paragraph, section, table, text
from trainer_image.report.pictures import Shots

MOST_FILES = 20
MOST_SAMPLES = 8
LONGEST_SAMPLE = 1200


def sections(content: Content, pictures: Mapping[int, Shots]) -> list[str]:
    found = content["findings"]
    rest = {name: value for name, value in found.items() if name not in ("files", "samples")}
    return [
        files(found.get("files") or []),
        samples(found.get("samples") or []),
        *generic.sections({**content, "findings": rest}, pictures),
    ]


def files(found: list[Content]) -> str:
    """Bits per byte of each file, the hardest first."""
    if not found:
        return ""
    ordered = sorted(found, key=lambda entry: -entry["bits_per_byte"])
    shown = ordered[:MOST_FILES]
    left = f" The {MOST_FILES} hardest of {len(found)}; report.json has all." if len(found) > MOST_FILES else ""
    return section(
        "files",
        "Files",
        paragraph(
            "Bits that the model needs for a byte of each test file; 8 means no knowledge at all. A file that is far "
            f"harder than the others is unlike the training text.{left}"
        ),
        _spread([entry["bits_per_byte"] for entry in found]) if len(found) >= 8 else "",
        table(
            "Bits per byte by file",
            ["file", "bytes", "bits per byte"],
            [[entry["name"], number(entry["bytes"]), number(entry["bits_per_byte"])] for entry in shown],
            hide_caption=True,
        ),
    )


def _spread(values: list[float]) -> str:
    low, high = min(values), max(values)
    count = min(20, max(5, len(values) // 3))
    width = (high - low) / count or 1.0
    counts = [0] * count
    for value in values:
        counts[min(count - 1, int((value - low) / width))] += 1
    said = f"{len(values)} files from {number(low)} to {number(high)} bits per byte"
    across = Axis(low, low + count * width, "bits per byte")
    rects = [(low + k * width, low + (k + 1) * width, here, f"{here} files") for k, here in enumerate(counts)]
    chart = charts.bars("Files by bits per byte", said, across, "files", rects, height=200)
    return charts.figure("Files by bits per byte", chart.svg())


def samples(found: list[Content]) -> str:
    """What the model writes by itself."""
    if not found:
        return ""
    parts = []
    for sample in found[:MOST_SAMPLES]:
        prompt, written = str(sample.get("prompt") or ""), str(sample.get("text") or "")
        lead = f"<strong>{text(prompt[-LONGEST_SAMPLE:])}</strong>" if prompt else ""
        parts.append(f'<div class="excerpt"><p>{lead}{text(written[:LONGEST_SAMPLE])}</p></div>')
    lead = "Written by the model; what it was given stands in bold. How it sounds does not show how good the model is."
    return section("samples", "Samples", paragraph(lead), *parts)
