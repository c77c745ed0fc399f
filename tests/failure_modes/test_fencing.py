"""F22, F24, F31: a pod that runs twice, or dies at any moment, with real processes on a real blob service.

What a reader finds in latest.json is the old model or the new one, whole; who does not publish says nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobLeaseClient, BlobServiceClient

from local_stack.azurite import Azurite
from local_stack.processes import bare_environment, wait_until
from tests.world.processes import children, state
from tests.world.repository import ROOT
from tests.world.training_data import class_table
from trainer_image.storage.azure import open_container
from trainer_image.storage.container import Container
from trainer_image.transfer import fetch_model, lease, publish

pytestmark = pytest.mark.long

OLD, RUN, NEWER = "20261122t000000-00000000", "20261123t081500-aaaaaaaa", "20261124t000000-bbbbbbbb"


class House:
    """One model's container with an old model in it, a dataset, and pods."""

    def __init__(self, folder: Path, connection_string: str) -> None:
        self.folder, self.connection_string = folder, connection_string
        name = secrets.token_hex(6)
        self.model, self.dataset = f"model-{name}", f"dataset-{name}"
        self.service = BlobServiceClient.from_connection_string(connection_string)
        self.service.create_container(self.model)
        self.service.create_container(self.dataset).upload_blob("train.csv", b"a,b\n1,2\n3,4\n")
        self.configure("task: tabular\ndata: {target: b}\n")
        old = folder / f"old-{name}"
        old.mkdir()
        (old / "model.safetensors").write_text(OLD)
        publish.publish(self.container, old, OLD, publish.Latest(None))
        self.pods: list[subprocess.Popen[str]] = []

    @property
    def container(self) -> Container:
        return open_container(self.connection_string, None, self.model)

    def configure(self, text: str) -> None:
        self.service.get_blob_client(self.model, "config.yaml").upload_blob(text.encode(), overwrite=True)

    def plan(self, name: str, run_id: str, **more: Any) -> dict[str, Any]:
        where = {"folder": str(self.folder), "model": self.model, "dataset": self.dataset}
        return {"name": name, "run_id": run_id, "connection_string": self.connection_string, **where, **more}

    def start(self, *plans: dict[str, Any]) -> subprocess.Popen[str]:
        pod = subprocess.Popen(
            [sys.executable, "-m", "tests.failure_modes.trainer_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=bare_environment(),
            start_new_session=True,  # a pod that still trains ends with its group
        )
        assert pod.stdin is not None
        pod.stdin.write(json.dumps(plans))
        pod.stdin.close()
        self.pods.append(pod)
        return pod

    def codes(self, pod: subprocess.Popen[str], seconds: float = 90) -> list[int]:
        pod.wait(seconds)
        assert pod.stdout is not None
        return list(json.loads(pod.stdout.read().splitlines()[-1]))

    def training(self, name: str) -> None:
        wait_until((self.folder / f"{name}.training").exists, 60, what=f"pod {name} to train")

    def go(self, name: str) -> None:
        (self.folder / f"{name}.go").touch()

    def ended(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / f"{name}.json").read_text()))

    def let_the_lease_run_out(self) -> None:
        """What a quarter of a minute does."""
        BlobLeaseClient(self.service.get_blob_client(self.model, lease.LEASE)).break_lease(0)

    def published(self) -> str:
        """The run in latest.json; every file of it was compared with its manifest."""
        latest = publish.read_latest(self.container)
        place = self.folder / f"read-{secrets.token_hex(4)}"
        fetch_model.fetch_model(self.container, latest, place)
        assert latest.run_id is not None
        return latest.run_id


@pytest.fixture
def house(azurite: Azurite, tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, azurite.connection_string)
    yield made
    for pod in made.pods:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pod.pid, signal.SIGKILL)
        pod.wait(10)


def test_f22_of_two_pods_of_one_run_one_publishes_and_the_other_says_nothing(house: House) -> None:
    first = house.start(house.plan("first", RUN, hold=True))
    house.training("first")
    second = house.start(house.plan("second", RUN, wait=1.0))
    assert house.codes(second) == [204]
    assert house.ended("second") == {"code": "Fenced", "puts": []}
    assert house.published() == OLD
    house.go("first")
    assert house.codes(first) == [0]
    assert [status for status, _ in house.ended("first")["puts"]] == ["Completed"]
    assert house.published() == RUN


def test_f22_a_pod_of_a_lost_node_that_comes_back_finds_a_newer_run_and_stops(house: House) -> None:
    # It has not looked at its lease since its node stood still, and looks before it publishes.
    zombie = house.start(house.plan("zombie", RUN, hold=True, renew=60.0))
    house.training("zombie")
    (child,) = children(zombie.pid)
    os.kill(child, signal.SIGSTOP)
    newer = house.start(house.plan("newer", NEWER, hold=True))
    house.training("newer")
    house.go("zombie")
    os.kill(child, signal.SIGCONT)
    assert house.codes(zombie) == [204]
    assert house.ended("zombie") == {"code": "Fenced", "puts": []}
    assert house.published() == OLD
    house.go("newer")
    assert house.codes(newer) == [0]
    assert house.published() == NEWER


def test_f22_a_pod_that_comes_back_after_the_newer_run_has_ended_publishes_nothing(house: House) -> None:
    zombie = house.start(house.plan("zombie", RUN, hold=True, renew=60.0))
    house.training("zombie")
    assert house.codes(house.start(house.plan("newer", NEWER))) == [0]
    house.go("zombie")
    assert house.codes(zombie) == [204]
    assert house.ended("zombie") == {"code": "Fenced", "puts": []}
    assert house.published() == NEWER


def test_f22_an_older_run_that_still_trains_is_stopped_by_a_newer_one(house: House) -> None:
    older = house.start(house.plan("older", RUN, hold=True))
    house.training("older")
    assert house.codes(house.start(house.plan("newer", NEWER))) == [0]
    assert house.codes(older) == [204], "it was not told to go on: its lease has told it"
    assert house.ended("older")["puts"] == []
    assert house.published() == NEWER


@pytest.mark.parametrize("number", [5, 7], ids=["last file", "latest.json"])
def test_f22_a_pod_that_stood_still_while_it_published_spoils_nothing(house: House, number: int) -> None:
    zombie = house.start(house.plan("zombie", RUN, freeze=[number, "before"], renew=60.0))
    house.training("zombie")
    (child,) = children(zombie.pid)
    wait_until(lambda: state(child) == "T", 60, what="the pod to stand still")
    house.let_the_lease_run_out()
    assert house.codes(house.start(house.plan("replacement", RUN))) == [0]
    os.kill(child, signal.SIGCONT)
    assert house.codes(zombie) == [204]
    assert house.ended("zombie") == {"code": "Fenced", "puts": []}
    assert house.published() == RUN, "whole, as its manifest says"
    assert json.loads(house.container.read(f"runs/{RUN}/model.json", 1000)[0])["pod"] == "replacement"


def test_f31_a_kill_at_any_write_leaves_the_old_model_or_the_new_one_whole(azurite: Azurite, tmp_path: Path) -> None:
    # Writes of one run: the lease's blob, five files, the manifest, latest.json.
    points = [(number, side) for number in range(8) for side in ("before", "after")]
    houses = [House(tmp_path, azurite.connection_string) for _ in points]
    plans = [house.plan(f"pod-{n}", RUN, kill=points[n]) for n, house in enumerate(houses)]
    assert houses[0].codes(houses[0].start(*plans)) == [-signal.SIGKILL] * len(points)
    published = {point: house.published() for point, house in zip(points, houses, strict=True)}
    assert published == {point: RUN if point == (7, "after") else OLD for point in points}
    halfway = houses[points.index((6, "after"))]
    assert halfway.codes(halfway.start(halfway.plan("last", NEWER))) == [0]
    assert halfway.published() == NEWER, "what a dead pod left behind is in nobody's way"


def test_f24_a_killed_training_goes_on_from_its_checkpoint(house: House, tmp_path: Path) -> None:
    model = "{preset: fast, candidates: [linear, network]}"
    house.configure(f"task: tabular\ndata: {{target: y}}\nmodel: {model}\ntrain: {{epochs: 60}}\n")
    table = (class_table(tmp_path / "table") / "train.csv").read_bytes()
    house.service.get_blob_client(house.dataset, "train.csv").upload_blob(table, overwrite=True)
    killed = house.plan("killed", RUN, real=True, kill_at_checkpoint=True)
    assert house.codes(house.start(killed)) == [-signal.SIGKILL]
    house.let_the_lease_run_out()
    assert house.codes(house.start(house.plan("replacement", RUN, real=True))) == [0]
    assert house.published() == RUN
    report = json.loads(house.container.read(f"runs/{RUN}/report.json", 10**7)[0])
    # 0: the candidates were fitted, and the network had not begun.
    assert report["training"]["resumed_from_step"] is not None
