"""Sections of a classification: confusions, classes, calibration, the surest mistakes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trainer_image.report import charts, mistakes
from trainer_image.report.charts import Axis, Chart
from trainer_image.report.html import Content, details, interval, number, paragraph, section, shortened, table, text
from trainer_image.report.pictures import Shots

# Classes up to which a person can read the matrix; beyond, the list of the most frequent confusions says more.
LARGEST_MATRIX = 40
# More classes than this with longer names than that: the columns' names stand upright.
UPRIGHT_FROM, SHORT_LABEL = 4, 4
LONGEST_LABEL = 60
LISTED_CONFUSIONS = 20
LISTED_CLASSES = 40


def sections(content: Content, pictures: Mapping[int, Shots]) -> list[str]:
    found = content["findings"]
    return [
        confusions(found),
        classes(found),
        calibration(found["calibration"]),
        mistakes.shown(
            "Worst mistakes",
            "Test rows that the model got wrong, the surest first.",
            found["worst"],
            {
                "true": "true",
                "predicted": "predicted",
                "probability": "confidence",
                "probability_of_true": "of the true class",
            },
            pictures,
        ),
    ]


def confusions(found: Content) -> str:
    labels: Sequence[str] = found["labels"]
    frequent = _frequent(found)
    if len(labels) > LARGEST_MATRIX:
        lead = f"{len(labels)} classes are too many for a matrix to be read; these pairs were mixed up most often."
        return section("confusions", "Confusions", paragraph(lead), frequent or paragraph("No row was mixed up."))
    more = details("The most frequent confusions as a list", frequent) if frequent and len(labels) > 2 else ""
    return section(
        "confusions",
        "Confusion matrix",
        paragraph("A row for each true class, a column for each predicted one. Darker: a larger share of the row."),
        paragraph(decided) if (decided := _decided(found.get("offsets", {}))) else "",
        _matrix(labels, found["confusion_matrix"]),
        more,
    )


def _matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    labels = [shortened(name, LONGEST_LABEL) for name in names]
    head = "".join(f'<th scope="col" title="{text(label)}"><span>{text(label)}</span></th>' for label in labels)
    tall = " tall" if len(labels) > UPRIGHT_FROM and max(map(len, labels)) > SHORT_LABEL else ""
    rows = []
    for i, label in enumerate(labels):
        whole = sum(counts[i]) or 1
        cells = "".join(
            f'<td class="{"hit" if i == j else "miss"}{-(-10 * count // whole)}">{count}</td>'
            for j, count in enumerate(counts[i])
        )
        rows.append(f'<tr><th scope="row" title="{text(label)}">{text(label)}</th>{cells}</tr>')
    return (
        '<div class="wide" role="region" tabindex="0" aria-label="Confusion matrix"><table class="matrix' + tall + '">'
        '<caption class="hidden">Test rows by true class (rows) and predicted class (columns)</caption>'
        f'<thead><tr><td class="soft">true ↓ predicted →</td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _frequent(found: Content) -> str:
    labels, rows = found["labels"], [entry["rows"] for entry in found["per_class"]]
    listed = [
        [labels[true], labels[said], number(count), f"{count / rows[true]:.1%}"]
        for true, said, count in found["confusions"][:LISTED_CONFUSIONS]
    ]
    header = ["true class", "predicted as", "rows", "of the class"]
    return table("Most frequent confusions", header, listed, words_in=[1]) if listed else ""


def classes(found: Content) -> str:
    entries = found["per_class"]
    shown = entries
    lead = "Recall: how many of the class's rows were found. Precision: how many of the rows called so were right."
    if len(entries) > LISTED_CLASSES:
        shown = sorted(entries, key=lambda entry: (entry["f1"] is None, entry["f1"] or 0.0))[:LISTED_CLASSES]
        lead += f" The {LISTED_CLASSES} classes with the lowest F1 of {len(entries)}; report.json has all."
    return section(
        "classes",
        "Classes",
        paragraph(lead),
        table(
            "Figures of each class, with 95 % intervals",
            ["class", "test rows", "recall", "95 % interval", "precision", "95 % interval", "F1"],
            [
                [
                    entry["label"],
                    number(entry["rows"]),
                    _share(entry["recall"]),
                    interval(entry["recall_interval"]),
                    _share(entry["precision"]),
                    interval(entry["precision_interval"]),
                    _share(entry["f1"]),
                ]
                for entry in shown
            ],
            hide_caption=True,
        ),
    )


def _scaled(found: Content) -> str:
    """What the validation rows made of the probabilities."""
    temperature = found.get("temperature", 1.0)
    if temperature == 1:
        return ""
    were = "surer than they were right" if temperature > 1 else "right more often than they were sure"
    return (
        f" On the validation rows the models were {were}: their probabilities were scaled by a temperature of "
        f"{number(temperature)}."
    )


def _decided(offsets: Mapping[str, float]) -> str:
    """How answers are chosen, where it is not by the largest probability."""
    if not offsets:
        return ""
    most = max(offsets, key=lambda label: offsets[label])
    shown, times = shortened(most, LONGEST_LABEL), number(math.exp(offsets[most]))
    return (
        "Classes are unequal, and the headline counts small ones as much as large ones: a rare class is the answer "
        f"before its probability is the largest. '{shown}' counts {times} times its probability."
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def calibration(found: Content) -> str:
    """Reliability diagram, how many rows each bin has, and the error beside what chance alone would make."""
    bins, error, chance = found["bins"], found["expected_calibration_error"], found["error_by_chance"]
    rows = sum(b["rows"] for b in bins)
    if chance is None:
        judged = ""
    elif error <= chance:
        judged = (
            f" On {number(rows)} rows a perfectly calibrated model shows up to {number(chance)} by chance: no sign of "
            "a fault."
        )
    else:
        sure = sum(b["rows"] * b["confidence"] for b in bins) / rows
        right = sum(b["rows"] * b["accuracy"] for b in bins) / rows
        judged = (
            f" A perfectly calibrated model stays below {number(chance)} on {number(rows)} rows: this one is "
            f"{'surer than it is right' if sure > right else 'right more often than it is sure'}. "
            "Do not take its probabilities literally."
        )
    said = "; ".join(
        f"{number(b['rows'])} rows with confidence {number(b['confidence'])}: accuracy {number(b['accuracy'])}"
        for b in bins
    )
    low = min(0.5, min((b["from"] for b in bins), default=0.0))
    across = Axis(low, 1.0, "confidence")
    diagram = Chart("Reliability", said, across, Axis(0.0, 1.0, "accuracy"))
    diagram.calibration([(b["confidence"], b["accuracy"], b["interval"]) for b in bins])
    rects = [
        (b["from"], b["to"], b["rows"], f"{number(b['rows'])} rows, {b['from']:.1f} to {b['to']:.1f}") for b in bins
    ]
    counts = charts.bars("Rows by confidence", said, across, "rows", rects)
    return section(
        "calibration",
        "Calibration",
        paragraph(
            f"Expected calibration error {number(error)}: the mean difference between the model's confidence "
            f"and how often it is right.{judged}{_scaled(found)}"
        ),
        '<div class="columns">'
        + charts.figure(
            "Accuracy by confidence",
            charts.key(("a", "this model, with 95 % intervals"), ("r", "perfect")),
            diagram.svg(),
        )
        + charts.figure("Rows by confidence", counts.svg())
        + "</div>",
    )
