"""Learning curves: loss and validation figures by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer_image.report import charts
from trainer_image.report.charts import Axis, Chart, Point
from trainer_image.report.html import Content, columns, details, number, paragraph, section, table, words

LONGEST_HISTORY = 200
# Of the parts of a loss, which a plug-in names, so many are drawn, and have a column.
MOST_PARTS = 8
# Figures that cannot exceed one.
_SHARES = ("accuracy", "balanced accuracy", "macro F1", "ROC AUC", "R²")


def curves(content: Content) -> str:
    """Loss and validation figures by epoch, with the epoch whose weights were chosen and where the run was resumed."""
    training = content["training"]
    epochs = [record for record in content["history"] if record.get("validation")]
    if len(epochs) < 2:
        return section("curves", "Learning curves", paragraph("Too few epochs for a curve.", "soft"))
    chosen, headline = training["selected_by"].removeprefix("validation "), content["headline"]
    names = list(dict.fromkeys([chosen, headline]))
    series: dict[str, list[Point]] = {
        name: [(r["epoch"], r["validation"][name]) for r in epochs if name in r["validation"]] for name in names
    }
    loss: list[Point] = [(r["epoch"], r["loss"]) for r in epochs if r.get("loss") is not None]
    step = training.get("resumed_from_step")
    resumed = next((int(r["epoch"]) for r in epochs if step is not None and r.get("step", 0) > step), None)
    marks = [(training["best_epoch"], f"best epoch {training['best_epoch']}")]
    marks += [(resumed, f"resumed in epoch {resumed}")] if resumed is not None else []
    marks = [mark for mark in marks if epochs[0]["epoch"] <= mark[0] <= epochs[-1]["epoch"]]
    drawn = []
    if chosen == "log_loss" and loss and series[chosen]:  # both are cross-entropies and share a scale
        both = [("training loss", loss), ("validation log loss", series.pop(chosen))]
        drawn.append(_curve("Loss", both, "loss", marks))
    elif loss:
        drawn.append(_curve("Training loss", [("training loss", loss)], "loss", marks))
    parts = list(dict.fromkeys(name for record in epochs for name in record.get("parts", {})))
    for name in parts[:MOST_PARTS]:
        # One that was no number is null by now.
        points = [(r["epoch"], part) for r in epochs if (part := r.get("parts", {}).get(name)) is not None]
        if points:
            drawn.append(_curve(f"Training {words(name)}", [(f"training {words(name)}", points)], words(name), marks))
    drawn += [
        _curve(f"Validation {words(name)}", [(f"validation {words(name)}", points)], words(name), marks)
        for name, points in series.items()
        if points
    ]
    return section(
        "curves",
        "Learning curves",
        paragraph(
            f"The weights of epoch {training['best_epoch']} of {training['epochs']} were the best on the validation "
            f"split ({words(chosen)} {number(training['best_validation'])})."
            + (f" The run was resumed from a checkpoint in epoch {resumed}." if resumed is not None else "")
            + _refit(content)
        ),
        columns(*drawn),
        details("The same as a table", _history(epochs, parts[:MOST_PARTS])),
    )


def _refit(content: Content) -> str:
    rest = [record for record in content["history"] if not record.get("validation")]
    if len(content["training"]["fit_on"]) < 2 or not rest:
        return ""
    return (
        " Then the model was trained afresh on training and validation rows together, for "
        f"{len(rest)} epoch{'' if len(rest) == 1 else 's'}; the "
        f"training loss ended at {number(rest[-1].get('loss'))}."
    )


def _curve(
    title: str, series: Sequence[tuple[str, Sequence[Point]]], unit: str, marks: Sequence[tuple[int, str]]
) -> str:
    values = [y for _, points in series for _, y in points]
    epochs = [x for _, points in series for x, _ in points]
    first, last = min(epochs), max(epochs)
    said = "; ".join(f"{name} {charts.course(points)}" for name, points in series)
    across = Axis(first - 0.02 * (last - first), last + 0.02 * (last - first), "epoch", whole=True)
    chart = Chart(
        title,
        f"By epoch, {first} to {last}: {said}. " + ", ".join(label for _, label in marks) + ".",
        across,
        Axis.of_curve(values, unit, 1.0 if unit in _SHARES else math.inf),
        notes=len(marks),
    )
    for line, (at, label) in enumerate(marks):
        chart.upright(at, label, line)
    for kind, (_, points) in zip("ab", series, strict=False):
        chart.line(points, kind)
    key = charts.key(*zip("ab", (name for name, _ in series), strict=False)) if len(series) > 1 else ""
    return charts.figure(title, key, chart.svg())


def _history(epochs: Sequence[Content], parts: Sequence[str]) -> str:
    step = max(1, -(-len(epochs) // LONGEST_HISTORY))
    names = list(epochs[-1]["validation"])
    shown = [record for k, record in enumerate(epochs) if k % step == 0 or record is epochs[-1]]
    every = "" if step == 1 else f"; every {step}th epoch, metrics.jsonl has them all"
    return table(
        f"By epoch{every}",
        [
            *("epoch", "step", "seconds", "training loss"),
            *(f"training {words(name)}" for name in parts),
            *(f"validation {words(name)}" for name in names),
        ],
        [
            [
                record["epoch"],
                number(record.get("step")),
                number(record.get("seconds")),
                number(record.get("loss")),
                *(number(record.get("parts", {}).get(name)) for name in parts),
                *(number(record["validation"].get(name)) for name in names),
            ]
            for record in shown
        ],
    )
