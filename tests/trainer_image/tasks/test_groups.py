"""data.group: intervals count by groups, and every task says which rows of its test belong together."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.world.training_data import (
    TABULAR,
    class_rows,
    image_folder,
    run_inputs,
    text_records,
    write_csv,
    write_jsonl,
)
from trainer_image.engine.training import train
from trainer_image.errors import ConfigInvalid
from trainer_image.tasks.base import Problem, TaskSettings
from trainer_image.tasks.image.task import ImageClassification
from trainer_image.tasks.intervals import wilson
from trainer_image.tasks.language.task import LanguageModel
from trainer_image.tasks.tabular.task import Tabular
from trainer_image.tasks.text.task import TextClassification

HEADER = ["a", "b", "colour", "who", "y"]


def rows(count: int = 240, people: int = 24) -> list[list[object]]:
    return [[*row[:3], f"p{n % people}", row[3]] for n, row in enumerate(class_rows(count))]


def table(data: Path) -> Problem:
    write_csv(data / "train.csv", HEADER, rows())
    return Tabular().prepare(data, TaskSettings(target="y", group="who"))


def table_with_a_test(data: Path) -> Problem:
    write_csv(data / "test.csv", HEADER, rows(40, 4))
    return table(data)


def images(data: Path) -> Problem:
    image_folder(data)
    files = sorted((data / "train").rglob("*.png"))
    named = [[path.relative_to(data / "train").as_posix(), path.parent.name, n // 4] for n, path in enumerate(files)]
    write_csv(data / "train" / "metadata.csv", ["file_name", "label", "who"], named)
    return ImageClassification().prepare(data, TaskSettings(group="who"))


def texts(data: Path) -> Problem:
    write_jsonl(data / "train.jsonl", [row | {"who": str(n // 4)} for n, row in enumerate(text_records())])
    return TextClassification().prepare(data, TaskSettings(group="who"))


def documents(data: Path) -> Problem:
    write_jsonl(data / "train.jsonl", [{"text": "once upon a time " * 20, "who": n // 4} for n in range(160)])
    return LanguageModel().prepare(data, TaskSettings(group="who"))


def whole_documents(data: Path) -> Problem:
    write_jsonl(data / "train.jsonl", [{"text": "once upon a time " * 200} for n in range(60)])
    return LanguageModel().prepare(data, TaskSettings())


@pytest.mark.parametrize(
    ("make", "groups", "called"),
    [
        (table, 5, "groups by 'who'"), (table_with_a_test, 4, "groups by 'who'"), (images, 2, "groups by 'who'"),
        (texts, 5, "groups by 'who'"), (documents, 6, "groups by 'who'"), (whole_documents, 10, "documents"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_a_task_says_which_rows_of_its_test_belong_together(make, groups: int, called: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    problem = make(tmp_path)
    found = problem.test_groups
    assert found is not None
    assert found.called == called
    assert sorted(found.of.unique().tolist()) == list(range(groups))
    assert len(found.of) == len(next(iter(problem.splits["test"].values())))


def test_without_groups_or_their_column_in_the_test_rows_stand_for_themselves(tmp_path: Path) -> None:
    write_csv(tmp_path / "test.csv", ["a", "b", "colour", "y"], class_rows(40))
    assert table(tmp_path).test_groups is None
    assert Tabular().prepare(tmp_path, TaskSettings(target="y", drop=("who",))).test_groups is None


def test_very_few_documents_tell_nothing_of_others(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"text": "once upon a time " * 200}] * 2)
    assert whole_documents(tmp_path).test_groups is None


def test_a_group_of_images_that_have_none_is_a_sentence(tmp_path: Path) -> None:
    image_folder(tmp_path)
    with pytest.raises(ConfigInvalid, match=r"data\.group: images in folders have no 'who'; a metadata\.csv"):
        ImageClassification().prepare(tmp_path, TaskSettings(group="who"))


def test_the_report_counts_by_groups_and_says_so(tmp_path: Path) -> None:
    write_csv(tmp_path / "data" / "train.csv", HEADER, rows())
    train(run_inputs(tmp_path / "data", tmp_path / "out", TABULAR.replace("target: y", "target: y, group: who")))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["dataset"]["test_groups"] == {"count": 5, "called": "groups by 'who'"}
    low, high = report["intervals"]["accuracy"]
    tested = report["dataset"]["rows"]["test"]
    plain = wilson(round(report["metrics"]["accuracy"] * tested), tested)
    assert plain is not None
    assert high - low > 1.2 * (plain[1] - plain[0])
    text = (tmp_path / "out" / "report.html").read_text()
    assert "rows of 5 groups by &#x27;who&#x27;</p>" in text
    assert "both count by the 5 groups by &#x27;who&#x27;" in text
    assert "The test split has 5 groups by &#x27;who&#x27; only: every figure is rough." in text
    card = (tmp_path / "out" / "README.md").read_text()
    assert "rows of 5 groups by 'who' of the test split" in card
    with (tmp_path / "data" / "train.csv").open() as file:
        assert {row["who"] for row in csv.DictReader(file)} == {f"p{n}" for n in range(24)}
