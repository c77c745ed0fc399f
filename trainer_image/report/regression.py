"""Sections of a regression: predictions against truth, residuals, calibration by tenths, the largest errors."""

from __future__ import annotations

from collections.abc import Mapping

from trainer_image.report import charts, mistakes
from trainer_image.report.charts import Axis, Chart
from trainer_image.report.html import Content, columns, details, interval, number, paragraph, section, table
from trainer_image.report.pictures import Shots


def sections(content: Content, pictures: Mapping[int, Shots]) -> list[str]:
    found = content["findings"]
    return [
        predictions(found),
        residuals(found),
        mistakes.shown(
            "Worst mistakes",
            "Test rows with the largest errors.",
            found["worst"],
            {"true": "true", "predicted": "predicted", "residual": "error"},
            pictures,
        ),
    ]


def predictions(found: Content) -> str:
    """True against predicted values, row by row, and on average over tenths."""
    tenths, errors = found["calibration"]["bins"], found["absolute_error_quantiles"]
    said = "; ".join(f"predicted {number(b['predicted'])}, true {number(b['true'])}" for b in tenths)
    means = [b["predicted"] for b in tenths] + [end for b in tenths for end in (b["interval"] or (b["true"],))]
    across, up = Axis.around(means, "mean prediction"), Axis.around(means, "mean true value")
    average = Chart("Calibration", said, across, up, height=300)
    average.calibration([(b["predicted"], b["true"], b["interval"]) for b in tenths])
    return section(
        "predictions",
        "Predictions and calibration",
        paragraph(
            f"Half of all predictions are within {number(errors['50%'])} of the truth, 90 % within "
            f"{number(errors['90%'])}. Where the means keep to the line, high and low predictions are "
            "right on average."
        ),
        columns(
            _each_row(found.get("points")),
            charts.figure(
                "Rows in order of their prediction, in equal parts",
                charts.key(("a", "means, with 95 % intervals"), ("r", "perfect")),
                average.svg(),
            ),
        ),
        details(
            "The parts as a table",
            table(
                "Rows in order of their prediction",
                ["part", "rows", "mean prediction", "mean true value", "95 % interval"],
                [
                    [str(k), number(b["rows"]), number(b["predicted"]), number(b["true"]), interval(b["interval"])]
                    for k, b in enumerate(tenths, 1)
                ],
            ),
        ),
    )


def _each_row(points: list[list[float]] | None) -> str:
    if points is None:
        return ""
    both = [value for point in points for value in point]
    across, up = Axis.around(both, "predicted"), Axis.around(both, "true")
    cloud = Chart("True against predicted values", f"{len(points)} test rows", across, up, height=300)
    cloud.reference(slope=1.0)
    cloud.dots([(p, t) for t, p in points], "dot cloud", lambda p, t: f"true {number(t)}, predicted {number(p)}")
    return charts.figure("Each row", charts.key(("d", "a test row"), ("r", "perfect")), cloud.svg())


def _errors_of_rows(points: list[list[float]] | None) -> str:
    if points is None:
        return ""
    errors = [(p, p - t) for t, p in points]
    across = Axis.around([p for p, _ in errors], "predicted")
    cloud = Chart(
        "Errors by prediction", f"{len(points)} test rows", across, Axis.around([0.0, *(e for _, e in errors)], "error")
    )
    cloud.reference(slope=0.0)
    cloud.dots(errors, "dot cloud", lambda p, e: f"predicted {number(p)}, error {number(e)}")
    return charts.figure("Errors by prediction", cloud.svg())


def residuals(found: Content) -> str:
    """Errors against the prediction, and how they are spread."""
    histogram = found["residual_histogram"]
    edges, counts = histogram["edges"], histogram["counts"]
    quantiles = found["residual_quantiles"]
    said = ", ".join(f"{name} of the errors below {number(value)}" for name, value in quantiles.items())
    rects = [
        (left, right, count, f"{number(count)} rows from {number(left)} to {number(right)}")
        for left, right, count in zip(edges, edges[1:], counts, strict=False)
    ]
    bars = charts.bars("Errors", said, Axis(edges[0], edges[-1], "error"), "rows", rects, notes=1)
    if edges[0] < 0 < edges[-1]:
        bars.upright(0.0, "no error", kind="reference")
    return section(
        "residuals",
        "Residuals",
        paragraph(
            "The error is predicted minus true: above zero the prediction is too high."
            + (" A shape in the cloud is something that the model has not learnt." if "points" in found else "")
        ),
        columns(
            _errors_of_rows(found.get("points")),
            charts.figure("How errors are spread", bars.svg()),
        ),
        table(
            "Quantiles of the error",
            ["quantile", *quantiles],
            [["predicted − true", *(number(value) for value in quantiles.values())]],
        ),
    )
