"""README.md, the model card: what the model is for, how good it is, what to beware of.

After Mitchell et al. 2019, Model Cards for Model Reporting (arXiv 1810.03993).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from trainer_image.report import champion
from trainer_image.report.html import Content, interval, number, shortened, words
from trainer_image.report.summary import chosen_by, model_of, of_groups, task_of, warnings

# A class that has this many times fewer rows than the largest is worth a warning.
IMBALANCE = 10
MOST_SENTENCES = 20


def markdown(value: object) -> str:
    """Text from a dataset as inert Markdown: no markup, no HTML, one line."""
    line = " ".join(str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", line)


def card(content: Content) -> str:
    """The whole file. Every word that may come from a dataset is escaped."""
    dataset, training = content["dataset"], content["training"]
    known = markdown(shortened(str(dataset["description"]).split(";")[0].rstrip("."), 300))
    tested = markdown(f"{number(dataset['rows'].get('test'))} rows{of_groups(content)}")
    lines = [
        f"# {markdown(model_of(task_of(content)))}",
        "",
        f"**{markdown(content['verdict']['sentence'])}**",
        "",
        f"Run `{_code(content['run_id'])}`. `report.html` has curves, mistakes and details.",
        "",
        "## Intended use",
        "",
        f"For data like that which it was trained on: {known}. It was trained for nothing else.",
        "",
        "## Data",
        "",
        markdown(shortened(dataset["description"], 2000)),
        "",
        f"Fingerprint of the dataset: `{_code(dataset['fingerprint'])}`; `dataset.lock.json` lists every file.",
        "",
        "## Figures",
        "",
        *_figures(content),
        "",
        f"On {tested} of the test split, used once, at the end. The headline is "
        f"{markdown(words(content['headline']))}. Weights were chosen by "
        f"{markdown(chosen_by(training['selected_by']))} (epoch "
        f"{training['best_epoch']} of {training['epochs']}) and have seen {' and '.join(training['fit_on'])} rows.",
        "",
        *_champion(content),
        *_candidates(content),
        "## Limits",
        "",
        *_listed(limits(content)),
        "",
    ]
    remarks = [*dataset["notes"], *training["notes"]]
    if remarks:
        lines += ["## Decisions on your behalf", "", *_listed(remarks), ""]
    lines += [
        "## How to use it",
        "",
        "    python -m trainer_image predict --model . --data FILE --out predictions.csv",
        "",
        "`model.safetensors` holds the weights, `model.json` architecture, preprocessing and labels; nothing else is "
        "needed, no training data and no network. `report.json` has every figure.",
        "",
    ]
    return "\n".join(lines)


def _champion(content: Content) -> list[str]:
    found = content.get("champion")
    if not found:
        return []
    said = [markdown(found["sentence"]), "", markdown(champion.what_follows(content)), ""]
    if found["why"] is None:
        header = ["", "this model", f"run {_code(found['run_id'])}"]
        lines = [_line([markdown(name), *map(str, cells)]) for name, *cells in champion.rows(content)]
        said = [_line(header), "|" + "---|" * len(header), *lines, "", f"{champion.caption(found)}.", "", *said]
    return [f"## {champion.TITLE}", "", *said]


def _candidates(content: Content) -> list[str]:
    entries = content.get("candidates", [])
    if not entries:
        return []
    header = ["", markdown(chosen_by(content["training"]["selected_by"])), "weight", "seconds", "remark"]
    rows = [
        [
            markdown(entry["name"]),
            number(entry["validation"]),
            number(entry["weight"]) if entry["weight"] else "–",
            number(entry["seconds"]),
            markdown(entry["note"]),
        ]
        for entry in entries
    ]
    said = "What has a weight is published, as one model that predicts their weighted mean."
    return ["## Models that competed", "", _line(header), "|" + "---|" * len(header), *map(_line, rows), "", said, ""]


def _listed(sentences: Sequence[str]) -> list[str]:
    left = len(sentences) - MOST_SENTENCES
    more = [f"- And {left:,} more in `report.json`."] if left > 0 else []
    return [*(f"- {markdown(shortened(sentence, 1000))}" for sentence in sentences[:MOST_SENTENCES]), *more]


def limits(content: Content) -> list[str]:
    """What a reader should know before trusting the model, in sentences."""
    found = content["findings"]
    said = []
    if content["verdict"]["level"] == "bad":
        said.append("It does not beat its baselines: use the simpler model, or more and better data.")
    elif content["verdict"]["better_than_baselines"] and not content["verdict"]["beyond_chance"]:
        said.append("It beats its baselines by less than the test split can tell from chance.")
    said += warnings(content)
    if found.get("kind") == "classification":
        with suppress(KeyError, TypeError, ValueError, AttributeError):  # a plug-in's may be what they are not
            said += _class_limits(found)
    said.append("It knows what its training data shows; on data from elsewhere, or later, its figures need not hold.")
    return said


def _class_limits(found: Content) -> list[str]:
    said = []
    counted = [(entry["rows"], str(entry["label"])) for entry in found.get("per_class", [])]
    if counted and max(counted)[0] > IMBALANCE * min(counted)[0]:
        (most, large), (fewest, small) = max(counted), min(counted)
        said.append(
            f"The classes are unequal: {number(most)} test rows of {large}, {number(fewest)} of {small}. Accuracy "
            "says little of the small ones; look at their recall."
        )
    measured = found.get("calibration", {})
    error, chance = measured.get("expected_calibration_error"), measured.get("error_by_chance")
    if error is not None and chance is not None and error > chance:
        said.append(f"Its probabilities are not calibrated (expected calibration error {number(error)}).")
    return said


def _figures(content: Content) -> list[str]:
    baselines = content["baselines"]
    header = ["", "this model", "95 % interval", *(markdown(words(name)) for name in baselines)]
    return [_line(header), "|" + "---|" * len(header)] + [
        _line(
            [
                markdown(words(name)),
                number(value),
                interval(content["intervals"].get(name)),
                *(number(figures.get(name)) for figures in baselines.values()),
            ]
        )
        for name, value in content["metrics"].items()
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _code(value: object) -> str:
    return re.sub("[^0-9A-Za-z:._-]", "", str(value))
