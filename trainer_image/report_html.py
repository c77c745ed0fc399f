"""report.html: one file, no outside assets, no script; light and dark by the reader's preference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6473;--line:#d5dae2;--paper:#fff;--box:#f5f7fa;
--a:#2563eb;--b:#c2570c;--bad:#b42318;--good:#15803d}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa4b5;--line:#343c49;--paper:#12161d;--box:#1a202a;
--a:#7aa8ff;--b:#f0a35e;--bad:#ff8a7a;--good:#6fd08c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
p.verdict{padding:.7rem 1rem;border-left:4px solid var(--good);background:var(--box);font-weight:600}
p.verdict.bad{border-color:var(--bad);color:var(--bad)}
.wide{overflow-x:auto}table{border-collapse:collapse}
td,th{border:1px solid var(--line);padding:.25rem .6rem;text-align:right}
th{background:var(--box);font-weight:600}td:first-child,th:first-child{text-align:left}
svg{width:100%;height:auto;max-width:44rem}svg text{fill:var(--soft);font-size:11px}
.axis{stroke:var(--line);fill:none}.a{stroke:var(--a);fill:none;stroke-width:2}
.b{stroke:var(--b);fill:none;stroke-width:2}.dot{fill:var(--a);opacity:.5}
.key-a{color:var(--a)}.key-b{color:var(--b)}td.cell{min-width:2.2rem;text-align:center}
pre{background:var(--box);padding:.8rem;overflow-x:auto}ul{padding-left:1.2rem}.soft{color:var(--soft)}
"""
LARGEST_MATRIX = 40
WIDTH, HEIGHT, PAD = 640, 240, 44


def page(content: dict[str, Any]) -> str:
    """The whole page; every text is escaped, whether it came from the dataset or not."""
    task = escape(str(content["task"]).replace("_", " "))
    good = content["verdict"]["better_than_baselines"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>Training report: {task}</title><style>{STYLE}</style></head><body>",
        f"<h1>Training report: {task}</h1>",
        f'<p class="soft">Run {escape(str(content["run_id"]))}</p>',
        f'<p class="verdict{"" if good else " bad"}">{escape(content["verdict"]["sentence"])}</p>',
        f"<p>{escape(content['dataset']['description'])}</p>",
        _remarks([*content["dataset"]["warnings"], *content["dataset"]["notes"], *content["training"]["notes"]]),
        "<h2>Test split</h2>",
        _figures(content),
        "<h2>Learning curves</h2>",
        _curves(content),
        _findings(content["findings"]),
        "<h2>Time, hardware, configuration</h2>",
        _table(["phase", "seconds"], [[k, f"{v:.2f}"] for k, v in content["seconds"].items()]),
        _details("Training", content["training"]),
        _details("Hardware", content["hardware"]),
        _details("Configuration", content["config"]),
        f'<p class="soft">Dataset fingerprint {escape(str(content["dataset"]["fingerprint"]))}</p></body></html>\n',
    ]
    return "\n".join(parts)


def _remarks(remarks: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(remark)}</li>" for remark in remarks) + "</ul>" if remarks else ""


def _details(title: str, value: object) -> str:
    text = escape(json.dumps(value, indent=1, ensure_ascii=False))
    return f"<details><summary>{title}</summary><pre>{text}</pre></details>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _figures(content: dict[str, Any]) -> str:
    names = list(content["metrics"])
    rows = [
        [label, *(f"{figures[name]:.4g}" if name in figures else "" for name in names)]
        for label, figures in {"this model": content["metrics"], **content["baselines"]}.items()
    ]
    return _table(["", *(name.replace("_", " ") for name in names)], rows)


def _curves(content: dict[str, Any]) -> str:
    epochs = [record for record in content["history"] if "validation" in record]
    if len(epochs) < 2:
        return '<p class="soft">Too few epochs for a curve.</p>'
    headline, chosen = content["headline"], content["training"]["selected_by"].removeprefix("validation ")
    loss = [("a", "training loss", [(r["epoch"], r["loss"]) for r in epochs])]
    figures = [("a", f"validation {headline}", [(r["epoch"], r["validation"][headline]) for r in epochs])]
    if chosen != headline:
        loss.append(("b", f"validation {chosen}", [(r["epoch"], r["validation"][chosen]) for r in epochs]))
    if chosen == "rmse":  # in the target's unit, no scale to share with the loss
        return _lines(loss[:1]) + _lines(loss[1:]) + _lines(figures)
    return _lines(loss) + _lines(figures)


def _lines(series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]]) -> str:
    xs = [x for _, _, points in series for x, _ in points]
    ys = [y for _, _, points in series for _, y in points]
    x, y = _scale(xs, PAD, WIDTH - 8), _scale(ys, HEIGHT - 24, 8)
    paths = "".join(
        f'<polyline class="{kind}" points="{" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)}"/>'
        for kind, _, points in series
    )
    key = ", ".join(f'<span class="key-{kind}">{escape(name.replace("_", " "))}</span>' for kind, name, _ in series)
    return f"<p>{key}</p>" + _frame(paths, (min(xs), max(xs)), (min(ys), max(ys)), "epoch")


def _scale(values: Sequence[float], start: float, end: float) -> Any:
    low, high = min(values), max(values)
    return lambda value: start + (value - low) / ((high - low) or 1) * (end - start)


def _frame(inner: str, xs: tuple[float, float], ys: tuple[float, float], label: str) -> str:
    bottom = HEIGHT - 24
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'<path class="axis" d="M{PAD} 8V{bottom}H{WIDTH - 8}"/>{inner}'
        f'<text x="4" y="16">{ys[1]:.3g}</text><text x="4" y="{bottom}">{ys[0]:.3g}</text>'
        f'<text x="{PAD}" y="{HEIGHT - 6}">{xs[0]:.3g}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}">{escape(label)}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">{xs[1]:.3g}</text></svg>'
    )


def _findings(findings: dict[str, Any]) -> str:
    if findings["kind"] == "regression":
        points = findings["points"]
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        low, high = min(xs + ys), max(xs + ys)
        x, y = _scale([low, high], PAD, WIDTH - 8), _scale([low, high], HEIGHT - 24, 8)
        dots = "".join(f'<circle class="dot" r="3" cx="{x(a):.1f}" cy="{y(b):.1f}"/>' for a, b in points)
        diagonal = f'<path class="axis" d="M{x(low)} {y(low)}L{x(high)} {y(high)}"/>'
        quantiles = findings["residual_quantiles"]
        return (
            "<h2>Predicted (up) against true (across)</h2>"
            + _frame(diagonal + dots, (low, high), (low, high), "true value")
            + _table(
                ["residual quantile", *quantiles], [["predicted - true", *(f"{q:.4g}" for q in quantiles.values())]]
            )
        )
    per_class = _table(
        ["class", "test rows", "recall", "precision"],
        [
            [str(c["label"]), str(c["rows"]), *("" if c[k] is None else f"{c[k]:.3f}" for k in ("recall", "precision"))]
            for c in findings["per_class"]
        ],
    )
    return "<h2>Confusion matrix (true class down, predicted across)</h2>" + _matrix(findings) + per_class


def _matrix(findings: dict[str, Any]) -> str:
    labels, counts = findings["labels"], findings["confusion_matrix"]
    if len(labels) > LARGEST_MATRIX:
        return f'<p class="soft">{len(labels)} classes: too many to draw; report.json has the counts.</p>'
    head = "".join(f"<th>{escape(str(label))}</th>" for label in labels)
    rows = []
    for i, label in enumerate(labels):
        most = max(1, sum(counts[i]))
        cells = "".join(
            f'<td class="cell" style="background:color-mix(in srgb,var(--{"a" if i == j else "bad"}) '
            f'{round(45 * count / most)}%,transparent)">{count}</td>'
            for j, count in enumerate(counts[i])
        )
        rows.append(f"<tr><th>{escape(str(label))}</th>{cells}</tr>")
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
