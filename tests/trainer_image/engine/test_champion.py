"""The published model is tested beside a new one: on the same rows, without those that it was trained on."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.world.training_data import (
    IMAGES,
    LANGUAGE,
    TABULAR,
    TEXTS,
    class_rows,
    documents,
    image_folder,
    run_inputs,
    text_rows,
    write_csv,
    write_jsonl,
)
from trainer_image.contract import Champion
from trainer_image.data.rows import known
from trainer_image.data.rows.hashes import of_table
from trainer_image.data.table import read_table
from trainer_image.engine import champion, looking
from trainer_image.engine.preparing import prepare
from trainer_image.engine.training import train
from trainer_image.limits import Limits
from trainer_image.predict import predict
from trainer_image.tasks.base import Batch, Predictor, Problem, rows_in, take

HEADER = ["a", "b", "colour", "y"]
OLD = class_rows(160)
NEW = class_rows(60, seed=1)
RUN = "20261122t081500-1a2b3c4d"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published model, which was trained on most of OLD."""
    folder = tmp_path_factory.mktemp("first")
    write_csv(folder / "data" / "train.csv", HEADER, OLD)
    train(run_inputs(folder / "data", folder / "output"))
    return folder / "output"


def trained_beside(first: Path, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    """What report.json says of the published model."""
    inputs = replace(run_inputs(data, out, **options), champion=Champion(RUN, first))
    result = train(inputs)
    found: dict[str, Any] = json.loads((out / "report.json").read_text())["champion"]
    assert result.champion is not None
    assert (result.champion.better, result.champion.sentence) == (found["better"], found["sentence"])
    return found


def test_the_same_training_once_more_is_as_good_to_the_last_digit_and_so_not_better(
    first: Path, tmp_path: Path
) -> None:
    write_csv(tmp_path / "data" / "train.csv", HEADER, OLD)
    found = trained_beside(first, tmp_path / "data", tmp_path / "out")
    assert found["metrics"] == found["champion"]
    assert (found["better"], found["left_out"], found["why"]) == (False, 0, None)
    assert found["rows"] == json.loads((first / "report.json").read_text())["dataset"]["rows"]["test"]
    assert found["sentence"].startswith(f"NOT BETTER THAN THE PUBLISHED MODEL (run {RUN}): test accuracy ")
    for page in ("report.html", "README.md"):
        text = (tmp_path / "out" / page).read_text()
        assert "Beside the published model" in text
        assert RUN in text


def test_its_figures_are_those_that_predict_gives_for_rows_that_neither_was_trained_on(
    first: Path, tmp_path: Path
) -> None:
    write_csv(tmp_path / "data" / "train.csv", HEADER, [*NEW[30:], *OLD])
    test = [*NEW[:30], *OLD[:40]]
    write_csv(tmp_path / "data" / "test.csv", HEADER, test)
    told = known.read(first)
    assert told is not None
    table = read_table([("test.csv", tmp_path / "data" / "test.csv")], Limits())
    trained = known.seen(of_table(table, told.content), told)
    assert (trained[:30].any(), 20 < trained.sum() < 40) == (False, True)
    trained[30:] = True  # the others of OLD train the new model
    write_csv(tmp_path / "unseen.csv", HEADER, [row for row, had in zip(test, trained, strict=True) if not had])
    found = trained_beside(first, tmp_path / "data", tmp_path / "out")
    assert (found["left_out"], found["rows"]) == (trained.sum(), 70 - trained.sum())
    assert found["champion"] == predict(first, tmp_path / "unseen.csv", None)["metrics"]


def test_a_new_column_does_not_keep_the_two_from_being_compared(first: Path, tmp_path: Path) -> None:
    rows = [[*row[:3], number % 7, row[3]] for number, row in enumerate([*class_rows(200, seed=2), *OLD])]
    write_csv(tmp_path / "data" / "train.csv", ["a", "b", "colour", "visits", "y"], rows)
    found = trained_beside(first, tmp_path / "data", tmp_path / "out")
    assert (found["why"], found["left_out"] > 0) == (None, True), "with it, rows are held out anew"


def put(folder: Path, header: list[str], rows: list[list[object]]) -> Path:
    write_csv(folder / "train.csv", header, rows)
    return folder


def spoiled(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("make", "config", "spoil", "why"),
    [
        (
            lambda f: put(f, ["a", "b", "colour", "z"], OLD),
            TABULAR.replace("y}", "z}"),
            None,
            "it is for the .* of 'y'",
        ),
        (
            lambda f: put(f, HEADER, [[*row[:3], f"{row[3]}{row[2]}"] for row in OLD]),
            TABULAR,
            None,
            "it tells other classes apart: it does not know .*, and also knows|it does not know .* and also knows",
        ),
        (
            lambda f: put(f, HEADER, [[*row[:3], i / 7] for i, row in enumerate(OLD)]),
            TABULAR,
            None,
            "it is for the class",
        ),
        (
            lambda f: put(f, ["a", "c", "colour", "y"], OLD),
            TABULAR,
            None,
            "was trained with column 'b', which the test",
        ),
        (text_rows, TEXTS, None, "it is of task tabular, this one of task text_classification"),
        (
            lambda f: put(f, HEADER, OLD),
            TABULAR,
            ("rows.safetensors", None),
            "did not note which rows it was trained on",
        ),
        (lambda f: put(f, HEADER, OLD), TABULAR, ("model.safetensors", b"x"), "cannot be read"),
        (lambda f: put(f, HEADER, OLD), TABULAR, ("model.json", b"{"), "model.json"),
        (lambda f: put(f, HEADER, OLD[:40]), TABULAR, None, "at least 10 are needed"),
    ],
    ids=["target", "classes", "values", "column", "task", "earlier version", "weights", "description", "few rows"],
)
def test_what_cannot_be_compared_is_said_and_costs_nothing(
    first: Path,
    tmp_path: Path,
    make: Callable[[Path], Path],
    config: str,
    spoil: tuple[str, bytes | None] | None,
    why: str,
) -> None:
    folder = tmp_path / "champion"
    shutil.copytree(first, folder)
    if spoil:
        spoiled(folder, *spoil)
    found = compared(folder, make(tmp_path / "data"), tmp_path / "out", config)
    assert found["better"] is None
    assert re.search(why, found["why"]), found["why"]
    assert found["sentence"].startswith(f"The published model (run {RUN}) was not tested beside this one: ")


def compared(folder: Path, data: Path, out: Path, config: str = TABULAR) -> dict[str, Any]:
    """Without a training: of a model that answers the same for every row."""
    out.mkdir()
    inputs = replace(run_inputs(data, out / "output", config), champion=Champion(RUN, folder))
    problem = prepare(inputs)
    outputs = torch.full((rows_in(problem.splits["test"]), 2), 0.5)
    found = champion.beside(inputs, problem, looking.hashes_of(problem), outputs, None, torch.device("cpu"))
    assert found is not None
    return found


def test_a_plug_in_without_a_way_to_read_for_another_model_is_compared_where_both_were_prepared_alike(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer_image.tasks.tabular.task import TabularProblem

    monkeypatch.setattr(TabularProblem, "for_another", Problem.for_another)
    assert compared(first, put(tmp_path / "same", HEADER, OLD), tmp_path / "one")["why"] is None
    why = compared(first, put(tmp_path / "more", HEADER, [*NEW, *OLD]), tmp_path / "two")["why"]
    assert why == "its task cannot read the test rows for a model that was prepared otherwise"


def whole(batch: Batch) -> dict[str, torch.Tensor]:
    return dict(take(batch, slice(0, rows_in(batch))))


@pytest.mark.parametrize(
    ("make", "config", "changes"),
    [
        (image_folder, IMAGES, {"height": 5, "width": 7}),
        (text_rows, TEXTS, {"longest": 16}),
        (documents, LANGUAGE, {"context": 32}),
    ],
    ids=["images", "texts", "language"],
)
def test_test_rows_are_read_for_a_model_of_another_size_as_predict_reads_them(
    tmp_path: Path, make: Callable[[Path], Path], config: str, changes: dict[str, int]
) -> None:
    data = make(tmp_path / "data")
    test = make(tmp_path / "other")
    next(test.glob("train*")).rename(data / next(test.glob("train*")).name.replace("train", "test"))
    (tmp_path / "out").mkdir()
    problem = prepare(run_inputs(data, tmp_path / "out" / "output", config))
    other: Predictor = problem.predictor
    other.sizes = dataclasses.replace(other.sizes, **changes)  # type: ignore[attr-defined]
    assert problem.hashes is not None
    found = problem.for_another(other, problem.hashes.content)
    expected = other.read(data, Limits()).tensors
    assert len(found.hashes) == rows_in(found.rows) == rows_in(expected)
    assert len(found.own) == rows_in(problem.splits["test"])
    ours, theirs = whole(found.rows), whole(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(ValueError, match="told rows by something else"):
        problem.for_another(other, ["bytes of a dream"])


def test_texts_with_other_classes_are_not_compared(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data" / "train.jsonl", [{"text": f"a {n}", "label": "xyz"[n % 3]} for n in range(60)])
    (tmp_path / "out").mkdir()
    problem = prepare(run_inputs(text_rows(tmp_path / "first"), tmp_path / "out" / "one", TEXTS))
    new = prepare(run_inputs(tmp_path / "data", tmp_path / "out" / "two", TEXTS))
    told = "it does not know 'x', 'y', 'z' and also knows 'kitchen', 'sea'"
    assert new.hashes is not None
    with pytest.raises(ValueError, match=told.replace("'", "'?")):
        new.for_another(problem.predictor, new.hashes.content)
