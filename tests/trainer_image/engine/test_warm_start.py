"""A warm start is judged by rows that the model before was not trained on, and says so where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from tests.world.training_data import TABULAR, TEXTS, class_rows, run_inputs, write_csv, write_jsonl
from trainer_image.data.rows import known
from trainer_image.engine import looking
from trainer_image.engine.rendezvous import inputs_of, order_for, order_of_node
from trainer_image.engine.training import train
from trainer_image.tasks.base import Problem

# The network alone: the other models are fitted afresh.
WORDS = TEXTS.replace("preset: fast", "preset: fast, candidates: [network]").replace("epochs: 2", "epochs: 3")
HEADER = ["a", "b", "colour", "y"]


def nonsense(count: int, seed: int) -> list[dict[str, str]]:
    """Texts of which nobody can tell the label."""
    random = np.random.default_rng(seed)
    words = np.array([f"w{number}" for number in range(5000)])
    return [{"text": " ".join(random.choice(words, 20)), "label": str(random.integers(2))} for _ in range(count)]


def trained(data: Path, out: Path, config: str = TABULAR, initial: Path | None = None) -> dict[str, Any]:
    train(run_inputs(data, out, config, initial=initial))
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_what_cannot_be_learnt_stays_at_chance_when_rows_are_put_in_front_and_the_model_goes_on(tmp_path: Path) -> None:
    texts = nonsense(400, 0)
    write_jsonl(tmp_path / "data" / "train.jsonl", texts)
    first = trained(tmp_path / "data", tmp_path / "first", WORDS)
    assert first["history"][-1]["loss"] < 0.2, "it has the training rows by heart"
    write_jsonl(tmp_path / "data" / "train.jsonl", [*nonsense(60, 1), *texts])
    again = trained(tmp_path / "data", tmp_path / "again", WORDS, initial=tmp_path / "first")
    assert any("tensors were taken from the previous model" in note for note in again["training"]["notes"])
    before = again["dataset"]["before"]
    assert before == {"known": True, "rows": 0, "of": again["dataset"]["rows"]["test"], "tested": before["of"]}
    assert before["of"] > first["dataset"]["rows"]["test"]
    assert abs(again["metrics"]["accuracy"] - 0.5) < 4 * 0.5 / before["of"] ** 0.5
    assert again["verdict"]["level"] != "good"


def test_what_the_model_before_was_trained_on_is_left_out_of_the_test_or_said_to_be_all_of_it(tmp_path: Path) -> None:
    data, rows = tmp_path / "data", class_rows(150)
    write_csv(data / "train.csv", HEADER, rows[:100])
    trained(data, tmp_path / "first")
    # Columns in another order are the same rows.
    write_csv(data / "test.csv", HEADER[::-1], [row[::-1] for row in rows[60:]])
    write_csv(data / "train.csv", HEADER, rows[:60])
    some = trained(data, tmp_path / "some", initial=tmp_path / "first")
    knew = known.read(tmp_path / "first")
    assert knew is not None
    count = some["dataset"]["before"]["rows"]
    assert 25 <= count <= 40
    assert some["dataset"]["before"] == {"known": True, "rows": count, "of": 90, "tested": 90 - count}
    assert some["dataset"]["rows"]["test"] == 90 - count
    assert f"Left out are {count} of 90 test rows" in some["verdict"]["sentence"]
    again = known.read(tmp_path / "some")
    assert again is not None
    assert set(knew.trained.tolist()) <= set(again.trained.tolist()), "what its first weights knew, it knows"
    write_csv(data / "test.csv", HEADER, rows[:20])
    every = trained(data, tmp_path / "every", initial=tmp_path / "some")
    assert every["dataset"]["before"] == {"known": True, "rows": 20, "of": 20, "tested": 0}
    assert every["verdict"]["level"] == "bad"
    assert not every["verdict"]["better_than_baselines"]
    assert every["verdict"]["sentence"].startswith("THIS MODEL WAS TESTED ON ROWS THAT IT KNOWS")
    (tmp_path / "first" / known.NAME).unlink()
    unknown = trained(data, tmp_path / "unknown", initial=tmp_path / "first")
    assert unknown["dataset"]["before"] == {"known": False}
    assert unknown["verdict"]["level"] != "good"
    assert "It is not known which rows the model was trained on" in unknown["verdict"]["sentence"]


def test_a_column_more_does_not_make_known_rows_new_ones(tmp_path: Path) -> None:
    data, rows = tmp_path / "data", class_rows(120)
    write_csv(data / "train.csv", HEADER, rows)
    trained(data, tmp_path / "first")
    wider = [[*row, n * 7 % 11] for n, row in enumerate(rows)]
    write_csv(data / "train.csv", [*HEADER, "more"], wider)
    again = trained(data, tmp_path / "again", initial=tmp_path / "first")
    assert again["dataset"]["before"]["rows"] == 0
    first, second = known.read(tmp_path / "first"), known.read(tmp_path / "again")
    assert first is not None
    assert second is not None
    assert first.tested.tolist() == second.tested.tolist()


def test_a_plug_in_that_knows_nothing_of_it_is_judged_by_the_other_rows() -> None:
    class Plain:
        hashes, left_out = None, 0

        def __init__(self, test: Tensor) -> None:
            self.splits = {name: {"x": torch.arange(20.0)[:, None]} for name in ("train", "validation")}
            self.splits["test"] = {"x": test[:, None]}
            self.notes: list[str] = []

    first = cast("Problem", Plain(torch.arange(20.0, 30.0)))
    hashes = looking.hashes_of(first)
    assert hashes is not None
    knew = known.known(hashes.content, hashes.of["train"], hashes.of["test"])
    second = cast("Problem", Plain(torch.arange(15.0, 25.0)))
    before = looking.before(second, looking.hashes_of(second), knew)
    assert before.counted.tolist() == [5, 6, 7, 8, 9]
    assert before.said == {"known": True, "rows": 5, "of": 10, "tested": 5}
    assert second.notes == [
        "Warm start: the model before was trained on 5 of 10 test rows; the figures are of the others.",
        "Warm start: the model before was trained on 20 of 20 validation rows, too: the choice among the models leans"
        " towards its weights.",
    ]
    third = cast("Problem", Plain(torch.arange(5.0)))
    assert looking.before(third, looking.hashes_of(third), knew).counted.tolist() == [0, 1, 2, 3, 4]


def test_every_process_gets_to_know_which_model_it_begins_with(tmp_path: Path) -> None:
    inputs = run_inputs(tmp_path, tmp_path / "out", initial=tmp_path / "first")
    order = json.loads(order_for(inputs, 1, torch.device("cpu")))
    assert inputs_of(order).initial == tmp_path / "first"
    theirs = json.loads(order_for(replace(inputs, initial=tmp_path / "here"), 1, torch.device("cpu")))
    assert inputs_of(json.loads(order_of_node(order, theirs))).initial == tmp_path / "here"
