"""Contents of reports, made as a training makes them, for the tests of the page and of the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer_image.report import pictures
from trainer_image.report.pictures import Shots
from trainer_image.report.verdict import verdict
from trainer_image.tasks import metrics
from trainer_image.tasks.base import Metric
from trainer_image.tasks.intervals import bootstrap

EVIL = "<script>document.title='taken'</script><img src=x onerror=alert(1)>\"'&"
LONG = "a-very-long-name-without-any-place-to-break-it-" * 4


def report(findings: dict[str, Any], figures: dict[str, float], headline: str, **changes: Any) -> dict[str, Any]:
    """A whole report.json around these findings; `changes` replaces parts."""
    selection = "log_loss" if "log_loss" in figures else headline
    history = [
        {
            "phase": "search",
            "epoch": epoch,
            "step": 10 * epoch,
            "seconds": 0.5 * epoch,
            "loss": 300 / epoch**2,
            "validation": dict.fromkeys({headline, selection}, 1 / (1 + epoch)),
        }
        for epoch in range(1, 13)
    ]
    history += [
        {"phase": "refit", "epoch": epoch, "step": 120 + epoch, "seconds": 7.0, "loss": 0.1} for epoch in (1, 2)
    ]
    return {
        "format": 1,
        "run_id": "20261123t081500-1a2b3c4d",
        "task": "tabular",
        "dataset": {
            "fingerprint": "0123456789abcdef" * 4,
            "description": f"A table with 3 columns, classification of 'y' into 2 classes ({EVIL}); rows: 80 train.",
            "rows": {"train": 80, "validation": 20, "test": 120},
            "notes": [f"Column '{EVIL}' is constant and was left out."],
            "warnings": [f"Column '{LONG}' looks like a row number."],
        },
        "verdict": {
            "better_than_baselines": True,
            "beyond_chance": True,
            "level": "good",
            "title": "Better than its baselines",
            "sentence": "Test accuracy 0.9.",
        },
        "headline": headline,
        "metrics": figures,
        "intervals": {headline: (0.8, 0.95)},
        "resamples": 1000,
        "baselines": {
            "trivial": dict.fromkeys(figures, 0.5),
            "linear": dict.fromkeys(figures, 0.7),
        },
        "training": {
            "steps": 122,
            "epochs": 12,
            "best_epoch": 9,
            "selected_by": f"validation {selection}",
            "best_validation": 0.1,
            "fit_on": ["train", "validation"],
            "resumed_from_step": 45,
            "recipe": {"epochs": 12, "learning_rate": 0.003, "ema_decay": None, "refit": True},
            "bfloat16": False,
            "rows_at_a_time": 32,
            "parameters": 12345,
            "notes": [],
        },
        "history": history,
        "seconds": {"read": 0.2, "train": 75.0, "test": 0.01, "baselines": 0.4, "report": 0.1},
        "hardware": {"device": "cpu", "processor": "x86_64", "cpus": 2, "gpu_memory_bytes": 80 * 2**30},
        "config": {"task": "tabular", "data": {"target": EVIL}, "train": {"epochs": "auto"}},
        "findings": findings,
    } | changes


def classification(labels: Sequence[str] = ("no", "yes"), rows: int = 120, **changes: Any) -> dict[str, Any]:
    """Labels that are drawn from random probabilities, rows named with hostile cells."""
    random = np.random.default_rng(0)
    p = random.dirichlet(np.full(len(labels), 0.3), rows)
    y = torch.from_numpy(np.array([random.choice(len(labels), p=row) for row in p]))
    outputs = torch.from_numpy(p)
    figures = metrics.classification(outputs, y)
    findings = metrics.classification_findings(outputs, y, labels)
    intervals, _ = bootstrap(
        lambda o, b: metrics.classification(o, b["target"]), outputs, {"target": y}, figures, seconds=0.2
    )
    for entry in findings["worst"]:
        entry["example"] = {"name": f"test.csv, row {entry['row'] + 2}", "cells": {EVIL: EVIL, "colour": LONG[:80]}}
    return report(findings, figures, "accuracy", intervals=intervals | findings["intervals"], **changes)


def regression(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.normal(20_000, 5000, 150))
    values = truth + torch.from_numpy(random.normal(0, 1500, 150))
    figures = metrics.regression(values, truth)
    return report(metrics.regression_findings(values, truth), figures, "r2", **changes)


def images(**changes: Any) -> tuple[dict[str, Any], dict[int, Shots]]:
    """(report, pictures) of a classification whose worst mistakes are pictures."""
    content = classification(task="image_classification", **changes)
    random = np.random.default_rng(0)
    shots: dict[int, Shots] = {}
    for entry in content["findings"]["worst"]:
        entry["example"] = {"name": f"test/{EVIL}/{entry['row']}.png"}
        shots[entry["row"]] = {"": pictures.thumbnail(random.integers(0, 255, (3, 128, 200), dtype=np.uint8))}
    return content, shots


def language() -> dict[str, Any]:
    findings = {
        "kind": "language_model",
        "bytes": 123_456,
        "files": [{"name": f"{EVIL}/{k}.py", "bytes": 1000 * k, "bits_per_byte": 1.5 + k / 40} for k in range(1, 60)],
        "samples": [{"prompt": "def f(", "text": f"self):\n    return {EVIL}"}, {"prompt": "", "text": LONG * 3}],
    }
    figures = {"bits_per_byte": 1.71}
    judged = verdict(Metric("bits_per_byte", higher_is_better=False), figures, {}, None)
    return report(findings, figures, "bits_per_byte", task="language_model", baselines={}, verdict=judged)


def custom() -> dict[str, Any]:
    findings = {
        "kind": EVIL,
        EVIL: 3,
        "per_sensor": [{"sensor": EVIL, "error": 0.25}, {"sensor": "b", "error": None, "note": [1, {"x": LONG}]}],
        "shares": {"left": 0.25, "right": 0.75},
        "names": ["a", EVIL],
        "deep": {"a": {"b": [[1, 2], [3, 4]]}},
        "worst": [{"row": 3, "error": 2.5, "example": {"name": "trace 3", "text": EVIL}}, {"row": "no row"}],
    }
    return report(findings, {"score": 0.5}, "score", task="custom", intervals={})


def pictured() -> tuple[dict[str, Any], dict[int, Shots]]:
    """A plug-in's report whose worst mistake has several pictures, with a gallery."""
    grey = np.zeros((1, 40, 60), dtype=np.uint8)
    shots = {name: pictures.thumbnail(grey + k) for k, name in enumerate(("image", "<b>", LONG[:40]))}
    content = custom() | {"plug_in": EVIL, "gallery": [{"name": EVIL, "text": LONG, "cells": {EVIL: "x"}}]}
    return content, {3: shots}


def program() -> dict[str, Any]:
    """What `task: command` knows of a program."""
    return {
        "format": 1,
        "run_id": "20261123t081500-1a2b3c4d",
        "task": "command",
        "dataset": {"fingerprint": "0123456789abcdef" * 4},
        "headline": EVIL,
        "metrics": {EVIL: 9.5, "other": 1},
        "baselines": {},
        "training": {"program": ["python3", EVIL], "steps": 7, "resumed_from_step": None, "notes": [EVIL]},
        "files": {"count": 3, "bytes": 4100, "largest": [{"name": EVIL, "bytes": 4096}, {"name": "b", "bytes": 3}]},
        "last_lines": ["epoch 7", EVIL],
        "printed": {EVIL: 0.25, "val_loss": 0.125},
        "resources": {
            "seconds": [60.0, 120.0, 180.0],
            "cpus": [0.5, 2.0, 1.0],
            "memory_bytes": [2.0**30, 2.0**31, 2.0**30],
            "gpu_percent": [0.0, 90.0, 80.0],
            "gpu_memory_bytes": [0.0, 2.0**33, 2.0**33],
        },
        "seconds": {"train": 12.0},
        "hardware": {"processor": "x86_64", "python": "3.12"},
        "config": {"task": "command", "command": {"argv": ["python3", EVIL]}},
    }
