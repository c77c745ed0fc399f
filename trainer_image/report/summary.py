"""The sections that every report has, whatever was trained."""

from __future__ import annotations

import yaml

from trainer_image.report import charts
from trainer_image.report.html import (
    Content,
    Marked,
    block,
    bullets,
    details,
    facts,
    interval,
    number,
    paragraph,
    plain,
    seconds,
    section,
    table,
    text,
    words,
)

FEW_ROWS = 100
FEW_GROUPS = 20


def task_of(content: Content) -> str:
    """The task's name; a plug-in's own in place of "custom"."""
    return str(content.get("plug_in") or content["task"])


def model_of(task: object) -> str:
    """What was trained, as a title."""
    name = str(task).replace("_", " ").capitalize()
    return name if name.endswith("model") else f"{name} model"


def heading(content: Content, title: str, where: str = "") -> str:
    """What was trained, by which run, in how many steps, and `where`."""
    steps = f"{number(content['training']['steps'])} steps in {seconds(content['seconds'].get('train', 0.0))}"
    return (
        f'<header><p class="eyebrow">Training report</p><h1>{text(title)}</h1>'
        f'<p class="soft small">Run {text(content["run_id"])} · {text(steps + where)}</p></header>'
    )


def verdict(content: Content) -> str:
    """The headline figure, how sure it is, and whether a simpler model does as well."""
    found, name = content["verdict"], content["headline"]
    value, ends = content["metrics"].get(name), content["intervals"].get(name)
    rows = content["dataset"]["rows"].get("test")
    compared = [] if value is None else [("this model", value, ends)]
    if compared:
        compared += [(label, figures[name], None) for label, figures in content["baselines"].items() if name in figures]
    said = "; ".join(f"{label} {number(figure)}" for label, figure, _ in compared)
    picture = (
        charts.comparison(f"Test {words(name)} beside the baselines", said, compared, f"test {words(name)}")
        if len(compared) > 1
        else ""
    )
    sure = f"95 % interval {interval(ends)}, " if ends else ""
    counted = f"{sure}{number(rows)} rows{of_groups(content)}"
    hero = (
        f'<div class="hero"><div><p class="big">{text(number(value))}</p>'
        f'<p class="soft">test {text(words(name))}<br>{text(counted)}</p></div>'
        f"<div>{picture}</div></div>"
    )
    return (
        f'<section id="verdict" class="verdict {found["level"]}" aria-labelledby="verdict-title">\n'
        f'<h2 id="verdict-title">{text(found["title"])}</h2>\n{paragraph(found["sentence"])}{hero}</section>'
    )


def groups(content: Content) -> str:
    """The groups of the test split that intervals count by, e.g. "9 groups by 'patient'", or nothing."""
    found = content["dataset"].get("test_groups")
    return f"{number(found['count'])} {found['called']}" if found else ""


def of_groups(content: Content) -> str:
    """How the test rows count, after their number: " of 9 groups by 'patient', weighed by 'persons'", or nothing."""
    by = content["dataset"].get("weighed_by")
    weighed = f", weighed by '{by}'" if by else ""
    return (f" of {groups(content)}" if groups(content) else "") + weighed


def data(content: Content) -> str:
    dataset, training = content["dataset"], content["training"]
    rows = dataset["rows"]
    parts = [(name, float(count), f"{number(count)} rows") for name, count in rows.items()]
    said = ", ".join(f"{name} {shown}" for name, _, shown in parts)
    return section(
        "data",
        "Data",
        paragraph(dataset["description"]),
        charts.stack("Rows of each split", said, parts),
        bullets(warnings(content), "warnings"),
        bullets([*dataset["notes"], *training["notes"]], "remarks"),
        paragraph(
            f"Fingerprint {dataset['fingerprint']}: name, size and version of every file, see dataset.lock.json.",
            "soft small",
        ),
    )


def warnings(content: Content) -> list[str]:
    """What looks wrong with the data, and with so little of it."""
    rows = content["dataset"]["rows"].get("test", FEW_ROWS)
    few = [f"The test split has {rows} rows only: every figure is rough."] if rows < FEW_ROWS else []
    found = content["dataset"].get("test_groups")
    if found and found["count"] < FEW_GROUPS:
        few.append(f"The test split has {groups(content)} only: every figure is rough.")
    return [*content["dataset"]["warnings"], *few]


def figures(content: Content) -> str:
    """All figures of the test split, with intervals, beside the baselines'."""
    baselines = content["baselines"]
    headline = content["headline"]
    rows = (
        []
        if headline in content["metrics"]
        else [[words(headline), Marked("not defined"), "–", *("–" for _ in baselines)]]
    )
    for name, value in content["metrics"].items():
        ends = content["intervals"].get(name)
        beside = [number(other.get(name)) for other in baselines.values()]
        rows.append([words(name), Marked(number(value)), interval(ends), *beside])
    resamples = content.get("resamples", 0)
    ours = (
        " The baselines were fitted on the same rows: a constant answer (trivial) and a linear model (linear)."
        if set(baselines) == {"trivial", "linear"}
        else ""
    )
    bootstrap = f" or a bootstrap of {number(resamples)} resamples" if resamples else ""
    grouped = groups(content)
    alike = f"both count by the {grouped}, because rows of one are alike"
    counted = alike if grouped else "both take rows for independent"
    by = content["dataset"].get("weighed_by")
    weighed = f" All figures, and the baselines' fits, count a row as much as '{by}' says (data.weight)." if by else ""
    return section(
        "figures",
        "Test figures",
        table(
            f"On {number(content['dataset']['rows'].get('test'))} rows that took no part in training or selection",
            ["", "this model", "95 % interval", *(words(name) for name in baselines)],
            rows,
        ),
        paragraph(f"Intervals: Wilson's for shares of rows{bootstrap}; {counted}.{ours}{weighed}", "soft small"),
    )


def times(content: Content) -> str:
    spent = content["seconds"]
    parts = [(name.replace("_", " "), float(value), seconds(value)) for name, value in spent.items()]
    said = ", ".join(f"{name} {shown}" for name, _, shown in parts)
    return section(
        "time",
        "Time",
        paragraph(f"{seconds(sum(spent.values()))} in all, without download and upload."),
        charts.stack("Time of each phase", said, parts),
    )


# What a figure of the training is called where it is not its name in words.
_TRAINING = {
    "epochs": "epochs of the search",
    "selected_by": "weights chosen by",
    "best_validation": "its best value",
    "fit_on": "weights have seen",
    "stopped": "the search ended because",
}


def candidates(content: Content) -> str:
    """Models that competed, where there were several."""
    entries = content.get("candidates", [])
    if not entries:
        return ""
    selected = chosen_by(content["training"]["selected_by"])
    rows = [
        [
            entry["name"],
            number(entry["validation"]),
            Marked(number(entry["weight"])) if entry["weight"] else "–",
            seconds(entry["seconds"]),
            entry["note"],
        ]
        for entry in entries
    ]
    return section(
        "candidates",
        "Models that competed",
        table("Each on the validation split", ["", selected, "weight", "time", "remark"], rows, words_in=[4]),
        paragraph("What has a weight is published, as one model that predicts their weighted mean.", "soft small"),
    )


def training(content: Content) -> str:
    found = content["training"]
    shown = []
    for name, value in found.items():
        if name in ("recipe", "notes") or isinstance(value, dict):
            continue
        said = " and ".join(map(str, value)) if isinstance(value, list) else plain(value)
        if name == "selected_by":
            said = chosen_by(value)
        if name in ("seconds", "time_budget"):
            said = seconds(value)
        if value not in (None, ""):
            shown.append((_TRAINING.get(name, name.replace("_", " ")), said))
    recipe = [(name.replace("_", " "), plain(value)) for name, value in found["recipe"].items()]
    return section("training", "Training", facts(shown), details("Recipe: what auto became", facts(recipe)))


def chosen_by(selected: object) -> str:
    """ "validation balanced_accuracy" as people read it."""
    return " ".join(words(word) for word in str(selected).split())


def surroundings(content: Content) -> str:
    """Hardware, versions, configuration."""
    hardware = [(name.replace("_", " "), _bytes(name, value)) for name, value in content["hardware"].items()]
    config = yaml.safe_dump(content["config"], sort_keys=False, allow_unicode=True, default_flow_style=False)
    return section(
        "surroundings",
        "Hardware and configuration",
        facts(hardware),
        paragraph("environment.json has the version of every package.", "soft small"),
        details("Configuration, with every default", block(config)),
    )


def _bytes(name: str, value: object) -> object:
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**30:.1f} GiB"
    return plain(value)


def use(content: Content) -> str:
    command = "python -m trainer_image predict --model FOLDER --data FILE --out predictions.csv"
    return section(
        "use",
        "Use this model",
        paragraph("model.json and model.safetensors beside this file are all that a prediction needs:"),
        block(command),
        paragraph(
            "On the rows of the test split it prints the figures of this report: to the last digit on the machine and "
            "the kind of device that trained, up to rounding elsewhere. On rows that the model was "
            "trained on the figures look better than it is. README.md is the model card, report.json has every figure."
        ),
    )


def footer(content: Content) -> str:
    return f"<footer><p>Run {text(content['run_id'])}, report format {text(content['format'])}.</p></footer>"
