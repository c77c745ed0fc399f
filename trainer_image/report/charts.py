"""Charts as inline SVG: axes with ticks that people would choose, a title and a description for whoever cannot see
them, marks that differ in shape and dashes as well as in colour. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from trainer_image.report.html import Interval, number, text

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 42
# The width of a digit of a tick's label.
CHARACTER = 7.0
# Points of a curve beyond which neighbours are left out: no screen shows more.
MOST_POINTS = 300
# Points of a curve up to which each has a dot that says its value under the pointer.
MOST_DOTS = 40
LOG_FROM = 200.0

Point = tuple[float, float]
Bar = tuple[float, float, float, str]


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers within [low, high], about `wanted` of them: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * m for m in (1, 2, 5) if rough <= power * m), power * 10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step + 0.0 for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], with 2 and 5 times where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 2, 5)
    return [v for p in powers for m in factors if low * 0.999 <= (v := m * 10.0**p) <= high * 1.001]


def tick_label(value: float) -> str:
    return number(round(value, 12)) if abs(value) < 1e4 else f"{value:,.3g}".replace("e+0", "e").replace("e+", "e")


@dataclass(frozen=True)
class Axis:
    """One axis. `label`: what it counts; whole: only whole numbers are ticks; log: powers of ten are even steps."""

    low: float
    high: float
    label: str
    whole: bool = False
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], label: str, *, margin: float = 0.06, most: float = math.inf) -> Axis:
        """An axis with a little room on both sides of the values. most: the largest value that can be."""
        low, high = min(values), max(values)
        room = (high - low) * margin or abs(high) * 0.1 or 1.0
        top = most + 0.15 * room if high <= most < high + room else high + room
        return cls(low - room, top, label)

    @classmethod
    def of_curve(cls, values: Sequence[float], label: str, most: float = math.inf) -> Axis:
        """The same, logarithmic where a few large values would press all others to the ground."""
        low, high = min(values), max(values)
        if len(values) > 2 and low > 0 and high / low >= LOG_FROM:
            return cls(low / 1.15, high * 1.15, f"{label} (logarithmic)" if label else "logarithmic", log=True)
        return cls.around(values, label, most=most)

    @property
    def ticks(self) -> list[float]:
        if self.log:
            return log_ticks(self.low, self.high)
        found = ticks(self.low, self.high)
        return [v for v in found if v == round(v)] if self.whole else found

    def place(self, start: float, end: float) -> Callable[[float], float]:
        """Value → position between two ends."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        span = (high - low) or 1.0
        return lambda value: start + ((math.log(value) if self.log else value) - low) / span * (end - start)


@dataclass
class Chart:
    """A frame with two axes, to be drawn into. title: what it is; summary: what it shows, in a sentence."""

    title: str
    summary: str
    across: Axis
    up: Axis
    height: int = HEIGHT
    notes: int = 0  # lines of text above the frame, for `upright`
    marks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.top = TOP + 14 * self.notes
        self.height += 14 * self.notes
        # The axis' name stands left of its ticks: long ones move the frame to the right.
        longest = max((len(tick_label(value)) for value in self.up.ticks), default=0)
        self.left = max(LEFT, round(24 + CHARACTER * longest))
        self.x = self.across.place(self.left, WIDTH - RIGHT)
        self.y = self.up.place(self.height - BOTTOM, self.top)

    def line(self, points: Sequence[Point], kind: str = "a") -> None:
        """A curve. kind: "a" (drawn through) or "b" (dashed)."""
        points = thinned(points)
        where = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        self.marks.append(f'<polyline class="line {kind}" points="{where}"/>')
        if len(points) <= MOST_DOTS:
            self.dots(points, f"dot {kind}", lambda a, b: f"{self.across.label} {number(a)}: {number(b)}", radius=2.6)

    def dots(self, points: Sequence[Point], kind: str, says: Callable[[float, float], str], radius: float = 3) -> None:
        self.marks += [
            f'<circle class="{kind}" r="{radius}" cx="{self.x(a):.1f}" cy="{self.y(b):.1f}">'
            f"<title>{text(says(a, b))}</title></circle>"
            for a, b in points
        ]

    def upright(self, at: float, label: str, line: int = 0, kind: str = "mark") -> None:
        """A vertical line with words above the frame, on one of its lines of `notes`."""
        x, y = self.x(at), self.top - 4 - 14 * line
        right = x > (self.left + WIDTH - RIGHT) / 2
        anchor, shift = ("end", 3) if right else ("start", -3)
        self.marks.append(
            f'<path class="{kind}" d="M{x:.1f} {y + 2}V{self.height - BOTTOM}"/>'
            f'<text class="note" x="{x + shift:.1f}" y="{y}" text-anchor="{anchor}">{text(label)}</text>'
        )

    def reference(self, *, slope: float) -> None:
        """The line of a perfect model: from end to end, where up is `slope` times across."""
        a, b = ((self.x(end), self.y(slope * end)) for end in (self.across.low, self.across.high))
        self.marks.append(f'<path class="reference" d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}"/>')

    def calibration(self, points: Sequence[tuple[float, float, Interval]]) -> None:
        """What was measured where a perfect model has the diagonal: (across, up, interval of up)."""
        self.reference(slope=1.0)
        for at, _, ends in points:
            if ends:
                self.whisker(at, *ends)
        self.line([(at, up) for at, up, _ in points])

    def whisker(self, at: float, low: float, high: float) -> None:
        """An interval up and down."""
        x, top, bottom = self.x(at), self.y(high), self.y(low)
        self.marks.append(
            f'<path class="whisker" d="M{x:.1f} {top:.1f}V{bottom:.1f}'
            f'M{x - 3:.1f} {top:.1f}h6M{x - 3:.1f} {bottom:.1f}h6"/>'
        )

    def bar(self, left: float, right: float, top: float, says: str) -> None:
        """From the bottom axis up to a value."""
        x, y = self.x(left), self.y(top)
        width = max(0.5, self.x(right) - x - 1)
        self.marks.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
            f'height="{max(0.0, self.height - BOTTOM - y):.1f}"><title>{text(says)}</title></rect>'
        )

    def svg(self) -> str:
        bottom = self.height - BOTTOM
        grid, labels = [], []
        for value in self.up.ticks:
            y = self.y(value)
            grid.append(f"M{self.left} {y:.1f}H{WIDTH - RIGHT}")
            labels.append(f'<text x="{self.left - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_label(value)}</text>')
        for value in self.across.ticks:
            x = self.x(value)
            grid.append(f"M{x:.1f} {bottom}v4")
            labels.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{tick_label(value)}</text>')
        middle = (self.top + bottom) / 2
        return svg(
            self.title,
            self.summary,
            WIDTH,
            self.height,
            f'<path class="grid" d="{"".join(grid)}"/>'
            f'<path class="axis" d="M{self.left} {self.top}V{bottom}H{WIDTH - RIGHT}"/>'
            f"{''.join(self.marks)}{''.join(labels)}"
            f'<text class="label" x="{(self.left + WIDTH - RIGHT) / 2}" y="{self.height - 6}" text-anchor="middle">'
            f"{text(self.across.label)}</text>"
            f'<text class="label" transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
            f"{text(self.up.label)}</text>",
        )


def svg(title: str, summary: str, width: int, height: int, inner: str) -> str:
    """A picture with its name and its description in words."""
    name = f"c{crc32((title + summary).encode()):08x}"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}t {name}d">'
        f'<title id="{name}t">{text(title)}</title><desc id="{name}d">{text(summary)}</desc>{inner}</svg>'
    )


def thinned(points: Sequence[Point]) -> list[Point]:
    """Every n-th point, and the last."""
    step = max(1, -(-len(points) // MOST_POINTS))
    kept = list(points[::step])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def course(points: Sequence[Point]) -> str:
    """What a curve does, in words."""
    values = [y for _, y in points]
    lowest, highest = number(min(values)), number(max(values))
    return f"from {number(values[0])} to {number(values[-1])}, lowest {lowest}, highest {highest}"


def bars(
    title: str, summary: str, across: Axis, counted: str, rects: Sequence[Bar], height: int = HEIGHT, notes: int = 0
) -> Chart:
    """How many of what is `counted` there are: (from, to, number, what it says under the pointer)."""
    most = max((count for _, _, count, _ in rects), default=1)
    chart = Chart(title, summary, across, Axis(0.0, most * 1.08, counted, whole=True), height, notes)
    for rect in rects:
        chart.bar(*rect)
    return chart


def key(*entries: tuple[str, str]) -> str:
    """A legend: (kind of mark, its words)."""
    return '<p class="key">' + "".join(f'<span class="{kind}">{text(words)}</span>' for kind, words in entries) + "</p>"


def figure(caption: str, *parts: str) -> str:
    """A chart with its caption."""
    return f'<figure aria-label="{text(caption)}"><figcaption>{text(caption)}</figcaption>{"".join(parts)}</figure>'


def comparison(
    title: str,
    summary: str,
    rows: Sequence[tuple[str, float, Sequence[float] | None]],
    label: str,
    *,
    ranked: bool = False,
) -> str:
    """One figure of several models, one below the other: (name, value, interval). The first is this model; ranked: none
    is more than another, and zero is marked."""
    left, row_height, top = 146 if ranked else 118, 22 if ranked else 34, 6
    bottom = top + row_height * len(rows)
    everything = [value for _, value, _ in rows] + [end for _, _, ends in rows if ends for end in ends]
    everything += [0.0] * ranked
    axis = Axis.around(everything, label, margin=0.08)
    x = axis.place(left, WIDTH - RIGHT)
    inner = [f'<path class="grid" d="{"".join(f"M{x(v):.1f} {top}V{bottom}" for v in axis.ticks)}"/>']
    inner += [f'<path class="axis" d="M{x(0.0):.1f} {top}V{bottom}"/>'] * ranked
    for k, (name, value, ends) in enumerate(rows):
        y = top + row_height * (k + 0.5)
        kind, size = ("own", 4 if ranked else 6) if k == 0 or ranked else ("other", 5)
        shown = name if len(name) <= 16 else name[:15] + "…"
        inner.append(f'<text class="name" x="{left - 14}" y="{y + 4.5}" text-anchor="end">{text(shown)}</text>')
        if ends:
            whisker = "whisker" if k == 0 or ranked else "whisker b"
            inner.append(f'<path class="{whisker}" d="M{x(ends[0]):.1f} {y}H{x(ends[1]):.1f}"/>')
        said = f"{name}: {number(value)}" + (f" ({number(ends[0])} to {number(ends[1])})" if ends else "")
        inner.append(
            f'<circle class="{kind}" r="{size}" cx="{x(value):.1f}" cy="{y}"><title>{text(said)}</title></circle>'
        )
    inner.append(f'<path class="axis" d="M{left} {bottom}H{WIDTH - RIGHT}"/>')
    inner += [f'<text x="{x(v):.1f}" y="{bottom + 16}" text-anchor="middle">{tick_label(v)}</text>' for v in axis.ticks]
    middle = (left + WIDTH - RIGHT) / 2
    inner.append(f'<text class="label" x="{middle}" y="{bottom + 34}" text-anchor="middle">{text(label)}</text>')
    return svg(title, summary, WIDTH, bottom + 40, "".join(inner))


def stack(title: str, summary: str, parts: Sequence[tuple[str, float, str]]) -> str:
    """Shares of a whole side by side, with their legend: (name, size, size in words)."""
    total = sum(size for _, size, _ in parts) or 1.0
    width, at, rects = 800.0, 0.0, []
    for k, (name, size, shown) in enumerate(parts):
        wide = width * size / total
        rects.append(
            f'<rect class="p{k % 6}" x="{at:.1f}" y="0" width="{max(1.5, wide - 2):.1f}" height="22" rx="2">'
            f"<title>{text(name)}: {text(shown)}</title></rect>"
        )
        at += wide
    picture = svg(title, summary, 800, 22, "".join(rects)).replace(
        "<svg ", '<svg class="bars" preserveAspectRatio="none" ', 1
    )
    return picture + key(*((f"p{k % 6}", f"{name} {shown}") for k, (name, _, shown) in enumerate(parts)))
