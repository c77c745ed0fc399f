"""`report: {examples: false}`: nothing of a single row lies beside the model, whatever was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_image.report import contents
from tests.world.training_data import (
    IMAGES,
    LANGUAGE,
    TABULAR,
    TEXTS,
    class_rows,
    image_folder,
    run_inputs,
    text_records,
    write_csv,
    write_jsonl,
)
from trainer_image.engine.training import train
from trainer_image.report import mistakes
from trainer_image.report.page import page
from trainer_image.tasks.language import task

SECRET = "Kaspar Hauser"


def classes(data: Path) -> str:
    write_csv(data / "train.csv", ["a", "b", "who", "y"], class_rows())
    wrong = [[a, b, SECRET, "no" if y == "yes" else "yes"] for a, b, _, y in class_rows(40, seed=1)]
    write_csv(data / "test.csv", ["a", "b", "who", "y"], wrong)
    return TABULAR


def values(data: Path) -> str:
    for split, first in (("train", 0), ("test", 1000)):
        rows = [[a, b, SECRET, 7.25 + first + n] for n, (a, b, _, _) in enumerate(class_rows(60))]
        write_csv(data / f"{split}.csv", ["a", "b", "who", "y"], rows)
    return TABULAR


def images(data: Path) -> str:
    image_folder(data)
    (image_folder(data / "other") / "train" / "left").rename(data / "other" / "train" / "swap")
    (data / "other" / "train" / "right").rename(data / "other" / "train" / "left")
    (data / "other" / "train" / "swap").rename(data / "other" / "train" / "right")
    (data / "other" / "train").rename(data / "test")
    (data / "other").rmdir()
    return IMAGES


def texts(data: Path) -> str:
    records = text_records()
    write_jsonl(data / "train.jsonl", records)
    other = {"sea": "kitchen", "kitchen": "sea"}
    write_jsonl(
        data / "test.jsonl", [{"text": f"{SECRET} {r['text']}", "label": other[r["label"]]} for r in records[:30]]
    )
    return TEXTS


def documents(data: Path) -> str:
    write_jsonl(data / "train.jsonl", [{"text": "once upon a time " * 30}] * 30)
    write_jsonl(data / "test.jsonl", [{"text": f"{SECRET} lived once upon a time " * 20}] * 6)
    return LANGUAGE


@pytest.mark.parametrize("make", [classes, values, images, texts, documents], ids=lambda make: make.__name__)
def test_no_row_of_the_test_is_told_where_the_configuration_forbids_it(
    make: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "SAMPLE_BYTES", 4)
    config = make(tmp_path / "data")
    told: dict[bool, dict[str, str]] = {}
    for shown in (True, False):
        out = tmp_path / str(shown)
        train(run_inputs(tmp_path / "data", out, config + f"report: {{examples: {str(shown).lower()}}}\n"))
        told[shown] = {name: (out / name).read_text() for name in ("report.html", "report.json", "README.md")}
    kept = {True: 0, False: 0}
    for shown, files in told.items():
        report = json.loads(files["report.json"])
        kept[shown] += sum(text.count(SECRET) + text.count("data:image/") for text in files.values())
        kept[shown] += len(report["findings"].get("worst") or []) + len(report["findings"].get("points", []))
        assert report["config"]["report"] == {"examples": shown}
    assert kept[True] > 0
    assert kept[False] == 0
    same = [json.loads(files["report.json"])["metrics"] for files in told.values()]
    assert same[0] == same[1], "what is shown changes no figure"


@pytest.mark.parametrize("content", [contents.classification(), contents.regression(), contents.custom()])
def test_the_page_says_that_rows_were_left_out_and_keeps_its_sections(content: dict[str, Any], caplog: Any) -> None:
    whole, without = page(content, {}), page(content | {"findings": mistakes.withheld(content["findings"])}, {})
    assert "Not shown: config.yaml says report: {examples: false}." in without
    assert whole.count("<section id=") == without.count("<section id=")
    assert "shown as tables" not in caplog.text
