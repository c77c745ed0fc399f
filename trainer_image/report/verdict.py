"""What is to be thought of a model, in a sentence or a few: beside its baselines, and where it promises too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainer_image.report.html import Content, Interval, number, shortened, words

if TYPE_CHECKING:
    from trainer_image.tasks.base import Metric

# What the probabilities are off by on average, from which on the verdict says it; and no less than chance explains.
UNRELIABLE = 0.05
# Figures from which on a model is either right about everything or was told the answer, and the share of what it is
# better by than a constant answer that one column alone has to carry.
TOO_GOOD = {"r2": 0.99, "accuracy": 0.995, "balanced_accuracy": 0.995, "macro_f1": 0.995, "roc_auc": 0.999}
CARRIES = 0.5
# From this share of the test rows on, those that the model was trained on decide what its figure is.
BY_HEART = 0.1
# Where a figure is not defined, and why.
UNDEFINED = {
    "r2": "all test rows have the same target",
    "roc_auc": "all test rows are of one class",
}


def verdict(
    metric: Metric,
    tested: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    interval: Interval,
    *,
    members: Sequence[str] = (),
    calibration: Content | None = None,
    importance: Content | None = None,
    before: Content | None = None,
    again: Content | None = None,
) -> Content:
    """{"better_than_baselines", "beyond_chance", "level": "good" | "close" | "bad", "title", "sentence"}.

    metric: the headline, which need not be among the figures; interval: its 95 % interval; members: the names of the
    models that are published together; calibration: the findings', importance: the report's; before: of a warm start,
    which test rows its first model was trained on, again: those that this one was, as report.json has them
    """
    compared = _compared(metric, tested, baselines, interval, members)
    if before is not None:
        compared = _remembered(compared, before)
    unreliable = _unreliable(tested, baselines, calibration)
    doubted = _too_good(metric, tested, baselines, importance), _worse_than_a_mean(metric, tested), _by_heart(again)
    doubts = [remark for remark in doubted if remark]
    said = [compared["sentence"], *([unreliable] if unreliable else []), *doubts]
    # A title that promises something must not stand above a sentence that takes it back.
    level = "close" if compared["level"] == "good" and doubts else compared["level"]
    return compared | {"level": level, "sentence": " ".join(said)}


def _compared(
    metric: Metric,
    tested: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    interval: Interval,
    members: Sequence[str],
) -> Content:
    name = metric.name
    if name not in tested:
        why = f": {UNDEFINED[name]}" if name in UNDEFINED else " on these test rows"
        others = ", ".join(f"{words(other)} {value:.4g}" for other, value in tested.items())
        sentence = f"Test {words(name)} is not defined{why}." + (f" Test {others}." if others else "")
        return _said("close", "What this model is worth cannot be told", sentence, better=False, beyond=False)
    own, shown = tested[name], f"{words(name)} {tested[name]:.4g}"
    beside = {other: figures[name] for other, figures in baselines.items() if name in figures}
    if not beside:
        title = "There is no baseline to compare with"
        return _said(
            "close", title, f"Test {shown}; there is no baseline to compare it with.", better=True, beyond=True
        )
    listed = ", ".join(f"{value:.4g} ({other})" for other, value in beside.items())
    perfect = own == (1.0 if metric.higher_is_better else 0.0)
    same = members[0] if len(members) == 1 and members[0] in beside else None
    worse = [
        other
        for other, value in beside.items()
        if not metric.better(own, value)
        and not (perfect and own == value)
        and not (other == same and _within(value, own, interval))
    ]
    if worse:
        named = " and ".join(f"the {other} baseline ({beside[other]:.4g})" for other in worse)
        sentence = f"THIS MODEL IS NOT BETTER THAN {named.upper()}: its test {shown}."
        if all(_within(beside[other], own, interval) for other in worse):
            sentence += " Other test rows could turn them round: the difference may be chance."
        return _said("bad", "This model does not beat its baselines", sentence, better=False, beyond=False)
    tied = [other for other, value in beside.items() if perfect and value == own]
    if tied:
        are = "baseline is" if len(tied) == 1 else "baselines are"
        sentence = f"Test {shown}: no model can be better, and the {' and '.join(tied)} {are} as good."
        return _said("good", "As good as can be, as a baseline is", sentence, better=False, beyond=False)
    if same is not None:
        rest = {other: value for other, value in beside.items() if other != same}
        near = any(_within(value, own, interval) for value in rest.values())
        sentence = (
            f"The {same} model is the model that is published: no other was better on the validation rows. Test "
            f"{shown}; the baselines on the same split: {listed}."
        )
        title = f"The {same} model is the model that is published"
        beats = all(metric.better(own, value) for value in beside.values())
        return _said("close" if near else "good", title, sentence, better=beats, beyond=False)
    sentence = f"Test {shown}, better than the baselines on the same split: {listed}."
    near_by = [other for other, value in beside.items() if _within(value, own, interval)]
    if near_by:
        lie = "baseline lies" if len(near_by) == 1 else "baselines lie"
        sentence += f" The {' and '.join(near_by)} {lie} within its 95 % interval: it may be by chance."
        return _said("close", "Better than its baselines, perhaps by chance", sentence, better=True, beyond=False)
    return _said("good", "Better than its baselines", sentence, better=True, beyond=True)


def _remembered(compared: Content, before: Content) -> Content:
    """What is left of it where the model that a warm start begins with was trained on test rows."""
    if not before["known"]:
        remark = (
            "It is not known which rows the model was trained on that this one begins with: where test rows are among"
            " them, the figures flatter."
        )
        title = "This model may have been tested on rows that it knows"
        level = "bad" if compared["level"] == "bad" else "close"
        return _said(level, title, f"{compared['sentence']} {remark}", better=False, beyond=False)
    if not before["tested"]:
        sentence = (
            "THIS MODEL WAS TESTED ON ROWS THAT IT KNOWS: the one that it begins with was trained on all"
            f" {before['of']} test rows. What it is worth on other rows cannot be told; bring some."
        )
        return _said("bad", "This model was tested on rows that it knows", sentence, better=False, beyond=False)
    if not before["rows"]:
        return compared
    remark = (
        f"Left out are {before['rows']} of {before['of']} test rows, on which the model was trained that this one"
        " begins with."
    )
    return compared | {"sentence": f"{compared['sentence']} {remark}"}


def _said(level: str, title: str, sentence: str, *, better: bool, beyond: bool) -> Content:
    return {
        "better_than_baselines": better,
        "beyond_chance": beyond,
        "level": level,
        "title": title,
        "sentence": sentence,
    }


def _within(value: float, own: float, interval: Interval) -> bool:
    """Whether a baseline's figure may be the model's own on other rows."""
    return value == own or (interval is not None and interval[0] <= value <= interval[1])


def _unreliable(
    tested: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]], found: Content | None
) -> str | None:
    """A sentence where a user must not take the probabilities at their word."""
    own, trivial = tested.get("log_loss"), baselines.get("trivial", {}).get("log_loss")
    if own is not None and trivial is not None and own > trivial:
        return (
            f"Its probabilities are not to be relied on: a constant answer's are nearer the truth (log loss "
            f"{number(trivial)} against {number(own)})."
        )
    if not isinstance(found, dict):
        return None
    error, chance = found.get("expected_calibration_error"), found.get("error_by_chance")
    if error is None or chance is None or error <= max(chance, UNRELIABLE):
        return None
    return f"Its probabilities are not to be relied on: on average they are {error:.0%} off."


def _by_heart(again: Content | None) -> str | None:
    """A sentence where test rows that the model was trained on make the figure."""
    if again is None or again["share"] < BY_HEART:
        return None
    without = again["without"]
    others = (
        "what it is worth on others cannot be told; bring some"
        if without is None
        else f"on the others its {words(again['figure'])} is {number(without)}"
    )
    return f"{again['share']:.0%} of the test rows are also among those that it was trained on: {others}."


def _worse_than_a_mean(metric: Metric, tested: Mapping[str, float]) -> str | None:
    """A sentence where a model that beats its baselines may be of no use all the same."""
    if metric.name != "r2" or tested.get("r2", 0.0) >= 0:
        return None
    return "R² below 0: the mean of the test rows alone would predict them better."


def _too_good(
    metric: Metric, tested: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]], found: Content | None
) -> str | None:
    """A sentence where the figure is nearly perfect by one column."""
    own, least = tested.get(metric.name), TOO_GOOD.get(metric.name)
    trivial = baselines.get("trivial", {}).get(metric.name)
    if own is None or least is None or own < least or trivial is None or not found or not found["columns"]:
        return None
    first = found["columns"][0]
    if found["figure"] != metric.name or first["loss"] < CARRIES * (own - trivial):
        return None
    return (
        f"This is too good to be true, unless column '{shortened(first['column'], 100)}' is known before the answer is:"
        f" with its cells exchanged among the test rows {words(metric.name)} falls to {number(own - first['loss'])}. "
        "If it is not known then, list it under data.drop."
    )
