"""The report of a training: report.json has every figure, report.html and the model card README.md show them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trainer_image.report_html import page


def write(folder: Path, content: dict[str, Any]) -> None:
    """Writes report.json, report.html and README.md. `content` is plain JSON without NaN."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(content), encoding="utf-8")
    (folder / "README.md").write_text(card(content), encoding="utf-8")


def markdown(text: object) -> str:
    """Text from a dataset as inert Markdown: no markup, no HTML, one line."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", line)


def card(content: dict[str, Any]) -> str:
    """The model card."""
    headline = content["headline"]
    lines = [
        f"# {content['task'].replace('_', ' ').capitalize()} model, run {markdown(content['run_id'])}",
        "",
        f"**{markdown(content['verdict']['sentence'])}**",
        "",
        markdown(content["dataset"]["description"]),
        "",
        "| | " + " | ".join(markdown(name) for name in content["metrics"]) + " |",
        "|---|" + "---|" * len(content["metrics"]),
    ]
    for name, figures in {"this model": content["metrics"], **content["baselines"]}.items():
        cells = (f"{figures[key]:.4g}" if key in figures else "" for key in content["metrics"])
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    training = content["training"]
    lines += [
        "",
        f"Figures are those of the test split, touched once at the end; the headline is {markdown(headline)}.",
        f"Weights were chosen by {markdown(training['selected_by'])} (epoch {training['best_epoch']} of "
        f"{training['epochs']}) and have seen: {' and '.join(training['fit_on'])} rows.",
        "",
    ]
    remarks = [*content["dataset"]["warnings"], *content["dataset"]["notes"], *training["notes"]]
    if remarks:
        lines += ["## Good to know", "", *(f"- {markdown(remark)}" for remark in remarks), ""]
    lines += [
        "## Use",
        "",
        "    python -m trainer_image predict --model . --data FILE",
        "",
        "`model.safetensors` holds the weights, `model.json` architecture, preprocessing and labels; nothing else is "
        "needed. `report.html` has curves and details, `report.json` every figure.",
        "",
        f"Dataset fingerprint: `{re.sub('[^0-9A-Za-z:._-]', '', str(content['dataset']['fingerprint']))}`",
        "",
    ]
    return "\n".join(lines)
