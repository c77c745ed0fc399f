"""What `make scale` writes into docs/: the table of docs/launching.md, and the curve beside it (scale.svg)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.scale.measure import Figures

PAGE = Path(__file__).parents[2] / "docs" / "launching.md"
PICTURE = PAGE.with_name("scale.svg")
_TABLE = re.compile(r"(<!-- scale -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD = """\
| trainings | memory, peak | memory, at rest | CPU at rest | ready after | calls a minute: API server | portal |
|---|---|---|---|---|---|---|
"""
# Between two lines of a grid.
_STEPS = [digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5)]
# A panel's size in pixels, with room for its title and the labels of its axes.
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 340, 170, 52, 44, 40
# Text and grid are grey enough for a light and a dark page; a reader who asks for dark gets lighter lines.
_STYLE = """\
text{font:12px system-ui,sans-serif;fill:#6b7280}
.title{font-size:13px;font-weight:600}
.grid{stroke:#6b7280;stroke-opacity:.3}
polyline{fill:none;stroke-width:2.5;stroke-linejoin:round}
.a{stroke:#2563eb}.b{stroke:#c2570c}circle{stroke:none}circle.a{fill:#2563eb}circle.b{fill:#c2570c}
@media(prefers-color-scheme:dark){text{fill:#9ca3af}.a{stroke:#60a5fa}.b{stroke:#fb923c}
circle.a{fill:#60a5fa}circle.b{fill:#fb923c}}"""

Reading = Callable[[Figures], float]


def write_docs(measured: Mapping[int, Figures]) -> list[Path]:
    """Write the page's table and the picture. measured: number of trainings → figures. Returns what was written."""
    rows = "".join(table_row(size, found) for size, found in sorted(measured.items()))
    page, found = _TABLE.subn(lambda match: match[1] + _HEAD + rows + match[2], PAGE.read_text(encoding="utf-8"))
    if found != 1:
        raise SystemExit(f"{PAGE} has no place for the table: a line <!-- scale -->, and <!-- end --> after it")
    PAGE.write_text(page, encoding="utf-8")
    PICTURE.write_text(picture(measured), encoding="utf-8")
    return [PAGE, PICTURE]


def table_row(size: int, found: Figures) -> str:
    """One row of the page's table, with a line end."""
    return (
        f"| {size:,} | {found.peak:.0f} MiB | {found.memory:.0f} MiB | {found.cpu:.1f} % | {found.ready:.1f} s"
        f" | {found.cluster_calls:.0f} | {found.portal_calls:.0f} |\n"
    )


def picture(measured: Mapping[int, Figures]) -> str:
    """Memory and CPU against the number of trainings, as SVG."""
    memory: list[tuple[str, Reading]] = [("peak", lambda f: f.peak), ("at rest", lambda f: f.memory)]
    cpu: list[tuple[str, Reading]] = [("at rest", lambda f: f.cpu)]
    panels = [("Memory of one dispatcher, MiB", memory), ("CPU of one dispatcher, % of a core", cpu)]
    width, height = _LEFT + _WIDTH + 26, _TOP + _HEIGHT + _BOTTOM
    drawn = [
        f'<g transform="translate({number * width} 0)">{_panel(title, lines, measured)}</g>'
        for number, (title, lines) in enumerate(panels)
    ]
    size = f'viewBox="0 0 {width * len(panels)} {height}" width="{width * len(panels)}" height="{height}"'
    words = "Memory and CPU of one dispatcher against the number of trainings"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{words}">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *drawn, "</svg>", ""])


def _panel(title: str, lines: list[tuple[str, Reading]], measured: Mapping[int, Figures]) -> str:
    sizes = sorted(measured)
    across = _ticks(sizes[-1])
    up = _ticks(max(reading(measured[size]) for _, reading in lines for size in sizes))

    def x(size: float) -> float:
        return round(_LEFT + _WIDTH * size / across[-1], 1)

    def y(value: float) -> float:
        return round(_TOP + _HEIGHT * (1 - value / up[-1]), 1)

    parts = [f'<text class="title" x="{_LEFT}" y="16">{title}</text>']
    for mark in up:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(mark)}" y2="{y(mark)}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(mark) + 4}" text-anchor="end">{mark:,g}</text>')
    for mark in across:
        parts.append(f'<text x="{x(mark)}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{mark:,g}</text>')
    parts.append(f'<text x="{_LEFT + _WIDTH / 2}" y="{_TOP + _HEIGHT + 35}" text-anchor="middle">trainings</text>')
    for number, (name, reading) in enumerate(lines):
        style = "ab"[number]
        points = [(x(size), y(reading(measured[size]))) for size in sizes]
        parts.append(f'<polyline class="{style}" points="{" ".join(f"{a},{b}" for a, b in points)}"/>')
        parts += [f'<circle class="{style}" cx="{a}" cy="{b}" r="3.5"/>' for a, b in points]
        at = _LEFT + number * 90
        parts.append(f'<circle class="{style}" cx="{at + 5}" cy="30" r="3.5"/><text x="{at + 14}" y="34">{name}</text>')
    return "".join(parts)


def _ticks(top: float) -> list[float]:
    """The marks of an axis from 0 to at least `top`."""
    step = next((step for step in _STEPS if step * 5 >= top), _STEPS[-1])
    return [step * number for number in range(max(1, math.ceil(top / step)) + 1)]
