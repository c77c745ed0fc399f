"""A training on several nodes: the quality of one, and whoever is lost ends the others at once, as what it is."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from tests.world.nodes import ADDRESS, Node, free_port, train_together
from tests.world.training_data import TABULAR, class_table, run_inputs
from trainer_image.contract import Place, RunResult
from trainer_image.worker.child import Worker

CONFIG = TABULAR.replace("epochs: 3", "epochs: 8")


def test_two_workers_train_one_model_each_with_folders_of_its_own(tmp_path: Path) -> None:
    places = [Place(node, 2, ADDRESS, free_port()) for node in range(2)]
    places[1] = replace(places[1], port=places[0].port)
    inputs = [
        replace(
            run_inputs(class_table(tmp_path / f"data-{place.node}"), tmp_path / f"work-{place.node}" / "output"),
            place=place,
        )
        for place in places
    ]
    for given in inputs:
        given.output.mkdir(parents=True)
    with Worker("engine") as first, Worker("engine") as second:
        following = threading.Thread(target=second.follow, args=(inputs[1],))
        following.start()
        trained = first.train(inputs[0])
        following.join(10)
        assert not following.is_alive()
    assert trained.metrics["accuracy"] > trained.baselines["trivial"]["accuracy"]
    assert list(inputs[1].output.iterdir()) == []


def test_two_and_three_nodes_give_the_quality_of_one(tmp_path: Path) -> None:
    data = class_table(tmp_path / "data", 240)
    found = []
    for count in (1, 2, 3):
        nodes = [Node(tmp_path / f"{count}-{number}", data, CONFIG) for number in range(count)]
        trained, *followed = train_together(nodes)
        assert isinstance(trained, RunResult)
        assert followed == [None] * (count - 1)
        found.append(trained)
    for trained in found[1:]:
        assert trained.steps == found[0].steps
        assert trained.metrics["accuracy"] == found[0].metrics["accuracy"]
        assert abs(trained.metrics["log_loss"] - found[0].metrics["log_loss"]) < 0.02
